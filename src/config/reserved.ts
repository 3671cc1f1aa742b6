/** Names that a configuration may not use, because Cloakroom decides what goes there. */

const HOP_BY_HOP = [
  'connection',
  'keep-alive',
  'proxy-connection',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-authentication-info',
  'te',
  'trailer',
  'trailers',
  'transfer-encoding',
  'upgrade',
  'http2-settings',
];

const FRAMING = ['content-length', 'host', 'expect'];

/** Headers by which upstreams learn who is calling; a browser that could send one could be anyone. */
const IDENTITY = [
  'authorization',
  'cookie',
  'cookie2',
  'dpop',
  'forwarded',
  'from',
  'remote-user',
  'ssl-client-cert',
  'true-client-ip',
  'cf-connecting-ip',
  'via',
  'x-client-cert',
  'x-client-ip',
  'x-cluster-client-ip',
  'x-csrf',
  'x-envoy-external-address',
  'x-http-method',
  'x-http-method-override',
  'x-method-override',
  'x-original-host',
  'x-original-uri',
  'x-original-url',
  'x-real-ip',
  'x-remote-user',
  'x-request-id',
  'x-rewrite-url',
];

const REQUEST_HEADERS = new Set([...HOP_BY_HOP, ...FRAMING, ...IDENTITY]);
const REQUEST_HEADER_PREFIXES = [
  'x-forwarded-',
  'x-auth-request-',
  'x-ms-client-principal',
  'sec-websocket-',
  'proxy-',
];

/** Header names a route may not let through to its upstream. Nodes differ on `_` and `-`, so both count. */
export function isReservedRequestHeader(name: string): boolean {
  const plain = name.toLowerCase().replaceAll('_', '-');
  return (
    REQUEST_HEADERS.has(plain) ||
    plain === 'x-forwarded' ||
    REQUEST_HEADER_PREFIXES.some((prefix) => plain.startsWith(prefix))
  );
}

const RESPONSE_HEADER_PREFIXES = ['access-control-', 'sec-websocket-'];
const RESPONSE_HEADERS = new Set([
  ...HOP_BY_HOP,
  'cloakroom-answer',
  'content-length',
  'set-cookie',
  'set-cookie2',
  'x-request-id',
]);

/** Header names a route may not let through from its upstream. */
export function isReservedResponseHeader(name: string): boolean {
  const plain = name.toLowerCase();
  return RESPONSE_HEADERS.has(plain) || RESPONSE_HEADER_PREFIXES.some((prefix) => plain.startsWith(prefix));
}

export function isReservedCookie(name: string): boolean {
  return /^(__host-|__secure-)?cloakroom(-|$)/i.test(name);
}

/** Parameters of the authorization request that the flow sets itself, or that would bypass it (RFC 9101). */
const AUTHORIZATION_PARAMETERS = new Set([
  'acr_values',
  'client_id',
  'client_secret',
  'code_challenge',
  'code_challenge_method',
  'dpop_jkt',
  'id_token_hint',
  'login_hint',
  'max_age',
  'nonce',
  'prompt',
  'redirect_uri',
  'request',
  'request_uri',
  'response_mode',
  'response_type',
  'scope',
  'state',
  'ui_locales',
]);

export function isReservedAuthorizationParameter(name: string): boolean {
  return AUTHORIZATION_PARAMETERS.has(name.toLowerCase());
}

/** A token of RFC 9110 section 5.6.2, without `*`: header allow-lists name headers one by one. */
export const NAME_TOKEN = /^[!#$%&'+.^_`|~0-9A-Za-z-]+$/;

// @ts-check
// The demo's identity provider: the npm package oidc-provider with pages, users and limits of our own.
import { randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import { exportJWK, generateKeyPair } from 'jose';
import {
  ICON,
  STYLE,
  SUBMIT_SCRIPT,
  consentPage,
  loginPage,
  logoutPage,
  messagePage,
  portrait,
} from './provider-pages.js';
import { createProviderStore } from './provider-store.js';

/** @typedef {import('oidc-provider').ClientMetadata} ClientMetadata */
/** @typedef {import('oidc-provider').KoaContextWithOIDC} Context */
/** @typedef {import('node:http').IncomingMessage} IncomingMessage */
/** @typedef {import('node:http').ServerResponse} ServerResponse */

/**
 * What the provider ever handed out or was shown, for tests that search for it where it must not be. An empty
 * object is enough: whatever is missing is added at the start.
 *
 * @typedef {object} Ledger
 * @property {string[]} [codes]
 * @property {string[]} [accessTokens]
 * @property {string[]} [refreshTokens]
 * @property {string[]} [idTokens]
 * @property {string[]} [verifiers] PKCE verifiers the token endpoint was shown
 * @property {string[]} [clientSecrets]
 * @property {string[]} [revoked] tokens the revocation endpoint was shown
 * @property {Record<string, number>} [grants] token requests that were answered with tokens, by grant type
 * @property {Record<string, number>} [refusals] token requests that were refused, by `<grant type>:<error>`
 * @property {number} [logouts] sessions ended at the end-session endpoint
 * @property {(answer: GrantAnswer) => void} [onGrant] called for each answer of the token endpoint
 */

/**
 * @typedef {object} GrantAnswer
 * @property {string} grantType
 * @property {number} status
 * @property {string | undefined} error
 * @property {Record<string, unknown>} body
 */

/** The people who can sign in; the password is the name. */
const PEOPLE = new Map([
  ['alice', { name: 'Alice Albers', given_name: 'Alice', family_name: 'Albers' }],
  ['bob', { name: 'Bob Bakker', given_name: 'Bob', family_name: 'Bakker' }],
]);

const DEFAULT_TTL = {
  AccessToken: 60,
  AuthorizationCode: 60,
  Grant: 14 * 24 * 3600,
  IdToken: 3600,
  Interaction: 3600,
  RefreshToken: 14 * 24 * 3600,
  Session: 14 * 24 * 3600,
};

const FORM_LIMIT = 4096;

async function loadProvider() {
  // oidc-provider asks for a newer Node than the demo does. URL.parse is the only thing it uses that Node 20
  // lacks, and its warning about the version would be the first thing a person sees.
  if (typeof URL.parse !== 'function') {
    URL.parse = (input, base) => (URL.canParse(input, base) ? new URL(input, base) : null);
  }
  const warn = console.warn;
  console.warn = () => {};
  try {
    return await import('oidc-provider');
  } finally {
    console.warn = warn;
  }
}

/**
 * @param {object} options
 * @param {number} options.port 0 takes a free one; `issuer` must then be left out
 * @param {string} [options.host]
 * @param {string} [options.issuer] default: the address it listens on
 * @param {ClientMetadata[]} options.clients
 * @param {string | null} [options.audience] the API that access tokens are for (JWTs); null: opaque tokens for userinfo
 * @param {Partial<typeof DEFAULT_TTL>} [options.ttl] seconds
 * @param {Ledger} [options.ledger]
 * @param {(line: string) => void} [options.log] gets a line when a request fails unexpectedly
 * @returns {Promise<{ server: import('node:http').Server, issuer: string, close: () => Promise<void> }>}
 */
export async function startProvider({
  port,
  host = '127.0.0.1',
  issuer,
  clients,
  audience = 'http://127.0.0.1:3002/',
  ttl = {},
  ledger = {},
  log = () => {},
}) {
  const { Provider, errors } = await loadProvider();
  const server = createServer();
  // A free port is known only after listening, and the issuer depends on it: requests wait for the handler.
  await new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, host, () => resolve(undefined));
  });
  const address = /** @type {import('node:net').AddressInfo} */ (server.address());
  const issuedBy = issuer ?? `http://${host.includes(':') ? `[${host}]` : host}:${String(address.port)}`;

  const { privateKey } = await generateKeyPair('RS256', { extractable: true });
  const signingKey = {
    ...(await exportJWK(privateKey)),
    kid: randomBytes(8).toString('hex'),
    use: 'sig',
    alg: 'RS256',
  };

  const provider = new Provider(issuedBy, {
    adapter: createProviderStore(),
    clients,
    jwks: { keys: [signingKey] },
    ttl: { ...DEFAULT_TTL, ...ttl },
    cookies: {
      keys: [randomBytes(32).toString('base64url')],
      names: { session: 'idp-session', interaction: 'idp-interaction', resume: 'idp-resume' },
    },
    scopes: ['openid', 'offline_access', 'orders'],
    responseTypes: ['code'],
    pkce: { required: () => true },
    rotateRefreshToken: true,
    // The claims of the scopes come in the ID token, so that an application needs no further request.
    conformIdTokenClaims: false,
    claims: {
      openid: ['sub'],
      profile: ['name', 'given_name', 'family_name', 'preferred_username', 'picture'],
      email: ['email', 'email_verified'],
    },
    findAccount: (_context, sub) => account(issuedBy, sub),
    // oidc-provider drops offline_access unless each login also asks for consent again. Most providers do not
    // insist on that, so the scope is put back after its check and consent is asked for once.
    extraParams: {
      offline: (/** @type {Context} */ context) => {
        const asked = String(context.query['scope'] ?? '').split(' ');
        const params = /** @type {{ scope?: string }} */ (context.oidc.params);
        const kept = (params.scope ?? '').split(' ');
        if (asked.includes('offline_access') && !kept.includes('offline_access')) {
          params.scope = [...kept, 'offline_access'].join(' ').trim();
        }
      },
    },
    features: {
      devInteractions: { enabled: false },
      pushedAuthorizationRequests: { enabled: false },
      dPoP: { enabled: false },
      revocation: {
        enabled: true,
        allowedPolicy: (_context, client, token) => token.clientId === client.clientId,
      },
      resourceIndicators: {
        enabled: true,
        defaultResource: (_context, _client, oneOf) => oneOf ?? audience ?? [],
        useGrantedResource: () => true,
        getResourceServerInfo: (_context, resource) => {
          if (audience === null || resource !== audience) throw new errors.InvalidTarget();
          return { scope: 'openid profile email offline_access orders', audience, accessTokenFormat: 'jwt' };
        },
      },
      rpInitiatedLogout: {
        enabled: true,
        logoutSource: (context, form) => {
          const hint = context.oidc.entities.IdTokenHint?.payload['sub'];
          const confirmed = hint !== undefined && hint === context.oidc.session?.accountId;
          context.set('content-security-policy', policy);
          context.body = logoutPage({ issuer: issuedBy, form, confirmed });
        },
        postLogoutSuccessSource: (context) => {
          context.set('content-security-policy', policy);
          context.body = messagePage({
            issuer: issuedBy,
            title: 'Signed out',
            text: 'Your session here has ended.',
          });
        },
      },
    },
    interactions: { url: (_context, interaction) => `/interaction/${interaction.uid}` },
    renderError: (context, out) => {
      context.type = 'html';
      context.set('content-security-policy', policy);
      context.body = messagePage({
        issuer: issuedBy,
        title: 'This did not work',
        text: out.error_description ? `${out.error}: ${out.error_description}` : out.error,
      });
    },
  });
  provider.silent = true;
  provider.on('server_error', (_context, error) => log(`provider: ${error.message}`));

  // A form's target and every redirect after it must be named, or Chromium stops on the way back to the application.
  const returnOrigins = clients.flatMap((client) =>
    [...(client.redirect_uris ?? []), ...(client.post_logout_redirect_uris ?? [])].map(
      (uri) => new URL(uri).origin,
    ),
  );
  const policy = [
    "default-src 'none'",
    "style-src 'self'",
    "img-src 'self'",
    "script-src 'self'",
    "base-uri 'none'",
    "frame-ancestors 'none'",
    `form-action 'self' ${[...new Set(returnOrigins)].join(' ')}`,
  ].join('; ');

  record(provider, ledger, clients);
  const protocol = provider.callback();
  const pages = interactionPages({ provider, issuer: issuedBy, policy });

  server.on('request', (request, response) => {
    const path = (request.url ?? '/').split('?', 1)[0] ?? '/';
    if (path === '/' || path.startsWith('/assets/') || path.startsWith('/interaction/')) {
      pages(request, response, path).catch((/** @type {unknown} */ error) => {
        log(`provider: ${error instanceof Error ? error.message : String(error)}`);
        if (response.headersSent) response.destroy();
        else
          respond(
            response,
            500,
            policy,
            messagePage({ issuer: issuedBy, title: 'This did not work', text: 'Try again.' }),
          );
      });
    } else {
      void protocol(request, response);
    }
  });

  return {
    server,
    issuer: issuedBy,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

/**
 * @param {string} issuer
 * @param {string} sub
 */
function account(issuer, sub) {
  const person = PEOPLE.get(sub);
  if (person === undefined) return undefined;
  return {
    accountId: sub,
    claims: () => ({
      sub,
      ...person,
      preferred_username: sub,
      picture: new URL(`/assets/people/${sub}.svg`, issuer).href,
      email: `${sub}@example.com`,
      email_verified: true,
    }),
  };
}

/**
 * Writes down what leaves the authorization and token endpoints. Reads the answers on their way out, so that
 * nothing that was issued can be missed, whatever the grant.
 *
 * @param {import('oidc-provider').Provider} provider
 * @param {Ledger} ledger
 * @param {ClientMetadata[]} clients
 */
function record(provider, ledger, clients) {
  const codes = (ledger.codes ??= []);
  const accessTokens = (ledger.accessTokens ??= []);
  const refreshTokens = (ledger.refreshTokens ??= []);
  const idTokens = (ledger.idTokens ??= []);
  const verifiers = (ledger.verifiers ??= []);
  const clientSecrets = (ledger.clientSecrets ??= []);
  const revoked = (ledger.revoked ??= []);
  const grants = (ledger.grants ??= {});
  const refusals = (ledger.refusals ??= {});
  ledger.logouts ??= 0;
  for (const client of clients) if (client.client_secret) clientSecrets.push(client.client_secret);

  // The published types know this event without its second argument, which holds the code.
  /** @type {import('node:events').EventEmitter} */
  const emitter = provider;
  emitter.on('authorization.success', (_context, /** @type {{ code?: string }} */ answer) => {
    if (answer.code) codes.push(answer.code);
  });
  provider.on('end_session.success', () => {
    ledger.logouts = (ledger.logouts ?? 0) + 1;
  });

  provider.use(async (context, next) => {
    await next();
    const { oidc } = /** @type {Context} */ (context);
    const params = /** @type {Record<string, string | undefined>} */ (oidc?.params ?? {});
    if (oidc?.route === 'revocation' && params['token']) revoked.push(params['token']);
    if (oidc?.route !== 'token') return;

    const body = /** @type {Record<string, unknown>} */ (context.body ?? {});
    const grantType = params['grant_type'] ?? '';
    const error = typeof body['error'] === 'string' ? body['error'] : undefined;
    if (params['code_verifier']) verifiers.push(params['code_verifier']);
    if (typeof body['access_token'] === 'string') accessTokens.push(body['access_token']);
    if (typeof body['refresh_token'] === 'string') refreshTokens.push(body['refresh_token']);
    if (typeof body['id_token'] === 'string') idTokens.push(body['id_token']);
    if (error === undefined) {
      grants[grantType] = (grants[grantType] ?? 0) + 1;
    } else {
      const key = `${grantType}:${error}`;
      refusals[key] = (refusals[key] ?? 0) + 1;
    }
    ledger.onGrant?.({ grantType, status: context.status, error, body });
  });
}

/**
 * Login, consent and the files they use.
 *
 * @param {{ provider: import('oidc-provider').Provider, issuer: string, policy: string }} setup
 * @returns {(request: IncomingMessage, response: ServerResponse, path: string) => Promise<void>}
 */
function interactionPages({ provider, issuer, policy }) {
  /** @type {Map<string, [type: string, body: string]>} */
  const assets = new Map([
    ['/assets/style.css', ['text/css; charset=utf-8', STYLE]],
    ['/assets/submit.js', ['text/javascript; charset=utf-8', SUBMIT_SCRIPT]],
    ['/assets/icon.svg', ['image/svg+xml', ICON]],
  ]);
  for (const [sub, { given_name }] of PEOPLE) {
    assets.set(`/assets/people/${sub}.svg`, ['image/svg+xml', portrait(given_name.slice(0, 1))]);
  }

  return async (request, response, path) => {
    const asset = assets.get(path);
    if (asset !== undefined) {
      response.writeHead(200, {
        'content-type': asset[0],
        'cache-control': 'max-age=300',
        'x-content-type-options': 'nosniff',
      });
      response.end(asset[1]);
      return;
    }
    if (path === '/') {
      const text =
        'This is the identity provider of the demo. You come here when an application asks you to sign in.';
      respond(response, 200, policy, messagePage({ issuer, title: 'Demo Identity', text }));
      return;
    }

    const [, , uid = '', step = ''] = path.split('/');
    const interaction = await provider.interactionDetails(request, response).catch(() => undefined);
    if (interaction === undefined || interaction.uid !== uid) {
      const text = 'This sign-in was finished or took too long. Go back to the application and start again.';
      respond(response, 400, policy, messagePage({ issuer, title: 'Nothing to do here', text }));
      return;
    }

    const client = await provider.Client.find(String(interaction.params['client_id']));
    const clientName = client?.clientName ?? client?.clientId ?? 'an application';
    const route = `${request.method ?? ''} ${step}`;
    const { prompt, params } = interaction;

    if (route === 'GET ' || route === 'HEAD ') {
      if (prompt.name === 'login') {
        const hint = String(params['login_hint'] ?? '').slice(0, 64);
        respond(response, 200, policy, loginPage({ issuer, uid, client: clientName, username: hint }));
      } else {
        const sub = interaction.session?.accountId ?? '';
        const page = consentPage({
          issuer,
          uid,
          client: clientName,
          name: PEOPLE.get(sub)?.given_name ?? sub,
          returnsTo: new URL(String(params['redirect_uri'])).host,
          scopes: [...new Set(String(params['scope'] ?? '').split(' '))].filter(Boolean),
        });
        respond(response, 200, policy, page);
      }
      return;
    }

    if (route === 'POST abort') {
      const result = { error: 'access_denied', error_description: 'The person went back.' };
      await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: false });
      return;
    }

    if (route === 'POST login' && prompt.name === 'login') {
      const form = await readForm(request);
      const username = (form?.get('username') ?? '').trim().toLowerCase();
      if (form === undefined || !PEOPLE.has(username) || form.get('password') !== username) {
        const problem = PEOPLE.has(username)
          ? `That is not the password of ${username}. In this demo it is the name itself: ${username}.`
          : 'Nobody has that name here. Sign in as alice (password alice) or bob (password bob).';
        const page = loginPage({ issuer, uid, client: clientName, username: username.slice(0, 64), problem });
        respond(response, 400, policy, page);
        return;
      }
      const result = { login: { accountId: username, amr: ['pwd'] } };
      await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: false });
      return;
    }

    if (route === 'POST consent' && prompt.name === 'consent') {
      request.resume();
      const sub = interaction.session?.accountId;
      const found = interaction.grantId ? await provider.Grant.find(interaction.grantId) : undefined;
      const grant = found ?? new provider.Grant({ accountId: sub, clientId: String(params['client_id']) });
      grant.addOIDCScope(String(params['scope'] ?? 'openid'));
      const missing = /** @type {Record<string, string[]>} */ (prompt.details['missingResourceScopes'] ?? {});
      for (const [resource, scopes] of Object.entries(missing))
        grant.addResourceScope(resource, scopes.join(' '));
      const result = { consent: { grantId: await grant.save() } };
      await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: true });
      return;
    }

    const text = 'This step is not the one that is due. Go back to the application and start again.';
    respond(response, 400, policy, messagePage({ issuer, title: 'Nothing to do here', text }));
  };
}

/**
 * @param {IncomingMessage} request
 * @returns {Promise<URLSearchParams | undefined>} undefined when it is too large
 */
async function readForm(request) {
  let text = '';
  for await (const chunk of request.setEncoding('utf8')) {
    text += String(chunk);
    if (text.length > FORM_LIMIT) return undefined;
  }
  return new URLSearchParams(text);
}

/**
 * @param {ServerResponse} response
 * @param {number} status
 * @param {string} policy
 * @param {string} page
 */
function respond(response, status, policy, page) {
  response.writeHead(status, {
    'content-type': 'text/html; charset=utf-8',
    'content-security-policy': policy,
    'cache-control': 'no-store',
    'referrer-policy': 'no-referrer',
    'x-content-type-options': 'nosniff',
  });
  response.end(page);
}

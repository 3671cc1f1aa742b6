// @ts-check
// An OpenID Provider with nobody in it: just enough for real logins, with tokens of the sizes that real ones have.
import { createHash, generateKeyPairSync, randomBytes, sign } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { promisify } from 'node:util';

const signAsync = promisify(sign);
const KID = 'bench-1';
const ACCESS_TOKEN_BYTES = 1024;
/** Seconds; no token is to run out while the load runs. */
const LIFETIME = 7200;

/** @typedef {{ challenge: string, nonce: string, subject: string }} Grant */

/** @param {{ clientId: string }} options */
export async function startProvider({ clientId }) {
  const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  /** @type {Map<string, Grant>} */
  const grants = new Map();
  let people = 0;
  let issuer = '';

  const server = createServer((request, response) => {
    answer(request, response).catch((error) => {
      response.destroy();
      console.error(`bench provider: ${String(error)}`);
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address());
  issuer = `http://127.0.0.1:${String(port)}`;

  /**
   * @param {import('node:http').IncomingMessage} request
   * @param {import('node:http').ServerResponse} response
   */
  async function answer(request, response) {
    if (request.url === '/.well-known/openid-configuration') return json(response, 200, metadata(issuer));
    if (request.url === '/jwks') {
      const key = publicKey.export({ format: 'jwk' });
      return json(response, 200, { keys: [{ ...key, kid: KID, use: 'sig', alg: 'RS256' }] });
    }
    if (request.url !== '/token' || request.method !== 'POST') return json(response, 404, {});
    let text = '';
    for await (const chunk of request.setEncoding('utf8')) text += String(chunk);
    const form = new URLSearchParams(text);
    const grant = grants.get(form.get('code') ?? '');
    grants.delete(form.get('code') ?? '');
    const challenge = createHash('sha256')
      .update(form.get('code_verifier') ?? '')
      .digest('base64url');
    if (grant?.challenge !== challenge) return json(response, 400, { error: 'invalid_grant' });
    const accessToken = randomBytes((ACCESS_TOKEN_BYTES * 3) / 4).toString('base64url');
    return json(response, 200, {
      access_token: accessToken,
      token_type: 'Bearer',
      expires_in: LIFETIME,
      refresh_token: randomBytes(150).toString('base64url'),
      id_token: await idToken(grant, accessToken),
      scope: 'openid profile email offline_access',
    });
  }

  /**
   * @param {Grant} grant
   * @param {string} accessToken
   */
  async function idToken({ nonce, subject }, accessToken) {
    const now = Math.floor(Date.now() / 1000);
    const claims = {
      iss: issuer,
      sub: subject,
      aud: clientId,
      azp: clientId,
      exp: now + LIFETIME,
      iat: now,
      auth_time: now,
      nonce,
      acr: '1',
      sid: randomBytes(16).toString('hex'),
      at_hash: createHash('sha256').update(accessToken).digest().subarray(0, 16).toString('base64url'),
      name: 'Alexandra Example-Persson',
      given_name: 'Alexandra',
      family_name: 'Example-Persson',
      preferred_username: `${subject}@example.com`,
      email: `${subject}@example.com`,
      email_verified: true,
      picture: `https://id.example.com/people/${subject}/picture.png`,
      groups: ['/staff/orders', '/staff/support'],
    };
    const header = { alg: 'RS256', typ: 'JWT', kid: KID };
    const input = [header, claims]
      .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
      .join('.');
    return `${input}.${(await signAsync('sha256', Buffer.from(input), privateKey)).toString('base64url')}`;
  }

  return {
    issuer,
    /**
     * What the provider's pages do with a person who is signed in there and agrees.
     *
     * @param {URL} request the authorization request
     * @returns {URL} where the browser is sent back to
     */
    authorize(request) {
      const query = request.searchParams;
      const code = randomBytes(24).toString('base64url');
      people += 1;
      grants.set(code, {
        challenge: query.get('code_challenge') ?? '',
        nonce: query.get('nonce') ?? '',
        subject: `person-${String(people).padStart(6, '0')}`,
      });
      const back = new URL(query.get('redirect_uri') ?? '');
      back.searchParams.set('code', code);
      back.searchParams.set('state', query.get('state') ?? '');
      back.searchParams.set('iss', issuer);
      return back;
    },
    close() {
      server.close();
      server.closeAllConnections();
    },
  };
}

/** @param {string} issuer */
function metadata(issuer) {
  return {
    issuer,
    authorization_endpoint: `${issuer}/authorize`,
    token_endpoint: `${issuer}/token`,
    jwks_uri: `${issuer}/jwks`,
    response_types_supported: ['code'],
    subject_types_supported: ['public'],
    id_token_signing_alg_values_supported: ['RS256'],
    code_challenge_methods_supported: ['S256'],
    authorization_response_iss_parameter_supported: true,
  };
}

/**
 * @param {import('node:http').ServerResponse} response
 * @param {number} status
 * @param {unknown} value
 */
function json(response, status, value) {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(JSON.stringify(value));
}

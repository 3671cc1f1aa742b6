import { randomUUID } from 'node:crypto';
import { Agent, request as httpRequest, type IncomingMessage } from 'node:http';
import { BrowserResponse, type BrowserClient } from './browser-client.js';
import type { Cloakroom } from './cloakroom.js';
import type { FaultProvider } from './fault-provider.js';
import { signJwt, type Json, type SigningKey, type SigningTrick } from './jws.js';
import { eventually } from './lifetime.js';

// What a provider that speaks Back-Channel Logout sends, and what one should not send.

export const LOGOUT_EVENT = 'http://schemas.openid.net/event/backchannel-logout';

/** Whose logout: a session of the provider, a person, or both. */
export interface Whose {
  sub?: string;
  sid?: string;
}

/** How a logout token departs from an ordinary one. */
export interface LogoutTokenChange {
  /** Undefined values remove a claim. */
  claims?: (claims: Json) => Json;
  header?: (header: Json) => Json;
  signing?: SigningTrick;
  key?: SigningKey;
  /** The payload as text. */
  payload?: (claims: Json) => string;
}

/** Changes of claims; undefined removes one. */
export const claims = (change: (claims: Json) => Json): LogoutTokenChange => ({
  claims: (all) => ({ ...all, ...change(all) }),
});

/** @param value of the header; undefined removes it */
export const typ = (value: unknown): LogoutTokenChange => ({
  header: (header) => ({ ...header, typ: value }),
});

/** A logout token as Back-Channel Logout 1.0 section 2.4 recommends it, but for the changes. */
export async function logoutToken(
  provider: FaultProvider,
  { sub, sid }: Whose,
  change: LogoutTokenChange = {},
): Promise<string> {
  const now = Math.floor(Date.now() / 1000) + provider.modes.clockOffset;
  let payload: Json = {
    iss: provider.issuer,
    aud: provider.clientId,
    iat: now,
    exp: now + 120,
    jti: randomUUID(),
    sub,
    sid,
    events: { [LOGOUT_EVENT]: {} },
  };
  if (change.claims !== undefined) payload = change.claims(payload);
  return signJwt({
    key: change.key ?? provider.signingKey,
    header: { typ: 'logout+jwt' },
    payload: change.payload === undefined ? payload : change.payload(payload),
    mutateHeader: change.header,
    trick: change.signing,
    clientSecret: provider.clientSecret,
    ...(provider.modes.foreignUrl === undefined ? {} : { foreignUrl: provider.modes.foreignUrl }),
  });
}

export interface Delivery {
  /** The first provider's address unless told. */
  path?: string;
  method?: string;
  replica?: number;
  /** Instead of `logout_token=<token>`. */
  body?: string | Buffer;
  headers?: Record<string, string>;
}

const agent = new Agent({ keepAlive: true });

/** Posts as a provider does: no cookie, no Origin, nothing that a browser adds. */
export async function deliver(
  room: Cloakroom,
  token: string,
  { path = '/auth/backchannel-logout', method = 'POST', replica, body, headers = {} }: Delivery = {},
): Promise<BrowserResponse> {
  const target = replica === undefined ? room.next() : room.replica(replica);
  const content = body ?? new URLSearchParams({ logout_token: token }).toString();
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    const outgoing = httpRequest({
      host: '127.0.0.1',
      // Past the tap, which records what browsers see.
      port: target.port,
      path,
      method,
      agent,
      headers: {
        'content-type': 'application/x-www-form-urlencoded',
        'content-length': String(Buffer.byteLength(content)),
        ...headers,
      },
    });
    outgoing.setTimeout(30_000, () => outgoing.destroy(new Error('no answer to a logout token')));
    outgoing.once('response', resolve);
    outgoing.once('error', reject);
    outgoing.end(content);
  });
  const chunks: Buffer[] = [];
  for await (const chunk of response as AsyncIterable<Buffer>) chunks.push(chunk);
  return new BrowserResponse(
    path,
    response.statusCode ?? 0,
    response.headers,
    response.rawHeaders,
    Buffer.concat(chunks),
  );
}

/** Somebody signed in, with what the provider knows of it. */
export interface Person {
  client: BrowserClient;
  sub: string;
  sid: string;
}

let people = 0;

/** Signs in somebody new, or somebody known once more. */
export async function person(
  room: Cloakroom,
  sub = `person-${String((people += 1))}`,
  { provider = room.provider, name }: { provider?: FaultProvider; name?: string } = {},
): Promise<Person> {
  const client = room.client();
  const answer = await client.login({
    as: sub,
    ...(name === undefined ? {} : { params: { provider: name } }),
  });
  if (answer.status !== 303 || client.sessionCookie === undefined) {
    throw new Error(`login failed: ${String(answer.status)} ${answer.text.slice(0, 300)}`);
  }
  const sid = [...provider.ledger.refreshTokens.values()].findLast((token) => token.sub === sub)?.sid;
  if (sid === undefined) throw new Error('the provider knows of no session');
  return { client, sub, sid };
}

/** The status of `/auth/me` on every replica, by the same cookie each time, whatever an answer does to the jar. */
export async function statuses(room: Cloakroom, { client }: Pick<Person, 'client'>): Promise<number[]> {
  const name = client.cookieName('session');
  const cookie = `${name}=${client.cookie(name)?.value ?? 'gone'}`;
  const answers = room.replicas.map((_, replica) => client.clone().me({ slide: false, cookie, replica }));
  return (await Promise.all(answers)).map(({ status }) => status);
}

export async function isAlive(room: Cloakroom, who: Pick<Person, 'client'>): Promise<boolean> {
  const seen = new Set(await statuses(room, who));
  if (seen.size !== 1) throw new Error(`replicas disagree: ${[...seen].join(', ')}`);
  return seen.has(200);
}

/** Why the log says that a token was refused. */
export async function refusalInLog(room: Cloakroom, answer: BrowserResponse): Promise<string> {
  const reference = answer.headers['x-request-id'];
  const line = await eventually(
    () => room.events('logout_token_refused').find((one) => one['reference'] === reference),
    { timeout: 5000, what: 'the line of the refusal' },
  );
  return String(line['reason']);
}

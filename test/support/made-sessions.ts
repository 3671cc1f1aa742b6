import { randomBytes } from 'node:crypto';
import { IncomingMessage, ServerResponse } from 'node:http';
import { Socket } from 'node:net';
import type { Request, Response } from 'express';
import type { Config } from '../../src/config/config.js';
import { Logger } from '../../src/observability/logger.js';
import { SessionCookie } from '../../src/session/session-cookie.js';
import { SessionCreation } from '../../src/session/session-creation.js';
import { MemoryStore } from '../../src/store/memory-store.js';
import { RevocationEnvelopes } from '../../src/store/revocation-envelope.js';
import { Sealer } from '../../src/store/sealer.js';
import { indexKeys, ServerSeal } from '../../src/store/server-seal.js';
import type { SessionContents } from '../../src/store/session-contents.js';
import { SessionIndex } from '../../src/store/session-index.js';
import { SessionRecords } from '../../src/store/session-records.js';

/**
 * Everything a login does to make a session but the login: express-session chooses the id, the record is sealed and
 * stored, the cookie is set.
 *
 * @param seen gets the secret of each session as the cookie carries it, 32 bytes
 */
export async function makeSessions(count: number, seen: (secret: Buffer) => void): Promise<void> {
  const config = {
    secureCookies: true,
    session: { idle: 60_000, absolute: 3_600_000, sameSite: 'strict' },
    secrets: { cookie: [randomBytes(32)], seal: [randomBytes(32)] },
  } as unknown as Config;
  const store = new MemoryStore();
  const { prefix } = store;
  const sealer = new Sealer(config.secrets.seal, prefix);
  const records = new SessionRecords({
    store,
    sealer,
    serverSeal: new ServerSeal(sealer),
    index: new SessionIndex(store, indexKeys(config.secrets.seal, prefix), 3_600_000),
    envelopes: new RevocationEnvelopes({ secrets: [], publicKey: undefined, prefix }),
    logger: new Logger('error'),
  });
  const creation = new SessionCreation(config, records);
  const cookie = new SessionCookie(config);
  const now = Date.now();
  const contents = {
    createdAt: now,
    absoluteAt: now + 3_600_000,
    claims: {},
    tokens: {},
    client: {},
  } as unknown as SessionContents;
  const socket = new Socket();
  for (let n = 0; n < count; n += 1) {
    const request = new IncomingMessage(socket) as Request;
    request.url = request.originalUrl = '/auth/callback';
    // A planted id must not be taken over.
    request.headers = { 'x-forwarded-proto': 'https', cookie: `${cookie.names.session}=planted` };
    Object.defineProperty(request, 'secure', { value: true });
    const response = new ServerResponse(request) as unknown as Response;
    const handle = await creation.create(request, response, contents);
    response.writeHead(303);
    const line = String(response.getHeader('set-cookie'));
    const reading = cookie.read(line.slice(0, line.indexOf(';')));
    if (reading.kind !== 'ticket') throw new Error(`not a cookie of ours: ${line}`);
    if (reading.ticket.handle !== handle) throw new Error('the cookie is not that of the session');
    seen(reading.ticket.secret);
  }
  await store.close();
}

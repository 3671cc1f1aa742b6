import { randomBytes } from 'node:crypto';
import { IncomingMessage, ServerResponse } from 'node:http';
import { Socket } from 'node:net';
import type { Request, Response } from 'express';
import { expect, test } from '@jest/globals';
import type { Config } from '../config/config.js';
import { Logger } from '../observability/logger.js';
import { MemoryStore } from '../store/memory-store.js';
import { RevocationEnvelopes } from '../store/revocation-envelope.js';
import { Sealer } from '../store/sealer.js';
import { indexKeys, ServerSeal } from '../store/server-seal.js';
import type { SessionContents } from '../store/session-contents.js';
import { SessionIndex } from '../store/session-index.js';
import { SessionRecords } from '../store/session-records.js';
import { SessionCookie } from './session-cookie.js';
import { SessionCreation } from './session-creation.js';

test('A-049 10,000 new sessions have 10,000 ids of 32 bytes, all bits of which vary', async () => {
  const config = {
    secureCookies: true,
    session: { idle: 60_000, absolute: 3_600_000, sameSite: 'strict' },
    secrets: { cookie: [randomBytes(32)], seal: [randomBytes(32)] },
  } as unknown as Config;
  const store = new MemoryStore();
  const logger = new Logger('error');
  const sealer = new Sealer(config.secrets.seal, store.prefix);
  const { prefix } = store;
  const records = new SessionRecords({
    store,
    sealer,
    serverSeal: new ServerSeal(sealer),
    index: new SessionIndex(store, indexKeys(config.secrets.seal, prefix), 3_600_000),
    envelopes: new RevocationEnvelopes({ secrets: [], publicKey: undefined, prefix }),
    logger,
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
  const seen = new Set<string>();
  const ones = new Uint32Array(256);
  const total = 10_000;
  for (let n = 0; n < total; n += 1) {
    const request = new IncomingMessage(new Socket()) as Request;
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
    expect(reading.ticket.handle).toBe(handle);
    const { secret } = reading.ticket;
    seen.add(secret.toString('base64url'));
    for (let bit = 0; bit < 256; bit += 1) {
      ones[bit] = (ones[bit] ?? 0) + (((secret[bit >> 3] ?? 0) >> (bit & 7)) & 1);
    }
  }
  expect(seen.size).toBe(total);
  // 8 standard deviations: a fixed or biased bit is far outside, chance never.
  const spread = 8 * Math.sqrt(total / 4);
  for (const count of ones) expect(Math.abs(count - total / 2)).toBeLessThan(spread);
  await store.close();
});

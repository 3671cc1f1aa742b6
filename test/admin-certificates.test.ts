import { writeFileSync } from 'node:fs';
import { request as httpsRequest } from 'node:https';
import { join } from 'node:path';
import { beforeAll, expect, test } from '@jest/globals';
import { adminConfig, adminPort, adminToken } from './support/admin-client.js';
import { selfSigned } from './support/certificate.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { sendRaw } from './support/raw.js';
import { scratchFolder } from './support/run-folder.js';

// The admin listener with TLS and client certificates.

const ender = adminToken('ender', 'end');
const bearer = `Authorization: Bearer ${ender.token}`;
let room: Cloakroom;
const folder = scratchFolder('admin-tls');
const certificates = {
  server: selfSigned(['ops.example.test', 'localhost']),
  bot: selfSigned(['incident bot']),
  looker: selfSigned(['looker']),
  stranger: selfSigned(['incident bot']),
  unlisted: selfSigned(['somebody else']),
};

beforeAll(async () => {
  for (const [name, { cert, key }] of Object.entries(certificates)) {
    writeFileSync(join(folder, `${name}.pem`), cert);
    writeFileSync(join(folder, `${name}-key.pem`), key);
  }
  const { bot, looker, unlisted } = certificates;
  writeFileSync(join(folder, 'authority.pem'), bot.cert + looker.cert + unlisted.cert);
  room = await startCloakroom({
    replicas: 1,
    redis: 'memory',
    config: {
      admin: adminConfig([ender], {
        tls: {
          certificate: join(folder, 'server.pem'),
          key: join(folder, 'server-key.pem'),
          clientAuthority: join(folder, 'authority.pem'),
        },
        clients: [
          { name: 'incident bot', role: 'end' },
          { name: 'looker', role: 'read' },
        ],
      }),
    },
  });
});

async function ask(
  who: keyof typeof certificates | undefined,
  method = 'GET',
  headers: Record<string, string> = {},
): Promise<number | string> {
  const own = who === undefined ? {} : certificates[who];
  return await new Promise((resolve) => {
    const request = httpsRequest(
      {
        host: '127.0.0.1',
        port: adminPort(room.first),
        servername: 'localhost',
        ca: certificates.server.cert,
        path: method === 'GET' ? '/v1/sessions' : `/v1/sessions/${'a'.repeat(43)}`,
        method,
        headers,
        agent: false,
        ...own,
      },
      (response) => {
        response.resume();
        response.on('end', () => resolve(response.statusCode ?? 0));
      },
    );
    request.on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? 'error'));
    request.end();
  });
}

test('A-109 a certificate of the authority, by its common name and with its role', async () => {
  expect(await ask('bot')).toBe(200);
  expect(await ask('bot', 'DELETE')).toBe(404);
  expect(await ask('looker')).toBe(200);
  expect(await ask('looker', 'DELETE')).toBe(403);
  await room.waitForEvent('sessions_listed', ({ name }) => name === 'looker');
  await room.logged('sessions_listed', 2);
  expect(room.events('sessions_listed').map(({ name }) => name)).toEqual(['incident bot', 'looker']);
});

test('A-109 no certificate, one of another authority with the right name, one of the authority with a wrong name', async () => {
  expect(await ask(undefined)).toBe(401);
  expect(await ask('stranger')).toBe(401);
  expect(await ask('unlisted')).toBe(401);
});

test('A-109 a token is as good; a wrong token is not made good by a certificate', async () => {
  expect(await ask(undefined, 'GET', { authorization: `Bearer ${ender.token}` })).toBe(200);
  expect(await ask('bot', 'GET', { authorization: 'Bearer wrong' })).toBe(401);
});

test('A-109 the names of the certificate are names of this listener, others are not', async () => {
  expect(await ask('bot', 'GET', { host: 'ops.example.test' })).toBe(200);
  expect(await ask('bot', 'GET', { host: 'evil.example' })).toBe(403);
});

test('A-109 plain HTTP gets nothing', async () => {
  const { responses } = await sendRaw(
    adminPort(room.first),
    `GET /v1/sessions HTTP/1.1\r\nHost: localhost\r\n${bearer}\r\n\r\n`,
    {
      timeout: 3000,
    },
  );
  expect(responses.map(({ status }) => status).filter((status) => status !== 400)).toEqual([]);
});

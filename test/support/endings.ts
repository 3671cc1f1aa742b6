import type { AdminClient } from './admin-client.js';
import type { BrowserClient } from './browser-client.js';
import type { Cloakroom } from './cloakroom.js';
import { StoredSession } from './stored-session.js';

type Act = (client: BrowserClient, room: Cloakroom, admin: AdminClient) => Promise<unknown>;

/** Ways in which one session ends at once: what they are, the reason that is told, and how it is done. */
export const ENDINGS: [string, string, Act][] = [
  ['a logout', 'user', (client) => client.logout({ navigate: false })],
  [
    'a forced end by an operator',
    'operator',
    (client, room, admin) => {
      const { handle } = new StoredSession(room, client);
      return admin.post('/v1/endings', { filter: { handle }, reason: 'test' });
    },
  ],
  ['a deletion by hand', 'operator', (client, room) => new StoredSession(room, client).delete()],
];

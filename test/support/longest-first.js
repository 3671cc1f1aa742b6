import { basename } from 'node:path';
import Sequencer from '@jest/test-sequencer';

// These take half a minute and more. Begun last, one of them would run alone at the end; where tests have never run before,
// jest knows no times.
const LONG = [
  'refresh-policy',
  'revocation',
  'ended-stays-ended',
  'refresh-race',
  'shutdown',
  'secret-rotation',
  'websocket-end',
  'cli-sessions-end',
  'elevation',
  'streams-end',
  'events',
  'provider-outage',
  'samesite',
  'demo',
  'id-token-shape',
  'cli-command',
];

export default class LongestFirst extends Sequencer {
  sort(tests) {
    const place = ({ path }) => {
      const at = LONG.indexOf(basename(path, '.test.ts'));
      return at < 0 ? LONG.length : at;
    };
    return super.sort(tests).sort((one, other) => place(one) - place(other));
  }
}

// Preloaded into a replica: what names under `.example.test` stand for is read from the file HOST_NAMES at each lookup, and
// connections to upstreams are renewed every RENEWAL milliseconds instead of every minute.
import dns from 'node:dns';
import { appendFileSync, readFileSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';

const file = process.env.HOST_NAMES;
const { lookup } = dns;

dns.lookup = (hostname, options, callback) => {
  if (!hostname.endsWith('.example.test')) {
    lookup(hostname, options, callback);
    return;
  }
  appendFileSync(`${file}.asked`, `${hostname}\n`);
  const address = JSON.parse(readFileSync(file, 'utf8'))[hostname];
  // As a name server that does not answer.
  if (address === 'never') return;
  setImmediate(() => {
    if (address === undefined) {
      callback(Object.assign(new Error(`getaddrinfo ENOTFOUND ${hostname}`), { code: 'ENOTFOUND' }));
    } else if (options.all) callback(null, [{ address, family: 4 }]);
    else callback(null, address, 4);
  });
};
syncBuiltinESMExports();

const { setInterval } = globalThis;
globalThis.setInterval = (run, every, ...rest) =>
  setInterval(run, every === 60_000 ? Number(process.env.RENEWAL) : every, ...rest);

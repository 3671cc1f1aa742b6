import type { LocatedWrong } from './faults.js';
import { fallback, type Look } from './settings.js';

const EVERY_ADDRESS = ['0.0.0.0', '::'];

/** The listeners of one process never share a port, and each says so before it is refused by the system. */
export function listenerPorts(look: Look): LocatedWrong[] {
  const place = (block: string) => ({
    block,
    host: look(block, 'host') ?? fallback(block, 'host'),
    port: look(block, 'port') ?? fallback(block, 'port'),
  });
  const listeners = ['listen', 'admin', 'forwardAuth']
    .filter((block) => block === 'listen' || isBlock(look(block)))
    .map(place);
  return listeners.flatMap(({ block, host, port }, index) => {
    const other = listeners
      .slice(0, index)
      .find(
        (one) =>
          one.port === port &&
          port !== 0 &&
          (one.host === host || [one.host, host].some((name) => EVERY_ADDRESS.includes(String(name)))),
      );
    return other === undefined
      ? []
      : [
          {
            path: [block, 'port'],
            problem: `${String(port)} is also the port of ${other.block}`,
            remedy: 'choose another port: the two never share one',
          },
        ];
  });
}

function isBlock(value: unknown): boolean {
  return typeof value === 'object' && value !== null;
}

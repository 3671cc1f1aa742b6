import type { FaultProvider, Modes } from './fault-provider.js';

/**
 * From now on the access token of a login is over before the first request can use it, so that this request must wait for
 * a refresh. What a refresh brings lives as long as `modes.accessTokenLifetime` says.
 */
export function loginsNeedRefresh(provider: FaultProvider, modes: Partial<Modes> = {}): void {
  provider.reset(modes);
  provider.ledger.resetCounts();
  provider.always('token', { mutate: (answer) => ({ ...answer, expires_in: 0.001 }) });
}

/** From now on the access token of a login lives for so many seconds, of which the last quarter is for renewing it. */
export function loginsLast(provider: FaultProvider, seconds: number, modes: Partial<Modes> = {}): void {
  provider.reset(modes);
  provider.ledger.resetCounts();
  provider.always('token', { mutate: (answer) => ({ ...answer, expires_in: seconds }) });
}

import { isHealthy, providerFailure } from './oidc-errors.js';
import type { ProviderGate } from './provider-gate.js';

/**
 * Calls a provider through a gate that learns from it how the provider is.
 * @throws what the call threw; {@link GateClosedError} without calling
 */
export async function gatedCall<T>(gate: ProviderGate, call: () => Promise<T>): Promise<T> {
  const result = await gate.run(async () => {
    try {
      return { healthy: true, value: await call() };
    } catch (error) {
      return { healthy: isHealthy(providerFailure(error)), error };
    }
  });
  if ('error' in result) throw result.error;
  return result.value;
}

// @ts-check
// Everything the demo's provider remembers, in this process only: a restart signs everybody out.

/** @typedef {import('oidc-provider').Adapter} Adapter */
/** @typedef {import('oidc-provider').AdapterPayload} AdapterPayload */

/**
 * @returns {(model: string) => Adapter} one adapter a model, all over the same records
 */
export function createProviderStore() {
  /** @type {Map<string, { payload: AdapterPayload, expiresAt: number }>} */
  const records = new Map();

  /** @param {string} key */
  const read = (key) => {
    const record = records.get(key);
    if (record === undefined) return undefined;
    if (record.expiresAt > Date.now()) return record.payload;
    records.delete(key);
    return undefined;
  };

  // Most records are never asked for again after they expire, so reading alone would not free them.
  let sweepAt = Date.now() + 60_000;
  const sweep = () => {
    const now = Date.now();
    if (now < sweepAt) return;
    sweepAt = now + 60_000;
    for (const [key, record] of records) if (record.expiresAt <= now) records.delete(key);
  };

  return (model) => ({
    async upsert(id, payload, expiresIn = 0) {
      sweep();
      const expiresAt = expiresIn > 0 ? Date.now() + expiresIn * 1000 : Infinity;
      records.set(`${model}:${id}`, { payload, expiresAt });
    },
    async find(id) {
      return read(`${model}:${id}`);
    },
    async findByUid(uid) {
      for (const [key, { payload }] of records) {
        if (key.startsWith(`${model}:`) && payload.uid === uid) return read(key);
      }
      return undefined;
    },
    async findByUserCode() {
      return undefined;
    },
    async consume(id) {
      const payload = read(`${model}:${id}`);
      if (payload !== undefined) payload.consumed = Math.floor(Date.now() / 1000);
    },
    async destroy(id) {
      records.delete(`${model}:${id}`);
    },
    async revokeByGrantId(grantId) {
      for (const [key, { payload }] of records) {
        if (key.startsWith(`${model}:`) && payload.grantId === grantId) records.delete(key);
      }
    },
  });
}

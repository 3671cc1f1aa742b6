/** What waits for its revocation: the envelope, and since when and how often it was tried in vain. */
export interface RevocationRecord {
  envelope: Buffer;
  /** When it first failed, by the store's clock; undefined as long as it has not. */
  since: number | undefined;
  tries: number;
}

/** In front of an envelope that failed; the envelope's own first byte is its version. */
const FAILED = 0xff;
const HEADER = 1 + 6 + 2;

export function readRevocation(value: Buffer): RevocationRecord {
  if (value[0] !== FAILED || value.length < HEADER) return { envelope: value, since: undefined, tries: 0 };
  return { envelope: value.subarray(HEADER), since: value.readUIntBE(1, 6), tries: value.readUInt16BE(7) };
}

export function writeRevocation(record: RevocationRecord & { since: number }): Buffer {
  const header = Buffer.alloc(HEADER);
  header.writeUInt8(FAILED, 0);
  header.writeUIntBE(record.since, 1, 6);
  header.writeUInt16BE(Math.min(0xffff, record.tries), 7);
  return Buffer.concat([header, record.envelope]);
}

import { closeSync, existsSync, openSync, readFileSync, readSync, readdirSync } from 'node:fs';
import { basename, join } from 'node:path';

// Plain JavaScript, because the reporter uses it outside jest's transform.

// Inside jest's sandbox a look-up of a global costs more than the multiplication itself.
const { imul } = Math;

const WINDOW = 16;
const LONGEST = 48;
const ABRIDGED = 256;
const BLOCK = 8 * 1024 * 1024;
const OVERLAP = 64 * 1024;
const BASE = 0x01000193;
const BITS = 24;

/** Every way in which a text could stand in a byte stream: as it is, percent-encoded, and in Base64. */
export function formsOf(value) {
  const texts = new Map([['plain', value]]);
  const encoded = encodeURIComponent(value);
  if (encoded !== value) {
    texts.set('url-encoded', encoded);
    texts.set('form-encoded', encoded.replaceAll('%20', '+'));
  }
  const forms = [];
  const seen = new Set();
  const add = (form, bytes) => {
    const key = bytes.toString('latin1');
    if (bytes.length < WINDOW || seen.has(key)) return;
    seen.add(key);
    forms.push({ form, bytes });
  };
  for (const [name, text] of texts) {
    const bytes = Buffer.from(text, 'utf8');
    add(name, bytes.subarray(-LONGEST));
    // What stands before the text decides how its bits fall into Base64 characters: three alignments. Characters
    // that also hold bits of a neighbour are left out.
    for (let shift = 0; shift < 3; shift += 1) {
      const base64 = Buffer.concat([Buffer.alloc(shift), bytes]).toString('base64');
      const from = [0, 2, 3][shift];
      const to = Math.floor(((shift + bytes.length) * 8) / 6);
      const inner = base64.slice(from, to).slice(-LONGEST);
      add(`${name}, base64`, Buffer.from(inner, 'latin1'));
      add(`${name}, base64url`, Buffer.from(inner.replaceAll('+', '-').replaceAll('/', '_'), 'latin1'));
    }
  }
  return forms;
}

/** A signed token is known by its payload and by its signature; its header is the same in all of them. */
function partsOf(value) {
  const parts = value.split('.');
  if (parts.length === 3 && parts.every((part) => /^[\w-]*$/.test(part))) return parts.slice(1);
  return [value];
}

/** So much of a secret as the search needs: the ends of what it is known by. Tests hand out tokens of megabytes. */
export function abridged(value) {
  const ends = partsOf(value).map((part) => part.slice(-ABRIDGED).toWellFormed());
  if (ends.length > 1) return ['', ...ends].join('.');
  // With this in front it is not taken for a signed token, whatever dots the end has.
  return value.length <= ABRIDGED ? value : `…${ends[0]}`;
}

/** A signature of nothing but zeros, which some tests forge, would be found in any run of one letter. */
function isTelling(part) {
  return Buffer.byteLength(part) >= WINDOW && new Set(part.slice(-LONGEST)).size >= 8;
}

export function buildIndex(secrets) {
  const index = emptyIndex();
  let tooShort = 0;
  for (const [kind, value] of secrets) {
    const parts = partsOf(value).filter(isTelling);
    if (parts.length === 0) tooShort += 1;
    for (const part of parts) for (const { form, bytes } of formsOf(part)) add(index, { kind, form, bytes });
  }
  return { ...index, tooShort };
}

function emptyIndex() {
  return { bitmap: new Uint32Array(2 ** BITS / 32), table: new Map(), patterns: 0 };
}

function add(index, entry) {
  const { bytes } = entry;
  const hash = hashOf(bytes, bytes.length - WINDOW);
  const slot = hash >>> (32 - BITS);
  index.bitmap[slot >>> 5] |= 1 << (slot & 31);
  const others = index.table.get(hash);
  if (others === undefined) index.table.set(hash, [entry]);
  else if (!others.some((other) => other.bytes.equals(bytes))) others.push(entry);
  index.patterns += 1;
}

/** Which of these stand in the bytes, as they are. */
export function foundIn(bytes, words) {
  const index = emptyIndex();
  const found = new Set(words.filter((word) => word.length < WINDOW && bytes.includes(word)));
  for (const word of words) if (word.length >= WINDOW) add(index, { bytes: word });
  scan(index, bytes, bytes.length, (entry) => found.add(entry.bytes));
  return [...found];
}

function hashOf(bytes, from) {
  let hash = 0;
  for (let i = from; i < from + WINDOW; i += 1) hash = (imul(hash, BASE) + bytes[i]) | 0;
  return finish(hash);
}

// The high bits choose the slot in the bitmap; mixing makes them depend on every byte of the window.
function finish(hash) {
  return imul(hash ^ (hash >>> 15), 0x2c1b3c6d) | 0;
}

const OUT = (() => {
  let power = 1;
  for (let i = 0; i < WINDOW; i += 1) power = imul(power, BASE);
  return power;
})();

/** Calls `found(entry, start, end)` for each occurrence in bytes[0, length). */
export function scan(index, bytes, length, found) {
  if (length < WINDOW) return;
  const { bitmap, table } = index;
  let hash = 0;
  for (let i = 0; i < WINDOW - 1; i += 1) hash = (imul(hash, BASE) + bytes[i]) | 0;
  for (let i = WINDOW - 1; i < length; i += 1) {
    hash = (imul(hash, BASE) + bytes[i]) | 0;
    if (i >= WINDOW) hash = (hash - imul(bytes[i - WINDOW], OUT)) | 0;
    const mixed = finish(hash);
    const slot = mixed >>> (32 - BITS);
    if ((bitmap[slot >>> 5] & (1 << (slot & 31))) === 0) continue;
    const entries = table.get(mixed);
    if (entries === undefined) continue;
    for (const entry of entries) {
      const start = i + 1 - entry.bytes.length;
      if (start >= 0 && entry.bytes.compare(bytes, start, i + 1) === 0) found(entry, start, i + 1);
    }
  }
}

/**
 * RP-initiated logout is a navigation by its specification (OpenID Connect RP-Initiated Logout 1.0, section 2): the ID
 * token is the value of `id_token_hint` in the Location of a 303 that points at the provider's end-session endpoint.
 * That value, in that place, and nothing else is let through.
 */
export function isLogoutHint(bytes, start, end, endpoints) {
  const from = Math.max(0, start - 32 * 1024);
  const before = bytes.toString('latin1', from, start);
  const lineStart = before.lastIndexOf('\n') + 1;
  const rest = bytes.toString('latin1', start, Math.min(bytes.length, end + 8 * 1024));
  const lineEnd = rest.search(/[\r\n]/);
  const line = before.slice(lineStart) + (lineEnd < 0 ? rest : rest.slice(0, lineEnd));
  const match = /^location:[ \t]*/i.exec(line);
  if (match === null) return false;
  const target = line.slice(match[0].length);
  if (!endpoints.some((endpoint) => target.startsWith(`${endpoint}?`))) return false;
  const hint = /[?&]id_token_hint=([^&]*)/.exec(target);
  if (hint === null) return false;
  const valueStart = match[0].length + hint.index + hint[0].length - hint[1].length;
  const at = start - from - lineStart;
  if (at < valueStart || at + (end - start) > valueStart + hint[1].length) return false;
  // The line must stand in a head, after nothing but header lines; on a kept connection the status line follows the
  // body before it without a break.
  const head = before.slice(0, lineStart);
  const statusLine = head.lastIndexOf('HTTP/1.1 ');
  return (
    statusLine >= 0 && /^HTTP\/1\.1 303 [^\r\n]*\r?\n(?:[\w-]+:[^\r\n]*\r?\n)*$/.test(head.slice(statusLine))
  );
}

/** Searches one file; `kinds` says which secrets count there. */
export function searchFile(index, file, { endpoints = [], ignore = new Set(), limit = 20 } = {}) {
  const findings = [];
  let scanned = 0;
  const fd = openSync(file, 'r');
  try {
    const buffer = Buffer.alloc(OVERLAP + BLOCK);
    let kept = 0;
    let position = 0;
    const reported = new Set();
    for (;;) {
      const read = readSync(fd, buffer, kept, BLOCK, position);
      if (read === 0) break;
      position += read;
      scanned += read;
      const length = kept + read;
      const view = buffer.subarray(0, length);
      const origin = position - length;
      scan(index, view, length, (entry, start, end) => {
        // What lies in the overlap was judged in the block before, with all that stands in front of it.
        if (end <= kept) return;
        if (ignore.has(entry.kind) || reported.has(origin + end) || findings.length >= limit) return;
        if (isLogoutHint(view, start, end, endpoints)) return;
        reported.add(origin + end);
        findings.push({
          kind: entry.kind,
          form: entry.form,
          file,
          offset: origin + start,
          near: nearby(view, start, end),
        });
      });
      kept = Math.min(OVERLAP, length);
      buffer.copyWithin(0, length - kept, length);
    }
  } finally {
    closeSync(fd);
  }
  return { findings, scanned };
}

function nearby(bytes, start, end) {
  const printable = (from, to) =>
    bytes.toString('latin1', Math.max(0, from), Math.min(bytes.length, to)).replaceAll(/[^\x20-\x7e]/g, '.');
  return `${printable(start - 120, start)}[…${String(end - start)} bytes…]${printable(end, end + 40)}`;
}

const listed = (folder, ending) =>
  existsSync(folder)
    ? readdirSync(folder)
        .filter((name) => name.endsWith(ending))
        .map((name) => join(folder, name))
    : [];

export function readSecrets(files) {
  const secrets = [];
  for (const file of files.filter((name) => existsSync(name))) {
    for (const line of readFileSync(file, 'utf8').split('\n'))
      if (line !== '') secrets.push(JSON.parse(line));
  }
  return secrets;
}

export function readEndpoints(run) {
  return listed(join(run, 'endpoints'), '.txt').flatMap((file) =>
    readFileSync(file, 'utf8')
      .split('\n')
      .filter((line) => line !== ''),
  );
}

/**
 * Looks for every secret of the run in everything that was recorded; with `secrets`, `taps` and `logs` for those of
 * these files in those. Authorization codes pass through the browser by design and count only in logs.
 */
export function searchRun(run, { secrets: secretFiles, taps, logs } = {}) {
  const secrets = readSecrets(secretFiles ?? listed(join(run, 'secrets'), '.ndjson'));
  const index = buildIndex(secrets);
  const endpoints = readEndpoints(run);
  const tapFiles = taps ?? listed(join(run, 'taps'), '.tap');
  const logFiles = logs ?? listed(join(run, 'logs'), '.log');
  const findings = [];
  let scanned = 0;
  for (const file of tapFiles.filter((name) => existsSync(name))) {
    const result = searchFile(index, file, { endpoints, ignore: new Set(['code']) });
    findings.push(...result.findings);
    scanned += result.scanned;
  }
  for (const file of logFiles.filter((name) => existsSync(name))) {
    const result = searchFile(index, file);
    findings.push(...result.findings);
    scanned += result.scanned;
  }
  return {
    findings,
    secrets: secrets.length,
    tooShort: index.tooShort,
    patterns: index.patterns,
    files: tapFiles.length + logFiles.length,
    scanned,
  };
}

export function describeFinding(finding) {
  return `${finding.kind} (${finding.form}) in ${basename(finding.file)} at ${String(finding.offset)}: ${finding.near}`;
}

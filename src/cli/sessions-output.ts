import type { ListedSession } from '../endings/filter.js';
import { printable } from './terminal.js';

/** How sessions look: as JSON, in a table, one by one. */

export function sessionJson(session: ListedSession): Record<string, unknown> {
  const { createdAt, usedAt, absoluteExpiresAt, ...rest } = session;
  return {
    ...rest,
    createdAt: new Date(createdAt).toISOString(),
    usedAt: new Date(usedAt).toISOString(),
    absoluteExpiresAt: new Date(absoluteExpiresAt).toISOString(),
  };
}

type Cells = Record<'user' | 'created' | 'used' | 'browser' | 'handle' | 'provider' | 'address', string>;

const TITLES: Cells = {
  user: 'USER',
  created: 'BEGAN (UTC)',
  used: 'USED',
  browser: 'BROWSER',
  handle: 'HANDLE',
  provider: 'PROVIDER',
  address: 'ADDRESS',
};
const ONE_LINE = [['user', 'created', 'used', 'browser', 'address', 'provider', 'handle']] as const;
/** Where one line would not hold all. */
const TWO_LINES = [
  ['user', 'created', 'used', 'browser'],
  ['handle', 'provider', 'address'],
] as const;
const LONGEST: Record<keyof Cells, number> = {
  user: 28,
  created: 16,
  used: 8,
  browser: 20,
  handle: 43,
  provider: 12,
  address: 20,
};

/** A table that is written page by page: its columns are as wide as its first page needs. */
export class SessionTable {
  readonly #lines: readonly (readonly (keyof Cells)[])[];
  readonly #now: number;
  #widths: Record<keyof Cells, number> | undefined;

  /** @param columns of the terminal; undefined where there is none */
  constructor(columns: number | undefined, now = Date.now()) {
    this.#lines = columns === undefined || columns >= 140 ? ONE_LINE : TWO_LINES;
    this.#now = now;
  }

  /** The next lines, titles included the first time. */
  rows(sessions: readonly ListedSession[]): string {
    const rows = sessions.map((session) => cells(session, this.#now));
    const first = this.#widths === undefined;
    this.#widths ??= widthsOf([TITLES, ...rows]);
    return (first ? [TITLES, ...rows] : rows).map((row) => this.#row(row)).join('');
  }

  #row(row: Cells): string {
    return this.#lines
      .map((names, line) => {
        const parts = names.map((name) => fit(row[name], this.#widths?.[name] ?? LONGEST[name]));
        return `${line === 0 ? '' : '  '}${parts.join('  ').trimEnd()}\n`;
      })
      .join('');
  }
}

function widthsOf(rows: readonly Cells[]): Record<keyof Cells, number> {
  const widths = { ...LONGEST };
  for (const name of Object.keys(LONGEST) as (keyof Cells)[]) {
    widths[name] = Math.min(LONGEST[name], Math.max(...rows.map((row) => Array.from(row[name]).length)));
  }
  return widths;
}

function cells(session: ListedSession, now: number): Cells {
  return {
    user: printable(session.email ?? session.subject),
    created: utc(session.createdAt).slice(0, 16),
    used: `${ago(now - session.usedAt)} ago`,
    browser: printable(browserOf(session)),
    handle: printable(session.handle),
    provider: printable(session.provider),
    address: printable(session.address ?? '-'),
  };
}

/** One session with all that is known of it. */
export function sessionDetails(session: ListedSession, now = Date.now()): string {
  const rows: readonly (readonly [string, string | undefined])[] = [
    ['handle', session.handle],
    ['subject', session.subject],
    ['e-mail', session.email],
    ['provider', `${session.provider} (${session.issuer})`],
    ['provider session', session.sid],
    ['acr', session.acr],
    ['began', `${utc(session.createdAt)} UTC`],
    ['used', `${utc(session.usedAt)} UTC (${ago(now - session.usedAt)} ago)`],
    ['ends at the latest', `${utc(session.absoluteExpiresAt)} UTC`],
    ['browser', browserOf(session)],
    ['address', session.address],
    ['bound to', session.bound],
  ];
  return rows
    .filter((row): row is readonly [string, string] => row[1] !== undefined)
    .map(([name, value]) => `${name.padEnd(20)}${printable(value)}\n`)
    .join('');
}

function browserOf({ browser, platform }: ListedSession): string {
  if (browser === undefined) return platform ?? '-';
  return platform === undefined ? browser : `${browser}, ${platform}`;
}

/** 2026-01-05 09:00:00 */
export function utc(time: number): string {
  return new Date(time).toISOString().slice(0, 19).replace('T', ' ');
}

/** How long, in one unit: `<1m`, `3m`, `5h`, `2d`. Last use is known to the minute. */
export function ago(milliseconds: number): string {
  const minutes = Math.floor(milliseconds / 60_000);
  if (minutes < 1) return '<1m';
  if (minutes < 120) return `${String(minutes)}m`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${String(hours)}h` : `${String(Math.floor(hours / 24))}d`;
}

function fit(text: string, width: number): string {
  const characters = Array.from(text);
  return characters.length <= width
    ? text + ' '.repeat(width - characters.length)
    : `${characters.slice(0, width - 1).join('')}…`;
}

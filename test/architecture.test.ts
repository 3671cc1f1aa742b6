import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, posix } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from '@jest/globals';

// The rules of CONTRIBUTING.md. Every failure names the file and the rule.

const root = join(dirname(fileURLToPath(import.meta.url)), '..', 'src');

interface Import {
  /** As written. */
  specifier: string;
  /** Path inside src/ for a file of ours. */
  file: string | undefined;
  /** Gone after compilation, so it can close no cycle. */
  typeOnly: boolean;
}

interface Source {
  path: string;
  text: string;
  imports: Import[];
}

const sources = readdirSync(root, { recursive: true, encoding: 'utf8' })
  .map((path) => path.replaceAll('\\', '/'))
  .filter((path) => path.endsWith('.ts') && !path.endsWith('.spec.ts'))
  .sort()
  .map(readSource);
const byPath = new Map(sources.map((source) => [source.path, source]));

function readSource(path: string): Source {
  const text = readFileSync(join(root, path), 'utf8');
  const imports: Import[] = [];
  const add = (specifier: string, typeOnly: boolean): void => {
    const file = specifier.startsWith('.')
      ? posix.join(posix.dirname(path), specifier).replace(/\.js$/, '.ts')
      : undefined;
    imports.push({ specifier, file, typeOnly });
  };
  const statement = /^(?:import|export)\s+(type\s+)?(?:[^'";]*?\sfrom\s+)?'([^']+)'/gm;
  for (const [, type, specifier = ''] of text.matchAll(statement)) add(specifier, type !== undefined);
  for (const [, specifier = ''] of text.matchAll(/\bimport\('([^']+)'\)/g)) add(specifier, false);
  return { path, text, imports };
}

const ROWS: Record<string, number> = {
  cli: 5,
  'app.ts': 5,
  'app.module.ts': 5,
  'services.ts': 5,
  'error.filter.ts': 5,
  auth: 4,
  admin: 4,
  proxy: 4,
  health: 4,
  frontend: 4,
  session: 3,
  endings: 2,
  limits: 2,
  tokens: 2,
  oidc: 1,
  store: 1,
  http: 1,
  config: 0,
  observability: 0,
  'errors.ts': 0,
};

/** The folder directly in src/, or the file that stands there by itself. */
function part(path: string): string {
  return path.split('/')[0] ?? path;
}

function row(path: string): number | undefined {
  return ROWS[part(path)];
}

describe('architecture', () => {
  test('there is something to check', () => {
    expect(sources.length).toBeGreaterThan(50);
    expect(sources.flatMap(({ imports }) => imports).length).toBeGreaterThan(100);
  });

  test('every folder and every file in src/ has a row', () => {
    const homeless = sources
      .filter(({ path }) => row(path) === undefined)
      .map(({ path }) => `${path}: ${part(path)} has no row; see CONTRIBUTING.md`);
    expect(homeless).toEqual([]);
  });

  test('what is imported exists', () => {
    const missing = sources.flatMap(({ path, imports }) =>
      imports
        .filter(({ file }) => file !== undefined && !byPath.has(file))
        .map(({ specifier }) => `${path}: imports ${specifier}, which is not there`),
    );
    expect(missing).toEqual([]);
  });

  test('imports go down, and never across', () => {
    const wrong: string[] = [];
    for (const { path, imports } of sources) {
      for (const { file } of imports) {
        if (file === undefined || part(file) === part(path)) continue;
        const [from, to] = [row(path) ?? 0, row(file) ?? 0];
        if (from === 5) continue;
        if (to > from) wrong.push(`${path} (row ${from}) imports ${file} (row ${to}): imports go down only`);
        else if (to === from && from > 0)
          wrong.push(`${path} imports ${file}: parts of row ${from} never import each other`);
      }
    }
    expect(wrong).toEqual([]);
  });

  test('config, observability and errors import nothing of each other but errors', () => {
    const wrong = sources
      .filter(({ path }) => row(path) === 0)
      .flatMap(({ path, imports }) =>
        imports
          .filter(({ file }) => file !== undefined && part(file) !== part(path) && file !== 'errors.ts')
          .map(({ file }) => `${path} imports ${String(file)}: row 0 stands by itself`),
      );
    expect(wrong).toEqual([]);
  });

  test('there are no cycles', () => {
    const state = new Map<string, 'open' | 'done'>();
    const cycles: string[] = [];
    const visit = (path: string, trail: readonly string[]): void => {
      if (state.get(path) === 'done') return;
      if (state.get(path) === 'open') {
        cycles.push([...trail.slice(trail.indexOf(path)), path].join(' -> '));
        return;
      }
      state.set(path, 'open');
      for (const { file, typeOnly } of byPath.get(path)?.imports ?? []) {
        if (file !== undefined && !typeOnly) visit(file, [...trail, path]);
      }
      state.set(path, 'done');
    };
    for (const { path } of sources) visit(path, []);
    expect(cycles).toEqual([]);
  });

  test('no barrels, and no names that say nothing', () => {
    const empty = /^(?:index|utils?|helpers?|common|shared|core|types?|misc)$/;
    const wrong = sources
      .filter(({ path }) => path.split('/').some((name) => empty.test(name.replace(/\..*$/, ''))))
      .map(({ path }) => `${path}: name it after what it is about`);
    expect(wrong).toEqual([]);
  });

  test.each([
    ['openid-client', 'oidc'],
    ['jose', 'oidc'],
    ['ioredis', 'store'],
    ['rate-limiter-flexible', 'store'],
    ['express-session', 'session'],
    ['connect-redis', 'session'],
    ['cookie-signature', 'session'],
  ])('only one folder imports %s: %s', (library, folder) => {
    const uses = (specifier: string): boolean => specifier === library || specifier.startsWith(`${library}/`);
    const users = sources.filter(({ imports }) => imports.some(({ specifier }) => uses(specifier)));
    expect(users).not.toEqual([]);
    const wrong = users
      .filter(({ path }) => part(path) !== folder)
      .map(({ path }) => `${path}: only ${folder}/ imports ${library}`);
    expect(wrong).toEqual([]);
  });

  test('only config/load.ts and cli/ read process.env', () => {
    const wrong = sources
      .filter(({ path, text }) => /\bprocess\s*\.\s*env\b|\bprocess\[/.test(text) && part(path) !== 'cli')
      .filter(({ path }) => path !== 'config/load.ts')
      .map(({ path }) => `${path}: the environment is read by config/load.ts`);
    expect(wrong).toEqual([]);
  });

  test('no file is longer than 300 lines', () => {
    const long = sources
      .map(({ path, text }) => ({ path, lines: text.split('\n').length - 1 }))
      .filter(({ lines }) => lines > 300)
      .map(({ path, lines }) => `${path} has ${String(lines)} lines: split it by the question it answers`);
    expect(long).toEqual([]);
  });
});

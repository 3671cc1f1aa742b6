import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from '@jest/globals';
import { parse } from 'yaml';
import { fileSchema } from '../src/config/schema.js';
import { ERRORS } from '../src/errors.js';
import { sessionScripts, setScripts } from '../src/store/session-scripts.js';

// The documents agree with the code. What they say beyond names, nobody but a reader can check.

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const SKIPPED = new Set(['node_modules', 'dist', 'coverage']);

function read(path: string): string {
  return readFileSync(join(root, path), 'utf8');
}

function filesIn(folder: string, extension: string): string[] {
  return readdirSync(join(root, folder), { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) {
      return SKIPPED.has(entry.name) || entry.name.startsWith('.') ? [] : filesIn(path, extension);
    }
    return entry.name.endsWith(extension) ? [path] : [];
  });
}

const documents = filesIn('.', '.md').map((path) => ({ path, text: read(path) }));

function withoutCode(text: string): string {
  return text.replace(/^```[\s\S]*?^```$/gm, '').replace(/`[^`\n]*`/g, '');
}

describe('docs/errors.md', () => {
  const described = [...read('docs/errors.md').matchAll(/^## (\d{3}) `([a-z-]+)`$/gm)].map(
    ([, status, code]) => `${String(status)} ${String(code)}`,
  );

  test('describes every code with its status, and no other', () => {
    const existing = Object.entries(ERRORS).map(([code, { status }]) => `${String(status)} ${code}`);
    expect(described.toSorted()).toEqual(existing.toSorted());
  });

  test('says of each the cause, what to try and who sees it', () => {
    const sections = read('docs/errors.md').split(/^## /m).slice(1);
    const incomplete = sections
      .filter((text) => !['**Cause:**', '**Try:**', '**Who sees it:**'].every((part) => text.includes(part)))
      .map((text) => text.split('\n')[0]);
    expect(incomplete).toEqual([]);
  });
});

/** What the controllers below a folder answer, as `GET /path/<parameter>`. */
function routesIn(folder: string): string[] {
  return filesIn(folder, '.controller.ts').flatMap((path) => {
    const source = read(path);
    const base = /@Controller\((?:'([^']*)')?\)/.exec(source)?.[1] ?? '';
    const methods = source.matchAll(/@(Get|Post|Put|Patch|Delete|Head|Options)\((?:'([^']*)')?\)/g);
    return [...methods].map(([, method = '', own = '']) => {
      const address = ['', base, own].filter((part, index) => index === 0 || part !== '').join('/');
      return `${method.toUpperCase()} ${address.replace(/:(\w+)/g, '<$1>')}`;
    });
  });
}

describe('docs/admin-api.md', () => {
  test('names every route of every controller of the admin listener', () => {
    const text = read('docs/admin-api.md');
    const routes = routesIn('src/admin');
    expect(routes.length).toBeGreaterThan(5);
    expect(routes.filter((route) => !text.includes(`\`${route}\``))).toEqual([]);
  });
});

describe('docs/endpoints.md', () => {
  const text = read('docs/endpoints.md');

  test('names every route of every controller', () => {
    const routes = ['src/auth', 'src/health'].flatMap(routesIn);
    expect(routes.length).toBeGreaterThan(6);
    expect(routes.filter((route) => !text.includes(`\`${route}\``))).toEqual([]);
  });

  test('names every request header that passes to upstreams', () => {
    const list = /REQUEST_STANDARD = new Set\(\[([^\]]+)\]/.exec(read('src/proxy/headers.ts'))?.[1] ?? '';
    const names = [...list.matchAll(/'([^']+)'/g)].map(([, name]) => String(name));
    expect(names.length).toBeGreaterThan(10);
    expect(names.filter((name) => !text.includes(`\`${name}\``))).toEqual([]);
  });

  test('names every parameter of a login', () => {
    const source = read('src/auth/login-parameters.ts');
    const table = /FORWARDED[^{]*\{([\s\S]*?)\n\};/.exec(source)?.[1] ?? '';
    const forwarded = [...table.matchAll(/^ {2}(\w+):/gm)].map(([, name]) => String(name));
    const own = [...source.matchAll(/single\(query, '(\w+)'\)/g)].map(([, name]) => String(name));
    expect(forwarded.length).toBeGreaterThan(3);
    expect([...forwarded, ...own].filter((name) => !text.includes(`| \`${name}\` `))).toEqual([]);
  });

  test('names every cookie', () => {
    const names = [...read('src/session/cookie-names.ts').matchAll(/`\$\{prefix\}([a-z-]+)`/g)];
    expect(names.length).toBeGreaterThan(4);
    const missing = names.map(([, name]) => `__Host-cloakroom-${String(name)}`);
    expect(missing.filter((name) => !text.includes(`\`${name}`))).toEqual([]);
  });
});

describe('docs/redis.md', () => {
  const text = read('docs/redis.md');
  const scripts = Object.values({ ...sessionScripts, ...setScripts }).join('\n');

  test('names every kind of key', () => {
    const union = (name: string): string[] => {
      const [, members = ''] =
        new RegExp(`${name}[^']*((?:\\s*\\|?\\s*'[\\w-]+')+)`).exec(read('src/store/store.ts')) ?? [];
      return [...members.matchAll(/'([\w-]+)'/g)].map(([, kind]) => String(kind));
    };
    const kinds = ['session', ...union('type RecordKind ='), ...union('interface SetName {\\s+kind:')];
    expect(kinds).toEqual(expect.arrayContaining(['session', 'login', 'revocation', 'sessions', 'queue']));
    expect(kinds.filter((kind) => !text.includes(`}:${kind}\``))).toEqual([]);
  });

  test('names every field of a session, and no other', () => {
    const calls = scripts.matchAll(/'(?:HSET|HGET|HMGET|HDEL)', KEYS\[1\],([^\n]*(?:\n {2}'[^\n]*)*)/g);
    const fields = [...calls].flatMap(([, used = '']) =>
      [...used.matchAll(/'([a-z_]+)'/g)].map(([, field]) => String(field)),
    );
    const described = [...text.matchAll(/^\| `(\w+)` +\|/gm)].map(([, field]) => String(field));
    expect(described.toSorted()).toEqual([...new Set(fields)].toSorted());
  });

  test('gives its user the right to every command of the scripts and of the store', () => {
    const granted = /^ACL SETUSER .*$/m.exec(text)?.[0] ?? '';
    const called = [...scripts.matchAll(/redis\.p?call\('([A-Z]+)'/g)].map(([, name = '']) =>
      name.toLowerCase(),
    );
    const own = [...read('src/store/redis-store.ts').matchAll(/\bredis\.([a-z]+)\(/g)].map(([, name = '']) =>
      name.replace(/Buffer$/i, '').toLowerCase(),
    );
    const needed = new Set([...called, ...own.filter((name) => name !== 'definecommand')]);
    expect(needed.size).toBeGreaterThan(8);
    expect([...needed].filter((name) => !granted.includes(` +${name}`))).toEqual([]);
  });
});

describe('docs/deployment.md', () => {
  test('names only events that are logged', () => {
    const [, table = ''] = read('docs/deployment.md').split(/^## Logs$/m);
    const rows = (table.split(/^## /m)[0] ?? '').match(/^\| `.*$/gm) ?? [];
    const events = rows.flatMap((row) => [...(row.split(' | ')[0] ?? '').matchAll(/`(\w+)`/g)]);
    const logged = filesIn('src', '.ts').map(read).join('\n');
    expect(events.length).toBeGreaterThan(10);
    expect(
      events.map(([, event]) => String(event)).filter((event) => !logged.includes(`'${event}'`)),
    ).toEqual([]);
  });
});

describe('docs/configuration.md and cloakroom.schema.json', () => {
  test('are what the schema says (npm run docs)', () => {
    const made = spawnSync(process.execPath, ['scripts/generate-docs.js', '--check'], {
      cwd: root,
      encoding: 'utf8',
    });
    expect(`${made.stdout}${made.stderr}`).toBe('');
    expect(made.status).toBe(0);
  });
});

describe('README.md', () => {
  const text = read('README.md');

  test.each(['npm ci && npm run demo', 'npm ci && npm test'])('has the command: %s', (command) => {
    expect(text.split('\n')).toContain(command);
  });

  test('has a configuration without faults', () => {
    const [, example = ''] = /^```yaml\n([\s\S]*?)^```$/m.exec(text) ?? [];
    expect(fileSchema.safeParse(parse(example)).error?.issues ?? []).toEqual([]);
  });
});

describe('every document', () => {
  test('links to what exists', () => {
    const broken = documents.flatMap(({ path, text }) =>
      [...withoutCode(text).matchAll(/\]\(([^)\s]+)\)/g)]
        .map(([, target]) => String(target))
        .filter((target) => !/^[a-z]+:/.test(target) && !leadsSomewhere(path, target))
        .map((target) => `${path}: ${target}`),
    );
    expect(broken).toEqual([]);
  });

  test('names only source files that exist', () => {
    const names = /`((?:src|test|demo|bin|scripts|bench)\/[\w./-]*\.(?:ts|js|yaml))`/g;
    const missing = documents.flatMap(({ path, text }) =>
      [...text.matchAll(names)]
        .map(([, file]) => String(file))
        .filter((file) => !existsSync(join(root, file)))
        .map((file) => `${path}: ${file}`),
    );
    expect(missing).toEqual([]);
  });

  test('has no path of somebody’s machine', () => {
    const machine = /(?:^|[\s`'"(=])(?:\/(?:home|root|Users|work|tmp|private|mnt)\/|[A-Z]:\\)/m;
    expect(documents.filter(({ text }) => machine.test(text)).map(({ path }) => path)).toEqual([]);
  });
});

function leadsSomewhere(from: string, target: string): boolean {
  const [file = '', anchor] = target.split('#');
  const path = file === '' ? join(root, from) : resolve(root, dirname(from), file);
  if (relative(root, path).startsWith('..') || !existsSync(path)) return false;
  if (anchor === undefined) return true;
  return statSync(path).isFile() && headings(readFileSync(path, 'utf8')).includes(anchor);
}

/** The anchors that the usual renderers give to headings. */
function headings(text: string): string[] {
  const withoutBlocks = text.replace(/^```[\s\S]*?^```$/gm, '');
  return [...withoutBlocks.matchAll(/^#+ (.+)$/gm)].map(([, title = '']) =>
    title
      .toLowerCase()
      .replace(/[^\p{L}\p{N} _-]/gu, '')
      .replaceAll(' ', '-'),
  );
}

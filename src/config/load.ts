import { existsSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { originKey, overlayEnvironment, type Overlay, type VariableWrong } from './environment.js';
import { explainIssues, type Fault, type LocatedWrong } from './faults.js';
import { readConfigFile, type ConfigFile } from './file.js';
import { checkProcess, crossCheck } from './rules.js';
import type { Config } from './config.js';
import { fileSchema } from './schema.js';
import { resolveConfig } from './resolve.js';
import { checkSecrets, type SecretSources } from './secrets.js';
import { formatPath, type Path } from './settings.js';

/** The configuration from a file and the environment, or everything that is wrong with it. */

export interface Sources {
  /** Path of the file, from `cwd`. Without it: CLOAKROOM_CONFIG, then `cloakroom.yaml` if there is one, then none. */
  readonly file?: string | undefined;
  readonly env: NodeJS.ProcessEnv;
  readonly cwd: string;
}

export type Loaded = { readonly config: Config } | { readonly faults: readonly Fault[] };

const DEFAULT_FILE = 'cloakroom.yaml';

export function loadConfig({ file, env, cwd }: Sources): Loaded {
  const name = file ?? fileFromEnvironment(env) ?? defaultFile(cwd);
  if (name === undefined && !Object.keys(env).some((key) => key.startsWith('CLOAKROOM_')))
    return { faults: [NOTHING] };
  const written = name === undefined ? undefined : readConfigFile(resolve(cwd, name));
  const sources: SecretSources = { folder: name === undefined ? cwd : dirname(resolve(cwd, name)), env };
  const overlay = overlayEnvironment(written?.tree ?? {}, env);

  const faults: Fault[] = [
    ...checkProcess(env).map(fromVariable),
    ...(written?.wrongs ?? []).map(({ line, problem, remedy }) => ({
      path: '',
      problem,
      remedy,
      where: placeInFile(name, line),
    })),
  ];
  // Of a file that cannot be read nothing more can be said: every setting would be reported as missing.
  if (written?.readable === false) return { faults };
  faults.push(...overlay.wrongs.map(fromVariable));

  const valueAt = (path: Path) => path.reduce<unknown>(step, overlay.tree);
  const parsed = fileSchema.safeParse(overlay.tree);
  const wrongs = [
    ...explainIssues(parsed.error?.issues ?? [], valueAt),
    ...crossCheck(valueAt, sources.folder),
    ...checkSecrets(valueAt, sources),
  ];
  faults.push(...locate(wrongs, name, written, overlay));
  if (faults.length > 0 || !parsed.data) return { faults };
  return { config: resolveConfig(parsed.data, sources) };
}

const NOTHING: Fault = {
  path: '',
  problem: 'there is no configuration',
  remedy:
    'name a file by --config or CLOAKROOM_CONFIG, or set the CLOAKROOM_* variables; start from cloakroom.example.yaml',
};

function fileFromEnvironment(env: NodeJS.ProcessEnv): string | undefined {
  const name = env['CLOAKROOM_CONFIG'];
  return name === '' ? undefined : name;
}

function defaultFile(cwd: string): string | undefined {
  return existsSync(resolve(cwd, DEFAULT_FILE)) ? DEFAULT_FILE : undefined;
}

function step(value: unknown, key: string | number): unknown {
  return typeof value === 'object' && value !== null && Object.hasOwn(value, key)
    ? (value as Record<string | number, unknown>)[key]
    : undefined;
}

function fromVariable({ variable, path, problem, remedy }: VariableWrong): Fault {
  return { path: formatPath(path), problem, remedy, where: `environment variable ${variable}` };
}

function placeInFile(name: string | undefined, line: number | undefined): string {
  return line === undefined ? String(name) : `${String(name)}:${line}`;
}

/** In the order of the file, then what stands nowhere in it. */
function locate(
  wrongs: readonly LocatedWrong[],
  name: string | undefined,
  written: ConfigFile | undefined,
  overlay: Overlay,
): Fault[] {
  const placed = wrongs.map(({ path, problem, remedy }) => {
    const variable = variableOf(path, overlay);
    const line = variable === undefined ? written?.lineOf(path) : undefined;
    const fault: Fault = { path: formatPath(path), problem, remedy };
    if (variable !== undefined)
      return { line, fault: { ...fault, where: `environment variable ${variable}` } };
    return { line, fault: written ? { ...fault, where: placeInFile(name, line) } : fault };
  });
  return placed.sort((a, b) => (a.line ?? Infinity) - (b.line ?? Infinity)).map(({ fault }) => fault);
}

/** The variable that set this value or the block around it. */
function variableOf(path: Path, overlay: Overlay): string | undefined {
  for (let length = path.length; length > 0; length -= 1) {
    const variable = overlay.origins.get(originKey(path.slice(0, length)));
    if (variable !== undefined) return variable;
  }
  return undefined;
}

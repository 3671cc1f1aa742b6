import { readFileSync } from 'node:fs';
import { isMap, isScalar, isSeq, LineCounter, parseDocument, type Document } from 'yaml';
import type { Wrong } from './setting.js';
import { reasonOf } from './secrets.js';
import type { Path } from './settings.js';
import type { Tree } from './environment.js';

/** The configuration file as a tree of values, and the line that each was written on. */

export interface FileWrong extends Wrong {
  readonly line?: number;
}

export interface ConfigFile {
  readonly tree: Tree;
  /** Faults of the file itself, such as a key written twice. */
  readonly wrongs: readonly FileWrong[];
  /** Whether `tree` holds what the file says, so that its values are worth checking. */
  readonly readable: boolean;
  lineOf(path: Path): number | undefined;
}

export function readConfigFile(path: string): ConfigFile {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    return unreadable({
      problem: reasonOf(error),
      remedy: 'name the file by --config or CLOAKROOM_CONFIG; cloakroom.example.yaml is one to start from',
    });
  }
  const counter = new LineCounter();
  // Pretty errors repeat the line of the file, which may hold what nobody should see in a log.
  const document = parseDocument(text, { lineCounter: counter, prettyErrors: false });
  const found = [...document.errors, ...document.warnings];
  const wrongs: FileWrong[] = [];
  for (const { code, pos } of found) {
    const { line } = counter.linePos(pos[0]);
    // One mistake can be several errors to a parser.
    if (wrongs.every((wrong) => wrong.line !== line)) wrongs.push({ line, ...explain(code) });
  }
  if (found.some(({ code }) => code !== 'DUPLICATE_KEY')) return unreadable(...wrongs);
  if (document.contents === null || (isScalar(document.contents) && document.contents.value === null)) {
    return unreadable({ problem: 'is empty', remedy: 'start from cloakroom.example.yaml' });
  }
  if (!isMap(document.contents)) {
    return unreadable({
      problem: 'is not a block of settings',
      remedy: 'write "name: value" lines; start from cloakroom.example.yaml',
    });
  }
  let tree: Tree;
  try {
    // A copy without shared parts: a variable that changes one use of an anchor must not change the others.
    tree = JSON.parse(JSON.stringify(document.toJS())) as Tree;
  } catch {
    return unreadable({ problem: 'has too many or unresolved aliases', remedy: 'write the values out' });
  }
  return { tree, wrongs, readable: true, lineOf: (at) => lineOf(document, counter, at) };
}

function unreadable(...wrongs: FileWrong[]): ConfigFile {
  return { tree: {}, wrongs, readable: false, lineOf: () => undefined };
}

function explain(code: string): Wrong {
  switch (code) {
    case 'DUPLICATE_KEY':
      return {
        problem: 'has a setting that is already set above, in the same block',
        remedy: 'remove one of the two',
      };
    case 'TAB_AS_INDENT':
      return { problem: 'is indented by a tab', remedy: 'indent by spaces' };
    case 'BAD_INDENT':
      return {
        problem: 'is indented differently from its neighbours',
        remedy: 'indent by two spaces a level',
      };
    case 'MULTIPLE_DOCS':
      return { problem: 'starts a second document', remedy: 'write one document, without a further "---"' };
    case 'TAG_RESOLVE_FAILED':
      return {
        problem: 'has a YAML tag ("!…") that means nothing here',
        remedy: 'remove the tag, or quote the value',
      };
    default:
      return {
        problem: `is not valid YAML (${code.toLowerCase().replaceAll('_', ' ')})`,
        remedy: 'correct this line; quote values that hold ": ", " #" or start with one of *&!|>%@`{[',
      };
  }
}

/** The line of the key or element at a path, or of the nearest block around it that was written. */
function lineOf(document: Document, counter: LineCounter, path: Path): number | undefined {
  let node: unknown = document.contents;
  let offset: number | undefined;
  for (const key of path) {
    if (isMap(node)) {
      const pair = node.items.find((item) => isScalar(item.key) && item.key.value === key);
      if (!pair) break;
      offset = isScalar(pair.key) ? (pair.key.range?.[0] ?? offset) : offset;
      node = pair.value;
    } else if (isSeq(node) && typeof key === 'number') {
      const item = node.items[key] as { range?: [number, number, number] | null } | undefined;
      if (!item) break;
      offset = item.range?.[0] ?? offset;
      node = item;
    } else break;
  }
  return offset === undefined ? undefined : counter.linePos(offset).line;
}

import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);

/**
 * Loads a module of this folder, and what it imports, when it is needed. `require` reads all files in one go; `import()`
 * waits for each of them, and takes a third longer.
 *
 * @param path relative to this file
 */
export async function loadModule<Module>(path: string): Promise<Module> {
  return (process.features.require_module ? require(path) : await import(path)) as Module;
}

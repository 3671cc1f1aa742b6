import { z } from 'zod';
import { fileSchema } from './schema.js';
import type { About } from './setting.js';

/** The JSON Schema of the file as it is written, for editors. */
export function jsonSchema(): Record<string, unknown> {
  const schema = z.toJSONSchema(fileSchema, {
    io: 'input',
    unrepresentable: 'any',
    override({ zodSchema, jsonSchema: node }) {
      const { example } = (z.globalRegistry.get(zodSchema) ?? {}) as Partial<About>;
      for (const own of ['kind', 'oneOf', 'keyName', 'keyStyle', 'secret', 'refused', 'example']) {
        Reflect.deleteProperty(node, own);
      }
      if (example !== undefined) node.examples = [example];
    },
  });
  return { ...schema, title: 'Configuration of Cloakroom' };
}

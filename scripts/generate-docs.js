// @ts-check
// Writes what is made from the schema of the configuration: cloakroom.schema.json and docs/configuration.md.
// With --check, writes nothing and exits 1 when one of them is not what it would write. Needs `npm run build` first.
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { format, resolveConfig } from 'prettier';
import { flow } from '../dist/config/faults.js';
import { jsonSchema } from '../dist/config/json-schema.js';
import { environmentName, formatPath, settings, unwrap } from '../dist/config/settings.js';

/** @typedef {import('../dist/config/settings.js').Setting} Setting */

const INTRO = `<!-- Made by scripts/generate-docs.js from the schemas in src/config/: change it there, then \`npm run docs\`. -->

# Configuration

One YAML file, environment variables, or both. [\`cloakroom.example.yaml\`](../cloakroom.example.yaml) holds every
setting with its default; this is the smallest file that works:

\`\`\`yaml
publicUrl: https://app.example.com
store: { redis: { url: redis://redis:6379 } }
secrets:
  cookie: [{ file: /run/secrets/cookie }]
  seal: [{ file: /run/secrets/seal }]
providers:
  main:
    issuer: https://id.example.com/realms/shop
    clientId: shop-bff
    clientSecret: { file: /run/secrets/client }
routes:
  - { path: /api/, upstream: http://orders:8080 }
\`\`\`

\`cloakroom check --config cloakroom.yaml\` tells what a configuration comes to: it reads it, reaches the providers, the
store and the upstreams, and prints what it found with the effective timeouts and cookie flags. Exit code 0, or 78 when
something is wrong. \`cloakroom start\` refuses a faulty configuration with the same code. Both name **all** faults at
once, one line each on standard error: the place, what is wrong, and what to write instead. Unknown settings are faults
too. Whether a provider or Redis can be reached is a matter of \`check\` only: \`start\` needs neither.

For completion and checks in an editor, begin the file with

\`\`\`yaml
# yaml-language-server: $schema=./cloakroom.schema.json
\`\`\`

and the path of \`cloakroom.schema.json\`, which \`cloakroom schema\` prints.

## Where settings come from

1. The environment variable of the setting, where it is set.
2. The file: \`--config\`, else \`CLOAKROOM_CONFIG\`, else \`cloakroom.yaml\` in the working directory, else none.
3. The default.

Every setting has a variable: \`CLOAKROOM_\` and the path of the setting in upper case, with \`_\` between words and \`__\`
between levels. Elements of lists are numbered from 0, and \`-\` in the name of a provider becomes \`_\`. So a container
needs no file:

\`\`\`sh
CLOAKROOM_PUBLIC_URL=https://app.example.com
CLOAKROOM_STORE__REDIS__URL=redis://redis:6379
CLOAKROOM_SECRETS__COOKIE__0__FILE=/run/secrets/cookie
CLOAKROOM_SECRETS__SEAL__0__ENV=SEAL_KEY
CLOAKROOM_PROVIDERS__MAIN__ISSUER=https://id.example.com/realms/shop
CLOAKROOM_PROVIDERS__MAIN__CLIENT_ID=shop-bff
CLOAKROOM_PROVIDERS__MAIN__CLIENT_SECRET__FILE=/run/secrets/client
CLOAKROOM_PROVIDERS__MAIN__SCOPES='[openid, offline_access]'
CLOAKROOM_ROUTES__0__PATH=/api/
CLOAKROOM_ROUTES__0__UPSTREAM=http://orders:8080
\`\`\`

Text is taken as it stands; everything else is read as a YAML value, so that lists and whole blocks can be given as
\`[a, b]\` and \`{ key: value }\`. A variable wins over the file, value by value: the rest of a block keeps what the file
says. Where only one of several settings may be given (\`memory\` or \`redis\`, \`file\` or \`env\`), the variable's choice
replaces the file's.

A variable that begins with \`CLOAKROOM_\`, is no setting and is named by no \`{ env: … }\` is a fault: it is most likely a
typing error. The variables by which Kubernetes announces a Service called \`cloakroom\` (\`CLOAKROOM_SERVICE_HOST\`,
\`CLOAKROOM_PORT=tcp://…\` and so on) are left alone.

Relative paths start from the folder of the file, or from the working directory when there is none.

## Values

| Type | How to write it |
| --- | --- |
| duration | a whole number and a unit, \`ms\`, \`s\`, \`m\`, \`h\` or \`d\`: \`250ms\`, \`30s\`, \`12h\` |
| size | a whole number and a unit, \`B\`, \`KiB\`, \`MiB\` or \`GiB\`: \`512KiB\`, \`10MiB\` |
| secret | \`{ file: path }\` or \`{ env: NAME }\`: where the secret is. One final line break is not part of it. The secret itself is refused here, in the file and in the variable of the setting alike |

## Secrets

Make each key with \`openssl rand -base64 48\`. A key has at least 32 bytes; all of them differ; those that stand in
documentation are refused. No message and no log line ever holds one.

\`secrets.cookie\` and \`secrets.seal\` are lists. The first key is used for what is written, all are accepted for what is
read. To rotate one without logging anybody out:

1. Add the new key **last**, on every replica. All can now read what it will write; none writes with it yet.
2. When every replica has it, move it **first**, on every replica. New and renewed sessions are under the new key.
3. Wait for \`session.absolute\` (12 hours by default). No session under the old key is left.
4. Remove the old key.

Each step is a change of the configuration and a rolling restart. In the other order a replica would meet what it cannot
read yet. Removing a key at once ends exactly the sessions under that key, which is what to do when it has leaked.

A **client secret** is read at each use: replace the
file and that is all. When the provider knows only one secret at a time, logins and refreshes that fall between the two
changes fail and are tried again; sessions stay.

The **Redis password** is part of \`store.redis.url\`, which is read at start. Let Redis accept both passwords (an ACL
user can have several), change the file, restart the replicas one after the other, then remove the old one.

## Settings

In the names of variables \`<NAME>\` is the name of a provider and \`<N>\` the number of a route or a key. **Bold** settings must be
given, within their block.
`;

/** @param {string} text */
function cell(text) {
  return text.replaceAll('|', '\\|').replaceAll('\n', ' ');
}

/** @param {string} text with pipes and angle brackets that a code span shows as they are */
function code(text) {
  return `\`${text.replaceAll('|', '\\|')}\``;
}

/** @param {import('zod').ZodType} schema @returns {string} */
function typeOf(schema) {
  const { definition, meta } = unwrap(schema);
  if (definition.options) return [...new Set(definition.options.map(typeOf))].join(' or ');
  if (meta.kind) return meta.kind;
  if (definition.entries) return Object.values(definition.entries).map(code).join(', ');
  if (definition.values) return definition.values.map((value) => code(String(value))).join(', ');
  if (definition.element) {
    const of = typeOf(definition.element);
    return `list of ${of === 'text' ? 'texts' : of === 'secret' ? 'secrets' : of}`;
  }
  if (definition.valueType) return 'names and texts';
  if (definition.shape) return 'block';
  return (
    { string: 'text', number: 'whole number', boolean: '`true`, `false`' }[definition.type] ?? definition.type
  );
}

/** @param {Setting} setting */
function defaultOf({ node }) {
  if (node.required) return '';
  return node.fallback === undefined ? 'none' : code(flow(node.fallback));
}

/** @param {string} variable @param {string} type */
function secretVariables(variable, type) {
  const place = type.startsWith('list') ? `${variable}__<N>` : variable;
  const places = [code(`${place}__FILE`), code(`${place}__ENV`)];
  return [...(type === 'secret' || type.startsWith('list') ? [] : [code(variable)]), ...places].join(', ');
}

/** @param {Setting} setting */
function row(setting) {
  const { path, node, schema } = setting;
  const type = typeOf(schema);
  const name = code(formatPath(path).replaceAll('.<n>', '[]'));
  const variable = environmentName(path).replace(/<([a-z]+)>/gi, (_, key) => `<${key.toUpperCase()}>`);
  const variables = /secrets?$/.test(type) ? secretVariables(variable, type) : code(variable);
  const description = cell(node.meta.description ?? '');
  const cells = [node.required ? `**${name}**` : name, type, defaultOf(setting), variables, description];
  return `| ${cells.join(' | ')} |`;
}

function markdown() {
  const lines = [INTRO];
  const all = [...settings()];
  for (const top of all.filter(({ path }) => path.length === 1)) {
    const [block] = top.path;
    lines.push(`### \`${block}\``, '');
    if (top.block && top.node.meta.description) lines.push(top.node.meta.description, '');
    const rows = all.filter((setting) => setting.path[0] === block && !setting.block);
    lines.push('| Setting | Type | Default | Variable | Meaning |', '| --- | --- | --- | --- | --- |');
    lines.push(...rows.map(row), '');
  }
  return lines.join('\n');
}

/** @type {[string, string][]} */
const outputs = [
  ['cloakroom.schema.json', JSON.stringify(jsonSchema())],
  ['docs/configuration.md', markdown()],
];

const checking = process.argv.includes('--check');
for (const [name, text] of outputs) {
  const path = fileURLToPath(new URL(`../${name}`, import.meta.url));
  const wanted = await format(text, { ...(await resolveConfig(path)), filepath: path });
  const written = await readFile(path, 'utf8').catch(() => '');
  if (written === wanted) continue;
  if (checking) {
    console.error(`${name} is not what the schema says; run: npm run docs`);
    process.exitCode = 1;
  } else {
    await mkdir(new URL('.', new URL(`../${name}`, import.meta.url)), { recursive: true });
    await writeFile(path, wanted);
    console.log(`wrote ${name}`);
  }
}

import { createHash, randomBytes } from 'node:crypto';
import { noMore, readArguments, UsageError } from './arguments.js';
import type { Command } from './command.js';
import { DONE } from './exit-codes.js';

/** `cloakroom admin-token`: a token for the admin listener, and the lines by which the servers know it. */

export const ADMIN_TOKEN_USAGE = `usage: cloakroom admin-token --name NAME --role read|end

Makes a token of 256 random bits for the admin listener. It is printed once and kept nowhere: the configuration
holds its SHA-256 only.

options
  --name NAME   who will use it, as the audit log will say
  --role ROLE   read: look at sessions; end: also end them
  -h, --help    print this text

exit codes
  0   done
  64  wrong usage
`;

/** @throws {UsageError} */
export function adminTokenCommand(argv: readonly string[]): Command {
  const { values, positionals } = readArguments(argv, { name: { type: 'string' }, role: { type: 'string' } });
  const { name, role, config: file, help = false } = values;
  noMore(positionals);
  if (!help) {
    if (name === undefined) throw new UsageError('say who will use it: --name');
    if (!/^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$/.test(name)) {
      throw new UsageError(
        "'--name' is up to 64 letters, digits and . _ @ -, and begins with one of the first two",
      );
    }
    if (role !== 'read' && role !== 'end')
      throw new UsageError('say what it may do: --role read, or --role end');
  }
  const run = () => {
    const token = randomBytes(32).toString('base64url');
    const sha256 = createHash('sha256').update(token).digest('hex');
    process.stdout.write(
      `Token, shown this once:\n\n  ${token}\n\n` +
        `For the configuration of every server:\n\n` +
        `admin:\n  tokens:\n    - { name: ${JSON.stringify(name)}, role: ${String(role)}, sha256: "${sha256}" }\n`,
    );
    return DONE;
  };
  return { help, file, run };
}

import type { ConfigFile } from './cloakroom.js';

/**
 * A change of a configuration file: other routes instead of its own.
 *
 * @param routes made for the address of the upstream that the rig started
 */
export function withRoutes(
  routes: (upstream: string) => ConfigFile[],
  more: ConfigFile = {},
): (file: ConfigFile) => ConfigFile {
  return (file) => {
    const [own] = file['routes'] as { upstream: string }[];
    return { ...file, ...more, routes: routes(own?.upstream ?? '') };
  };
}

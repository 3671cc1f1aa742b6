// @ts-check
// Runs before anything is built. Only syntax that Node 0.12 knows, so that an old Node prints the line
// below instead of a syntax error; no import and no require, so that it is valid as a module and as a script.
'use strict';

var found = process.versions.node.split('.');
var major = Number(found[0]);
var minor = Number(found[1]);

if (major < 20 || (major === 20 && minor < 19)) {
  process.stderr.write(
    'Cloakroom needs Node.js 20.19.0 or newer, this is ' +
      process.versions.node +
      '. Install a newer one (https://nodejs.org) and run the command again.\n',
  );
  process.exit(1);
}

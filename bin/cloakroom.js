#!/usr/bin/env node
// Syntax that old versions of Node can parse, so that they get to say what is wrong with them.
var needed = [20, 19, 0];
var have = process.versions.node.split('.').map(Number);

function tooOld() {
  for (var i = 0; i < needed.length; i += 1) {
    if (have[i] !== needed[i]) return have[i] < needed[i];
  }
  return false;
}

function fail(line) {
  process.stderr.write('cloakroom: ' + line + '\n');
  process.exit(1);
}

/** `require` reads a module and all it imports in one go; `import()` waits for each file, and takes a third longer. */
function load(path) {
  if (!process.features.require_module) return import(path);
  return new Promise(function (resolve) {
    resolve(require(path));
  });
}

if (tooOld()) {
  fail('Node ' + needed.join('.') + ' or later is needed, and this is Node ' + process.versions.node);
} else {
  load('../dist/cli/main.js').then(
    function (cli) {
      return cli.main(process.argv.slice(2));
    },
    function (error) {
      if (
        !/^(ERR_)?MODULE_NOT_FOUND$/.test(error.code) ||
        !/^Cannot find module '[^']*dist.cli.main\.js'/.test(error.message)
      )
        throw error;
      fail('not built yet; run: npm run build');
    },
  );
}

import { rmSync } from 'node:fs';
import { describeFinding, searchRun } from './secret-search.js';

/** Ends a run with the search for leaked secrets and one line that says how it went. */
export default class Reporter {
  #error;

  async onRunComplete(_contexts, results) {
    const { numPassedTests, numFailedTests, numPendingTests, numTodoTests, numRuntimeErrorTestSuites } =
      results;
    let failed = numFailedTests + numRuntimeErrorTestSuites;
    const run = process.env.CLOAKROOM_TEST_RUN_DIR;
    if (run !== undefined) {
      const { findings, secrets, tooShort, files, scanned } = searchRun(run);
      if (files > 0 && secrets > 0) {
        const short = tooShort === 0 ? '' : ` (${String(tooShort)} more too short to look for)`;
        process.stdout.write(
          `searched ${String(files)} recordings and logs, ${(scanned / 1024 / 1024).toFixed(1)} MiB, ` +
            `for ${String(secrets - tooShort)} secrets${short}: ${String(findings.length)} found\n`,
        );
      }
      if (findings.length > 0) {
        failed += 1;
        const list = findings.slice(0, 20).map(describeFinding).join('\n');
        process.stdout.write(`secrets reached a browser or a log:\n${list}\n`);
        this.#error = new Error('secrets reached a browser or a log');
      }
    }
    if (failed === 0 && process.env.CLOAKROOM_TEST_RUN_DIR_OURS === '1') {
      rmSync(run, { recursive: true, force: true });
    }
    const skipped = numPendingTests + numTodoTests;
    process.stdout.write(
      `${String(numPassedTests)} passed, ${String(failed)} failed, ${String(skipped)} skipped\n`,
    );
  }

  getLastError() {
    return this.#error;
  }
}

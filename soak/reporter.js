import Reporter from '../test/support/reporter.js';

/** Scenarios say themselves how they went: what is left is why one failed, the search for secrets, and the last line. */
export default class SoakReporter extends Reporter {
  onTestResult(_test, { failureMessage }) {
    if (failureMessage) process.stdout.write(`${failureMessage}\n`);
  }
}

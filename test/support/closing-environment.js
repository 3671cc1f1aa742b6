// @ts-check
import { TestEnvironment } from 'jest-environment-node';

/** What the rig started is closed after the last hook of a file. A hook of the rig's own would run before the file's hooks. */
export default class ClosingEnvironment extends TestEnvironment {
  /** @param {{ name: string }} event */
  async handleTestEvent(event) {
    if (event.name !== 'run_finish') return;
    await /** @type {{ closeEverything?: () => Promise<void> }} */ (this.global).closeEverything?.();
  }
}

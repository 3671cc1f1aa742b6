import { CloakroomError } from '../errors.js';

/** A provider's answer that does not lead to a session. */
export class CallbackRefusedError extends CloakroomError {
  /** This browser did begin the login, and was not sent round again a moment ago. */
  readonly mayRestart: boolean;

  constructor(mayRestart: boolean) {
    super('callback-refused');
    this.mayRestart = mayRestart;
  }
}

import type { Dispatcher } from 'undici';

/** An answer of which is not known yet whether it goes on. Its body waits. */
export class HeldAnswer {
  readonly #controller: Dispatcher.DispatchController;
  #state: 'held' | 'released' | 'dropped' = 'held';
  #later: (() => void) | undefined;

  constructor(controller: Dispatcher.DispatchController) {
    this.#controller = controller;
    controller.pause();
  }

  /**
   * What becomes of the answer meanwhile: one without a body is complete at once, and any may break off.
   * @returns whether nobody else is to hear of the event now
   */
  takes(controller: Dispatcher.DispatchController, event: () => void): boolean {
    if (controller !== this.#controller || this.#state === 'released') return false;
    if (this.#state === 'held') this.#later = event;
    return true;
  }

  /** It goes on, and so does what became of it. */
  release(): void {
    this.#state = 'released';
    // What is over already must not be resumed: by now its connection may serve another request.
    if (this.#later === undefined) this.#controller.resume();
    else this.#later();
  }

  /** It does not; nothing that becomes of it concerns anybody any more. */
  drop(): void {
    this.#state = 'dropped';
    this.#controller.abort(new Error('another answer takes its place'));
  }
}

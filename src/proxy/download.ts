import type { ServerResponse } from 'node:http';
import type { Dispatcher } from 'undici';
import type { Spend } from './bandwidth.js';

/** The body of an answer on its way to the browser: no faster than it is read, and than its session may move bytes. */
export class Download {
  readonly #controller: Dispatcher.DispatchController;
  readonly #response: ServerResponse;
  readonly #spend: Spend | undefined;
  /** The browser has not taken all yet. Node's own word for it is not kept true on a connection that was handed over. */
  #isFull = false;
  #rest: NodeJS.Timeout | undefined;

  constructor(controller: Dispatcher.DispatchController, response: ServerResponse, spend: Spend | undefined) {
    this.#controller = controller;
    this.#response = response;
    this.#spend = spend;
  }

  pass(chunk: Buffer): void {
    const isTaken = this.#response.write(chunk);
    const wait = this.#spend === undefined ? 0 : this.#spend(chunk.length);
    if (isTaken && wait === 0) return;
    this.#controller.pause();
    if (!isTaken) {
      this.#isFull = true;
      this.#response.once('drain', this.#drained);
    }
    if (wait > 0) this.#rest = setTimeout(this.#rested, wait);
  }

  /** Nothing is resumed any more: by then its connection may serve another request. */
  stop(): void {
    clearTimeout(this.#rest);
    this.#response.removeListener('drain', this.#drained);
  }

  readonly #rested = (): void => {
    this.#rest = undefined;
    if (!this.#isFull) this.#controller.resume();
  };

  readonly #drained = (): void => {
    this.#isFull = false;
    if (this.#rest === undefined) this.#controller.resume();
  };
}

/**
 * Requests under way in this process by session, so that one session cannot take what is there for all. An entry lives
 * while it counts something.
 */
export class Parallel {
  readonly #most: number;
  readonly #underWay = new Map<string, number>();

  constructor(most: number) {
    this.#most = most;
  }

  /** @returns false when there are too many, and this one is not counted */
  enter(session: string): boolean {
    const count = this.#underWay.get(session) ?? 0;
    if (count >= this.#most) return false;
    this.#underWay.set(session, count + 1);
    return true;
  }

  /** Once for each that was let in. */
  leave(session: string): void {
    const count = this.#underWay.get(session) ?? 0;
    if (count > 1) this.#underWay.set(session, count - 1);
    else this.#underWay.delete(session);
  }
}

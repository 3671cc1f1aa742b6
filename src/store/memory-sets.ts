import type { Ranked } from './store.js';

/** Ordered sets in memory. Kept as maps and sorted when they are read: they are small where they are used. */
export class MemorySets {
  readonly #sets = new Map<string, Map<string, number>>();

  add(key: string, members: readonly Ranked[]): void {
    const set = this.#sets.get(key) ?? new Map<string, number>();
    for (const { member, score } of members) set.set(member, score);
    this.#sets.set(key, set);
  }

  remove(key: string, members: readonly string[]): void {
    const set = this.#sets.get(key);
    for (const member of members) set?.delete(member);
    if (set?.size === 0) this.#sets.delete(key);
  }

  move(key: string, member: string, score: number): void {
    const set = this.#sets.get(key);
    if (set?.has(member) === true) set.set(member, score);
  }

  page(key: string, range: { after?: Ranked | undefined; to?: number | undefined; limit: number }): Ranked[] {
    const { after, to = Infinity, limit } = range;
    return this.#sorted(key)
      .filter((ranked) => ranked.score <= to && (after === undefined || compare(ranked, after) > 0))
      .slice(0, limit);
  }

  size(key: string): number {
    return this.#sets.get(key)?.size ?? 0;
  }

  claimDue(key: string, limit: number, now: number, lease: number): string[] {
    const due = this.page(key, { to: now, limit }).map(({ member }) => member);
    for (const member of due) this.move(key, member, now + lease);
    return due;
  }

  clear(): void {
    this.#sets.clear();
  }

  #sorted(key: string): Ranked[] {
    return [...(this.#sets.get(key) ?? [])].map(([member, score]) => ({ member, score })).sort(compare);
  }
}

function compare(a: Ranked, b: Ranked): number {
  return a.score - b.score || (a.member < b.member ? -1 : Number(a.member > b.member));
}

import { readFileSync } from 'node:fs';
import { closeLater } from '../test/support/lifetime.js';

/** Linux counts the time of processes in hundredths of a second. */
const TICK = 10;
const EVERY = 500;

/** Milliseconds of CPU that this process has used in all, its threads included. */
function cpuTime(pid: number): number {
  try {
    const stat = readFileSync(`/proc/${String(pid)}/stat`, 'utf8');
    // The name in brackets may hold anything, so fields are counted from behind it: utime and stime.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return (Number(fields[11]) + Number(fields[12])) * TICK;
  } catch {
    return Number.NaN;
  }
}

/** CPU time of all processes of this machine, ours or not. */
function machineTime(): number {
  const [, user, nice, system, , , irq, softirq] = readFileSync('/proc/stat', 'utf8')
    .split(/\s+/, 9)
    .map(Number);
  return ((user ?? 0) + (nice ?? 0) + (system ?? 0) + (irq ?? 0) + (softirq ?? 0)) * TICK;
}

/** Who used the machine when: a p99 on a machine that is full says little about the product. */
export class CpuUse {
  private readonly samples: { at: number; used: Record<string, number> }[] = [];
  private readonly timer: NodeJS.Timeout;

  constructor(private readonly groups: Record<string, readonly (number | undefined)[]>) {
    this.timer = setInterval(() => {
      this.sample();
    }, EVERY);
    closeLater(() => {
      this.stop();
    });
    this.sample();
  }

  private sample(): void {
    const used: Record<string, number> = { machine: machineTime() };
    for (const [name, pids] of Object.entries(this.groups)) {
      used[name] = pids.reduce<number>((sum, pid) => sum + (pid === undefined ? 0 : cpuTime(pid)), 0);
    }
    this.samples.push({ at: Date.now(), used });
  }

  stop(): void {
    clearInterval(this.timer);
  }

  /** Per cent of one core, between two moments. */
  describe(from: number, to: number): string {
    const within = this.samples.filter(({ at }) => at >= from && at <= to);
    const [first, last] = [within[0], within.at(-1)];
    if (first === undefined || last === undefined || last.at === first.at) return 'not measured';
    const shares = Object.keys(first.used).map((name) => {
      const share = ((last.used[name] ?? 0) - (first.used[name] ?? 0)) / (last.at - first.at);
      return `${name} ${(share * 100).toFixed(0)} %`;
    });
    return shares.join(', ');
  }
}

import type { BrowserClient, OpenResponse, RequestInit } from './browser-client.js';
import { eventually } from './lifetime.js';

export interface ServerEvent {
  event: string;
  data: unknown;
}

/** Reads an event stream as `EventSource` does, and keeps what came. */
export class EventReader {
  readonly events: ServerEvent[] = [];
  /** Every `retry` that came, in milliseconds. */
  readonly retries: number[] = [];
  /** Everything that came, as text. */
  text = '';
  /** The stream was ended as a stream ends, not cut off. */
  complete = false;
  over = false;
  private rest = '';

  private constructor(private readonly answer: OpenResponse) {
    const { stream } = answer;
    stream.setEncoding('utf8');
    stream.on('data', (chunk: string) => {
      this.take(chunk);
    });
    stream.once('end', () => (this.complete = true));
    stream.once('close', () => (this.over = true));
  }

  /** @param init without the CSRF header unless it is given: what `EventSource` sends */
  static async open(
    client: BrowserClient,
    path = '/auth/events',
    init: RequestInit = {},
  ): Promise<EventReader> {
    const headers = {
      'x-csrf': undefined,
      origin: undefined,
      'sec-fetch-site': 'same-origin',
      ...init.headers,
    };
    return new EventReader(await client.open(path, { ...init, headers }));
  }

  get status(): number {
    return this.answer.status;
  }

  get headers(): OpenResponse['headers'] {
    return this.answer.headers;
  }

  named(name: string): unknown[] {
    return this.events.filter(({ event }) => event === name).map(({ data }) => data);
  }

  /** The data of the first event of this name, now or soon. */
  async first(name: string, timeout = 10_000): Promise<unknown> {
    const [data] = await eventually(
      () => {
        const found = this.named(name);
        return found.length > 0 && found;
      },
      { timeout, what: `the event ${name}; so far ${JSON.stringify(this.events)}` },
    );
    return data;
  }

  /** Waits for the end of the stream. */
  async end(timeout = 10_000): Promise<this> {
    await eventually(() => this.over, { timeout, what: `the end of the stream; so far ${this.text}` });
    return this;
  }

  leave(): void {
    this.answer.abort();
  }

  private take(chunk: string): void {
    this.text += chunk;
    const blocks = (this.rest + chunk).split('\n\n');
    this.rest = blocks.pop() ?? '';
    for (const block of blocks) {
      let event = 'message';
      const data: string[] = [];
      for (const line of block.split('\n')) {
        const [, name = '', value = ''] = /^([^:]*):? ?(.*)$/.exec(line) ?? [];
        if (name === 'event') event = value;
        if (name === 'data') data.push(value);
        if (name === 'retry') this.retries.push(Number(value));
      }
      if (data.length > 0) this.events.push({ event, data: parsed(data.join('\n')) });
    }
  }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

import type { BrowserClient, BrowserResponse } from '../browser-client.js';
import type { Cloakroom } from '../cloakroom.js';
import { startProvider, type FaultProvider } from '../fault-provider.js';
import { eventually } from '../lifetime.js';
import type { Random } from '../random.js';
import { almost, almostClaims, almostKeys, anythingElse, type SpoiltAnswer } from './provider-answers.js';

/**
 * Where a provider is asked, and how often of ten. Keys are read again once a second at most, so: whenever they may be.
 */
const QUESTIONS = [
  ...['code', 'code', 'code', 'refresh', 'refresh', 'userinfo', 'userinfo'],
  ...['introspection', 'introspection', 'discovery'],
] as const;
type Question = (typeof QUESTIONS)[number] | 'keys';
/** Milliseconds. */
const KEYS_EVERY = 3000;
const PATIENCE = 5000;
/** Cloakroom leaves a provider alone after more than these, and nothing would be read of what it answers. */
const FAILURES_IN_A_ROW = 3;

const TOKENS = ['access_token', 'token_type', 'id_token', 'refresh_token', 'expires_in', 'scope', 'error'];
const CLAIMS = [
  'iss',
  'aud',
  'nonce',
  'azp',
  'exp',
  'iat',
  'nbf',
  'auth_time',
  'at_hash',
  'c_hash',
  'events',
];
const SHOWN = ['amr', 'acr', 'sid', 'name', '__proto__', 'constructor'];
const METADATA = [
  ...['issuer', 'authorization_endpoint', 'token_endpoint', 'jwks_uri', 'userinfo_endpoint'],
  ...['revocation_endpoint', 'introspection_endpoint', 'end_session_endpoint', '__proto__'],
  ...['authorization_response_iss_parameter_supported', 'token_endpoint_auth_methods_supported'],
  ...['response_modes_supported', 'mtls_endpoint_aliases', 'constructor'],
  ...['code_challenge_methods_supported', 'id_token_signing_alg_values_supported', 'scopes_supported'],
];
const UNKNOWN_CLIENT = { status: 401, error: 'invalid_client' };

const inactive = (): SpoiltAnswer => ({
  behaviour: { mutate: (answer) => ({ ...answer, active: false }) },
  ...{ isReadable: true, status: 200, text: '', changed: ['active'] },
});

export interface ProviderRun {
  answers: number;
  /** Of these: asked for, and readable, so that their content was looked at. */
  read: number;
  /** By question: answers, and those that were read. */
  questions: Map<Question, { answers: number; read: number }>;
  findings: string[];
  statuses: Map<string, number>;
}

/** Providers for {@link fuzzProviders}, one for each of those who ask at once, so that none meets the answer of another. */
export async function startProviders(count: number): Promise<Record<string, FaultProvider>> {
  const providers: Record<string, FaultProvider> = {};
  for (let i = 1; i <= count; i += 1) providers[`fuzz-${String(i)}`] = await startProvider();
  return providers;
}

/** Settings of these providers, and a route that asks them about tokens. */
export function providerSettings(
  providers: Record<string, FaultProvider>,
  upstream: string,
): { providers: Record<string, unknown>; route: Record<string, unknown> } {
  return {
    providers: Object.fromEntries(Object.keys(providers).map((name) => [name, { userinfo: 'required' }])),
    route: { path: '/checked/', upstream, introspect: '1s' },
  };
}

/** One answer after another of each provider, each within a sign-in, or the use of one, that is right in everything else. */
export async function fuzzProviders(
  room: Cloakroom,
  providers: Record<string, FaultProvider>,
  random: Random,
  isOver: () => boolean,
): Promise<ProviderRun> {
  const run: ProviderRun = { answers: 0, read: 0, questions: new Map(), findings: [], statuses: new Map() };
  await Promise.all(
    Object.entries(providers).map(async ([name, provider]) => {
      const lane = new Lane(room, name, provider, random, run);
      while (!isOver()) await lane.ask();
      await lane.isWell();
    }),
  );
  return run;
}

export function describeProviderRun({ answers, read, questions, statuses }: ProviderRun): string {
  const list = [...questions].map(([name, of]) => `${name} ${String(of.read)} of ${String(of.answers)}`);
  const seen = [...statuses].sort().map(([status, times]) => `${status}: ${String(times)}`);
  return `${String(answers)} answers of providers, ${String(read)} read (${list.join(', ')}); ${seen.join(', ')}`;
}

class Lane {
  /** In a row, of introspection and of everything else: they are counted, and left alone, apart. */
  readonly #failures = { introspection: 0, others: 0 };
  #keysAt = -Infinity;
  readonly #hits = new Map<string, number>();

  constructor(
    private readonly room: Cloakroom,
    private readonly name: string,
    private readonly provider: FaultProvider,
    private readonly random: Random,
    private readonly run: ProviderRun,
  ) {
    provider.events.on('hit', (endpoint: string) => {
      this.#hits.set(endpoint, this.#hitsOf(endpoint) + 1);
    });
  }

  async ask(): Promise<void> {
    if (Math.max(this.#failures.introspection, this.#failures.others) >= FAILURES_IN_A_ROW) {
      await this.isWell();
    }
    const mayReadKeys = performance.now() - this.#keysAt > KEYS_EVERY;
    const question = mayReadKeys ? 'keys' : this.random.pick(QUESTIONS);
    this.provider.modes.always = {};
    switch (question) {
      case 'code':
        return this.#code();
      case 'refresh':
        return this.#refresh();
      case 'userinfo':
        return this.#userinfo();
      case 'introspection':
        return this.#introspection();
      case 'discovery':
        return this.#discovery();
      case 'keys':
        return this.#keys();
    }
  }

  /** With every answer as it should be, so is everything else, at once. */
  async isWell(): Promise<void> {
    this.provider.modes.always = {};
    const { client, response } = await this.#signIn();
    if (client.sessionCookie === undefined) {
      this.#found(`a good login: ${String(response.status)} ${response.text.slice(0, 300)}`);
      return;
    }
    const { status } = await client.api('/checked/x');
    if (status !== 200) this.#found(`a call with an active token: ${String(status)}`);
    this.#failures.introspection = 0;
    this.#failures.others = 0;
  }

  async #code(): Promise<void> {
    const { random } = this;
    const claims = random.pick([['iss'], ['aud'], ['nonce'], CLAIMS, SHOWN]);
    const answer = this.#oneOf(() =>
      random.chance(0.5) ? almost(random, TOKENS) : almostClaims(random, claims),
    );
    const { client, response } = await this.#answered('code', 'token', answer, () => this.#signIn());
    this.#judge('code', answer, response);
    if (client.sessionCookie === undefined) return;
    const needed = ['iss', 'aud', 'nonce', 'id_token', 'access_token'];
    const { changed } = answer;
    if (changed === undefined || changed.some((name) => needed.includes(name))) {
      this.#found(`a session from ${said(answer)}`);
    }
    await this.#shows(client, answer);
  }

  async #refresh(): Promise<void> {
    const { random } = this;
    this.provider.always('token', { mutate: (answer) => ({ ...answer, expires_in: 0.001 }) });
    const { client } = await this.#goodSignIn();
    if (client === undefined) return;
    const answer = this.#oneOf(() => almost(random, TOKENS));
    const response = await this.#answered('refresh', 'refresh', answer, () => client.api('/api/refreshed'));
    this.#judge('refresh', answer, response);
    const me = await client.me();
    this.#judge('me', answer, me);
    // Only a definite no ends a session, and an ID token that is not about it, or not about the access token beside it.
    const isRefusal = answer.status >= 400 && answer.status < 500;
    const isAboutSomebody =
      answer.changed?.some((name) => name === 'id_token' || name === 'access_token') ??
      /bearer/i.test(answer.text);
    if (me.status !== 200 && !isRefusal && !isAboutSomebody)
      this.#found(`a session that ended by ${said(answer)}`);
  }

  async #userinfo(): Promise<void> {
    const { random } = this;
    this.provider.modes.userinfo = random.chance(0.3) ? 'jwt' : 'json';
    const answer = this.#oneOf(() => almost(random, ['sub', 'iss', 'aud', 'email', ...SHOWN]));
    const { client, response } = await this.#answered('userinfo', 'userinfo', answer, () => this.#signIn());
    this.provider.modes.userinfo = 'json';
    this.#judge('userinfo', answer, response);
    if (client.sessionCookie === undefined) return;
    if (answer.changed === undefined || answer.changed.includes('sub')) {
      this.#found(`a session from ${said(answer)}`);
    }
    await this.#shows(client, answer);
  }

  async #introspection(): Promise<void> {
    const { client } = await this.#goodSignIn();
    if (client === undefined) return;
    const members = ['active', 'sub', 'exp', 'scope', '__proto__'];
    const answer = this.#oneOf(() => (this.random.chance(0.3) ? inactive() : almost(this.random, members)));
    let active: unknown = false;
    const { mutate } = answer.behaviour;
    if (mutate !== undefined) {
      answer.behaviour.mutate = (before) => {
        const after = mutate(before);
        ({ active } = after);
        return after;
      };
    }
    const response = await this.#answered('introspection', 'introspection', answer, () =>
      client.api('/checked/x'),
    );
    this.#judge('introspection', answer, response);
    if (response.status === 200 && active !== true) this.#found(`an active token by ${said(answer)}`);
  }

  /** Metadata is read again when the provider says that it does not know the client. */
  async #discovery(): Promise<void> {
    const answer = this.#oneOf(() => almost(this.random, METADATA));
    this.provider.always('token', UNKNOWN_CLIENT);
    const response = await this.#answered('discovery', 'discovery', answer, () => this.#reread());
    this.#judge('discovery', answer, response);
    this.provider.always('discovery', undefined);
    const before = this.#hitsOf('discovery');
    await eventually(
      async () => {
        await this.#reread();
        return this.#hitsOf('discovery') > before;
      },
      { timeout: PATIENCE },
    ).catch(() => {
      this.#found(`metadata that is not read again after ${said(answer)}`);
    });
    this.provider.always('token', undefined);
  }

  /** @returns what the browser was told */
  async #reread(): Promise<BrowserResponse> {
    const before = this.#hitsOf('discovery');
    const { response } = await this.#signIn();
    await eventually(() => this.#hitsOf('discovery') > before, { timeout: 500 }).catch(() => undefined);
    return response;
  }

  async #keys(): Promise<void> {
    this.#keysAt = performance.now();
    this.provider.always('token', { signing: 'wrong-key' });
    const answer = this.#oneOf(() => almostKeys(this.random));
    const { client, response } = await this.#answered('keys', 'jwks', answer, () => this.#signIn());
    this.#judge('keys', answer, response);
    if (client.sessionCookie !== undefined) this.#found(`a session from ${said(answer)}`);
  }

  #oneOf(almostRight: () => SpoiltAnswer): SpoiltAnswer {
    return this.random.chance(0.5) ? anythingElse(this.random) : almostRight();
  }

  /** @returns what came of it while the provider answered like that */
  async #answered<T>(
    question: Question,
    endpoint: 'token' | 'refresh' | 'userinfo' | 'introspection' | 'discovery' | 'jwks',
    answer: SpoiltAnswer,
    ask: () => Promise<T>,
  ): Promise<T> {
    const before = this.#hitsOf(endpoint);
    this.provider.always(endpoint, answer.behaviour);
    const result = await ask();
    this.provider.always(endpoint, undefined);
    const isRead = answer.isReadable && this.#hitsOf(endpoint) > before;
    const counts = this.run.questions.get(question) ?? { answers: 0, read: 0 };
    this.run.questions.set(question, counts);
    for (const count of [this.run, counts]) {
      count.answers += 1;
      if (isRead) count.read += 1;
    }
    const gate = question === 'introspection' ? question : 'others';
    // A key set that holds no keys counts as none.
    this.#failures[gate] = answer.isReadable && question !== 'keys' ? 0 : this.#failures[gate] + 1;
    return result;
  }

  #judge(question: Question | 'me', answer: SpoiltAnswer, { status, text }: BrowserResponse): void {
    const name = `${question} ${String(status)}`;
    this.run.statuses.set(name, (this.run.statuses.get(name) ?? 0) + 1);
    if (status === 500) this.#found(`an internal error: ${text.slice(0, 500)} after ${said(answer)}`);
    if (/\n\s+at .+:\d+/.test(text)) this.#found(`a stack in an answer after ${said(answer)}`);
  }

  /** Whatever claims came with it, a session can be shown. */
  async #shows(client: BrowserClient, answer: SpoiltAnswer): Promise<void> {
    const { status } = await client.me();
    if (status !== 200) this.#found(`${String(status)} for a session from ${said(answer)}`);
  }

  async #signIn(): Promise<{ client: BrowserClient; response: BrowserResponse }> {
    const client = this.room.client();
    return { client, response: await client.login({ params: { provider: this.name } }) };
  }

  async #goodSignIn(): Promise<{ client: BrowserClient | undefined }> {
    const { client, response } = await this.#signIn();
    if (client.sessionCookie !== undefined) return { client };
    this.#found(`a good login: ${String(response.status)} ${response.text.slice(0, 300)}`);
    return { client: undefined };
  }

  #hitsOf(endpoint: string): number {
    return this.#hits.get(endpoint) ?? 0;
  }

  #found(what: string): void {
    this.run.findings.push(`${this.name}: ${what}`);
  }
}

function said({ text, changed, status }: SpoiltAnswer): string {
  if (changed !== undefined) return `an answer with another ${changed.join(', ')}`;
  return `${String(status)} ${JSON.stringify(text).slice(0, 1000)}`;
}

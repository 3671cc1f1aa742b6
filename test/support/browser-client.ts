import { Agent, request as httpRequest, type IncomingMessage } from 'node:http';
import { Readable } from 'node:stream';

export interface Cookie {
  name: string;
  value: string;
  path: string;
  /** Milliseconds since the epoch; undefined for a session cookie. */
  expires: number | undefined;
  secure: boolean;
  httpOnly: boolean;
  sameSite: 'strict' | 'lax' | 'none' | undefined;
}

/** Where a request comes from, as a browser sees it: decides which SameSite cookies go along and Sec-Fetch-Site. */
export type Site = 'same-origin' | 'same-site' | 'cross-site' | 'none';

export interface RequestInit {
  method?: string;
  headers?: Record<string, string | string[] | undefined>;
  body?: string | Buffer | Readable | undefined;
  /** Index of the replica to talk to; otherwise the client's own rule. */
  replica?: number;
  /** `same-origin` unless told. */
  site?: Site;
  /** Milliseconds. 30 s unless told. */
  timeout?: number;
  signal?: AbortSignal;
  /** Send exactly this Cookie header instead of the jar's; `''` sends none. */
  cookie?: string;
  /** Leave out headers this client would send by itself, by lower-case name. */
  without?: string[];
}

/** A response whose body is read. */
export class BrowserResponse {
  constructor(
    readonly url: string,
    readonly status: number,
    readonly headers: IncomingMessage['headers'],
    readonly rawHeaders: string[],
    readonly body: Buffer,
  ) {}

  get text(): string {
    return this.body.toString('utf8');
  }

  get location(): string | undefined {
    return this.headers.location;
  }

  get setCookies(): string[] {
    return this.headers['set-cookie'] ?? [];
  }

  // eslint-disable-next-line @typescript-eslint/no-unnecessary-type-parameters -- the caller says what it expects
  json<T = Record<string, unknown>>(): T {
    try {
      return JSON.parse(this.text) as T;
    } catch {
      throw new Error(`not JSON: ${String(this.status)} ${this.text.slice(0, 200)}`);
    }
  }

  /** The last part of a problem's `type`, for example `session-ended`; undefined when it is no problem document. */
  get problem(): string | undefined {
    if (!(this.headers['content-type'] ?? '').startsWith('application/problem+json')) return undefined;
    const { type } = this.json<{ type?: string }>();
    return type?.split(/[/#:]/).at(-1);
  }
}

/** A response whose body is still coming. */
export interface OpenResponse {
  status: number;
  headers: IncomingMessage['headers'];
  rawHeaders: string[];
  stream: IncomingMessage;
  /** Leaves: cuts the connection. */
  abort(): void;
  /** Reads until the text was seen; returns everything read so far. */
  until(text: string, timeout?: number): Promise<string>;
}

export interface BrowserTarget {
  /** What browsers see, for example `https://app.example.test`. */
  publicUrl: string;
  /** Base URLs of the replicas, asked for at each request. */
  replicas: () => string[];
  /** Send `X-Forwarded-Proto`; `https` when the public URL is https and a TLS-ending proxy is played. */
  forwardedProto?: 'https' | 'http' | undefined;
}

export interface BrowserOptions {
  /** A replica's index, or each request to the next one. */
  replica?: number | 'rotate';
  /** One TCP connection pool for this client alone. */
  ownConnections?: boolean;
  userAgent?: string;
  /** More headers for every request, for example `x-forwarded-for`. */
  headers?: Record<string, string>;
}

export interface LoginOptions {
  returnTo?: string;
  /** More parameters of /auth/login. */
  params?: Record<string, string>;
  /** Replica for /auth/login and for the callback. */
  replica?: number;
}

export interface FinishOptions {
  replica?: number;
  /** Who is signed in at the provider; its `modes.user` unless told. */
  as?: string;
  /** Changes the callback URL before it is called. */
  callback?: (url: URL) => URL;
  /** More headers on the callback request. */
  headers?: Record<string, string>;
}

export interface Me {
  authenticated: boolean;
  claims: Record<string, unknown>;
  session: { createdAt: string; idleExpiresAt: string; absoluteExpiresAt: string };
  logoutUrl: string;
}

export interface LogoutSteps {
  /** POST /auth/logout. */
  post: BrowserResponse;
  /** GET of the logoutUrl it named. */
  navigation: BrowserResponse | undefined;
  /** The provider's end-session endpoint. */
  provider: BrowserResponse | undefined;
  /** Where the provider sent the browser. */
  back: BrowserResponse | undefined;
}

const sharedAgent = new Agent({
  keepAlive: true,
  maxSockets: Infinity,
  maxFreeSockets: 1024,
  scheduling: 'lifo',
});

/** A browser as far as HTTP goes: cookies by host and SameSite, no redirect followed unless asked. */
export class BrowserClient {
  readonly publicUrl: URL;
  /** Set-Cookie lines a browser would have refused, with the reason. */
  readonly refusedCookies: string[] = [];
  /** Requests sent again because a pooled connection had gone stale before the first byte. */
  staleRetries = 0;
  replica: number | 'rotate';
  private readonly jar = new Map<string, Cookie>();
  private readonly agent: Agent;
  private readonly headers: Record<string, string>;
  private turn = 0;

  constructor(
    private readonly target: BrowserTarget,
    options: BrowserOptions = {},
  ) {
    this.publicUrl = new URL(target.publicUrl);
    this.replica = options.replica ?? 'rotate';
    this.agent =
      options.ownConnections === true ? new Agent({ keepAlive: true, maxSockets: Infinity }) : sharedAgent;
    this.headers = {
      'user-agent': options.userAgent ?? 'cloakroom-test',
      accept: '*/*',
      ...(target.forwardedProto === undefined ? {} : { 'x-forwarded-proto': target.forwardedProto }),
      ...options.headers,
    };
  }

  // --- cookies --------------------------------------------------------------------------------------------------

  /** Cookies of the public host that have not expired. */
  cookies(): Cookie[] {
    const now = Date.now();
    return [...this.jar.values()].filter((cookie) => cookie.expires === undefined || cookie.expires > now);
  }

  cookie(name: string): Cookie | undefined {
    return this.cookies().find((cookie) => cookie.name === name);
  }

  get secure(): boolean {
    return this.publicUrl.protocol === 'https:';
  }

  /** Full name of one of ours: `session` is `__Host-cloakroom-session` on https. */
  cookieName(short: string): string {
    return `${this.secure ? '__Host-' : ''}cloakroom-${short}`;
  }

  get sessionCookie(): Cookie | undefined {
    return this.cookie(this.cookieName('session'));
  }

  get loginCookies(): Cookie[] {
    return this.cookies().filter((cookie) => cookie.name.startsWith(this.cookieName('login-')));
  }

  setCookie(name: string, value: string, attributes: Partial<Cookie> = {}): void {
    this.jar.set(`${name};${attributes.path ?? '/'}`, {
      name,
      value,
      path: '/',
      expires: undefined,
      secure: this.secure,
      httpOnly: true,
      sameSite: undefined,
      ...attributes,
    });
  }

  deleteCookie(name: string): void {
    for (const [key, cookie] of this.jar) if (cookie.name === name) this.jar.delete(key);
  }

  clearCookies(): void {
    this.jar.clear();
  }

  /** A second client with the same cookies, for what two tabs or a thief would do. */
  clone(options: BrowserOptions = {}): BrowserClient {
    const other = new BrowserClient(this.target, { replica: this.replica, ...options });
    for (const [key, cookie] of this.jar) other.jar.set(key, { ...cookie });
    return other;
  }

  /** The Cookie header a browser would send. */
  cookieHeader(path: string, site: Site, method: string, navigation: boolean): string {
    const bare = path.split(/[?#]/)[0] ?? '/';
    return this.cookies()
      .filter((cookie) => {
        const inPath =
          bare === cookie.path ||
          bare.startsWith(cookie.path.endsWith('/') ? cookie.path : `${cookie.path}/`);
        if (!inPath) return false;
        if (site !== 'cross-site') return true;
        if (cookie.sameSite === 'strict') return false;
        if (cookie.sameSite === 'none') return true;
        return navigation && (method === 'GET' || method === 'HEAD');
      })
      .map((cookie) => `${cookie.name}=${cookie.value}`)
      .join('; ');
  }

  private storeCookies(lines: string[]): void {
    for (const line of lines) {
      const refuse = (reason: string): void => {
        this.refusedCookies.push(`${reason}: ${line}`);
      };
      const [pair = '', ...attributes] = line.split(';').map((part) => part.trim());
      const equals = pair.indexOf('=');
      if (equals <= 0) {
        refuse('no name');
        continue;
      }
      const cookie: Cookie = {
        name: pair.slice(0, equals),
        value: pair.slice(equals + 1),
        path: '/auth',
        expires: undefined,
        secure: false,
        httpOnly: false,
        sameSite: undefined,
      };
      let domain = false;
      let path = false;
      let maxAge: number | undefined;
      for (const attribute of attributes) {
        const at = attribute.indexOf('=');
        const name = (at < 0 ? attribute : attribute.slice(0, at)).toLowerCase();
        const value = at < 0 ? '' : attribute.slice(at + 1);
        if (name === 'path') {
          cookie.path = value === '' ? '/' : value;
          path = true;
        } else if (name === 'max-age') maxAge = Number(value);
        else if (name === 'expires') cookie.expires = Date.parse(value);
        else if (name === 'secure') cookie.secure = true;
        else if (name === 'httponly') cookie.httpOnly = true;
        else if (name === 'domain') domain = true;
        else if (name === 'samesite') {
          const wanted = value.toLowerCase();
          if (wanted === 'strict' || wanted === 'lax' || wanted === 'none') cookie.sameSite = wanted;
        }
      }
      if (maxAge !== undefined) cookie.expires = Date.now() + maxAge * 1000;
      if (cookie.name.startsWith('__Host-') && (!cookie.secure || domain || !path || cookie.path !== '/')) {
        refuse('__Host- rules');
        continue;
      }
      if (cookie.secure && !this.secure) {
        refuse('Secure on plain http');
        continue;
      }
      if (cookie.sameSite === 'none' && !cookie.secure) {
        refuse('SameSite=None without Secure');
        continue;
      }
      const key = `${cookie.name};${cookie.path}`;
      if (cookie.expires !== undefined && cookie.expires <= Date.now()) this.jar.delete(key);
      else this.jar.set(key, cookie);
    }
  }

  // --- requests -------------------------------------------------------------------------------------------------

  private base(replica: number | undefined): URL {
    const bases = this.target.replicas();
    let at = replica ?? this.replica;
    if (at === 'rotate') {
      at = this.turn % bases.length;
      this.turn += 1;
    }
    const base = bases[at];
    if (base === undefined) throw new Error(`there is no replica ${String(at)}`);
    return new URL(base);
  }

  private send(path: string, init: RequestInit, navigation: boolean): Promise<IncomingMessage> {
    const base = this.base(init.replica);
    const method = init.method ?? 'GET';
    const site = init.site ?? (navigation ? 'none' : 'same-origin');
    const cookie = init.cookie ?? this.cookieHeader(path, site, method, navigation);
    const headers: Record<string, string | string[]> = {
      host: this.publicUrl.host,
      ...this.headers,
      'sec-fetch-site': site,
      'sec-fetch-mode': navigation ? 'navigate' : 'cors',
      'sec-fetch-dest': navigation ? 'document' : 'empty',
      ...(navigation ? { accept: 'text/html,*/*;q=0.8', 'upgrade-insecure-requests': '1' } : {}),
      ...(cookie === '' ? {} : { cookie }),
    };
    for (const [name, value] of Object.entries(init.headers ?? {})) {
      if (value === undefined) Reflect.deleteProperty(headers, name.toLowerCase());
      else headers[name.toLowerCase()] = value;
    }
    for (const name of init.without ?? []) Reflect.deleteProperty(headers, name);
    const { body } = init;
    if (body !== undefined && !(body instanceof Readable) && headers['content-length'] === undefined) {
      headers['content-length'] = String(Buffer.byteLength(body));
    }

    const attempt = (last: boolean): Promise<IncomingMessage> =>
      new Promise((resolve, reject) => {
        const outgoing = httpRequest({
          host: base.hostname,
          port: base.port,
          path,
          method,
          headers,
          agent: this.agent,
          setHost: false,
          ...(init.signal === undefined ? {} : { signal: init.signal }),
        });
        outgoing.setTimeout(init.timeout ?? 30_000, () => {
          outgoing.destroy(new Error(`no answer to ${method} ${path} within the time`));
        });
        outgoing.once('error', (error: NodeJS.ErrnoException) => {
          const stale = outgoing.reusedSocket && (error.code === 'ECONNRESET' || error.code === 'EPIPE');
          if (stale && !last && !(body instanceof Readable)) {
            this.staleRetries += 1;
            attempt(true).then(resolve, reject);
          } else reject(error);
        });
        outgoing.once('response', (incoming) => {
          this.storeCookies(incoming.headers['set-cookie'] ?? []);
          resolve(incoming);
        });
        if (body instanceof Readable) {
          body.on('error', () => outgoing.destroy());
          body.pipe(outgoing);
        } else outgoing.end(body);
      });
    return attempt(false);
  }

  private async read(path: string, incoming: IncomingMessage): Promise<BrowserResponse> {
    const chunks: Buffer[] = [];
    for await (const chunk of incoming as AsyncIterable<Buffer>) chunks.push(chunk);
    return new BrowserResponse(
      path,
      incoming.statusCode ?? 0,
      incoming.headers,
      incoming.rawHeaders,
      Buffer.concat(chunks),
    );
  }

  /** A request as fetch() would make it, without the CSRF header. Rejects when the answer breaks off. */
  async fetch(path: string, init: RequestInit = {}): Promise<BrowserResponse> {
    return await this.read(path, await this.send(path, init, false));
  }

  /** A top-level navigation: no Origin, Sec-Fetch-Mode: navigate. Redirects are not followed. */
  async navigate(path: string, init: RequestInit = {}): Promise<BrowserResponse> {
    return await this.read(path, await this.send(path, init, true));
  }

  /** A fetch with what the SPA always sends: X-CSRF: 1 and Origin. */
  async api(path: string, init: RequestInit = {}): Promise<BrowserResponse> {
    return await this.fetch(path, this.withCsrf(init));
  }

  /** Like `api()`, but hands out the answer as soon as its head is there. */
  async open(path: string, init: RequestInit = {}): Promise<OpenResponse> {
    const stream = await this.send(path, this.withCsrf({ timeout: 120_000, ...init }), false);
    let seen = '';
    stream.on('error', () => undefined);
    return {
      status: stream.statusCode ?? 0,
      headers: stream.headers,
      rawHeaders: stream.rawHeaders,
      stream,
      abort: () => stream.destroy(),
      until: (text, timeout = 10_000) =>
        new Promise((resolve, reject) => {
          if (seen.includes(text)) {
            resolve(seen);
            return;
          }
          const stop = (): void => {
            clearTimeout(timer);
            stream.off('data', more);
            stream.off('close', ended);
            stream.pause();
          };
          const more = (chunk: Buffer): void => {
            seen += chunk.toString('utf8');
            if (!seen.includes(text)) return;
            stop();
            resolve(seen);
          };
          const ended = (): void => {
            stop();
            reject(new Error(`the answer ended before ${JSON.stringify(text)}: ${seen.slice(-200)}`));
          };
          const timer = setTimeout(() => {
            stop();
            reject(new Error(`${JSON.stringify(text)} did not come in time: ${seen.slice(-200)}`));
          }, timeout);
          stream.on('data', more);
          stream.once('close', ended);
          // A stream that was paused on purpose does not go on for a listener alone.
          stream.resume();
        }),
    };
  }

  private withCsrf(init: RequestInit): RequestInit {
    return { ...init, headers: { 'x-csrf': '1', origin: this.publicUrl.origin, ...init.headers } };
  }

  // --- flows ----------------------------------------------------------------------------------------------------

  /** GET /auth/login, and no further. */
  async beginLogin(options: LoginOptions = {}): Promise<LoginAttempt> {
    const query = new URLSearchParams(options.params);
    if (options.returnTo !== undefined) query.set('returnTo', options.returnTo);
    const search = query.toString();
    const response = await this.navigate(`/auth/login${search === '' ? '' : `?${search}`}`, {
      site: 'same-origin',
      ...(options.replica === undefined ? {} : { replica: options.replica }),
    });
    return new LoginAttempt(this, response, options.replica);
  }

  /**
   * Login, provider, callback; returns the callback's answer, or the first answer that led nowhere. As in a browser the
   * callback is a cross-site navigation: Strict cookies stay at home.
   */
  async login(options: LoginOptions & FinishOptions = {}): Promise<BrowserResponse> {
    const attempt = await this.beginLogin(options);
    return await attempt.finish(options);
  }

  async me(options: RequestInit & { slide?: false } = {}): Promise<BrowserResponse> {
    const { slide, ...init } = options;
    return await this.api(`/auth/me${slide === false ? '?slide=false' : ''}`, init);
  }

  /** POST /auth/logout, then, unless told not to, where it leads: our logout URL, the provider, and back. */
  async logout({
    navigate = true,
    returnTo,
    ...init
  }: RequestInit & { navigate?: boolean; returnTo?: string } = {}): Promise<LogoutSteps> {
    const steps: LogoutSteps = {
      post: await this.api(
        `/auth/logout${returnTo === undefined ? '' : `?returnTo=${encodeURIComponent(returnTo)}`}`,
        {
          ...init,
          method: 'POST',
        },
      ),
      navigation: undefined,
      provider: undefined,
      back: undefined,
    };
    if (!navigate || steps.post.status >= 300) return steps;
    const { logoutUrl } = steps.post.json<{ logoutUrl: string }>();
    steps.navigation = await this.navigate(logoutUrl, { site: 'same-origin' });
    const next = steps.navigation.location;
    if (next === undefined || this.isOurs(next)) return steps;
    steps.provider = await this.foreign(next);
    const back = steps.provider.location;
    if (back !== undefined && this.isOurs(back)) {
      steps.back = await this.navigate(this.pathOf(back), { site: 'cross-site' });
    }
    return steps;
  }

  /** A request to somewhere else (the provider), without cookies. */
  async foreign(url: string, init: RequestInit = {}): Promise<BrowserResponse> {
    const target = new URL(url);
    const incoming = await new Promise<IncomingMessage>((resolve, reject) => {
      const outgoing = httpRequest(target, {
        method: init.method ?? 'GET',
        headers: { accept: 'text/html', ...init.headers },
        agent: sharedAgent,
      });
      outgoing.setTimeout(init.timeout ?? 30_000, () =>
        outgoing.destroy(new Error(`no answer from ${target.host}`)),
      );
      outgoing.once('error', reject);
      outgoing.once('response', resolve);
      outgoing.end(init.body instanceof Readable ? undefined : init.body);
    });
    return await this.read(url, incoming);
  }

  /** Follows redirects, ours and the provider's, to the first answer that is none. */
  async follow(response: BrowserResponse, { max = 10 } = {}): Promise<BrowserResponse[]> {
    const chain: BrowserResponse[] = [];
    let current = response;
    let site: Site = 'same-origin';
    let from = this.publicUrl.href;
    for (let hop = 0; hop < max && current.status >= 300 && current.status < 400; hop += 1) {
      if (current.location === undefined) break;
      const next = new URL(current.location, from);
      from = next.href;
      if (this.isOurs(next.href)) current = await this.navigate(this.pathOf(next.href), { site });
      else {
        site = 'cross-site';
        current = await this.foreign(next.href);
      }
      chain.push(current);
    }
    return chain;
  }

  isOurs(url: string): boolean {
    return new URL(url, this.publicUrl).origin === this.publicUrl.origin;
  }

  pathOf(url: string): string {
    const { pathname, search } = new URL(url, this.publicUrl);
    return `${pathname}${search}`;
  }
}

/** A login that was begun. Several can be open at once and finish in any order. */
export class LoginAttempt {
  private sent: { callback: URL; form: URLSearchParams | undefined } | undefined;

  constructor(
    private readonly client: BrowserClient,
    /** The answer to /auth/login. */
    readonly response: BrowserResponse,
    private readonly replica: number | undefined,
  ) {}

  /** Where the browser was sent; undefined when it was not. */
  get authorizationUrl(): URL | undefined {
    const { location } = this.response;
    if (location === undefined || this.client.isOurs(location)) return undefined;
    return new URL(location);
  }

  get state(): string | undefined {
    return this.authorizationUrl?.searchParams.get('state') ?? undefined;
  }

  /** Goes through the provider; answers the callback URL with what it carries, or undefined when it sent none. */
  async authorize(as?: string): Promise<{ callback: URL; form: URLSearchParams | undefined } | undefined> {
    if (this.sent !== undefined) return this.sent;
    const url = this.authorizationUrl;
    if (url === undefined) return undefined;
    if (as !== undefined) url.searchParams.set('test_user', as);
    const answer = await this.client.foreign(url.href);
    if (answer.location !== undefined) {
      this.sent = { callback: new URL(answer.location), form: undefined };
    } else {
      const action = /action="([^"]*)"/.exec(answer.text)?.[1];
      if (action === undefined) return undefined;
      const form = new URLSearchParams();
      for (const [, name = '', value = ''] of answer.text.matchAll(/name="([^"]*)" value="([^"]*)"/g)) {
        form.append(unescape(name), unescape(value));
      }
      this.sent = { callback: new URL(unescape(action)), form };
    }
    return this.sent;
  }

  /** Comes back from the provider; may be called again to replay the callback. `by` is another browser, if any. */
  async finish({
    by = this.client,
    ...options
  }: FinishOptions & { by?: BrowserClient } = {}): Promise<BrowserResponse> {
    const sent = await this.authorize(options.as);
    if (sent === undefined) return this.response;
    const callback = options.callback?.(new URL(sent.callback)) ?? sent.callback;
    const replica = options.replica ?? this.replica;
    return await by.navigate(by.pathOf(callback.href), {
      site: 'cross-site',
      ...(replica === undefined ? {} : { replica }),
      ...(sent.form === undefined
        ? { headers: { ...options.headers } }
        : {
            method: 'POST',
            body: sent.form.toString(),
            headers: {
              'content-type': 'application/x-www-form-urlencoded',
              // A cross-site form post carries the provider's origin.
              origin: this.authorizationUrl?.origin ?? 'null',
              ...options.headers,
            },
          }),
    });
  }
}

function unescape(text: string): string {
  return text.replaceAll('&lt;', '<').replaceAll('&quot;', '"').replaceAll('&amp;', '&');
}

/** Runs jobs with at most so many at a time and keeps their order. */
export async function inParallel<T>(jobs: Array<() => Promise<T>>, limit = jobs.length): Promise<T[]> {
  const results: T[] = [];
  let next = 0;
  await Promise.all(
    Array.from({ length: Math.min(limit, jobs.length) }, async () => {
      while (next < jobs.length) {
        const at = next;
        next += 1;
        const job = jobs[at];
        if (job !== undefined) results[at] = await job();
      }
    }),
  );
  return results;
}

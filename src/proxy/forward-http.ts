import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http';
import type { Dispatcher } from 'undici';
import { SAFE_METHODS } from '../http/safe-methods.js';
import type { OpenSession } from '../store/session-records.js';
import { hasForeignCoding, writeHead } from './answer-head.js';
import type { Spend } from './bandwidth.js';
import { Download } from './download.js';
import { MOST_INTERIM_ANSWERS, passEarlyHints } from './early-hints.js';
import { isStreamHead, type EventStreams, type OpenStream } from './event-streams.js';
import { browserResponseHeaders } from './headers.js';
import { HeldAnswer } from './held-answer.js';
import { reasonPhrase } from './reason-phrase.js';
import { UPSTREAM_ANSWER, type RefusedTokens } from './refused-token.js';
import type { Route } from './route-table.js';
import { browserTrailers, wantsTrailers } from './trailers.js';
import { hasBody, Upload } from './upload.js';
import { closedBeforeAnswer, invalidAnswer, STREAMS_TOO_MANY } from './upstream-errors.js';
import { upstreamStepUp } from './upstream-step-up.js';
import type { Upstream } from './upstream.js';

export interface Forwarding {
  request: IncomingMessage;
  response: ServerResponse;
  route: Route;
  /** Path and query as the upstream gets them. */
  path: string;
  /** Name and value in turns. */
  headers: string[];
  requestId: string;
  security: readonly (readonly [string, string])[];
  streams: EventStreams;
  /** undefined: the request goes on as nobody's. */
  session: OpenSession | undefined;
  /** What goes along for that session. */
  accessToken: string | undefined;
  refused: RefusedTokens;
  /** The upstream failed before a byte of its answer went on; everything later aborts the browser's connection. */
  failed: (error: unknown) => void;
}

/**
 * Sends a request on and streams both ways with back-pressure. Nothing is buffered, nothing is parsed; an answer that
 * breaks off is broken off towards the browser as well, never ended as if it were whole.
 */
export function forwardHttp(forwarding: Forwarding): void {
  new Exchange(forwarding).start();
}

class Exchange implements Dispatcher.DispatchHandler {
  readonly #forwarding: Forwarding;
  #controller: Dispatcher.DispatchController | undefined;
  #upload: Upload | undefined;
  #download: Download | undefined;
  #events: OpenStream | undefined;
  /** Counted among the open event streams of its session. */
  #counted = false;
  #upstream: Upstream | undefined;
  /** Whether there was a connection, so that the upstream may know of the request. */
  #isSent = false;
  #retried = false;
  /** The first byte of an answer came, interim ones included. */
  #answering = false;
  #interimAnswers = 0;
  /** A 401 that waits for a better token. */
  #held: HeldAnswer | undefined;
  #done = false;
  #clientGone = false;

  constructor(forwarding: Forwarding) {
    this.#forwarding = forwarding;
  }

  start(): void {
    const { request, response, route } = this.#forwarding;
    if (hasBody(request)) request.once('error', this.#onClientGone);
    response.once('close', this.#onClientGone);
    this.#dispatch(route.upstreams.pick());
  }

  #dispatch(upstream: Upstream): void {
    const { request, route, path, headers } = this.#forwarding;
    const method = request.method as Dispatcher.HttpMethod;
    if (hasBody(request)) {
      this.#upload = new Upload(request, route, this.#spend, (error) => {
        this.#fail(error);
      });
    }
    this.#upstream = upstream;
    this.#answering = false;
    upstream.dispatch({ path, method, headers, body: this.#upload?.body ?? null }, this);
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    this.#isSent = true;
    if (this.#done) controller.abort(new Error('the client has gone'));
    // Not before there is a connection, so that nothing is lost where another is tried.
    else this.#upload?.start();
  }

  onResponseStarted(): void {
    this.#answering = true;
  }

  onResponseStart(
    controller: Dispatcher.DispatchController,
    status: number,
    parsed: IncomingHttpHeaders,
    statusMessage?: string,
  ): void {
    if (status < 200) {
      this.#passInterim(controller, status);
      return;
    }
    if (hasForeignCoding(parsed)) {
      this.#fail(invalidAnswer('a transfer coding that nobody asked for'));
      return;
    }
    const rawHeaders = (controller.rawHeaders ?? []) as (string | Buffer)[];
    const stepUp = upstreamStepUp(status, rawHeaders, this.#forwarding.session?.contents);
    if (stepUp !== undefined) {
      this.#fail(stepUp);
      return;
    }
    if (status === 401 && this.#isHeldBack(controller, statusMessage, rawHeaders)) return;
    this.#begin(status, statusMessage, rawHeaders);
    // The client takes the length it may carry, which is that of another answer (RFC 9110 section 8.6), for a short body.
    if (status === 304) this.onResponseEnd(controller);
  }

  /** Once for a request: what is refused again goes on. */
  #isHeldBack(
    controller: Dispatcher.DispatchController,
    statusMessage: string | undefined,
    rawHeaders: readonly (string | Buffer)[],
  ): boolean {
    if (this.#held !== undefined) return false;
    const isRepeatable = this.#upload === undefined;
    const renewal = this.#forwarding.refused.renewal({ ...this.#forwarding, isRepeatable }, rawHeaders);
    if (renewal === undefined) return false;
    const held = new HeldAnswer(controller);
    this.#held = held;
    renewal
      .then((isRenewed) => {
        if (isRenewed || this.#done) held.drop();
        if (this.#done) return;
        if (isRenewed) {
          this.#dispatch(this.#forwarding.route.upstreams.pick());
          return;
        }
        this.#begin(401, statusMessage, rawHeaders);
        held.release();
      })
      .catch((error: unknown) => {
        held.drop();
        if (!this.#done) this.#fail(error as Error);
      });
    return true;
  }

  #begin(status: number, statusMessage: string | undefined, rawHeaders: readonly (string | Buffer)[]): void {
    const { response, route, requestId, security, session } = this.#forwarding;
    const headers = browserResponseHeaders({
      rawHeaders,
      allow: route.responseAllow,
      cookies: route.cookies,
      cache: route.cache,
      vary: route.vary,
      requestId,
      security,
    });
    const isEndless = !headers.includes('content-length') && !headers.includes('Content-Length');
    if (isEndless && isStreamHead(headers) && !this.#enterStreams()) {
      this.#fail(Object.assign(new Error('too many event streams'), { code: STREAMS_TOO_MANY }));
      return;
    }
    if (status === 401) headers.push(...UPSTREAM_ANSWER);
    writeHead(response, status, reasonPhrase(status, statusMessage), headers);
    // Without a length this may be a stream whose first event is far off; the browser should know that it began.
    if (isEndless) {
      response.flushHeaders();
      const { streams } = this.#forwarding;
      this.#events = streams.watch(response, headers, session, this.#onSessionEnded);
    }
  }

  /** The answer itself follows, unless this was to be the last HTTP on the connection. */
  #passInterim(controller: Dispatcher.DispatchController, status: number): void {
    this.#interimAnswers += 1;
    if (status === 101 || this.#interimAnswers > MOST_INTERIM_ANSWERS) {
      this.#fail(invalidAnswer('another protocol, or too many interim answers'));
    } else if (status === 103) {
      passEarlyHints(this.#forwarding.response, (controller.rawHeaders ?? []) as (string | Buffer)[]);
    }
  }

  get #spend(): Spend | undefined {
    const { route, session } = this.#forwarding;
    return session && route.bandwidth?.of(session.handle);
  }

  /** @returns false when its session has as many as it may */
  #enterStreams(): boolean {
    const { session, route } = this.#forwarding;
    if (session === undefined) return true;
    this.#counted = route.eventStreams.enter(session.handle);
    return this.#counted;
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.#done) return;
    this.#events?.stream.passed(chunk);
    this.#download ??= new Download(controller, this.#forwarding.response, this.#spend);
    this.#download.pass(chunk);
  }

  onResponseEnd(controller: Dispatcher.DispatchController): void {
    const again = (): void => {
      this.onResponseEnd(controller);
    };
    if (this.#held?.takes(controller, again) === true) return;
    if (this.#done) return;
    const { request, response, route } = this.#forwarding;
    const trailers = (controller.rawTrailers ?? []) as (string | Buffer)[];
    if (trailers.length > 0 && wantsTrailers(request)) response.addTrailers(browserTrailers(trailers, route));
    this.#finish();
    response.end();
  }

  onResponseError(controller: Dispatcher.DispatchController, error: Error): void {
    const again = (): void => {
      this.onResponseError(controller, error);
    };
    if (this.#held?.takes(controller, again) === true) return;
    if (this.#clientGone || this.#done) return;
    // Such as a switch of protocols that nobody asked for: nothing that would be better the second time.
    if (this.#answering && !this.#forwarding.response.headersSent && closedBeforeAnswer(error)) {
      this.#fail(invalidAnswer('the answer broke off in its head', error));
      return;
    }
    const next = this.#retried ? undefined : this.#nextAfter(error);
    if (next === undefined) {
      this.#fail(error);
      return;
    }
    this.#retried = true;
    this.#dispatch(next);
  }

  /** Where a request goes that nobody can have acted on, or that may be sent twice. */
  #nextAfter(error: Error): Upstream | undefined {
    const { request, response, route } = this.#forwarding;
    if (!this.#isSent) return this.#upstream && route.upstreams.pickOther(this.#upstream);
    const isRepeatable = this.#upload === undefined && SAFE_METHODS.has(request.method ?? '');
    if (response.headersSent || !isRepeatable || !closedBeforeAnswer(error)) return undefined;
    return route.upstreams.pick();
  }

  #fail(error: Error): void {
    const { request, response, failed } = this.#forwarding;
    this.#finish();
    if (!response.headersSent) failed(error);
    // Without a length or chunks, as HTTP/1.0 has it, a plain end would pass for the end of the answer.
    else if (request.httpVersion === '1.0') request.socket.resetAndDestroy();
    else response.destroy();
    this.#controller?.abort(error);
  }

  readonly #onSessionEnded = (): void => {
    this.#finish();
    this.#controller?.abort(new Error('the session has ended'));
  };

  readonly #onClientGone = (): void => {
    if (this.#done) return;
    this.#clientGone = true;
    this.#finish();
    this.#controller?.abort(new Error('the client has gone'));
  };

  #finish(): void {
    const { request, response, route, session } = this.#forwarding;
    if (!this.#done && session !== undefined) {
      route.parallel.leave(session.handle);
      if (this.#counted) route.eventStreams.leave(session.handle);
    }
    this.#done = true;
    this.#events?.close();
    response.removeListener('close', this.#onClientGone);
    this.#download?.stop();
    if (this.#upload === undefined) return;
    request.removeListener('error', this.#onClientGone);
    this.#upload.stop();
  }
}

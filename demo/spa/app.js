// @ts-check
/*
 * The demo's page: signed in, calling an API, and holding no token.
 *
 * Everything it may touch for a test has a `data-testid`:
 *   views     view-loading, view-signed-out, view-signed-in (one is shown at a time)
 *   banner    banner, banner-title, banner-socket, banner-reference (problems that do not end the session)
 *   out       login
 *   expiring  expiring, expiring-left, stay (while the session is about to run out)
 *   session   user-name, session-name, session-email, session-created, idle-left, idle-at, absolute-left,
 *             absolute-at (times also as `datetime`), logout
 *   browser   holds-verdict, holds-cookie, holds-local, holds-session, holds-databases
 *   call      call-api, auto-call, call-result, call-message, call-raw, got-authorization, got-cookie,
 *             got-subject, token-fingerprint, token-left, call-log; in it call-row (with data-status and
 *             data-fingerprint) and token-refreshed (with data-from and data-to)
 *   stream    stream-toggle, stream-state (off, connecting, live, ended), stream-log; in it stream-event (data-id)
 *   talk      talk-toggle, talk-state (as of the stream), talk-text, talk-send, talk-log; in it talk-row (data-kind: hello,
 *             tick, echo, said, closed; of the last data-code and data-reason)
 *   files     coat, download-orders, download-catalogue
 *   upload    upload-file, upload-sample, upload-progress, upload-percent, upload-cancel, upload-result,
 *             upload-size (data-bytes), upload-hash, upload-match
 *   sessions  sessions; in it session-row (with data-handle and data-current) and in each but this one's session-end;
 *             end-others, logout-everywhere
 *   orders    orders; in it order-row
 */

/**
 * @typedef {object} Session
 * @property {boolean} authenticated
 * @property {Record<string, unknown>} claims
 * @property {{ createdAt: string, idleExpiresAt: string, absoluteExpiresAt: string }} session
 */

/**
 * @typedef {object} Problem
 * @property {string} type
 * @property {string} title
 * @property {number} status
 * @property {string} [instance]
 * @property {string} [reason]
 * @property {string} [detail]
 * @property {boolean} [silent]
 * @property {string} [loginUrl]
 */

/**
 * @typedef {object} Hello
 * @property {string} message
 * @property {{ authorization: boolean, cookie: boolean }} received
 * @property {{ fingerprint: string, subject: string, issuedAt: string, expiresAt: string }} token
 */

/**
 * @typedef {object} OwnSession
 * @property {string} handle
 * @property {boolean} current
 * @property {string} createdAt
 * @property {string} usedAt
 * @property {string} [browser]
 * @property {string} [platform]
 * @property {string} [address]
 */

const CALL_EVERY = 10_000;
const LOG_LENGTH = 40;
const EVENTS_SHOWN = 6;
const TALK_SHOWN = 6;
const SAMPLE_BYTES = 25 * 1024 * 1024;
const COMPARE_UP_TO = 64 * 1024 * 1024;

/** The code with which Cloakroom closes a WebSocket whose session has ended. */
const SESSION_ENDED = 4401;

/** Cloakroom refuses what a script asks of the API without it: a page of another site cannot send it. */
const CSRF = { 'X-CSRF': '1' };

/** @type {Record<string, string>} */
const REASONS = {
  user: 'You signed out in another tab.',
  elsewhere: 'You ended this session from another browser.',
  replaced: 'You signed in again in this browser.',
  provider: 'The identity provider signed you out.',
  operator: 'An operator ended your session.',
  epoch: 'Everybody was signed out.',
  expired: 'The time of your session ran out.',
  'refresh-refused': 'The identity provider ended your session.',
  'refresh-lost': 'Your session could not be renewed.',
  'identity-changed': 'The identity provider answered for somebody else, so your session was ended.',
  'token-expired': 'Your access has run out and could not be renewed.',
};

/** @param {string} id */
function element(id) {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`no element ${id}`);
  return found;
}

/** @param {string} id */
const input = (id) => /** @type {HTMLInputElement} */ (element(id));

const clock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const clockAndDay = new Intl.DateTimeFormat(undefined, {
  weekday: 'short',
  hour: '2-digit',
  minute: '2-digit',
});
const decimal = new Intl.NumberFormat();

/** @type {Session | undefined} */
let session;
/** @type {Hello | undefined} */
let lastHello;
/** @type {number | undefined} */
let autoCall;
/** @type {EventSource | undefined} */
let stream;
/** @type {WebSocket | undefined} */
let talk;
/** @type {XMLHttpRequest | undefined} */
let sending;
/** @type {EventSource | undefined} */
let events;
/**
 * When the session runs out, once that is near.
 * @type {number | undefined}
 */
let runsOutAt;
/** This page is signing out itself: what it hears of that is no news. */
let leaving = false;

// --- Views ---------------------------------------------------------------------------------------------------

/** @param {'loading' | 'out' | 'in'} view */
function show(view) {
  for (const name of ['loading', 'out', 'in']) element(`view-${name}`).hidden = name !== view;
  element('who').hidden = view !== 'in';
}

/** @param {string} [why] as a person would say it */
function signedOut(why) {
  const wasIn = session !== undefined;
  session = undefined;
  lastHello = undefined;
  setAutoCall(false);
  stopWatching();
  // The WebSocket is not closed here: Cloakroom does that, and says why.
  sending?.abort();
  events?.close();
  runsOut(undefined);
  element('coat').removeAttribute('src');
  for (const id of ['call-log', 'stream-log', 'talk-log', 'sessions', 'orders'])
    element(id).replaceChildren();
  for (const id of ['call-result', 'upload-result', 'upload-running']) element(id).hidden = true;
  element('call-empty').hidden = false;
  element('stream-empty').hidden = false;
  show('out');
  if (wasIn) banner('You are signed out.', why ?? 'Your session is over.');
}

/** @param {Problem} problem */
function whySignedOut({ reason, silent, title }) {
  const text = REASONS[reason ?? ''] ?? title;
  return silent ? `${text} Signing in again will most likely not ask for your password.` : text;
}

/** @param {Session} me */
function signedIn(me) {
  leaving = false;
  const first = session === undefined;
  session = me;
  const { claims } = me;
  const name = String(claims['name'] ?? claims['preferred_username'] ?? claims['sub'] ?? 'somebody');
  const initials = name
    .split(' ')
    .map((word) => word.slice(0, 1))
    .slice(0, 2);
  element('avatar').textContent = initials.join('');
  element('who-name').textContent = name;
  element('session-name').textContent = name;
  element('session-email').textContent = String(claims['email'] ?? claims['sub'] ?? '');
  const created = new Date(me.session.createdAt);
  element('ticket-number').textContent = clock.format(created).replace(/\D/g, '');
  moment('session-created', me.session.createdAt, `since ${clock.format(created)}`);
  tick();
  show('in');
  listen();
  void loadSessions();
  if (first) {
    input('coat').src = `/api/files/coat.svg?of=${encodeURIComponent(me.session.createdAt)}`;
    void loadOrders();
    void callApi();
  }
}

/**
 * @param {string} id
 * @param {string} instant
 * @param {string} text
 */
function moment(id, instant, text) {
  element(id).setAttribute('datetime', instant);
  element(id).textContent = text;
}

// --- Problems ------------------------------------------------------------------------------------------------

/** @type {number | undefined} */
let bannerTimer;

/**
 * @param {string} title
 * @param {string} [text]
 * @param {string} [reference]
 */
function banner(title, text = '', reference = '') {
  clearInterval(bannerTimer);
  element('banner-title').textContent = title;
  element('banner-text').textContent = text;
  element('banner-socket').textContent = '';
  element('banner-reference').textContent = reference === '' ? '' : `Reference ${reference}`;
  element('banner').hidden = false;
}

function hideBanner() {
  clearInterval(bannerTimer);
  element('banner').hidden = true;
}

/**
 * @param {Problem} problem
 * @param {number} seconds
 */
function comeBackLater(problem, seconds) {
  let left = seconds;
  const text = () => `Try again in ${String(left)} s.`;
  banner(problem.title, text(), problem.instance);
  bannerTimer = setInterval(() => {
    left -= 1;
    if (left > 0) {
      element('banner-text').textContent = text();
    } else {
      hideBanner();
      void loadSession();
    }
  }, 1000);
}

/**
 * Decides what an answer that is not a success means. Only a 401 of Cloakroom itself ends the session; a 503 says
 * that it could not be read just now, which is no reason to sign anybody out.
 *
 * @param {number} status
 * @param {string} type content type
 * @param {string} body
 * @param {string | null} retryAfter
 */
function refused(status, type, body, retryAfter) {
  const problem = type.startsWith('application/problem+json') ? parseProblem(body) : undefined;
  if (problem === undefined) {
    banner(`The answer was ${String(status)}`, 'It came without an explanation.');
  } else if (problem.status === 401) {
    signedOut(whySignedOut(problem));
  } else if (problem.status === 503) {
    comeBackLater(problem, Math.max(1, Number(retryAfter) || 5));
  } else {
    banner(problem.title, problem.detail, problem.instance);
  }
}

/**
 * @param {string} body
 * @returns {Problem | undefined}
 */
function parseProblem(body) {
  try {
    const parsed = JSON.parse(body);
    return typeof parsed?.title === 'string' ? parsed : undefined;
  } catch {
    return undefined;
  }
}

/** @param {Response} response */
async function refusedResponse(response) {
  const type = response.headers.get('content-type') ?? '';
  refused(response.status, type, await response.text(), response.headers.get('retry-after'));
}

function unreachable() {
  banner('Cloakroom cannot be reached', 'Is the demo still running?');
}

// --- Session -------------------------------------------------------------------------------------------------

/** Asks who is signed in, without counting as use of the session. */
async function loadSession() {
  try {
    const response = await fetch('/auth/me?slide=false', { headers: CSRF, cache: 'no-store' });
    if (!response.ok) {
      await refusedResponse(response);
      if (session === undefined) show('out');
      return;
    }
    const me = /** @type {Session} */ (await response.json());
    if (me.authenticated) signedIn(me);
    else signedOut();
  } catch {
    unreachable();
    if (session === undefined) show('out');
  }
}

/** @param {string} [query] */
async function logout(query = '') {
  leaving = true;
  const buttons = ['logout', 'logout-everywhere'].map((id) => /** @type {HTMLButtonElement} */ (element(id)));
  for (const button of buttons) button.disabled = true;
  try {
    const response = await fetch(`/auth/logout${query}`, { method: 'POST', headers: CSRF });
    if (!response.ok) {
      leaving = false;
      await refusedResponse(response);
      return;
    }
    const { logoutUrl } = /** @type {{ logoutUrl: string }} */ (await response.json());
    stopWatching();
    location.assign(logoutUrl);
  } catch {
    leaving = false;
    unreachable();
  } finally {
    for (const button of buttons) button.disabled = false;
  }
}

/** Hears what becomes of the session, whoever causes it. Listening does not count as use. */
function listen() {
  if (events !== undefined && events.readyState !== EventSource.CLOSED) return;
  const source = new EventSource('/auth/events');
  events = source;
  /** @type {(name: string, told: (data: any) => void) => void} */
  const on = (name, told) => source.addEventListener(name, (event) => told(JSON.parse(event.data)));
  // Whatever was said before: what still holds is said again.
  source.addEventListener('open', () => runsOut(undefined));
  on('expiring', (data) => runsOut(Date.now() + data.in * 1000, data.kind));
  on('extended', ({ idleExpiresAt }) => {
    runsOut(undefined);
    if (session !== undefined) session.session.idleExpiresAt = idleExpiresAt;
    tick();
  });
  on('ended', ({ reason }) => {
    source.close();
    ended(reason);
  });
  // It tries again by itself, unless the answer was a refusal: that one says more.
  source.addEventListener('error', () => {
    if (source.readyState === EventSource.CLOSED && events === source) void loadSession();
  });
}

/**
 * Whoever says so first, the events or the WebSocket.
 *
 * @param {string} reason
 */
function ended(reason) {
  if (leaving) return;
  if (reason === 'replaced') {
    // Somebody is signed in here, perhaps somebody else: everything on the page is read anew.
    session = undefined;
    void awaitSession();
  } else {
    signedOut(REASONS[reason]);
  }
}

/** The cookie of the new session may still be on its way to this browser when the old one ends. */
async function awaitSession() {
  for (let tries = 0; tries < 10 && session === undefined; tries += 1) {
    if (tries > 0) await new Promise((resolve) => setTimeout(resolve, 300));
    await loadSession();
  }
}

/**
 * @param {number | undefined} at undefined: not soon
 * @param {'idle' | 'absolute'} [kind]
 */
function runsOut(at, kind) {
  runsOutAt = at;
  element('expiring').hidden = at === undefined;
  if (at === undefined) return;
  const idle = kind === 'idle';
  element('stay').hidden = !idle;
  element('login-again').hidden = idle;
  element('expiring-text').textContent = idle
    ? 'You have not done anything for a while.'
    : 'Every session ends at some time, however much it is used.';
  tick();
}

async function stay() {
  try {
    const response = await fetch('/auth/me', { headers: CSRF, cache: 'no-store' });
    if (!response.ok) await refusedResponse(response);
  } catch {
    unreachable();
  }
}

async function loadSessions() {
  try {
    const response = await fetch('/auth/sessions?slide=false', { headers: CSRF, cache: 'no-store' });
    if (!response.ok) {
      await refusedResponse(response);
      return;
    }
    const { sessions } = /** @type {{ sessions: OwnSession[] }} */ (await response.json());
    if (session === undefined) return;
    sessions.sort((a, b) => Number(b.current) - Number(a.current) || b.usedAt.localeCompare(a.usedAt));
    element('sessions').replaceChildren(...sessions.map(sessionRow));
    const alone = sessions.every(({ current }) => current);
    element('sessions-alone').hidden = !alone;
    element('end-others').hidden = alone;
  } catch {
    unreachable();
  }
}

/** @param {OwnSession} own */
function sessionRow({ handle, current, createdAt, usedAt, browser, platform, address }) {
  const row = document.createElement('li');
  row.dataset['testid'] = 'session-row';
  row.dataset['handle'] = handle;
  row.dataset['current'] = String(current);
  const what = document.createElement('div');
  const name = document.createElement('b');
  name.textContent = [browser ?? 'A browser', platform].filter(Boolean).join(' on ');
  const detail = document.createElement('span');
  detail.className = 'soft';
  const used = `last used ${clockAndDay.format(new Date(usedAt))}`;
  detail.textContent = [used, address].filter(Boolean).join(' · ');
  detail.title = `signed in ${clockAndDay.format(new Date(createdAt))}`;
  what.append(name);
  row.append(what);
  if (current) {
    const mark = document.createElement('span');
    mark.className = 'mark';
    mark.textContent = 'this browser';
    what.append(mark);
  } else {
    const end = document.createElement('button');
    end.type = 'button';
    end.className = 'button small';
    end.dataset['testid'] = 'session-end';
    end.textContent = 'End';
    end.setAttribute('aria-label', `End the session of ${name.textContent}`);
    end.addEventListener('click', () => void endSessions(end, 'DELETE', handle));
    row.append(end);
  }
  what.append(detail);
  return row;
}

/**
 * @param {HTMLButtonElement} button
 * @param {'DELETE' | 'POST'} method
 * @param {string} what
 */
async function endSessions(button, method, what) {
  button.disabled = true;
  try {
    const response = await fetch(`/auth/sessions/${what}`, { method, headers: CSRF });
    // Gone already: the list that follows shows it.
    if (!response.ok && response.status !== 404) await refusedResponse(response);
    await loadSessions();
  } catch {
    unreachable();
  } finally {
    button.disabled = false;
  }
}

/** @param {string} instant */
function left(instant) {
  const seconds = Math.max(0, Math.round((Date.parse(instant) - Date.now()) / 1000));
  const hours = Math.floor(seconds / 3600);
  const minutes = Math.floor((seconds % 3600) / 60);
  const two = (/** @type {number} */ value) => String(value).padStart(2, '0');
  return hours > 0
    ? `${String(hours)}:${two(minutes)}:${two(seconds % 60)}`
    : `${String(minutes)}:${two(seconds % 60)}`;
}

/** Once a second: everything that counts down. */
function tick() {
  element('clock').textContent = clock.format(new Date());
  if (session === undefined) return;
  const { idleExpiresAt, absoluteExpiresAt } = session.session;
  element('idle-left').textContent = left(idleExpiresAt);
  element('absolute-left').textContent = left(absoluteExpiresAt);
  moment('idle-at', idleExpiresAt, `at ${clock.format(new Date(idleExpiresAt))}`);
  moment('absolute-at', absoluteExpiresAt, clockAndDay.format(new Date(absoluteExpiresAt)));
  if (runsOutAt !== undefined) element('expiring-left').textContent = left(new Date(runsOutAt).toISOString());

  if (lastHello === undefined) return;
  const { issuedAt, expiresAt } = lastHello.token;
  const remaining = Date.parse(expiresAt) - Date.now();
  const life = Date.parse(expiresAt) - Date.parse(issuedAt);
  const meter = /** @type {HTMLMeterElement} */ (element('token-life'));
  meter.value = Math.max(0, Math.min(100, (remaining / life) * 100));
  element('token-left').textContent =
    remaining > 0
      ? `good for ${String(Math.ceil(remaining / 1000))} s more`
      : 'expired by now; the next call gets a new one';
}

// --- Calls ---------------------------------------------------------------------------------------------------

async function callApi() {
  const button = /** @type {HTMLButtonElement} */ (element('call'));
  button.disabled = true;
  const started = performance.now();
  try {
    const response = await fetch('/api/hello', { headers: CSRF, cache: 'no-store' });
    const milliseconds = Math.round(performance.now() - started);
    if (!response.ok) {
      logCall(response.status, milliseconds);
      await refusedResponse(response);
      return;
    }
    const hello = /** @type {Hello} */ (await response.json());
    const before = lastHello?.token.fingerprint;
    lastHello = hello;
    showHello(hello);
    logCall(response.status, milliseconds, hello.token.fingerprint);
    if (before !== undefined && before !== hello.token.fingerprint)
      logRefresh(before, hello.token.fingerprint);
  } catch {
    unreachable();
  } finally {
    button.disabled = false;
  }
}

/** @param {Hello} hello */
function showHello(hello) {
  element('call-empty').hidden = true;
  element('call-result').hidden = false;
  element('call-message').textContent = hello.message;
  check('got-authorization', hello.received.authorization, 'Authorization', 'with an access token');
  // No cookie at the API is the good case: the ticket stays at the counter.
  check('got-cookie', false, 'Cookie', hello.received.cookie ? 'which it should not get' : '');
  if (hello.received.cookie) element('got-cookie').className = 'bad';
  element('got-subject').textContent = `a token for ${hello.token.subject}`;
  const chip = element('fingerprint');
  chip.textContent = hello.token.fingerprint;
  tint(chip, hello.token.fingerprint);
  element('call-raw').textContent = JSON.stringify(hello, null, 2);
  tick();
}

/**
 * @param {string} id
 * @param {boolean} there
 * @param {string} header
 * @param {string} remark
 */
function check(id, there, header, remark) {
  const code = document.createElement('code');
  code.textContent = header;
  element(id).className = there ? 'yes' : 'no';
  element(id).replaceChildren(there ? '' : 'no ', code, remark === '' ? '' : ` ${remark}`);
}

/**
 * The same fingerprint always has the same colour.
 *
 * @param {HTMLElement} chip
 * @param {string} fingerprint
 */
function tint(chip, fingerprint) {
  chip.style.setProperty('--hue', String(Number.parseInt(fingerprint, 16) % 360));
}

/**
 * @param {number} status
 * @param {number} milliseconds
 * @param {string} [fingerprint]
 */
function logCall(status, milliseconds, fingerprint) {
  const row = document.createElement('li');
  row.dataset['testid'] = 'call-row';
  row.dataset['status'] = String(status);
  const time = document.createElement('time');
  time.textContent = clock.format(new Date());
  const what = document.createElement('span');
  what.textContent = `${String(status)} · ${String(milliseconds)} ms · GET /api/hello`;
  row.append(time, what);
  if (fingerprint !== undefined) {
    row.dataset['fingerprint'] = fingerprint;
    row.append(chipOf(fingerprint));
  } else {
    row.className = 'failed';
  }
  prepend('call-log', row, LOG_LENGTH);
}

/**
 * @param {string} from
 * @param {string} to
 */
function logRefresh(from, to) {
  const row = document.createElement('li');
  row.className = 'refreshed';
  row.dataset['testid'] = 'token-refreshed';
  row.dataset['from'] = from;
  row.dataset['to'] = to;
  const text = document.createElement('span');
  text.textContent = 'token refreshed, unnoticed';
  const arrow = document.createElement('span');
  arrow.className = 'soft';
  arrow.textContent = '→';
  const change = document.createElement('span');
  change.className = 'change';
  change.append(chipOf(from), arrow, chipOf(to));
  row.append(text, change);
  prepend('call-log', row, LOG_LENGTH);
}

/** @param {string} fingerprint */
function chipOf(fingerprint) {
  const chip = document.createElement('b');
  chip.className = 'chip';
  chip.textContent = fingerprint;
  tint(chip, fingerprint);
  return chip;
}

/**
 * @param {string} id
 * @param {HTMLElement} row
 * @param {number} limit
 */
function prepend(id, row, limit) {
  const list = element(id);
  list.prepend(row);
  while (list.children.length > limit) list.lastElementChild?.remove();
}

/** @param {boolean} on */
function setAutoCall(on) {
  clearInterval(autoCall);
  autoCall = undefined;
  input('auto-call').checked = on;
  if (!on) return;
  void callApi();
  autoCall = setInterval(() => void callApi(), CALL_EVERY);
}

async function loadOrders() {
  try {
    const response = await fetch('/api/orders', { headers: CSRF, cache: 'no-store' });
    if (!response.ok) {
      await refusedResponse(response);
      return;
    }
    const { orders } = /** @type {{ orders: Record<string, string>[] }} */ (await response.json());
    const rows = orders.map((order) => {
      const row = document.createElement('tr');
      row.dataset['testid'] = 'order-row';
      for (const column of ['number', 'item', 'placed', 'status', 'total']) {
        const cell = document.createElement('td');
        cell.textContent = order[column] ?? '';
        if (column === 'total') cell.className = 'right';
        row.append(cell);
      }
      return row;
    });
    element('orders').replaceChildren(...rows);
  } catch {
    unreachable();
  }
}

// --- Live events ---------------------------------------------------------------------------------------------

/** @param {'off' | 'connecting' | 'live' | 'ended'} state */
function streamState(state) {
  element('stream-state').textContent = state;
  element('stream-state').dataset['state'] = state;
  element('stream-toggle').textContent = state === 'connecting' || state === 'live' ? 'Stop' : 'Watch';
}

function watch() {
  const source = new EventSource('/api/live/events');
  stream = source;
  streamState('connecting');
  element('stream-empty').hidden = true;
  source.addEventListener('open', () => streamState('live'));
  source.addEventListener('coat', (event) => showEvent(event.data));
  source.addEventListener('session-ended', () => {
    source.close();
    streamState('ended');
    stream = undefined;
  });
  source.addEventListener('error', () => {
    if (source.readyState !== EventSource.CLOSED) {
      // It tries again by itself.
      streamState('connecting');
    } else if (stream === source) {
      // Refused. An EventSource is not told why; whoever asks who is signed in is.
      stream = undefined;
      streamState('ended');
      void loadSession();
    }
  });
}

function stopWatching() {
  stream?.close();
  stream = undefined;
  streamState('off');
}

/** @param {string} data */
function showEvent(data) {
  const event = /** @type {{ id: number, time: string, ticket: number, text: string }} */ (JSON.parse(data));
  const row = document.createElement('li');
  row.dataset['testid'] = 'stream-event';
  row.dataset['id'] = String(event.id);
  const time = document.createElement('time');
  time.textContent = clock.format(new Date(event.time));
  const text = document.createElement('span');
  text.textContent = event.text;
  const ticket = document.createElement('b');
  ticket.textContent = `№ ${String(event.ticket)}`;
  row.append(time, text, ticket);
  prepend('stream-log', row, EVENTS_SHOWN);
}

// --- WebSocket -----------------------------------------------------------------------------------------------

/** @param {'off' | 'connecting' | 'live' | 'ended'} state */
function talkState(state) {
  element('talk-state').textContent = state;
  element('talk-state').dataset['state'] = state;
  element('talk-toggle').textContent = state === 'connecting' || state === 'live' ? 'Hang up' : 'Connect';
  for (const id of ['talk-text', 'talk-send']) input(id).disabled = state !== 'live';
}

function connect() {
  const socket = new WebSocket(`${location.origin.replace(/^http/, 'ws')}/api/live/counter`);
  talk = socket;
  let wasOpen = false;
  talkState('connecting');
  socket.addEventListener('open', () => {
    wasOpen = true;
    talkState('live');
    input('talk-text').focus({ preventScroll: true });
  });
  socket.addEventListener('message', (event) => {
    const { kind, text } = /** @type {{ kind: string, text: string }} */ (JSON.parse(event.data));
    logTalk(kind, text);
  });
  socket.addEventListener('close', ({ code, reason }) => {
    if (talk !== socket) return;
    talk = undefined;
    talkState('ended');
    const row = logTalk('closed', `closed with ${String(code)}${reason === '' ? '' : ` (${reason})`}`);
    row.dataset['code'] = String(code);
    row.dataset['reason'] = reason;
    if (code === SESSION_ENDED) {
      ended(reason);
      element('banner-socket').textContent =
        `Cloakroom closed the WebSocket of this page with code ${String(code)}.`;
    } else if (!wasOpen) {
      // Refused. A WebSocket is not told why; whoever asks who is signed in is.
      void loadSession();
    }
  });
}

/**
 * @param {string} kind
 * @param {string} text
 */
function logTalk(kind, text) {
  const row = document.createElement('li');
  row.dataset['testid'] = 'talk-row';
  row.dataset['kind'] = kind;
  const time = document.createElement('time');
  time.textContent = clock.format(new Date());
  const who = document.createElement('b');
  who.textContent = { said: 'you', closed: 'the end', echo: 'echo' }[kind] ?? 'counter';
  const what = document.createElement('span');
  what.textContent = text;
  row.append(time, what, who);
  prepend('talk-log', row, TALK_SHOWN);
  return row;
}

// --- Upload --------------------------------------------------------------------------------------------------

/**
 * @param {Blob} blob
 * @param {string} name
 */
function upload(blob, name) {
  sending?.abort();
  // XMLHttpRequest, because fetch does not tell how much of a body has been sent.
  const request = new XMLHttpRequest();
  sending = request;
  const progress = /** @type {HTMLProgressElement} */ (element('upload-progress'));
  progress.value = 0;
  element('upload-name').textContent = name;
  element('upload-percent').textContent = '0 %';
  element('upload-running').hidden = false;
  element('upload-result').hidden = true;

  request.upload.addEventListener('progress', (event) => {
    const percent = event.total > 0 ? Math.round((event.loaded / event.total) * 100) : 100;
    progress.value = percent;
    element('upload-percent').textContent = `${String(percent)} % of ${bytes(blob.size)}`;
  });
  request.addEventListener('load', () => {
    if (request.status === 200) {
      void showUpload(JSON.parse(request.responseText), blob);
    } else {
      const type = request.getResponseHeader('content-type') ?? '';
      refused(request.status, type, request.responseText, request.getResponseHeader('retry-after'));
    }
  });
  request.addEventListener('error', () => banner('The upload was cut off', 'Try it again.'));
  request.addEventListener('loadend', () => {
    if (sending !== request) return;
    sending = undefined;
    element('upload-running').hidden = true;
    input('upload-file').value = '';
  });
  request.open('POST', '/api/upload');
  request.setRequestHeader('X-CSRF', '1');
  request.setRequestHeader('Content-Type', blob.type || 'application/octet-stream');
  request.send(blob);
}

/**
 * @param {{ size: number, sha256: string }} answer
 * @param {Blob} blob
 */
async function showUpload(answer, blob) {
  element('upload-size').textContent = `${bytes(answer.size)} (${decimal.format(answer.size)} bytes)`;
  element('upload-size').dataset['bytes'] = String(answer.size);
  element('upload-hash').textContent = answer.sha256;
  element('upload-match-row').hidden = blob.size > COMPARE_UP_TO;
  element('upload-match').textContent = '…';
  element('upload-result').hidden = false;
  if (blob.size > COMPARE_UP_TO) return;
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', await blob.arrayBuffer()));
  const ours = Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('');
  const same = ours === answer.sha256;
  element('upload-match').textContent = same ? 'the same, byte for byte' : `different: this page has ${ours}`;
  element('upload-match').className = same ? 'good' : 'bad';
}

/** @param {number} size */
function bytes(size) {
  if (size < 1024) return `${String(size)} B`;
  if (size < 1024 * 1024) return `${(size / 1024).toFixed(1)} KB`;
  return `${(size / 1024 / 1024).toFixed(1)} MB`;
}

function sample() {
  const block = new Uint8Array(65_536);
  const parts = [];
  for (let made = 0; made < SAMPLE_BYTES; made += block.length) {
    crypto.getRandomValues(block);
    parts.push(block.slice());
  }
  return new Blob(parts, { type: 'application/octet-stream' });
}

// --- What the browser holds ----------------------------------------------------------------------------------

async function takeStock() {
  const cookie = document.cookie;
  const databases = (await window.indexedDB.databases?.())?.length ?? 0;
  const cached = (await window.caches?.keys())?.length ?? 0;
  const count = localStorage.length + sessionStorage.length + databases + cached;
  element('holds-cookie').textContent = cookie === '' ? '"" (empty)' : JSON.stringify(cookie);
  element('holds-local').textContent = entries(localStorage.length);
  element('holds-session').textContent = entries(sessionStorage.length);
  element('holds-databases').textContent = entries(databases + cached);
  const clean = cookie === '' && count === 0;
  element('holds-verdict').textContent = clean
    ? 'No token. Nothing a script could read.'
    : 'Something is stored here.';
  element('holds-verdict').classList.toggle('bad', !clean);
}

/** @param {number} count */
function entries(count) {
  return count === 0 ? '0 entries' : `${String(count)} ${count === 1 ? 'entry' : 'entries'}`;
}

// --- Start ---------------------------------------------------------------------------------------------------

element('logout').addEventListener('click', () => void logout());
element('logout-everywhere').addEventListener('click', () => void logout('?everywhere=true'));
element('end-others').addEventListener('click', () => {
  void endSessions(/** @type {HTMLButtonElement} */ (element('end-others')), 'POST', 'end-others');
});
element('stay').addEventListener('click', () => void stay());
element('banner-close').addEventListener('click', hideBanner);
element('call').addEventListener('click', () => void callApi());
element('auto-call').addEventListener('change', () => setAutoCall(input('auto-call').checked));
element('stream-toggle').addEventListener('click', () => {
  if (stream === undefined) watch();
  else stopWatching();
});
element('talk-toggle').addEventListener('click', () => {
  if (talk === undefined) connect();
  else talk.close(1000);
});
element('talk-form').addEventListener('submit', (event) => {
  event.preventDefault();
  const text = input('talk-text').value.trim();
  if (text === '' || talk?.readyState !== WebSocket.OPEN) return;
  talk.send(text);
  logTalk('said', text);
  input('talk-text').value = '';
});
element('upload-sample').addEventListener('click', () => upload(sample(), '25 MB of random bytes'));
element('upload-cancel').addEventListener('click', () => sending?.abort());
element('upload-file').addEventListener('change', () => {
  const file = input('upload-file').files?.[0];
  if (file !== undefined) upload(file, file.name);
});
const drop = element('drop');
drop.addEventListener('dragover', (event) => {
  event.preventDefault();
  drop.classList.add('over');
});
drop.addEventListener('dragleave', () => drop.classList.remove('over'));
drop.addEventListener('drop', (event) => {
  event.preventDefault();
  drop.classList.remove('over');
  const file = event.dataTransfer?.files[0];
  if (file !== undefined) upload(file, file.name);
});
// Another tab may have signed out, or in, meanwhile; a page from the back/forward cache may be from before that.
document.addEventListener('visibilitychange', () => {
  if (document.visibilityState === 'visible') void loadSession();
});
window.addEventListener('pageshow', (event) => {
  if (event.persisted) void loadSession();
});

setInterval(tick, 1000);
setInterval(() => void takeStock(), 2000);
setInterval(() => {
  if (session !== undefined && document.visibilityState === 'visible') void loadSession();
}, 15_000);
void takeStock();
void loadSession();

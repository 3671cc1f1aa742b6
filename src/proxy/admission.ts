import type { IncomingMessage } from 'node:http';
import { CloakroomError } from '../errors.js';
import type { TrustedProxies } from '../http/client-address.js';
import { addressGroup } from '../http/address-range.js';
import { elevatedToken } from '../session/elevation.js';
import { checkRequirement } from '../session/requirements.js';
import type { Ticket } from '../session/session-cookie.js';
import type { SessionsService } from '../session/sessions.service.js';
import type { OpenSession } from '../store/session-records.js';
import type { ActiveTokens } from './active-token.js';
import type { Parallel } from './parallel.js';
import type { Route } from './route-table.js';

/** Seconds. */
const TRY_AGAIN_IN = 1;

/** Somebody who may go through, counted as under way until they are taken back. */
export interface Admitted {
  session: OpenSession;
  accessToken: string;
}

/** Who may go through a route, and with which token. */
export class Admission {
  readonly #sessions: SessionsService;
  readonly #trusted: TrustedProxies;
  readonly #active: ActiveTokens;

  constructor(sessions: SessionsService, trusted: TrustedProxies, active: ActiveTokens) {
    this.#sessions = sessions;
    this.#trusted = trusted;
    this.#active = active;
  }

  /**
   * @param underWay where whoever is let through is entered; the caller lets them leave
   * @returns undefined where nobody needs to be signed in, and nobody is
   * @throws {CloakroomError} what the browser is to be told instead
   */
  async admit(request: IncomingMessage, route: Route, underWay: Parallel): Promise<Admitted | undefined> {
    const ticket = this.#ticket(request, route);
    // Both limits before the store is asked, so that a refusal costs nothing there.
    route.rate?.take(ticket?.handle ?? addressGroup(this.#trusted.clientAddress(request)));
    if (ticket === undefined) return undefined;
    if (!underWay.enter(ticket.handle)) {
      throw new CloakroomError('too-many-requests', { retryAfter: TRY_AGAIN_IN });
    }
    try {
      const session = await this.#sessions.open(ticket, { slide: true });
      if (route.requirement !== undefined) checkRequirement(route.requirement, session.contents, Date.now());
      const token =
        route.elevation === undefined
          ? this.#sessions.accessToken(session, route.wish)
          : elevatedToken(route.elevation, session.contents, this.#sessions.tokenEpoch, Date.now());
      const accessToken = typeof token === 'string' ? token : await token;
      if (route.introspect === undefined) return { session, accessToken };
      return {
        session,
        accessToken: await this.#active.of(session, route, accessToken, route.introspect),
      };
    } catch (error) {
      underWay.leave(ticket.handle);
      throw error;
    }
  }

  /**
   * Where nobody needs to be signed in, only a request without any session cookie is nobody's. One whose cookie turns out dead
   * is refused, and one that cannot be looked up waits: neither may be served as if a stranger had asked.
   */
  #ticket({ headers }: IncomingMessage, { token }: Route): Ticket | undefined {
    if (token === 'none') return undefined;
    return token === 'user-or-none'
      ? this.#sessions.ticketIfAny(headers.cookie)
      : this.#sessions.ticket(headers.cookie);
  }
}

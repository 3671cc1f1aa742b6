/** An access token. Times are milliseconds since the epoch, counted from when the answer arrived. */
export interface GrantedToken {
  accessToken: string;
  expiresAt: number;
  /** When a refresh in the background begins to make sense; chosen once, so that all replicas agree. */
  refreshAt: number;
  scope?: string;
  /** The policy epoch before which tokens had to be fetched anew, as it was when this one was asked for. */
  epoch?: number;
  /** It was asked for before its time, because the one before it was said to be no good. */
  forcedAt?: number;
}

/** The tokens of a session: the plain access token, what it is renewed with, and those for single upstreams. */
export interface Tokens extends GrantedToken {
  refreshToken?: string;
  /** The refresh token before this one, for a provider that still takes it for a while. */
  previous?: { refreshToken: string; until: number };
  /** Refreshed for one audience each, by the names of their grants. */
  granted?: Record<string, GrantedToken>;
  /** Exchanged for the plain access token, by the names of their grants; they go when that one does. */
  exchanged?: Record<string, GrantedToken>;
}

/** An access token with a scope that the session otherwise does not hold, for the routes that name it. */
export interface ElevatedAccess {
  accessToken: string;
  until: number;
  /** As in {@link Tokens}. */
  epoch: number;
}

/** What is sealed in a session's record: everything about the person, and the tokens. */
export interface SessionContents {
  provider: string;
  issuer: string;
  subject: string;
  /** The provider's own session, when it names one. */
  sid?: string;
  authTime?: number;
  acr?: string;
  /** When the provider's answer to the login came. */
  signedInAt?: number;
  /** When the person signed in at the provider, by our own clock: the provider's may differ. */
  authenticatedAt?: number;
  /** The policy epoch that the session began under. */
  epoch: number;
  /** What the browser told of itself at login, and from where. */
  client: { browser?: string; platform?: string; address?: string };
  createdAt: number;
  /** Sealed as well as stored in the clear: whoever can write to the store cannot prolong a session. */
  absoluteAt: number;
  /** Milliseconds without use, where these are fewer than for other sessions. */
  idle?: number;
  /** The claims that `/auth/me` may show. */
  claims: Record<string, unknown>;
  /** The claims that routes required when the person signed in, by name or path; null for one that there was not. */
  required?: Record<string, unknown>;
  /** What logins were asked for that followed one another, so that nobody is sent round for it again. */
  asked?: readonly string[];
  /** By scope. */
  elevated?: Record<string, ElevatedAccess>;
  idToken: string;
  tokens: Tokens;
}

/** The tokens of a session. Times are milliseconds since the epoch, counted from when the answer arrived. */
export interface Tokens {
  accessToken: string;
  expiresAt: number;
  /** When a refresh in the background begins to make sense; chosen once, so that all replicas agree. */
  refreshAt: number;
  refreshToken?: string;
  /** The refresh token before this one, for a provider that still takes it for a while. */
  previous?: { refreshToken: string; until: number };
  scope?: string;
  /** The policy epoch before which tokens had to be fetched anew, as it was when these were asked for. */
  epoch?: number;
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
  /** The policy epoch that the session began under. */
  epoch: number;
  /** What the browser told of itself at login, and from where. */
  client: { browser?: string; platform?: string; address?: string };
  createdAt: number;
  /** Sealed as well as stored in the clear: whoever can write to the store cannot prolong a session. */
  absoluteAt: number;
  /** The claims that `/auth/me` may show. */
  claims: Record<string, unknown>;
  idToken: string;
  tokens: Tokens;
}

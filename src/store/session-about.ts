import type { SessionContents } from './session-contents.js';

/** What lists of sessions show of one: readable without its cookie, so no token and no more of the person than that. */
export interface SessionAbout {
  provider: string;
  issuer: string;
  subject: string;
  /** The e-mail claim, where it is among the claims that the page may see. */
  email?: string;
  sid?: string;
  authTime?: number;
  acr?: string;
  createdAt: number;
  absoluteAt: number;
  /** Milliseconds without use, where these are fewer than for other sessions. */
  idle?: number;
  /** The policy epoch it began under. */
  epoch: number;
  /** Browser family, platform and coarse address, as they were at login. */
  browser?: string;
  platform?: string;
  address?: string;
}

export function sessionAbout(contents: SessionContents): SessionAbout {
  const {
    provider,
    issuer,
    subject,
    sid,
    authTime,
    acr,
    createdAt,
    absoluteAt,
    idle,
    epoch,
    client,
    claims,
  } = contents;
  const { email } = claims;
  return {
    provider,
    issuer,
    subject,
    ...(typeof email === 'string' ? { email } : {}),
    ...(sid === undefined ? {} : { sid }),
    ...(authTime === undefined ? {} : { authTime }),
    ...(acr === undefined ? {} : { acr }),
    createdAt,
    absoluteAt,
    ...(idle === undefined ? {} : { idle }),
    epoch,
    ...client,
  };
}

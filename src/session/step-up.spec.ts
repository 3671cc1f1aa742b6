import { describe, expect, test } from '@jest/globals';
import type { SessionContents } from '../store/session-contents.js';
import { askFor, isMet, stepUpRequired } from './step-up.js';

const SECOND = 1000;
const SIGNED_IN = 1_000_000_000;

/** A session of a login that was asked for something. */
function session(about: Partial<SessionContents>): SessionContents {
  return { signedInAt: SIGNED_IN, ...about } as SessionContents;
}

/** Whether the answer leads to a login, so long after the last one. */
function isOffered(ask: ReturnType<typeof askFor>, contents: SessionContents, after: number): boolean {
  return stepUpRequired(ask, contents, SIGNED_IN + after * SECOND).public.loginUrl !== undefined;
}

describe('A-069 no loop', () => {
  const mfa = askFor('mfa', undefined);
  const hour = askFor(undefined, 3600);
  const now = askFor(undefined, 0);

  test('what was not asked for yet is offered', () => {
    expect(isOffered(mfa, session({}), 0)).toBe(true);
    expect(isOffered(mfa, session({ asked: [hour.key] }), 0)).toBe(true);
  });

  test('what a login was asked for and did not bring is never offered again', () => {
    for (const after of [0, 60, 86_400]) {
      expect(isOffered(mfa, session({ asked: [mfa.key] }), after)).toBe(false);
      expect(isOffered(hour, session({ asked: [hour.key] }), after)).toBe(false);
      const tooOld = session({ asked: [hour.key], authenticatedAt: SIGNED_IN - 3601 * SECOND });
      expect(isOffered(hour, tooOld, after)).toBe(false);
    }
  });

  test('what it brought, and time took away, is', () => {
    const fresh = session({ asked: [hour.key], authenticatedAt: SIGNED_IN - 3590 * SECOND });
    expect(isMet(hour, fresh, SIGNED_IN + 10 * SECOND)).toBe(true);
    expect(isMet(hour, fresh, SIGNED_IN + 11 * SECOND)).toBe(false);
    expect(isOffered(hour, fresh, 11)).toBe(true);
  });

  test('a sign-in of a moment ago is new, whatever is asked for', () => {
    const fresh = session({ asked: [now.key], authenticatedAt: SIGNED_IN });
    expect(isOffered(now, fresh, 1)).toBe(false);
    expect(isOffered(now, fresh, 30)).toBe(false);
    expect(isOffered(now, fresh, 31)).toBe(true);
  });

  test('both halves of an ask must have been met', () => {
    const both = askFor('mfa phr', 3600);
    const about = { asked: [both.key], authenticatedAt: SIGNED_IN };
    expect(isOffered(both, session({ ...about, acr: 'phr' }), 3601)).toBe(true);
    expect(isOffered(both, session({ ...about, acr: 'password' }), 3601)).toBe(false);
  });
});

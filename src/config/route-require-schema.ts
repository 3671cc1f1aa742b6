import { z } from 'zod';
import { checked, duration, quote, setting } from './setting.js';

/** A scope token: RFC 6749 section 3.3. */
const SCOPE = /^[\x21\x23-\x5b\x5d-\x7e]+$/;
/** One value of `acr_values`, whose values are separated by spaces: OpenID Connect Core 1.0 section 3.1.2.1. */
const ACR = /^[\x21-\x7e]{1,128}$/;

const scope = checked(z.string(), (value) =>
  SCOPE.test(value)
    ? undefined
    : { problem: `${quote(value)} is not a scope`, remedy: 'write each scope by itself, without spaces' },
);

function eachOnce<S extends z.ZodType<string>>(value: S) {
  return checked(z.array(value).min(1), (values) => {
    const twice = values.find((one, index) => values.indexOf(one) !== index);
    return twice === undefined
      ? undefined
      : { problem: `names ${quote(twice)} twice`, remedy: 'write each value once' };
  });
}

/** Claims by name or path, each with the values of which one is enough. */
export const wantedClaims = checked(
  z.record(
    checked(z.string(), (name) =>
      /^[^\p{Cc}]{1,256}$/u.test(name)
        ? undefined
        : {
            problem: `${quote(name)} is not the name of a claim`,
            remedy: 'write a name such as roles, or a path such as realm_access.roles',
          },
    ),
    z.array(z.union([z.string().min(1), z.number(), z.boolean()])).min(1),
  ),
  (claims) =>
    Object.keys(claims).length > 0
      ? undefined
      : {
          problem: 'names no claim',
          remedy: 'write at least one, such as roles: [staff], or remove the line',
        },
);

export const requirement = checked(
  z.strictObject({
    scopes: setting(eachOnce(scope).optional(), {
      description:
        'Scopes that the provider must have granted, all of them. Otherwise 403 `insufficient-scope`.',
      example: ['orders:read'],
    }),
    claims: setting(wantedClaims.optional(), {
      description:
        'Claims of the ID token or of userinfo, as they were at login. Each must have one of the values that are listed for ' +
        'it; a claim that is a list must contain one of them. A dot leads into a claim (`realm_access.roles`), unless there ' +
        'is a claim of that whole name. Otherwise 403 `insufficient-claims`. The values stay in the session; `/auth/me` does ' +
        'not show them for that.',
      example: { roles: ['staff'] },
    }),
    acr: setting(
      eachOnce(
        checked(z.string(), (value) =>
          ACR.test(value)
            ? undefined
            : { problem: `${quote(value)} is not an acr`, remedy: 'write each by itself, without spaces' },
        ),
      ).optional(),
      {
        description:
          'How a person must have signed in: one of these values of `acr`, the preferred first. Otherwise 403 `step-up` with ' +
          'a login URL that asks for them (RFC 9470). Name higher levels that will do as well.',
        example: ['mfa'],
      },
    ),
    maxAuthAge: setting(duration('30s', '30d').optional(), {
      description:
        'How long ago a person may have signed in at the provider (`auth_time`). Otherwise 403 `step-up` with a login URL ' +
        'that asks for a newer sign-in (`max_age`).',
      example: '15m',
    }),
  }),
  (required) =>
    Object.values(required).some((value) => value !== undefined)
      ? undefined
      : { problem: 'requires nothing', remedy: 'write scopes, claims, acr or maxAuthAge, or remove it' },
)
  .optional()
  .meta({
    description:
      'What a session must have shown before a request may pass. Everything that is written must hold.',
  });

export const elevate = z
  .strictObject({
    scope: setting(scope, {
      description:
        'A scope for this route alone. A session gets it by one more login, to which the answer 403 `step-up` leads. Routes ' +
        'that name the same scope share it.',
      example: 'payments:approve',
    }),
    for: setting(duration('10s', '1h').prefault('5m'), {
      description: 'How long it holds; shorter where the access token ends earlier. It is not refreshed.',
      example: '5m',
    }),
  })
  .optional()
  .meta({
    description:
      'Short-lived elevated access: requests of this route carry an access token of their own, with a scope that the session ' +
      'otherwise does not hold.',
  });

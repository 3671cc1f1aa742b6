import type { BrowserClient, BrowserResponse, FinishOptions } from './browser-client.js';
import type { FaultProvider } from './fault-provider.js';

/** What an ID token says about a sign-in; undefined removes a claim. `age` is in seconds. */
export interface SignIn {
  acr?: string;
  age?: number | undefined;
}

/**
 * The provider judges by the authorization request how somebody has signed in.
 * @param judge gets the parameters of that request; `age` unless told: 0
 */
export function signsIn(provider: FaultProvider, judge: (params: URLSearchParams) => SignIn): void {
  const asked = new Map<string, URLSearchParams>();
  provider.always('authorize', {
    when: (params) => {
      asked.set(params.get('nonce') ?? '', params);
      return false;
    },
  });
  provider.always('token', {
    claims: (claims) => {
      const { acr, ...rest } = judge(asked.get(String(claims['nonce'])) ?? new URLSearchParams());
      const age = 'age' in rest ? rest.age : 0;
      return { ...claims, acr, auth_time: age === undefined ? undefined : Number(claims['iat']) - age };
    },
  });
}

export interface Refusal {
  reason?: string;
  loginUrl?: string;
  missing?: string[];
}

/** Why a request was refused: the problem and what else it says. */
export function refusal(answer: BrowserResponse): [number, string | undefined, Refusal] {
  const { reason, loginUrl, missing } = answer.json<Refusal>();
  return [
    answer.status,
    answer.problem,
    {
      ...(reason === undefined ? {} : { reason }),
      ...(loginUrl === undefined ? {} : { loginUrl }),
      ...(missing === undefined ? {} : { missing }),
    },
  ];
}

/** Goes where a refusal leads, as a front end does. */
export async function followLogin(
  client: BrowserClient,
  answer: BrowserResponse,
  options: FinishOptions & { params?: Record<string, string> } = {},
): Promise<BrowserResponse> {
  const { loginUrl } = answer.json<Refusal>();
  if (loginUrl === undefined) throw new Error('this answer leads to no login');
  const { searchParams } = new URL(loginUrl, 'https://app.example.test');
  return client.login({
    ...options,
    returnTo: '/app',
    params: { ...Object.fromEntries(searchParams), ...options.params },
  });
}

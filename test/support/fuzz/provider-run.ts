import type { Cloakroom } from '../cloakroom.js';
import type { Random } from '../random.js';
import { providerAnswer, type AnswerRun } from './answers.js';

/** Logins whose tokens are no tokens: each ends in an answer, and none in a session. */
export async function fuzzProvider(
  room: Cloakroom,
  random: Random,
  isOver: () => boolean,
  parallel: number,
): Promise<AnswerRun> {
  const run: AnswerRun = { answers: 0, findings: [], statuses: new Map() };
  // In place of every answer from now on, so that no login of the run gets the right one.
  const lane = async (): Promise<void> => {
    while (!isOver()) {
      const client = room.client();
      const attempt = await client.beginLogin();
      await attempt.authorize();
      run.answers += 1;
      room.provider.always('token', providerAnswer(random));
      const { status, text } = await attempt.finish();
      run.statuses.set(String(status), (run.statuses.get(String(status)) ?? 0) + 1);
      if (status === 500) run.findings.push(`an internal error: ${text.slice(0, 500)}`);
      if (client.sessionCookie !== undefined) run.findings.push('a session without tokens');
    }
  };
  await Promise.all(Array.from({ length: parallel }, lane));
  room.provider.always('token', undefined);
  return run;
}

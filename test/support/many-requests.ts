import { connect } from 'node:net';

/** One answer of many: status and the lines of its head. */
export interface Head {
  status: number;
  head: string;
}

/**
 * Sends very many requests over a few connections, some ahead of their answers, and shows each answer's head. Answers
 * must carry a length.
 */
export async function sendMany(
  ports: readonly number[],
  requests: Iterator<string>,
  seen: (answer: Head) => void,
  { connections = 8, ahead = 32 } = {},
): Promise<number> {
  const counts = await Promise.all(
    Array.from({ length: connections }, (_, at) =>
      pump(ports[at % ports.length] ?? 0, requests, seen, ahead),
    ),
  );
  return counts.reduce((sum, count) => sum + count, 0);
}

function pump(
  port: number,
  requests: Iterator<string>,
  seen: (answer: Head) => void,
  ahead: number,
): Promise<number> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: '127.0.0.1', noDelay: true });
    let open = 0;
    let answered = 0;
    let finished = false;
    let rest = '';
    const fill = (): void => {
      let batch = '';
      while (!finished && open < ahead) {
        const next = requests.next();
        if (next.done === true) finished = true;
        else {
          batch += next.value;
          open += 1;
        }
      }
      if (batch !== '') socket.write(batch, 'latin1');
      else if (finished && open === 0) {
        socket.destroy();
        resolve(answered);
      }
    };
    socket.once('connect', fill);
    socket.on('error', reject);
    socket.on('end', () => {
      reject(new Error(`the server closed with ${String(open)} answers missing: ${rest.slice(0, 200)}`));
    });
    socket.on('data', (chunk) => {
      rest += chunk.toString('latin1');
      let at = 0;
      for (;;) {
        const end = rest.indexOf('\r\n\r\n', at);
        if (end < 0) break;
        const head = rest.slice(at, end);
        const length = Number(/\r\ncontent-length: *(\d+)/i.exec(head)?.[1] ?? Number.NaN);
        if (Number.isNaN(length)) {
          reject(new Error(`an answer without a length: ${head}`));
          socket.destroy();
          return;
        }
        if (rest.length < end + 4 + length) break;
        at = end + 4 + length;
        open -= 1;
        answered += 1;
        seen({ status: Number(head.slice(9, 12)), head });
      }
      rest = rest.slice(at);
      if (open <= ahead / 2) fill();
    });
  });
}

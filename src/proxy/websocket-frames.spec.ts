import { describe, expect, test } from '@jest/globals';
import { frame, OPCODES } from '../../test/support/web-socket.js';
import { random } from '../../test/support/random.js';
import { closeFrame, FrameBorders } from './websocket-frames.js';

describe('A-094 the borders of frames', () => {
  test('are found however the bytes are cut', () => {
    const draw = random('borders');
    for (let round = 0; round < 300; round += 1) {
      const opcodes = Array.from({ length: draw.int(1, 6) }, () =>
        draw.pick([OPCODES.continuation, OPCODES.text, OPCODES.binary, OPCODES.ping, OPCODES.pong]),
      );
      const frames = opcodes.map((opcode) =>
        frame(opcode, Buffer.alloc(draw.pick([0, 1, 125, 126, 300, 65_535, 65_536])), {
          mask: draw.chance(0.5),
        }),
      );
      const ends = new Set(frames.map((_, at) => Buffer.concat(frames.slice(0, at + 1)).length));
      const bytes = Buffer.concat(frames);
      const borders = new FrameBorders();
      for (let at = 0; at < bytes.length;) {
        const length = Math.min(bytes.length - at, draw.pick([1, 2, 3, 7, 1000, 70_000]));
        expect(borders.passed(bytes.subarray(at, at + length))).toBe(length);
        at += length;
        expect(borders.isBetween).toBe(ends.has(at));
      }
      expect(borders.dataFrames).toBe(opcodes.filter((opcode) => opcode < OPCODES.close).length);
    }
  });

  test('the rest of the frame that goes by can be told from the next one, at every byte', () => {
    for (const mask of [true, false]) {
      for (const size of [0, 5, 200, 66_000]) {
        const first = frame(OPCODES.binary, Buffer.alloc(size), { mask });
        const both = Buffer.concat([first, frame(OPCODES.text, 'next', { mask })]);
        const step = Math.max(1, Math.floor(first.length / 50));
        for (let at = 1; at < first.length; at += at < 16 ? 1 : step) {
          const borders = new FrameBorders();
          borders.passed(both.subarray(0, at));
          expect(borders.passed(both.subarray(at), true)).toBe(first.length - at);
          expect(borders.isBetween).toBe(true);
          expect(borders.passed(both.subarray(first.length), true)).toBe(0);
        }
      }
    }
  });

  test('behind a close frame there is no place for another', () => {
    const borders = new FrameBorders();
    borders.passed(closeFrame(1001, 'away', true));
    expect([borders.isBetween, borders.isClosed]).toEqual([false, true]);
  });
});

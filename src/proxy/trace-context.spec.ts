import { describe, expect, test } from '@jest/globals';
import { traceContext } from './trace-context.js';

const TRACE = '4bf92f3577b34da6a3ce929d0e0e4736';
const SPAN = '00f067aa0ba902b7';
const BEGUN = /^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-01$/;
const nothing = (): boolean => false;

describe('A-085 a traceparent that passes', () => {
  test.each([
    `00-${TRACE}-${SPAN}-00`,
    `00-${TRACE}-${SPAN}-01`,
    `00-${TRACE}-${SPAN}-ff`,
    `01-${TRACE}-${SPAN}-01`,
    `fe-${TRACE}-${SPAN}-01-what-the-future-may-bring`,
    `cc-${TRACE}-${SPAN}-01-`,
  ])('%s', (traceparent) => {
    expect(traceContext({ traceparent }, nothing)).toEqual(['traceparent', traceparent]);
    expect(traceContext({ traceparent, tracestate: 'a=b' }, nothing)).toEqual([
      ...['traceparent', traceparent],
      ...['tracestate', 'a=b'],
    ]);
    expect(traceContext({ traceparent, tracestate: '' }, nothing)).toEqual(['traceparent', traceparent]);
    expect(traceContext({ traceparent, tracestate: 'a=b' }, (name) => name === 'tracestate')).toEqual([
      'traceparent',
      traceparent,
    ]);
  });
});

describe('A-085 a traceparent in whose place a trace begins', () => {
  test.each([
    '',
    '00',
    `00-${TRACE}-${SPAN}`,
    `00-${TRACE}-${SPAN}-`,
    `00-${TRACE}-${SPAN}-1`,
    `00-${TRACE}-${SPAN}-011`,
    `00-${TRACE}-${SPAN}-01-`,
    `00-${TRACE}-${SPAN}-01-more`,
    `01-${TRACE}-${SPAN}-01.more`,
    `ff-${TRACE}-${SPAN}-01`,
    `0-${TRACE}-${SPAN}-01`,
    `000-${TRACE}-${SPAN}-01`,
    `0g-${TRACE}-${SPAN}-01`,
    `00-${'0'.repeat(32)}-${SPAN}-01`,
    `00-${TRACE}-${'0'.repeat(16)}-01`,
    `00-${TRACE.slice(1)}-${SPAN}-01`,
    `00-${TRACE}0-${SPAN}-01`,
    `00-${TRACE.slice(1)}g-${SPAN}-01`,
    `00-${TRACE}-${SPAN.slice(1)}g-01`,
    `00-${TRACE}-${SPAN}-0G`,
    `00-${TRACE.toUpperCase()}-${SPAN}-01`,
    `00_${TRACE}_${SPAN}_01`,
    ` 00-${TRACE}-${SPAN}-01`,
    `00-${TRACE}-${SPAN}-01, 00-${TRACE}-${SPAN}-01`,
    `00-${TRACE}-${SPAN}-01\n`,
  ])('%j', (traceparent) => {
    const context = traceContext({ traceparent, tracestate: 'a=b' }, nothing);
    expect(context).toEqual(['traceparent', expect.stringMatching(BEGUN)]);
    expect(context[1]).not.toContain(TRACE);
  });

  test('one that was meant for one hop only, and none', () => {
    const one = traceContext({ traceparent: `00-${TRACE}-${SPAN}-01` }, (name) => name === 'traceparent');
    expect(one).toEqual(['traceparent', expect.stringMatching(BEGUN)]);
    expect(traceContext({ tracestate: 'a=b' }, nothing)).toEqual([
      'traceparent',
      expect.stringMatching(BEGUN),
    ]);
  });

  test('each time another, for longer than the prepared randomness lasts', () => {
    const begun = Array.from({ length: 2000 }, () => traceContext({}, nothing)[1] ?? '');
    expect(new Set(begun.map((value) => value.slice(3, 35))).size).toBe(2000);
    expect(new Set(begun.map((value) => value.slice(36, 52))).size).toBe(2000);
  });
});

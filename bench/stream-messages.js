// @ts-check
// What both ends of the streams agree on.

/** Milliseconds from one event to the next. */
export const EVENT_EVERY = 10;

const TEXT = Buffer.alloc(100, 'x');
/** Masked with a key of zeros. */
export const FRAME_FROM_BROWSER = Buffer.concat([Buffer.from([0x81, 0x80 | TEXT.length, 0, 0, 0, 0]), TEXT]);
export const FRAME_TO_BROWSER = Buffer.concat([Buffer.from([0x81, TEXT.length]), TEXT]);

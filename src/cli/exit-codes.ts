/** How commands end; those of sysexits.h where it has one. */
export const DONE = 0;
/** Nothing matched, or the question was answered with no: nothing was changed. */
export const NOTHING = 1;
export const EX_USAGE = 64;
export const EX_UNAVAILABLE = 69;
export const EX_SOFTWARE = 70;
export const EX_CONFIG = 78;
/** 128 and the number of SIGINT, as shells have it. */
export const INTERRUPTED = 130;

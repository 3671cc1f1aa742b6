/** Under which the log is injected into what the framework makes. */
export const LOGGER = Symbol('logger');

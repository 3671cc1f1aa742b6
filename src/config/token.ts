/** Under which the configuration is injected; it is data, not a class. */
export const CONFIG = Symbol('config');

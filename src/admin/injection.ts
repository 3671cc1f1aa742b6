/** Under which the framework is given what is no class of ours. */
export const LOGGER = Symbol('logger');
export const STORE = Symbol('store');

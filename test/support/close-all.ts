import { closeEverything } from './lifetime.js';

// Called by closing-environment.js. A failing beforeAll leaves servers open, and an open server keeps jest from ending.
Object.assign(globalThis, { closeEverything });

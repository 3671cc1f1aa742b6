import { afterAll } from '@jest/globals';
import { closeEverything } from './lifetime.js';

// A failing beforeAll leaves servers open, and an open server keeps jest from ending.
afterAll(closeEverything, 60_000);

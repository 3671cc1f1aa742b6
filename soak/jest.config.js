import { fileURLToPath } from 'node:url';
import base from '../jest.config.js';

export default {
  ...base,
  rootDir: fileURLToPath(new URL('..', import.meta.url)),
  roots: ['<rootDir>/soak'],
  testMatch: ['**/*.soak.ts'],
  reporters: ['<rootDir>/soak/reporter.js'],
};

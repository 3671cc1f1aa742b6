import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

// Workers inherit this folder: taps, replica logs and the provider's ledger meet in it for the search at the end.
if (process.env.CLOAKROOM_TEST_RUN_DIR === undefined) {
  process.env.CLOAKROOM_TEST_RUN_DIR = mkdtempSync(join(tmpdir(), 'cloakroom-test-'));
  // Nobody else will remove it: the reporter does, after a good run.
  process.env.CLOAKROOM_TEST_RUN_DIR_OURS = '1';
}

export default {
  testEnvironment: '<rootDir>/test/support/closing-environment.js',
  roots: ['<rootDir>/test', '<rootDir>/src'],
  testMatch: ['**/*.test.ts', '**/*.spec.ts'],
  extensionsToTreatAsEsm: ['.ts'],
  transform: { '^.+\\.ts$': '@swc/jest' },
  moduleNameMapper: { '^(\\.{1,2}/.*)\\.js$': '$1' },
  setupFilesAfterEnv: ['<rootDir>/test/support/close-all.ts'],
  reporters: ['default', '<rootDir>/test/support/reporter.js'],
  collectCoverageFrom: ['src/**/*.ts'],
  coverageProvider: 'v8',
  clearMocks: true,
  testSequencer: '<rootDir>/test/support/longest-first.js',
  testTimeout: 60_000,
  maxWorkers: 2,
};

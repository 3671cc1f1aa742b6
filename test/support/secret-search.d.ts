import type { SecretKind } from './ledger.js';

export interface Finding {
  kind: SecretKind;
  /** `plain`, `url-encoded`, `plain, base64`, … */
  form: string;
  file: string;
  offset: number;
  /** What stands around it; the secret itself is left out. */
  near: string;
}

export interface SearchResult {
  findings: Finding[];
  /** Secrets looked for. */
  secrets: number;
  /** Secrets too short (under 16 bytes) to be looked for. */
  tooShort: number;
  patterns: number;
  files: number;
  /** Bytes searched. */
  scanned: number;
}

export interface SearchIndex {
  patterns: number;
  tooShort: number;
}

export function formsOf(value: string): Array<{ form: string; bytes: Buffer }>;
export function abridged(value: string): string;
export function buildIndex(secrets: Array<[SecretKind, string]>): SearchIndex;
export function foundIn(bytes: Buffer, words: readonly Buffer[]): Buffer[];
export function searchFile(
  index: SearchIndex,
  file: string,
  options?: { endpoints?: string[]; ignore?: Set<SecretKind>; limit?: number },
): { findings: Finding[]; scanned: number };
export interface SearchedFiles {
  /** Where the secrets to look for were written down. */
  secrets?: string[];
  taps?: string[];
  logs?: string[];
}

export function searchRun(run: string, files?: SearchedFiles): SearchResult;
export function describeFinding(finding: Finding): string;

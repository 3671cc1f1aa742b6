import { describe, expect, test } from '@jest/globals';
import { hasContentHash } from './content-hash.js';

describe('hasContentHash', () => {
  test.each([
    'index-BxK3d9Qz.js',
    'index-B_-3d9Qz.css',
    'main.8f3a9c1b.js',
    'main.8f3a9c1b2d4e6f708192.css',
    'vendor.8f3a9c1b.chunk.js',
    '8f3a.0123456789abcdef.js',
    'chunk-5QZ7LABC.js',
    'index-BxK3d9Qz.js.map',
    'inter-v2-8f3a9c1b.woff2',
    `app.${'0a'.repeat(32)}.js`,
  ])('%s has one', (name) => {
    expect(hasContentHash(name)).toBe(true);
  });

  test.each([
    'index.html',
    'app.js',
    'app-settings.js',
    'my-component.css',
    'user-AppState.js',
    'photo-20240131.jpg',
    'report-2024-01-31.pdf',
    'jquery-3.7.1.min.js',
    'app.min.js',
    'decade-deadbeef.js',
    '8f3a9c1b',
    '8f3a9c1b.js',
    'app-8f3a9c1b',
    'service-worker.js',
    'app-BxK3d9Q.js',
    'app-BxK3d9QzA.js',
    `app.${'0a'.repeat(33)}.js`,
    '',
  ])('%s has none', (name) => {
    expect(hasContentHash(name)).toBe(false);
  });
});

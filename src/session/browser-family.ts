/** In the order of asking: browsers name their relatives too. */
const BROWSERS: readonly (readonly [RegExp, string])[] = [
  [/\bEdgA?\//, 'Edge'],
  [/\b(?:OPR|Opera)\//, 'Opera'],
  [/\bSamsungBrowser\//, 'Samsung Internet'],
  [/\b(?:Firefox|FxiOS)\//, 'Firefox'],
  [/\b(?:(?:Headless)?Chrome|CriOS|Chromium)\//, 'Chrome'],
  [/\bSafari\//, 'Safari'],
];

const PLATFORMS: readonly (readonly [RegExp, string])[] = [
  [/\b(?:iPhone|iPad|iPod)\b/, 'iOS'],
  [/\bAndroid\b/, 'Android'],
  [/\bWindows\b/, 'Windows'],
  [/\bCrOS\b/, 'ChromeOS'],
  [/\b(?:Macintosh|Mac OS X)\b/, 'macOS'],
  [/\bLinux\b/, 'Linux'],
];

/** Enough for a person to recognise their own browser in a list, and no more. */
export function browserFamily(userAgent: string | undefined): { browser?: string; platform?: string } {
  const text = userAgent?.slice(0, 512) ?? '';
  const browser = BROWSERS.find(([pattern]) => pattern.test(text))?.[1];
  const platform = PLATFORMS.find(([pattern]) => pattern.test(text))?.[1];
  return { ...(browser === undefined ? {} : { browser }), ...(platform === undefined ? {} : { platform }) };
}

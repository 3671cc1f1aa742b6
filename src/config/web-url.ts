import { isLoopbackHost, parseUrl } from './addresses.js';
import { quote, type Wrong } from './setting.js';

export function webUrl(text: string, wants: string): { url: URL } | Wrong {
  const url = parseUrl(text);
  if (!url) return { problem: `${quote(text)} is not a URL`, remedy: `write ${wants}` };
  if (url.username !== '' || url.password !== '') {
    return {
      problem: 'has a user name or password in it',
      remedy: `write ${wants}, without "user:password@"`,
    };
  }
  if (url.protocol !== 'https:' && url.protocol !== 'http:') {
    return { problem: `${quote(text)} is not an http or https URL`, remedy: `write ${wants}` };
  }
  if (url.search !== '' || url.hash !== '' || /[?#]/.test(text)) {
    return {
      problem: `${quote(text)} has a query or a fragment`,
      remedy: `write ${wants}, without "?" and "#"`,
    };
  }
  return { url };
}

export function plainHttp(url: URL, text: string): Wrong | undefined {
  if (url.protocol === 'https:' || isLoopbackHost(url.hostname)) return undefined;
  return {
    problem: `${quote(text)} is plain http`,
    remedy: `write https://${url.host}… (http is accepted for localhost, *.localhost, 127.0.0.1 and [::1] only)`,
  };
}

// @ts-check
// The pages a person sees at the demo's identity provider. Plain strings: every value from outside goes through `escape`.

/** @type {Record<string, string>} */
const ENTITIES = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };

/** @param {unknown} value */
export function escape(value) {
  return String(value ?? '').replace(/[&<>"']/g, (character) => ENTITIES[character] ?? '');
}

/**
 * @param {object} page
 * @param {string} page.title
 * @param {string} page.issuer
 * @param {string} page.body markup, already escaped
 * @param {boolean} [page.submitsItself] the first form is sent without a click
 */
function layout({ title, issuer, body, submitsItself = false }) {
  return `<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8" />
    <meta name="viewport" content="width=device-width, initial-scale=1" />
    <meta name="color-scheme" content="light dark" />
    <title>${escape(title)} · Demo Identity</title>
    <link rel="icon" href="/assets/icon.svg" type="image/svg+xml" />
    <link rel="stylesheet" href="/assets/style.css" />${
      submitsItself ? '\n    <script src="/assets/submit.js" defer></script>' : ''
    }
  </head>
  <body>
    <main>
      <header>
        <img src="/assets/icon.svg" alt="" width="36" height="36" />
        <div>
          <strong>Demo Identity</strong>
          <span>${escape(new URL(issuer).host)}</span>
        </div>
      </header>
      <section>
${body}
      </section>
      <footer>An OpenID Provider for this demo only. It forgets everything when it stops.</footer>
    </main>
  </body>
</html>
`;
}

/**
 * @param {object} page
 * @param {string} page.issuer
 * @param {string} page.uid
 * @param {string} page.client name of the application that asks
 * @param {string} page.username what to fill in
 * @param {string} [page.problem] why the last attempt was refused
 */
export function loginPage({ issuer, uid, client, username, problem }) {
  const action = `/interaction/${encodeURIComponent(uid)}`;
  const refused = problem ? `<p class="problem" role="alert" id="problem">${escape(problem)}</p>` : '';
  const invalid = problem ? ' aria-invalid="true" aria-describedby="problem"' : '';
  return layout({
    title: 'Sign in',
    issuer,
    body: `
        <h1>Sign in</h1>
        <p class="lead">to continue to <strong>${escape(client)}</strong></p>
        ${refused}
        <form method="post" action="${escape(action)}/login">
          <label for="username">User name</label>
          <input id="username" name="username" value="${escape(username)}" autocomplete="username" autocapitalize="none" spellcheck="false"
            required ${username ? '' : 'autofocus'} />
          <label for="password">Password</label>
          <input id="password" name="password" type="password" autocomplete="current-password" required ${username ? 'autofocus' : ''}${invalid} />
          <button type="submit" data-testid="provider-login">Sign in</button>
        </form>
        <form method="post" action="${escape(action)}/abort">
          <button type="submit" class="quiet" data-testid="provider-cancel">Cancel and go back</button>
        </form>
        <p class="hint">Two people live here: <code>alice</code> and <code>bob</code>. The password is the name.</p>`,
  });
}

/** What each scope means to the person who is asked. */
const SCOPE_TEXT = new Map([
  ['openid', 'Know which account you use'],
  ['profile', 'See your name and picture'],
  ['email', 'See your e-mail address'],
  ['offline_access', 'Stay signed in without asking you again'],
  ['orders', 'Read your orders'],
]);

/**
 * @param {object} page
 * @param {string} page.issuer
 * @param {string} page.uid
 * @param {string} page.client
 * @param {string} page.name of the person
 * @param {string} page.returnsTo host the person goes back to
 * @param {string[]} page.scopes
 */
export function consentPage({ issuer, uid, client, name, returnsTo, scopes }) {
  const action = `/interaction/${encodeURIComponent(uid)}`;
  const rows = scopes
    .map((scope) => `<li>${escape(SCOPE_TEXT.get(scope) ?? scope)}</li>`)
    .join('\n            ');
  return layout({
    title: 'Allow access',
    issuer,
    body: `
        <h1>Allow access?</h1>
        <p class="lead"><strong>${escape(client)}</strong> at ${escape(returnsTo)} asks you, ${escape(name)}, to let it</p>
        <ul class="scopes">
            ${rows || '<li>Continue</li>'}
        </ul>
        <form method="post" action="${escape(action)}/consent">
          <button type="submit" data-testid="provider-consent" autofocus>Allow</button>
        </form>
        <form method="post" action="${escape(action)}/abort">
          <button type="submit" class="quiet" data-testid="provider-cancel">Do not allow</button>
        </form>`,
  });
}

/**
 * @param {object} page
 * @param {string} page.issuer
 * @param {string} page.form the provider's own form, holding its cross-site request token
 * @param {boolean} page.confirmed the application proved whose session it ends
 */
export function logoutPage({ issuer, form, confirmed }) {
  if (confirmed) {
    const filled = form.replace(
      '</form>',
      '<input type="hidden" name="logout" value="yes" /><noscript><button type="submit">Continue</button></noscript></form>',
    );
    return layout({
      title: 'Signing out',
      issuer,
      submitsItself: true,
      body: `
        <h1>Signing you out…</h1>
        ${filled}`,
    });
  }
  return layout({
    title: 'Sign out',
    issuer,
    body: `
        <h1>Sign out here too?</h1>
        <p class="lead">An application asked to end your session at this provider.</p>
        ${form}
        <button type="submit" form="op.logoutForm" name="logout" value="yes" autofocus
          data-testid="provider-logout">Sign out</button>
        <button type="submit" form="op.logoutForm" class="quiet">Stay signed in</button>`,
  });
}

/**
 * @param {object} page
 * @param {string} page.issuer
 * @param {string} page.title
 * @param {string} page.text
 * @param {{ href: string, text: string }} [page.link]
 */
export function messagePage({ issuer, title, text, link }) {
  return layout({
    title,
    issuer,
    body: `
        <h1>${escape(title)}</h1>
        <p class="lead">${escape(text)}</p>
        ${link ? `<p><a class="button" href="${escape(link.href)}">${escape(link.text)}</a></p>` : ''}`,
  });
}

/** @param {string} initial */
export function portrait(initial) {
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64"><rect width="64" height="64" rx="32" fill="#3b5b8c"/><text x="32" y="42" font-family="system-ui, sans-serif" font-size="28" text-anchor="middle" fill="#fff">${escape(initial)}</text></svg>`;
}

export const ICON = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 48 48"><rect width="48" height="48" rx="13" fill="#33517f"/><circle cx="24" cy="19" r="7" fill="none" stroke="#fff" stroke-width="3.5"/><path d="M11 39c1-8 6.5-11.5 13-11.5S36 31 37 39" fill="none" stroke="#fff" stroke-width="3.5" stroke-linecap="round"/></svg>`;

export const SUBMIT_SCRIPT = 'document.forms[0].submit();\n';

export const STYLE = `:root {
  color-scheme: light dark;
  --page: #eef1f6; --card: #fff; --ink: #1b2432; --soft: #5b6778; --line: #d5dbe5;
  --accent: #2f4f80; --on-accent: #fff; --field: #fff; --bad: #a3262a; --bad-page: #fbecec;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #12161d; --card: #1b212b; --ink: #e8ecf3; --soft: #9aa6b8; --line: #313a48;
    --accent: #8fb2ea; --on-accent: #10192a; --field: #141922; --bad: #ff9d9a; --bad-page: #3a1f22;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; min-height: 100vh; display: grid; place-items: center; padding: 1.5rem 1rem;
  background: var(--page); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif;
}
main {
  width: min(25rem, 100%); background: var(--card); border: 1px solid var(--line); border-radius: 16px;
  box-shadow: 0 1px 2px rgb(0 0 0 / 6%), 0 16px 40px -24px rgb(0 0 0 / 35%); overflow: hidden;
}
header { display: flex; gap: 0.75rem; align-items: center; padding: 1.1rem 1.75rem; border-bottom: 1px solid var(--line); }
header div { display: grid; line-height: 1.25; }
header span { color: var(--soft); font-size: 0.85rem; font-variant-numeric: tabular-nums; }
section { padding: 1.5rem 1.75rem 1.25rem; }
footer { padding: 0.9rem 1.75rem; border-top: 1px solid var(--line); color: var(--soft); font-size: 0.8rem; }
h1 { margin: 0; font-size: 1.55rem; line-height: 1.2; letter-spacing: -0.015em; }
.lead { margin: 0.35rem 0 1.25rem; color: var(--soft); }
.lead strong { color: var(--ink); font-weight: 600; }
label { display: block; margin: 0.9rem 0 0.3rem; font-size: 0.9rem; font-weight: 600; }
input:not([type='hidden']) {
  width: 100%; padding: 0.65rem 0.8rem; font: inherit; color: inherit; background: var(--field);
  border: 1px solid var(--line); border-radius: 10px;
}
input[aria-invalid='true'] { border-color: var(--bad); }
button, .button {
  display: block; width: 100%; margin-top: 1.25rem; padding: 0.7rem 1rem; font: inherit; font-weight: 600;
  text-align: center; text-decoration: none; color: var(--on-accent); background: var(--accent); border: 0;
  border-radius: 10px; cursor: pointer;
}
button:hover, .button:hover { filter: brightness(1.08); }
.quiet { margin-top: 0.5rem; background: none; color: var(--soft); font-weight: 500; }
.quiet:hover { color: var(--ink); }
:focus-visible { outline: 3px solid color-mix(in srgb, var(--accent) 45%, transparent); outline-offset: 2px; }
.problem { margin: 0 0 0.5rem; padding: 0.7rem 0.85rem; border-radius: 10px; background: var(--bad-page); color: var(--bad); font-size: 0.92rem; }
.hint { margin: 0.75rem 0 0; color: var(--soft); font-size: 0.85rem; text-align: center; }
code { padding: 0.1em 0.35em; border-radius: 5px; background: color-mix(in srgb, var(--ink) 8%, transparent); font-size: 0.95em; }
.scopes { margin: 0; padding: 0; list-style: none; border: 1px solid var(--line); border-radius: 10px; }
.scopes li { padding: 0.65rem 0.9rem 0.65rem 2.4rem; position: relative; }
.scopes li + li { border-top: 1px solid var(--line); }
.scopes li::before {
  content: ''; position: absolute; left: 0.95rem; top: 1rem; width: 0.75rem; height: 0.4rem;
  border: solid var(--accent); border-width: 0 0 2px 2px; transform: rotate(-45deg);
}
`;

// @ts-check
// What the example API has for <img> and for the disk of whoever asks.

const COLOURS = { alice: '#8a2846', bob: '#4d6b3c' };
const FABRICS = ['wool', 'linen', 'cotton', 'silk', 'corduroy', 'tweed', 'denim', 'velvet'];
const CUTS = ['overcoat', 'raincoat', 'jacket', 'cape', 'parka', 'blazer', 'cardigan', 'waistcoat'];
const CATALOGUE_LINES = 60_000;

/**
 * The coat of somebody, as it hangs behind the counter.
 *
 * @param {string} sub
 */
export function coat(sub) {
  const colour = Object.entries(COLOURS).find(([name]) => name === sub)?.[1] ?? '#3c5470';
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 160 180" width="160" height="180">
  <path d="M80 34c-4-9 9-9 8-17-1-9-15-8-15 1" fill="none" stroke="#946a17" stroke-width="3" stroke-linecap="round"/>
  <path d="M80 34 30 58q50-16 100 0z" fill="#b98d3b"/>
  <path d="M56 48 24 66 10 128l17 5 11-36v70h84V97l11 36 17-5-14-62-32-18-24 16z" fill="${colour}"/>
  <path d="M56 48 80 96l24-48-9-5-15 12-15-12z" fill="#fff" opacity=".22"/>
  <path d="M80 96v71" stroke="#000" stroke-opacity=".35" stroke-width="2"/>
  <g fill="#e9c877"><circle cx="88" cy="108" r="3.2"/><circle cx="88" cy="126" r="3.2"/><circle cx="88" cy="144" r="3.2"/></g>
  <path d="M48 134h18M94 134h18" stroke="#000" stroke-opacity=".35" stroke-width="2.5" stroke-linecap="round"/>
  <path d="m104 62 8 14" stroke="#946a17" stroke-width="1.5"/>
  <rect x="103" y="75" width="22" height="30" rx="3" fill="#f7e7c6" stroke="#d9bd84" transform="rotate(-9 114 90)"/>
</svg>
`;
}

/**
 * One's orders, for a spreadsheet.
 *
 * @param {readonly Record<string, string>[]} orders
 */
export function ordersCsv(orders) {
  const columns = ['number', 'item', 'placed', 'status', 'total'];
  const lines = orders.map((order) => columns.map((column) => `"${order[column] ?? ''}"`).join(','));
  return `${[columns.join(','), ...lines].join('\r\n')}\r\n`;
}

/** A few megabytes, a line at a time. */
export function* catalogue() {
  yield 'article,description,price\r\n';
  for (let line = 1; line <= CATALOGUE_LINES; line += 1) {
    const fabric = FABRICS[line % FABRICS.length] ?? '';
    const cut = CUTS[(line >> 3) % CUTS.length] ?? '';
    const size = String(34 + ((line * 7) % 28));
    const price = String(40 + ((line * 31) % 500));
    yield `"C-${String(line).padStart(6, '0')}","A ${cut} of ${fabric}, size ${size}, lined and pressed","€ ${price}.00"\r\n`;
  }
}

/** A card of the board: what is measured, how much, since when it changed, where it was read and how long ago. */
import { html, useRef } from "../lib.js";
import { duration, relative } from "../format.js";
import { tick } from "../ui/time.js";
import { now } from "../boot.js";
import { Copy } from "../ui/copy.js";

/** How a number moved since this page was opened: {from, to, since}; null as long as it has not. */
export function useChange(value) {
  const first = useRef(null);
  if (value === null || value === undefined) return null;
  first.current ??= { value, at: now() };
  return first.current.value === value ? null : { by: value - first.current.value, since: first.current.at };
}

/** "+12 in 4m 05s" beside a number. */
export function Change({ value }) {
  const change = useChange(value);
  if (!change) return null;
  return html`<span class="change tiny dim num" title="since this page was opened">${change.by > 0 ? "+" : "−"}${Math.abs(change.by)} in ${duration(tick.value - change.since)}</span>`;
}

/**
 * @param {{id: string, title: string, note?: any, value?: any, query?: string, from: string, at: number|null, children: any}} props
 *   query: the statement that was read; from: where, in words; at: when, by the clock of this browser
 */
export const Card = ({ id, title, note, value, query, from, at, children }) => html`<article class="card metric" data-card=${id} aria-label=${title}>
  <header><div><h2>${title}</h2>${note && html`<p class="dim small">${note}</p>`}</div>${value !== undefined && html`<span class="value">${value}</span>`}</header>
  <div class="body">${children}</div>
  <details class="source"><summary><span>Source: ${from}</span><span class="end num">${at ? `read ${relative(at + (now() - Date.now()), tick.value)}` : ""}</span></summary>
    ${query ? html`<div class="row"><span class="grow">The statement, as it runs:</span><${Copy} text=${query} what="statement" /></div><pre class="code" tabindex="0" aria-label=${`Statement of ${title}`}>${query}</pre>` : html`<p>Summaries of k6 that lie in <code>K6_DIR</code>, as <code>*-summary.json</code>.</p>`}</details>
</article>`;

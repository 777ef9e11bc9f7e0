/** Times: how long ago, with the exact time on hover; they tick together. */
import { html, signal } from "../lib.js";
import { now } from "../boot.js";
import { clock, duration, iso, relative } from "../format.js";

/** The server's time, once a second while the page is in front. */
export const tick = signal(now());
setInterval(() => { if (!document.hidden) tick.value = now(); }, 1000);
document.addEventListener("visibilitychange", () => { if (!document.hidden) tick.value = now(); });

/** "4m ago" and the exact time. `at`: the exact time in the text, "4m ago" on hover. */
export function Time({ ms, at }) {
  if (ms === null || ms === undefined) return html`<span class="faint">–</span>`;
  const [text, title] = at ? [clock(ms), relative(ms, tick.value)] : [relative(ms, tick.value), `${clock(ms)} · ${iso(ms)}`];
  return html`<time dateTime=${iso(ms)} title=${title}>${text}</time>`;
}

/** A length of time; one without an end grows. */
export function Span({ from, to }) {
  if (from === null || from === undefined) return html`<span class="faint">–</span>`;
  return html`<span class="num">${duration((to ?? tick.value) - from)}</span>`;
}

/** Time left until a deadline, or since it passed. */
export function Left({ until }) {
  const ms = until - tick.value;
  return html`<time class="num" dateTime=${iso(until)} title=${clock(until)}>${ms >= 0 ? duration(ms) : `${duration(-ms)} ago`}</time>`;
}

/** JSON to look at: folded, a hundred entries at a time. Numbers too large for JavaScript are shown from the text. */
import { html, useState } from "../lib.js";
import { Copy } from "./feedback.js";

const PAGE = 100;
const LONG = 400;

/** @param {{value: any, open?: number, label?: string}} props open: how many levels are unfolded at first */
export function Json({ value, open = 1, label }) {
  return html`<div class="json" aria-label=${label}><${Node} value=${value} open=${open} /></div>`;
}

/** The same with a title and a button that copies it. */
export const JsonCard = ({ title, value, open }) => html`<section class="stack tight"><div class="row"><h3>${title}</h3><${Copy} text=${JSON.stringify(value, null, 2)} what=${title.toLowerCase()} /></div>
  <div class="code soft"><${Json} value=${value} open=${open} label=${title} /></div></section>`;

function Node({ name, value, open }) {
  const key = name === undefined ? null : html`<span class="k">${name}: </span>`;
  if (value === null || typeof value !== "object") return html`<div>${key}<${Leaf} value=${value} /></div>`;
  const entries = Array.isArray(value) ? value.map((one, i) => [i, one]) : Object.entries(value);
  const size = Array.isArray(value) ? `[${entries.length}]` : `{${entries.length}}`;
  if (!entries.length) return html`<div>${key}<span class="of">${size}</span></div>`;
  return html`<${Branch} key_=${key} size=${size} entries=${entries} open=${open} />`;
}

function Branch({ key_, size, entries, open }) {
  const [isOpen, setOpen] = useState(open > 0);
  const [shown, setShown] = useState(PAGE);
  return html`<details open=${isOpen} onToggle=${(event) => { if (event.target === event.currentTarget) setOpen(event.currentTarget.open); }}>
    <summary>${key_}<span class="of">${size}</span></summary>
    ${isOpen && html`<ul>${entries.slice(0, shown).map(([name, value]) => html`<li key=${name}><${Node} name=${name} value=${value} open=${open - 1} /></li>`)}
      ${entries.length > shown && html`<li><button type="button" class="link" onClick=${() => setShown(shown + PAGE)}>${Math.min(PAGE, entries.length - shown)} more of ${entries.length - shown}</button></li>`}</ul>`}
  </details>`;
}

function Leaf({ value }) {
  const [whole, setWhole] = useState(false);
  if (typeof value !== "string") return html`<span class=${typeof value === "number" ? "n" : "b"}>${String(value)}</span>`;
  const cut = !whole && value.length > LONG;
  return html`<span class="s">"${cut ? value.slice(0, LONG) : value}"</span>${cut && html` <button type="button" class="link" onClick=${() => setWhole(true)}>${value.length - LONG} characters more</button>`}`;
}

/** Content to look at: JSON, diffs, tables. */
import { cx, html, useMemo, useState } from "../lib.js";
import { digitsOf } from "../state.js";
import { Copy } from "./feedback.js";
import { Icon } from "./parts.js";

// Json ------------------------------------------------------------------------------------------------
// JSON to look at: folded, a hundred entries at a time.

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
  if (value === null || typeof value !== "object" || digitsOf(value)) return html`<div>${key}<${Leaf} value=${value} /></div>`;
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
  if (typeof value !== "string") return html`<span class=${typeof value === "boolean" || value === null ? "b" : "n"}>${digitsOf(value) ?? String(value)}</span>`;
  const cut = !whole && value.length > LONG;
  return html`<span class="s">"${cut ? value.slice(0, LONG) : value}"</span>${cut && html` <button type="button" class="link" onClick=${() => setWhole(true)}>${value.length - LONG} characters more</button>`}`;
}

// Diff ------------------------------------------------------------------------------------------------
// A unified diff, one column or two. Parsing is pure; the text is never markup.

/**
 * The hunks of a unified diff, with line numbers.
 * @param {string} text
 * @returns {{hunks: {head: string, lines: {sign: " "|"+"|"-"|"\\", text: string, before?: number, after?: number}[]}[], added: number, removed: number}}
 */
export function parseDiff(text) {
  const hunks = [];
  let hunk = null, before = 0, after = 0, added = 0, removed = 0;
  const lines = text.split("\n");
  if (lines.at(-1) === "") lines.pop();
  for (const line of lines) {
    const found = /^@@ -(\d+)(?:,\d+)? \+(\d+)(?:,\d+)? @@/.exec(line);
    if (found) {
      hunk = { head: line, lines: [] };
      hunks.push(hunk);
      [before, after] = [Number(found[1]), Number(found[2])];
    } else if (hunk) {
      const sign = line[0] ?? " ";
      const one = { sign, text: line.slice(1) };
      if (sign === "-") { one.before = before++; removed += 1; }
      else if (sign === "+") { one.after = after++; added += 1; }
      else if (sign === " ") { one.before = before++; one.after = after++; }
      hunk.lines.push(one);
    }
  }
  return { hunks, added, removed };
}

/** Lines side by side: removed ones beside those that were added in their place. Pairs [left, right], either may be null. */
export function sideBySide(lines) {
  const pairs = [];
  let left = [], right = [];
  const settle = () => {
    for (let i = 0; i < Math.max(left.length, right.length); i += 1) pairs.push([left[i] ?? null, right[i] ?? null]);
    left = []; right = [];
  };
  for (const line of lines) {
    if (line.sign === "-") left.push(line);
    else if (line.sign === "+") right.push(line);
    else { settle(); pairs.push([line, line]); }
  }
  settle();
  return pairs;
}

const KIND = { "+": "ins", "-": "del" };

const Unified = ({ hunks }) => hunks.map((hunk, i) => html`<tbody key=${i}><tr class="hunk"><td colspan="4">${hunk.head}</td></tr>
  ${hunk.lines.map((line, n) => html`<tr key=${n} class=${KIND[line.sign]}><td class="no">${line.before}</td><td class="no">${line.after}</td>
    <td class="sign">${line.sign === " " ? "" : line.sign}</td><td class="text">${line.text}</td></tr>`)}</tbody>`);

const half = (line) => [html`<td class=${cx("no", line ? KIND[line.sign] : "none")}>${line && (line.sign === "+" ? line.after : line.before)}</td>`,
  html`<td class=${cx("sign", line ? KIND[line.sign] : "none")}>${line && line.sign !== " " ? line.sign : ""}</td>`,
  html`<td class=${cx("text", line ? KIND[line.sign] : "none")}>${line?.text}</td>`];
const Split = ({ hunks }) => hunks.map((hunk, i) => html`<tbody key=${i}><tr class="hunk"><td colspan="6">${hunk.head}</td></tr>
  ${sideBySide(hunk.lines).map(([left, right], n) => html`<tr key=${n}>${half(left)}${half(right)}</tr>`)}</tbody>`);

/** What a diff adds and takes away, as +12 −3. */
export const Changed = ({ added, removed }) => html`<span class="num"><span class="plus">+${added}</span> <span class="minus">−${removed}</span></span>`;

/**
 * One file's diff, which folds.
 * @param {{path: string, text?: string|null, mode?: "unified"|"split", open?: boolean, state?: any, id?: string}} props
 *   state: what stands at the right of its head, such as hashes.
 */
export function Diff({ path, text, mode = "unified", open = true, state, id }) {
  const diff = useMemo(() => (text ? parseDiff(text) : null), [text]);
  const [isOpen, setOpen] = useState(open);
  return html`<section class=${cx("diff", mode === "split" && "two-sides")} id=${id} aria-label=${path}>
    <header><button type="button" class="row grow" aria-expanded=${String(isOpen)} onClick=${() => setOpen(!isOpen)}><${Icon} name="right" small class="chev" /><span class="path">${path}</span>${diff && html`<${Changed} ...${diff} />`}</button><span class="state">${state}</span></header>
    ${isOpen && html`<div class="lines" tabindex="0" role="region" aria-label=${`Changes of ${path}`}>
      ${diff?.hunks.length ? html`<table><caption class="sr">Changes of ${path}</caption>${mode === "split" ? html`<${Split} hunks=${diff.hunks} />` : html`<${Unified} hunks=${diff.hunks} />`}</table>`
        : html`<p class="pad dim">${text === undefined || text === null ? "The file is too large to be compared here; the hashes above tell the versions apart." : "The two versions are the same."}</p>`}
    </div>`}
  </section>`;
}

// Table -----------------------------------------------------------------------------------------------
// A table that sorts in place, pages by what it is given, and lets rows be picked.

/**
 * @param {{
 *   caption: string,
 *   rows: any[],
 *   rowKey: (row: any) => string,
 *   columns: {id: string, label: any, cell: (row: any) => any, sort?: (row: any) => any, end?: boolean, fit?: boolean}[],
 *   sorted?: {by: string, down?: boolean},
 *   selected?: Set<string>, onSelect?: (keys: Set<string>) => void,
 *   on?: string, onRow?: (row: any) => void,
 *   empty?: any,
 * }} props on: the key of the row that is open beside the table; onRow: what a click on a row does (put a link or button into it, too)
 */
export function Table({ caption, rows, rowKey, columns, sorted, selected, onSelect, on, onRow, empty }) {
  const [order, setOrder] = useState(sorted ?? null);
  const shown = useMemo(() => inOrder(rows, columns, order), [rows, order]);
  const all = selected && rows.length > 0 && rows.every((row) => selected.has(rowKey(row)));
  const pick = (key, is) => { const next = new Set(selected); if (is) next.add(key); else next.delete(key); onSelect(next); };
  if (!rows.length && empty) return empty;
  return html`<div class="table-wrap" tabindex="0" role="region" aria-label=${caption}><table class="table"><caption class="sr">${caption}</caption>
    <thead><tr>
      ${onSelect && html`<th class="fit" scope="col"><input type="checkbox" aria-label="Select all rows shown" checked=${all} onChange=${(event) => onSelect(event.currentTarget.checked ? new Set(rows.map(rowKey)) : new Set())} /></th>`}
      ${columns.map((column) => html`<${Head} key=${column.id} column=${column} order=${order} onOrder=${setOrder} />`)}
    </tr></thead>
    <tbody>${shown.map((row) => { const key = rowKey(row); return html`<tr key=${key} class=${on === key ? "on" : null} onClick=${onRow && ((event) => { if (!event.target.closest("a, button, input, label, summary")) onRow(row); })}>
      ${onSelect && html`<td class="fit"><input type="checkbox" aria-label=${`Select ${key}`} checked=${selected.has(key)} onChange=${(event) => pick(key, event.currentTarget.checked)} /></td>`}
      ${columns.map((column) => html`<td key=${column.id} class=${`${column.end ? "end" : ""} ${column.fit ? "fit" : ""}`}>${column.cell(row)}</td>`)}
    </tr>`; })}</tbody>
  </table></div>`;
}

function Head({ column, order, onOrder }) {
  if (!column.sort) return html`<th scope="col" class=${column.end ? "end" : null}>${column.label || html`<span class="sr">Actions</span>`}</th>`;
  const mine = order?.by === column.id;
  return html`<th scope="col" class=${column.end ? "end" : null} aria-sort=${mine ? (order.down ? "descending" : "ascending") : null}>
    <button type="button" onClick=${() => onOrder({ by: column.id, down: mine ? !order.down : false })}>${column.label}${mine && html`<${Icon} name=${order.down ? "down" : "up"} small />`}</button></th>`;
}

function inOrder(rows, columns, order) {
  const by = columns.find((column) => column.id === order?.by)?.sort;
  if (!by) return rows;
  const compare = (a, b) => (a === b ? 0 : a === null || a === undefined ? 1 : b === null || b === undefined ? -1 : a < b ? -1 : 1);
  const sorted = rows.map((row) => [by(row), row]).sort(([a], [b]) => (order.down ? compare(b, a) : compare(a, b)));
  return sorted.map(([, row]) => row);
}

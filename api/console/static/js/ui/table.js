/** A table that sorts in place, pages by what it is given, and lets rows be picked. */
import { html, useMemo, useState } from "../lib.js";
import { Icon } from "./parts.js";

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

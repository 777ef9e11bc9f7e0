/** A unified diff, one column or two. Parsing is pure; the text is never markup. */
import { cx, html, useMemo, useState } from "../lib.js";
import { Icon } from "./parts.js";

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

/** A run's timeline: a tree of rows over a time axis. Only the rows on the screen exist, whatever the run's length. */
import { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "../lib.js";
import { duration } from "../format.js";
import { useKeys } from "../keys.js";
import { idle } from "../prefs.js";
import { patch } from "../route.js";
import { Button } from "../ui/button.js";
import { Empty } from "../ui/empty.js";
import { Icon } from "../ui/icons.js";
import { Seg } from "../ui/tabs.js";
import { axisOf, hasFailed, isActive, nodesOf, spanOf, ticksOf, viewOf } from "./layout.js";
import { Overview } from "./overview.js";
import { Row } from "./row.js";

const ROW = 34;
const OVER = 4; // rows drawn above and below what is seen
const MANY = 120; // from here on there is an overview, and the axis follows the rows on the screen

/**
 * @param {{rows: object[], total: number, loaded: boolean, params: Record<string, string>, now: number, final: boolean, selected: string|undefined, onOpen: () => void}} props
 */
export function Timeline({ rows, total, loaded, params, now, selected, onOpen }) {
  const [folded, setFolded] = useState(() => new Set());
  const scroller = useRef(null);
  const filter = useRef(null);
  const [at, setAt] = useState({ top: 0, height: 600, width: 900 });
  const { q = "", only = "" } = params;

  const nodes = useMemo(() => nodesOf(rows, { q, only, folded }), [rows, q, only, folded]);
  const open = useMemo(() => rows.some(isActive), [rows]);
  const until = open ? now : 0; // a run at rest does not change with the clock
  const axis = useMemo(() => axisOf(rows, until, idle.value), [rows, until, idle.value]);
  const counts = useMemo(() => ({ active: rows.filter(isActive).length, failed: rows.filter(hasFailed).length }), [rows]);

  const first = Math.max(0, Math.floor(at.top / ROW) - OVER);
  const last = Math.min(nodes.length, Math.ceil((at.top + at.height) / ROW) + OVER);
  const many = nodes.length > MANY;
  const zoom = params.from && params.to ? [axis.from + Number(params.from), axis.from + Number(params.to)] : null;
  const [from, to] = zoom ?? (many ? windowOf(nodes.slice(Math.floor(at.top / ROW), Math.ceil((at.top + at.height) / ROW)), until, axis) : [axis.from, axis.to]);
  const view = viewOf(axis, from, to);

  useLayoutEffect(() => {
    const element = scroller.current;
    const measure = () => setAt((old) => {
      const next = { top: element.scrollTop, height: element.clientHeight, width: element.clientWidth };
      return next.top === old.top && next.height === old.height && next.width === old.width ? old : next;
    });
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    element.addEventListener("scroll", measure, { passive: true });
    return () => { observer.disconnect(); element.removeEventListener("scroll", measure); };
  }, []);

  const index = nodes.findIndex((node) => node.id === selected);
  const show = (i) => {
    const top = i * ROW, element = scroller.current;
    const head = 34;
    if (top < element.scrollTop) element.scrollTop = top;
    else if (top + ROW + head > element.scrollTop + element.clientHeight) element.scrollTop = top + ROW + head - element.clientHeight;
  };
  const wanted = useRef(selected);
  useEffect(() => { // a row that the address names is brought into view once it is there
    if (wanted.current && index >= 0) { show(index); wanted.current = null; }
  }, [index]);
  const select = (node) => patch({ step: node.id });
  const move = (by) => { if (!nodes.length) return; const next = Math.min(nodes.length - 1, Math.max(0, (index < 0 ? (by > 0 ? -1 : nodes.length) : index) + by)); select(nodes[next]); show(next); };
  const fold = (node, close = node.open) => setFolded((old) => { const next = new Set(old); if (close) next.add(node.id); else next.delete(node.id); return next; });
  const foldSelected = (close) => {
    const node = nodes[index];
    const group = node?.rows ? node : nodes.slice(0, index + 1).reverse().find((one) => one.rows && node?.depth === 2);
    if (group) { fold(group, close); if (close) select(group); }
  };
  const onKeyDown = (event) => {
    const act = { Home: () => move(-nodes.length), End: () => move(nodes.length), PageDown: () => move(10), PageUp: () => move(-10) }[event.key];
    if (act) { event.preventDefault(); act(); }
  };
  useKeys({
    j: () => move(1), k: () => move(-1), ArrowDown: () => move(1), ArrowUp: () => move(-1),
    ArrowLeft: () => foldSelected(true), ArrowRight: () => foldSelected(false), Enter: (event) => { if (event.target.closest?.("a, button")) { event.target.click(); return; } onOpen(); },
    "/": () => filter.current.focus(), c: () => { idle.value = !idle.value; },
  });

  return html`<section class="tl" aria-label="Timeline">
    <div class="toolbar tl-tools">
      <div class="search"><${Icon} name="search" small /><input class="input" ref=${filter} type="search" aria-label="Filter steps" placeholder="Filter steps" value=${q}
        onInput=${(event) => patch({ q: event.currentTarget.value })} onKeyDown=${(event) => { if (event.key === "Escape") { patch({ q: "" }); event.currentTarget.blur(); } }} />${!q && html`<kbd aria-hidden="true">/</kbd>`}</div>
      <${Seg} label="Which rows" value=${only} onChange=${(value) => patch({ only: value })} options=${[["", "All", total], ["active", "Active", counts.active], ["failed", "Failures", counts.failed]]} />
      <span class="end"></span>${!loaded && html`<span class="small dim num" role="status">${rows.length} of ${total} rows</span>`}
      <${Button} icon="fold" pressed=${idle.value} onClick=${() => { idle.value = !idle.value; }}>Collapse idle</${Button}>
    </div>
    ${many && html`<${Overview} rows=${rows} axis=${axis} now=${until} window=${[from, to]} zoomed=${Boolean(zoom)} onZoom=${(range) => patch(range ? { from: Math.round(range[0] - axis.from), to: Math.round(range[1] - axis.from) } : { from: "", to: "" })} />`}
    <div class="tl-scroll" ref=${scroller} role="treegrid" aria-label="What the run did" aria-rowcount=${nodes.length + 1} aria-colcount="2" tabindex="0" aria-activedescendant=${index >= first && index < last ? `tl-${index}` : null} onKeyDown=${onKeyDown}>
      <${Head} axis=${axis} from=${from} to=${to} view=${view} width=${at.width} />
      <div class="tl-body" role="rowgroup" style=${{ height: `${nodes.length * ROW}px` }}>
        <${Grid} axis=${axis} from=${from} to=${to} view=${view} width=${at.width} />
        <div class="tl-slice" role="presentation" style=${{ transform: `translateY(${first * ROW}px)` }}>
          ${nodes.slice(first, last).map((node, i) => html`<${Row} key=${(first + i) % (last - first || 1)} id=${`tl-${first + i}`} node=${node} index=${first + i} selected=${node.id === selected} view=${view} now=${until} onSelect=${select} onFold=${fold} />`)}
        </div>
      </div>
      ${!nodes.length && html`<${Empty} icon="search" title=${rows.length ? "No row is like that" : "Nothing is recorded yet"}><p>${rows.length ? "Clear the filter to see all of them." : "Rows appear as soon as the run records its first step."}</p></${Empty}>`}
    </div>
  </section>`;
}

/** The times that the rows on the screen take, with a little room. */
function windowOf(nodes, now, axis) {
  let from = Infinity, to = -Infinity;
  for (const node of nodes) for (const row of node.rows ?? [node.row]) { const [a, b] = spanOf(row, now); from = Math.min(from, a); to = Math.max(to, b); }
  if (from > to) return [axis.from, axis.to];
  const room = Math.max(1, (to - from) * 0.04);
  return [from - room, to + room];
}

const percent = (x) => `${(x * 100).toFixed(3)}%`;

function Head({ axis, from, to, view, width }) {
  const ticks = ticksOf(axis, from, to, 76 / Math.max(300, width - 240));
  return html`<div class="tl-head" role="row" aria-rowindex="1"><div role="columnheader" class="tl-name">Step</div><div role="columnheader" class="tl-lane" aria-label="Time">
    ${ticks.map(({ time, x }) => html`<span key=${time} class="tl-tick num" style=${{ left: percent(x) }}>${time === axis.from ? "0" : duration(time - axis.from)}</span>`)}
    ${idles(axis, from, to).map((piece) => html`<span key=${`i${piece.from}`} class="tl-idle-label num" style=${idlePlace((Math.max(0, view(piece.from)) + Math.min(1, view(piece.to))) / 2)}>${duration(piece.to - piece.from)} idle</span>`)}
  </div></div>`;
}

/** In the middle of the wait, but not over the edge. */
const idlePlace = (x) => (x > 0.92 ? { right: "-12px", transform: "none" } : { left: percent(Math.max(0.06, x)) });

const idles = (axis, from, to) => axis.pieces.filter((piece) => piece.idle && piece.to > from && piece.from < to);

function Grid({ axis, from, to, view, width }) {
  const ticks = ticksOf(axis, from, to, 76 / Math.max(300, width - 240));
  return html`<div class="tl-grid" aria-hidden="true">${idles(axis, from, to).map((piece) => html`<i key=${`i${piece.from}`} class="idle" style=${{ left: percent(Math.max(0, view(piece.from))), width: percent(Math.min(1, view(piece.to)) - Math.max(0, view(piece.from))) }}></i>`)}
    ${ticks.map(({ time, x }) => html`<i key=${time} style=${{ left: percent(x) }}></i>`)}</div>`;
}

/** A run's timeline: a tree of rows over a time axis. Only the rows on the screen exist, whatever the run's length. */
import { cx, html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "../lib.js";
import { useKeys } from "../frame.js";
import { duration, idle, patch } from "../state.js";
import { axisOf, hasFailed, isActive, isWait, lanesOf, nodesOf, placeOf, spanOf, stateOf, ticksOf, timeAt, titleOf, triesOf, viewOf } from "./layout.js";
import { Empty, Seg } from "../ui/feedback.js";
import { Button, Dot, Icon, look, Tag } from "../ui/parts.js";

// Row -------------------------------------------------------------------------------------------------
// One line of a timeline: its name, and its bar. Shapes: solid is work, hatched a wait, a thin line queueing, red an attempt that failed, dotted its back-off.

const LANES = 8;
/** A bar at the very end still shows. */
const start = (x) => (x > 0.99 ? `min(${across(x)}, 100% - 4px)` : across(x));
const across = (x) => `${(Math.min(1.2, Math.max(-0.2, x)) * 100).toFixed(3)}%`;

/** The worst that became of a group's rows. */
function groupState(rows) {
  const states = rows.map(stateOf);
  for (const state of ["ERROR", "TIMED_OUT", "RUNNING", "WAITING", "ENQUEUED", "CANCELLED"]) if (states.includes(state)) return state;
  return "SUCCESS";
}

/**
 * @param {{node: object, index: number, total: number, selected: boolean, view: (time: number) => number, now: number, onSelect: Function, onFold: Function, id: string}} props
 */
export function Row({ node, index, selected, view, now, onSelect, onFold, id }) {
  const group = node.rows;
  const state = group ? groupState(group) : stateOf(node.row);
  const [from, to] = group ? groupSpan(group, now) : spanOf(node.row, now);
  const failedTries = group ? 0 : Math.max(0, (node.row.attempts?.length ?? node.row.attempt) - 1);
  const label = group ? node.name : titleOf(node.row);
  return html`<div role="row" id=${id} data-step=${node.id} data-status=${state} class=${cx("tl-row", selected && "on", !group && node.row.kind === "call" && "call")} aria-rowindex=${index + 2} aria-level=${node.depth}
      aria-expanded=${group ? String(node.open) : null} aria-selected=${String(selected)} onClick=${() => onSelect(node)}>
    <div role="gridcell" class="tl-name" data-depth=${node.depth}>
      ${group ? html`<span aria-hidden="true" class=${cx("tl-fold", node.open && "open")} onClick=${(event) => { event.stopPropagation(); onFold(node); }}><${Icon} name="right" small /></span>` : html`<span class="tl-fold"></span>`}
      <${Dot} state=${state} /><span class="clip" title=${label}>${label}</span><span class="sr">${look(state).word}</span>
      ${group && html`<span class="tiny dim num">${group.filter((row) => row.endedAt).length}/${group.length}</span>`}
      ${!group && isWait(node.row) && html`<${Tag} tone=${isActive(node.row) ? "wait" : undefined}>gate</${Tag}>`}
      ${failedTries > 0 && html`<${Tag} tone="bad" title=${`${failedTries} failed before it`}>×${failedTries + 1}</${Tag}>`}
    </div>
    <div role="gridcell" class="tl-lane"><span class="sr">${duration(to - from)}</span>${group ? html`<${GroupBar} rows=${group} from=${from} to=${to} view=${view} now=${now} />` : html`<${Bar} row=${node.row} state=${state} from=${from} to=${to} view=${view} now=${now} />`}
      <${Length} x0=${view(from)} x1=${view(to)} text=${duration(to - from)} /></div>
  </div>`;
}

const groupSpan = (rows, now) => rows.map((row) => spanOf(row, now)).reduce(([a, b], [c, d]) => [Math.min(a, c), Math.max(b, d)]);

function Bar({ row, state, from, to, view, now }) {
  const x0 = view(from), x1 = view(to);
  if (x1 < 0 || x0 > 1) return html`<i class="tl-off" data-side=${x1 < 0 ? "left" : "right"}></i>`;
  const queued = row.queuedAt && row.queuedAt < from ? view(row.queuedAt) : null;
  const tries = triesOf(row, now);
  return html`${queued !== null && html`<i class="tl-queue" style=${{ left: across(queued), width: across(x0 - queued) }}></i>`}
    ${tries.length ? html`<i class="tl-backoff" style=${{ left: across(x0), width: across(x1 - x0) }}></i>${tries.map((one, i) => html`<i key=${i} class=${cx("tl-bar", one.failed ? "fill-bad" : `fill-${look(state).tone}`, i === tries.length - 1 && isActive(row) && "open")} style=${{ left: start(view(one.from)), width: across(view(one.to) - view(one.from)) }}></i>`)}`
      : html`<i class=${cx("tl-bar", `fill-${look(state).tone}`, isWait(row) && "wait", isActive(row) && "open")} style=${{ left: start(x0), width: across(x1 - x0) }}></i>`}`;
}

function GroupBar({ rows, from, to, view, now }) {
  const x0 = view(from), x1 = view(to);
  if (x1 < 0 || x0 > 1) return html`<i class="tl-off" data-side=${x1 < 0 ? "left" : "right"}></i>`;
  const spans = rows.map((row) => spanOf(row, now));
  const lanes = lanesOf(spans, LANES);
  const long = Math.max(1, to - from);
  return html`<i class="tl-group" style=${{ left: across(x0), width: across(x1 - x0) }}><svg viewBox="0 0 1000 24" preserveAspectRatio="none" aria-hidden="true">
    ${rows.map((row, i) => html`<rect key=${row.stepID} class=${`fill-${look(stateOf(row)).tone}`} x=${((spans[i][0] - from) / long) * 1000} width=${Math.max(3, ((spans[i][1] - spans[i][0]) / long) * 1000)} y=${lanes[i] * 3} height="2" />`)}
  </svg></i>`;
}

/** How long it took, where there is room beside the bar. */
function Length({ x0, x1, text }) {
  if (x1 < 0 || x0 > 1) return null;
  const after = x1 < 0.86 || x0 < 0.14;
  return html`<span class=${cx("tl-long num", after && x1 > 0.86 && "inside")} style=${after ? (x1 > 0.86 ? { right: "8px" } : { left: `calc(${across(x1)} + 7px)` }) : { right: `calc(${across(1 - x0)} + 7px)` }}>${text}</span>`;
}

// Overview --------------------------------------------------------------------------------------------
// All of a long run in a strip: drag over it to look at a part of it.

const BINS = 240;
const HEIGHT = 34;

/** How much goes on at each place, and the worst state there. Pure. */
function density(rows, axis, now) {
  const bins = Array.from({ length: BINS }, () => ({ n: 0, bad: false, wait: false }));
  for (const row of rows) {
    const [from, to] = spanOf(row, now);
    const first = Math.min(BINS - 1, Math.floor(placeOf(axis, from) * BINS)), last = Math.min(BINS - 1, Math.floor(placeOf(axis, to) * BINS));
    const tone = look(stateOf(row)).tone;
    for (let i = first; i <= last; i += 1) {
      bins[i].n += 1;
      if (tone === "bad") bins[i].bad = true;
      if (row.kind === "gate") bins[i].wait = true;
    }
  }
  return bins;
}

/** @param {{rows: object[], axis: object, now: number, window: [number, number], zoomed: boolean, onZoom: (range: [number, number]|null) => void}} props */
function Overview({ rows, axis, now, window: [from, to], zoomed, onZoom }) {
  const element = useRef(null);
  const [drag, setDrag] = useState(null);
  const bins = useMemo(() => density(rows, axis, now), [rows, axis]);
  const most = Math.max(1, ...bins.map((bin) => bin.n));
  const xOf = (event) => { const box = element.current.getBoundingClientRect(); return Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)); };
  const down = (event) => { event.currentTarget.setPointerCapture(event.pointerId); setDrag([xOf(event), xOf(event)]); };
  const move = (event) => { if (drag) setDrag([drag[0], xOf(event)]); };
  const up = () => {
    if (!drag) return;
    const [a, b] = [...drag].sort((x, y) => x - y);
    setDrag(null);
    onZoom(b - a > 0.004 ? [timeAt(axis, a), timeAt(axis, b)] : null);
  };
  const [x0, x1] = drag ? [...drag].sort((a, b) => a - b) : [placeOf(axis, from), placeOf(axis, to)];
  return html`<div class="tl-overview"><svg ref=${element} viewBox=${`0 0 ${BINS} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label="All of the run; drag to look at a part" onPointerDown=${down} onPointerMove=${move} onPointerUp=${up} onPointerCancel=${() => setDrag(null)}>
      ${bins.map((bin, i) => bin.n > 0 && html`<rect key=${i} x=${i} width="1" y=${HEIGHT - 3 - (bin.n / most) * (HEIGHT - 6)} height=${Math.max(2, (bin.n / most) * (HEIGHT - 6))} class=${bin.bad ? "fill-bad" : bin.wait ? "fill-wait" : "fill-ok"} />`)}
      <rect class="tl-window" x=${x0 * BINS} width=${Math.max(0.8, (x1 - x0) * BINS)} y="0" height=${HEIGHT} />
    </svg>${zoomed && html`<${Button} small kind="quiet" icon="cross" onClick=${() => onZoom(null)}>Whole run</${Button}>`}</div>`;
}

// Timeline --------------------------------------------------------------------------------------------

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
  const lane = laneOf(width);
  const waits = idles(axis, from, to).map((piece) => ({ piece, x: (Math.max(0, view(piece.from)) + Math.min(1, view(piece.to))) / 2 }));
  const ticks = ticksOf(axis, from, to, APART / lane).filter(({ x }) => !waits.some((wait) => x * lane > wait.x * lane - 78 && x * lane < wait.x * lane + 46));
  return html`<div class="tl-head" role="row" aria-rowindex="1"><div role="columnheader" class="tl-name">Step</div><div role="columnheader" class="tl-lane" aria-label="Time">
    ${ticks.map(({ time, x }) => html`<span key=${time} class="tl-tick num" style=${{ left: percent(x) }}>${time === axis.from ? "0" : duration(time - axis.from)}</span>`)}
    ${waits.map(({ piece, x }) => html`<span key=${`i${piece.from}`} class="tl-idle-label num" style=${idlePlace(x)}>${duration(piece.to - piece.from)} idle</span>`)}
  </div></div>`;
}

/** Pixels between two marks, and about how wide the lanes are in a timeline of this width. */
const APART = 76;
const laneOf = (width) => Math.max(120, width > 620 ? width * 0.68 - 20 : width * 0.52);

/** In the middle of the wait, but not over the edge. */
const idlePlace = (x) => (x > 0.92 ? { right: "-12px", transform: "none" } : { left: percent(Math.max(0.06, x)) });

const idles = (axis, from, to) => axis.pieces.filter((piece) => piece.idle && piece.to > from && piece.from < to);

function Grid({ axis, from, to, view, width }) {
  const ticks = ticksOf(axis, from, to, APART / laneOf(width));
  return html`<div class="tl-grid" aria-hidden="true">${idles(axis, from, to).map((piece) => html`<i key=${`i${piece.from}`} class="idle" style=${{ left: percent(Math.max(0, view(piece.from))), width: percent(Math.min(1, view(piece.to)) - Math.max(0, view(piece.from))) }}></i>`)}
    ${ticks.map(({ time, x }) => html`<i key=${time} style=${{ left: percent(x) }}></i>`)}</div>`;
}

/** One line of a timeline: its name, and its bar. Shapes: solid is work, hatched a wait, a thin line queueing, a notch a failed attempt. */
import { html, cx } from "../lib.js";
import { duration } from "../format.js";
import { Dot, look, Tag } from "../ui/status.js";
import { Icon } from "../ui/icons.js";
import { isActive, isWait, lanesOf, spanOf, stateOf, titleOf } from "./layout.js";

const LANES = 8;
const KIND = { gate: "gate", call: null, step: null, child: null };
/** A bar at the very end still shows. */
const start = (x) => (x > 0.99 ? `min(${percent(x)}, 100% - 4px)` : percent(x));
const percent = (x) => `${(Math.min(1.2, Math.max(-0.2, x)) * 100).toFixed(3)}%`;

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
      ${!group && KIND[node.row.kind] && html`<${Tag} tone=${isActive(node.row) ? "wait" : undefined}>${KIND[node.row.kind]}</${Tag}>`}
      ${failedTries > 0 && html`<${Tag} tone="bad" title=${`${failedTries} failed before it`}>×${failedTries + 1}</${Tag}>`}
    </div>
    <div role="gridcell" class="tl-lane"><span class="sr">${duration(to - from)}</span>${group ? html`<${GroupBar} rows=${group} from=${from} to=${to} view=${view} now=${now} />` : html`<${Bar} row=${node.row} state=${state} from=${from} to=${to} view=${view} tries=${failedTries} />`}
      <${Length} x0=${view(from)} x1=${view(to)} text=${duration(to - from)} /></div>
  </div>`;
}

const groupSpan = (rows, now) => rows.map((row) => spanOf(row, now)).reduce(([a, b], [c, d]) => [Math.min(a, c), Math.max(b, d)]);

function Bar({ row, state, from, to, view, tries }) {
  const x0 = view(from), x1 = view(to);
  if (x1 < 0 || x0 > 1) return html`<i class="tl-off" data-side=${x1 < 0 ? "left" : "right"}></i>`;
  const queued = row.queuedAt && row.queuedAt < from ? view(row.queuedAt) : null;
  return html`${queued !== null && html`<i class="tl-queue" style=${{ left: percent(queued), width: percent(x0 - queued) }}></i>`}
    <i class=${cx("tl-bar", `fill-${look(state).tone}`, isWait(row) && "wait", isActive(row) && "open")} style=${{ left: start(x0), width: percent(x1 - x0) }}>
      ${tries > 0 && Array.from({ length: Math.min(tries, 5) }, (_, i) => html`<b key=${i}></b>`)}</i>`;
}

function GroupBar({ rows, from, to, view, now }) {
  const x0 = view(from), x1 = view(to);
  if (x1 < 0 || x0 > 1) return html`<i class="tl-off" data-side=${x1 < 0 ? "left" : "right"}></i>`;
  const spans = rows.map((row) => spanOf(row, now));
  const lanes = lanesOf(spans, LANES);
  const long = Math.max(1, to - from);
  return html`<i class="tl-group" style=${{ left: percent(x0), width: percent(x1 - x0) }}><svg viewBox="0 0 1000 24" preserveAspectRatio="none" aria-hidden="true">
    ${rows.map((row, i) => html`<rect key=${row.stepID} class=${`fill-${look(stateOf(row)).tone}`} x=${((spans[i][0] - from) / long) * 1000} width=${Math.max(3, ((spans[i][1] - spans[i][0]) / long) * 1000)} y=${lanes[i] * 3} height="2" />`)}
  </svg></i>`;
}

/** How long it took, where there is room beside the bar. */
function Length({ x0, x1, text }) {
  if (x1 < 0 || x0 > 1) return null;
  const after = x1 < 0.86 || x0 < 0.14;
  return html`<span class=${cx("tl-long num", after && x1 > 0.86 && "inside")} style=${after ? (x1 > 0.86 ? { right: "8px" } : { left: `calc(${percent(x1)} + 7px)` }) : { right: `calc(${percent(1 - x0)} + 7px)` }}>${text}</span>`;
}

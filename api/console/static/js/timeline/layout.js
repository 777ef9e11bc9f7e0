/** Where everything in a timeline stands. Pure: rows in, numbers out. Times are epoch ms, places are 0…1. */

/** A wait is drawn short when it is longer than this, and than this share of all work. */
const IDLE_MS = 1500;
const IDLE_SHARE = 0.2;
/** What a wait that is drawn short takes, as a share of all work. */
const IDLE_WIDTH = 0.09;

/** The state of a row: of a sandbox task that of its command, whose workflow ends well in any case. */
export function stateOf(row) {
  const last = row.attempts?.at(-1);
  return row.status === "SUCCESS" && last && last.errCode !== "NONE" ? "ERROR" : row.status ?? "SUCCESS";
}

const ACTIVE = new Set(["ENQUEUED", "RUNNING", "WAITING", "PENDING"]);
const FAILED = new Set(["ERROR", "TIMED_OUT"]);
export const isActive = (row) => ACTIVE.has(stateOf(row));
export const hasFailed = (row) => FAILED.has(stateOf(row)) || (row.attempts?.length ?? 0) > 1;

/** Whether a row waits for somebody, so that nobody works meanwhile. */
export const isWait = (row) => row.kind === "gate";

/** What a row is called, and what stands small beside it. */
export const titleOf = (row) => row.title ?? row.name;

/**
 * The rows as a tree in one list: children of one kind fold under a group, everything else stands for itself.
 *
 * @param {object[]} rows in order
 * @param {{q?: string, only?: string, folded: Set<string>}} view only: "active" or "failed"; folded: groups that are closed
 * @returns {{id: string, row: object|null, rows?: object[], depth: number, open?: boolean}[]} a group has rows and no row
 */
export function nodesOf(rows, { q = "", only = "", folded }) {
  const wanted = q.trim().toLowerCase();
  const shown = rows.filter((row) => (!wanted || `${titleOf(row)} ${row.name} ${row.stepID}`.toLowerCase().includes(wanted))
    && (only !== "active" || isActive(row)) && (only !== "failed" || hasFailed(row)));
  const families = new Map();
  for (const row of shown) {
    if (row.kind !== "child") continue;
    if (families.has(row.name)) families.get(row.name).push(row);
    else families.set(row.name, [row]);
  }
  const nodes = [];
  for (const row of shown) {
    const family = row.kind === "child" ? families.get(row.name) : null;
    if (!family || family.length < 2) { nodes.push({ id: row.stepID, row, depth: 1 }); continue; }
    if (family[0] !== row) continue;
    const id = `group:${row.name}`;
    const open = !folded.has(id);
    nodes.push({ id, row: null, name: row.name, rows: family, depth: 1, open });
    if (open) for (const one of family) nodes.push({ id: one.stepID, row: one, depth: 2 });
  }
  return nodes;
}

/** From when until when something lasts; `now` where it has no end. */
export function spanOf(row, now) {
  const to = row.endedAt ?? (isActive(row) ? now : row.startedAt);
  return [row.startedAt, Math.max(to, row.startedAt)];
}

/**
 * The attempts of a row over its time: what lies between two of them is a back-off. None where there was one attempt only.
 * @returns {{from: number, to: number, failed: boolean}[]}
 */
export function triesOf(row, now) {
  const [from, end] = spanOf(row, now);
  const known = (row.attempts ?? []).filter((one) => one.endedAt !== undefined);
  const open = isActive(row);
  if (known.length + open < 2) return [];
  let at = from;
  const tries = known.map((one, i) => {
    const to = Math.min(end, Math.max(at, !open && i === known.length - 1 ? end : one.endedAt));
    const begun = i === 0 ? from : Math.min(to, Math.max(at, one.startedAt));
    at = to;
    return { from: begun, to, failed: one.errCode !== "NONE" };
  });
  return open ? [...tries, { from: at, to: end, failed: false }] : tries;
}

/** The times in which somebody works, put together. @returns {[number, number][]} */
function busyTimes(rows, now) {
  const spans = rows.filter((row) => !isWait(row)).map((row) => spanOf(row, now)).sort(([a], [b]) => a - b);
  const busy = [];
  for (const [from, to] of spans) {
    const last = busy.at(-1);
    if (last && from <= last[1]) last[1] = Math.max(last[1], to);
    else busy.push([from, to]);
  }
  return busy;
}

/**
 * The time axis: pieces of it, each with its times and its places. With `collapse` long waits are drawn short.
 * Places grow with time, and all of them together are 1.
 *
 * @returns {{from: number, to: number, pieces: {from: number, to: number, x0: number, x1: number, idle: boolean}[]}}
 */
export function axisOf(rows, now, collapse) {
  if (!rows.length) return { from: now, to: now + 1, pieces: [{ from: now, to: now + 1, x0: 0, x1: 1, idle: false }] };
  let from = Infinity, to = -Infinity;
  for (const row of rows) {
    const [start, end] = spanOf(row, now);
    from = Math.min(from, row.queuedAt ?? start, start);
    to = Math.max(to, end);
  }
  to = Math.max(to, from + 1);
  const busy = busyTimes(rows, now);
  const work = Math.max(1, busy.reduce((sum, [a, b]) => sum + b - a, 0));
  const least = Math.max(IDLE_MS, work * IDLE_SHARE);
  const cuts = [];
  let at = from;
  for (const [start, end] of [...busy, [to, to]]) {
    const idle = start - at > least;
    if (idle) cuts.push({ from: at, to: start, idle: true });
    const last = cuts.at(-1);
    if (!idle && last && !last.idle) last.to = Math.max(end, last.to);
    else if (!idle || end > start) cuts.push({ from: idle ? start : at, to: end, idle: false });
    at = Math.max(at, end);
  }
  const rest = Math.max(1, cuts.filter((cut) => !cut.idle).reduce((sum, cut) => sum + cut.to - cut.from, 0));
  const weights = cuts.map((cut) => (cut.idle && collapse ? Math.min(cut.to - cut.from, rest * IDLE_WIDTH) : cut.to - cut.from));
  const all = weights.reduce((sum, weight) => sum + weight, 0) || 1;
  let x = 0;
  const pieces = cuts.map((cut, i) => { const x0 = x; x += weights[i] / all; return { ...cut, idle: cut.idle && collapse, x0, x1: x }; });
  if (pieces.length) pieces.at(-1).x1 = 1;
  return { from, to, pieces: pieces.length ? pieces : [{ from, to, x0: 0, x1: 1, idle: false }] };
}

/** The place of a time on an axis. */
export function placeOf(axis, time) {
  if (time <= axis.from) return 0;
  if (time >= axis.to) return 1;
  let low = 0, high = axis.pieces.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (time > axis.pieces[middle].to) low = middle + 1;
    else high = middle;
  }
  const piece = axis.pieces[low];
  return piece.to === piece.from ? piece.x0 : piece.x0 + ((Math.max(time, piece.from) - piece.from) / (piece.to - piece.from)) * (piece.x1 - piece.x0);
}

/** The time at a place of an axis. */
export function timeAt(axis, x) {
  const piece = axis.pieces.find((one) => x <= one.x1) ?? axis.pieces.at(-1);
  const share = piece.x1 === piece.x0 ? 0 : (x - piece.x0) / (piece.x1 - piece.x0);
  return piece.from + Math.min(1, Math.max(0, share)) * (piece.to - piece.from);
}

/** A part of an axis: a function from a time to its place in it. Outside of it places are below 0 or above 1. */
export function viewOf(axis, from, to) {
  const x0 = placeOf(axis, from), x1 = Math.max(placeOf(axis, to), x0 + 1e-9);
  return (time) => (placeOf(axis, time) - x0) / (x1 - x0);
}

const STEPS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 15_000, 30_000, 60_000, 120_000, 300_000, 600_000, 900_000, 1_800_000,
  3_600_000, 7_200_000, 14_400_000, 43_200_000, 86_400_000];

/**
 * The marks of an axis' part: round times after its beginning, at least `apart` (a share of the width) from each other, none in a
 * wait that is drawn short.
 * @returns {{time: number, x: number}[]}
 */
export function ticksOf(axis, from, to, apart) {
  const view = viewOf(axis, from, to);
  const ticks = [];
  let free = -Infinity;
  for (const piece of axis.pieces) {
    if (piece.idle || piece.to <= from || piece.from >= to) continue;
    const share = view(piece.to) - view(piece.from);
    const step = STEPS.find((one) => share * (one / (piece.to - piece.from)) >= apart) ?? STEPS.at(-1);
    const first = axis.from + Math.ceil((Math.max(piece.from, from) - axis.from) / step) * step;
    for (let time = first; time < piece.to && time <= to; time += step) {
      const x = view(time);
      if (x - free >= apart) { ticks.push({ time, x }); free = x; }
    }
  }
  return ticks;
}

/** Things that overlap, in lanes: the lane of each, as few as it takes, up to `most`. @returns {number[]} */
export function lanesOf(spans, most) {
  const ends = [];
  return spans.map(([from, to]) => {
    let lane = ends.findIndex((end) => end <= from);
    if (lane < 0) lane = ends.length < most ? ends.length : ends.indexOf(Math.min(...ends));
    ends[lane] = to;
    return lane;
  });
}

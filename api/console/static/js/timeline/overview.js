/** All of a long run in a strip: drag over it to look at a part of it. */
import { html, useMemo, useRef, useState } from "../lib.js";
import { placeOf, spanOf, stateOf, timeAt } from "./layout.js";
import { Button, look } from "../ui/parts.js";

const BINS = 240;
const HEIGHT = 34;

/** How much goes on at each place, and the worst state there. Pure. */
export function density(rows, axis, now) {
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
export function Overview({ rows, axis, now, window: [from, to], zoomed, onZoom }) {
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

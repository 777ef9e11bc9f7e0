/** Charts drawn by hand: columns over time, bars against a limit, sparklines. Each is an image with a sentence. */
import { cx, html, useEffect, useRef, useState } from "../lib.js";
import { count, hour } from "../state.js";

const PAD = { left: 34, right: 6, top: 8, bottom: 20 };

/** A round number at or above n, for the end of an axis: 1, 2, 5, 10, 20, 50… Pure. */
export function niceMax(n) {
  if (!(n > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(n));
  return [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= n - 1e-9);
}

/** A value for every minute from `from` on, those that nothing is said of are 0. Pure. */
export function everyMinute(points, from, minutes, step = 60_000) {
  const start = from - (from % step);
  const byTime = new Map(points.map((point) => [point.at, point]));
  return Array.from({ length: minutes }, (_, i) => byTime.get(start + i * step) ?? { at: start + i * step });
}

/**
 * Columns over time, one on top of the other.
 * @param {{points: {at: number}[], series: {key: string, label: string, tone: string}[], label: string, height?: number}} props
 *   points: one a column, with a number under each key
 */
export function Columns({ points, series, label, height = 150 }) {
  const [box, width] = useWidth(720);
  const inner = { w: width - PAD.left - PAD.right, h: height - PAD.top - PAD.bottom };
  const total = (point) => series.reduce((sum, one) => sum + (point[one.key] ?? 0), 0);
  const top = niceMax(Math.max(...points.map(total), 1));
  const step = inner.w / points.length;
  const y = (value) => PAD.top + inner.h * (1 - value / top);
  const ticks = top > 1 ? [0, top / 2, top] : [0, top];
  const every = Math.ceil(points.length / 6);
  return html`<figure class="chart-box" ref=${box}>
    <svg class="chart" viewBox=${`0 0 ${width} ${height}`} role="img" aria-label=${label}>
      ${ticks.map((tick) => html`<g key=${tick}><line class="grid" x1=${PAD.left} x2=${width - PAD.right} y1=${y(tick)} y2=${y(tick)} /><text x=${PAD.left - 6} y=${y(tick) + 4} text-anchor="end">${count(tick)}</text></g>`)}
      ${points.map((point, i) => { let from = 0; const x = PAD.left + i * step; return html`<g key=${point.at}><title>${`${hour(point.at)}: ${series.map((one) => `${point[one.key] ?? 0} ${one.label}`).join(", ")}`}</title>
        <rect x=${x} y=${PAD.top} width=${step} height=${inner.h} fill="transparent" />
        ${series.map((one) => { const value = point[one.key] ?? 0; const y1 = y(from + value); const h = y(from) - y1; from += value; return value ? html`<rect key=${one.key} class=${`fill-${one.tone}`} x=${x + step * 0.14} y=${y1} width=${step * 0.72} height=${h} rx="1" />` : null; })}</g>`; })}
      ${points.map((point, i) => (i % every === 0 && PAD.left + i * step < width - 70 ? html`<text key=${point.at} x=${PAD.left + i * step} y=${height - 5}>${hour(point.at).slice(0, 5)}</text>` : null))}
      <text x=${width - PAD.right} y=${height - 5} text-anchor="end">now</text>
    </svg>
    <figcaption><${Legend} series=${series} /></figcaption>
  </figure>`;
}

/** How wide an element is, so that a drawing in it has letters of their own size: [ref, px]. */
function useWidth(initial) {
  const element = useRef(null);
  const [width, set] = useState(initial);
  useEffect(() => {
    const watch = new ResizeObserver(([entry]) => set(Math.max(240, Math.round(entry.contentRect.width))));
    watch.observe(element.current);
    return () => watch.disconnect();
  }, []);
  return [element, width];
}

/** What the colours mean; each has a shape of its own. */
export const Legend = ({ series }) => html`<ul class="legend">${series.map((one) => html`<li key=${one.label}><i class=${cx("swatch", `bg-${one.tone}`, one.hatched && "hatched")}></i>${one.label}</li>`)}</ul>`;

/**
 * A value against the largest one, or against a limit: a bar with the limit as a line.
 * @param {{parts: {value: number, tone: string, label?: string}[], max: number, limit?: number|null, label: string}} props
 */
export function Bar({ parts, max, limit, label }) {
  const end = Math.max(max, limit ?? 0, 1e-9);
  let from = 0;
  return html`<svg class="bar" viewBox="0 0 200 10" role="img" aria-label=${label} preserveAspectRatio="none"><title>${label}</title>
    <rect class="track" x="0" y="1" width="200" height="8" rx="2" />
    ${parts.map((part, i) => { const x = (from / end) * 200; const w = Math.max((part.value / end) * 200, part.value > 0 ? 1.5 : 0); from += part.value; return w ? html`<rect key=${i} class=${`fill-${part.tone}`} x=${Math.min(x, 200 - w)} y="1" width=${Math.min(w, 200)} height="8" rx="2" /> ` : null; })}
    ${limit !== null && limit !== undefined && html`<line class="limit" x1=${(limit / end) * 200 - 0.6} x2=${(limit / end) * 200 - 0.6} y1="-1" y2="11" />`}
  </svg>`;
}

/** A line of the last values, for beside a number. */
export function Spark({ values, label, tone = "accent" }) {
  if (values.length < 2) return null;
  const top = Math.max(...values, 1), step = 100 / (values.length - 1);
  const points = values.map((value, i) => `${(i * step).toFixed(1)},${(22 - (value / top) * 20).toFixed(1)}`);
  return html`<svg class="spark" viewBox="0 0 100 24" role="img" aria-label=${label} preserveAspectRatio="none"><title>${label}</title>
    <polygon class=${`area-${tone}`} points=${`0,24 ${points.join(" ")} 100,24`} /><polyline class=${`line-${tone}`} points=${points.join(" ")} /></svg>`;
}

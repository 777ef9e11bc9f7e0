/** States as a shape and a word, so that nobody needs the colour: Dot, Pill, Tag. */
import { html, cx } from "../lib.js";

/** How each state looks: its tone, its shape, its word. Of runs, steps, gates, workflows, tiles, versions. */
const STATES = {
  ENQUEUED: ["mute", "ring", "Queued"],
  DELAYED: ["mute", "ring", "Delayed"],
  PENDING: ["run", "arc", "Running"],
  RUNNING: ["run", "arc", "Running"],
  WAITING: ["wait", "pause", "Waiting"],
  WAITING_INPUT: ["wait", "pause", "Waiting for a person"],
  SUCCESS: ["ok", "tick", "Succeeded"],
  ERROR: ["bad", "cross", "Failed"],
  MAX_RECOVERY_ATTEMPTS_EXCEEDED: ["bad", "cross", "Gave up"],
  TIMED_OUT: ["bad", "clock", "Timed out"],
  CANCELLED: ["mute", "bar", "Cancelled"],
  RECEIVED: ["run", "tick", "Answered"],
  RESOLVED: ["ok", "tick", "Decided"],
  GO: ["ok", "tick", "GO"],
  NO_GO: ["bad", "cross", "NO-GO"],
  stable: ["ok", "tick", "stable"],
  candidate: ["run", "arc", "candidate"],
  draft: ["mute", "ring", "draft"],
  under_way: ["run", "arc", "Under way"],
  promoted: ["ok", "tick", "Promoted"],
  published: ["ok", "tick", "Published"],
  refused: ["bad", "cross", "Refused"],
  rejected: ["bad", "cross", "Rejected"],
  failed: ["bad", "cross", "Failed"],
  canceled: ["mute", "bar", "Cancelled"],
  NORMAL: ["mute", "ring", "In time"],
  WARNING: ["wait", "clock", "Due soon"],
  CRITICAL: ["bad", "clock", "Overdue"],
};

/** {tone, shape, word} of a state; an unknown one is shown as it is. */
export function look(state) {
  const [tone, shape, word] = STATES[state] ?? ["mute", "ring", String(state ?? "unknown")];
  return { tone, shape, word };
}

const disc = (inside) => html`<circle cx="7" cy="7" r="6.5" fill="currentColor" stroke="none" />${inside}`;
const SHAPES = {
  tick: () => disc(html`<path d="M4.2 7.2 6.2 9.2 9.9 5.2" />`),
  cross: () => disc(html`<path d="M4.9 4.9l4.2 4.2M9.1 4.9 4.9 9.1" />`),
  pause: () => disc(html`<path d="M5.6 4.8v4.4M8.4 4.8v4.4" />`),
  clock: () => disc(html`<path d="M7 3.8V7l2 1.3" />`),
  bar: () => html`<circle cx="7" cy="7" r="5.5" fill="none" stroke="currentColor" /><path d="M4.6 7h4.8" stroke="currentColor" />`,
  ring: () => html`<circle cx="7" cy="7" r="5.5" fill="none" stroke="currentColor" />`,
  arc: () => html`<circle cx="7" cy="7" r="5.5" fill="none" stroke="currentColor" opacity=".3" /><path d="M7 1.5A5.5 5.5 0 0 1 12.5 7" stroke="currentColor" />`,
};

/** The shape alone. `label` for whoever cannot see it, where no word stands beside it. */
export function Dot({ state, label, tone, shape }) {
  const seen = look(state);
  const draw = SHAPES[shape ?? seen.shape];
  return html`<svg class="dot tone-${tone ?? seen.tone}" viewBox="0 0 14 14" fill="none" stroke=${"var(--surface)"} stroke-width="1.6"
    stroke-linecap="round" stroke-linejoin="round" role=${label ? "img" : null} aria-label=${label || null} aria-hidden=${label ? null : "true"}>${draw()}</svg>`;
}

/** Shape and word on a tint: html`<${Pill} state=${run.status} />`. */
export function Pill({ state, word, tone }) {
  const seen = look(state);
  return html`<span class="pill tone-${tone ?? seen.tone}"><${Dot} state=${state} tone=${tone} />${word ?? seen.word}</span>`;
}

/** A small word beside another: html`<${Tag} tone="wait">gate</${Tag}>`. */
export const Tag = ({ tone, title, children }) => html`<span class=${cx("tag", tone && `tone-${tone}`)} title=${title}>${children}</span>`;

/** A number that wants something; `plain` for one that only counts. */
export const Count = ({ n, plain, label }) => (n ? html`<span class=${cx("count", plain && "plain")} aria-label=${label && `${n} ${label}`}>${n > 199 ? "199+" : n}</span>` : null);

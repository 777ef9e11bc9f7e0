/** Parts that every page shows: icons, states, buttons, times, and what loads when it is first wanted. */
import { cx, html, signal } from "../lib.js";
import { clock, duration, iso, mayNot, now, relative } from "../state.js";

// Icons -----------------------------------------------------------------------------------------------
// Line icons on a 16-pixel grid: html`<${Icon} name="fork" />`. They are decoration; the name stands beside them or on the button.

const PATHS = {
  runs: "M2.5 4h7M5.5 8h8M3.5 12h5",
  inbox: "M2.5 9.5 4.3 3.6a.8.8 0 0 1 .8-.6h5.8a.8.8 0 0 1 .8.6l1.8 5.9v2.7a.8.8 0 0 1-.8.8H3.3a.8.8 0 0 1-.8-.8zM2.5 9.5h3l1 1.5h3l1-1.5h3",
  ops: "M2 5h6M12 5h2M2 11h2M8 11h6M10 3v4M6 9v4",
  chart: "M2.5 13.5h11M4.5 11V8M8 11V3.5M11.5 11V6",
  book: "M3.5 3.3c0-.5.4-.8.8-.8h8.2v11H4.3a.8.8 0 0 1-.8-.8zM3.5 12c0-.5.4-.8.8-.8h8.2",
  check: "M3.5 8.5 6.5 11.5 12.5 5",
  seal: "M8 1.8 9.8 3l2.1.1.6 2 1.7 1.3-.7 2 .7 2-1.7 1.3-.6 2-2.1.1L8 15l-1.8-1.2-2.1-.1-.6-2-1.7-1.3.7-2-.7-2 1.7-1.3.6-2L6.2 3zM5.8 8.4l1.6 1.6 2.9-3.2",
  cross: "M4 4l8 8M12 4l-8 8",
  search: "M7 12A5 5 0 1 0 7 2a5 5 0 0 0 0 10zM10.7 10.7 14 14",
  sun: "M8 11a3 3 0 1 0 0-6 3 3 0 0 0 0 6zM8 1.5v1.2M8 13.3v1.2M1.5 8h1.2M13.3 8h1.2M3.4 3.4l.9.9M11.7 11.7l.9.9M3.4 12.6l.9-.9M11.7 4.3l.9-.9",
  moon: "M13.5 9.6A5.8 5.8 0 0 1 6.4 2.5a5.8 5.8 0 1 0 7.1 7.1z",
  keyboard: "M2 4.5h12v7H2zM4.5 7h.01M7 7h.01M9.5 7h.01M12 7h.01M5 9.5h6",
  copy: "M5.5 5.5h7v7h-7zM10.5 5.5v-2h-7v7h2",
  fork: "M4.5 2.5v4a2 2 0 0 0 2 2h3a2 2 0 0 0 2-2v-4M8 8.5v5M3 4l1.5-1.5L6 4M10 4l1.5-1.5L13 4",
  stop: "M4 4h8v8H4z",
  play: "M5 3.5v9l7-4.5z",
  pause: "M5.5 3.5v9M10.5 3.5v9",
  clock: "M8 14A6 6 0 1 0 8 2a6 6 0 0 0 0 12zM8 4.8V8l2.2 1.5",
  shield: "M8 1.8 13 3.6v4.1c0 3.2-2.1 5.3-5 6.5-2.9-1.2-5-3.3-5-6.5V3.6z",
  right: "M6 3.5 10.5 8 6 12.5",
  down: "M3.5 6 8 10.5 12.5 6",
  up: "M3.5 10 8 5.5 12.5 10",
  fold: "M2 8h4M10 8h4M4 6l2 2-2 2M12 6l-2 2 2 2",
  file: "M4 2h5l3 3v9H4zM9 2v3h3",
  link: "M6.5 9.5l3-3M7 4.5l1-1a2.8 2.8 0 0 1 4 4l-1 1M9 11.5l-1 1a2.8 2.8 0 0 1-4-4l1-1",
  download: "M8 2.5v7.5M5 7.2l3 3 3-3M3 13h10",
  upload: "M8 10V2.5M5 5.3l3-3 3 3M3 13h10",
  refresh: "M13 8a5 5 0 1 1-1.5-3.6M13 2.5v2.4h-2.4",
  terminal: "M3 4.5 6.5 8 3 11.5M8 12h5",
  alert: "M8 2.2 14.3 13H1.7zM8 6.4v3M8 11.2h.01",
  info: "M8 14A6 6 0 1 0 8 2a6 6 0 0 0 0 12zM8 7.4v3.4M8 5.2h.01",
  plus: "M8 3.5v9M3.5 8h9",
  user: "M8 8a2.7 2.7 0 1 0 0-5.4A2.7 2.7 0 0 0 8 8zM3 13.6c.5-2.4 2.4-3.8 5-3.8s4.5 1.4 5 3.8",
  star: "M8 2l1.8 3.9 4.2.5-3.1 2.9.8 4.2L8 11.4 4.3 13.5l.8-4.2L2 6.4l4.2-.5z",
};

/** @param {{name: keyof typeof PATHS, small?: boolean, class?: string}} props */
export function Icon({ name, small, class: extra = "" }) {
  return html`<svg class="icon ${small ? "small" : ""} ${extra}" viewBox="0 0 16 16" aria-hidden="true"><path d=${PATHS[name] ?? PATHS.info} /></svg>`;
}

// Status ----------------------------------------------------------------------------------------------
// States as a shape and a word, so that nobody needs the colour: Dot, Pill, Tag.

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
  candidate: ["run", "ring", "candidate"],
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

// Legality --------------------------------------------------------------------------------------------
// Whether an action would be refused. The server decides; this spares a walk.

const ENGINE_STATE = { WAITING_INPUT: "PENDING", WAITING: "PENDING", RUNNING: "PENDING" };
const ALLOWED = { cancel: ["ENQUEUED", "DELAYED", "PENDING"], resume: ["CANCELLED", "ENQUEUED"] };

/**
 * Why cancel, resume, fork, retry or improve would be refused in this state, or null if it is legal. status: of a workflow, or of a run's header.
 * maxStep: how many records there are to fork from, where that is known.
 */
export function illegal(op, status, { maxStep } = {}) {
  const forbidden = mayNot("operate");
  if (forbidden) return forbidden;
  if (op === "retry" || op === "improve") return status === "ERROR" ? null : "Only a run that failed can be tried again or learnt from.";
  if (op === "fork") return maxStep === 0 ? "It has no records yet to fork from." : null;
  if (ALLOWED[op].includes(ENGINE_STATE[status] ?? status)) return null;
  return op === "cancel" ? `It has ended already (${status}).` : `Only a cancelled or queued workflow can be resumed; this one is ${status}.`;
}

// Button ----------------------------------------------------------------------------------------------
// Buttons. One that may not be pressed says why.

/**
 * @param {{kind?: "primary"|"danger"|"quiet"|"soft", small?: boolean, icon?: string, hotkey?: string, onClick?: Function, type?: string,
 *   disabled?: boolean, why?: string, label?: string, pressed?: boolean, busy?: boolean}} props
 *   why: the reason that it is off, shown and spoken; it then can still be focused. label: the name of a button with an icon only.
 */
export function Button({ kind, small, icon, hotkey, onClick, type = "button", disabled, why, label, pressed, busy, buttonRef, children, ...rest }) {
  const off = Boolean(why) || busy;
  return html`<button ref=${buttonRef} type=${type} class=${cx("btn", kind, small && "small", !children && "icon-only")} disabled=${disabled && !why}
    aria-disabled=${off ? "true" : null} aria-pressed=${pressed === undefined ? null : String(pressed)} aria-label=${label} title=${why ?? label}
    aria-busy=${busy ? "true" : null} onClick=${(event) => { if (off) event.preventDefault(); else onClick?.(event); }} ...${rest}>
    ${busy ? html`<${Icon} name="refresh" small class="spin" />` : icon && html`<${Icon} name=${icon} small=${small} />`}${children}${hotkey && html`<kbd aria-hidden="true">${hotkey}</kbd>`}
  </button>`;
}

// Time ------------------------------------------------------------------------------------------------
// Times: how long ago, with the exact time on hover; they tick together.

/** The server's time, once a second while the page is in front. */
export const tick = signal(now());
setInterval(() => { if (!document.hidden) tick.value = now(); }, 1000);
document.addEventListener("visibilitychange", () => { if (!document.hidden) tick.value = now(); });

/** "4m ago" and the exact time. `at`: the exact time in the text, "4m ago" on hover. */
export function Time({ ms, at }) {
  if (ms === null || ms === undefined) return html`<span class="faint">–</span>`;
  const [text, title] = at ? [clock(ms), relative(ms, tick.value)] : [relative(ms, tick.value), `${clock(ms)} · ${iso(ms)}`];
  return html`<time dateTime=${iso(ms)} title=${title}>${text}</time>`;
}

/** Time left until a deadline, or since it passed. */
export function Left({ until }) {
  const ms = until - tick.value;
  return html`<time class="num" dateTime=${iso(until)} title=${clock(until)}>${ms >= 0 ? duration(ms) : `${duration(-ms)} ago`}</time>`;
}

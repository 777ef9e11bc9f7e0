/** What the page knows by itself: how it was served, its address, what this person prefers, and how values are written. */
import { effect, signal } from "./lib.js";

// Json ------------------------------------------------------------------------------------------------
// JSON as it was written: numbers that JavaScript would round keep all of their digits.

const BIG = /\d{16}/;
const TOKEN = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;
const isRounded = (text) => /^-?\d+$/.test(text) && !Number.isSafeInteger(Number(text));

/**
 * The value of a JSON text. An integer beyond 2^53 is an object that is written as the same digits again (JSON.rawJSON); where the
 * browser has none it is text. Raises SyntaxError.
 */
export function parseJson(text) {
  if (!BIG.test(text)) return JSON.parse(text);
  if (!JSON.rawJSON) return JSON.parse(text.replace(TOKEN, (token) => (isRounded(token) ? `"${token}"` : token)));
  return JSON.parse(text, (_, value, { source } = {}) => (typeof value === "number" && isRounded(source) ? JSON.rawJSON(source) : value));
}

/** The digits of such an integer, or undefined for any other value. */
export const digitsOf = (value) => (JSON.isRawJSON?.(value) ? value.rawJSON : undefined);

// Boot ------------------------------------------------------------------------------------------------
// What the server put into the page: who serves it, where it is mounted, the run that it opens.

const text = document.getElementById("boot")?.textContent;

/**
 * @typedef {object} Boot
 * @property {string} base       the path that all addresses stand under, "" at the root
 * @property {number} now        the server's clock when it made the page, epoch ms
 * @property {object} service    appVersion, claimScope, topology, ocMode, sbxMode, sbxProvider
 * @property {number|null} inbox how many gates are open
 * @property {{header: object, steps: object[], total: number, cursor: string, gates: object[]}|null} run
 * @property {string|null} missing what the address names and is not there: "board", "tab" or "run"
 */

/** @type {Boot & {session: {name: string|null, roles: string[], groups: string[], rights: string[]}|null}} session: who asks; null for nobody we know */
export const boot = text ? parseJson(text) : { base: "", now: Date.now(), session: null, service: {}, inbox: null, run: null, missing: null };

/** The server's clock against ours, so that ages are right on a machine whose clock is not. */
const skew = boot.now - Date.now();

/** The time by the server's clock, epoch ms. */
export const now = () => Date.now() + skew;

/** Who is signed in, or null where nobody is asked. Actions and answers are signed with this name, whatever is typed. */
export const signedInAs = boot.session?.name ?? null;

/** Why this person may not do something, or null. right: "answer", "operate" or "administer". The server decides; this spares a walk. */
export function mayNot(right) {
  if (boot.session?.rights.includes(right)) return null;
  return `This needs the right to ${right}; you are ${boot.session ? boot.session.roles.join(" and ") : "not signed in"}.`;
}

// Route -----------------------------------------------------------------------------------------------
// The address is the state: which board, which run, what is filtered.

export const BOARDS = ["run", "hitl-inbox", "ops", "throughput", "recipe", "signoff"];
export const TABS = ["timeline", "gate", "artifacts", "patches", "proof"];

/** Every parameter of the address; `board` is always there, `tab` on a run. */
export const params = signal(read(location.search));

/** The parameters in a query string. */
export function read(search) {
  const found = Object.fromEntries(new URLSearchParams(search));
  return { ...found, board: found.board || "run", ...(found.wid && !found.tab ? { tab: "timeline" } : {}) };
}

/** The address of these parameters. `board=run` and `tab=timeline` go without saying; empty ones are left out. */
export function href(given) {
  const { wid, board = "run", tab, ...rest } = given;
  const query = new URLSearchParams();
  if (wid) query.set("wid", wid);
  if (board !== "run" || tab) query.set("board", board);
  if (tab) query.set("tab", tab);
  for (const [name, value] of Object.entries(rest)) if (value !== undefined && value !== null && value !== "") query.set(name, value);
  const text = query.toString();
  return `${boot.base}/${text ? `?${text}` : ""}`;
}

/** Go somewhere else: `go({ board: "ops" })`. With `replace` the back button does not come here again. */
export function go(given, { replace = false } = {}) {
  const address = href(given);
  if (address === location.pathname + location.search) return;
  history[replace ? "replaceState" : "pushState"](null, "", address);
  params.value = read(location.search);
}

/** Change some parameters and keep the others: `patch({ q: "timeout" })`. Replaces by default, since it is a view of the same thing. */
export function patch(changed, { replace = true } = {}) {
  go({ ...params.value, ...changed }, { replace });
}

/** An onClick for a link that stays in this page; other buttons and keys do what browsers do. */
export function follow(event, given, options) {
  if (event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  go(given, options);
}

/** Properties of a link to these parameters: html`<a ...${to({ board: "ops" })}>`. */
export const to = (given, options) => ({ href: href(given), onClick: (event) => follow(event, given, options) });

addEventListener("popstate", () => { params.value = read(location.search); });

// Prefs -----------------------------------------------------------------------------------------------
// What this person prefers, kept in this browser: theme, time zone, keys, name, collapsed idle time.

function kept(name, initial) {
  const key = `holdfast.${name}`;
  const pref = signal(stored(key) ?? initial);
  let first = true;
  effect(() => {
    const value = pref.value;
    if (first) { first = false; return; }
    try { localStorage.setItem(key, JSON.stringify(value)); } catch { /* private window: it lasts as long as the page */ }
  });
  return pref;
}

function stored(key) {
  try { return JSON.parse(localStorage.getItem(key)); } catch { return null; }
}

/** "light", "dark", or null for what the system says. */
export const theme = kept("theme", null);
/** Whether times are shown in UTC. */
export const utc = kept("utc", false);
/** Whether single keys are shortcuts. */
export const keysOn = kept("keys", true);
/** Whether long waits are drawn short in a timeline. */
export const idle = kept("idle", true);
/** Whom actions and answers name. */
export const actor = kept("actor", "");
/** "unified" or "split". */
export const diffMode = kept("diff", "unified");
/** Runs opened of late, the latest first: [{wid, subject}]. */
export const recent = kept("recent", []);

/** Make a name for preferences of a board's own (a saved view): a signal that lasts. */
export const pref = kept;

effect(() => {
  if (theme.value) document.documentElement.dataset.theme = theme.value;
  else delete document.documentElement.dataset.theme;
});

/** Whether the page is dark now. */
export const isDark = () => (theme.value ? theme.value === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
export const toggleTheme = () => { theme.value = isDark() ? "light" : "dark"; };

// Format ----------------------------------------------------------------------------------------------
// Times, durations, sizes and ids as people read them. Pure, but for the time zone that is chosen.

const SECOND = 1000, MINUTE = 60 * SECOND, HOUR = 60 * MINUTE, DAY = 24 * HOUR;

/** A length of time: 840 ms, 2.7 s, 19 s, 4m 05s, 3h 12m, 2d 4h. Never negative. */
export function duration(ms) {
  if (ms === null || ms === undefined || Number.isNaN(ms)) return "–";
  const t = Math.max(0, ms);
  if (t < SECOND) return `${Math.round(t)} ms`;
  if (t < 9950) return `${(t / SECOND).toFixed(1)} s`;
  const s = Math.round(t / SECOND);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)}m ${String(s % 60).padStart(2, "0")}s`;
  if (t < DAY) return `${Math.floor(t / HOUR)}h ${String(Math.floor((t % HOUR) / MINUTE)).padStart(2, "0")}m`;
  return `${Math.floor(t / DAY)}d ${Math.floor((t % DAY) / HOUR)}h`;
}

/** How long ago, or until when: "4m ago", "in 18m", "just now". */
export function relative(then, now) {
  const ms = now - then;
  if (Math.abs(ms) < 5 * SECOND) return "just now";
  const t = Math.abs(ms);
  const text = t < MINUTE ? `${Math.round(t / SECOND)}s` : t < HOUR ? `${Math.floor(t / MINUTE)}m`
    : t < DAY ? `${Math.floor(t / HOUR)}h` : `${Math.floor(t / DAY)}d`;
  return ms > 0 ? `${text} ago` : `in ${text}`;
}

const formats = new Map();
function formatted(ms, options) {
  const zone = utc.value ? "UTC" : undefined;
  const key = JSON.stringify([options, zone]);
  if (!formats.has(key)) formats.set(key, new Intl.DateTimeFormat("en-GB", { ...options, timeZone: zone }));
  return formats.get(key).format(ms);
}

/** 20 Nov, 09:35:54 in the time zone that is chosen. */
export const clock = (ms) => formatted(ms, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit" });
/** 09:35:54 */
export const hour = (ms) => formatted(ms, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
/** 2026-11-20T09:35:54.120Z */
export const iso = (ms) => new Date(ms).toISOString();

/** 1.2 KB; of 1000 bytes. */
export function bytes(n) {
  if (n < 1000) return `${n} B`;
  for (const unit of ["KB", "MB", "GB"]) { n /= 1000; if (n < 999.5) return `${n < 10 ? n.toFixed(1) : Math.round(n)} ${unit}`; }
  return `${Math.round(n)} TB`;
}

/** 12,480 */
export const count = (n) => new Intl.NumberFormat("en-US").format(n);
/** "1 step", "2 steps", "1 patch", "2 patches" */
export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

/** An id or hash, its ends: ih_4f2a…91c3. */
export function short(id, head = 8, tail = 4) {
  if (!id || id.length <= head + tail + 2) return id ?? "";
  return `${id.slice(0, head)}${tail ? `…${id.slice(-tail)}` : ""}`;
}

/** A title for a code word: "waiting_input" is "Waiting input". */
export const words = (text) => (text ? (text[0].toUpperCase() + text.slice(1)).replace(/[_-]+/g, " ") : "");

/** Times, durations, sizes and ids as people read them. Pure, but for the time zone that is chosen. */
import { utc } from "./prefs.js";

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

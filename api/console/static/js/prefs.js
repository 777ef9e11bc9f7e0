/** What this person prefers, kept in this browser: theme, time zone, keys, name, collapsed idle time. */
import { signal, effect } from "./lib.js";

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

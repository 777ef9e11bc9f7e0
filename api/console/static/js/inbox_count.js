/** How many gates are open in all runs; the navigation and the tab's title show it. */
import { signal, effect } from "./lib.js";
import { api } from "./api.js";
import { boot } from "./boot.js";
import { paused, visible } from "./live.js";

const EVERY_MS = 10_000;

/** @type {import("../vendor/signals.js").Signal<number|null>} */
export const inboxCount = signal(boot.inbox);

/** Read it now, for whoever knows that it changed. */
export async function recount() {
  try { inboxCount.value = (await api.get("/api/hitl/inbox?limit=200")).length; } catch { /* the board says what is wrong */ }
}

effect(() => {
  if (!boot.session || !visible.value || paused.value) return undefined;
  const timer = setInterval(recount, EVERY_MS);
  return () => clearInterval(timer);
});

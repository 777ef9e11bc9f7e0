/**
 * How the page stays current, and what it says about that: Live (events), Reconnecting, Polling, Paused, Final.
 *
 * A run is followed by one event stream from the cursor that its page was made with. The browser comes back with the last event's id, so
 * nothing is missed; after three failures in a row the page polls, and tries the stream again later.
 */
import { signal, effect, untracked } from "./lib.js";
import { api, path, url } from "./api.js";

const BATCH_MS = 16; // a timer, since animation frames stop in hidden tabs
const FAILURES = 3;
const POLL_MS = 3000;
const TRY_AGAIN_MS = 15_000;
const OPEN_MS = 6000; // a proxy that holds events back looks like no answer

/** What the indicator shows: "live", "reconnecting", "polling", "paused", "final", or "idle". */
export const conn = signal("idle");
/** Whether this person paused updates. */
export const paused = signal(false);
/** Whether the tab is in front. */
export const visible = signal(!document.hidden);
document.addEventListener("visibilitychange", () => { visible.value = !document.hidden; });

const wanted = () => visible.value && !paused.value;

/** Call `read` every so often (±10 %) while the page is in front and not paused, and at once when it comes back. Returns how to stop. */
export function polling(every, read) {
  let timer, behind = false;
  const next = () => { timer = setTimeout(async () => { await read(); if (timer !== null) next(); }, every * (0.9 + Math.random() * 0.2)); };
  const stop = effect(() => {
    clearTimeout(timer);
    timer = null;
    if (!wanted()) { behind = true; if (paused.value) conn.value = "paused"; return; }
    conn.value = "polling";
    if (behind) untracked(read);
    behind = false;
    next();
  });
  return () => { stop(); clearTimeout(timer); timer = null; conn.value = "idle"; };
}

/**
 * Follow a run. `apply` takes a batch of [event name, data]; `reread` brings the whole run up to date when there are no events.
 * Returns how to stop.
 *
 * @param {string} wid
 * @param {string|null} cursor where the page stands
 * @param {{apply: (batch: [string, any][]) => void, reread: () => Promise<boolean>}} run reread: whether the run has ended
 */
export function follow(wid, cursor, { apply, reread }) {
  let source = null, failures = 0, timer = null, flushing = null, over = false;
  let batch = [];
  const flush = () => { flushing = null; const taken = batch; batch = []; apply(taken); };
  const put = (name) => (event) => {
    if (event.lastEventId) cursor = event.lastEventId;
    batch.push([name, JSON.parse(event.data)]);
    flushing ??= setTimeout(flush, BATCH_MS);
    if (name === "end") finish();
  };
  const close = () => { source?.close(); source = null; clearTimeout(timer); timer = null; };
  const finish = () => { over = true; close(); conn.value = "final"; };
  const failed = () => {
    failures += 1;
    if (failures < FAILURES) {
      conn.value = "reconnecting";
      if (!source || source.readyState === EventSource.CLOSED) { close(); timer = setTimeout(open, 1000 * failures); }
      return;
    }
    close();
    poll(Date.now() + TRY_AGAIN_MS);
  };
  const open = () => {
    close();
    source = new EventSource(url(path`/api/runs/${wid}/stream`) + (cursor ? `?after=${encodeURIComponent(cursor)}` : ""));
    timer = setTimeout(failed, OPEN_MS);
    source.onopen = () => { clearTimeout(timer); failures = 0; conn.value = "live"; };
    source.onerror = failed;
    for (const name of ["run", "step", "gate", "patch", "reset", "end"]) source.addEventListener(name, put(name));
  };
  const poll = async (until) => {
    conn.value = await reread().then((ended) => { if (ended) finish(); return ended ? "final" : "polling"; }, () => "reconnecting");
    if (!over && wanted()) timer = setTimeout(() => (Date.now() < until ? poll(until) : open()), POLL_MS);
  };
  const stop = effect(() => {
    if (wanted()) { if (!over && !source) untracked(open); return; }
    close();
    if (!over) conn.value = "paused";
  });
  return () => { stop(); over = true; close(); clearTimeout(flushing); conn.value = "idle"; };
}

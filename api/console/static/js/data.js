/** What the page asks of the service, and how it stays current. */
import { computed, effect, signal, untracked, useEffect, useRef, useState } from "./lib.js";
import { boot, parseJson } from "./state.js";

// Api -------------------------------------------------------------------------------------------------
// The service's HTTP surface. A refusal is an ApiError that says all that the answer said.

/** A refusal, or no answer at all (status 0). */
export class ApiError extends Error {
  constructor(status, body, path) {
    super(body.error || `the service answered ${status} without a reason`);
    this.name = "ApiError";
    this.status = status;
    this.path = path;
    /** @type {string|undefined} */ this.code = body.code;
    /** @type {{field: string, existing: any, incoming: any}[]|undefined} */ this.drift = body.drift;
    /** @type {{instancePath: string, message: string}[]|undefined} */ this.details = body.details;
    /** @type {string|undefined} */ this.runStatus = body.status;
  }

  /** What kind of refusal this is, in words. */
  get kind() {
    return { 0: "No answer", 400: "Malformed", 401: "Not signed in", 403: "Not allowed", 404: "Not there", 409: "Conflict", 410: "Switched off" }[this.status] ?? "Unexpected";
  }
}

/** The full address of a path of the service. */
export const url = (path) => boot.base + path;

async function ask(method, path, { body, signal } = {}) {
  let response;
  try {
    response = await fetch(url(path), {
      method,
      signal,
      headers: body === undefined ? { accept: "application/json" } : { accept: "application/json", "content-type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, { error: "the service did not answer; it may be restarting" }, path);
  }
  const text = await response.text();
  let value;
  try {
    value = text ? parseJson(text) : null;
  } catch {
    throw new ApiError(response.status, { error: `the answer of ${path} is not JSON` }, path);
  }
  if (!response.ok) throw new ApiError(response.status, value ?? {}, path);
  return { value, status: response.status, cursor: response.headers.get("x-cursor") };
}

export const api = {
  /** The JSON at this path. Raises ApiError. */
  get: async (path, options) => (await ask("GET", path, options)).value,
  /** The same with where the next page begins: {value, cursor}; cursor is null on the last one. */
  page: (path, options) => ask("GET", path, options),
  /** The answer to this body, as JSON. Raises ApiError. */
  post: async (path, body, options) => (await ask("POST", path, { ...options, body: body ?? {} })).value,
  /** The same with the status: {value, status}; 201 and 200 tell a fresh run from a replay. */
  posted: (path, body, options) => ask("POST", path, { ...options, body: body ?? {} }),
  /** Text as it is, for previews. Raises ApiError. */
  text: async (path, options) => {
    const response = await fetch(url(path), options).catch(() => null);
    if (!response) throw new ApiError(0, { error: "the service did not answer" }, path);
    if (!response.ok) throw new ApiError(response.status, await response.json().catch(() => ({})), path);
    return { text: await response.text(), type: response.headers.get("content-type") ?? "" };
  },
  url,
};

/** A path with its parts encoded: path`/api/runs/${wid}/gates/${key}`. */
export const path = (parts, ...values) => parts.reduce((all, part, i) => all + encodeURIComponent(values[i - 1]) + part);

// Live ------------------------------------------------------------------------------------------------
// How the page stays current, and what it says about that: Live (events), Reconnecting, Polling, Paused, Final.  A run is followed by one event stream from the cursor that its page was made with. The browser comes back with the last event's id, so nothing is missed; after three failures in a row the page polls, and tries the stream again later.

const BATCH_MS = 16; // a timer, since animation frames stop in hidden tabs; what comes after a silence is shown at once
const FAILURES = 3;
const POLL_MS = 3000, HINTED = 6; // how much more seldom a board is read without a hint while hints come
const TRY_AGAIN_MS = 15_000;
const OPEN_MS = 6000; // a proxy that holds events back looks like no answer

/** What the indicator shows: "live", "reconnecting", "polling", "paused", "final", or "idle". */
export const conn = signal("idle");
/** Whether this person paused updates. */
export const paused = signal(false);
/** Whether the tab is in front. */
export const visible = signal(!document.hidden);
document.addEventListener("visibilitychange", () => { visible.value = !document.hidden; });

const wanted = computed(() => visible.value && !paused.value);

/** Whether a run is followed; it then has the only stream, and says what the indicator shows. */
const following = signal(false);
/** How many parts of the page are kept fresh, how many hints have come, and whether they come; where the database stood at the last. */
const kept = signal(0), isKept = computed(() => kept.value > 0), hints = signal(0), hinted = signal(false);
let lastHint = null;

/**
 * Call `read` after every hint that something changed, and every so often (±10 %) while none come. Not while the page is in the
 * background or paused; at once when it comes back. Returns how to stop.
 */
export function polling(every, read) {
  let timer, behind = false, reading = false, told = hints.peek();
  const look = async () => {
    if (reading) { behind = true; return; }
    reading = true;
    do { behind = false; await read(); } while (behind && wanted.peek());
    reading = false;
  };
  const next = () => { timer = setTimeout(async () => { await look(); if (timer !== null) next(); }, every * (hinted.peek() ? HINTED : 1) * (0.9 + Math.random() * 0.2)); };
  kept.value += 1;
  const stop = effect(() => {
    clearTimeout(timer);
    timer = null;
    if (!wanted.value) { behind = true; return; }
    if (behind || told !== hints.value) untracked(look);
    told = hints.value;
    hinted.value;
    next();
  });
  return () => { stop(); clearTimeout(timer); timer = null; setTimeout(() => { kept.value -= 1; }); }; // the next part may be here by then
}

effect(() => { // one stream of hints for all boards, which says what the indicator shows
  if (!isKept.value || following.value) return undefined;
  if (!wanted.value) { conn.value = "paused"; return undefined; }
  let failures = 0, timer;
  const source = new EventSource(url("/api/ops/stream") + (lastHint ? `?after=${lastHint}` : ""));
  const say = (word) => { hinted.value = word === "live"; conn.value = word; };
  timer = setTimeout(() => say("polling"), OPEN_MS);
  conn.value = "polling";
  source.onopen = () => { clearTimeout(timer); failures = 0; say("live"); };
  source.onerror = () => { failures += 1; say(failures < FAILURES ? "reconnecting" : "polling"); };
  const heard = ({ lastEventId }) => { const missed = lastHint && lastHint !== lastEventId; lastHint = lastEventId; if (missed) hints.value = hints.peek() + 1; };
  source.addEventListener("here", heard);
  source.addEventListener("changed", heard);
  return () => { clearTimeout(timer); source.close(); hinted.value = false; conn.value = "idle"; };
});

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
  let batch = [], flushed = 0;
  const flush = () => { flushing = null; flushed = performance.now(); const taken = batch; batch = []; apply(taken); };
  const put = (name) => (event) => {
    if (event.lastEventId) cursor = event.lastEventId;
    batch.push([name, parseJson(event.data)]);
    flushing ??= setTimeout(flush, performance.now() - flushed > BATCH_MS ? 0 : BATCH_MS);
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
    if (!over && wanted.value) timer = setTimeout(() => (Date.now() < until ? poll(until) : open()), POLL_MS);
  };
  const stop = effect(() => {
    if (wanted.value) { if (!over && !source) untracked(open); return; }
    close();
    if (!over) conn.value = "paused";
  });
  following.value = true;
  return () => { stop(); over = true; close(); clearTimeout(flushing); conn.value = "idle"; following.value = false; };
}

// Resource --------------------------------------------------------------------------------------------
// What a path answers, kept fresh: the data of a board.

/**
 * The JSON at a path, read again every so often while the page is visible and live updates are not paused.
 * `data` is never that of another path; `error` stands beside the last data while reading fails.
 *
 * @param {string|null} path null reads nothing
 * @param {{every?: number}} options every: ms between two reads (±10 %); 0 for once
 * @returns {{data: any, error: Error|null, loading: boolean, at: number|null, refresh: () => Promise<void>}}
 */
export function useResource(path, { every = 0 } = {}) {
  const [state, set] = useState({ path, data: undefined, error: null, at: null });
  const current = useRef(path);
  current.current = path;
  const read = async (signal) => {
    try {
      const data = await api.get(path, { signal });
      if (current.current === path) set({ path, data, error: null, at: Date.now() });
    } catch (error) {
      if (error.name === "AbortError" || current.current !== path) return;
      set((old) => ({ ...(old.path === path ? old : { path, data: undefined, at: null }), error }));
    }
  };
  useEffect(() => {
    if (!path) return undefined;
    const abort = new AbortController();
    read(abort.signal);
    const stop = every ? polling(every, () => read(abort.signal)) : () => {};
    return () => { abort.abort(); stop(); };
  }, [path, every]);
  const mine = state.path === path ? state : { data: undefined, error: null, at: null };
  return { data: mine.data, error: mine.error, at: mine.at, loading: Boolean(path) && mine.data === undefined && !mine.error, refresh: () => (path ? read() : Promise.resolve()) };
}

// Pages -----------------------------------------------------------------------------------------------
// A list that is read in pages, kept fresh in place.

const LIST_MS = 5000;
const PAGE = 50;

/** A path with the query behind it. */
export const withQuery = (path, query) => {
  const text = new URLSearchParams(query).toString();
  return text ? `${path}?${text}` : path;
};

/**
 * What is shown after the newest page was read again: known rows in their places with what is so now, those that the filter no longer
 * finds marked `gone`, and apart from them the rows that are new. Pure.
 */
export function refreshed(shown, fresh, isWhole, keyOf = (row) => row.workflowID) {
  const byKey = new Map(fresh.map((row) => [keyOf(row), row]));
  const known = new Set(shown.map(keyOf));
  const oldest = isWhole ? -Infinity : fresh.at(-1)?.createdAt ?? -Infinity;
  const rows = shown.map((row) => byKey.get(keyOf(row)) ?? (row.createdAt > oldest ? { ...row, gone: true } : row));
  return { rows, fresh: fresh.filter((row) => !known.has(keyOf(row))) };
}

/**
 * A list that comes in pages, kept fresh without moving what is being read.
 * @returns {{rows, waiting, cursor, busy, loading, error, at, showWaiting, loadMore, refresh, reread}} waiting: new rows that are held
 *   back; refresh: from the beginning; reread: in place
 */
export function usePages(address, query = {}, keyOf = (row) => row.workflowID) {
  const key = JSON.stringify(query);
  const [state, set] = useState(initial(key));
  const current = useRef(key);
  current.current = key;
  const update = (change) => set((old) => { const mine = old.key === key ? old : initial(key); return current.current === key ? { ...mine, ...change(mine) } : old; });
  const page = (cursor, signal) => api.page(withQuery(address, { ...query, limit: PAGE, ...(cursor ? { cursor } : {}) }), { signal });
  const read = async (signal) => {
    try {
      const { value, cursor } = await page(null, signal);
      update((old) => {
        if (!old.rows) return { rows: value, cursor, error: null, at: Date.now() };
        const next = refreshed(old.rows, value, !cursor, keyOf);
        return { rows: next.rows, waiting: next.fresh, error: null, at: Date.now() };
      });
    } catch (error) {
      if (error.name !== "AbortError") update(() => ({ error }));
    }
  };
  useEffect(() => {
    const abort = new AbortController();
    read(abort.signal);
    const stop = polling(LIST_MS, () => read(abort.signal));
    return () => { abort.abort(); stop(); };
  }, [key]);
  const mine = state.key === key ? state : initial(key);
  return {
    ...mine,
    loading: !mine.rows && !mine.error,
    showWaiting: () => update((old) => ({ rows: [...old.waiting, ...old.rows.filter((row) => !row.gone)], waiting: [] })),
    loadMore: async () => {
      update(() => ({ busy: true }));
      try {
        const { value, cursor } = await page(mine.cursor);
        update((old) => ({ rows: [...old.rows, ...refreshed(old.rows, value, true, keyOf).fresh], cursor, busy: false }));
      } catch (error) { update(() => ({ error, busy: false })); }
    },
    refresh: () => { set(initial(key)); return read(); },
    reread: () => read(),
  };
}

const initial = (key) => ({ key, rows: null, waiting: [], cursor: null, error: null, at: null, busy: false });

/** The workflows that a filter finds, in pages, kept fresh without moving what is being read. */
import { useEffect, useRef, useState } from "../lib.js";
import { api } from "../api.js";
import { polling } from "../live.js";
import { withQuery } from "./filter.js";

const EVERY_MS = 5000;
const PAGE = 50;

/**
 * What is shown after the newest page was read again: known rows in their places with what is so now, those that the filter no longer
 * finds marked `gone`, and apart from them the rows that are new. Pure.
 */
export function refreshed(shown, fresh, isWhole) {
  const byId = new Map(fresh.map((row) => [row.workflowID, row]));
  const known = new Set(shown.map((row) => row.workflowID));
  const oldest = isWhole ? -Infinity : fresh.at(-1)?.createdAt ?? -Infinity;
  const rows = shown.map((row) => byId.get(row.workflowID) ?? (row.createdAt > oldest ? { ...row, gone: true } : row));
  return { rows, fresh: fresh.filter((row) => !known.has(row.workflowID)) };
}

/** @returns {{rows, waiting, more, loading, error, at, showWaiting, loadMore, refresh}} waiting: new rows that are held back */
export function useWorkflows(query) {
  const key = JSON.stringify(query);
  const [state, set] = useState(initial(key));
  const current = useRef(key);
  current.current = key;
  const update = (change) => set((old) => (current.current === key ? { ...(old.key === key ? old : initial(key)), ...change(old.key === key ? old : initial(key)) } : old));
  const page = (cursor, signal) => api.page(withQuery("/api/ops/wf", { ...query, limit: PAGE, ...(cursor ? { cursor } : {}) }), { signal });
  const read = async (signal) => {
    try {
      const { value, cursor } = await page(null, signal);
      update((old) => {
        if (!old.rows) return { rows: value, cursor, error: null, at: Date.now() };
        const next = refreshed(old.rows, value, !cursor);
        return { rows: next.rows, waiting: next.fresh, error: null, at: Date.now() };
      });
    } catch (error) {
      if (error.name !== "AbortError") update(() => ({ error }));
    }
  };
  useEffect(() => {
    const abort = new AbortController();
    read(abort.signal);
    const stop = polling(EVERY_MS, () => read(abort.signal));
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
        update((old) => ({ rows: [...old.rows, ...value.filter((row) => !old.rows.some((other) => other.workflowID === row.workflowID))], cursor, busy: false }));
      } catch (error) { update(() => ({ error, busy: false })); }
    },
    refresh: () => { set(initial(key)); return read(); },
  };
}

const initial = (key) => ({ key, rows: null, waiting: [], cursor: null, error: null, at: null, busy: false });

/** The ids and states of all workflows that the filter finds, up to `most`: {rows, isAll}. */
export async function allMatching(query, most = 1000) {
  const rows = [];
  let cursor = null;
  do {
    const answer = await api.page(withQuery("/api/ops/wf", { ...query, limit: 200, ...(cursor ? { cursor } : {}) }));
    rows.push(...answer.value);
    cursor = answer.cursor;
  } while (cursor && rows.length < most);
  return { rows: rows.slice(0, most), isAll: !cursor && rows.length <= most };
}

/** What a path answers, kept fresh: the data of a board. */
import { useEffect, useRef, useState } from "./lib.js";
import { api } from "./api.js";
import { polling } from "./live.js";

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

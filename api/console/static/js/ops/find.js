/** Which workflows: what a filter says, the list that it finds, kept fresh, and the views that are kept. */
import { useEffect, useRef, useState, html } from "../lib.js";
import { api, polling } from "../data.js";
import { pref, to } from "../state.js";
import { Dialog } from "../ui/dialogs.js";
import { TextField } from "../ui/fields.js";
import { Button } from "../ui/parts.js";

// What the filter of the ops board says: `status:ERROR queue:intentQ name:RunIntent after:2h ih_4f2a`. Pure.

export const STATUSES = ["ENQUEUED", "DELAYED", "PENDING", "SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"];
export const KEYS = ["status", "queue", "name", "id", "after", "before"];

const UNITS = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** Epoch milliseconds of "2h" (so long ago), of an ISO date or time (without a zone: UTC), or of such a number; null for none of these. */
export function momentOf(text, now) {
  const ago = /^(\d+)([smhd])$/.exec(text);
  if (ago) return now - Number(ago[1]) * UNITS[ago[2]];
  if (/^\d{12,14}$/.test(text)) return Number(text);
  if (!/^\d{4}-\d\d-\d\d/.test(text)) return null;
  const at = Date.parse(/^\d{4}-\d\d-\d\d$/.test(text) ? `${text}T00:00:00Z` : /(Z|[+-]\d\d:?\d\d)$/.test(text) ? text : `${text}Z`);
  return Number.isNaN(at) ? null : at;
}

/** The tokens of a filter, in order: [{key, value}]; a bare word is the beginning of an id. Values with blanks stand in quotes. */
export function tokensOf(text) {
  return [...text.matchAll(/(?:(\w+):)?(?:"([^"]*)"|(\S+))/g)].map(([whole, key, quoted, plain]) => {
    const value = quoted ?? plain;
    return key && KEYS.includes(key.toLowerCase()) ? { key: key.toLowerCase(), value } : { key: "id", value: key ? whole : value };
  }).filter(({ value }) => value !== "");
}

/** A filter's text again. */
export const textOf = (tokens) => tokens.map(({ key, value }) => {
  if (/\s/.test(value)) return `${key}:"${value}"`;
  return key === "id" && tokensOf(value)[0]?.key === "id" ? value : `${key}:${value}`;
}).join(" ");

/** The filter with another value for a key; null takes it away. */
export function withToken(text, key, value) {
  const others = tokensOf(text).filter((token) => token.key !== key);
  return textOf(value === null ? others : [...others, { key, value }]);
}

/**
 * The query of the list for a filter. problems: what was not understood, in words; the list is then not asked for it.
 * @returns {{query: Record<string, string>, problems: string[]}}
 */
export function queryOf(text, now) {
  const query = {}, problems = [];
  for (const { key, value } of tokensOf(text)) {
    if (key === "status") {
      const status = STATUSES.find((one) => one === value.toUpperCase());
      if (status) query.status = status;
      else problems.push(`no workflow has the status ${value}`);
    } else if (key === "queue") query.queueName = value;
    else if (key === "after" || key === "before") {
      const at = momentOf(value, now);
      if (at === null) problems.push(`${key}:${value} is no time; write 2h, 3d or 2026-11-21`);
      else query[key] = String(at);
    } else query[key] = value;
  }
  return { query, problems };
}

/** A path with the query behind it. */
export const withQuery = (path, query) => {
  const text = new URLSearchParams(query).toString();
  return text ? `${path}?${text}` : path;
};

// The workflows that a filter finds, in pages, kept fresh without moving what is being read.

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

/** @returns {{rows, waiting, more, loading, error, at, showWaiting, loadMore, refresh, reread}} refresh: from the beginning; reread: in place; waiting: new rows that are held back */
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
    reread: () => read(),
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

// Views of the list: the filter of each is its address, so a link to one is a link; those that a person saved stay in this browser.

const GIVEN = [
  { name: "Everything", q: "" },
  { name: "Runs", q: "name:RunIntent" },
  { name: "Failed today", q: "status:ERROR after:24h" },
  { name: "Queued", q: "status:ENQUEUED" },
];
const MOST = 20;

/** @type {import("../../vendor/signals.js").Signal<{name: string, q: string}[]>} */
const saved = pref("ops.views", []);

const same = (a, b) => textOf(tokensOf(a)) === textOf(tokensOf(b));

export function Views({ q }) {
  const [naming, setNaming] = useState(false);
  const known = [...GIVEN, ...saved.value].some((view) => same(view.q, q));
  return html`<nav class="views row wide" aria-label="Views">${[...GIVEN, ...saved.value].map((view, i) => html`<span class="view" key=${view.name}><a ...${to({ board: "ops", q: view.q }, { replace: true })} aria-current=${same(view.q, q) ? "true" : null}>${view.name}</a>
      ${i >= GIVEN.length && html`<button type="button" class="copy" aria-label=${`Forget the view ${view.name}`} title="Forget this view" onClick=${() => { saved.value = saved.value.filter((other) => other !== view); }}>×</button>`}</span>`)}
    ${!known && q && html`<${Button} small kind="soft" icon="star" why=${saved.value.length >= MOST ? `There are ${MOST} saved views already; forget one.` : undefined} onClick=${() => setNaming(true)}>Save view…</${Button}>`}
    ${naming && html`<${NameDialog} q=${q} onClose=${() => setNaming(false)} />`}</nav>`;
}

function NameDialog({ q, onClose }) {
  const [name, setName] = useState("");
  const [tried, setTried] = useState(false);
  const taken = [...GIVEN, ...saved.value].some((view) => view.name === name.trim());
  const error = !name.trim() ? "Give it a name." : taken ? "There is a view of this name." : null;
  const save = (event) => {
    event?.preventDefault();
    setTried(true);
    if (error) return;
    saved.value = [...saved.value, { name: name.trim(), q }];
    onClose();
  };
  return html`<${Dialog} title="Save this view" onClose=${onClose} footer=${html`<${Button} onClick=${onClose}>Do not save</${Button}><${Button} kind="primary" onClick=${save}>Save</${Button}>`}>
    <p class="dim">Kept in this browser. To show it to somebody, send them the address of this page.</p><p class="mono small wrap">${q}</p>
    <form class="form" onSubmit=${save}><${TextField} label="Name" value=${name} onInput=${setName} maxlength="40" error=${tried ? error : null} /></form></${Dialog}>`;
}

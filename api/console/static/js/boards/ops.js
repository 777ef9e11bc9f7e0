/** The ops board: workflows of any kind, what may be done to them and what was done, queues and workers. */
import { html, useEffect, useRef, useState, useMemo } from "../lib.js";
import { api, usePages, useResource, withQuery } from "../data.js";
import { pref, to, count, go, now, patch, plural, short } from "../state.js";
import { Dialog } from "../ui/dialogs.js";
import { TextField } from "../ui/fields.js";
import { Button, Dot, Icon, look, Pill, Tag, Time } from "../ui/parts.js";
import { boardCommands, useKeys, useTitle } from "../frame.js";
import { Queues } from "../ops/queues.js";
import { Audit, BulkDialog, Detail } from "../ops/workflows.js";
import { Table } from "../ui/content.js";
import { Empty, ErrorBox, Loading, TabPanel, Tabs, toast } from "../ui/feedback.js";

// Which workflows: what a filter says, the list that it finds, kept fresh, and the views that are kept.

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


// The workflows that a filter finds, in pages, kept fresh without moving what is being read.


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

// The ops board: workflows of any kind, what may be done to them and what was done, queues and workers.

const TABS = [["workflows", "Workflows"], ["queues", "Queues and workers"], ["audit", "Audit"]];

export function Board({ params }) {
  useTitle("Ops");
  const tab = TABS.some(([id]) => id === params.tab) ? params.tab : "workflows";
  useEffect(() => {
    boardCommands.value = [...TABS.map(([id, label]) => ({ label, icon: "ops", hint: "ops", run: () => go({ board: "ops", tab: id }) })),
      { label: "Workflows that failed today", icon: "ops", hint: "ops", run: () => go({ board: "ops", q: "status:ERROR after:24h" }) }];
    return () => { boardCommands.value = []; };
  }, []);
  return html`<div class="board ops"><div class="board-head"><div class="board-title"><h1>Ops</h1></div></div>
    <${Tabs} label="Ops" value=${tab} tabs=${TABS.map(([id, label]) => ({ id, label, to: { board: "ops", tab: id === "workflows" ? undefined : id, q: params.q } }))} />
    <${TabPanel} id=${tab} class="board-body">${tab === "queues" ? html`<${Queues} params=${params} />` : tab === "audit" ? html`<${Audit} />` : html`<${Workflows} params=${params} />`}</${TabPanel}></div>`;
}

/** The time that "2h" counts from, the same until the filter changes. */
const useNow = (q) => useMemo(() => now(), [q]);

function Workflows({ params }) {
  const q = params.q ?? "";
  const at = params.at ?? params.wid ?? null;
  const { query, problems } = queryOf(q, useNow(q));
  const list = usePages("/api/ops/wf", query);
  const { status: _, ...others } = query;
  const counts = useResource(withQuery("/api/ops/counts", others), { every: 10_000 });
  const [selected, setSelected] = useState(() => new Map());
  const [bulk, setBulk] = useState(null);
  useEffect(() => setSelected(new Map()), [q]);
  const rows = list.rows ?? [];
  const open = (id) => patch({ at: id, wid: null, tab: null });
  useKeys({ j: () => move(1), k: () => move(-1), ArrowDown: () => move(1), ArrowUp: () => move(-1), x: () => at && toggle(at), Escape: () => open(null) });
  const move = (step) => { const here = rows.findIndex((row) => row.workflowID === at); const next = rows[Math.min(rows.length - 1, Math.max(0, here + step))]; if (next) open(next.workflowID); };
  const toggle = (id) => setSelected((old) => { const next = new Map(old); if (!next.delete(id)) next.set(id, rows.find((row) => row.workflowID === id)); return next; });
  const select = (keys) => setSelected(new Map([...keys].map((key) => [key, rows.find((row) => row.workflowID === key) ?? selected.get(key)]).filter(([, row]) => row)));
  return html`<div class="stack"><${Filter} q=${q} problems=${problems} /><${Views} q=${q} /><${Counts} q=${q} counts=${counts.data} chosen=${query.status} />
    ${selected.size > 0 && html`<${BulkBar} selected=${selected} query=${query} onAct=${setBulk} onSelect=${(all) => setSelected(new Map(all.map((row) => [row.workflowID, row])))} />`}
    <div class=${at ? "split" : null}><div class="stack tight">
      ${list.error && html`<${ErrorBox} error=${list.error} onRetry=${list.refresh} />`}
      ${list.loading && html`<${Loading} rows=${8} />`}
      ${list.waiting.length > 0 && html`<button type="button" class="newer" onClick=${list.showWaiting}>Show ${plural(list.waiting.length, "newer workflow")}</button>`}
      ${list.rows && html`<${Table} caption="Workflows, the newest first" rows=${rows} rowKey=${(row) => row.workflowID} columns=${COLUMNS(open)} selected=${new Set(selected.keys())} onSelect=${select} on=${at} onRow=${(row) => open(row.workflowID)}
        empty=${html`<${Empty} icon="search" title=${q ? "No workflow matches" : "There are no workflows yet"}><p>${q ? "Take a word out of the filter, or look further back." : "Start a run, and it will be here with everything that it starts."}</p></${Empty}>`} />`}
      ${list.cursor && html`<div class="row"><${Button} busy=${list.busy} onClick=${list.loadMore}>Older ones</${Button}><span class="dim small">${plural(rows.length, "workflow")} shown</span></div>`}
    </div>${at ? html`<${Detail} key=${at} wid=${at} onClose=${() => open(null)} onActed=${() => { list.reread(); counts.refresh(); }} />` : null}</div>
    ${bulk && html`<${BulkDialog} ...${bulk} onClose=${() => setBulk(null)} onDone=${() => { setSelected(new Map()); list.reread(); counts.refresh(); }} />`}</div>`;
}

const COLUMNS = (open) => [
  { id: "what", label: "Workflow", cell: (row) => html`<div class=${row.gone ? "what gone" : "what"}><button type="button" class="open clip" onClick=${() => open(row.workflowID)}>${row.subject ?? row.workflowName}</button>
    <code class="faint tiny" title=${row.workflowID}>${short(row.workflowID, 18, 6)}</code></div>` },
  { id: "status", label: "Status", sort: (row) => row.status, cell: (row) => html`<${Pill} state=${row.parked ? "WAITING" : row.status} />${row.gone && html` <${Tag} title="It no longer matches the filter">moved on</${Tag}>`}` },
  { id: "kind", label: "Kind", sort: (row) => row.workflowName, cell: (row) => row.workflowName },
  { id: "queue", label: "Queue", sort: (row) => row.queueName, cell: (row) => row.queueName ?? html`<span class="faint">–</span>` },
  { id: "version", label: "Version", sort: (row) => row.applicationVersion, cell: (row) => (row.applicationVersion ? html`<code>${row.applicationVersion}</code>` : html`<span class="faint">–</span>`) },
  { id: "made", label: "Made", end: true, sort: (row) => row.createdAt, cell: (row) => html`<span class="nowrap"><${Time} ms=${row.createdAt} /></span>` },
];

function Filter({ q, problems }) {
  const field = useRef(null);
  const [typed, setTyped] = useState(q);
  useEffect(() => { if (document.activeElement !== field.current) setTyped(q); }, [q]);
  useKeys({ "/": () => field.current.focus() });
  const send = (event) => { event.preventDefault(); patch({ q: typed.trim(), at: null }, { replace: false }); };
  return html`<form class="stack tight" role="search" onSubmit=${send}><div class="toolbar"><div class="search grow"><${Icon} name="search" /><input class="input" ref=${field} value=${typed} aria-label="Filter workflows" autocomplete="off" spellcheck=${false}
      placeholder="status:ERROR queue:intentQ name:RunIntent after:2h, or an id" onInput=${(event) => setTyped(event.currentTarget.value)} onKeyDown=${(event) => { if (event.key === "Escape") { setTyped(q); field.current.blur(); } }} /><kbd aria-hidden="true">/</kbd></div>
      <${Button} type="submit">Filter</${Button}></div>
    ${tokensOf(q).length > 0 && html`<div class="row wide">${tokensOf(q).map(({ key, value }) => html`<span class="token" key=${key + value}><span class="dim">${key}</span> ${value}<button type="button" aria-label=${`Remove ${key} ${value}`} onClick=${() => { patch({ q: withToken(q, key, null) }); setTyped(withToken(q, key, null)); }}>×</button></span>`)}</div>`}
    ${problems.map((problem) => html`<p class="small tone-bad" role="alert" key=${problem}>${problem}</p>`)}</form>`;
}

/** How many there are of each state; press one to see these only. */
const Counts = ({ q, counts, chosen }) => html`<ul class="counts row wide" aria-label="By status">${STATUSES.map((status) => {
  const n = counts?.find((row) => row.status === status)?.workflowCount;
  const on = chosen === status;
  return n || on || ["ENQUEUED", "PENDING", "SUCCESS", "ERROR"].includes(status) ? html`<li key=${status}><button type="button" class="count-chip" aria-pressed=${String(on)} onClick=${() => patch({ q: withToken(q, "status", on ? null : status) })}><${Dot} state=${status} />${status === "PENDING" ? "Under way" : look(status).word}<b class="num">${n === undefined ? "·" : n >= 10_000 ? "10,000+" : count(n)}</b></button></li>` : null;
})}</ul>`;

/** What to do with the rows that are picked, or with all that the filter finds. */
function BulkBar({ selected, query, onAct, onSelect }) {
  const [busy, setBusy] = useState(false);
  const [taken, setTaken] = useState(null);
  const rows = [...selected.values()];
  const capped = taken !== null && !taken.isAll && rows.length === taken.rows.length;
  const takeAll = async () => {
    setBusy(true);
    try {
      const found = await allMatching(query);
      setTaken(found);
      onSelect(found.rows);
    } catch (error) { toast("Could not read them all", { state: "ERROR", more: error.message }); }
    setBusy(false);
  };
  const act = (op) => onAct({ op, rows, capped });
  return html`<div class="bulk" role="region" aria-label="Selected workflows"><span><b class="num">${count(rows.length)}</b> selected${capped ? " (more match than one action takes)" : ""}</span>
    ${rows.length !== taken?.rows.length && html`<${Button} small kind="quiet" busy=${busy} onClick=${takeAll}>Select all that match</${Button}>`}<span class="grow"></span>
    <${Button} small icon="stop" kind="danger" onClick=${() => act("cancel")}>Cancel…</${Button}><${Button} small icon="play" onClick=${() => act("resume")}>Resume…</${Button}><${Button} small icon="fork" onClick=${() => act("fork")}>Fork…</${Button}>
    <${Button} small kind="quiet" icon="cross" label="Clear the selection" onClick=${() => onSelect([])} /></div>`;
}

/** The ops board: workflows of any kind, what may be done to them and what was done, queues and workers. */
import { html, useEffect, useMemo, useRef, useState } from "../lib.js";
import { useResource } from "../data.js";
import { boardCommands, useKeys, useTitle } from "../frame.js";
import { Audit, BulkDialog, Detail } from "../ops/workflows.js";
import { queryOf, STATUSES, tokensOf, withQuery, withToken, allMatching, useWorkflows, Views } from "../ops/find.js";
import { Queues } from "../ops/queues.js";
import { count, go, now, patch, plural, short } from "../state.js";
import { Empty, ErrorBox, Loading, TabPanel, Tabs, toast } from "../ui/feedback.js";
import { Button, Dot, Icon, look, Pill, Tag, Time } from "../ui/parts.js";
import { Table } from "../ui/table.js";

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
  const list = useWorkflows(query);
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

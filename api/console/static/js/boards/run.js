/** The run board: one run with its five tabs, or, where the address names none, the start of one. */
import { html, useEffect, useMemo, useState } from "../lib.js";
import { api, path, url, useResource } from "../data.js";
import { boardCommands, useKeys, useTitle } from "../frame.js";
import { bytes, clock, duration, go, patch, short, TABS, to, words } from "../state.js";
import { isFinal, RunStore } from "../store.js";
import { axisOf, isWait, spanOf, stateOf, titleOf, triesOf } from "../timeline/layout.js";
import { Timeline } from "../timeline/timeline.js";
import { Copy, copyAndSay, Empty, ErrorBox, Lazy, Loading, TabPanel, Tabs } from "../ui/feedback.js";
import { Button, Dot, Icon, illegal, look, Pill, Tag, tick, Time } from "../ui/parts.js";

// Header ----------------------------------------------------------------------------------------------
// The head of a run: what it is for, how it stands, why it is not at work, and what may be done to it.

/** The commands that show this run, for a shell. */
export const curlOf = (wid) => `curl -sS '${location.origin}${url(`/api/runs/${wid}`)}'`;
export const cliOf = (wid) => `bin/workflow get ${wid}`;

/** What the palette offers while a run is open. */
export function commandsOf(store) {
  const { workflowID } = store.header.value;
  return [
    { label: "Copy the run's id", icon: "copy", run: () => copyAndSay(workflowID, "Run id") },
    { label: "Copy as curl", icon: "terminal", run: () => copyAndSay(curlOf(workflowID), "curl command") },
    { label: "Copy as bin/workflow", icon: "terminal", run: () => copyAndSay(cliOf(workflowID), "Command") },
  ];
}

/** @param {{store: import("../store.js").RunStore, tab: string}} props */
export function Header({ store, tab }) {
  const run = store.header.value;
  const [op, setOp] = useState(null);
  const final = isFinal(run);
  const recipe = run.recipeRef;
  const act = (name) => ({ why: illegal(name, run.status) ?? undefined, onClick: () => setOp(name) });
  return html`<header class="board-head">
    <nav class="crumbs" aria-label="Where this is"><a ...${to({})}>Runs</a>${recipe && html`<span aria-hidden="true">/</span><a ...${to({ board: "recipe", recipe: recipe.id })}>${recipe.id}</a>`}</nav>
    <div class="board-title"><h1 class="wrap">${run.subject ?? short(run.workflowID, 14, 6)}</h1><${Pill} state=${run.status} />
      <div class="actions row"><${Cli} wid=${run.workflowID} />
        <${Button} icon="fork" ...${act("fork")}>Fork</${Button}>
        ${run.status === "CANCELLED" ? html`<${Button} icon="play" ...${act("resume")}>Resume</${Button}>` : html`<${Button} icon="stop" kind=${final ? undefined : "danger"} ...${act("cancel")}>Cancel</${Button}>`}</div></div>
    <dl class="meta">
      <div><dt>Run</dt><dd><code title=${run.workflowID}>${short(run.workflowID, 12, 6)}</code><${Copy} text=${run.workflowID} what="run id" /></dd></div>
      ${recipe && html`<div><dt>Recipe</dt><dd><a class="under" ...${to({ board: "recipe", recipe: recipe.id, v: recipe.v })}>${recipe.id}@${recipe.v}</a></dd></div>`}
      <div><dt>Started</dt><dd><${Time} ms=${run.createdAt} /></dd></div>
      <div><dt>${final ? "Took" : "Running for"}</dt><dd class="num">${duration((final ? run.updatedAt : tick.value) - run.createdAt)}</dd></div>
      ${run.queue && html`<div><dt>Queue</dt><dd>${run.queue}${run.priority ? ` · P${run.priority}` : ""}</dd></div>`}
      ${run.queuePartitionKey && html`<div><dt>Partition</dt><dd>${run.queuePartitionKey}</dd></div>`}
      <div><dt>Version</dt><dd><code>${run.workflowVersion ?? run.appVersion}</code></dd></div>
      ${run.retryCount > 0 && html`<div><dt>Retries</dt><dd class="num">${run.retryCount}</dd></div>`}
      ${run.traceId && run.traceBaseUrl && html`<div><dt>Trace</dt><dd><a class="under" href=${run.traceBaseUrl + run.traceId} rel="noreferrer">${short(run.traceId, 6, 4)}</a></dd></div>`}
    </dl>
    <${ReasonLine} run=${run} tab=${tab} act=${act} />
    ${op && html`<${Lazy} key=${op} load=${() => import("../ui/dialogs.js")} name="RunAction" props=${{ op, run, onClose: () => setOp(null), onDone: () => store.again() }} />`}
  </header>`;
}

const HELD = new Set(["person", "message", "event", "child", "timer", "delayed"]);

/** Why it is not at work, since when and until when; or how it ended. */
function ReasonLine({ run, tab, act }) {
  const reason = run.reason;
  if (reason) {
    const bad = ["no-worker", "worker-lost", "no-workflow", "paused"].includes(reason.code);
    const gate = reason.gateKey && { wid: run.workflowID, tab: "gate", gate: reason.gateKey };
    return html`<div class=${`note ${bad ? "tone-bad" : "tone-wait"}`} data-reason=${reason.code}><${Dot} state="WAITING" tone=${bad ? "bad" : "wait"} />
      <span class="grow wrap">${reason.since ? html`<b class="num">${duration(Math.max(0, tick.value - reason.since))}</b> · ` : null}${sentence(reason)}
        ${reason.until ? html` <span class="num">Until ${clock(reason.until)}.</span>` : null}${HELD.has(reason.code) && html` No worker is held meanwhile.`}</span>
      ${gate && tab !== "gate" && html`<a class="btn small end" ...${to(gate)}>Open gate</a>`}
      ${reason.workflowID && html`<a class="btn small end" ...${to({ board: "ops", at: reason.workflowID })}>Open it</a>`}</div>`;
  }
  if (run.error) return html`<div class="note tone-bad" data-reason="error"><${Dot} state="ERROR" /><span class="grow wrap">${stopped(run.error.message)}${run.nextAction && run.nextAction !== "NONE" ? html` <span>Next: ${words(run.nextAction.toLowerCase()).toLowerCase()}.</span>` : null}</span>
      <span class="end row"><${Button} small icon="refresh" ...${act("retry")}>Try again</${Button}>${run.recipeRef && run.workflowName === "RunIntent" && html`<${Button} small icon="star" ...${act("improve")}>Improve the recipe</${Button}>`}</span></div>`;
  if (run.status === "PENDING") return html`<div class="note tone-run" data-reason="at-work"><${Dot} state="RUNNING" /><span class="grow">A worker is on it${run.lastStep ? html`; the last step recorded is <b>${run.lastStep}</b>` : ""}. A step shows when it is recorded.</span></div>`;
  return null;
}

const stopped = (text) => (/[.!?]$/.test(text) ? text : `${text}.`);

function sentence(reason) {
  const text = `${reason.sentence[0].toUpperCase()}${reason.sentence.slice(1)}`;
  return stopped(text.replace(/-[0-9a-f]{16}\b/, ""));
}

/** Ways to ask for the same from a shell. */
function Cli({ wid }) {
  const [open, setOpen] = useState(false);
  const ways = [["curl", curlOf(wid)], ["curl, its live events", `${curlOf(wid).slice(0, -1)}/stream' -N`], ["bin/workflow", cliOf(wid)], ["bin/repro-pack", `bin/repro-pack --run ${wid}`]];
  return html`<div class="menu" onKeyDown=${(event) => { if (event.key === "Escape") setOpen(false); }} onFocusOut=${(event) => { if (!event.currentTarget.contains(event.relatedTarget)) setOpen(false); }}>
    <${Button} icon="terminal" aria-expanded=${String(open)} onClick=${() => setOpen(!open)}>CLI</${Button}>
    ${open && html`<div class="menu-list">${ways.map(([name, text]) => html`<button key=${name} type="button" onClick=${() => { copyAndSay(text, name); setOpen(false); }}><${Icon} name="copy" small /><span class="grow"><span class="strong">${name}</span><code class="clip">${text}</code></span></button>`)}</div>`}
  </div>`;
}

// Inspector -------------------------------------------------------------------------------------------
// What is known of one row: when, by whom, what went in and what came out; of an open gate the decision itself.

/** @param {{store: import("../store.js").RunStore, params: object, id: string|undefined}} props */
function Inspector({ store, params, id }) {
  const rows = store.rows.value;
  const row = id && rows.find((one) => one.stepID === id);
  const group = id?.startsWith("group:") ? rows.filter((one) => one.kind === "child" && `group:${one.name}` === id) : null;
  if (!row && !group?.length) return html`<aside class="inspector" id="inspector" tabindex="-1" aria-label="Details"><${Nothing} store=${store} /></aside>`;
  const title = row ? titleOf(row) : `${group[0].name} × ${group.length}`;
  return html`<aside class="inspector" id="inspector" tabindex="-1" aria-label="Details" onKeyDown=${(event) => { if (event.key === "Escape") patch({ step: "" }); }}>
    <header class="row"><${Dot} state=${row ? stateOf(row) : "SUCCESS"} /><h2 class="grow clip" title=${title}>${title}</h2>
      ${row && html`<${Button} kind="quiet" small icon="link" label="Copy the address of this row" onClick=${() => copyAndSay(location.href, "Address")} />`}
      <${Button} kind="quiet" small icon="cross" label="Close details" onClick=${() => patch({ step: "" })} /></header>
    <div class="inspector-body">${row ? html`<${RowDetails} key=${row.stepID} store=${store} row=${row} />` : html`<${GroupDetails} rows=${group} />`}</div>
  </aside>`;
}

/** The run in figures, while no row is picked. */
function Nothing({ store }) {
  const rows = store.rows.value, run = store.header.value;
  if (!rows.length) return html`<div class="inspector-body"><${Empty} icon="runs" title="Nothing is recorded yet"><p>A row's times, what went in and what came out will be shown here.</p></${Empty}></div>`;
  const now = isFinal(run) ? run.updatedAt : tick.value;
  const axis = axisOf(rows, now, false);
  const waited = rows.filter(isWait).reduce((sum, row) => { const [a, b] = spanOf(row, now); return sum + b - a; }, 0);
  const tasks = rows.filter((row) => row.kind === "child");
  const tries = tasks.reduce((sum, row) => sum + (row.attempts?.length ?? 0), 0);
  const longest = rows.filter((row) => !isWait(row)).reduce((best, row) => { const [a, b] = spanOf(row, now); return b - a > best[0] ? [b - a, row] : best; }, [-1, null])[1];
  const states = ["SUCCESS", "ERROR", "TIMED_OUT", "WAITING", "RUNNING", "ENQUEUED", "CANCELLED"].map((state) => [state, rows.filter((row) => stateOf(row) === state).length]).filter(([, n]) => n);
  const facts = [
    ["Recorded", duration(axis.to - axis.from)],
    waited > 0 && ["Waited for people", duration(waited)],
    tasks.length > 0 && ["Tasks", html`<span class="num">${tasks.length}</span>${tries > tasks.length ? html` <span class="dim">in ${tries} attempts</span>` : null}`],
    longest && ["Longest", html`<button type="button" class="under" onClick=${() => patch({ step: longest.stepID })}>${titleOf(longest)}</button> <span class="num dim">${duration(spanOf(longest, now)[1] - longest.startedAt)}</span>`],
  ].filter(Boolean);
  return html`<header class="row"><h2 class="grow">The run in short</h2></header><div class="inspector-body"><dl class="facts">${facts.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>
    <dl class="facts">${states.map(([state, n]) => html`<div key=${state}><dt class="row"><${Dot} state=${state} />${look(state).word}</dt><dd class="num">${n}</dd></div>`)}</dl>
    <p class="small dim">Pick a row for its times, what went in and what came out.</p></div>`;
}

function GroupDetails({ rows }) {
  const spans = rows.map((row) => spanOf(row, tick.value));
  const took = spans.map(([a, b]) => b - a);
  const all = Math.max(...spans.map(([, b]) => b)) - Math.min(...spans.map(([a]) => a));
  const sum = took.reduce((a, b) => a + b, 0);
  return html`<dl class="facts"><div><dt>Together</dt><dd class="num">${duration(all)}, side by side</dd></div><div><dt>Work</dt><dd class="num">${duration(sum)} (${(sum / Math.max(1, all)).toFixed(1)} at a time)</dd></div>
    <div><dt>Longest</dt><dd class="num">${duration(Math.max(...took))}</dd></div><div><dt>Shortest</dt><dd class="num">${duration(Math.min(...took))}</dd></div></dl>
  <ul class="lines">${rows.map((row) => html`<li key=${row.stepID}><button type="button" class="row" onClick=${() => patch({ step: row.stepID })}><${Dot} state=${stateOf(row)} label=${look(stateOf(row)).word} /><span class="grow clip">${titleOf(row)}</span><span class="num dim">${duration(spanOf(row, tick.value)[1] - row.startedAt)}</span></button></li>`)}</ul>`;
}

function RowDetails({ store, row }) {
  const gate = row.kind === "gate" && store.gates.value.find((one) => one.gateKey === row.stepID);
  if (gate) return html`<${Lazy} load=${() => import("../run/decision.js")} name="GateCard" props=${{ gate, bare: true, run: store.header.value, focusKeys: true, onAnswered: () => store.readGates(), onStale: () => store.readGates() }} meanwhile=${html`<${Loading} />`} />`;
  return html`<${Facts} row=${row} wid=${store.wid} /><${Details} row=${row} wid=${store.wid} />`;
}

function Facts({ row, wid }) {
  const [from, end] = spanOf(row, tick.value);
  const facts = [
    ["State", html`${look(stateOf(row)).word}${row.attempt > 1 ? html` <${Tag}>attempt ${row.attempt}</${Tag}>` : null}`],
    row.queuedAt && row.queuedAt < from && ["Queued for", duration(from - row.queuedAt)],
    ["Started", clock(from)],
    ["Took", row.endedAt ? duration(end - from) : `${duration(end - from)} so far`],
    row.worker && ["Worker", html`<code title=${row.worker}>${short(row.worker, 8, 4)}</code>`],
    row.kind !== "child" && row.name !== row.stepID && ["Step", html`<code>${row.stepID}</code>`],
    row.kind === "child" && ["Workflow", html`<code title=${row.stepID}>${short(row.stepID, 12, 4)}</code> <${Copy} text=${row.stepID} what="workflow id" />`],
    row.seq !== undefined && ["Record", html`<span class="num">${row.seq}</span>`],
  ].filter(Boolean);
  const tries = triesOf(row, tick.value);
  const refs = row.artifactRefs.filter((ref) => ref.kind !== "none");
  return html`<dl class="facts">${facts.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>
    ${row.attempts?.length > 1 && html`<section class="stack tight"><h3>Attempts</h3><ul class="lines">${row.attempts.map((one, i) => html`<li key=${one.attempt} class="row"><${Dot} state=${one.errCode === "NONE" ? "SUCCESS" : "ERROR"} /><span class="grow">${one.attempt}. ${one.errCode === "NONE" ? "went well" : one.errCode}</span>${tries[i + 1] && html`<span class="small faint num">${duration(tries[i + 1].from - tries[i].to)} until the next</span>`}${one.wallMs !== undefined && html`<span class="num dim">${duration(one.wallMs)}</span>`}</li>`)}</ul></section>`}
    ${row.error && html`<${ErrorBox} title=${row.error.name ?? "It failed"} error=${{ message: row.error.message ?? JSON.stringify(row.error) }} />`}
    ${refs.length > 0 && html`<section class="stack tight"><h3>Artifacts</h3><ul class="lines">${refs.map((ref) => html`<li key=${ref.id}><a class="row" ...${to({ wid, tab: "artifacts", artifact: ref.id })}><span class="grow clip">${ref.id.split("/").pop()}</span><${Tag}>${ref.kind}</${Tag}><span class="num dim">${bytes(ref.size)}</span></a></li>`)}</ul></section>`}`;
}

function Details({ row, wid }) {
  const details = useResource(path`/api/runs/${wid}/steps/${row.stepID}`);
  if (details.loading) return html`<${Loading} rows=${3} />`;
  if (details.error) return html`<${ErrorBox} error=${details.error} onRetry=${details.refresh} />`;
  const { input, output } = details.data;
  return html`${input !== undefined && input !== null && html`<${Lazy} load=${loadJson} name="JsonCard" props=${{ title: "Input", value: input }} />`}
    ${output !== undefined && output !== null && html`<${Lazy} load=${loadJson} name="JsonCard" props=${{ title: "Output", value: output }} />`}
    ${row.kind === "child" && html`<${Output} wid=${row.stepID} />`}`;
}

const loadJson = () => import("../ui/content.js");

/** What a sandbox task said, as it was streamed. */
function Output({ wid }) {
  const show = async () => {
    const { text } = await api.text(path`/api/runs/${wid}/stream/stdout`);
    const said = text.trim().split("\n").filter(Boolean).map((line) => JSON.parse(line)).map((one) => one.chunk ?? String(one)).join("");
    copyAndSay(said, "What it said");
  };
  return html`<div><${Button} small icon="copy" onClick=${show}>Copy what it said</${Button}></div>`;
}

// Run -------------------------------------------------------------------------------------------------

const LABELS = { timeline: "Timeline", gate: "Gate", artifacts: "Artifacts", patches: "Patches", proof: "Proof" };

export function Board({ params }) {
  return params.wid ? html`<${RunPage} params=${params} />` : html`<${Lazy} load=${() => import("../run/start.js")} name="StartPage" meanwhile=${html`<div class="board-body"><${Loading} /></div>`} />`;
}

function RunPage({ params }) {
  const store = useMemo(() => new RunStore(params.wid), []);
  useEffect(() => { store.open(); return () => store.close(); }, []);
  const header = store.header.value, error = store.error.value;
  useTitle(header ? header.subject ?? header.workflowID : "Run");
  useKeys(Object.fromEntries(TABS.map((tab, i) => [String(i + 1), () => go({ wid: params.wid, tab })])));
  useEffect(() => {
    if (!header) return undefined;
    boardCommands.value = commandsOf(store);
    return () => { boardCommands.value = []; };
  }, [header?.status]);
  if (error?.status === 404 && !header) return html`<${Lazy} load=${() => import("../asides.js")} name="NoRun" props=${{ wid: params.wid }} meanwhile=${html`<div class="board-body"><${Loading} rows=${3} /></div>`} />`;
  if (error && !header) return html`<div class="board-body"><${ErrorBox} error=${error} onRetry=${() => location.reload()} /></div>`;
  if (!header) return html`<div class="board-body"><${Loading} rows=${8} /></div>`;
  const open = store.gates.value.filter((gate) => gate.state === "PENDING" && !isFinal(header)).length;
  const tabs = TABS.map((id) => ({ id, label: LABELS[id], to: { wid: params.wid, tab: id }, count: id === "gate" ? open : 0 }));
  return html`<div class="board run-board" data-tab=${params.tab}>
    <${Header} store=${store} tab=${params.tab} />
    <${Tabs} label="Views of the run" value=${params.tab} tabs=${tabs} />
    <${TabPanel} id=${params.tab} class="run-panel"><${Tab} store=${store} params=${params} /></${TabPanel}>
  </div>`;
}

const OTHERS = {
  gate: { load: () => import("../run/decision.js"), name: "GateTab" },
  artifacts: { load: () => import("../run/evidence.js"), name: "ArtifactsTab" },
  patches: { load: () => import("../run/decision.js"), name: "PatchesTab" },
  proof: { load: () => import("../run/evidence.js"), name: "ProofTab" },
};

function Tab({ store, params }) {
  if (params.tab !== "timeline") return html`<${Lazy} key=${params.tab} ...${OTHERS[params.tab]} props=${{ store, params }} meanwhile=${html`<div class="board-body"><${Loading} /></div>`} />`;
  return html`<${TimelineTab} store=${store} params=${params} />`;
}

function TimelineTab({ store, params }) {
  const rows = store.rows.value, header = store.header.value;
  const final = isFinal(header);
  const urgent = rows.find((row) => row.kind === "gate" && row.status === "WAITING") ?? rows.find((row) => ["ERROR", "TIMED_OUT"].includes(stateOf(row))) ?? rows.find((row) => stateOf(row) === "RUNNING");
  const selected = params.step === "" ? undefined : params.step ?? urgent?.stepID; // closed by hand, it stays closed
  const openInspector = () => document.getElementById("inspector")?.focus();
  return html`<div class="run-split" data-open=${selected ? "" : null}>
    <${Timeline} rows=${rows} total=${store.total.value} loaded=${store.loaded.value} params=${params} selected=${selected} final=${final}
      now=${final ? header.updatedAt : tick.value} onOpen=${openInspector} />
    <${Inspector} store=${store} params=${params} id=${selected} />
  </div>`;
}

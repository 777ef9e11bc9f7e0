/** The run board: one run with its five tabs, or, where the address names none, the start of one. */
import { html, useEffect, useMemo, useState } from "../lib.js";
import { url } from "../data.js";
import { boardCommands, useKeys, useTitle } from "../frame.js";
import { Inspector } from "../run/inspector.js";
import { boot, clock, duration, go, short, TABS, to, words } from "../state.js";
import { isFinal, RunStore } from "../store.js";
import { stateOf } from "../timeline/layout.js";
import { Timeline } from "../timeline/timeline.js";
import { Copy, copyAndSay, ErrorBox, Lazy, Loading, TabPanel, Tabs } from "../ui/feedback.js";
import { Button, Dot, Icon, illegal, Pill, tick, Time } from "../ui/parts.js";

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

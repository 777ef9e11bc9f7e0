/** What is done to workflows: one beside the list, many at once, and the trail of all that was done. */
import { html, useEffect, useRef, useState } from "../lib.js";
import { api, path, usePages, useResource } from "../data.js";
import { count, duration, mayNot, patch, plural, short, to } from "../state.js";
import { ActionDialog, Dialog, ReasonDialog } from "../ui/dialogs.js";
import { Copy, copyAndSay, Empty, ErrorBox, Loading, Seg } from "../ui/feedback.js";
import { Button, Dot, Icon, illegal, look, Pill, Tag, Time } from "../ui/parts.js";

// What operators did, the newest first.

const VERBS = { cancel: ["stop", "cancelled"], resume: ["play", "resumed"], fork: ["fork", "forked"], retry: ["refresh", "tried again"], pause: ["pause", "paused"], weight: ["ops", "weighed"], limit: ["ops", "limited"], "pause-worker": ["pause", "paused"], "resume-worker": ["play", "resumed"] };

/** What an action was done to, in words. Pure. */
export function objectOf(row) {
  if (row.targetWorkflowID) return { kind: "workflow", id: row.targetWorkflowID };
  if (row.workerID) return { kind: "worker", id: row.workerID };
  return row.partitionKey ? { kind: "partition", id: `${row.partitionKey} of ${row.queueName}` } : { kind: "queue", id: row.queueName };
}

const setTo = (given) => (given ? Object.entries(given).map(([name, value]) => `${name} ${Array.isArray(value) ? value.join("/") : value}`).join(", ") : null);

/** One action: who did what to what, why and when. `brief`: beside the workflow that it is about. */
export function AuditLine({ row, brief }) {
  const [icon, verb] = VERBS[row.op] ?? ["info", row.op];
  const it = objectOf(row);
  const name = it.kind === "workflow" ? html`<button type="button" class="link mono" title=${it.id} onClick=${() => patch({ tab: "workflows", at: it.id }, { replace: false })}>${short(it.id, 14, 6)}</button>` : html`<b>${it.id}</b>`;
  return html`<li class="audit-line"><span class="mark"><${Icon} name=${icon} small /></span><div class="grow">
    <div><b>${row.actor}</b> ${verb}${brief ? "" : html` ${it.kind} ${name}`}${row.forkedWorkflowID ? html` into <button type="button" class="link mono" title=${row.forkedWorkflowID} onClick=${() => patch({ tab: "workflows", at: row.forkedWorkflowID }, { replace: false })}>${short(row.forkedWorkflowID, 14, 6)}</button>` : ""}${setTo(row.given) ? html` <span class="dim">to ${setTo(row.given)}</span>` : ""}</div>
    <div class="dim wrap">${row.reason}</div></div><span class="dim small"><${Time} ms=${Date.parse(row.at)} /></span></li>`;
}

/** All of them, in pages. */
export function Audit() {
  const list = usePages("/api/ops/audit", undefined, keyOf);
  const rows = list.rows && [...list.waiting, ...list.rows];
  return html`<div class="stack">${list.error && html`<${ErrorBox} error=${list.error} onRetry=${list.refresh} />`}${list.loading && html`<${Loading} rows=${6} />`}
    ${rows && (rows.length ? html`<ul class="card audit">${rows.map((row) => html`<${AuditLine} key=${keyOf(row)} row=${row} />`)}</ul>` : html`<${Empty} icon="shield" title="Nobody has done anything yet"><p>Every cancel, resume, fork and pause is kept here, with who did it and why.</p></${Empty}>`)}
    ${list.cursor && html`<div class="row"><${Button} busy=${list.busy} onClick=${list.loadMore}>Earlier ones</${Button}></div>`}</div>`;
}

const keyOf = (row) => [row.at, row.op, row.actor, row.targetWorkflowID, row.queueName, row.partitionKey, row.workerID, row.forkedWorkflowID].join("|");

// One action on many workflows: how many it will reach and what it does, who and why; each is done, refused and kept by itself.

const EFFECTS = {
  cancel: ["Cancel", "Each ends, with the workflows that it started. Steps under way are cut off, and a run's patches are taken back."],
  resume: ["Resume", "Each goes on from its journal, under its id. A run that was at a gate is there again."],
  fork: ["Fork", "A copy of each starts under a new id. The originals stay as they are."],
};
const AT_ONCE = 4;

/** How many rows an action may reach, and how many of each state it would be refused for. Pure. */
export function preview(op, rows) {
  const refused = {};
  let allowed = 0;
  for (const row of rows) {
    if (illegal(op, row.status)) refused[row.status] = (refused[row.status] ?? 0) + 1;
    else allowed += 1;
  }
  return { allowed, refused };
}

/** Call `act` for each item, a few at a time and in order, until `stopped()`; `tell` after each. */
export async function forEachOf(items, act, { atOnce = AT_ONCE, stopped = () => false, tell = () => {} } = {}) {
  let next = 0;
  const lane = async () => { while (next < items.length && !stopped()) { const item = items[next++]; tell(item, await act(item)); } };
  await Promise.all(Array.from({ length: Math.min(atOnce, items.length) }, lane));
}

/** @param {{op: "cancel"|"resume"|"fork", rows: {workflowID: string, status: string}[], capped?: boolean, onClose: () => void, onDone: () => void}} props */
export function BulkDialog({ op, rows, capped, onClose, onDone }) {
  const [verb, effect] = EFFECTS[op];
  const { allowed, refused } = preview(op, rows);
  const [from, setFrom] = useState("last");
  const [by, setBy] = useState(null);
  const signed = useRef(null);
  const title = `${verb} ${plural(allowed, "workflow")}`;
  if (by) return html`<${Progress} title=${title} targets=${rows.filter((row) => !illegal(op, row.status))} act=${(row) => askOf(op, row.workflowID, by, from)} onClose=${onClose} onDone=${onDone} />`;
  return html`<${ReasonDialog} title=${title} verb=${`${verb} ${count(allowed)}`} danger=${op === "cancel"} keep="Keep them as they are" why=${mayNot("operate") ?? (allowed ? undefined : "None of them is in a state that allows this.")}
      onClose=${() => (signed.current ? setBy(signed.current) : onClose())} send=${async (given) => { signed.current = given; }}>
    <p class="dim">${effect}</p>
    <ul class="stack tight"><li class="row"><${Dot} state="SUCCESS" /><b class="num">${count(allowed)}</b> will be asked to ${op}${capped ? html` <span class="dim">(the first ${count(rows.length)} that the filter finds)</span>` : ""}</li>
      ${Object.entries(refused).map(([status, n]) => html`<li class="row" key=${status}><${Dot} state=${status} /><b class="num">${count(n)}</b> left out <span class="dim">(${status === "PENDING" ? "Under way" : look(status).word})</span></li>`)}</ul>
    ${op === "fork" && html`<div class="field"><span class="label">Make anew from</span><${Seg} label="Make anew from" value=${from} onChange=${setFrom} options=${[["last", "the last record"], ["first", "the first record"]]} /></div>`}
  </${ReasonDialog}>`;
}

/** Ask for one action; what came of it: {workflowID, ok, text}. */
async function askOf(op, workflowID, by, from) {
  try {
    const body = { ...by };
    if (op === "fork") body.stepN = from === "first" ? 1 : Math.max(1, (await api.get(path`/api/ops/wf/${workflowID}`)).actions.find((one) => one.op === "fork").maxStep);
    await api.post(path`/api/ops/wf/${workflowID}/${op}`, body);
    return { workflowID, ok: true };
  } catch (error) { return { workflowID, ok: false, text: error.message }; }
}

function Progress({ title, targets, act, onClose, onDone }) {
  const [outcomes, setOutcomes] = useState([]);
  const [stopped, setStopped] = useState(false);
  const stop = useRef(false);
  const end = () => { stop.current = true; setStopped(true); };
  useEffect(() => {
    forEachOf(targets, act, { stopped: () => stop.current, tell: (_, outcome) => setOutcomes((all) => [...all, outcome]) }).then(onDone);
    return end;
  }, []);
  const running = !stopped && outcomes.length < targets.length;
  const failed = outcomes.filter((one) => !one.ok);
  return html`<${Dialog} title=${title} onClose=${onClose} footer=${html`<${Button} kind=${running ? "danger" : "primary"} onClick=${running ? end : onClose}>${running ? "Stop here" : "Close"}</${Button}>`}>
    <progress class="progress" max=${targets.length} value=${outcomes.length} aria-label="How many are done"></progress>
    <p role="status"><b class="num">${count(outcomes.length)}</b> of ${count(targets.length)} asked, <b class="num">${count(outcomes.length - failed.length)}</b> accepted${failed.length ? html`, <b class="num tone-bad">${count(failed.length)}</b> refused` : ""}</p>
    ${failed.length ? html`<ul class="stack tight outcomes">${failed.slice(0, 50).map((one) => html`<li class="row" key=${one.workflowID}><${Dot} state="ERROR" label="Refused" /><code>${short(one.workflowID, 14, 6)}</code><span class="dim wrap">${one.text}</span></li>`)}</ul>` : null}</${Dialog}>`;
}

// One workflow beside the list: why it is not at work, what may be done to it, its journal, and what was done to it.

const EVERY_MS = 3000;
const MOST_STEPS = 200;
const OPS = { cancel: ["Cancel", "stop"], resume: ["Resume", "play"], fork: ["Fork", "fork"] };
const RUNS = ["RunIntent", "ImproveRecipe"];

/** @param {{wid: string, onClose: () => void, onActed: () => void}} props */
export function Detail({ wid, onClose, onActed }) {
  const found = useResource(path`/api/ops/wf/${wid}`, { every: EVERY_MS });
  const steps = useResource(path`/api/ops/wf/${wid}/steps`, { every: EVERY_MS });
  const [op, setOp] = useState(null);
  const one = found.data;
  return html`<aside class="side card" aria-label="Workflow" data-workflow=${wid}>
    <header>${one && html`<${Dot} state=${stateOf(one)} />`}<h2 class="grow clip">${one?.subject ?? one?.workflowName ?? "Workflow"}</h2><${Button} kind="quiet" small icon="cross" label="Close details" onClick=${onClose} /></header>
    <div class="body">
      ${found.error && html`<${ErrorBox} error=${found.error} onRetry=${found.refresh} />`}
      ${!one && !found.error && html`<${Loading} rows=${6} />`}
      ${one && html`
        <div class="row wide"><${Pill} state=${stateOf(one)} />${RUNS.includes(one.workflowName) && html`<a class="link small" ...${to({ wid, board: "run", tab: "timeline" })}>Open run</a>`}</div>
        <div class="row"><code class="wrap">${wid}</code><${Copy} text=${wid} what="workflow id" /></div>
        ${one.reason && html`<div class=${`note ${one.reason.code === "person" ? "tone-wait" : ["no-worker", "no-workflow", "worker-lost", "paused"].includes(one.reason.code) ? "tone-bad" : ""}`}><${Icon} name="clock" small /><span>${one.reason.sentence[0].toUpperCase() + one.reason.sentence.slice(1)}${one.reason.until ? html`, until <${Time} ms=${one.reason.until} at />` : ""}.</span></div>`}
        <${Actions} actions=${one.actions} onAct=${setOp} />
        <dl class="facts"><${Fact} name="Workflow">${one.workflowName}${one.workflowClassName !== one.workflowName ? html` <span class="dim">${one.workflowClassName}</span>` : ""}</${Fact}>
          <${Fact} name="Queue">${one.queueName ?? html`<span class="dim">none</span>`}</${Fact}><${Fact} name="Version">${one.applicationVersion ? html`<code>${one.applicationVersion}</code>` : html`<span class="dim">any</span>`}</${Fact}>
          <${Fact} name="Made"><${Time} ms=${one.createdAt} at /></${Fact}><${Fact} name="Last moved"><${Time} ms=${one.updatedAt} /></${Fact}></dl>
        <${Journal} of=${steps} />
        <section class="stack tight"><h3>Audit</h3>${one.audit.length ? html`<ul class="stack tight">${one.audit.map((row, i) => html`<${AuditLine} key=${i} row=${row} brief />`)}</ul>` : html`<p class="dim small">Nothing was done to it.</p>`}</section>
        <${Shell} wid=${wid} />`}
    </div>
    ${op && html`<${ActionDialog} op=${op} wid=${wid} what=${one.subject ?? one.workflowName} steps=${steps.data ?? []} onClose=${() => setOp(null)} onDone=${() => { found.refresh(); steps.refresh(); onActed(); }} />`}
  </aside>`;
}

/** A workflow that only waits is no running one. */
const stateOf = (one) => (one.parked ? "WAITING" : one.status);

const Fact = ({ name, children }) => html`<div><dt>${name}</dt><dd>${children}</dd></div>`;

/** The three actions; one that would be refused says what it would be told. */
const Actions = ({ actions, onAct }) => html`<div class="stack tight"><div class="row wide">${actions.map(({ op, allowed, error }) => {
  const [words, icon] = OPS[op];
  return html`<${Button} key=${op} small kind=${op === "cancel" ? "danger" : undefined} icon=${icon} why=${mayNot("operate") ?? (allowed ? undefined : error)} onClick=${() => onAct(op)}>${words}…</${Button}>`;
})}</div>${actions.some((one) => !one.allowed) && html`<ul class="tiny dim">${actions.filter((one) => !one.allowed).map((one) => html`<li key=${one.op}>${OPS[one.op][0]}: ${one.error}</li>`)}</ul>`}</div>`;

function Journal({ of }) {
  if (of.error) return html`<${ErrorBox} error=${of.error} onRetry=${of.refresh} />`;
  if (!of.data) return html`<${Loading} rows=${3} />`;
  const rows = of.data.slice(-MOST_STEPS);
  return html`<section class="stack tight"><div class="row"><h3 class="grow">Journal</h3><span class="dim small">${plural(of.data.length, "record")}</span></div>
    ${of.data.length ? html`<ol class="journal" tabindex="0" aria-label="Journal">${of.data.length > rows.length && html`<li class="dim tiny">${count(of.data.length - rows.length)} earlier ones left out</li>`}
      ${rows.map((step) => html`<li key=${step.functionId} class="row"><span class="no num faint">${step.functionId}</span><${Dot} state=${step.status} label=${step.status} /><span class="grow clip" title=${step.stepId}>${step.stepId}</span>
        ${step.completedAt && step.startedAt ? html`<span class="num tiny dim">${duration(step.completedAt - step.startedAt)}</span>` : null}${step.error && html`<${Tag} tone="bad" title=${step.error.message}>${step.error.name ?? "error"}</${Tag}>`}</li>`)}</ol>`
      : html`<p class="dim small">It has recorded nothing yet.</p>`}</section>`;
}

/** The same from a shell. */
const Shell = ({ wid }) => html`<section class="stack tight"><h3>From a shell</h3><div class="row wide">
  <${Button} small icon="terminal" onClick=${() => copyAndSay(`bin/workflow get ${wid}`, "Command")}>bin/workflow</${Button}>
  <${Button} small icon="copy" onClick=${() => copyAndSay(`curl -sS "$BASE/api/ops/wf/${encodeURIComponent(wid)}"`, "curl")}>curl</${Button}></div></section>`;

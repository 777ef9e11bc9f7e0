/** One workflow beside the list: why it is not at work, what may be done to it, its journal, and what was done to it. */
import { html, useState } from "../lib.js";
import { path } from "../api.js";
import { mayNot } from "../boot.js";
import { useResource } from "../resource.js";
import { to } from "../route.js";
import { count, duration, plural } from "../format.js";
import { ActionDialog } from "../ui/action.js";
import { Button } from "../ui/button.js";
import { Copy, copyAndSay } from "../ui/copy.js";
import { ErrorBox, Loading } from "../ui/empty.js";
import { Icon } from "../ui/icons.js";
import { Dot, Pill, Tag } from "../ui/status.js";
import { Time } from "../ui/time.js";
import { AuditLine } from "./audit.js";

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

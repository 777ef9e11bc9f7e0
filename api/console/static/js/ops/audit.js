/** What operators did, the newest first. */
import { html, useEffect, useState } from "../lib.js";
import { api } from "../api.js";
import { polling } from "../live.js";
import { patch } from "../route.js";
import { short } from "../format.js";
import { Button } from "../ui/button.js";
import { Empty, ErrorBox, Loading } from "../ui/empty.js";
import { Icon } from "../ui/icons.js";
import { Time } from "../ui/time.js";
import { withQuery } from "./filter.js";

const EVERY_MS = 5000;
const PAGE = 50;

const WORDS = { cancel: ["stop", "cancelled"], resume: ["play", "resumed"], fork: ["fork", "forked"], pause: ["pause", "paused"], weight: ["ops", "weighed"], limit: ["ops", "limited"], "pause-worker": ["pause", "paused"], "resume-worker": ["play", "resumed"] };

/** What an action was done to, in words. Pure. */
export function objectOf(row) {
  if (row.targetWorkflowID) return { kind: "workflow", id: row.targetWorkflowID };
  if (row.workerID) return { kind: "worker", id: row.workerID };
  return row.partitionKey ? { kind: "partition", id: `${row.partitionKey} of ${row.queueName}` } : { kind: "queue", id: row.queueName };
}

const setTo = (given) => (given ? Object.entries(given).map(([name, value]) => `${name} ${Array.isArray(value) ? value.join("/") : value}`).join(", ") : null);

/** One action: who did what to what, why and when. `brief`: beside the workflow that it is about. */
export function AuditLine({ row, brief }) {
  const [icon, verb] = WORDS[row.op] ?? ["info", row.op];
  const it = objectOf(row);
  const name = it.kind === "workflow" ? html`<button type="button" class="link mono" title=${it.id} onClick=${() => patch({ tab: "workflows", at: it.id }, { replace: false })}>${short(it.id, 14, 6)}</button>` : html`<b>${it.id}</b>`;
  return html`<li class="audit-line"><span class="mark"><${Icon} name=${icon} small /></span><div class="grow">
    <div><b>${row.actor}</b> ${verb}${brief ? "" : html` ${it.kind} ${name}`}${row.forkedWorkflowID ? html` into <button type="button" class="link mono" title=${row.forkedWorkflowID} onClick=${() => patch({ tab: "workflows", at: row.forkedWorkflowID }, { replace: false })}>${short(row.forkedWorkflowID, 14, 6)}</button>` : ""}${setTo(row.given) ? html` <span class="dim">to ${setTo(row.given)}</span>` : ""}</div>
    <div class="dim wrap">${row.reason}</div></div><span class="dim small"><${Time} ms=${Date.parse(row.at)} /></span></li>`;
}

/** All of them, in pages. */
export function Audit() {
  const [state, set] = useState({ rows: null, cursor: null, error: null, busy: false });
  const page = (cursor) => api.page(withQuery("/api/ops/audit", { limit: PAGE, ...(cursor ? { cursor } : {}) }));
  const read = async () => {
    try {
      const { value, cursor } = await page();
      set((old) => {
        const known = new Set((old.rows ?? []).map(keyOf));
        return { ...old, error: null, rows: old.rows ? [...value.filter((row) => !known.has(keyOf(row))), ...old.rows] : value, cursor: old.rows ? old.cursor : cursor };
      });
    } catch (error) { set((old) => ({ ...old, error })); }
  };
  useEffect(() => { read(); return polling(EVERY_MS, read); }, []);
  const more = async () => {
    set((old) => ({ ...old, busy: true }));
    try { const { value, cursor } = await page(state.cursor); set((old) => ({ ...old, rows: [...old.rows, ...value], cursor, busy: false })); } catch (error) { set((old) => ({ ...old, error, busy: false })); }
  };
  if (!state.rows) return state.error ? html`<${ErrorBox} error=${state.error} onRetry=${read} />` : html`<${Loading} rows=${6} />`;
  return html`<div class="stack">${state.error && html`<${ErrorBox} error=${state.error} onRetry=${read} />`}
    ${state.rows.length ? html`<ul class="card audit">${state.rows.map((row) => html`<${AuditLine} key=${keyOf(row)} row=${row} />`)}</ul>` : html`<${Empty} icon="shield" title="Nobody has done anything yet"><p>Every cancel, resume, fork and pause is kept here, with who did it and why.</p></${Empty}>`}
    ${state.cursor && html`<div class="row"><${Button} busy=${state.busy} onClick=${more}>Earlier ones</${Button}></div>`}</div>`;
}

const keyOf = (row) => [row.at, row.op, row.actor, row.targetWorkflowID, row.queueName, row.partitionKey, row.workerID, row.forkedWorkflowID].join("|");

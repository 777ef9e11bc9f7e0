/** The flywheel: from a run that failed, by way of a post-mortem and a better version, to the same form going well. */
import { html } from "../lib.js";
import { path, url } from "../api.js";
import { useResource } from "../resource.js";
import { to } from "../route.js";
import { short } from "../format.js";
import { Empty, States } from "../ui/empty.js";
import { Dot, Pill } from "../ui/status.js";
import { Time } from "../ui/time.js";

const EVERY_MS = 5000;
const RERUN = { succeeded: "SUCCESS", failed: "ERROR", retries_exceeded: "ERROR", canceled: "CANCELLED", queued: "ENQUEUED", waiting_input: "WAITING_INPUT", running: "PENDING", repairing: "PENDING" };

/** The links of a turn, in order: [{id, head, state, done}]. Pure. */
export function linksOf(turn) {
  const over = turn.status !== "under_way";
  const state = (done, next) => (done ? "SUCCESS" : over ? "CANCELLED" : next ? "PENDING" : "draft");
  const stable = turn.toStatus === "stable";
  return [
    { id: "failure", state: "ERROR", done: true },
    { id: "postmortem", state: state(turn.postmortem, true), done: Boolean(turn.postmortem) },
    { id: "version", state: state(turn.toV, Boolean(turn.postmortem)), done: Boolean(turn.toV) },
    { id: "promotion", state: stable ? "SUCCESS" : turn.status === "rejected" ? "rejected" : state(false, Boolean(turn.toV)), done: Boolean(turn.promotionWorkflowID) || stable },
    { id: "rerun", state: turn.rerunStatus ? RERUN[turn.rerunStatus] ?? "PENDING" : state(false, stable), done: Boolean(turn.rerunWorkflowID) },
  ];
}

export function Flywheel({ recipeId }) {
  const turns = useResource(path`/api/recipes/${recipeId}/improvements`, { every: EVERY_MS });
  return html`<${States} of=${turns} rows=${4} isEmpty=${turns.data?.length === 0} empty=${html`<${Empty} icon="refresh" title="The wheel has not turned yet"><p>When a run of this recipe fails, ask on the run for an improvement. It looks for the cause, drafts a new version, asks a person, proves it with the fixtures, and runs the same form again.</p></${Empty}>`}>
    <div class="stack">${(turns.data ?? []).map((turn) => html`<${Turn} key=${turn.workflowID} turn=${turn} />`)}</div></${States}>`;
}

function Turn({ turn }) {
  const [failure, postmortem, version, promotion, rerun] = linksOf(turn);
  const run = (wid, text) => html`<a class="link mono" title=${wid} ...${to({ wid, board: "run", tab: "timeline" })}>${text ?? short(wid)}</a>`;
  return html`<article class="card" data-turn=${turn.workflowID}><header><${Pill} state=${turn.status} /><span class="grow"><b>${turn.actor}</b>: <span class="dim">${turn.reason}</span></span><span class="dim small"><${Time} ms=${turn.createdAt} /></span></header>
    <div class="body"><ol class="chain">
      <${Link} of=${failure} head=${`Failed under ${turn.fromV}`}>${run(turn.failedWorkflowID)}<span class="dim small wrap">${turn.failure}</span></${Link}>
      <${Link} of=${postmortem} head="Post-mortem">${turn.postmortem ? html`<a class="link" href=${url(`/api/artifacts/${encodeURIComponent(turn.postmortem)}`)} target="_blank" rel="noreferrer">Read it</a>` : html`<span>Cause not found yet</span>`}<span class="small">${run(turn.workflowID, "the improvement")}</span></${Link}>
      <${Link} of=${version} head="New version">${turn.toV ? html`<a class="link" ...${to({ board: "recipe", recipe: turn.recipeId, v: turn.toV, tab: "diff", with: turn.fromV })}>${turn.toV}</a><span class="dim small">${turn.toStatus}, see what changed</span>` : html`<span>Not drafted</span>`}</${Link}>
      <${Link} of=${promotion} head="Proven">${turn.promotionWorkflowID ? html`<a class="link mono" ...${to({ board: "ops", at: turn.promotionWorkflowID })}>${short(turn.promotionWorkflowID, 14, 4)}</a>` : html`<span>${turn.status === "rejected" ? "A person said no" : "Not promoted"}</span>`}</${Link}>
      <${Link} of=${rerun} head="The same form again">${turn.rerunWorkflowID ? html`${run(turn.rerunWorkflowID)}<span class="dim small">${turn.rerunStatus}</span>` : html`<span>Not run again</span>`}</${Link}></ol>
      ${turn.error && html`<div class="note tone-bad"><${Dot} state="ERROR" /><span class="wrap">${turn.error}</span></div>`}</div></article>`;
}

const Link = ({ of, head, children }) => html`<li class=${of.done ? null : "not-yet"} data-link=${of.id}><span class="head"><${Dot} state=${of.state} />${head}</span>${children}</li>`;

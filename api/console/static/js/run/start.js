/** Where no run is named: start one from a recipe's form, or open one that was started before. */
import { html } from "../lib.js";
import { path, useResource } from "../data.js";
import { useTitle } from "../frame.js";
import { StartForm } from "../recipe/start.js";
import { params, patch, short, to } from "../state.js";
import { Empty, States } from "../ui/feedback.js";
import { Select } from "../ui/fields.js";
import { Dot, look, Tag, Time } from "../ui/parts.js";

const USUAL = "compile-default";
const MANY = 20;

export function StartPage() {
  useTitle("Runs");
  return html`<div class="board"><div class="board-head"><div class="board-title"><h1>Runs</h1></div></div>
    <div class="board-body start-split"><${Recent} /><${Start} /></div></div>`;
}

function Start() {
  const recipes = useResource("/api/recipes");
  const all = recipes.data ?? [];
  const { recipe, v } = params.value;
  const id = recipe ?? (all.some((one) => one.id === USUAL) ? USUAL : all[0]?.id);
  return html`<section class="card" aria-labelledby="start-title"><header><h2 id="start-title">Start a run</h2></header><div class="body">
    <${States} of=${recipes} rows=${4} isEmpty=${!all.length} empty=${html`<${Empty} icon="book" title="No recipes"><p>A run is made from a recipe. <a class="link" ...${to({ board: "recipe" })}>Import one</a> first.</p></${Empty}>`}>
      <${Select} label="Recipe" value=${id} options=${all.map((one) => [one.id, one.name === one.id ? one.id : `${one.name} (${one.id})`])} onChange=${(next) => patch({ recipe: next, v: "" })} />
      ${id && html`<${Versions} key=${id} id=${id} v=${v} />`}
    </${States}></div></section>`;
}

function Versions({ id, v }) {
  const versions = useResource(path`/api/recipes/${id}/versions`);
  const all = versions.data ?? [];
  const chosen = all.find((one) => one.v === v) ?? all.find((one) => one.status === "stable") ?? all[0];
  return html`<${States} of=${versions} rows=${3} isEmpty=${!all.length} empty=${html`<${Empty} icon="book" title="It has no versions" />`}>
    ${all.length > 1 && html`<${Select} label="Version" value=${chosen?.v} options=${all.map((one) => [one.v, `${one.v} (${one.status})`])} onChange=${(next) => patch({ recipe: id, v: next })} />`}
    ${chosen && html`<${Form} key=${chosen.v} id=${id} v=${chosen.v} />`}</${States}>`;
}

function Form({ id, v }) {
  const version = useResource(path`/api/recipes/${id}/versions/${v}`);
  return html`<${States} of=${version} rows=${4}>${version.data && html`<${StartForm} recipeId=${id} v=${v} schema=${version.data.spec.formSchema} limits=${version.data.spec.limits} />`}</${States}>`;
}

/** Runs and improvements, the newest first, with those that wait for a person known as such. Pure. */
export function latest(runs, improvements, gates) {
  const asked = new Set(gates.map((gate) => gate.workflowID));
  return [...runs, ...improvements].sort((a, b) => b.createdAt - a.createdAt).slice(0, MANY).map((run) => ({
    ...run, status: asked.has(run.workflowID) ? "WAITING_INPUT" : run.status,
    tag: run.workflowName === "ImproveRecipe" ? "improvement" : run.workflowID.startsWith("fx_") ? "fixture" : null,
  }));
}

function Recent() {
  const runs = useResource(`/api/ops/wf?name=RunIntent&limit=${MANY}`, { every: 5000 });
  const improvements = useResource(`/api/ops/wf?name=ImproveRecipe&limit=${MANY}`, { every: 5000 });
  const inbox = useResource("/api/hitl/inbox?limit=200", { every: 5000 });
  const all = latest(runs.data ?? [], improvements.data ?? [], inbox.data ?? []);
  return html`<section class="stack" aria-labelledby="recent-title"><div class="row"><h2 id="recent-title" class="grow">Latest runs</h2><a class="link small" ...${to({ board: "ops" })}>All in Ops</a></div>
    <${States} of=${runs} rows=${8} isEmpty=${!all.length} empty=${html`<div class="card"><${Empty} icon="runs" title="No runs yet"><p>Start one here, or with <code>POST /api/run</code>. It opens as soon as it is accepted.</p></${Empty}></div>`}>
      <ul class="lines runs">${all.map((run) => html`<li key=${run.workflowID}><a ...${to({ wid: run.workflowID })}><${Dot} state=${run.status} /><span class="grow row"><b class="clip">${run.subject ?? "a fork, or made by hand"}</b>${run.tag && html`<${Tag}>${run.tag}</${Tag}>`}</span>
        <span class="small dim word">${look(run.status).word}</span><code class="tiny faint">${short(run.workflowID, 10, 4)}</code><span class="small dim when"><${Time} ms=${run.createdAt} /></span></a></li>`)}</ul>
    </${States}></section>`;
}

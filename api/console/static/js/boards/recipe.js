/** The recipes board: each recipe's versions, what they say and how they differ, starts, promotions, the flywheel, import and export. */
import { html, useEffect, useState } from "../lib.js";
import { api, path, url, useResource } from "../data.js";
import { useTitle } from "../frame.js";
import { Compare, exportRecipe, ImportDialog, Spec } from "../recipe/content.js";
import { StartForm } from "../recipe/start.js";
import { mayNot, patch, plural, short, to } from "../state.js";
import { Table } from "../ui/content.js";
import { ReasonDialog } from "../ui/dialogs.js";
import { Empty, ErrorBox, Loading, States, TabPanel, Tabs, toast } from "../ui/feedback.js";
import { Button, Dot, Icon, Pill, Tag, Time } from "../ui/parts.js";

// How a version becomes stable, and how a better one comes of a failure.

// From draft to stable: what a version is, what comes next, and what its fixtures did.

const PROMOTES = "administer"; // what becomes active is everybody's

/** What may be done with a version, and why not: {candidate, promote}, null where it may. Pure. */
export function nextSteps({ status, spec }) {
  const proven = spec.eval.length && spec.fixtures.length;
  return {
    candidate: status === "draft" ? null : `It is ${status} already.`,
    promote: status === "draft" ? "It is a draft; make it a candidate first." : !proven && status !== "stable" ? `It has ${spec.eval.length} checks and ${spec.fixtures.length} fixtures; it needs at least one of each.` : null,
  };
}

/** @param {{version: object, onChanged: () => void}} props version: whole, with its spec */
export function Promotion({ version, onChanged }) {
  const { id, v } = version;
  const [asked, setAsked] = useState(null);
  const may = nextSteps(version);
  const found = version.promotion;
  const send = async (by) => {
    const answer = await api.post(path`/api/recipes/${id}/versions/${v}/${asked}`, by);
    toast(asked === "candidate" ? "It is a candidate" : answer.promotion && answer.status !== "stable" ? "Its fixtures are being run" : "It is the active version", { more: `${id}@${v}` });
    onChanged();
  };
  return html`<section class="stack"><ol class="chain">
      <li><span class="head"><${Dot} state="SUCCESS" />Draft</span><b>Imported</b><span class="dim small"><${Time} ms=${version.createdAt} /></span></li>
      <li class=${version.status === "draft" ? "not-yet" : null}><span class="head"><${Dot} state=${version.status === "draft" ? "draft" : "SUCCESS"} />Candidate</span>${version.status === "draft" ? html`<span>Somebody stands for it</span>` : html`<b>${version.candidateActor ?? "made one"}</b><span class="dim small wrap">${version.candidateReason}</span>`}
        ${!may.candidate && html`<div><${Button} small kind="primary" why=${mayNot("operate") ?? undefined} onClick=${() => setAsked("candidate")}>Make candidate…</${Button}></div>`}</li>
      <li class=${version.status === "stable" ? null : "not-yet"}><span class="head"><${Dot} state=${version.status === "stable" ? "SUCCESS" : found?.status ?? "draft"} />Stable</span>${version.status === "stable" ? html`<b>${version.active ? "Active: starts by name take it" : "Stable, but another one is active"}</b>` : html`<span>Its fixtures go well, twice</span>`}
        ${(version.status === "candidate" || (version.status === "stable" && !version.active)) && html`<div><${Button} small kind="primary" why=${mayNot(PROMOTES) ?? may.promote ?? (found?.status === "under_way" ? "Its fixtures are being run now." : undefined)} onClick=${() => setAsked("promote")}>${version.status === "stable" ? "Make active again…" : "Promote…"}</${Button}></div>`}</li></ol>
    ${found && html`<${Outcome} found=${found} />`}
    ${asked && html`<${ReasonDialog} title=${asked === "candidate" ? `Make ${id}@${v} a candidate` : version.status === "stable" ? `Make ${id}@${v} active` : `Promote ${id}@${v}`} verb=${asked === "candidate" ? "Make candidate" : version.status === "stable" ? "Make active" : "Promote"} onClose=${() => setAsked(null)} send=${send}>
      <p class="dim">${asked === "candidate" ? "It says that somebody stands for this version. Nothing starts by itself." : version.status === "stable" ? "Starts by name take this version from now on." : `Each of its ${version.spec.fixtures.length} fixtures is run twice, with all ${version.spec.eval.length} checks. If all are green and both runs left the same, it becomes stable and active.`}</p></${ReasonDialog}>`}</section>`;
}

/** What became of the newest try. */
const Outcome = ({ found }) => html`<div class="card"><header><${Pill} state=${found.status} /><span class="grow">Try ${found.attempt}, asked for by <b>${found.actor}</b>: <span class="dim">${found.reason}</span></span><span class="dim small"><${Time} ms=${found.endedAt ?? found.createdAt} /></span></header>
  <div class="body">${found.status === "under_way" && html`<div class="row"><progress class="progress" max=${Math.max(1, found.fixturesTotal * 2)} value=${found.fixturesDone} aria-label="Runs of fixtures"></progress><span class="num small dim nowrap">${found.fixturesDone} of ${found.fixturesTotal * 2} runs</span></div>`}
    ${found.refusal && html`<div class="note tone-bad"><${Dot} state="refused" /><span class="wrap">${found.refusal}</span></div>`}
    ${found.fixtures.length > 0 && html`<ul class="stack tight">${found.fixtures.map((fixture) => html`<li key=${fixture.fixtureId} class="stack tight"><div class="row wide"><${Dot} state=${fixture.green ? "SUCCESS" : "ERROR"} label=${fixture.green ? "Green" : "Red"} /><b>${fixture.fixtureId}</b><span class="dim wrap">${fixture.reason}</span></div>
      <ul class="row wide rounds">${fixture.rounds.map((round) => html`<li class="row" key=${round.round}><span class="dim small">Run ${round.round}</span><a class="link mono" ...${to({ wid: round.workflowID, board: "run", tab: "timeline" })}>${short(round.workflowID, 12, 6)}</a>
        ${round.checks.map((check) => html`<${Tag} key=${check.checkId} tone=${check.pass ? "ok" : "bad"} title=${check.reason}>${check.checkId}</${Tag}>`)}${round.hash && html`<code class="faint tiny" title=${round.hash}>left ${round.hash.slice(0, 8)}</code>`}</li>`)}</ul></li>`)}</ul>`}
    <a class="link small" ...${to({ board: "ops", at: found.workflowID })}>The promotion's workflow</a></div></div>`;

// The flywheel: from a run that failed, by way of a post-mortem and a better version, to the same form going well.

const TURN_MS = 5000;
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
  const turns = useResource(path`/api/recipes/${recipeId}/improvements`, { every: TURN_MS });
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
      <${Link} of=${version} head="New version">${turn.toV ? html`<a class="link" ...${to({ board: "recipe", recipe: turn.recipeId, v: turn.toV, tab: "diff", with: turn.fromV })}>${turn.toV}</a><span class="dim small">${turn.toStatus}, see what changed</span>` : turn.postmortem && turn.status === "under_way" ? html`<a class="link" ...${to({ wid: turn.workflowID, board: "run", tab: "gate" })}>A person is asked first</a>` : html`<span>Not drafted</span>`}</${Link}>
      <${Link} of=${promotion} head="Proven">${turn.promotionWorkflowID ? html`<a class="link mono" ...${to({ board: "ops", at: turn.promotionWorkflowID })}>${short(turn.promotionWorkflowID, 14, 4)}</a>` : html`<span>${turn.status === "rejected" ? "A person said no" : "Not promoted"}</span>`}</${Link}>
      <${Link} of=${rerun} head="The same form again">${turn.rerunWorkflowID ? html`${run(turn.rerunWorkflowID)}<span class="dim small">${turn.rerunStatus}</span>` : html`<span>Not run again</span>`}</${Link}></ol>
      ${turn.error && html`<div class="note tone-bad"><${Dot} state="ERROR" /><span class="wrap">${turn.error}</span></div>`}</div></article>`;
}

const Link = ({ of, head, children }) => html`<li class=${of.done ? null : "not-yet"} data-link=${of.id}><span class="head"><${Dot} state=${of.state} />${head}</span>${children}</li>`;

// The recipes board: each recipe's versions, what they say and how they differ, starts, promotions, the flywheel, import and export.

const EVERY_MS = 10_000;
const HURRY_MS = 1500; // while its fixtures are run
const TABS = [["start", "Start"], ["versions", "Versions"], ["spec", "What it says"], ["diff", "Diff"], ["promotion", "Promotion"], ["flywheel", "Flywheel"]];

export function Board({ params }) {
  useTitle(params.recipe ? `${params.recipe} · Recipes` : "Recipes");
  const recipes = useResource("/api/recipes", { every: EVERY_MS });
  const [importing, setImporting] = useState(false);
  const [sought, setSought] = useState("");
  const id = params.recipe ?? recipes.data?.find((one) => one.status === "stable")?.id ?? recipes.data?.[0]?.id ?? null;
  const shown = inOrder(recipes.data ?? []).filter((one) => `${one.id} ${one.name}`.toLowerCase().includes(sought.trim().toLowerCase()));
  return html`<div class="board recipes"><div class="board-head"><div class="board-title"><h1>Recipes</h1>${recipes.data && html`<span class="dim">${plural(recipes.data.length, "recipe")}</span>`}
      <div class="actions row"><${Button} icon="upload" why=${mayNot("operate") ?? undefined} onClick=${() => setImporting(true)}>Import…</${Button}></div></div></div>
    <div class="board-body"><${States} of=${recipes} rows=${8} isEmpty=${recipes.data?.length === 0} empty=${html`<${Empty} icon="book" title="There are no recipes"><p>Import a bundle; its versions become drafts that can be tried at once.</p></${Empty}>`}>
      <div class="split"><nav class="stack tight" aria-label="Recipes"><div class="search"><${Icon} name="search" /><input class="input" aria-label="Find a recipe" placeholder="Find a recipe" value=${sought} onInput=${(event) => setSought(event.currentTarget.value)} /></div>
        <ul class="recipe-list" tabindex="0" aria-label="All recipes">${shown.map((one) => html`<li key=${one.id}><a ...${to({ board: "recipe", recipe: one.id, tab: params.tab })} aria-current=${one.id === id ? "true" : null}><span class="strong clip">${one.id}</span>
          <span class="row"><span class="clip grow">${one.name}</span><${Dot} state=${one.status} label=${one.status} /><span class="num">${one.latestV}</span></span></a></li>`)}${!shown.length && html`<li class="dim small pad">None is called that.</li>`}</ul></nav>
        ${id && html`<${Recipe} key=${id} id=${id} params=${params} onChanged=${recipes.refresh} />`}</div></${States}></div>
    ${importing && html`<${ImportDialog} onClose=${() => setImporting(false)} onDone=${recipes.refresh} />`}</div>`;
}

/** By name; those that stand for a start by name of an older client come last. Pure. */
export const inOrder = (recipes) => [...recipes].sort((a, b) => a.id.startsWith("rcp_") - b.id.startsWith("rcp_") || (a.id < b.id ? -1 : 1));

function Recipe({ id, params, onChanged }) {
  const versions = useResource(path`/api/recipes/${id}/versions`, { every: EVERY_MS });
  if (versions.error && !versions.data) return html`<${ErrorBox} error=${versions.error} onRetry=${versions.refresh} />`;
  if (!versions.data) return html`<${Loading} rows=${8} />`;
  if (!versions.data.length) return html`<${Empty} icon="search" title="There is no such recipe"><p><code>${id}</code> has no versions here.</p></${Empty}>`;
  const v = params.v ?? versions.data.find((one) => one.status === "stable")?.v ?? versions.data[0].v;
  return html`<${Version} key=${v} id=${id} v=${v} versions=${versions} params=${params} onChanged=${() => { versions.refresh(); onChanged(); }} />`;
}

function Version({ id, v, versions, params, onChanged }) {
  const [hurry, setHurry] = useState(false);
  const found = useResource(path`/api/recipes/${id}/versions/${v}`, { every: hurry ? HURRY_MS : EVERY_MS });
  const isProving = found.data?.promotion?.status === "under_way";
  useEffect(() => { setHurry(isProving); if (hurry && !isProving) onChanged(); }, [isProving]);
  const tab = TABS.some(([one]) => one === params.tab) ? params.tab : "start";
  const version = found.data;
  const at = (more) => ({ board: "recipe", recipe: id, v, tab: params.tab, ...more });
  return html`<div class="stack"><div class="row wide"><h2 class="wrap">${version?.spec.name ?? id}</h2>${version && html`<${Pill} state=${version.status} word=${version.active ? `${version.status}, active` : undefined} />`}<span class="grow"></span>
      <label class="row small"><span class="dim">Version</span><select class="select auto" onChange=${(event) => patch({ v: event.currentTarget.value, recipe: id }, { replace: false })}>${versions.data.map((one) => html`<option key=${one.v} value=${one.v} selected=${one.v === v}>${one.v}</option>`)}</select></label>
      <${Button} small icon="download" onClick=${() => exportRecipe(id)}>Export</${Button}></div>
    <${Tabs} label="Recipe" value=${tab} tabs=${TABS.map(([one, label]) => ({ id: one, label, to: at({ tab: one }) }))} />
    <${TabPanel} id=${tab} class="stack">${tab === "versions" ? html`<${Versions} versions=${versions.data} v=${v} at=${at} />` : tab === "flywheel" ? html`<${Flywheel} recipeId=${id} />`
      : html`<${States} of=${found} rows=${6}>${version && (tab === "spec" ? html`<${Spec} version=${version} />` : tab === "diff" ? html`<${Compare} version=${version} versions=${versions.data} base=${params.with} />`
        : tab === "promotion" ? html`<${Promotion} version=${version} onChanged=${() => { found.refresh(); onChanged(); }} />`
        : html`<div class="card narrow"><div class="body"><${StartForm} key=${`${id}@${v}`} recipeId=${id} v=${v} schema=${version.spec.formSchema} limits=${version.spec.limits} /></div></div>`)}</${States}>`}</${TabPanel}></div>`;
}

const Versions = ({ versions, v, at }) => html`<${Table} caption="Versions, the latest first" rows=${versions} rowKey=${(row) => row.v} on=${v} columns=${[
  { id: "v", label: "Version", sort: (row) => row.v, cell: (row) => html`<a class="link" ...${to(at({ v: row.v, tab: "spec" }))}>${row.v}</a>` },
  { id: "status", label: "Status", sort: (row) => row.status, cell: (row) => html`<${Pill} state=${row.status} />` },
  { id: "eval", label: "Checks", end: true, sort: (row) => row.evalCount, cell: (row) => row.evalCount },
  { id: "fixtures", label: "Fixtures", end: true, sort: (row) => row.fixtureCount, cell: (row) => row.fixtureCount },
  { id: "hash", label: "Hash", cell: (row) => html`<code class="dim" title=${row.hash}>${row.hash.slice(0, 12)}</code>` },
  { id: "at", label: "Imported", end: true, sort: (row) => row.createdAt, cell: (row) => html`<span class="nowrap"><${Time} ms=${row.createdAt} /></span>` },
  { id: "diff", label: "", fit: true, cell: (row) => html`<a class="link small" ...${to(at({ v: row.v, tab: "diff", with: undefined }))}>Diff</a>` },
]} />`;

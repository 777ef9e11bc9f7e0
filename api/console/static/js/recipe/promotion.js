/** From draft to stable: what a version is, what comes next, and what its fixtures did. */
import { html, useState } from "../lib.js";
import { api, path } from "../api.js";
import { mayNot } from "../boot.js";
import { to } from "../route.js";
import { short } from "../format.js";
import { Button } from "../ui/button.js";
import { ReasonDialog } from "../ui/reason.js";
import { Dot, Pill, Tag } from "../ui/status.js";
import { Time } from "../ui/time.js";
import { toast } from "../ui/toast.js";

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

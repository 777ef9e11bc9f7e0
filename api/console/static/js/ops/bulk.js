/** One action on many workflows: how many it will reach and what it does, who and why; each is done, refused and kept by itself. */
import { html, useRef, useState } from "../lib.js";
import { api, path } from "../api.js";
import { mayNot, signedInAs } from "../boot.js";
import { actor } from "../prefs.js";
import { count, plural, short } from "../format.js";
import { illegal } from "../ui/legality.js";
import { Button } from "../ui/button.js";
import { Dialog } from "../ui/dialog.js";
import { Seg } from "../ui/tabs.js";
import { Dot, look } from "../ui/status.js";
import { TextField } from "../ui/fields.js";

const WORDS = {
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

/** @param {{op: "cancel"|"resume"|"fork", rows: {workflowID: string, status: string}[], isAll?: boolean, onClose: () => void, onDone: () => void}} props */
export function BulkDialog({ op, rows, capped, onClose, onDone }) {
  const [verb, effect] = WORDS[op];
  const { allowed, refused } = preview(op, rows);
  const targets = rows.filter((row) => !illegal(op, row.status));
  const [by, setBy] = useState(signedInAs ?? actor.value);
  const [reason, setReason] = useState("");
  const [from, setFrom] = useState("last");
  const [tried, setTried] = useState(false);
  const [outcomes, setOutcomes] = useState(null);
  const stop = useRef(false);
  const running = outcomes !== null && outcomes.length < targets.length && !stop.current;
  const act = async ({ workflowID }) => {
    try {
      const body = { actor: by.trim(), reason: reason.trim() };
      if (op === "fork") body.stepN = from === "first" ? 1 : Math.max(1, (await api.get(path`/api/ops/wf/${workflowID}`)).actions.find((one) => one.op === "fork").maxStep);
      const answer = await api.post(path`/api/ops/wf/${workflowID}/${op}`, body);
      return { workflowID, ok: true, text: answer.forkedWorkflowID ? `→ ${answer.forkedWorkflowID}` : "accepted" };
    } catch (error) { return { workflowID, ok: false, text: error.message }; }
  };
  const send = async () => {
    setTried(true);
    if (!by.trim() || !reason.trim() || outcomes) return;
    if (!signedInAs) actor.value = by.trim();
    setOutcomes([]);
    await forEachOf(targets, act, { stopped: () => stop.current, tell: (_, outcome) => setOutcomes((all) => [...all, outcome]) });
    onDone();
  };
  const close = () => { stop.current = true; onClose(); };
  return html`<${Dialog} title=${`${verb} ${plural(allowed, "workflow")}`} onClose=${close} footer=${outcomes
      ? html`<${Button} kind=${running ? "danger" : "primary"} onClick=${() => { if (running) { stop.current = true; setOutcomes([...outcomes]); } else onClose(); }}>${running ? "Stop here" : "Close"}</${Button}>`
      : html`<${Button} onClick=${close}>Keep them as they are</${Button}><${Button} kind=${op === "cancel" ? "danger" : "primary"} why=${allowed ? undefined : "None of them is in a state that allows this."} onClick=${send}>${verb} ${count(allowed)}</${Button}>`}>
    <p class="dim">${effect}</p>${mayNot("operate") && html`<p class="tone-bad" role="alert">${mayNot("operate")}</p>`}
    <ul class="stack tight preview"><li class="row"><${Dot} state="SUCCESS" /><b class="num">${count(allowed)}</b> will be asked to ${op}${capped ? html` <span class="dim">(the first ${count(rows.length)} that the filter finds)</span>` : ""}</li>
      ${Object.entries(refused).map(([status, n]) => html`<li class="row" key=${status}><${Dot} state=${status} /><b class="num">${count(n)}</b> left out <span class="dim">(${status === "PENDING" ? "Under way" : look(status).word})</span></li>`)}</ul>
    ${outcomes ? html`<${Progress} verb=${verb} outcomes=${outcomes} of=${targets.length} />` : html`<form class="form" onSubmit=${(event) => { event.preventDefault(); send(); }}>
      ${op === "fork" && html`<div class="field"><span class="label">Make anew from</span><${Seg} label="Make anew from" value=${from} onChange=${setFrom} options=${[["last", "the last record"], ["first", "the first record"]]} /></div>`}
      <${TextField} label="Reason" autofocus value=${reason} onInput=${setReason} rows=${2} maxlength="2000" hint="Kept with every one of them." error=${tried && !reason.trim() ? "Say why; it is kept with the action." : null} />
      <${TextField} label="Your name" value=${by} onInput=${setBy} maxlength="200" readonly=${Boolean(signedInAs)} error=${tried && !by.trim() ? "Say who you are; it is kept with the action." : null} />
      <button type="submit" hidden></button></form>`}
  </${Dialog}>`;
}

function Progress({ outcomes, of }) {
  const failed = outcomes.filter((one) => !one.ok);
  return html`<div class="stack tight"><progress class="progress" max=${of} value=${outcomes.length} aria-label="How many are done"></progress>
    <p role="status"><b class="num">${count(outcomes.length)}</b> of ${count(of)} asked, <b class="num">${count(outcomes.length - failed.length)}</b> accepted${failed.length ? html`, <b class="num tone-bad">${count(failed.length)}</b> refused` : ""}</p>
    ${failed.length ? html`<ul class="stack tight outcomes">${failed.slice(0, 50).map((one) => html`<li class="row" key=${one.workflowID}><${Dot} state="ERROR" label=${look("ERROR").word} /><code>${short(one.workflowID, 14, 6)}</code><span class="dim wrap">${one.text}</span></li>`)}</ul>` : null}</div>`;
}

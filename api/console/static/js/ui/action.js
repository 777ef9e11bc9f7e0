/** What operators do to a workflow: whether it is allowed and why not, what it will do, who does it and why. */
import { html, useState } from "../lib.js";
import { api, path } from "../api.js";
import { signedInAs } from "../boot.js";
import { actor } from "../prefs.js";
import { Dialog } from "./dialog.js";
import { Button } from "./button.js";
import { ErrorBox } from "./empty.js";
import { TextField } from "./fields.js";
import { toast } from "./toast.js";

const WORDS = {
  cancel: { verb: "Cancel", done: "Cancelled", effect: "It ends, with the workflows that it started. A step under way is cut off, and a run's patches are taken back." },
  resume: { verb: "Resume", done: "Resumed", effect: "It goes on from its journal, under its id. A run that was at a gate is there again, with the time that the gate has left." },
  fork: { verb: "Fork", done: "Forked", effect: "A copy starts under a new id. It keeps the records before the step and makes the rest anew. The original stays as it is." },
};

/**
 * The dialog of an action: its effect, who and why, and for a fork from which record.
 * @param {{op: "cancel"|"resume"|"fork", wid: string, what?: any, steps?: {functionId: number, stepId: string}[], stepN?: number, onClose: () => void, onDone?: (answer: any) => void}} props
 *   what: the thing in words, such as the run's subject; steps: the records to fork from, the latest last
 */
export function ActionDialog({ op, wid, what, steps = [], stepN: first, onClose, onDone }) {
  const words = WORDS[op];
  const [by, setBy] = useState(signedInAs ?? actor.value);
  const [reason, setReason] = useState("");
  const [stepN, setStepN] = useState(String(first ?? (steps.findLast((step) => !step.stepId.startsWith("DBOS.")) ?? steps.at(-1))?.functionId ?? 1));
  const [tried, setTried] = useState(false);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState(null);
  const send = async (event) => {
    event?.preventDefault();
    setTried(true);
    if (!by.trim() || !reason.trim() || busy) return;
    setBusy(true);
    setError(null);
    actor.value = by.trim();
    try {
      const body = { actor: by.trim(), reason: reason.trim(), ...(op === "fork" ? { stepN: Number(stepN) } : {}) };
      const answer = await api.post(path`/api/ops/wf/${wid}/${op}`, body);
      toast(words.done, { more: answer.forkedWorkflowID ?? wid });
      onDone?.(answer);
      onClose();
    } catch (refused) {
      setError(refused);
      setBusy(false);
    }
  };
  return html`<${Dialog} title=${html`${words.verb} ${what ?? "this workflow"}`} onClose=${onClose} footer=${html`
      <${Button} onClick=${onClose}>Keep as it is</${Button}><${Button} kind=${op === "cancel" ? "danger" : "primary"} busy=${busy} onClick=${send}>${words.verb}</${Button}>`}>
    <p class="dim">${words.effect}</p><p class="mono small wrap">${wid}</p>
    <form class="form" novalidate onSubmit=${send}>
      ${op === "fork" && html`<${ForkFrom} steps=${steps} value=${stepN} onChange=${setStepN} />`}
      <${TextField} label="Reason" value=${reason} onInput=${setReason} rows=${2} maxlength="2000" autofocus error=${tried && !reason.trim() ? "Say why; it is kept with the action." : null} onKeyDown=${(event) => { if (event.key === "Enter" && (event.metaKey || event.ctrlKey)) send(event); }} />
      ${signedInAs ? html`<p class="small dim">It is signed with <b>${signedInAs}</b>.</p>` : html`<${TextField} label="Your name" value=${by} onInput=${setBy} maxlength="200" error=${tried && !by.trim() ? "Say who you are; it is kept with the action." : null} />`}
      <button type="submit" hidden></button>
    </form>
    <${ErrorBox} error=${error} />
  </${Dialog}>`;
}

const ForkFrom = ({ steps, value, onChange }) => (steps.length
  ? html`<div class="field"><label for="fork-from">Make anew from</label><select id="fork-from" class="select" onChange=${(event) => onChange(event.currentTarget.value)}>
    ${steps.map((step) => html`<option key=${step.functionId} value=${step.functionId} selected=${String(step.functionId) === value}>${step.functionId} · ${step.stepId}</option>`)}</select></div>`
  : html`<${TextField} label="Make anew from record" type="number" min="1" value=${value} onInput=${onChange} />`);

/** Dialogs, and the actions that operators take in them. */
import { cx, html, useEffect, useId, useRef, useState } from "../lib.js";
import { api, path, useResource } from "../data.js";
import { actor, go, signedInAs } from "../state.js";
import { ErrorBox, toast } from "./feedback.js";
import { TextField } from "./fields.js";
import { Button } from "./parts.js";

// Dialog ----------------------------------------------------------------------------------------------
// Native dialogs: in the middle, or a drawer at the side. They close with Escape and give the focus back.

function useModal(onClose) {
  const element = useRef(null);
  useEffect(() => {
    const dialog = element.current;
    const before = document.activeElement;
    dialog.showModal();
    return () => { dialog.close(); if (before instanceof HTMLElement && before.isConnected) before.focus(); };
  }, []);
  return {
    ref: element,
    onCancel: (event) => { event.preventDefault(); onClose(); },
    onClick: (event) => { if (event.target === element.current) onClose(); },
  };
}

/** @param {{title: any, onClose: () => void, wide?: boolean, footer?: any, class?: string}} props */
export function Dialog({ title, onClose, wide, footer, children }) {
  const id = useId();
  return html`<dialog ...${useModal(onClose)} aria-labelledby=${id}>
    <div class=${cx("dialog", wide && "wide")}>
      <header><h2 id=${id} class="grow">${title}</h2><${Button} kind="quiet" small icon="cross" label="Close" onClick=${onClose} /></header>
      <div class="body">${children}</div>
      ${footer && html`<footer>${footer}</footer>`}
    </div>
  </dialog>`;
}

/** Details at the side, over the page. */
export function Drawer({ title, onClose, actions, children }) {
  const id = useId();
  return html`<dialog ...${useModal(onClose)} aria-labelledby=${id}>
    <div class="drawer">
      <header><h2 id=${id} class="grow clip">${title}</h2>${actions}<${Button} kind="quiet" small icon="cross" label="Close" onClick=${onClose} /></header>
      <div class="body">${children}</div>
    </div>
  </dialog>`;
}

/** A dialog without a frame of ours, for the palette. */
export const Bare = ({ label, onClose, children }) => html`<dialog ...${useModal(onClose)} aria-label=${label}>${children}</dialog>`;

// Reason ----------------------------------------------------------------------------------------------
// A dialog for anything that is kept with who did it and why.

/**
 * @param {{title: any, verb: string, danger?: boolean, why?: string, keep?: string, onClose: () => void,
 *   send: (by: {actor: string, reason: string}) => Promise<void>, children?: any}} props
 *   why: the reason that it is off; send: does it; a refusal is shown and the dialog stays.
 */
export function ReasonDialog({ title, verb, danger, why, keep = "Keep as it is", onClose, send, children }) {
  const [by, setBy] = useState(signedInAs ?? actor.value);
  const [reason, setReason] = useState("");
  const [tried, setTried] = useState(false);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState(null);
  const act = async (event) => {
    event?.preventDefault();
    setTried(true);
    if (busy || why || !by.trim() || !reason.trim()) return;
    setBusy(true);
    setError(null);
    if (!signedInAs) actor.value = by.trim();
    try {
      await send({ actor: by.trim(), reason: reason.trim() });
      onClose();
    } catch (refused) {
      setError(refused);
      setBusy(false);
    }
  };
  const quick = (event) => { if (event.key === "Enter" && (event.metaKey || event.ctrlKey)) act(event); };
  return html`<${Dialog} title=${title} onClose=${onClose} footer=${html`<${Button} onClick=${onClose}>${keep}</${Button}><${Button} kind=${danger ? "danger-fill" : "primary"} busy=${busy} why=${why} onClick=${act}>${verb}</${Button}>`}>
    ${children}
    <form class="form" novalidate onSubmit=${act}>
      <${TextField} label="Reason" autofocus value=${reason} onInput=${setReason} rows=${2} maxlength="2000" onKeyDown=${quick} error=${tried && !reason.trim() ? "Say why; it is kept with the action." : null} />
        ${signedInAs ? html`<p class="small dim">It is signed with <b>${signedInAs}</b>.</p>` : html`<${TextField} label="Your name" value=${by} onInput=${setBy} maxlength="200" onKeyDown=${quick} error=${tried && !by.trim() ? "Say who you are; it is kept with the action." : null} />`}
      <button type="submit" hidden></button></form>
    <${ErrorBox} error=${error} />
  </${Dialog}>`;
}

// Action ----------------------------------------------------------------------------------------------
// What operators do to a workflow: what it will do, who does it and why. Whether it is legal is in legality.js.

const WORDS = {
  cancel: { verb: "Cancel", done: "Cancelled", effect: "It ends, with the workflows that it started. A step under way is cut off, and a run's patches are taken back." },
  resume: { verb: "Resume", done: "Resumed", effect: "It goes on from its journal, under its id. A run that was at a gate is there again, with the time that the gate has left." },
  fork: { verb: "Fork", done: "Forked", effect: "A copy starts under a new id. It keeps the records before the step and makes the rest anew. The original stays as it is." },
  retry: { verb: "Try again", done: "It tries again", effect: "The same run goes on from its first step without a result. What went well is not done again; an approved plan stays approved, a refused one is asked about again." },
  improve: { verb: "Improve the recipe of", button: "Improve", done: "An improvement is under way", effect: "The cause is looked for and a new version of the recipe is drafted. A person is asked at a gate before anything is changed; then it is proven, and this run's form is run again." },
};

/** Where an action is sent. */
const addressOf = (op, wid) => (op === "retry" ? path`/runs/${wid}/retry` : op === "improve" ? path`/api/runs/${wid}/improve` : path`/api/ops/wf/${wid}/${op}`);

/**
 * The dialog of an action: its effect, who and why, and for a fork from which record.
 * @param {{op: "cancel"|"resume"|"fork"|"retry"|"improve", wid: string, what?: any, steps?: {functionId: number, stepId: string}[], stepN?: number, onClose: () => void, onDone?: (answer: any) => void}} props
 *   what: the thing in words, such as the run's subject; steps: the records to fork from, the latest last
 */
export function ActionDialog({ op, wid, what, steps = [], stepN: first, onClose, onDone }) {
  const words = WORDS[op];
  const [stepN, setStepN] = useState(String(first ?? (steps.findLast((step) => !step.stepId.startsWith("DBOS.")) ?? steps.at(-1))?.functionId ?? 1));
  const send = async (signed) => {
    const answer = await api.post(addressOf(op, wid), { ...signed, ...(op === "fork" ? { stepN: Number(stepN) } : {}) });
    toast(words.done, { more: answer.forkedWorkflowID ?? wid });
    onDone?.(answer);
  };
  return html`<${ReasonDialog} title=${html`${words.verb} ${what ?? "this workflow"}`} verb=${words.button ?? words.verb} danger=${op === "cancel"} onClose=${onClose} send=${send}>
    <p class="dim">${words.effect}</p><p class="mono small wrap">${wid}</p>
    ${op === "fork" && html`<${ForkFrom} steps=${steps} value=${stepN} onChange=${setStepN} />`}
  </${ReasonDialog}>`;
}

const ForkFrom = ({ steps, value, onChange }) => (steps.length
  ? html`<div class="field"><label for="fork-from">Make anew from</label><select id="fork-from" class="select" onChange=${(event) => onChange(event.currentTarget.value)}>
    ${steps.map((step) => html`<option key=${step.functionId} value=${step.functionId} selected=${String(step.functionId) === value}>${step.functionId} · ${step.stepId}</option>`)}</select></div>`
  : html`<${TextField} label="Make anew from record" type="number" min="1" value=${value} onInput=${onChange} />`);

// Run action ------------------------------------------------------------------------------------------
// Cancel, resume, fork or retry the run that is open, or improve its recipe.

/** @param {{op: "cancel"|"resume"|"fork"|"retry"|"improve", run: object, onClose: () => void, onDone: () => void}} props onDone: not where the answer is another run */
export function RunAction({ op, run, onClose, onDone }) {
  const steps = useResource(op === "fork" ? path`/api/ops/wf/${run.workflowID}/steps` : null);
  if (op === "fork" && steps.loading) return null;
  const done = (answer) => {
    if (answer.forkedWorkflowID) go({ board: "ops", at: answer.forkedWorkflowID });
    else if (op === "improve") go({ wid: answer.workflowID });
    else onDone();
  };
  return html`<${ActionDialog} op=${op} wid=${run.workflowID} what=${run.subject ?? "this run"} steps=${steps.data ?? []} onClose=${onClose} onDone=${done} />`;
}

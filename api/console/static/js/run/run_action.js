/** Cancel, resume or fork the run that is open. What the server would say is asked first, and shown. */
import { html } from "../lib.js";
import { path } from "../api.js";
import { go } from "../route.js";
import { useResource } from "../resource.js";
import { ActionDialog } from "../ui/action.js";

/** @param {{op: "cancel"|"resume"|"fork", run: object, onClose: () => void, onDone: () => void}} props onDone: not of a fork, which is another run */
export function RunAction({ op, run, onClose, onDone }) {
  const steps = useResource(op === "fork" ? path`/api/ops/wf/${run.workflowID}/steps` : null);
  if (op === "fork" && steps.loading) return null;
  const done = (answer) => { if (answer.forkedWorkflowID) go({ wid: answer.forkedWorkflowID }); else onDone(); };
  return html`<${ActionDialog} op=${op} wid=${run.workflowID} what=${run.subject ?? "this run"} steps=${steps.data ?? []} onClose=${onClose} onDone=${done} />`;
}

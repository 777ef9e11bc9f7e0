/** Whether an action would be refused. The server decides; this spares a walk. */
import { mayNot } from "../boot.js";

const ENGINE_STATE = { WAITING_INPUT: "PENDING", WAITING: "PENDING", RUNNING: "PENDING" };
const ALLOWED = { cancel: ["ENQUEUED", "DELAYED", "PENDING"], resume: ["CANCELLED", "ENQUEUED"] };

/**
 * Why cancel, resume or fork would be refused in this state, or null if it is legal. status: of a workflow, or of a run's header.
 * maxStep: how many records there are to fork from, where that is known.
 */
export function illegal(op, status, { maxStep } = {}) {
  const forbidden = mayNot("operate");
  if (forbidden) return forbidden;
  if (op === "fork") return maxStep === 0 ? "It has no records yet to fork from." : null;
  if (ALLOWED[op].includes(ENGINE_STATE[status] ?? status)) return null;
  return op === "cancel" ? `It has ended already (${status}).` : `Only a cancelled or queued workflow can be resumed; this one is ${status}.`;
}

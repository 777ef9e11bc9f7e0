/** The dialog of a pause, or of its end: the effect, who and why. */
import { html } from "../lib.js";
import { api } from "../api.js";
import { ReasonDialog } from "../ui/reason.js";
import { toast } from "../ui/toast.js";

/** @param {{what: string, url: string, body?: object, resume: boolean, effect: string, onClose: () => void, onDone: () => void}} props */
export function PauseDialog({ what, url, body, resume, effect, onClose, onDone }) {
  const verb = resume ? "Resume" : "Pause";
  return html`<${ReasonDialog} title=${`${verb} ${what}`} verb=${verb} onClose=${onClose} send=${async (by) => {
    await api.post(url, { ...body, ...by });
    toast(resume ? "Resumed" : "Paused", { more: what });
    onDone();
  }}><p class="dim">${effect}</p></${ReasonDialog}>`;
}

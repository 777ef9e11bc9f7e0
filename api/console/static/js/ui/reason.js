/** A dialog for anything that is kept with who did it and why. */
import { html, useState } from "../lib.js";
import { signedInAs } from "../boot.js";
import { actor } from "../prefs.js";
import { Button } from "./button.js";
import { Dialog } from "./dialog.js";
import { ErrorBox } from "./empty.js";
import { TextField } from "./fields.js";

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
    if (!by.trim() || !reason.trim() || busy || why) return;
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
  return html`<${Dialog} title=${title} onClose=${onClose} footer=${html`<${Button} onClick=${onClose}>${keep}</${Button}><${Button} kind=${danger ? "danger" : "primary"} busy=${busy} why=${why} onClick=${act}>${verb}</${Button}>`}>
    ${children}
    <form class="form" onSubmit=${act}>
      <${TextField} label="Reason" autofocus value=${reason} onInput=${setReason} rows=${2} maxlength="2000" onKeyDown=${quick} error=${tried && !reason.trim() ? "Say why; it is kept with the action." : null} />
      <${TextField} label="Your name" value=${by} onInput=${setBy} maxlength="200" readonly=${Boolean(signedInAs)} onKeyDown=${quick} error=${tried && !by.trim() ? "Say who you are; it is kept with the action." : null} />
      <button type="submit" hidden></button></form>
    <${ErrorBox} error=${error} />
  </${Dialog}>`;
}

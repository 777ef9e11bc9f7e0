/** The answer to a gate: yes or no with a reason, or whatever its form asks for. Sent once, however often it is sent. */
import { html, useRef, useState } from "../lib.js";
import { api, path } from "../api.js";
import { mayNot, signedInAs } from "../boot.js";
import { recount } from "../inbox_count.js";
import { MOD, useKeys } from "../keys.js";
import { actor } from "../prefs.js";
import { Button } from "../ui/button.js";
import { Copy } from "../ui/copy.js";
import { ErrorBox } from "../ui/empty.js";
import { Choices, Select, TextField } from "../ui/fields.js";
import { toast } from "../ui/toast.js";

const REASON = "rationale";

/** The fields of a gate's form: [{name, label, options|null, optional}]; `choice` apart, if it is a yes or no. Pure. */
export function formOf(gate) {
  const fields = (gate.prompt.formSchema.fields ?? []).map((field) => ({ name: field.k, label: field.label ?? field.k[0].toUpperCase() + field.k.slice(1), options: field.vs ?? null, optional: Boolean(field.opt) }));
  const choice = fields.find((field) => field.name === "choice" && field.options?.includes("yes") && field.options.includes("no"));
  return { choice: Boolean(choice), reason: fields.some((field) => field.name === REASON), fields: fields.filter((field) => field !== choice && field.name !== REASON) };
}

/** The key under which an answer from this page counts once. */
export const dedupeKeyOf = (gate) => `ui:${gate.workflowID}:${gate.gateKey}:${gate.createdAt}`.slice(0, 256);

/** @param {{gate: object, focusKeys?: boolean, onAnswered?: (answer: {gate: object, isReplay: boolean}) => void, onStale?: () => void}} props
 *   onStale: the gate is not what it was; look again */
export function GateForm({ gate, focusKeys, onAnswered, onStale }) {
  const form = formOf(gate);
  const [values, setValues] = useState(() => ({ ...(gate.prompt.defaults ?? {}) }));
  const [reason, setReason] = useState("");
  const [by, setBy] = useState(signedInAs ?? actor.value);
  const [missing, setMissing] = useState({});
  const [mode, setMode] = useState("yes"); // what the form sends by keyboard: "no" from r until a or Escape
  const [busy, setBusy] = useState(null);
  const [error, setError] = useState(null);
  const approve = useRef(null), reasonField = useRef(null), first = useRef(null);
  const why = mayNot("answer") ?? undefined;

  const send = async (choice) => {
    if (busy || why) return;
    const lacks = Object.fromEntries(form.fields.filter((field) => !field.optional && !values[field.name]).map((field) => [field.name, "This is needed."]));
    if (choice === "no" && !reason.trim()) lacks[REASON] = "Say why it is rejected; the run and the next person will want to know.";
    setMissing(lacks);
    if (lacks[REASON]) { reasonField.current?.focus(); return; }
    if (Object.keys(lacks).length) return;
    setBusy(choice ?? "send");
    setError(null);
    if (!signedInAs) actor.value = by.trim();
    const payload = { ...values, ...(choice ? { choice } : {}), ...(reason.trim() ? { [REASON]: reason.trim() } : {}), ...(by.trim() ? { actor: by.trim() } : {}) };
    try {
      const { isReplay } = await api.post(path`/api/runs/${gate.workflowID}/gates/${gate.gateKey}/reply`, { payload, dedupeKey: dedupeKeyOf(gate), origin: "manual" });
      toast(isReplay ? "It was answered so already" : choice === "no" ? "Rejected" : choice ? "Approved" : "Answered", { more: isReplay ? "Nothing was written twice." : undefined });
      recount();
      onAnswered?.({ gate, isReplay });
    } catch (refused) {
      setError(refused);
      setBusy(null);
      if (refused.status === 409) onStale?.();
    }
  };
  const submit = (event) => { event.preventDefault(); send(form.choice ? mode : undefined); };
  useKeys(focusKeys ? {
    a: () => { setMode("yes"); (approve.current ?? first.current)?.focus(); },
    r: () => { if (form.choice) setMode("no"); reasonField.current?.focus(); },
  } : {});
  const onKeyDown = (event) => {
    if (event.key === "Enter" && (event.metaKey || event.ctrlKey)) submit(event);
    else if (event.key === "Escape" && mode === "no") setMode("yes");
  };
  const does = form.choice ? (mode === "no" ? "rejects" : "approves") : "sends";
  return html`<form class="form gate-form" data-mode=${mode} novalidate onSubmit=${submit} onKeyDown=${onKeyDown}>
    ${form.fields.map((field, i) => html`<${FormField} key=${field.name} field=${field} value=${values[field.name]} error=${missing[field.name]} inputRef=${i === 0 ? first : undefined} onChange=${(value) => setValues({ ...values, [field.name]: value })} />`)}
    ${form.reason && html`<${TextField} label=${!form.choice ? "Comment" : mode === "no" ? "Reason to reject" : "Reason"} optional=${mode !== "no"} value=${reason} rows=${2} maxlength="4000" inputRef=${reasonField} placeholder=${form.choice ? "Needed to reject" : undefined} error=${missing[REASON]} onInput=${setReason} />`}
    ${signedInAs ? html`<p class="small dim">You answer as <b>${signedInAs}</b>.</p>` : html`<div class="beside"><${TextField} label="Your name" optional value=${by} maxlength="200" onInput=${setBy} /></div>`}
    <div class="row wide">${form.choice
      ? html`<${Button} kind=${mode === "yes" ? "primary" : undefined} icon="check" hotkey=${focusKeys ? "a" : undefined} busy=${busy === "yes"} why=${why} buttonRef=${approve} onClick=${() => send("yes")}>Approve</${Button}>
        <${Button} kind=${mode === "no" ? "danger-fill" : "danger"} icon="cross" hotkey=${focusKeys ? "r" : undefined} busy=${busy === "no"} why=${why} onClick=${() => send("no")}>Reject</${Button}>`
      : html`<${Button} kind="primary" icon="check" busy=${Boolean(busy)} why=${why} buttonRef=${approve} onClick=${() => send()}>Send answer</${Button}>`}
      <button type="submit" hidden></button><span class="end tiny faint" role="status">${MOD} Enter ${does}</span></div>
    <${ErrorBox} error=${error} title=${error?.status === 409 ? "Somebody was faster, or the gate is closed" : undefined} />
    <details class="small"><summary class="dim">How this answer is recorded</summary><dl class="facts">
      <div><dt>Counts once as</dt><dd><code class="wrap tiny">${dedupeKeyOf(gate)}</code> <${Copy} text=${dedupeKeyOf(gate)} what="key" /></dd></div>
      <div><dt>Topic</dt><dd><code class="wrap tiny">${gate.topic}</code></dd></div><div><dt>Origin</dt><dd><code class="tiny">manual</code></dd></div></dl></details>
  </form>`;
}

function FormField({ field, value, error, inputRef, onChange }) {
  if (field.options && field.options.length <= 4) return html`<${Choices} label=${field.label} value=${value} options=${field.options} error=${error} onChange=${onChange} />`;
  if (field.options) return html`<${Select} label=${field.label} value=${value ?? ""} options=${["", ...field.options]} error=${error} optional=${field.optional} onChange=${onChange} />`;
  return html`<${TextField} label=${field.label} value=${value ?? ""} rows=${2} optional=${field.optional} error=${error} inputRef=${inputRef} onInput=${onChange} />`;
}

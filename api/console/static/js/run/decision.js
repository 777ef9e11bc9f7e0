/** The decision at a gate, and the file changes beside it: the gate tab, the patches tab, and what the inbox shows of them. */
import { cx, html, useEffect, useRef, useState } from "../lib.js";
import { api, path, useResource } from "../data.js";
import { MOD, recount, useKeys } from "../frame.js";
import { actor, clock, diffMode, mayNot, patch, plural, short, signedInAs, to, words } from "../state.js";
import { isFinal } from "../store.js";
import { Changed, Diff, parseDiff } from "../ui/content.js";
import { Copy, Empty, ErrorBox, Loading, Seg, toast } from "../ui/feedback.js";
import { Choices, Select, TextField } from "../ui/fields.js";
import { Button, Dot, Icon, Left, Pill, Tag, tick, Time } from "../ui/parts.js";

// Gate card -------------------------------------------------------------------------------------------
// A question to a person: what is asked and until when, the form, and once it is answered, by whom and how.

// Gate facts ------------------------------------------------------------------------------------------
// What a person needs to know to decide: the plan, its risks, its size; of a better recipe, what went wrong and what changes.

/** What all of a run's patches add and take away. Pure. */
export function sizeOf(patches) {
  return patches.reduce((sum, patch) => {
    const { added, removed } = parseDiff(patch.diff ?? "");
    return { added: sum.added + added, removed: sum.removed + removed };
  }, { added: 0, removed: 0 });
}

/** @param {{gate: object, patches?: object[]|null}} props patches: of the run, null while they are read elsewhere; left out, they are read here */
export const GateFacts = ({ gate, patches }) => (gate.prompt.uiHints?.kind === "recipe-improvement" ? html`<${Improvement} hints=${gate.prompt.uiHints} />`
  : html`<${Plan} key=${gate.workflowID} wid=${gate.workflowID} patches=${patches} />`);

function Plan({ wid, patches: given }) {
  const step = useResource(path`/api/runs/${wid}/steps/CompileST`);
  const own = useResource(given === undefined ? path`/api/runs/${wid}/patches` : null);
  const patches = given ?? own.data;
  if (step.error && step.error.status !== 404) return html`<${ErrorBox} error=${step.error} onRetry=${step.refresh} />`;
  if (step.loading) return html`<${Loading} rows=${3} />`;
  const plan = step.data?.output ?? {};
  const list = (items) => (items.length === 1 ? items[0] : html`<ul class="bullets">${items.map((item) => html`<li key=${item}>${item}</li>`)}</ul>`);
  const facts = [
    patches?.length && ["Patches", html`<a class="under" ...${to({ wid, tab: "patches" })}>${plural(patches.length, "file")}</a> <${Changed} ...${sizeOf(patches)} />`],
    plan.tests?.length && ["Will run", html`${plural(plan.tests.length, "task")}: ${plan.tests.join(", ")}`],
    plan.risks?.length && ["Risks", html`<span class="tone-wait">${list(plan.risks)}</span>`],
  ].filter(Boolean);
  return html`${plan.design?.length ? html`<div class="stack tight"><h3>Plan</h3><div class="dim">${list(plan.design)}</div></div>` : null}
    ${facts.length > 0 && html`<dl class="facts">${facts.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`}`;
}

const Improvement = ({ hints }) => html`<p>${hints.summary}</p><dl class="facts">
  <div><dt>Recipe</dt><dd><a class="under" ...${to({ board: "recipe", recipe: hints.recipe })}>${hints.recipe}</a> ${hints.fromV} → ${hints.toV}</dd></div>
  <div><dt>After</dt><dd><a class="under" ...${to({ wid: hints.failedWorkflowID })}><code>${short(hints.failedWorkflowID, 12, 6)}</code></a></dd></div>
  <div><dt>Went wrong</dt><dd>${hints.postmortem}</dd></div><div><dt>Cause</dt><dd><code>${hints.cause}</code></dd></div></dl>`;

// Gate form -------------------------------------------------------------------------------------------
// The answer to a gate: yes or no with a reason, or whatever its form asks for. Sent once, however often it is sent.

const REASON = "rationale";
const TAKEN_MS = 600; // about what a run takes to take its answer; until then it counts as open

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
      setTimeout(recount, TAKEN_MS);
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
    <div class="row wide gate-acts">${form.choice
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

// Gate card -------------------------------------------------------------------------------------------

/** What a gate is called: its key without the run's part. */
export const gateName = (key) => key.replace(/-[0-9a-f]{16}$/, "");

const titleOf = (gate) => {
  const hints = gate.prompt.uiHints;
  if (hints?.kind === "recipe-improvement") return `Publish ${hints.recipe} ${hints.toV}`;
  const { title } = gate.prompt.formSchema;
  return typeof title === "string" && !formOf(gate).choice ? title : words(gateName(gate.gateKey));
};

/**
 * @param {{gate: object, run?: object|null, patches?: object[]|null, bare?: boolean, focusKeys?: boolean, focused?: boolean, onAnswered?: (answer: {gate: object, isReplay: boolean}) => void, onStale?: () => void}} props
 *   gate: as /gates answers it; run: the header, where it is known that the run has ended; bare: without a frame of its own;
 *   focusKeys: a and r lead to its buttons; focused: it takes the focus when it appears
 */
export function GateCard({ gate, run, patches, bare, focusKeys, focused, onAnswered, onStale }) {
  const element = useRef(null);
  useEffect(() => { if (focused) element.current.focus(); }, [gate.gateKey, focused]);
  const closed = gate.state === "PENDING" && run && isFinal(run);
  const answered = gate.state === "PENDING" && !closed && gate.origin !== null; // the run has yet to take it
  const open = gate.state === "PENDING" && !closed && !answered;
  return html`<article class=${cx("gate", !bare && "card")} id=${`gate-${gate.gateKey}`} data-state=${closed ? "CLOSED" : answered ? "ANSWERED" : gate.state} tabindex="-1" ref=${element} aria-label=${titleOf(gate)}>
    <div class="gate-body">
      <header class="gate-head"><span class=${cx("gate-mark", open && "open")}><${Icon} name="shield" /></span><div class="grow"><h2>${titleOf(gate)}</h2>
        <p class="tiny dim"><code class="tiny">${gateName(gate.gateKey)}</code> · asked <${Time} ms=${gate.createdAt} /></p></div>${!open && html`<${Pill} state=${closed ? "CANCELLED" : answered ? "RECEIVED" : gate.state} word=${closed ? "Closed" : undefined} />`}</header>
      ${open && html`<${Deadline} gate=${gate} />`}
      ${!open && html`<${Outcome} gate=${gate} closed=${closed} answered=${answered} resumable=${run?.status === "CANCELLED"} />`}
      <${GateFacts} gate=${gate} patches=${patches} />
      ${open && html`<${GateForm} key=${gate.gateKey} gate=${gate} focusKeys=${focusKeys} onAnswered=${onAnswered} onStale=${onStale} />`}
    </div>
  </article>`;
}

function Deadline({ gate }) {
  const all = gate.deadlineAt - gate.createdAt, left = gate.deadlineAt - tick.value;
  const share = Math.min(1, Math.max(0, left / all));
  const tone = left <= 0 ? "bad" : left < 60_000 || share < 0.1 ? "bad" : share < 0.35 ? "wait" : "run";
  return html`<div class="deadline" data-tone=${tone}><div class="row"><${Icon} name="clock" small /><span>${left > 0 ? "Expires in " : "Expired "}<b><${Left} until=${gate.deadlineAt} /></b></span><time class="dim num end" dateTime=${new Date(gate.deadlineAt).toISOString()}>${clock(gate.deadlineAt)}</time></div>
    <div class="deadline-bar" role="progressbar" aria-label="Time left" aria-valuemin="0" aria-valuemax="100" aria-valuenow=${Math.round(share * 100)}><i style=${{ width: `${share * 100}%` }}></i></div></div>`;
}

/** How it was answered, or why it no longer can be. */
function Outcome({ gate, closed, answered, resumable }) {
  if (closed) return html`<div class="note"><${Dot} state="CANCELLED" /><span class="grow">The run ended without an answer, so nothing can be decided here any more${resumable ? " unless it is resumed" : ""}.</span></div>`;
  if (answered) return html`<div class="note tone-run" role="status"><${Dot} state="RECEIVED" /><span class="grow">Somebody has answered this (${gate.origin}). The run takes the answer as soon as a worker is free.</span></div>`;
  if (gate.state === "TIMED_OUT") return html`<div class="note tone-bad"><${Dot} state="TIMED_OUT" /><span class="grow">Nobody answered by ${clock(gate.deadlineAt)}. That counts as a no.</span></div>`;
  const { payload = {}, at, payloadHash } = gate.result ?? {};
  const said = payload ?? {};
  const isYes = said.choice === "yes", isChoice = "choice" in said;
  const facts = [
    ["Answer", isChoice ? html`<${Dot} state=${isYes ? "SUCCESS" : "ERROR"} /> <b>${isYes ? "Approved" : "Rejected"}</b>` : html`<b class="wrap">${said.answer ?? JSON.stringify(said)}</b>`],
    said.rationale && ["Reason", said.rationale],
    ["By", html`${said.actor ?? html`<span class="dim">no name given</span>`} <span class="dim">(${gate.origin ?? "unknown origin"})</span>`],
    at && ["At", html`<${Time} ms=${at} at />`],
    (payloadHash ?? gate.payloadHash) && ["Hash", html`<code class="wrap tiny">${payloadHash ?? gate.payloadHash}</code> <${Copy} text=${payloadHash ?? gate.payloadHash} what="payload hash" />`],
  ].filter(Boolean);
  return html`<dl class="facts outcome">${facts.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>
    ${gate.state === "RECEIVED" && html`<p class="small dim" role="status">The run has the answer and decides.</p>`}`;
}

// Patches ---------------------------------------------------------------------------------------------
// A run's file changes, and the decision beside them: the patches tab and the gate tab.

// Patch list ------------------------------------------------------------------------------------------
// A run's file changes, file by file, with what became of each.

/** What became of a patch: [tone, words, when]. */
export function fateOf(patch) {
  if (patch.rolledBackAt) return ["wait", "rolled back", patch.rolledBackAt];
  if (patch.appliedAt) return ["ok", "applied", patch.appliedAt];
  return ["mute", "not applied", null];
}

/** @param {{patches: object[]|null|undefined, hotkeys?: boolean}} props hotkeys: n and N lead from file to file */
export function Patches({ patches, hotkeys }) {
  const list = useRef(null);
  const [at, setAt] = useState(-1);
  const step = (by) => {
    const files = list.current?.querySelectorAll(".diff") ?? [];
    const next = Math.min(files.length - 1, Math.max(0, at + by));
    setAt(next);
    files[next]?.scrollIntoView({ block: "start", behavior: "auto" });
    files[next]?.querySelector("header button").focus({ preventScroll: true });
  };
  useKeys(hotkeys ? { n: () => step(1), N: () => step(-1) } : {});
  if (!patches) return html`<${Loading} rows=${6} />`;
  if (!patches.length) return html`<${Empty} icon="file" title="No file changes"><p>A run that changes files shows them here, before they are approved.</p></${Empty}>`;
  return html`<section class="patches" ref=${list} aria-label="File changes">
    <div class="toolbar"><h2>${plural(patches.length, "file")}</h2><${Changed} ...${sizeOf(patches)} /><span class="end"></span>
      ${hotkeys && patches.length > 1 && html`<span class="row"><${Button} kind="quiet" small icon="up" label="Previous file (N)" onClick=${() => step(-1)} /><${Button} kind="quiet" small icon="down" label="Next file (n)" onClick=${() => step(1)} /></span>`}
      <${Seg} label="How changes are shown" value=${diffMode.value} options=${[["unified", "Unified"], ["split", "Split"]]} onChange=${(mode) => { diffMode.value = mode; }} /></div>
    ${patches.map((patch) => html`<${Diff} key=${`${patch.stepID}/${patch.patchIndex}`} id=${`patch-${patch.patchIndex}`} path=${patch.targetPath} text=${patch.diff} mode=${diffMode.value} state=${html`<${Fate} patch=${patch} />`} />`)}
  </section>`;
}

function Fate({ patch }) {
  const [tone, word, when] = fateOf(patch);
  return html`<span class="mono tiny" title=${`before ${patch.preimageHash}\nafter ${patch.postimageHash}\ndiff ${patch.diffHash}`}>${short(patch.preimageHash, 7, 0)} → ${short(patch.postimageHash, 7, 0)}</span>
    <${Copy} text=${patch.diffHash} what="hash of the diff" /><${Tag} tone=${tone} title=${when ? clock(when) : "Nothing was written"}>${word}</${Tag}>`;
}

// Patches tab -----------------------------------------------------------------------------------------
// The patches of a run: every file change, when it was applied, and what was taken back.

/** Keep the store's patches current while this is on the screen. */
export function usePatches(store) {
  const [error, setError] = useState(null);
  const read = () => store.readPatches().then(() => setError(null), setError);
  useEffect(() => { if (!store.patches.value) read(); }, []);
  return { error, read };
}

/** @param {{store: import("../store.js").RunStore}} props */
export function PatchesTab({ store }) {
  const { error, read } = usePatches(store);
  const patches = store.patches.value ?? [];
  const events = patches.flatMap((patch) => [[patch.appliedAt, "applied", patch], [patch.rolledBackAt, "taken back", patch]]).filter(([at]) => at).sort(([a], [b]) => a - b);
  return html`<div class="board-body"><${ErrorBox} error=${error} onRetry=${read} />
    ${!(error && !store.patches.value) && html`<${Patches} patches=${store.patches.value} hotkeys />`}
    ${events.length > 0 && html`<section class="stack tight"><h3>In order</h3><ul class="lines">${events.map(([at, what, patch]) => html`<li class="row" key=${`${at}${what}${patch.patchIndex}`}><time class="num dim">${clock(at)}</time><span class="grow wrap mono">${patch.targetPath}</span><span>${what}</span></li>`)}</ul></section>`}
  </div>`;
}

// Gate tab --------------------------------------------------------------------------------------------
// The gate tab: the decision beside what is decided on.

/** The gate to show: the one that the address names, else the first open one, else the latest. Pure. */
const chosen = (gates, key) => gates.find((gate) => gate.gateKey === key) ?? gates.find((gate) => gate.state === "PENDING") ?? gates.at(-1);

/** @param {{store: import("../store.js").RunStore, params: object}} props */
export function GateTab({ store, params }) {
  const { error, read } = usePatches(store);
  const gates = store.gates.value;
  const gate = chosen(gates, params.gate);
  if (!gate) return html`<div class="board-body"><${Empty} icon="shield" title="No question yet"><p>${["SUCCESS", "ERROR", "CANCELLED"].includes(store.header.value.status) ? "This run ended without asking anybody." : "A run that needs a person opens a gate; it is shown here at once."}</p></${Empty}></div>`;
  const unknown = params.gate && gate.gateKey !== params.gate;
  const patches = store.patches.value;
  return html`<div class=${cx("board-body", isAlone(gate, patches) ? "gate-alone" : "gate-split")}>
    <div class="stack">
      ${unknown && html`<div class="note tone-wait"><${Dot} state="WAITING" /><span>This run has no gate <code>${params.gate}</code>; this is another one of its gates.</span></div>`}
      ${gates.length > 1 && html`<nav class="gate-picks" aria-label="Gates of this run">${gates.map((one) => html`<button type="button" key=${one.gateKey} class="btn small" aria-pressed=${String(one === gate)} onClick=${() => patch({ gate: one.gateKey })}><${Dot} state=${one.state === "PENDING" ? "WAITING" : one.state} label=${one.state} />${gateName(one.gateKey)}</button>`)}</nav>`}
      <${GateCard} key=${gate.gateKey} gate=${gate} run=${store.header.value} patches=${patches} focusKeys focused=${params.gate === gate.gateKey} onAnswered=${() => store.readGates()} onStale=${() => store.readGates()} />
    </div>
    ${!isAlone(gate, patches) && html`<div class="stack"><${Beside} gate=${gate} patches=${patches} error=${error} onRetry=${read} hotkeys /></div>`}
  </div>`;
}

/** Whether nothing would be changed by the answer, so that the question stands alone. Pure. */
export const isAlone = (gate, patches) => !gate.prompt.uiHints?.diff && patches?.length === 0;

/** What stands beside a decision: the changes that it is about. */
export function Beside({ gate, patches, error, onRetry, hotkeys }) {
  const hints = gate.prompt.uiHints;
  if (hints?.diff) return html`<${Diff} path=${`${hints.recipe}@${hints.toV}`} text=${hints.diff} mode=${diffMode.value} />`;
  if (error) return html`<${ErrorBox} error=${error} onRetry=${onRetry} />`;
  return html`<${Patches} patches=${patches} hotkeys=${hotkeys} />`;
}

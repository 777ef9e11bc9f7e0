/** A question to a person: what is asked and until when, the form, and once it is answered, by whom and how. */
import { html, cx, useEffect, useRef } from "../lib.js";
import { clock, words } from "../format.js";
import { isFinal } from "../store.js";
import { Icon } from "../ui/icons.js";
import { Dot, Pill } from "../ui/status.js";
import { Copy } from "../ui/copy.js";
import { Left, tick, Time } from "../ui/time.js";
import { GateFacts } from "./gate_facts.js";
import { GateForm } from "./gate_form.js";

/** What a gate is called: its key without the run's part. */
export const gateName = (key) => key.replace(/-[0-9a-f]{16}$/, "");

const titleOf = (gate) => {
  const hints = gate.prompt.uiHints;
  if (hints?.kind === "recipe-improvement") return `Publish ${hints.recipe} ${hints.toV}`;
  return words(gateName(gate.gateKey));
};

/**
 * @param {{gate: object, run?: object|null, bare?: boolean, focusKeys?: boolean, focused?: boolean, onAnswered?: (answer: {gate: object, isReplay: boolean}) => void, onStale?: () => void}} props
 *   gate: as /gates answers it; run: the header, where it is known that the run has ended; bare: without a frame of its own;
 *   focusKeys: a and r lead to its buttons; focused: it takes the focus when it appears
 */
export function GateCard({ gate, run, bare, focusKeys, focused, onAnswered, onStale }) {
  const element = useRef(null);
  useEffect(() => { if (focused) element.current.focus(); }, [gate.gateKey, focused]);
  const closed = gate.state === "PENDING" && run && isFinal(run);
  const open = gate.state === "PENDING" && !closed;
  return html`<article class=${cx("gate", !bare && "card")} id=${`gate-${gate.gateKey}`} data-state=${closed ? "CLOSED" : gate.state} tabindex="-1" ref=${element} aria-label=${titleOf(gate)}>
    <div class="gate-body">
      <header class="gate-head"><span class=${cx("gate-mark", open && "open")}><${Icon} name="shield" /></span><div class="grow"><h2>${titleOf(gate)}</h2>
        <p class="tiny dim"><code class="tiny">${gateName(gate.gateKey)}</code> · asked <${Time} ms=${gate.createdAt} /></p></div>${!open && html`<${Pill} state=${closed ? "CANCELLED" : gate.state} word=${closed ? "Closed" : undefined} />`}</header>
      ${open && html`<${Deadline} gate=${gate} />`}
      ${!open && html`<${Outcome} gate=${gate} closed=${closed} />`}
      <${GateFacts} gate=${gate} />
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
function Outcome({ gate, closed }) {
  if (closed) return html`<div class="note"><${Dot} state="CANCELLED" /><span class="grow">The run has ended without an answer. Nothing can be decided here any more.</span></div>`;
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

/** The gate tab: the decision beside what is decided on. */
import { html } from "../lib.js";
import { patch } from "../route.js";
import { Diff } from "../ui/diff.js";
import { Empty, ErrorBox } from "../ui/empty.js";
import { diffMode } from "../prefs.js";
import { Dot } from "../ui/status.js";
import { GateCard, gateName } from "./gate_card.js";
import { Patches } from "./patch_list.js";
import { usePatches } from "./patches_tab.js";

/** The gate to show: the one that the address names, else the first open one, else the latest. Pure. */
export const chosen = (gates, key) => gates.find((gate) => gate.gateKey === key) ?? gates.find((gate) => gate.state === "PENDING") ?? gates.at(-1);

/** @param {{store: import("../store.js").RunStore, params: object}} props */
export function GateTab({ store, params }) {
  const { error, read } = usePatches(store);
  const gates = store.gates.value;
  const gate = chosen(gates, params.gate);
  if (!gate) return html`<div class="board-body"><${Empty} icon="shield" title="No question yet"><p>${["SUCCESS", "ERROR", "CANCELLED"].includes(store.header.value.status) ? "This run ended without asking anybody." : "A run that needs a person opens a gate; it is shown here at once."}</p></${Empty}></div>`;
  const unknown = params.gate && gate.gateKey !== params.gate;
  const hints = gate.prompt.uiHints;
  return html`<div class="board-body gate-split">
    <div class="stack">
      ${unknown && html`<div class="note tone-wait"><${Dot} state="WAITING" /><span>This run has no gate <code>${params.gate}</code>; this is another one of its gates.</span></div>`}
      ${gates.length > 1 && html`<nav class="gate-picks" aria-label="Gates of this run">${gates.map((one) => html`<button type="button" key=${one.gateKey} class="btn small" aria-pressed=${String(one === gate)} onClick=${() => patch({ gate: one.gateKey })}><${Dot} state=${one.state === "PENDING" ? "WAITING" : one.state} label=${one.state} />${gateName(one.gateKey)}</button>`)}</nav>`}
      <${GateCard} key=${gate.gateKey} gate=${gate} run=${store.header.value} focusKeys focused=${params.gate === gate.gateKey} onAnswered=${() => store.readGates()} onStale=${() => store.readGates()} />
    </div>
    <div class="stack">${hints?.diff ? html`<${Diff} path=${`${hints.recipe}@${hints.toV}`} text=${hints.diff} mode=${diffMode.value} />`
      : error ? html`<${ErrorBox} error=${error} onRetry=${read} />` : html`<${Patches} wid=${store.wid} store=${store} hotkeys />`}</div>
  </div>`;
}

/** A run's file changes, and the decision beside them: the patches tab and the gate tab. */
import { cx, html, useEffect, useRef, useState } from "../lib.js";
import { path, useResource } from "../data.js";
import { useKeys } from "../frame.js";
import { GateCard, gateName, sizeOf } from "./gate_card.js";
import { clock, diffMode, patch, plural, short } from "../state.js";
import { Changed, Diff } from "../ui/diff.js";
import { Copy, Empty, ErrorBox, Loading, Seg } from "../ui/feedback.js";
import { Button, Dot, Tag } from "../ui/parts.js";

// Patch list ------------------------------------------------------------------------------------------
// A run's file changes, file by file, with what became of each.

/** What became of a patch: [tone, words, when]. */
export function fateOf(patch) {
  if (patch.rolledBackAt) return ["wait", "rolled back", patch.rolledBackAt];
  if (patch.appliedAt) return ["ok", "applied", patch.appliedAt];
  return ["mute", "not applied", null];
}

/**
 * @param {{wid: string, store?: import("../store.js").RunStore, empty?: any, hotkeys?: boolean}} props
 *   store: of the run that is open, which keeps them current; without one they are read here. hotkeys: n and N lead from file to file
 */
export function Patches({ wid, store, empty, hotkeys }) {
  const own = useResource(store ? null : path`/api/runs/${wid}/patches`);
  const patches = store ? store.patches.value : own.data;
  const error = store ? null : own.error;
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
  if (error) return html`<${ErrorBox} error=${error} onRetry=${own.refresh} />`;
  if (!patches) return html`<${Loading} rows=${6} />`;
  if (!patches.length) return empty ?? html`<${Empty} icon="file" title="No file changes"><p>A run that changes files shows them here, before they are approved.</p></${Empty}>`;
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
    ${!(error && !store.patches.value) && html`<${Patches} wid=${store.wid} store=${store} hotkeys />`}
    ${events.length > 0 && html`<section class="stack tight"><h3>In order</h3><ul class="lines">${events.map(([at, what, patch]) => html`<li class="row" key=${`${at}${what}${patch.patchIndex}`}><time class="num dim">${clock(at)}</time><span class="grow wrap mono">${patch.targetPath}</span><span>${what}</span></li>`)}</ul></section>`}
  </div>`;
}

// Gate tab --------------------------------------------------------------------------------------------
// The gate tab: the decision beside what is decided on.

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
  const alone = !hints?.diff && store.patches.value?.length === 0;
  return html`<div class=${cx("board-body", alone ? "gate-alone" : "gate-split")}>
    <div class="stack">
      ${unknown && html`<div class="note tone-wait"><${Dot} state="WAITING" /><span>This run has no gate <code>${params.gate}</code>; this is another one of its gates.</span></div>`}
      ${gates.length > 1 && html`<nav class="gate-picks" aria-label="Gates of this run">${gates.map((one) => html`<button type="button" key=${one.gateKey} class="btn small" aria-pressed=${String(one === gate)} onClick=${() => patch({ gate: one.gateKey })}><${Dot} state=${one.state === "PENDING" ? "WAITING" : one.state} label=${one.state} />${gateName(one.gateKey)}</button>`)}</nav>`}
      <${GateCard} key=${gate.gateKey} gate=${gate} run=${store.header.value} focusKeys focused=${params.gate === gate.gateKey} onAnswered=${() => store.readGates()} onStale=${() => store.readGates()} />
    </div>
    ${!alone && html`<div class="stack">${hints?.diff ? html`<${Diff} path=${`${hints.recipe}@${hints.toV}`} text=${hints.diff} mode=${diffMode.value} />`
      : error ? html`<${ErrorBox} error=${error} onRetry=${read} />` : html`<${Patches} wid=${store.wid} store=${store} hotkeys />`}</div>`}
  </div>`;
}

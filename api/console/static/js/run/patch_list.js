/** A run's file changes, file by file, with what became of each. */
import { html, useRef, useState } from "../lib.js";
import { path } from "../api.js";
import { clock, plural, short } from "../format.js";
import { useKeys } from "../keys.js";
import { diffMode } from "../prefs.js";
import { useResource } from "../resource.js";
import { Copy } from "../ui/copy.js";
import { Changed, Diff } from "../ui/diff.js";
import { Empty, ErrorBox, Loading } from "../ui/empty.js";
import { Tag } from "../ui/status.js";
import { Seg } from "../ui/tabs.js";
import { sizeOf } from "./gate_facts.js";

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
      <${Seg} label="How changes are shown" value=${diffMode.value} options=${[["unified", "Unified"], ["split", "Split"]]} onChange=${(mode) => { diffMode.value = mode; }} /></div>
    ${patches.map((patch) => html`<${Diff} key=${`${patch.stepID}/${patch.patchIndex}`} id=${`patch-${patch.patchIndex}`} path=${patch.targetPath} text=${patch.diff} mode=${diffMode.value} state=${html`<${Fate} patch=${patch} />`} />`)}
  </section>`;
}

function Fate({ patch }) {
  const [tone, word, when] = fateOf(patch);
  return html`<span class="mono tiny" title=${`before ${patch.preimageHash}\nafter ${patch.postimageHash}\ndiff ${patch.diffHash}`}>${short(patch.preimageHash, 7, 0)} → ${short(patch.postimageHash, 7, 0)}</span>
    <${Copy} text=${patch.diffHash} what="hash of the diff" /><${Tag} tone=${tone} title=${when ? clock(when) : "Nothing was written"}>${word}</${Tag}>`;
}

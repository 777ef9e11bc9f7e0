/** The patches of a run: every file change, when it was applied, and what was taken back. */
import { html, useEffect, useState } from "../lib.js";
import { clock } from "../format.js";
import { ErrorBox } from "../ui/empty.js";
import { Patches } from "./patch_list.js";

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

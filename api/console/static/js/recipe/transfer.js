/** Recipes in and out: a bundle from a file or from the clipboard, and a bundle to a file. */
import { html, useState } from "../lib.js";
import { api } from "../api.js";
import { go } from "../route.js";
import { bytes, plural } from "../format.js";
import { Button } from "../ui/button.js";
import { Dialog } from "../ui/dialog.js";
import { ErrorBox } from "../ui/empty.js";
import { Field } from "../ui/fields.js";
import { Icon } from "../ui/icons.js";
import { Tag } from "../ui/status.js";
import { toast } from "../ui/toast.js";

/** What a text holds: {bundle, versions} or {problem}, in words. Pure. */
export function bundleOf(text) {
  if (!text.trim()) return { problem: null };
  let bundle;
  try { bundle = JSON.parse(text); } catch (error) { return { problem: `This is not JSON: ${error.message}` }; }
  if (bundle === null || typeof bundle !== "object" || typeof bundle.id !== "string" || !Array.isArray(bundle.versions)) return { problem: "A bundle is {id, versions: […]}." };
  return { bundle, versions: bundle.versions.map((one) => `${one?.id ?? "?"}@${one?.v ?? "?"}`) };
}

export function ImportDialog({ onClose, onDone }) {
  const [text, setText] = useState("");
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState(null);
  const { bundle, versions, problem } = bundleOf(text);
  const take = async (file) => { if (file) { setError(null); setText(await file.text()); } };
  const send = async () => {
    if (!bundle || busy) return;
    setBusy(true);
    setError(null);
    try {
      const made = await api.post("/api/recipes/import", bundle);
      toast("Imported", { more: made.versions.map((one) => `${one.id}@${one.v} (${one.status})`).join(", ") });
      onDone();
      onClose();
      if (made.versions[0]) go({ board: "recipe", recipe: made.versions[0].id, v: made.versions.at(-1).v });
    } catch (refused) { setError(refused); setBusy(false); }
  };
  return html`<${Dialog} title="Import a bundle" wide onClose=${onClose} footer=${html`<${Button} onClick=${onClose}>Close</${Button}><${Button} kind="primary" icon="upload" busy=${busy} why=${bundle ? undefined : "Choose a file, or paste a bundle."} onClick=${send}>Import as drafts</${Button}>`}>
    <p class="dim">All versions of the bundle become drafts, or none. A stable version cannot be imported again.</p>
    <${Field} label="File">${(id) => html`<input id=${id} class="input file" type="file" accept="application/json,.json" onChange=${(event) => take(event.currentTarget.files[0])} />`}</${Field}>
    <${Field} label="Or the bundle itself" error=${problem}>${(id, about) => html`<textarea id=${id} class="input mono" rows="9" spellcheck=${false} value=${text} aria-describedby=${about} aria-invalid=${problem ? "true" : null}
      onDragOver=${(event) => event.preventDefault()} onDrop=${(event) => { event.preventDefault(); take(event.dataTransfer.files[0]); }} onInput=${(event) => { setError(null); setText(event.currentTarget.value); }}></textarea>`}</${Field}>
    ${versions && html`<div class="row wide"><${Icon} name="book" small /><span>${plural(versions.length, "version")}, ${bytes(text.length)}:</span>${versions.slice(0, 12).map((one) => html`<${Tag} key=${one}>${one}</${Tag}>`)}</div>`}
    <${ErrorBox} error=${error} /></${Dialog}>`;
}

/** Save all versions of a recipe as a file. Says what went wrong. */
export async function exportRecipe(id) {
  try {
    const bundle = await api.post("/api/recipes/export", { id });
    save(`${id}.json`, JSON.stringify(bundle));
    toast("Exported", { more: `${id}.json, ${plural(bundle.versions.length, "version")}` });
  } catch (error) { toast("Could not export", { state: "ERROR", more: error.message }); }
}

/** Hand a text to the browser as a file. */
export function save(name, text) {
  const address = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

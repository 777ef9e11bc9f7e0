/** Copying, also where the page came over plain HTTP and has no clipboard. */
import { html, useState } from "../lib.js";
import { Icon } from "./icons.js";
import { toast } from "./toast.js";

/** Put text on the clipboard; whether that worked. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = document.createElement("textarea");
    field.value = text;
    field.className = "sr";
    (document.querySelector("dialog[open]") ?? document.body).append(field);
    field.select();
    try { return document.execCommand("copy"); } catch { return false; } finally { field.remove(); }
  }
}

/** Copy and say so. */
export async function copyAndSay(text, what) {
  if (await copyText(text)) toast(`${what} copied`);
  else toast("Could not copy", { state: "ERROR", more: text });
}

/** A small button that copies: html`<${Copy} text=${id} what="run id" />`. */
export function Copy({ text, what }) {
  const [done, setDone] = useState(false);
  const act = async () => {
    const worked = await copyText(text);
    setDone(worked);
    if (worked) setTimeout(() => setDone(false), 1200);
    else toast("Could not copy", { state: "ERROR", more: text });
  };
  return html`<button type="button" class="copy" data-done=${done ? "" : null} aria-label=${`Copy ${what}`} title=${done ? "Copied" : `Copy ${what}`} onClick=${act}>
    <${Icon} name=${done ? "check" : "copy"} small /></button>`;
}

/** ?: what keys do, and whether single keys do anything. */
import { html } from "./lib.js";
import { LIST, MOD } from "./keys.js";
import { helpOpen } from "./overlays.js";
import { keysOn } from "./prefs.js";
import { Dialog } from "./ui/dialog.js";

export function Help() {
  return html`<${Dialog} wide title="Keys" onClose=${() => { helpOpen.value = false; }}>
    <label class="check"><input type="checkbox" checked=${keysOn.value} onChange=${(event) => { keysOn.value = event.currentTarget.checked; }} />Single keys are shortcuts</label>
    <div class="keys">${LIST.map(([group, keys]) => html`<section key=${group}><h3>${group}</h3><dl>
      ${keys.map(([key, does]) => html`<div key=${key}><dt class="dim">${does}</dt><dd><kbd>${key.replace("⌘", MOD)}</kbd></dd></div>`)}</dl></section>`)}</div>
  </${Dialog}>`;
}

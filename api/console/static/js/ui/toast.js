/** Short messages about what was done; a live region reads them out. */
import { html, signal } from "../lib.js";
import { Dot } from "./status.js";
import { Button } from "./button.js";

const shown = signal([]);
let last = 0;

/** Say something: toast("Cancelled", { state: "SUCCESS", more: "…", keep: false }). Errors stay until they are closed. */
export function toast(text, { state = "SUCCESS", more, keep = state === "ERROR" } = {}) {
  const id = ++last;
  shown.value = [...shown.value.slice(-3), { id, text, state, more }];
  if (!keep) setTimeout(() => dismiss(id), 6000);
}

const dismiss = (id) => { shown.value = shown.value.filter((one) => one.id !== id); };

export function Toasts() {
  return html`<div class="toasts" role="status" aria-live="polite">
    ${shown.value.map((one) => html`<div class="toast" key=${one.id}><${Dot} state=${one.state} /><div class="grow"><div class="strong">${one.text}</div>
      ${one.more && html`<div class="dim small wrap">${one.more}</div>`}</div><${Button} kind="quiet" small icon="cross" label="Close message" onClick=${() => dismiss(one.id)} /></div>`)}
  </div>`;
}

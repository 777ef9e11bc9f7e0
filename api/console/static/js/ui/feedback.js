/** What the page says back: messages, copies, empty and refused states, tabs. */
import { html, signal, useEffect, useId, useRef, useState } from "../lib.js";
import { ApiError } from "../data.js";
import { follow, href } from "../state.js";
import { Button, Count, Dot, Icon } from "./parts.js";

// Toast -----------------------------------------------------------------------------------------------
// Short messages about what was done; a live region reads them out.

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

// Copy ------------------------------------------------------------------------------------------------
// Copying, also where the page came over plain HTTP and has no clipboard.

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

// Empty -----------------------------------------------------------------------------------------------
// The states that every board has besides showing something: nothing there, loading, refused, not found.

/** Nothing there, and how that changes. */
export const Empty = ({ icon = "info", title, children }) => html`<div class="empty"><span class="mark"><${Icon} name=${icon} /></span><h2>${title}</h2>${children}</div>`;

/** How many parts of the page wait for their first answer. */
export const waiting = signal(0);

/** Before the first answer. `rows`: about how much is to come. */
export function Loading({ rows = 5, label = "Loading" }) {
  useEffect(() => {
    waiting.value += 1;
    return () => { waiting.value -= 1; };
  }, []);
  return html`<div class="loading" role="status" aria-busy="true"><span class="sr">${label}</span>
  ${Array.from({ length: rows }, (_, i) => html`<div class="bone" key=${i} style=${{ width: `${92 - ((i * 23) % 40)}%` }}></div>`)}</div>`;
}

const value = (given) => (given === null || given === undefined ? "none" : typeof given === "string" ? given : JSON.stringify(given));

/** A refusal as it is: its kind and sentence, the places of a schema, the fields that drift apart. */
export function ErrorBox({ error, onRetry, title }) {
  if (!error) return null;
  const refusal = error instanceof ApiError ? error : new ApiError(0, { error: String(error.message ?? error) }, "");
  return html`<div class="note tone-bad" role="alert"><${Icon} name="alert" />
    <div class="grow stack">
      <div><b>${title ?? refusal.kind}</b>${refusal.status ? html` <code>${refusal.status}${refusal.code ? ` ${refusal.code}` : ""}</code>` : null}
        <div class="wrap">${refusal.message}</div></div>
      ${refusal.details?.length ? html`<ul>${refusal.details.map((one) => html`<li class="wrap"><code>${one.instancePath || "/"}</code> ${one.message}</li>`)}</ul>` : null}
      ${refusal.drift?.length ? html`<${Drift} rows=${refusal.drift} />` : null}
    </div>
    ${onRetry && html`<div class="end"><${Button} small icon="refresh" onClick=${onRetry}>Try again</${Button}></div>`}
  </div>`;
}

/** The fields in which what exists differs from what was asked for. */
export const Drift = ({ rows }) => html`<div class="table-wrap"><table class="table"><caption class="sr">Where the existing run differs</caption>
  <thead><tr><th>Field</th><th>The run has</th><th>You asked for</th></tr></thead>
  <tbody>${rows.map((row) => html`<tr key=${row.field}><td><code>${row.field}</code></td><td class="wrap">${value(row.existing)}</td><td class="wrap">${value(row.incoming)}</td></tr>`)}</tbody></table></div>`;

/** Loading, error or nothing there, else the children: html`<${States} of=${resource} empty=${…} isEmpty=${…}>`. Old data stays under an error. */
export function States({ of, isEmpty, empty, rows, children }) {
  const box = of.error && html`<${ErrorBox} error=${of.error} onRetry=${of.refresh} />`;
  if (of.data === undefined) return box || html`<${Loading} rows=${rows} />`;
  return html`${box}${isEmpty ? empty : children}`;
}

// Lazy ------------------------------------------------------------------------------------------------
// A component whose module loads when it is first shown.

const loaded = new Map();

/**
 * `load` imports the module, `name` is what it exports. Nothing is shown while it loads, or `meanwhile`.
 * @param {{load: () => Promise<object>, name: string, props?: object, meanwhile?: any}} given
 */
export function Lazy({ load, name, props, meanwhile = null }) {
  const [component, set] = useState(() => loaded.get(name) ?? null);
  useEffect(() => {
    if (component) return;
    load().then((module) => { loaded.set(name, module[name]); set(() => module[name]); },
      () => toast("A part of the page did not load", { state: "ERROR", more: "Load the page again." }));
  }, []);
  return component ? html`<${component} ...${props} />` : meanwhile;
}

// Tabs ------------------------------------------------------------------------------------------------
// Views beside each other: Tabs are links, since each has an address; Seg picks one of a few in place.

/**
 * @param {{label: string, value: string, tabs: {id: string, label: string, to: object, count?: number}[]}} props
 *   to: the parameters of the tab's address. The panel is <${TabPanel} id=…>.
 */
export function Tabs({ label, value, tabs }) {
  const list = useRef(null);
  const move = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const links = [...list.current.querySelectorAll("[role=tab]")];
    const next = links[(links.indexOf(event.target) + step + links.length) % links.length];
    next?.focus();
    event.preventDefault();
    event.stopPropagation();
  };
  return html`<div class="tabs" role="tablist" aria-label=${label} ref=${list} onKeyDown=${move}>
    ${tabs.map((tab) => html`<a role="tab" key=${tab.id} id=${`tab-${tab.id}`} href=${href(tab.to)} aria-selected=${String(tab.id === value)}
      aria-controls=${tab.id === value ? `panel-${tab.id}` : null} tabindex=${tab.id === value ? 0 : -1} onClick=${(event) => follow(event, tab.to)}>
      ${tab.label}<${Count} n=${tab.count} label="open" /></a>`)}
  </div>`;
}

/** What a tab shows. */
export const TabPanel = ({ id, class: extra = "", children }) =>
  html`<div role="tabpanel" id=${`panel-${id}`} aria-labelledby=${`tab-${id}`} class=${extra}>${children}</div>`;

/** @param {{label: string, value: string, options: [string, any, number?][], onChange: (value: string) => void}} props */
export function Seg({ label, value, options, onChange }) {
  const name = useId();
  return html`<fieldset class="seg"><legend class="sr">${label}</legend>
    ${options.map(([id, text, n]) => html`<label key=${id}><input type="radio" name=${name} value=${id} checked=${id === value} onChange=${() => onChange(id)} />
      ${text}${n === undefined ? null : html`<span class="num faint">${n}</span>`}</label>`)}
  </fieldset>`;
}

/** The states that every board has besides showing something: nothing there, loading, refused, not found. */
import { html, signal, useEffect } from "../lib.js";
import { ApiError } from "../api.js";
import { Icon } from "./icons.js";
import { Button } from "./button.js";

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

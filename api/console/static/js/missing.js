/** What is shown for an address that names what is not there. */
import { html } from "./lib.js";
import { NAV } from "./nav.js";
import { to } from "./route.js";
import { useTitle } from "./title.js";
import { Empty } from "./ui/empty.js";

/** @param {{what: "board"|"tab"|"run"|string, given: string}} props */
export function Missing({ what, given }) {
  useTitle("Not found");
  return html`<div class="board-body"><h1 class="sr">Not found</h1><${Empty} icon="search" title=${`There is no such ${what}`}><p><code class="wrap">${given}</code> is not here. It may have been mistyped, or belong to another service.</p>
    <ul class="row wide">${NAV.map(({ label, to: where }) => html`<li key=${label}><a class="link" ...${to(where)}>${label}</a></li>`)}</ul></${Empty}></div>`;
}

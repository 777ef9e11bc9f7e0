/** Views of the list: the filter of each is its address, so a link to one is a link; those that a person saved stay in this browser. */
import { html, useState } from "../lib.js";
import { pref } from "../prefs.js";
import { to } from "../route.js";
import { Button } from "../ui/button.js";
import { Dialog } from "../ui/dialog.js";
import { TextField } from "../ui/fields.js";
import { tokensOf, textOf } from "./filter.js";

const GIVEN = [
  { name: "Everything", q: "" },
  { name: "Runs", q: "name:RunIntent" },
  { name: "Failed today", q: "status:ERROR after:24h" },
  { name: "Queued", q: "status:ENQUEUED" },
];
const MOST = 20;

/** @type {import("../../vendor/signals.js").Signal<{name: string, q: string}[]>} */
const saved = pref("ops.views", []);

const same = (a, b) => textOf(tokensOf(a)) === textOf(tokensOf(b));

export function Views({ q }) {
  const [naming, setNaming] = useState(false);
  const known = [...GIVEN, ...saved.value].some((view) => same(view.q, q));
  return html`<nav class="views row wide" aria-label="Views">${[...GIVEN, ...saved.value].map((view, i) => html`<span class="view" key=${view.name}><a ...${to({ board: "ops", q: view.q }, { replace: true })} aria-current=${same(view.q, q) ? "true" : null}>${view.name}</a>
      ${i >= GIVEN.length && html`<button type="button" class="copy" aria-label=${`Forget the view ${view.name}`} title="Forget this view" onClick=${() => { saved.value = saved.value.filter((other) => other !== view); }}>×</button>`}</span>`)}
    ${!known && q && html`<${Button} small kind="soft" icon="star" why=${saved.value.length >= MOST ? `There are ${MOST} saved views already; forget one.` : undefined} onClick=${() => setNaming(true)}>Save view…</${Button}>`}
    ${naming && html`<${NameDialog} q=${q} onClose=${() => setNaming(false)} />`}</nav>`;
}

function NameDialog({ q, onClose }) {
  const [name, setName] = useState("");
  const [tried, setTried] = useState(false);
  const taken = [...GIVEN, ...saved.value].some((view) => view.name === name.trim());
  const error = !name.trim() ? "Give it a name." : taken ? "There is a view of this name." : null;
  const save = (event) => {
    event?.preventDefault();
    setTried(true);
    if (error) return;
    saved.value = [...saved.value, { name: name.trim(), q }];
    onClose();
  };
  return html`<${Dialog} title="Save this view" onClose=${onClose} footer=${html`<${Button} onClick=${onClose}>Do not save</${Button}><${Button} kind="primary" onClick=${save}>Save</${Button}>`}>
    <p class="dim">Kept in this browser. To show it to somebody, send them the address of this page.</p><p class="mono small wrap">${q}</p>
    <form class="form" onSubmit=${save}><${TextField} label="Name" value=${name} onInput=${setName} maxlength="40" error=${tried ? error : null} /></form></${Dialog}>`;
}

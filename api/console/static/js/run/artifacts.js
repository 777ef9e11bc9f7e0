/** What a run left behind: a table, and a look at each. Content is shown as text, whatever it says it is. */
import { html, useEffect, useState } from "../lib.js";
import { api } from "../api.js";
import { bytes, clock } from "../format.js";
import { patch, to } from "../route.js";
import { Button } from "../ui/button.js";
import { Copy, copyAndSay } from "../ui/copy.js";
import { Drawer } from "../ui/dialog.js";
import { Empty, ErrorBox, Loading } from "../ui/empty.js";
import { Icon } from "../ui/icons.js";
import { Json } from "../ui/json.js";
import { Table } from "../ui/table.js";
import { Tag } from "../ui/status.js";
import { titleOf } from "../timeline/layout.js";

const LONGEST_SHOWN = 200_000;

/** The path of an artifact's content. */
export const pathOf = (id) => `/api/artifacts/${id.split("/").map(encodeURIComponent).join("/")}`;

/** Every artifact with the row that left it. Pure. */
export const artifactsOf = (rows) => rows.flatMap((row) => row.artifactRefs.map((ref) => ({ ...ref, row, name: ref.id.split("/").pop() || ref.id })));

/** @param {{store: import("../store.js").RunStore, params: object}} props */
export function ArtifactsTab({ store, params }) {
  const [q, setQ] = useState("");
  const all = artifactsOf(store.rows.value);
  const wanted = q.trim().toLowerCase();
  const shown = wanted ? all.filter((one) => `${one.id} ${one.kind} ${titleOf(one.row)}`.toLowerCase().includes(wanted)) : all;
  const open = params.artifact && (all.find((one) => one.id === params.artifact) ?? { id: params.artifact, name: params.artifact.split("/").pop(), kind: "artifact" });
  const show = (one) => patch({ artifact: one.id }, { replace: false });
  const columns = [
    { id: "name", label: "Name", sort: (one) => one.name, cell: (one) => html`<button type="button" class="row strong" onClick=${() => show(one)}><${Icon} name="file" small /><span class="clip">${one.name}</span></button>` },
    { id: "kind", label: "Kind", sort: (one) => one.kind, fit: true, cell: (one) => html`<${Tag}>${one.kind}</${Tag}>` },
    { id: "step", label: "Left by", sort: (one) => titleOf(one.row), cell: (one) => html`<a class="under" ...${to({ wid: store.wid, tab: "timeline", step: one.row.stepID })}>${titleOf(one.row)}</a>` },
    { id: "type", label: "Type", sort: (one) => one.mime, fit: true, cell: (one) => html`<span class="dim">${one.mime}</span>` },
    { id: "size", label: "Size", sort: (one) => one.size, end: true, fit: true, cell: (one) => bytes(one.size) },
    { id: "at", label: "When", sort: (one) => one.row.endedAt ?? one.row.startedAt, end: true, fit: true, cell: (one) => html`<span class="num dim">${clock(one.row.endedAt ?? one.row.startedAt)}</span>` },
    { id: "do", label: "", fit: true, cell: (one) => html`<${Copy} text=${one.id} what=${`address of ${one.name}`} />` },
  ];
  return html`<div class="board-body">
    <div class="toolbar"><div class="search narrow"><${Icon} name="search" small /><input class="input" type="search" aria-label="Filter artifacts" placeholder="Filter artifacts" value=${q} onInput=${(event) => setQ(event.currentTarget.value)} /></div>
      <span class="dim small num" role="status">${shown.length === all.length ? `${all.length} artifacts` : `${shown.length} of ${all.length}`}, ${bytes(shown.reduce((sum, one) => sum + one.size, 0))}</span></div>
    <${Table} caption="Artifacts of the run" rows=${shown} rowKey=${(one) => one.id} columns=${columns} on=${params.artifact} onRow=${show}
      empty=${html`<${Empty} icon="file" title=${wanted ? "None is like that" : "No artifacts yet"}><p>${wanted ? "Clear the filter to see all of them." : "What steps leave (plans, patches, logs, files) is listed here as soon as they end."}</p></${Empty}>`} />
    ${open && html`<${Preview} key=${open.id} artifact=${open} onClose=${() => patch({ artifact: "" })} />`}
  </div>`;
}

function Preview({ artifact, onClose }) {
  const [content, setContent] = useState(null);
  const [error, setError] = useState(null);
  useEffect(() => {
    const abort = new AbortController();
    api.text(pathOf(artifact.id), { signal: abort.signal }).then(setContent, (refused) => { if (!abort.signal.aborted) setError(refused); });
    return () => abort.abort();
  }, []);
  return html`<${Drawer} title=${artifact.name} onClose=${onClose} actions=${html`
      ${content && html`<${Button} small icon="copy" onClick=${() => copyAndSay(content.text, artifact.name)}>Copy</${Button}>`}
      <a class="btn small" href=${api.url(pathOf(artifact.id))} download=${artifact.name}><${Icon} name="download" small />Download</a>`}>
    <p class="mono tiny dim wrap">${artifact.id} <${Copy} text=${artifact.id} what="address" /></p>
    <${ErrorBox} error=${error} />
    ${!content && !error && html`<${Loading} rows=${8} />`}
    ${content && html`<${Content} text=${content.text} type=${content.type} />`}
  </${Drawer}>`;
}

function Content({ text, type }) {
  if (type.startsWith("application/json") && text.length <= LONGEST_SHOWN) {
    try { return html`<div class="code soft" tabindex="0" role="region" aria-label="Content"><${Json} value=${JSON.parse(text)} open=${2} /></div>`; } catch { /* shown as text */ }
  }
  const cut = text.length > LONGEST_SHOWN;
  return html`${cut && html`<p class="dim">The first ${bytes(LONGEST_SHOWN)} of ${bytes(text.length)}; download it for the rest.</p>`}
    ${text ? html`<pre class="code" tabindex="0" role="region" aria-label="Content">${cut ? text.slice(0, LONGEST_SHOWN) : text}</pre>` : html`<p class="dim">It is empty.</p>`}`;
}

/** What a run left behind: the artifacts tab and the proof tab. */
import { html, useEffect, useState } from "../lib.js";
import { api, path, url, useResource } from "../data.js";
import { bytes, clock, parseJson, patch, plural, to } from "../state.js";
import { isFinal } from "../store.js";
import { titleOf } from "../timeline/layout.js";
import { Json, Table } from "../ui/content.js";
import { Drawer } from "../ui/dialogs.js";
import { Copy, copyAndSay, Empty, ErrorBox, Loading, Seg, States } from "../ui/feedback.js";
import { Button, Dot, Icon, Tag, Time } from "../ui/parts.js";

// Artifacts -------------------------------------------------------------------------------------------
// What a run left behind: a table, and a look at each. Content is shown as text, whatever it says it is.

const LONGEST_SHOWN = 200_000;

/** The path of an artifact's content. */
export const pathOf = (id) => `/api/artifacts/${id.split("/").map(encodeURIComponent).join("/")}`;

/** Every artifact with the row that left it; a step that left nothing says so by one of kind "none". Pure. */
export const artifactsOf = (rows) => rows.flatMap((row) => row.artifactRefs.filter((ref) => ref.kind !== "none").map((ref) => ({ ...ref, row, name: ref.id.split("/").pop() || ref.id })));

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
    try { return html`<div class="code soft" tabindex="0" role="region" aria-label="Content"><${Json} value=${parseJson(text)} open=${2} /></div>`; } catch { /* shown as text */ }
  }
  const cut = text.length > LONGEST_SHOWN;
  return html`${cut && html`<p class="dim">The first ${bytes(LONGEST_SHOWN)} of ${bytes(text.length)}; download it for the rest.</p>`}
    ${text ? html`<pre class="code" tabindex="0" role="region" aria-label="Content">${cut ? text.slice(0, LONGEST_SHOWN) : text}</pre>` : html`<p class="dim">It is empty.</p>`}`;
}

// Proof -----------------------------------------------------------------------------------------------
// The evidence of a run: claims with what stands behind each, and where to look for oneself. A claim judges nothing, so nor does this page.

const SOURCES = { sql: "Product rows", dbos: "Engine rows", artifact: "Artifacts", api: "API", k6: "Load tests", policy: "Policy", test: "Tests" };

/** @param {{store: import("../store.js").RunStore}} props */
export function ProofTab({ store }) {
  const [source, setSource] = useState("");
  const every = isFinal(store.header.value) ? 0 : 5000;
  const proofs = useResource(path`/api/runs/${store.wid}/proofs`, { every });
  const checks = useResource(path`/api/runs/${store.wid}/eval`, { every });
  const cards = proofs.data ?? [];
  const kinds = [...new Set(cards.map((card) => card.source))];
  const shown = source ? cards.filter((card) => card.source === source) : cards;
  const folded = source ? [] : shown.filter((card) => card.source === "artifact");
  const first = source ? shown : shown.filter((card) => card.source !== "artifact");
  return html`<div class="board-body">
    <${Checks} checks=${checks} final=${isFinal(store.header.value)} />
    <div class="toolbar"><h2>Claims</h2>
      ${kinds.length > 1 && html`<${Seg} label="Source" value=${source} onChange=${setSource} options=${[["", "All", cards.length], ...kinds.map((kind) => [kind, SOURCES[kind] ?? kind, cards.filter((card) => card.source === kind).length])]} />`}
      <span class="end row"><${Button} icon="terminal" onClick=${() => copyAndSay(`bin/repro-pack --run ${store.wid} --out pack.json && bin/replay pack.json`, "Command to replay it")}>Copy replay</${Button}>
        <a class="btn" href=${url(path`/api/runs/${store.wid}/repro`)} download=${`repro-${store.wid}.json`}><${Icon} name="download" />Evidence as one file</a></span></div>
    <${States} of=${proofs} rows=${6} isEmpty=${!cards.length} empty=${html`<${Empty} icon="seal" title="No evidence yet"><p>Claims appear with the rows that the run writes.</p></${Empty}>`}>
      <ul class="claims">${first.map((card) => html`<${Claim} key=${card.id} card=${card} />`)}</ul>
      ${folded.length > 0 && html`<details class="more"><summary class="strong">${plural(folded.length, "artifact")}, each with its hash</summary><ul class="claims">${folded.map((card) => html`<${Claim} key=${card.id} card=${card} />`)}</ul></details>`}
    </${States}>
    <${Triage} wid=${store.wid} />
  </div>`;
}

/** The verdicts of the recipe's own checks: the only ones there are. */
function Checks({ checks, final }) {
  if (checks.error) return html`<${ErrorBox} error=${checks.error} onRetry=${checks.refresh} />`;
  if (!checks.data) return null;
  if (!checks.data.length) return html`<div class="note"><${Icon} name="info" /><span class="grow">${final ? "The recipe's checks have no verdict about this run: it did not execute its tasks, or has no recipe." : "The recipe's checks judge the run once it has executed its tasks."}</span></div>`;
  return html`<section class="stack tight"><h2>Checks of the recipe</h2><ul class="lines">${checks.data.map((check) => html`<li class="row" key=${check.checkId}><${Dot} state=${check.pass ? "SUCCESS" : "ERROR"} /><b>${check.checkId}</b><span>${check.pass ? "passed" : "failed"}</span><code class="grow clip dim">${check.reason}</code><span class="dim num"><${Time} ms=${check.createdAt} /></span></li>`)}</ul></section>`;
}

function Claim({ card }) {
  const isPath = card.rawRef?.startsWith("/"), isArtifact = card.rawRef?.startsWith("artifact://");
  return html`<li class="card claim" id=${card.id}><div class="row"><${Icon} name="file" small /><b class="grow wrap">${card.claim[0].toUpperCase()}${card.claim.slice(1)}</b><${Tag} title=${`Read from ${card.provenance}`}>${SOURCES[card.source] ?? card.source}</${Tag}></div>
    <code class="wrap evidence">${card.evidence}</code>
    <div class="row wide tiny dim"><code class="tiny">${card.provenance}</code><span title=${clock(card.sourceTs ?? card.ts)}>written <${Time} ms=${card.sourceTs ?? card.ts} /></span>
      ${(isPath || isArtifact) && html`<a class="under" href=${url(isArtifact ? pathOf(card.rawRef) : card.rawRef)} target="_blank" rel="noreferrer">look for yourself<span class="sr"> (opens another tab)</span></a>`}
      ${card.rawRef && !isPath && !isArtifact && html`<code class="tiny wrap">${card.rawRef}</code>`}<span class="end"><${Copy} text=${card.id} what="claim id" /></span></div></li>`;
}

/** Where to look when something is wrong, in the order in which to trust it. */
function Triage({ wid }) {
  const steps = [["Does the service answer?", url("/healthz")], ["The run's header", url(path`/api/runs/${wid}`)], ["Its row, in app.runs", null, `select * from app.runs where workflow_id = '${wid}'`],
    ["Its steps, in app.run_steps", null, `select * from app.run_steps where run_id = (select id from app.runs where workflow_id = '${wid}') order by started_at`],
    ["The engine's row, in dbos.workflow_status", null, `select * from dbos.workflow_status where workflow_uuid = '${wid}'`]];
  return html`<details class="card triage"><summary class="pad strong">When something is wrong: look in this order</summary><ol class="pad">${steps.map(([what, href, sql]) => html`<li key=${what}>${href ? html`<a class="under" href=${href} target="_blank" rel="noreferrer">${what}<span class="sr"> (opens another tab)</span></a>` : html`${what} <${Copy} text=${sql} what="query" />`}</li>`)}</ol></details>`;
}

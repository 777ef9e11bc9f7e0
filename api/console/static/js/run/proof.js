/** The evidence of a run: claims with what stands behind each, and where to look for oneself. A claim judges nothing, so nor does this page. */
import { html, useState } from "../lib.js";
import { path, url } from "../api.js";
import { clock } from "../format.js";
import { useResource } from "../resource.js";
import { isFinal } from "../store.js";
import { Copy, copyAndSay } from "../ui/copy.js";
import { Button } from "../ui/button.js";
import { Empty, ErrorBox, States } from "../ui/empty.js";
import { Icon } from "../ui/icons.js";
import { Dot, Tag } from "../ui/status.js";
import { Seg } from "../ui/tabs.js";
import { Time } from "../ui/time.js";
import { pathOf } from "./artifacts.js";

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
  return html`<div class="board-body">
    <${Checks} checks=${checks} final=${isFinal(store.header.value)} />
    <div class="toolbar"><h2>Claims</h2>
      ${kinds.length > 1 && html`<${Seg} label="Source" value=${source} onChange=${setSource} options=${[["", "All", cards.length], ...kinds.map((kind) => [kind, SOURCES[kind] ?? kind, cards.filter((card) => card.source === kind).length])]} />`}
      <span class="end row"><${Button} icon="terminal" onClick=${() => copyAndSay(`bin/repro-pack --run ${store.wid} --out pack.json && bin/replay pack.json`, "Command to replay it")}>Copy replay</${Button}>
        <a class="btn" href=${url(path`/api/runs/${store.wid}/repro`)} download=${`repro-${store.wid}.json`}><${Icon} name="download" />Evidence as one file</a></span></div>
    <${States} of=${proofs} rows=${6} isEmpty=${!cards.length} empty=${html`<${Empty} icon="seal" title="No evidence yet"><p>Claims appear with the rows that the run writes.</p></${Empty}>`}>
      <ul class="claims">${shown.map((card) => html`<${Claim} key=${card.id} card=${card} />`)}</ul>
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
  return html`<li class="card claim" id=${card.id}><div class="row"><${Icon} name="file" small /><b class="grow wrap">${card.claim}</b><${Tag} title=${`Read from ${card.provenance}`}>${SOURCES[card.source] ?? card.source}</${Tag}></div>
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

/** What is known of one row: when, by whom, what went in and what came out; of an open gate the decision itself. */
import { html } from "../lib.js";
import { api, path, useResource } from "../data.js";
import { bytes, clock, duration, patch, short, to } from "../state.js";
import { isFinal } from "../store.js";
import { axisOf, isWait, spanOf, stateOf, titleOf } from "../timeline/layout.js";
import { Copy, copyAndSay, Empty, ErrorBox, Lazy, Loading } from "../ui/feedback.js";
import { Button, Dot, look, Tag, tick } from "../ui/parts.js";

/** @param {{store: import("../store.js").RunStore, params: object, id: string|undefined}} props */
export function Inspector({ store, params, id }) {
  const rows = store.rows.value;
  const row = id && rows.find((one) => one.stepID === id);
  const group = id?.startsWith("group:") ? rows.filter((one) => one.kind === "child" && `group:${one.name}` === id) : null;
  if (!row && !group?.length) return html`<aside class="inspector" id="inspector" tabindex="-1" aria-label="Details"><${Nothing} store=${store} /></aside>`;
  const title = row ? titleOf(row) : `${group[0].name} × ${group.length}`;
  return html`<aside class="inspector" id="inspector" tabindex="-1" aria-label="Details" onKeyDown=${(event) => { if (event.key === "Escape") patch({ step: "" }); }}>
    <header class="row"><${Dot} state=${row ? stateOf(row) : "SUCCESS"} /><h2 class="grow clip" title=${title}>${title}</h2>
      ${row && html`<${Button} kind="quiet" small icon="link" label="Copy the address of this row" onClick=${() => copyAndSay(location.href, "Address")} />`}
      <${Button} kind="quiet" small icon="cross" label="Close details" onClick=${() => patch({ step: "" })} /></header>
    <div class="inspector-body">${row ? html`<${RowDetails} key=${row.stepID} store=${store} row=${row} />` : html`<${GroupDetails} rows=${group} />`}</div>
  </aside>`;
}

/** The run in figures, while no row is picked. */
function Nothing({ store }) {
  const rows = store.rows.value, run = store.header.value;
  if (!rows.length) return html`<div class="inspector-body"><${Empty} icon="runs" title="Nothing is recorded yet"><p>A row's times, what went in and what came out will be shown here.</p></${Empty}></div>`;
  const now = isFinal(run) ? run.updatedAt : tick.value;
  const axis = axisOf(rows, now, false);
  const waited = rows.filter(isWait).reduce((sum, row) => { const [a, b] = spanOf(row, now); return sum + b - a; }, 0);
  const tasks = rows.filter((row) => row.kind === "child");
  const tries = tasks.reduce((sum, row) => sum + (row.attempts?.length ?? 0), 0);
  const longest = rows.filter((row) => !isWait(row)).reduce((best, row) => { const [a, b] = spanOf(row, now); return b - a > best[0] ? [b - a, row] : best; }, [-1, null])[1];
  const states = ["SUCCESS", "ERROR", "TIMED_OUT", "WAITING", "RUNNING", "ENQUEUED", "CANCELLED"].map((state) => [state, rows.filter((row) => stateOf(row) === state).length]).filter(([, n]) => n);
  const facts = [
    ["Recorded", duration(axis.to - axis.from)],
    waited > 0 && ["Waited for people", duration(waited)],
    tasks.length > 0 && ["Tasks", html`<span class="num">${tasks.length}</span>${tries > tasks.length ? html` <span class="dim">in ${tries} attempts</span>` : null}`],
    longest && ["Longest", html`<button type="button" class="under" onClick=${() => patch({ step: longest.stepID })}>${titleOf(longest)}</button> <span class="num dim">${duration(spanOf(longest, now)[1] - longest.startedAt)}</span>`],
  ].filter(Boolean);
  return html`<header class="row"><h2 class="grow">The run in short</h2></header><div class="inspector-body"><dl class="facts">${facts.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>
    <dl class="facts">${states.map(([state, n]) => html`<div key=${state}><dt class="row"><${Dot} state=${state} />${look(state).word}</dt><dd class="num">${n}</dd></div>`)}</dl>
    <p class="small dim">Pick a row for its times, what went in and what came out.</p></div>`;
}

function GroupDetails({ rows }) {
  const spans = rows.map((row) => spanOf(row, tick.value));
  const took = spans.map(([a, b]) => b - a);
  const all = Math.max(...spans.map(([, b]) => b)) - Math.min(...spans.map(([a]) => a));
  const sum = took.reduce((a, b) => a + b, 0);
  return html`<dl class="facts"><div><dt>Together</dt><dd class="num">${duration(all)}, side by side</dd></div><div><dt>Work</dt><dd class="num">${duration(sum)} (${(sum / Math.max(1, all)).toFixed(1)} at a time)</dd></div>
    <div><dt>Longest</dt><dd class="num">${duration(Math.max(...took))}</dd></div><div><dt>Shortest</dt><dd class="num">${duration(Math.min(...took))}</dd></div></dl>
  <ul class="lines">${rows.map((row) => html`<li key=${row.stepID}><button type="button" class="row" onClick=${() => patch({ step: row.stepID })}><${Dot} state=${stateOf(row)} label=${look(stateOf(row)).word} /><span class="grow clip">${titleOf(row)}</span><span class="num dim">${duration(spanOf(row, tick.value)[1] - row.startedAt)}</span></button></li>`)}</ul>`;
}

function RowDetails({ store, row }) {
  const gate = row.kind === "gate" && store.gates.value.find((one) => one.gateKey === row.stepID);
  if (gate) return html`<${Lazy} load=${() => import("./decision.js")} name="GateCard" props=${{ gate, bare: true, run: store.header.value, focusKeys: true, onAnswered: () => store.readGates(), onStale: () => store.readGates() }} meanwhile=${html`<${Loading} />`} />`;
  return html`<${Facts} row=${row} wid=${store.wid} /><${Details} row=${row} wid=${store.wid} />`;
}

function Facts({ row, wid }) {
  const [from, end] = spanOf(row, tick.value);
  const facts = [
    ["State", html`${look(stateOf(row)).word}${row.attempt > 1 ? html` <${Tag}>attempt ${row.attempt}</${Tag}>` : null}`],
    row.queuedAt && row.queuedAt < from && ["Queued for", duration(from - row.queuedAt)],
    ["Started", clock(from)],
    ["Took", row.endedAt ? duration(end - from) : `${duration(end - from)} so far`],
    row.worker && ["Worker", html`<code title=${row.worker}>${short(row.worker, 8, 4)}</code>`],
    row.kind !== "child" && row.name !== row.stepID && ["Step", html`<code>${row.stepID}</code>`],
    row.kind === "child" && ["Workflow", html`<code title=${row.stepID}>${short(row.stepID, 12, 4)}</code> <${Copy} text=${row.stepID} what="workflow id" />`],
    row.seq !== undefined && ["Record", html`<span class="num">${row.seq}</span>`],
  ].filter(Boolean);
  const refs = row.artifactRefs.filter((ref) => ref.kind !== "none");
  return html`<dl class="facts">${facts.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>
    ${row.attempts?.length > 1 && html`<section class="stack tight"><h3>Attempts</h3><ul class="lines">${row.attempts.map((one) => html`<li key=${one.attempt} class="row"><${Dot} state=${one.errCode === "NONE" ? "SUCCESS" : "ERROR"} /><span class="grow">${one.attempt}. ${one.errCode === "NONE" ? "went well" : one.errCode}</span>${one.wallMs !== undefined && html`<span class="num dim">${duration(one.wallMs)}</span>`}</li>`)}</ul></section>`}
    ${row.error && html`<${ErrorBox} title=${row.error.name ?? "It failed"} error=${{ message: row.error.message ?? JSON.stringify(row.error) }} />`}
    ${refs.length > 0 && html`<section class="stack tight"><h3>Artifacts</h3><ul class="lines">${refs.map((ref) => html`<li key=${ref.id}><a class="row" ...${to({ wid, tab: "artifacts", artifact: ref.id })}><span class="grow clip">${ref.id.split("/").pop()}</span><${Tag}>${ref.kind}</${Tag}><span class="num dim">${bytes(ref.size)}</span></a></li>`)}</ul></section>`}`;
}

function Details({ row, wid }) {
  const details = useResource(path`/api/runs/${wid}/steps/${row.stepID}`);
  if (details.loading) return html`<${Loading} rows=${3} />`;
  if (details.error) return html`<${ErrorBox} error=${details.error} onRetry=${details.refresh} />`;
  const { input, output } = details.data;
  return html`${input !== undefined && input !== null && html`<${Lazy} load=${loadJson} name="JsonCard" props=${{ title: "Input", value: input }} />`}
    ${output !== undefined && output !== null && html`<${Lazy} load=${loadJson} name="JsonCard" props=${{ title: "Output", value: output }} />`}
    ${row.kind === "child" && html`<${Output} wid=${row.stepID} />`}`;
}

const loadJson = () => import("../ui/content.js");

/** What a sandbox task said, as it was streamed. */
function Output({ wid }) {
  const show = async () => {
    const { text } = await api.text(path`/api/runs/${wid}/stream/stdout`);
    const said = text.trim().split("\n").filter(Boolean).map((line) => JSON.parse(line)).map((one) => one.chunk ?? String(one)).join("");
    copyAndSay(said, "What it said");
  };
  return html`<div><${Button} small icon="copy" onClick=${show}>Copy what it said</${Button}></div>`;
}

/** The throughput board: how work flows, who holds the queues, which limits bite, how sandboxes and load tests do. */
import { html, useRef } from "../lib.js";
import { useResource } from "../data.js";
import { useTitle } from "../frame.js";
import { count, duration, now, patch, plural, relative, to } from "../state.js";
import { Bar, Columns, everyMinute } from "../ui/chart.js";
import { Table } from "../ui/content.js";
import { Copy, Empty, ErrorBox, Loading, Seg } from "../ui/feedback.js";
import { Pill, Tag, tick, Time } from "../ui/parts.js";

// What the figures add up to, and the card that shows one with its source and age.

// What the figures of the throughput board add up to. Pure.

/** The rates of all queues, or of one, by minute: [{at, made, ok, failed}]. */
export function byMinute(rate, queue = null) {
  const found = new Map();
  for (const row of rate) {
    if (queue && row.queueName !== queue) continue;
    const one = found.get(row.minute) ?? { at: row.minute, made: 0, ok: 0, failed: 0 };
    found.set(row.minute, { at: row.minute, made: one.made + row.made, ok: one.ok + row.ended - row.failed, failed: one.failed + row.failed });
  }
  return [...found.values()].sort((a, b) => a.at - b.at);
}

/** The numbers at the top. oldest: when the workflow was queued that waits longest; null when none waits. */
export function headline(flow, queue = null) {
  const queues = flow.queues.filter((row) => !queue || row.queueName === queue);
  const minutes = byMinute(flow.rate, queue);
  const last = minutes.filter((one) => one.at > flow.at - 10 * 60_000);
  const ended = minutes.reduce((sum, one) => sum + one.ok + one.failed, 0);
  const failed = minutes.reduce((sum, one) => sum + one.failed, 0);
  const ages = queues.map((row) => row.oldestQueuedAt).filter((at) => at !== null);
  return {
    queued: queues.reduce((sum, row) => sum + row.queued, 0), atWork: queues.reduce((sum, row) => sum + row.atWork, 0),
    oldest: ages.length ? Math.min(...ages) : null, ended, failed,
    perMinute: Math.round((last.reduce((sum, one) => sum + one.ok + one.failed, 0) / 10) * 10) / 10,
    failedShare: ended ? failed / ended : null,
  };
}

/** Partitions with what is queued and at work in each: [{queueName, partitionKey, queued, begun, oldest, weight, state}], the fullest first. */
export function byPartition(fairness, queue = null) {
  const found = new Map();
  for (const row of fairness) {
    if (queue && row.queueName !== queue) continue;
    const key = JSON.stringify([row.queueName, row.partitionKey]);
    const one = found.get(key) ?? { key, queueName: row.queueName, partitionKey: row.partitionKey, queued: 0, begun: 0, oldest: null, weight: row.weight ?? 1, state: row.state ?? null };
    if (row.status === "ENQUEUED") { one.queued += row.workflowCount; one.oldest = row.oldestCreatedAt; } else one.begun += row.workflowCount;
    found.set(key, one);
  }
  return [...found.values()].sort((a, b) => b.queued + b.begun - a.queued - a.begun || (a.key < b.key ? -1 : 1));
}

/** What a priority is called: the lanes have names. */
export const laneOf = (priority) => ({ 1: "interactive", 1000: "batch" })[priority] ?? null;

// A card of the board: what is measured, how much, since when it changed, where it was read and how long ago.

/** How a number moved since this page was opened: {from, to, since}; null as long as it has not. */
export function useChange(value) {
  const first = useRef(null);
  if (value === null || value === undefined) return null;
  first.current ??= { value, at: now() };
  return first.current.value === value ? null : { by: value - first.current.value, since: first.current.at };
}

/** "+12 in 4m 05s" beside a number. */
export function Change({ value }) {
  const change = useChange(value);
  if (!change) return null;
  return html`<span class="change tiny dim num" title="since this page was opened">${change.by > 0 ? "+" : "−"}${Math.abs(change.by)} in ${duration(tick.value - change.since)}</span>`;
}

/**
 * @param {{id: string, title: string, note?: any, value?: any, query?: string, from: string, at: number|null, children: any}} props
 *   query: the statement that was read; from: where, in words; at: when, by the clock of this browser
 */
export const Card = ({ id, title, note, value, query, from, at, children }) => html`<article class="card metric" data-card=${id} aria-label=${title}>
  <header><div><h2>${title}</h2>${note && html`<p class="dim small">${note}</p>`}</div>${value !== undefined && html`<span class="value">${value}</span>`}</header>
  <div class="body">${children}</div>
  <details class="source"><summary><span>Source: ${from}</span><span class="end num">${at ? `read ${relative(at + (now() - Date.now()), tick.value)}` : ""}</span></summary>
    ${query ? html`<div class="row"><span class="grow">The statement, as it runs:</span><${Copy} text=${query} what="statement" /></div><pre class="code" tabindex="0" aria-label=${`Statement of ${title}`}>${query}</pre>` : html`<p>Summaries of k6 that lie in <code>K6_DIR</code>, as <code>*-summary.json</code>.</p>`}</details>
</article>`;

// The throughput board: how work flows, who holds the queues, which limits bite, how sandboxes and load tests do.

const EVERY_MS = 5000;
const MINUTES = 60;
const METRICS = { concurrency: "at work at once", partitionConcurrency: "at work at once, fullest partition", rate: "starts" };
const STANDING = { capped: "wait", "rate-limited": "wait", "other-workers": "bad", paused: "wait" };

export function Board({ params }) {
  useTitle("Throughput");
  const flow = useResource("/api/ops/flow", { every: EVERY_MS });
  const board = useResource("/api/ops/throughput", { every: EVERY_MS });
  const queues = flow.data ? [...new Set(["queues", "rate", "policy"].flatMap((list) => flow.data[list].map((row) => row.queueName)))].sort() : [];
  const queue = params.queue || null;
  const ready = flow.data && board.data;
  const again = () => { flow.refresh(); board.refresh(); };
  return html`<div class="board throughput"><div class="board-head"><div class="board-title"><h1>Throughput</h1>
      <div class="actions row">${queues.length > 1 && html`<${Seg} label="Queue" value=${queue ?? ""} onChange=${(id) => patch({ queue: id || null })} options=${[["", "All queues"], ...queues.map((name) => [name, name])]} />`}</div></div></div>
    <div class="board-body">
      ${flow.error && html`<${ErrorBox} error=${flow.error} onRetry=${again} />`}${board.error && html`<${ErrorBox} error=${board.error} onRetry=${again} />`}
      ${!ready && !flow.error && !board.error && html`<${Loading} rows=${8} />`}
      ${ready && html`<${Strip} flow=${flow.data} queue=${queue} budgets=${board.data.budgets} /><${Rate} flow=${flow} queue=${queue} />
        <div class="two"><div class="stack wide-gap"><${Fairness} rows=${board.data.fairness} of=${board} queries=${flow.data.queries} queue=${queue} /><${Policy} flow=${flow} queue=${queue} /><${Templates} rows=${board.data.templates} of=${board} queries=${flow.data.queries} /></div>
          <div class="stack wide-gap"><${Priority} rows=${board.data.priority} of=${board} queries=${flow.data.queries} queue=${queue} /><${Budgets} rows=${board.data.budgets} of=${board} queries=${flow.data.queries} /><${Dedupe} flow=${flow} /></div></div>
        <${LoadTests} rows=${board.data.k6} of=${board} />`}
    </div></div>`;
}

function Strip({ flow, queue, budgets }) {
  const it = headline(flow, queue);
  return html`<div class="strip">
    <${Stat} value=${count(it.queued)} change=${it.queued} words="queued" /><${Stat} value=${count(it.atWork)} words="at work" />
    <${Stat} value=${it.oldest === null ? "–" : duration(tick.value - it.oldest)} words="oldest waits" />
    <${Stat} value=${it.perMinute} words="ended a minute (last 10)" /><${Stat} value=${count(it.failed)} tone=${it.failed ? "bad" : null} words=${`failed in the hour${it.failedShare === null ? "" : ` (${Math.round(it.failedShare * 100)}%)`}`} />
    <${Stat} value=${count(budgets.filter((row) => row.outcome === "blocked").length)} words="runs stopped by a budget" /></div>`;
}

const Stat = ({ value, change, words, tone }) => html`<div class="stat"><b class=${tone ? `tone-${tone}` : null}>${value}</b><span>${words}</span>${change !== undefined && html`<${Change} value=${change} />`}</div>`;

function Rate({ flow, queue }) {
  const points = everyMinute(byMinute(flow.data.rate, queue), flow.data.at - (MINUTES - 1) * 60_000, MINUTES);
  const sums = points.reduce((sum, one) => ({ made: sum.made + (one.made ?? 0), ok: sum.ok + (one.ok ?? 0), failed: sum.failed + (one.failed ?? 0) }), { made: 0, ok: 0, failed: 0 });
  const series = [{ key: "ok", label: "ended well", tone: "ok" }, { key: "failed", label: "ended badly", tone: "bad" }];
  return html`<${Card} id="rate" title="Rate" note="Workflows that ended, by minute, in the last hour" value=${`${count(sums.ok + sums.failed)} ended, ${count(sums.made)} made`} query=${flow.data.queries.rate} from="dbos.workflow_status" at=${flow.at}>
    <${Columns} points=${points} series=${series} label=${`Workflows by minute in the last hour: ${sums.ok} ended well, ${sums.failed} badly, ${sums.made} were made.`} />
    <details class="numbers"><summary>As a table</summary><${Table} caption="Rate by minute" rows=${points.filter((one) => one.made || one.ok || one.failed)} rowKey=${(one) => one.at} empty=${html`<${Nothing}>Nothing was made and nothing ended.</${Nothing}>`} columns=${[
      { id: "at", label: "Minute", cell: (one) => html`<${Time} ms=${one.at} at />` },
      ...[["made", "Made"], ["ok", "Ended well"], ["failed", "Ended badly"]].map(([id, label]) => ({ id, label, end: true, cell: (one) => count(one[id] ?? 0) })),
    ]} /></details></${Card}>`;
}

function Fairness({ rows, of, queries, queue }) {
  const partitions = byPartition(rows, queue);
  const most = Math.max(1, ...partitions.map((one) => one.queued + one.begun));
  return html`<${Card} id="fairness" title="Fairness" note="What each partition has queued and under way" value=${plural(partitions.length, "partition")} query=${queries.fairness} from="app.v_ops_queue_fairness" at=${of.at}>
    ${partitions.length ? html`<${Table} caption="Partitions" rows=${partitions.slice(0, 100)} rowKey=${(row) => row.key} columns=${[
      { id: "key", label: "Partition", sort: (row) => row.partitionKey ?? "", cell: (row) => html`<div class="clip">${row.partitionKey ?? html`<span class="dim">without one</span>`}</div><span class="faint tiny">${row.queueName}</span>` },
      { id: "load", label: "Load", cell: (row) => html`<${Bar} parts=${[{ value: row.begun, tone: "run" }, { value: row.queued, tone: "mute" }]} max=${most} label=${`${row.begun} under way, ${row.queued} queued`} />` },
      { id: "begun", label: "Under way", end: true, sort: (row) => row.begun, cell: (row) => count(row.begun) },
      { id: "queued", label: "Queued", end: true, sort: (row) => row.queued, cell: (row) => count(row.queued) },
      { id: "oldest", label: "Oldest", end: true, sort: (row) => row.oldest, cell: (row) => (row.oldest ? html`<span class="num nowrap">${duration(tick.value - row.oldest)}</span>` : "–") },
      { id: "weight", label: "Weight", end: true, sort: (row) => row.weight, cell: (row) => html`${row.weight}${STANDING[row.state] ? html` <${Tag} tone=${STANDING[row.state]}>${row.state}</${Tag}>` : ""}` },
    ]} />` : html`<${Nothing}>Nothing is queued or under way.</${Nothing}>`}</${Card}>`;
}

function Priority({ rows, of, queries, queue }) {
  const shown = rows.filter((row) => !queue || row.queueName === queue);
  const most = Math.max(1, ...shown.map((row) => row.avgLatencyMs ?? 0));
  return html`<${Card} id="priority" title="Priority" note="From being made to the last move, on average; lower numbers go first" value=${plural(shown.length, "class", "classes")} query=${queries.priority} from="app.v_ops_queue_priority" at=${of.at}>
    ${shown.length ? html`<${Table} caption="Priorities" rows=${shown} rowKey=${(row) => `${row.queueName}/${row.priority}/${row.status}`} columns=${[
      { id: "priority", label: "Priority", sort: (row) => row.priority, cell: (row) => html`<span class="nowrap"><b class="num">${row.priority}</b>${laneOf(row.priority) ? html` <span class="dim">${laneOf(row.priority)}</span>` : ""}</span><div class="faint tiny">${row.queueName}</div>` },
      { id: "status", label: "Status", sort: (row) => row.status, cell: (row) => html`<${Pill} state=${row.status} word=${row.status === "PENDING" ? "Under way" : undefined} />` },
      { id: "count", label: "Workflows", end: true, sort: (row) => row.workflowCount, cell: (row) => count(row.workflowCount) },
      { id: "bar", label: "", cell: (row) => html`<${Bar} parts=${[{ value: row.avgLatencyMs ?? 0, tone: "accent" }]} max=${most} label=${`${duration(row.avgLatencyMs)} on average`} />` },
      { id: "latency", label: "Latency", end: true, sort: (row) => row.avgLatencyMs, cell: (row) => html`<span class="num nowrap">${duration(row.avgLatencyMs)}</span>` },
    ]} />` : html`<${Nothing}>Nothing is queued or under way.</${Nothing}>`}</${Card}>`;
}

function Policy({ flow, queue }) {
  const rows = flow.data.policy.filter((row) => !queue || row.queueName === queue);
  const full = rows.filter((row) => row.observed >= row.limit).length;
  return html`<${Card} id="policy" title="Limits" note="What the settings of the queues allow, and what was observed" value=${full ? html`<span class="tone-wait">${full} reached</span>` : rows.length ? "none reached" : undefined} query=${flow.data.queries.policy} from="dbos.queues" at=${flow.at}>
    ${rows.length ? html`<${Table} caption="Limits" rows=${rows} rowKey=${(row) => `${row.queueName}/${row.metric}`} columns=${[
      { id: "queue", label: "Queue", sort: (row) => row.queueName, cell: (row) => html`<div>${row.queueName}</div><span class="faint tiny">${METRICS[row.metric]}${row.periodS ? ` in ${duration(row.periodS * 1000)}` : ""}</span>` },
      { id: "bar", label: "", cell: (row) => html`<${Bar} parts=${[{ value: row.observed, tone: row.observed >= row.limit ? "wait" : "run" }]} max=${row.limit} limit=${row.limit} label=${`${row.observed} of ${row.limit}`} />` },
      { id: "observed", label: "Observed", end: true, sort: (row) => row.observed, cell: (row) => count(row.observed) },
      { id: "limit", label: "Limit", end: true, sort: (row) => row.limit, cell: (row) => count(row.limit) },
    ]} />` : html`<${Nothing}>No queue has a limit.</${Nothing}>`}</${Card}>`;
}

const Budgets = ({ rows, of, queries }) => html`<${Card} id="budgets" title="Budgets" note="Limits of runs that were reached; the latest first" value=${rows.length ? plural(rows.length, "event") : undefined} query=${queries.budgets} from="app.artifacts" at=${of.at}>
  ${rows.length ? html`<${Table} caption="Budgets" rows=${rows} rowKey=${(row) => row.rawRef ?? `${row.runId}/${row.metric}`} columns=${[
    { id: "run", label: "Run", cell: (row) => html`<a class="link mono" ...${to({ wid: row.runId, board: "run", tab: "timeline" })}>${row.runId.slice(0, 14)}…</a><div class="faint tiny">${row.metric}</div>` },
    { id: "bar", label: "", cell: (row) => html`<${Bar} parts=${[{ value: row.observed, tone: row.observed > row.limit ? "bad" : "run" }]} max=${row.observed} limit=${row.limit} label=${`${row.observed} observed, ${row.limit} allowed`} />` },
    { id: "observed", label: "Observed", end: true, sort: (row) => row.observed, cell: (row) => count(row.observed) },
    { id: "limit", label: "Limit", end: true, sort: (row) => row.limit, cell: (row) => count(row.limit) },
    { id: "outcome", label: "Outcome", cell: (row) => html`<${Tag} tone=${row.outcome === "blocked" ? "bad" : "wait"}>${row.outcome}</${Tag}>` },
    { id: "at", label: "When", end: true, sort: (row) => row.ts, cell: (row) => html`<span class="nowrap"><${Time} ms=${row.ts} /></span>` },
  ]} />` : html`<${Nothing}>No budget stopped a run.</${Nothing}>`}</${Card}>`;

function Templates({ rows, of, queries }) {
  const most = Math.max(1, ...rows.map((row) => (row.avgBootMs ?? 0) + (row.avgExecMs ?? 0)));
  return html`<${Card} id="templates" title="Templates" note="Sandboxes of the last day: how long to boot, how long at work" value=${rows.length ? plural(rows.length, "template") : undefined} query=${queries.templates} from="app.sbx_runs" at=${of.at}>
    ${rows.length ? html`<${Table} caption="Templates" rows=${rows} rowKey=${(row) => `${row.recipeId}/${row.recipeV}/${row.templateKey}/${row.templateId}`} columns=${[
      { id: "recipe", label: "Recipe", sort: (row) => row.recipeId, cell: (row) => html`<div class="clip">${row.recipeId ?? html`<span class="dim">none</span>`}${row.recipeV ? html`<span class="dim">@${row.recipeV}</span>` : ""}</div><code class="faint tiny" title=${row.templateKey}>${row.templateId ? `prebuilt ${row.templateId}` : row.templateKey.slice(0, 18)}</code>` },
      { id: "bar", label: "", cell: (row) => html`<${Bar} parts=${[{ value: row.avgBootMs ?? 0, tone: "wait" }, { value: row.avgExecMs ?? 0, tone: "run" }]} max=${most} label=${`${duration(row.avgBootMs)} to boot, ${duration(row.avgExecMs)} at work`} />` },
      { id: "boot", label: "Boot", end: true, sort: (row) => row.avgBootMs, cell: (row) => html`<span class="nowrap">${duration(row.avgBootMs)}</span>${row.p95BootMs ? html`<div class="faint tiny nowrap">p95 ${duration(row.p95BootMs)}</div>` : ""}` },
      { id: "exec", label: "Work", end: true, sort: (row) => row.avgExecMs, cell: (row) => html`<span class="nowrap">${duration(row.avgExecMs)}</span>` },
      { id: "runs", label: "Tasks", end: true, sort: (row) => row.runCount, cell: (row) => count(row.runCount) },
    ]} />` : html`<${Nothing}>No sandbox was used in the last day.</${Nothing}>`}</${Card}>`;
}

function Dedupe({ flow }) {
  const rows = Object.fromEntries(flow.data.dedupe.map((row) => [row.what, row]));
  return html`<${Card} id="dedupe" title="Done once" note="Side effects of the last day, and keys that hold a second workflow off" query=${flow.data.queries.dedupe} from="app.mock_receipts, dbos.workflow_status" at=${flow.at}>
    <div class="figures"><div class="stat"><b>${count(rows.effects?.count ?? 0)}</b><span>side effects</span></div><div class="stat"><b>${count(rows.effects?.absorbed ?? 0)}</b><span>repetitions that changed nothing</span></div>
    <div class="stat"><b>${count(rows.keys?.count ?? 0)}</b><span>deduplication keys in force</span></div></div></${Card}>`;
}

function LoadTests({ rows, of }) {
  const most = Math.max(1, ...rows.map((row) => Math.max(row.p99 ?? row.p95 ?? 0, row.threshold ?? 0)));
  return html`<${Card} id="k6" title="Load tests" note="Latency of requests against the threshold that each test set" value=${rows.length ? `${rows.filter((row) => row.pass).length} of ${rows.length} passed` : undefined} from="k6 summaries" at=${of.at}>
    ${rows.length ? html`<${Table} caption="Load tests" rows=${rows} rowKey=${(row) => row.name} columns=${[
      { id: "name", label: "Test", sort: (row) => row.name, cell: (row) => html`<div>${row.name}</div><span class="faint tiny"><${Time} ms=${row.ts || null} /></span>` },
      { id: "pass", label: "Verdict", cell: (row) => html`<${Pill} state=${row.pass ? "SUCCESS" : "ERROR"} word=${row.pass ? "Passed" : "Not passed"} />` },
      { id: "bar", label: "p95 and threshold", cell: (row) => html`<${Bar} parts=${[{ value: row.p95 ?? 0, tone: row.pass ? "ok" : "bad" }]} max=${most} limit=${row.threshold} label=${`p95 ${duration(row.p95)}, threshold ${row.threshold === null ? "none" : duration(row.threshold)}`} />` },
      { id: "avg", label: "Mean", end: true, sort: (row) => row.avg, cell: (row) => duration(row.avg) },
      { id: "p95", label: "p95", end: true, sort: (row) => row.p95, cell: (row) => duration(row.p95) },
      { id: "p99", label: "p99", end: true, sort: (row) => row.p99, cell: (row) => duration(row.p99) },
      { id: "threshold", label: "Threshold", end: true, sort: (row) => row.threshold, cell: (row) => duration(row.threshold) },
    ]} />` : html`<${Empty} icon="chart" title="No load test was run"><p>Put k6 summaries into <code>K6_DIR</code>.</p></${Empty}>`}</${Card}>`;
}

const Nothing = ({ children }) => html`<p class="dim small">${children}</p>`;

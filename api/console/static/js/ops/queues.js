/** The queues: how deep, how old, how limited, paused or not; their partitions; and the workers that take from them, by version. */
import { html, useRef, useState } from "../lib.js";
import { api, path, useResource } from "../data.js";
import { boot, count, duration, mayNot, patch, plural, to } from "../state.js";
import { Bar, Spark } from "../ui/chart.js";
import { Table } from "../ui/content.js";
import { ReasonDialog } from "../ui/dialogs.js";
import { Empty, ErrorBox, States, toast } from "../ui/feedback.js";
import { Button, Pill, Tag, tick, Time } from "../ui/parts.js";

// The dialog of a pause, or of its end: the effect, who and why.

/** @param {{what: string, url: string, body?: object, resume: boolean, effect: string, onClose: () => void, onDone: () => void}} props */
export function PauseDialog({ what, url, body, resume, effect, onClose, onDone }) {
  const verb = resume ? "Resume" : "Pause";
  return html`<${ReasonDialog} title=${`${verb} ${what}`} verb=${verb} onClose=${onClose} send=${async (by) => {
    await api.post(url, { ...body, ...by });
    toast(resume ? "Resumed" : "Paused", { more: what });
    onDone();
  }}><p class="dim">${effect}</p></${ReasonDialog}>`;
}

// The queues: how deep, how old, how limited, paused or not; their partitions; and the workers that take from them, by version.

const EVERY_MS = 3000;
const KEPT = 60;

/** A rate in words: 100 a minute, 5 in 10 s. Pure. */
export const rateWords = (rate) => (rate ? `${count(rate.starts)} ${rate.periodS === 60 ? "a minute" : rate.periodS === 1 ? "a second" : `in ${duration(rate.periodS * 1000)}`}` : null);

/** What of a queue's partitions is not plainly ready or empty: [standing, how many]. Pure. */
export const standings = (queue) => Object.entries(queue.partitions).filter(([, n]) => n);

/** Workers by version: [{version, workers, atWork, paused}], the newest start first. Pure. */
export function byVersion(workers) {
  const found = new Map();
  for (const worker of workers) {
    const version = worker.version ?? "";
    const one = found.get(version) ?? { version, workers: 0, atWork: 0, paused: 0, startedAt: 0 };
    found.set(version, { ...one, workers: one.workers + 1, atWork: one.atWork + worker.atWork, paused: one.paused + (worker.paused ? 1 : 0), startedAt: Math.max(one.startedAt, worker.startedAt) });
  }
  return [...found.values()].sort((a, b) => b.startedAt - a.startedAt);
}

const STANDING = { ready: "run", empty: undefined, capped: "wait", "rate-limited": "wait", "other-workers": "bad", paused: "wait" };

export function Queues({ params }) {
  const queues = useResource("/api/ops/queues", { every: EVERY_MS });
  const depth = useResource("/api/ops/queue-depth", { every: EVERY_MS });
  const workers = useResource("/api/ops/workers", { every: EVERY_MS });
  const [asked, setAsked] = useState(null);
  const history = useHistory(queues.data, queues.at);
  const refresh = () => { queues.refresh(); workers.refresh(); };
  return html`<div class="stack wide-gap">
    <section class="stack"><div class="row"><h2 class="grow">Queues</h2><span class="dim small">${queues.data && plural(queues.data.length, "queue")}</span></div>
      <${States} of=${queues} rows=${4} isEmpty=${queues.data?.length === 0} empty=${html`<${Empty} icon="ops" title="No queue is known yet"><p>A queue is known once something was put into it or a worker serves it.</p></${Empty}>`}>
        <div class="queue-grid">${(queues.data ?? []).map((queue) => html`<${QueueCard} key=${queue.queueName} queue=${queue} depth=${(depth.data ?? []).filter((row) => row.queueName === queue.queueName)} history=${history[queue.queueName] ?? []}
          open=${params.queue === queue.queueName} onAsk=${setAsked} />`)}</div></${States}>
      ${depth.error && html`<${ErrorBox} error=${depth.error} title="The ages of queued work could not be read" onRetry=${depth.refresh} />`}
      ${params.queue && html`<${Partitions} key=${params.queue} queue=${params.queue} onAsk=${setAsked} />`}</section>
    <section class="stack"><h2>Workers and versions</h2>
      <${States} of=${workers} rows=${3} isEmpty=${workers.data?.length === 0} empty=${html`<div class="note tone-bad" role="alert"><span>No worker is alive, so nothing is taken from any queue. Start one: <code>bin/start worker</code>.</span></div>`}>
        <${Versions} workers=${workers.data ?? []} /><${Workers} workers=${workers.data ?? []} onAsk=${setAsked} /></${States}></section>
    ${asked && html`<${PauseDialog} ...${asked} onClose=${() => setAsked(null)} onDone=${refresh} />`}</div>`;
}

/** How deep each queue was at the last readings, while this is on the screen. */
function useHistory(queues, at) {
  const kept = useRef({ at: null, by: {} });
  if (queues && at !== kept.current.at) {
    kept.current.at = at;
    for (const queue of queues) kept.current.by[queue.queueName] = [...(kept.current.by[queue.queueName] ?? []), queue.queued].slice(-KEPT);
  }
  return kept.current.by;
}

function QueueCard({ queue, depth, history, open, onAsk }) {
  const queued = depth.find((row) => row.status === "ENQUEUED");
  const oldest = queued?.oldestCreatedAt ?? null;
  const cap = queue.concurrency ?? null;
  const limited = [queue.rate && `${rateWords(queue.rate)}`, queue.partitionConcurrency && `${queue.partitionConcurrency} at once each partition`, queue.partitionRate && `${rateWords(queue.partitionRate)} each partition`].filter(Boolean);
  const ask = () => onAsk({ what: `queue ${queue.queueName}`, url: path`/api/ops/queues/${queue.queueName}/${queue.paused ? "resume" : "pause"}`, resume: queue.paused, effect: queue.paused
    ? `Workers take from it again. ${plural(queue.queued, "workflow")} wait${queue.queued === 1 ? "s" : ""} there.`
    : `No worker takes anything from it until it is resumed. ${plural(queue.queued, "workflow")} wait${queue.queued === 1 ? "s" : ""} there; what is at work goes on.` });
  return html`<article class="card queue-card" data-queue=${queue.queueName} aria-label=${`Queue ${queue.queueName}`}>
    <header><h3 class="grow clip">${queue.queueName}</h3>${queue.paused ? html`<${Pill} state="WAITING" word="Paused" />` : queue.opensAt && queue.opensAt > tick.value ? html`<${Tag} tone="wait">rate used up</${Tag}>` : null}
      <${Button} small kind="quiet" why=${mayNot("operate") ?? undefined} icon=${queue.paused ? "play" : "pause"} onClick=${ask}>${queue.paused ? "Resume" : "Pause"}</${Button}></header>
    <div class="body"><div class="figures"><div class="stat"><b>${count(queue.queued)}</b><span>queued</span></div><div class="stat"><b>${count(queue.atWork)}</b><span>at work</span></div>
      <div class="stat"><b class="num">${oldest === null ? "–" : duration(tick.value - oldest)}</b><span>oldest waits</span></div><${Spark} values=${history} label=${`Queued in the last readings: ${history.at(-1) ?? 0} now`} /></div>
      ${cap !== null && html`<div class="row"><${Bar} parts=${[{ value: queue.atWork, tone: queue.atWork >= cap ? "wait" : "run" }]} max=${cap} label=${`${queue.atWork} of at most ${cap} at work`} /><span class="num small dim nowrap">${queue.atWork} of ${cap}</span></div>`}
      <div class="row wide tags">${standings(queue).map(([standing, n]) => html`<${Tag} key=${standing} tone=${STANDING[standing]} title=${`Partitions that are ${standing}`}>${n} ${standing}</${Tag}>`)}
        ${limited.map((text) => html`<span class="dim tiny" key=${text}>${text}</span>`)}
        <span class="grow"></span><button type="button" class="link small" aria-expanded=${String(Boolean(open))} onClick=${() => patch({ queue: open ? null : queue.queueName })}>Partitions</button>
        <a class="link small" ...${to({ board: "ops", q: `queue:${queue.queueName}` })}>Workflows</a></div></div></article>`;
}

function Partitions({ queue, onAsk }) {
  const found = useResource(`${path`/api/ops/queues/${queue}/partitions`}?limit=200`, { every: EVERY_MS });
  const most = Math.max(1, ...(found.data ?? []).map((row) => row.queued + row.atWork));
  const ask = (row) => { const paused = row.state === "paused"; onAsk({ what: `partition ${row.partitionKey} of ${queue}`, url: path`/api/ops/queues/${queue}/${paused ? "resume" : "pause"}`, body: { partitionKey: row.partitionKey }, resume: paused, effect: paused ? "Workers take from it again." : "No worker takes anything from it until it is resumed; what is at work goes on." }); };
  return html`<section class="stack tight" aria-label=${`Partitions of ${queue}`}><h3>Partitions of ${queue}</h3>
    <${States} of=${found} rows=${3} isEmpty=${found.data?.length === 0} empty=${html`<p class="dim">None has work or something of its own.</p>`}>
    <${Table} caption=${`Partitions of ${queue}`} rows=${found.data ?? []} rowKey=${(row) => row.partitionKey ?? ""} columns=${[
      { id: "key", label: "Partition", sort: (row) => row.partitionKey ?? "", cell: (row) => row.partitionKey ?? html`<span class="dim">without one</span>` },
      { id: "state", label: "State", sort: (row) => row.state, cell: (row) => html`<${Tag} tone=${STANDING[row.state]}>${row.state}</${Tag}>${row.until ? html` <span class="dim tiny">until <${Time} ms=${row.until} /></span>` : ""}` },
      { id: "load", label: "Queued and at work", cell: (row) => html`<${Bar} parts=${[{ value: row.atWork, tone: "run" }, { value: row.queued, tone: "mute" }]} max=${most} label=${`${row.atWork} at work, ${row.queued} queued`} />` },
      { id: "queued", label: "Queued", end: true, sort: (row) => row.queued, cell: (row) => count(row.queued) },
      { id: "atWork", label: "At work", end: true, sort: (row) => row.atWork, cell: (row) => count(row.atWork) },
      { id: "weight", label: "Weight", end: true, sort: (row) => row.weight, cell: (row) => row.weight },
      { id: "own", label: "Own limits", cell: (row) => html`<span class="dim small">${[row.concurrency && `${row.concurrency} at once`, rateWords(row.rate)].filter(Boolean).join(", ") || "–"}</span>` },
      { id: "act", label: "", fit: true, cell: (row) => row.partitionKey && html`<${Button} small kind="quiet" why=${mayNot("operate") ?? undefined} icon=${row.state === "paused" ? "play" : "pause"} onClick=${() => ask(row)}>${row.state === "paused" ? "Resume" : "Pause"}</${Button}>` },
    ]} /></${States}></section>`;
}

const Versions = ({ workers }) => html`<ul class="row wide versions">${byVersion(workers).map((one) => html`<li class="card stat" key=${one.version}><b>${one.version || "any"}${one.version === boot.service.appVersion ? html` <${Tag} tone="ok">this service</${Tag}>` : ""}</b>
  <span>${plural(one.workers, "worker")}, ${count(one.atWork)} at work${one.paused ? `, ${one.paused} paused` : ""}</span></li>`)}</ul>`;

function Workers({ workers, onAsk }) {
  const ask = (row) => onAsk({ what: `worker ${row.place}`, url: path`/api/ops/workers/${row.workerID}/${row.paused ? "resume" : "pause"}`, resume: row.paused, effect: row.paused ? "It takes work again." : `It takes nothing more; its ${plural(row.atWork, "workflow")} at work go on.` });
  return html`<${Table} caption="Workers" rows=${workers} rowKey=${(row) => row.workerID} columns=${[
    { id: "place", label: "Worker", sort: (row) => row.place, cell: (row) => html`<div>${row.place}</div><code class="faint tiny">${row.workerID}</code>` },
    { id: "version", label: "Version", sort: (row) => row.version, cell: (row) => html`<code>${row.version ?? "any"}</code>` },
    { id: "state", label: "State", cell: (row) => html`<${Pill} state=${row.paused ? "WAITING" : "SUCCESS"} word=${row.paused ? "Paused" : "Taking work"} />` },
    { id: "atWork", label: "At work", end: true, sort: (row) => row.atWork, cell: (row) => count(row.atWork) },
    { id: "up", label: "Up for", end: true, sort: (row) => row.startedAt, cell: (row) => html`<span class="num" title="since it started">${duration(tick.value - row.startedAt)}</span>` },
    { id: "lease", label: "Lease", end: true, cell: (row) => html`<${Time} ms=${row.leasedUntil} />` },
    { id: "act", label: "", fit: true, cell: (row) => html`<${Button} small kind="quiet" why=${mayNot("operate") ?? undefined} icon=${row.paused ? "play" : "pause"} onClick=${() => ask(row)}>${row.paused ? "Resume" : "Pause"}</${Button}>` },
  ]} />`;
}

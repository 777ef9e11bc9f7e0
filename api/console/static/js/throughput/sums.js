/** What the figures of the throughput board add up to. Pure. */

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

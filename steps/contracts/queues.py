"""Queues as operators see them, and what they say of whoever changes one."""

from typing import Annotated, Literal

from pydantic import Field

from steps.contracts.base import Count, JsonObject, Millis, Name, Positive, Wire
from steps.contracts.ops import Said, WrittenOp

#: What a partition stands at: has work; has none; as many at work as its cap allows; its rate is used up; has work for other workers only
#: (of another version, or with other workflows); paused.
PartitionStanding = Literal["ready", "empty", "capped", "rate-limited", "other-workers", "paused"]


class RateLimit(Wire):
    """At most so many starts in any so many seconds."""

    starts: Positive
    periodS: Annotated[float, Field(gt=0)]


class QueueView(Wire):
    """A queue over all workers: what waits there (counted up to 100,000), what is at work, its limits. What it does not have is left out.

    concurrency, rate: of the whole queue; partition…: of each partition that has none of its own. opensAt: its rate is used up until then.
    partitions: how many there are of each standing, counted up to 100,000.
    """

    queueName: str
    paused: bool
    queued: Count
    atWork: Count
    concurrency: int | None = None
    rate: RateLimit | None = None
    opensAt: Millis | None = None
    partitionConcurrency: int | None = None
    partitionRate: RateLimit | None = None
    partitions: dict[PartitionStanding, Count]


class PartitionView(Wire):
    """A partition that has work, or something of its own. Its key is null for workflows without one.

    until: it is looked at again then. concurrency, rate: its own, which go before the queue's. queued: counted up to 10,000.
    """

    queueName: str
    partitionKey: str | None
    state: PartitionStanding
    until: Millis | None = None
    queued: Count
    atWork: Count
    weight: float
    concurrency: int | None = None
    rate: RateLimit | None = None


class WorkerView(Wire):
    """A worker process that is alive: where it runs (host and process), whose workflows it takes, what it has at work."""

    workerID: str
    place: str
    version: str | None = None
    paused: bool
    atWork: Count
    startedAt: Millis
    leasedUntil: Millis


QueueOp = Literal["pause", "resume", "weight", "limit", "pause-worker", "resume-worker"]


class PauseRequest(Wire):
    """actor, reason: who does this and why; kept for good. partitionKey: only this partition of the queue."""

    partitionKey: Name | None = None
    actor: Said
    reason: Said


class PauseWorkerRequest(Wire):
    actor: Said
    reason: Said


class PartitionsQuery(Wire):
    """after: the key of the last one of the page before."""

    after: Name | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


class AuditRow(Wire):
    """What an operator did, when (ISO, UTC), and why: to a workflow, or to a queue, a partition of it, or a worker. given: what was set."""

    op: WrittenOp | QueueOp
    at: str
    actor: str
    reason: str
    targetWorkflowID: str | None = None
    forkedWorkflowID: str | None = None
    queueName: str | None = None
    partitionKey: str | None = None
    workerID: str | None = None
    given: JsonObject | None = None


class QueueAction(Wire):
    """Something that an operator does to a queue, or to one of its partitions, or to a worker."""

    queueName: Name | None = None
    partitionKey: Name | None = None
    workerID: Name | None = None
    actor: Said
    reason: Said

"""How work flows through the queues: what waits, how fast it goes, what is held back, and what is done once only."""

from typing import Literal

from steps.contracts.base import Count, Millis, Wire


class Sourced(Wire):
    """Where a row was read: the kind of place, the tables, and where to look for oneself."""

    source: Literal["sql"]
    provenance: str
    rawRef: str


class DepthRow(Sourced):
    """A queue: what waits there (counted up to 100,000) and since when, and what is at work."""

    queueName: str
    queued: Count
    atWork: Count
    oldestQueuedAt: Millis | None
    newestQueuedAt: Millis | None


class RateRow(Sourced):
    """What happened in a queue in the minute from `minute` on: workflows made, those that ended, and of these the ones that ended badly."""

    queueName: str
    minute: Millis
    made: Count
    ended: Count
    failed: Count


class PolicyRow(Sourced):
    """A limit of a queue, and how near it is: concurrency of the queue or of its fullest partition, starts in the last period of a rate."""

    queueName: str
    metric: Literal["concurrency", "partitionConcurrency", "rate"]
    limit: Count
    observed: Count
    periodS: float | None = None


class DedupeRow(Sourced):
    """Something that is done once only: how many there are, and how often another try found it done."""

    what: Literal["effects", "keys"]
    count: Count
    absorbed: Count


class Flow(Wire):
    """at: the moment of all figures. queries: the statement behind each list, here and on the throughput board."""

    at: Millis
    queues: list[DepthRow]
    rate: list[RateRow]
    policy: list[PolicyRow]
    dedupe: list[DedupeRow]
    queries: dict[str, str]

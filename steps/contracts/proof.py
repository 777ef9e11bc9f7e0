"""Evidence about a run, and figures about all of them, as readers get to see them."""

from typing import Annotated, Literal

from pydantic import Field

from steps.contracts.base import JsonObject, Millis, Text, Wire
from steps.contracts.queues import PartitionStanding

ProofSource = Literal["sql", "api", "dbos", "artifact", "k6", "policy", "test"]
Count = Annotated[int, Field(ge=0)]


class ProofCard(Wire):
    """One claim with its evidence. The id stays the same as long as what it speaks of exists; ts and sourceTs are the source's own.

    source: the kind of place it was read from; provenance: the very place; rawRef: where to look for oneself.
    """

    id: Text
    claim: Text
    evidence: Text
    source: ProofSource
    ts: Millis
    sourceTs: Millis | None = None
    provenance: Text
    rawRef: str | None = None


class EvalRow(Wire):
    """The verdict of a recipe's check over what a run left. payload: figures, where the kind of check has some."""

    checkId: str
    passed: Annotated[bool, Field(alias="pass")]
    reason: str
    payload: JsonObject | None = None
    createdAt: Millis


class Sourced(Wire):
    """A figure that says where it was read."""

    source: ProofSource | None = None
    provenance: str | None = None
    rawRef: str | None = None


class FairnessRow(Sourced):
    """Workflows of one partition of a queue that are queued or running; the partition's share against the others', and where it stands."""

    queueName: str
    partitionKey: str | None
    status: str
    workflowCount: Count
    oldestCreatedAt: Millis | None
    newestCreatedAt: Millis | None
    weight: float = 1.0
    state: PartitionStanding | None = None


class PriorityRow(Sourced):
    """Workflows of one priority of a queue; avgLatencyMs: from being made to the last move."""

    queueName: str
    priority: int
    status: str
    workflowCount: Count
    avgLatencyMs: float | None


class BudgetRow(Sourced):
    """A run that a budget stopped."""

    runId: str
    metric: str
    limit: float
    observed: float
    outcome: str
    ts: Millis


class TemplateRow(Sourced):
    """Sandbox tasks of one template: how many, how long they booted and ran on average, and what 95 of 100 booted in at most.
    templateId: of one that was built ahead; without it they started from the plain environment.
    """

    recipeId: str | None
    recipeV: str | None
    templateKey: str
    templateId: str | None = None
    runCount: Count
    avgBootMs: float | None
    p95BootMs: float | None = None
    avgExecMs: float | None


class K6Row(Sourced):
    """A load test: latencies and their threshold in milliseconds. Without figures `pass` is false."""

    name: str
    p95: float | None
    p99: float | None
    avg: float | None
    threshold: float | None
    pass_: Annotated[bool, Field(alias="pass")]
    ts: Millis


class Throughput(Wire):
    """What the throughput board shows."""

    fairness: list[FairnessRow]
    priority: list[PriorityRow]
    budgets: list[BudgetRow]
    templates: list[TemplateRow]
    k6: list[K6Row]

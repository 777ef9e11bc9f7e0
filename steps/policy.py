"""The rules of the queues that a start must keep, checked in a fixed order before anything is written.

Pure functions: the caller loads the recipe's limits and passes the settings. Every refusal is a
QueuePolicyError with one sentence.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from steps.contracts.intent import Budget, QueueName, RunRequest, Workload
from steps.errors import QueuePolicyError

PARENT_QUEUE = "intentQ"
SANDBOX_QUEUE = "sbxQ"
CONTROL_QUEUE = "controlQ"
PARENTS_QUEUES = frozenset({PARENT_QUEUE, SANDBOX_QUEUE})
QUEUES: tuple[str, ...] = get_args(QueueName)
BATCH_PRIORITY = 1000
_LANE_PRIORITY: Mapping[str, int] = {"interactive": 1, "batch": BATCH_PRIORITY}


@dataclass(frozen=True, slots=True)
class QueueRules:
    """What the settings say about the queues."""

    partitioned: frozenset[str] = frozenset({"intentQ", "sbxQ"})
    prioritised: frozenset[str] = frozenset(QUEUES)


@dataclass(frozen=True, slots=True)
class RecipeLimits:
    """The limits of the recipe that a start is held to. `pinned` when the request named an exact version."""

    recipe: str
    queue: str
    concurrency: int
    steps: int
    sandbox_minutes: int
    pinned: bool


@dataclass(frozen=True, slots=True)
class Placement:
    """Where and how a start goes into its queue."""

    queue: str
    partition: str | None
    priority: int | None
    dedup_id: str | None
    timeout_ms: int | None


def place(request: RunRequest, limits: RecipeLimits, rules: QueueRules, *, is_parent: bool = True) -> Placement:
    """The place of a start that keeps all rules. Raises QueuePolicyError for the first one it breaks."""
    _check_overrides(request, limits)
    queue = request.queueName or limits.queue
    if queue not in QUEUES:
        raise QueuePolicyError(f"unsupported queueName: {queue}")
    if is_parent and queue != PARENT_QUEUE:
        raise QueuePolicyError(f"parent intent workflow must use {PARENT_QUEUE} (got {queue})")
    _check_budget(request)
    if request.workload is not None:
        _check_caps(request.workload, limits)
    _check_blanks(request)
    partition = _partition(request, queue, rules, is_parent)
    priority = _priority(request, queue, rules)
    dedup_id = request.deduplicationID or request.taskKey
    if dedup_id is None and priority is None:
        raise QueuePolicyError(f"dedupe_or_priority_required: queue {queue} takes a deduplicationID, a taskKey or a priority")
    # In a partitioned queue the workflow id alone tells starts apart.
    return Placement(queue, partition, priority, None if queue in rules.partitioned else dedup_id, request.timeoutMS)


def _check_overrides(request: RunRequest, limits: RecipeLimits) -> None:
    if not limits.pinned:
        return
    if request.recipeName is not None and request.recipeName != limits.recipe:
        raise QueuePolicyError(f"recipeName override mismatch: {request.recipeName} is not the pinned {limits.recipe}")
    if request.recipeVersion is not None:
        raise QueuePolicyError("recipeVersion override is not allowed for pinned recipeRef")


def _check_budget(request: RunRequest) -> None:
    budget, workload = request.budget, request.workload
    if budget is None:
        return
    if workload is not None:
        _within_budget("maxFanout", workload.steps, budget.maxFanout)
        _within_budget("maxSBXMinutes", workload.sandboxMinutes, budget.maxSBXMinutes)
    if request.timeoutMS is not None:
        _within_budget("maxWallClockMS", request.timeoutMS, budget.maxWallClockMS)


def _within_budget(metric: str, observed: int, limit: int) -> None:
    if observed > limit:
        raise QueuePolicyError(budget_breach(metric, observed, limit, "ingress"))


def budget_breach(metric: str, observed: int, limit: int, scope: str) -> str:
    """The sentence for a budget that is used up, at the start ('ingress') or in the run ('runtime')."""
    assert metric in Budget.model_fields
    return f"budget:{metric}: observed {observed} > limit {limit} ({scope})"


def _check_caps(workload: Workload, limits: RecipeLimits) -> None:
    for what, wanted, allowed in (
        ("concurrency", workload.concurrency, limits.concurrency),
        ("steps", workload.steps, limits.steps),
        ("sandboxMinutes", workload.sandboxMinutes, limits.sandbox_minutes),
    ):
        if wanted > allowed:
            raise QueuePolicyError(f"recipe cap exceeded: {what} {wanted} > {allowed}")


def _check_blanks(request: RunRequest) -> None:
    for field, value in (("tenantId", request.tenantId), ("taskKey", request.taskKey)):
        if value is not None and not value.strip():
            raise QueuePolicyError(f"{field} cannot be blank")


def _partition(request: RunRequest, queue: str, rules: QueueRules, is_parent: bool) -> str | None:
    partition = request.queuePartitionKey
    # A parent's tasks go into their queue under the parent's key.
    needed = queue in rules.partitioned or (is_parent and bool(PARENTS_QUEUES & rules.partitioned))
    if needed and (partition is None or not partition.strip()):
        parent = "true" if is_parent else "false"
        raise QueuePolicyError(f"queuePartitionKey is required for partitioned operations (queue: {queue}, isParent: {parent})")
    return partition


def _priority(request: RunRequest, queue: str, rules: QueueRules) -> int | None:
    if queue not in rules.prioritised:
        if request.priority is not None or request.lane is not None:
            raise QueuePolicyError(f"priority disabled for queue: {queue}")
        return None
    if request.priority is not None:
        return request.priority
    return _LANE_PRIORITY[request.lane or "interactive"]

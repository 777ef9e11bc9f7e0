"""The rules of the queues: what is let in, where it is put, and which rule speaks first."""

from typing import Any

import pytest

from steps.contracts.base import parse
from steps.contracts.intent import RunRequest
from steps.errors import QueuePolicyError
from steps.policy import Placement, QueueRules, RecipeLimits, place

PINNED = RecipeLimits("r", "intentQ", concurrency=2, steps=10, sandbox_minutes=5, pinned=True)
BY_NAME = RecipeLimits("r", "intentQ", concurrency=2, steps=10, sandbox_minutes=5, pinned=False)
OPEN = QueueRules(partitioned=frozenset())
BUDGET = {
    "maxFanout": 3,
    "maxSBXMinutes": 4,
    "maxArtifactsMB": 1,
    "maxRetriesPerStep": 0,
    "maxWallClockMS": 1000,
}


def asked(**options: Any) -> RunRequest:
    return parse(RunRequest, {"queuePartitionKey": "tenant"} | options)


def workload(concurrency: int = 1, steps: int = 1, minutes: int = 1) -> dict[str, int]:
    return {"concurrency": concurrency, "steps": steps, "sandboxMinutes": minutes}


def refusal(request: RunRequest, limits: RecipeLimits = PINNED, rules: QueueRules | None = None, **kwargs: Any) -> str:
    with pytest.raises(QueuePolicyError) as refused:
        place(request, limits, rules or QueueRules(), **kwargs)
    assert refused.value.body() == {"error": refused.value.message, "code": "queue_policy_violation"}
    assert refused.value.status == 400
    return refused.value.message


def test_a_start_goes_into_the_parents_queue_at_interactive_priority() -> None:
    assert place(asked(), PINNED, QueueRules()) == Placement("intentQ", "tenant", 1, None, None)


@pytest.mark.parametrize(
    ("options", "priority"),
    [
        ({}, 1),
        ({"lane": "interactive"}, 1),
        ({"lane": "batch"}, 1000),
        ({"lane": "batch", "priority": 5}, 5),
        ({"priority": 0}, 0),
    ],
)
def test_the_lane_gives_the_priority_unless_one_is_said(options: dict[str, Any], priority: int) -> None:
    assert place(asked(**options), PINNED, QueueRules()).priority == priority


def test_a_partitioned_queue_takes_no_deduplication_id() -> None:
    request = asked(deduplicationID="d", taskKey="t")
    assert place(request, PINNED, QueueRules()).dedup_id is None
    assert place(request, PINNED, OPEN).dedup_id == "d"
    assert place(asked(taskKey="t"), PINNED, OPEN).dedup_id == "t"


def test_the_timeout_is_passed_on() -> None:
    assert place(asked(timeoutMS=5000), PINNED, QueueRules()).timeout_ms == 5000


def test_a_pinned_recipe_can_not_be_overridden() -> None:
    assert refusal(asked(recipeName="other")).startswith("recipeName override mismatch")
    assert refusal(asked(recipeVersion=2)) == "recipeVersion override is not allowed for pinned recipeRef"
    place(asked(recipeName="r"), PINNED, QueueRules())
    place(asked(recipeName="other", recipeVersion=2), BY_NAME, QueueRules())


@pytest.mark.parametrize("queue", ["sbxQ", "controlQ", "compileQ"])
def test_a_parent_belongs_into_its_own_queue(queue: str) -> None:
    assert refusal(asked(queueName=queue)) == f"parent intent workflow must use intentQ (got {queue})"


def test_the_recipes_queue_counts_when_none_is_said() -> None:
    limits = RecipeLimits("r", "sbxQ", 1, 1, 1, pinned=True)
    assert refusal(asked(), limits) == "parent intent workflow must use intentQ (got sbxQ)"
    place(asked(queueName="intentQ"), limits, QueueRules())
    assert place(asked(), limits, QueueRules(), is_parent=False).queue == "sbxQ"
    assert refusal(asked(), RecipeLimits("r", "otherQ", 1, 1, 1, pinned=True)) == "unsupported queueName: otherQ"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"workload": workload(steps=4)}, "budget:maxFanout: observed 4 > limit 3 (ingress)"),
        ({"workload": workload(minutes=5)}, "budget:maxSBXMinutes: observed 5 > limit 4 (ingress)"),
        ({"timeoutMS": 1001}, "budget:maxWallClockMS: observed 1001 > limit 1000 (ingress)"),
    ],
)
def test_more_than_the_budget_is_refused(options: dict[str, Any], sentence: str) -> None:
    assert refusal(asked(budget=BUDGET, **options)) == sentence


def test_exactly_the_budget_is_allowed() -> None:
    place(asked(budget=BUDGET, workload=workload(2, 3, 4), timeoutMS=1000), PINNED, QueueRules())


@pytest.mark.parametrize(
    ("load", "sentence"),
    [
        (workload(concurrency=999), "recipe cap exceeded: concurrency 999 > 2"),
        (workload(steps=11), "recipe cap exceeded: steps 11 > 10"),
        (workload(minutes=6), "recipe cap exceeded: sandboxMinutes 6 > 5"),
    ],
)
@pytest.mark.parametrize("limits", [PINNED, BY_NAME])
def test_more_than_the_recipes_limits_is_refused(load: dict[str, int], sentence: str, limits: RecipeLimits) -> None:
    assert refusal(asked(workload=load), limits) == sentence


def test_exactly_the_recipes_limits_are_allowed() -> None:
    place(asked(workload=workload(2, 10, 5)), PINNED, QueueRules())


@pytest.mark.parametrize("field", ["tenantId", "taskKey"])
def test_a_blank_name_is_refused(field: str) -> None:
    assert refusal(asked(**{field: "  "})) == f"{field} cannot be blank"


@pytest.mark.parametrize("key", [None, "   "])
@pytest.mark.parametrize("queues", [["intentQ", "sbxQ"], ["intentQ"], ["sbxQ"]])
def test_a_parent_needs_a_partition_for_itself_or_for_its_tasks(key: str | None, queues: list[str]) -> None:
    rules = QueueRules(partitioned=frozenset(queues))
    sentence = "queuePartitionKey is required for partitioned operations (queue: intentQ, isParent: true)"
    assert refusal(asked(queuePartitionKey=key), rules=rules) == sentence


def test_without_partitions_no_partition_is_needed() -> None:
    assert place(asked(queuePartitionKey=None), PINNED, OPEN).partition is None


@pytest.mark.parametrize("options", [{"priority": 3}, {"lane": "interactive"}])
def test_a_queue_without_priorities_takes_none(options: dict[str, Any]) -> None:
    rules = QueueRules(prioritised=frozenset())
    assert refusal(asked(**options), rules=rules) == "priority disabled for queue: intentQ"


def test_a_start_needs_a_priority_or_a_deduplication_id() -> None:
    rules = QueueRules(prioritised=frozenset())
    assert refusal(asked(), rules=rules).startswith("dedupe_or_priority_required")
    assert place(asked(deduplicationID="d"), PINNED, rules).priority is None


def test_the_first_rule_in_order_speaks() -> None:
    broken: dict[str, Any] = {
        "recipeName": "other",
        "queueName": "sbxQ",
        "budget": BUDGET,
        "workload": workload(999, 999, 999),
        "tenantId": " ",
        "queuePartitionKey": " ",
        "priority": 3,
    }
    mended = [
        ("recipeName override mismatch", {"recipeName": "r"}),
        ("parent intent workflow", {"queueName": "intentQ"}),
        ("budget:maxFanout", {"budget": None}),
        ("recipe cap exceeded: concurrency", {"workload": None}),
        ("tenantId cannot be blank", {"tenantId": "t"}),
        ("queuePartitionKey is required", {"queuePartitionKey": "p"}),
        ("priority disabled", {"priority": None}),
    ]
    rules = QueueRules(prioritised=frozenset())
    for sentence, change in mended:
        assert refusal(asked(**broken), rules=rules).startswith(sentence)
        broken |= change

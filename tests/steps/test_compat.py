"""What older clients leave to us: known goals become constraints, and runs without a partition get one."""

from typing import Any

import pytest

from steps.compat import partitioned, rehearsed
from steps.contracts.base import parse
from steps.contracts.intent import Intent, RunRequest
from steps.contracts.plan import Plan
from steps.decide import replayed_build
from steps.opencode import rehearsed as rehearsed_answer
from steps.run_record import Asks, asks_of


def constraints_of(goal: str, **constraints: Any) -> dict[str, Any]:
    return rehearsed(parse(Intent, {"goal": goal, "inputs": {"a": 1}, "constraints": constraints})).constraints


@pytest.mark.parametrize(
    ("goal", "asks"),
    [
        ("ask user", Asks(ask_user=True)),
        ("parallel test", Asks(parallel_approvals=True)),
        ("timeout test", Asks(gate_timeout_s=2)),
        ("fail me", Asks()),
    ],
)
def test_a_known_goal_becomes_what_the_workflow_reads_in_constraints(goal: str, asks: Asks) -> None:
    assert asks_of(constraints_of(goal)) == asks


def test_a_run_that_is_to_fail_is_given_a_command_that_fails() -> None:
    plan = Plan(goal="fail me", design=[], files=[], risks=[], tests=[])
    build = rehearsed_answer(constraints_of("fail me"), "build", replayed_build(plan))
    assert build == {"patch": [], "tests": [], "test_command": "FAIL_ME"}


@pytest.mark.parametrize("goal", ["demo", "ask user please", "Ask user", "do not fail me", "ask users"])
def test_any_other_goal_is_left_as_it_is(goal: str) -> None:
    intent = parse(Intent, {"goal": goal, "inputs": {}, "constraints": {"determinism": True}, "connectors": []})
    assert rehearsed(intent) is intent


def test_other_constraints_stay_and_own_test_hooks_win() -> None:
    assert constraints_of("ask user", strict=True) == {"strict": True, "testHooks": {"askUser": True}}
    assert constraints_of("ask user", testHooks={"askUser": False}) == {"testHooks": {"askUser": False}}


def test_an_intent_is_stored_with_what_was_added_and_without_what_was_not_given() -> None:
    intent = rehearsed(parse(Intent, {"goal": "ask user", "inputs": {}, "constraints": {}}))
    assert intent.document() == {"goal": "ask user", "inputs": {}, "constraints": {"testHooks": {"askUser": True}}}


@pytest.mark.parametrize(
    ("options", "partition"),
    [
        ({}, "legacy"),
        ({"queuePartitionKey": None}, "legacy"),
        ({"tenantId": "acme"}, "acme"),
        ({"tenantId": "acme", "queuePartitionKey": "mine"}, "mine"),
        ({"queuePartitionKey": " "}, " "),
    ],
)
def test_a_run_without_a_partition_goes_into_its_tenants_or_a_shared_one(options: dict[str, Any], partition: str) -> None:
    assert partitioned(parse(RunRequest, options)).queuePartitionKey == partition

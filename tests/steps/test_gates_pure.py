"""What replies mean, and what an intent asks of its run."""

from typing import Any

import pytest

from steps.decisions import decision_of
from steps.gates import APPROVE_PLAN, Gate, prompt
from steps.run_record import Asks, asks_of


@pytest.mark.parametrize(
    "payload",
    [
        {"choice": "yes"},
        {"approved": True},
        {"decision": "yes"},
        {"decision": "approve"},
        {"decision": "approved"},
        {"choice": "yes", "approved": False},
        {"choice": "perhaps", "approved": True},
    ],
)
def test_a_clear_yes_is_a_yes(payload: dict[str, Any]) -> None:
    assert decision_of(payload).yes


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"choice": "no"},
        {"choice": "YES"},
        {"choice": True},
        {"choice": ["yes"]},
        {"approved": False, "decision": "approve"},
        {"approved": "true"},
        {"approved": 1},
        {"decision": "no"},
        {"decision": "reject"},
        {"decision": "rejected"},
        {"decision": {"yes": True}},
        {"answer": "yes"},
    ],
)
def test_anything_else_is_a_no(payload: dict[str, Any]) -> None:
    assert not decision_of(payload).yes


@pytest.mark.parametrize("name", ["rationale", "reason", "note", "notes"])
def test_a_reply_may_say_why_under_any_of_its_names(name: str) -> None:
    assert decision_of({"choice": "no", name: "because"}).rationale == "because"


def test_the_first_reason_that_says_something_counts() -> None:
    assert decision_of({"rationale": " ", "reason": 7, "note": "because", "notes": "more"}).rationale == "because"
    assert decision_of({"choice": "yes"}).rationale is None


def test_a_prompt_says_until_when_it_waits() -> None:
    gate = Gate(key="k", topic="human:k", ttl_s=60, created_at_ms=1_000, approved_before=False)
    assert prompt(gate, APPROVE_PLAN) == {
        "schemaVersion": 1,
        "formSchema": APPROVE_PLAN.form,
        "ttlS": 60,
        "createdAt": 1_000,
        "deadlineAt": 61_000,
        "uiHints": None,
        "defaults": None,
    }


@pytest.mark.parametrize(
    ("constraints", "asks"),
    [
        ({}, Asks()),
        ({"askUser": True}, Asks(ask_user=True)),
        ({"ask_user": True}, Asks(ask_user=True)),
        ({"waitForHumanInput": True, "parallel_approvals": True}, Asks(ask_user=True, parallel_approvals=True)),
        ({"testHooks": {"askUser": False}, "askUser": True}, Asks()),
        ({"testHooks": {"parallelApprovals": True}, "planApprovalTimeoutS": 9}, Asks(parallel_approvals=True, gate_timeout_s=9)),
        ({"testHooks": {"timeoutS": 2}, "planApprovalTimeoutS": 9}, Asks(gate_timeout_s=2)),
        ({"askUser": "yes", "timeoutS": "soon", "testHooks": 1}, Asks()),
        ({"timeoutS": 0}, Asks(gate_timeout_s=1)),
        ({"timeoutS": 1e9}, Asks(gate_timeout_s=86_400)),
        ({"timeoutS": True}, Asks()),
    ],
)
def test_constraints_say_what_a_run_does_besides(constraints: dict[str, Any], asks: Asks) -> None:
    assert asks_of(constraints) == asks

"""What ends a turn before its answer is there."""

import time
from typing import Any

import pytest

from steps.opencode_server.faults import Fault
from steps.opencode_server.replies import event_of
from steps.opencode_server.watchdog import Patience, Watchdog


def dog(**patience: Any) -> Watchdog:
    return Watchdog("ses_1", "plan", Patience(**patience))


def event(kind: str, session: str = "ses_1", **about: Any) -> Any:
    return event_of({"type": kind, "properties": {"sessionID": session, **about}})


def part(**of: Any) -> Any:
    return event("message.part.updated", part={"id": "prt_1", **of})


def name_of(fault: Fault | None) -> str | None:
    return None if fault is None else fault.name


def test_an_ordinary_answer_disturbs_nobody() -> None:
    watch = dog()
    for one in (
        event("session.status", status={"type": "busy"}),
        part(type="step-start"),
        part(type="text", text="a"),
        part(type="tool", tool="StructuredOutput", state={"status": "running", "input": {}}),
        event("session.idle"),
    ):
        assert watch.hear(one) is None
    assert watch.due() is None


@pytest.mark.parametrize("tool", ["bash", "Edit", " edit", "Write", "task", "mcp_anything", ""])
def test_any_tool_ends_it_at_once(tool: str) -> None:
    fault = dog().hear(part(type="tool", tool=tool, state={"status": "pending", "input": {}}))
    assert fault is not None
    assert (fault.name, fault.message, fault.retriable) == ("tool_denied", f"tool-denied: {tool} for agent plan", False)


@pytest.mark.parametrize("kind", ["permission.asked", "question.asked"])
def test_a_question_that_nobody_would_answer_ends_it(kind: str) -> None:
    assert name_of(dog().hear(event(kind))) == "tool_denied"


def test_steps_are_counted_once_each_and_too_many_end_it() -> None:
    watch = dog(most_steps=2)
    for id in ("prt_1", "prt_2", "prt_1", "prt_2"):
        assert watch.hear(part(type="step-start", id=id)) is None
    assert name_of(watch.hear(part(type="step-start", id="prt_3"))) == "oc_runaway"


def test_a_server_that_asks_its_model_too_often_is_stopped() -> None:
    watch = dog(most_retries=2)
    soon = time.time() * 1000
    for attempt in (1, 2):
        assert watch.hear(event("session.status", status={"type": "retry", "attempt": attempt, "next": soon})) is None
    fault = watch.hear(event("session.status", status={"type": "retry", "attempt": 3, "message": "boom", "next": soon}))
    assert fault is not None
    assert (fault.name, fault.retriable) == ("oc_provider", True)
    assert "boom" in fault.message


def test_a_wait_that_was_announced_is_no_silence_and_one_beyond_our_time_is_not_waited_for() -> None:
    watch = dog(turn_s=100, silence_s=5)
    assert watch.hear(event("session.status", status={"type": "retry", "attempt": 1, "next": (time.time() + 50) * 1000})) is None
    assert watch.next_look_s() > 40
    fault = watch.hear(event("session.status", status={"type": "retry", "attempt": 2, "next": (time.time() + 500) * 1000}))
    assert name_of(fault) == "oc_provider"


def test_silence_is_counted_from_the_last_sign_of_this_session() -> None:
    watch = dog(turn_s=1000, silence_s=5)
    watch.heard -= 6
    assert watch.hear(event("session.status", session="ses_2", status={"type": "busy"})) is None
    assert watch.hear(event_of({"type": "server.heartbeat", "properties": {}})) is None
    assert name_of(watch.due()) == "oc_stall"
    assert watch.hear(event("session.status", status={"type": "busy"})) is None
    assert watch.due() is None


def test_talk_without_end_is_ended_too() -> None:
    watch = dog(turn_s=5, silence_s=5)
    watch.began -= 6
    assert watch.hear(part(type="text", text="and")) is None
    assert name_of(watch.due()) == "oc_stall"


@pytest.mark.parametrize(
    "document", [None, [], "x", {"type": 1}, {"properties": []}, {"properties": {"part": 5, "status": 1, "info": 2}}]
)
def test_an_event_of_another_form_is_none_of_ours(document: Any) -> None:
    assert dog().hear(event_of(document)) is None

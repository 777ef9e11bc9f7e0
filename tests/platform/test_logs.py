"""Log lines: what they carry, and what they keep to themselves."""

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
import structlog
from prometheus_client import CollectorRegistry
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from bin.logs import MOST_CHARACTERS, PROCESSORS, Lines, event_of, traceback_of
from bin.metrics import RunMetrics
from bin.watch import WatchedRuns
from engine import Engine, step, step_info, workflow
from steps import identity, tracing
from tests.platform.conftest import CALLER, Observed

SECRET = "s3cret"


def foreign(message: str, *values: object, error: BaseException | None = None) -> logging.LogRecord:
    exc_info = None if error is None else (type(error), error, error.__traceback__)
    return logging.LogRecord("lib", logging.WARNING, "lib.py", 1, message, values, exc_info)


def ours(**event: Any) -> logging.LogRecord:
    """As structlog hands it over."""
    given: Any = event
    for process in PROCESSORS:
        given = process(logging.getLogger("our"), "info", given)
    return logging.LogRecord("our", logging.INFO, "our.py", 1, given, (), None)


def caught(raising: Callable[[], object]) -> BaseException:
    try:
        raising()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def line(record: logging.LogRecord) -> dict[str, Any]:
    text = Lines(readable=False).format(record)
    assert "\n" not in text
    return json.loads(text)


def test_lines_of_ours_and_of_libraries_are_alike() -> None:
    own, lib = line(ours(event="it is done", n=1)), line(foreign("%s is done", "that"))
    assert {name: own[name] for name in ("event", "level", "logger", "n")} == {
        "event": "it is done",
        "level": "info",
        "logger": "our",
        "n": 1,
    }
    assert (lib["event"], lib["level"], lib["logger"]) == ("that is done", "warning", "lib")
    assert own["timestamp"] <= lib["timestamp"]
    assert list(own)[:3] == list(lib)[:3] == ["timestamp", "level", "event"]


def test_a_line_for_people_says_the_same() -> None:
    text = Lines(readable=True).format(ours(event="it is done", n=1))
    assert "it is done" in text
    assert "n" in text


def test_of_a_message_only_the_first_line_is_told_and_not_all_of_a_long_one() -> None:
    said = line(ours(event="refused", error=f"duplicate key\nDETAIL: Key (id)=({SECRET})", other="x" * 10_000))
    assert said["error"] == "duplicate key"
    assert len(said["other"]) == MOST_CHARACTERS + 1
    assert SECRET not in json.dumps(line(foreign(f"trouble\n{SECRET}")))


def test_a_traceback_has_its_frames_and_causes_but_nothing_behind_the_first_lines() -> None:
    def inner() -> None:
        raise ValueError(f"one value is wrong\n  input_value={SECRET}")

    def outer() -> None:
        try:
            inner()
        except ValueError as error:
            raise LookupError(f"not found\n{SECRET}") from error

    error = caught(outer)
    for told in (traceback_of((type(error), error, None)), line(foreign("it failed", error=error))["exception"]):
        assert SECRET not in told
        assert "ValueError: one value is wrong\nwhich led to:\n" in told
        assert told.endswith("LookupError: not found")
        assert "in inner" in told
        assert "in outer" in told


def test_the_errors_of_a_group_are_all_told() -> None:
    def several() -> None:
        raise ExceptionGroup("two things", [ValueError("a\nb"), KeyError("c")])

    error = caught(several)
    told = traceback_of((type(error), error, None))
    assert "ValueError: a\n" in told
    assert "KeyError: 'c'" in told
    assert told.endswith("ExceptionGroup: two things (2 sub-exceptions)")


def test_making_a_line_leaves_the_record_to_other_handlers() -> None:
    record = ours(event="once", n=1)
    assert event_of(record) == event_of(record)
    assert line(record) == line(record)


async def test_lines_said_inside_a_step_name_it_and_later_ones_do_not(database: str) -> None:
    log = structlog.get_logger("the product")

    @step(name="shaky", max_attempts=2, backoff_s=0)
    async def shaky() -> None:
        log.info("inside")
        if step_info().attempt == 1:
            raise ValueError(SECRET)

    @workflow(name="W")
    async def once() -> None:
        await shaky()
        log.info("outside")

    with capture_logs(processors=[merge_contextvars]) as said:
        async with Engine.connect(database) as engine:
            worker = engine.worker([once], observer=WatchedRuns(RunMetrics(CollectorRegistry())))
            working = asyncio.create_task(worker.run())
            handle = await engine.enqueue(once, id="w", attributes=tracing.attributes_of("w", None))
            await handle.result(timeout_s=10)
            worker.drain()
            await working
    about = [each for each in said if each.get("workflow") == "w"]
    assert {(each["trace_id"], each["run"]) for each in about} == {(tracing.trace_id("w"), identity.run_id("w"))}
    assert [(each["event"], each.get("step"), each.get("call"), each.get("attempt"), each["span_id"]) for each in about] == [
        ("inside", "shaky", "1", 1, tracing.step_span("w", 1, "1", 1)),
        ("step attempt failed", "shaky", "1", 1, tracing.step_span("w", 1, "1", 1)),
        ("inside", "shaky", "1", 2, tracing.step_span("w", 1, "1", 2)),
        ("outside", None, None, None, tracing.execution_span("w", 1)),
        ("run left this worker", None, None, None, tracing.execution_span("w", 1)),
    ]
    assert about[1]["error_type"] == "ValueError"
    assert SECRET not in str(said)


# -- real processes ---------------------------------------------------------------------------------------------------------------


def lines(observed: Observed, role: str, event: str) -> list[dict[str, Any]]:
    return [each for each in observed.lines[role] if each["event"] == event]


def test_every_line_about_a_run_has_its_run_workflow_and_trace(observed: Observed) -> None:
    wid, trace = observed.wid, tracing.trace_id(observed.wid)
    left = [each for each in lines(observed, "worker", "run left this worker") if each.get("trace_id") == trace]
    assert [each["how"] for each in left if each["workflow"] == wid] == ["parked", "parked", "SUCCESS"]
    assert {each["run"] for each in left} == {identity.run_id(wid)}
    assert {each["workflow_name"] for each in left} == {"RunIntent", "ExecuteTask"}
    assert left[0]["span_id"] == tracing.execution_span(left[0]["workflow"], 1)


def test_lines_of_a_worker_that_are_about_no_run_name_none(observed: Observed) -> None:
    for event in ("worker started", "worker stopped"):
        (said,) = lines(observed, "worker", event)
        assert not {"run", "workflow", "trace_id", "step"} & set(said)


def test_every_line_about_a_request_has_its_ids_and_its_run(observed: Observed) -> None:
    answered = lines(observed, "api", "request answered")
    assert len({each["request"] for each in answered}) == len(answered)
    started = [each for each in answered if each["route"] == "/api/run" and each["status"] in (200, 201)]
    assert [each["wid"] for each in started] == [observed.wid] * 2
    assert all(tracing.TRACE_ID.fullmatch(each["trace_id"]) for each in answered)
    replied = next(each for each in answered if each["route"].endswith("/reply"))
    assert replied["path"] == replied["route"].replace("{wid}", observed.wid).replace(
        "{gate_key}", replied["path"].split("/")[-2]
    )
    assert replied["method"] == "POST"


def test_reads_that_went_well_are_not_told(observed: Observed) -> None:
    assert {each["method"] for each in lines(observed, "api", "request answered")} == {"POST"}
    assert CALLER not in json.dumps(observed.lines)


@pytest.mark.parametrize("role", ["api", "worker"])
def test_no_payload_and_no_address_of_the_database_is_in_the_lines(observed: Observed, role: str) -> None:
    everything = json.dumps(observed.lines[role])
    for hidden in ("demo goal", "acct-", "rationale", "dbname=", "test_"):
        assert hidden not in everything

"""The trace of a run: ids that everybody comes to alike, on steps, on children, and in links."""

from pathlib import Path
from typing import LiteralString

import pytest

from engine import Engine, WorkflowInfo
from steps import identity, tracing
from steps.contracts.base import JsonObject
from steps.contracts.intent import Intent, RunRequest
from steps.ingress import create_intent, start_intent
from steps.policy import QueueRules
from steps.tracing import Caller, Trace, parse_traceparent, trace_link
from tests.steps.product import Product, product

HEX = "4bf92f3577b34da6a3ce929d0e0e4736"
TREE: LiteralString = "select attributes from dbos.workflow_status where workflow_uuid = %s or parent_workflow_id = %s"
CALLER = Caller(HEX, "00f067aa0ba902b7", sampled=True)


def info(attributes: JsonObject | None = None, parent_id: str | None = None) -> WorkflowInfo:
    return WorkflowInfo("w", "W", "q", None, 0, 1, None, parent_id, attributes)


def test_a_trace_id_that_is_given_counts_and_any_other_text_is_only_a_name() -> None:
    assert tracing.trace_id("w", HEX) == HEX
    assert tracing.trace_id("w", HEX.upper()) == HEX
    derived = tracing.trace_id("w")
    assert tracing.TRACE_ID.fullmatch(derived)
    assert [tracing.trace_id("w", text) for text in ("po-demo", "", "0" * 32, HEX[:-1], f"{HEX}0")] == [derived] * 5
    assert tracing.trace_id("x") != derived


def test_spans_differ_by_workflow_execution_call_and_attempt() -> None:
    spans = [
        *(tracing.execution_span(*of) for of in (("w", 1), ("w", 2), ("x", 1))),
        *(tracing.step_span(*of) for of in (("w", 1, "1", 1), ("w", 1, "1", 2), ("w", 1, "1.1", 1), ("w", 2, "1", 1))),
    ]
    assert len(set(spans)) == 7
    assert {len(span) for span in spans} == {16}
    assert tracing.step_span("w", 1, "1", 1) == spans[3]


def test_what_a_run_is_enqueued_with_says_its_trace_its_name_and_who_asked() -> None:
    run, trace = identity.run_id("w"), tracing.trace_id("w")
    assert tracing.trace_of(info(tracing.attributes_of("w", None))) == Trace(trace, run)
    assert tracing.trace_of(info(tracing.attributes_of("w", "po-demo"))) == Trace(trace, run, "po-demo")
    assert tracing.trace_of(info(tracing.attributes_of("w", HEX))) == Trace(HEX, run)
    assert tracing.trace_of(info(tracing.attributes_of("w", "x" * 1000))).name == "x" * tracing.MOST_OF_A_NAME
    token = tracing.caller.set(CALLER)
    try:
        assert tracing.trace_of(info(tracing.attributes_of("w", HEX))) == Trace(HEX, run, None, CALLER)
    finally:
        tracing.caller.reset(token)


@pytest.mark.parametrize("attributes", [None, {}, {"traceId": 7}, {"traceId": "0" * 32}, {"traceId": "po-demo"}])
def test_workflows_of_others_have_a_trace_too_and_children_that_of_their_parent(attributes: JsonObject | None) -> None:
    assert tracing.trace_of(info(attributes)) == Trace(tracing.trace_id("w"))
    assert tracing.trace_of(info(attributes, "above")) == Trace(tracing.trace_id("above"))


def test_the_header_of_a_caller_is_read_and_written() -> None:
    assert parse_traceparent(f"00-{HEX}-00f067aa0ba902b7-01") == CALLER
    assert CALLER.traceparent == f"00-{HEX}-00f067aa0ba902b7-01"
    unsampled = parse_traceparent(f"01-{HEX}-00f067aa0ba902b7-02-more")
    assert unsampled is not None
    assert unsampled == Caller(HEX, "00f067aa0ba902b7", sampled=False)
    assert unsampled.traceparent == f"00-{HEX}-00f067aa0ba902b7-00"


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "00",
        f"ff-{HEX}-00f067aa0ba902b7-01",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-{HEX}-{'0' * 16}-01",
        f"00-{HEX.upper()}-00f067aa0ba902b7-01",
        f"00-{HEX}-00f067aa0ba902b7-1",
    ],
)
def test_a_malformed_header_is_none(text: str | None) -> None:
    assert parse_traceparent(text) is None


@pytest.mark.parametrize(
    ("base", "link"),
    [
        ("https://t.example/{traceId}?span={spanId}", "https://t.example/a%20b?span=s"),
        ("https://t.example/{spanId}", "https://t.example/s"),
        ("https://t.example/trace", "https://t.example/trace/a%20b"),
        ("https://t.example/trace/", "https://t.example/trace/a%20b"),
    ],
)
def test_a_link_fills_in_its_template_or_ends_with_the_trace(base: str, link: str) -> None:
    assert trace_link(base, "a b", "s") == link


def test_a_link_without_span_leaves_its_place_empty() -> None:
    assert trace_link("https://t.example/{traceId}/{spanId}", "t") == "https://t.example/t/"


async def start(engine: Engine, given: str | None) -> str:
    intent_id = await create_intent(engine, Intent(goal=f"traced {given}", inputs={}, constraints={}))
    options = RunRequest(traceId=given, queuePartitionKey="tenant-1")
    return (await start_intent(engine, intent_id, options, QueueRules())).run.workflow_id


async def finished(one: Product, wid: str) -> dict[str, tuple[str, str]]:
    """The steps of a run that was approved: (trace, span) by name."""
    await one.approve(wid)
    await one.result(wid)
    return {name: (row["trace_id"], row["span_id"]) for name, row in (await one.steps(wid)).items()}


async def test_every_step_says_where_its_span_is_and_the_run_keeps_the_name_it_was_given(database: str, tmp_path: Path) -> None:
    async with product(database, tmp_path) as one:
        for given in (HEX, "po-demo", None):
            wid = await start(one.engine, given)
            steps = await finished(one, wid)
            assert {trace for trace, _ in steps.values()} == {tracing.trace_id(wid, given)}
            assert len({span for _, span in steps.values()}) == len(steps) == 4
            assert (await one.run(wid))["trace_id"] == given
            rows = await one.rows(TREE, wid, wid)
            assert [row["attributes"]["traceId"] for row in rows] == [tracing.trace_id(wid, given)] * len(rows)
            assert len(rows) > 1


async def test_a_replayed_step_keeps_the_span_of_the_execution_that_recorded_it(database: str, tmp_path: Path) -> None:
    async with product(database, tmp_path) as one:
        wid = await start(one.engine, None)
        await one.prompt(wid)
        before = (await one.steps(wid))["CompileST"]
        await one.stop_worker()
        await one.start_worker()
        after = await finished(one, wid)
        path = next(s.path for s in await one.engine.steps(wid) if s.name == "CompileST")
        assert path is not None
        assert after["CompileST"] == (before["trace_id"], before["span_id"])
        assert before["span_id"] == tracing.step_span(wid, 1, path, 1)

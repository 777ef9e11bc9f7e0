"""Many gates at once: what they cost while nobody answers, and that each answer counts once when all come together.

HITL_SOAK_WAITS says how many runs wait, HITL_SOAK_TEST_N how many of them get contradicting answers.
"""

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterable
from pathlib import Path
from typing import Any, LiteralString, TypeVar

import httpx
import pytest
from starlette.applications import Starlette

from api.http import Door
from engine import Engine
from steps.identity import gate_key, run_id
from steps.opencode import ReplayOpenCode
from steps.sandbox import MockSandbox
from steps.worker import QUEUES, Limits, Ports, configure, workflows
from tests.api.samples import Rows
from tests.steps.product import Product

pytestmark = pytest.mark.slow

WAITS = int(os.environ.get("HITL_SOAK_WAITS", "1000"))
CONTRADICTED = int(os.environ.get("HITL_SOAK_TEST_N", "120"))
LONG_S = 120.0
IDLE_S = 3.0

OPEN: LiteralString = "select count(*) from app.human_gates g where resolved_at is null"
PROMPTED: LiteralString = "select count(*) from dbos.workflow_events where key ~ '^ui:approve-plan-[^:]*$'"
ENDED: LiteralString = "select count(*) from app.runs where status = 'succeeded'"
EVENTS: LiteralString = """
    select count(*) filter (where key ~ '^ui:[^:]*$'), count(*) filter (where key ~ ':result$'),
           count(*) filter (where key ~ '^decision:')
      from dbos.workflow_events_history
"""
DUPLICATES: LiteralString = """
    select count(*) from (select from app.human_interactions group by workflow_id, gate_key, topic, dedupe_key having count(*) > 1) d
"""

T = TypeVar("T")


@pytest.fixture
async def runs(engine: Engine, tmp_path: Path, rows: Rows) -> AsyncIterator[Product]:
    """A worker that looks for work once a second when nobody tells it of any."""
    product = Product(engine, tmp_path, ReplayOpenCode(), MockSandbox())
    configure(Ports(engine.pool, ReplayOpenCode(), MockSandbox(), tmp_path, Limits(plan_approval_timeout_s=3600)))
    worker = engine.worker(workflows(), queues=QUEUES, poll_s=1.0)
    working = asyncio.create_task(worker.run())
    yield product
    worker.stop()
    await working


async def waiting_runs(runs: Product, rows: Rows, count: int) -> list[tuple[str, str]]:
    """As many runs that wait at their gates: workflow id and gate key of each."""
    wids = await in_turn(20, [runs.start(f"goal {number}") for number in range(count)])
    await until(rows, PROMPTED, count)
    return [(wid, gate_key(run_id(wid), "ApplyPatchST", "approve-plan", 1)) for wid in wids]


async def in_turn(at_once: int, calls: Iterable[Awaitable[T]]) -> list[T]:
    """The results of all calls, a few of them under way at any time."""
    turns = asyncio.Semaphore(at_once)

    async def taken(call: Awaitable[T]) -> T:
        async with turns:
            return await call

    return await asyncio.gather(*(taken(call) for call in calls))


async def until(rows: Rows, query: LiteralString, count: int) -> None:
    async with asyncio.timeout(LONG_S):
        while await rows.value(query) < count:
            await asyncio.sleep(0.2)


async def answer(client: httpx.AsyncClient, wid: str, gate: str, choice: str, key: str) -> httpx.Response:
    body = {"payload": {"choice": choice}, "dedupeKey": key, "origin": "webhook-ci"}
    return await client.post(f"/api/runs/{wid}/gates/{gate}/reply", json=body)


async def test_a_thousand_gates_wait_for_next_to_nothing_and_end_together(
    runs: Product, client: httpx.AsyncClient, app: Starlette, rows: Rows, statements: Counter[Any]
) -> None:
    began = time.monotonic()
    gates = await waiting_runs(runs, rows, WAITS)
    opened = time.monotonic()
    polls = [asyncio.create_task(client.get(f"/api/runs/{wid}/gates/{gate}?timeoutS=30")) for wid, gate in gates]
    door: Door = app.state.door
    while door.waits.watcher_count < WAITS:
        await asyncio.sleep(0.05)
    await asyncio.sleep(2)  # the first look wakes everybody once

    statements.clear()
    await asyncio.sleep(IDLE_S)
    idle = statements.total()
    assert idle < 30 * IDLE_S, statements.most_common(5)

    burst = time.monotonic()
    twice = [answer(client, wid, gate, "yes", "once") for wid, gate in gates for _ in range(2)]
    answers = await in_turn(50, twice)
    assert Counter(response.json().get("isReplay") for response in answers) == {False: WAITS, True: WAITS}
    async with asyncio.timeout(LONG_S):
        polled = await asyncio.gather(*polls)
    assert {response.json()["state"] for response in polled} <= {"PENDING", "RESOLVED"}  # pending: its thirty seconds were over
    await until(rows, ENDED, WAITS)
    ended = time.monotonic()

    assert await rows.fetch(EVENTS) == [(WAITS, WAITS, WAITS)]
    assert await rows.value("select count(*) from app.human_interactions") == WAITS
    assert await rows.value("select count(*) from dbos.notifications where consumed") == WAITS
    assert await rows.value(OPEN) == 0
    print(
        f"\n{WAITS} gates: open after {opened - began:.1f} s, {idle / IDLE_S:.0f} statements/s while all wait, "
        f"answered twice and executed in {ended - burst:.1f} s"
    )


async def test_contradicting_answers_drain_without_a_second_decision(
    runs: Product, client: httpx.AsyncClient, rows: Rows
) -> None:
    gates = await waiting_runs(runs, rows, CONTRADICTED)
    kinds = [("yes", "a"), ("yes", "a"), ("no", "a"), ("yes", "b"), ("yes", "b")]
    given = [(kind, gate) for kind in kinds for gate in gates]
    answers = await in_turn(50, [answer(client, wid, gate, *kind) for kind, (wid, gate) in given])
    codes = {kind: set[int]() for kind in kinds}
    for (kind, _), response in zip(given, answers, strict=True):
        codes[kind].add(response.status_code)
    assert (codes["yes", "a"], codes["no", "a"]) == ({200}, {409})
    assert codes["yes", "b"] <= {200, 409}
    await until(rows, ENDED, CONTRADICTED)
    assert await rows.fetch(EVENTS) == [(CONTRADICTED, CONTRADICTED, CONTRADICTED)]
    assert await rows.value(DUPLICATES) == 0
    fresh = sum(response.json() == {"ok": True, "isReplay": False} for response in answers)
    assert await rows.value("select count(*) from app.human_interactions") == fresh >= CONTRADICTED

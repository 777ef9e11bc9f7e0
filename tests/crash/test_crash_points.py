"""Kill the worker at every write of a workflow, before and after its COMMIT: each time it is as if nothing had happened."""

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from engine import Engine
from steps.contracts.gate import GateReply
from steps.identity import gate_key, human_topic, intent_hash, run_id, workflow_id
from steps.opencode import ReplayOpenCode
from steps.replies import reply_to_gate
from steps.sandbox import MockSandbox
from tests.crash import subject
from tests.crash.drill import Drill, crash_everywhere, has_ended, is_parked, perform, stages, waits_for
from tests.crash.fleet import LEASE_S, Job, until, workers
from tests.crash.history import difference
from tests.steps.product import Product, patch, replay


async def start_fulfil(engine: Engine) -> None:
    async with engine.transaction() as conn:
        await engine.enqueue(subject.fulfil, "tea", id="order", conn=conn)
        await engine.send("order", ["milk"], "early", key="early", conn=conn)


async def answer_fulfil(engine: Engine) -> None:
    await until(lambda: waits_for(engine, "order", "t:late"), "the run to wait")
    await engine.send("order", "Monday", "late", key="late")


FULFIL = Drill("engine", "order", "public", start_fulfil, answer_fulfil)


GOAL = "tea for two"
PATCHES = [patch("menu.txt", "tea"), patch("made/bill.txt", "two"), patch("menu.txt", "tea for two")]
CONSTRAINTS = replay(plan={"patchPlan": PATCHES}, build={"tests": ["cup", "saucer"], "test_command": "rinse"})
WID = workflow_id(intent_hash({"goal": GOAL, "inputs": {}, "constraints": CONSTRAINTS}))
GATE = gate_key(run_id(WID), "ApplyPatchST", "approve-plan", 1)


async def start_run(engine: Engine) -> None:
    one = Product(engine, Path(), ReplayOpenCode(), MockSandbox())
    assert await one.start(GOAL, CONSTRAINTS) == WID


def says(choice: str) -> Callable[[Engine], Coroutine[Any, Any, None]]:
    async def world(engine: Engine) -> None:
        await until(lambda: waits_for(engine, WID, f"t:{human_topic(GATE)}"), "the run to wait at its gate")
        reply = GateReply(payload={"choice": choice}, dedupeKey="drill", origin="manual")
        await reply_to_gate(engine, WID, GATE, reply)

    return world


APPROVED = Drill("product", WID, "app", start_run, says("yes"))
REJECTED = Drill("product", WID, "app", start_run, says("no"), ends=("ERROR",))


async def test_an_uncrashed_run_leaves_the_same_twice(server: str, engine_template: str, tmp_path: Path) -> None:
    with stages(server, engine_template, subject.TABLES, count=1) as (stage,):
        first = await perform(FULFIL, stage.dsn, tmp_path / "first", None)
        stage.clear()
        second = await perform(FULFIL, stage.dsn, tmp_path / "second", None)
    assert difference(first.found, second.found) == ""
    assert first.executions == second.executions


async def test_a_worker_may_die_at_every_write_of_a_workflow(server: str, engine_template: str, tmp_path: Path) -> None:
    with stages(server, engine_template, subject.TABLES) as halls:
        await crash_everywhere(FULFIL, halls, tmp_path)


async def test_who_waits_for_an_event_hears_of_it_though_its_setter_died_in_the_act(
    server: str, engine_template: str, tmp_path: Path
) -> None:
    with stages(server, engine_template, subject.TABLES, count=1) as (stage,):
        async with Engine.connect(stage.dsn) as engine:
            await engine.enqueue(subject.watch, "order", "progress", id="watcher")
            with workers(Job(stage.dsn, tmp_path, root="order", point="after . Step 4 #1")) as begin:
                first = begin()
                await until(lambda: is_parked(engine, "watcher"), "the watcher to wait")
                await start_fulfil(engine)
                await until(lambda: first.exit_code is not None, "the setter to die")
                begin(point=None)
                await until(lambda: has_ended(engine, "watcher"), "the watcher to hear", LEASE_S + 4)
            assert await engine.result("watcher") == {"done": 1}


async def test_an_approved_run_of_the_product_survives_the_death_of_its_worker_at_every_write(
    server: str, template: str, tmp_path: Path
) -> None:
    with stages(server, template) as halls:
        await crash_everywhere(APPROVED, halls, tmp_path)
    for folder in tmp_path.iterdir():
        assert (folder / "workspace/menu.txt").read_text() == "tea for two"
        assert (folder / "workspace/made/bill.txt").read_text() == "two"


@pytest.mark.slow
async def test_a_rejected_run_of_the_product_takes_its_changes_back_wherever_its_worker_died(
    server: str, template: str, tmp_path: Path
) -> None:
    with stages(server, template) as halls:
        await crash_everywhere(REJECTED, halls, tmp_path)
    for folder in tmp_path.iterdir():
        assert [path for path in (folder / "workspace").rglob("*") if path.is_file()] == []

"""Kill the worker at every write of a workflow, before and after its COMMIT: each time it is as if nothing had happened."""

from pathlib import Path

from engine import Engine
from tests.crash import subject
from tests.crash.drill import Drill, crash_everywhere, perform, stages, waits_for
from tests.crash.fleet import until
from tests.crash.history import SUBJECT, difference


async def start_fulfil(engine: Engine) -> None:
    async with engine.transaction() as conn:
        await engine.enqueue(subject.fulfil, "tea", id="order", conn=conn)
        await engine.send("order", ["milk"], "early", key="early", conn=conn)


async def answer_fulfil(engine: Engine) -> None:
    await until(lambda: waits_for(engine, "order", "t:late"), "the run to wait")
    await engine.send("order", "Monday", "late", key="late")


FULFIL = Drill("engine", "order", SUBJECT, start_fulfil, answer_fulfil)


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

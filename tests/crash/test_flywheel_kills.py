"""Kill the worker at the writes of an improvement, before and after each COMMIT: one version comes of it, one promotion and one rerun."""

import asyncio
import signal
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg.types.json import Jsonb

from engine import Engine
from steps import identity, improvements, recipes
from steps.contracts.base import parse
from steps.contracts.gate import GateReply
from steps.contracts.recipe import RecipeBundle
from steps.replies import reply_to_gate
from tests.crash.drill import Drill, Outcome, Stage, has_ended, is_tidy, judge, play, stages, waits_for
from tests.crash.fleet import Job, until, workers
from tests.crash.history import GAPS, history
from tests.steps.wheel import ASKED, FORM, RECIPE

MEND = [{"op": "remove", "path": "/intentTmpl/constraints/testHooks/replay/build"}]
REHEARSED = {"testHooks": {"replay": {"build": {"test_command": "FAIL_ME"}, "mend": MEND}}}
BROKEN: dict[str, Any] = RECIPE | {"intentTmpl": RECIPE["intentTmpl"] | {"constraints": REHEARSED}, "fixtures": []}
FAILED = "ih_" + "f" * 64
ROOT = identity.improvement_id(FAILED, 1)
GATE = identity.gate_key(identity.run_id(ROOT), "ApplyPatchST", "improve-recipe", 1)

INSERT_FAILED: LiteralString = """
    with intent as (
        insert into app.intents (id, goal, payload, form) values (%(id)s, 'Greet Ada', %(payload)s, %(form)s))
    insert into app.runs (id, intent_id, workflow_id, status, error, queue_partition_key, recipe_id, recipe_v, recipe_hash)
    values (%(run_id)s, %(id)s, %(id)s, 'retries_exceeded', 'it broke', 'tenant-1', 'wheel', '1.0.0', %(hash)s)
"""
#: What a stage does not empty by itself, since a fresh database holds some.
EMPTY: LiteralString = """
    set local session_replication_role = replica;
    delete from app.recipes where id = 'wheel';
    delete from app.recipe_fixtures where recipe_id = 'wheel';
    delete from app.recipe_versions where id = 'wheel';
    set local session_replication_role = origin
"""
RERUN: LiteralString = "select rerun_workflow_id from app.improvements where workflow_id = %s"


async def start(engine: Engine) -> None:
    """A run that failed, and its improvement."""
    async with engine.transaction() as conn:
        await conn.execute(EMPTY)
        (version,) = await recipes.import_bundle(conn, parse(RecipeBundle, {"id": "wheel", "versions": [BROKEN]}))
        row = {"id": FAILED, "run_id": identity.run_id(FAILED), "hash": version.hash, "form": Jsonb(FORM)}
        payload = {"goal": "Greet Ada", "inputs": {}, "constraints": {}}
        await conn.execute(INSERT_FAILED, row | {"payload": Jsonb(payload)})
    assert (await improvements.begin(engine, FAILED, ASKED)).workflowID == ROOT


async def say_yes(engine: Engine, wid: str, gate_key: str) -> None:
    await until(lambda: waits_for(engine, wid, f"t:{identity.human_topic(gate_key)}"), f"{wid} to wait at its gate")
    await reply_to_gate(engine, wid, gate_key, GateReply(payload={"choice": "yes"}, dedupeKey="drill", origin="manual"))


async def rerun_of(engine: Engine) -> str | None:
    async with engine.pool.connection() as conn:
        row = await (await conn.execute(RERUN, (ROOT,))).fetchone()
    return row[0] if row else None


async def world(engine: Engine) -> None:
    """Agrees to the improvement, and then to the plan of the rerun."""
    await say_yes(engine, ROOT, GATE)
    await until(lambda: rerun_of(engine), "a rerun")
    rerun = await rerun_of(engine)
    assert rerun is not None
    await say_yes(engine, rerun, identity.gate_key(identity.run_id(rerun), "ApplyPatchST", "approve-plan", 1))


IMPROVED = Drill("product", ROOT, "app", start, world)


async def is_over(engine: Engine) -> bool:
    """Whether the improvement has ended, and so has its rerun."""
    rerun = await rerun_of(engine) if await has_ended(engine, ROOT) else None
    return rerun is not None and await has_ended(engine, rerun)


async def perform(dsn: str, folder: Path, point: str | None) -> Outcome:
    folder.mkdir()
    async with play(IMPROVED, dsn) as engine:
        with workers(Job(dsn, folder, IMPROVED.cast, ROOT)) as begin:
            first = begin(point=point, trace=point is None)
            if point is not None:
                await until(lambda: first.exit_code is not None, f"a death at {point}")
                assert first.exit_code == -signal.SIGKILL, first.log.read_text()
                begin()
            await until(lambda: is_over(engine), f"the recovery from {point}")
            await until(lambda: is_tidy(engine), f"all to be tidy after {point}")
    with psycopg.connect(dsn) as conn:
        assert conn.execute(GAPS).fetchall() == [], point
        found = history(conn, IMPROVED.schema)
    ledger: Any = {}
    return Outcome(point, point is not None, found, ledger)


async def kill_at(stage_list: list[Stage], folder: Path, wanted: tuple[str, ...]) -> int:
    """Kill it at each of its own points of these kinds, and compare; how many there were."""
    reference = await perform(stage_list[0].dsn, folder / "reference", None)
    passed = dict.fromkeys((folder / "reference" / "trace").read_text().splitlines())
    points = [p for p in passed if p.startswith(("before . ", "after . ")) and p.endswith("#1") and any(k in p for k in wanted)]
    waiting = iter(enumerate(points))
    outcomes: list[Outcome] = []

    async def work_in(stage: Stage) -> None:
        for number, point in waiting:
            stage.clear()
            outcomes.append(await perform(stage.dsn, folder / str(number), point))

    async with asyncio.TaskGroup() as group:
        for stage in stage_list:
            group.create_task(work_in(stage))
    judge(reference, outcomes)
    return len(points)


async def test_a_worker_may_die_at_what_changes_the_registry_and_one_version_and_one_rerun_come_of_it(
    server: str, template: str, tmp_path: Path
) -> None:
    with stages(server, template, count=4) as halls:
        assert await kill_at(halls, tmp_path, (" Transaction ",)) == 6


@pytest.mark.slow
async def test_a_worker_may_die_at_every_write_of_an_improvement(server: str, template: str, tmp_path: Path) -> None:
    with stages(server, template) as halls:
        assert await kill_at(halls, tmp_path, (" Step ", " Transaction ", " Receive ", " Finish")) > 40

"""A run that has been over for long enough goes with all that it left behind, in one commit; no other row goes, and no other way."""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest

from engine import Engine, retention
from steps import identity, ops
from steps import retention as pruning
from steps.contracts.base import parse
from steps.contracts.gate import GateReply
from steps.contracts.intent import RecipeRef, RunRequest
from steps.contracts.ops import CancelWorkflowRequest, ForkWorkflowRequest
from steps.contracts.recipe import RecipeBundle
from steps.crashdemo import crash_demo
from steps.errors import Conflict, InvalidInput, NotFound
from steps.execute_task import run_in_sandbox
from steps.ingress import start_intent
from steps.policy import QueueRules
from steps.promotion import begin, set_candidate
from steps.recipes import import_bundle
from steps.replies import reply_to_gate
from steps.retention import LEAST, NIGHTLY, Pruned, moment, prune, prune_stage, set_retention
from steps.timers import set_schedule
from steps.worker import QUEUES, workflows
from tests.steps.product import WAIT_S, Product, patch, product, replay
from tests.steps.samples import SPEC
from tests.tables import row_counts

DAY_MS = 86_400_000
PATCHES = replay(plan={"patchPlan": [patch("made/new.txt", "made")]})
WHO = {"actor": "ada", "reason": "drill"}


@pytest.fixture
async def runs(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Product]:
    monkeypatch.setattr(run_in_sandbox, "backoff_s", 0.0)
    async with product(database, tmp_path) as one:
        yield one


async def answered(runs: Product, wid: str, choice: str = "yes") -> None:
    """Answer the plan's gate as a person does, through the ledger."""
    key = await runs.prompt(wid)
    reply = {"payload": {"choice": choice}, "dedupeKey": f"key of {wid}", "origin": "manual"}
    await reply_to_gate(runs.engine, wid, key, parse(GateReply, reply))


async def finished(runs: Product, **start: Any) -> str:
    wid = await runs.start(**start)
    await answered(runs, wid)
    await runs.result(wid)
    return wid


async def later(runs: Product, days: float = 40) -> None:
    """Stop the worker, whose lease would not outlive the jump, and stop the clock so much later than now."""
    await runs.stop_worker()
    await set_clock(runs.engine, round((time.time() + days * 86_400) * 1000))


async def set_clock(engine: Engine, now_ms: int) -> None:
    async with engine.transaction() as conn:
        await conn.execute("delete from engine.clock")
        await conn.execute("insert into engine.clock (now_ms) values (%s)", (now_ms,))


async def pass_over(engine: Engine, days: int = 30, *, limit: int = 1000, delete: bool = True) -> Pruned:
    """Go through the whole table once."""
    done, after = Pruned(), None
    while True:
        async with engine.transaction() as conn:
            before_ms = await moment(conn, LEAST * days)
            batch, after = await prune(conn, before_ms, limit=limit, after=after, delete=delete)
        done += batch
        if after is None:
            return done


async def left(runs: Product) -> list[str]:
    """The workflow ids of the runs that are there."""
    return [row["workflow_id"] for row in await runs.rows("select workflow_id from app.runs order by 1")]


def of_runs(counts: dict[str, int]) -> dict[str, int]:
    """The tables that have rows about runs and workflows, and how many."""
    return {name: count for name, count in counts.items() if not name.startswith(("dbos.queue", "engine.queue", "engine.worker"))}


# What goes ---------------------------------------------------------------------------------------------------------------


async def test_a_run_goes_with_every_row_that_it_left_behind(runs: Product, database: str) -> None:
    before = of_runs(row_counts(database))
    await finished(runs, goal="beta", constraints=PATCHES | {"askUser": False})
    cancelled = await runs.start("gamma", PATCHES)
    await runs.prompt(cancelled)
    await ops.cancel(runs.engine, cancelled, CancelWorkflowRequest(**WHO))
    await runs.engine.enqueue(crash_demo, "drill", 0.0, id="drill", queue="controlQ")
    await runs.result("drill")
    (undoing,) = await runs.rows("select workflow_uuid as id from dbos.workflow_status where name = 'RollbackRun'")
    await runs.result(undoing["id"])
    await later(runs)
    await runs.rows("delete from engine.clock returning 1")
    after = of_runs(row_counts(database))
    grown = {name for name, count in after.items() if count > before[name]}
    assert grown >= {f"app.{name}" for name in ("runs", "intents", "artifacts", "human_interactions", "human_gates", "marks")}
    await later(runs)
    seen = await pass_over(runs.engine, delete=False)
    done = await pass_over(runs.engine)
    assert done == seen
    assert (done.runs, done.kept) == (2, {})
    assert set(done.rows) == grown - {"engine.wake"}
    assert done.rows == {name: after[name] - before[name] for name in done.rows}
    await runs.rows("delete from engine.clock returning 1")
    assert of_runs(row_counts(database)) | {"engine.wake": 0} == before | {"engine.wake": 0}


async def test_every_table_that_names_a_run_or_workflow_is_known(runs: Product) -> None:
    naming = await runs.rows(
        """
        select distinct c.table_schema || '.' || c.table_name as name
          from information_schema.columns c
          join information_schema.tables t using (table_schema, table_name)
         where t.table_type = 'BASE TABLE' and t.table_schema in ('app', 'dbos', 'engine')
           and c.column_name in ('run_id', 'workflow_id', 'workflow_uuid', 'destination_uuid')
        """
    )
    known = {*re.findall(r'as "([a-z_.]+)"', pruning.COUNT + retention.COUNT), "engine.wake"}
    evidence = {"app.promotions", "app.improvements"}  # stays when its runs go
    assert {row["name"] for row in naming} - known == evidence


async def test_the_runs_of_a_promotion_go_and_its_row_stays(runs: Product, database: str) -> None:
    before = of_runs(row_counts(database))
    ref = RecipeRef(id=SPEC["id"], v=SPEC["v"])
    check = {"id": "files", "kind": "file_exists", "glob": "**/*"}
    async with runs.engine.transaction() as conn:
        await import_bundle(conn, parse(RecipeBundle, {"id": "b", "versions": [SPEC | {"eval": [check]}]}))
        await set_candidate(conn, ref)
    begun = await begin(runs.engine, ref, actor="ann", reason="good")
    assert begun.promotion is not None
    await runs.result(begun.promotion.workflowID)
    await later(runs)
    pruned = await pass_over(runs.engine)
    assert pruned.runs == 2
    stayed = {name: rows for name, rows in of_runs(row_counts(database)).items() if rows != before.get(name)}
    assert set(stayed) <= {"app.promotions", "app.recipes", "app.recipe_versions", "app.recipe_fixtures", "engine.clock"}
    (row,) = await runs.rows("select status, outcome from app.promotions")
    assert (row["status"], row["outcome"]["fixtures"][0]["green"]) == ("promoted", True)


async def test_a_run_that_ended_too_late_stays(runs: Product) -> None:
    wid = await finished(runs)
    await later(runs, days=29)
    assert (await pass_over(runs.engine)).workflows == 0
    assert await left(runs) == [wid]


async def test_a_run_that_was_asked_for_again_after_it_went_starts_afresh(runs: Product) -> None:
    wid = await finished(runs)
    first = await runs.rows("select function_id, completed_at_epoch_ms from dbos.operation_outputs where workflow_uuid = %s", wid)
    await later(runs)
    await pass_over(runs.engine)
    await runs.rows("delete from engine.clock returning 1")
    await runs.start_worker()
    assert await finished(runs) == wid
    second = await runs.rows(
        "select function_id, completed_at_epoch_ms from dbos.operation_outputs where workflow_uuid = %s", wid
    )
    assert len(first) == len(second)
    assert first != second
    (ledger,) = await runs.rows("select dedupe_key from app.human_interactions")
    assert ledger["dedupe_key"] == f"key of {wid}"


# What stays --------------------------------------------------------------------------------------------------------------


async def test_runs_that_wait_or_are_not_over_by_their_own_row_stay(runs: Product) -> None:
    waiting, unlike, asking = await runs.start("a"), await finished(runs, goal="b"), await finished(runs, goal="c")
    await runs.prompt(waiting)
    await runs.rows("update app.runs set retry_count = 1, status = 'repairing' where workflow_id = %s returning 1", unlike)
    await runs.rows("update app.human_gates set resolved_at = null where run_id = %s returning 1", identity.run_id(asking))
    await later(runs)
    done = await pass_over(runs.engine)
    assert done.workflows == 0
    assert done.kept["unfinished"] == 1
    assert done.kept["run is open"] >= 2
    assert await left(runs) == sorted([waiting, unlike, asking])


async def test_a_run_stays_while_the_workflow_that_takes_its_patches_back_has_not_ended(runs: Product) -> None:
    wid = await runs.start(constraints=PATCHES)
    await runs.prompt(wid)
    await runs.stop_worker()
    await runs.engine.cancel(wid)
    await later(runs)
    assert (await pass_over(runs.engine)).kept == {"unfinished": 1, "unfinished child": 1}
    assert await left(runs) == [wid]


async def test_a_run_stays_while_a_fork_of_it_works(runs: Product) -> None:
    wid = await finished(runs)
    await runs.stop_worker()
    await ops.fork(runs.engine, wid, ForkWorkflowRequest(stepN=2, **WHO))
    await later(runs)
    done = await pass_over(runs.engine)
    assert (done.workflows, set(done.kept)) == (0, {"unfinished", "unfinished fork"})
    assert await left(runs) == [wid]


async def test_a_run_that_somebody_holds_is_left_for_another_time(runs: Product) -> None:
    wid = await finished(runs)
    await later(runs)
    async with runs.engine.transaction() as conn:
        await conn.execute("select 1 from app.runs for key share")
        done = await pass_over(runs.engine)
        assert (done.workflows, set(done.kept)) == (0, {"locked"})
    assert (await pass_over(runs.engine)).runs == 1
    assert wid not in await left(runs)


async def test_an_intent_goes_with_the_last_run_that_has_it(runs: Product) -> None:
    wid = await finished(runs)
    other: LiteralString = "insert into app.runs (id, intent_id, workflow_id, status) values ('r', %s, 'w', 'running')"
    async with runs.engine.transaction() as conn:
        await conn.execute(other, (wid,))
    await later(runs)
    assert "app.intents" not in (await pass_over(runs.engine, delete=False)).rows
    assert "app.intents" not in (await pass_over(runs.engine)).rows
    assert len(await runs.rows("select 1 from app.intents")) == 1


async def test_nothing_younger_than_a_day_can_be_asked_for(runs: Product) -> None:
    async with runs.engine.transaction() as conn:
        with pytest.raises(InvalidInput, match="a run is kept for a day at least"):
            await moment(conn, LEAST / 2)


# The ledger --------------------------------------------------------------------------------------------------------------

DELETIONS: Sequence[LiteralString] = (
    "delete from app.human_interactions",
    "delete from app.artifacts where step_id = 'OPS'",
    "update app.human_interactions set payload = '{}'",
    "update app.artifacts set inline = '{}' where step_id = 'OPS'",
    "update app.human_interactions set run_id = null",
)


async def refused(runs: Product, statement: LiteralString) -> bool:
    try:
        async with runs.engine.transaction() as conn:
            await conn.execute(statement)
    except psycopg.errors.RestrictViolation:
        return True
    return False


async def test_a_row_of_the_ledger_goes_only_with_its_run_and_that_only_when_it_is_long_over(runs: Product) -> None:
    wid = await finished(runs)
    await ops.fork(runs.engine, wid, ForkWorkflowRequest(stepN=2, **WHO))
    await later(runs)
    for statement in (*DELETIONS, "delete from app.runs"):
        assert await refused(runs, statement), statement
    await runs.rows("delete from dbos.workflow_status returning 1")  # as a client may
    for statement in DELETIONS:
        assert await refused(runs, statement), statement
    now = "delete from engine.clock returning 1"
    await runs.rows(now)
    assert await refused(runs, "delete from app.runs"), "it has not been over for a day"
    await later(runs, days=2)
    await runs.rows("update app.human_gates set resolved_at = null returning 1")
    assert await refused(runs, "delete from app.runs"), "a question is open"
    await runs.rows("update app.human_gates set resolved_at = now() returning 1")
    async with runs.engine.transaction() as conn:
        await conn.execute(pruning.DELETE_PARTS, {"runs": [identity.run_id(wid)], "workflows": []})
    assert not await refused(runs, "delete from app.runs")
    assert await runs.rows("select 1 from app.human_interactions union all select 1 from app.artifacts") == []


async def start_again(runs: Product, wid: str) -> bool:
    """Ask for the intent once more; whether it is the run that was there."""
    return (await start_intent(runs.engine, wid, RunRequest(queuePartitionKey="t", priority=1), QueueRules())).is_replay


async def test_a_start_that_comes_while_its_run_is_deleted_finds_no_intent_or_waits_and_makes_a_new_run(runs: Product) -> None:
    wid = await finished(runs)
    other = await finished(runs, goal="other")
    await later(runs)
    async with runs.engine.transaction() as conn:
        await prune(conn, await moment(conn, LEAST))
        starting = asyncio.create_task(start_again(runs, wid))
        await until_blocked(runs)
    assert not await starting
    assert await left(runs) == [wid]
    with pytest.raises(NotFound):
        await start_again(runs, other)


async def test_a_start_that_loses_its_intent_at_the_last_moment_is_told_to_come_again(runs: Product) -> None:
    wid = await finished(runs)
    await later(runs)
    async with runs.engine.transaction() as conn:
        await conn.execute("select 1 from app.intents for key share")  # so that it stays behind
        await pass_over(runs.engine)
    async with runs.engine.transaction() as conn:
        await conn.execute(pruning.LOCK_INTENTS, {"intents": [wid]})
        starting = asyncio.create_task(start_again(runs, wid))
        await until_blocked(runs)
        await conn.execute(pruning.DELETE_INTENTS, ([wid],))
    with pytest.raises(Conflict, match=f"run {wid} was deleted while it was started; start it again"):
        await starting
    assert await left(runs) == []


async def until_blocked(runs: Product) -> None:
    query: LiteralString = """
        select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'
    """
    async with asyncio.timeout(WAIT_S):
        while not await runs.rows(query):
            await asyncio.sleep(0.01)


# Every night -------------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def working(engine: Engine) -> AsyncIterator[None]:
    """A worker that outlives every jump of the clock."""
    worker = engine.worker(workflows(), queues=QUEUES, poll_s=0.02, lease_s=1_000_000_000)
    running = asyncio.create_task(worker.run())
    try:
        yield
    finally:
        worker.stop()
        await running


async def nights(runs: Product) -> list[dict[str, Any]]:
    return await runs.rows(
        "select workflow_uuid as id, status from dbos.workflow_status where name = 'PruneNightly' order by created_at"
    )


async def until_nights_ended(runs: Product, count: int) -> list[dict[str, Any]]:
    async with asyncio.timeout(WAIT_S):
        while True:
            found = await nights(runs)
            if [night["status"] for night in found] == ["SUCCESS"] * count:
                return found
            await asyncio.sleep(0.02)


async def test_with_a_number_of_days_a_night_prunes_and_without_one_none_does(runs: Product) -> None:
    wid = await finished(runs)
    await later(runs, days=0)
    await set_retention(runs.engine, 30)
    async with working(runs.engine):
        await later(runs, days=29)
        (first,) = await until_nights_ended(runs, 1)
        assert (await runs.engine.result(first["id"]))["runs"] == 0
        assert await left(runs) == [wid]
        await later(runs, days=32)
        _, second = await until_nights_ended(runs, 2)
        assert (await runs.engine.result(second["id"]))["runs"] == 1
        assert await left(runs) == []
    (schedule,) = await runs.rows("select schedule, queue_name, status from dbos.workflow_schedules")
    assert schedule == {"schedule": NIGHTLY, "queue_name": "controlQ", "status": "ACTIVE"}
    await set_retention(runs.engine, 0)
    (schedule,) = await runs.rows("select status from dbos.workflow_schedules")
    assert schedule == {"status": "PAUSED"}


async def test_a_night_that_is_interrupted_between_two_batches_goes_on_behind_the_last(
    runs: Product, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(4):
        await finished(runs, goal=f"goal {n}")
    await later(runs)
    monkeypatch.setattr(pruning, "BATCH", 1)
    real, calls, third = prune_stage.function, 0, asyncio.Event()

    async def held(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            third.set()
            await asyncio.Event().wait()
        return await real(*args)

    monkeypatch.setattr(prune_stage, "function", held)
    (row,) = await runs.rows("select to_char(to_timestamp(engine.now_ms() / 1000), 'YYYY-MM-DD\"T\"HH24:MI:SSOF') as at")
    await runs.engine.enqueue("PruneNightly", row["at"], {"days": 30}, id="night", queue="controlQ")
    async with working(runs.engine):
        await asyncio.wait_for(third.wait(), WAIT_S)
        remaining = await left(runs)
    assert len(remaining) == 2
    monkeypatch.setattr(prune_stage, "function", real)
    async with working(runs.engine):
        done = await runs.engine.result("night", timeout_s=WAIT_S)
    assert await left(runs) == []
    assert done["runs"] == 4, "what the batches before the interruption did is in their records"


async def test_pruning_disturbs_no_run_that_is_at_work(runs: Product) -> None:
    old = [await finished(runs, goal=f"old {n}") for n in range(3)]
    await runs.rows(
        """
        with moved as (update app.runs set updated_at = updated_at - interval '40 days' returning workflow_id)
        update dbos.workflow_status
           set created_at = created_at - 40 * 86400000::bigint, completed_at = completed_at - 40 * 86400000::bigint
         returning 1
        """
    )
    waiting = await runs.start("new")
    await runs.prompt(waiting)
    done, *_ = await asyncio.gather(pass_over(runs.engine, limit=2), finished(runs, goal="other"), answered(runs, waiting))
    await runs.result(waiting)
    assert done.runs == len(old)
    assert len(await left(runs)) == 2


async def test_the_two_schedules_of_the_product_do_not_touch_each_other(runs: Product) -> None:
    await set_retention(runs.engine, 7)
    await set_schedule(runs.engine, on=True)
    await set_retention(runs.engine, 0)
    found = await runs.rows("select schedule_name, status from dbos.workflow_schedules order by 1")
    assert found == [
        {"schedule_name": "retention", "status": "PAUSED"},
        {"schedule_name": "scheduled-ops", "status": "ACTIVE"},
    ]

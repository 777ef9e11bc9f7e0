"""The crash-point drill: a workflow is run as often as it has points, each time with a worker that dies at one of them.

An uncrashed run tells which points there are. Each point then gets a clean database, a worker that kills itself there, and a second
worker that finds what the first left. In the end the database must hold what it holds after the uncrashed run.
"""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from engine import FINAL, Engine
from tests.conftest import new_database
from tests.crash.fleet import Job, until, workers
from tests.crash.history import GAPS, LEFTOVERS, History, difference, history

AT_ONCE = 8


@dataclass(frozen=True)
class Drill:
    """A workflow to crash: how to start it, what the world says to it meanwhile, and where its own tables are.

    but_for: tables that tell of attempts, which a crash may well double. ends: the statuses in which it and its children end.
    """

    cast: str
    root: str
    schema: str
    start: Callable[[Engine], Coroutine[Any, Any, None]]
    world: Callable[[Engine], Coroutine[Any, Any, None]]
    but_for: Collection[str] = ()
    ends: Collection[str] = ("SUCCESS",)


@dataclass(frozen=True)
class Outcome:
    """How it went. `died`: whether the first worker reached its point. `executions`: how often each step's body ran."""

    point: str | None
    died: bool
    found: History
    executions: Counter[str]


TABLES: LiteralString = """
select quote_ident(schemaname), quote_ident(tablename) from pg_tables where schemaname not in ('pg_catalog', 'information_schema')
"""


class Stage:
    """A database that is used again and again, emptied in between of all that was not there at first."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        with psycopg.connect(dsn) as conn:
            tables = [sql.Identifier(*row) for row in conn.execute(TABLES).fetchall()]
            empty = [t for t in tables if conn.execute(sql.SQL("select 1 from {} limit 1").format(t)).fetchone() is None]
        self._empty = sql.SQL("truncate {}").format(sql.SQL(", ").join(empty))

    def clear(self) -> None:
        with psycopg.connect(self.dsn) as conn:
            conn.execute("set session_replication_role = replica")  # also what may only be added to
            conn.execute(self._empty)


@contextmanager
def stages(server: str, template: str, prepare: LiteralString = "", count: int = AT_ONCE) -> Iterator[list[Stage]]:
    with ExitStack() as stack:
        built: list[Stage] = []
        for _ in range(count):
            dsn = stack.enter_context(new_database(server, template))
            with psycopg.connect(dsn) as conn:
                if prepare:
                    conn.execute(prepare)
            built.append(Stage(dsn))
        yield built


async def perform(drill: Drill, dsn: str, folder: Path, point: str | None, *, files: bool = False) -> Outcome:
    """Run the workflow, with a worker that dies at the point and another one after it."""
    folder.mkdir()
    job = Job(dsn, folder, drill.cast, drill.root, files=files)
    async with play(drill, dsn) as engine:
        with workers(job) as begin:
            first = begin(point=point, trace=point is None)
            await until(lambda: either(first.exit_code is not None, has_ended(engine, drill.root)), f"a death at {point}")
            if point is not None and first.exit_code is None:
                await asyncio.sleep(0.1)  # it may be about to die of its last write
            died = first.exit_code is not None
            if died:
                assert first.exit_code == -signal.SIGKILL, first.log.read_text()
                begin()
            await until(lambda: has_ended(engine, drill.root), f"the recovery from {point}")
            await until(lambda: is_tidy(engine), f"all to be tidy after {point}")
    with psycopg.connect(dsn) as conn:
        assert conn.execute(GAPS).fetchall() == [], point
        found = history(conn, drill.schema, without=drill.but_for)
    ledger = folder / "ledger"
    return Outcome(point, died, found, Counter(ledger.read_text().split() if ledger.exists() else []))


@asynccontextmanager
async def play(drill: Drill, dsn: str) -> AsyncIterator[Engine]:
    """The workflow enqueued, and the world playing its part until the end of the block."""
    async with Engine.connect(dsn, pool_size=2) as engine:
        await drill.start(engine)
        world = asyncio.create_task(drill.world(engine))
        try:
            yield engine
        finally:
            world.cancel()
            await asyncio.wait([world])


async def either(now: bool, later: Awaitable[bool]) -> bool:
    return await later or now


async def has_ended(engine: Engine, id: str) -> bool:
    status = await engine.status(id)
    return status is not None and status.status in FINAL


async def is_parked(engine: Engine, id: str) -> bool:
    status = await engine.status(id)
    return status is not None and status.executor_id is None and bool(status.waits)


async def waits_for(engine: Engine, id: str, token: str) -> bool:
    status = await engine.status(id)
    return status is not None and status.executor_id is None and token in (status.waits or [])


async def is_tidy(engine: Engine) -> bool:
    async with engine.pool.connection() as conn:
        return await (await conn.execute(LEFTOVERS)).fetchone() is None


async def crash_everywhere(drill: Drill, halls: list[Stage], folder: Path, *, files: bool = False) -> None:
    """Every point of the drill, or of its `files`, several at once. Prints how many there were; fails if any left a trace."""
    reference = await perform(drill, halls[0].dsn, folder / "reference", None, files=files)
    assert {row[2] for row in reference.found["status"]} == set(drill.ends), reference.found["status"]
    passed = dict.fromkeys((folder / "reference" / "trace").read_text().splitlines())
    points = [point for point in passed if not point.startswith("ready")]  # to the database the same as `before`
    if not files:
        require_every_record(drill, reference, points)
    waiting = iter(enumerate(points))
    outcomes: list[Outcome] = []

    async def work_in(stage: Stage) -> None:
        for number, point in waiting:
            stage.clear()
            outcomes.append(await perform(drill, stage.dsn, folder / str(number), point, files=files))

    async with asyncio.TaskGroup() as group:
        for stage in halls:
            group.create_task(work_in(stage))
    judge(reference, outcomes)


def require_every_record(drill: Drill, reference: Outcome, points: list[str]) -> None:
    """No row of the journal without its two points, so that no change of the engine can make this drill an empty one."""
    passed = {point.rpartition(" #")[0] for point in points}
    for workflow, path, *_ in reference.found["journal"]:
        of = workflow.removeprefix(drill.root) or "."
        for moment in ("before", "after"):
            names = {f"{moment} {of} {kind} {path}" for kind in ("Step", "Timer", "Receive", "Transaction")}
            assert names & passed, f"{workflow} {path} was recorded without a point {moment} its commit"


def judge(reference: Outcome, outcomes: list[Outcome]) -> None:
    wrong = {o.point: d for o in outcomes if (d := difference(reference.found, o.found))}
    missed = [o.point for o in outcomes if not o.died]
    print(
        f"\n{len(outcomes)} crash points: {len(outcomes) - len(missed)} died there, {len(wrong)} diverged; not reached: {missed}"
    )
    assert not wrong, "\n".join(f"{point}\n{text}" for point, text in wrong.items())
    for outcome in outcomes:
        assert outcome.executions.keys() == reference.executions.keys(), outcome.point
        most = max(outcome.executions.values(), default=0)
        assert most <= 1 + outcome.died, f"{outcome.point}: a step ran {most} times"
    assert not [point for point in missed if is_certain(str(point))]


def is_certain(point: str) -> bool:
    """Whether every run passes this point: all records do; how often a run parks, looks and wakes is a matter of luck."""
    return any(kind in point for kind in (" Step ", " Timer ", " Transaction ", " Finish", " Claim #1"))

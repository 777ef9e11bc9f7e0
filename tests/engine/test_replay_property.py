"""A run that crashed anywhere, any number of times, has the same result and the same journal as one that never did."""

import asyncio
import inspect
import itertools
import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from engine import Worker
from tests.engine import programs
from tests.engine.programs import PROGRAMS, Program
from tests.engine.workshop import PATIENCE_S, Brake, Ledger, Workshop

GENERATED = {"DBOS.now", "DBOS.uuid", "DBOS.sleep"}
SHARED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]

#: A crash: at which of a worker's commits, and whether just after it instead of just before.
CRASHES = st.lists(st.tuples(st.integers(1, 6), st.booleans()), min_size=1, max_size=6)


class Family:
    """A run of a program, with everything it starts, driven to its end on a stopped clock."""

    def __init__(self, shop: Workshop, program: Program, root: str) -> None:
        self.shop = shop
        self.program = program
        self.root = root
        self._sent: set[str] = set()

    async def enqueue(self) -> None:
        async with self.shop.engine.transaction() as conn:
            await self.shop.engine.enqueue(programs.run_program, self.program, "", id=self.root, conn=conn)
            for topic in programs.topics(self.program):
                await self.shop.engine.send(self.root, f"to {topic}", topic, conn=conn)

    async def tend(self) -> bool:
        """Give new children their messages, and let time pass when everybody waits; whether the root has ended."""
        rows = await self.shop.rows(
            "select workflow_uuid as id, inputs, status, waits, owner_xid, wake_at_ms, name from dbos.workflow_status"
        )
        for row in rows:
            if row["id"] not in self._sent and row["id"] != self.root and row["name"] == "program":
                program, place = await self._of(row["id"])
                for topic in programs.topics(program, place):
                    await self.shop.engine.send(row["id"], f"to {topic}", topic)
            self._sent.add(row["id"])
        live = [row for row in rows if row["status"] in ("ENQUEUED", "PENDING", "DELAYED")]
        if live and all(row["status"] == "PENDING" and row["owner_xid"] is None for row in live):
            wakes = [row["wake_at_ms"] for row in live if row["wake_at_ms"] is not None]
            if wakes:
                await self.shop.run("update engine.clock set now_ms = greatest(now_ms, %s)", min(wakes))
                self.shop.engine.hint()
        return not live

    async def _of(self, id: str) -> tuple[Program, str]:
        status = await self.shop.engine.handle(id).status()
        program, place = status.input["positionalArgs"]
        return program, place

    async def records(self) -> dict[str, dict[str, Any]]:
        """What each workflow of the family recorded, by path, without what chance and time made of it."""
        found: dict[str, dict[str, Any]] = {}
        for row in await self.shop.rows("select workflow_uuid as id from dbos.workflow_status"):
            steps = await self.shop.engine.steps(row["id"])
            assert [s.function_id for s in steps] == list(range(1, len(steps) + 1))
            journal = {s.path or "": (s.name, None if s.name in GENERATED else s.output, s.error, s.child_id) for s in steps}
            assert len(journal) == len(steps)
            found[row["id"]] = {path: record for path, record in journal.items() if not is_deadline(path, journal)}
        return found


def is_deadline(path: str, journal: dict[str, Any]) -> bool:
    """Whether this is the moment at which the call before it gives up: recorded only if that call had to wait."""
    branch, _, number = path.rpartition(".")
    before = f"{branch}.{int(number) - 1}" if branch else str(int(number) - 1)
    return journal[path][0] == "DBOS.sleep" and journal.get(before, ("",))[0] in ("DBOS.recv", "DBOS.getEvent")


async def drive(family: Family, worker: Worker, brake: Brake | None) -> bool:
    """Until the family has ended (True) or the worker stands at its brake (False)."""
    for turn in itertools.count():
        if brake is not None and brake.reached.is_set():
            return False
        if await family.tend():
            return True
        await asyncio.sleep(0.001)
        assert turn < PATIENCE_S * 200, "the family is stuck"
    raise AssertionError


async def run(shop: Workshop, ledger: Ledger, program: Program, crashes: Sequence[tuple[int, bool]]) -> tuple[Any, Any, Any, Any]:
    """(result, records, ledger, streams) of a run with these crashes, in an empty database."""
    await shop.empty()
    await ledger.make()
    await shop.set_clock()
    family = Family(shop, program, "root")
    await family.enqueue()
    ended = False
    for commit, after in crashes:
        worker = await shop.worker(programs.run_program, programs.announce)
        ended = await drive(family, worker, Brake(worker, commit, after=after))
        await shop.crash(worker)
        if ended:
            break
    if not ended:
        worker = await shop.worker(programs.run_program, programs.announce)
        await drive(family, worker, None)
        await shop.stop(worker)
    streams = await shop.rows('select workflow_uuid, key, value, "offset" from dbos.streams order by 1, 2, 4')
    return await shop.result("root"), await family.records(), await ledger.entries(), streams


async def compare(shop: Workshop, ledger: Ledger, program: Program, crashes: Sequence[tuple[int, bool]]) -> None:
    calm = await run(shop, ledger, program, [])
    assert calm[2] == sorted(programs.expected_ledger(program))
    shaken = await run(shop, ledger, program, crashes)
    assert shaken == calm


@given(program=PROGRAMS, crashes=CRASHES)
@settings(max_examples=20, deadline=None, database=None, derandomize=True, phases=[Phase.generate], suppress_health_check=SHARED)
async def test_a_crashed_run_ends_as_an_uncrashed_one(
    shop: Workshop, ledger: Ledger, program: Program, crashes: list[tuple[int, bool]]
) -> None:
    await compare(shop, ledger, program, crashes)


@pytest.mark.slow
@given(program=PROGRAMS, crashes=CRASHES)
@settings(max_examples=200, deadline=None, database=None, suppress_health_check=SHARED)
async def test_a_crashed_run_ends_as_an_uncrashed_one_very_often(
    shop: Workshop, ledger: Ledger, program: Program, crashes: list[tuple[int, bool]]
) -> None:
    await compare(shop, ledger, program, crashes)


EVERYTHING: Program = [
    ["uuid"], ["now"], ["step", 1], ["fail", 2], ["transact", 3], ["ride", 4], ["event", "x", 5], ["stream", 6],
    ["gather", [[["step", 7], ["recv", True]], [["sleep", 100], ["child", [["step", 8], ["recv", False]]]], [["give up", 50]]], False],
    ["start", [["gather", [[["uuid"]], [["transact", 9]]], True]]], ["event of child", 1], ["send self", 2],
]  # fmt: skip


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("stride", [4, pytest.param(1, marks=pytest.mark.slow)])
async def test_a_crash_at_every_commit_of_a_run_that_uses_everything(
    shop: Workshop, ledger: Ledger, after: bool, stride: int
) -> None:
    calm = await run(shop, ledger, EVERYTHING, [])
    assert calm[2] == sorted(programs.expected_ledger(EVERYTHING))
    for commit in range(1, 60, stride):
        shaken = await run(shop, ledger, EVERYTHING, [(commit, after)])
        assert shaken == calm, f"crashed {'after' if after else 'before'} commit {commit}"


def test_programs_use_everything() -> None:
    """The interpreter and what it is made of cannot drift apart."""
    source = inspect.getsource(programs)
    assert set(re.findall(r'st\.just\("([a-z ]+)"\)', source)) == set(re.findall(r'case \["([a-z ]+)"', source))

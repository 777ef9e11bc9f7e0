"""What is old enough goes, whole families at once, and nothing that somebody unfinished refers to: batch by batch, beside whoever works."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any, LiteralString

import pytest

from engine import Connection, get_event, recv, retention, send, set_event, start, step, workflow, write_stream
from engine.entries import PART
from engine.retention import Batch, Position
from tests.engine.workshop import NOON_MS, Trace, Undone, Workshop
from tests.tables import row_counts

DAY_MS = 86_400_000
OLD_MS = NOON_MS - 40 * DAY_MS  # when everything here ended, unless a test says otherwise
CUT_MS = NOON_MS - 30 * DAY_MS

PUT: LiteralString = """
insert into dbos.workflow_status (workflow_uuid, status, name, created_at, updated_at, completed_at, parent_workflow_id, forked_from)
values (%(id)s, %(status)s, 'w', %(began_ms)s, %(began_ms)s, %(ended_ms)s, %(parent)s, %(original)s)
"""


async def put(shop: Workshop, id: str, status: str | None = "SUCCESS", *, ended_ms: int | None = OLD_MS, **columns: Any) -> None:
    """Write a workflow's row; it was made a second before things ended, unless the columns say otherwise."""
    row = {"id": id, "status": status, "began_ms": OLD_MS - 1000, "ended_ms": ended_ms, "parent": None, "original": None}
    async with shop.engine.pool.connection() as conn:
        await conn.execute(PUT, row | columns)


@contextlib.asynccontextmanager
async def transaction(shop: Workshop) -> AsyncIterator[Connection]:
    async with await shop.connect() as conn, conn.transaction():
        yield conn


async def prune(shop: Workshop, before_ms: int = CUT_MS, *, limit: int = 1000) -> list[Batch]:
    """A whole pass; what each batch did."""
    batches: list[Batch] = []
    after: Position | None = None
    while not batches or after is not None:
        async with transaction(shop) as conn:
            batches.append(await retention.prune(conn, before_ms, limit=limit, after=after))
        after = batches[-1].after
    return batches


def kept(batches: Sequence[Batch]) -> dict[str, int]:
    return dict(sum((Counter(batch.kept) for batch in batches), Counter[str]()))


def workflows(counts: dict[str, int]) -> dict[str, int]:
    """The tables that have rows about workflows."""
    return {name: count for name, count in counts.items() if not name.startswith(("dbos.queue", "engine.queue", "engine.worker"))}


async def left(shop: Workshop) -> list[str]:
    return [row["workflow_uuid"] for row in await shop.rows("select workflow_uuid from dbos.workflow_status order by 1")]


@pytest.fixture(autouse=True)
async def noon(shop: Workshop) -> None:
    await shop.set_clock()


# What goes ---------------------------------------------------------------------------------------------------------------


async def test_what_ended_before_the_moment_goes_with_all_that_hangs_on_it(shop: Workshop) -> None:
    @step
    async def note() -> str:
        return "noted"

    @workflow(name="child")
    async def child() -> str:
        return await note()

    @workflow(name="everything")
    async def everything() -> str:
        await set_event("told", 1)
        await write_stream("log", "line")
        await child()
        return await recv("go")

    before = row_counts(shop.dsn)
    worker = await shop.worker(everything, child)
    await shop.engine.enqueue(everything, id="w")
    await shop.engine.send("w", "yes", "go")
    await shop.engine.send("w", "unread", "other")
    assert await shop.result("w") == "yes"
    await shop.drain(worker)
    await shop.run("insert into dbos.workflow_input (workflow_uuid, inputs) values ('w', '{}')")
    await shop.run("insert into dbos.workflow_output (workflow_uuid, output) values ('w', '1')")
    await shop.run("insert into engine.wait (token, workflow_uuid) values ('c:x', 'w')")
    await shop.run("insert into engine.wake (token, workflow_uuid) values ('c:x', 'w')")
    found = row_counts(shop.dsn)
    assert {name for name, count in found.items() if count > before[name]} >= {
        "dbos.workflow_status",
        "dbos.workflow_input",
        "dbos.workflow_output",
        "dbos.operation_outputs",
        "dbos.notifications",
        "dbos.workflow_events",
        "dbos.workflow_events_history",
        "dbos.streams",
        "engine.wait",
        "engine.wake",
    }
    (batch,) = await prune(shop, NOON_MS + 1)
    assert [len(family.ids) for family in batch.families] == [2]
    assert (batch.families[0].first_ended_ms, batch.families[0].last_ended_ms) == (NOON_MS, NOON_MS)
    assert workflows(row_counts(shop.dsn)) == workflows(before)


@pytest.mark.parametrize("status", ["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"])
async def test_each_final_state_goes_and_only_if_its_end_lies_before_the_moment(shop: Workshop, status: str) -> None:
    await put(shop, "before", status, ended_ms=CUT_MS - 1)
    await put(shop, "at", status, ended_ms=CUT_MS)
    batches = await prune(shop)
    assert await left(shop) == ["at"]
    assert kept(batches) == {"ended too late": 1}


@pytest.mark.parametrize("status", ["ENQUEUED", "DELAYED", "PENDING", None])
async def test_what_has_not_ended_stays_however_old_it_is(shop: Workshop, status: str | None) -> None:
    await put(shop, "w", status, ended_ms=None, began_ms=1)
    assert kept(await prune(shop)) == {"unfinished": 1}
    assert await left(shop) == ["w"]


async def test_of_a_row_without_a_time_of_its_end_the_last_change_counts(shop: Workshop) -> None:
    await put(shop, "old", ended_ms=None)
    await put(shop, "young", ended_ms=None)
    await shop.run("update dbos.workflow_status set updated_at = %s where workflow_uuid = 'young'", CUT_MS)
    await prune(shop)
    assert await left(shop) == ["young"]


# Families ----------------------------------------------------------------------------------------------------------------

#: (id, parent, original), the oldest first.
FAMILY = [
    ("head", None, None),
    ("child", "head", None),
    ("grandchild", "child", None),
    ("fork", None, "head"),
    ("forks child", "fork", None),
    ("fork of fork", None, "fork"),
]


async def put_family(shop: Workshop, **states: tuple[str, int | None]) -> None:
    for number, (id, parent, original) in enumerate(FAMILY):
        status, ended_ms = states.get(id.replace(" ", "_"), ("SUCCESS", OLD_MS))
        await put(shop, id, status, ended_ms=ended_ms, parent=parent, original=original, began_ms=OLD_MS - 1000 + number)


async def test_a_family_goes_at_once_however_small_the_batch(shop: Workshop) -> None:
    await put_family(shop)
    first, *rest = await prune(shop, limit=1)
    assert [len(family.ids) for family in first.families] == [6]
    assert [batch.families for batch in rest] == [[]]
    assert await left(shop) == []


@pytest.mark.parametrize(
    ("live", "reason"),
    [
        ("head", "unfinished parent"),
        ("child", "unfinished child"),
        ("grandchild", "unfinished child"),
        ("fork", "unfinished fork"),
        ("forks_child", "unfinished child"),
        ("fork_of_fork", "unfinished fork"),
    ],
)
@pytest.mark.parametrize("limit", [1, 1000])
async def test_one_unfinished_member_keeps_the_whole_family(shop: Workshop, live: str, reason: str, limit: int) -> None:
    await put_family(shop, **{live: ("PENDING", None)})
    found = kept(await prune(shop, limit=limit))
    assert len(await left(shop)) == 6
    assert found["unfinished"] == 1
    assert sum(found.values()) == 6, "each is counted once"
    assert reason in found


async def test_a_fork_whose_original_goes_on_stays(shop: Workshop) -> None:
    await put(shop, "original", "ENQUEUED", ended_ms=None)
    await put(shop, "zz fork", original="original")
    assert kept(await prune(shop)) == {"unfinished": 1, "unfinished original": 1}


async def test_a_member_that_ended_too_late_keeps_the_others(shop: Workshop) -> None:
    await put_family(shop, grandchild=("ERROR", CUT_MS))
    assert kept(await prune(shop)) == {"ended too late": 1, "relative ended too late": 5}
    assert len(await left(shop)) == 6


async def test_a_parent_that_was_deleted_holds_nobody(shop: Workshop) -> None:
    await put(shop, "a", parent="gone")
    await put(shop, "b", "PENDING", ended_ms=None, parent="gone")
    await prune(shop)
    assert await left(shop) == ["b"]


async def test_a_child_that_is_older_than_its_parent_goes_with_it(shop: Workshop) -> None:
    await put(shop, "child", parent="parent", began_ms=OLD_MS - 5000)
    await put(shop, "parent")
    await put(shop, "other child", parent="other", began_ms=OLD_MS - 5000)
    await put(shop, "other", "PENDING", ended_ms=None)
    await prune(shop, limit=1)
    assert await left(shop) == ["other", "other child"]


async def test_a_fork_that_is_made_while_somebody_looks_keeps_its_original(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(shop, "w")
    real = retention._rows
    forks: list[str] = []

    async def rows(conn: Connection, query: LiteralString, given: Any) -> Any:
        found = await real(conn, query, given)
        if query is retention.FAMILIES and not forks:
            forks.append(await shop.engine.fork("w", 1))
        return found

    monkeypatch.setattr(retention, "_rows", rows)
    assert kept(await prune(shop)) == {"unfinished fork": 1}
    assert await left(shop) == sorted(["w", *forks])


# Who waits ---------------------------------------------------------------------------------------------------------------


async def test_what_a_parked_workflow_waits_for_stays_until_it_waits_no_more(shop: Workshop) -> None:
    @workflow(name="wait for event")
    async def wait_for_event() -> Any:
        return await get_event("w", "never", timeout_s=3600)

    await put(shop, "w")
    await shop.worker(wait_for_event)
    await shop.engine.enqueue(wait_for_event, id="waiter")
    await shop.parked("waiter")
    assert kept(await prune(shop)) == {"waited for": 1}
    await shop.pass_time(3600)
    assert await shop.result("waiter") is None
    await prune(shop)
    assert await left(shop) == ["waiter"]


@pytest.mark.parametrize(
    ("token", "status", "goes"),
    [
        ("c:w", "PENDING", False),
        (f"e:w{PART}key", "PENDING", False),
        ("c:w", "SUCCESS", True),
        (f"e:w2{PART}key", "PENDING", True),
        ("c:w2", "PENDING", True),
    ],
)
async def test_only_an_unfinished_waiter_for_this_very_workflow_holds_it(
    shop: Workshop, token: str, status: str, goes: bool
) -> None:
    await put(shop, "w")
    await put(shop, "waiter", status, ended_ms=NOON_MS if status == "SUCCESS" else None, began_ms=NOON_MS)
    await shop.run("insert into engine.wait (token, workflow_uuid) values (%s, 'waiter')", token)
    await prune(shop)
    assert await left(shop) == (["waiter"] if goes else ["w", "waiter"])


async def test_tokens_about_one_workflow_stand_together_in_the_databases_of_every_language(shop: Workshop) -> None:
    collation: LiteralString = """
        select c.collname from pg_attribute a join pg_collation c on c.oid = a.attcollation
         where a.attrelid = 'engine.wait'::regclass and a.attname = 'token'
    """
    assert await shop.value(collation) == "C"


async def test_a_family_stays_if_one_member_is_waited_for(shop: Workshop) -> None:
    await put_family(shop)
    await put(shop, "waiter", "PENDING", ended_ms=None, began_ms=NOON_MS)
    await shop.run("insert into engine.wait (token, workflow_uuid) values ('c:grandchild', 'waiter')")
    assert kept(await prune(shop)) == {"waited for": 6}


# Batches -----------------------------------------------------------------------------------------------------------------


async def test_the_oldest_go_first_and_a_pass_comes_to_everything_once(shop: Workshop) -> None:
    for n in range(10):
        await put(shop, f"w{n}", began_ms=OLD_MS - n // 3)  # some were made at the same time
    batches = await prune(shop, limit=3)
    assert [[family.ids[0] for family in batch.families] for batch in batches] == [
        ["w9", "w6", "w7"],
        ["w8", "w3", "w4"],
        ["w5", "w0", "w1"],
        ["w2"],
    ]
    assert await left(shop) == []


async def test_a_batch_is_bounded_also_when_its_families_are_large(shop: Workshop) -> None:
    for n in range(8):
        await put(shop, f"head {n}", began_ms=OLD_MS - 1000 + n)
        for m in range(4):
            await put(shop, f"child {n}-{m}", parent=f"head {n}", began_ms=OLD_MS + n)
    batches = await prune(shop, limit=6)
    sizes = [len(batch.ids) for batch in batches]
    assert sum(sizes) == 40
    assert max(sizes) <= 12
    assert await left(shop) == []


async def test_one_family_may_be_larger_than_any_batch(shop: Workshop) -> None:
    await put(shop, "head", began_ms=OLD_MS - 2000)
    for n in range(30):
        await put(shop, f"child {n}", parent="head")
    batches = await prune(shop, limit=5)
    assert len(batches[0].ids) == 31


async def test_a_row_that_somebody_holds_is_left_for_the_next_pass(shop: Workshop) -> None:
    await put_family(shop)
    await put(shop, "alone")
    async with transaction(shop) as conn:
        await conn.execute("select 1 from dbos.workflow_status where workflow_uuid = 'forks child' for no key update")
        assert kept(await prune(shop)) == {"locked": 6}
    assert len(await left(shop)) == 6
    await prune(shop)
    assert await left(shop) == []


async def test_a_message_on_its_way_keeps_its_receiver_for_now(shop: Workshop) -> None:
    await put(shop, "w")
    async with transaction(shop) as conn:
        await shop.engine.send("w", 1, conn=conn)
        assert kept(await prune(shop)) == {"locked": 1}


async def test_a_batch_that_breaks_off_is_undone_and_the_next_pass_finds_all_of_it(shop: Workshop) -> None:
    for n in range(6):
        await put(shop, f"w{n}", began_ms=OLD_MS - 1000 + n)
    async with transaction(shop) as conn:
        first = await retention.prune(conn, CUT_MS, limit=3)
    with contextlib.suppress(Undone):
        async with transaction(shop) as conn:
            await retention.prune(conn, CUT_MS, limit=3, after=first.after)
            raise Undone
    assert await left(shop) == ["w3", "w4", "w5"]
    await prune(shop, limit=3)
    assert await left(shop) == []


async def test_who_only_looks_writes_nothing_and_counts_nothing_twice(shop: Workshop) -> None:
    await put_family(shop)
    await put(shop, "live", "PENDING", ended_ms=None)
    await put(shop, "lives child", parent="live")
    before = row_counts(shop.dsn)
    seen: list[Batch] = []
    after: Position | None = None
    while not seen or after is not None:
        async with transaction(shop) as conn:
            await conn.execute("set transaction read only")
            seen.append(await retention.old_workflows(conn, CUT_MS, limit=2, after=after, lock=False))
        after = seen[-1].after
    assert [len(batch.ids) for batch in seen if batch.ids] == [6]
    assert kept(seen) == {"unfinished": 1, "unfinished parent": 1}
    assert row_counts(shop.dsn) == before


async def test_a_family_that_hangs_on_two_heads_is_come_to_once(shop: Workshop) -> None:
    await put(shop, "a", began_ms=OLD_MS - 3000)
    await put(shop, "b", began_ms=OLD_MS - 2000)
    await put(shop, "of both", parent="a", original="b")
    async with transaction(shop) as conn:
        first = await retention.old_workflows(conn, CUT_MS, limit=1, lock=False)
        second = await retention.old_workflows(conn, CUT_MS, limit=1, after=first.after, lock=False)
    assert (first.ids, second.ids) == (["a", "b", "of both"], [])


async def test_two_passes_at_the_same_time_delete_everything_once(shop: Workshop) -> None:
    for n in range(40):
        await put(shop, f"w{n}", began_ms=OLD_MS - 1000 + n)
    passes = await asyncio.gather(*(prune(shop, limit=4) for _ in range(3)))
    gone = [id for batches in passes for batch in batches for id in batch.ids]
    await prune(shop)
    assert len(gone) == len(set(gone))
    assert await left(shop) == []


# Beside whoever works ----------------------------------------------------------------------------------------------------


async def test_workers_are_not_disturbed(shop: Workshop) -> None:
    @workflow(name="child")
    async def child(n: int) -> int:
        await send(f"new {n}", "done", "child")
        return n

    @workflow(name="parent")
    async def parent(n: int) -> int:
        handle = await start(child, n, queue="default")
        await recv("child")
        return await handle.result()

    await shop.worker(parent, child)
    await shop.worker(parent, child)
    for n in range(30):
        await shop.engine.enqueue(child, n, id=f"old {n}")
    await shop.engine.enqueue(parent, 99, id="new 99")  # so that messages find somebody
    await shop.pass_time(3600)
    await shop.ended(*(f"old {n}" for n in range(30)))
    now_ms = NOON_MS + 7_200_000
    await shop.set_clock(now_ms)

    async def work() -> list[Any]:
        for n in range(30):
            await shop.engine.enqueue(parent, n, id=f"new {n}")
        return [await shop.result(f"new {n}") for n in range(30)]

    async def clear() -> None:
        while [id for id in await left(shop) if id.startswith("old")]:
            await prune(shop, now_ms, limit=7)

    results, _ = await asyncio.gather(work(), clear())
    assert results == list(range(30))


async def test_an_id_that_is_used_again_starts_afresh(shop: Workshop, trace: Trace) -> None:
    @step
    async def note() -> int:
        return trace("note")

    @workflow(name="w")
    async def once() -> list[Any]:
        return [await note(), await recv("go", timeout_s=5)]

    await shop.worker(once)
    await shop.engine.enqueue(once, id="w")
    await shop.engine.send("w", "first", "go", key="k")
    assert await shop.result("w") == [1, "first"]
    await prune(shop, NOON_MS + 1)
    assert (await shop.engine.enqueue(once, id="w")).fresh
    assert await shop.engine.send("w", "second", "go", key="k")
    assert await shop.result("w") == [2, "second"]
    assert len(await shop.names("w")) == 2


# Payloads of nobody ------------------------------------------------------------------------------------------------------


async def test_old_payloads_of_no_workflow_go_and_all_others_stay(shop: Workshop) -> None:
    await put(shop, "w", "PENDING", ended_ms=None)
    for id, at_ms in (("w", OLD_MS), ("orphan", CUT_MS - 1), ("young orphan", CUT_MS)):
        await shop.run("insert into dbos.workflow_input (workflow_uuid, retention_timestamp) values (%s, %s)", id, at_ms)
        await shop.run("insert into dbos.workflow_output (workflow_uuid, retention_timestamp) values (%s, %s)", id, at_ms)
    async with transaction(shop) as conn:
        assert await retention.count_orphans(conn, CUT_MS) == 2
        assert await retention.delete_orphans(conn, CUT_MS) == 2
    for table in ("input", "output"):
        query: LiteralString = (
            "select workflow_uuid from dbos.workflow_input order by 1"
            if table == "input"
            else "select workflow_uuid from dbos.workflow_output order by 1"
        )
        assert [row["workflow_uuid"] for row in await shop.rows(query)] == ["w", "young orphan"]

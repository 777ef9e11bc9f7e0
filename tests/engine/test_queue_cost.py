"""What a claim costs depends on what it takes, not on how many partitions, queued or finished workflows there are.

Counted in pages touched by engine.claim, which do not depend on the machine; the plans are those of a worker's connection, on tables
that were never analyzed.
"""

from collections.abc import Iterator
from statistics import median
from typing import Any, LiteralString

import psycopg
import pytest

from engine.entries import FOR_THE_SESSION, PIN_PLANS
from tests.conftest import new_database

ROOM = 8
TIMES = 9

FILL: LiteralString = """
insert into dbos.workflow_status (workflow_uuid, status, name, queue_name, queue_partition_key, priority, created_at, inputs)
select %(queue)s || '/' || n, 'ENQUEUED', 'w', %(queue)s, 'p' || n %% %(partitions)s, n %% 2, n, '{}' from generate_series(1, %(count)s) n
"""
LIMIT: LiteralString = "insert into dbos.queues (name, partition_concurrency) values (%s, 100)"
FINISH: LiteralString = """
update dbos.workflow_status set status = 'SUCCESS', owner_xid = null, held = false
 where status = any (%s) and queue_name = %s and coalesce(executor_id, '') <> 'other'
"""
AT_WORK: LiteralString = """
insert into dbos.workflow_status (workflow_uuid, status, name, queue_name, queue_partition_key, owner_xid, executor_id, held)
select 'busy/' || n, 'PENDING', 'w', %(queue)s, 'busy', 'x', 'other', true from generate_series(1, %(count)s) n
"""
CLAIM: LiteralString = """
explain (analyze, buffers, format json)
select * from engine.claim('me', gen_random_uuid()::text, null, array['w'], array[%s], array[8])
"""
READ: LiteralString = """
select sum(idx_tup_read)::int from pg_stat_user_indexes where relname = 'workflow_status' and indexrelname = 'workflow_status_queued'
"""


class Meter:
    """A database of its own, and how many pages a claim touches there."""

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self.conn = conn
        conn.execute("alter table dbos.workflow_status set (autovacuum_enabled = off)")
        conn.execute("alter table engine.queue_partition set (autovacuum_enabled = off)")
        conn.execute("insert into engine.clock (now_ms) values (1000000)")
        conn.execute("insert into engine.worker (id, lease_until_ms, started_at_ms) values ('me', 2000000, 0)")
        conn.execute(PIN_PLANS, FOR_THE_SESSION)

    def fill(self, queue: str, *, partitions: int, count: int, capped: bool = False) -> None:
        """Enqueue so many workflows in so many partitions."""
        if capped:
            self.conn.execute(LIMIT, (queue,))
        self.conn.execute(FILL, {"queue": queue, "partitions": partitions, "count": count})
        while self.one("select engine.look_again()"):
            pass

    def history(self, count: int) -> None:
        """Workflows that were queued and have ended, vacuumed as a table that is in use is."""
        self.fill("history", partitions=100, count=count)
        self.conn.execute(FINISH, (["ENQUEUED"], "history"))
        self.conn.execute("vacuum dbos.workflow_status")

    def pages(self, queue: str) -> int:
        """Touched by one claim of eight workflows, as a rule; each is finished before the next."""
        counts: list[int] = []
        for _ in range(TIMES):
            (plan,) = self.one(CLAIM, queue)
            assert plan["Plan"]["Actual Rows"] == ROOM
            counts.append(plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"])
            self.conn.execute(FINISH, (["PENDING"], queue))
        print(queue, counts)
        return int(median(counts))

    def one(self, query: LiteralString, *values: Any) -> Any:
        row = self.conn.execute(query, values, prepare=False).fetchone()
        assert row is not None
        return row[0]


@pytest.fixture
def meter(server: str, engine_template: str) -> Iterator[Meter]:
    with new_database(server, engine_template, direct=True) as dsn, psycopg.connect(dsn, autocommit=True) as conn:
        yield Meter(conn)


@pytest.mark.parametrize("capped", [False, True], ids=["no cap", "a cap"])
def test_a_claim_costs_the_same_with_ten_and_with_ten_thousand_partitions(meter: Meter, capped: bool) -> None:
    meter.fill("few", partitions=10, count=1000, capped=capped)
    few = meter.pages("few")
    meter.fill("many", partitions=10_000, count=20_000, capped=capped)
    assert meter.pages("many") <= 1.5 * few
    assert meter.pages("few") <= 1.5 * few  # nor do another queue's cost anything


@pytest.mark.parametrize("capped", [False, True], ids=["no cap", "a cap"])
def test_a_claim_costs_the_same_after_twenty_thousand_workflows_as_before_the_first(meter: Meter, capped: bool) -> None:
    meter.fill("q", partitions=10, count=1000, capped=capped)
    before = meter.pages("q")
    meter.history(20_000)
    assert meter.pages("q") <= 1.5 * before


def test_a_claim_counts_the_places_of_the_partitions_that_it_visits_only(meter: Meter) -> None:
    meter.fill("q", partitions=10, count=1000, capped=True)
    before = meter.pages("q")
    meter.conn.execute(AT_WORK, {"queue": "q", "count": 5000})
    assert meter.pages("q") <= 1.5 * before


def test_a_claim_does_not_read_through_other_partitions_work(meter: Meter) -> None:
    """The ends of their ranges in the index it may touch: a few entries for each of the partitions that it visits."""
    meter.fill("q", partitions=10, count=20_000)
    meter.pages("q")
    before = entries_read(meter)
    meter.pages("q")
    read = entries_read(meter) - before
    print(read)
    assert read <= TIMES * ROOM * 10


def entries_read(meter: Meter) -> int:
    """How many entries of the index over queued workflows have been read so far."""
    meter.one("select 1 from pg_stat_force_next_flush()")
    meter.conn.execute("select pg_stat_clear_snapshot()")
    return meter.one(READ)

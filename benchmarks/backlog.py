"""Backlogs for the benchmarks of queues, made in SQL: as enqueues would leave them, and faster."""

from collections.abc import Mapping
from typing import LiteralString

from benchmarks.server import Database
from benchmarks.workloads import QUEUE

CHUNK = 100_000  # rows a commit

# Partition after partition in turn, so that the oldest are spread over all of them.
FILL: LiteralString = """
insert into dbos.workflow_status (workflow_uuid, status, name, queue_name, queue_partition_key, inputs, priority, creator_xid,
                                  created_at, updated_at, serialization)
select %(prefix)s || md5(n::text), 'ENQUEUED', %(name)s, %(queue)s, %(key)s || n %% %(partitions)s::int, %(inputs)s, %(priority)s,
       %(prefix)s || n, clock.now_ms, clock.now_ms, 'portable_json'
  from (select engine.now_ms() as now_ms offset 0) clock, generate_series(%(first)s::int, %(last)s::int) n
"""
FINISHED: LiteralString = """
insert into dbos.workflow_status (workflow_uuid, status, name, queue_name, queue_partition_key, inputs, output, priority, creator_xid,
                                  executor_id, claims, created_at, updated_at, started_at_epoch_ms, completed_at, serialization)
select %(prefix)s || n, 'SUCCESS', %(name)s, %(queue)s, %(key)s || n %% %(partitions)s::int, %(inputs)s, '1', 0, %(prefix)s || n,
       'gone', 1, clock.now_ms - n, clock.now_ms, clock.now_ms, clock.now_ms, 'portable_json'
  from (select engine.now_ms() as now_ms offset 0) clock, generate_series(%(first)s::int, %(last)s::int) n
"""
LOOK_AGAIN: LiteralString = "select engine.look_again()"
KNOW: LiteralString = "insert into engine.queue (name) values (%s) on conflict do nothing"


def fill(
    database: Database,
    count: int,
    partitions: int,
    *,
    name: str,
    prefix: str = "w",
    key: str = "t",
    priority: int = 0,
    argument: str = "1",
) -> None:
    """Enqueue `count` runs over `partitions` partitions (key + 0, 1, 2 …) of a worker's queue; argument: JSON."""
    database.connection.execute(KNOW, (QUEUE,))
    _insert(database, FILL, count, partitions, {"name": name, "prefix": prefix, "key": key, "priority": priority}, argument)


def finished(database: Database, count: int, partitions: int, *, name: str) -> None:
    """Runs that ended, as they are left behind."""
    database.connection.execute(
        "alter table dbos.workflow_status disable trigger workflow_status_enqueued"
    )  # nothing here for it
    _insert(database, FINISHED, count, partitions, {"name": name, "prefix": "old", "key": "t"}, "1")
    database.connection.execute("alter table dbos.workflow_status enable trigger workflow_status_enqueued")


def _insert(
    database: Database, statement: LiteralString, count: int, partitions: int, given: Mapping[str, object], argument: str
) -> None:
    inputs = f'{{"positionalArgs":[{argument}],"namedArgs":{{}}}}'
    for first in range(0, count, CHUNK):
        of_chunk = {
            "partitions": partitions,
            "queue": QUEUE,
            "inputs": inputs,
            "first": first,
            "last": min(first + CHUNK, count) - 1,
        }
        database.connection.execute(statement, {**given, **of_chunk})
        look_again(database)


def look_again(database: Database) -> None:
    """Make the partitions runnable that got work, as a worker would."""
    while database.number(LOOK_AGAIN):
        pass


def settle(database: Database) -> None:
    """Leave the tables as vacuum does."""
    database.connection.execute("vacuum (analyze) dbos.workflow_status")
    database.connection.execute("vacuum (analyze) engine.queue_partition")

"""bin/ops: what operators do to many workflows at once, and what they look at first.

    bin/ops list-failed [--limit N]                 ids of failed workflows, the newest first
    bin/ops cancel [ID …]                           end them, with their children
    bin/ops resume [ID …]                           let cancelled ones go on
    bin/ops fork --step N [ID …]                    a copy of each that begins at record N
    bin/ops retry-from-step [--step STEP] [ID …]    a copy of each that begins where it went wrong, or at STEP (number or name)
    bin/ops sql inbox|slow|queues|snapshot          open questions, slow steps, queues, everything counted

Without ids they are read from standard input, the first word of each line. Whoever acts says who and why: --actor and --reason, or
OPS_ACTOR and OPS_REASON. What went well is a line of output: the id, and behind a tab the id of the fork. What did not is a line on
standard error, and makes the exit code 1; the others are not held up.
"""

import argparse
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import LiteralString

from psycopg.rows import dict_row

from bin.operators import accepted, act_on_each, add_who, is_number, on_an_engine, shown, standard_input, who, workflow_ids
from bin.settings import Settings
from bin.wiring import run
from engine import Engine
from steps import ops
from steps.contracts.base import parse
from steps.contracts.ops import CancelWorkflowRequest, ForkWorkflowRequest, ResumeWorkflowRequest
from steps.workflows import list_failed

Command = Callable[[Engine], Awaitable[int]]

INBOX: LiteralString = """
    select r.workflow_id, g.gate_key, g.created_at, g.deadline_at
      from app.human_gates g
      join app.runs r on r.id = g.run_id
     where g.resolved_at is null and g.dropped_at is null and r.status = 'waiting_input'
     order by g.deadline_at, g.created_at, g.gate_key
     limit 200
"""
SLOW: LiteralString = """
    select workflow_uuid, function_id, function_name, duration_ms, to_timestamp(started_at_epoch_ms / 1000.0) as started_at
      from app.v_ops_slow_steps
     order by duration_ms desc, workflow_uuid, function_id
     limit 200
"""
QUEUES: LiteralString = """
    select queue_name, queue_partition_key, status, workflow_count, to_timestamp(oldest_created_at / 1000.0) as oldest_created_at
      from app.v_ops_queue_fairness
     order by queue_name, queue_partition_key nulls first, status
     limit 200
"""
SNAPSHOT: LiteralString = """
    select s.name, s.status, count(*) filter (where s.status = 'PENDING' and s.executor_id is null) as parked, count(*) as workflows,
           to_timestamp(min(s.created_at) / 1000.0) as oldest_created_at, to_timestamp(max(s.updated_at) / 1000.0) as last_moved_at
      from dbos.workflow_status s
     group by s.name, s.status
     order by s.name, s.status
"""
VIEWS: Mapping[str, LiteralString] = {"inbox": INBOX, "slow": SLOW, "queues": QUEUES, "snapshot": SNAPSHOT}


def main(settings: Settings) -> int:
    command = read_arguments(sys.argv[1:], settings)
    return on_an_engine(settings, command)


def read_arguments(arguments: list[str], settings: Settings) -> Command:
    parser = argparse.ArgumentParser(prog="bin/ops", description="Many workflows at once. Ids as arguments or on standard input.")
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list-failed", help="ids of failed workflows, the newest first")
    listing.add_argument("--limit", type=is_number, default=100, metavar="N", help="at most so many (100)")
    for name, text in (
        ("cancel", "end workflows, with their children"),
        ("resume", "let cancelled workflows go on"),
        ("fork", "start copies that begin at a record"),
        ("retry-from-step", "start copies that begin where they went wrong"),
    ):
        acting = commands.add_parser(name, help=text)
        acting.add_argument("ids", nargs="*", metavar="ID", help="workflows; without any, the first word of each line typed")
        add_who(acting)
        if name == "fork":
            acting.add_argument("--step", type=is_number, required=True, metavar="N", help="the first record to make anew")
            acting.add_argument("--app-version", metavar="VERSION", help="whose workers take the copies; default: the original's")
        elif name == "retry-from-step":
            acting.add_argument("--step", metavar="STEP", help="number or name of the record to begin with")
    looking = commands.add_parser("sql", help="a look at the tables")
    looking.add_argument("view", choices=list(VIEWS))
    looking.add_argument("--json", action="store_true", help="as JSON instead of a table")
    given = parser.parse_args(arguments)
    match given.command:
        case "list-failed":
            return lambda engine: failed(engine, given.limit)
        case "sql":
            return lambda engine: view(engine, given.view, as_json=given.json)
        case _:
            return batch(given, settings)


def batch(given: argparse.Namespace, settings: Settings) -> Command:
    """An action on many. Everything that is wrong with the arguments is told before anything is done."""
    by = who(given, settings)
    ids = workflow_ids(given.ids, standard_input())
    match given.command:
        case "cancel":
            cancelling = parse(CancelWorkflowRequest, by)
            return lambda engine: act_on_each(engine, ids, lambda e, id: ops.cancel(e, id, cancelling), accepted)
        case "resume":
            resuming = parse(ResumeWorkflowRequest, by)
            return lambda engine: act_on_each(engine, ids, lambda e, id: ops.resume(e, id, resuming), accepted)
        case "fork":
            forking = parse(ForkWorkflowRequest, {"stepN": given.step, "appVersion": given.app_version} | by)
            return lambda engine: act_on_each(engine, ids, lambda e, id: ops.fork(e, id, forking), accepted)
        case _:
            step = given.step
            parse(ForkWorkflowRequest, {"stepN": 1} | by)
            return lambda engine: act_on_each(engine, ids, lambda e, id: ops.retry_from_step(e, id, step, **by), accepted)


async def failed(engine: Engine, limit: int) -> int:
    async with engine.pool.connection() as conn:
        for id in await list_failed(conn, limit):
            print(id)
    return 0


async def view(engine: Engine, name: str, *, as_json: bool) -> int:
    async with engine.pool.connection() as conn, conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(VIEWS[name])
        rows = await cursor.fetchall()
        columns = {column.name: column.name for column in cursor.description or ()}
    print(shown(rows, columns, as_json=as_json))
    return 0


if __name__ == "__main__":
    run(main)

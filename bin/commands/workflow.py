"""bin/workflow: workflows one by one, in the words of DBOS's command line.

    bin/workflow list [--status S] [--name N] [--queue Q] [--limit N]    the newest first
    bin/workflow get ID                                                  one, why it stands still, and what operators did to it
    bin/workflow steps ID                                                its journal
    bin/workflow queue list [--queue Q] [--status S] [--limit N]         what is queued and at work, in order
    bin/workflow cancel ID | resume ID | fork ID --step N                as bin/ops, for one

A table, or JSON with --json. The actions want --actor and --reason, or OPS_ACTOR and OPS_REASON.
"""

import argparse
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, get_args

from bin.operators import Action, accepted, add_who, is_number, on_an_engine, pretty, shown, who
from bin.settings import Settings
from bin.wiring import run
from engine import Engine
from steps import ops, workflows
from steps.contracts.base import parse
from steps.contracts.ops import (
    CancelWorkflowRequest,
    ForkWorkflowRequest,
    OpsWorkflow,
    QueuedState,
    ResumeWorkflowRequest,
    WorkflowState,
)
from steps.times import moment_of

Command = Callable[[Engine], Awaitable[str]]

WORKFLOW = {
    "workflowID": "WORKFLOW",
    "status": "STATUS",
    "workflowName": "NAME",
    "queueName": "QUEUE",
    "applicationVersion": "VERSION",
    "createdAt": "CREATED",
}
STEP = {
    "functionId": "N",
    "stepId": "STEP",
    "status": "STATUS",
    "startedAt": "STARTED",
    "completedAt": "COMPLETED",
    "error": "ERROR",
}
ACTION = {"at": "AT", "op": "OP", "actor": "ACTOR", "reason": "REASON", "forkedWorkflowID": "FORK"}
REASON = {"code": "NOT AT WORK", "since": "SINCE", "until": "UNTIL", "sentence": "BECAUSE"}
TIMES = ("createdAt", "startedAt", "completedAt", "since", "until")


def main(settings: Settings) -> int:
    command = read_arguments(sys.argv[1:], settings)
    print(on_an_engine(settings, command))
    return 0


def read_arguments(arguments: list[str], settings: Settings) -> Command:
    parser = argparse.ArgumentParser(prog="bin/workflow", description="Workflows one by one.")
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="the newest first")
    listing.add_argument("-S", "--status", choices=get_args(WorkflowState), help="only those in this state")
    listing.add_argument("-n", "--name", help="only those of this name")
    add_filters(listing)
    queues = commands.add_parser("queue", help="what is queued and at work").add_subparsers(dest="what", required=True)
    queued = queues.add_parser("list", help="by queue, in the order in which it is taken")
    queued.add_argument("-S", "--status", choices=get_args(QueuedState), help="only those in this state")
    add_filters(queued)
    for name, text in (
        ("get", "one, why it stands still, and what was done to it"),
        ("status", "the same"),
        ("steps", "its journal"),
    ):
        add_id(commands.add_parser(name, help=text))
    for name, text in (("cancel", "end it, with its children"), ("resume", "let it go on"), ("fork", "a copy from a record on")):
        acting = commands.add_parser(name, help=text)
        add_id(acting)
        add_who(acting)
        if name == "fork":
            acting.add_argument("-S", "--step", type=is_number, default=1, metavar="N", help="the first record to make anew (1)")
            acting.add_argument("-v", "--app-version", metavar="VERSION", help="whose workers take it; default: the original's")
    given = parser.parse_args(arguments)
    match given.command:
        case "list" | "queue":
            return lambda engine: listed(engine, given)
        case "get" | "status":
            return lambda engine: one(engine, given.id, as_json=given.json)
        case "steps":
            return lambda engine: journal(engine, given.id, as_json=given.json)
        case _:
            action = action_of(given, who(given, settings))
            return lambda engine: acted(engine, given.id, action, as_json=given.json)


def add_filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-q", "--queue", help="only those of this queue")
    parser.add_argument("-l", "--limit", type=is_number, default=20, metavar="N", help="at most so many (20)")
    parser.add_argument("--json", action="store_true", help="as JSON instead of a table")


def add_id(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="the workflow")
    parser.add_argument("--json", action="store_true", help="as JSON instead of a table")


def action_of(given: argparse.Namespace, by: dict[str, str]) -> Action:
    match given.command:
        case "cancel":
            cancelling = parse(CancelWorkflowRequest, by)
            return lambda engine, id: ops.cancel(engine, id, cancelling)
        case "resume":
            resuming = parse(ResumeWorkflowRequest, by)
            return lambda engine, id: ops.resume(engine, id, resuming)
        case _:
            forking = parse(ForkWorkflowRequest, {"stepN": given.step, "appVersion": given.app_version} | by)
            return lambda engine, id: ops.fork(engine, id, forking)


async def acted(engine: Engine, id: str, action: Action, *, as_json: bool) -> str:
    done = await action(engine, id)
    return pretty(done.document()) if as_json else accepted(done)


async def listed(engine: Engine, given: argparse.Namespace) -> str:
    found: Sequence[OpsWorkflow]
    async with engine.pool.connection() as conn:
        if given.command == "queue":
            found = await workflows.list_queued(conn, queue=given.queue, status=given.status, limit=given.limit)
        else:
            which = workflows.Filter(name=given.name, queue=given.queue)
            found = await workflows.list_workflows(conn, which, status=given.status, limit=given.limit)
    return rows([row.document() for row in found], WORKFLOW, as_json=given.json)


async def one(engine: Engine, id: str, *, as_json: bool) -> str:
    async with engine.pool.connection() as conn:
        found = (await workflows.get_workflow(conn, id)).document()
    if as_json:
        return pretty(found)
    parts = [rows([found], WORKFLOW, as_json=False)]
    if "reason" in found:
        parts.append(rows([found["reason"]], REASON, as_json=False))
    if found["audit"]:
        parts.append(rows(found["audit"], ACTION, as_json=False))
    return "\n\n".join(parts)


async def journal(engine: Engine, id: str, *, as_json: bool) -> str:
    async with engine.pool.connection() as conn:
        found = [step.document() for step in await workflows.list_steps(conn, id)]
    if not as_json:
        found = [row | {"error": row["error"]["message"]} if "error" in row else row for row in found]
    return rows(found, STEP, as_json=as_json)


def rows(found: list[dict[str, Any]], columns: dict[str, str], *, as_json: bool) -> str:
    """JSON as the front door gives it, or a table with times for people."""
    if not as_json:
        found = [row | {name: moment_of(row[name]) for name in TIMES if name in row} for row in found]
    return shown(found, columns, as_json=as_json)


if __name__ == "__main__":
    run(main)

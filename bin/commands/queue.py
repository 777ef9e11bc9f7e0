"""bin/queue: what holds queues up, and what operators change about it.

    bin/queue list                                              every queue: what waits, what is at work, its limits
    bin/queue partitions QUEUE [--after KEY] [--limit N]        its partitions that have work or something of their own
    bin/queue workers                                           the worker processes that are alive
    bin/queue pause QUEUE [KEY] | resume QUEUE [KEY]            let nothing be taken from a queue, or from one partition
    bin/queue weight QUEUE KEY W                                a partition's share against the others' (1 each)
    bin/queue limit QUEUE KEY [--concurrency N] [--rate N/S]    its own cap and its own rate, N starts in S seconds; 0 lifts one
    bin/queue pause-worker ID | resume-worker ID                let a worker take nothing more

A table, or JSON with --json. What was changed is shown as it is now, and holds from the next claim on, for all workers. Changes want
--actor and --reason, or OPS_ACTOR and OPS_REASON; both are kept with what was done (app.queue_actions), and logged on standard error.
"""

import argparse
import re
import sys
from collections.abc import Awaitable, Callable, Sequence

import structlog

from bin.operators import add_who, is_number, on_an_engine, pretty, shown, who
from bin.settings import Settings
from bin.wiring import run
from engine import Engine
from steps import audit, queues
from steps.contracts.base import JsonObject, Wire, parse
from steps.contracts.queues import PartitionView, QueueAction, QueueView, WorkerView
from steps.errors import InvalidInput
from steps.times import moment_of

log = structlog.get_logger("bin.queue")

Command = Callable[[Engine], Awaitable[str]]

QUEUE = {
    "queueName": "QUEUE",
    "paused": "PAUSED",
    "queued": "QUEUED",
    "atWork": "AT WORK",
    "concurrency": "CAP",
    "rate": "RATE",
    "opensAt": "OPENS",
    "partitionConcurrency": "EACH CAP",
    "partitionRate": "EACH RATE",
    "partitions": "PARTITIONS",
}
PARTITION = {
    "partitionKey": "PARTITION",
    "state": "STATE",
    "until": "UNTIL",
    "queued": "QUEUED",
    "atWork": "AT WORK",
    "weight": "WEIGHT",
    "concurrency": "CAP",
    "rate": "RATE",
}
WORKER = {
    "workerID": "WORKER",
    "place": "PLACE",
    "version": "VERSION",
    "paused": "PAUSED",
    "atWork": "AT WORK",
    "startedAt": "STARTED",
    "leasedUntil": "LEASED",
}
NUMBER = re.compile(r"\d{1,6}(\.\d{1,6})?", re.ASCII)
TIMES = ("opensAt", "until", "startedAt", "leasedUntil")
RATES = ("rate", "partitionRate")


def main(settings: Settings) -> int:
    command = read_arguments(sys.argv[1:], settings)
    print(on_an_engine(settings, command))
    return 0


def read_arguments(arguments: list[str], settings: Settings) -> Command:
    given = parser().parse_args(arguments)
    match given.command:
        case "list":
            return lambda engine: listed(engine, as_json=given.json)
        case "partitions":
            return lambda engine: partitions(engine, given)
        case "workers":
            return lambda engine: workers(engine, as_json=given.json)
        case _:
            if given.command == "limit" and given.concurrency is None and given.rate is None:
                raise InvalidInput("say which limit: --concurrency N, or --rate N/S")
            by = who(given, settings)
            named = {"queueName": given.queue, "partitionKey": given.key, "workerID": given.id}
            action = parse(QueueAction, {name: text for name, text in named.items() if text is not None} | by)
            return lambda engine: acted(engine, action, given)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bin/queue", description="What holds queues up, and what operators change about it.")
    parser.set_defaults(queue=None, key=None, id=None)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="every queue, with its limits")
    looking = commands.add_parser("partitions", help="the partitions of one")
    looking.add_argument("queue", metavar="QUEUE")
    looking.add_argument("--after", metavar="KEY", help="only those behind this one")
    looking.add_argument("-l", "--limit", type=is_number, default=100, metavar="N", help="at most so many (100)")
    commands.add_parser("workers", help="the worker processes that are alive")
    for name, text in (("pause", "let nothing be taken"), ("resume", "take a pause back")):
        pausing = commands.add_parser(name, help=text)
        add_who(pausing)
        pausing.add_argument("queue", metavar="QUEUE")
        pausing.add_argument("key", metavar="KEY", nargs="?", help="one partition only")
    weighing = commands.add_parser("weight", help="a partition's share of its queue")
    limiting = commands.add_parser("limit", help="a partition's own cap and rate")
    for one in (weighing, limiting):
        add_who(one)
        one.add_argument("queue", metavar="QUEUE")
        one.add_argument("key", metavar="KEY")
    weighing.add_argument("weight", type=is_weight, metavar="W", help="1 is everybody's; 4 gets four times as much")
    limiting.add_argument("--concurrency", type=is_count, metavar="N", help="so many at work at most; 0: as the queue says")
    limiting.add_argument("--rate", type=is_rate, metavar="N/S", help="N starts in S seconds at most; 0: as the queue says")
    for name, text in (("pause-worker", "let a worker take nothing more"), ("resume-worker", "let it take again")):
        pausing = commands.add_parser(name, help=text)
        add_who(pausing)
        pausing.add_argument("id", metavar="ID", help="the worker")
    for command in commands.choices.values():
        command.add_argument("--json", action="store_true", help="as JSON instead of a table")
    return parser


# -- looking ----------------------------------------------------------------------------------------------------------------------


async def listed(engine: Engine, *, as_json: bool) -> str:
    return rows(await queues.list_queues(engine), QUEUE, as_json=as_json)


async def partitions(engine: Engine, given: argparse.Namespace) -> str:
    found = await queues.list_partitions(engine, given.queue, after=given.after, limit=given.limit)
    return rows(found, PARTITION, as_json=given.json)


async def workers(engine: Engine, *, as_json: bool) -> str:
    return rows(await queues.list_workers(engine), WORKER, as_json=as_json)


def rows(found: Sequence[Wire], columns: dict[str, str], *, as_json: bool) -> str:
    documents = [one.document() for one in found]
    return shown(documents if as_json else [for_people(one) for one in documents], columns, as_json=as_json)


def for_people(row: JsonObject) -> JsonObject:
    """Times as times, a rate as N/S, and of the partitions the standings that there are."""
    row = row | {name: moment_of(row[name]) for name in TIMES if name in row}
    row |= {name: f"{row[name]['starts']}/{row[name]['periodS']:g}" for name in RATES if name in row}
    row |= {"paused": "yes" if row["paused"] else "no"} if "paused" in row else {}
    row |= {"weight": f"{row['weight']:g}"} if "weight" in row else {}
    if "partitions" in row:
        row["partitions"] = ", ".join(f"{count} {standing}" for standing, count in row["partitions"].items() if count)
    return row


# -- acting -----------------------------------------------------------------------------------------------------------------------


async def acted(engine: Engine, action: QueueAction, given: argparse.Namespace) -> str:
    """Do it, write it down, and show what is so now."""
    values = {name: value for name in ("weight", "concurrency", "rate") if (value := getattr(given, name, None)) is not None}
    async with engine.transaction() as conn:
        await audit.write_down(conn, given.command, action, values)
        changed = await act(engine, action, given)
    log.info("an operator changed a queue", op=given.command, **action.document(), **values)
    if given.json:
        return pretty(changed.document())
    columns = {QueueView: QUEUE, PartitionView: PARTITION, WorkerView: WORKER}[type(changed)]
    return rows([changed], columns, as_json=False)


async def act(engine: Engine, action: QueueAction, given: argparse.Namespace) -> QueueView | PartitionView | WorkerView:
    queue, key, worker = action.queueName or "", action.partitionKey, action.workerID or ""
    match given.command:
        case "pause":
            return await queues.pause(engine, queue, key)
        case "resume":
            return await queues.resume(engine, queue, key)
        case "weight":
            return await queues.weigh(engine, queue, key or "", given.weight)
        case "limit":
            return await queues.limit(engine, queue, key or "", concurrency=given.concurrency, rate=given.rate)
        case "pause-worker":
            return await queues.pause_worker(engine, worker, paused=True)
        case _:
            return await queues.pause_worker(engine, worker, paused=False)


def is_weight(text: str) -> float:
    """For argparse."""
    if not NUMBER.fullmatch(text) or not queues.LEAST_WEIGHT <= float(text) <= queues.MOST_WEIGHT:
        least, most = queues.LEAST_WEIGHT, queues.MOST_WEIGHT
        raise argparse.ArgumentTypeError(f"{text} is no weight, which is from {least} to {most:g}")
    return float(text)


def is_count(text: str) -> int:
    """For argparse: a number, or 0."""
    return 0 if text == "0" else is_number(text)


def is_rate(text: str) -> tuple[int, float]:
    """For argparse: starts and seconds."""
    starts, slash, seconds = text.partition("/")
    if text == "0":
        return 0, 0.0
    if not slash or not NUMBER.fullmatch(seconds) or not float(seconds):
        raise argparse.ArgumentTypeError(f"{text} is no rate, such as 100/60 for 100 starts in 60 seconds")
    return is_number(starts), float(seconds)


if __name__ == "__main__":
    run(main)

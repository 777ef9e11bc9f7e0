"""`bin/bench`: measure Holdfast beside the ceiling and DBOS, on a PostgreSQL server of the benchmark's own.

Progress goes to standard error, the tables to standard output. Exit code 1 means that a promise was missed.
"""

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import orjson
import psycopg

from benchmarks import fairness, latency, parked, plot, queue_cost, queue_pinned, queue_rates, recovery, throughput
from benchmarks.processes import ProcessFailed
from benchmarks.report import Plot, Report, Table, surroundings
from benchmarks.server import SETTINGS, NeverHappened, NotDurable, Server
from benchmarks.stretch import Wrong
from bin import postgres
from bin.settings import read_settings
from bin.variables import BadSetting

Benchmark = Callable[[Server, Path], Report]
UNITS = {"throughput": "wf/s", "latency": "ms", "recovery": "s", "parked": "MB", "queues": "rows/s"}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def benchmarks(asked: argparse.Namespace) -> dict[str, Benchmark]:
    """What was asked for, by name, each with its size."""
    sizes = throughput.QUICK if asked.quick else throughput.Size(asked.rounds, asked.live, asked.drain, asked.dbos)
    every: dict[str, Benchmark] = {
        "throughput": lambda server, state: throughput.measure(server, state, sizes, say),
        "latency": lambda server, state: latency.measure(server, state, latency.QUICK if asked.quick else latency.Size(), say),
        "recovery": lambda server, state: recovery.measure(
            server, state, recovery.QUICK if asked.quick else recovery.Size(), say
        ),
        "parked": lambda server, state: parked.measure(
            server, state, parked.QUICK if asked.quick else parked.Size(runs=asked.parked), say
        ),
        "fairness": lambda server, state: fairness.measure(
            server, state, fairness.QUICK if asked.quick else fairness.Size(), say
        ),
        "queues": lambda server, state: queues(server, state, asked.quick),
    }
    return every if asked.what == "all" else {asked.what: every[asked.what]}


def queues(server: Server, state_dir: Path, quick: bool) -> Report:
    """What fair queues cost: rates, the cost of a claim as the tables grow, and under a transaction that holds vacuum up."""
    report = queue_rates.measure(server, state_dir, queue_rates.QUICK if quick else queue_rates.Size(), say)
    report.add(queue_cost.measure(server, state_dir, queue_cost.QUICK if quick else queue_cost.Size(), say))
    report.add(queue_pinned.measure(server, state_dir, queue_pinned.QUICK if quick else queue_pinned.Size(), say))
    if quick:
        report.verdicts.clear()  # ratios of so little mean nothing
    return report


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bin/bench", description="Measure Holdfast beside a bare group commit and DBOS.")
    parser.add_argument("what", choices=["throughput", "latency", "recovery", "parked", "fairness", "queues", "all"])
    parser.add_argument("--quick", action="store_true", help="small counts and one round: does it run, not how fast")
    parser.add_argument("--rounds", type=int, default=throughput.Size.rounds, help="rounds of the throughput comparison")
    parser.add_argument("--live", type=int, default=throughput.Size.live, help="workflows enqueued live a stretch")
    parser.add_argument("--drain", type=int, default=throughput.Size.drain, help="workflows drained a stretch")
    parser.add_argument("--dbos", type=int, default=throughput.Size.dbos, help="workflows a stretch for DBOS")
    parser.add_argument("--parked", type=int, default=parked.Size.runs, help="runs to park")
    parser.add_argument("--dsn", help="another server to use, as a user who may create databases (default: one of its own)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="write bar plots there too")
    asked = parser.parse_args(argv)
    for count in ("rounds", "live", "drain", "dbos", "parked"):
        if getattr(asked, count) < 1:
            parser.error(f"--{count} must be at least 1")
    return asked


def run(asked: argparse.Namespace, environ: Mapping[str, str]) -> bool:
    """Measure and print; whether every promise was kept."""
    settings = read_settings(environ)
    state_dir = settings.state_dir / "bench"
    dsn = asked.dsn or postgres.ensure(state_dir, bindir=settings.pg_bindir, settings=SETTINGS)
    server = Server(dsn)
    about = surroundings(server)
    print(Table("where and when", ["", "value"], [[k, v] for k, v in about.items()]).text(), flush=True)
    found: dict[str, Report] = {}
    try:
        for name, measure in benchmarks(asked).items():
            say(f"{name} …")
            found[name] = measure(server, state_dir)
            print(f"\n## {name}\n\n{found[name].text()}", flush=True)
            if asked.plots:
                pictures = found[name].plots + ([Plot(name, name, UNITS[name], bars)] if (bars := found[name].bars) else [])
                for each in pictures:
                    plot.write(asked.plots, each.name, each.title, each.unit, each.bars)
    finally:
        server.close()
        if asked.json and found:
            every = {"about": about, **{name: report.plain() for name, report in found.items()}}
            asked.json.write_bytes(orjson.dumps(every, option=orjson.OPT_INDENT_2))
    return all(verdict.kept for report in found.values() for verdict in report.verdicts)


def main(argv: Sequence[str] | None = None) -> int:
    asked = parse(sys.argv[1:] if argv is None else argv)
    try:
        return 0 if run(asked, os.environ) else 1
    except BadSetting as error:
        say(f"bench: {error}")
        return 2
    except postgres.CannotRunPostgres as error:
        say(f"bench: {error}")
        return 69
    except psycopg.OperationalError as error:
        say(f"bench: the server under test failed or cannot be reached: {' '.join(str(error).split())}")
        return 69
    except (NotDurable, NeverHappened, ProcessFailed, Wrong) as error:
        say(f"bench: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main())

"""bin/chaos: one fault at a time, under load: is everything that was accepted done in the end, once and rightly?

    bin/chaos --fault NAME [--minutes M] [--seed S]
    bin/chaos --all
    bin/chaos --list

A drill starts an API and two workers on a database of its own, and clients that start runs, answer gates and look at steps without a pause.
After a few seconds the fault is made, lasts for M minutes (each fault has a time of its own), and is taken away. The load goes on until new
runs are accepted and move, then all must end, and the database is asked in SQL. The last line tells it:

    lost       runs, answers and steps that a client was told of and that are not there; runs that have not ended
    doubled    what is there more often than it happened        stranded    what is queued, half-way or owned, with nobody at it
    silence    the longest time between two accepted starts, as clients saw it

Exit code 1 means that an oracle failed, or that the drill could not go on; its database is kept then, unless that was on a small disk of
the drill's own. What this machine does not allow is skipped, with the reason.
"""

import argparse
import secrets
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path

import httpx
import psycopg
from psycopg.conninfo import make_conninfo

from bin.children import run_module, stopping_on_term
from bin.commands.soak import judge, minutes_of, watched
from bin.failover_clients import STARTERS, Clients
from bin.own_server import OwnServer, own_server
from bin.postgres_programs import CannotRunPostgres
from bin.progress import Bar
from bin.service import ServiceFailed
from bin.settings import Settings
from bin.soaks import oracles, small_disk
from bin.soaks.chaos import ORACLES
from bin.soaks.faults import FAULTS, Drill, Fault, begin_service
from bin.soaks.oracles import Verdict
from bin.soaks.silent_proxy import silent_proxy
from bin.soaks.small_disk import SmallDisk
from bin.soaks.stage import Client, SoakFailed, Stage, in_background
from bin.wiring import FAILED, complain, run

BEFORE_S = 3.0
AFTER_S = 3.0
AGAIN_S = 60.0
LONGEST_S = 600.0
STRANDED = (oracles.STRANDED, oracles.HALFWAY, oracles.LEFTOVERS)
DOUBLED = (
    oracles.TWICE, oracles.GAPS, oracles.STEPS, oracles.RECEIPTS, oracles.ATTEMPTS, oracles.LEDGER, oracles.GATES, oracles.MESSAGES,
)  # fmt: skip


def main(settings: Settings) -> int:
    asked = read_arguments(sys.argv[1:])
    if asked.list:
        width = max(map(len, FAULTS))
        print("\n".join(f"{name:{width}}  {fault.does}, for {fault.seconds:.0f} s" for name, fault in FAULTS.items()))
        return 0
    if asked.all:
        return play_all(asked)
    fault = FAULTS[asked.fault]
    if reason := fault.obstacle():
        print(f"{asked.fault}: SKIP: {reason}")
        return 0
    if fault.small_disk and not asked.inside:
        small_disk.go_inside(["bin.commands.chaos", *sys.argv[1:], "--inside"])
    folder = settings.state_dir.absolute() / "drills" / f"chaos-{asked.fault}-{secrets.token_hex(4)}"
    folder.mkdir(parents=True)
    print(f"{asked.fault}: {fault.does}; seed {asked.seed}, logs in {folder}", flush=True)
    try:
        with stopping_on_term(), database(folder, fault, settings) as (server, disk):
            code = play(asked, fault, folder, server, disk)
            server.keep = code != 0 and disk is None
            if server.keep:
                print(f"its database is kept: STATE_DIR={folder / 'database'} APP_DB_NAME=postgres bin/psql-app", flush=True)
        return code
    except CannotRunPostgres as error:
        complain(f"{asked.fault} could not go on: {error}")
        return FAILED


def read_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bin/chaos", description="One fault at a time, under load, and SQL that says what came of it."
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--fault", choices=FAULTS, metavar="NAME", help=", ".join(FAULTS))
    what.add_argument("--all", action="store_true", help="one after the other")
    what.add_argument("--list", action="store_true", help="say what there is, and do nothing")
    parser.add_argument("--minutes", type=minutes_of, default=None, metavar="M", help="how long the fault lasts")
    parser.add_argument("--seed", type=int, default=None, metavar="S", help="repeat the choices of another drill")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.seed is None:
        asked.seed = secrets.randbelow(2**31)
    return asked


def play_all(asked: argparse.Namespace) -> int:
    """Each in a process of its own."""
    more = ["--seed", str(asked.seed), *(["--minutes", str(asked.minutes)] if asked.minutes is not None else [])]
    with stopping_on_term():
        codes = [
            run_module(["bin.commands.chaos", "--fault", name, *more], None, {}, timeout_s=LONGEST_S + 60 * (asked.minutes or 0))
            for name in FAULTS
        ]
    failed = [name for name, code in zip(FAULTS, codes, strict=True) if code != 0]
    print(f"{len(FAULTS) - len(failed)} of {len(FAULTS)} faults" + (f"; not {', '.join(failed)}" if failed else ""), flush=True)
    return FAILED if failed else 0


@contextmanager
def database(folder: Path, fault: Fault, settings: Settings) -> Iterator[tuple[OwnServer, SmallDisk | None]]:
    disk = SmallDisk(folder / "disk") if fault.small_disk else None
    with own_server((folder / "disk" if disk else folder) / "database", settings.pg_bindir) as server:
        yield server, disk


def play(asked: argparse.Namespace, fault: Fault, folder: Path, server: OwnServer, disk: SmallDisk | None) -> int:
    """The exit code."""
    patient = make_conninfo(server.dsn, options="-c statement_timeout=0")  # what is done to the service is not done to us
    always = [oracle for oracle in ORACLES if oracle.always]
    with Bar(asked.fault) as bar, ExitStack() as open_things:
        proxy = open_things.enter_context(silent_proxy(server.dsn)) if fault.proxied else None
        stage = Stage(patient, folder, bar, 0, 0, asked.seed, server, way=proxy.dsn if proxy else server.dsn)
        open_things.callback(stage.stop)
        stage.clients.append(Client())
        seconds = fault.seconds if asked.minutes is None else asked.minutes * 60
        drill = Drill(stage, server, Clients(stage.clients[0]), seconds, folder / "switch", proxy, disk)
        bar.show(0, "the service starts")
        try:
            with watched(patient, always) as seen:
                began = time.monotonic()
                begin_service(drill, fault)
                with in_background(drill.clients.answer_gates, drill.clients.watch_runs, drill.learn_ends):
                    put_under_load(drill, fault)
                    settle(drill)
                verdicts = judge(patient, ORACLES, drill.clients.facts(), seen)
            with psycopg.connect(patient, autocommit=True) as conn:
                lost = drill.clients.told.missing(conn).counts
        except (SoakFailed, ServiceFailed, CannotRunPostgres, httpx.HTTPError, psycopg.Error) as error:
            complain(f"{asked.fault} could not go on: {error}")
            return FAILED
    return tell(asked, drill, verdicts, sum(lost), time.monotonic() - began)


def put_under_load(drill: Drill, fault: Fault) -> None:
    """Before the fault, while it lasts, and after it until the load moves again."""
    clients, bar = drill.clients, drill.stage.bar
    with in_background(*[clients.start_runs] * STARTERS):
        drill.watch(BEFORE_S)
        bar.show(0.2, f"the fault, for {drill.seconds:.0f} s; {len(clients.told.runs)} runs so far")
        fault.make(drill)
        since = time.monotonic()
        bar.show(0.7, f"without the fault; {len(clients.told.runs)} runs so far")
        while time.monotonic() < since + AFTER_S or clients.moves_again(since) is None:
            drill.watch(0.2)
            if time.monotonic() > since + AGAIN_S:
                raise SoakFailed(f"no run that was started after the fault has moved in {AGAIN_S:.0f} s")


def settle(drill: Drill) -> None:
    """Until all has ended; what has not is for the oracles to see."""
    told = drill.clients.told.runs
    drill.stage.wait(lambda: len(drill.clients.ended & told), len(told), "runs have ended")
    drill.stage.settle()


def tell(asked: argparse.Namespace, drill: Drill, verdicts: Sequence[Verdict], missing: int, took_s: float) -> int:
    for note in drill.stage.notes:
        print(note)
    failed = [verdict for verdict in verdicts if not verdict.holds]
    for verdict in failed:
        print(verdict.line)
    rows = {verdict.oracle.claim: len(verdict.found) for verdict in verdicts}
    unended = rows[oracles.UNENDED.claim]
    doubled, stranded = (sum(rows[one.claim] for one in those) for those in (DOUBLED, STRANDED))
    silence_s = max((later - sooner for sooner, later in pairwise(sorted(drill.clients.accepted_at))), default=0.0)
    line = [
        f"{len(drill.clients.told.runs)} runs, {'all terminal' if not unended else f'{unended} not terminal'}",
        f"{missing + unended} lost, {doubled} doubled, {stranded} stranded",
        f"silence {silence_s:.1f} s",
        f"{len(verdicts) - len(failed)} of {len(verdicts)} oracles hold, {took_s:.0f} s, seed {asked.seed}",
    ]
    print(f"{asked.fault}: {'; '.join(line)}", flush=True)
    return FAILED if failed or missing else 0


if __name__ == "__main__":
    run(main)

"""bin/soak: much work, and trouble with it, on a service of its own; then the database is asked in SQL whether all is well.

    bin/soak NAME [--n N] [--minutes M] [--seed S] [--plot FILE]

    crashdemo    N rounds of bin/crashdemo (20)
    chaos        load on an API and two workers for M minutes (3); workers are killed, the database crashes
    sandbox      N runs (100) with a sandbox task each, all at work at the same time
    fanout       one run with N tasks (100), whose workers are killed
    hitl-load    N runs (1000) wait at their gates, then all are answered
    hitl-burst   N gates (200) get seven answers each, repeated and contradicting, in any order
    endurance    even load for M minutes (3) on two front doors, three workers and a pair of servers; processes are killed, stopped and
                 frozen, the database crashes and fails over, what is over is deleted; memory and tables must keep their size

Exit code 1 means that an oracle failed, or that the soak could not go on. A seed repeats the choices, not the moments. The database is an
embedded one of the soak's own, or a pair of servers, durable as any; after a failure it is kept. Nothing is remembered from one soak to
the next.
"""

import argparse
import secrets
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psycopg

from bin.children import stopping_on_term
from bin.commands.migrate import prepare
from bin.own_server import OwnServer, own_server
from bin.postgres_pair import Pair, running_pair
from bin.postgres_programs import CannotRunPostgres
from bin.progress import Bar
from bin.service import ServiceFailed
from bin.settings import Settings
from bin.soaks import chaos, crashdemo, endurance, hitl, sandbox
from bin.soaks.oracles import Facts, Oracle, Verdict, ask
from bin.soaks.stage import SoakFailed, Stage
from bin.wiring import FAILED, complain, run
from engine import connection_string

WATCH_S = 1.0
MOST = 100_000


@dataclass(frozen=True, slots=True)
class Soak:
    play: Callable[[Stage], Facts]
    oracles: Sequence[Oracle]
    n: int
    on_a_pair: bool = False


SOAKS = {
    "crashdemo": Soak(crashdemo.play, crashdemo.ORACLES, 20),
    "chaos": Soak(chaos.play, chaos.ORACLES, 0),
    "sandbox": Soak(sandbox.play_parallel, sandbox.PARALLEL_ORACLES, 100),
    "fanout": Soak(sandbox.play_fanout, sandbox.FANOUT_ORACLES, 100),
    "hitl-load": Soak(hitl.play_load, hitl.LOAD_ORACLES, 1000),
    "hitl-burst": Soak(hitl.play_burst, hitl.BURST_ORACLES, 200),
    "endurance": Soak(endurance.play, endurance.ORACLES, 0, on_a_pair=True),
}


def main(settings: Settings) -> int:
    asked = read_arguments(sys.argv[1:])
    folder = settings.state_dir.absolute() / "drills" / f"soak-{asked.name}-{secrets.token_hex(4)}"
    print(f"{asked.name}: seed {asked.seed}, logs in {folder}", flush=True)
    if SOAKS[asked.name].on_a_pair:
        return on_a_pair(asked, folder, settings)
    with stopping_on_term(), own_server(folder / "database", settings.pg_bindir) as server:
        code = soak(asked, folder, server.dsn, server)
        if code:
            server.keep = True
            print(f"its database is kept: STATE_DIR={folder / 'database'} APP_DB_NAME=postgres bin/psql-app", flush=True)
    return code


def on_a_pair(asked: argparse.Namespace, folder: Path, settings: Settings) -> int:
    folder.mkdir(parents=True)
    with stopping_on_term(), running_pair(folder, settings.pg_bindir, settings={"fsync": "on"}) as pair:
        prepare(pair.dsn, only_default_recipe=True)
        code = soak(asked, folder, pair.dsn, None, pair)
    if code == 0:
        pair.remove()
    else:
        print(f"its two servers are kept: {folder / 'one'}, {folder / 'two'}", flush=True)
    return code


def read_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bin/soak", description="Much work and trouble, and SQL that says whether all is well.")
    parser.add_argument("name", choices=SOAKS, metavar="NAME", help=", ".join(SOAKS))
    parser.add_argument("--n", type=_count, default=None, metavar="N", help="how many rounds, runs, tasks or gates")
    parser.add_argument("--minutes", type=minutes_of, default=3.0, metavar="M", help="how long chaos and endurance last (3)")
    parser.add_argument("--seed", type=int, default=None, metavar="S", help="repeat the choices of another soak")
    parser.add_argument("--plot", type=Path, default=None, metavar="FILE", help="draw endurance as SVG")
    asked = parser.parse_args(arguments)
    asked.n = asked.n or SOAKS[asked.name].n
    if asked.seed is None:
        asked.seed = secrets.randbelow(2**31)
    return asked


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or not 1 <= int(text) <= MOST:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1 to {MOST}")
    return int(text)


def minutes_of(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0.05 <= number <= 24 * 60:
        raise argparse.ArgumentTypeError(f"{text} is not a number of minutes from 0.05 to 1440")
    return number


def soak(asked: argparse.Namespace, folder: Path, dsn: str, server: OwnServer | None, pair: Pair | None = None) -> int:
    """Play it on this database, whose schema is there and which holds nothing else; the exit code. server, pair: what may crash."""
    folder.mkdir(parents=True, exist_ok=True)
    one = SOAKS[asked.name]
    with Bar(asked.name) as bar:
        stage = Stage(dsn, folder, bar, asked.n, asked.minutes, asked.seed, server, pair, asked.plot)
        try:
            with watched(dsn, [oracle for oracle in one.oracles if oracle.always]) as seen:
                facts = one.play(stage)
        except (SoakFailed, ServiceFailed, CannotRunPostgres, httpx.HTTPError, psycopg.Error) as error:
            complain(f"{asked.name} could not go on: {error}")
            return FAILED
        finally:
            stage.stop()
    return tell(asked.name, stage, judge(dsn, one.oracles, facts, seen))


@contextmanager
def watched(dsn: str, oracles: Sequence[Oracle]) -> Iterator[dict[str, Verdict]]:
    """What was seen while the block lasted of oracles that must hold at every moment: the first contradiction, by claim."""
    seen: dict[str, Verdict] = {}
    over = threading.Event()

    def watch() -> None:
        while not over.wait(WATCH_S):
            try:
                with psycopg.connect(connection_string(dsn), autocommit=True) as conn:
                    for verdict in ask(conn, oracles, {}):
                        if not verdict.holds:
                            seen.setdefault(verdict.oracle.claim, verdict)
            except psycopg.OperationalError:
                continue  # the database is away, which may be what the soak is about

    watcher = threading.Thread(target=watch, name="oracles", daemon=True)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


def judge(dsn: str, oracles: Sequence[Oracle], facts: Facts, seen: dict[str, Verdict]) -> list[Verdict]:
    with psycopg.connect(connection_string(dsn), autocommit=True) as conn:
        return [seen.get(verdict.oracle.claim, verdict) for verdict in ask(conn, oracles, facts)]


def tell(name: str, stage: Stage, verdicts: Sequence[Verdict]) -> int:
    for note in stage.notes:
        print(note)
    for verdict in verdicts:
        print(verdict.line)
    failed = sum(not verdict.holds for verdict in verdicts)
    print(f"{name}: {len(verdicts) - failed} of {len(verdicts)} oracles hold, seed {stage.seed}", flush=True)
    return FAILED if failed else 0


if __name__ == "__main__":
    run(main)

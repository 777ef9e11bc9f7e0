"""bin/failoverdemo: kill the primary of two database servers under load, promote its standby, and count what clients were told and is gone.

    bin/failoverdemo [--rounds N] [--async] [--stall S] [--workers N]

The command builds both servers on this machine, the standby as a synchronous one, and starts an API and workers that know both hosts.
Clients start runs, answer gates and look at steps without a pause. A round kills the primary with kill -9 and promotes the standby at
once; nobody is told. It then waits until runs move again, asks the new primary for everything that a client was told, and makes the old
primary the new standby. In the end everything accepted must end, and the oracles of the soaks are asked.

With --async commits do not wait for the standby, which hears nothing for the last S seconds before the kill (1). That is then lost, and
shown: what clients were told, and which workers noticed. What is left must be whole all the same.

    promoted   seconds from the kill until the standby may be written to
    accepts    … until a start is accepted again         moves      … until a run that was started after the kill has done a step
    silence    the longest time between two accepted starts around the kill, as clients saw it
    lost       runs, answers and steps that a client was told of and that are not there

A cluster manager needs time of its own to find out that a primary is gone, which comes on top.
"""

import argparse
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import psycopg

from bin.children import stopping_on_term
from bin.commands.migrate import prepare
from bin.database import connect
from bin.failover_clients import STARTERS, Clients
from bin.postgres_pair import Pair, running_pair
from bin.postgres_programs import CannotRunPostgres
from bin.progress import Bar
from bin.service import ServiceFailed
from bin.settings import Settings
from bin.soaks.chaos import ORACLES, UNDER_WAY
from bin.soaks.oracles import Facts, Verdict, ask
from bin.soaks.stage import SoakFailed, Stage, in_background
from bin.wiring import FAILED, complain, run

LOAD_S = 3.0
AGAIN_S = 60.0
NOTICED = "history went back"
HEAD = ("round", "under way", "promoted", "accepts", "moves", "silence", "rebuilt", "by", "lost runs/answers/steps", "noticed by")


@dataclass(frozen=True, slots=True)
class Round:
    """What one round showed; times in seconds after the kill, lost as counted, noticed: how many workers said so in their logs."""

    under_way: int
    promoted_s: float
    accepts_s: float
    moves_s: float
    silence_s: float
    rebuilt_s: float
    how: str
    lost: tuple[int, int, int]
    noticed: int

    def cells(self, number: int) -> tuple[str, ...]:
        seconds = (self.promoted_s, self.accepts_s, self.moves_s, self.silence_s, self.rebuilt_s)
        lost = "/".join(map(str, self.lost))
        return (str(number), str(self.under_way), *(f"{s:.2f}" for s in seconds), self.how, lost, str(self.noticed))


@dataclass
class Drill:
    pair: Pair
    stage: Stage
    clients: Clients
    logs: list[Path]
    stall_s: float

    def round(self) -> Round:
        self.gather_load()
        before = self.noticed()
        if not self.pair.synchronous:
            self.pair.stall()
            end = time.monotonic() + self.stall_s
            while time.monotonic() < end:
                self.look()
                time.sleep(0.05)
        under_way = self.stage.value(UNDER_WAY)
        killed = time.monotonic()
        self.pair.kill_primary()
        self.pair.promote()
        promoted = time.monotonic()
        accepts = self.until(lambda: self.clients.accepts_again(promoted), "a start to be accepted")
        moves = self.until(lambda: self.clients.moves_again(promoted), "a run to move")
        with connect(self.pair.dsn, autocommit=True) as conn:
            lost = self.clients.told.copy().missing(conn)
        self.clients.forget(lost)
        last = max((at for at in list(self.clients.accepted_at) if at <= killed), default=killed)
        rebuilding = time.monotonic()
        how = self.pair.rebuild()
        return Round(
            under_way,
            promoted - killed,
            accepts - killed,
            moves - killed,
            accepts - last,
            time.monotonic() - rebuilding,
            how,
            lost.counts,
            self.noticed() - before,
        )

    def gather_load(self) -> None:
        """Let the load run for a while, and until there is something under way."""
        end = time.monotonic() + LOAD_S
        count = len(self.clients.accepted_at)
        while time.monotonic() < end or len(self.clients.accepted_at) < count + 5 or not self.stage.value(UNDER_WAY):
            self.look()
            if time.monotonic() > end + AGAIN_S:
                raise SoakFailed("there is no load: nothing is accepted, or nothing is under way")
            time.sleep(0.05)

    def until(self, look: Callable[[], float | None], what: str) -> float:
        end = time.monotonic() + AGAIN_S
        while (found := look()) is None:
            self.look()
            if time.monotonic() > end:
                raise SoakFailed(f"waited {AGAIN_S:.0f} s in vain for {what}")
            time.sleep(0.02)
        return found

    def look(self) -> None:
        self.stage.require_alive()
        with connect(self.pair.dsn, autocommit=True) as conn:
            self.clients.learn_ends(conn)

    def noticed(self) -> int:
        """How often workers said that history went back."""
        return sum(log.read_text(errors="replace").count(NOTICED) for log in self.logs)

    def settle(self) -> Facts:
        """Wait for all ends; what the oracles must know."""
        self.stage.wait(self.count_ends, len(self.clients.told.runs), "runs have ended")
        self.stage.settle()
        return self.clients.facts()

    def count_ends(self) -> int:
        self.look()
        return len(self.clients.ended & self.clients.told.runs)


def main(settings: Settings) -> int:
    asked = read_arguments(sys.argv[1:])
    folder = settings.state_dir.absolute() / "drills" / f"failover-{secrets.token_hex(4)}"
    folder.mkdir(parents=True)
    print(
        f"{'an asynchronous' if asked.asynchronous else 'a synchronous'} standby, {asked.rounds} rounds; logs in {folder}",
        flush=True,
    )
    try:
        with (
            stopping_on_term(),
            running_pair(folder, settings.pg_bindir, synchronous=not asked.asynchronous, settings={"fsync": "on"}) as pair,
        ):
            prepare(pair.dsn, only_default_recipe=True)
            code = drill(pair, folder, asked)
        if code == 0:
            pair.remove()  # after a failure there is something to look at
        return code
    except (SoakFailed, ServiceFailed, CannotRunPostgres, httpx.HTTPError, psycopg.Error) as error:
        complain(f"failoverdemo could not go on: {error}; see {folder}")
        return FAILED


def drill(pair: Pair, folder: Path, asked: argparse.Namespace) -> int:
    rounds: list[Round] = []
    with Bar("failoverdemo") as bar, ExitStack() as open_things:
        stage = Stage(pair.dsn, folder, bar, 0, 0, 0)
        open_things.callback(stage.stop)
        clients = Clients(stage.client())
        workers = [stage.begin("worker") for _ in range(asked.workers)]
        stage.wait_for_workers(workers)
        one = Drill(pair, stage, clients, [worker.log for worker in workers], asked.stall)
        show(HEAD)
        with in_background(clients.answer_gates, clients.watch_runs):
            with in_background(*[clients.start_runs] * STARTERS):
                for number in range(1, asked.rounds + 1):
                    bar.show((number - 1) / asked.rounds, f"round {number} of {asked.rounds}")
                    rounds.append(one.round())
                    show(rounds[-1].cells(number))
            facts = one.settle()
        with connect(pair.dsn, autocommit=True) as conn:
            verdicts = ask(conn, ORACLES, facts)
        restarts = clients.client.refusals
    return tell(rounds, verdicts, asked, len(clients.told.runs), restarts)


def show(cells: Sequence[str]) -> None:
    widths = (5, 9, 8, 7, 6, 7, 7, 15, 23, 10)
    print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip(), flush=True)


def tell(rounds: Sequence[Round], verdicts: Sequence[Verdict], asked: argparse.Namespace, runs: int, again: int) -> int:
    for verdict in verdicts:
        print(verdict.line)
    failed = sum(not verdict.holds for verdict in verdicts)
    lost = [sum(one.lost[what] for one in rounds) for what in range(3)]
    silences = sorted(one.silence_s for one in rounds)
    middle = silences[len(silences) // 2]
    print(f"{runs} runs, {again} calls made again; silence: median {middle:.2f} s, longest {silences[-1]:.2f} s")
    print(
        f"lost in {len(rounds)} rounds: {lost[0]} runs, {lost[1]} answers, {lost[2]} steps; noticed {sum(r.noticed for r in rounds)} times"
    )
    print(f"{len(verdicts) - failed} of {len(verdicts)} oracles hold", flush=True)
    if asked.asynchronous:
        print(
            "lost answers were given again; lost steps were done again, under their old keys: what they do outside happened twice"
        )
    return FAILED if failed or (any(lost) and not asked.asynchronous) else 0


def read_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bin/failoverdemo", description="Kill the primary under load, promote, and count.")
    parser.add_argument("--rounds", type=_count, default=3, metavar="N", help="how many failovers (3)")
    parser.add_argument("--async", action="store_true", dest="asynchronous", help="commits do not wait for the standby")
    parser.add_argument("--stall", type=_seconds, default=1.0, metavar="S", help="with --async: how far it is behind (1)")
    parser.add_argument("--workers", type=_count, default=2, metavar="N", help="worker processes (2)")
    return parser.parse_args(arguments)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1 to 1000")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 60:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds from 0 to 60")
    return seconds


if __name__ == "__main__":
    run(main)

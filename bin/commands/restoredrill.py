"""bin/restoredrill: back up under load, make a mistake, restore, and count what was promised and is gone.

    bin/restoredrill [--workers N]

The command builds a server with an archive of its log, an API and workers. Clients start runs, answer gates and look at steps without
a pause. Under that load it takes a base backup and a dump (pg_dump), notes what clients were told so far, and deletes the workflows
that have ended. It then restores twice, and wants all that was told before, every run at its end and all oracles of the soaks, both times:

    to the moment   base backup and archived log, up to the moment before the mistake, on a second server. API and workers are not
                    restarted; each worker must notice that the history went back
    from the dump   into an empty database, with an API and a worker of its own, and the workspaces of the first

What is printed as lost was told in the moments between the restored one and the end of the old server. It is shown and forgotten.
"""

import argparse
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import LiteralString

import httpx
import psycopg

from bin.children import stopping_on_term
from bin.commands.failoverdemo import NOTICED
from bin.commands.migrate import prepare
from bin.database import connect
from bin.failover_clients import STARTERS, Clients, Told
from bin.postgres_archive import Archived, running_archived
from bin.postgres_pair import WAIT_S
from bin.postgres_programs import CannotRunPostgres
from bin.progress import Bar
from bin.service import ServiceFailed
from bin.settings import Settings
from bin.soaks.chaos import ORACLES, UNDER_WAY
from bin.soaks.oracles import Verdict, ask
from bin.soaks.stage import SoakFailed, Stage, in_background
from bin.wiring import FAILED, complain, run

LOAD_S = 1.0
#: So many runs are accepted in each stretch of load.
LEAST = 5
MISTAKE: LiteralString = "delete from dbos.workflow_status where status = 'SUCCESS'"
NOW: LiteralString = "select clock_timestamp()::text"
SIZE: LiteralString = "select pg_database_size(current_database())"
DUMPED = "from_the_dump"


@dataclass
class Drill:
    servers: Archived
    stage: Stage
    clients: Clients
    logs: Sequence[Path]

    def let_run(self, share: float, what: str) -> None:
        """Let the load go on for a while, until several runs were accepted meanwhile and some are under way."""
        end, count = time.monotonic() + LOAD_S, len(self.clients.accepted_at)

        def enough() -> bool:
            self.stage.bar.show(share, f"{what}: {len(self.clients.told.runs)} runs accepted")
            late = time.monotonic() > end and len(self.clients.accepted_at) >= count + LEAST
            return late and self.stage.value(UNDER_WAY) > 0

        self.wait(enough, "load")

    def wait(self, look: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + WAIT_S
        while not look():
            self.stage.require_alive()
            with connect(self.stage.dsn, autocommit=True) as conn:
                self.clients.learn_ends(conn)
            if time.monotonic() > end:
                raise SoakFailed(f"waited {WAIT_S:.0f} s in vain for {what}")
            time.sleep(0.05)

    def base_backup(self) -> None:
        began = time.monotonic()
        self.servers.restored.copy(self.servers.live)
        show("base backup", f"taken in {time.monotonic() - began:.1f} s under load")

    def dump(self) -> tuple[Path, Told]:
        """The dump, and what clients were told before it began."""
        told, under_way, began = self.clients.told.copy(), self.stage.value(UNDER_WAY), time.monotonic()
        file = self.servers.live.dump()
        seconds, kb, whole = time.monotonic() - began, file.stat().st_size // 1000, self.stage.value(SIZE) // 1000
        show("dump", f"taken in {seconds:.1f} s, {kb:,} kB of {whole:,} kB, {under_way} workflows under way")
        shutil.copytree(self.stage.folder / "state", self.stage.folder / "state-of-dump", ignore=shutil.ignore_patterns("pg*"))
        return file, told

    def go_back(self) -> None:
        """The mistake, a while with it, and the restore to the moment before it."""
        told, under_way = self.clients.told.copy(), self.stage.value(UNDER_WAY)
        with connect(self.stage.dsn, autocommit=True) as conn:
            moment = str(value(conn, NOW))
        gone = make_mistake(self.stage.dsn)
        show("mistake", f"{MISTAKE}: {gone} are gone, {under_way} others were under way")
        self.let_run(0.4, "after the mistake")
        self.servers.live.archive_all()
        self.servers.live.stop()
        stopped = time.monotonic()
        self.servers.restored.recover(self.servers.live.archive, moment)
        ready = time.monotonic()
        with connect(self.stage.dsn, autocommit=True) as conn:
            missed, lost = told.missing(conn), self.clients.told.copy().missing(conn)
        self.clients.forget(lost)
        self.wait(lambda: self.clients.accepts_again(ready) is not None, "a start to be accepted")
        accepts = (self.clients.accepts_again(ready) or ready) - stopped
        self.wait(lambda: self.noticed() == len(self.logs), "each worker to notice that the history went back")
        show("to the moment", f"written to again after {ready - stopped:.1f} s, a start is accepted after {accepts:.1f} s")
        show("", f"lost of what was told before the mistake: {counted(missed)}; after it: {counted(lost)}")
        show("", f"noticed by {self.noticed()} of {len(self.logs)} workers, which nobody restarted")
        require_nothing(missed, "the moment")

    def noticed(self) -> int:
        """How many workers said that history went back."""
        return sum(NOTICED in log.read_text(errors="replace") for log in self.logs)


def main(settings: Settings) -> int:
    asked = read_arguments(sys.argv[1:])
    folder = settings.state_dir.absolute() / "drills" / f"restore-{secrets.token_hex(4)}"
    folder.mkdir(parents=True)
    print(f"logs in {folder}", flush=True)
    try:
        with stopping_on_term(), running_archived(folder, settings.pg_bindir) as servers:
            prepare(servers.dsn(), only_default_recipe=True)
            with Bar("restoredrill") as bar:
                verdicts = drill(servers, folder, asked.workers, bar)
        if code := FAILED if any(not verdict.holds for verdict in verdicts) else 0:
            return code
        servers.remove()  # after a failure there is something to look at
        return 0
    except (SoakFailed, ServiceFailed, CannotRunPostgres, httpx.HTTPError, psycopg.Error) as error:
        complain(f"restoredrill could not go on: {error}; see {folder}")
        return FAILED


def drill(servers: Archived, folder: Path, workers: int, bar: Bar) -> list[Verdict]:
    with ExitStack() as open_things:
        stage = Stage(servers.dsn(), folder, bar, 0, 0, 0)
        open_things.callback(stage.stop)
        clients = Clients(stage.client())
        processes = [stage.begin("worker") for _ in range(workers)]
        stage.wait_for_workers(processes)
        one = Drill(servers, stage, clients, [process.log for process in processes])
        with in_background(clients.answer_gates, clients.watch_runs):
            with in_background(*[clients.start_runs] * STARTERS):
                one.let_run(0.1, "before the backups")
                one.base_backup()
                one.let_run(0.2, "before the dump")
                dump, told = one.dump()
                one.let_run(0.3, "before the mistake")
                one.go_back()
            verdicts = judge(stage, clients, "to the moment")
    return verdicts + from_dump(servers, folder, bar, dump, told)


def from_dump(servers: Archived, folder: Path, bar: Bar, dump: Path, told: Told) -> list[Verdict]:
    """Restore it into an empty database beside the other one, and let a service of its own go on there."""
    began = time.monotonic()
    servers.restored.load(dump, DUMPED)
    show("from the dump", f"restored in {time.monotonic() - began:.1f} s")
    place = folder / "dumped"
    place.mkdir()
    (folder / "state-of-dump").rename(place / "state")
    with ExitStack() as open_things:
        stage = Stage(servers.dsn(DUMPED), place, bar, 0, 0, 0)
        open_things.callback(stage.stop)
        clients = Clients(stage.client())
        with connect(stage.dsn, autocommit=True) as conn:
            missed = told.missing(conn)
            clients.take_over(conn)
            clients.learn_ends(conn)
        show("", f"lost of what was told before the dump began: {counted(missed)}; {stage.value(UNDER_WAY)} workflows under way")
        require_nothing(missed, "the dump")
        stage.wait_for_workers([stage.begin("worker")])
        with in_background(clients.answer_gates):
            return judge(stage, clients, "from the dump")


def judge(stage: Stage, clients: Clients, what: str) -> list[Verdict]:
    """Wait for all ends, then ask the oracles."""

    def count_ends() -> int:
        with connect(stage.dsn, autocommit=True) as conn:
            clients.learn_ends(conn)
        return len(clients.ended & clients.told.runs)

    stage.wait(count_ends, len(clients.told.runs), "runs have ended")
    stage.settle()
    with connect(stage.dsn, autocommit=True) as conn:
        verdicts = ask(conn, ORACLES, clients.facts())
    for verdict in verdicts:
        print(verdict.line)
    held = sum(verdict.holds for verdict in verdicts)
    print(f"{what}: {len(clients.told.runs)} runs ended, {held} of {len(verdicts)} oracles hold", flush=True)
    return verdicts


def make_mistake(dsn: str) -> int:
    """How many workflows it deleted."""
    with connect(dsn, autocommit=True) as conn:
        while True:
            try:
                return conn.execute(MISTAKE).rowcount
            except psycopg.errors.DeadlockDetected:  # the load is in the way
                continue


def value(conn: psycopg.Connection, query: LiteralString) -> object:
    row = conn.execute(query).fetchone()
    assert row is not None
    return row[0]


def counted(told: Told) -> str:
    return "{} runs, {} answers, {} steps".format(*told.counts)


def require_nothing(missed: Told, what: str) -> None:
    if any(missed.counts):
        raise SoakFailed(f"{what} does not have {counted(missed)} that clients were told of before it")


def show(name: str, text: str) -> None:
    print(f"{name:<14} {text}", flush=True)


def read_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bin/restoredrill", description="Back up under load, make a mistake, restore, and count."
    )
    parser.add_argument("--workers", type=int, choices=range(1, 9), default=2, metavar="N", help="worker processes, 1 to 8 (2)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run(main)

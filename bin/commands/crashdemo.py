"""bin/crashdemo: kill -9 the worker of a running service again and again, and show that each workflow ends as if nothing had happened.

    bin/crashdemo [--rounds N] [--at POINT] [--seed S] [--sleep-ms MS]

Each round starts the workflow that makes two marks with a durable sleep between them, kills the worker at one of these points, starts it
again, and wants both marks exactly once and SUCCESS within 30 s:

    queued      as soon as the service has accepted the workflow
    before-s1   the commit of the first mark is with the database, which holds it back; nobody hears its answer
    in-sleep    the workflow sleeps
    before-s2   like before-s1, for the second mark
    before-end  the second mark is made, the commit of the workflow's end is held back
    random      after a random time

A commit is held back by a lock of this command's own on the row that it needs. Once the worker is dead, the dice say whether the
database completes that commit or loses it. Service and database are those of the settings; ports are free ones, and a worker of another
service takes no part, because the drill has an application version of its own.
"""

import argparse
import contextlib
import random
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import httpx
import psycopg

from bin import evidence
from bin.database import connect, migrate
from bin.service import ServiceFailed, ServiceProcess
from bin.settings import Settings
from bin.wiring import FAILED, complain, database_of, run
from engine import connection_string

RECOVERY_S = 30.0
POINTS = ("queued", "before-s1", "in-sleep", "before-s2", "before-end", "random")

Conn = psycopg.Connection[tuple[Any, ...]]

MARK: LiteralString = "insert into app.marks (run_id, step) values (%s, %s)"
LOCK_WORKFLOW: LiteralString = "select from dbos.workflow_status where workflow_uuid = %s for update"
BLOCKED: LiteralString = "select exists (select from pg_stat_activity a where %s = any (pg_blocking_pids(a.pid)))"
CUT_OFF: LiteralString = "select pg_terminate_backend(a.pid) from pg_stat_activity a where %s = any (pg_blocking_pids(a.pid))"
ASLEEP: LiteralString = """
select exists (select from dbos.workflow_status
                where workflow_uuid = %s and status = 'PENDING' and owner_xid is null and wake_at_ms is not null)
"""
STATE: LiteralString = """
select s.status, s.claims, (select count(*) filter (where m.step = 's1') from app.marks m where m.run_id = s.workflow_uuid),
       (select count(*) filter (where m.step = 's2') from app.marks m where m.run_id = s.workflow_uuid),
       array(select o.function_id || ' ' || o.function_name from dbos.operation_outputs o
              where o.workflow_uuid = s.workflow_uuid order by o.function_id)
  from dbos.workflow_status s
 where s.workflow_uuid = %s
"""
JOURNAL = ["1 mark", "2 DBOS.sleep", "3 mark"]


@dataclass(frozen=True)
class State:
    status: str
    claims: int
    s1: int
    s2: int
    journal: list[str]

    @property
    def is_exact(self) -> bool:
        return (self.status, self.s1, self.s2, self.journal) == ("SUCCESS", 1, 1, JOURNAL)


class Missed(Exception):
    """The round did not go as it should; the message says why."""


class Overtaken(Exception):
    """The worker was quicker than this command's lock; nothing was killed."""


@dataclass
class Drill:
    """A service to be killed, and a connection to see what it did."""

    api: ServiceProcess
    worker: ServiceProcess
    http: httpx.Client
    conn: Conn
    dsn: str
    dice: random.Random
    sleep_ms: int

    def round(self, point: str, wf: str) -> tuple[State, State, float]:
        """What the kill found, what came of it, and how many seconds after the restart."""
        while True:
            with contextlib.suppress(Overtaken):
                return self.attempt(point, wf)
            wf = f"{wf}-again"

    def attempt(self, point: str, wf: str) -> tuple[State, State, float]:
        with self.moment(point, wf) as holder:
            found = self.state(wf)
            self.worker.kill()
            if holder is not None and self.dice.random() < 0.5:
                self.conn.execute(CUT_OFF, (holder.info.backend_pid,))
        restarted = time.monotonic()
        self.worker.start()
        while True:
            self.api.require_alive()
            self.worker.require_alive()
            state = self.state(wf)
            took_s = time.monotonic() - restarted
            if state.status not in ("ENQUEUED", "PENDING"):
                break
            if took_s > RECOVERY_S:
                raise Missed(
                    f"{wf} is still {state.status} {RECOVERY_S:.0f} s after the restart, with s1={state.s1} s2={state.s2}"
                )
            time.sleep(0.02)
        marks = self.http.get("/marks", params={"wf": wf}).raise_for_status().json()
        if not state.is_exact or marks != {"s1": 1, "s2": 1}:
            raise Missed(f"{wf} ended as {state.status} with marks {marks} and the journal {state.journal}")
        return found, state, took_s

    def state(self, wf: str) -> State:
        row = self.conn.execute(STATE, (wf,)).fetchone()
        if row is None:
            raise Missed(f"the service accepted {wf}, but the database has no such workflow: is it the same database?")
        return State(*row)

    def post(self, wf: str) -> None:
        answer = self.http.post("/crashdemo", params={"wf": wf})
        if (answer.status_code, answer.json()) != (202, {"accepted": True, "workflowId": wf}):
            raise Missed(f"POST /crashdemo?wf={wf} was answered by {answer.status_code} {answer.text}")

    # -- the moments --------------------------------------------------------------------------------------------------

    @contextmanager
    def moment(self, point: str, wf: str) -> Iterator[Conn | None]:
        """Start the workflow and hold it at the point for the length of the block; with whom, if a commit is held back."""
        with ExitStack() as locks:
            if point in ("before-s1", "before-s2", "before-end"):
                yield self.hold_a_commit(point, wf, locks)
                return
            self.post(wf)
            if point == "in-sleep":
                self.wait(lambda: self.value(ASLEEP, wf), "the workflow to sleep")
            elif point == "random":
                time.sleep(self.dice.uniform(0, 1.1 * self.sleep_ms / 1000))
            yield None

    def hold_a_commit(self, point: str, wf: str, locks: ExitStack) -> Conn:
        holder = locks.enter_context(self.holding(wf, "s1" if point == "before-s1" else "s2"))
        self.post(wf)
        self.wait(lambda: self.is_blocked(holder), f"the worker to reach {point}")
        return self.hold_the_end(wf, holder, locks) if point == "before-end" else holder

    @contextmanager
    def holding(self, wf: str, mark: str) -> Iterator[Conn]:
        """An uncommitted row of our own with the mark's key, which whoever writes the mark has to wait for."""
        with psycopg.connect(connection_string(self.dsn)) as conn:
            conn.execute(MARK, (wf, mark))
            yield conn
            conn.rollback()

    def hold_the_end(self, wf: str, holder: Conn, locks: ExitStack) -> Conn:
        """Queue up for the workflow's row behind the commit of the second mark, then let that commit through."""
        second = locks.enter_context(psycopg.connect(connection_string(self.dsn)))
        locks.callback(second.rollback)
        with ThreadPoolExecutor(1) as thread:
            locked = thread.submit(second.execute, LOCK_WORKFLOW, (wf,))
            self.wait(lambda: self.value("select cardinality(pg_blocking_pids(%s)) > 0", second.info.backend_pid), "our turn")
            holder.rollback()
            locked.result(RECOVERY_S)
        self.wait(lambda: self.is_blocked(second) or self.state(wf).status != "PENDING", "the worker to end the workflow")
        if not self.is_blocked(second):
            raise Overtaken
        return second

    def is_blocked(self, holder: Conn) -> bool:
        return self.value(BLOCKED, holder.info.backend_pid)

    def value(self, query: LiteralString, *values: Any) -> bool:
        row = self.conn.execute(query, values).fetchone()
        return row is not None and bool(row[0])

    def wait(self, look: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + RECOVERY_S
        while not look():
            self.api.require_alive()
            self.worker.require_alive()
            if time.monotonic() > deadline:
                raise Missed(f"waited {RECOVERY_S:.0f} s in vain for {what}")
            time.sleep(0.005)


def main(settings: Settings) -> int:
    asked = read_arguments(sys.argv[1:])
    with evidence.tile(settings, "pf-crashdemo") as claim:
        code, logs = kill_and_count(settings, asked)
        refs = [f"run:bin/crashdemo --rounds {asked.rounds} --seed {asked.seed} --at {asked.at or 'each'}", f"file:{logs}"]
        claim.decide("not every round was exact" if code else "", refs)
    return code


def kill_and_count(settings: Settings, asked: argparse.Namespace) -> tuple[int, Path]:
    """The exit code, and where the logs are."""
    dsn = database_of(settings)  # held until we end, so that an embedded server survives all of its workers
    with connect(dsn, autocommit=True) as conn:
        migrate(conn)
        name = f"crashdemo-{secrets.token_hex(4)}"
        logs = settings.state_dir.absolute() / "drills" / name
        logs.mkdir(parents=True)
        own = {"PORT": "0", "ADMIN_PORT": "0", "WF_SLEEP_MS": str(asked.sleep_ms), "DBOS__APPVERSION": name}
        api, worker = (ServiceProcess(command, logs / f"{command}.log", own) for command in ("api", "worker"))
        try:
            api.start()
            worker.start()
            with httpx.Client(base_url=api.url(), timeout=30) as http:
                drill = Drill(api, worker, http, conn, dsn, random.Random(asked.seed), asked.sleep_ms)
                return play(drill, asked, name, logs), logs
        except ServiceFailed as error:
            complain(error)
            return FAILED, logs
        finally:
            worker.stop()
            api.stop()


def read_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bin/crashdemo", description="Kill -9 the worker, start it again, and count the marks.")
    parser.add_argument("--rounds", type=_count, default=1, metavar="N", help="how many times (1)")
    parser.add_argument(
        "--at", choices=POINTS, metavar="POINT", help=f"where to kill: {', '.join(POINTS)} (each in turn, shuffled)"
    )
    parser.add_argument("--seed", type=int, default=None, metavar="S", help="repeat the choices of another drill")
    parser.add_argument("--sleep-ms", type=_count, default=1000, metavar="MS", help="how long the workflow sleeps (1000)")
    asked = parser.parse_args(arguments)
    if asked.seed is None:
        asked.seed = secrets.randbelow(2**31)
    return asked


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1 to 1000000")
    return int(text)


def play(drill: Drill, asked: argparse.Namespace, name: str, logs: Path) -> int:
    """All rounds, a line each, and the verdict."""
    exact = 0
    print(f"{asked.rounds} rounds with seed {asked.seed} at {drill.http.base_url}", flush=True)
    for number, point in enumerate(points(asked, drill.dice), 1):
        try:
            found, state, took_s = drill.round(point, f"{name}-{number}")
        except (Missed, httpx.HTTPError) as error:
            print(f"round {number} {point}: NOT EXACT: {error}; logs in {logs}", flush=True)
            continue
        exact += 1
        print(
            f"round {number} {point}: killed at {found.status} s1={found.s1} s2={found.s2}, "
            f"{state.status} s1={state.s1} s2={state.s2} {took_s:.1f} s after the restart, in {state.claims} claims",
            flush=True,
        )
    print(f"{exact} of {asked.rounds} rounds exact")
    if exact < asked.rounds:
        return FAILED
    print("DBOS workflow status: SUCCESS")
    print("marks s1=1 s2=1")
    return 0


def points(asked: argparse.Namespace, dice: random.Random) -> Iterator[str]:
    """The point asked for, or all of them, in a new order each time round."""
    hand: list[str] = []
    for _ in range(asked.rounds):
        if not hand:
            hand = dice.sample(POINTS, len(POINTS))
        yield asked.at or hand.pop()


if __name__ == "__main__":
    run(main)

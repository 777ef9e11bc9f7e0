"""The clients of an endurance soak, lap by lap: they start runs of every kind at an even pace, answer and cancel them, look at their
steps and listen to them, and remember what they were told.
"""

import random
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, LiteralString

import httpx
import psycopg

from bin.failover_clients import Told
from bin.soaks.chaos import kinds
from bin.soaks.oracles import Facts
from bin.soaks.samples import Clients
from bin.soaks.stage import Client, SoakFailed
from engine import connection_string

RUNS_PER_S = 3.0
STARTERS = 4
PARTITIONS = 8
#: So many runs may be open before clients wait with new ones.
MOST_OPEN = 90
#: What share of the open questions is answered in each look at the inbox: people take different times.
ANSWERED = 0.5
LISTENED_S = 30.0
WHO = {"actor": "soak", "reason": "endurance"}

MINE_ENDED: LiteralString = """
    select count(*) from app.runs r
     where r.workflow_id = any (%s) and r.status in ('succeeded', 'failed', 'canceled', 'retries_exceeded')
"""


def endurance_kinds(number: int) -> tuple[str, Mapping[str, Any]]:
    """A name and the constraints for every so many-th run: those of the chaos soak, and some that ask twice, ask for words, or are
    cancelled early or late.
    """
    match number % 12:
        case 2:
            return "two", {"testHooks": {"parallelApprovals": True}}
        case 6:
            return "ask", {"testHooks": {"askUser": True}}
        case 8:
            return "cancel-early", {}
        case 10:
            return "cancel-late", {}
        case _:
            return kinds(number)


class Pace:
    """Even moments for any number of threads. Those that were missed are not made up for."""

    def __init__(self, per_s: float) -> None:
        self._gap_s = 1 / per_s
        self._next = time.monotonic()
        self._lock = threading.Lock()

    def wait(self, over: threading.Event) -> None:
        with self._lock:
            self._next = max(self._next + self._gap_s, time.monotonic())
            moment = self._next
        over.wait(max(0.0, moment - time.monotonic()))


class Lap:
    """What clients do until all is at rest again. count: the next run's number, over all laps."""

    def __init__(self, dsn: str, client: Client, fronts: tuple[str, ...], clients: Clients, seed: int, first: int) -> None:
        self.client, self.clients, self.count = client, clients, first
        self.goals: dict[str, str] = {}
        self.told = Told()
        self.answers: set[tuple[str, str]] = set()
        self.ended = 0
        self.events = self.resumed = 0
        self.disorder: list[str] = []
        self._dsn, self._fronts = dsn, fronts
        self._dice = random.Random(seed)
        self._pace = Pace(RUNS_PER_S)
        self._lock = threading.Lock()

    @property
    def loops(self) -> list[Callable[[threading.Event], None]]:
        """What goes on until all has ended."""
        return [self.answer_gates, self.look_at_steps, self.listen, self.listen, self.count_ends]

    def start_runs(self, over: threading.Event) -> None:
        while not over.is_set():
            self._pace.wait(over)
            if over.is_set() or len(self.goals) - self.ended >= MOST_OPEN:
                continue
            with self._lock:
                self.count += 1
                number = self.count
            kind, constraints = endurance_kinds(number)
            goal = f"{kind} {number}"
            wid = self.client.start(goal, f"endurance-{number % PARTITIONS}", dict(constraints))
            self.goals[wid] = goal
            self.told.runs.add(wid)
            self.clients.accepted()
            if kind == "cancel-early":
                self.cancel(wid)

    def cancel(self, wid: str) -> None:
        answer = self.client.ask("POST", f"/api/ops/wf/{wid}/cancel", WHO)
        if answer.status_code not in (202, 409):  # 409: a call before, whose answer was lost, has done it
            raise SoakFailed(f"the cancel of {wid} was answered by {answer.status_code} {answer.text[:200]}")

    def answer_gates(self, over: threading.Event) -> None:
        while not over.is_set():
            for wid, gate in self.client.inbox():
                if (wid, gate) not in self.answers and self._dice.random() < ANSWERED:
                    self.answer(wid, gate)
            over.wait(0.3)

    def answer(self, wid: str, gate: str) -> None:
        goal = self.goals.get(wid)
        if goal is None or goal.startswith("cancel-early"):
            return  # its start has not been answered yet, or its cancel is on the way
        if goal.startswith("cancel-late"):
            self.cancel(wid)
            return
        payload = {"answer": "words"} if gate.startswith("ask-user") else {"choice": "no" if goal.startswith("refuse") else "yes"}
        body = {"payload": payload, "dedupeKey": "soak", "origin": "webhook"}
        if self.client.ask("POST", f"/api/runs/{wid}/gates/{gate}/reply", body).status_code == 200:
            self.answers.add((wid, gate))
            self.told.replies.add(wid)

    def look_at_steps(self, over: threading.Event) -> None:
        while not over.wait(0.25):
            if not self.goals:
                continue
            wid = random.choice(list(self.goals))
            answer = self.client.ask("GET", f"/api/runs/{wid}/steps")
            if answer.status_code == 200:
                self.told.steps |= {(wid, row["stepID"]) for row in answer.json() if row["status"] == "SUCCESS"}

    def count_ends(self, over: threading.Event) -> None:
        while not over.wait(1.0):
            with suppress(psycopg.OperationalError):
                self.count_once()

    def count_once(self) -> int:
        with psycopg.connect(connection_string(self._dsn), autocommit=True) as conn:
            ended = int(conn.execute(MINE_ENDED, (list(self.goals),)).fetchall()[0][0])
        with self._lock:
            self.clients.ended(max(0, ended - self.ended))
            self.ended = max(self.ended, ended)
        return self.ended

    def listen(self, over: threading.Event) -> None:
        """Follow a run's events to its end, going on behind the last one when the stream breaks; they come once each, in order."""
        with httpx.Client(timeout=20) as http:
            while not over.wait(0.5):
                if self.goals:
                    self.follow(http, random.choice(list(self.goals)[-MOST_OPEN:]), over)

    def follow(self, http: httpx.Client, wid: str, over: threading.Event) -> None:
        last: tuple[int, ...] = ()
        until = time.monotonic() + LISTENED_S
        while not over.is_set() and time.monotonic() < until:
            headers = {"last-event-id": ".".join(map(str, last))} if last else {}
            try:
                with http.stream("GET", f"{random.choice(self._fronts)}/api/runs/{wid}/stream", headers=headers) as answer:
                    self.clients.heard("GET", answer.status_code, 0.0)
                    for line in answer.iter_lines():
                        if line == "event: end":
                            return
                        if line.startswith("id: "):
                            here = tuple(map(int, line[4:].split(".")))
                            if here < last:
                                self.disorder.append(f"{wid}: event {here} came after {last}")
                            last, self.events = here, self.events + 1
                        if over.is_set() or time.monotonic() > until:
                            return
            except httpx.TransportError:
                over.wait(0.2)
            self.resumed += 1

    def facts(self) -> Facts:
        kinds_of = [goal.partition(" ")[0] for goal in self.goals.values()]
        done = [kind for kind in kinds_of if kind != "refuse" and not kind.startswith("cancel")]
        return {"runs": len(self.goals), "accepted": list(self.goals), "tasks": len(done), "answers": len(self.answers)}

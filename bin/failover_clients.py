"""Clients that drive runs through the API over failovers, remember what they were told, and say how long nothing moved."""

import threading
import time
from dataclasses import dataclass, field
from typing import Any, LiteralString

import psycopg

from bin.soaks.chaos import kinds
from bin.soaks.oracles import Facts
from bin.soaks.stage import Client, SoakFailed

STARTERS = 3
PARTITIONS = 4
#: So many runs may be open before clients wait with new ones.
MOST_OPEN = 24

RUNS: LiteralString = "select r.workflow_id from app.runs r"
ENDED: LiteralString = """
    select r.workflow_id from app.runs r where r.status in ('succeeded', 'failed', 'canceled', 'retries_exceeded')
"""
REPLIES: LiteralString = "select distinct i.workflow_id from app.human_interactions i"
STEPS: LiteralString = "select r.workflow_id, s.step_id from app.run_steps s join app.runs r on r.id = s.run_id"
GOALS: LiteralString = "select r.workflow_id, i.goal from app.runs r join app.intents i on i.id = r.intent_id"


@dataclass
class Told:
    """What clients hold an acknowledgement of: runs, runs whose gate took an answer, and steps that they have seen as done."""

    runs: set[str] = field(default_factory=set[str])
    replies: set[str] = field(default_factory=set[str])
    steps: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])

    def copy(self) -> "Told":
        return Told(set(self.runs), set(self.replies), set(self.steps))

    def missing(self, conn: psycopg.Connection[Any]) -> "Told":
        """What of this the database does not have."""
        return Told(
            self.runs - {row[0] for row in conn.execute(RUNS).fetchall()},
            self.replies - {row[0] for row in conn.execute(REPLIES).fetchall()},
            self.steps - {(row[0], row[1]) for row in conn.execute(STEPS).fetchall()},
        )

    @property
    def counts(self) -> tuple[int, int, int]:
        return len(self.runs), len(self.replies), len(self.steps)


class Clients:
    """Loops for threads: some start runs, one answers gates, one watches runs. Moments are of time.monotonic()."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.told = Told()
        self.goals: dict[str, str] = {}
        self.ended: set[str] = set()
        self.accepted_at: list[float] = []
        self.moved_at: dict[str, float] = {}  # when the first step of a run was seen, by run
        self.began_at: dict[str, float] = {}
        self._count = 0
        self._lock = threading.Lock()

    def start_runs(self, over: threading.Event) -> None:
        while not over.is_set():
            if len(self.goals) - len(self.ended) >= MOST_OPEN:
                over.wait(0.05)
                continue
            with self._lock:
                self._count += 1
                number = self._count
            kind, constraints = kinds(number)
            goal = f"{kind} {number}"
            try:
                wid = self.client.start(goal, f"failover-{number % PARTITIONS}", dict(constraints))
            except SoakFailed:  # its intent went with the old primary
                continue
            self.accept(wid, goal)

    def accept(self, wid: str, goal: str) -> None:
        """The service has accepted this run now."""
        now = time.monotonic()
        self.began_at[wid] = now
        self.goals[wid] = goal
        self.told.runs.add(wid)
        self.accepted_at.append(now)

    def answer_gates(self, over: threading.Event) -> None:
        while not over.is_set():
            for wid, gate in self.client.inbox():
                goal = self.goals.get(wid)
                if goal is None:
                    continue  # its start has not been answered yet
                choice = "no" if goal.startswith("refuse") else "yes"
                if self.client.reply(wid, gate, choice, key="failover").status_code == 200:
                    self.told.replies.add(wid)
            over.wait(0.05)

    def watch_runs(self, over: threading.Event) -> None:
        while not over.is_set():
            for wid in [wid for wid in list(self.goals) if wid not in self.ended]:
                if over.is_set():
                    return
                self._look_at(wid)
            over.wait(0.05)

    def _look_at(self, wid: str) -> None:
        answer = self.client.ask("GET", f"/api/runs/{wid}/steps")
        if answer.status_code != 200:
            return  # lost, or not there yet
        for row in answer.json():
            if row["status"] == "SUCCESS":
                self.told.steps.add((wid, row["stepID"]))
                self.moved_at.setdefault(wid, time.monotonic())

    def learn_ends(self, conn: psycopg.Connection[Any]) -> None:
        self.ended = {row[0] for row in conn.execute(ENDED).fetchall()} | (set(self.goals) - self.told.runs)

    def forget(self, lost: Told) -> None:
        """What was lost is nobody's business any more; an answer that was lost is given again."""
        with self._lock:
            self.told.runs -= lost.runs
            self.told.replies -= lost.replies | lost.runs
            self.told.steps -= lost.steps

    def take_over(self, conn: psycopg.Connection[Any]) -> None:
        """Go on with the runs of a database that came from elsewhere."""
        self.goals.update(conn.execute(GOALS).fetchall())
        self.told.runs.update(self.goals)
        self.told.replies.update(row[0] for row in conn.execute(REPLIES).fetchall())

    def facts(self) -> Facts:
        """What the oracles must know of these runs, all of which have ended."""
        refused = sum(self.goals[wid].startswith("refuse") for wid in self.told.runs)
        return {
            "runs": len(self.told.runs),
            "accepted": list(self.told.runs),
            "tasks": len(self.told.runs) - refused,
            "answers": len(self.told.replies),
        }

    def accepts_again(self, since: float) -> float | None:
        """When the first start after this moment was accepted."""
        return next((at for at in list(self.accepted_at) if at > since), None)

    def moves_again(self, since: float) -> float | None:
        """When a run that was accepted after this moment was seen to have done a step."""
        found = [at for wid, at in list(self.moved_at.items()) if self.began_at.get(wid, 0.0) > since]
        return min(found, default=None)

"""Load on an API and two workers, while workers are killed with kill -9 and the database crashes, at random.

Clients start runs of several kinds and answer their gates, all the time. When the time is over, what was accepted must come to its end.
"""

import threading
import time
from collections.abc import Mapping
from typing import Any, LiteralString

from bin.service import ServiceProcess
from bin.soaks.oracles import EXACT, HEARD, SANDBOX, TIDY, Facts
from bin.soaks.stage import ENDED, Client, Stage, in_background

ORACLES = (*TIDY, *EXACT, *SANDBOX, *HEARD)

WORKERS = 2
CLIENTS = 4
PARTITIONS = 8
#: So many runs may be open before clients wait with new ones, or the end of the soak would be far away.
MOST_OPEN = 150
PAUSE_S = (1.0, 4.0)
#: What happens after each pause, over and over.
TROUBLE = ("worker", "database", "worker", "worker", "worker")

UNDER_WAY: LiteralString = "select count(*) from dbos.workflow_status where owner_xid is not null"


def kinds(number: int) -> tuple[str, Mapping[str, Any]]:
    """A name and the constraints for every so many-th run: some change files, some need three attempts, some are refused."""
    patch = {"targetPath": f"chaos/{number}.txt", "postimageContent": f"{number}\n", "diffText": f"+{number}"}
    match number % 6:
        case 1:
            return "patch", {"testHooks": {"replay": {"plan": {"patchPlan": [patch]}}}}
        case 3:
            return "flaky", {"testHooks": {"replay": {"build": {"test_command": "FLAKY_INFRA_FAIL"}}}}
        case 5:
            return "refuse", {"testHooks": {"replay": {"plan": {"patchPlan": [patch]}}}}
        case _:
            return "plain", {}


class Load:
    """What the clients did. accepted: goal by workflow id. answered: whose gate has taken an answer."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.accepted: dict[str, str] = {}
        self.answered: set[str] = set()
        self.ended = 0
        self._count = 0
        self._lock = threading.Lock()

    def start_runs(self, over: threading.Event) -> None:
        while not over.is_set():
            if len(self.accepted) - self.ended >= MOST_OPEN:
                over.wait(0.1)
                continue
            with self._lock:
                self._count += 1
                number = self._count
            kind, constraints = kinds(number)
            goal = f"{kind} {number}"
            wid = self.client.start(goal, f"chaos-{number % PARTITIONS}", dict(constraints))
            self.accepted[wid] = goal

    def answer_gates(self, over: threading.Event) -> None:
        while not over.is_set():
            for wid, gate in self.client.inbox():
                self.answer(wid, gate)
            over.wait(0.1)

    def answer(self, wid: str, gate: str) -> None:
        goal = self.accepted.get(wid)
        if goal is None:
            return  # its start has not been answered yet
        if self.client.reply(wid, gate, "no" if goal.startswith("refuse") else "yes").status_code == 200:
            self.answered.add(wid)


def play(stage: Stage) -> Facts:
    load = Load(stage.client())
    workers = [stage.begin("worker") for _ in range(WORKERS)]
    with in_background(load.answer_gates):
        with in_background(*[load.start_runs] * CLIENTS):
            make_trouble(stage, workers, load)
        stage.wait(lambda: stage.value(ENDED), len(load.accepted), "runs have ended")
    stage.settle()
    return facts(load)


def facts(load: Load) -> Facts:
    refused = sum(goal.startswith("refuse") for goal in load.accepted.values())
    return {
        "runs": len(load.accepted),
        "accepted": list(load.accepted),
        "tasks": len(load.accepted) - refused,
        "answers": len(load.answered),
    }


def make_trouble(stage: Stage, workers: list[ServiceProcess], load: Load) -> None:
    """Until the time is over. Says how often it happened, and how many workflows were under way in those moments."""
    end = time.monotonic() + stage.minutes * 60
    happened = {"worker": 0, "database": 0}
    hit = number = 0
    while watch(stage, load, end, stage.dice.uniform(*PAUSE_S)):
        what = TROUBLE[number % len(TROUBLE)]
        number += 1
        if what == "database" and stage.server is None:
            continue
        stage.wait_for_workers(workers)
        hit += stage.value(UNDER_WAY)
        if what == "worker":
            victim = stage.dice.choice(workers)
            victim.kill()
            victim.start()
        else:
            assert stage.server is not None
            stage.server.crash()
        happened[what] += 1
    stage.notes.append(
        f"{len(load.accepted)} runs accepted; workers killed {happened['worker']} times, the database crashed {happened['database']} "
        f"times, {hit} workflows were under way then; {load.client.refusals} calls were made again"
    )


def watch(stage: Stage, load: Load, end: float, pause_s: float) -> bool:
    """Let it go on for a while, and see that it does. False when the time is over."""
    until = min(end, time.monotonic() + pause_s)
    while (left_s := until - time.monotonic()) > 0:
        time.sleep(min(0.3, left_s))
        stage.require_alive()
        load.ended = stage.value(ENDED)
        share = 1 - (end - time.monotonic()) / (stage.minutes * 60)
        stage.bar.show(share, f"{len(load.accepted)} accepted, {load.ended} ended")
    return time.monotonic() < end

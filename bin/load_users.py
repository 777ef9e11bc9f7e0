"""The users of a load test, in a process of its own, because Locust changes Python's sockets and threads for the whole process.

    python -m bin.load_users '{"base": "http://…", "stages": [[20.0, 4, 4]]}'

Each user does the same over and over: stores an intent, starts it in one of eight partitions, and reads the run, the queues, its steps
and an artifact. A stage is (seconds, users at its start, users at its end). A line of JSON tells each second how it goes, and the last one
everything; bin/commands/load.py reads them.
"""

# isort: off
from locust import FastHttpUser, LoadTestShape, constant, task  # first: it patches what the others import
from locust.env import Environment
from locust.log import setup_logging

import itertools
import json
import secrets
import sys
import time
from collections import defaultdict
from typing import Any
from urllib.parse import quote

import gevent
# isort: on

PARTITIONS = 8
STOP_S = 10
AFTER_FAILURE_S = 0.2
NOT_YET = "artifact://run/{wid}/step/CompileST/task//none"


class Tally:
    """What all users saw, since the start and since the last line."""

    def __init__(self) -> None:
        self.times: defaultdict[str, list[float]] = defaultdict(list)
        self.failed: defaultdict[str, int] = defaultdict(int)
        self.checks: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
        self.iterations = 0
        self.recent: list[float] = []
        self.recent_failed = 0

    def request(self, name: str, took_ms: float, *, failed: bool) -> None:
        self.times[name].append(round(took_ms, 3))
        self.recent.append(took_ms)
        if failed:
            self.failed[name] += 1
            self.recent_failed += 1

    def check(self, name: str, held: bool) -> bool:
        self.checks[name][0 if held else 1] += 1
        return held

    def second(self, at_s: float, users: int) -> dict[str, Any]:
        """How the time since the last call went."""
        recent = sorted(self.recent)
        said = {
            "at": round(at_s, 1),
            "users": users,
            "requests": len(recent),
            "failed": self.recent_failed,
            "p95": round(recent[int(len(recent) * 0.95)], 1) if recent else None,
        }
        self.recent, self.recent_failed = [], 0
        return said

    def everything(self) -> dict[str, Any]:
        endpoints = {name: {"times": times, "failed": self.failed[name]} for name, times in self.times.items()}
        return {"endpoints": endpoints, "checks": dict(self.checks), "iterations": self.iterations}


TALLY = Tally()
NUMBERS = itertools.count()
TEST = secrets.token_hex(4)


class Visitor(FastHttpUser):
    """A client of the API that never pauses."""

    wait_time = constant(0)

    def on_start(self) -> None:
        self.number = next(NUMBERS)

    @task
    def iteration(self) -> None:
        if self.visit():
            TALLY.iterations += 1
        else:
            gevent.sleep(AFTER_FAILURE_S)

    def visit(self) -> bool:
        """False as soon as an answer is missing that the rest is built on."""
        stored = self.ask("POST", "/api/intents", 201, json={"goal": f"load {TEST}", "inputs": {}, "constraints": {}})
        wid = stored.get("intentId") if isinstance(stored, dict) else None
        if not TALLY.check("the intent has an id", isinstance(wid, str)):
            return False
        options = {"intentId": wid, "queuePartitionKey": f"k6-part-{self.number % PARTITIONS}"}
        started = self.ask("POST", "/api/runs", 201, json=options)
        if not TALLY.check("the run is the intent's", isinstance(started, dict) and started.get("workflowID") == wid):
            return False
        header = self.ask("GET", f"/api/runs/{wid}", 200, name="/api/runs/{wid}")
        TALLY.check("the header is the run's", isinstance(header, dict) and header.get("workflowID") == wid)
        depth = self.ask("GET", "/api/ops/queue-depth?limit=10", 200)
        TALLY.check("the queues are a short list", isinstance(depth, list) and len(depth) <= 10)
        steps = self.ask("GET", f"/api/runs/{wid}/steps", 200, name="/api/runs/{wid}/steps")
        TALLY.check("the steps are a list", isinstance(steps, list))
        uri = quote(artifact_of(steps) or NOT_YET.format(wid=wid), safe=":/")
        self.ask("GET", f"/api/artifacts/{uri}", 200, 404, name="/api/artifacts/{uri}")
        return True

    def ask(self, method: str, path: str, *wanted: int, name: str | None = None, json: object = None) -> Any:
        """The answer's JSON; None when there is none, or its code is none of those wanted."""
        name = f"{method} {(name or path).partition('?')[0]}"
        began = time.perf_counter()
        with self.client.request(method, path, name=name, json=json, catch_response=True) as answer:
            took_ms = (time.perf_counter() - began) * 1000
            held = answer.status_code in wanted
            TALLY.request(name, took_ms, failed=not held)
            TALLY.check(f"{name} is {' or '.join(map(str, wanted))}", held)
            if not held:
                answer.failure(f"{answer.status_code} {str(answer.text)[:200]}")
                return None
            answer.success()
            try:
                return answer.json()
            except ValueError:
                return None


def artifact_of(steps: Any) -> str | None:
    """The address of the run's first artifact, if it has one yet."""
    if not isinstance(steps, list):
        return None
    ids = [ref["id"] for step in steps for ref in step.get("artifactRefs", [])]
    return ids[0] if ids else None


class Stages(LoadTestShape):
    """How many users there are at each moment."""

    def __init__(self, stages: list[tuple[float, int, int]]) -> None:
        super().__init__()
        self.stages = stages

    def tick(self) -> tuple[int, float] | None:
        into_s = self.get_run_time()
        for length_s, first, last in self.stages:
            if into_s < length_s:
                users = max(1, round(first + (last - first) * into_s / length_s))
                return users, float(users)
            into_s -= length_s
        return None


def main(plan: dict[str, Any]) -> None:
    setup_logging("INFO")
    environment = Environment(
        user_classes=[Visitor],
        host=plan["base"],
        shape_class=Stages([tuple(stage) for stage in plan["stages"]]),
        stop_timeout=STOP_S,
    )
    runner = environment.create_local_runner()
    began = time.monotonic()
    runner.start_shape()
    going = runner.shape_greenlet
    most = 0
    while going is not None and not going.ready():
        gevent.sleep(1)
        most = max(most, runner.user_count)
        tell(TALLY.second(time.monotonic() - began, runner.user_count))
    runner.quit()
    tell({"end": TALLY.everything() | {"took": round(time.monotonic() - began, 3), "most_users": most}})


def tell(said: dict[str, Any]) -> None:
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))

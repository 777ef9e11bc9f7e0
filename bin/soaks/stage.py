"""What a soak plays on: processes of the service on a database of its own, clients that do not give up, and a look at the database."""

import itertools
import random
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, LiteralString, TypeVar

import httpx
import psycopg

from bin.own_server import OwnServer, surroundings
from bin.postgres_pair import Pair
from bin.progress import Bar
from bin.service import ServiceProcess
from bin.soaks.oracles import LEFTOVERS
from engine import connection_string

AT_ONCE = 20
PATIENCE_S = 60.0
#: Longer than a lease and the recovery after it: if nothing has ended for so long, nothing will.
STALL_S = 45.0
LOOK_S = 0.2

OPEN: LiteralString = "select count(*) from dbos.workflow_status where status in ('ENQUEUED', 'DELAYED', 'PENDING')"
ENDED: LiteralString = "select count(*) from app.runs where status in ('succeeded', 'failed', 'canceled', 'retries_exceeded')"
OPEN_GATES: LiteralString = """
    select r.workflow_id, g.gate_key from app.human_gates g
      join app.runs r on r.id = g.run_id and r.status = 'waiting_input'
      join dbos.workflow_events p on p.workflow_uuid = r.workflow_id and p.key = 'ui:' || g.gate_key
     where g.resolved_at is null order by 1, 2
"""

AT_WORK: LiteralString = "select count(distinct place) from engine.worker where not dead and place = any(%s)"

T = TypeVar("T")


class SoakFailed(Exception):
    """The soak could not go on; one sentence says why."""


class Client:
    """Calls the API from any number of threads, and again what fails because the service or its database is away.

    bases: front doors of one service, to which calls go in turn. heard: told of each answer's method, status and seconds.
    """

    def __init__(self, *bases: str, heard: Callable[[str, int, float], None] | None = None) -> None:
        self._http = httpx.Client(timeout=60, limits=httpx.Limits(max_connections=100))
        self._bases = itertools.cycle(bases)
        self._heard = heard
        self.refusals = 0

    def close(self) -> None:
        self._http.close()

    def turn_to(self, *bases: str) -> None:
        """Call these from now on."""
        self._bases = itertools.cycle(bases)

    def ask(self, method: str, path: str, json: object = None) -> httpx.Response:
        """The first answer that is none of trouble with the service. Raises SoakFailed after a minute."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                began = time.monotonic()
                answer = self._http.request(method, next(self._bases) + path, json=json)
                if self._heard is not None:
                    self._heard(method, answer.status_code, time.monotonic() - began)
                if answer.status_code < 500:
                    return answer
                trouble = f"{answer.status_code} {answer.text[:200]}"
            except httpx.TransportError as error:
                trouble = f"{type(error).__name__} {error}"
            self.refusals += 1
            if time.monotonic() > deadline:
                raise SoakFailed(f"{method} {path} found no service for {PATIENCE_S:.0f} s: {trouble}")
            time.sleep(0.1)

    def start(self, goal: str, partition: str, constraints: dict[str, Any] | None = None) -> str:
        """The workflow id of a run that the service has accepted, once."""
        intent = {"goal": goal, "inputs": {}, "constraints": constraints or {}}
        wid = str(self._expect(self.ask("POST", "/api/intents", intent), 201)["intentId"])
        self._expect(self.ask("POST", "/api/runs", {"intentId": wid, "queuePartitionKey": partition}), 201, 200)
        return wid

    def reply(self, wid: str, gate: str, choice: str, key: str = "soak") -> httpx.Response:
        body = {"payload": {"choice": choice}, "dedupeKey": key, "origin": "webhook"}
        return self.ask("POST", f"/api/runs/{wid}/gates/{gate}/reply", body)

    def inbox(self) -> list[tuple[str, str]]:
        """Workflow id and gate of the most urgent questions."""
        rows = self._expect(self.ask("GET", "/api/hitl/inbox?limit=200"), 200)
        return [(row["workflowID"], row["gateKey"]) for row in rows]

    def _expect(self, answer: httpx.Response, *codes: int) -> Any:
        if answer.status_code not in codes:
            raise SoakFailed(
                f"{answer.request.method} {answer.request.url.path} was answered by {answer.status_code} {answer.text[:200]}"
            )
        return answer.json()


@dataclass
class Stage:
    """n, minutes, seed: as asked for. notes: what the soak wants to tell besides its verdicts. server: None if nobody may crash it.

    pair: where the database is two servers. plot: where a picture goes. way: how the service's processes reach the database, if it is
    another way than ours.
    """

    dsn: str
    folder: Path
    bar: Bar
    n: int
    minutes: float
    seed: int
    server: OwnServer | None = None
    pair: Pair | None = None
    plot: Path | None = None
    way: str | None = None
    notes: list[str] = field(default_factory=list[str])
    processes: list[ServiceProcess] = field(default_factory=list[ServiceProcess])
    clients: list[Client] = field(default_factory=list[Client])

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)

    def begin(self, command: str, **settings: str) -> ServiceProcess:
        """A process of the service, all by itself with the others of this stage."""
        return self._begin(command, settings)

    def begin_another(self, command: str, module: str, *arguments: str) -> ServiceProcess:
        """This module in the place of that command, started again whenever it ends by itself."""
        return self._begin(command, {}, module=module, arguments=arguments, kept_up=True)

    def _begin(self, command: str, settings: Mapping[str, str], **how: Any) -> ServiceProcess:
        log = self.folder / f"{command}-{len(self.processes)}.log"
        own = {**surroundings(self.way or self.dsn, self.folder / "state"), **settings}
        process = ServiceProcess(command, log, own, **how)
        self.processes.append(process)
        process.start()
        return process

    def client(self) -> Client:
        """Clients of an API that is started for them."""
        self.clients.append(Client(self.begin("api").url()))
        return self.clients[-1]

    def stop(self) -> None:
        for client in self.clients:
            client.close()
        for process in self.processes:
            process.stop()

    # -- the database -------------------------------------------------------------------------------------------------

    def rows(self, query: LiteralString, *values: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(connection_string(self.dsn), autocommit=True) as conn:
            return conn.execute(query, values or None).fetchall()

    def value(self, query: LiteralString, *values: object) -> int:
        return int(self.rows(query, *values)[0][0])

    # -- waiting ------------------------------------------------------------------------------------------------------

    def wait(self, look: Callable[[], int], wanted: int, what: str) -> None:
        """Until there are as many as wanted, or have been no more for a while: then it is noted, and the oracles will say what is wrong."""
        reached, since = -1, time.monotonic()
        while (found := look()) < wanted:
            self.require_alive()
            if found > reached:
                reached, since = found, time.monotonic()
            if time.monotonic() - since > STALL_S:
                self.notes.append(f"gave up waiting: {found} of {wanted} {what}")
                return
            self.bar.show(found / wanted, f"{found} of {wanted} {what}")
            time.sleep(LOOK_S)
        self.bar.show(1, f"{found} of {wanted} {what}")

    def settle(self) -> None:
        """Until the workers have nothing left to do, or do nothing any more: what is left then is for the oracles to see."""
        least, since, began_with = None, time.monotonic(), max(1, self.value(OPEN))
        while True:
            self.require_alive()
            left = self.value(OPEN)
            if left == 0 and not self.rows(LEFTOVERS.query):
                return
            if least is None or left < least:
                least, since = left, time.monotonic()
            if time.monotonic() - since > STALL_S:
                return
            self.bar.show(1 - left / began_with, f"{left} workflows have not ended")
            time.sleep(LOOK_S)

    def wait_for_workers(self, workers: Sequence[ServiceProcess]) -> None:
        """Until they have started: a process that finds no database as it starts ends, which is as it should be."""
        places = [f"{socket.gethostname()}:{worker.pid}" for worker in workers]
        self.wait(lambda: self.value(AT_WORK, places), len(workers), "workers have started")

    def require_alive(self) -> None:
        for process in self.processes:
            process.require_alive()


def in_turn(calls: Iterable[Callable[[], T]]) -> list[T]:
    """The results of all calls, a few of them under way at any time."""
    threads = ThreadPoolExecutor(AT_ONCE)
    try:
        return [result.result() for result in [threads.submit(call) for call in calls]]
    finally:
        threads.shutdown(cancel_futures=True)


@contextmanager
def in_background(*loops: Callable[[threading.Event], None]) -> Iterator[None]:
    """Loops that go on until the end of the block, each in a thread. What one of them raises is raised at the end."""
    over = threading.Event()
    with ThreadPoolExecutor(len(loops)) as threads:
        running = [threads.submit(loop, over) for loop in loops]
        try:
            yield
        finally:
            over.set()
            for one in running:
                one.result()

"""Hours in the life of an installation: two front doors and three workers on a primary and its synchronous standby, under even load,
while processes are killed, stopped and frozen, and the database crashes and fails over, at moments that the seed chooses.

It goes in laps. At the end of each nothing is started any more until all has ended; then the oracles are asked about everything that
was accepted in it. While the next lap goes on, what is over is deleted as bin/prune does, so that tables come to a size that they keep.

One front door and one worker are never stopped: they must not grow. Neither may tables, and vacuums must keep up.
"""

import asyncio
import os
import random
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, LiteralString

import httpx
import psycopg

from bin.postgres_pair import Pair
from bin.service import ServiceProcess
from bin.soaks.endurance_load import STARTERS, Lap
from bin.soaks.endurance_plot import draw
from bin.soaks.oracles import LEDGER, PATCHES, RECEIPTS, SANDBOX, STEPS, TIDY, Facts, Oracle, Verdict, ask
from bin.soaks.samples import MINUTE_S, Watch, findings
from bin.soaks.stage import Client, SoakFailed, Stage, in_background
from engine import connection_string, retention
from steps.retention import Pruned, prune

LAP_S = 5 * MINUTE_S
LEAST_LAPS = 3
SAMPLE_S = 10.0
#: Between two troubles; in a soak of less than a quarter of an hour they come as much sooner.
PAUSE_S = (12.0, 34.0)
UNHURRIED_S = 15 * MINUTE_S
#: Longer than a lease, so that a worker that is frozen for so long finds its runs in other hands.
FROZEN_S = (12.0, 16.0)
#: Each of these once, in an order of the seed, over and over.
TROUBLE = (
    *("kill worker", "kill worker", "kill worker", "restart worker", "freeze worker"),
    *("kill api", "restart api", "crash database", "failover", "failover"),
)
#: What is asked is about a state of rest, in which a tick of the schedule may be under way.
ASKED_TIMES, ASKED_AGAIN_S = 10, 3.0

NOW_MS: LiteralString = "select engine.now_ms()"
LEFT: LiteralString = """
    select count(*) from app.runs r join dbos.workflow_status s on s.workflow_uuid = r.workflow_id where s.completed_at < %s
"""
#: A run is kept for a day at least. For the transaction that deletes, and nobody else, the day has passed.
A_DAY_LATER: LiteralString = """
    insert into engine.clock (now_ms) values ((extract(epoch from clock_timestamp()) * 1000)::bigint + 2 * 86400000)
"""
TODAY: LiteralString = "delete from engine.clock"

# What must be true of a lap ------------------------------------------------------------------------------------------------------

ENDS = Oracle(
    "every run ended as it was answered or cancelled",
    """
    select r.workflow_id, i.goal, r.status, r.error from app.runs r join app.intents i on i.id = r.intent_id
     where r.status <> case when i.goal like 'refuse%%' then 'retries_exceeded' when i.goal like 'cancel%%' then 'canceled'
                            else 'succeeded' end
     order by 1
    """,
)
GATES_ASKED = Oracle(
    "every gate of a run that was not cancelled was asked once, settled once and heard once",
    """
    select r.workflow_id, i.goal, g.gates, e.prompts, e.results, e.decisions, n.heard
      from app.runs r
      join app.intents i on i.id = r.intent_id and i.goal not like 'cancel%%' and i.id <> 'scheduled-ops'
     cross join lateral (select count(*) as gates from app.human_gates x where x.run_id = r.id and x.resolved_at is not null) g
     cross join lateral (
           select count(*) filter (where h.key ~ '^ui:[^:]*$') as prompts, count(*) filter (where h.key ~ ':result$') as results,
                  count(*) filter (where h.key ~ '^decision:') as decisions
             from dbos.workflow_events_history h where h.workflow_uuid = r.workflow_id) e
     cross join lateral (
           select count(*) as heard from dbos.notifications x where x.destination_uuid = r.workflow_id and x.consumed) n
     cross join lateral (
           select case when i.goal like 'two%%' or i.goal like 'ask%%' then 2 else 1 end as wanted,
                  case when i.goal like 'two%%' then 2 else 1 end as decided) w
     where not (g.gates = w.wanted and e.prompts = w.wanted and e.results = w.wanted and e.decisions = w.decided
                and n.heard = w.wanted)
     order by 1
    """,
)
TICKS = Oracle(
    "the schedule has ticked every half minute, once each",
    """
    select t.at, t.before
      from (select (a.inline -> 'json' ->> 'scheduledAt')::timestamptz as at,
                   lag((a.inline -> 'json' ->> 'scheduledAt')::timestamptz) over (order by a.inline -> 'json' ->> 'scheduledAt') as before
              from app.artifacts a where a.step_id = 'ScheduledTick') t
     where t.at - t.before <> interval '30 s'
    """,
)
KEPT_WORD = Oracle("nothing that a client was told is missing", "select * from unnest(%(lost)s::text[]) as lost")
IN_ORDER = Oracle("events of a run came in order, over broken streams too", "select * from unnest(%(disorder)s::text[]) as event")
LAP_ORACLES = (*TIDY, ENDS, STEPS, RECEIPTS, PATCHES, *SANDBOX, LEDGER, GATES_ASKED, TICKS, KEPT_WORD, IN_ORDER)

# … and of the whole --------------------------------------------------------------------------------------------------------------

POLITE = Oracle("no request was answered by 500, or by what nobody expects", "select * from unnest(%(rude)s::text[]) as answer")
FLAT = Oracle("the processes that were never stopped do not grow", "select * from unnest(%(leaks)s::text[]) as process")
VACUUMED = Oracle("tables keep their size, and are vacuumed", "select * from unnest(%(bloat)s::text[]) as found")
ORACLES = (*LAP_ORACLES, POLITE, FLAT, VACUUMED)


def play(stage: Stage) -> Facts:
    crew = Crew.begin(stage)
    watch = Watch(stage.dsn, stage.folder / "samples.jsonl", crew.by_name, crew.lasting, min(SAMPLE_S, stage.minutes))
    client = Client(*crew.fronts, heard=watch.clients.heard)
    stage.clients.append(client)
    seconds = stage.minutes * MINUTE_S
    laps = max(LEAST_LAPS, round(seconds / LAP_S))
    facts: dict[str, Any] = {}
    before_ms: int | None = None
    accepted = listened = resumed = 0
    with in_background(watch.go_on):
        for number in range(1, laps + 1):
            lap = Lap(stage.dsn, client, crew.fronts, watch.clients, stage.seed + number, accepted)
            facts, clean = run_lap(stage, crew, lap, watch, watch.began + seconds * number / laps, before_ms)
            accepted, listened, resumed = lap.count, listened + lap.events, resumed + lap.resumed
            print(
                f"lap {number} of {laps}, {watch.now_s / 60:.1f} min: {len(lap.goals)} runs, {'clean' if clean else 'NOT CLEAN'}",
                flush=True,
            )
            if not clean:
                break
            before_ms = stage.value(NOW_MS)
    return facts | conclude(stage, crew, watch, [f"{accepted} runs, {listened} events heard, {resumed} streams resumed"])


def run_lap(stage: Stage, crew: "Crew", lap: Lap, watch: Watch, end: float, before_ms: int | None) -> tuple[dict[str, Any], bool]:
    """Load and trouble until its end, then rest, then questions; what the oracles must know, and whether they hold."""

    def delete(over: threading.Event) -> None:
        if before_ms is not None:
            delete_before(stage, before_ms)

    with in_background(*lap.loops):
        with in_background(*[lap.start_runs] * STARTERS, delete):
            make_trouble(stage, crew, lap, watch, end)
        stage.wait(lap.count_once, len(lap.goals), "runs have ended")
    stage.settle()
    watch.clients.rests()
    with psycopg.connect(connection_string(stage.dsn), autocommit=True) as conn:
        lost = lap.told.missing(conn)
        facts = {**lap.facts(), "lost": sorted(map(str, lost.runs | lost.replies | lost.steps)), "disorder": lap.disorder[:5]}
        verdicts: Sequence[Verdict] = ()
        for _ in range(ASKED_TIMES):
            verdicts = ask(conn, LAP_ORACLES, facts)
            if all(verdict.holds for verdict in verdicts):
                return facts, True
            time.sleep(ASKED_AGAIN_S)
    return facts, False


def conclude(stage: Stage, crew: "Crew", watch: Watch, counts: Sequence[str]) -> dict[str, Any]:
    statuses = watch.clients.statuses
    found = findings(watch, stage.minutes * MINUTE_S)
    happened = ", ".join(f"{count} x {what}" for what, count in sorted(Counter(what for _, what in crew.happened).items()))
    answers = ", ".join(f"{status}: {count}" for status, count in sorted(statuses.items()))
    stage.notes += [*counts, f"trouble: {happened}", f"answers: {answers}", *crew.deleted, *found.lines]
    if stage.plot is not None:
        stage.plot.parent.mkdir(parents=True, exist_ok=True)
        stage.plot.write_text(draw(watch.samples, watch.lasting, crew.happened))
    rude = [f"{status} ({count} times)" for status, count in sorted(statuses.items()) if status >= 500 and status != 503]
    return {"rude": rude, "leaks": list(found.leaks), "bloat": list(found.bloat)}


# Who is there, and what happens to them --------------------------------------------------------------------------------------------


@dataclass
class Crew:
    """The processes by name. lasting: those that are never stopped. happened: (seconds since the beginning, what)."""

    pair: Pair
    by_name: dict[str, ServiceProcess]
    fronts: tuple[str, ...]
    lasting: Sequence[str]
    dice: random.Random
    happened: list[tuple[float, str]] = field(default_factory=list[tuple[float, str]])
    deleted: list[str] = field(default_factory=list[str])
    bag: list[str] = field(default_factory=list[str])

    @classmethod
    def begin(cls, stage: Stage) -> "Crew":
        if stage.pair is None:
            raise SoakFailed("this soak wants a primary and a standby")
        by_name = {
            "api that stays": stage.begin("api", PORT=a_port()),
            "api": stage.begin("api", PORT=a_port()),
            "worker that stays": stage.begin("worker", SCHEDULED_OPS="true"),
            "worker 1": stage.begin("worker", SCHEDULED_OPS="true"),
            "worker 2": stage.begin("worker", SCHEDULED_OPS="true"),
        }
        fronts = (by_name["api that stays"].url(), by_name["api"].url())
        return cls(stage.pair, by_name, fronts, ("api that stays", "worker that stays"), stage.dice)

    @property
    def workers(self) -> list[ServiceProcess]:
        return [process for name, process in self.by_name.items() if name.startswith("worker")]

    def draw(self) -> str:
        if not self.bag:
            self.bag = self.dice.sample(TROUBLE, len(TROUBLE))
        return self.bag.pop()

    def wait_until_ready(self, stage: Stage) -> None:
        """A process that finds no database as it starts ends, so there is no trouble before all have started."""
        stage.wait_for_workers(self.workers)
        stage.wait(lambda: sum(map(answers, self.fronts)), len(self.fronts), "front doors answer")

    def suffer(self, what: str) -> None:
        worker = self.by_name[self.dice.choice(["worker 1", "worker 2"])]
        api = self.by_name["api"]
        match what:
            case "kill worker":
                worker.kill()
                worker.start()
            case "restart worker":
                worker.stop()
                worker.start()
            case "freeze worker":
                os.kill(worker.pid, signal.SIGSTOP)
                time.sleep(self.dice.uniform(*FROZEN_S))
                os.kill(worker.pid, signal.SIGCONT)
            case "kill api":
                api.kill()
                api.start()
            case "restart api":
                api.stop()
                api.start()
            case "crash database":
                self.pair.crash_primary()
            case _:
                self.pair.kill_primary()
                self.pair.promote()
                self.pair.rebuild()


def make_trouble(stage: Stage, crew: Crew, lap: Lap, watch: Watch, end: float) -> None:
    hurry = min(1.0, stage.minutes * MINUTE_S / UNHURRIED_S)
    while True:
        until = min(end, time.monotonic() + stage.dice.uniform(*PAUSE_S) * hurry)
        while (left_s := until - time.monotonic()) > 0:
            time.sleep(min(1.0, left_s))
            stage.require_alive()
            share = watch.now_s / (stage.minutes * MINUTE_S)
            stage.bar.show(share, f"{lap.count} accepted, {len(crew.happened)} troubles")
        if time.monotonic() >= end:
            return
        what = crew.draw()
        crew.wait_until_ready(stage)
        crew.happened.append((watch.now_s, what))
        crew.suffer(what)


def a_port() -> str:
    """Of the front door's own, so that it can be started again where its clients look for it: below those that are given by chance."""
    while True:
        port = random.randrange(15_000, 30_000)
        with socket.socket() as tried, suppress(OSError):
            tried.bind(("127.0.0.1", port))
            return str(port)


def answers(front: str) -> bool:
    try:
        return httpx.get(f"{front}/healthz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


# What is over goes -----------------------------------------------------------------------------------------------------------------


def delete_before(stage: Stage, before_ms: int) -> None:
    """Delete what had ended by then, over failovers too, until nothing of it is left."""
    while True:
        with suppress(psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction):
            asyncio.run(delete_once(stage.dsn, before_ms))
            if stage.value(LEFT, before_ms) == 0:
                return
        time.sleep(1.0)


async def delete_once(dsn: str, before_ms: int) -> Pruned:
    done, after = Pruned(), None
    async with await psycopg.AsyncConnection.connect(connection_string(dsn), autocommit=True) as conn:
        while True:
            async with conn.transaction():
                await conn.execute(A_DAY_LATER)
                batch, after = await prune(conn, before_ms, limit=retention.BATCH, after=after)
                await conn.execute(TODAY)
            done += batch
            if after is None:
                return done

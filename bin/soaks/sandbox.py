"""Sandbox tasks: many runs with one task each, all at the same time; and one run with many tasks, whose workers are killed.

The mock sandbox runs nothing, so tasks fail to boot twice: with the waits between the attempts each lasts about three seconds.
"""

import time
from typing import Any, LiteralString

from bin.soaks.oracles import EXACT, HEARD, SANDBOX, TIDY, Facts, Oracle
from bin.soaks.stage import OPEN_GATES, Stage, in_turn

AT_WORK: LiteralString = "select count(*) from dbos.workflow_status where name = 'ExecuteTask' and owner_xid is not null"
DONE: LiteralString = "select count(*) from dbos.workflow_status where name = 'ExecuteTask' and status = 'SUCCESS'"
GATES: LiteralString = "select count(*) from app.human_gates where resolved_at is null"

SIDE_BY_SIDE = Oracle(
    "half of the tasks or more were at work at the same moment",
    "select %(most)s::int, %(tasks)s::int where %(most)s::int * 2 < %(tasks)s::int",
)
PARALLEL_ORACLES = (*TIDY, *EXACT, *SANDBOX, *HEARD, SIDE_BY_SIDE)
FANOUT_ORACLES = (*TIDY, *EXACT, *SANDBOX, *HEARD)

FLAKY = "FLAKY_INFRA_FAIL"
FANOUT_WORKERS = 2
MOST_KILLS = 4


def build(**parts: Any) -> dict[str, Any]:
    return {"testHooks": {"replay": {"build": {"test_command": FLAKY, **parts}}}}


def room(runs: int, tasks: int) -> dict[str, str]:
    """The settings of workers that hold so many at once."""
    return {
        "INTENT_QUEUE_WORKER_CONCURRENCY": str(runs),
        "INTENT_QUEUE_CONCURRENCY": str(max(runs, 50)),
        "SBX_QUEUE_WORKER_CONCURRENCY": str(tasks),
        "SBX_QUEUE_CONCURRENCY": str(max(tasks, 150)),
    }


def play_parallel(stage: Stage) -> Facts:
    """n runs with a task each, approved together."""
    client = stage.client()
    stage.begin("worker", **room(stage.n, stage.n))
    wids = in_turn([lambda n=number: client.start(f"sandbox {n}", f"soak-{n % 8}", build()) for number in range(stage.n)])
    stage.wait(lambda: len(stage.rows(OPEN_GATES)), stage.n, "gates are open")
    began = time.monotonic()
    answers = in_turn([lambda w=wid, g=gate: client.reply(w, g, "yes") for wid, gate in stage.rows(OPEN_GATES)])
    most = 0

    def look() -> int:
        nonlocal most
        most = max(most, stage.value(AT_WORK))
        return stage.value(DONE)

    stage.wait(look, stage.n, "tasks are done")
    stage.notes.append(f"{stage.n} tasks in {time.monotonic() - began:.1f} s, up to {most} at the same time")
    stage.settle()
    taken = sum(answer.status_code == 200 for answer in answers)
    return {"runs": len(wids), "accepted": wids, "tasks": stage.n, "answers": taken, "most": most}


def play_fanout(stage: Stage) -> Facts:
    """One run with n tasks on two workers, which are killed while tasks are at work."""
    client = stage.client()
    workers = [stage.begin("worker", **room(5, max(1, stage.n // 4))) for _ in range(FANOUT_WORKERS)]
    wid = client.start("fanout", "soak-fanout", build(tests=[f"test-{number}" for number in range(stage.n)]))
    stage.wait(lambda: len(stage.rows(OPEN_GATES)), 1, "gates are open")
    taken = sum(client.reply(wid, gate, "yes").status_code == 200 for _, gate in stage.rows(OPEN_GATES))
    kills = hit = 0

    def look() -> int:
        nonlocal kills, hit
        if kills < MOST_KILLS and (at_work := stage.value(AT_WORK)):
            time.sleep(stage.dice.uniform(0.3, 1.2))
            victim = stage.dice.choice(workers)
            victim.kill()
            victim.start()
            kills, hit = kills + 1, hit + at_work
        return stage.value(DONE)

    stage.wait(look, stage.n, "tasks are done")
    stage.settle()
    stage.notes.append(f"{stage.n} tasks; workers killed {kills} times, when {hit} tasks were at work")
    return {"runs": 1, "accepted": [wid], "tasks": stage.n, "answers": taken}

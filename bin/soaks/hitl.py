"""Gates: very many that wait and are then answered together; and a burst of answers that repeat and contradict each other."""

import time
from collections import Counter
from typing import LiteralString

from bin.soaks.oracles import EXACT, HEARD, SANDBOX, TIDY, WRONG_END, Facts, Oracle
from bin.soaks.stage import OPEN_GATES, Client, Stage, in_turn

OPEN: LiteralString = """
    select count(*) from app.human_gates g join app.runs r on r.id = g.run_id and r.status = 'waiting_input'
      join dbos.workflow_events p on p.workflow_uuid = r.workflow_id and p.key = 'ui:' || g.gate_key
     where g.resolved_at is null
"""
#: Counts transactions that wrote something, this one too.
WRITES: LiteralString = "select pg_current_xact_id()::text::bigint"
SUCCEEDED: LiteralString = "select count(*) from app.runs where status = 'succeeded'"
ENDED: LiteralString = "select count(*) from app.runs where status in ('succeeded', 'retries_exceeded')"
IDLE_S = 3.0

HEARD_COUNTS = Oracle(
    "every run ended as the answer says that it heard",
    """
    select r.workflow_id, r.status, n.message from app.runs r
      join dbos.notifications n on n.destination_uuid = r.workflow_id and n.consumed
     where (r.status = 'succeeded') <> (n.message::jsonb ->> 'choice' = 'yes')
    """,
)
CODES = Oracle("every answer was taken, repeated or refused as a conflict", "select * from unnest(%(odd)s::text[]) as code")
LOAD_ORACLES = (*TIDY, *EXACT, *SANDBOX, *HEARD, HEARD_COUNTS)
BURST_ORACLES = (*TIDY, *(oracle for oracle in EXACT if oracle is not WRONG_END), *HEARD, HEARD_COUNTS, CODES)


def waiting_runs(stage: Stage, client: Client) -> tuple[list[str], list[tuple[str, str]]]:
    """n runs that wait at their gates: their workflow ids; and again, each with its gate."""
    wids = in_turn([lambda n=number: client.start(f"hitl {n}", f"soak-{n % 8}") for number in range(stage.n)])
    stage.wait(lambda: stage.value(OPEN), stage.n, "runs wait")
    return wids, [(wid, gate) for wid, gate in stage.rows(OPEN_GATES)]


def play_load(stage: Stage) -> Facts:
    """n runs wait; how busy is the database meanwhile? Then all are answered."""
    client = stage.client()
    stage.begin("worker")
    began = time.monotonic()
    wids, gates = waiting_runs(stage, client)
    waiting = time.monotonic()
    before = stage.value(WRITES)
    time.sleep(IDLE_S)
    idle = (stage.value(WRITES) - before) / IDLE_S
    answered = time.monotonic()
    answers = in_turn([lambda w=wid, g=gate: client.reply(w, g, "yes") for wid, gate in gates])
    stage.wait(lambda: stage.value(SUCCEEDED), stage.n, "runs succeeded")
    stage.notes.append(
        f"{stage.n} runs wait after {waiting - began:.1f} s; {idle:.1f} writing transactions/s while they do; "
        f"answered and done in {time.monotonic() - answered:.1f} s"
    )
    stage.settle()
    taken = sum(answer.status_code == 200 for answer in answers)
    return {"runs": stage.n, "accepted": wids, "tasks": stage.n, "answers": taken}


def play_burst(stage: Stage) -> Facts:
    """Each of n gates gets seven answers in any order: one thing three times, its contrary under the same key, another key twice."""
    client = stage.client()
    stage.begin("worker")
    wids, gates = waiting_runs(stage, client)
    burst = [(wid, gate, *answer) for wid, gate in gates for answer in some_answers(stage)]
    stage.dice.shuffle(burst)
    answers = in_turn([lambda one=one: client.reply(*one) for one in burst])
    stage.wait(lambda: stage.value(ENDED), stage.n, "runs have ended")
    stage.settle()
    codes = Counter(answer.status_code for answer in answers)
    fresh = sum(answer.status_code == 200 and not answer.json()["isReplay"] for answer in answers)
    stage.notes.append(
        f"{len(burst)} answers to {stage.n} gates: {fresh} taken, {codes[200] - fresh} repeated, {codes[409]} refused as conflicts"
    )
    odd = [f"{code} ({count} times)" for code, count in sorted(codes.items()) if code not in (200, 409)]
    return {"runs": stage.n, "accepted": wids, "answers": fresh, "odd": odd}


def some_answers(stage: Stage) -> list[tuple[str, str]]:
    """Choice and key of each."""
    choice, contrary = stage.dice.sample(["yes", "no"], 2)
    return [(choice, "first")] * 3 + [(contrary, "first")] * 2 + [(choice, "second")] * 2

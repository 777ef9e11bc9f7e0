"""What a database must say after a soak, as SQL.

An oracle is a sentence and a query for what contradicts it: no row, and it holds. Queries may use what the soak knows:

    %(runs)s       how many runs were accepted          %(accepted)s    their workflow ids
    %(tasks)s      how many sandbox tasks they have     %(answers)s     how many answers were taken as new

The ticks of the schedule (steps.timers) have rows among the runs, and are none.

Those marked `always` are asked all through the soak as well: at no moment may there be a row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, LiteralString

import psycopg

SHOWN = 3
Facts = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Oracle:
    """`claim`: what is true when the query finds nothing."""

    claim: str
    query: LiteralString
    always: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an oracle said. found: rows that contradict it."""

    oracle: Oracle
    found: Sequence[tuple[Any, ...]] = field(default=())

    @property
    def holds(self) -> bool:
        return not self.found

    @property
    def line(self) -> str:
        return f"{'PASS' if self.holds else 'FAIL'}  {self.oracle.claim}" + (f": {shown(self.found)}" if self.found else "")


def ask(conn: psycopg.Connection[Any], oracles: Sequence[Oracle], facts: Facts) -> list[Verdict]:
    return [Verdict(oracle, conn.execute(oracle.query, facts).fetchall()) for oracle in oracles]


def shown(rows: Sequence[tuple[Any, ...]]) -> str:
    return "; ".join(" ".join("-" if value is None else str(value) for value in row)[:200] for row in rows[:SHOWN])


# -- of any soak ------------------------------------------------------------------------------------------------------------------

#: Asked when all has had time to end and the workers have nothing to do: what is still queued then was forgotten.
STRANDED = Oracle(
    "no workflow is stranded in a queue while the workers are idle",
    "select workflow_uuid, status, queue_name from dbos.workflow_status where status in ('ENQUEUED', 'DELAYED') order by 1",
)
UNENDED = Oracle(
    "every accepted run has ended",
    """
    select a.id, r.status from unnest(%(accepted)s::text[]) as a (id) left join app.runs r on r.workflow_id = a.id
     where r.status is null or r.status not in ('succeeded', 'failed', 'canceled', 'retries_exceeded') order by 1
    """,
)
HALFWAY = Oracle(
    "no workflow is half-way, of runs or of their tasks",
    "select workflow_uuid, name, waits::text from dbos.workflow_status where status = 'PENDING' order by 1",
)
UNASKED = Oracle(
    "there are as many runs and workflows as were accepted",
    """
    select * from (select (select count(*) from app.runs where intent_id <> 'scheduled-ops') as runs,
                          (select count(*) from dbos.workflow_status where class_name = 'IntentWorkflow') as workflows) found
     where runs <> %(runs)s or workflows <> %(runs)s
    """,
)
LEFTOVERS = Oracle(
    "no wake-up, waiter or owner is left over",
    """
    select 'wake-up', workflow_uuid, token from engine.wake
    union all select 'waiter', workflow_uuid, token from engine.wait
    union all select 'owned', workflow_uuid, status from dbos.workflow_status where owner_xid is not null
    """,
)
GAPS = Oracle(
    "every journal is numbered from 1 without gaps, and no call is in it twice",
    """
    select workflow_uuid, min(function_id), max(function_id), count(*), count(distinct call_path) from dbos.operation_outputs
     group by workflow_uuid having min(function_id) <> 1 or max(function_id) <> count(*) or count(distinct call_path) <> count(*)
    """,
)
DIVERGED = Oracle(
    "a run and its workflow never disagree about the end",
    """
    select r.workflow_id, r.status, s.status from app.runs r join dbos.workflow_status s on s.workflow_uuid = r.workflow_id
     where r.intent_id <> 'scheduled-ops'
       and ((r.status = 'succeeded') <> (s.status = 'SUCCESS')
            or (r.status = 'retries_exceeded') <> (s.status in ('ERROR', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED')))
    """,
    always=True,
)
TWICE = Oracle(
    "no side effect was counted twice",
    "select run_id, step_id, seen_count from app.mock_receipts where seen_count > 1",
    always=True,
)

TIDY = (STRANDED, UNENDED, HALFWAY, UNASKED, LEFTOVERS, GAPS, DIVERGED, TWICE)

# -- of runs ----------------------------------------------------------------------------------------------------------------------

#: A run whose goal begins with "refuse" is answered by a no, all others by a yes. One that begins with "doomed" has a task that nobody can
#: do.
WRONG_END = Oracle(
    "every run ended as it was answered",
    """
    select r.workflow_id, i.goal, r.status, r.error from app.runs r join app.intents i on i.id = r.intent_id
     where r.status <> case when i.goal ~ '^(refuse|doomed)' then 'retries_exceeded' else 'succeeded' end order by 1
    """,
)
STEPS = Oracle(
    "every run that succeeded has its four steps, once each",
    """
    select r.workflow_id, count(s.step_id) from app.runs r left join app.run_steps s on s.run_id = r.id
     where r.status = 'succeeded' and r.intent_id <> 'scheduled-ops' group by r.workflow_id
    having count(s.step_id) <> 4 or count(distinct s.step_id) <> 4 or max(s.attempt) <> 1
    """,
)
RECEIPTS = Oracle(
    "every run that succeeded has one receipt, and no other run has any",
    """
    select r.workflow_id, r.status, count(m.receipt_key) from app.runs r left join app.mock_receipts m on m.run_id = r.id
     where r.intent_id <> 'scheduled-ops'
     group by r.workflow_id, r.status having count(m.receipt_key) <> case when r.status = 'succeeded' then 1 else 0 end
    """,
)
PATCHES = Oracle(
    "patches of a run that succeeded are applied, those of any other are taken back",
    """
    select p.run_id, p.target_path, r.status from app.patch_history p join app.runs r on r.id = p.run_id
     where (r.status = 'succeeded') <> (p.applied_at is not null and p.rolled_back_at is null)
    """,
)
EXACT = (WRONG_END, STEPS, RECEIPTS, PATCHES)

# -- of sandbox tasks -------------------------------------------------------------------------------------------------------------

TASKS = Oracle(
    "there are as many sandbox tasks as were asked for, and all that can be done succeeded",
    """
    select * from (select count(*) as tasks, count(*) filter (where status = 'SUCCESS') as succeeded
                     from dbos.workflow_status where name = 'ExecuteTask') found,
                  (select count(*) as doomed from app.intents where goal like 'doomed%%') them
     where tasks <> %(tasks)s or succeeded <> %(tasks)s - doomed
    """,
)
ATTEMPTS = Oracle(
    "every task that can be done has one attempt that went well, and it is the last",
    """
    select task_key, count(*) filter (where err_code = 'NONE') as well, max(attempt) as last from app.sbx_runs group by task_key
    having count(*) filter (where err_code = 'NONE') <> 1 or max(attempt) filter (where err_code = 'NONE') <> max(attempt)
    union all
    select 'all', count(distinct task_key), null from app.sbx_runs
    having count(distinct task_key) <> %(tasks)s - (select count(*) from app.intents where goal like 'doomed%%')
    """,
)
SANDBOX = (TASKS, ATTEMPTS)

# -- of gates ---------------------------------------------------------------------------------------------------------------------

LEDGER = Oracle(
    "the ledger has each answer once, and as many as were taken as new",
    """
    select 'again', workflow_id, gate_key, dedupe_key, count(*) from app.human_interactions
     group by workflow_id, gate_key, topic, dedupe_key having count(*) > 1
    union all
    select 'all', null, null, null, count(*) from app.human_interactions having count(*) <> %(answers)s
    """,
)
GATES = Oracle(
    "every run has one gate, which was asked once, decided once and told once",
    """
    select r.workflow_id, count(g.gate_key), min(e.prompts), min(e.results), min(e.decisions)
      from app.runs r
      left join app.human_gates g on g.run_id = r.id and g.resolved_at is not null
      left join lateral (
           select count(*) filter (where h.key ~ '^ui:[^:]*$') as prompts, count(*) filter (where h.key ~ ':result$') as results,
                  count(*) filter (where h.key ~ '^decision:') as decisions
             from dbos.workflow_events_history h where h.workflow_uuid = r.workflow_id) e on true
     group by r.workflow_id
    having not (count(g.gate_key) = 1 and min(e.prompts) = 1 and min(e.results) = 1 and min(e.decisions) = 1)
    """,
)
MESSAGES = Oracle(
    "every run heard one answer",
    """
    select r.workflow_id, count(n.seq) from app.runs r
      left join dbos.notifications n on n.destination_uuid = r.workflow_id and n.consumed
     group by r.workflow_id having count(n.seq) <> 1
    """,
)
HEARD = (LEDGER, GATES, MESSAGES)

# -- of the crash demonstration ---------------------------------------------------------------------------------------------------

MARKS = Oracle(
    "every crash demonstration ended as SUCCESS with both marks, once each",
    """
    select s.workflow_uuid, s.status, array_agg(m.step order by m.step) from dbos.workflow_status s
      left join app.marks m on m.run_id = s.workflow_uuid
     where s.name = %(name)s group by 1, 2 having s.status <> 'SUCCESS' or array_agg(m.step order by m.step) <> array['s1', 's2']
    union all
    select 'all', count(*)::text, null from dbos.workflow_status s where s.name = %(name)s having count(*) < %(rounds)s
    """,
)

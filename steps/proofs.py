"""Proof cards: what the rows say about a run, one claim a card.

A card is read off a row and says which; it judges nothing. Its id is made of the row's key, and its time is the row's, so the same row
is the same card whenever it is asked for.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, LiteralString

from psycopg import AsyncConnection
from psycopg.rows import class_row

from steps.canonical import canonical_json
from steps.contracts.base import JsonObject
from steps.contracts.proof import ProofCard, ProofSource
from steps.repro import snapshot

RUN: LiteralString = """
    select r.id as run_id, r.workflow_id, r.status, r.error, r.intent_hash, r.recipe_id, r.recipe_v, r.recipe_hash, r.budget,
           r.queue_partition_key as partition,
           floor(extract(epoch from r.created_at) * 1000)::bigint as created_at_ms,
           floor(extract(epoch from r.updated_at) * 1000)::bigint as updated_at_ms,
           s.status as workflow_status, s.queue_name as queue, s.updated_at as workflow_updated_at_ms,
           s.application_version as version, s.recovery_attempts as attempts
      from app.runs r
      left join dbos.workflow_status s on s.workflow_uuid = r.workflow_id
     where r.workflow_id = %(id)s or r.id = %(id)s
     order by r.workflow_id = %(id)s desc
     limit 1
"""
STEPS: LiteralString = """
    select s.step_id, s.attempt, s.phase,
           floor(extract(epoch from coalesce(s.finished_at, s.started_at, r.created_at)) * 1000)::bigint as at_ms
      from app.run_steps s
      join app.runs r on r.id = s.run_id
     where s.run_id = %s
     order by s.step_id, s.attempt
"""
ARTIFACTS: LiteralString = """
    select a.step_id, a.task_key, a.idx, a.attempt, a.kind, a.uri, a.sha256,
           floor(extract(epoch from a.created_at) * 1000)::bigint as at_ms
      from app.artifacts a
     where a.run_id = %s
     order by a.step_id, a.task_key, a.idx, a.attempt
"""
VERDICTS: LiteralString = """
    select e.check_id, e.pass as passed, e.reason, e.payload, floor(extract(epoch from e.created_at) * 1000)::bigint as at_ms
      from app.eval_results e
     where e.run_id = %s
     order by e.check_id collate "C"
"""
#: Both ledgers must count each thing once; how many there are, how many would break that, and when the last came.
ONCE: LiteralString = """
    select (select count(*) from app.human_interactions i where i.workflow_id = r.workflow_id) as answers,
           (select count(*) from (select 1 from app.human_interactions i where i.workflow_id = r.workflow_id
                                   group by i.gate_key, i.topic, i.dedupe_key having count(*) > 1) twice) as answers_twice,
           (select floor(extract(epoch from max(i.created_at)) * 1000)::bigint
              from app.human_interactions i where i.workflow_id = r.workflow_id) as answered_at_ms,
           (select count(*) from app.mock_receipts m where m.run_id = r.id) as effects,
           (select count(*) from app.mock_receipts m where m.run_id = r.id and m.seen_count > 1) as effects_twice,
           (select floor(extract(epoch from max(m.updated_at)) * 1000)::bigint
              from app.mock_receipts m where m.run_id = r.id) as effected_at_ms
      from app.runs r
     where r.id = %s
"""


@dataclass(frozen=True, slots=True)
class Run:
    run_id: str
    workflow_id: str
    status: str
    error: str | None
    intent_hash: str | None
    recipe_id: str | None
    recipe_v: str | None
    recipe_hash: str | None
    budget: JsonObject | None
    partition: str | None
    created_at_ms: int
    updated_at_ms: int
    workflow_status: str | None
    queue: str | None
    workflow_updated_at_ms: int | None
    version: str | None
    attempts: int | None

    @property
    def address(self) -> str:
        return f"/api/runs/{self.workflow_id}"

    def card(
        self,
        *key: object,
        claim: str,
        evidence: str,
        at_ms: int,
        source: ProofSource = "sql",
        provenance: str,
        ref: str | None,
    ) -> ProofCard:
        """A card about the row that the key names. ref: where to look for oneself."""
        return ProofCard(
            id="-".join(["proof", self.workflow_id, *map(str, key)]),
            claim=claim,
            evidence=evidence,
            source=source,
            ts=at_ms,
            sourceTs=at_ms,
            provenance=provenance,
            rawRef=ref,
        )


@dataclass(frozen=True, slots=True)
class Step:
    step_id: str
    attempt: int
    phase: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Artifact:
    step_id: str
    task_key: str
    idx: int
    attempt: int
    kind: str
    uri: str | None
    sha256: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Verdict:
    check_id: str
    passed: bool
    reason: str
    payload: JsonObject | None
    at_ms: int


@dataclass(frozen=True, slots=True)
class Once:
    answers: int
    answers_twice: int
    answered_at_ms: int | None
    effects: int
    effects_twice: int
    effected_at_ms: int | None


async def proof_cards(conn: AsyncConnection[Any], id: str) -> list[ProofCard]:
    """The cards of the run with this workflow or run id, newest first; none for an unknown run."""
    async with snapshot(conn):
        async with conn.cursor(row_factory=class_row(Run)) as cursor:
            run = await (await cursor.execute(RUN, {"id": id})).fetchone()
        if run is None:
            return []
        async with conn.cursor(row_factory=class_row(Step)) as cursor:
            steps = await (await cursor.execute(STEPS, (run.run_id,))).fetchall()
        async with conn.cursor(row_factory=class_row(Artifact)) as cursor:
            artifacts = await (await cursor.execute(ARTIFACTS, (run.run_id,))).fetchall()
        verdicts = await verdicts_of(conn, run.run_id)
        async with conn.cursor(row_factory=class_row(Once)) as cursor:
            once = await (await cursor.execute(ONCE, (run.run_id,))).fetchone()
    cards = [*_of_the_run(run), *_of_the_engine(run), *(_of_step(run, step) for step in steps)]
    cards += [_of_artifact(run, artifact) for artifact in artifacts]
    cards += [_of_verdict(run, verdict) for verdict in verdicts]
    if once is not None:
        cards += _of_ledgers(run, once)
    return sorted(cards, key=lambda card: (-card.ts, card.id))


async def verdicts_of(conn: AsyncConnection[Any], run_id: str) -> list[Verdict]:
    """What the checks of the run's recipe said, by check id; none for a run without recipe, or one that is not over."""
    async with conn.cursor(row_factory=class_row(Verdict)) as cursor:
        return await (await cursor.execute(VERDICTS, (run_id,))).fetchall()


def _of_the_run(run: Run) -> Iterator[ProofCard]:
    recipe = f"{run.recipe_id}@{run.recipe_v} {run.recipe_hash}" if run.recipe_id else "none"
    yield run.card(
        "identity",
        claim="the run is named by the hash of its intent" if run.intent_hash else "the run is named by its intent's id",
        evidence=f"workflowID={run.workflow_id} intentHash={run.intent_hash or 'none'} recipe={recipe}",
        at_ms=run.created_at_ms,
        provenance="app.runs",
        ref=run.address,
    )
    yield run.card(
        "status",
        claim=f"the run is {run.status}",
        evidence=f"status={run.status}" + (f" error={run.error}" if run.error else ""),
        at_ms=run.updated_at_ms,
        provenance="app.runs",
        ref=run.address,
    )
    yield run.card(
        "budget",
        claim="the run has a budget" if run.budget else "the run has no budget",
        evidence=canonical_json(run.budget) if run.budget else "budget is null",
        at_ms=run.created_at_ms,
        provenance="app.runs.budget",
        ref=run.address,
    )
    yield run.card(
        "partition",
        claim="the run takes the share of its partition" if run.partition else "the run is of no partition",
        evidence=f"queuePartitionKey={run.partition or 'none'} queue={run.queue or 'none'}",
        at_ms=run.created_at_ms,
        provenance="app.runs.queue_partition_key",
        ref=run.address,
    )


def _of_the_engine(run: Run) -> Iterator[ProofCard]:
    if run.workflow_status is None or run.workflow_updated_at_ms is None:
        return
    yield run.card(
        "workflow",
        claim=f"the engine has the workflow as {run.workflow_status}",
        evidence=f"status={run.workflow_status} version={run.version or 'none'} attempts={run.attempts or 0}",
        at_ms=run.workflow_updated_at_ms,
        source="dbos",
        provenance="dbos.workflow_status",
        ref=f"/api/ops/wf/{run.workflow_id}",
    )


def _of_step(run: Run, step: Step) -> ProofCard:
    return run.card(
        "step",
        step.step_id,
        step.attempt,
        claim=f"{step.step_id} was recorded",
        evidence=f"attempt={step.attempt} phase={step.phase}",
        at_ms=step.at_ms,
        provenance="app.run_steps",
        ref=f"{run.address}/steps/{step.step_id}",
    )


def _of_artifact(run: Run, artifact: Artifact) -> ProofCard:
    return run.card(
        "art",
        artifact.step_id,
        artifact.task_key,
        artifact.idx,
        artifact.attempt,
        claim=f"{artifact.step_id} left an artifact of kind {artifact.kind}",
        evidence=f"sha256={artifact.sha256}",
        at_ms=artifact.at_ms,
        source="artifact",
        provenance="app.artifacts",
        ref=artifact.uri,
    )


def _of_verdict(run: Run, verdict: Verdict) -> ProofCard:
    return run.card(
        "eval",
        verdict.check_id,
        claim=f"check {verdict.check_id} {'passes' if verdict.passed else 'fails'}",
        evidence=verdict.reason,
        at_ms=verdict.at_ms,
        provenance="app.eval_results",
        ref=f"{run.address}/eval",
    )


def _of_ledgers(run: Run, once: Once) -> Iterator[ProofCard]:
    yield run.card(
        "answers",
        claim="each answer to a gate has one row",
        evidence=f"answers={once.answers} of which twice={once.answers_twice}",
        at_ms=once.answered_at_ms or run.created_at_ms,
        provenance="app.human_interactions",
        ref=f"{run.address}/interactions",
    )
    yield run.card(
        "effects",
        claim="each side effect was seen once",
        evidence=f"effects={once.effects} of which twice={once.effects_twice}",
        at_ms=once.effected_at_ms or run.created_at_ms,
        provenance="app.mock_receipts",
        ref=f"{run.address}/repro",
    )

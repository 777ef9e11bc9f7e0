"""A recipe tried out on its sample forms: each is run really, twice, and must come out green and the same.

A fixture's run is a run like any other (an intent, a row in app.runs, RunIntent on intentQ), but its purpose is 'fixture': it answers its
own gates and takes its patches back. Green means that both runs succeeded, that every check of the recipe passed, and that both left the
same things behind. What differs by nature from run to run (ids, addresses, times) does not count; everything else does.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, LiteralString, TypeAlias

from engine import Rider, TerminalError, WorkflowFailed, ride, start, step, workflow
from steps import identity, recipes
from steps.canonical import canonical_json, sha256_json
from steps.contracts.base import JsonObject
from steps.contracts.intent import RecipeRef
from steps.contracts.recipe import FixtureOutcome, FixtureRound
from steps.errors import ProductError
from steps.policy import BATCH_PRIORITY, PARENT_QUEUE
from steps.ports import patient, ports
from steps.promotion import WORKFLOW_CLASS, partition_of
from steps.run import run_intent

ROUNDS = (1, 2)

#: An intent and its run, unless they are there. The intent has no hash of its own, which would be that of an intent that people run.
FIXTURE_RUN = Rider("""
    with given as (
        select n.* from json_to_recordset(%s) as n (run_id text, workflow_id text, goal text, intent jsonb, form jsonb, recipe_id text,
                                                    recipe_v text, recipe_hash text, partition text)),
    intent as (
        insert into app.intents (id, goal, payload, json, form, recipe_id, recipe_v, recipe_hash)
        select g.workflow_id, g.goal, g.intent, g.intent, g.form, g.recipe_id, g.recipe_v, g.recipe_hash from given g
            on conflict do nothing)
    insert into app.runs (id, intent_id, workflow_id, status, queue_partition_key, recipe_id, recipe_v, recipe_hash, purpose)
    select g.run_id, g.workflow_id, g.workflow_id, 'queued', g.partition, g.recipe_id, g.recipe_v, g.recipe_hash, 'fixture' from given g
        on conflict do nothing
""")


@dataclass(frozen=True, slots=True)
class FixtureRequest:
    """A fixture to run. recipe_hash: the version's content; attempt: of the version's promotion."""

    recipe_id: str
    v: str
    recipe_hash: str
    fixture_id: str
    attempt: int

    @property
    def id(self) -> str:
        """Of the workflow that carries it out."""
        return identity.fixture_workflow_id(self.recipe_id, self.v, self.fixture_id, self.attempt)

    def run_of(self, round: int) -> str:
        """The workflow id of a round's run."""
        return identity.fixture_run_id(self.recipe_id, self.v, self.recipe_hash, self.fixture_id, self.attempt, round)


@dataclass(frozen=True, slots=True)
class Sample:
    """What a fixture asks for, and the ids of the checks that judge it."""

    form: JsonObject
    intent: JsonObject
    checks: list[str]


@dataclass(frozen=True, slots=True)
class Examined:
    """What a run left. parts: a hash by step, and one of the verdicts under 'eval'."""

    checks: list[JsonObject]
    parts: dict[str, str]


@workflow(name="RecipeFixture", class_name=WORKFLOW_CLASS)
async def recipe_fixture(request: FixtureRequest) -> FixtureOutcome:
    """Run a fixture twice, the second time only if the first went well."""
    sample = await read_sample(request)
    rounds: list[FixtureRound] = []
    parts: list[dict[str, str]] = []
    for round in ROUNDS:
        done, reason, found = await run_round(request, sample, round)
        rounds.append(done)
        parts.append(found)
        if reason:
            return FixtureOutcome(request.fixture_id, False, f"fixture {request.fixture_id} {reason}", rounds)
    if places := differences(*parts):
        reason = f"fixture {request.fixture_id} is flaky: its two runs differ in {', '.join(places)}"
        return FixtureOutcome(request.fixture_id, False, reason, rounds)
    return FixtureOutcome(request.fixture_id, True, "", rounds)


async def run_round(request: FixtureRequest, sample: Sample, round: int) -> tuple[FixtureRound, str, dict[str, str]]:
    """Run the fixture once. The round, why it is not green (empty when it is), and the hashes of what it left."""
    id, partition = request.run_of(round), partition_of(request.recipe_id)
    row: JsonObject = {"run_id": identity.run_id(id), "workflow_id": id, "partition": partition}
    row |= {"goal": sample.intent["goal"], "intent": sample.intent, "form": sample.form}
    ride(FIXTURE_RUN, row | {"recipe_id": request.recipe_id, "recipe_v": request.v, "recipe_hash": request.recipe_hash})
    run = await start(run_intent, id, id=id, queue=PARENT_QUEUE, partition=partition, priority=BATCH_PRIORITY)
    try:
        await run.result()
    except WorkflowFailed as failure:
        status = "CANCELLED" if failure.name == "Cancelled" else "ERROR"
        return FixtureRound(round, id, status, [], None), f"failed: {failure.message}", {}
    found = await examine(identity.run_id(id))
    done = FixtureRound(round, id, "SUCCESS", found.checks, sha256_json(found.parts))
    return done, why_red(sample.checks, found.checks), found.parts


def why_red(wanted: Iterable[str], checks: Iterable[JsonObject]) -> str:
    """The first check that did not pass; empty when all did."""
    verdicts = {check["checkId"]: check for check in checks}
    for id in wanted:
        if id not in verdicts:
            return f"is red: check {id} was not made"
        if not verdicts[id]["pass"]:
            return f"is red: check {id} says {verdicts[id]['reason']}"
    return ""


def differences(first: Mapping[str, str], second: Mapping[str, str]) -> list[str]:
    """Where two runs did not leave the same."""
    return sorted(part for part in first.keys() | second.keys() if first.get(part) != second.get(part))


@step(name="readSample")
@patient
async def read_sample(request: FixtureRequest) -> Sample:
    """The fixture as the version holds it. Fails for good when the version is another one by now."""
    async with ports().pool.connection() as conn:
        try:
            version = await recipes.get_version(conn, RecipeRef(id=request.recipe_id, v=request.v))
        except ProductError as error:
            raise TerminalError(error.message, name="RecipeNotFound") from error
    form = next((fixture.formData for fixture in version.spec.fixtures if fixture.id == request.fixture_id), None)
    if version.hash != request.recipe_hash or form is None:
        raise TerminalError(f"recipe version {version.id}@{version.v} has no such fixture", name="FixtureNotFound")
    try:
        intent = recipes.intent_of(version, form)
    except ProductError as error:
        raise TerminalError(error.message, name="InvalidFixture") from error
    return Sample(form, intent, [check.id for check in version.spec.eval])


# What a run left ------------------------------------------------------------------------------------------------------

#: names: everything that is called otherwise in every run.
LEFT: LiteralString = """
    select array(select json_build_object('checkId', e.check_id, 'pass', e.pass, 'reason', e.reason, 'payload', e.payload)
                   from app.eval_results e where e.run_id = r.id order by e.check_id) as checks,
           array(select json_build_object('step', s.step_id, 'output', s.output)
                   from app.run_steps s where s.run_id = r.id order by s.step_id, s.attempt) as steps,
           array(select json_build_object('step', a.step_id, 'kind', a.kind, 'uri', a.uri, 'inline', a.inline)
                   from app.artifacts a where a.run_id = r.id and a.step_id <> 'OPS'
                  order by a.step_id, a.task_key, a.idx, a.attempt) as artifacts,
           array[r.id, r.workflow_id]
           || array(select distinct x.task_key from app.sbx_runs x where x.run_id = r.id)
           || array(select g.gate_key from app.human_gates g where g.run_id = r.id) as names
      from app.runs r
     where r.id = %s
"""


@dataclass(frozen=True, slots=True)
class Left:
    """What the rows of a run hold."""

    checks: list[JsonObject]
    steps: list[JsonObject]
    artifacts: list[JsonObject]
    names: list[str]


@step(name="examineRun")
async def examine(run_id: str) -> Examined:
    """What a run left, in hashes that two equal runs share."""
    left = await ports().read(Left, LEFT, run_id)
    if left is None:
        raise TerminalError(f"run {run_id} has no row any more", name="RunNotFound")
    return Examined(left.checks, await asyncio.to_thread(hashes, left))


Json: TypeAlias = Any

#: Keys under which the product keeps what is another in every run, or only measures it.
VOLATILE = frozenset(
    {"taskKey", "uri", "artifactIndexRef", "rawRef", "sandboxRef", "metrics", "attributes", "bootMs", "durationMs", "startedAt"}
    | {"finishedAt", "createdAt", "updatedAt", "sessionId", "sessionID", "messageID"}
)
#: Kinds of artifacts that only measure.
MEASURES = frozenset({"timings"})


def hashes(left: Left) -> dict[str, str]:
    """A hash by step of its outputs and artifacts, and one of the verdicts under 'eval': equal for runs that left the same.

    Ids of the run (its own, those of its tasks and gates), addresses, times and measures don't count; everything else does.
    """
    names = sorted({name for name in left.names if name}, key=len, reverse=True)
    parts: dict[str, list[Json]] = {"eval": [normal(left.checks, names)]}
    for row in left.steps:
        parts.setdefault(row["step"], []).append(normal(row["output"], names))
    artifacts: dict[str, list[Json]] = {}
    for row in left.artifacts:
        if row["kind"] not in MEASURES:
            name = without_names(row["uri"] or "", names)
            artifacts.setdefault(row["step"], []).append([row["kind"], name, content(row, names)])
    for step_id, found in artifacts.items():  # their order hangs on the tasks' ids
        parts.setdefault(step_id, []).append(sorted(found, key=canonical_json))
    return {part: sha256_json(found) for part, found in parts.items()}


def content(artifact: JsonObject, names: list[str]) -> Json:
    """An artifact's content. An index counts by what it lists, since its hashes are also those of measures."""
    if artifact["kind"] != "artifact_index":
        return normal(artifact["inline"], names)
    listed = artifact["inline"]["json"]["items"]
    return sorted([item["kind"], without_names(item["uri"], names)] for item in listed)


def normal(value: Json, names: list[str]) -> Json:
    """The value without what is another in every run."""
    if isinstance(value, str):
        return without_names(value, names)
    if isinstance(value, list):
        return [normal(item, names) for item in value]
    if isinstance(value, dict):
        return {key: normal(item, names) for key, item in value.items() if key not in VOLATILE}
    return value


def without_names(text: str, names: list[str]) -> str:
    for name in names:
        text = text.replace(name, "*")
    return text

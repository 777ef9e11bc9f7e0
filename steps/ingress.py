"""The way in: a request becomes a run, once.

Everything that can be refused is refused before the first write; then the intent, its run and the engine's
workflow are one commit. The workflow's id is the hash of the intent, so a second request for the same thing
finds the first one's run: it is a replay when its particulars are the same, and a conflict when they are not.
"""

import asyncio
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.errors import ForeignKeyViolation
from psycopg.rows import class_row

from engine import DuplicateWork, Engine
from steps import identity, recipes, tracing
from steps.canonical import canonical_json
from steps.contracts.base import JsonObject
from steps.contracts.intent import Intent, RunRequest, RunStartRequest
from steps.errors import Conflict, NotFound, QueuePolicyError, RunIdentityConflict
from steps.policy import Placement, QueueRules, place
from steps.run_record import WORKFLOW_CLASS, WORKFLOW_NAME

Connection = AsyncConnection[Any]

DEFAULT_RECIPE = "compile-default"


@dataclass(frozen=True, slots=True)
class RunRow:
    """A row of app.runs."""

    id: str
    intent_id: str
    workflow_id: str
    status: str
    trace_id: str | None
    created_at: datetime
    updated_at: datetime
    last_step: str | None
    error: str | None
    retry_count: int
    next_action: str | None
    tenant_id: str | None
    queue_partition_key: str | None
    intent_hash: str | None
    recipe_id: str | None
    recipe_v: str | None
    recipe_hash: str | None
    budget: JsonObject | None


@dataclass(frozen=True, slots=True)
class StartedRun:
    run: RunRow
    is_replay: bool


@dataclass(frozen=True, slots=True)
class _Recipe:
    """The recipe half of a run's identity; all None for an intent that was posted on its own."""

    id: str | None
    v: str | None
    hash: str | None


@dataclass(frozen=True, slots=True)
class _Start:
    """A run that may begin: every rule is kept, nothing is written yet."""

    workflow_id: str
    intent: JsonObject
    intent_hash: str | None
    recipe: _Recipe
    options: RunRequest
    placement: Placement
    form: JsonObject | None = None

    @property
    def identity(self) -> JsonObject:
        """What a replay must agree on, by column of app.runs."""
        return {
            "id": identity.run_id(self.workflow_id),
            "intent_id": self.workflow_id,
            "intent_hash": self.intent_hash,
            "recipe_id": self.recipe.id,
            "recipe_v": self.recipe.v,
            "recipe_hash": self.recipe.hash,
            "trace_id": self.options.traceId,
            "tenant_id": self.options.tenantId,
            "queue_partition_key": self.options.queuePartitionKey,
            "budget": self.options.budget.document() if self.options.budget else None,
        }


async def start_run(engine: Engine, request: RunStartRequest, rules: QueueRules, *, version: str | None = None) -> StartedRun:
    """The run that the request asks for, new or as it already is.

    version: the application version whose workers shall run it; None for any. Raises InvalidInput,
    QueuePolicyError, NotFound, Conflict or RunIdentityConflict, and then nothing is written.
    """
    async with engine.pool.connection() as conn:
        started = await start_run_on(engine, conn, request, rules, version=version)
    if not started.is_replay:
        engine.hint()
    return started


async def start_run_on(
    engine: Engine, conn: Connection, request: RunStartRequest, rules: QueueRules, *, version: str | None = None
) -> StartedRun:
    """The same as a part of the caller's transaction, if there is one."""
    recipe = await recipes.get_version(conn, request.recipeRef)
    start = await asyncio.to_thread(_compiled, recipe, request, rules)  # a stranger's form and schema may take seconds
    return await _begin(engine, conn, start, version)


INSERT_INTENT = "insert into app.intents (id, goal, payload) values (%s, %s, %s::jsonb)"
NEXT_INTENT = "select nextval('app.intent_seq')"


async def create_intent(engine: Engine, intent: Intent, *, seed: int | None = None) -> str:
    """Stores an intent on its own, to be started later by its id, which is returned.

    seed: ids follow from it and from how many the database has seen, so that they are the same in every run of a test and never
    come twice; without one they are random.
    """
    async with engine.pool.connection() as conn:
        token = secrets.token_hex(8) if seed is None else await _seeded_token(conn, seed)
        intent_id = identity.legacy_intent_id(token)
        await conn.execute(INSERT_INTENT, (intent_id, intent.goal, canonical_json(intent.document())))
    return intent_id


async def _seeded_token(conn: Connection, seed: int) -> str:
    number = await (await conn.execute(NEXT_INTENT)).fetchone()
    assert number is not None
    return identity.seeded_token(seed, number[0])


async def start_intent(
    engine: Engine, intent_id: str, options: RunRequest, rules: QueueRules, *, version: str | None = None
) -> StartedRun:
    """The run of a stored intent, new or as it already is; refuses as `start_run` does.

    The limits are those of the recipe that the options name, without any version being pinned.
    """
    async with engine.pool.connection() as conn:
        name = options.recipeName or DEFAULT_RECIPE
        limits = await recipes.limits_by_name(conn, name, options.recipeVersion)
        if limits is None:
            raise QueuePolicyError(f"recipe not found: {name}")
        placement = place(options, limits, rules)
        found = await (await conn.execute(SELECT_INTENT, (intent_id,))).fetchone()
        if found is None:
            raise NotFound("intent not found")
        digest, recipe_id, recipe_v, recipe_hash, intent = found
        recipe = _Recipe(recipe_id, recipe_v, recipe_hash)
        start = _Start(intent_id, intent, digest, recipe, options, placement)
        started = await _begin(engine, conn, start, version)
    if not started.is_replay:
        engine.hint()
    return started


async def _begin(engine: Engine, conn: Connection, start: _Start, version: str | None) -> StartedRun:
    """The run, its intent and its workflow in one commit; nothing of them when the engine refuses."""
    async with conn.transaction():
        run = await _insert(conn, start)
        if run is None:
            return StartedRun(await _replayed(conn, start), is_replay=True)
        await _enqueue(engine, conn, start, version)
    return StartedRun(run, is_replay=False)


def _compiled(version: recipes.RecipeVersion, request: RunStartRequest, rules: QueueRules) -> _Start:
    intent = recipes.intent_of(version, request.formData)
    digest = identity.intent_hash(intent)
    forced = {"recipeName": version.id, "recipeVersion": None, "deduplicationID": digest}
    options = (request.opts or RunRequest()).model_copy(update=forced)
    return _Start(
        workflow_id=identity.workflow_id(digest),
        intent=intent,
        intent_hash=digest,
        recipe=_Recipe(version.id, version.v, version.hash),
        options=options,
        placement=place(options, version.limits, rules),
        form=request.formData,
    )


# Two requests for the same run meet here: the second waits for the first one's commit and then inserts
# nothing.
INSERT_RUN = """
with asked as (
    insert into app.intents (id, goal, payload, intent_hash, recipe_id, recipe_v, recipe_hash, json, form)
    values (%(intent_id)s, %(goal)s, %(intent)s::jsonb, %(intent_hash)s, %(recipe_id)s, %(recipe_v)s,
            %(recipe_hash)s, %(intent)s::jsonb, %(form)s::jsonb)
    on conflict do nothing
)
insert into app.runs (id, intent_id, workflow_id, status, trace_id, tenant_id, queue_partition_key,
                      intent_hash, recipe_id, recipe_v, recipe_hash, budget)
values (%(id)s, %(intent_id)s, %(intent_id)s, 'queued', %(trace_id)s, %(tenant_id)s, %(queue_partition_key)s,
        %(intent_hash)s, %(recipe_id)s, %(recipe_v)s, %(recipe_hash)s, %(budget)s::jsonb)
on conflict do nothing
returning id, intent_id, workflow_id, status, trace_id, created_at, updated_at, last_step, error, retry_count,
          next_action, tenant_id, queue_partition_key, intent_hash, recipe_id, recipe_v, recipe_hash, budget
"""


async def _insert(conn: Connection, start: _Start) -> RunRow | None:
    columns = start.identity
    budget = columns["budget"]
    values = columns | {
        "goal": start.intent["goal"],
        "intent": canonical_json(start.intent),
        "budget": None if budget is None else canonical_json(budget),
        "form": None if start.form is None else canonical_json(start.form),
    }
    async with conn.cursor(row_factory=class_row(RunRow)) as cursor:
        try:
            await cursor.execute(INSERT_RUN, values)
        except ForeignKeyViolation:  # the intent of an old run was still there when we looked
            raise _deleted(start) from None
        return await cursor.fetchone()


def _deleted(start: _Start) -> Conflict:
    return Conflict(f"run {start.workflow_id} was deleted while it was started; start it again")


SELECT_RUN = """
select id, intent_id, workflow_id, status, trace_id, created_at, updated_at, last_step, error, retry_count,
       next_action, tenant_id, queue_partition_key, intent_hash, recipe_id, recipe_v, recipe_hash, budget
  from app.runs
 where workflow_id = %s
"""
SELECT_INTENT = "select intent_hash, recipe_id, recipe_v, recipe_hash, payload from app.intents where id = %s"


async def _replayed(conn: Connection, start: _Start) -> RunRow:
    """The run that is there already. Raises Conflict or RunIdentityConflict when it is not the one that was
    asked for.
    """
    found = await (await conn.execute(SELECT_INTENT, (start.workflow_id,))).fetchone()
    async with conn.cursor(row_factory=class_row(RunRow)) as cursor:
        await cursor.execute(SELECT_RUN, (start.workflow_id,))
        run = await cursor.fetchone()
    if found is None or run is None:
        raise _deleted(start)
    _require_same_intent(start, *found)
    if drift := list(_drift(start.identity, run)):
        raise RunIdentityConflict(start.workflow_id, drift)
    return run


def _require_same_intent(
    start: _Start,
    intent_hash: str | None,
    recipe_id: str | None,
    recipe_v: str | None,
    recipe_hash: str | None,
    payload: Any,
) -> None:
    def conflict(what: str) -> Conflict:
        return Conflict(f"intent hash conflict with divergent {what}: {start.intent_hash}")

    if intent_hash != start.intent_hash:
        raise conflict("hash")
    if (recipe_id, recipe_v, recipe_hash) != (start.recipe.id, start.recipe.v, start.recipe.hash):
        raise conflict("recipe refs")
    if canonical_json(payload) != canonical_json(start.intent):
        raise conflict("payload")


def _drift(asked: JsonObject, run: RunRow) -> Iterable[JsonObject]:
    for field, incoming in asked.items():
        existing = getattr(run, field)
        if canonical_json(existing) != canonical_json(incoming):
            yield {"field": field, "existing": existing, "incoming": incoming}


async def _enqueue(engine: Engine, conn: Connection, start: _Start, version: str | None) -> None:
    placement = start.placement
    try:
        await engine.enqueue(
            WORKFLOW_NAME,
            start.workflow_id,
            id=start.workflow_id,
            class_name=WORKFLOW_CLASS,
            queue=placement.queue,
            partition=placement.partition,
            priority=placement.priority or 0,
            dedup_id=placement.dedup_id,
            timeout_s=None if placement.timeout_ms is None else placement.timeout_ms / 1000,
            version=version,
            attributes=tracing.attributes_of(start.workflow_id, start.options.traceId),
            conn=conn,
        )
    except DuplicateWork as error:
        raise Conflict(f"{error}; wait for it, or leave the deduplicationID out") from error

"""From draft to stable: people make a version a candidate, and its fixtures make it stable.

A promotion is a row in app.promotions and the workflow PromoteRecipe (steps.promoting), made in one commit. A version has one promotion
under way at a time; asking again finds it. A promotion that is cancelled is refused by the database in the same commit, so that another
one can begin.
"""

from dataclasses import dataclass
from typing import Any, Literal, LiteralString

from psycopg.rows import class_row, dict_row
from pydantic import TypeAdapter

from engine import Connection, Engine
from steps import identity
from steps.canonical import canonical_json
from steps.contracts.intent import RecipeRef
from steps.contracts.recipe import FixtureOutcome, PromotionView
from steps.errors import Conflict, InvalidInput, NotFound
from steps.policy import CONTROL_QUEUE
from steps.recipes import RecipeVersion, get_version, intent_of

WORKFLOW_NAME = "PromoteRecipe"
WORKFLOW_CLASS = "RecipeWorkflow"


def partition_of(recipe_id: str) -> str:
    """Whose share of the queues a recipe's promotions and fixtures take."""
    return f"fixture:{recipe_id}"


# What changes the registry ---------------------------------------------------------------------------------------------

LOCK_VERSION: LiteralString = "select id, v, hash, status, json from app.recipe_versions where id = %s and v = %s for update"
SET_CANDIDATE: LiteralString = """
    update app.recipe_versions set status = 'candidate', candidate_actor = %s, candidate_reason = %s where id = %s and v = %s
"""
SET_STABLE: LiteralString = "update app.recipe_versions set status = 'stable' where id = %s and v = %s"
# The name of another recipe's row may be the same word; its versions are then counted on.
SET_ACTIVE: LiteralString = """
    insert into app.recipes (id, name, version, queue_name, max_concurrency, max_steps, max_sandbox_minutes, spec, active_v)
    values (%(id)s, %(id)s, coalesce((select max(version) from app.recipes where name = %(id)s), 0) + 1,
            %(queue)s, %(concurrency)s, %(steps)s, %(sandbox_minutes)s, %(spec)s::jsonb, %(v)s)
    on conflict (id) do update
       set queue_name = excluded.queue_name, max_concurrency = excluded.max_concurrency, max_steps = excluded.max_steps,
           max_sandbox_minutes = excluded.max_sandbox_minutes, spec = excluded.spec, active_v = excluded.active_v
"""


async def set_candidate(
    conn: Connection, ref: RecipeRef, *, actor: str | None = None, reason: str | None = None
) -> RecipeVersion:
    """The version as a candidate: a draft becomes one, by whom and why is kept. Raises NotFound, or Conflict when it is stable."""
    async with conn.transaction():
        version = await locked(conn, ref)
        if version.status == "stable":
            raise Conflict(f"stable recipe version is immutable: {ref.id}@{ref.v}")
        if version.status == "draft":
            await conn.execute(SET_CANDIDATE, (actor, reason, ref.id, ref.v))
    return await get_version(conn, ref)


async def locked(conn: Connection, ref: RecipeRef) -> RecipeVersion:
    """The version, held until the transaction ends. Raises NotFound."""
    async with conn.cursor(row_factory=class_row(RecipeVersion)) as cursor:
        version = await (await cursor.execute(LOCK_VERSION, (ref.id, ref.v))).fetchone()
    if version is None:
        raise NotFound(f"recipe version not found: {ref.id}@{ref.v}")
    return version


def check_ready(version: RecipeVersion) -> None:
    """Raises Conflict for a draft, and for a version without checks or fixtures, or with a fixture that makes no intent."""
    name = f"{version.id}@{version.v}"
    if version.status == "draft":
        raise Conflict(f"recipe version {name} is a draft; make it a candidate first")
    spec = version.spec
    if not spec.eval or not spec.fixtures:
        raise Conflict(
            f"recipe version {name} can't become stable with {len(spec.eval)} eval checks and"
            f" {len(spec.fixtures)} fixtures; it needs at least one of each"
        )
    for fixture in spec.fixtures:
        try:
            intent_of(version, fixture.formData)
        except InvalidInput as error:
            raise Conflict(f"fixture {fixture.id} of {name} makes no intent: {error.message}") from None


async def make_stable(conn: Connection, version: RecipeVersion) -> None:
    """The candidate, or stable version, as the stable and active one, whatever proof there is of it; in the caller's transaction."""
    if version.status != "stable":
        await conn.execute(SET_STABLE, (version.id, version.v))
    limits = version.limits
    values = {"id": version.id, "v": version.v, "queue": limits.queue, "spec": canonical_json(version.json)}
    values |= {"concurrency": limits.concurrency, "steps": limits.steps, "sandbox_minutes": limits.sandbox_minutes}
    await conn.execute(SET_ACTIVE, values)


# Promotions ------------------------------------------------------------------------------------------------------------

PROMOTION: LiteralString = """
    select p.attempt, p.workflow_id as "workflowID", p.actor, p.reason, p.status, p.outcome ->> 'reason' as refusal,
           coalesce(p.outcome -> 'fixtures', '[]') as fixtures,
           (select count(*) from dbos.workflow_status s
             where s.parent_workflow_id = p.workflow_id and s.name = 'RecipeFixture'
               and s.status in ('SUCCESS', 'ERROR', 'CANCELLED', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED')) as "fixturesDone",
           coalesce(jsonb_array_length(v.json -> 'fixtures'), 0) as "fixturesTotal",
           floor(extract(epoch from p.created_at) * 1000)::bigint as "createdAt",
           floor(extract(epoch from p.ended_at) * 1000)::bigint as "endedAt"
      from app.promotions p
      left join app.recipe_versions v on v.id = p.recipe_id and v.v = p.v
     where p.recipe_id = %s and p.v = %s and (%s::int is null or p.attempt = %s)
     order by p.attempt desc
     limit 1
"""
UNDER_WAY: LiteralString = "select from app.promotions where recipe_id = %s and v = %s and status = 'under_way'"
NEXT_ATTEMPT: LiteralString = "select coalesce(max(attempt), 0) + 1 from app.promotions where recipe_id = %s and v = %s"
INSERT: LiteralString = """
    insert into app.promotions (recipe_id, v, attempt, workflow_id, actor, reason) values (%s, %s, %s, %s, %s, %s)
"""

_VIEW = TypeAdapter(PromotionView)


@dataclass(frozen=True, slots=True)
class PromotionRequest:
    """Which version to promote, who wants it and why."""

    recipe_id: str
    v: str
    actor: str
    reason: str

    @property
    def ref(self) -> RecipeRef:
        return RecipeRef(id=self.recipe_id, v=self.v)


@dataclass(frozen=True, slots=True)
class PromotionOutcome:
    """How a promotion ended. attempt: its number among the version's, 0 for one that was refused before it began; reason: why it is
    refused, in one sentence.
    """

    recipe_id: str
    v: str
    attempt: int
    status: Literal["promoted", "refused"]
    reason: str
    fixtures: list[FixtureOutcome]


@dataclass(frozen=True, slots=True)
class Begun:
    """The version, and its promotion; None for a version that is stable already and has become the active one again."""

    version: RecipeVersion
    promotion: PromotionView | None


async def find(conn: Connection, ref: RecipeRef, attempt: int | None = None) -> PromotionView | None:
    """The version's promotion of that number, or the newest, as it stands; None when there was none."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        row = await (await cursor.execute(PROMOTION, (ref.id, ref.v, attempt, attempt))).fetchone()
    return None if row is None else _VIEW.validate_python(row)


async def begin(
    engine: Engine, ref: RecipeRef, *, actor: str, reason: str, version: str | None = None, conn: Connection | None = None
) -> Begun:
    """Begin the version's promotion, or find the one that is under way. A stable version becomes the active one again, at once.

    version: the application version whose workers shall run it; None for any. Raises NotFound, or Conflict for a version that is not
    ready (see check_ready), and then nothing is written.
    """
    if conn is None:
        async with engine.transaction() as own:
            return await begin(engine, ref, actor=actor, reason=reason, version=version, conn=own)
    found = await locked(conn, ref)
    if found.status == "stable":
        await make_stable(conn, found)
        return Begun(found, None)
    check_ready(found)
    if await first(conn, UNDER_WAY, ref.id, ref.v) is None:
        attempt = await insert(conn, PromotionRequest(ref.id, ref.v, actor, reason))
        await engine.enqueue(
            WORKFLOW_NAME,
            PromotionRequest(ref.id, ref.v, actor, reason),
            class_name=WORKFLOW_CLASS,
            id=identity.promotion_id(ref.id, ref.v, attempt),
            queue=CONTROL_QUEUE,
            partition=partition_of(ref.id),
            version=version,
            conn=conn,
        )
    return Begun(found, await find(conn, ref))


async def insert(conn: Connection, request: PromotionRequest, workflow_id: str | None = None) -> int:
    """A row for a new promotion of a version that the transaction has locked; its number."""
    number = await first(conn, NEXT_ATTEMPT, request.recipe_id, request.v)
    assert number is not None
    id = workflow_id or identity.promotion_id(request.recipe_id, request.v, number[0])
    await conn.execute(INSERT, (request.recipe_id, request.v, number[0], id, request.actor, request.reason))
    return int(number[0])


async def first(conn: Connection, query: LiteralString, *values: object) -> tuple[Any, ...] | None:
    return await (await conn.execute(query, values)).fetchone()

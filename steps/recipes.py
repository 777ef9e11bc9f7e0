"""The recipe registry: versions are data, imported as drafts, until one is promoted (steps.promotion).

A version never changes once it is in; a stable one can't even be imported again. An import is one transaction, so that a refusal leaves
nothing behind.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from psycopg import AsyncConnection
from psycopg.rows import class_row, dict_row

from steps import identity
from steps.canonical import canonical_json
from steps.contracts.base import JsonObject, parse
from steps.contracts.intent import RecipeRef
from steps.contracts.recipe import (
    ImportedVersion,
    RecipeBundle,
    RecipeSpec,
    RecipeStatus,
    RecipeSummary,
    VersionSummary,
    VersionView,
)
from steps.documents import without_none
from steps.errors import Conflict, NotFound
from steps.policy import RecipeLimits
from steps.template import instantiate

Connection = AsyncConnection[Any]

_SEEDS = Path(__file__).parent / "recipes"  # the folder beside this module


@dataclass(frozen=True, slots=True)
class RecipeVersion:
    id: str
    v: str
    hash: str
    status: RecipeStatus
    json: JsonObject

    @property
    def spec(self) -> RecipeSpec:
        return RecipeSpec.model_validate(self.json)

    @property
    def limits(self) -> RecipeLimits:
        """What a start that names this version is held to."""
        limits = self.json["limits"]
        return RecipeLimits(
            recipe=self.id,
            queue=self.json["queue"],
            concurrency=limits["maxFanout"],
            steps=limits["maxSteps"],
            sandbox_minutes=limits["maxSbxMin"],
            pinned=True,
        )


# Import and export

# No key is named: of two imports at once, the second may meet the first at the key of the hash, which would then be an error.
INSERT_VERSION = """
insert into app.recipe_versions (id, v, hash, status, json) values (%s, %s, %s, 'draft', %s::jsonb)
on conflict do nothing
returning id
"""
SELECT_IMPORTED = "select id, v, hash, status from app.recipe_versions where id = %s and v = %s"
INSERT_FIXTURE = """
insert into app.recipe_fixtures (recipe_id, v, fixture_id, json) values (%s, %s, %s, %s::jsonb)
on conflict do nothing
"""


async def import_bundle(conn: Connection, bundle: RecipeBundle) -> list[ImportedVersion]:
    """Every version of the bundle in the registry, by id and version. All or none; Conflict when one is there
    with other content or already stable.
    """
    specs = sorted(bundle.versions, key=lambda spec: (spec.id, spec.v))
    async with conn.transaction():
        return [await _import_version(conn, spec) for spec in specs]


async def _import_version(conn: Connection, spec: RecipeSpec) -> ImportedVersion:
    document = spec.document()
    digest = identity.recipe_hash(document)
    inserted = await conn.execute(INSERT_VERSION, (spec.id, spec.v, digest, canonical_json(document)))
    if await inserted.fetchone() is None:
        return await _already_there(conn, spec, digest)
    for fixture in spec.fixtures:
        await conn.execute(INSERT_FIXTURE, (spec.id, spec.v, fixture.id, canonical_json(fixture.document())))
    return ImportedVersion(id=spec.id, v=spec.v, hash=digest, status="draft")


async def _already_there(conn: Connection, spec: RecipeSpec, digest: str) -> ImportedVersion:
    async with conn.cursor(row_factory=class_row(ImportedVersion)) as cursor:
        await cursor.execute(SELECT_IMPORTED, (spec.id, spec.v))
        existing = await cursor.fetchone()
    if existing is None:
        raise Conflict(f"recipe version {spec.id}@{spec.v} was deleted during the import; import it again")
    if existing.status == "stable":
        raise Conflict(f"stable recipe version is immutable: {spec.id}@{spec.v}; import the change under a new version")
    if existing.hash != digest:
        raise Conflict(f"recipe hash mismatch: {spec.id}@{spec.v} has other content; import it under a new version")
    return existing


SELECT_DOCUMENTS = 'select json from app.recipe_versions where id = %s order by v collate "C"'


async def export_recipe(conn: Connection, recipe_id: str) -> str:
    """All versions of a recipe as a bundle, in canonical JSON; no versions when it is unknown."""
    rows = await (await conn.execute(SELECT_DOCUMENTS, (recipe_id,))).fetchall()
    return canonical_json({"id": recipe_id, "versions": [document for (document,) in rows]})


# Reading

SELECT_VERSION = "select id, v, hash, status, json from app.recipe_versions where id = %s and v = %s"
SELECT_RECIPES = """
select distinct on (id collate "C") id, json ->> 'name' as name, v as "latestV", status,
       (extract(epoch from created_at) * 1000)::bigint as "updatedAt"
  from app.recipe_versions
 order by id collate "C", v collate "C" desc
"""
SELECT_VERSIONS = """
select id, v, hash, status, (extract(epoch from created_at) * 1000)::bigint as "createdAt",
       jsonb_array_length(json -> 'eval') as "evalCount",
       (select count(*) from app.recipe_fixtures f where f.recipe_id = rv.id and f.v = rv.v) as "fixtureCount"
  from app.recipe_versions rv
 where id = %s
 order by v collate "C" desc
"""


SELECT_WHOLE = """
select rv.id, rv.v, rv.hash, rv.status, (extract(epoch from rv.created_at) * 1000)::bigint as "createdAt",
       exists (select from app.recipes r where r.id = rv.id and r.active_v = rv.v) as active,
       rv.candidate_actor as "candidateActor", rv.candidate_reason as "candidateReason", rv.json as spec
  from app.recipe_versions rv
 where rv.id = %s and rv.v = %s
"""


async def show_version(conn: Connection, ref: RecipeRef) -> VersionView:
    """One exact version, whole. Raises NotFound."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        row = await (await cursor.execute(SELECT_WHOLE, (ref.id, ref.v))).fetchone()
    if row is None:
        raise NotFound(f"recipe version not found: {ref.id}@{ref.v}")
    return VersionView.model_validate(without_none(row))


async def get_version(conn: Connection, ref: RecipeRef) -> RecipeVersion:
    """One exact version. Raises NotFound."""
    async with conn.cursor(row_factory=class_row(RecipeVersion)) as cursor:
        await cursor.execute(SELECT_VERSION, (ref.id, ref.v))
        version = await cursor.fetchone()
    if version is None:
        raise NotFound(f"workflow not found: Recipe not found: {ref.id}@{ref.v}")
    return version


async def list_recipes(conn: Connection) -> list[RecipeSummary]:
    """Every recipe once, with its latest version."""
    async with conn.cursor(row_factory=class_row(RecipeSummary)) as cursor:
        await cursor.execute(SELECT_RECIPES)
        return await cursor.fetchall()


async def list_versions(conn: Connection, recipe_id: str) -> list[VersionSummary]:
    """The versions of a recipe, latest first; none when it is unknown."""
    async with conn.cursor(row_factory=class_row(VersionSummary)) as cursor:
        await cursor.execute(SELECT_VERSIONS, (recipe_id,))
        return await cursor.fetchall()


SELECT_LIMITS = """
select name as recipe, queue_name as queue, max_concurrency as concurrency, max_steps as steps,
       max_sandbox_minutes as sandbox_minutes, false as pinned
  from app.recipes
 where name = %s and (%s::int is null or version = %s)
 order by version desc
 limit 1
"""


async def limits_by_name(conn: Connection, name: str, version: int | None = None) -> RecipeLimits | None:
    """The limits of the recipe that a start names without pinning a version; None when there is no such
    recipe.
    """
    async with conn.cursor(row_factory=class_row(RecipeLimits)) as cursor:
        await cursor.execute(SELECT_LIMITS, (name, version, version))
        return await cursor.fetchone()


def intent_of(version: RecipeVersion, form_data: object) -> JsonObject:
    """The intent that a form asks for under this version. Raises InvalidInput."""
    return instantiate(version.json["intentTmpl"], version.json["formSchema"], form_data)


# Seeds


def seed_bundles() -> list[RecipeBundle]:
    """The recipes that every database starts with."""
    return [parse(RecipeBundle, orjson.loads(file.read_bytes())) for file in sorted(_SEEDS.glob("*.json"))]

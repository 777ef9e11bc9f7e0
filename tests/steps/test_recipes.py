"""The registry: versions that never change, and those that every database starts with."""

import asyncio
from collections.abc import AsyncIterator
from copy import deepcopy
from typing import Any, LiteralString

import orjson
import psycopg
import pytest

from engine import Engine
from steps import identity, promotion, recipes
from steps.canonical import canonical_json
from steps.contracts.base import parse
from steps.contracts.intent import RecipeRef
from steps.contracts.recipe import RecipeBundle, RecipeSpec
from steps.errors import Conflict, NotFound
from steps.seeds import install_seeds
from tests.steps.samples import SPEC

Connection = psycopg.AsyncConnection[Any]
REF = RecipeRef(id="spec09.demo", v="1.0.0")


@pytest.fixture
async def conn(database: str) -> AsyncIterator[Connection]:
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as conn:
        yield conn


def bundle(*changes: dict[str, Any]) -> RecipeBundle:
    return parse(RecipeBundle, {"id": "b", "versions": [deepcopy(SPEC) | change for change in changes or ({},)]})


async def rows(conn: Connection, query: LiteralString, *values: object) -> list[tuple[Any, ...]]:
    return await (await conn.execute(query, values)).fetchall()


async def count(conn: Connection) -> tuple[Any, ...]:
    [counted] = await rows(
        conn,
        """
        select (select count(*) from app.recipe_versions where id not like 'rcp%%'),
               (select count(*) from app.recipe_fixtures where recipe_id not like 'rcp%%'),
               (select count(*) from app.recipes where id not like 'rcp%%')
        """,
    )
    return counted


async def promoted(conn: Connection, *changes: dict[str, Any]) -> None:
    await recipes.import_bundle(conn, bundle(*changes))
    for spec in bundle(*changes).versions:
        ref = RecipeRef(id=spec.id, v=spec.v)
        await promotion.set_candidate(conn, ref)
        async with conn.transaction():
            await promotion.make_stable(conn, await promotion.locked(conn, ref))


async def test_an_import_stores_each_version_as_a_draft_under_its_hash(conn: Connection) -> None:
    [imported] = await recipes.import_bundle(conn, bundle())
    assert (imported.id, imported.v, imported.status) == ("spec09.demo", "1.0.0", "draft")
    [(stored, digest)] = await rows(conn, "select json, hash from app.recipe_versions where id = 'spec09.demo'")
    assert stored == SPEC
    assert digest == imported.hash == identity.recipe_hash(SPEC)
    assert await rows(conn, "select fixture_id, json from app.recipe_fixtures where recipe_id = 'spec09.demo'") == [
        ("fx1", SPEC["fixtures"][0])
    ]


async def test_the_same_import_again_changes_nothing(conn: Connection) -> None:
    first = await recipes.import_bundle(conn, bundle())
    assert await recipes.import_bundle(conn, bundle()) == first
    assert await count(conn) == (1, 1, 0)


async def test_a_bundles_versions_come_back_in_order(conn: Connection) -> None:
    imported = await recipes.import_bundle(conn, bundle({"v": "2"}, {"v": "1"}, {"v": "10"}))
    assert [version.v for version in imported] == ["1", "10", "2"]


async def test_other_content_under_a_known_version_is_a_conflict_and_writes_nothing(conn: Connection) -> None:
    await recipes.import_bundle(conn, bundle())
    with pytest.raises(Conflict, match=r"recipe hash mismatch: spec09\.demo@1\.0\.0"):
        await recipes.import_bundle(conn, bundle({"v": "0.9"}, {"name": "changed"}))
    assert await count(conn) == (1, 1, 0)


async def test_a_stable_version_can_not_be_imported_again(conn: Connection) -> None:
    await promoted(conn)
    for change in ({}, {"name": "changed"}):
        with pytest.raises(Conflict, match="stable recipe version is immutable"):
            await recipes.import_bundle(conn, bundle(change))


async def test_two_imports_at_once_store_one_version(database: str, conn: Connection) -> None:
    async def importing() -> list[Any]:
        async with await psycopg.AsyncConnection.connect(database) as own:
            return await recipes.import_bundle(own, bundle({"v": "1"}, {"v": "2"}))

    results = await asyncio.gather(*(importing() for _ in range(8)))
    assert all(result == results[0] for result in results)
    assert await count(conn) == (2, 2, 0)


async def test_an_export_imports_again_to_the_same_bytes(conn: Connection) -> None:
    await recipes.import_bundle(conn, bundle({"v": "2"}, {"v": "1"}))
    exported = await recipes.export_recipe(conn, "spec09.demo")
    assert exported == canonical_json({"id": "spec09.demo", "versions": [SPEC | {"v": "1"}, SPEC | {"v": "2"}]})
    await conn.execute("delete from app.recipe_versions where status = 'draft'")
    await recipes.import_bundle(conn, parse(RecipeBundle, orjson.loads(exported)))
    assert await recipes.export_recipe(conn, "spec09.demo") == exported


async def test_an_unknown_recipe_exports_no_versions(conn: Connection) -> None:
    assert await recipes.export_recipe(conn, "nope") == '{"id":"nope","versions":[]}'
    assert await recipes.list_versions(conn, "nope") == []


async def test_lists_show_the_latest_version_and_its_coverage(conn: Connection) -> None:
    await recipes.import_bundle(conn, bundle({"v": "1"}, {"v": "2", "name": "second", "eval": [], "fixtures": []}))
    [summary] = [s for s in await recipes.list_recipes(conn) if s.id == "spec09.demo"]
    assert (summary.name, summary.latestV, summary.status) == ("second", "2", "draft")
    versions = await recipes.list_versions(conn, "spec09.demo")
    assert [(v.v, v.evalCount, v.fixtureCount) for v in versions] == [("2", 0, 0), ("1", 5, 1)]


async def test_a_version_is_found_by_its_exact_name(conn: Connection) -> None:
    await recipes.import_bundle(conn, bundle())
    version = await recipes.get_version(conn, REF)
    assert version.spec == RecipeSpec.model_validate(SPEC)
    assert (version.limits.concurrency, version.limits.steps, version.limits.sandbox_minutes) == (1, 10, 5)
    with pytest.raises(NotFound) as missing:
        await recipes.get_version(conn, RecipeRef(id="spec09.demo", v="2"))
    assert missing.value.message == "workflow not found: Recipe not found: spec09.demo@2"


async def test_a_draft_becomes_a_candidate_once_by_whom_and_why(conn: Connection) -> None:
    await recipes.import_bundle(conn, bundle())
    with pytest.raises(NotFound, match=r"recipe version not found: spec09\.demo@2"):
        await promotion.set_candidate(conn, RecipeRef(id="spec09.demo", v="2"))
    for actor in ("ann", "bob"):
        assert (await promotion.set_candidate(conn, REF, actor=actor, reason="ready")).status == "candidate"
    kept = await rows(conn, "select candidate_actor, candidate_reason from app.recipe_versions where id = 'spec09.demo'")
    assert kept == [("ann", "ready")]


async def test_a_stable_version_is_active_under_its_limits(conn: Connection) -> None:
    await promoted(conn)
    assert await rows(
        conn,
        """
        select rv.status, r.active_v, r.name, r.version, r.queue_name, r.max_concurrency, r.max_steps, r.max_sandbox_minutes
          from app.recipe_versions rv join app.recipes r on r.id = rv.id
         where rv.id = 'spec09.demo' and rv.v = '1.0.0'
        """,
    ) == [("stable", "1.0.0", "spec09.demo", 1, "intentQ", 1, 10, 5)]


async def test_a_newer_stable_version_becomes_active_and_the_older_one_stays_stable(conn: Connection) -> None:
    await promoted(conn, {"v": "1"}, {"v": "2"})
    assert await rows(conn, "select active_v from app.recipes where id = 'spec09.demo'") == [("2",)]
    assert {v.status for v in await recipes.list_versions(conn, "spec09.demo")} == {"stable"}


async def test_a_stable_version_does_not_go_back_to_candidate(conn: Connection) -> None:
    await promoted(conn)
    with pytest.raises(Conflict, match="stable recipe version is immutable"):
        await promotion.set_candidate(conn, REF)


IMPORT_AS_STABLE: LiteralString = """
    insert into app.recipe_versions (id, v, hash, status, json)
    select id, 'new', 'h', 'stable', json from app.recipe_versions where v = 'draft'
"""
OTHER_FIXTURE: LiteralString = """
    insert into app.recipe_fixtures (recipe_id, v, fixture_id, json)
    values ('spec09.demo', 'draft', 'more', '{"id": "more", "formData": {}}')
"""
STABLE_FIXTURE: LiteralString = """
    insert into app.recipe_fixtures (recipe_id, v, fixture_id, json)
    select recipe_id, '1.0.0', 'fx1', json from app.recipe_fixtures where v = 'draft'
"""
ALL: LiteralString = """
    select v.*, f.* from app.recipe_versions v left join app.recipe_fixtures f on f.recipe_id = v.id and f.v = v.v order by v.id, v.v
"""
REFUSED: tuple[LiteralString, ...] = (
    "update app.recipe_versions set json = '{}' where v = 'draft'",
    "update app.recipe_versions set hash = 'other' where v = 'draft'",
    "update app.recipe_versions set v = 'other' where v = 'draft'",
    "update app.recipe_versions set json = '{}' where v = 'candidate'",
    "update app.recipe_versions set id = 'other' where v = 'candidate'",
    "update app.recipe_versions set json = '{}' where v = '1.0.0'",
    "update app.recipe_versions set created_at = now() where v = '1.0.0'",
    "update app.recipe_versions set status = 'stable' where v = 'draft'",
    "update app.recipe_versions set status = 'draft' where v = 'candidate'",
    "update app.recipe_versions set candidate_actor = 'other' where v = 'candidate'",
    "update app.recipe_versions set status = 'stable', candidate_reason = 'other' where v = 'candidate'",
    "update app.recipe_versions set status = 'draft' where v = '1.0.0'",
    "update app.recipe_versions set status = 'candidate' where v = '1.0.0'",
    "delete from app.recipe_versions where v = 'candidate'",
    "delete from app.recipe_versions where v = '1.0.0'",
    "truncate app.recipe_versions cascade",
    IMPORT_AS_STABLE,
    "update app.recipe_fixtures set json = '{}'",
    "update app.recipe_fixtures set fixture_id = 'other' where v = 'draft'",
    "delete from app.recipe_fixtures where v = 'draft'",
    "truncate app.recipe_fixtures",
    OTHER_FIXTURE,
    STABLE_FIXTURE,
)


async def test_the_database_itself_keeps_versions_and_fixtures_as_they_are(conn: Connection) -> None:
    await promoted(conn)
    await recipes.import_bundle(conn, bundle({"v": "draft"}, {"v": "candidate"}))
    await promotion.set_candidate(conn, RecipeRef(id="spec09.demo", v="candidate"))
    before = await rows(conn, ALL)
    for change in REFUSED:
        with pytest.raises(psycopg.errors.RestrictViolation):
            await conn.execute(change)
    assert await rows(conn, ALL) == before


async def test_only_a_draft_can_be_taken_out_again_and_its_fixtures_go_with_it(conn: Connection) -> None:
    await recipes.import_bundle(conn, bundle())
    await conn.execute("delete from app.recipe_versions where id = 'spec09.demo'")
    assert await count(conn) == (0, 0, 0)


async def test_limits_are_found_by_name_and_version(conn: Connection) -> None:
    limits = await recipes.limits_by_name(conn, "sandbox-default")
    assert limits is not None
    assert (limits.queue, limits.concurrency, limits.steps, limits.sandbox_minutes) == ("intentQ", 20, 128, 60)
    assert not limits.pinned
    assert await recipes.limits_by_name(conn, "sandbox-default", 2) is None
    assert await recipes.limits_by_name(conn, "nope") is None


@pytest.fixture
async def engine(database: str) -> AsyncIterator[Engine]:
    async with Engine.connect(database) as engine:
        yield engine


async def test_the_seeds_are_installed_once_by_whoever_comes_first(engine: Engine, conn: Connection) -> None:
    installed = [ref for refs in await asyncio.gather(*(install_seeds(engine) for _ in range(4))) for ref in refs]
    seeds = [RecipeRef(id=spec.id, v=spec.v) for bundle in recipes.seed_bundles() for spec in bundle.versions]
    assert len(seeds) > 1
    assert installed == seeds
    assert await rows(conn, "select id, v from app.recipe_versions where status = 'stable' and id not like 'rcp%%'") == [
        ("compile-default", "v1")
    ]


async def test_every_seed_but_the_default_one_is_promoted_by_its_fixtures(engine: Engine, conn: Connection) -> None:
    installed = await install_seeds(engine)
    begun = await rows(conn, "select recipe_id, v, attempt, status from app.promotions order by recipe_id")
    assert begun == [(ref.id, ref.v, 1, "under_way") for ref in installed if ref.id != "compile-default"]
    queued = await rows(conn, "select workflow_uuid from dbos.workflow_status order by 1")
    assert [id for (id,) in queued] == [identity.promotion_id(id, v, 1) for id, v, _, _ in begun]


async def test_the_default_recipe_is_the_newest_active_one(engine: Engine, conn: Connection) -> None:
    await install_seeds(engine)
    async with conn.transaction():
        for ref in [RecipeRef(id=id, v=v) for id, v in await rows(conn, "select recipe_id, v from app.promotions")]:
            await promotion.make_stable(conn, await promotion.locked(conn, ref))
    newest = await rows(
        conn,
        """
        select rv.id||'@'||rv.v from app.recipe_versions rv join app.recipes r on r.id=rv.id and r.active_v=rv.v
         order by rv.created_at desc limit 1
        """,
    )
    assert newest == [("compile-default@v1",)]


async def test_a_start_by_name_keeps_its_limits_when_the_seeds_are_in(engine: Engine, conn: Connection) -> None:
    before = await recipes.limits_by_name(conn, "compile-default")
    await install_seeds(engine)
    assert await recipes.limits_by_name(conn, "compile-default") == before


async def test_every_version_that_a_database_starts_with_is_addressed_by_its_hash_and_covered(
    engine: Engine, conn: Connection
) -> None:
    installed = await install_seeds(engine)
    versions = await rows(conn, "select id, v, hash, json from app.recipe_versions")
    assert len(versions) == 3 + len(installed)
    for id, v, digest, document in versions:
        spec = parse(RecipeSpec, document)
        assert (spec.id, spec.v, identity.recipe_hash(document)) == (id, v, digest)
        assert spec.eval
        assert spec.fixtures
        version = await recipes.get_version(conn, RecipeRef(id=id, v=v))
        for fixture in spec.fixtures:
            recipes.intent_of(version, fixture.formData)
    stored = await rows(conn, "select recipe_id, v, count(*) from app.recipe_fixtures group by 1, 2")
    assert {(id, v): n for id, v, n in stored} == {(id, v): len(json["fixtures"]) for id, v, _, json in versions}

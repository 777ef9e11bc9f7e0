"""The registry: versions that never change, and promotion that needs proof."""

import asyncio
from collections.abc import AsyncIterator
from copy import deepcopy
from typing import Any, LiteralString

import orjson
import psycopg
import pytest

from steps import identity, recipes
from steps.canonical import canonical_json
from steps.contracts.base import parse
from steps.contracts.intent import RecipeRef
from steps.contracts.recipe import RecipeBundle, RecipeSpec
from steps.errors import Conflict, NotFound
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
        await recipes.set_candidate(conn, ref)
        await recipes.promote_stable(conn, ref)


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
    await conn.execute("delete from app.recipe_fixtures; delete from app.recipe_versions where status = 'draft'")
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


async def test_promotion_goes_from_draft_over_candidate_to_stable_and_active(conn: Connection) -> None:
    await recipes.import_bundle(conn, bundle())
    with pytest.raises(Conflict, match="is a draft; make it a candidate first"):
        await recipes.promote_stable(conn, REF)
    assert (await recipes.set_candidate(conn, REF)).status == "candidate"
    assert (await recipes.set_candidate(conn, REF)).status == "candidate"
    assert (await recipes.promote_stable(conn, REF)).status == "stable"
    assert await rows(
        conn,
        """
        select rv.id, rv.v, rv.status, r.active_v from app.recipe_versions rv join app.recipes r on r.id = rv.id
         where rv.id = 'spec09.demo' and rv.v = '1.0.0'
        """,
    ) == [("spec09.demo", "1.0.0", "stable", "1.0.0")]
    assert await rows(
        conn,
        """
        select name, version, queue_name, max_concurrency, max_steps, max_sandbox_minutes from app.recipes
         where id = 'spec09.demo'
        """,
    ) == [("spec09.demo", 1, "intentQ", 1, 10, 5)]


@pytest.mark.parametrize("lack", ["eval", "fixtures"])
async def test_a_version_without_checks_or_fixtures_is_not_promoted(conn: Connection, lack: str) -> None:
    await recipes.import_bundle(conn, bundle({lack: []}))
    await recipes.set_candidate(conn, REF)
    with pytest.raises(Conflict, match="it needs at least one of each"):
        await recipes.promote_stable(conn, REF)
    assert (await recipes.get_version(conn, REF)).status == "candidate"
    assert await count(conn) == (1, 0 if lack == "fixtures" else 1, 0)


async def test_a_version_whose_fixture_makes_no_intent_is_not_promoted(conn: Connection) -> None:
    template = {"goal": "{{formData.missing}}", "inputs": {}, "constraints": {}}
    await recipes.import_bundle(conn, bundle({"intentTmpl": template}))
    await recipes.set_candidate(conn, REF)
    with pytest.raises(Conflict, match=r"fixture fx1 .* makes no intent: missing template key: formData\.missing"):
        await recipes.promote_stable(conn, REF)


@pytest.mark.parametrize("move", [recipes.set_candidate, recipes.promote_stable])
async def test_an_unknown_version_is_not_promoted(conn: Connection, move: Any) -> None:
    with pytest.raises(NotFound, match=r"recipe version not found: spec09\.demo@1\.0\.0"):
        await move(conn, REF)


async def test_a_newer_stable_version_becomes_active_and_the_older_one_stays_stable(conn: Connection) -> None:
    await promoted(conn, {"v": "1"}, {"v": "2"})
    assert await rows(conn, "select active_v from app.recipes where id = 'spec09.demo'") == [("2",)]
    assert {v.status for v in await recipes.list_versions(conn, "spec09.demo")} == {"stable"}


async def test_promoting_an_older_stable_version_makes_it_active_again(conn: Connection) -> None:
    await promoted(conn, {"v": "1"}, {"v": "2"})
    await recipes.promote_stable(conn, RecipeRef(id="spec09.demo", v="1"))
    assert await rows(conn, "select active_v from app.recipes where id = 'spec09.demo'") == [("1",)]


async def test_a_stable_version_does_not_go_back_to_candidate(conn: Connection) -> None:
    await promoted(conn)
    with pytest.raises(Conflict, match="stable recipe version is immutable"):
        await recipes.set_candidate(conn, REF)


async def test_the_database_itself_keeps_versions_as_they_are(conn: Connection) -> None:
    await promoted(conn)
    await recipes.import_bundle(conn, bundle({"v": "draft"}))
    for change in (
        "update app.recipe_versions set json = '{}' where v = 'draft'",
        "update app.recipe_versions set status = 'draft' where v = '1.0.0'",
        "delete from app.recipe_versions where v = '1.0.0'",
    ):
        with pytest.raises(psycopg.errors.RestrictViolation):
            await conn.execute(change)  # type: ignore[arg-type]


async def test_limits_are_found_by_name_and_version(conn: Connection) -> None:
    limits = await recipes.limits_by_name(conn, "sandbox-default")
    assert limits is not None
    assert (limits.queue, limits.concurrency, limits.steps, limits.sandbox_minutes) == ("intentQ", 20, 128, 60)
    assert not limits.pinned
    assert await recipes.limits_by_name(conn, "sandbox-default", 2) is None
    assert await recipes.limits_by_name(conn, "nope") is None


async def test_the_seeds_are_installed_once_by_whoever_comes_first(database: str, conn: Connection) -> None:
    async def installing() -> list[RecipeRef]:
        async with await psycopg.AsyncConnection.connect(database) as own:
            return await recipes.install_seeds(own)

    installed = [ref for refs in await asyncio.gather(*(installing() for _ in range(4))) for ref in refs]
    assert installed == [RecipeRef(id="compile-default", v="v1")]
    assert (await recipes.get_version(conn, installed[0])).status == "stable"


async def test_the_default_recipe_is_the_newest_active_one(conn: Connection) -> None:
    await recipes.install_seeds(conn)
    newest = await rows(
        conn,
        """
        select rv.id||'@'||rv.v from app.recipe_versions rv join app.recipes r on r.id=rv.id and r.active_v=rv.v
         order by rv.created_at desc limit 1
        """,
    )
    assert newest == [("compile-default@v1",)]


async def test_a_start_by_name_keeps_its_limits_when_the_seeds_are_in(conn: Connection) -> None:
    before = await recipes.limits_by_name(conn, "compile-default")
    await recipes.install_seeds(conn)
    assert await recipes.limits_by_name(conn, "compile-default") == before


async def test_every_version_that_a_database_starts_with_is_addressed_by_its_hash_and_covered(conn: Connection) -> None:
    await recipes.install_seeds(conn)
    versions = await rows(conn, "select id, v, hash, json from app.recipe_versions")
    assert len(versions) == 4
    for id, v, digest, document in versions:
        spec = parse(RecipeSpec, document)
        assert (spec.id, spec.v, identity.recipe_hash(document)) == (id, v, digest)
        assert spec.eval
        version = await recipes.get_version(conn, RecipeRef(id=id, v=v))
        for fixture in spec.fixtures:
            recipes.intent_of(version, fixture.formData)
    assert await rows(conn, "select count(distinct recipe_id) from app.recipe_fixtures") == [(4,)]

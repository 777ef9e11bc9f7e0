"""The recipe registry over HTTP."""

from typing import Any

import httpx
import pytest

from steps.canonical import canonical_json
from steps.contracts.intent import RecipeRef
from steps.recipes import promote_stable, set_candidate
from tests.api.samples import SPEC, Rows, changed


def bundle(*versions: dict[str, Any]) -> dict[str, Any]:
    return {"id": "bundle", "versions": list(versions)}


async def test_an_import_makes_drafts_by_version(client: httpx.AsyncClient, rows: Rows) -> None:
    response = await client.post("/api/recipes/import", json=bundle(changed(SPEC, v="b"), changed(SPEC, v="a")))
    assert response.status_code == 201
    assert response.json()["id"] == "bundle"
    assert [(entry["v"], entry["status"]) for entry in response.json()["versions"]] == [
        ("a", "draft"),
        ("b", "draft"),
    ]
    assert all(set(entry) == {"id", "v", "hash", "status"} for entry in response.json()["versions"])


async def test_importing_the_same_again_changes_nothing(client: httpx.AsyncClient, rows: Rows) -> None:
    before = await rows.counts()
    first, second = [await client.post("/api/recipes/import", json=bundle(SPEC)) for _ in range(2)]
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    assert await rows.counts() == before


async def test_other_content_under_the_same_version_is_a_conflict_of_the_whole_bundle(
    client: httpx.AsyncClient, rows: Rows
) -> None:
    before = await rows.counts()
    response = await client.post("/api/recipes/import", json=bundle(changed(SPEC, v="0"), changed(SPEC, name="other content")))
    assert response.status_code == 409
    assert await rows.counts() == before


async def test_a_stable_version_is_immutable(client: httpx.AsyncClient, rows: Rows) -> None:
    ref = RecipeRef(id="sample", v="1.0.0")
    async with rows.engine.transaction() as conn:
        await set_candidate(conn, ref)
        await promote_stable(conn, ref)
    response = await client.post("/api/recipes/import", json=bundle(SPEC))
    assert response.status_code == 409
    assert response.json()["error"].startswith("stable recipe version is immutable")


@pytest.mark.parametrize(
    "body",
    [
        {"id": "bundle", "versions": []},
        {"id": "bundle"},
        bundle(changed(SPEC, more=1)),
        bundle(changed(SPEC, limits__maxSteps=0)),
        bundle(changed(SPEC, queue="otherQ")),
        bundle(changed(SPEC, eval=[{"id": "e", "kind": "unknown"}])),
        bundle(SPEC) | {"more": 1},
    ],
)
async def test_a_malformed_bundle_is_refused_and_writes_nothing(client: httpx.AsyncClient, rows: Rows, body: Any) -> None:
    before = await rows.counts()
    response = await client.post("/api/recipes/import", json=body)
    assert response.status_code == 400
    assert response.json()["error"].startswith("invalid RecipeBundle: data")
    assert await rows.counts() == before


async def test_an_export_imports_and_exports_to_the_same_bytes(client: httpx.AsyncClient, rows: Rows) -> None:
    exported = await client.post("/api/recipes/export", json={"id": "sample"})
    assert exported.status_code == 200
    assert exported.text == canonical_json({"id": "sample", "versions": [SPEC]})
    assert (await client.post("/api/recipes/import", content=exported.content)).status_code == 201
    assert (await client.post("/api/recipes/export", json={"id": "sample"})).content == exported.content


async def test_an_unknown_recipe_exports_without_versions(client: httpx.AsyncClient) -> None:
    response = await client.post("/api/recipes/export", json={"id": "unknown"})
    assert (response.status_code, response.json()) == (200, {"id": "unknown", "versions": []})
    assert (await client.post("/api/recipes/export", json={})).status_code == 400


async def test_recipes_are_listed_once_with_their_latest_version(client: httpx.AsyncClient, rows: Rows) -> None:
    await client.post("/api/recipes/import", json=bundle(changed(SPEC, v="2.0.0", name="newer")))
    listed = (await client.get("/api/recipes")).json()
    sample = [row for row in listed if row["id"] == "sample"]
    assert [(row["name"], row["latestV"], row["status"]) for row in sample] == [("newer", "2.0.0", "draft")]
    assert set(sample[0]) == {"id", "name", "latestV", "status", "updatedAt"}


async def test_versions_are_listed_latest_first(client: httpx.AsyncClient, rows: Rows) -> None:
    await client.post("/api/recipes/import", json=bundle(changed(SPEC, v="2.0.0")))
    versions = (await client.get("/api/recipes/sample/versions")).json()
    assert [row["v"] for row in versions] == ["2.0.0", "1.0.0"]
    assert set(versions[0]) == {"id", "v", "hash", "status", "createdAt", "evalCount", "fixtureCount"}
    assert (versions[0]["evalCount"], versions[0]["fixtureCount"]) == (1, 1)
    assert (await client.get("/api/recipes/unknown/versions")).json() == []

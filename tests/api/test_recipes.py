"""The recipe registry over HTTP."""

from typing import Any

import httpx
import pytest

from steps.canonical import canonical_json
from steps.contracts.intent import RecipeRef
from steps.promotion import locked, make_stable, set_candidate
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
        await make_stable(conn, await locked(conn, ref))
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


@pytest.mark.parametrize(
    ("change", "place", "sentence"),
    [
        ({"formSchema__type": "array"}, "/versions/0/formSchema", "must be a schema of type object"),
        ({"formSchema__properties": 1}, "/versions/0/formSchema", "must be JSON Schema 2020-12"),
        ({"formSchema": {"$ref": "https://elsewhere.example/x"}}, "/versions/0/formSchema", "can't refer to another document"),
        (
            {"eval": [{"id": "e", "kind": "regex", "artifact": "a", "re": "(?=x)"}]},
            "/versions/0/eval/0/re",
            "without lookarounds",
        ),
        (
            {"eval": [{"id": "e", "kind": "jsonschema", "artifact": "a", "schema": {"minimum": "x"}}]},
            "/versions/0/eval/0/schema",
            "(at /minimum)",
        ),
        (
            {"eval": [{"id": "e", "kind": "diff_le", "artifactA": "a", "artifactB": "b", "max": 1e300}]},
            "/versions/0/eval/0/max",
            "<=",
        ),
        ({"intentTmpl__goal": "{{form.goal}}"}, "/versions/0/intentTmpl", "must hold placeholders such as {{formData.a.b}} only"),
        ({"intentTmpl__goal": "{{formData.goal"}, "/versions/0/intentTmpl", "must close each placeholder"),
        (
            {"fixtures": [{"id": "fx", "formData": {"goal": 1}}]},
            "/versions/0",
            "fx does not: invalid formData: formData/goal must be",
        ),
        ({"limits__maxSteps": 2**31}, "/versions/0/limits/maxSteps", "must be <= 2147483647"),
        ({"limits__maxTokens": 2**63}, "/versions/0/limits/maxTokens", "must be <= 2147483647"),
        ({"prompts__compile": "x" * 20_001}, "/versions/0/prompts/compile", "more than 20000 characters"),
        ({"name": "x" * 201}, "/versions/0/name", "more than 200 characters"),
        ({"tags": ["t"] * 51}, "/versions/0/tags", "more than 50 items"),
        (
            {"eval": [{"id": str(n), "kind": "file_exists", "glob": "*"} for n in range(201)]},
            "/versions/0/eval",
            "more than 200 items",
        ),
        ({"fixtures": [{"id": str(n), "formData": {}} for n in range(101)]}, "/versions/0/fixtures", "more than 100 items"),
        ({"formSchema__description": "x" * 262_144}, "/versions/0", "must NOT be larger than 262144 bytes"),
        ({"name": "a\0b"}, "/versions/0", "must not contain the NUL character"),
    ],
)
async def test_a_bundle_that_could_not_work_is_refused_with_its_place_and_writes_nothing(
    client: httpx.AsyncClient, rows: Rows, change: dict[str, Any], place: str, sentence: str
) -> None:
    before = await rows.counts()
    response = await client.post("/api/recipes/import", json=bundle(changed(SPEC, v="2.0.0", **change), changed(SPEC, v="3.0.0")))
    assert response.status_code == 400
    [detail] = response.json()["details"]
    assert (detail["instancePath"], sentence in detail["message"]) == (place, True), detail
    assert await rows.counts() == before


async def test_a_bundle_has_each_version_once_and_not_too_many(client: httpx.AsyncClient, rows: Rows) -> None:
    before = await rows.counts()
    for versions, sentence in (
        ([changed(SPEC, v="2"), changed(SPEC, v="2", name="other")], "must have each version once"),
        ([{} for _ in range(1001)], "must NOT have more than 1000 items"),
        (
            [changed(SPEC, v=str(n), formSchema={"enum": [n, *([0] * 1_990)]}, fixtures=[]) for n in range(26)],
            "must NOT have schemas of more than 50000 values altogether",
        ),
    ):
        response = await client.post("/api/recipes/import", json=bundle(*versions))
        assert response.status_code == 400
        assert sentence in response.json()["error"]
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


async def test_a_version_is_shown_whole(client: httpx.AsyncClient, rows: Rows) -> None:
    shown = (await client.get("/api/recipes/sample/versions/1.0.0")).json()
    assert (shown["v"], shown["status"], shown["active"], shown["spec"]) == ("1.0.0", "draft", False, SPEC)
    assert ("candidateActor" in shown, shown["promotion"]) == (False, None)
    await client.post("/api/recipes/sample/versions/1.0.0/candidate", json={"actor": "ada", "reason": "ready"})
    await rows.fetch(
        """insert into app.recipes (id, name, version, queue_name, max_concurrency, max_steps, max_sandbox_minutes, active_v)
           values ('sample', 'sample', 1, 'intentQ', 1, 1, 1, '1.0.0')"""
    )
    shown = (await client.get("/api/recipes/sample/versions/1.0.0")).json()
    assert (shown["status"], shown["active"]) == ("candidate", True)
    assert (shown["candidateActor"], shown["candidateReason"]) == ("ada", "ready")
    missing = await client.get("/api/recipes/sample/versions/2.0.0")
    assert (missing.status_code, missing.json()) == (404, {"error": "recipe version not found: sample@2.0.0"})


async def test_the_improvements_of_a_recipe_are_listed_newest_first(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.fetch(
        """insert into app.improvements (workflow_id, failed_workflow_id, recipe_id, from_v, actor, reason, status, created_at, ended_at)
           values ('improve:a:1', 'a', 'sample', '1.0.0', 'ada', 'why', 'failed', to_timestamp(1), now()),
                  ('improve:b:1', 'b', 'sample', '1.0.0', 'ada', 'why', 'under_way', to_timestamp(2), null),
                  ('improve:c:1', 'c', 'other', '1.0.0', 'ada', 'why', 'failed', to_timestamp(3), now())"""
    )
    listed = (await client.get("/api/recipes/sample/improvements")).json()
    assert [(one["workflowID"], one["status"]) for one in listed] == [("improve:b:1", "under_way"), ("improve:a:1", "failed")]
    assert (await client.get("/api/recipes/nobody/improvements")).json() == []

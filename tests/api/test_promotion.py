"""Promotion over HTTP: asked for, waited for, refused."""

import asyncio
from collections import Counter
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from steps import promotion
from steps.contracts.intent import RecipeRef
from tests.api.samples import SPEC, Rows, changed

VERSION = "/api/recipes/sample/versions/1.0.0"
BY = {"actor": "ann", "reason": "it is good"}
SOON_S = 20.0


async def candidate(client: httpx.AsyncClient) -> None:
    assert (await client.post(f"{VERSION}/candidate", json=BY)).status_code == 200


async def counts(rows: Rows) -> tuple[Any, ...]:
    return (*await rows.counts(), await rows.value("select count(*) from app.promotions"))


async def test_a_draft_becomes_a_candidate(client: httpx.AsyncClient, rows: Rows) -> None:
    answer = await client.post(f"{VERSION}/candidate", json=BY)
    assert (answer.status_code, answer.json()["status"]) == (200, "candidate")
    assert set(answer.json()) == {"id", "v", "hash", "status"}
    assert await rows.value("select candidate_actor from app.recipe_versions where id = 'sample'") == "ann"


@pytest.mark.usefixtures("_worker")
async def test_a_candidate_is_promoted_by_its_fixtures_and_a_poll_waits_for_the_end(
    client: httpx.AsyncClient, rows: Rows
) -> None:
    await candidate(client)
    begun = await client.post(f"{VERSION}/promote", json=BY)
    assert begun.status_code == 202
    assert set(begun.json()) == {"id", "v", "hash", "status", "promotion"}
    assert begun.json()["status"] == "candidate"
    assert begun.json()["promotion"]["workflowID"] == "promote:sample@1.0.0:1"
    assert begun.json()["promotion"]["status"] == "under_way"
    async with asyncio.timeout(SOON_S):
        ended = (await client.get(f"{VERSION}/promotion?timeoutS=30")).json()
    assert (ended["status"], ended["refusal"], ended["actor"], ended["reason"]) == ("promoted", None, "ann", "it is good")
    assert (ended["fixturesDone"], ended["fixturesTotal"]) == (1, 1)
    assert [(fixture["fixtureId"], fixture["green"], len(fixture["rounds"])) for fixture in ended["fixtures"]] == [
        ("fx1", True, 2)
    ]
    [version] = (await client.get("/api/recipes/sample/versions")).json()
    assert version["status"] == "stable"
    again = await client.post(f"{VERSION}/promote", json=BY)
    assert (again.status_code, again.json()["status"], again.json()["promotion"]) == (200, "stable", None)


@pytest.mark.usefixtures("_worker")
async def test_a_refused_promotion_says_why(client: httpx.AsyncClient, rows: Rows) -> None:
    never = {"id": "never", "kind": "regex", "artifact": "stdout.log", "re": "^no"}
    bundle = {"id": "b", "versions": [changed(SPEC, v="2", eval=[never])]}
    assert (await client.post("/api/recipes/import", json=bundle)).status_code == 201
    assert (await client.post("/api/recipes/sample/versions/2/candidate", json=BY)).status_code == 200
    assert (await client.post("/api/recipes/sample/versions/2/promote", json=BY)).status_code == 202
    async with asyncio.timeout(SOON_S):
        ended = (await client.get("/api/recipes/sample/versions/2/promotion?timeoutS=30")).json()
    assert ended["status"] == "refused"
    assert ended["refusal"] == "fixture fx1 is red: check never says regex:miss:stdout.log"


async def test_a_poll_without_time_answers_at_once_and_one_with_time_looks_seldom(
    client: httpx.AsyncClient, app: Starlette, rows: Rows, statements: Counter[Any]
) -> None:
    await candidate(client)
    await client.post(f"{VERSION}/promote", json=BY)
    statements.clear()
    polls = [asyncio.create_task(client.get(f"{VERSION}/promotion?timeoutS=30")) for _ in range(10)]
    async with asyncio.timeout(SOON_S):
        while app.state.door.waits.watcher_count < 10:
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.5)
        assert (
            statements[promotion.PROMOTION] <= 40
        )  # each once for itself, when it begins to wait, and at the listener's first look
        await rows.fetch("update dbos.workflow_status set status = 'CANCELLED' where workflow_uuid = 'promote:sample@1.0.0:1'")
        answers = [(await poll).json() for poll in polls]
    assert {(answer["status"], answer["refusal"]) for answer in answers} == {
        ("refused", "the promotion was cancelled; promote again")
    }
    assert (await client.get(f"{VERSION}/promotion")).json() == answers[0]


async def test_promoting_twice_finds_the_one_under_way(client: httpx.AsyncClient, rows: Rows) -> None:
    await candidate(client)
    answers = await asyncio.gather(*(client.post(f"{VERSION}/promote", json=BY) for _ in range(5)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.text for answer in answers}) == 1
    assert await rows.value("select count(*) from dbos.workflow_status") == 1


@pytest.mark.parametrize("move", ["candidate", "promote"])
async def test_an_unknown_version_is_not_found(client: httpx.AsyncClient, rows: Rows, move: str) -> None:
    before = await counts(rows)
    answer = await client.post(f"/api/recipes/sample/versions/9/{move}", json=BY)
    assert (answer.status_code, answer.json()) == (404, {"error": "recipe version not found: sample@9"})
    assert await counts(rows) == before


async def test_what_is_not_ready_is_a_conflict_and_writes_nothing(client: httpx.AsyncClient, rows: Rows) -> None:
    bare = {"id": "b", "versions": [changed(SPEC, v="bare", eval=[])]}
    assert (await client.post("/api/recipes/import", json=bare)).status_code == 201
    await client.post("/api/recipes/sample/versions/bare/candidate", json=BY)
    before = await counts(rows)
    for v, sentence in (("1.0.0", "is a draft; make it a candidate first"), ("bare", "it needs at least one of each")):
        answer = await client.post(f"/api/recipes/sample/versions/{v}/promote", json=BY)
        assert answer.status_code == 409
        assert sentence in answer.json()["error"]
    assert await counts(rows) == before


async def test_a_stable_version_does_not_become_a_candidate(client: httpx.AsyncClient, rows: Rows) -> None:
    await candidate(client)
    async with rows.engine.transaction() as conn:
        await promotion.make_stable(conn, await promotion.locked(conn, RecipeRef(id="sample", v="1.0.0")))
    answer = await client.post(f"{VERSION}/candidate", json=BY)
    assert (answer.status_code, answer.json()) == (409, {"error": "stable recipe version is immutable: sample@1.0.0"})


@pytest.mark.parametrize("move", ["candidate", "promote"])
@pytest.mark.parametrize(
    "body", [{}, {"actor": "ann"}, {"reason": "r"}, BY | {"actor": ""}, BY | {"reason": "  "}, BY | {"more": 1}, [], "text"]
)
async def test_who_and_why_must_be_said(client: httpx.AsyncClient, rows: Rows, move: str, body: Any) -> None:
    before = await counts(rows)
    answer = await client.post(f"{VERSION}/{move}", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("invalid ")
    assert await counts(rows) == before


async def test_a_version_that_was_never_promoted_has_no_promotion(client: httpx.AsyncClient, rows: Rows) -> None:
    answer = await client.get(f"{VERSION}/promotion")
    assert (answer.status_code, answer.json()) == (404, {"error": "recipe version sample@1.0.0 was never promoted"})


@pytest.mark.parametrize("query", ["timeoutS=31", "timeoutS=-1", "timeoutS=x", "timeoutS=0.5"])
async def test_a_timeout_out_of_bounds_is_refused(client: httpx.AsyncClient, query: str) -> None:
    assert (await client.get(f"{VERSION}/promotion?{query}")).status_code == 400

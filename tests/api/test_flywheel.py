"""The flywheel over HTTP: what is asked, what is refused, and the chain from a failure to the rerun that goes well."""

import asyncio
from pathlib import Path
from typing import Any, LiteralString

import httpx
import pytest

from engine import Engine
from steps.opencode import ReplayOpenCode
from steps.sandbox import MockSandbox
from tests.api.samples import Rows
from tests.steps.product import WAIT_S, Product
from tests.steps.wheel import FORM, RECIPE

ASK = {"actor": "ada", "reason": "it fails every time"}
COUNTS: LiteralString = """
    select (select count(*) from app.improvements), (select count(*) from app.runs), (select count(*) from app.intents),
           (select count(*) from app.recipe_versions), (select count(*) from dbos.workflow_status)
"""


class Clicks:
    """A person at the front door."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client

    async def json(self, path: str) -> Any:
        answer = await self.client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def start(self, v: str = "1.0.0") -> str:
        asked = {"recipeRef": {"id": "wheel", "v": v}, "formData": FORM, "opts": {"queuePartitionKey": "tenant-1"}}
        answer = await self.client.post("/api/run", json=asked)
        assert answer.status_code in (200, 201), answer.text
        return answer.json()["workflowID"]

    async def gate(self, wid: str) -> Any:
        """The gate at which it waits; a run says that it waits just before."""
        async with asyncio.timeout(WAIT_S):
            while not (gates := [gate for gate in await self.json(f"/api/runs/{wid}/gates") if gate["state"] == "PENDING"]):
                await asyncio.sleep(0.02)
        return gates[0]

    async def reply(self, wid: str, choice: str) -> None:
        gate = await self.gate(wid)
        said = {"payload": {"choice": choice, "actor": "ben"}, "dedupeKey": f"{choice}-1", "origin": "manual"}
        answer = await self.client.post(f"/api/runs/{wid}/gates/{gate['gateKey']}/reply", json=said)
        assert answer.status_code == 200, answer.text

    async def header(self, wid: str, *statuses: str) -> Any:
        """The run's header once it has one of these statuses."""
        async with asyncio.timeout(WAIT_S):
            while (found := await self.json(f"/api/runs/{wid}"))["status"] not in statuses:
                await asyncio.sleep(0.02)
        return found

    async def fail(self) -> str:
        await self.client.post("/api/recipes/import", json={"id": "wheel", "versions": [RECIPE]})
        wid = await self.start()
        await self.reply(wid, "yes")
        await self.header(wid, "ERROR")
        return wid


@pytest.fixture
def clicks(client: httpx.AsyncClient) -> Clicks:
    return Clicks(client)


@pytest.mark.usefixtures("_worker")
async def test_a_person_turns_the_wheel_once(clicks: Clicks) -> None:
    failed = await clicks.fail()
    asked = await clicks.client.post(f"/api/runs/{failed}/improve", json=ASK)
    assert asked.status_code == 202
    improvement = asked.json()["workflowID"]
    assert (asked.json()["status"], asked.json()["failedWorkflowID"], asked.json()["toV"]) == ("under_way", failed, None)
    waiting = await clicks.header(improvement, "WAITING_INPUT")
    assert (waiting["workflowName"], waiting["recipeRef"]) == ("ImproveRecipe", {"id": "wheel", "v": "1.0.0"})
    gate = await clicks.gate(improvement)
    assert "FAIL_ME" in gate["prompt"]["uiHints"]["diff"]
    assert improvement in [row["workflowID"] for row in await clicks.json("/api/hitl/inbox")]
    await clicks.reply(improvement, "yes")
    await clicks.header(improvement, "SUCCESS")
    (chain,) = await clicks.json(f"/api/runs/{failed}/improvements")
    assert (chain["status"], chain["toV"], chain["toStatus"]) == ("published", "1.0.1", "stable")
    await clicks.reply(chain["rerunWorkflowID"], "yes")
    assert (await clicks.header(chain["rerunWorkflowID"], "SUCCESS"))["recipeRef"] == {"id": "wheel", "v": "1.0.1"}
    for wid in (improvement, chain["rerunWorkflowID"], chain["runId"]):
        assert [one["workflowID"] for one in await clicks.json(f"/api/runs/{wid}/improvements")] == [improvement]


@pytest.mark.usefixtures("_worker")
async def test_an_improvement_is_watched_like_any_run(clicks: Clicks) -> None:
    failed = await clicks.fail()
    improvement = (await clicks.client.post(f"/api/runs/{failed}/improve", json=ASK)).json()["workflowID"]
    await clicks.reply(improvement, "no")
    header = await clicks.header(improvement, "ERROR")
    assert header["error"]["message"] == "Improvement rejected: no (rationale: none)"
    steps = await clicks.json(f"/api/runs/{improvement}/steps")
    assert [(step["stepID"], step["name"]) for step in steps] == [("PostmortemST", "postmortem"), ("PatchGenST", "mending")]
    uris = [ref["id"] for ref in steps[1]["artifactRefs"]]
    assert [uri.rpartition("/")[2] for uri in uris] == ["recipe.patch", "recipe-patch.json"]
    assert "wheel@1.0.1" in (await clicks.client.get(f"/api/artifacts/{uris[0]}")).text
    assert any("PostmortemST" in card["id"] for card in await clicks.json(f"/api/runs/{improvement}/proofs"))
    assert (await clicks.client.get(f"/api/runs/{improvement}/repro")).status_code == 200


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "actor"),
        ({"actor": "ada"}, "reason"),
        (ASK | {"actor": " "}, "actor"),
        (ASK | {"version": ""}, "version"),
        (ASK | {"force": True}, "force"),
        (ASK | {"reason": "x" * 2001}, "reason"),
        ([], "ImproveRequest"),
    ],
)
async def test_a_malformed_wish_is_refused(client: httpx.AsyncClient, rows: Rows, body: Any, says: str) -> None:
    answer = await client.post("/api/runs/ih_1/improve", json=body)
    assert answer.status_code == 400 and says in answer.text


async def test_an_unknown_run_is_404(client: httpx.AsyncClient, rows: Rows) -> None:
    assert (await client.post("/api/runs/ih_1/improve", json=ASK)).status_code == 404
    assert (await client.get("/api/runs/ih_1/improvements")).status_code == 404


async def test_a_run_that_nothing_can_be_learnt_from_is_409_and_nothing_is_written(
    clicks: Clicks, engine: Engine, rows: Rows, tmp_path: Path
) -> None:
    await clicks.client.post("/api/recipes/import", json={"id": "wheel", "versions": [RECIPE]})
    queued = await clicks.start()
    posted = await Product(engine, tmp_path, ReplayOpenCode(), MockSandbox()).start("posted on its own")
    before = await counts(engine)
    for wid, why in ((queued, "cannot learn from a run in status queued"), (posted, "not made from a recipe and a form")):
        answer = await clicks.client.post(f"/api/runs/{wid}/improve", json=ASK)
        assert answer.status_code == 409 and why in answer.json()["error"]
    assert await counts(engine) == before


async def counts(engine: Engine) -> Any:
    async with engine.pool.connection() as conn:
        return await (await conn.execute(COUNTS)).fetchone()


@pytest.mark.usefixtures("_worker")
async def test_a_second_wish_finds_the_first_and_a_second_failure_is_told_of_it(clicks: Clicks) -> None:
    failed = await clicks.fail()
    one, two = await asyncio.gather(*(clicks.client.post(f"/api/runs/{failed}/improve", json=ASK) for _ in range(2)))
    assert (one.status_code, two.status_code) == (202, 202)
    assert one.json()["workflowID"] == two.json()["workflowID"]

"""The kill -9 drill's HTTP side."""

import httpx
import pytest

from tests.api.samples import Rows


@pytest.mark.parametrize(("method", "path"), [("POST", "/crashdemo"), ("GET", "/marks"), ("GET", "/marks?wf=")])
async def test_a_drill_without_an_id_is_refused(client: httpx.AsyncClient, method: str, path: str) -> None:
    response = await client.request(method, path)
    assert (response.status_code, response.json()) == (400, {"error": "wf query param required"})


async def test_a_drill_is_accepted_once(client: httpx.AsyncClient, rows: Rows) -> None:
    for _ in range(2):
        response = await client.post("/crashdemo?wf=drill-1")
        assert (response.status_code, response.json()) == (202, {"accepted": True, "workflowId": "drill-1"})
    assert await rows.fetch("select workflow_uuid, name from dbos.workflow_status") == [("drill-1", "CrashDemo")]


async def test_an_id_that_cannot_name_a_workflow_is_refused(client: httpx.AsyncClient, rows: Rows) -> None:
    response = await client.post("/crashdemo?wf=a%0Ab")
    assert response.status_code == 400
    assert "control character" in response.json()["error"]


async def test_the_id_of_a_run_is_no_drill(client: httpx.AsyncClient, rows: Rows) -> None:
    assert (await client.post(f"/crashdemo?wf={await rows.run()}")).status_code == 409


async def test_marks_are_counted(client: httpx.AsyncClient, rows: Rows) -> None:
    assert (await client.get("/marks?wf=drill-1")).json() == {"s1": 0, "s2": 0}
    await rows.fetch("insert into app.marks (run_id, step) values ('drill-1', 's1')")
    assert (await client.get("/marks?wf=drill-1")).json() == {"s1": 1, "s2": 0}

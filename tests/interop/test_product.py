"""Runs of the product under the hands of DBOS's tools: the run's own row follows."""

from pathlib import Path

from tests.docs.conftest import url
from tests.interop.client import Dbos, ForeignProcess
from tests.steps.product import product


async def test_a_run_at_its_gate_is_listed_cancelled_and_resumed(foreign: ForeignProcess, database: str, tmp_path: Path) -> None:
    dbos = Dbos(foreign, url(database))
    async with product(database, tmp_path) as shop:
        wid = await shop.start()
        key = await shop.prompt(wid)
        (row,) = await dbos.workflow("list", "--name", "RunIntent")
        assert (row["workflow_id"], row["class_name"], row["status"]) == (wid, "IntentWorkflow", "PENDING")
        assert await dbos.call("read_stream_offset", wid, "status", 0, timeout_seconds=10) is not None
        await dbos.workflow("cancel", wid)
        assert (await shop.run(wid))["status"] == "canceled"
        await dbos.workflow("resume", wid)
        assert (await shop.run(wid))["status"] in ("queued", "waiting_input")
        await shop.reply(wid, key, choice="yes")
        await shop.result(wid)
        assert (await shop.run(wid))["status"] == "succeeded"
        assert (await dbos.call("get_status", wid))["status"] == "SUCCESS"

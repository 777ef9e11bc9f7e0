"""What a command prints can be read while it runs, under the id of its task, and stands there once."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from api.app import create_app
from api.config import Config
from steps.canonical import sha256_text
from steps.contracts.sandbox import SBXReq, SBXRes
from steps.execute_task import NOT_KEPT, Task, execute_task
from steps.sandbox import OnOutput, Sandbox
from steps.sandboxes.answers import not_run
from steps.sandboxes.conformance import request
from steps.sandboxes.trouble import Trouble
from tests.api.live import SOON_S, served
from tests.sandbox.e2b_service import e2b_service
from tests.sandbox.subjects import local
from tests.steps.product import INSERT_INTENT, INSERT_RUN, Product, product

ROW = "select attempt, err_code, request, response from app.sbx_runs where task_key = %s order by attempt"


async def begin(it: Product, name: str, asked: SBXReq) -> None:
    async with it.engine.transaction() as conn:
        await conn.execute(INSERT_INTENT, (name, "g", "{}"))
        await conn.execute(INSERT_RUN, (name, name, name, None))
        task = Task(name, asked.model_copy(update={"taskKey": name}), 0, name)
        await it.engine.enqueue(execute_task, task, id=name, queue="sbxQ", partition="p", conn=conn)


@asynccontextmanager
async def door(it: Product, dsn: str) -> AsyncIterator[str]:
    app = create_app(it.engine, Config(database_url=dsn, app_version="test"))
    async with app.router.lifespan_context(app), served(app) as base:
        yield base


async def lines(base: str, task: str, kind: str) -> AsyncIterator[Any]:
    async with httpx.AsyncClient(timeout=SOON_S) as client:
        async with client.stream("GET", f"{base}/api/runs/{task}/stream/{kind}") as got:
            async for line in got.aiter_lines():
                yield orjson.loads(line)


@pytest.fixture(params=["local", "e2b"])
def sandbox(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "local":
        yield local(tmp_path)
        return
    with e2b_service(tmp_path) as service:
        yield service.sandbox()


async def test_a_reader_sees_lines_before_the_command_ends(database: str, tmp_path: Path, sandbox: Sandbox) -> None:
    async with product(database, tmp_path, sandbox=sandbox) as it, door(it, database) as base:
        await begin(it, "t", request("echo one; sleep 100; echo two", timeout_ms=120_000))
        told: list[Any] = []
        async for chunk in lines(base, "t", "stdout"):
            told.append(chunk)
            assert await it.rows(ROW, "t") == [], "the command has ended"
            await it.engine.cancel("t")
        assert [(chunk["kind"], chunk["chunk"], chunk["seq"]) for chunk in told] == [("stdout", "one\n", 0)]
        assert (await it.failure("t")).name == "Cancelled"


async def test_the_streams_have_the_whole_text_once(database: str, tmp_path: Path, sandbox: Sandbox) -> None:
    asked = request("for i in 1 2 3; do echo $i; echo e$i >&2; sleep 0.3; done; printf 'no end of line'")
    async with product(database, tmp_path, sandbox=sandbox) as it, door(it, database) as base:
        await begin(it, "t", asked)
        done = await it.engine.result("t", timeout_s=SOON_S)
        assert done["told"] is True
        for kind, text in (("stdout", "1\n2\n3\nno end of line"), ("stderr", "e1\ne2\ne3\n")):
            told = [chunk async for chunk in lines(base, "t", kind)]
            assert "".join(chunk["chunk"] for chunk in told) == text
            assert [chunk["seq"] for chunk in told] == list(range(len(told)))
            assert len(told) > 1


class Scripted:
    """Fails so often, telling something each time, and then succeeds."""

    provider = "scripted"

    def __init__(self, failures: int, *, permanent: bool = False, deaf: bool = False) -> None:
        self._left = failures
        self._permanent = permanent
        self._deaf = deaf
        self.released: list[str] = []

    async def run(self, request: SBXReq, *, attempt: int, key: str, on_output: OnOutput | None = None) -> SBXRes:
        assert on_output is not None
        if not self._deaf:
            await on_output("stdout", f"attempt {attempt}\n")
        if self._left:
            self._left -= 1
            return not_run(request, "scripted", key, Trouble("NET_FAIL", "no service today", permanent=self._permanent))
        return not_run(request, "scripted", key, Trouble("NET_FAIL", "")).model_copy(
            update={"errCode": "NONE", "exit": 0, "stdout": f"attempt {attempt}\n", "stderr": "said\n"}
        )

    async def release(self, key: str) -> None:
        self.released.append(key)


async def test_an_attempt_that_is_made_anew_begins_its_output_anew(database: str, tmp_path: Path) -> None:
    box = Scripted(1)
    async with product(database, tmp_path, sandbox=box) as it, door(it, database) as base:
        await begin(it, "t", request("true"))
        await it.engine.result("t", timeout_s=SOON_S)
        told = [(chunk["chunk"], chunk["seq"]) async for chunk in lines(base, "t", "stdout")]
        assert told == [("attempt 1\n", 0), ("attempt 2\n", 0)]
        rows = await it.rows(ROW, "t")
        assert [(row["attempt"], row["err_code"]) for row in rows] == [(1, "NET_FAIL"), (2, "NONE")]
        assert box.released == ["t:1:2"]


async def test_output_that_was_not_told_while_it_came_is_told_at_the_end(database: str, tmp_path: Path) -> None:
    async with product(database, tmp_path, sandbox=Scripted(0, deaf=True)) as it, door(it, database) as base:
        await begin(it, "t", request("true"))
        await it.engine.result("t", timeout_s=SOON_S)
        assert [(chunk["chunk"], chunk["seq"]) async for chunk in lines(base, "t", "stdout")] == [("attempt 1\n", 0)]
        assert [(chunk["chunk"], chunk["seq"]) async for chunk in lines(base, "t", "stderr")] == [("said\n", 0)]


async def test_values_of_variables_are_in_no_row_and_no_stream(database: str, tmp_path: Path, sandbox: Sandbox) -> None:
    cmd = """echo "key $TOKEN"; printf '{"token": "%s"}' "$TOKEN" > a.json; echo $TOKEN >&2"""
    async with product(database, tmp_path, sandbox=sandbox) as it, door(it, database) as base:
        await begin(it, "t", request(cmd, env={"TOKEN": "s3cret-value"}))
        done = await it.engine.result("t", timeout_s=SOON_S)
        assert (done["result"]["stdout"], done["result"]["stderr"]) == ("key [redacted]\n", "[redacted]\n")
        (file,) = done["result"]["filesOut"]
        assert (file["inline"], file["sha256"]) == ('{"token": "[redacted]"}', sha256_text(file["inline"]))
        (row,) = await it.rows(ROW, "t")
        assert row["request"]["env"] == {"TOKEN": NOT_KEPT}
        assert "s3cret" not in str(row)
        assert [chunk["chunk"] async for chunk in lines(base, "t", "stdout")] == ["key [redacted]\n"]


async def test_what_is_refused_for_good_is_tried_once_and_says_why(database: str, tmp_path: Path) -> None:
    async with product(database, tmp_path, sandbox=Scripted(9, permanent=True)) as it:
        await begin(it, "t", request("true"))
        failure = await it.failure("t")
        assert (failure.name, failure.message) == ("NET_FAIL", "no service today")
        assert len(await it.rows(ROW, "t")) == 1

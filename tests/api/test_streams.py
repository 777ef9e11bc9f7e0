"""Following a run: every change once and in order, over any process, for as long as the run goes on and no longer."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest
from starlette.applications import Starlette

from api import streams
from api.app import create_app
from api.config import Config
from api.http import Door
from engine import Engine
from steps.identity import gate_key, prompt_event, run_id
from steps.retry import retry_run
from tests.api.live import SOON_S, Told, all_events, followed, served, text_at, until
from tests.api.samples import GATE, RUN_ID, START, WID, YES, Rows


@pytest.fixture
async def base(app: Starlette) -> AsyncIterator[str]:
    """The front door on a port. It looks often for what nobody tells it."""
    door: Door = app.state.door
    door.waits._recheck_s = 0.02
    async with served(app) as base:
        yield base


async def start(base: str) -> str:
    async with httpx.AsyncClient(base_url=base) as client:
        return (await client.post("/api/run", json=START)).json()["workflowID"]


async def answer(base: str, engine: Engine, wid: str, choice: str) -> str:
    key = gate_key(run_id(wid), "ApplyPatchST", "approve-plan", 1)
    assert await engine.get_event(wid, prompt_event(key), timeout_s=SOON_S) is not None
    reply = {"payload": {"choice": choice}, "dedupeKey": "key-1", "origin": "manual"}
    async with httpx.AsyncClient(base_url=base) as client:
        assert (await client.post(f"/api/runs/{wid}/gates/{key}/reply", json=reply)).status_code == 200
    return key


def placed(events: list[Told]) -> list[Told]:
    """What has a place of its own in the journal."""
    return [told for told in events if told.name in ("step", "gate", "patch")]


def order(events: list[Told]) -> list[tuple[int, ...]]:
    return [tuple(int(part) for part in (told.id or "").split(".")) for told in placed(events)]


async def record(rows: Rows, number: int, name: str = "someCall", *, workflow_id: str = WID) -> None:
    await rows.fetch(
        """insert into dbos.operation_outputs (workflow_uuid, function_id, function_name, output, serialization,
                                               started_at_epoch_ms, completed_at_epoch_ms)
           values (%s, %s, %s, '1', 'portable_json', 1000, 2000)""",
        workflow_id,
        number,
        name,
    )


async def end(rows: Rows, status: str = "SUCCESS") -> None:
    await rows.fetch("update dbos.workflow_status set status = %s, updated_at = updated_at + 1", status)


async def write(rows: Rows, key: str, *values: object, notify: bool = False) -> None:
    for value in values:
        await rows.fetch(
            """insert into dbos.streams (workflow_uuid, key, value, "offset", serialization)
               select %s, %s, %s, count(*), 'portable_json' from dbos.streams where workflow_uuid = %s and key = %s""",
            WID,
            key,
            orjson.dumps(value).decode(),
            WID,
            key,
        )
    if notify:
        await rows.fetch("select pg_notify('dbos_streams_channel', %s)", f"{WID}::{key}")


# Lines -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_worker", "rows")
async def test_the_status_stream_tells_each_status_as_it_comes_and_ends_with_the_run(base: str, engine: Engine) -> None:
    wid = await start(base)
    told: list[str] = []
    async with httpx.AsyncClient(timeout=SOON_S) as client, client.stream("GET", f"{base}/api/runs/{wid}/stream/status") as lines:
        assert lines.headers["content-type"].startswith("application/x-ndjson")
        async for line in lines.aiter_lines():
            told.append(orjson.loads(line))
            if told == ["running", "waiting_input"]:
                await answer(base, engine, wid, "yes")
    assert told == ["running", "waiting_input", "running", "succeeded"]
    assert await text_at(f"{base}/api/runs/{wid}/stream/status?offset=2") == '"running"\n"succeeded"\n'


@pytest.mark.usefixtures("_worker", "rows")
async def test_a_sandbox_task_streams_its_output_under_its_own_id(base: str, engine: Engine) -> None:
    wid = await start(base)
    await answer(base, engine, wid, "yes")
    await engine.result(wid, timeout_s=SOON_S)
    async with httpx.AsyncClient(base_url=base) as client:
        page = (await client.get(f"/api/runs/{wid}/steps?limit=100")).json()
        (task,) = [row["stepID"] for row in page["steps"] if row["kind"] == "child"]
        text = (await client.get(f"/api/runs/{task}/stream/stdout")).text
    (chunk,) = [orjson.loads(line) for line in text.splitlines()]
    assert (chunk["kind"], chunk["seq"]) == ("stdout", 0)


@pytest.mark.parametrize("notify", [True, False], ids=["by notification", "by re-check"])
async def test_a_stream_is_followed_until_it_is_closed(base: str, app: Starlette, rows: Rows, notify: bool) -> None:
    if notify:
        door: Door = app.state.door
        door.waits._recheck_s = 60
    await rows.run()
    await write(rows, "status", "running")
    lines: list[str] = []
    async with (
        httpx.AsyncClient(timeout=SOON_S) as client,
        client.stream("GET", f"{base}/api/runs/{RUN_ID}/stream/status") as got,
    ):
        async for line in got.aiter_lines():
            lines.append(line)
            if len(lines) == 1:
                await write(rows, "status", {"a": "b\nc"}, "__DBOS_STREAM_CLOSED__", "never shown", notify=notify)
                if not notify:
                    await record(rows, 1)  # as whoever writes a stream does
    assert lines == ['"running"', '{"a":"b\\nc"}']


async def test_a_stream_that_nobody_closes_ends_with_its_workflow(base: str, rows: Rows) -> None:
    await rows.run()
    async with httpx.AsyncClient(timeout=SOON_S) as client, client.stream("GET", f"{base}/api/runs/{WID}/stream/status") as got:
        await write(rows, "status", "running")
        await end(rows, "CANCELLED")
        assert [line async for line in got.aiter_lines()] == ['"running"']


async def test_a_long_stream_is_read_in_parts(client: httpx.AsyncClient, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "BATCH", 2)
    await rows.run(workflow_status="SUCCESS", status="succeeded")
    await write(rows, "out", *range(5))
    assert (await client.get(f"/api/runs/{WID}/stream/out")).text == "0\n1\n2\n3\n4\n"


async def test_a_stream_of_nobody_is_not_found(client: httpx.AsyncClient, rows: Rows) -> None:
    response = await client.get("/api/runs/nobody/stream/status")
    assert (response.status_code, response.json()) == (404, {"error": "run not found"})
    await rows.run()
    assert (await client.get(f"/api/runs/{WID}/stream/status?offset=-1")).status_code == 400


# Events ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_worker", "rows")
async def test_a_run_is_followed_from_its_start_to_its_end(base: str, engine: Engine) -> None:
    wid = await start(base)
    told: list[Told] = []
    async with followed(f"{base}/api/runs/{wid}/stream") as events:
        async for one in events:
            told.append(one)
            if one.name == "gate" and one.data["state"] == "PENDING":
                await answer(base, engine, wid, "yes")
    assert [one.data["stepID"] for one in told if one.name == "step" and one.data["kind"] == "step"] == [
        "CompileST",
        "ApplyPatchST",
        "DecideST",
        "ExecuteST",
    ]
    assert [one.data["state"] for one in told if one.name == "gate"][-1] == "RESOLVED"
    headers = [one.data for one in told if one.name == "run"]
    assert "person" in [header.get("reason", {}).get("code") for header in headers]
    assert (headers[-1]["status"], told[-1]) == ("SUCCESS", Told("end", {"status": "SUCCESS"}, told[-2].id))
    assert order(told) == sorted(order(told))
    assert placed(await all_events(f"{base}/api/runs/{wid}/stream"))[-1] == placed(told)[-1]


@pytest.mark.usefixtures("_worker", "rows")
async def test_whoever_comes_back_goes_on_behind_what_it_saw_over_any_process(base: str, engine: Engine, database: str) -> None:
    wid = await start(base)
    await answer(base, engine, wid, "yes")
    await engine.result(wid, timeout_s=SOON_S)
    whole = placed(await all_events(f"{base}/api/runs/{wid}/stream"))
    assert len(whole) > 8
    other = create_app(engine, Config(database_url=database, app_version="test"))
    async with served(other) as elsewhere:
        for seen in range(len(whole)):
            place = whole[seen].id
            assert place is not None
            rest = [told for told in whole[seen + 1 :] if told.id != place]
            url = f"{elsewhere}/api/runs/{wid}/stream"
            assert placed(await all_events(f"{url}?after={place}")) == rest
            assert placed(await all_events(f"{url}?after=0.0", **{"last-event-id": place})) == rest


@pytest.mark.usefixtures("_worker", "rows")
async def test_a_client_that_is_cut_off_again_and_again_misses_and_repeats_nothing(
    base: str, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "GAP_S", 0)
    wid = await start(base)
    told: list[Told] = []
    while not told or told[-1].name != "end":
        headers = {"last-event-id": told[-1].id} if told and told[-1].id else {}
        async with asyncio.timeout(SOON_S), followed(f"{base}/api/runs/{wid}/stream", **headers) as events:
            before = told[-1].id if told else None
            async for one in events:
                told.append(one)
                if one.name == "gate" and one.data["state"] == "PENDING":
                    await answer(base, engine, wid, "yes")
                if one.id != before:
                    break
    assert order(told) == sorted(order(told))
    said = [(one.name, orjson.dumps(one.data)) for one in placed(told)]
    assert len(said) == len(set(said))
    last = {(one.name, one.data.get("stepID") or one.data.get("gateKey")): one.data for one in placed(told)}
    whole = placed(await all_events(f"{base}/api/runs/{wid}/stream"))
    assert last == {(one.name, one.data.get("stepID") or one.data.get("gateKey")): one.data for one in whole}


@pytest.mark.parametrize("notify", [True, False])
async def test_an_answer_is_told_before_the_run_has_taken_it(base: str, app: Starlette, rows: Rows, notify: bool) -> None:
    """By the message's notification, where it comes, long before the next look."""
    app.state.door.waits._recheck_s = 3600.0 if notify else 0.02
    await rows.waiting_gate()
    told: list[Told] = []
    async with followed(f"{base}/api/runs/{WID}/stream") as events:
        async for one in events:
            if one.name == "run" and not told:
                async with httpx.AsyncClient(base_url=base) as client:
                    assert (await client.post(f"/api/runs/{WID}/gates/{GATE}/reply", json=YES)).status_code == 200
                if not notify:
                    await end(rows, "PENDING")
            if one.name == "gate" and one.data["origin"] is not None:
                told.append(one)
                break
    assert [(one.data["state"], one.data["origin"], one.id) for one in told] == [("PENDING", "manual", told[0].id)]


async def test_what_is_recorded_later_is_told_and_nothing_twice(base: str, rows: Rows) -> None:
    await rows.run()
    await record(rows, 1, "call-1")
    seen: list[tuple[str, str | None]] = []
    async with followed(f"{base}/api/runs/{WID}/stream") as events:
        async for one in events:
            if one.name == "step":
                seen.append((one.data["stepID"], one.id))
                if len(seen) < 4:
                    await record(rows, len(seen) + 1, f"call-{len(seen) + 1}")
                else:
                    await end(rows)
    assert seen == [(f"call-{number}", f"0.{number}") for number in range(1, 5)]


async def test_what_is_recorded_while_a_client_is_told_of_something_else_is_not_passed_over(
    base: str, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step and then a gate, recorded between the look for steps and the look for gates."""
    await rows.run()
    await rows.gate()
    await record(rows, 1, "first")
    read = streams.news

    async def interrupted(*args: Any, **given: Any) -> Any:
        found = await read(*args, **given)
        if given["after"] < 1:
            await record(rows, 2, "second")
            await rows.fetch("insert into dbos.workflow_events_history values (%s, 3, %s, '{}')", WID, f"ui:{GATE}")
            await record(rows, 3, "DBOS.setEvent")
        else:
            await end(rows)
        return found

    monkeypatch.setattr(streams, "news", interrupted)
    told = await all_events(f"{base}/api/runs/{WID}/stream")
    assert [(one.name, one.data.get("stepID", GATE)) for one in placed(told)] == [
        ("step", GATE),  # without a prompt it has no place of its own yet
        ("step", "first"),
        ("step", "second"),
        ("step", GATE),
        ("gate", GATE),
    ]


async def test_a_retry_takes_records_back_and_says_so(base: str, engine: Engine, rows: Rows) -> None:
    await rows.run("retries_exceeded", workflow_status="ERROR")
    for number, name in enumerate(("loadRun", "CompileST", "ApplyPatchST", "openGate"), 1):
        await record(rows, number, name)
    await rows.fetch(
        "insert into app.run_steps (run_id, step_id, phase) values (%s, 'CompileST', 'compilation')",
        RUN_ID,
    )
    assert (await retry_run(engine, WID)).from_step == "ApplyPatchST"
    await end(rows)
    told = await all_events(f"{base}/api/runs/{WID}/stream?after=0.4")
    assert [one.name for one in told] == ["run", "reset", "step", "step", "end"]
    assert [(one.data["stepID"], one.id) for one in placed(told)] == [("loadRun", "1.1"), ("CompileST", "1.2")]
    for number, name in enumerate(("other", "DecideST", "another"), 3):
        await record(rows, number, name)
    told = await all_events(f"{base}/api/runs/{WID}/stream?after=0.4")
    assert [one.name for one in told] == ["run", "reset", *["step"] * 5, "end"]


async def test_a_budget_that_stops_a_run_is_told_once(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.run("retries_exceeded", workflow_status="ERROR")
    await record(rows, 1, "planTasks")
    await record(rows, 2, "DBOS.writeStream")
    await record(rows, 3, "DBOS.closeStream")
    await rows.fetch(
        """insert into dbos.streams (workflow_uuid, key, value, "offset", function_id)
           values (%s, 'status', '"failed"', 0, 2), (%s, 'status', '"__DBOS_STREAM_CLOSED__"', 1, 3)""",
        WID,
        WID,
    )
    await rows.fetch(
        """insert into app.artifacts (run_id, step_id, task_key, idx, kind, uri, inline, sha256)
           values (%s, 'BUDGET', 'maxFanout', 0, 'json_diagnostic', 'u', '{}', '')""",
        RUN_ID,
    )
    whole = (await client.get(f"/api/runs/{WID}/stream")).text
    assert [line for line in whole.splitlines() if line.startswith("id: ")] == ["id: 0.1", "id: 0.2"]
    assert whole.count('"stepID":"BUDGET","name":"budget"') == 1
    assert "BUDGET" not in (await client.get(f"/api/runs/{WID}/stream?after=0.2")).text


async def test_patches_are_told_when_they_are_made_and_when_they_are_taken_back(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.run("retries_exceeded", workflow_status="ERROR")
    await record(rows, 1, "ApplyPatchST")
    for index in (0, 1):
        await rows.fetch(
            """insert into app.patch_history (run_id, step_id, patch_index, target_path, preimage_hash, postimage_hash, diff_hash,
                                              preimage_content, postimage_content)
               values (%s, 'ApplyPatchST', %s, 'a.txt', '', '', '', 'a', 'b')""",
            RUN_ID,
            index,
        )
    said = (await client.get(f"/api/runs/{WID}/stream")).text
    assert [line for line in said.splitlines() if line.startswith(("id", "event"))] == [
        "event: run",
        "event: step",
        "event: patch",
        "id: 0.1",
        "event: patch",
        "event: end",
    ]
    await record(rows, 2, "rollBackPatches")
    later = (await client.get(f"/api/runs/{WID}/stream?after=0.1")).text
    assert later.count("event: patch") == 2


async def test_a_header_comes_again_when_a_worker_comes_or_goes(base: str, rows: Rows) -> None:
    await rows.run("queued", workflow_status="ENQUEUED")
    codes: list[str] = []
    async with followed(f"{base}/api/runs/{WID}/stream") as events:
        async for one in events:
            assert (one.name, one.id) == ("run", None)
            codes.append(one.data["reason"]["code"])
            if codes == ["no-worker"]:
                await rows.fetch("insert into engine.worker values ('w', engine.now_ms() + 60000, 0, false, 'v1', 'here')")
            else:
                break
    assert codes == ["no-worker", "queued"]


async def test_an_idle_stream_shows_that_it_is_alive(base: str, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "HEARTBEAT_S", 0.05)
    await rows.run()
    async with httpx.AsyncClient(timeout=SOON_S) as client, client.stream("GET", f"{base}/api/runs/{WID}/stream") as response:
        beats = 0
        async for line in response.aiter_lines():
            beats += line == ":"
            if beats == 2:
                break


async def test_many_changes_are_told_in_parts_of_bounded_size(
    client: httpx.AsyncClient, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "BATCH", 3)
    await rows.run("succeeded", workflow_status="SUCCESS")
    for number in range(1, 9):
        await record(rows, number, f"call-{number}")
    text = (await client.get(f"/api/runs/{WID}/stream")).text
    assert [line for line in text.splitlines() if line.startswith("id: ")] == [f"id: 0.{n}" for n in range(1, 9)]


@pytest.mark.parametrize("after", ["x", "1", "1.", "-1.2", "0.1.2", "0." + "9" * 10])
async def test_a_place_that_is_none_is_refused(client: httpx.AsyncClient, rows: Rows, after: str) -> None:
    await rows.run()
    assert (await client.get(f"/api/runs/{WID}/stream?after={after}")).status_code == 400
    assert (await client.get(f"/api/runs/{WID}/stream", headers={"last-event-id": after})).status_code == 400
    assert (await client.get("/api/runs/nobody/stream")).status_code == 404


async def test_a_server_that_stops_ends_its_streams_and_a_client_that_leaves_is_forgotten(
    engine: Engine, database: str, rows: Rows
) -> None:
    await rows.run()
    draining = asyncio.Event()
    app = create_app(engine, Config(database_url=database), draining=draining)
    door: Door = app.state.door
    async with served(app) as base:
        async with followed(f"{base}/api/runs/{WID}/stream"):
            await until(lambda: door.waits.watcher_count == 1)
        await until(lambda: door.waits.watcher_count == 0)
        following = [asyncio.create_task(all_events(f"{base}/api/runs/{WID}/stream")) for _ in range(3)]
        reading = asyncio.create_task(text_at(f"{base}/api/runs/{WID}/stream/status"))
        await until(lambda: door.waits.watcher_count == 4)
        draining.set()
        async with asyncio.timeout(SOON_S):
            assert {tuple(one.name for one in told) for told in await asyncio.gather(*following)} == {("run",)}
            assert await reading == ""


async def test_a_place_is_handed_out_with_the_rows(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.run("succeeded", workflow_status="SUCCESS")
    await record(rows, 1, "CompileST")
    await record(rows, 2, "other")
    listed = await client.get(f"/api/runs/{WID}/steps")
    assert listed.headers["x-cursor"] == "0.2"
    assert (await client.get(f"/api/runs/{WID}/steps?limit=1")).json()["cursor"] == "0.2"
    assert "event: step" not in (await client.get(f"/api/runs/{WID}/stream?after=0.2")).text


async def test_what_has_no_place_yet_is_told_at_the_start_only(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.run("succeeded", workflow_status="SUCCESS")
    await rows.gate()
    await record(rows, 1, "DBOS.now")
    whole, rest = [(await client.get(f"/api/runs/{WID}/stream{query}")).text for query in ("", "?after=0.0")]
    assert ("id: 0.0" in whole, "event: step" in rest) == (True, False)


# Hints -------------------------------------------------------------------------------------------------------


async def test_a_board_hears_that_something_changed_and_what_it_missed_while_it_was_away(
    base: str, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a notification, long before the next look of its own."""
    monkeypatch.setattr(streams, "LOOK_S", 3600.0)
    monkeypatch.setattr(streams, "HINT_GAP_S", 0.0)
    url = f"{base}/api/ops/stream"
    told: list[Told] = []
    async with followed(url) as events:
        async for one in events:
            told.append(one)
            if len(told) == 2:
                break
            await rows.run()
            await rows.fetch("select pg_notify('dbos_workflow_events_channel', 'somebody::status')")
    (here, changed) = told
    assert (here.name, changed.name) == ("here", "changed")
    assert int(here.id or "") < int(changed.id or "")
    async with followed(f"{url}?after={here.id}") as events:
        assert (await anext(events)).name == "changed"
    async with followed(f"{url}?after=1", **{"last-event-id": here.id or ""}) as events:
        assert int((await anext(events)).id or "") >= int(changed.id or "")


async def test_a_board_is_told_within_seconds_of_what_nobody_notified(
    base: str, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "LOOK_S", 0.01)
    monkeypatch.setattr(streams, "HINT_GAP_S", 0.0)
    async with followed(f"{base}/api/ops/stream") as events:
        assert (await anext(events)).name == "here"
        await rows.run()
        assert (await anext(events)).name == "changed"

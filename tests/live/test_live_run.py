"""A recipe becomes a run that a real agent's server plans, a person approves, and a real sandbox tests."""

import asyncio
import re
from itertools import pairwise

from steps import identity
from tests.docs.pages import DOCS, blocks
from tests.live.scene import COUNT, SOON_S, TEST, WRONG, Scene, script

PAGE = DOCS / "live.md"


async def test_a_run_with_nothing_pretended_but_the_model(live: Scene) -> None:
    live.model.reset(script())
    with live.worker():
        wid = await live.start("Ada")
        gate = await live.gate(wid)
        assert gate
        assert (live.workspace / "count.py").read_text() == COUNT
        assert [asked.is_for_plan for asked in live.model.asked] == [True]
        assert await live.rows("select 1 from app.sbx_runs") == [], "a command ran before anybody approved"
        await live.approve(wid)
        done = await live.engine.result(wid, timeout_s=SOON_S)
    assert done["status"] == "succeeded"
    run_id = identity.run_id(wid)
    assert {path.name: path.read_text() for path in live.workspace.iterdir()} == {"count.py": COUNT, "test_count.py": TEST}

    calls = await live.rows("select * from app.opencode_calls order by created_at, op_key")
    assert [(call["step_id"], call["agent"], call["state"], call["error"]) for call in calls] == [
        ("CompileST", "plan", "answered", None),
        ("DecideST", "build", "answered", None),
    ]
    assert len({call["session_id"] for call in calls}) == 2
    assert len(live.model.asked) == 2
    assert live.busy_sessions() == {}

    (row,) = await live.rows("select provider, err_code, request, response from app.sbx_runs")
    assert (row["provider"], row["err_code"]) == ("local", "NONE")
    assert row["response"]["stdout"] == "ran 3 cases, 0 failed\n"
    assert [file["path"] for file in row["request"]["filesIn"]] == ["count.py", "intent.json", "test_count.py"]
    patches = await live.rows("select target_path, preimage_hash, applied_at, rolled_back_at from app.patch_history order by 1")
    assert [(one["target_path"], one["applied_at"] is not None, one["rolled_back_at"]) for one in patches] == [
        ("count.py", True, None),
        ("test_count.py", True, None),
    ]

    artifacts = await live.rows("select kind, uri, inline from app.artifacts where step_id = 'ExecuteST'")
    (report,) = [one for one in artifacts if one["uri"].endswith("files/report.json")]
    assert '"failed": []' in report["inline"]["text"]
    verdicts = (await live.door.get(f"/api/runs/{wid}/eval")).json()
    assert {one["checkId"]: one["pass"] for one in verdicts} == {"report-is-green": True, "says-so": True}
    for secret in (live.opencode.password, "sk-stand-in"):
        assert secret not in live.log()
        assert secret not in str(calls) + str(row) + str(artifacts)
    await assert_the_page_is_right(live, run_id)


async def assert_the_page_is_right(live: Scene, run_id: str) -> None:
    """Every SQL block of the page answers for this run what the page says."""
    listed = blocks(PAGE)
    checked = 0
    for block, output in pairwise(listed):
        if block.language != "psql":
            continue
        assert output.is_output, block.place
        query = block.text.replace(":'run'", f"'{run_id}'").encode()
        async with live.engine.pool.connection() as conn:
            rows = await (await conn.execute(query)).fetchall()
        said = "\n".join("|".join("" if value is None else str(value) for value in row) for row in rows)
        wanted = "[^\n]*".join(re.escape(part) for part in output.text.strip().split("…"))
        assert re.fullmatch(wanted, said), f"{block.place}:\n{said}"
        checked += 1
    assert checked >= 4


async def test_a_test_that_fails_takes_the_change_back(live: Scene) -> None:
    live.model.reset(script("python3 test_count.py; exit 7"))
    with live.worker():
        wid = await live.start("Grace")
        await live.approve(wid)
        async with asyncio.timeout(SOON_S):
            while (await live.door.get(f"/api/runs/{wid}")).json()["status"] not in ("SUCCESS", "ERROR"):
                await asyncio.sleep(0.05)
    view = (await live.door.get(f"/api/runs/{wid}")).json()
    assert (view["status"], view["error"]["message"]) == ("ERROR", "SBX execution failed [CMD_NONZERO]")
    assert {path.name: path.read_text() for path in live.workspace.iterdir()} == {"count.py": WRONG}
    (row,) = await live.rows("select response from app.sbx_runs")
    assert row["response"]["exit"] == 7

"""The page that the server sends: every address, what it comes with, and what a browser may do with it."""

from typing import Any

import httpx
import pytest

from api import tokens
from api.console.boot import BOARDS, FIRST_ROWS, TABS
from engine import Engine
from tests.api.samples import RUN_ID, START, WID, Rows, changed
from tests.console.page import directives, page_at

NASTY = "</script><img src=x onerror=alert(1)>\u2028"


@pytest.mark.parametrize("board", BOARDS)
async def test_every_board_has_its_page(client: httpx.AsyncClient, board: str) -> None:
    page = await page_at(client, f"/?board={board}")
    assert page.boot["missing"] is None
    assert page.boot["run"] is None


@pytest.mark.parametrize("tab", TABS)
async def test_every_tab_of_a_run_is_a_deep_link(client: httpx.AsyncClient, rows: Rows, tab: str) -> None:
    await rows.run("waiting_input")
    page = await page_at(client, f"/?wid={WID}&board=run&tab={tab}")
    assert page.boot["run"]["header"]["workflowID"] == WID
    assert page.boot["missing"] is None


async def test_a_run_may_be_named_by_its_run_id(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.run()
    assert (await page_at(client, f"/?wid={RUN_ID}")).boot["run"]["header"]["workflowID"] == WID


@pytest.mark.parametrize(
    ("address", "missing"),
    [
        ("/?board=nope", "board"),
        ("/?wid=nope", "run"),
        (f"/?wid={WID}&tab=nope", "tab"),
        ("/?wid=nope&board=run&tab=proof", "run"),
    ],
)
async def test_what_is_not_there_is_not_guessed(client: httpx.AsyncClient, rows: Rows, address: str, missing: str) -> None:
    await rows.run()
    page = await page_at(client, address, status=404)
    assert page.boot["missing"] == missing
    assert f"There is no such {missing}" in page.text


async def test_the_header_is_drawn_before_any_script_runs(client: httpx.AsyncClient, rows: Rows) -> None:
    started = (await client.post("/api/run", json=START)).json()
    page = await page_at(client, f"/?wid={started['workflowID']}")
    assert "alpha" in page.text
    assert "Queued" in page.text
    assert page.boot["run"]["header"]["reason"]["sentence"] in page.text


async def test_the_page_comes_with_the_first_rows_and_the_place_where_events_go_on(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.run()
    await rows.fetch(
        """insert into dbos.operation_outputs (workflow_uuid, function_id, function_name, output, completed_at_epoch_ms)
           select %s, i, 'call-' || i, '1', 1000 + i from generate_series(1, 300) i""",
        WID,
    )
    run = (await page_at(client, f"/?wid={WID}")).boot["run"]
    assert (len(run["steps"]), run["total"], run["cursor"]) == (FIRST_ROWS, 300, "0.300")
    rest = (await client.get(f"/api/runs/{WID}/steps?offset={FIRST_ROWS}&limit=5000")).json()["steps"]
    assert [row["stepID"] for row in [*run["steps"], *rest]] == [f"call-{i}" for i in range(1, 301)]


async def test_the_page_says_how_many_gates_are_open_and_what_the_clock_is(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.waiting_gate()
    await rows.fetch("insert into engine.clock (now_ms) values (86400000)")
    boot = (await page_at(client, f"/?wid={WID}&tab=gate")).boot
    assert (boot["inbox"], boot["now"]) == (1, 86_400_000)
    assert [gate["state"] for gate in boot["run"]["gates"]] == ["PENDING"]


async def test_what_a_run_is_called_cannot_leave_its_place_in_the_page(client: httpx.AsyncClient, rows: Rows) -> None:
    started = (await client.post("/api/run", json=changed(START, formData__goal=NASTY))).json()
    answer = await client.get(f"/?wid={started['workflowID']}")
    assert "<img" not in answer.text
    assert (await page_at(client, f"/?wid={started['workflowID']}")).boot["run"]["header"]["subject"] == NASTY


async def test_the_policy_lets_a_browser_run_nothing_but_our_files(client: httpx.AsyncClient) -> None:
    answer = await client.get("/")
    assert directives(answer.headers["content-security-policy"]) == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "connect-src": "'self'",
        "img-src": "'self' data:",
        "font-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_nothing_in_the_page_needs_a_laxer_policy(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.waiting_gate()
    for address in ("/", "/?board=ops", f"/?wid={WID}&tab=gate"):
        page = await page_at(client, address)
        assert (page.inline, page.styles, page.handlers) == ([], [], [])
        assert [where for where in page.addresses if not where.startswith("/")] == []


async def test_other_methods_of_the_root_are_not_found(client: httpx.AsyncClient) -> None:
    for method in ("POST", "PUT", "DELETE"):
        answer = await client.request(method, "/")
        assert (answer.status_code, answer.json()) == (404, {"error": "not found"})


@pytest.mark.parametrize(
    ("prefix", "base"), [("/console", "/console"), ("/a/b-c/", "/a/b-c"), ("//evil.example", ""), ('/"><script>', ""), ("x", "")]
)
async def test_behind_a_proxy_all_addresses_stand_under_its_prefix(client: httpx.AsyncClient, prefix: str, base: str) -> None:
    page = await page_at(client, "/", headers={"x-forwarded-prefix": prefix})
    assert page.boot["base"] == base
    known = (f"{base}/", f"{base}/docs")
    assert [
        one for one in page.addresses if not one.startswith((f"{base}/static/", f"{base}/?board=")) and one not in known
    ] == []


async def test_mounted_below_a_path_the_server_knows_it_by_itself(app: Any) -> None:
    transport = httpx.ASGITransport(app, root_path="/below")
    async with httpx.AsyncClient(transport=transport, base_url="http://front-door") as client:
        page = await page_at(client, "/below/?board=ops")
    assert page.boot["base"] == "/below"


async def test_for_somebody_unknown_it_is_the_page_to_sign_in_at_and_holds_nothing(
    client: httpx.AsyncClient, engine: Engine, rows: Rows
) -> None:
    await rows.waiting_gate()
    async with engine.transaction() as conn:
        token = await tokens.create(conn, "ben", ["viewer"], groups=[], expires_in_s=None)
    page = await page_at(client, f"/?wid={WID}", status=401)
    assert page.boot == {
        "base": "",
        "now": page.boot["now"],
        "session": None,
        "service": {},
        "inbox": None,
        "run": None,
        "missing": None,
    }
    assert "Sign in" in page.text
    known = await page_at(client, f"/?wid={WID}", headers={"authorization": f"Bearer {token}"})
    assert (known.boot["session"]["name"], known.boot["session"]["rights"]) == ("ben", ["read"])
    assert known.boot["run"]["header"]["workflowID"] == WID

"""Who may do what at the front door."""

import base64
import hashlib
import hmac
import re
import time
from collections.abc import Mapping
from typing import Any, get_args

import httpx
import pytest
from starlette.applications import Starlette

from api import access, tokens, waiting, webhooks
from api.access import RIGHTS, Caller, Doorkeeper, Right, needed
from api.app import ROUTES, create_app
from api.config import Config
from api.console import ROUTES as CONSOLE
from api.pace import Pace, TooMany
from api.tokens import ROLES, Role
from bin.settings import ROOT
from engine import Engine
from steps.contracts.recipe import RecipeBundle, RecipeSpec
from steps.identity import human_topic
from steps.recipes import import_bundle
from tests.api.samples import GATE, SPEC, START, WID, YES, Rows, changed

PAGE = ROOT / "docs" / "access.md"
TABLE = "| route | no token | viewer | approver | operator | admin |"
REPLY = f"/api/runs/{WID}/gates/{GATE}/reply"
CANCEL = f"/api/ops/wf/{WID}/cancel"
CANCELS = {"reason": "test", "actor": "somebody else"}
SECRET = webhooks.PREFIX + base64.b64encode(b"k" * 32).decode()
EVENT: dict[str, Any] = {"workflowId": WID, "gateKey": GATE, "topic": human_topic(GATE)} | changed(YES, origin="webhook")


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens are read anew for every request."""
    monkeypatch.setattr(access, "FRESH_S", 0.0)


async def token(engine: Engine, role: Role, *groups: str, name: str = "ben", expires_in_s: float | None = None) -> dict[str, str]:
    """The header of a new token."""
    async with engine.transaction() as conn:
        text = await tokens.create(conn, name, [role], groups=list(groups), expires_in_s=expires_in_s)
    return {"authorization": f"Bearer {text}"}


# Routes and roles


def address_of(path: str) -> str:
    """A route's address, of things that are not there."""
    return re.sub(r"{[^}]*}", "none", path)


async def outcome(client: httpx.AsyncClient, method: str, path: str, headers: Mapping[str, str]) -> str:
    status = (await client.request(method, address_of(path), headers=headers)).status_code
    return str(status) if status in (401, 403) else "yes"


def table(outcomes: Mapping[str, list[str]]) -> str:
    lines = [f"| `{route}` | {' | '.join(found)} |" for route, found in outcomes.items()]
    return "\n".join([TABLE, "|" + "---|" * 6, *lines])


async def test_every_route_asks_for_its_right(client: httpx.AsyncClient, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's table is what was found here; where it is not, the failure shows the right one."""
    monkeypatch.setattr(waiting, "MOST_WATCHERS", 0)  # so that no stream begins, which would not end
    nobody: Mapping[str, str] = {}
    headers = [nobody, *[await token(engine, role) for role in ROLES]]
    found = {
        f"{method} {path}": [await outcome(client, method, path, header) for header in headers]
        for method, path, _ in (*ROUTES, *CONSOLE)
    }
    for (method, path), outcomes in zip(((m, p) for m, p, _ in (*ROUTES, *CONSOLE)), found.values(), strict=True):
        right = needed(method, path)
        if right is not None:
            allowed = ["yes" if right in RIGHTS[role] else "403" for role in ROLES]
            assert outcomes == ["401", *allowed], (method, path)
    assert table(found) in PAGE.read_text(), f"the table in {PAGE.name} is another one:\n{table(found)}"


def test_every_route_that_changes_something_is_given_its_right_by_name() -> None:
    served = {(method, path) for method, path, _ in (*ROUTES, *CONSOLE)}
    assert set(access.NEEDS) <= served
    unnamed = {(m, p) for m, p in served if m not in access.SAFE and (m, p) not in access.NEEDS}
    assert {needed(*route) for route in unnamed} == {"administer"}
    assert unnamed == {
        ("POST", "/api/recipes/{recipe_id}/versions/{v}/promote"),
        ("POST", "/api/ops/sleep"),
        ("POST", "/crashdemo"),
        ("POST", "/slowstep"),
    }


def test_a_caller_may_what_any_of_its_roles_allows() -> None:
    both = Caller("ben", ("approver", "operator"))
    assert [right for right in get_args(Right) if both.may(right)] == ["read", "answer", "operate"]


# Tokens


async def test_without_any_token_nobody_is_asked(client: httpx.AsyncClient, rows: Rows) -> None:
    assert (await client.post("/api/run", json=START)).status_code == 201
    assert (await client.get("/api/session")).json() == {
        "name": None,
        "roles": ["admin"],
        "groups": [],
        "rights": ["read", "answer", "operate", "administer"],
    }


async def test_the_first_token_closes_the_door_and_revoking_it_does_not_open_it(
    client: httpx.AsyncClient, engine: Engine, rows: Rows
) -> None:
    header = await token(engine, "viewer")
    refused = await client.get("/api/recipes")
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    assert refused.json() == {"error": "send a token as 'Authorization: Bearer …', or sign in; bin/token makes one"}
    assert (await client.get("/api/recipes", headers=header)).status_code == 200
    async with engine.transaction() as conn:
        (made,) = await tokens.every(conn)
        await tokens.revoke(conn, made.id)
    assert (await client.get("/api/recipes", headers=header)).status_code == 401
    assert (await client.get("/api/recipes")).status_code == 401


async def test_a_token_that_has_expired_or_was_changed_is_refused(client: httpx.AsyncClient, engine: Engine) -> None:
    late, good = await token(engine, "admin", expires_in_s=-1), await token(engine, "admin", expires_in_s=60)
    assert (await client.get("/api/recipes", headers=late)).status_code == 401
    assert (await client.get("/api/recipes", headers=good)).status_code == 200
    for wrong in (good["authorization"][:-1], good["authorization"] + "a", "Bearer ", "Basic abc", "Bearer ü"):
        assert (await client.get("/api/recipes", headers={"authorization": wrong.encode("latin-1")})).status_code == 401  # type: ignore[dict-item]


async def test_only_the_hash_of_a_token_is_kept(engine: Engine, rows: Rows) -> None:
    header = await token(engine, "admin")
    text = header["authorization"].removeprefix("Bearer ")
    assert re.fullmatch(r"hf_[a-z2-9]{8}_[\w-]{43}", text)
    (kept,) = await rows.fetch("select t::text from app.api_tokens t")
    assert text.rsplit("_", 1)[0].split("_")[1] in kept[0]
    assert text.split("_", 2)[2] not in kept[0]


async def test_between_two_looks_at_the_tokens_the_last_look_counts(
    client: httpx.AsyncClient, app: Starlette, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = await token(engine, "viewer")
    assert (await client.get("/api/recipes", headers=header)).status_code == 200
    monkeypatch.setattr(access, "FRESH_S", 1000.0)
    async with engine.transaction() as conn:
        (made,) = await tokens.every(conn)
        await tokens.revoke(conn, made.id)
    assert (await client.get("/api/recipes", headers=header)).status_code == 200
    keeper: Doorkeeper = app.state.door.keeper
    keeper._read_at -= 1000
    assert (await client.get("/api/recipes", headers=header)).status_code == 401
    async with engine.pool.connection() as conn:
        (used,) = await tokens.every(conn)
    assert used.last_used_at is not None


async def test_a_door_that_other_machines_can_reach_is_closed_without_tokens(engine: Engine, database: str) -> None:
    app = create_app(engine, Config(database_url=database, open_without_tokens=False))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://front-door") as client:
        assert (await client.get("/api/recipes")).status_code == 401
        assert (await client.get("/healthz")).status_code == 200


# Who acted


async def test_what_was_done_is_written_down_as_of_the_one_who_did_it(
    client: httpx.AsyncClient, engine: Engine, rows: Rows
) -> None:
    await rows.waiting_gate()
    operator, approver = await token(engine, "operator", name="olga"), await token(engine, "approver", name="ann")
    lies = changed(YES, payload={"choice": "yes", "actor": "somebody else"})
    assert (await client.post(REPLY, json=lies, headers=approver)).status_code == 200
    assert (await client.post(CANCEL, json=CANCELS, headers=operator)).status_code == 202
    assert await rows.fetch("select payload ->> 'actor' from app.human_interactions") == [("ann",)]
    assert await rows.fetch("select inline ->> 'actor' from app.artifacts where step_id = 'OPS'") == [("olga",)]


async def test_without_tokens_the_actor_is_who_the_caller_says(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.waiting_gate()
    assert (await client.post(CANCEL, json=CANCELS)).status_code == 202
    assert await rows.fetch("select inline ->> 'actor' from app.artifacts where step_id = 'OPS'") == [("somebody else",)]


# Groups


@pytest.fixture
async def only_finance(engine: Engine, rows: Rows) -> None:
    """The waiting run's recipe wants its gates answered by finance."""
    spec = RecipeSpec.model_validate(SPEC | {"id": "guarded", "approvers": ["finance"]})
    async with engine.transaction() as conn:
        await import_bundle(conn, RecipeBundle(id="guarded", versions=[spec]))
    await rows.waiting_gate()
    await rows.fetch("update app.runs set recipe_id = 'guarded', recipe_v = '1.0.0'")


@pytest.mark.usefixtures("only_finance")
@pytest.mark.parametrize(
    ("path", "body"),
    [
        (REPLY, YES),
        ("/api/events/hitl", EVENT),
        (f"/runs/{WID}/events", {"type": "approve-plan", "payload": {"choice": "yes"}}),
        (f"/runs/{WID}/approve-plan", {"approvedBy": "ben"}),
    ],
)
async def test_a_gate_is_answered_by_the_groups_that_its_recipe_names(
    client: httpx.AsyncClient, engine: Engine, rows: Rows, path: str, body: dict[str, Any]
) -> None:
    refused = await client.post(path, json=body, headers=await token(engine, "approver", "sales", name="sam"))
    assert (refused.status_code, refused.json()) == (
        403,
        {"error": "the gates of this run are answered by finance; 'sam' is in none of these groups"},
    )
    assert await rows.fetch("select count(*) from app.human_interactions") == [(0,)]
    accepted = await client.post(path, json=body, headers=await token(engine, "approver", "sales", "finance", name="fay"))
    assert accepted.status_code in (200, 202), accepted.text


@pytest.mark.usefixtures("only_finance")
async def test_an_admin_answers_every_gate(client: httpx.AsyncClient, engine: Engine) -> None:
    assert (await client.post(REPLY, json=YES, headers=await token(engine, "admin"))).status_code == 200


# Browsers


async def test_a_browser_signs_in_with_a_token_and_out_again(client: httpx.AsyncClient, engine: Engine) -> None:
    text = (await token(engine, "viewer", "finance"))["authorization"].removeprefix("Bearer ")
    assert (await client.post("/api/session", json={"token": "hf_wrong"})).status_code == 401
    signed_in = await client.post("/api/session", json={"token": text})
    assert signed_in.json() == {"name": "ben", "roles": ["viewer"], "groups": ["finance"], "rights": ["read"]}
    cookie = signed_in.headers["set-cookie"].lower()
    assert all(word in cookie for word in ("httponly", "samesite=strict", "path=/"))
    assert (await client.get("/api/session")).json() == signed_in.json()
    await client.delete("/api/session")
    assert (await client.get("/api/session")).status_code == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "same-origin", "origin": "http://other"}, 202),
        ({"origin": "http://front-door"}, 202),
        ({}, 202),
    ],
)
async def test_pages_of_other_sites_change_nothing(
    client: httpx.AsyncClient, engine: Engine, rows: Rows, headers: dict[str, str], status: int
) -> None:
    await rows.waiting_gate()
    signed = await token(engine, "operator")
    assert (await client.post(CANCEL, json=CANCELS, headers=signed | headers)).status_code == status


async def test_without_tokens_a_browser_must_call_this_machine_by_its_own_name(app: Starlette, rows: Rows) -> None:
    async def get(base: str, **headers: str) -> int:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=base, headers=headers) as client:
            return (await client.get("/api/recipes")).status_code

    browser = {"sec-fetch-site": "same-origin"}
    assert await get("http://rebound.example:3001", **browser) == 403
    assert await get("http://rebound.example:3001") == 200
    for name in ("127.0.0.1:3001", "localhost:3001", "[::1]:3001"):
        assert await get(f"http://{name}", **browser) == 200


# Signed events


def signature(id: str, at: int, body: bytes, key: bytes = b"k" * 32) -> str:
    return "v1," + base64.b64encode(hmac.new(key, f"{id}.{at}.".encode() + body, hashlib.sha256).digest()).decode()


@pytest.fixture
async def hooked(engine: Engine, database: str, rows: Rows) -> Any:
    """A client of a door with tokens that knows the secret, at a waiting gate."""
    await rows.waiting_gate()
    await token(engine, "admin")
    app = create_app(engine, Config(database_url=database, webhook_secrets=(b"old" * 10, webhooks.secret_of(SECRET))))
    async with app.router.lifespan_context(app):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://front-door") as client:
            yield client


async def test_a_signed_event_needs_no_token_and_is_taken_once(hooked: httpx.AsyncClient, rows: Rows) -> None:
    body, now = httpx.Request("POST", "http://x", json=EVENT).content, int(time.time())
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(now),
        "webhook-signature": f"v1,aaaa {signature('msg_1', now, body)}",
    }
    for _ in range(2):
        assert (await hooked.post("/api/events/hitl", content=body, headers=headers)).status_code == 200
    assert await rows.fetch("select dedupe_key from app.human_interactions") == [("key-1",)]
    assert (await hooked.post("/api/events/hitl", content=body)).status_code == 401


@pytest.mark.parametrize(
    "changes",
    [
        {"webhook-id": "msg_2"},
        {"webhook-id": ""},
        {"webhook-timestamp": "0"},
        {"webhook-timestamp": "soon"},
        {"webhook-signature": "v1,aaaa"},
        {"webhook-signature": ""},
    ],
)
async def test_an_event_whose_signature_does_not_hold_is_refused(
    hooked: httpx.AsyncClient, rows: Rows, changes: dict[str, str]
) -> None:
    body, now = httpx.Request("POST", "http://x", json=EVENT).content, int(time.time())
    headers = {"webhook-id": "msg_1", "webhook-timestamp": str(now), "webhook-signature": signature("msg_1", now, body)}
    assert (await hooked.post("/api/events/hitl", content=body, headers=headers | changes)).status_code == 401
    assert (await hooked.post("/api/events/hitl", content=body + b" ", headers=headers)).status_code == 401
    assert await rows.fetch("select count(*) from app.human_interactions") == [(0,)]


def test_a_message_may_be_five_minutes_old_or_early() -> None:
    key, body = b"k" * 32, b"{}"
    headers = {"webhook-id": "m", "webhook-timestamp": "1000", "webhook-signature": signature("m", 1000, body)}
    for now_s in (700, 1300):
        webhooks.verify([key], headers, body, now_s=now_s)
    for now_s in (699, 1301):
        with pytest.raises(access.Unauthorized):
            webhooks.verify([key], headers, body, now_s=now_s)


def test_the_signature_is_that_of_the_specification_s_example() -> None:
    """The example of the Standard Webhooks specification's reference implementations."""
    key = webhooks.secret_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    webhooks.verify([key], headers, body, now_s=1614265330)


@pytest.mark.parametrize("text", ["", "whsec_", "whsec_short", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_!!!!"])
def test_a_secret_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(webhooks.BadSecret):
        webhooks.secret_of(text)


# How much


def test_a_bucket_holds_two_seconds_and_fills_at_its_rate() -> None:
    now_s = 100.0
    pace = Pace(10, clock=lambda: now_s)
    for _ in range(20):
        pace.take("a")
    with pytest.raises(TooMany, match=r"more than 10 requests a second with one token; wait 0.10 s"):
        pace.take("a")
    pace.take("b")
    now_s += 0.25
    pace.take("a")
    pace.take("a")
    with pytest.raises(TooMany):
        pace.take("a")
    now_s += 1000
    for _ in range(20):
        pace.take("a")
    with pytest.raises(TooMany):
        pace.take("a")
    for _ in range(1000):
        Pace(0).take("a")


async def test_who_asks_too_much_is_told_to_wait_and_others_are_served(engine: Engine, database: str) -> None:
    app = create_app(engine, Config(database_url=database, token_requests_per_s=0.5))
    ann, ben = await token(engine, "viewer", name="ann"), await token(engine, "viewer", name="ben")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://front-door") as client:
        assert (await client.get("/api/session", headers=ann)).status_code == 200
        refused = await client.get("/api/session", headers=ann)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "2")
        assert (await client.get("/api/session", headers=ben)).status_code == 200


async def test_one_process_lets_so_many_wait_and_no_more(
    client: httpx.AsyncClient, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rows.waiting_gate()
    monkeypatch.setattr(waiting, "MOST_WATCHERS", 0)
    for path in ("stream", "stream/status", f"gates/{GATE}?timeoutS=1"):
        refused = await client.get(f"/api/runs/{WID}/{path}")
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
    assert (await client.get(f"/api/runs/{WID}")).status_code == 200

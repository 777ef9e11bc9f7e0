"""The inbox: what waits for a person now, the most urgent first."""

from collections.abc import AsyncIterator

import httpx
import pytest

from api import inbox
from steps.contracts.gate import InboxRow
from steps.identity import escalation_id, human_topic, run_id
from tests.api.plans import rows_read
from tests.api.samples import GATE, WID, Rows

NOW_MS = 1_700_000_000_000
INBOX = "/api/hitl/inbox"


@pytest.fixture
async def _clock(rows: Rows) -> AsyncIterator[None]:
    """The database's clock, stopped at NOW_MS."""
    await rows.fetch("insert into engine.clock (now_ms) values (%s)", NOW_MS)
    yield
    await rows.fetch("delete from engine.clock")


async def open_gate(
    rows: Rows, name: str, *, left_ms: int | None = 600_000, age_ms: int = 0, keys: tuple[str, ...] = (GATE,)
) -> str:
    """A run that waits at these gates; its workflow id."""
    await rows.run("waiting_input", workflow_id=name)
    for key in keys:
        await rows.gate(key, workflow_id=name)
    await rows.fetch(
        """update app.human_gates
              set deadline_at = to_timestamp(%s::bigint / 1000.0), created_at = to_timestamp(%s::bigint / 1000.0)
            where run_id = %s""",
        None if left_ms is None else NOW_MS + left_ms,
        NOW_MS - age_ms,
        run_id(name),
    )
    return name


async def listed(client: httpx.AsyncClient, query: str = "") -> list[InboxRow]:
    response = await client.get(f"{INBOX}{query}")
    assert response.status_code == 200, response.text
    return [InboxRow.model_validate(row) for row in response.json()]


@pytest.mark.usefixtures("_clock")
async def test_an_open_gate_of_a_run_that_waits_is_listed(client: httpx.AsyncClient, rows: Rows) -> None:
    assert await listed(client) == []
    await open_gate(rows, WID, age_ms=5_000)
    assert (await client.get(INBOX)).json() == [
        {
            "workflowID": WID,
            "gateKey": GATE,
            "topic": human_topic(GATE),
            "deadline": NOW_MS + 600_000,
            "slaStatus": "NORMAL",
            "escalationWorkflowID": None,
            "mismatchRisk": False,
            "createdAt": NOW_MS - 5_000,
            "subject": "sample",
        }
    ]


@pytest.mark.parametrize("status", ["queued", "running", "repairing", "succeeded", "failed", "retries_exceeded", "canceled"])
async def test_a_run_that_does_not_wait_is_not_listed(client: httpx.AsyncClient, rows: Rows, status: str) -> None:
    await open_gate(rows, WID)
    await rows.fetch("update app.runs set status = %s", status)
    assert await listed(client) == []


async def test_a_gate_that_was_answered_is_not_listed_though_its_run_waits_at_another(
    client: httpx.AsyncClient, rows: Rows
) -> None:
    await open_gate(rows, WID, keys=("parallel-1", "parallel-2"))
    assert [row.gateKey for row in await listed(client)] == ["parallel-1", "parallel-2"]
    await rows.fetch("update app.human_gates set resolved_at = now() where gate_key = 'parallel-1'")
    assert [row.gateKey for row in await listed(client)] == ["parallel-2"]


async def test_a_gate_is_listed_from_its_prompt_on(client: httpx.AsyncClient, rows: Rows) -> None:
    await open_gate(rows, WID)
    await rows.fetch("delete from dbos.workflow_events")
    assert await listed(client) == []


@pytest.mark.usefixtures("_clock")
@pytest.mark.parametrize(
    ("left_ms", "status"),
    [(-1, "CRITICAL"), (0, "CRITICAL"), (1, "WARNING"), (60_000, "WARNING"), (60_001, "NORMAL"), (None, "NORMAL")],
)
async def test_the_time_left_says_how_urgent_it_is(
    client: httpx.AsyncClient, rows: Rows, left_ms: int | None, status: str
) -> None:
    await open_gate(rows, WID, left_ms=left_ms)
    (row,) = await listed(client)
    assert row.slaStatus == status
    assert row.deadline == (None if left_ms is None else NOW_MS + left_ms)


async def test_the_nearest_deadline_comes_first_then_the_oldest_then_by_name(client: httpx.AsyncClient, rows: Rows) -> None:
    await open_gate(rows, "never", left_ms=None)
    await open_gate(rows, "late", left_ms=9_000, age_ms=9_000)
    await open_gate(rows, "0-young", left_ms=5_000, age_ms=1_000)
    await open_gate(rows, "b", left_ms=5_000, age_ms=2_000, keys=("two", "one"))
    await open_gate(rows, "a", left_ms=5_000, age_ms=2_000)
    await open_gate(rows, "soon", left_ms=1_000)
    names = [(row.workflowID, row.gateKey) for row in await listed(client)]
    assert names == [("soon", GATE), ("a", GATE), ("b", "one"), ("b", "two"), ("0-young", GATE), ("late", GATE), ("never", GATE)]
    assert [(row.workflowID, row.gateKey) for row in await listed(client, "?limit=3")] == names[:3]


async def test_a_gate_names_its_escalation_when_there_is_one(client: httpx.AsyncClient, rows: Rows) -> None:
    await open_gate(rows, WID)
    assert [row.escalationWorkflowID for row in await listed(client)] == [None]
    await rows.fetch(
        "insert into dbos.workflow_status (workflow_uuid, status, name) values (%s, 'SUCCESS', 'EscalateTimeout')",
        escalation_id(WID, GATE),
    )
    assert [row.escalationWorkflowID for row in await listed(client)] == [f"esc:{WID}:{GATE}"]


async def test_a_gate_warns_when_its_topic_is_not_its_own_or_nobody_listens(client: httpx.AsyncClient, rows: Rows) -> None:
    await open_gate(rows, "sound")
    await open_gate(rows, "astray")
    await rows.fetch("update app.human_gates set topic = 'human:elsewhere' where run_id = %s", run_id("astray"))
    await open_gate(rows, "ended")
    await rows.fetch("update dbos.workflow_status set class_name = '', status = 'ERROR' where workflow_uuid = 'ended'")
    assert {row.workflowID: row.mismatchRisk for row in await listed(client)} == {
        "astray": True,
        "ended": True,
        "sound": False,
    }


@pytest.mark.parametrize("limit", ["0", "201", "-1", "1.5", "abc", ""])
async def test_a_limit_out_of_bounds_is_refused(client: httpx.AsyncClient, limit: str) -> None:
    response = await client.get(f"{INBOX}?limit={limit}")
    assert response.status_code == 400
    assert response.json()["error"].startswith("invalid HitlInboxQuery: data/limit must be")


async def test_an_unknown_query_key_is_refused(client: httpx.AsyncClient) -> None:
    response = await client.get(f"{INBOX}?state=open")
    assert response.status_code == 400
    assert response.json()["error"] == "invalid HitlInboxQuery: data must NOT have additional properties ('state' is unknown)"


async def test_a_hundred_gates_are_listed_unless_more_are_asked_for(client: httpx.AsyncClient, rows: Rows) -> None:
    await open_gate(rows, WID, keys=())
    await fill(rows, 210)
    assert [len(await listed(client, query)) for query in ("", "?limit=200", "?limit=1")] == [100, 200, 1]


async def test_it_costs_the_same_however_many_gates_are_open(client: httpx.AsyncClient, rows: Rows) -> None:
    """The index of open gates gives them in order, so the statement stops at its limit."""
    await open_gate(rows, WID, keys=())
    await fill(rows, 5_000)
    await rows.fetch("analyze app.human_gates, app.runs, dbos.workflow_events")
    assert len(await listed(client, "?limit=5")) == 5
    touched = await rows_read(rows, "human_gates", inbox.INBOX, (5,))
    assert touched < 100, f"{touched} gates were read to list 5"


async def test_the_gates_of_runs_that_ended_cost_it_nothing_and_come_back_with_a_resume(
    client: httpx.AsyncClient, rows: Rows
) -> None:
    for name in ("cancelled", WID):
        await open_gate(rows, name, keys=())
    await fill(rows, 5_000, "cancelled")
    await fill(rows, 10, WID, later_s=10_000)
    await rows.fetch("update dbos.workflow_status set status = 'CANCELLED' where workflow_uuid = 'cancelled'")
    await rows.fetch("analyze app.human_gates, app.runs, dbos.workflow_events")
    assert {row.workflowID for row in await listed(client, "?limit=200")} == {WID}
    touched = await rows_read(rows, "human_gates", inbox.INBOX, (5,))
    assert touched < 100, f"{touched} gates were read to list 5"
    await rows.fetch("update dbos.workflow_status set status = 'ENQUEUED' where workflow_uuid = 'cancelled'")
    assert {row.workflowID for row in await listed(client, "?limit=5")} == {"cancelled"}


async def fill(rows: Rows, count: int, workflow_id: str = WID, *, later_s: int = 0) -> None:
    """Many gates of one run, with their prompts."""
    await rows.fetch(
        """with opened as (
               insert into app.human_gates (run_id, gate_key, topic, deadline_at)
               select %s, 'g' || n, 'human:g' || n, now() + (n + %s) * interval '1 s' from generate_series(1, %s) n
               returning gate_key)
           insert into dbos.workflow_events (workflow_uuid, key, value, serialization)
           select %s, 'ui:' || o.gate_key, '{}', 'portable_json' from opened o""",
        run_id(workflow_id),
        later_s,
        count,
        workflow_id,
    )

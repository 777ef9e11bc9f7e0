"""Kill the worker at each of the four moments of a gate: one question is asked, one answer counts, and the run succeeds.

a  before the gate's row
b  the row is there, the prompt is not
c  the prompt is there, nothing but a wait follows
d  the answer is taken from the mailbox, the result is not told
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest

from engine import Engine
from steps.contracts.gate import ExternalEvent, GateReply
from steps.identity import decision_event, gate_key, human_topic, intent_hash, prompt_event, result_event, run_id, workflow_id
from steps.opencode import ReplayOpenCode
from steps.replies import accept_event, reply_to_gate
from steps.sandbox import MockSandbox
from tests.crash.drill import Drill, Outcome, perform, stages, waits_for
from tests.crash.fleet import until
from tests.crash.history import difference
from tests.steps.product import Product

GOAL = "ask before you act"
WID = workflow_id(intent_hash({"goal": GOAL, "inputs": {}, "constraints": {}}))
GATE = gate_key(run_id(WID), "ApplyPatchST", "approve-plan", 1)
TOPIC = human_topic(GATE)

SET_TIMES: LiteralString = "select count(*) from dbos.workflow_events_history where workflow_uuid = %s and key = %s"


async def start(engine: Engine) -> None:
    assert await Product(engine, Path(), ReplayOpenCode(), MockSandbox()).start(GOAL) == WID


async def answer(engine: Engine) -> None:
    """Says yes as soon as the run waits, and again by way of a webhook that knows the same key."""
    await until(lambda: waits_for(engine, WID, f"t:{TOPIC}"), "the run to wait at its gate")
    payload = {"choice": "yes"}
    assert not await reply_to_gate(engine, WID, GATE, GateReply(payload=payload, dedupeKey="once", origin="manual"))
    event = ExternalEvent(workflowId=WID, gateKey=GATE, topic=TOPIC, payload=payload, dedupeKey="once", origin="webhook-ci")
    assert await accept_event(engine, event)


ASKED = Drill("product", WID, "app", start, answer)


@dataclass(frozen=True)
class Gate:
    """An uncrashed run, and where the calls of its gate stand in its journal."""

    outcome: Outcome
    opening: str
    prompt: str
    receive: str


@pytest.fixture(scope="module")
async def uncrashed(server: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Gate:
    with stages(server, template, count=1) as (stage,):
        outcome = await perform(ASKED, stage.dsn, tmp_path_factory.mktemp("uncrashed") / "run", None)
    journal = sorted(
        ((path, name) for wid, path, name, *_ in outcome.found["journal"] if wid == WID),
        key=lambda call: [int(part) for part in call[0].split(".")],
    )
    names = [name for _, name in journal]
    at = names.index("openGate")
    assert names[at : at + 3] == ["openGate", "DBOS.setEvent", "DBOS.recv"]
    opening, prompt, receive = (path for path, _ in journal[at : at + 3])
    return Gate(outcome, opening, prompt, receive)


@pytest.mark.parametrize(
    "point",
    [
        pytest.param("before . Step {opening} #1", id="a: before the row is committed"),
        pytest.param("after . Step {opening} #1", id="b: row, but no prompt"),
        pytest.param("before . Step {prompt} #1", id="b: row, and the prompt not committed"),
        pytest.param("after . Step {prompt} #1", id="c: prompt, about to wait"),
        pytest.param("after . Park #1", id="c: prompt, waiting"),
        pytest.param("after . Receive {receive} #2", id="d: answer taken, result not told"),
    ],
)
async def test_a_worker_killed_at_a_gate_asks_once_and_hears_one_answer(
    server: str, template: str, tmp_path: Path, uncrashed: Gate, point: str
) -> None:
    paths = {"opening": uncrashed.opening, "prompt": uncrashed.prompt, "receive": uncrashed.receive}
    with stages(server, template, count=1) as (stage,):
        outcome = await perform(ASKED, stage.dsn, tmp_path / "run", point.format_map(paths))
        with psycopg.connect(stage.dsn) as conn:
            found = facts(conn)
    assert outcome.died, f"the worker never came to {outcome.point}"
    assert found == {
        "status": "SUCCESS",
        "run": "succeeded",
        "gates": 1,
        "prompts": 1,
        "results": 1,
        "decisions": 1,
        "interactions": [("once", "manual")],
        "messages": 1,
    }
    assert difference(uncrashed.outcome.found, outcome.found) == ""


def facts(conn: psycopg.Connection[Any]) -> dict[str, Any]:
    """What the database says about the gate."""

    def one(query: LiteralString, *values: str) -> Any:
        row = conn.execute(query, values).fetchone()
        assert row is not None
        return row[0]

    return {
        "status": one("select status from dbos.workflow_status where workflow_uuid = %s", WID),
        "run": one("select status from app.runs where workflow_id = %s", WID),
        "gates": one("select count(*) from app.human_gates"),
        "prompts": one(SET_TIMES, WID, prompt_event(GATE)),
        "results": one(SET_TIMES, WID, result_event(GATE)),
        "decisions": one(SET_TIMES, WID, decision_event(GATE)),
        "interactions": conn.execute("select dedupe_key, origin from app.human_interactions").fetchall(),
        "messages": one("select count(*) from dbos.notifications where destination_uuid = %s", WID),
    }

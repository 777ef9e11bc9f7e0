"""A start and a message of another client are taken up at once: that client sends no hints, so the database sends them for it."""

from typing import LiteralString

from tests.engine.workshop import Workshop
from tests.interop.client import Dbos
from tests.interop.subjects import ALL

ROUNDS = 5
LIMIT_MS = 1000
# Both by the database's clock: from the client's commit, at the latest, to the claim.
START_MS: LiteralString = (
    "select max(started_at_epoch_ms - created_at) from dbos.workflow_status where workflow_uuid like 'start-%%'"
)
WAKE_MS: LiteralString = """
select max(s.started_at_epoch_ms - n.created_at_epoch_ms)
  from dbos.notifications n join dbos.workflow_status s on s.workflow_uuid = n.destination_uuid where n.consumed
"""


async def test_a_start_and_a_message_are_taken_up_within_a_second(shop: Workshop, dbos: Dbos) -> None:
    await shop.worker(*ALL, poll_s=60)  # so that nothing is found by looking
    for n in range(ROUNDS):
        id = f"start-{n}"
        await dbos.enqueue("receive", "go", workflow_id=id)
        await shop.parked(id)
        await dbos.send(id, n, "go")
        assert await dbos.result(id) == n
    start_ms, wake_ms = await shop.value(START_MS), await shop.value(WAKE_MS)
    print(f"slowest of {ROUNDS}: a start was claimed after {start_ms} ms, a message woke its run after {wake_ms} ms")
    assert start_ms < LIMIT_MS
    assert wake_ms < LIMIT_MS

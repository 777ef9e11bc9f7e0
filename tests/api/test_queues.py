"""What the settings of the queues, and the fair shares behind them, mean for whoever starts runs: tenants, lanes, rates and caps."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, LiteralString

import httpx
import pytest

from bin.queue_limits import declare_queues
from bin.roles import slots
from bin.settings import QueueSettings, Settings
from engine import Engine, Observer, Worker, WorkflowInfo
from steps.contracts.ops import CancelWorkflowRequest
from steps.contracts.sandbox import SBXReq, SBXRes
from steps.identity import gate_key, prompt_event, run_id
from steps.opencode import ReplayOpenCode
from steps.ops import cancel
from steps.sandbox import MockSandbox, OnOutput
from steps.worker import Limits, Ports, configure, workflows
from tests.api.samples import START, Rows, changed
from tests.steps.product import replay

WAIT_S = 15.0
NOON_MS = 1_767_268_800_000

SET_CLOCK: LiteralString = (
    "insert into engine.clock (now_ms) values (%s) on conflict (only_row) do update set now_ms = excluded.now_ms"
)

RECIPE: LiteralString = """
    insert into app.recipes (id, name, version, queue_name, max_concurrency, max_steps, max_sandbox_minutes)
    values ('compile', 'compile-default', 1, 'intentQ', 10, 32, 15)
"""


def free(**limits: Any) -> QueueSettings:
    """A queue without a rate."""
    return QueueSettings(rate_limit_per_period=0, **limits)


class Tasks(MockSandbox):
    """A sandbox that says how many commands ran side by side; those with the word HOLD_ME wait until they are let go."""

    def __init__(self) -> None:
        self.released = asyncio.Event()
        self.at_work = 0
        self.most = 0

    async def run(self, request: SBXReq, *, attempt: int, key: str, on_output: OnOutput | None = None) -> SBXRes:
        self.at_work += 1
        self.most = max(self.most, self.at_work)
        try:
            if "HOLD_ME" in request.cmd.split():
                await self.released.wait()
            await asyncio.sleep(0.01)
            return await super().run(request, attempt=attempt, key=key)
        finally:
            self.at_work -= 1


class Order(Observer):
    """Which runs began, in their order."""

    def __init__(self) -> None:
        self.begun: list[str] = []

    def run_started(self, run: WorkflowInfo) -> None:
        if run.name == "RunIntent" and run.id not in self.begun:
            self.begun.append(run.id)


class Front:
    """Tenants at the front door, and workers behind it that keep to the settings."""

    def __init__(self, client: httpx.AsyncClient, rows: Rows, workspace: Path) -> None:
        self.client = client
        self.rows = rows
        self.engine: Engine = rows.engine
        self.tasks = Tasks()
        self.order = Order()
        self._workspace = workspace

    @asynccontextmanager
    async def workers(self, settings: Settings, count: int = 1) -> AsyncIterator[list[Worker]]:
        configure(Ports(self.engine.pool, ReplayOpenCode(), self.tasks, self._workspace, Limits(plan_approval_timeout_s=600)))
        await declare_queues(self.engine, settings)
        made = [
            self.engine.worker(workflows(), queues=slots(settings), version="test", lease_s=1e9, poll_s=0.02, observer=self.order)
            for _ in range(count)
        ]
        working = [asyncio.create_task(worker.run()) for worker in made]
        try:
            yield made
        finally:
            for worker in made:
                worker.stop()
            await asyncio.gather(*working)

    async def start(self, goal: str, tenant: str = "blue", **opts: Any) -> str:
        """Start a run of the sample recipe; its workflow id."""
        asked = changed(START, formData__goal=goal, opts={"queuePartitionKey": tenant} | opts)
        answer = await self.client.post("/api/run", json=asked)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["workflowID"])

    async def start_tasks(self, goal: str, count: int, tenant: str = "blue", command: str = "run") -> str:
        """Start a run that decides on so many tasks, and approve its plan."""
        tests = [f"test-{number}" for number in range(count)]
        intent = {"goal": goal, "inputs": {}, "constraints": replay(build={"test_command": command, "tests": tests})}
        wid = str((await self.client.post("/api/intents", json=intent)).json()["intentId"])
        answer = await self.client.post("/api/runs", json={"intentId": wid, "queuePartitionKey": tenant})
        assert answer.status_code == 201, answer.text
        gate = await self.at_gate(wid)
        reply = {"payload": {"choice": "yes"}, "dedupeKey": "yes", "origin": "manual"}
        assert (await self.client.post(f"/api/runs/{wid}/gates/{gate}/reply", json=reply)).status_code == 200
        return wid

    async def at_gate(self, wid: str) -> str:
        """Wait until the run asks for its approval; the gate's key."""
        key = gate_key(run_id(wid), "ApplyPatchST", "approve-plan", 1)
        assert await self.engine.get_event(wid, prompt_event(key), timeout_s=WAIT_S) is not None
        return key

    async def header(self, wid: str) -> dict[str, Any]:
        return (await self.client.get(f"/api/runs/{wid}")).json()

    async def reason(self, wid: str) -> str | None:
        return (await self.header(wid)).get("reason", {}).get("code")

    async def reason_of_task(self, id: str) -> str | None:
        return (await self.client.get(f"/api/ops/wf/{id}")).json().get("reason", {}).get("code")

    async def at_rest(self, wid: str, reason: str = "child") -> None:
        """Wait until the run waits for this: with "child", until it has started all of its tasks."""
        async with asyncio.timeout(WAIT_S):
            while await self.reason(wid) != reason:
                await asyncio.sleep(0.01)

    async def tasks_of(self, wid: str) -> list[tuple[Any, ...]]:
        """(id, partition, status) of the run's tasks."""
        query: LiteralString = """
            select workflow_uuid, queue_partition_key, status from dbos.workflow_status
             where parent_workflow_id = %s and queue_name = 'sbxQ' order by 1
        """
        return await self.rows.fetch(query, wid)

    async def set_clock(self, now_ms: int) -> None:
        await self.rows.fetch(SET_CLOCK, now_ms)

    async def claims_have_passed(self, mark: str) -> None:
        """Something that was started after now has run to its end: whatever could be claimed before was."""
        handle = await self.engine.enqueue("CrashDemo", mark, 0.0, id=mark, queue="controlQ", version="test")
        await handle.result(timeout_s=WAIT_S)

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not holds():
                await asyncio.sleep(0.01)


@pytest.fixture
async def front(client: httpx.AsyncClient, rows: Rows, tmp_path: Path) -> Front:
    await rows.fetch(RECIPE)
    return Front(client, rows, tmp_path)


# -- rates ----------------------------------------------------------------------------------------------------------------


async def test_of_two_starts_in_five_seconds_the_third_comes_when_the_time_has_passed(front: Front) -> None:
    await front.set_clock(NOON_MS)
    async with front.workers(Settings(intent_queue=QueueSettings(rate_limit_per_period=2, rate_limit_period_sec=5))):
        wids = [await front.start(f"goal {number}", tenant=f"tenant-{number}") for number in range(3)]
        await front.until(lambda: len(front.order.begun) == 2)
        (third,) = set(wids) - set(front.order.begun)
        assert (await front.header(third))["reason"]["sentence"] == "intentQ has started as many as its rate allows"
        opens_ms = (await front.header(third))["reason"]["until"]
        await front.set_clock(NOON_MS + 4_500)
        await front.claims_have_passed("at 4.5 s")
        assert await front.reason(third) == "rate-limit"
        await front.set_clock(opens_ms)
        await front.at_gate(third)
    started_ms = await front.rows.value("select started_at_epoch_ms from dbos.workflow_status where workflow_uuid = %s", third)
    assert 4_500 < started_ms - NOON_MS <= 5_500


async def test_a_run_that_was_answered_goes_on_past_the_rate(front: Front) -> None:
    await front.set_clock(NOON_MS)
    settings = Settings(intent_queue=QueueSettings(rate_limit_per_period=1, rate_limit_period_sec=3600))
    async with front.workers(settings):
        wid = await front.start_tasks("only", 1)
        later = await front.start("later", tenant="green")
        await front.engine.result(wid, timeout_s=WAIT_S)
        assert await front.reason(later) == "rate-limit"


# -- caps -----------------------------------------------------------------------------------------------------------------


async def test_a_worker_with_room_for_one_task_runs_them_one_after_the_other(front: Front) -> None:
    async with front.workers(Settings(intent_queue=free(), sbx_queue=free(worker_concurrency=1))):
        wid = await front.start_tasks("one by one", 4)
        await front.engine.result(wid, timeout_s=WAIT_S)
    assert front.tasks.most == 1
    assert len(await front.tasks_of(wid)) == 4


async def test_a_cap_of_a_partition_holds_over_all_workers_and_leaves_other_tenants_alone(front: Front) -> None:
    async with front.workers(Settings(intent_queue=free(), sbx_queue=free(concurrency=1)), count=2):
        busy = await front.start_tasks("much", 3, command="HOLD_ME")
        await front.until(lambda: front.tasks.at_work == 1)
        await front.at_rest(busy)
        reasons = [await front.reason_of_task(id) for id, _, _ in await front.tasks_of(busy)]
        assert Counter(reasons) == {None: 1, "cap": 2}
        other = await front.start_tasks("little", 1, tenant="green")
        await front.engine.result(other, timeout_s=WAIT_S)
        assert front.tasks.at_work == 1
        front.tasks.released.set()
        await front.engine.result(busy, timeout_s=WAIT_S)
    assert front.tasks.most == 2  # one of each tenant
    assert {partition for _, partition, _ in await front.tasks_of(busy)} == {"blue"}
    assert {partition for _, partition, _ in await front.tasks_of(other)} == {"green"}


async def test_a_cap_of_a_queue_without_partitions_holds_for_all_tenants_together(front: Front) -> None:
    settings = Settings(intent_queue=free(), sbx_queue=free(concurrency=1, partition=False))
    async with front.workers(settings, count=2):
        wids = await asyncio.gather(front.start_tasks("much", 3), front.start_tasks("little", 2, tenant="green"))
        await asyncio.gather(*(front.engine.result(wid, timeout_s=WAIT_S) for wid in wids))
    assert front.tasks.most == 1


async def test_a_run_that_waits_holds_no_place_under_a_cap(front: Front) -> None:
    async with front.workers(Settings(intent_queue=free(concurrency=1), sbx_queue=free())):
        for_tasks = await front.start_tasks("waits for its tasks", 2, command="HOLD_ME")
        await front.until(lambda: front.tasks.at_work == 2)
        for_people = await front.start("waits for a person")
        await front.at_gate(for_people)
        await front.at_rest(for_people, "person")  # the gate is asked a moment before the run waits at it
        await front.at_rest(for_tasks)
        front.tasks.released.set()
        await front.engine.result(for_tasks, timeout_s=WAIT_S)


# -- lanes, priorities and tenants ----------------------------------------------------------------------------------------


async def test_a_lower_number_begins_first_whenever_it_was_started(front: Front) -> None:
    wids = {number: await front.start(f"goal {number}", priority=number) for number in (7, 3, 5, 1)}
    async with front.workers(Settings(intent_queue=free(worker_concurrency=1))):
        await asyncio.gather(*(front.at_gate(wid) for wid in wids.values()))
    assert front.order.begun == [wids[number] for number in sorted(wids)]


@pytest.mark.parametrize("tenant", ["blue", "green"])
async def test_a_backlog_of_bulk_work_does_not_delay_somebody_who_waits(front: Front, tenant: str) -> None:
    for number in range(30):
        await front.start(f"bulk {number}", lane="batch")
    async with front.workers(Settings(intent_queue=free(worker_concurrency=1))):
        await front.until(lambda: len(front.order.begun) >= 5)
        urgent = await front.start("urgent", tenant=tenant, lane="interactive")
        before = len(front.order.begun)
        await front.at_gate(urgent)
        place = front.order.begun.index(urgent)
    assert place - before <= 2, "one that was being claimed, and the one in sixteen that the bulk has a right to"
    assert place < 30


async def test_a_tenant_with_a_long_queue_does_not_block_another(front: Front) -> None:
    for number in range(20):
        await front.start(f"many {number}")
    few = [await front.start(f"few {number}", tenant="green") for number in range(4)]
    async with front.workers(Settings(intent_queue=free(worker_concurrency=1))):
        await asyncio.gather(*(front.at_gate(wid) for wid in few))
    places = [front.order.begun.index(wid) for wid in few]
    assert max(places) <= 9, f"every other one is the small tenant's: {places}"


async def test_a_weight_from_the_settings_gives_a_tenant_more_of_the_queue(front: Front) -> None:
    wids = {
        tenant: [await front.start(f"{tenant} {number}", tenant=tenant) for number in range(12)] for tenant in ("blue", "green")
    }
    async with front.workers(Settings(intent_queue=free(worker_concurrency=1, weights={"green": 3}))):
        await front.until(lambda: len(front.order.begun) >= 12)
        first = front.order.begun[:12]
    greens = len(set(first) & set(wids["green"]))
    assert 8 <= greens <= 10, "three of four"


async def test_two_starts_with_one_deduplication_id_both_run(front: Front) -> None:
    wids = [await front.start(f"goal {number}", deduplicationID="the same") for number in range(2)]
    async with front.workers(Settings(intent_queue=free())):
        for wid in wids:
            await front.at_gate(wid)
    assert len(set(wids)) == 2


# -- pauses ---------------------------------------------------------------------------------------------------------------


async def test_a_paused_tenant_can_still_be_cancelled_and_goes_on_when_it_is_resumed(front: Front) -> None:
    async with front.workers(Settings(intent_queue=free())):
        await front.engine.queues.pause("intentQ", "blue")
        unwanted, wanted = await front.start("unwanted"), await front.start("wanted")
        await front.claims_have_passed("while it is paused")
        assert {await front.reason(wid) for wid in (unwanted, wanted)} == {"paused"}
        await cancel(front.engine, unwanted, CancelWorkflowRequest(actor="ada", reason="drill"))
        await front.engine.queues.resume("intentQ", "blue")
        await front.at_gate(wanted)
    assert front.order.begun == [wanted]

"""Metrics: what a real API and worker say, that all of it is documented, and that asking costs little."""

import asyncio
import re
from typing import Any, LiteralString

import httpx
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from bin import metrics
from bin.metrics import RequestMetrics, RunMetrics, ServiceMetrics, WorkerMetrics, new_registry
from bin.settings import ROOT
from bin.watch import Span, WatchedRequests, WatchedRuns
from engine import Engine, StepFailed, step, workflow
from steps import tracing
from tests.platform.conftest import CALLER, Observed

NOON_MS = 1_767_268_800_000
PARENT = tracing.parse_traceparent(CALLER)
DOCUMENTED = re.compile(r"^\| `(holdfast_\w+)` \|", re.MULTILINE)

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(text: str) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def of(found: Samples, name: str, **labels: str) -> float:
    return found[name, tuple(sorted(labels.items()))]


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, labels)


# -- real processes ---------------------------------------------------------------------------------------------------------------


def test_everything_that_is_told_is_documented_and_nothing_else(observed: Observed) -> None:
    told = {
        re.sub(r"_total$", "", family.name) + ("_total" if family.type == "counter" else "")
        for text in observed.metrics.values()
        for family in text_string_to_metric_families(text)
        if family.name.startswith("holdfast_")
    }
    page = (ROOT / "docs/operating.md").read_text()
    assert set(DOCUMENTED.findall(page)) == told


def test_a_worker_tells_of_its_runs_steps_and_commits(observed: Observed) -> None:
    found = samples(observed.metrics["worker"])
    # A run that was parked twice, and before it the two of its recipe's fixture, which may have their answers before they park.
    runs, fixtures = 1, 2
    claimed = of(found, "holdfast_runs_claimed_total", workflow="RunIntent")
    assert claimed == runs + fixtures + of(found, "holdfast_runs_ended_total", workflow="RunIntent", how="parked")
    assert claimed >= 3 * runs + fixtures
    assert of(found, "holdfast_runs_ended_total", workflow="ExecuteTask", how="SUCCESS") == runs + fixtures
    assert of(found, "holdfast_step_attempt_seconds_count", step="CompileST", outcome="ok") == runs + fixtures
    records, commits = (of(found, f"holdfast_journal_commit_records_{part}") for part in ("sum", "count"))
    assert records >= commits > 1
    assert of(found, "holdfast_lease_losses_total") == 0
    assert of(found, "holdfast_runs_running") == 0
    assert of(found, "process_resident_memory_bytes") > 0


def test_an_api_tells_of_its_requests_by_route(observed: Observed) -> None:
    found = samples(observed.metrics["api"])
    assert of(found, "holdfast_http_requests_total", method="POST", route="/api/run", status="201") == 1
    assert of(found, "holdfast_http_requests_total", method="POST", route="/api/run", status="400") == 1
    assert of(found, "holdfast_http_requests_total", method="GET", route="unmatched", status="404") == 1
    assert of(found, "holdfast_http_request_seconds_count", method="POST", route="/api/run") == 3
    assert observed.wid not in observed.metrics["api"]


@pytest.mark.parametrize("role", ["api", "worker"])
def test_every_process_tells_of_its_pool_and_of_the_service(observed: Observed, role: str) -> None:
    found = samples(observed.metrics[role])
    assert of(found, "holdfast_database_up") == 1
    assert of(found, "holdfast_queue_depth", queue="intentQ") == 0
    assert of(found, "holdfast_gates_open") == 0
    assert of(found, "holdfast_workers_alive") == 1
    assert of(found, "holdfast_pool_size") >= 1
    assert of(found, "holdfast_pool_waiting") == 0


# -- the state of the service -----------------------------------------------------------------------------------------------------

QUEUED: LiteralString = """
    insert into dbos.workflow_status (workflow_uuid, status, name, queue_name, priority, created_at, updated_at)
    select 'w' || n, 'ENQUEUED', 'W', 'intentQ', n %% 3, 0, %(now)s - 1000 * n from generate_series(1, 5) as n
"""
GATES: LiteralString = """
    insert into app.intents (id, goal, payload) values ('i', 'g', '{}');
    insert into app.runs (id, intent_id, workflow_id, status) values ('r', 'i', 'w1', 'waiting_input');
    insert into app.intents (id, goal, payload) values ('j', 'g', '{}');
    insert into app.runs (id, intent_id, workflow_id, status) values ('s', 'j', 'w2', 'canceled');
    insert into app.human_gates (run_id, gate_key, topic, created_at, resolved_at, dropped_at)
    select run, key, 't', to_timestamp((engine.now_ms() - age_ms) / 1000.0), case when resolved then now() end,
           case when dropped then now() end
      from (values ('r', 'open', 9000, false, false), ('r', 'newer', 1000, false, false), ('r', 'answered', 99000, true, false),
                   ('s', 'of a run that ended', 99000, false, true)) as v (run, key, age_ms, resolved, dropped)
"""


async def run(engine: Engine, *statements: LiteralString) -> None:
    async with engine.transaction() as conn:
        await conn.execute("insert into engine.clock (now_ms) values (%s) on conflict do nothing", (NOON_MS,))
        for statement in statements:
            await conn.execute(statement, {"now": NOON_MS} if "%(" in statement else None)


async def scraped(state: ServiceMetrics) -> Samples:
    await state.refresh()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in state.collect()
        for sample in family.samples
    }


async def test_queues_and_gates_have_a_depth_and_an_age_by_the_databases_clock(database: str) -> None:
    async with Engine.connect(database) as engine:
        await run(engine, QUEUED, GATES)
        found = await scraped(ServiceMetrics(engine))
    assert of(found, "holdfast_queue_depth", queue="intentQ") == 5
    assert of(found, "holdfast_queue_oldest_seconds", queue="intentQ") == 5
    assert of(found, "holdfast_queue_depth", queue="sbxQ") == 0
    assert of(found, "holdfast_queue_oldest_seconds", queue="sbxQ") == 0
    assert of(found, "holdfast_gates_open") == 2
    assert of(found, "holdfast_gate_oldest_seconds") == 9
    assert of(found, "holdfast_workers_alive") == 0


LIMITED: LiteralString = """
    insert into engine.queue (name, paused, opens_at_ms) values ('intentQ', true, %(now)s + 2500), ('sbxQ', false, %(now)s + 2500),
                                                                ('controlQ', false, %(now)s - 1);
    insert into dbos.queues (name, rate_limit_max, rate_limit_period_sec) values ('intentQ', 1, 5), ('controlQ', 1, 5);
    insert into engine.queue_partition (queue, key, state) values ('intentQ', 'a', 'p'), ('intentQ', 'b', 'g'), ('intentQ', 'c', 'g'),
                                                                  ('somewhere else', 'd', 'g');
    insert into engine.worker (id, lease_until_ms, started_at_ms, paused) values ('w', %(now)s, 0, true), ('v', %(now)s, 0, false)
"""


async def test_what_holds_queues_up_is_told_without_the_names_of_partitions(database: str) -> None:
    async with Engine.connect(database) as engine:
        for statement in LIMITED.split(";"):
            await run(engine, statement)
        found = await scraped(ServiceMetrics(engine))
    assert {queue: of(found, "holdfast_queue_paused", queue=queue) for queue in ("intentQ", "sbxQ")} == {"intentQ": 1, "sbxQ": 0}
    opens = {queue: of(found, "holdfast_queue_opens_seconds", queue=queue) for queue in ("intentQ", "sbxQ", "controlQ")}
    assert opens == {"intentQ": 2.5, "sbxQ": 0, "controlQ": 0}  # a queue whose rate was lifted is open
    assert of(found, "holdfast_queue_partitions", queue="intentQ", state="capped") == 2
    assert of(found, "holdfast_queue_partitions", queue="intentQ", state="paused") == 1
    assert of(found, "holdfast_queue_partitions", queue="sbxQ", state="ready") == 0
    assert len([name for name, _ in found if name == "holdfast_queue_partitions"]) == 4 * 6
    assert (of(found, "holdfast_workers_alive"), of(found, "holdfast_workers_paused")) == (2, 1)


async def test_a_worker_tells_what_its_checks_of_the_queues_found(database: str) -> None:
    async with Engine.connect(database) as engine:
        worker = engine.worker([])
        worker.findings.stranded, worker.findings.exceeded, worker.findings.leaked = 3, 2, 1
        found = {sample.name: sample.value for family in WorkerMetrics(worker).collect() for sample in family.samples}
    assert found == {
        "holdfast_runs_running": 0,
        "holdfast_queue_partitions_stranded_total": 3,
        "holdfast_queue_caps_exceeded_total": 2,
        "holdfast_queue_places_leaked_total": 1,
    }


async def test_counting_stops_at_a_bound(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MOST_COUNTED", 3)
    async with Engine.connect(database) as engine:
        await run(engine, QUEUED)
        assert of(await scraped(ServiceMetrics(engine)), "holdfast_queue_depth", queue="intentQ") == 3


class Asked(ServiceMetrics):
    """Counts how often it asks."""

    count = 0

    async def _ask(self) -> Any:
        self.count += 1
        return await super()._ask()


async def test_however_many_scrape_the_database_is_asked_once_in_a_while(database: str) -> None:
    async with Engine.connect(database) as engine:
        state = Asked(engine)
        everybody = await asyncio.gather(*(scraped(state) for _ in range(20)))
        assert state.count == 1
        assert [of(found, "holdfast_database_up") for found in everybody] == [1] * 20  # who did not ask waited for the answer
        eager = Asked(engine, gap_s=0)
        await eager.refresh()
        await eager.refresh()
        assert eager.count == 2


async def test_a_database_that_does_not_answer_is_told_and_nothing_stale_is(database: str) -> None:
    async with Engine.connect(database) as engine:
        state = ServiceMetrics(engine, gap_s=0, within_s=0.2)
        assert of(await scraped(state), "holdfast_database_up") == 1
        await engine.pool.close()
        assert await scraped(state) == {("holdfast_database_up", ()): 0}


async def test_a_registry_holds_the_process_and_the_pool(database: str) -> None:
    async with Engine.connect(database) as engine:
        registry = new_registry(engine)
        assert value(registry, "holdfast_pool_size") == 1
        assert value(registry, "process_cpu_seconds_total") is not None


# -- runs and requests ------------------------------------------------------------------------------------------------------------


class Sent(list[Span]):
    def send(self, span: Span) -> None:
        self.append(span)


async def test_runs_and_attempts_are_counted_by_how_they_went_and_become_spans(database: str) -> None:
    tries: list[int] = []

    @step(name="shaky", max_attempts=2, backoff_s=0)
    async def shaky() -> None:
        tries.append(1)
        if len(tries) == 1:
            raise ValueError("no")

    @step(name="broken")
    async def broken() -> None:
        raise LookupError("no")

    @workflow(name="W")
    async def once() -> None:
        await shaky()
        await broken()

    registry, sent = CollectorRegistry(), Sent()
    async with Engine.connect(database) as engine:
        worker = engine.worker([once], observer=WatchedRuns(RunMetrics(registry), sent))
        working = asyncio.create_task(worker.run())
        handle = await engine.enqueue(once, id="w")
        with pytest.raises(Exception, match="no"):
            await handle.result(timeout_s=10)
        worker.drain()
        await working
    assert value(registry, "holdfast_runs_claimed_total", workflow="W") == 1
    assert value(registry, "holdfast_runs_ended_total", workflow="W", how="ERROR") == 1
    assert value(registry, "holdfast_step_attempt_seconds_count", step="shaky", outcome="failed") == 1
    assert value(registry, "holdfast_step_attempt_seconds_count", step="shaky", outcome="ok") == 1
    assert value(registry, "holdfast_step_attempt_seconds_count", step="broken", outcome="failed") == 1
    first, second, third, whole = sent
    assert [(s.name, s.failed, s.attributes.get("error.type")) for s in (first, second, third)] == [
        ("shaky", True, "ValueError"),
        ("shaky", False, None),
        ("broken", True, "LookupError"),
    ]
    assert {s.parent_id for s in (first, second, third)} == {whole.span_id}
    assert len({s.span_id for s in sent}) == 4
    assert {s.trace_id for s in sent} == {tracing.trace_id("w")}
    assert (whole.name, whole.failed, whole.parent_id) == ("W", True, None)
    assert whole.began_ns <= first.began_ns <= first.ended_ns <= whole.ended_ns
    assert StepFailed.__name__ not in str(sent)  # what it said is not told


async def answer(request: Request) -> Response:
    caller = tracing.caller.get()
    assert caller is not None
    return PlainTextResponse(caller.traceparent)


async def fail(request: Request) -> Response:
    raise RuntimeError("no")


def watched() -> tuple[CollectorRegistry, Sent, httpx.AsyncClient]:
    app = Starlette(routes=[Route("/things/{thing}", answer), Route("/fail", fail)])
    registry, sent = CollectorRegistry(), Sent()
    transport = httpx.ASGITransport(WatchedRequests(app, RequestMetrics(registry), sent), raise_app_exceptions=False)
    return registry, sent, httpx.AsyncClient(transport=transport, base_url="http://front-door")


async def test_requests_are_counted_by_template_and_never_by_what_the_client_made_up() -> None:
    registry, _, client = watched()
    async with client:
        for path in ("/things/1", "/things/2", "/nothing/3"):
            await client.get(path)
        await client.request("BREW", "/things/1")
    assert value(registry, "holdfast_http_requests_total", method="GET", route="/things/{thing}", status="200") == 2
    assert value(registry, "holdfast_http_requests_total", method="GET", route="unmatched", status="404") == 1
    assert value(registry, "holdfast_http_requests_total", method="other", route="/things/{thing}", status="405") == 1
    assert value(registry, "holdfast_http_request_seconds_count", method="GET", route="/things/{thing}") == 2


async def test_a_request_without_answer_counts_as_failed() -> None:
    registry, sent, client = watched()
    async with client:
        assert (await client.get("/fail")).status_code == 500
    assert value(registry, "holdfast_http_requests_total", method="GET", route="/fail", status="500") == 1
    assert [(span.name, span.failed) for span in sent] == [("GET /fail", True)]


async def test_a_request_hangs_below_its_caller_and_whoever_it_asks_hears_of_it() -> None:
    assert PARENT is not None
    _, sent, client = watched()
    async with client:
        passed_on = await client.get("/things/1", headers={"traceparent": CALLER})
        fresh = await client.get("/things/1")
    first, second = sent
    assert (first.trace_id, first.parent_id) == (PARENT.trace_id, PARENT.span_id)
    assert passed_on.text == f"00-{PARENT.trace_id}-{first.span_id}-01"
    assert (second.parent_id, fresh.text) == (None, f"00-{second.trace_id}-{second.span_id}-01")
    assert second.trace_id != first.trace_id
    assert tracing.caller.get() is None


async def test_a_caller_that_does_not_record_its_trace_does_not_get_spans_into_it() -> None:
    _, sent, client = watched()
    async with client:
        assert (await client.get("/things/1", headers={"traceparent": f"{CALLER[:-2]}00"})).text.endswith("-00")
    assert sent == []


async def test_a_request_id_is_given_back_or_made() -> None:
    _, sent, client = watched()
    async with client:
        assert (await client.get("/things/1", headers={"x-request-id": "mine-1"})).headers["x-request-id"] == "mine-1"
        for odd in ("no blanks", "x" * 65, ""):
            made = (await client.get("/things/1", headers={"x-request-id": odd})).headers["x-request-id"]
            assert made == sent[-1].span_id

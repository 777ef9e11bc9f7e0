"""What leaves by OTLP: complete, to every endpoint, in one trace a run; and a collector that is slow or gone is nobody's trouble."""

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bin.commands.otlp_smoke import checked
from bin.database import connect
from bin.otlp_receiver import Receiver
from bin.settings import ROOT, Settings, read_settings
from bin.telemetry import Telemetry
from bin.variables import BadSetting
from bin.watch import Span
from steps import tracing
from steps.tracing import Caller
from tests.platform.conftest import CALLER, Observed

TRACE, ROOT_SPAN, STEP_SPAN = "ab" * 16, "01" * 8, "02" * 8
LINK = Caller("cd" * 16, "03" * 8, sampled=True)


def settings(*endpoints: str, **environ: str) -> Settings:
    return read_settings({"DBOS_ENABLE_OTLP": "1", "OTEL_EXPORTER_OTLP_ENDPOINT": ",".join(endpoints), **environ})


def span(name: str = "a step", **changed: Any) -> Span:
    whole = Span(
        name=name,
        kind="internal",
        trace_id=TRACE,
        span_id=STEP_SPAN,
        parent_id=ROOT_SPAN,
        began_ns=1_000,
        ended_ns=2_000,
        attributes={"n": 1, "text": "one"},
        failed=False,
    )
    return replace(whole, **changed)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


# -- settings ---------------------------------------------------------------------------------------------------------------------


def test_each_signal_goes_to_its_own_list_or_below_the_common_one() -> None:
    common = settings("http://a:1", "https://b/otlp/")
    assert common.traces_endpoints == ["http://a:1/v1/traces", "https://b/otlp/v1/traces"]
    assert common.logs_endpoints == ["http://a:1/v1/logs", "https://b/otlp/v1/logs"]
    own = settings("http://a:1", OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="http://t:1/in, http://t:2/in")
    assert own.traces_endpoints == ["http://t:1/in", "http://t:2/in"]
    assert own.logs_endpoints == ["http://a:1/v1/logs"]


def test_who_we_are_comes_from_the_service_name_then_the_attributes_then_the_application() -> None:
    attributes = "service.name=from%20attributes, team = blue,empty="
    assert Settings().service_name == "holdfast"
    assert read_settings({"DBOS_APP_NAME": "mine"}).service_name == "mine"
    given = read_settings({"OTEL_RESOURCE_ATTRIBUTES": attributes})
    assert given.resource_attributes == {"service.name": "from attributes", "team": "blue", "empty": ""}
    assert given.service_name == "from attributes"
    assert read_settings({"OTEL_RESOURCE_ATTRIBUTES": attributes, "OTEL_SERVICE_NAME": "named"}).service_name == "named"


def test_attributes_that_are_no_pairs_are_refused() -> None:
    with pytest.raises(BadSetting, match="OTEL_RESOURCE_ATTRIBUTES: it must be a list"):
        read_settings({"OTEL_RESOURCE_ATTRIBUTES": "team=blue,north"})


def test_the_packages_are_loaded_only_when_they_are_wanted() -> None:
    look = "import sys, bin.roles; print([m for m in sys.modules if m.startswith('opentelemetry')])"
    done = subprocess.run([sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


# -- sending ----------------------------------------------------------------------------------------------------------------------


def test_a_span_arrives_as_it_was_with_who_sent_it(receiver: Receiver) -> None:
    with Telemetry(settings(receiver.url, OTEL_SERVICE_NAME="svc", OTEL_RESOURCE_ATTRIBUTES="team=blue"), "worker") as telemetry:
        telemetry.send(span("below", link=LINK, failed=True))
        telemetry.send(span("root", span_id=ROOT_SPAN, parent_id=None))
    below, root = receiver.spans
    assert (below.name, below.trace_id, below.span_id, below.parent_id) == ("below", TRACE, STEP_SPAN, ROOT_SPAN)
    assert (below.links, below.failed, below.attributes) == (((LINK.trace_id, LINK.span_id),), True, {"n": 1, "text": "one"})
    assert (root.parent_id, root.links, root.failed) == ("", (), False)
    assert {name: below.service[name] for name in ("service.name", "service.version", "holdfast.role", "team")} == {
        "service.name": "svc",
        "service.version": "v1",
        "holdfast.role": "worker",
        "team": "blue",
    }
    assert receiver.paths == ["/v1/traces"]


def test_log_lines_arrive_with_their_place_in_a_trace_while_the_block_lasts(receiver: Receiver) -> None:
    log, before = logging.getLogger("tests.telemetry"), list(logging.getLogger().handlers)
    with Telemetry(settings(receiver.url), "api"):
        log.warning({"event": "it is done", "level": "warning", "n": 1, "trace_id": TRACE, "span_id": STEP_SPAN, "list": [1]})
        log.warning("from %s\nand more", "a library")
        logging.getLogger("opentelemetry.exporter").error("could not send")
    log.warning("too late")
    assert logging.getLogger().handlers == before
    ours, lib = sorted(receiver.logs, key=lambda each: each.body != "it is done")
    assert (ours.body, ours.severity, ours.trace_id, ours.span_id) == ("it is done", "WARNING", TRACE, STEP_SPAN)
    assert ours.attributes == {"n": 1, "list": "[1]"}
    assert (lib.body, lib.trace_id, lib.attributes) == ("from a library", "", {"logger": "tests.telemetry"})


def test_every_endpoint_gets_everything(receiver: Receiver) -> None:
    with Receiver() as other:
        with Telemetry(settings(receiver.url, other.url), "worker") as telemetry:
            for n in range(1500):  # several batches
                telemetry.send(span(str(n)))
        assert sorted(each.name for each in receiver.spans) == sorted(each.name for each in other.spans)
        assert len(receiver.spans) == 1500


@pytest.fixture
def deaf() -> Iterator[str]:
    """The address of somebody who takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_collector_that_does_not_answer_holds_nobody_up(deaf: str, receiver: Receiver) -> None:
    before = threading.active_count()
    telemetry = Telemetry(settings(deaf, receiver.url), "worker")
    began = time.perf_counter()
    for n in range(10_000):  # more than a queue holds
        telemetry.send(span(str(n)))
    assert time.perf_counter() - began < 5  # a tenth of a millisecond each would be one second
    deadline = time.monotonic() + 20
    while "9999" not in {each.name for each in receiver.spans}:  # the other one gets the newest all the same
        assert time.monotonic() < deadline
        time.sleep(0.02)
    began = time.perf_counter()
    telemetry.close(within_s=0.2)
    assert time.perf_counter() - began < 2
    while threading.active_count() > before:  # nor does it go on behind our back
        assert time.perf_counter() - began < 10
        time.sleep(0.02)


# -- real processes ---------------------------------------------------------------------------------------------------------------


def test_a_run_is_one_trace_at_every_collector_and_its_lines_are_with_it(observed: Observed) -> None:
    one, other = observed.collectors
    proofs = dict(checked(observed.wid, observed.stored, one, other))
    assert len(proofs) == 11
    assert [text for text, holds in proofs.items() if not holds] == []


def test_a_request_of_somebody_who_traces_hangs_below_theirs(observed: Observed) -> None:
    asked = tracing.parse_traceparent(CALLER)
    assert asked is not None
    (read,) = (each for each in observed.collectors[0].spans if each.trace_id == asked.trace_id)
    assert (read.name, read.parent_id) == ("GET /api/runs/{wid}", asked.span_id)
    assert read.attributes["holdfast.workflow.id"] == observed.wid


def test_no_payload_leaves(observed: Observed) -> None:
    everything = str([*observed.collectors[0].spans, *observed.collectors[0].logs])
    for hidden in ("demo goal", "acct-", "rationale", "dbname="):
        assert hidden not in everything


def test_the_proofs_of_the_smoke_fail_when_something_is_missing(observed: Observed) -> None:
    one, _ = observed.collectors
    root, trace = tracing.execution_span(observed.wid, 1), tracing.trace_id(observed.wid)

    def failing(*, spans: bool = True, **kept: object) -> set[str]:
        mute = Receiver.__new__(Receiver)
        mute.spans = [each for each in one.spans if spans and all(getattr(each, k) != v for k, v in kept.items())]
        mute.logs = [each for each in one.logs if spans or each.trace_id != trace]
        return {text for text, holds in checked(observed.wid, observed.stored, mute, one) if not holds}

    assert failing() == set()
    assert "the run's first execution is the root" in failing(span_id=root)
    assert "the four steps' rows name their spans" in failing(name="DecideST")
    assert "the run is linked to the request that started it" in failing(name="POST /api/run")
    assert "both collectors have the same spans" in failing(name="loadRun")
    assert "log records of the run carry its trace" in failing(spans=False)


def test_the_smoke_makes_a_service_and_a_database_of_its_own_and_takes_it_away(server: str, tmp_path: Path) -> None:
    environ = {**os.environ, "DATABASE_URL": server, "STATE_DIR": str(tmp_path), "PYTHONDONTWRITEBYTECODE": ""}
    environ["TRACE_BASE_URL"] = "https://traces.example/t/{traceId}"
    done = subprocess.run(
        [sys.executable, "-P", "-m", "bin.commands.otlp_smoke"],
        env={**environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "11 of 11 proofs hold for run ih_" in done.stdout
    assert "its page would be https://traces.example/t/" in done.stdout
    with connect(server, autocommit=True) as conn:
        assert conn.execute("select datname from pg_database where datname like 'otlp_smoke_%'").fetchall() == []

"""What a process notices of its work: every run, step attempt and request gets its ids on log lines, is counted, and becomes a span.

The ids are those of steps/tracing.py for runs. A request has its own, or those of the caller's trace that it names, and says to the runs
that it starts who asked.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Literal, Protocol

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, bound_contextvars, get_contextvars, reset_contextvars

from bin.metrics import RequestMetrics, RunMetrics
from engine import Observer, StepInfo, WorkflowInfo
from steps import tracing
from steps.tracing import Caller, Trace

log = structlog.get_logger("bin.watch")

REQUEST_ID = re.compile(r"[\w.:-]{1,64}", re.ASCII)
FAILURES = ("ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Something that took time, as tracing systems have it. link: a span of another trace that had to do with it."""

    name: str
    kind: Literal["server", "consumer", "internal"]
    trace_id: str
    span_id: str
    parent_id: str | None
    began_ns: int
    ended_ns: int
    attributes: dict[str, str | int]
    failed: bool
    link: Caller | None = None


class Spans(Protocol):
    """Where spans go. Must not block."""

    def send(self, span: Span) -> None: ...


@dataclass(frozen=True, slots=True)
class Execution:
    """A run that is being executed here. began_ns: for its span; how long it takes is measured by a clock that nobody sets."""

    trace: Trace
    span_id: str
    number: int
    began_ns: int = field(default_factory=time.time_ns)
    began_s: float = field(default_factory=time.perf_counter)


_execution: ContextVar[Execution] = ContextVar("holdfast_execution")


class WatchedRuns(Observer):
    """For a worker."""

    def __init__(self, metrics: RunMetrics, spans: Spans | None = None) -> None:
        self._metrics = metrics
        self._spans = spans

    def run_started(self, run: WorkflowInfo) -> None:
        trace = tracing.trace_of(run)
        execution = Execution(trace, tracing.execution_span(run.id, run.attempt), run.attempt)
        _execution.set(execution)
        bind_contextvars(workflow=run.id, workflow_name=run.name, trace_id=trace.id, span_id=execution.span_id)
        if trace.run_id is not None:
            bind_contextvars(run=trace.run_id)
        self._metrics.claimed(run.name)

    def run_ended(self, run: WorkflowInfo, how: str) -> None:
        execution = _execution.get()
        self._metrics.ended(run.name, how)
        log.info("run left this worker", how=how, took_ms=round((time.perf_counter() - execution.began_s) * 1000))
        if self._spans is not None:
            self._spans.send(execution_span(run, execution, how, time.time_ns()))

    @contextmanager
    def attempt(self, name: str, step: StepInfo) -> Iterator[None]:
        execution = _execution.get()
        span_id = tracing.step_span(step.workflow_id, execution.number, step.path, step.attempt)
        began_ns, began = time.time_ns(), time.perf_counter()
        outcome, error_type = "lost", ""
        bound = bind_contextvars(step=name, call=step.path, attempt=step.attempt, span_id=span_id)
        try:
            yield
            outcome = "ok"
        except Exception as error:
            outcome, error_type = "failed", type(error).__qualname__
            log.warning("step attempt failed", error_type=error_type)
            raise
        finally:
            reset_contextvars(**bound)
            self._metrics.attempted(name, outcome, time.perf_counter() - began)
            if self._spans is not None:
                self._spans.send(step_span(name, step, execution, span_id, began_ns, outcome, error_type))

    def committed(self, records: int) -> None:
        self._metrics.committed(records)

    def lease_lost(self) -> None:
        self._metrics.lease_lost()

    def failed_over(self, went_back: bool) -> None:
        self._metrics.failed_over(went_back)


def execution_span(run: WorkflowInfo, execution: Execution, how: str, ended_ns: int) -> Span:
    trace = execution.trace
    above = run.id if execution.number > 1 else run.parent_id
    attributes: dict[str, str | int] = {
        "holdfast.workflow.id": run.id,
        "holdfast.workflow.name": run.name,
        "holdfast.execution": execution.number,
        "holdfast.ended": how,
    }
    for name, value in (("queue", run.queue), ("run.id", trace.run_id), ("trace", trace.name)):
        if value is not None:
            attributes[f"holdfast.{name}"] = value
    return Span(
        name=run.name,
        kind="consumer",
        trace_id=trace.id,
        span_id=execution.span_id,
        parent_id=None if above is None else tracing.execution_span(above, 1),
        began_ns=execution.began_ns,
        ended_ns=ended_ns,
        attributes=attributes,
        failed=how in FAILURES,
        link=trace.started_by if above is None else None,
    )


def step_span(
    name: str, step: StepInfo, execution: Execution, span_id: str, began_ns: int, outcome: str, error_type: str
) -> Span:
    attributes: dict[str, str | int] = {
        "holdfast.workflow.id": step.workflow_id,
        "holdfast.call": step.path,
        "holdfast.attempt": step.attempt,
        "holdfast.outcome": outcome,
    }
    if error_type:
        attributes["error.type"] = error_type
    return Span(
        name=name,
        kind="internal",
        trace_id=execution.trace.id,
        span_id=span_id,
        parent_id=execution.span_id,
        began_ns=began_ns,
        ended_ns=time.time_ns(),
        attributes=attributes,
        failed=outcome == "failed",
    )


class WatchedRequests:
    """An application, watched."""

    def __init__(self, app: ASGIApp, metrics: RequestMetrics, spans: Spans | None = None) -> None:
        self._app = app
        self._metrics = metrics
        self._spans = spans

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict[bytes, bytes](scope["headers"])
        asked_by = tracing.parse_traceparent(headers.get(b"traceparent", b"").decode("latin-1"))
        sampled = asked_by is None or asked_by.sampled
        own = Caller(token_hex(16) if asked_by is None else asked_by.trace_id, token_hex(8), sampled)
        request = headers.get(b"x-request-id", b"").decode("latin-1")
        if not REQUEST_ID.fullmatch(request):
            request = own.span_id
        answer = Answer(scope, send, request)
        token = tracing.caller.set(own)
        try:
            with bound_contextvars(
                request=request, method=scope["method"], path=scope["path"], trace_id=own.trace_id, span_id=own.span_id
            ):
                try:
                    await self._app(scope, receive, answer.send)
                finally:
                    self._note(answer, own, asked_by)
        finally:
            tracing.caller.reset(token)

    def _note(self, answer: "Answer", own: Caller, asked_by: Caller | None) -> None:
        self._metrics.answered(answer.method, answer.route, answer.status, answer.began_after_s)
        if answer.method != "GET" or answer.status >= 500:
            log.info("request answered", route=answer.route, status=answer.status, took_ms=round(answer.began_after_s * 1000))
        if self._spans is not None and own.sampled:
            self._spans.send(request_span(answer, own, asked_by))


class Answer:
    """What became of a request. Its time is that until the answer began: a stream may go on for long."""

    def __init__(self, scope: Scope, send: Send, request_id: str) -> None:
        self.status = 500  # unless it is answered
        self.began_ns = time.time_ns()
        self.began_after_s = 0.0
        self._scope = scope
        self._send = send
        self._request_id = request_id
        self._asked = time.perf_counter()

    @property
    def method(self) -> str:
        return str(self._scope["method"])

    @property
    def route(self) -> str:
        """The template that the path matched."""
        return str(getattr(self._scope.get("route"), "path", "unmatched"))

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.began_after_s = time.perf_counter() - self._asked
            message["headers"] = [*message.get("headers", ()), (b"x-request-id", self._request_id.encode())]
        await self._send(message)


def request_span(answer: Answer, own: Caller, asked_by: Caller | None) -> Span:
    attributes: dict[str, str | int] = {
        "http.request.method": answer.method,
        "http.route": answer.route,
        "http.response.status_code": answer.status,
    }
    if isinstance(wid := get_contextvars().get("wid"), str):
        attributes["holdfast.workflow.id"] = wid
    return Span(
        name=f"{answer.method} {answer.route}",
        kind="server",
        trace_id=own.trace_id,
        span_id=own.span_id,
        parent_id=None if asked_by is None else asked_by.span_id,
        began_ns=answer.began_ns,
        ended_ns=time.time_ns(),
        attributes=attributes,
        failed=answer.status >= 500,
    )

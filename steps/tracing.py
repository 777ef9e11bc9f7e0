"""Where a run is found in a tracing system. The ids are made of what the journal knows, so that every process, every replay and every
page comes to the same ones, whether spans are sent or not.

A run is one trace, the workflows that it starts included. Each execution of a workflow, from a claim until it ends or parks, is a span,
and each attempt at a step is one below it. The first execution is the parent of the later ones; that of a child hangs below its
parent's.
"""

import hashlib
import re
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from engine import WorkflowInfo, step_info, workflow_info
from steps import identity
from steps.contracts.base import JsonObject

TRACE_ID = re.compile(r"(?!0{32})[0-9a-f]{32}")
TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?P<trace>(?!0{32})[0-9a-f]{32})-(?P<span>(?!0{16})[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})(-.*)?"
)
SAMPLED = 1
MOST_OF_A_NAME = 200  # characters; it travels with every workflow of the run


@dataclass(frozen=True, slots=True)
class Caller:
    """A span of somebody who asked us for something. sampled: whether it is sent anywhere."""

    trace_id: str
    span_id: str
    sampled: bool

    @property
    def traceparent(self) -> str:
        """As the header of the W3C's Trace Context says it."""
        return f"00-{self.trace_id}-{self.span_id}-{SAMPLED if self.sampled else 0:02x}"


def parse_traceparent(text: object) -> Caller | None:
    found = TRACEPARENT.fullmatch(text) if isinstance(text, str) else None
    return None if found is None else Caller(found["trace"], found["span"], bool(int(found["flags"], 16) & SAMPLED))


#: The request that is being answered in this context, if there is one.
caller: ContextVar[Caller | None] = ContextVar("holdfast_caller", default=None)


@dataclass(frozen=True, slots=True)
class Trace:
    """The trace that a workflow belongs to. name: what the start called it, if that is no trace id. started_by: the request."""

    id: str
    run_id: str | None = None
    name: str | None = None
    started_by: Caller | None = None


def trace_id(workflow_id: str, given: str | None = None) -> str:
    """The trace of a run, 32 hex digits: the id that its start gave, if it is one, else a hash of the workflow's id."""
    if given is not None and TRACE_ID.fullmatch(given.lower()):
        return given.lower()
    return _digest("trace", workflow_id)[:32]


def execution_span(workflow_id: str, execution: int) -> str:
    """16 hex digits. execution: how often the workflow had been claimed, this time included."""
    return _digest("execution", workflow_id, execution)[:16]


def step_span(workflow_id: str, execution: int, path: str, attempt: int) -> str:
    return _digest("step", workflow_id, execution, path, attempt)[:16]


def span_of_this_step() -> str:
    """The span of the step attempt that calls this."""
    step = step_info()
    return step_span(step.workflow_id, workflow_info().attempt, step.path, step.attempt)


def _digest(*parts: object) -> str:
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()


def attributes_of(workflow_id: str, given: str | None) -> JsonObject:
    """What a run's workflow is enqueued with, so that it and all workflows below it know their run and trace."""
    id, asked_by = trace_id(workflow_id, given), caller.get()
    attributes = {"runId": identity.run_id(workflow_id), "traceId": id}
    if given is not None and given.lower() != id:
        attributes["trace"] = given[:MOST_OF_A_NAME]
    if asked_by is not None:
        attributes["startedBy"] = asked_by.traceparent
    return attributes


def trace_of(workflow: WorkflowInfo) -> Trace:
    """The trace of a workflow, whoever enqueued it."""
    attributes: Any = workflow.attributes
    carried: JsonObject = attributes if isinstance(attributes, dict) else {}
    id = carried.get("traceId")
    if not isinstance(id, str) or not TRACE_ID.fullmatch(id):
        return Trace(trace_id(workflow.parent_id or workflow.id))
    return Trace(id, _text(carried.get("runId")), _text(carried.get("trace")), parse_traceparent(carried.get("startedBy")))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def trace_link(base_url: str, trace_id: str, span_id: str | None = None) -> str:
    """The page of a trace: base_url with {traceId} and {spanId} filled in, or with the trace's id behind it."""
    trace, span = quote(trace_id, safe=""), quote(span_id or "", safe="")
    if "{traceId}" in base_url or "{spanId}" in base_url:
        return base_url.replace("{traceId}", trace).replace("{spanId}", span)
    return f"{base_url.rstrip('/')}/{trace}"

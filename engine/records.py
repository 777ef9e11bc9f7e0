"""The rows of the mirror as the engine's callers see them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, LiteralString, NamedTuple

ENQUEUED = "ENQUEUED"
DELAYED = "DELAYED"
PENDING = "PENDING"
SUCCESS = "SUCCESS"
ERROR = "ERROR"
CANCELLED = "CANCELLED"
TOO_MANY_ATTEMPTS = "MAX_RECOVERY_ATTEMPTS_EXCEEDED"

#: States that no worker leaves by itself; an operator's resume or rewind can.
FINAL = frozenset({SUCCESS, ERROR, CANCELLED, TOO_MANY_ATTEMPTS})

#: Topic under which a message without topic is stored.
NO_TOPIC = "__null__topic__"


@dataclass(frozen=True, slots=True)
class WorkflowStatus:
    """One workflow as dbos.workflow_status holds it. Times in epoch milliseconds of the database's clock; output and input decoded."""

    id: str
    status: str
    name: str
    class_name: str | None
    queue: str | None
    partition: str | None
    priority: int
    version: str | None
    executor_id: str | None
    attempts: int
    claims: int
    created_at_ms: int
    updated_at_ms: int
    started_at_ms: int | None
    completed_at_ms: int | None
    delay_until_ms: int | None
    deadline_ms: int | None
    wake_at_ms: int | None
    waits: list[str] | None
    parent_id: str | None
    forked_from: str | None
    dedup_id: str | None
    input: Any
    output: Any
    error: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One journal row. `path` is the call path, None in rows that another client wrote without one."""

    function_id: int
    path: str | None
    name: str
    output: Any
    error: dict[str, Any] | None
    child_id: str | None
    started_at_ms: int | None
    completed_at_ms: int | None


@dataclass(frozen=True, slots=True)
class Message:
    """One message in a workflow's mailbox. `consumed_by` is the function_id of the receive that took it."""

    id: str
    topic: str | None
    value: Any
    created_at_ms: int
    consumed_by: int | None


class WorkflowInfo(NamedTuple):
    """A workflow as the one who runs it knows it: its row's identity, and how often it was claimed (attempt counts from 1).

    attributes: what it was enqueued with; a child has its parent's.
    """

    id: str
    name: str
    queue: str | None
    partition: str | None
    priority: int
    attempt: int
    deadline_ms: int | None
    parent_id: str | None
    attributes: Mapping[str, Any] | None


class StepInfo(NamedTuple):
    """The running step. `key` is the same on every attempt and every replay: hand it to whatever the step calls, as idempotency key."""

    workflow_id: str
    path: str
    key: str
    attempt: int


class Rider:
    """A statement that writes rows of yours in the same commit as a journal record.

    sql: literal SQL with one `%s`, which receives a JSON array of all rows of a commit, for instance
    `insert into t (a, b) select a, b from json_to_recordset(%s) as r(a text, b int) on conflict do nothing`.
    Rows of different workflows share one execution, so it must not depend on their order.
    """

    __slots__ = ("sql",)

    def __init__(self, sql: LiteralString) -> None:
        self.sql: LiteralString = sql

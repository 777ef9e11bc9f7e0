"""Everything the engine raises.

Two families. `EngineError` and its kin are ordinary exceptions that a caller may handle. `Suspended` and `RunLost` are how a
workflow leaves a worker before its end; they derive from BaseException so that a workflow's own `except Exception` cannot hold
on to a run that has already been put away or taken over.
"""

from typing import Any


class EngineError(Exception):
    """Base of what the engine raises to its callers."""


class NoSuchWorkflow(EngineError):
    """There is no workflow with this id."""

    def __init__(self, workflow_id: str) -> None:
        super().__init__(f"there is no workflow {workflow_id!r}; check the id, or enqueue it first")
        self.workflow_id = workflow_id


class DuplicateWork(EngineError):
    """The queue already holds unfinished work with this deduplication id."""

    def __init__(self, queue: str, dedup_id: str) -> None:
        super().__init__(f"queue {queue!r} already holds unfinished work with deduplication id {dedup_id!r}")
        self.queue = queue
        self.dedup_id = dedup_id


class ConflictingWorkflow(EngineError):
    """The id belongs to a workflow of another name."""


class InvalidName(EngineError):
    """An id, name, topic or key is empty or holds a control character."""


class WorkflowFailed(EngineError):
    """The workflow whose result was asked for ended without one.

    name: what went wrong, by the name of the error that ended it (or 'Cancelled', 'TooManyAttempts').
    message: one sentence. data: what the error carried, JSON, or None.
    """

    def __init__(self, workflow_id: str, name: str, message: str, data: Any = None) -> None:
        super().__init__(f"workflow {workflow_id} failed: {name}: {message}")
        self.workflow_id = workflow_id
        self.name = name
        self.message = message
        self.data = data


class StepFailed(EngineError):
    """A step's recorded failure, raised alike when it happens and whenever it is replayed.

    name: the error's type name, or the `name` given to TerminalError. message: its text. data: JSON or None.
    """

    def __init__(self, name: str, message: str, data: Any = None) -> None:
        super().__init__(f"{name}: {message}" if message else name)
        self.name = name
        self.message = message
        self.data = data


class TerminalError(EngineError):
    """Raise it in a step to fail at once, without further attempts; in a workflow to end it with a name and data of your own."""

    def __init__(self, message: str, *, name: str | None = None, data: Any = None) -> None:
        super().__init__(message)
        self.name = name or type(self).__name__
        self.data = data


class StepTimeout(EngineError):
    """A step's attempt took longer than its timeout_s."""


class RecordRefused(EngineError):
    """The database refused a record or a row that rode with it; nothing of that call was written."""


class ReplayMismatch(EngineError):
    """The workflow's code no longer makes the calls that its journal holds."""


class MisplacedCall(EngineError):
    """An engine call was made where it cannot be journaled."""


class UnreadablePayload(EngineError):
    """A stored value is not portable JSON, or does not fit the type that the code declares for it."""


class Suspended(BaseException):
    """The run was parked and has left this worker's memory. Do not catch it; use `except Exception` instead of a bare except."""


class RunLost(BaseException):
    """The run was cancelled or taken over; nothing this task does is recorded any more. Do not catch it."""

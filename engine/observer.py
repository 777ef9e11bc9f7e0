"""How somebody watches a worker at work: for logs, for metrics, for traces. A worker without an observer pays one comparison a step.

Everything is called on the worker's event loop, so it must be quick, and it must not raise.
"""

from contextlib import AbstractContextManager, nullcontext

from engine.records import StepInfo, WorkflowInfo

UNWATCHED: AbstractContextManager[object] = nullcontext()


class Observer:
    """Is told what a worker does, and does nothing about it. Override what you want to know."""

    def run_started(self, run: WorkflowInfo) -> None:
        """A run was claimed. Called in the run's own task: context variables set here are seen by all of its code, and by no other."""

    def run_ended(self, run: WorkflowInfo, how: str) -> None:
        """A run left this worker, in the task of its start. how: its final status, `parked`, or `lost`."""

    def attempt(self, name: str, step: StepInfo) -> AbstractContextManager[object]:
        """Entered around each attempt of a step or transaction that is really made; its error passes through. Replay makes none."""
        return UNWATCHED

    def committed(self, records: int) -> None:
        """The journal committed this many records together."""

    def lease_lost(self) -> None:
        """Others took this worker for dead, and have its runs."""

    def failed_over(self, went_back: bool) -> None:
        """The database is another server than before, or another life of it. went_back: without something that was committed."""

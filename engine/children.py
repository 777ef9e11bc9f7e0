"""Child workflows: starting one and waiting for its end.

The child's row and the parent's record of the start are one commit. A parent that waits is parked; its child's end leaves a wake-up
for it in the commit of that end. A workflow that is somebody else's child, or nobody's, is waited for through engine.wait.
"""

from typing import Any, Generic, LiteralString, Protocol, TypeVar, cast

from engine import codec
from engine.entries import Child
from engine.errors import WorkflowFailed
from engine.lookups import look_up
from engine.names import checked_name
from engine.records import CANCELLED, FINAL, SUCCESS, TOO_MANY_ATTEMPTS
from engine.run import RECHECK_MS, calling_branch

R = TypeVar("R", covariant=True)


class Startable(Protocol):
    """What is known of a workflow here."""

    name: str
    class_name: str | None

    @property
    def result_decoder(self) -> codec.Decoder: ...


class ChildHandle(Generic[R]):
    """A started workflow, seen from inside the workflow that started it."""

    __slots__ = ("_decoder", "id")

    def __init__(self, id: str, decoder: codec.Decoder) -> None:
        self.id = id
        self._decoder = decoder

    async def result(self) -> R:
        """The workflow's result, waiting for its end. Raises WorkflowFailed when it ended without one."""
        return cast(R, await _result_of(self.id, self._decoder))


OUTCOME: LiteralString = """
select s.status, coalesce(s.output, o.output), coalesce(s.error, o.error), s.serialization, s.parent_workflow_id
  from dbos.workflow_status s left join dbos.workflow_output o using (workflow_uuid)
 where s.workflow_uuid = %s
"""


async def _result_of(workflow_id: str, decoder: codec.Decoder) -> Any:
    branch = calling_branch("result")
    path = branch.next_path()
    found = branch.replayed(path, "DBOS.getResult")
    if found is not None:
        if found.error is not None:
            raise WorkflowFailed(workflow_id, *codec.decode_error(found.error, found.serialization))
        return codec.shaped(decoder, codec.decode(found.output, found.serialization), f"the result of {workflow_id}")
    while True:
        row = await look_up(branch, OUTCOME, (workflow_id,))
        status, output, error, serialization, parent = row or (CANCELLED, None, None, codec.PORTABLE, None)
        if status in FINAL:
            break
        own = parent == branch.run.id
        again_ms = None if own else branch.run.seen_ms + RECHECK_MS
        await branch.block(f"c:{workflow_id}", again_ms, shared=not own)
    if status == SUCCESS:
        value = codec.decode(output, serialization)
        await branch.record(path, "DBOS.getResult", codec.encode(value), child_id=workflow_id)
        return codec.shaped(decoder, value, f"the result of {workflow_id}")
    failure = WorkflowFailed(workflow_id, *why_it_ended(status, error, serialization, gone=row is None))
    await branch.record(path, "DBOS.getResult", None, codec.encode_error(failure), child_id=workflow_id)
    raise failure


def why_it_ended(status: str, error: str | None, serialization: str | None, *, gone: bool = False) -> tuple[str, str, Any]:
    """(name, message, data) for a workflow that ended without a result."""
    if gone:
        return "NoSuchWorkflow", "it was deleted before its result was read", None
    if error is not None:
        return codec.decode_error(error, serialization)
    if status == CANCELLED:
        return "Cancelled", "it was cancelled", None
    if status == TOO_MANY_ATTEMPTS:
        return "TooManyAttempts", "it was claimed too often without progress", None
    return "Error", "it ended without saying why", None


async def start_child(
    workflow: Startable,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    id: str | None = None,
    queue: str | None = None,
    partition: str | None = None,
    priority: int | None = None,
    delay_s: float | None = None,
    timeout_s: float | None = None,
) -> ChildHandle[Any]:
    branch = calling_branch(f"start of {workflow.name}")
    path = branch.next_path()
    found = branch.replayed(path, workflow.name)
    if found is not None:
        return ChildHandle(str(found.child_id), workflow.result_decoder)
    own = branch.run.claimed
    child_id = checked_name(id or f"{own.id}-{path}", "workflow id")
    columns = {
        "id": child_id,
        "name": workflow.name,
        "class_name": workflow.class_name,
        "inputs": codec.encode({"positionalArgs": list(args), "namedArgs": kwargs}),
        "queue": checked_name(queue, "queue name") if queue else own.queue,
        "partition": partition if partition is not None else own.partition,
        "priority": priority if priority is not None else own.priority,
        "version": own.version,
        "timeout_ms": None if timeout_s is None else round(timeout_s * 1000),
        "deadline_ms": own.deadline_ms,
        "delay_ms": None if delay_s is None else round(delay_s * 1000),
        "parent": own.id,
    }
    await branch.record(path, workflow.name, None, child_id=child_id, effect=Child(codec.encode(columns)))
    return ChildHandle(child_id, workflow.result_decoder)

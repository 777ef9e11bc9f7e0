"""A durable execution engine on PostgreSQL: workflows whose every finished call is recorded, and that go on from there after any crash.

from engine import Engine, recv, step, workflow

@step(max_attempts=3)
async def charge(order: Order) -> str: ...

@workflow
async def fulfil(order: Order) -> str:
    payment = await charge(order)                  # recorded: never runs again
    if await recv("approval", timeout_s=86_400) != "yes":
        return "refused"                           # while it waits it holds nothing
    return await ship(order, payment)

async with Engine.connect("postgresql:///shop") as engine:
    await engine.enqueue(fulfil, Order("7", 1999), id="order-7")
    await engine.run_worker([fulfil])
"""

from engine import retention
from engine.calls import (
    close_stream,
    deprecate_patch,
    gather,
    get_event,
    now,
    patched,
    recv,
    send,
    set_event,
    sleep,
    start,
    step_info,
    uuid4,
    workflow_info,
    write_stream,
)
from engine.children import ChildHandle
from engine.client import DedupPolicy, Engine, Handle, Start
from engine.connections import connection_string
from engine.entries import Connection
from engine.errors import (
    ConflictingWorkflow,
    DuplicateWork,
    EngineError,
    InvalidName,
    MisplacedCall,
    NoSuchWorkflow,
    RecordRefused,
    ReplayMismatch,
    RunLost,
    StepFailed,
    StepTimeout,
    Suspended,
    TerminalError,
    UnreadablePayload,
    WorkflowFailed,
)
from engine.functions import Step, Transaction, Workflow, step, transaction, workflow
from engine.lookups import cannot_now, connection_lost
from engine.observer import Observer
from engine.offline import Difference, Replay, export_history, replay
from engine.queues import PartitionState, Queues, QueueState, Rate
from engine.records import FINAL, Message, Rider, StepInfo, StepRecord, WorkflowInfo, WorkflowStatus
from engine.run import ride
from engine.worker import Worker

__all__ = [
    "FINAL",
    "ChildHandle",
    "ConflictingWorkflow",
    "Connection",
    "DedupPolicy",
    "Difference",
    "DuplicateWork",
    "Engine",
    "EngineError",
    "Handle",
    "InvalidName",
    "Message",
    "MisplacedCall",
    "NoSuchWorkflow",
    "Observer",
    "PartitionState",
    "QueueState",
    "Queues",
    "Rate",
    "RecordRefused",
    "Replay",
    "ReplayMismatch",
    "Rider",
    "RunLost",
    "Start",
    "Step",
    "StepFailed",
    "StepInfo",
    "StepRecord",
    "StepTimeout",
    "Suspended",
    "TerminalError",
    "Transaction",
    "UnreadablePayload",
    "Worker",
    "Workflow",
    "WorkflowFailed",
    "WorkflowInfo",
    "WorkflowStatus",
    "cannot_now",
    "close_stream",
    "connection_lost",
    "connection_string",
    "deprecate_patch",
    "export_history",
    "gather",
    "get_event",
    "now",
    "patched",
    "recv",
    "replay",
    "retention",
    "ride",
    "send",
    "set_event",
    "sleep",
    "start",
    "step",
    "step_info",
    "transaction",
    "uuid4",
    "workflow",
    "workflow_info",
    "write_stream",
]

"""What happens besides when a gate found nobody: a workflow of its own leaves word of it.

Its id is the gate's (`esc:<workflow>:<gate>`), so a gate that times out once escalates once, however often the run that waited at it
is started again.
"""

from typing import Any

from engine import start, step, workflow
from steps import identity
from steps.artifacts import ASIDE, ride_artifact
from steps.policy import CONTROL_QUEUE
from steps.run_record import Run


async def escalate(run: Run, gate_key: str, at_ms: int) -> None:
    """Start the escalation of a gate that timed out, unless there is one already."""
    escalation = identity.escalation_id(run.workflow_id, gate_key)
    await start(escalate_timeout, run.run_id, gate_key, at_ms, id=escalation, queue=CONTROL_QUEUE, partition=run.partition)


@workflow(name="EscalateTimeout")
async def escalate_timeout(run_id: str, gate_key: str, at_ms: int) -> str:
    """Leaves an artifact that says which gate found nobody, and when; its address."""
    return await record_escalation(run_id, gate_key, at_ms)


@step(name="recordEscalation")
async def record_escalation(run_id: str, gate_key: str, at_ms: int) -> str:
    note: dict[str, Any] = {"event": "TIMEOUT_ESCALATION", "gateKey": gate_key, "at": at_ms}
    return ride_artifact(
        run_id, "EscalateTimeout", "ops", "escalation.json", {"json": note}, idx=ASIDE, attempt=1, task_key=gate_key
    )

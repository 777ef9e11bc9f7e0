"""One sandbox task as a workflow of its own: on its own queue, tried again when the sandbox was at fault, and with its own
record.
"""

from dataclasses import dataclass

from engine import StepFailed, TerminalError, ride, step, step_info, workflow, write_stream
from steps.contracts.sandbox import RETRYABLE, SBXReq, SBXRes
from steps.documents import compact
from steps.ports import ports
from steps.records import SANDBOX_RUN
from steps.sandbox_inputs import by_hash, inputs_of

STEP = "ExecuteST"
MAX_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Task:
    """A command to run for a run's execute step, without its input files. attempts_before: how often earlier tries of the run made it;
    key: under which its attempts are recorded; max_attempts: how often it may be tried now.
    """

    run_id: str
    request: SBXReq
    attempts_before: int
    key: str
    max_attempts: int = MAX_ATTEMPTS


@dataclass(frozen=True, slots=True)
class TaskDone:
    result: SBXRes
    attempt: int
    provider: str


class SandboxTrouble(Exception):
    """The sandbox, not the command, failed. again: whether the task may be tried once more."""

    def __init__(self, err_code: str, *, again: bool) -> None:
        super().__init__(err_code)
        self.name = err_code
        self.again = again


@workflow(name="ExecuteTask")
async def execute_task(task: Task) -> TaskDone:
    """The command's result, whatever it is. Fails only when the sandbox could not run it at all."""
    try:
        done = await run_in_sandbox(task)
    except StepFailed as failure:
        if failure.name not in RETRYABLE:
            raise TerminalError(failure.message, name=failure.name) from failure
        spent = f"Step executeTask has exceeded its maximum of {task.max_attempts} retries: {failure.name}"
        raise TerminalError(spent, name=failure.name) from failure
    for seq, (kind, chunk) in enumerate((("stdout", done.result.stdout), ("stderr", done.result.stderr))):
        if chunk:
            await write_stream(kind, {"kind": kind, "chunk": chunk, "seq": seq})
    return done


@step(
    name="executeTask",
    max_attempts=MAX_ATTEMPTS,
    backoff_s=1.0,
    backoff_factor=2.0,
    retry_if=lambda error: isinstance(error, SandboxTrouble) and error.again,
)
async def run_in_sandbox(task: Task) -> TaskDone:
    """One attempt; its row in app.sbx_runs stays whether it went well or not."""
    sandbox, info = ports().sandbox, step_info()
    attempt = task.attempts_before + info.attempt
    files = await inputs_of(task.run_id)
    request = task.request.model_copy(update={"filesIn": files})
    result = await sandbox.run(request, attempt=info.attempt, key=f"{info.key}:{info.attempt}")
    row = {
        "run_id": task.run_id,
        "step_id": STEP,
        "task_key": task.key,
        "attempt": attempt,
        "provider": sandbox.provider,
        "request": compact(task.request.model_copy(update={"filesIn": by_hash(files)})),
        "response": compact(result),
        "err_code": result.errCode,
        "metrics": compact(result.metrics),
    }
    ride(SANDBOX_RUN, row, keep=True)
    if result.errCode in RETRYABLE:
        raise SandboxTrouble(result.errCode, again=info.attempt < task.max_attempts)
    return TaskDone(result, info.attempt, sandbox.provider)

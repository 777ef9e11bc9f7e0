"""One sandbox task as a workflow of its own: on its own queue, tried again when the sandbox was at fault, and with its own
record.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from engine import StepFailed, TerminalError, ride, step, step_info, workflow, write_stream
from steps.canonical import sha256_text
from steps.contracts.base import parse
from steps.contracts.sandbox import RETRYABLE, SBXReq, SBXRes
from steps.documents import compact
from steps.ports import ports
from steps.records import SANDBOX_RUN
from steps.redaction import Redaction
from steps.sandbox import Holding
from steps.sandbox_inputs import by_hash, inputs_of

STEP = "ExecuteST"
MAX_ATTEMPTS = 3
NOT_KEPT = "(not kept)"


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
    """told: the output is in the streams already, as the sandbox told it while the command ran. held: the key for which the sandbox
    keeps the result until it is released.
    """

    result: SBXRes
    attempt: int
    provider: str
    told: bool = False
    held: str | None = None


class Telling:
    """Writes what a command prints to the task's streams while it runs. Chunks of a kind are numbered from 0; where a number is 0 again,
    the command was begun anew, and so is its output.
    """

    def __init__(self) -> None:
        self._next = {"stdout": 0, "stderr": 0}
        self._broken = False

    @property
    def complete(self) -> bool:
        """Whether all that was to be told was told, and it was something."""
        return not self._broken and any(self._next.values())

    async def __call__(self, kind: Literal["stdout", "stderr"], chunk: str) -> None:
        try:
            await tell(kind, chunk, self._next[kind])
        except Exception:
            self._broken = True
            raise
        self._next[kind] += 1


async def tell(kind: Literal["stdout", "stderr"], chunk: str, seq: int) -> None:
    await write_stream(kind, {"kind": kind, "chunk": chunk, "seq": seq})


class SandboxTrouble(Exception):
    """The sandbox, not the command, failed. again: whether the task may be tried once more; permanent: whether that is of no use."""

    def __init__(self, err_code: str, reason: str, *, again: bool, permanent: bool) -> None:
        super().__init__(reason if permanent else err_code)
        self.name = err_code
        self.again = again and not permanent
        self.data = {"permanent": True} if permanent else None


@workflow(name="ExecuteTask")
async def execute_task(task: Task) -> TaskDone:
    """The command's result, whatever it is. Fails only when the sandbox could not run it at all."""
    try:
        done = await run_in_sandbox(task)
    except StepFailed as failure:
        if failure.name not in RETRYABLE or failure.data:
            raise TerminalError(failure.message, name=failure.name) from failure
        spent = f"Step executeTask has exceeded its maximum of {task.max_attempts} retries: {failure.name}"
        raise TerminalError(spent, name=failure.name) from failure
    if done.held is not None:
        await release_sandbox(done.held)
    if not done.told:
        if done.result.stdout:
            await tell("stdout", done.result.stdout, 0)
        if done.result.stderr:
            await tell("stderr", done.result.stderr, 0)
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
    sandbox, info, began_at_ms = ports().sandbox, step_info(), int(time.time() * 1000)
    attempt, key = task.attempts_before + info.attempt, f"{info.key}:{info.attempt}"
    files = await inputs_of(task.run_id)
    request = task.request.model_copy(update={"filesIn": files})
    telling = Telling()
    # With values to hide the output is told at the end: a piece of it may hold half of one.
    result = await sandbox.run(request, attempt=info.attempt, key=key, on_output=None if request.env else telling)
    if request.env:
        result = without(request.env.values(), result)
    row = {
        "run_id": task.run_id,
        "step_id": STEP,
        "task_key": task.key,
        "attempt": attempt,
        "provider": sandbox.provider,
        "request": compact(shown(request)),
        "response": compact(result),
        "err_code": result.errCode,
        "metrics": compact(result.metrics),
        "began_at_ms": began_at_ms,
        "ended_at_ms": int(time.time() * 1000),  # its row may be written much later, with that of the last attempt
    }
    ride(SANDBOX_RUN, row, keep=True)
    if result.errCode in RETRYABLE:
        permanent = bool(result.raw and result.raw.get("permanent"))
        again = info.attempt < task.max_attempts
        raise SandboxTrouble(result.errCode, result.stderr.strip(), again=again, permanent=permanent)
    return TaskDone(result, info.attempt, sandbox.provider, telling.complete, key if isinstance(sandbox, Holding) else None)


@step(name="releaseSandbox")
async def release_sandbox(key: str) -> None:
    """The result is journaled: its sandbox may go."""
    sandbox = ports().sandbox
    if isinstance(sandbox, Holding):
        await sandbox.release(key)


def without(secrets: Iterable[str], result: SBXRes) -> SBXRes:
    """The result with these values hidden wherever the command printed or wrote them."""
    told = Redaction(secrets).document(compact(result))
    for file in told["filesOut"]:
        if file.get("inline") is not None:
            file["sha256"] = sha256_text(file["inline"])
    return parse(SBXRes, told)


def shown(request: SBXReq) -> SBXReq:
    """The request as its row keeps it: the hashes of its files, and the names alone of its variables, whose values may be secrets."""
    return request.model_copy(update={"filesIn": by_hash(request.filesIn), "env": dict.fromkeys(request.env, NOT_KEPT)})

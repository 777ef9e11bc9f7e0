"""ExecuteST: run what was decided, one sandbox task a test, side by side, and put the results together.

A task's key is a hash of what it does, and is its child workflow's id, so the same task is never run twice in a run's attempt.
All tasks are waited for before any failure counts: nothing of the run is still at work when its patches are taken back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from engine import TerminalError, WorkflowFailed, gather, now, ride, start, step, workflow_info
from steps import budgets, identity
from steps.apply import apply_ledger
from steps.budgets import Allowance
from steps.contracts.base import JsonObject, parse
from steps.contracts.plan import Build, OCOutput
from steps.contracts.sandbox import DEFAULT_ENV_REF, ErrCode, Metrics, SBXLimits, SBXReq, SBXRes
from steps.documents import compact
from steps.errors import InvalidInput
from steps.execute_artifacts import ride_task_artifacts
from steps.execute_task import MAX_ATTEMPTS, STEP, Task, TaskDone, execute_task
from steps.policy import SANDBOX_QUEUE
from steps.ports import ports
from steps.records import RECEIPT, Attempt, begin_step, finish_step
from steps.run_record import Run, is_fork_of
from steps.templates import Template, template_of


@dataclass(frozen=True, slots=True)
class TaskList:
    """The tasks of this attempt."""

    attempt: int
    requests: list[SBXReq]


async def execute(run: Run, decision: OCOutput, begun_at: datetime) -> None:
    """Run the decided tests. Fails the run when one fails, no sandbox could be had, or a budget is broken."""
    tasks = await plan_tasks(run, build_of(decision))
    allowed = budgets.allowance(run)
    budgets.check_fanout(allowed, len(tasks.requests))
    since = begun_at if tasks.attempt == 1 else await now()  # a retry has the whole time again
    await check_wall_clock(allowed, since)
    done = await run_tasks(run, tasks, allowed)
    await check_wall_clock(allowed, since)
    budgets.check_usage(allowed, [task.result for task in done], [task.attempt for task in done])
    err_code = await record_execution(run, decision, done)
    if err_code != "NONE":
        raise TerminalError(f"SBX execution failed [{err_code}]", name="SandboxFailed", data={"errCode": err_code})


async def check_wall_clock(allowed: Allowance, since: datetime) -> None:
    if allowed.wall_clock_ms is not None:
        budgets.check_wall_clock(allowed, since, await now())


async def run_tasks(run: Run, tasks: TaskList, allowed: Allowance) -> list[TaskDone]:
    before, most = (tasks.attempt - 1) * MAX_ATTEMPTS, budgets.attempts_allowed(allowed, MAX_ATTEMPTS)
    starts = (  # together, so that they are one commit
        start(
            execute_task,
            Task(run.run_id, request, before, record_key(run, request.taskKey), most),
            id=child_id(record_key(run, request.taskKey), tasks.attempt),
            queue=SANDBOX_QUEUE,
            partition=run.partition,
            priority=workflow_info().priority,
        )
        for request in tasks.requests
    )
    handles = await gather(*starts)
    outcomes = await gather(*(handle.result() for handle in handles), return_exceptions=True)
    done: list[TaskDone] = []
    for outcome in outcomes:
        if isinstance(outcome, WorkflowFailed):
            budgets.check_given_up(allowed, MAX_ATTEMPTS, outcome.name)
            data = {"errCode": outcome.name}
            raise TerminalError(f"SBX execution failed [{outcome.name}]: {outcome.message}", name="SandboxFailed", data=data)
        if isinstance(outcome, BaseException):
            raise outcome
        done.append(outcome)
    return done


def record_key(run: Run, task_key: str) -> str:
    """The task's key in the records. A fork runs its tasks itself, so that no cancel of one reaches the other."""
    return f"{task_key}:{workflow_info().id}" if is_fork_of(run.run_id) else task_key


def child_id(task_key: str, attempt: int) -> str:
    """A retry of the run runs its tasks anew."""
    return task_key if attempt == 1 else f"{task_key}:{attempt}"


def build_of(decision: OCOutput) -> Build:
    """The build in the decision. Refuses to execute what is not exactly one."""
    try:
        build = parse(Build, decision.structured)
    except InvalidInput as error:
        raise TerminalError(f"unsafe execution rejected: {error.message}", name="UnsafeExecution") from error
    if not build.test_command.strip():
        raise TerminalError("unsafe execution rejected: the test command is empty", name="UnsafeExecution")
    return build


@step(name="planTasks")
async def plan_tasks(run: Run, build: Build) -> TaskList:
    """The attempt's tasks: the test command once a test, or alone when there are no tests."""
    attempt = await begin_step(run, STEP)
    if attempt.rolled_back:
        await apply_ledger(run, workflow_info().id)
    template = await template_of(run)
    requests = [task_request(run, template, build.test_command, test) for test in build.tests or [None]]
    return TaskList(attempt.number, list({request.taskKey: request for request in requests}.values()))


def task_request(run: Run, template: Template, command: str, test: str | None) -> SBXReq:
    cmd = command if test is None else f"{command} {test}"
    limits = ports().limits
    return SBXReq(
        envRef=DEFAULT_ENV_REF,
        cmd=cmd,
        filesIn=[],
        env={},
        timeoutMs=limits.sandbox_timeout_ms,
        limits=SBXLimits(cpu=1, memMB=512),
        net=limits.sandbox_net,
        taskKey=identity.task_key(
            run.workflow_id,
            run.run_id,
            cmd=cmd,
            test=test,
            template_key=template.key,
            template_ref=template.ref,
        ),
        templateId=template.template_id,
        templateKey=template.key,
        depsHash=template.deps_hash,
    )


@step(name=STEP)
async def record_execution(run: Run, decision: OCOutput, done: list[TaskDone]) -> ErrCode:
    """Write what came out: the step's row, each task's artifacts, and the receipt of a success."""
    attempt = await begin_step(run, STEP)
    indexed = [(task, ride_task_artifacts(run.run_id, attempt.number, task.result, task.provider)) for task in done]
    merged = merge(indexed)
    output = compact(merged)
    finish_step(run, STEP, attempt, output)
    if merged.errCode == "NONE":
        if attempt.rolled_back:  # by a cancel while the tasks were running
            await apply_ledger(run, workflow_info().id)
        if not is_fork_of(run.run_id):
            ride_receipt(run, attempt, compact(decision), output)
    return merged.errCode


def merge(indexed: Sequence[tuple[TaskDone, str]]) -> SBXRes:
    """All results as one: the first failure counts, output is joined, time is the longest, work is the sum."""
    results = [task.result for task, _ in indexed]
    failed = next((result for result in results if result.errCode != "NONE"), None)
    tasks: list[JsonObject] = [
        {
            "taskKey": task.result.taskKey,
            "errCode": task.result.errCode,
            "exit": task.result.exit,
            "artifactIndexRef": index_uri,
            "metrics": compact(task.result.metrics),
            "attempt": task.attempt,
        }
        for task, index_uri in indexed
    ]
    return SBXRes(
        exit=failed.exit if failed else 0,
        errCode=failed.errCode if failed else "NONE",
        stdout="\n---\n".join(result.stdout for result in results),
        stderr="\n---\n".join(result.stderr for result in results),
        filesOut=[file for result in results for file in result.filesOut],
        metrics=Metrics(
            wallMs=max(result.metrics.wallMs for result in results),
            cpuMs=sum(result.metrics.cpuMs for result in results),
            memPeakMB=max(result.metrics.memPeakMB for result in results),
        ),
        sandboxRef=",".join(result.sandboxRef for result in results),
        taskKey="aggregated",
        artifactIndexRef=",".join(index_uri for _, index_uri in indexed),
        raw={"attempt": max(task.attempt for task, _ in indexed), "tasks": tasks},
    )


def ride_receipt(run: Run, attempt: Attempt, decision: JsonObject, output: JsonObject) -> None:
    """Count the side effect of this decision; it must stay one."""
    payload_hash = identity.payload_hash(decision)
    ride(
        RECEIPT,
        {
            "receipt_key": identity.receipt_key(run.run_id, STEP, payload_hash),
            "run_id": run.run_id,
            "step_id": STEP,
            "payload_hash": payload_hash,
            "attempt": attempt.number,
            "request_payload": decision,
            "response_payload": output,
        },
    )

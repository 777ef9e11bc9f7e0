"""The mock sandbox, how results are put together, and what the settings may ask for."""

from pathlib import Path

import pytest

from steps.budgets import Allowance, BudgetExceeded, check_usage
from steps.contracts.base import parse
from steps.contracts.sandbox import RETRYABLE, SBXLimits, SBXReq, SBXRes
from steps.documents import compact
from steps.execute import merge
from steps.execute_artifacts import entries_of
from steps.execute_task import TaskDone
from steps.sandbox import MockSandbox, SandboxNotConfigured, make_sandbox


def request(cmd: str, template_id: str | None = None) -> SBXReq:
    limits = SBXLimits(cpu=1, memMB=512)
    return SBXReq(
        envRef="local-node-24",
        cmd=cmd,
        filesIn=[],
        env={},
        timeoutMs=1000,
        limits=limits,
        net=False,
        taskKey=f"key of {cmd}",
        templateId=template_id,
    )


async def run(cmd: str, attempt: int = 1, template_id: str | None = None) -> SBXRes:
    return await MockSandbox().run(request(cmd, template_id), attempt=attempt, key="k")


async def test_a_command_succeeds_and_says_so() -> None:
    result = await run("pnpm test")
    assert (result.exit, result.errCode, result.stdout, result.sandboxRef) == (0, "NONE", "OK: pnpm test\n", "mock-runner")
    assert [(file.path, file.inline) for file in result.filesOut] == [("out.json", "{}")]
    assert parse(SBXRes, compact(result)) == result


@pytest.mark.parametrize(
    ("cmd", "attempt", "code", "exit"),
    [
        ("INFRA_FAIL", 1, "BOOT_FAIL", 1),
        ("INFRA_FAIL x", 3, "BOOT_FAIL", 1),
        ("FLAKY_INFRA_FAIL", 2, "BOOT_FAIL", 1),
        ("FLAKY_INFRA_FAIL", 3, "NONE", 0),
        ("FAIL_ME some test", 1, "CMD_NONZERO", 1),
        ("TIMEOUT_ME", 1, "TIMEOUT", 124),
    ],
)
async def test_words_of_the_command_decide_how_it_ends(cmd: str, attempt: int, code: str, exit: int) -> None:
    result = await run(cmd, attempt)
    assert (result.errCode, result.exit) == (code, exit)


async def test_the_same_attempt_always_ends_alike() -> None:
    assert await run("pnpm test") == await run("pnpm test")


async def test_a_prebuilt_sandbox_boots_faster() -> None:
    hot, cold = await run("x", template_id="tpl_1"), await run("x")
    assert (hot.metrics.bootMs, cold.metrics.bootMs) == (5, 50)


def test_only_troubles_of_the_sandbox_are_worth_another_attempt() -> None:
    assert {"BOOT_FAIL", "NET_FAIL", "UPLOAD_FAIL", "DOWNLOAD_FAIL"} == RETRYABLE


async def test_results_are_merged_and_the_first_failure_counts() -> None:
    done = [
        (TaskDone(await run(cmd), attempt, "mock"), f"index of {cmd}")
        for cmd, attempt in (("a", 1), ("FAIL_ME", 2), ("TIMEOUT_ME", 1))
    ]
    merged = merge(done)
    assert (merged.exit, merged.errCode, merged.taskKey) == (1, "CMD_NONZERO", "aggregated")
    assert merged.stdout == "OK: a\n\n---\n\n---\n"
    assert merged.artifactIndexRef == "index of a,index of FAIL_ME,index of TIMEOUT_ME"
    assert merged.sandboxRef == "mock-runner,mock-runner,mock-runner"
    assert (merged.metrics.wallMs, merged.metrics.cpuMs, merged.metrics.memPeakMB) == (10, 15, 16)
    assert merged.raw is not None
    assert merged.raw["attempt"] == 2
    assert [task["errCode"] for task in merged.raw["tasks"]] == ["NONE", "CMD_NONZERO", "TIMEOUT"]


async def test_a_task_leaves_its_output_files_and_timings() -> None:
    names = [entry.name for entry in entries_of(await run("a"))]
    assert names == ["files/out.json", "metrics.json", "raw.json", "sbx-boot.json", "stderr.log", "stdout.log"]


ALLOWED = Allowance(fanout=1, sandbox_minutes=1, artifacts_mb=1, retries=1, wall_clock_ms=1)


async def test_sandbox_time_and_output_are_held_to_the_budget() -> None:
    result = await run("a")
    slow = result.model_copy(update={"metrics": result.metrics.model_copy(update={"wallMs": 60_001})})
    loud = result.model_copy(update={"stdout": "x" * (1024 * 1024 + 1)})
    check_usage(ALLOWED, [result], [2])
    check_usage(Allowance(), [slow, loud], [9])
    for results, attempts, metric, observed in (
        ([slow], [1], "maxSBXMinutes", 2),
        ([loud], [1], "maxArtifactsMB", 2),
        ([result], [1, 3], "maxRetriesPerStep", 2),
    ):
        with pytest.raises(BudgetExceeded) as breach:
            check_usage(ALLOWED, results, attempts)
        assert (breach.value.metric, breach.value.data["observed"], breach.value.data["limit"]) == (metric, observed, 1)


def test_settings_choose_the_sandbox() -> None:
    state = Path("unused")
    assert make_sandbox("mock", "e2b", state).provider == "mock"
    for mode, provider in (("live", "e2b"), ("live", "microsandbox"), ("live", "other"), ("moon", "e2b")):
        with pytest.raises(SandboxNotConfigured):
            make_sandbox(mode, provider, state)

"""The port to the sandboxes, and the mock, which runs nothing and always answers the same.

A sandbox runs one command and says how it ended; a command that fails is an answer, not an exception. `err_code` tells the
command's own failures from the sandbox's troubles, and only the latter are worth another attempt (contracts.sandbox.RETRYABLE).
"""

from typing import Protocol

from steps.canonical import sha256_text
from steps.contracts.sandbox import ErrCode, FileOut, Metrics, SBXReq, SBXRes

HOT_BOOT_MS = 5
COLD_BOOT_MS = 50


class Sandbox(Protocol):
    """Runs commands. `provider` is its name in the rows."""

    @property
    def provider(self) -> str: ...

    async def run(self, request: SBXReq, *, attempt: int, key: str) -> SBXRes:
        """Run the command and give its result. `key` is the same whenever this attempt is made again: an idempotency key."""
        ...


class SandboxNotConfigured(Exception):
    """The settings ask for a sandbox that is not there."""


class MockSandbox:
    """Answers by the words of the command: FAIL_ME, TIMEOUT_ME, INFRA_FAIL, FLAKY_INFRA_FAIL (twice), else success."""

    provider = "mock"

    async def run(self, request: SBXReq, *, attempt: int, key: str) -> SBXRes:
        words = request.cmd.split()
        if "INFRA_FAIL" in words or ("FLAKY_INFRA_FAIL" in words and attempt <= 2):
            return mock_result(request, 1, "BOOT_FAIL", stderr="the sandbox did not boot\n")
        if "TIMEOUT_ME" in words:
            return mock_result(request, 124, "TIMEOUT", stderr=f"the command ran longer than {request.timeoutMs} ms\n")
        if "FAIL_ME" in words:
            return mock_result(request, 1, "CMD_NONZERO", stderr=f"FAIL: {request.cmd}\n")
        return mock_result(request, 0, "NONE", stdout=f"OK: {request.cmd}\n")


def mock_result(request: SBXReq, exit: int, err_code: ErrCode, *, stdout: str = "", stderr: str = "") -> SBXRes:
    files = [FileOut(path="out.json", sha256=sha256_text("{}"), inline="{}")] if err_code == "NONE" else []
    boot_ms = HOT_BOOT_MS if request.templateId else COLD_BOOT_MS
    return SBXRes(
        exit=exit,
        stdout=stdout,
        stderr=stderr,
        filesOut=files,
        metrics=Metrics(wallMs=10, cpuMs=5, memPeakMB=16, bootMs=boot_ms),
        sandboxRef="mock-runner",
        errCode=err_code,
        taskKey=request.taskKey,
        raw={"provider": "mock", "cmd": request.cmd},
    )


def make_sandbox(mode: str, provider: str, *, alt_provider_enabled: bool = False) -> Sandbox:
    """The sandbox that the settings name: mode mock or live, provider e2b or microsandbox. Raises SandboxNotConfigured."""
    if mode == "mock":
        return MockSandbox()
    if mode != "live":
        raise SandboxNotConfigured(f"unknown SBX_MODE {mode!r}; use mock or live")
    if provider == "microsandbox" and not alt_provider_enabled:
        raise SandboxNotConfigured("SBX_PROVIDER=microsandbox needs SBX_ALT_PROVIDER_ENABLED=true")
    if provider not in ("e2b", "microsandbox"):
        raise SandboxNotConfigured(f"unknown SBX_PROVIDER {provider!r}; use e2b or microsandbox")
    raise SandboxNotConfigured(f"no adapter for SBX_PROVIDER={provider} is installed; use SBX_MODE=mock")

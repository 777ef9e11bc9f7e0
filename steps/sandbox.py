"""The port to the sandboxes, and the mock, which runs nothing and always answers the same.

A sandbox runs one command and says how it ended; a command that fails is an answer, not an exception. `err_code` tells the
command's own failures from the sandbox's troubles, and only the latter are worth another attempt (contracts.sandbox.RETRYABLE).
"""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import orjson

from engine import TerminalError
from steps.canonical import sha256_text
from steps.contracts.base import Wire, parse
from steps.contracts.sandbox import ErrCode, FileOut, Metrics, SBXReq, SBXRes
from steps.errors import InvalidInput
from steps.opencode import rehearsal

#: Under this name a sandbox finds the intent of its run.
INTENT_FILE = "intent.json"
HOT_BOOT_MS = 5
COLD_BOOT_MS = 50

#: Is told what a command prints while it runs: which of its outputs, and a piece of text.
OnOutput = Callable[[Literal["stdout", "stderr"], str], Awaitable[None]]


class Sandbox(Protocol):
    """Runs commands. `provider` is its name in the rows."""

    @property
    def provider(self) -> str: ...

    async def run(self, request: SBXReq, *, attempt: int, key: str, on_output: OnOutput | None = None) -> SBXRes:
        """Run the command and give its result. `key` is the same whenever this attempt is made again: an idempotency key.

        on_output is called while the command runs, a few times a second at most, by providers that can tell. What it raises ends the
        telling, not the command: the result has the whole text.
        """
        ...


@runtime_checkable
class Holding(Protocol):
    """A sandbox that keeps a result, and the machine that it is in, until it is told that the result is safe elsewhere."""

    async def release(self, key: str) -> None:
        """Give up what is kept for a key. Never raises: what cannot be given up now ends by itself."""
        ...


class SandboxNotConfigured(Exception):
    """The settings ask for a sandbox that is not there."""


class MockSandbox:
    """Answers by the words of the command: FAIL_ME, TIMEOUT_ME, INFRA_FAIL, FLAKY_INFRA_FAIL (twice), else success.

    What a success leaves stands in the intent, `constraints.testHooks.replay.sandbox`: {"stdout"?: text, "files"?: {path: text}}.
    """

    provider = "mock"

    async def run(self, request: SBXReq, *, attempt: int, key: str, on_output: OnOutput | None = None) -> SBXRes:
        words = request.cmd.split()
        if "INFRA_FAIL" in words or ("FLAKY_INFRA_FAIL" in words and attempt <= 2):
            return mock_result(request, 1, "BOOT_FAIL", stderr="the sandbox did not boot\n")
        if "TIMEOUT_ME" in words:
            return mock_result(request, 124, "TIMEOUT", stderr=f"the command ran longer than {request.timeoutMs} ms\n")
        if "FAIL_ME" in words:
            return mock_result(request, 1, "CMD_NONZERO", stderr=f"FAIL: {request.cmd}\n")
        told = rehearsal_of(request)
        files = {"out.json": "{}"} if told.files is None else told.files
        return mock_result(request, 0, "NONE", stdout=told.stdout or f"OK: {request.cmd}\n", files=files)


class Rehearsal(Wire):
    """What a mock's success leaves."""

    stdout: str | None = None
    files: dict[str, str] | None = None


def rehearsal_of(request: SBXReq) -> Rehearsal:
    """What the intent among the request's files says of it. Raises TerminalError `SandboxRehearsal` for what can't be read."""
    intent = next((file.inline for file in request.filesIn if file.path == INTENT_FILE), None)
    told = None if intent is None else rehearsal(orjson.loads(intent)["constraints"], "sandbox")
    try:
        return parse(Rehearsal, told or {})
    except InvalidInput as error:
        raise TerminalError(f"constraints.testHooks.replay.sandbox: {error.message}", name="SandboxRehearsal") from error


def mock_result(
    request: SBXReq,
    exit: int,
    err_code: ErrCode,
    *,
    stdout: str = "",
    stderr: str = "",
    files: Mapping[str, str] | None = None,
) -> SBXRes:
    files_out = [FileOut(path=path, sha256=sha256_text(text), inline=text) for path, text in sorted((files or {}).items())]
    boot_ms = HOT_BOOT_MS if request.templateId else COLD_BOOT_MS
    return SBXRes(
        exit=exit,
        stdout=stdout,
        stderr=stderr,
        filesOut=files_out,
        metrics=Metrics(wallMs=10, cpuMs=5, memPeakMB=16, bootMs=boot_ms),
        sandboxRef="mock-runner",
        errCode=err_code,
        taskKey=request.taskKey,
        raw={"provider": "mock", "cmd": request.cmd},
    )


def make_sandbox(
    mode: str,
    provider: str,
    state: Path,
    *,
    alt_provider_enabled: bool = False,
    e2b_api_key: str | None = None,
    installation: str = "holdfast",
    alone: bool = False,
) -> Sandbox:
    """The sandbox that the settings name: mode mock or live, provider local, e2b or microsandbox. state: the folder in which the local
    one keeps what it needs to know after a crash. installation: whose sandboxes those are that a service keeps. alone: there is no
    database, so artifacts are no input files, and orphans are left alone. Raises SandboxNotConfigured.
    """
    if mode == "mock":
        return MockSandbox()
    if mode != "live":
        raise SandboxNotConfigured(f"unknown SBX_MODE {mode!r}; use mock or live")
    if provider == "microsandbox" and not alt_provider_enabled:
        raise SandboxNotConfigured("SBX_PROVIDER=microsandbox needs SBX_ALT_PROVIDER_ENABLED=true")
    if provider not in ("local", "e2b", "microsandbox"):
        raise SandboxNotConfigured(f"unknown SBX_PROVIDER {provider!r}; use local, e2b or microsandbox")
    # What follows reads the database through the ports, which know this module.
    from steps.sandboxes import artifacts, orphans
    from steps.sandboxes.remote import RemoteSandbox

    read_artifact, over = (None, None) if alone else (artifacts.read_artifact, orphans.over)

    if provider == "local":
        from steps.sandboxes.local import LocalSandbox, groups_here

        return LocalSandbox(state, read_artifact=read_artifact, groups=groups_here())
    if provider == "e2b":
        from steps.sandboxes.e2b import E2B

        return RemoteSandbox(E2B(e2b_api_key, installation), read_artifact=read_artifact, over=over)
    from steps.sandboxes.microsandbox import Microsandbox

    return RemoteSandbox(Microsandbox(installation), read_artifact=read_artifact, over=over)

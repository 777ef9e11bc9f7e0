"""Sandboxes on this machine, by bubblewrap.

They share the machine's kernel: good for commands of one's own and for what a plan does by mistake, not for strangers who attack.
The machine's /usr is what a command finds; a template changes nothing. A command sees the files it was given in its working folder
and nothing else of the machine's, has no network unless the request says so, and then the machine's own, loopback included.
"""

import asyncio
import os
import re
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

from engine import TerminalError
from steps import workspace
from steps.contracts.base import JsonObject
from steps.contracts.sandbox import ErrCode, FileIn, Metrics, SBXLimits, SBXReq, SBXRes
from steps.sandbox import OnOutput, SandboxNotConfigured
from steps.sandboxes import bubblewrap, slots
from steps.sandboxes.bubblewrap import WORKSPACE, Box, Ended
from steps.sandboxes.capture import Capture, storable
from steps.sandboxes.collect import Collected, collect
from steps.sandboxes.limits import MAX_PROCESSES, MB, Groups, Holder, Usage, Watched, each_process, find_groups, give_way
from steps.sandboxes.slots import Slot, traces_of
from steps.sandboxes.trouble import Trouble

MAX_FILES_IN = 256
MAX_BYTES_IN = 16 * MB
MAX_ENV_BYTES = 48_000
LOOK_EVERY_S = 0.05
FORGET_EVERY = 100
TIMED_OUT = 124
KILLED = 137
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)

ReadArtifact = Callable[[str], Awaitable[str]]


class LocalSandbox:
    """Runs each command in a sandbox of its own, and none twice whose result was recorded under `state`.

    read_artifact: gives the text behind an `artifact://` address, or raises LookupError; other addresses are refused. groups: where
    control groups can be made; None holds memory by looking. Raises SandboxNotConfigured where bubblewrap does not work.
    """

    provider = "local"

    def __init__(self, state: Path, *, read_artifact: ReadArtifact | None = None, groups: Groups | None = None) -> None:
        try:
            bubblewrap.probe()
        except bubblewrap.Unusable as error:
            raise SandboxNotConfigured(f"SBX_PROVIDER=local: {error}") from None
        self.groups = groups
        self._root = state
        self._read_artifact = read_artifact
        self._runs = 0
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.reaped = slots.reap(self._root)
        slots.forget_old(self._root)

    async def run(self, request: SBXReq, *, attempt: int, key: str, on_output: OnOutput | None = None) -> SBXRes:
        slot = Slot(self._root, key)
        try:
            async with slot.held():
                recorded = slot.result()
                if recorded is None:
                    recorded = await self._run(request, slot, on_output)
                    await asyncio.to_thread(slot.record, recorded)
        except Trouble as trouble:
            return not_run(request, slot, trouble)
        self._runs += 1
        if self._runs % FORGET_EVERY == 0:
            await asyncio.to_thread(slots.forget_old, self._root)
            await asyncio.to_thread(slots.reap, self._root)
        return recorded

    async def _run(self, request: SBXReq, slot: Slot, on_output: OnOutput | None) -> SBXRes:
        checked(request)
        files = await self._inputs(request.filesIn)
        booting = time.monotonic()
        async with AsyncExitStack() as stack:
            holder = self._holder(request, slot)
            stack.callback(holder.remove)
            file_bytes = max(bubblewrap.WRITABLE_BYTES.values()) + MB  # a full folder is to be told from a limit
            each = each_process(bubblewrap.SHELL, file_bytes=file_bytes, data_bytes=holder.data_bytes())
            box = bubblewrap.start(request.cmd, files=files, workdir=folder_of(request), net=request.net, limits=each)
            stack.push_async_callback(_end, box)
            slot.running(traces_of(box.session, box.session, holder.places()))
            await box.boot()
            slot.running(traces_of(box.pid, box.session, holder.places()))
            stdout, stderr = Capture(box.stdout, "stdout"), Capture(box.stderr, "stderr")
            stack.callback(stdout.close)
            stack.callback(stderr.close)
            try:
                give_way(box.pid)
                holder.hold(box.pid, box.folders, box.processes)
            except OSError as error:
                raise Trouble("BOOT_FAIL", f"the sandbox cannot be limited: {error}") from error
            relays = [asyncio.create_task(capture.relay(on_output)) for capture in (stdout, stderr) if on_output]
            stack.push_async_callback(_cancel, relays)
            begun = time.monotonic()
            box.go(request.env)
            killed = await until_end(box, holder, request.timeoutMs / 1000)
            ended = await box.ended()
            wall_ms = (time.monotonic() - begun) * 1000
            await asyncio.gather(stdout.ended(), stderr.ended(), *relays)
            outcome = outcome_of(killed, ended, holder.usage(), request, wall_ms, (begun - booting) * 1000)
            left = await asyncio.to_thread(collect, box.workspace, files)
            return result(request, slot, outcome, stdout, stderr, left, self._held_by())

    def _holder(self, request: SBXReq, slot: Slot) -> Holder:
        if self.groups is None:
            return Watched(request.limits)
        try:
            return self.groups.holder(slots.group_of(slot.folder), request.limits)
        except OSError as error:
            raise Trouble("BOOT_FAIL", f"no control group for the sandbox: {error}") from error

    def _held_by(self) -> str:
        return f"cgroup v{self.groups.version}" if self.groups else "watching"

    async def _inputs(self, files: list[FileIn]) -> dict[str, bytes]:
        """The input files' contents, by path. Raises Trouble for what cannot or must not be put in."""
        contents: dict[str, bytes] = {}
        if len(files) > MAX_FILES_IN:
            raise Trouble("UPLOAD_FAIL", f"{len(files)} input files; at most {MAX_FILES_IN} are allowed")
        for file in files:
            try:
                path = workspace.normal(file.path)
            except TerminalError:
                raise Trouble("UPLOAD_FAIL", f"the input file's path {file.path!r} leads out of the working folder") from None
            contents[path] = (await self._content(file)).encode()
        if sum(map(len, contents.values())) > MAX_BYTES_IN:
            raise Trouble("UPLOAD_FAIL", f"the input files have more than {MAX_BYTES_IN} bytes")
        for path in contents:
            if any(parent in contents for parent in _parents(path)):
                raise Trouble("UPLOAD_FAIL", f"the input file {path!r} is below another one")
        return contents

    async def _content(self, file: FileIn) -> str:
        if file.inline is not None:
            return file.inline
        uri = file.uri or ""
        if not uri.startswith("artifact://") or self._read_artifact is None:
            raise Trouble("UPLOAD_FAIL", f"the input file {file.path!r} has neither a text nor an address that is read here")
        try:
            return await self._read_artifact(uri)
        except LookupError as error:
            raise Trouble("UPLOAD_FAIL", str(error.args[0])) from None


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


async def _end(box: Box) -> None:
    """Ends the sandbox whatever state it is in, even in a task that was cancelled."""
    box.kill()
    try:
        await box.ended()
    finally:
        box.close()


async def _cancel(tasks: "list[asyncio.Task[None]]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def checked(request: SBXReq) -> None:
    """Raises Trouble for a request that cannot be carried out as it stands."""
    for name, value in request.env.items():
        if not VARIABLE.fullmatch(name) or "\x00" in value:
            raise Trouble("BOOT_FAIL", f"the variable {name!r} cannot be set")
    if sum(len(name) + len(value.encode()) for name, value in request.env.items()) > MAX_ENV_BYTES:
        raise Trouble("BOOT_FAIL", f"the environment has more than {MAX_ENV_BYTES} bytes")
    if "\x00" in request.cmd:
        raise Trouble("BOOT_FAIL", "the command has a NUL character")


def folder_of(request: SBXReq) -> str:
    """Where the command starts: the working folder, or one below it. Raises Trouble for any other place."""
    wanted = request.workdir or WORKSPACE
    if wanted.rstrip("/") == WORKSPACE:
        return WORKSPACE
    try:
        return f"{WORKSPACE}/{workspace.normal(wanted.removeprefix(f'{WORKSPACE}/'))}"
    except TerminalError:
        raise Trouble("BOOT_FAIL", f"the working folder {wanted!r} is not below {WORKSPACE}") from None


async def until_end(box: Box, holder: Holder, timeout_s: float) -> ErrCode:
    """Waits for the command's end, and brings it about when its time or memory is used up: then TIMEOUT or OOM."""
    watching = asyncio.create_task(_kill_if_exceeded(box, holder))
    try:
        async with asyncio.timeout(timeout_s):
            await box.ended()
    except TimeoutError:
        box.kill()
        await box.ended()
        return "TIMEOUT"
    finally:
        watching.cancel()
    return "OOM" if watching.done() and not watching.cancelled() else "NONE"


async def _kill_if_exceeded(box: Box, holder: Holder) -> None:
    while True:
        if holder.exceeded():
            box.kill()
            return
        await asyncio.sleep(LOOK_EVERY_S)


class Outcome(NamedTuple):
    exit: int
    err_code: ErrCode
    metrics: Metrics


def outcome_of(killed: ErrCode, ended: Ended, used: Usage, request: SBXReq, wall_ms: float, boot_ms: float) -> Outcome:
    """What it all means. Raises Trouble if the command was not run."""
    if killed == "NONE" and ended.status is None:
        raise Trouble("BOOT_FAIL", "the sandbox ended without its command's exit code")
    exit, err_code = ended.status or 0, killed
    if killed == "TIMEOUT":
        exit = TIMED_OUT
    elif killed == "OOM" or (used.out_of_memory and exit != 0):
        exit, err_code = KILLED, "OOM"
    elif exit != 0:
        err_code = "CMD_NONZERO"
    metrics = Metrics(
        wallMs=round(wall_ms, 1),
        cpuMs=round(max(ended.cpu_ms, used.cpu_ms or 0), 1),
        memPeakMB=round(used.peak_mb or ended.largest_mb, 1),
        bootMs=round(boot_ms),
    )
    return Outcome(exit, err_code, metrics)


def result(
    request: SBXReq, slot: Slot, outcome: Outcome, stdout: Capture, stderr: Capture, left: Collected, held_by: str
) -> SBXRes:
    said = stderr.text()
    if outcome.err_code == "TIMEOUT":
        said += f"[killed: it ran longer than {request.timeoutMs} ms]\n"
    elif outcome.err_code == "OOM":
        said += f"[killed: it used more than {request.limits.memMB} MB of memory, or {MAX_PROCESSES} processes]\n"
    raw: JsonObject = {
        "provider": LocalSandbox.provider,
        "cmd": request.cmd,
        "memoryHeldBy": held_by,
        "cut": {"stdout": stdout.dropped, "stderr": stderr.dropped},
        "skipped": left.skipped,
    }
    return SBXRes(
        exit=outcome.exit,
        stdout=stdout.text(),
        stderr=said,
        filesOut=left.files,
        metrics=outcome.metrics,
        sandboxRef=f"local:{slot.name}",
        errCode=outcome.err_code,
        taskKey=request.taskKey,
        raw=raw,
    )


def not_run(request: SBXReq, slot: Slot, trouble: Trouble) -> SBXRes:
    """The answer when the sandbox was at fault. It is recorded nowhere: the next attempt tries again."""
    return SBXRes(
        exit=1,
        stdout="",
        stderr=f"{trouble}\n",
        filesOut=[],
        metrics=Metrics(wallMs=0, cpuMs=0, memPeakMB=0),
        sandboxRef=f"local:{slot.name}",
        errCode=trouble.err_code,
        taskKey=request.taskKey,
        raw={"provider": LocalSandbox.provider, "cmd": storable(request.cmd)},
    )


def groups_here() -> Groups | None:
    """Where this process may make control groups, if anywhere. One is made, to be sure."""
    try:
        groups = find_groups(Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text())
        if groups is not None:
            groups.holder(f"holdfast-probe-{os.getpid()}", SBXLimits()).remove()
    except OSError:
        return None
    return groups

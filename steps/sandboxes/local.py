"""Sandboxes on this machine, by bubblewrap.

They share the machine's kernel: good for commands of one's own and for what a plan does by mistake, not for strangers who attack.
The machine's /usr is what a command finds; a template changes nothing. A command sees the files it was given in its working folder
and nothing else of the machine's, has no network unless the request says so, and then the machine's own, loopback included.
"""

import asyncio
import os
import time
from contextlib import AsyncExitStack
from pathlib import Path

from steps.contracts.sandbox import ErrCode, Metrics, SBXLimits, SBXReq, SBXRes
from steps.sandbox import OnOutput, SandboxNotConfigured
from steps.sandboxes import bubblewrap, slots
from steps.sandboxes.answers import KILLED, TIMED_OUT, Outcome, Output, answer, not_run
from steps.sandboxes.bubblewrap import Box, Ended
from steps.sandboxes.capture import Capture
from steps.sandboxes.collect import collect
from steps.sandboxes.limits import MAX_PROCESSES, MB, Groups, Holder, Usage, Watched, each_process, find_groups, give_way
from steps.sandboxes.requests import ReadArtifact, checked, inputs, place_of
from steps.sandboxes.slots import Slot, traces_of
from steps.sandboxes.trouble import Trouble

LOOK_EVERY_S = 0.05
FORGET_EVERY = 100


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
            return not_run(request, self.provider, f"local:{slot.name}", trouble)
        self._runs += 1
        if self._runs % FORGET_EVERY == 0:
            await asyncio.to_thread(slots.forget_old, self._root)
            await asyncio.to_thread(slots.reap, self._root)
        return recorded

    async def _run(self, request: SBXReq, slot: Slot, on_output: OnOutput | None) -> SBXRes:
        checked(request)
        files = await inputs(request.filesIn, self._read_artifact)
        booting = time.monotonic()
        async with AsyncExitStack() as stack:
            holder = self._holder(request, slot)
            stack.callback(holder.remove)
            file_bytes = max(bubblewrap.WRITABLE_BYTES.values()) + MB  # a full folder is to be told from a limit
            each = each_process(bubblewrap.SHELL, file_bytes=file_bytes, data_bytes=holder.data_bytes())
            box = bubblewrap.start(request.cmd, files=files, workdir=place_of(request), net=request.net, limits=each)
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
            stderr_text = stderr.text()
            if outcome.err_code == "OOM":
                stderr_text += f"[killed: it used more than {request.limits.memMB} MB of memory, or {MAX_PROCESSES} processes]\n"
            printed = Output(stdout.text(), stdout.dropped), Output(stderr_text, stderr.dropped)
            told = {"memoryHeldBy": self._held_by()}
            return answer(request, self.provider, f"local:{slot.name}", outcome, *printed, left, told)

    def _holder(self, request: SBXReq, slot: Slot) -> Holder:
        if self.groups is None:
            return Watched(request.limits)
        try:
            return self.groups.holder(slots.group_of(slot.folder), request.limits)
        except OSError as error:
            raise Trouble("BOOT_FAIL", f"no control group for the sandbox: {error}") from error

    def _held_by(self) -> str:
        return f"cgroup v{self.groups.version}" if self.groups else "watching"


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


def groups_here() -> Groups | None:
    """Where this process may make control groups, if anywhere. One is made, to be sure."""
    try:
        groups = find_groups(Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text())
        if groups is not None:
            groups.holder(f"holdfast-probe-{os.getpid()}", SBXLimits()).remove()
    except OSError:
        return None
    return groups

"""Sandboxes that are machines elsewhere: one a command, found again by the command's key, and given up only when its result is safe.

A worker that takes over from a dead one finds the machine: if the command's end is recorded there, it is read and not run again; if it
still runs, it is waited for. Should nobody come back, the machine ends by itself. What goes wrong on the way, with the machine or
the way to it, ends the machine and is worth another attempt.
"""

import asyncio
import hashlib
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, Protocol, TypeVar

import structlog

from steps.contracts.sandbox import ErrCode, SBXReq, SBXRes
from steps.sandbox import OnOutput
from steps.sandboxes import guest
from steps.sandboxes.answers import answer, not_run
from steps.sandboxes.requests import ReadArtifact, checked, inputs
from steps.sandboxes.telling import Telling
from steps.sandboxes.trouble import Trouble

#: A machine lives so much longer than its command may: to boot, and for its result to be fetched.
KEEP_S = 120
#: How much longer than its time a command may take until its machine is given up.
GRACE_S = 60.0
POLL_S = (0.1, 2.0)
#: How long a machine may be out of reach while its command runs.
AWAY_S = 30.0
#: How long nothing may run in a machine that has no record: what another worker begins right now may not be listed yet.
IDLE_S = 3.0
KILL_S = 15.0
AGAIN_S = 0.5
MAX_HELD = 1000
REAP_EVERY_S = 600.0

Tell = Callable[[Literal["stdout", "stderr"], str], None]
T = TypeVar("T")

log = structlog.get_logger("steps.sandboxes.remote")


class Machine(Protocol):
    """One machine. Its calls raise what the provider raises, which `Machines.trouble` explains."""

    @property
    def ref(self) -> str: ...

    async def write(self, path: str, content: bytes) -> None: ...

    async def read(self, path: str) -> bytes | None:
        """None if there is no such file."""
        ...

    async def exists(self, path: str) -> bool: ...

    async def run(self, line: str, env: Mapping[str, str], tell: Tell) -> None:
        """Run a line of shell, and tell what it prints. It goes on when this is cancelled, or the way to it breaks."""
        ...

    async def busy(self) -> bool:
        """Whether a line that was started still runs."""
        ...

    async def kill(self) -> None:
        """Ends the machine. Fine if it has ended."""
        ...


class Label(Protocol):
    """Whom a machine belongs to, as it was labelled."""

    @property
    def key(self) -> str: ...

    async def kill(self) -> None: ...


class Machines(Protocol):
    """A provider of machines. `provider` is its name in the rows."""

    @property
    def provider(self) -> str: ...

    async def find(self, name: str) -> Machine | None:
        """The machine of this name, if one runs."""
        ...

    async def make(self, name: str, key: str, request: SBXReq, ttl_s: int) -> Machine:
        """A machine of this name, which ends by itself; made again, it is the same. key: it is labelled with it."""
        ...

    async def labelled(self) -> Sequence[Label]:
        """All machines of this installation."""
        ...

    def trouble(self, error: Exception, doing: ErrCode) -> Trouble:
        """What an error means that came up while doing something: BOOT_FAIL, UPLOAD_FAIL, NET_FAIL or DOWNLOAD_FAIL."""
        ...


#: Of some keys, those whose work is over.
Over = Callable[[Sequence[str]], Awaitable[set[str]]]


class RemoteSandbox:
    """Runs each command in a machine of its own. over: tells whose machines nobody waits for; without it none is reaped."""

    def __init__(self, machines: Machines, *, read_artifact: ReadArtifact | None = None, over: Over | None = None) -> None:
        self._machines = machines
        self._read_artifact = read_artifact
        self._over = over
        self._reaped_at = float("-inf")
        self._held: dict[str, Machine] = {}
        self._background: set[asyncio.Task[Any]] = set()

    @property
    def provider(self) -> str:
        return self._machines.provider

    async def run(self, request: SBXReq, *, attempt: int, key: str, on_output: OnOutput | None = None) -> SBXRes:
        self._reap_now_and_then()
        try:
            checked(request)
            files = await inputs(request.filesIn, self._read_artifact)
            return await self._run(request, key, files, on_output)
        except Trouble as trouble:
            return not_run(request, self.provider, f"{self.provider}:{name_of(key)}", trouble)

    async def release(self, key: str) -> None:
        """The result is kept elsewhere now: the machine goes. Does nothing if there is none, or if it cannot be reached."""
        name = name_of(key)
        try:
            async with asyncio.timeout(KILL_S):
                machine = self._held.pop(name, None) or await self._machines.find(name)
        except Exception as error:  # it ends by itself
            log.warning("a sandbox could not be found", provider=self.provider, name=name, error=type(error).__name__)
            return
        if machine is not None:
            await self._end(machine)

    async def reap(self) -> int:
        """Ends machines that nobody waits for; returns how many."""
        if self._over is None:
            return 0
        labels = await self._machines.labelled()
        over = await self._over([label.key for label in labels]) if labels else set[str]()
        gone = [label for label in labels if label.key in over]
        for label in gone:
            await label.kill()
        return len(gone)

    # One command ----------------------------------------------------------------------------------------------------

    async def _run(self, request: SBXReq, key: str, files: Mapping[str, bytes], on_output: OnOutput | None) -> SBXRes:
        booting = time.monotonic()
        machine = await self._machine(request, key)
        boot_ms = (time.monotonic() - booting) * 1000
        try:
            archive = await self._carried_out(machine, request, files, boot_ms, on_output)
            finished = guest.unpacked(archive, files)
        except BaseException:
            await self._kept_alive(self._end(machine))
            raise
        self._hold(name_of(key), machine)
        outcome = guest.outcome_of(finished, request)
        return answer(request, self.provider, machine.ref, outcome, finished.stdout, finished.stderr, finished.left, {})

    def _hold(self, name: str, machine: Machine) -> None:
        """Remembers it, so that it need not be looked for when it is released. Another worker may do that."""
        self._held[name] = machine
        while len(self._held) > MAX_HELD:
            self._held.pop(next(iter(self._held)))

    async def _machine(self, request: SBXReq, key: str) -> Machine:
        """The key's machine. One that is made while this is cancelled ends as soon as it is there."""
        making = asyncio.create_task(self._found_or_made(request, key))
        try:
            return await asyncio.shield(making)
        except asyncio.CancelledError:

            async def end() -> None:
                with suppress(Exception):
                    await self._end(await making)

            self._in_background(end())
            raise

    async def _found_or_made(self, request: SBXReq, key: str) -> Machine:
        name = name_of(key)
        ttl_s = -(-request.timeoutMs // 1000) + KEEP_S
        if (found := await self._doing("BOOT_FAIL", self._machines.find(name))) is not None:
            return found
        try:
            return await self._doing("BOOT_FAIL", self._machines.make(name, key, request, ttl_s))
        except Trouble as trouble:
            if trouble.permanent:
                raise
        await asyncio.sleep(AGAIN_S)  # its answer may have been lost: made again, it is the same
        return await self._doing("BOOT_FAIL", self._machines.make(name, key, request, ttl_s))

    async def _carried_out(
        self, machine: Machine, request: SBXReq, files: Mapping[str, bytes], boot_ms: float, on_output: OnOutput | None
    ) -> bytes:
        """The record of the command's end, which is brought about unless it is there already."""
        if (recorded := await self._doing("DOWNLOAD_FAIL", machine.read(guest.RESULT))) is not None:
            return recorded
        deadline = time.monotonic() + request.timeoutMs / 1000 + GRACE_S
        if not await self._doing("NET_FAIL", machine.exists(guest.STARTED)):
            archive = f"{guest.MARKS}/in-{uuid.uuid4().hex}.tar"  # somebody else may be writing theirs
            line = guest.start_line(request, archive, name_of(machine.ref))
            await self._doing("UPLOAD_FAIL", machine.write(archive, guest.packed(request, files, boot_ms)))
            await self._watched(machine, line, request.env, on_output, deadline)
        return await self._recorded(machine, deadline)

    async def _watched(
        self, machine: Machine, line: str, env: Mapping[str, str], on_output: OnOutput | None, deadline: float
    ) -> None:
        """Starts the script and tells what it prints until it ends, or until the way to it breaks, which ends nothing."""
        telling = Telling(on_output)
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                await machine.run(line, env, telling.add)
        except TimeoutError:
            pass
        except Exception as error:
            trouble = self._machines.trouble(error, "NET_FAIL")
            if trouble.permanent:
                raise trouble from error
            log.info("lost sight of a command", provider=self.provider, sandbox=machine.ref, error=type(error).__name__)
        finally:
            telling.cancel() if _is_cancelled() else await telling.ended()

    async def _recorded(self, machine: Machine, deadline: float) -> bytes:
        """Waits for the record of the end."""
        pause_s, most_s = POLL_S
        away_since: float | None = None
        idle_since: float | None = None
        while True:
            try:
                if (recorded := await machine.read(guest.RESULT)) is not None:
                    return recorded
                if idle_since is not None and time.monotonic() - idle_since > IDLE_S:
                    raise Trouble("NET_FAIL", "the command ended without a record of its end")
                idle_since = None if await machine.busy() else idle_since or time.monotonic()
                away_since = None
            except Trouble:
                raise
            except Exception as error:
                trouble = self._machines.trouble(error, "NET_FAIL")
                away_since = away_since or time.monotonic()
                if trouble.permanent or trouble.gone or time.monotonic() - away_since > AWAY_S:
                    raise trouble from error
            if time.monotonic() > deadline:
                raise Trouble("NET_FAIL", "the sandbox does not end its command")
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, most_s)

    async def _doing(self, what: ErrCode, call: Coroutine[Any, Any, T]) -> T:
        try:
            return await call
        except Exception as error:
            raise self._machines.trouble(error, what) from error

    # Ends -----------------------------------------------------------------------------------------------------------

    async def _end(self, machine: Machine) -> None:
        """Tries a few times, for a connection may just have broken. If it does not work, the machine ends by itself, later."""
        for pause_s in (0.1, 1.0, None):
            try:
                async with asyncio.timeout(KILL_S):
                    return await machine.kill()
            except Exception as error:
                if pause_s is None:
                    told = {"provider": self.provider, "sandbox": machine.ref, "error": type(error).__name__}
                    log.warning("a sandbox could not be ended", **told)
                else:
                    await asyncio.sleep(pause_s)

    async def _kept_alive(self, work: Coroutine[Any, Any, None]) -> None:
        """Waits for work that goes on even if this is cancelled once more."""
        await asyncio.shield(self._in_background(work))

    def _in_background(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    def _reap_now_and_then(self) -> None:
        if self._over is not None and time.monotonic() - self._reaped_at > REAP_EVERY_S:
            self._reaped_at = time.monotonic()
            self._in_background(self._reap())

    async def _reap(self) -> None:
        try:
            count = await self.reap()
        except Exception as error:  # next time
            log.warning("orphaned sandboxes could not be looked for", provider=self.provider, error=type(error).__name__)
            return
        if count:
            log.info("orphaned sandboxes were ended", provider=self.provider, count=count)


def name_of(key: str) -> str:
    """What a key's machine is called: lower hex."""
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0

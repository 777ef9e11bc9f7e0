"""What is on disk of a sandbox's command: a folder a key, with the running sandbox's traces and, at last, the recorded result.

Whoever runs a command holds its folder's lock, which ends with its process. A newer attempt takes over: it kills the older one's
sandbox, which then records nothing. A result is kept until its attempt is certainly journaled: the newest KEEP of the last day.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path

from pydantic import ValidationError

from steps.contracts.base import Wire
from steps.contracts.sandbox import SBXRes
from steps.sandboxes.limits import remove_groups
from steps.sandboxes.trouble import Trouble

KEEP = 1000
KEEP_S = 24 * 3600
TAKE_OVER_S = 10.0
BOOT_TICKS = 20 * os.sysconf("SC_CLK_TCK")  # longer than any boot takes
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Traces(Wire):
    """How to find a sandbox whose worker is gone: its first process and when that started, and the session that it was started in, on
    which boot of which machine. The session is for one that never booted: bubblewrap's child then waits for a parent that is dead.
    """

    pid: int
    started: int
    session: int
    boot: str
    groups: list[str]

    def kill(self) -> None:
        """Kills the sandbox if it still runs. Nothing on another machine."""
        if self.boot != BOOT_ID.read_text().strip():
            return
        for pid in [self.pid, *(pid for pid in _pids() if self._is_of_the_session(pid))]:
            with contextlib.suppress(ProcessLookupError):
                process = os.pidfd_open(pid)
                try:
                    if (pid, started_at(pid)) == (self.pid, self.started) or self._is_of_the_session(pid):
                        signal.pidfd_send_signal(process, signal.SIGKILL)
                finally:
                    os.close(process)

    def _is_of_the_session(self, pid: int) -> bool:
        fields = _stat(pid)
        return len(fields) > 19 and int(fields[3]) == self.session and 0 <= int(fields[19]) - self.started <= BOOT_TICKS


def traces_of(pid: int, session: int, groups: Sequence[str]) -> Traces:
    return Traces(pid=pid, started=started_at(pid) or 0, session=session, boot=BOOT_ID.read_text().strip(), groups=list(groups))


def started_at(pid: int) -> int | None:
    """When a process started, in ticks since the boot; None if there is none."""
    fields = _stat(pid)
    return int(fields[19]) if len(fields) > 19 else None


def _stat(pid: int) -> list[bytes]:
    """What /proc says of a process, from its state on; nothing if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return []


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def group_of(folder: Path) -> str:
    """The name of the control group of a slot's sandbox. The same key may be in use below several roots."""
    return f"holdfast-{hashlib.sha256(bytes(folder.absolute())).hexdigest()[:32]}"


class Slot:
    """The folder of one key. Only its holder may use it."""

    def __init__(self, root: Path, key: str) -> None:
        self.name = hashlib.sha256(key.encode()).hexdigest()[:32]
        self.folder = root / self.name

    @contextlib.asynccontextmanager
    async def held(self) -> AsyncGenerator[None]:
        """Holds the folder; at the end it is gone unless it has a result.

        Raises Trouble when the older attempt does not give way, and when a newer one took over, instead of the Trouble that this made.
        """
        lock = await self._lock()
        try:
            yield
        except Trouble:
            self._require_own()  # whatever it looks like from inside: a newer attempt kills the sandbox at any moment
            raise
        finally:
            if not self._result.exists():
                shutil.rmtree(self.folder, ignore_errors=True)
            os.close(lock)

    async def _lock(self) -> int:
        deadline = time.monotonic() + TAKE_OVER_S
        while True:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = try_lock(self.folder)
            if lock is not None:
                clear_traces(self.folder)  # of a worker that is gone, if there are any
                self._running.unlink(missing_ok=True)
                self._revoked.unlink(missing_ok=True)
                return lock
            if time.monotonic() > deadline:
                raise Trouble("BOOT_FAIL", "an older attempt of this command does not end")
            with contextlib.suppress(FileNotFoundError):
                self._revoked.touch()
            if traces := read_traces(self.folder):
                traces.kill()
            await asyncio.sleep(0.02)

    def result(self) -> SBXRes | None:
        """The recorded result of the command."""
        try:
            return SBXRes.model_validate_json(self._result.read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def running(self, traces: Traces) -> None:
        """To be called before the command begins. Raises Trouble if a newer attempt took over."""
        _write(self._running, traces.model_dump_json())
        self._require_own()

    def record(self, result: SBXRes) -> None:
        """From now on this is the command's result. Raises Trouble if a newer attempt took over."""
        self._require_own()
        _write(self._result, result.model_dump_json(), synced=True)

    def _require_own(self) -> None:
        if self._revoked.exists():
            raise Trouble("BOOT_FAIL", "a newer attempt of this command took over")

    @property
    def _result(self) -> Path:
        return self.folder / "result.json"

    @property
    def _running(self) -> Path:
        return self.folder / "running.json"

    @property
    def _revoked(self) -> Path:
        return self.folder / "revoked"


def try_lock(folder: Path) -> int | None:
    """The lock of a folder, held until it is closed; None if somebody else holds it, or the folder has gone meanwhile."""
    try:
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(lock).st_ino == (folder / "lock").stat().st_ino:
            return lock
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(lock)
    return None


def read_traces(folder: Path) -> Traces | None:
    try:
        return Traces.model_validate_json((folder / "running.json").read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def clear_traces(folder: Path) -> None:
    """Ends what was left running, and removes its control groups."""
    if traces := read_traces(folder):
        traces.kill()
        remove_groups(traces.groups)


def reap(root: Path) -> int:
    """Ends what workers that are gone left running, and forgets it; returns how much that was."""

    def orphaned(folder: Path) -> bool:
        return not (folder / "result.json").exists()

    return _clear(sorted(root.iterdir()), orphaned)


def forget_old(root: Path) -> int:
    """Removes results that nobody will ask for any more; returns how many."""
    aged = sorted(((_written_at(folder), folder) for folder in root.iterdir()), reverse=True)
    oldest = time.time() - KEEP_S
    gone = [folder for place, (written, folder) in enumerate(aged) if place >= KEEP or written < oldest]
    return _clear(gone, lambda folder: (folder / "result.json").exists())


def _clear(folders: Sequence[Path], unwanted: Callable[[Path], bool]) -> int:
    cleared = 0
    for folder in folders:
        lock = try_lock(folder)
        if lock is None:
            continue
        if unwanted(folder):
            clear_traces(folder)
            shutil.rmtree(folder, ignore_errors=True)
            cleared += 1
        os.close(lock)
    return cleared


def _written_at(folder: Path) -> float:
    try:
        return (folder / "result.json").stat().st_mtime
    except OSError:
        return time.time()  # it has no result yet


def _write(path: Path, text: str, *, synced: bool = False) -> None:
    draft = path.with_suffix(".draft")
    with draft.open("w") as file:
        file.write(text)
        if synced:
            file.flush()
            os.fsync(file.fileno())
    draft.replace(path)
    if synced:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

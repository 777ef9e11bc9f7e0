"""What holds a sandbox to its memory, processors and number of processes.

Control groups do where this process may make some: what all processes of a sandbox use together, files in memory included, then has
a hard end. Elsewhere limits of single processes hold, and what they use together is looked at a few times a second, so a sandbox can
exceed its memory for a moment, and its processors are not held at all.
"""

import contextlib
import math
import os
import resource
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from steps.contracts.sandbox import SBXLimits

MAX_PROCESSES = 256
MAX_OPEN_FILES = 4096
CONTROLLERS = ("memory", "pids", "cpu", "cpuacct")
NEEDED = {"memory", "pids"}
REMOVE_S = 1.0
MB = 1 << 20
INODE_BYTES = 1024
HEADROOM_BYTES = 1024 * MB
PERIOD_US = 100_000
NICE = 5
FIRST_TO_GO = "500"  # when the machine itself runs out of memory


@dataclass(frozen=True, slots=True)
class Usage:
    """What a sandbox used so far. cpu_ms is None where only the process table knows; out_of_memory: the kernel killed for it."""

    cpu_ms: float | None
    peak_mb: float
    out_of_memory: bool


class Holder(Protocol):
    """Holds one sandbox to its limits."""

    def data_bytes(self) -> int | None:
        """How much memory of its own each process may ask for."""
        ...

    def hold(self, pid: int, folders: Sequence[int], processes: int) -> None:
        """From now on, for a process and all that come from it. folders: its file systems in memory; processes: its /proc."""
        ...

    def exceeded(self) -> bool:
        """Whether it uses more memory, or has more processes, than it may: then it is to be killed."""
        ...

    def usage(self) -> Usage: ...

    def places(self) -> list[str]:
        """The folders that `remove` removes, for somebody who has to do it in our place."""
        ...

    def remove(self) -> None: ...


def each_process(shell: str, *, file_bytes: int, data_bytes: int | None) -> str:
    """Shell commands that set the limits which all processes inherit from the first. They fail if a limit cannot be set.

    data_bytes: how much memory of its own a process may ask for at all; None for no limit.
    """
    block = 1024 if shell.endswith("bash") else 512
    limits = [
        ("-n", resource.RLIMIT_NOFILE, MAX_OPEN_FILES, 1),
        ("-f", resource.RLIMIT_FSIZE, file_bytes, block),
        ("-c", resource.RLIMIT_CORE, 0, block),
    ]
    if data_bytes is not None:
        limits.append(("-d", resource.RLIMIT_DATA, data_bytes, 1024))
    lines = [f"ulimit {flag} {_at_most(limit, most) // unit}" for flag, limit, most, unit in limits]
    processes = _at_most(resource.RLIMIT_NPROC, MAX_PROCESSES)  # counted in the sandbox's own user namespace
    lines.append(f"{{ ulimit -u {processes} 2>/dev/null || ulimit -p {processes}; }}")
    return " && ".join(lines)


def _at_most(limit: int, wanted: int) -> int:
    """Nobody may have more than the worker itself."""
    hard = resource.getrlimit(limit)[1]
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)


def give_way(pid: int) -> None:
    """The machine's other work comes first."""
    os.setpriority(os.PRIO_PROCESS, pid, NICE)
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/oom_score_adj").write_text(FIRST_TO_GO)


# Control groups ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Groups:
    """Where control groups can be made: a folder for each controller; the same one for all in version 2."""

    version: int
    folders: Mapping[str, Path]

    def holder(self, name: str, limits: SBXLimits) -> "Group":
        """Raises OSError when the group cannot be made after all."""
        return Group(self, name, limits)


def find_groups(mounts: str, own: str) -> Groups | None:
    """Where this process may make groups for sandboxes; None if it may not. mounts, own: what /proc/self/mountinfo and
    /proc/self/cgroup say.
    """
    paths = {names: path for _, names, path in (line.split(":", 2) for line in own.splitlines())}
    first: dict[str, Path] = {}
    second: Path | None = None
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        root, point = before.split(" ")[3:5]
        kind, _, options = after.split(" ", 2)
        if kind == "cgroup2" and "" in paths:
            second = _below(point, root, paths[""])
        elif kind == "cgroup":
            for names, path in paths.items():
                if names and set(names.split(",")) <= set(options.split(",")):
                    first |= {name: _below(point, root, path) for name in names.split(",") if name in CONTROLLERS}
    first = {name: folder for name, folder in first.items() if os.access(folder, os.W_OK)}
    if first.keys() >= NEEDED:
        return Groups(1, first)
    return None if second is None else _delegated(second)


def _below(point: str, root: str, path: str) -> Path:
    """The folder of a group: the mount may show only a part of the tree."""
    inside = path.removeprefix(root.rstrip("/")) if path.startswith(root) else path
    return Path(point) / inside.lstrip("/")


def _delegated(own: Path) -> Groups | None:
    """Version 2 lets a group that holds processes have no groups below it, so ours stand beside our own."""
    for folder in (own.parent, own):
        try:
            controllers = set((folder / "cgroup.controllers").read_text().split()) & set(CONTROLLERS)
            if not controllers >= NEEDED or not os.access(folder, os.W_OK):
                continue
            wanted = controllers - set((folder / "cgroup.subtree_control").read_text().split())
            if wanted:
                (folder / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in sorted(wanted)))
        except OSError:
            continue
        return Groups(2, dict.fromkeys(controllers, folder))
    return None


class Group:
    """One sandbox's control group, or groups: version 1 has one a controller."""

    def __init__(self, groups: Groups, name: str, limits: SBXLimits) -> None:
        self._version = groups.version
        self._folders = {controller: folder / name for controller, folder in groups.folders.items()}
        try:
            for folder in set(self._folders.values()):
                folder.mkdir(exist_ok=True)
            self._limit(limits)
        except OSError:
            self.remove()
            raise

    def _limit(self, limits: SBXLimits) -> None:
        memory, quota = limits.memMB * MB, max(1000, math.ceil(limits.cpu * PERIOD_US))
        self._write("pids", "pids.max", MAX_PROCESSES)
        if self._version == 1:
            self._write("memory", "memory.limit_in_bytes", memory)
            self._write("memory", "memory.memsw.limit_in_bytes", memory, must=False)
            self._write("cpu", "cpu.cfs_period_us", PERIOD_US, must=False)
            self._write("cpu", "cpu.cfs_quota_us", quota, must=False)
        else:
            self._write("memory", "memory.max", memory)
            self._write("memory", "memory.swap.max", 0, must=False)
            self._write("memory", "memory.oom.group", 1, must=False)
            self._write("cpu", "cpu.max", f"{quota} {PERIOD_US}", must=False)

    def _write(self, controller: str, file: str, value: object, *, must: bool = True) -> None:
        try:
            if must or controller in self._folders:
                (self._folders[controller] / file).write_text(str(value))
        except OSError:
            if must:
                raise

    def data_bytes(self) -> int | None:
        return None  # the group's limit is better

    def hold(self, pid: int, folders: Sequence[int], processes: int) -> None:
        for folder in set(self._folders.values()):
            (folder / "cgroup.procs").write_text(str(pid))

    def exceeded(self) -> bool:
        return False  # the kernel sees to it

    def usage(self) -> Usage:
        memory, cpu = self._folders["memory"], self._folders.get("cpuacct")
        if self._version == 1:
            peak = _number(memory / "memory.max_usage_in_bytes")
            killed = _counters(memory / "memory.oom_control").get("oom_kill", 0)
            cpu_ms = None if cpu is None else _number(cpu / "cpuacct.usage") / 1e6
        else:
            peak = _number(memory / "memory.peak")
            killed = _counters(memory / "memory.events").get("oom_kill", 0)
            spent = _counters(memory / "cpu.stat").get("usage_usec")
            cpu_ms = None if spent is None else spent / 1e3
        return Usage(cpu_ms, peak / MB, killed > 0)

    def places(self) -> list[str]:
        return sorted({str(folder) for folder in self._folders.values()})

    def remove(self) -> None:
        remove_groups(self.places())


def remove_groups(places: Sequence[str]) -> None:
    """Removes empty groups. One whose processes have just gone may need a moment."""
    deadline = time.monotonic() + REMOVE_S
    for place in places:
        while True:
            try:
                os.rmdir(place)
            except FileNotFoundError:
                pass
            except OSError:
                if time.monotonic() < deadline:
                    time.sleep(0.002)
                    continue
            break


def _number(file: Path) -> int:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # an older kernel
        return 0


def _counters(file: Path) -> dict[str, int]:
    try:
        pairs = (line.split() for line in file.read_text().splitlines())
        return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}
    except (OSError, ValueError):
        return {}


# Without control groups ----------------------------------------------------------------------------------------------


class Watched:
    """Adds up what the sandbox's processes and its file systems in memory use.

    It counts processes too: before Linux 5.14 the limit of a user namespace is one of the whole user.
    """

    def __init__(self, limits: SBXLimits) -> None:
        self._most = limits.memMB * MB
        self._folders: Sequence[int] = ()
        self._processes = -1
        self._peak = 0
        self._cpu_ms = 0.0

    def data_bytes(self) -> int | None:
        return self._most + HEADROOM_BYTES  # so that it is killed for it, rather than refused

    def hold(self, pid: int, folders: Sequence[int], processes: int) -> None:
        self._folders, self._processes = folders, processes

    def exceeded(self) -> bool:
        names = [name for name in os.listdir(self._processes) if name.isdecimal()]
        stats = [self._stat(name) for name in names]
        files = sum(map(_in_memory, self._folders))
        memory = files + sum(resident for resident, _ in stats)
        if memory > self._most:  # what processes share counts once, but that is slow to find out
            shares = zip(names, stats, strict=True)
            memory = files + sum(self._share(name, resident) for name, (resident, _) in shares)
        self._peak = max(self._peak, memory)
        self._cpu_ms = max(self._cpu_ms, sum(ticks for _, ticks in stats) * 1000 / os.sysconf("SC_CLK_TCK"))
        return memory > self._most or len(names) > MAX_PROCESSES

    def _stat(self, name: str) -> tuple[int, int]:
        """(bytes in memory, ticks of its own and of its waited-for children)"""
        fields = self._read(name, "stat").rpartition(b")")[2].split()
        if len(fields) < 22:  # gone
            return 0, 0
        return int(fields[21]) * resource.getpagesize(), sum(int(ticks) for ticks in fields[11:15])

    def _share(self, name: str, resident: int) -> int:
        for line in self._read(name, "smaps_rollup").splitlines():
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) * 1024
        return resident

    def _read(self, name: str, file: str) -> bytes:
        try:
            handle = os.open(f"{name}/{file}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._processes)
        except OSError:
            return b""
        try:
            return os.read(handle, 4096)
        except OSError:
            return b""
        finally:
            os.close(handle)

    def usage(self) -> Usage:
        return Usage(self._cpu_ms or None, self._peak / MB, out_of_memory=False)

    def places(self) -> list[str]:
        return []

    def remove(self) -> None:
        pass


def _in_memory(folder: int) -> int:
    used = os.fstatvfs(folder)
    return (used.f_blocks - used.f_bfree) * used.f_frsize + (used.f_files - used.f_ffree) * INODE_BYTES

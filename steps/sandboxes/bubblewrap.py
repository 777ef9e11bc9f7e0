"""A sandbox by bubblewrap: namespaces of its own, no capabilities, the machine's /usr to read, and three folders in memory to write.

Its first process is a shell that says it is there, takes the environment and the word to go from a pipe, and then runs the command.
So limits hold before the command begins, and a worker that dies before has started nothing. When the first process ends or is
killed, the kernel ends all others; when the worker ends, bubblewrap's processes die with it.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping
from typing import NamedTuple

from steps.sandboxes.requests import WORKSPACE
from steps.sandboxes.trouble import Trouble

MB = 1 << 20
WRITABLE_BYTES = {WORKSPACE: 256 * MB, "/tmp": 128 * MB, "/dev/shm": 64 * MB}
NOBODY = 65534
BOOT_S = 15.0
PIPE_BYTES = 1 * MB
SHELL = "/bin/bash" if os.path.exists("/bin/bash") else "/bin/sh"
BASE_ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8"}
FIRST_PROCESS = f"""
LIMITS || exit 125
printf .
eval "$(cat)"
[ "$go" = 1 ] || exit 125
unset go
exec 9>&2 2>/dev/null
{SHELL} -c "$1" </dev/null 2>&9 9>&-
exit $?
"""
SEALED = ["--remount-ro", "/dev", "--remount-ro", "/"]
ACCOUNTS = {
    "/etc/passwd": f"nobody:x:{NOBODY}:{NOBODY}:nobody:/tmp:{SHELL}\n".encode(),
    "/etc/group": f"nogroup:x:{NOBODY}:\n".encode(),
}
OLDEST = (0, 8)
NETWORK_FILES = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/ssl", "/etc/ca-certificates", "/etc/pki")


class Unusable(Exception):
    """Why bubblewrap cannot be used on this machine: one sentence."""


class Ended(NamedTuple):
    """status: the exit code, 128 + n for signal n; None if the command was never run. What is known of the use of resources is what the
    kernel accounts to waited-for processes.
    """

    status: int | None
    cpu_ms: float
    largest_mb: float


class Box:
    """A sandbox that waits for the word to run its command. It is to be closed, which ends it."""

    def __init__(
        self, process: "subprocess.Popen[bytes]", status_pipe: int, command_pipe: int, options_pipe: int, options: bytes
    ) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self.stdout = os.dup(process.stdout.fileno())
        self.stderr = os.dup(process.stderr.fileno())
        process.stdout.close()
        process.stderr.close()
        self.pid = -1  # of the first process, as the worker sees it
        self.session = process.pid  # of bubblewrap itself, and until it has booted, of the first process too
        self.folders: list[int] = []
        self.processes = -1
        self._process = process
        self._outer = os.pidfd_open(process.pid)
        self._first = -1
        self._status = status_pipe
        os.set_blocking(status_pipe, False)
        self._command = command_pipe
        self._options_pipe = options_pipe
        self._options = options
        self._end: Ended | None = None

    async def boot(self) -> None:
        """Returns when the first process waits in its namespaces. Raises Trouble.

        Before, bubblewrap waits for its options, so that its session can be noted down while nothing is lost if this process dies.
        """
        self._tell_options()
        started = b""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(BOOT_S):
                await _readable(self.stdout)
                started = os.read(self.stdout, 1)
        if not started:
            self.kill()
            os.set_blocking(self.stderr, False)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await _readable(self.stderr)
            raise Trouble("BOOT_FAIL", _first_line(self.stderr) or f"the sandbox did not boot in {BOOT_S:.0f} s")
        try:
            self.pid = json.loads(os.read(self._status, 4096).splitlines()[0])["child-pid"]
            self._first = os.pidfd_open(self.pid)
            inside = f"/proc/{self.pid}/root"
            for path in WRITABLE_BYTES:
                self.folders.append(os.open(inside + path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            self.processes = os.open(f"{inside}/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (OSError, ValueError, LookupError) as error:
            raise Trouble("BOOT_FAIL", f"the sandbox cannot be looked into: {error}") from error

    def _tell_options(self) -> None:
        with contextlib.suppress(BrokenPipeError), open(self._options_pipe, "wb", closefd=False) as pipe:
            pipe.write(self._options)
        self._options_pipe = _closed(self._options_pipe)

    @property
    def workspace(self) -> int:
        """Descriptor of the working folder. It stays readable after the end."""
        return self.folders[0]

    def go(self, env: Mapping[str, str]) -> None:
        """Run the command, with these variables. Raises Trouble when nobody waits for it."""
        lines = [f"export {name}={shlex.quote(value)}" for name, value in env.items()]
        try:
            os.write(self._command, "\n".join([*lines, "go=1\n"]).encode())
        except BrokenPipeError:
            raise Trouble("BOOT_FAIL", "the sandbox ended before its command began") from None
        finally:
            self._hang_up()

    def kill(self) -> None:
        """Kill all that is in there."""
        for process in (self._first, self._outer):
            if process >= 0:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(process, signal.SIGKILL)
                return

    async def ended(self) -> Ended:
        """How it ended. Nothing of it runs any more then."""
        await _readable(self._outer)
        self._end = self._end or self._bury()
        return self._end

    def _bury(self) -> Ended:
        _, status, used = os.wait4(self._process.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        return Ended(self._exit_code(), (used.ru_utime + used.ru_stime) * 1000, used.ru_maxrss / 1024)

    def _exit_code(self) -> int | None:
        """Bubblewrap reports an exit code only for what was executed; its own failures look like any program's."""
        with contextlib.suppress(BlockingIOError):
            for line in os.read(self._status, 4096).splitlines():
                if (code := json.loads(line).get("exit-code")) is not None:
                    return int(code)
        return None

    def _hang_up(self) -> None:
        self._command = _closed(self._command)

    def close(self) -> None:
        """Whatever still runs is killed, and nothing is open any more."""
        self.kill()
        self._hang_up()
        self._options_pipe = _closed(self._options_pipe)
        for descriptor in (self.stdout, self.stderr, self._outer, self._first, self._status, self.processes, *self.folders):
            if descriptor >= 0:
                os.close(descriptor)


def _closed(descriptor: int) -> int:
    if descriptor >= 0:
        os.close(descriptor)
    return -1


async def _readable(descriptor: int) -> None:
    """Wait until there is something to read, or for a process, until it has ended."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)


def _first_line(pipe: int) -> str:
    try:
        lines = os.read(pipe, 4096).decode(errors="replace").splitlines()
    except BlockingIOError:
        return ""
    return lines[0] if lines else ""


def start(cmd: str, *, files: Mapping[str, bytes], workdir: str, net: bool, limits: str = "true") -> Box:
    """Start a sandbox for a shell command. files: by path below WORKSPACE; they are there before the command. workdir: where it starts.
    limits: shell commands that the first process begins with.

    To be called in the thread that lasts as long as the process: bubblewrap dies with the thread that started it. Raises Trouble.
    """
    status, status_end = os.pipe()
    command_end, command = os.pipe()
    options_end, options_pipe = os.pipe()
    inputs: list[int] = []
    try:
        options = _options(workdir, net)
        for path, content in {**ACCOUNTS, **{f"{WORKSPACE}/{path}": content for path, content in files.items()}}.items():
            inputs.append(_in_memory(content))
            options += ["--perms", "0644", "--file", str(inputs[-1]), path]
        options += [*SEALED, "--json-status-fd", str(status_end)]
        process = subprocess.Popen(  # to be waited for with wait4, which tells what was used
            [bwrap(), "--args", str(options_end), "--", SHELL, "-c", FIRST_PROCESS.replace("LIMITS", limits), "sh", cmd],
            stdin=command_end,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[status_end, options_end, *inputs],
            cwd="/",
            env={},
            start_new_session=True,
            bufsize=0,
            user=_nobody(),
            group=_nobody(),
            extra_groups=None if _nobody() is None else [],
        )
    except (OSError, Unusable) as error:
        for descriptor in (status, command, options_pipe):
            os.close(descriptor)
        raise Trouble("BOOT_FAIL", f"bubblewrap cannot be started: {error}") from error
    finally:
        for descriptor in (status_end, command_end, options_end, *inputs):
            os.close(descriptor)
    assert process.stdout is not None
    with contextlib.suppress(PermissionError):  # the user has enough in pipes already
        fcntl.fcntl(process.stdout.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return Box(process, status, command, options_pipe, b"".join(option.encode() + b"\0" for option in options))


def _in_memory(content: bytes) -> int:
    descriptor = os.memfd_create("sandbox")
    with open(descriptor, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _nobody() -> int | None:
    """Whose name bubblewrap is run in when root starts it; None: our own."""
    return NOBODY if os.getuid() == 0 else None


def bwrap() -> str:
    """The program. Raises Unusable."""
    found = shutil.which("bwrap")
    if found is None:
        raise Unusable("bubblewrap is not installed; install the package bubblewrap")
    return found


def _options(workdir: str, net: bool) -> list[str]:
    options = ["--unshare-all", "--unshare-user", "--disable-userns", "--uid", str(NOBODY), "--gid", str(NOBODY)]
    options += ["--hostname", "sandbox", "--cap-drop", "ALL", "--die-with-parent", "--new-session", "--as-pid-1"]
    if net:
        options.append("--share-net")
    options += _system()
    options += ["--proc", "/proc", "--dev", "/dev"]
    for path, size in WRITABLE_BYTES.items():
        options += ["--perms", "1777" if path != WORKSPACE else "0755", "--size", str(size), "--tmpfs", path]
    for path in NETWORK_FILES if net else ():
        options += ["--ro-bind-try", os.path.realpath(path), path]
    options += ["--dir", workdir, "--chdir", workdir]
    options.append("--clearenv")
    for name, value in BASE_ENV.items():
        options += ["--setenv", name, value]
    return options


def _system() -> list[str]:
    """The machine's programs and libraries, to be read."""
    options = ["--ro-bind", "/usr", "/usr"]
    for path in ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"):
        if os.path.islink(path):
            options += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            options += ["--ro-bind", path, path]
    for path in ("/etc/alternatives", "/etc/ld.so.cache"):
        options += ["--ro-bind-try", path, path]
    return options


def probe() -> None:
    """Raises Unusable where sandboxes do not work."""
    program = bwrap()
    try:
        _try(program)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unusable(f"bubblewrap cannot be started: {error}") from error


def _try(program: str) -> None:
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    version = re.search(r"(\d+)\.(\d+)", told)
    if version is None or (int(version[1]), int(version[2])) < OLDEST:
        raise Unusable(f"bubblewrap {'.'.join(map(str, OLDEST))} or newer is needed, this is {told.strip() or 'another program'}")
    tried = subprocess.run(
        [program, *_options(WORKSPACE, net=False), *SEALED, "--", SHELL, "-c", "exit 42"],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        cwd="/",
        env={},
        timeout=BOOT_S,
        user=_nobody(),
        group=_nobody(),
        extra_groups=None if _nobody() is None else [],
    )
    if tried.returncode != 42:
        said = (tried.stderr.strip().splitlines() or [f"it ended with {tried.returncode}"])[0]
        raise Unusable(f"bubblewrap does not work here ({said}); it needs user namespaces")

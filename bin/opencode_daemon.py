"""An OpenCode server of our own: its program from npm, its configuration, its folders, its start and its end.

Everything is below STATE_DIR/opencode. The server listens on the loopback, wants a password that is made when it first starts, works in
an empty folder, and has an environment in which nothing of ours stands but the key of the model's provider.
"""

import asyncio
import fcntl
import json
import os
import platform
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from steps.canonical import sha256_json
from steps.opencode_server.client import Server
from steps.opencode_server.faults import Faulty
from steps.opencode_server.live import LiveOpenCode

VERSION = "1.18.33"
USERNAME = "opencode"
INSTALL_S = 300.0
UP_S = 60.0
STOP_S = 10.0
PAUSE_S = 0.05
MOST_LOG_LINES = 3

PERMISSION = {"*": "deny", "StructuredOutput": "allow"}
AGENTS: Mapping[str, str] = {
    "plan": "You turn a goal into a plan that a person can read and refuse. You have no tools and need none: everything that you may "
    "know stands in the question. Hand in your answer as it is asked for, complete, and say nothing else.",
    "build": "You turn an approved plan into patches, tests and a command. You have no tools and need none: everything that you may "
    "know stands in the question. Hand in your answer as it is asked for, complete, and say nothing else.",
}
#: What the server may have of our environment.
PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")
PROVIDER_KEY = "HOLDFAST_PROVIDER_KEY"


#: Servers that this process started. They outlive it unless it stops them.
_CHILDREN: "dict[int, subprocess.Popen[bytes]]" = {}


class CannotRunOpenCode(Exception):
    """One sentence for the person at the terminal."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """How the server is to be. model: provider/model. provider_url: of an OpenAI-compatible provider; None for one that OpenCode knows."""

    folder: Path
    port: int
    model: str
    provider_url: str | None = None
    provider_key: str | None = field(default=None, repr=False)
    cors: str | None = None
    packages: Path | None = None  # where the program is installed, if not in the folder


@dataclass(frozen=True, slots=True)
class Running:
    """The process that was started. began: its start by the kernel's clock, which tells it from a later one of the same number.
    settings: a hash of its configuration.
    """

    pid: int
    began: str
    port: int
    settings: str


def up(wanted: Wanted) -> tuple[Running, bool]:
    """The server, healthy; started if it was not there, which is the second value. Raises CannotRunOpenCode."""
    wanted.folder.mkdir(parents=True, exist_ok=True)
    with _taking_turns(wanted.folder):
        there = running(wanted.folder)
        if there is not None:
            _require_same(wanted, there)
            check(wanted.folder, there.port)
            return there, False
        program = install(wanted.packages or wanted.folder)
        started = _start(wanted, program)
        return started, True


def _require_same(wanted: Wanted, there: Running) -> None:
    if there.settings != _hash_of_settings(wanted) or wanted.port not in (0, there.port):
        raise CannotRunOpenCode(f"the OpenCode server on port {there.port} runs with other settings; stop it first")


def _hash_of_settings(wanted: Wanted) -> str:
    """The file itself is no measure: the server adds to it."""
    return sha256_json({"configuration": configuration(wanted), "cors": wanted.cors})


def stop(folder: Path) -> bool:
    """End the server and all that it started. Whether there was one."""
    if not folder.is_dir():
        return False
    with _taking_turns(folder):
        there = running(folder)
        if there is not None:
            _end(there.pid)
        (folder / "daemon.json").unlink(missing_ok=True)
        return there is not None


def kill(there: Running) -> None:
    """As a crash would."""
    with suppress(ProcessLookupError):
        os.killpg(there.pid, signal.SIGKILL)
    while _began(there.pid) is not None:
        time.sleep(PAUSE_S)
    _reap(there.pid)


def running(folder: Path) -> Running | None:
    """The process that was started last, if it is still there."""
    try:
        there = Running(**json.loads((folder / "daemon.json").read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
    return there if _began(there.pid) == there.began else None


def check(folder: Path, port: int, within_s: float = UP_S) -> str:
    """The version of the server on this port, which is ours, healthy and harmless. Raises CannotRunOpenCode."""
    opencode = LiveOpenCode(server_of(folder, port))
    try:
        return asyncio.run(opencode.ready(within_s))
    except Faulty as trouble:
        raise CannotRunOpenCode(f"the OpenCode server on port {port} is of no use: {trouble.fault.message}") from None


def server_of(folder: Path, port: int) -> Server:
    return Server(f"http://127.0.0.1:{port}", USERNAME, password_in(folder))


def password_in(folder: Path) -> str | None:
    """The password of the server whose folder this is, if one was started there."""
    try:
        return (folder / "password").read_text().strip() or None
    except OSError:
        return None


# -- the program ------------------------------------------------------------------------------------------------------------------


def install(folder: Path, version: str = VERSION) -> Path:
    """The program, from npm if it is not there yet. Raises CannotRunOpenCode."""
    package = package_name()
    home = folder / f"{package}-{version}"
    program = home / "node_modules" / package / "bin" / "opencode"
    if program.exists():
        return program
    if missing := [name for name in ("node", "npm") if shutil.which(name) is None]:
        raise CannotRunOpenCode(
            f"{' and '.join(missing)} cannot be found; OpenCode is installed by npm, which comes with Node.js"
        )
    folder.mkdir(parents=True, exist_ok=True)
    turn = folder / "installing"
    turn.touch()
    with _taking_turns(turn):
        if not program.exists():
            _install(folder, home, program, f"{package}@{version}")
    return program


def _install(folder: Path, home: Path, program: Path, package: str) -> None:
    draft = Path(tempfile.mkdtemp(prefix="draft-", dir=folder))
    options = ["--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--loglevel=error"]
    command = ["npm", "install", "--prefix", str(draft), *options, package]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=INSTALL_S, check=False)
        if done.returncode or not (draft / program.relative_to(home)).exists():
            lines = [line.removeprefix("npm error ").strip() for line in done.stderr.splitlines() if "error" in line.lower()]
            raise CannotRunOpenCode(f"npm could not install {package}: {'; '.join(lines[:2]) or 'no reason given'}")
        draft.rename(home)
    except subprocess.TimeoutExpired:
        raise CannotRunOpenCode(f"npm did not install {package} in {INSTALL_S:.0f} s") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def package_name() -> str:
    """The package of opencode-ai that holds the program for this machine."""
    system = platform.system().lower()
    machine = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}.get(platform.machine().lower())
    if system not in ("linux", "darwin") or machine is None:
        raise CannotRunOpenCode(f"there is no OpenCode for {platform.system()} on {platform.machine()}")
    baseline = "-baseline" if system == "linux" and machine == "x64" and not _has_avx2() else ""
    musl = "-musl" if system == "linux" and platform.libc_ver()[0] != "glibc" else ""
    return f"opencode-{system}-{machine}{baseline}{musl}"


def _has_avx2() -> bool:
    with suppress(OSError):
        return " avx2 " in Path("/proc/cpuinfo").read_text()
    return False


# -- what it is given -------------------------------------------------------------------------------------------------------------


def configuration(wanted: Wanted) -> dict[str, Any]:
    """OpenCode's own configuration: one provider, two agents that may do nothing but answer, and nothing shared or updated."""
    provider, _, model = wanted.model.partition("/")
    if not provider or not model:
        raise CannotRunOpenCode(f"OC_MODEL must be written as provider/model, not {wanted.model!r}")
    options: dict[str, Any] = {"apiKey": f"{{env:{PROVIDER_KEY}}}"} if wanted.provider_key else {}
    told: dict[str, Any] = {"options": options}
    if wanted.provider_url:
        options["baseURL"] = wanted.provider_url
        told |= {"npm": "@ai-sdk/openai-compatible", "models": {model: {"name": model, "tool_call": True}}}
    agents = {name: {"mode": "primary", "prompt": prompt, "permission": PERMISSION} for name, prompt in AGENTS.items()}
    return {
        "model": wanted.model,
        "small_model": wanted.model,
        "enabled_providers": [provider],
        "provider": {provider: told},
        "permission": PERMISSION,
        "agent": agents,
        "autoupdate": False,
        "share": "disabled",
        "snapshot": False,
    }


def environment(wanted: Wanted, password: str) -> dict[str, str]:
    ours = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    folders = {f"XDG_{name}_HOME": str(wanted.folder / name.lower()) for name in ("DATA", "CONFIG", "STATE", "CACHE")}
    off = ("AUTOUPDATE", "SHARE", "LSP_DOWNLOAD", "DEFAULT_PLUGINS", "PROJECT_CONFIG", "EXTERNAL_SKILLS", "CLAUDE_CODE")
    told = {f"OPENCODE_DISABLE_{name}": "1" for name in (*off, *(("MODELS_FETCH",) if wanted.provider_url else ()))}
    told |= {
        "HOME": str(wanted.folder / "home"),
        "OPENCODE_CONFIG": str(wanted.folder / "config.json"),
        "OPENCODE_SERVER_USERNAME": USERNAME,
        "OPENCODE_SERVER_PASSWORD": password,
    }
    key = {PROVIDER_KEY: wanted.provider_key} if wanted.provider_key else {}
    return ours | folders | told | key


# -- the process ------------------------------------------------------------------------------------------------------------------


def _start(wanted: Wanted, program: Path) -> Running:
    password = password_in(wanted.folder) or _new_password(wanted.folder)
    _write_private(wanted.folder / "config.json", json.dumps(configuration(wanted), indent=2))
    workplace = wanted.folder / "empty"
    shutil.rmtree(workplace, ignore_errors=True)
    for folder in (workplace, wanted.folder / "home"):
        folder.mkdir(parents=True, exist_ok=True)
    port = wanted.port or _free_port()
    log = log_of(wanted.folder, port)
    command = [str(program), "serve", "--hostname", "127.0.0.1", "--port", str(port)]
    command += ["--cors", wanted.cors] if wanted.cors else []
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            cwd=workplace,
            env=environment(wanted, password),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    _CHILDREN[process.pid] = process
    there = Running(process.pid, _began(process.pid) or "", port, _hash_of_settings(wanted))
    (wanted.folder / "daemon.json").write_text(json.dumps(asdict(there)))
    try:
        check(wanted.folder, port)
    except BaseException as error:
        _end(process.pid)
        if isinstance(error, CannotRunOpenCode):
            raise CannotRunOpenCode(f"{error}; the end of {log}: {_last_words(log)}") from None
        raise
    return there


def log_of(folder: Path, port: int) -> Path:
    return folder / f"oc-daemon-{port}.log"


def _last_words(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return " | ".join(lines[-MOST_LOG_LINES:]) or "nothing"


def _end(pid: int) -> None:
    """TERM, then KILL, for the process and everything that came from it, in whichever session that is."""
    tree = [pid, *_descendants(pid)]
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_S
    while time.monotonic() < deadline and _began(pid) is not None:
        time.sleep(PAUSE_S)
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    for one in tree[1:]:
        with suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)
    _reap(pid)


def _reap(pid: int) -> None:
    """A dead one, if it is a child of ours."""
    child = _CHILDREN.pop(pid, None)
    if child is not None:
        with suppress(subprocess.TimeoutExpired):
            child.wait(STOP_S)


def _descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError, IndexError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
    found = list(children.get(pid, []))
    for one in found:
        found += children.get(one, [])
    return found


def _began(pid: int) -> str | None:
    """When a process started, in the kernel's ticks; None if there is none, or only its shell."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    return None if state in "ZX" else rest[18]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _new_password(folder: Path) -> str:
    password = secrets.token_urlsafe(32)
    _write_private(folder / "password", password)
    return password


def _write_private(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.draft")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)


@contextmanager
def _taking_turns(what: Path) -> Iterator[None]:
    descriptor = os.open(what, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)

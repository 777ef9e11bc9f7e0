"""Runs an embedded PostgreSQL for as long as somebody uses it.

Any number of processes call `ensure` on the same folder: the first starts the server, the others join it, and when the last one is
gone the server stops. Nobody counts process ids, which lie after a kill, a reboot or in another container. Four file locks tell
everything, because the kernel drops them whenever their holders die:

    users    shared by every user, for life. The watcher waits to have it alone, then stops the server.
    start    held around initdb and start.
    server   inherited by initdb and by every process of the server: while it is held, something of the server lives.
    watcher  inherited by the watcher.

Everything is in one folder named by the major version (`pg18/`), with the socket, so that another PostgreSQL never opens these files.
No TCP port is opened; the folder is 0700 and whoever may enter it is trusted. As root, who may not run PostgreSQL, the server gets
another user's name in a user namespace, or, where the kernel forbids that, another user's id. No user is made, and no mode of a
folder that is not ours is changed.
"""

import fcntl
import hashlib
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import quote

from psycopg.pq import PGconn, Ping

from bin.postgres_programs import CannotRunPostgres, Programs, find_programs

START_TIMEOUT_S = 600.0  # recovery after a crash under load may take minutes
LONGEST_SOCKET_DIR = 103 - len("/.s.PGSQL.5432")  # the shortest of the platforms' limits on a socket's path
WATCHER = Path(__file__).with_name("postgres_watcher.py")
DEFAULTS = {
    "max_connections": "200",
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
}


@dataclass
class Lease:
    """A user's share in a running server. Dropped by `close` or by the end of the process."""

    home: Path
    dsn: str
    _users: int

    def close(self) -> None:
        if self._users >= 0:
            os.close(self._users)
            self._users = -1

    def keep_across_exec(self) -> None:
        os.set_inheritable(self._users, True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def ensure(state_dir: Path, *, bindir: Path | None = None, settings: Mapping[str, str] | None = None) -> str:
    """The DSN of this folder's server, started if need be and kept running until this process ends."""
    lease = borrow(state_dir, bindir=bindir, settings=settings)
    _held.append(lease)
    return lease.dsn


def keep_across_exec() -> None:
    """Lets the program that this process is about to become go on using what `ensure` gave it."""
    for lease in _held:
        lease.keep_across_exec()


_held: list[Lease] = []


def borrow(state_dir: Path, *, bindir: Path | None = None, settings: Mapping[str, str] | None = None) -> Lease:
    """Like `ensure`, for a caller who gives it back. `settings` count when the server starts, not when it is joined."""
    programs = find_programs(bindir)
    home = state_dir.absolute().resolve() / f"pg{programs.major}"
    server = Server(home, programs, socket_dir_of(home), {**DEFAULTS, **(settings or {})})
    try:
        make_folders(server)
        users = _lock(home / "users", fcntl.LOCK_SH)
        try:
            with _locked(home / "start"):
                _bring_up(server)
                _watch(home)
        except BaseException:
            os.close(users)
            raise
    except OSError as error:
        raise CannotRunPostgres(
            f"cannot use {home} for the embedded database: {error.strerror}; set STATE_DIR to a folder of your own, or DATABASE_URL"
        ) from error
    return Lease(home, server.dsn, users)


# -- the server ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Server:
    home: Path
    programs: Programs
    socket_dir: Path
    settings: Mapping[str, str] = field(repr=False)

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def log(self) -> Path:
        return self.home / "server.log"

    @property
    def dsn(self) -> str:
        return f"postgresql://postgres@/postgres?host={quote(str(self.socket_dir), safe='')}"


def _bring_up(server: Server) -> None:
    """Joins the running server, or starts one once nothing of the former lives any more."""
    deadline = time.monotonic() + START_TIMEOUT_S
    started = False
    while True:
        nothing_lives = _try_lock(server.home / "server")
        if nothing_lives is not None:
            try:
                if started:
                    raise CannotRunPostgres(f"the embedded PostgreSQL did not start; {server.log} ends with: {_tail(server.log)}")
                _start(server, nothing_lives)
                started = True
            finally:
                os.close(nothing_lives)
        elif PGconn.ping(f"{server.dsn}&connect_timeout=5".encode()) == Ping.OK:
            return
        if time.monotonic() > deadline:
            raise CannotRunPostgres(f"the embedded PostgreSQL in {server.home} does not answer; see {server.log}")
        time.sleep(0.01)


def _start(server: Server, lock: int) -> None:
    """Starts the server as nobody's child, holding `lock`. Returns before it answers."""
    as_server = prefix_of(server)
    if not server.data.exists():
        _initialise(server, as_server, lock)
    # Nothing of the server lives, so these are leftovers; PostgreSQL obeys them if another process has the same number by now.
    for leftover in (
        server.data / "postmaster.pid",
        server.socket_dir / ".s.PGSQL.5432.lock",
        server.socket_dir / ".s.PGSQL.5432",
    ):
        leftover.unlink(missing_ok=True)
    _write_settings(server)
    _run(server, [*as_server, server.programs.bindir / "pg_ctl", "start", "-W", "-s", "-D", server.data], lock)


def _initialise(server: Server, as_server: list[str], lock: int) -> None:
    """Makes the data folder under another name first, so that a killed initdb leaves nothing that looks whole."""
    unfinished = server.home / "data.new"
    if unfinished.exists():
        shutil.rmtree(unfinished)
    options = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--data-checksums"]
    if server.settings.get("fsync") == "off":
        options.append("--no-sync")
    _run(server, [*as_server, server.programs.bindir / "initdb", *options, "-D", unfinished], lock)
    with (unfinished / "postgresql.conf").open("a") as conf:
        conf.write("include 'embedded.conf'\n")
    unfinished.rename(server.data)


def _write_settings(server: Server) -> None:
    settings = {"listen_addresses": "", "unix_socket_directories": str(server.socket_dir), **server.settings}
    quoted = {name: value.replace("'", "''") for name, value in settings.items()}
    file = server.data / "embedded.conf"
    file.write_text("".join(f"{name} = '{value}'\n" for name, value in quoted.items()))
    file.chmod(0o644)


def _run(server: Server, command: list[str | Path], lock: int) -> None:
    """Output goes to a file, never to a pipe: the server would inherit the pipe and its reader would wait for ever."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"LC_ALL": "C"}
    with server.log.open("ab") as log:
        done = subprocess.run(
            command,
            cwd="/",
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[lock],
            start_new_session=True,
        )
    if done.returncode != 0:
        program = next(Path(part).name for part in command if Path(part).parent == server.programs.bindir)
        raise CannotRunPostgres(f"{program} failed; {server.log} ends with: {_tail(server.log)}")


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n") if log.exists() else []
    return " | ".join([line.strip() for line in lines if line.strip()][-3:]) or "(nothing)"


# -- the folders and their owner -------------------------------------------------------------------------------------------------


def make_folders(server: Server) -> None:
    """The server's folder belongs to the user id that the server runs with; its owner tells later starts which that was."""
    home = server.home
    if not home.exists():
        home.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{home.name}-", dir=home.parent))  # mode 0700
        try:
            if os.geteuid() == 0 and not _works(_in_namespace(), server.programs, fresh):
                servant = _servant()
                os.chown(fresh, servant.pw_uid, servant.pw_gid)
            fresh.rename(home)
        except OSError:
            shutil.rmtree(fresh, ignore_errors=True)
            if not home.exists():  # else another first user was faster
                raise
    if server.socket_dir != home:
        _make_socket_dir(server.socket_dir, home.stat().st_uid)


def _make_socket_dir(folder: Path, owner: int) -> None:
    """In a folder that everybody can write to, somebody else may have made it first and be listening there."""
    try:
        folder.mkdir(mode=0o700)
        os.chown(folder, owner, -1)
    except FileExistsError:
        pass
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner or found.st_mode & 0o077:
        raise CannotRunPostgres(f"{folder} is somebody else's: remove it, or set STATE_DIR to a folder with a shorter path")


def socket_dir_of(home: Path) -> Path:
    """The server's folder itself, or, where its path is too long for a socket, one in the system's temporary folder."""
    if len(os.fsencode(home)) <= LONGEST_SOCKET_DIR:
        return home
    return Path("/tmp") / f"holdfast-{hashlib.sha256(os.fsencode(home)).hexdigest()[:16]}"


def prefix_of(server: Server) -> list[str]:
    """What to put before a command of the server so that it runs with the id of the folder's owner."""
    owner = server.home.stat().st_uid
    if os.geteuid() != 0:
        return []
    candidates = [_in_namespace()] if owner == 0 else [_as_user(owner, "dac_override"), _as_user(owner, None)]
    for prefix in candidates:
        if _works(prefix, server.programs, server.home):
            return prefix
    raise CannotRunPostgres(
        f"root may not run PostgreSQL, and {_name(owner or _servant().pw_uid)} cannot reach {server.home} or {server.programs.bindir}: "
        "run as another user, or set DATABASE_URL"
    )


def _in_namespace() -> list[str]:
    """A user namespace in which we are called otherwise. To the outside the server is still root and reads what root reads."""
    servant = _servant()
    return ["unshare", "--user", f"--map-user={servant.pw_uid}", f"--map-group={servant.pw_gid}", "--"]


def _as_user(uid: int, capability: str | None) -> list[str]:
    """Another user id, if possible with the right to pass through folders that only root may enter."""
    try:
        groups = [f"--regid={pwd.getpwuid(uid).pw_gid}", "--clear-groups"]
    except KeyError:
        groups = [f"--regid={uid}", "--clear-groups"]
    keep = [f"--inh-caps=+{capability}", f"--ambient-caps=+{capability}"] if capability else []
    return ["setpriv", f"--reuid={uid}", *groups, *keep, "--"]


def _works(prefix: list[str], programs: Programs, folder: Path) -> bool:
    """Whether a command under this prefix is not root, can run the programs, and can write to the folder."""
    probe = 'test "$(id -u)" != 0 && "$1" --version && test -w "$2"'
    command = [*prefix, "sh", "-c", probe, "sh", programs.bindir / "postgres", folder]
    try:
        return subprocess.run(command, cwd="/", capture_output=True).returncode == 0
    except OSError:
        return False


def _servant() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise CannotRunPostgres("root may not run PostgreSQL and there is no user nobody: run as another user, or set DATABASE_URL")


def _name(uid: int) -> str:
    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user {uid}"


# -- locks and the watcher -------------------------------------------------------------------------------------------------------


def _watch(home: Path) -> None:
    """Starts the watcher if none lives. It inherits the lock that says so."""
    lock = _try_lock(home / "watcher")
    if lock is None:
        return
    try:
        with (home / "server.log").open("ab") as log:
            subprocess.run(
                [sys.executable, "-I", "-S", WATCHER, home, str(lock)],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[lock],
                start_new_session=True,
                check=True,
            )
    finally:
        os.close(lock)


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    lock = _lock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(lock)


def _try_lock(file: Path) -> int | None:
    try:
        return _lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None


def _lock(file: Path, kind: int) -> int:
    """Holds until the returned descriptor, and every copy of it that a child inherited, is closed."""
    lock = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, kind)
    except BaseException:
        os.close(lock)
        raise
    return lock

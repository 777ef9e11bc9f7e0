"""Two PostgreSQL servers on this machine, a primary and its standby, to be killed, promoted and built again: for drills and tests.

Both belong to one user, listen on sockets only, and end with this process. The connection string names both, so that whoever uses it
finds the primary by itself. Nothing decides here who is the primary; in production that is the business of a cluster manager.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg.conninfo import make_conninfo

from bin.postgres import Server, make_folders, prefix_of, socket_dir_of
from bin.postgres_programs import CannotRunPostgres, Programs, find_programs

WAIT_S = 60.0
SETTINGS = {
    "listen_addresses": "",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "wal_keep_size": "256MB",
    "wal_retrieve_retry_interval": "100ms",
    "hot_standby": "on",
}

STANDBYS: LiteralString = "select pid, application_name, state, sync_state from pg_stat_replication order by application_name"

Conn = psycopg.Connection[tuple[Any, ...]]


class Node:
    """One server: its files, its process, its connection string."""

    def __init__(self, name: str, folder: Path, programs: Programs, settings: Mapping[str, str]) -> None:
        self.name = name
        home = folder.absolute().resolve() / name
        self._server = Server(home, programs, socket_dir_of(home), {**SETTINGS, **settings})
        make_folders(self._server)
        self._as_server = prefix_of(self._server)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return str(self._server.socket_dir)

    @property
    def dsn(self) -> str:
        """Of this server alone, whatever it is at the moment."""
        return make_conninfo(host=self.host, user="postgres", dbname="postgres", target_session_attrs="any", connect_timeout=5)

    @property
    def log(self) -> Path:
        return self._server.log

    def connect(self) -> Conn:
        return psycopg.connect(self.dsn, autocommit=True, application_name="drill")

    def initialise(self) -> None:
        data = self._server.data
        self._run(
            "initdb", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--data-checksums", "--no-sync", "-D", data
        )
        with (data / "postgresql.conf").open("a") as conf:
            conf.write("include 'pair.conf'\n")

    def copy(self, primary: "Node") -> None:
        """Become a standby of that server, from nothing."""
        shutil.rmtree(self._server.data, ignore_errors=True)
        self._run("pg_basebackup", "-D", self._server.data, "-d", primary.dsn, "-c", "fast", "-X", "stream", "--no-sync")

    def rewind(self, primary: "Node") -> None:
        """Give up what this server has and that one has not. Raises CannotRunPostgres when it can't be done."""
        with primary.connect() as conn:
            conn.execute("checkpoint")  # it writes down that it is on a timeline of its own
        self._run("pg_rewind", "-D", self._server.data, f"--source-server={primary.dsn}", "--no-sync")

    def configure(self, primary: "Node | None", *, waits_for: str = "") -> None:
        """Be a standby of that server, or a primary, whose commits wait for the standby of this name if there is one."""
        settings = {**self._server.settings, "unix_socket_directories": self.host, "synchronous_standby_names": waits_for}
        if primary is not None:
            settings["primary_conninfo"] = make_conninfo(primary.dsn, application_name=self.name)
        quoted = {name: value.replace("'", "''") for name, value in settings.items()}
        file = self._server.data / "pair.conf"
        file.write_text("".join(f"{name} = '{value}'\n" for name, value in quoted.items()))
        file.chmod(0o644)
        standby = self._server.data / "standby.signal"
        if primary is None:
            standby.unlink(missing_ok=True)
        else:
            standby.touch()

    def promote(self) -> None:
        """Returns when it may be written to."""
        self._run("pg_ctl", "promote", "-s", "-w", "-t", "60", "-D", self._server.data)

    def start(self) -> None:
        for leftover in (self._server.data / "postmaster.pid", self._server.socket_dir / ".s.PGSQL.5432.lock"):
            leftover.unlink(missing_ok=True)
        ends_with_us = ["setpriv", "--pdeathsig", "QUIT", "--"] if shutil.which("setpriv") else []
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._as_server, *ends_with_us, self._server.programs.bindir / "postgres", "-D", self._server.data],
                cwd="/",
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait(self._answers, f"server {self.name} to answer; see {self.log}")

    def kill(self) -> None:
        """Kill -9, all of its processes, as when the power goes. Returns when none of them is left."""
        assert self._process is not None
        pid = self._process.pid
        children: list[int] = []
        with suppress(OSError):
            os.kill(pid, signal.SIGSTOP)  # or it could start one more after we have looked
            children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        self._process.kill()
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        self._process.wait()
        self._process = None
        wait(lambda: not any(map(_is_alive, children)), f"the processes of server {self.name} to end")

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(WAIT_S)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None

    def remove(self) -> None:
        shutil.rmtree(self._server.home)
        if self._server.socket_dir != self._server.home:
            shutil.rmtree(self._server.socket_dir)

    def _answers(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise CannotRunPostgres(f"server {self.name} ended by itself; see {self.log}")
        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, program: str, *words: str | Path) -> None:
        command = [*self._as_server, self._server.programs.bindir / program, *words]
        with self.log.open("ab") as log:
            done = subprocess.run(command, cwd="/", env=self._environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        if done.returncode:
            raise CannotRunPostgres(f"{program} failed for server {self.name}; see {self.log}")

    def _environment(self) -> dict[str, str]:
        return {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"LC_ALL": "C"}


class Pair:
    """A primary and its standby. synchronous: commits wait until the standby has them too."""

    def __init__(
        self, folder: Path, bindir: Path | None = None, *, synchronous: bool = True, settings: Mapping[str, str] | None = None
    ) -> None:
        programs = find_programs(bindir)
        self.synchronous = synchronous
        self.primary, self.standby = (Node(name, folder, programs, settings or {}) for name in ("one", "two"))
        self._hosts = f"{self.primary.host},{self.standby.host}"

    @property
    def dsn(self) -> str:
        """Of the pair: it names both, always in the same order."""
        return make_conninfo(host=self._hosts, user="postgres", dbname="postgres")

    def start(self) -> None:
        self.primary.initialise()
        self.primary.configure(None)
        self.primary.start()
        self.standby.copy(self.primary)
        self._join()

    def kill_primary(self) -> None:
        self.primary.kill()

    def crash_primary(self) -> None:
        """Kill it, and start it again where it was; the standby finds it by itself."""
        self.primary.kill()
        self.primary.start()

    def stall(self) -> None:
        """From now on the standby of an asynchronous pair hears nothing, as when the way to it is full."""
        with self.primary.connect() as conn:
            for pid, *_ in conn.execute(STANDBYS).fetchall():
                os.kill(pid, signal.SIGSTOP)

    def promote(self) -> None:
        """The standby becomes the primary; returns when it may be written to."""
        self.standby.promote()
        self.primary, self.standby = self.standby, self.primary

    def rebuild(self) -> str:
        """What was the primary becomes the standby of the new one; how that was done."""
        try:
            self.standby.rewind(self.primary)
            how = "pg_rewind"
        except CannotRunPostgres:
            self.standby.copy(self.primary)
            how = "new base backup"
        self._join()
        return how

    def close(self) -> None:
        self.primary.stop()
        self.standby.stop()

    def remove(self) -> None:
        """Take away the files of both, which must not run any more."""
        self.primary.remove()
        self.standby.remove()

    def _join(self) -> None:
        self.standby.configure(self.primary)
        self.standby.start()
        wait(lambda: self._standby_is("streaming", 2), "the standby to follow the primary")
        self.primary.configure(None, waits_for=f'"{self.standby.name}"' if self.synchronous else "")
        with self.primary.connect() as conn:
            conn.execute("select pg_reload_conf()")
        if self.synchronous:
            wait(lambda: self._standby_is("sync", 3), "commits to wait for the standby")

    def _standby_is(self, what: str, column: int) -> bool:
        with self.primary.connect() as conn:
            return [row[column] for row in conn.execute(STANDBYS).fetchall()] == [what]


def _is_alive(pid: int) -> bool:
    """Whether there is such a process, and it has not ended: those of others are reaped by others."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@contextmanager
def running_pair(
    folder: Path, bindir: Path | None = None, *, synchronous: bool = True, settings: Mapping[str, str] | None = None
) -> Iterator[Pair]:
    """A pair for the length of the block. Its files are left."""
    pair = Pair(folder, bindir, synchronous=synchronous, settings=settings)
    try:
        pair.start()
        yield pair
    finally:
        pair.close()


def wait(look: Callable[[], bool], what: str) -> None:
    """Raises CannotRunPostgres after a minute."""
    deadline = time.monotonic() + WAIT_S
    while not look():
        if time.monotonic() > deadline:
            raise CannotRunPostgres(f"waited {WAIT_S:.0f} s in vain for {what}")
        time.sleep(0.02)

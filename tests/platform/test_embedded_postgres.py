"""The embedded PostgreSQL with real processes and signals: it lives exactly as long as it has users, however they end."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest

from bin.postgres import borrow
from bin.postgres_programs import CannotRunPostgres, find_programs
from bin.postgres_watcher import is_running, pid_of

ROOT = Path(__file__).resolve().parent.parent.parent
USER = """
import sys
from pathlib import Path
from bin.postgres import ensure
print(ensure(Path(sys.argv[1]), settings={"fsync": "off"}), flush=True)
sys.stdin.read()
"""


class User:
    """A process that uses the embedded server until its standard input ends or it is killed."""

    def __init__(self, state: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", USER, str(state)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def dsn(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def kill(self) -> None:
        self.process.kill()
        self.leave()

    def leave(self) -> None:
        self.process.communicate(timeout=30)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "state"
    for home in (tmp_path / "state").glob("pg*"):
        eventually(lambda home=home: not is_running(home), "the server outlives the test")


@pytest.fixture
def home(state: Path) -> Path:
    return state / f"pg{find_programs().major}"


@pytest.fixture
def user(state: Path) -> Iterator[Callable[[], User]]:
    users: list[User] = []

    def come() -> User:
        users.append(User(state))
        return users[-1]

    yield come
    for one in users:
        one.kill()


def eventually(holds: Callable[[], bool], otherwise: str, within_s: float = 30) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.01)


def stopped(home: Path) -> None:
    eventually(lambda: not is_running(home), "the server outlived its last user")


def query(dsn: str, question: LiteralString = "select pg_postmaster_start_time()::text") -> str:
    with psycopg.connect(dsn, autocommit=True) as conn:
        row = conn.execute(question).fetchone()
        assert row
        return str(row[0])


def kept(home: Path) -> None:
    """Leaves a stopped server's folder behind, with a row in it."""
    with borrow(home.parent) as lease, psycopg.connect(lease.dsn) as conn:
        conn.execute("create table kept as select 7 as seven")
    stopped(home)


def test_four_first_users_at_once_get_one_server(user: Callable[[], User]) -> None:
    users = [user() for _ in range(4)]
    dsns = [one.dsn() for one in users]
    assert len({query(dsn) for dsn in dsns}) == 1


def test_the_server_stays_while_one_user_is_left_and_stops_after_the_last_was_killed(
    user: Callable[[], User], home: Path
) -> None:
    first, second = user(), user()
    dsn = first.dsn()
    second.dsn()
    born = query(dsn)
    first.kill()
    assert query(dsn) == born
    second.kill()
    stopped(home)


def test_the_next_user_finds_the_data(state: Path, home: Path) -> None:
    kept(home)
    with borrow(state) as lease:
        assert query(lease.dsn, "select seven from kept") == "7"


def test_a_user_who_comes_while_the_server_stops_gets_a_new_one(state: Path) -> None:
    births: list[str] = []
    for _ in range(3):
        with borrow(state, settings={"fsync": "off"}) as lease:
            births.append(query(lease.dsn))
    assert len(births) == 3


def test_after_a_kill_of_the_server_the_next_user_gets_a_recovered_one(state: Path, home: Path) -> None:
    with borrow(state) as lease:
        with psycopg.connect(lease.dsn, autocommit=True) as conn:
            conn.execute("create table kept as select 7 as seven")
        os.kill(pid_of(home), signal.SIGKILL)
        with borrow(state) as later:
            assert query(later.dsn, "select seven from kept") == "7"


@pytest.mark.parametrize("pid", [f"{os.getpid()}", "", "1\n"], ids=["of another process", "half-written", "of init"])
def test_a_pid_file_left_by_a_crash_deceives_nobody(state: Path, home: Path, pid: str) -> None:
    kept(home)
    (home / "data/postmaster.pid").write_text(pid)
    (home / ".s.PGSQL.5432.lock").write_text(pid)
    (home / ".s.PGSQL.5432").touch()
    with borrow(state) as lease:
        assert query(lease.dsn, "select seven from kept") == "7"


def test_a_killed_initdb_is_done_again(state: Path, home: Path, user: Callable[[], User]) -> None:
    first = user()
    eventually((home / "data.new/PG_VERSION").exists, "initdb never began")
    first.kill()
    assert not (home / "data").exists()
    with borrow(state, settings={"fsync": "off"}) as lease:
        assert query(lease.dsn, "select 1") == "1"


def test_when_the_watcher_was_killed_the_next_user_adopts_the_server(user: Callable[[], User], home: Path) -> None:
    first = user()
    born = query(first.dsn())
    os.kill(int((home / "watcher").read_text()), signal.SIGKILL)
    first.kill()
    second = user()
    assert query(second.dsn()) == born
    second.kill()
    stopped(home)


def test_a_folder_with_a_path_too_long_for_a_socket_works(tmp_path: Path) -> None:
    long = tmp_path / ("long" * 30)
    with borrow(long, settings={"fsync": "off"}) as lease:
        assert query(lease.dsn, "select 1") == "1"
        socket_dir = Path(query(lease.dsn, "show unix_socket_directories"))
        assert socket_dir.stat().st_mode & 0o777 == 0o700
    stopped(lease.home)
    socket_dir.rmdir()


def test_a_socket_folder_that_somebody_else_can_enter_is_refused(tmp_path: Path) -> None:
    long = tmp_path / ("long" * 30)
    with borrow(long, settings={"fsync": "off"}) as lease:
        socket_dir = Path(query(lease.dsn, "show unix_socket_directories"))
    stopped(lease.home)
    socket_dir.chmod(0o755)
    with pytest.raises(CannotRunPostgres, match="somebody else"):
        borrow(long)
    socket_dir.rmdir()


def test_the_server_is_durable_and_closed_to_the_network_unless_told_otherwise(state: Path) -> None:
    with borrow(state) as lease:
        assert query(lease.dsn, "show fsync") == "on"
        assert query(lease.dsn, "show synchronous_commit") == "on"
        assert query(lease.dsn, "show listen_addresses") == ""
        assert query(lease.dsn, "show server_encoding") == "UTF8"
        assert lease.home.stat().st_mode & 0o777 == 0o700


def test_the_users_own_settings_for_other_servers_are_not_taken(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGDATA", "/nowhere")
    monkeypatch.setenv("PGHOST", "nowhere.invalid")
    monkeypatch.setenv("PGPORT", "5432")
    with borrow(state, settings={"fsync": "off"}) as lease:
        assert query(lease.dsn, "select 1") == "1"


def test_a_server_that_cannot_start_is_told_with_its_own_last_words(state: Path) -> None:
    with pytest.raises(CannotRunPostgres, match="work_mem"):
        borrow(state, settings={"fsync": "off", "work_mem": "many"})


def test_a_folder_without_a_server_in_it_is_refused(state: Path, tmp_path: Path) -> None:
    with pytest.raises(CannotRunPostgres, match="PG_BINDIR"):
        borrow(state, bindir=tmp_path)


def test_a_state_folder_that_cannot_be_made_is_told_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CannotRunPostgres, match="STATE_DIR"):
        borrow(tmp_path / "file")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to run the server as somebody else")
def test_root_without_user_namespaces_runs_the_server_under_another_id(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing = tmp_path / "refusing"
    refusing.mkdir()
    (refusing / "unshare").write_text("#!/bin/sh\nexit 1\n")
    (refusing / "unshare").chmod(0o755)
    monkeypatch.setenv("PATH", f"{refusing}:{os.environ['PATH']}")
    before = tmp_path.stat().st_mode
    with borrow(state, settings={"fsync": "off"}) as lease:
        assert query(lease.dsn, "select 1") == "1"
        assert lease.home.stat().st_uid != 0
    stopped(lease.home)
    assert tmp_path.stat().st_mode == before

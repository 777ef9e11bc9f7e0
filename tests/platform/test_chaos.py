"""bin/chaos: one fault here, all of them with the slow tests; and what it needs to make them."""

import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bin.commands import chaos
from bin.service import ServiceProcess
from bin.soaks import fault_worker
from bin.soaks.faults import FAULTS
from bin.soaks.silent_proxy import Way
from tests.platform.drills import played

GOOD = r": \d+ runs, all terminal; 0 lost, 0 doubled, 0 stranded; silence \d+\.\d s; 17 of 17 oracles hold, "
QUICK = "statement-timeout"


def play(state: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return played("chaos", state, *words, timeout_s=300)


def must_go_well(name: str, state: Path, *words: str) -> None:
    done = play(state, "--fault", name, *words)
    told = done.stdout.splitlines()[-1]
    if told.startswith(f"{name}: SKIP: "):
        pytest.skip(told)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.match(name + GOOD, told), told


def test_a_service_comes_through_cancelled_statements(tmp_path: Path) -> None:
    must_go_well(QUICK, tmp_path, "--minutes", "0.05", "--seed", "3")
    (folder,) = (tmp_path / "drills").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["api-0.log", "state", "worker-1.log", "worker-2.log"]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FAULTS if name != QUICK])
def test_a_service_comes_through_every_other_fault(name: str, tmp_path: Path) -> None:
    must_go_well(name, tmp_path)


def test_the_list_names_every_fault(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["chaos", "--list"])
    assert chaos.main(chaos.Settings()) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(FAULTS)


@pytest.mark.parametrize(
    "wrong",
    [[], ["--fault", "nothing"], ["--fault", QUICK, "--all"], ["--all", "--minutes", "0"], ["--fault", QUICK, "--seed", "x"]],
)
def test_wrong_arguments_are_refused(wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        chaos.read_arguments(wrong)
    assert refused.value.code == 2


def test_a_fault_that_cannot_be_made_here_is_skipped_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["chaos", "--fault", "clock"])
    monkeypatch.setattr("bin.soaks.faults.LIBRARIES", ())
    assert chaos.main(chaos.Settings()) == 0
    assert capsys.readouterr().out == "clock: SKIP: libfaketime is not installed (the package faketime)\n"


# -- the faults ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def way() -> Iterator[tuple[Way, socket.socket, socket.socket]]:
    """A way through the proxy, and both its ends."""
    with closing(socket.create_server(("127.0.0.1", 0))) as door:
        client = socket.create_connection(door.getsockname())
        inner, _ = door.accept()
    outer, server = socket.socketpair()
    way = Way(inner, outer)
    client.settimeout(10)
    server.settimeout(10)
    yield way, client, server
    for end in (client, server):
        end.close()
    way.close()


def test_a_way_passes_everything_on_until_it_falls_silent(way: tuple[Way, socket.socket, socket.socket]) -> None:
    one, client, server = way
    client.sendall(b"listen holdfast")
    assert server.recv(100) == b"listen holdfast"
    server.sendall(b"yes")
    assert client.recv(100) == b"yes"
    assert one.kind == "listener"
    one.fall_silent("swallow")
    server.settimeout(0.5)
    client.sendall(b"more")
    with pytest.raises(TimeoutError):
        server.recv(100)


def test_where_packets_vanish_the_sender_finds_out(way: tuple[Way, socket.socket, socket.socket]) -> None:
    one, client, _ = way
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 300)
    one.fall_silent("vanish")
    client.sendall(b"more")
    with pytest.raises(OSError, match="timed out") as found:
        client.recv(100)
    assert not isinstance(found.value, TimeoutError) or found.value.errno is not None  # the kernel's word, not our patience


def test_a_switch_is_for_one_of_all_that_look(tmp_path: Path) -> None:
    switch = tmp_path / "switch"
    assert fault_worker.taken(switch) == ""
    switch.write_text("sleep 1")
    assert (fault_worker.taken(switch), fault_worker.taken(switch)) == ("sleep 1", "")


@pytest.mark.parametrize("hold", [True, False])
def test_code_that_computes_lets_no_thread_run_and_code_that_waits_does(hold: bool) -> None:
    turns: list[int] = []
    over = threading.Event()
    other = threading.Thread(target=lambda: [turns.append(1) for _ in iter(lambda: over.wait(0.01), True)])
    other.start()
    while not turns:
        pass
    before = len(turns)
    fault_worker.block(0.5, hold=hold)
    passed = len(turns) - before
    over.set()
    other.join()
    assert (passed <= 2) is hold


def test_a_process_that_is_kept_up_is_started_again(tmp_path: Path) -> None:
    process = ServiceProcess("json", tmp_path / "log", {}, module="json.tool", arguments=["--help"], kept_up=True)
    process.start()
    first = process.pid
    os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)
    process.require_alive()
    assert (process.deaths, process.pid != first) == (1, True)
    process.stop()

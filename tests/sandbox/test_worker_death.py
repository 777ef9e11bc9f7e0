"""A worker that dies takes its sandbox along; what had ended and was recorded is not run again; what had not, is."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from bin.settings import ROOT
from steps.contracts.sandbox import SBXRes
from steps.sandboxes import bubblewrap, slots
from steps.sandboxes.conformance import command_line, new_mark, processes_with, request
from steps.sandboxes.local import LocalSandbox, groups_here
from steps.sandboxes.slots import Slot, traces_of
from steps.sandboxes.trouble import Trouble
from tests.sandbox.subjects import local

WAIT_S = 10.0
NO_SESSION = 2**30
HEADED = "date +%N; cat /proc/sys/kernel/random/uuid"  # says something else each time


@contextmanager
def worker(folder: Path, key: str, cmd: str, *options: str) -> Iterator["subprocess.Popen[str]"]:
    """A process that runs the command; killed at the end."""
    arguments = [sys.executable, "-P", "-m", "tests.sandbox.lonely_worker", str(folder / "sandboxes"), key, cmd, *options]
    with subprocess.Popen(
        arguments, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
    ) as it:
        try:
            yield it
        finally:
            it.kill()


@contextmanager
def stray() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def running_in(mark: str) -> list[int]:
    """The sandbox's processes, without the worker, which has the mark in its own arguments."""
    return [pid for pid in processes_with(mark) if b"lonely_worker" not in command_line(pid)]


def sleeping(mark: str) -> bool:
    """Whether the command has come to its sleep."""
    return any(command_line(pid).startswith(b"sleep\0") for pid in running_in(mark))


def groups_of(key: str, folder: Path) -> list[Path]:
    groups = groups_here()
    return (
        []
        if groups is None
        else [place / slots.group_of(Slot(folder / "sandboxes", key).folder) for place in groups.folders.values()]
    )


def kill_in_the_middle(folder: Path, key: str) -> None:
    mark = new_mark()
    with worker(folder, key, f"(setsid sleep {mark} &) ; sleep {mark}; echo never") as dying:
        wait_until(lambda: sleeping(mark), "the command did not begin")
        dying.kill()
        wait_until(lambda: running_in(mark) == [], "the sandbox outlived its worker")


@pytest.mark.parametrize("kills", [2, pytest.param(50, marks=pytest.mark.slow)])
async def test_a_worker_that_is_killed_leaves_no_process_and_no_group(kills: int, tmp_path: Path) -> None:
    local(tmp_path)
    for number in range(kills):
        kill_in_the_middle(tmp_path, f"k{number}")
    again = local(tmp_path)
    assert again.reaped == 1  # each worker reaped what the one before had left
    assert list((tmp_path / "sandboxes").iterdir()) == []
    assert [group for number in range(kills) for group in groups_of(f"k{number}", tmp_path) if group.exists()] == []
    assert (await again.run(request("echo anew"), attempt=1, key="k0")).stdout == "anew\n"


async def test_a_command_whose_end_was_recorded_is_not_run_again(tmp_path: Path) -> None:
    local(tmp_path)
    with worker(tmp_path, "k", HEADED, "die-before-telling") as dying:
        assert dying.wait(WAIT_S) == 9
    (recorded,) = (tmp_path / "sandboxes").glob("*/result.json")
    told = SBXRes.model_validate_json(recorded.read_bytes())
    again = local(tmp_path)
    assert again.reaped == 0
    assert await again.run(request(HEADED), attempt=1, key="k") == told
    assert (await again.run(request(HEADED), attempt=1, key="k2")).stdout != told.stdout


async def test_a_command_leaves_no_control_group(tmp_path: Path) -> None:
    box = local(tmp_path)
    for key, cmd in (("k1", "true"), ("k2", "sleep 9 & sleep 9")):
        await box.run(request(cmd, timeout_ms=200), attempt=1, key=key)
        assert [group for group in groups_of(key, tmp_path) if group.exists()] == []


async def test_trouble_is_not_recorded_so_that_the_next_attempt_tries_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = local(tmp_path)

    def broken(*_: object, **__: object) -> None:
        raise Trouble("BOOT_FAIL", "no sandbox today")

    with monkeypatch.context() as patch:
        patch.setattr(bubblewrap, "start", broken)
        assert (await box.run(request("echo on"), attempt=1, key="k")).errCode == "BOOT_FAIL"
    assert list((tmp_path / "sandboxes").iterdir()) == []
    assert (await box.run(request("echo on"), attempt=1, key="k")).stdout == "on\n"


async def test_an_attempt_that_was_taken_over_while_it_booted_does_not_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box, mark = local(tmp_path), new_mark()
    slot = Slot(tmp_path / "sandboxes", "k")
    started = bubblewrap.start

    def taken_over(*given: Any, **more: Any) -> bubblewrap.Box:
        (slot.folder / "revoked").touch()
        return started(*given, **more)

    monkeypatch.setattr(bubblewrap, "start", taken_over)
    result = await box.run(request(f"echo on; sleep {mark}"), attempt=1, key="k")
    assert (result.errCode, result.stdout) == ("BOOT_FAIL", "")
    assert "a newer attempt of this command took over" in result.stderr


async def test_a_newer_attempt_takes_over_from_a_worker_that_is_frozen(tmp_path: Path) -> None:
    box, mark = local(tmp_path), new_mark()
    with worker(tmp_path, "k", f"sleep {mark}; echo old") as frozen:
        wait_until(lambda: sleeping(mark), "the command did not begin")
        os.kill(frozen.pid, signal.SIGSTOP)
        newer = asyncio.create_task(box.run(request("echo new"), attempt=1, key="k"))
        await asyncio.sleep(0.3)
        assert running_in(mark) == [], "the older command still runs"
        os.kill(frozen.pid, signal.SIGCONT)
        assert (await newer).stdout == "new\n"
        assert frozen.stdout is not None
        older = SBXRes.model_validate_json(frozen.stdout.readline())
    assert older.errCode == "BOOT_FAIL"
    assert "a newer attempt of this command took over" in older.stderr
    assert (await box.run(request("echo new"), attempt=1, key="k")).stdout == "new\n"


async def test_a_frozen_worker_that_stays_frozen_costs_the_newer_attempt_a_boot_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box, mark = local(tmp_path), new_mark()
    monkeypatch.setattr(slots, "TAKE_OVER_S", 0.2)
    with worker(tmp_path, "k", f"sleep {mark}") as frozen:
        wait_until(lambda: sleeping(mark), "the command did not begin")
        os.kill(frozen.pid, signal.SIGSTOP)
        assert (await box.run(request("echo new"), attempt=1, key="k")).errCode == "BOOT_FAIL"
        assert running_in(mark) == []
    assert local(tmp_path).reaped == 1


async def test_a_starting_worker_reaps_what_is_orphaned_and_leaves_what_is_held(tmp_path: Path) -> None:
    with ExitStack() as stack:
        strays = [stack.enter_context(stray()) for _ in range(3)]
        root = tmp_path / "sandboxes"
        orphan, held, another_boot = Slot(root, "a"), Slot(root, "b"), Slot(root, "c")
        for slot in (orphan, another_boot):
            slot.folder.mkdir(parents=True)
        orphan.running(traces_of(strays[0].pid, NO_SESSION, []))
        another_boot.running(traces_of(strays[2].pid, NO_SESSION, []).model_copy(update={"boot": "another"}))
        async with held.held():
            held.running(traces_of(strays[1].pid, NO_SESSION, []))
            assert local(tmp_path).reaped == 2
            assert held.folder.exists()
        assert strays[0].wait(WAIT_S) == -signal.SIGKILL
        assert [process.poll() for process in strays[1:]] == [None, None]


def test_a_sandbox_that_was_left_while_it_booted_is_found_by_its_session(tmp_path: Path) -> None:
    """Its first process is gone; what is left has another number."""
    local(tmp_path)
    slot = Slot(tmp_path / "sandboxes", "k")
    slot.folder.mkdir()
    leaving = ["sh", "-c", "sleep 60 & echo $!; read -r line"]
    with subprocess.Popen(leaving, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True) as first:
        assert first.stdin is not None
        assert first.stdout is not None
        left = int(first.stdout.readline())
        slot.running(traces_of(first.pid, first.pid, []))
        first.stdin.write("\n")
    assert command_line(left) != b""
    assert local(tmp_path).reaped == 1
    wait_until(lambda: command_line(left) == b"", "it was not found")


async def test_the_next_attempt_clears_what_a_dead_worker_left_before_it_begins(tmp_path: Path) -> None:
    box, slot, group = local(tmp_path), Slot(tmp_path / "sandboxes", "k"), tmp_path / "group"
    slot.folder.mkdir()
    group.mkdir()
    with stray() as left:
        slot.running(traces_of(left.pid, NO_SESSION, [str(group)]))
        assert (await box.run(request("echo anew"), attempt=1, key="k")).stdout == "anew\n"
        assert await asyncio.to_thread(left.wait, WAIT_S) == -signal.SIGKILL
    assert not group.exists()


async def test_a_process_that_took_over_the_number_of_a_sandbox_is_left_alone(tmp_path: Path) -> None:
    with stray() as stranger:
        traces_of(stranger.pid, NO_SESSION, []).model_copy(update={"started": 1}).kill()
        with pytest.raises(subprocess.TimeoutExpired):
            await asyncio.to_thread(stranger.wait, 0.3)


async def test_old_results_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = local(tmp_path)
    for number in range(4):
        await box.run(request("true"), attempt=1, key=f"k{number}")
    root = tmp_path / "sandboxes"
    for number, age_s in ((0, 30), (1, 20), (2, slots.KEEP_S + 60)):
        written = time.time() - age_s
        os.utime(Slot(root, f"k{number}").folder / "result.json", (written, written))
    monkeypatch.setattr(slots, "KEEP", 2)
    assert slots.forget_old(root) == 2
    assert {folder.name for folder in root.iterdir()} == {Slot(root, "k1").name, Slot(root, "k3").name}


async def test_a_half_written_result_counts_as_none(tmp_path: Path) -> None:
    box = local(tmp_path)
    await box.run(request("true"), attempt=1, key="k")
    slot = Slot(tmp_path / "sandboxes", "k")
    (slot.folder / "result.json").write_text('{"exit": 0')
    assert (await box.run(request("echo anew"), attempt=1, key="k")).stdout == "anew\n"


def test_without_bubblewrap_the_start_is_refused_with_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Exception, match=r"^SBX_PROVIDER=local: bubblewrap is not installed; install the package bubblewrap$"):
        LocalSandbox(tmp_path)
    monkeypatch.setattr(bubblewrap, "_nobody", lambda: None)  # who could not read the test's folder
    broken = tmp_path / "bwrap"
    broken.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    for version, said in (
        ("0.6.1", r"bubblewrap 0\.8 or newer is needed, this is bubblewrap 0\.6\.1$"),
        ("1.2", r"bubblewrap does not work here \(bwrap: no permission\); it needs user namespaces$"),
    ):
        broken.write_text(
            f"#!/bin/sh\n[ $1 = --version ] && echo bubblewrap {version} && exit\necho bwrap: no permission >&2\nexit 1\n"
        )
        with pytest.raises(Exception, match=said):
            LocalSandbox(tmp_path)

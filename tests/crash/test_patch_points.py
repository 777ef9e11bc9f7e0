"""Kill the process at every system call that moves a file: each file holds its old text or its new one, and the way goes on from there."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from steps import patches, workspace
from steps.patches import Image, LedgerRow
from tests.crash import points
from tests.crash.drill import Drill, crash_everywhere, stages
from tests.crash.test_crash_points import APPROVED, REJECTED

BEFORE: dict[str, Image] = {
    "tool.sh": "echo old\n",
    "empty.txt": "",
    "kept.txt": "as it is",
    "gone/deep/new.txt": None,
    "twice.txt": "one",
    "gone/second.txt": None,
}
PLAN = [
    ("tool.sh", "echo new\n" * 20_000, ""),
    ("empty.txt", "not any more", ""),
    ("kept.txt", "as it is", ""),
    ("gone/deep/new.txt", "made", ""),
    ("twice.txt", "two", ""),
    ("twice.txt", "three", ""),
    ("gone/second.txt", "", ""),
]
AFTER = {path: text for path, text, _ in PLAN}
MODE = 0o750


def ledger(*, applied: bool) -> list[LedgerRow]:
    rows = patches.ledger_for(PLAN, BEFORE)
    return [LedgerRow(r.index, r.target_path, r.preimage, r.postimage, r.diff_hash, applied) for r in rows]


def states() -> dict[str, list[Image]]:
    return {chain.path: chain.states for chain in patches.chains(ledger(applied=False))}


class Folder:
    """A workspace that is made anew for each death."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def hold(self, files: dict[str, Image]) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir()
        for path, text in files.items():
            if text is not None:
                (self.root / path).parent.mkdir(parents=True, exist_ok=True)
                (self.root / path).write_text(text)
        (self.root / "tool.sh").chmod(MODE)

    def files(self) -> dict[str, Image]:
        return {path: self._text(path) for path in BEFORE}

    def _text(self, path: str) -> Image:
        found = self.root / path
        return found.read_text() if found.exists() else None

    def others(self) -> list[str]:
        """What lies there besides."""
        found = {str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file()}
        return sorted(found - BEFORE.keys())


@dataclass(frozen=True)
class Move:
    """Apply or roll back: what it starts from and what it comes to."""

    name: str
    act: Callable[[Path], object]
    start: dict[str, Image]
    end: dict[str, Image]


APPLY = Move("apply", lambda root: patches.apply(root, ledger(applied=False)), BEFORE, dict(AFTER))
ROLL_BACK = Move("roll back", lambda root: patches.roll_back(root, ledger(applied=True)), dict(AFTER), BEFORE)


def calls_of(move: Move, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of all calls that the move makes, in order."""
    folder.hold(move.start)
    calls: list[str] = []
    with monkeypatch.context() as patched:
        patched.setattr(workspace, "os", points.WatchedOs(calls.append))
        move.act(folder.root)
    return calls


def die_at(number: int, act: Callable[[], object]) -> None:
    """Make the move in a process that kills itself at its call of that number."""
    child = os.fork()
    if child == 0:
        try:
            counted = iter(range(number))
            workspace.os = points.WatchedOs(lambda _: next(counted, None) is None and os.kill(os.getpid(), signal.SIGKILL))
            act()
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, f"call {number} was not reached"


def ways_on(folder: Folder) -> Iterator[Move]:
    """Whatever it died of, the run may be applied again, or taken back."""
    yield APPLY
    yield Move("take back", lambda root: patches.roll_back(root, ledger(applied=False)), {}, BEFORE)


@pytest.mark.parametrize("move", [APPLY, ROLL_BACK], ids=lambda move: move.name)
def test_a_death_at_any_system_call_leaves_each_file_whole(move: Move, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder(tmp_path / "workspace")
    calls = calls_of(move, folder, monkeypatch)
    assert folder.files() == move.end
    left_drafts = 0
    for number, call in enumerate(calls):
        for way in ways_on(folder):
            folder.hold(move.start)
            die_at(number, lambda: move.act(folder.root))
            found = folder.files()
            assert all(found[path] in allowed for path, allowed in states().items()), f"{move.name} died at {call}"
            left_drafts += bool(folder.others())
            way.act(folder.root)
            assert folder.files() == way.end, f"{way.name} after {move.name} died at {call}"
            assert folder.others() == [], f"{way.name} after {move.name} died at {call}"
            assert (folder.root / "tool.sh").stat().st_mode & 0o777 == MODE
    print(f"\n{move.name}: {len(calls)} system calls, {2 * len(calls)} deaths, {left_drafts} left a draft; {summary(calls)}")
    assert left_drafts > 0
    assert {"open", "write", "half a write", "fsync", "replace"} <= set(calls)


def summary(calls: list[str]) -> dict[str, int]:
    return {call: calls.count(call) for call in dict.fromkeys(calls)}


async def test_an_approved_run_ends_right_wherever_its_worker_died_at_its_files(
    server: str, template: str, tmp_path: Path
) -> None:
    await crash_at_files(APPROVED, server, template, tmp_path)
    for folder in tmp_path.iterdir():
        assert texts(folder / "workspace") == {"menu.txt": "tea for two", "made/bill.txt": "two"}


@pytest.mark.slow
async def test_a_rejected_run_takes_its_files_back_wherever_its_worker_died_at_them(
    server: str, template: str, tmp_path: Path
) -> None:
    await crash_at_files(REJECTED, server, template, tmp_path)
    for folder in tmp_path.iterdir():
        assert texts(folder / "workspace") == {}


async def crash_at_files(drill: Drill, server: str, template: str, folder: Path) -> None:
    with stages(server, template) as halls:
        await crash_everywhere(drill, halls, folder, files=True)


def texts(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


def test_the_watched_calls_are_the_ones_that_are_made() -> None:
    watched: list[Any] = []
    mine = points.WatchedOs(watched.append)
    assert mine.path is os.path
    with pytest.raises(FileNotFoundError):
        mine.unlink("/no/such/file")
    assert watched == ["unlink"]

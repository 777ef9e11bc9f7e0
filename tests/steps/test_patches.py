"""Patches: what is written, what is taken back, and what is refused."""

import contextlib
import hashlib
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import TerminalError
from steps import workspace
from steps.patches import (
    Image,
    LedgerRow,
    Write,
    apply,
    ledger_for,
    roll_back,
    writes_to_apply,
    writes_to_roll_back,
)
from steps.workspace import normal, read_file, remove_drafts, remove_file, write_file
from tests.crash.points import WatchedOs

Act = Callable[[Path, str], object]


def rows(*states: Image, path: str = "a.txt", applied: bool = False) -> list[LedgerRow]:
    """The ledger of a file that goes through these states."""
    pairs = list(itertools.pairwise(states))
    return [LedgerRow(i, path, before, after or "", "d", applied) for i, (before, after) in enumerate(pairs)]


def refused(error: pytest.ExceptionInfo[TerminalError]) -> str:
    return str(error.value.name)


# What to write -----------------------------------------------------------------------------------------------------------


def test_a_ledger_takes_each_preimage_from_the_patch_before() -> None:
    ledger = ledger_for([("a", "1", ""), ("b", "x", ""), ("./a", "2", "")], {"a": None, "b": "old"})
    assert [(r.preimage, r.postimage) for r in ledger] == [(None, "1"), ("old", "x"), ("1", "2")]


@pytest.mark.parametrize("here", ["A", "B"])
def test_applying_goes_on_from_any_state_of_the_chain(here: str) -> None:
    assert writes_to_apply(rows("A", "B", "C"), {"a.txt": here}) == [Write("a.txt", "C")]


def test_applying_again_writes_nothing() -> None:
    assert writes_to_apply(rows("A", "B", "C"), {"a.txt": "C"}) == []


def test_a_chain_that_returns_to_where_it_began_is_applied_already() -> None:
    assert writes_to_apply(rows("A", "B", "A"), {"a.txt": "A"}) == []


@pytest.mark.parametrize("here", ["other", None])
def test_a_file_that_is_not_what_the_plan_saw_is_not_patched(here: Image) -> None:
    with pytest.raises(TerminalError, match=r"PREIMAGE_MISMATCH:a\.txt") as error:
        writes_to_apply(rows("A", "B"), {"a.txt": here})
    assert refused(error) == "PREIMAGE_MISMATCH"


def test_rolling_back_restores_the_first_preimage_last_patch_first() -> None:
    writes, indexes = writes_to_roll_back(rows("A", "B", "C", applied=True), {"a.txt": "C"})
    assert (writes, indexes) == ([Write("a.txt", "A")], [1, 0])


def test_rolling_back_removes_a_file_that_was_not_there() -> None:
    assert writes_to_roll_back(rows(None, "B", applied=True), {"a.txt": "B"})[0] == [Write("a.txt", None)]


def test_rolling_back_empties_a_file_that_was_empty() -> None:
    assert writes_to_roll_back(rows("", "B", applied=True), {"a.txt": "B"})[0] == [Write("a.txt", "")]


def test_rolling_back_again_writes_nothing_and_still_counts() -> None:
    assert writes_to_roll_back(rows("A", "B", applied=True), {"a.txt": "A"}) == ([], [0])


def test_a_patch_that_a_crash_left_unnoted_is_rolled_back_too() -> None:
    assert writes_to_roll_back(rows("A", "B"), {"a.txt": "B"}) == ([Write("a.txt", "A")], [0])


@pytest.mark.parametrize("here", ["A", "other", None])
def test_a_patch_that_was_never_made_is_left_alone(here: Image) -> None:
    assert writes_to_roll_back(rows("A", "B"), {"a.txt": here}) == ([], [])


@pytest.mark.parametrize("here", ["A", "other", None])
def test_a_patch_that_changed_nothing_takes_nothing_back(here: Image) -> None:
    assert writes_to_roll_back(rows("A", "A", applied=True), {"a.txt": here}) == ([], [0])


def test_a_patched_file_that_somebody_changed_stops_the_whole_rollback() -> None:
    ledger = [*rows("A", "B", applied=True), LedgerRow(1, "b.txt", "x", "y", "d", True)]
    with pytest.raises(TerminalError, match=r"POSTIMAGE_MISMATCH:a\.txt"):
        writes_to_roll_back(ledger, {"a.txt": "other", "b.txt": "y"})


images = st.sampled_from(["A", "B", "C", ""])
plans = st.lists(st.tuples(st.sampled_from(["a", "b", "d/c"]), images, st.just("")), min_size=1, max_size=6)
befores = st.fixed_dictionaries({path: st.none() | images for path in ("a", "b", "d/c")})


def after(files: dict[str, Image], writes: list[Write]) -> dict[str, Image]:
    return files | {w.path: w.content for w in writes}


@given(plan=plans, before=befores, crash=st.integers(0, 3))
def test_a_crash_between_any_two_writes_changes_nothing_of_the_outcome(
    plan: list[tuple[str, str, str]], before: dict[str, Image], crash: int
) -> None:
    ledger = ledger_for(plan, before)
    last = after(before, [Write(path, text) for path, text, _ in plan])
    applied = after(before, writes_to_apply(ledger, before)[:crash])
    applied = after(applied, writes_to_apply(ledger, applied))
    assert applied == last
    back = after(applied, writes_to_roll_back(ledger, applied)[0][:crash])
    back = after(back, writes_to_roll_back(ledger, back)[0])
    assert back == before


# Files -------------------------------------------------------------------------------------------------------------------


def test_a_plan_is_applied_and_taken_back_on_disk(tmp_path: Path) -> None:
    (tmp_path / "empty.py").touch()
    plan = [("empty.py", "text", ""), ("deep/er/new.txt", "new ünïcode\r\n", "")]
    ledger = ledger_for(plan, {"empty.py": read_file(tmp_path, "empty.py"), "deep/er/new.txt": None})
    apply(tmp_path, ledger)
    assert (tmp_path / "deep/er/new.txt").read_bytes() == "new ünïcode\r\n".encode()
    assert roll_back(tmp_path, ledger) == [1, 0]
    assert (tmp_path / "empty.py").read_text() == ""
    assert not (tmp_path / "deep/er/new.txt").exists()


def test_a_write_keeps_the_mode_and_leaves_no_draft(tmp_path: Path) -> None:
    script = tmp_path / "run.sh"
    script.write_text("old")
    script.chmod(0o750)
    write_file(tmp_path, "run.sh", "new")
    assert (script.read_text(), script.stat().st_mode & 0o777) == ("new", 0o750)
    assert os.listdir(tmp_path) == ["run.sh"]


def test_a_write_does_not_reach_through_a_hard_link(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("old")
    os.link(tmp_path / "kept", tmp_path / "linked")
    write_file(tmp_path, "linked", "new")
    assert (tmp_path / "kept").read_text() == "old"


@pytest.mark.parametrize("move", [apply, roll_back])
def test_what_a_killed_writer_left_behind_goes_with_the_next_move(tmp_path: Path, move: Callable[..., object]) -> None:
    (tmp_path / "a.txt").write_text("A")
    for name in ("a.txt", "other.txt"):
        (tmp_path / f".{hashlib.sha256(name.encode()).hexdigest()[:16]}.0123456789abcdef.draft").write_text("half")
    move(tmp_path, rows("A", "A"))
    left = f".{hashlib.sha256(b'other.txt').hexdigest()[:16]}.0123456789abcdef.draft"
    assert sorted(os.listdir(tmp_path)) == [left, "a.txt"]


def test_a_write_that_fails_leaves_no_draft_and_the_old_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_file(tmp_path, "a.txt", "old")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        write_file(tmp_path, "a.txt", "new")
    assert os.listdir(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def fail(handle: int) -> None:
    raise OSError("no space")


def test_removing_what_is_gone_is_fine(tmp_path: Path) -> None:
    remove_file(tmp_path, "gone")
    remove_file(tmp_path, "no/folder/gone")
    assert read_file(tmp_path, "no/folder/gone") is None


@pytest.mark.parametrize("path", ["/etc/passwd", "../out", "a/../../out", "..", ".", "", "a/..", "nul\x00", "x" * 300])
def test_a_path_that_leads_out_of_the_workspace_is_refused(tmp_path: Path, path: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for access in (read_file, remove_file):
        with pytest.raises(TerminalError) as error:
            access(root, path)
        assert refused(error) == "PATCH_PATH_NOT_ALLOWED"
    with pytest.raises(TerminalError):
        write_file(root, path, "x")
    assert os.listdir(tmp_path) == ["root"]


def test_symbolic_links_are_not_followed_anywhere(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (root / "folder").symlink_to(outside)
    (root / "file").symlink_to(outside / "secret")
    (root / "dangling").symlink_to(outside / "made")
    for path in ("folder/secret", "file", "dangling", "folder/new"):
        with pytest.raises(TerminalError) as error:
            read_file(root, path)
        assert refused(error) == "PATCH_PATH_NOT_ALLOWED"
    with pytest.raises(TerminalError):
        write_file(root, "folder/new", "x")
    with pytest.raises(TerminalError):
        remove_file(root, "folder/secret")
    assert os.listdir(outside) == ["secret"]


@pytest.mark.parametrize("act", [read_file, remove_file, remove_drafts, lambda root, path: write_file(root, path, "mine")])
def test_a_folder_that_becomes_a_link_in_the_middle_of_it_leads_nowhere(
    tmp_path: Path, act: Act, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("theirs")
    moments = 0
    while True:
        root = tmp_path / f"root-{moments}"
        (root / "a/b").mkdir(parents=True)
        (root / "a/b/file").write_text("ours")
        calls = iter(range(moments, -1, -1))

        def swap(_: str, root: Path = root, calls: Iterator[int] = calls) -> None:
            if next(calls, None) == 0:
                (root / "a/b").rename(root / "gone")
                (root / "a/b").symlink_to(outside)

        with monkeypatch.context() as patched, contextlib.suppress(TerminalError):
            patched.setattr(workspace, "os", WatchedOs(swap))
            assert act(root, "a/b/file") != "theirs"
        assert {path.name: path.read_text() for path in outside.iterdir()} == {"file": "theirs"}
        if not (root / "gone").exists():  # it was over before its turn came
            break
        moments += 1
    assert moments >= 3


def test_only_text_files_are_patched(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "nul").write_bytes(b"a\x00b")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for path, code in (
        ("binary", "PATCH_FILE_NOT_TEXT"),
        ("nul", "PATCH_FILE_NOT_TEXT"),
        ("folder", "PATCH_PATH_NOT_ALLOWED"),
        ("pipe", "PATCH_PATH_NOT_ALLOWED"),
        ("binary/below", "PATCH_PATH_NOT_ALLOWED"),
    ):
        with pytest.raises(TerminalError) as error:
            read_file(tmp_path, path)
        assert refused(error) == code


def test_one_file_has_one_spelling() -> None:
    assert normal("./a//b/./c") == "a/b/c"

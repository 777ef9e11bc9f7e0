"""File changes that can be taken back: what to write is decided purely, from the ledger and what the files hold now.

A patch moves one file from a preimage to a postimage. Several patches of a run may move the same file, one after the other; per
path they form a chain of states, and where in the chain the file is now tells what is left to do. That makes applying and
rolling back idempotent: after a crash at any moment the file holds one state of the chain, because each write is one rename. A
file that holds none of them was changed by somebody else, and then nothing at all is written.

Everything here is synchronous and takes no database; steps/apply.py keeps the ledger and runs these functions in a thread.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from steps.canonical import sha256_text
from steps.workspace import normal, read_file, refuse, remove_drafts, remove_file, write_file

#: What a file holds; None is no file.
Image = str | None


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One row of app.patch_history."""

    index: int
    target_path: str
    preimage: Image
    postimage: str
    diff_hash: str
    applied: bool = False

    @property
    def preimage_hash(self) -> str:
        return sha256_text(self.preimage or "")

    @property
    def postimage_hash(self) -> str:
        return sha256_text(self.postimage)


@dataclass(frozen=True, slots=True)
class Write:
    """Give a file this content, or remove it (None)."""

    path: str
    content: Image


@dataclass(frozen=True, slots=True)
class Chain:
    """The patches of one file, in order."""

    path: str
    rows: tuple[LedgerRow, ...]

    @property
    def states(self) -> list[Image]:
        return [self.rows[0].preimage, *(row.postimage for row in self.rows)]

    @property
    def applied(self) -> bool:
        return any(row.applied for row in self.rows)


def chains(rows: Iterable[LedgerRow]) -> list[Chain]:
    """The ledger by file, in the order in which the plan first names each."""
    by_path: dict[str, list[LedgerRow]] = {}
    for row in rows:
        by_path.setdefault(normal(row.target_path), []).append(row)
    return [Chain(path, tuple(chain)) for path, chain in by_path.items()]


def ledger_for(patches: Sequence[tuple[str, str, str]], current: Mapping[str, Image]) -> list[LedgerRow]:
    """The ledger of a plan's (target path, postimage, diff text) entries, given what the files hold before the first of them."""
    now = dict(current)
    rows: list[LedgerRow] = []
    for index, (target_path, postimage, diff_text) in enumerate(patches):
        path = normal(target_path)
        rows.append(LedgerRow(index, target_path, now[path], postimage, sha256_text(diff_text)))
        now[path] = postimage
    return rows


def writes_to_apply(rows: Sequence[LedgerRow], current: Mapping[str, Image]) -> list[Write]:
    """What brings every file to its last postimage. Raises PREIMAGE_MISMATCH when a file holds none of its states."""
    writes: list[Write] = []
    for chain in chains(rows):
        states = chain.states
        if current[chain.path] not in states:
            raise refuse("PREIMAGE_MISMATCH", chain.rows[0].target_path)
        if current[chain.path] != states[-1]:
            writes.append(Write(chain.path, states[-1]))
    return writes


def writes_to_roll_back(rows: Sequence[LedgerRow], current: Mapping[str, Image]) -> tuple[list[Write], list[int]]:
    """What brings every file back to its first preimage, last patch first, and the indexes of the rows taken back by that.

    Raises POSTIMAGE_MISMATCH when a file that was patched holds none of its states. A file that was never patched, or that held
    already what the plan wanted, is left alone.
    """
    writes: list[Write] = []
    indexes: list[int] = []
    for chain in reversed(chains(rows)):
        states = chain.states
        ours = current[chain.path] in states
        changed = any(state != states[0] for state in states)
        if not ours and chain.applied and changed:
            raise refuse("POSTIMAGE_MISMATCH", chain.rows[0].target_path)
        if ours and current[chain.path] != states[0]:
            writes.append(Write(chain.path, states[0]))
        elif not chain.applied:
            continue
        indexes.extend(row.index for row in chain.rows)
    return writes, sorted(indexes, reverse=True)


def read_all(root: Path, target_paths: Iterable[str]) -> dict[str, Image]:
    """What each file holds now, by its normal path."""
    return {path: read_file(root, path) for path in dict.fromkeys(normal(target) for target in target_paths)}


def perform(root: Path, writes: Iterable[Write]) -> None:
    for write in writes:
        if write.content is None:
            remove_file(root, write.path)
        else:
            write_file(root, write.path, write.content)


def apply(root: Path, rows: Sequence[LedgerRow]) -> None:
    """Bring every file of the ledger to its last postimage; nothing is written when one of them refuses."""
    writes = writes_to_apply(rows, read_all(root, (row.target_path for row in rows)))
    tidy(root, rows)
    perform(root, writes)


def roll_back(root: Path, rows: Sequence[LedgerRow]) -> list[int]:
    """Bring every file of the ledger back to its first preimage; the indexes of the rows taken back. All or nothing, as above."""
    writes, indexes = writes_to_roll_back(rows, read_all(root, (row.target_path for row in rows)))
    tidy(root, rows)
    perform(root, writes)
    return indexes


def tidy(root: Path, rows: Iterable[LedgerRow]) -> None:
    """Remove what a killed worker left beside the ledger's files."""
    for path in paths_of(rows):
        remove_drafts(root, path)


def paths_of(rows: Iterable[LedgerRow]) -> list[str]:
    """The ledger's files, each once."""
    return [chain.path for chain in chains(rows)]

"""Evidence for the sign-off board: one small file a tile, about what a command really ran.

A tile is written twice, each time as a whole: as NO_GO before anything runs, so that a command that is killed leaves no older GO behind,
and with its verdict at the end. It names the commit and the tree that were there, by git and not by what the caller says; files that
differ from the commit make a tree of their own name, and files that change while the command runs make the verdict a NO_GO.
"""

import hashlib
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from bin.settings import ROOT, Settings

UNFINISHED = "the command has not ended, or was killed"
INTERRUPTED = "the command was interrupted"
MOVED = "the files changed while the command ran"


@dataclass(frozen=True, slots=True)
class Origin:
    """What the evidence is about; None where it can't be known."""

    commit: str | None
    tree: str | None


@dataclass(slots=True)
class Claim:
    """What the command will have found out; a NO_GO unless it says GO."""

    reason: str | None = UNFINISHED
    refs: list[str] = field(default_factory=list)
    is_go: bool = False

    def decide(self, trouble: str, refs: Sequence[str], note: str | None = None) -> None:
        """NO_GO with the trouble, or GO if there is none.

        refs: where one can see it for oneself; without any it is no GO. note: what a GO does not cover.
        """
        self.is_go, self.refs = bool(refs) and not trouble, list(refs)
        self.reason = note if self.is_go else trouble or "there is no evidence"


@contextmanager
def tile(settings: Settings, name: str, root: Path = ROOT) -> Iterator[Claim]:
    """The tile of that name, on the disk from the start to the end of the block."""
    before = origin(settings, root)
    claim = Claim()
    write(settings, name, before, claim)
    try:
        yield claim
    except BaseException as error:
        why = INTERRUPTED if isinstance(error, KeyboardInterrupt) else f"the command failed: {type(error).__name__}"
        claim.decide(why, claim.refs)
        raise
    finally:
        if claim.is_go and origin(settings, root) != before:
            claim.decide(MOVED, claim.refs)
        write(settings, name, before, claim)


def write(settings: Settings, name: str, about: Origin, claim: Claim) -> None:
    said = {
        "id": name,
        "verdict": "GO" if claim.is_go else "NO_GO",
        "evidenceRefs": claim.refs,
        "reason": claim.reason,
        "ts": time.time_ns() // 1_000_000,
        "commit": about.commit,
        "tree": about.tree,
        "appVersion": settings.app_version,
    }
    document = {key: value for key, value in said.items() if value is not None}
    write_whole(settings.evidence_dir / f"{name}.json", orjson.dumps(document, option=orjson.OPT_INDENT_2))


def write_whole(path: Path, content: bytes) -> None:
    """A reader of the file sees all of the old content or all of the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_bytes(content + b"\n")
    unfinished.replace(path)


# -- what is being looked at ------------------------------------------------------------------------------------------------------


def origin(settings: Settings, root: Path = ROOT) -> Origin:
    """By git where there is a work tree of our own; else what the settings say, for a copy without its history."""
    found = git(root, "rev-parse", "--show-prefix", "HEAD", "HEAD^{tree}")
    if found is None or not found.startswith(b"\n"):  # another folder's work tree, in which this one lies
        return Origin(settings.signoff_commit, settings.signoff_tree)
    commit, tree = found.decode().split()
    changes = changes_of(root)
    return Origin(commit, f"{tree}+{changes}" if changes else tree)


def changes_of(root: Path) -> str | None:
    """A short hash of how the files differ from the commit; None when they don't."""
    changed = git(root, "diff", "HEAD", "--binary", "--no-ext-diff", "--no-textconv") or b""
    new = [name for name in (git(root, "ls-files", "--others", "--exclude-standard", "-z") or b"").split(b"\0") if name]
    if not changed and not new:
        return None
    digest = hashlib.sha256(changed)
    for name in sorted(new):
        path = Path(os.fsdecode(os.path.join(os.fsencode(root), name)))
        content = path.read_bytes() if path.is_file() else b""
        digest.update(b"\0%b\0%d\0%b" % (name, len(content), content))
    return digest.hexdigest()[:16]


def git(root: Path, *arguments: str) -> bytes | None:
    """What git prints; None when there is no git, or nothing that it knows about."""
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(["git", "-C", root, *arguments], env=environment, stdin=subprocess.DEVNULL, capture_output=True)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None

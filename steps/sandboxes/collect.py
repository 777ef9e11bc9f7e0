"""What a command leaves in its working folder, as far as it is wanted: new or changed `*.csv`, `*.json`, `*.md`,
`*.patch` and `*.toml` files of text.

The folder was in the hands of a stranger. It is walked by directory descriptor, without following symbolic links, with a bound on
everything; what is passed over is told, with the reason.
"""

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

from steps.contracts.sandbox import FileOut

WANTED = (".csv", ".json", ".md", ".patch", ".toml")
PASSED_OVER = frozenset({".git", "node_modules"})
MAX_FILES = 100
MAX_FILE_BYTES = 1_000_000
MAX_TOTAL_BYTES = 4_000_000
MAX_ENTRIES = 20_000
MAX_DEPTH = 32
MAX_TOLD = 20

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(slots=True)
class Collected:
    """Files by path. skipped: up to MAX_TOLD paths that were wanted and are not among them, each with its reason."""

    files: list[FileOut] = field(default_factory=list[FileOut])
    skipped: dict[str, str] = field(default_factory=dict[str, str])
    total: int = 0

    def take(self, path: str, content: bytes) -> None:
        """Keeps a file, or passes it over if it is no text or one too many."""
        if len(self.files) >= MAX_FILES or self.total + len(content) > MAX_TOTAL_BYTES:
            return self.skip(path, f"more than {MAX_FILES} files or {MAX_TOTAL_BYTES} bytes")
        try:
            text = content.decode()
        except UnicodeDecodeError:
            text = "\x00"
        if "\x00" in text:
            return self.skip(path, "not text")
        self.total += len(content)
        self.files.append(FileOut(path=path, sha256=hashlib.sha256(content).hexdigest(), inline=text))

    def skip(self, path: str, reason: str) -> None:
        if len(self.skipped) < MAX_TOLD:
            self.skipped[path.encode(errors="replace").decode()] = reason


def collect(root: int, given: Mapping[str, bytes]) -> Collected:
    """The files below the folder that is open as `root`. given: what was put in; it comes back only if it was changed."""
    found = Collected()
    for path in _walk(root, found):
        content = _read(root, path, found)
        if content is not None and given.get(path) != content:
            found.take(path, content)
    return found


def _walk(root: int, found: Collected) -> Iterator[str]:
    """Paths of the wanted names, in order of their names, folder by folder."""
    folders = [""]
    seen = 0
    while folders:
        here = folders.pop()
        folder = _open(root, here, _FOLDER)
        if folder is None:
            continue
        try:
            with os.scandir(folder) as entries:
                names = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in islice(entries, MAX_ENTRIES))
        except OSError:
            found.skip(here, "cannot be listed")
            continue
        finally:
            os.close(folder)
        below: list[str] = []
        for name, is_folder in names:
            path = f"{here}/{name}" if here else name
            seen += 1
            if seen > MAX_ENTRIES:
                found.skip(path, f"more than {MAX_ENTRIES} entries")
                return
            if is_folder and name not in PASSED_OVER:
                if path.count("/") < MAX_DEPTH:
                    below.append(path)
                else:
                    found.skip(path, f"deeper than {MAX_DEPTH} folders")
            elif name.endswith(WANTED):
                yield path
        folders.extend(reversed(below))


def _read(root: int, path: str, found: Collected) -> bytes | None:
    if not path.isprintable():
        found.skip(path, "its name is not text")
        return None
    handle = _open(root, path, _FILE)
    if handle is None:
        found.skip(path, "a symbolic link, or not to be read")
        return None
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            found.skip(path, "not a file")
            return None
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        found.skip(path, f"more than {MAX_FILE_BYTES} bytes")
        return None
    return content


def _open(root: int, path: str, flags: int) -> int | None:
    """A descriptor of the path below the root, reached without a symbolic link; None if there is none to be had."""
    *folders, name = path.split("/") if path else ["."]
    here = os.dup(root)
    try:
        for part in folders:
            below = os.open(part, _FOLDER, dir_fd=here)
            os.close(here)
            here = below
        return os.open(name, flags, dir_fd=here)
    except OSError:
        return None
    finally:
        os.close(here)

"""Text files inside one folder, and never outside of it.

Paths come from a model's output. They are walked one component at a time by directory descriptor, without following symbolic
links, so neither `..`, an absolute path nor a link (even one swapped in meanwhile) leads out of the root. A write goes to a new
file beside the target, the draft, is synced, and is renamed over it: whatever happens, the target holds either the old text or the
new one. Folders that a write needed stay when the file goes.
"""

import contextlib
import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Generator
from pathlib import Path

from engine import TerminalError

MAX_BYTES = 4_000_000
_DRAFT = ".draft"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ESCAPES = frozenset({errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG})


def refuse(code: str, path: str) -> TerminalError:
    return TerminalError(f"{code}:{path}", name=code, data={"targetPath": path})


def normal(path: str) -> str:
    """The path's one spelling, relative to the root. Raises PATCH_PATH_NOT_ALLOWED for one that can lead out of it."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts or path.startswith("/") or ".." in parts or "\x00" in path:
        raise refuse("PATCH_PATH_NOT_ALLOWED", path)
    return "/".join(parts)


def read_file(root: Path, path: str) -> str | None:
    """The file's text, None when there is no file. Raises PATCH_FILE_NOT_TEXT for what is not UTF-8 text of bearable size."""
    with _guarded(path), _parent_of(root, path, create=False) as (folder, name):
        if folder is None:
            return None
        try:
            handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        except FileNotFoundError:
            return None
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise refuse("PATCH_PATH_NOT_ALLOWED", path)
            content = file.read(MAX_BYTES + 1)
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise refuse("PATCH_FILE_NOT_TEXT", path) from None
    if len(content) > MAX_BYTES or "\x00" in text:
        raise refuse("PATCH_FILE_NOT_TEXT", path)
    return text


def write_file(root: Path, path: str, text: str) -> None:
    """Replace the file's text, making the folders it needs and keeping the mode it had."""
    with _guarded(path), _parent_of(root, path, create=True) as (folder, name):
        assert folder is not None
        draft = f"{_draft_prefix(name)}{secrets.token_hex(8)}{_DRAFT}"  # no other writer's, not even one's that froze and goes on
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=folder)
        try:
            with os.fdopen(handle, "wb", buffering=0):  # closes it
                with contextlib.suppress(FileNotFoundError):
                    os.fchmod(handle, stat.S_IMODE(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode))
                _write_all(handle, text.encode())
                os.fsync(handle)
            os.replace(draft, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(draft, dir_fd=folder)
            raise
        os.fsync(folder)


def _write_all(handle: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(handle, rest) :]


def remove_file(root: Path, path: str) -> None:
    """Remove the file; fine if it is gone already."""
    with _guarded(path), _parent_of(root, path, create=False) as (folder, name):
        if folder is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
                os.fsync(folder)


def remove_drafts(root: Path, path: str) -> None:
    """Remove what writers of the file left behind that were killed in the act. One that is still at it fails."""
    with _guarded(path), _parent_of(root, path, create=False) as (folder, name):
        for entry in () if folder is None else os.listdir(folder):
            if entry.startswith(_draft_prefix(name)) and entry.endswith(_DRAFT):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(entry, dir_fd=folder)


def _draft_prefix(name: str) -> str:
    return f".{hashlib.sha256(name.encode()).hexdigest()[:16]}."


@contextlib.contextmanager
def _guarded(path: str) -> Generator[None]:
    """Turns what the kernel says about links, non-folders and forbidden places into the one refusal."""
    try:
        yield
    except OSError as error:
        if error.errno in _ESCAPES:
            raise refuse("PATCH_PATH_NOT_ALLOWED", path) from error
        raise


@contextlib.contextmanager
def _parent_of(root: Path, path: str, *, create: bool) -> Generator[tuple[int | None, str]]:
    """(descriptor of the folder that holds the file, the file's name); no descriptor when the folder does not exist."""
    *folders, name = normal(path).split("/")
    here = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    missing = False
    try:
        for part in folders:
            try:
                below = os.open(part, _DIRECTORY, dir_fd=here)
            except FileNotFoundError:
                if not create:
                    missing = True
                    break
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, dir_fd=here)
                os.fsync(here)
                below = os.open(part, _DIRECTORY, dir_fd=here)
            os.close(here)
            here = below
        yield (None if missing else here), name
    finally:
        os.close(here)

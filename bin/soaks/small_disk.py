"""A disk of a few hundred megabytes of this process's own, to be filled to the last byte: a file system in memory that nobody else sees.

It is mounted in a user and a mount namespace, which needs no rights of root's, but a kernel that allows it.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

SIZE = "320m"
PIECES = (1 << 22, 1 << 16, 1 << 12)
NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")


def obstacle() -> str | None:
    """Why there can't be such a disk here."""
    try:
        tried = subprocess.run([*NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, text=True)
    except OSError as error:
        return f"there is no {error.filename} here"
    return f"a disk can't be made here: {tried.stderr.strip()}" if tried.returncode else None


def go_inside(words: Sequence[str]) -> NoReturn:
    """Become this Python module, with its arguments, in namespaces where disks can be mounted."""
    os.execvp(NAMESPACE[0], [*NAMESPACE, sys.executable, "-P", "-m", *words])


class SmallDisk:
    """A disk at this folder, which is made. It is gone with the last process of the namespace."""

    def __init__(self, folder: Path) -> None:
        self._ballast = folder / "ballast"
        folder.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=0755", "tmpfs", str(folder)], check=True)

    def fill(self) -> None:
        """Take what is left, to the last page."""
        with self._ballast.open("ab") as ballast:
            end = os.fstat(ballast.fileno()).st_size
            for size in PIECES:
                with suppress(OSError):
                    while True:
                        os.posix_fallocate(ballast.fileno(), end, size)
                        end += size

    def clear(self) -> None:
        self._ballast.unlink()

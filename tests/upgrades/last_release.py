"""The code of the last release, from the history of this repository: the older side of a rolling upgrade.

Changed when a version is released, to the commit that was: together with the files of `tests.upgrades.freeze`.
"""

import io
import subprocess
import tarfile
from pathlib import Path
from typing import NoReturn

import pytest

from tests.upgrades.frozen import ROOT

COMMIT = "11860e5622e6cafcccb415379071e57caf753f46"
VERSION = 1
NEEDED = ("api", "bin", "engine", "steps", "schema.sql")


def checkout(folder: Path) -> Path:
    """The files of the last release, in that folder. Skips the test where the history is not at hand."""
    archive = git("archive", "--format=tar", COMMIT, *NEEDED)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def file(path: str) -> bytes:
    """A file of the last release. Skips the test likewise."""
    return git("show", f"{COMMIT}:{path}")


def git(*arguments: str) -> bytes:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, check=False)
    except FileNotFoundError:
        skip("there is no git here")
    if done.returncode:
        skip(f"git has no {COMMIT[:10]}: {done.stderr.decode().strip().splitlines()[-1]}")
    return done.stdout


def skip(reason: str) -> NoReturn:
    text = f"the code of the last release cannot be had: {reason}"
    print(text)
    pytest.skip(text)

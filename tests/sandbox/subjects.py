"""Providers for tests. What cannot be had on this machine skips the test, with the reason."""

from pathlib import Path

import pytest

from steps.sandbox import SandboxNotConfigured
from steps.sandboxes.conformance import Subject
from steps.sandboxes.local import LocalSandbox, groups_here
from steps.sandboxes.subjects import SUBJECTS


def subject(name: str, folder: Path) -> Subject:
    try:
        return SUBJECTS[name](folder)
    except SandboxNotConfigured as error:
        pytest.skip(str(error))


def local(folder: Path, *, watching: bool = False) -> LocalSandbox:
    """A sandbox of this machine: held by control groups if it has any, unless it is to be by watching."""
    groups = None if watching else groups_here()
    try:
        return LocalSandbox(folder / "sandboxes", groups=groups)
    except SandboxNotConfigured as error:
        pytest.skip(str(error))

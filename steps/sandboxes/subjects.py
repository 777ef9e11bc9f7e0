"""The providers that can be examined, by name. A new provider joins with a line here."""

from collections.abc import Callable, Mapping
from pathlib import Path

from steps.sandbox import MockSandbox, SandboxNotConfigured
from steps.sandboxes.conformance import REAL, REHEARSED, Feature, Subject
from steps.sandboxes.local import LocalSandbox, groups_here

EVERYTHING: frozenset[Feature] = frozenset({"commands", "streams", "memory", "leftovers"})


def mock(_folder: Path) -> Subject:
    return Subject("mock", MockSandbox(), REHEARSED, frozenset())


def local(folder: Path) -> Subject:
    groups = groups_here()
    if groups is None:
        raise SandboxNotConfigured("this process may make no control groups here")
    return Subject("local", LocalSandbox(folder / "local", groups=groups), REAL, EVERYTHING)


def watching(folder: Path) -> Subject:
    """The same without control groups, as on a machine where there are none to be had."""
    return Subject("local-watching", LocalSandbox(folder / "watching"), REAL, EVERYTHING)


#: Makes a provider that keeps its state in a folder. Raises SandboxNotConfigured where it cannot be had.
SUBJECTS: Mapping[str, Callable[[Path], Subject]] = {"mock": mock, "local": local, "local-watching": watching}

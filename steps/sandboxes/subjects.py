"""The providers that can be examined, by name. A new provider joins with a line here."""

from collections.abc import Callable, Mapping
from pathlib import Path

from steps.sandbox import MockSandbox, SandboxNotConfigured
from steps.sandboxes.conformance import REAL, REHEARSED, Feature, Subject
from steps.sandboxes.local import LocalSandbox, groups_here
from steps.sandboxes.remote import Machines, RemoteSandbox

REMOTE: frozenset[Feature] = frozenset({"commands", "streams"})
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


def remote(name: str, machines: Machines, *, here: bool = False) -> Subject:
    """Machines of a service. here: their processes are this machine's."""
    return Subject(name, RemoteSandbox(machines), REAL, EVERYTHING - {"memory"} if here else REMOTE)


#: Makes a provider that keeps its state in a folder. Raises SandboxNotConfigured where it cannot be had.
SUBJECTS: Mapping[str, Callable[[Path], Subject]] = {"mock": mock, "local": local, "local-watching": watching}

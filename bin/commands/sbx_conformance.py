"""bin/sbx-conformance: what the sandboxes of this machine can be relied on for.

    bin/sbx-conformance [PROVIDER ...]     all providers, or those named

Holds every case against every provider and prints the table; commands really run. `e2b` is the service itself, if its key is there;
`e2b-stand-in` is its own package before a stand-in of ours on this machine, which is part of the tests. A provider that cannot be had
here is told with its reason; a case that needs what a provider has not is n/a. Exit code 0: nothing failed; 1: something did, or a
provider that was named cannot be had; 2: no such provider.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path

from bin.settings import ROOT, Settings
from bin.wiring import FAILED, run
from steps.errors import InvalidInput
from steps.sandbox import SandboxNotConfigured
from steps.sandboxes.conformance import CASES, Row, Subject, examine
from steps.sandboxes.e2b import E2B
from steps.sandboxes.microsandbox import Microsandbox
from steps.sandboxes.subjects import SUBJECTS, remote

STAND_IN = "tests.sandbox.e2b_server"
STAND_IN_KEY = "none-is-needed"

#: Gives a provider for as long as it is examined. Raises SandboxNotConfigured where it cannot be had.
Opener = Callable[[Settings, Path], AbstractContextManager[Subject]]


@contextmanager
def stand_in(folder: Path) -> Iterator[str]:
    """The address of a stand-in for the E2B service, which lives for as long as the block. Raises SandboxNotConfigured."""
    if find_spec("tests") is None or find_spec(STAND_IN) is None:
        raise SandboxNotConfigured("its stand-in is part of the tests, which are not here")
    SUBJECTS["local"](folder)  # it runs its commands by bubblewrap too
    command = [sys.executable, "-P", "-m", STAND_IN, str(folder / "e2b")]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.stdin.close()


@contextmanager
def e2b_stand_in(_: Settings, folder: Path) -> Iterator[Subject]:
    with stand_in(folder) as url:
        yield remote("e2b-stand-in", E2B(STAND_IN_KEY, "conformance", api_url=url, sandbox_url=url), here=True)


@contextmanager
def e2b(settings: Settings, _: Path) -> Iterator[Subject]:
    yield remote("e2b", E2B(settings.e2b_api_key, "conformance"))


@contextmanager
def microsandbox(_: Settings, __: Path) -> Iterator[Subject]:
    machines = Microsandbox("conformance")
    if trouble := asyncio.run(machines.boot_trouble()):
        raise SandboxNotConfigured(trouble)
    yield remote("microsandbox", machines)


OPENERS: Mapping[str, Opener] = {
    **{name: lambda _, folder, make=make: nullcontext(make(folder)) for name, make in SUBJECTS.items()},
    "e2b-stand-in": e2b_stand_in,
    "e2b": e2b,
    "microsandbox": microsandbox,
}


def main(settings: Settings) -> int:
    parser = argparse.ArgumentParser(
        prog="bin/sbx-conformance", description="Holds the sandboxes of this machine against all cases."
    )
    parser.add_argument("provider", nargs="*", help=", ".join(OPENERS))
    named: list[str] = parser.parse_args().provider
    if unknown := [name for name in named if name not in OPENERS]:
        raise InvalidInput(f"there is no provider {unknown[0]}; use {', '.join(OPENERS)}")
    missing: dict[str, str] = {}
    found: dict[str, list[Row]] = {}
    with tempfile.TemporaryDirectory(prefix="holdfast-sandboxes-") as folder:
        for name in named or OPENERS:
            try:
                with OPENERS[name](settings, Path(folder)) as subject:
                    found[name] = asyncio.run(examined(subject))
            except SandboxNotConfigured as error:
                missing[name] = str(error)
    print("\n".join([*(table(found) if found else ()), *notes(found, missing)]), flush=True)
    failed = any(row.verdict == "FAIL" for rows in found.values() for row in rows)
    return FAILED if failed or (named and missing) else 0


async def examined(subject: Subject) -> list[Row]:
    return [await examine(subject, case) for case in CASES]


def table(found: Mapping[str, Sequence[Row]]) -> list[str]:
    width = max(len(case.name) for case in CASES)
    cells = [(case.name, [rows[number].verdict for rows in found.values()]) for number, case in enumerate(CASES)]
    return [
        "  ".join([title.ljust(width), *(word.ljust(len(name)) for name, word in zip(found, words, strict=True))]).rstrip()
        for title, words in [("case", list(found)), *cells]
    ]


def notes(found: Mapping[str, Sequence[Row]], missing: Mapping[str, str]) -> list[str]:
    failures = [f"{name}: {row.case}: {row.reason}" for name, rows in found.items() for row in rows if row.verdict == "FAIL"]
    passed = sum(row.verdict == "pass" for rows in found.values() for row in rows)
    return [
        *failures,
        *(f"{name} cannot be had: {reason}" for name, reason in missing.items()),
        f"{passed} passed, {len(failures)} failed",
    ]


if __name__ == "__main__":
    run(main)

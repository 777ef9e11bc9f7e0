"""bin/sbx-conformance: what the sandboxes of this machine can be relied on for.

    bin/sbx-conformance [PROVIDER ...]     all providers, or those named

Holds every case against every provider and prints the table; commands really run. A provider that cannot be had here is told with its
reason; a case that needs what a provider has not is n/a. Exit code 0: nothing failed; 1: something did, or a provider that was named
cannot be had; 2: no such provider.
"""

import argparse
import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from bin.settings import Settings
from bin.wiring import FAILED, run
from steps.errors import InvalidInput
from steps.sandbox import SandboxNotConfigured
from steps.sandboxes.conformance import CASES, Row, examine
from steps.sandboxes.subjects import SUBJECTS


def main(_: Settings) -> int:
    parser = argparse.ArgumentParser(
        prog="bin/sbx-conformance", description="Holds the sandboxes of this machine against all cases."
    )
    parser.add_argument("provider", nargs="*", help=", ".join(SUBJECTS))
    named: list[str] = parser.parse_args().provider
    if unknown := [name for name in named if name not in SUBJECTS]:
        raise InvalidInput(f"there is no provider {unknown[0]}; use {', '.join(SUBJECTS)}")
    missing: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="holdfast-sandboxes-") as folder:
        found = asyncio.run(examined(named or list(SUBJECTS), Path(folder), missing))
    print("\n".join([*table(found), *notes(found, missing)]), flush=True)
    failed = any(row.verdict == "FAIL" for rows in found.values() for row in rows)
    return FAILED if failed or (named and missing) else 0


async def examined(names: Sequence[str], folder: Path, missing: dict[str, str]) -> dict[str, list[Row]]:
    """The rows of each provider; why one cannot be had goes to `missing`."""
    found: dict[str, list[Row]] = {}
    for name in names:
        try:
            subject = SUBJECTS[name](folder)
        except SandboxNotConfigured as error:
            missing[name] = str(error)
            continue
        found[name] = [await examine(subject, case) for case in CASES]
    return found


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

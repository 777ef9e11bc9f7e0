"""Lanes: what must hold at a certain moment, as a list of commands that are run one after the other and told in a table.

All of them run, even if one fails. A lane that is stopped stops what it started, and leaves a NO_GO. The lane's own tile is written
here; parts that are lanes themselves, or that prove a tile of their own, write theirs.
"""

import argparse
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from bin import evidence
from bin.children import run_module, stopping_on_term
from bin.outcomes import FOR_TESTS, State
from bin.settings import ROOT, Settings
from bin.wiring import FAILED

LAST_LINES = 30


@dataclass(frozen=True, kw_only=True)
class Part:
    """One command of a lane: a Python module with arguments.

    skipped: why it is not run, if it isn't. tile: the tile that its end decides. is_lane: it tells about itself.
    """

    name: str
    command: tuple[str, ...]
    skipped: str | None = None
    tile: str | None = None
    is_lane: bool = False
    timeout_s: float = 3600.0
    environ: Mapping[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def of_tests(cls, name: str, *arguments: str, tile: str | None = None) -> "Part":
        """A call of pytest with these arguments."""
        return cls(name=name, command=("pytest", "-q", *arguments), tile=tile, environ=FOR_TESTS)

    @property
    def line(self) -> str:
        return f"python -m {' '.join(self.command)}"


@dataclass(frozen=True, slots=True)
class Done:
    part: Part
    state: State
    seconds: float
    log: Path | None
    text: str = ""


@dataclass(frozen=True, slots=True)
class Extra:
    """Parts that a lane has only when it is asked for them."""

    flag: str
    help: str
    parts: Sequence[Part]


def run_named(settings: Settings, name: str, parts: Sequence[Part], extras: Sequence[Extra] = ()) -> int:
    """The lane as a command: `--list` shows its parts and runs nothing."""
    parser = argparse.ArgumentParser(prog=f"bin/{name}", description="See docs/operating.md.")
    parser.add_argument("--list", action="store_true", help="show the parts and run nothing")
    for extra in extras:
        parser.add_argument(f"--{extra.flag}", action="store_true", help=extra.help)
    asked = parser.parse_args()
    parts = [*parts, *(part for extra in extras if getattr(asked, extra.flag) for part in extra.parts)]
    if asked.list:
        table([("part", "command"), *((part.name, part.line) for part in parts)])
        return 0
    return run_lane(settings, name, parts)


def run_lane(settings: Settings, name: str, parts: Sequence[Part], root: Path = ROOT) -> int:
    """The exit code of the lane, which says the same as its tile. root: the checkout that it is about."""
    logs = settings.state_dir.absolute() / "lanes" / f"{name}-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}"
    logs.mkdir(parents=True)
    with stopping_on_term(), evidence.tile(settings, f"pf-{name}", root) as claim:
        say(f"lane {name}: {', '.join(part.name for part in parts)}")
        done = [run_part(settings, part, f"{number}/{len(parts)}", logs, root) for number, part in enumerate(parts, 1)]
        tell(name, done)
        refs = [f"run:{one.part.line}" + (f" > {one.log}" if one.log else "") for one in done if one.state != "SKIP"]
        failed = [one.part.name for one in done if one.state == "FAIL"]
        skipped = [f"{one.part.name} ({one.text})" for one in done if one.state == "SKIP"]
        note = f"without: {'; '.join(skipped)}" if skipped else None
        claim.decide(f"failed: {', '.join(failed)}" if failed else "", refs, note)
    return FAILED if failed or not refs else 0


def run_part(settings: Settings, part: Part, place: str, logs: Path, root: Path) -> Done:
    say(f"[{place}] {part.name}: {part.line}")
    if part.skipped is not None:
        return told(Done(part, "SKIP", 0, None, part.skipped))
    log = None if part.is_lane else logs / f"{part.name.replace(' ', '-')}.log"
    with ExitStack() as open_things:
        claim = open_things.enter_context(evidence.tile(settings, part.tile, root)) if part.tile else None
        began = time.monotonic()
        trouble = execute(part, log, root)
        seconds = time.monotonic() - began
        refs = [f"run:{part.line}", *([f"file:{log}"] if log else [])]
        if claim is not None:
            claim.decide(trouble, refs)
    if trouble and log is not None:
        for line in log.read_text(errors="replace").splitlines()[-LAST_LINES:]:
            say(f"    {line}")
    return told(Done(part, "FAIL" if trouble else "PASS", seconds, log, trouble))


def execute(part: Part, log: Path | None, root: Path) -> str:
    """Run it to its end; what went wrong, or nothing."""

    def still(seconds: float) -> None:
        if not part.is_lane:
            say(f"    … {seconds:.0f} s")

    code = run_module(part.command, log, part.environ, cwd=root, timeout_s=part.timeout_s, still=still)
    if code is None:
        return f"not done in {part.timeout_s:.0f} s"
    return f"exit code {code}" if code else ""


# -- what one sees ----------------------------------------------------------------------------------------------------------------


def say(text: str) -> None:
    print(text, flush=True)


def told(done: Done) -> Done:
    say(f"    {done.state} {done.seconds:.1f} s" + (f": {done.text}" if done.text else ""))
    return done


def tell(name: str, done: Sequence[Done]) -> None:
    say("")
    table([("part", "state", "seconds", ""), *((one.part.name, one.state, f"{one.seconds:.1f}", one.text) for one in done)])
    counts = {state: sum(one.state == state for one in done) for state in ("PASS", "FAIL", "SKIP")}
    say(f"lane {name}: " + ", ".join(f"{count} {state}" for state, count in counts.items() if count))


def table(rows: Sequence[Sequence[str]]) -> None:
    """Rows in columns of equal width; the last column is as long as it is."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        say("  ".join([*cells, row[-1]]).rstrip())

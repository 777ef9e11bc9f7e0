"""bin/full: what must hold before a release: bin/check, slow tests, the engine behind PgBouncer, failovers, faults, restores, all
scenarios, the benchmarks once through, the live smokes.

    bin/full [--ci] [--soaks] [--list]

With --ci the long load test comes on top, with --soaks all soaks and the fast tests three times over. Nothing here is remembered from one
call to the next, so a soak that is asked for is a soak that is run.

The live smokes need a real agent and real sandboxes. Without their settings they are skipped, which is said and stands in the evidence;
with OC_STRICT_MODE=1 that is a failure.
"""

import os
import shutil
from dataclasses import replace
from importlib.util import find_spec

from bin.commands.quick import FAST
from bin.commands.soak import SOAKS
from bin.lanes import Extra, Part, run_named
from bin.settings import Settings
from bin.wiring import run


def main(settings: Settings) -> int:
    return run_named(
        settings,
        "full",
        [
            Part(name="check", command=("bin.commands.check",), is_lane=True),
            Part.of_tests("slow tests", "tests", "-m", "slow"),
            replace(Part.of_tests("engine behind a pooler", "--pgbouncer", "tests/engine"), skipped=pooler_obstacle()),
            Part(name="failovers", command=("bin.commands.failoverdemo", "--rounds", "3")),
            Part(name="failovers async", command=("bin.commands.failoverdemo", "--rounds", "3", "--async")),
            Part(name="faults", command=("bin.commands.chaos", "--all")),
            Part(name="restores", command=("bin.commands.restoredrill",)),
            Part(name="scenarios", command=("bin.commands.scenarios",), is_lane=True),
            Part(name="bench", command=("bin.commands.bench", "all", "--quick")),
            smoke(settings, "oc live smoke", "bin.commands.oc_live_smoke", oc_obstacle(settings)),
            smoke(settings, "sbx live smoke", "bin.commands.sbx_live_smoke", sbx_obstacle(settings)),
        ],
        [
            Extra("ci", "and the long load test", [Part(name="load ramp", command=("bin.commands.load", "ramp"))]),
            Extra("soaks", "and all soaks, which take twenty minutes", soaks()),
        ],
    )


def soaks() -> list[Part]:
    again = [Part.of_tests(f"unit soak {number}", *FAST) for number in (1, 2, 3)]
    return [*(Part(name=f"soak {name}", command=("bin.commands.soak", name)) for name in SOAKS), *again]


def smoke(settings: Settings, name: str, module: str, obstacle: str | None) -> Part:
    """Skipped when something stands in its way, unless strictness is asked for: then it runs, and fails by itself."""
    if obstacle is None and find_spec(module) is None:
        obstacle = "this version has no such command"
    return Part(name=name, command=(module,), skipped=None if settings.oc_strict_mode else obstacle)


def pooler_obstacle() -> str | None:
    """Debian keeps it where only root looks."""
    places = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
    return None if shutil.which("pgbouncer", path=places) else "there is no pgbouncer here"


def oc_obstacle(settings: Settings) -> str | None:
    return None if settings.oc_mode == "live" else f"OC_MODE is {settings.oc_mode}"


def sbx_obstacle(settings: Settings) -> str | None:
    if settings.sbx_mode != "live":
        return f"SBX_MODE is {settings.sbx_mode}"
    if settings.sbx_provider == "e2b" and settings.e2b_api_key is None:
        return "E2B_API_KEY is not set"
    return None


if __name__ == "__main__":
    run(main)

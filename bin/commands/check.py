"""bin/check: what must hold before a change is merged: bin/quick, all tests, kills of everything, telemetry, operators' views.

bin/check [--ci] [--list]

With --ci the short load test comes on top.
"""

from bin.lanes import Extra, Part, run_named
from bin.settings import Settings
from bin.wiring import run

#: Processes that are killed, frozen and cut off, and runs that must not notice.
DRILLS = ("tests/crash", "tests/platform/test_embedded_postgres.py", "tests/engine/test_wake_races.py")
VIEWS = (
    "tests/steps/test_schema.py::test_the_views_show_what_is_queued_failed_and_slow",
    "tests/docs/test_reference.py::test_the_views_for_operators_are_those_of_the_schema",
)


def main(settings: Settings) -> int:
    return run_named(
        settings,
        "check",
        [
            Part(name="quick", command=("bin.commands.quick",), is_lane=True),
            Part.of_tests("tests", "tests", *(f"--ignore={path}" for path in DRILLS)),
            Part.of_tests("durability drills", *DRILLS),
            Part(name="crashdemo", command=("bin.commands.crashdemo", "--rounds", "6")),
            Part(name="otlp smoke", command=("bin.commands.otlp_smoke",)),
            Part.of_tests("ops views", *VIEWS),
        ],
        [Extra("ci", "and the short load test", [Part(name="load smoke", command=("bin.commands.load", "smoke"))])],
    )


if __name__ == "__main__":
    run(main)

"""bin/quick: what must hold while one works: style, types, locks, fast tests, the house rules. A minute or two.

bin/quick [--list]
"""

from bin.lanes import Part, run_named
from bin.settings import Settings
from bin.wiring import run

FAST = (
    "tests/steps",
    "tests/platform/test_locks.py",
    "tests/platform/test_settings.py",
    "tests/platform/test_database.py",
    "tests/platform/test_serving.py",
)
LOCKS = (
    "tests/platform/test_locks.py",
    "tests/platform/test_bootstrap.py::test_a_lock_holds_names_versions_and_hashes_and_no_address",
    "tests/platform/test_bootstrap.py::test_every_set_has_the_same_versions",
)


def main(settings: Settings) -> int:
    return run_named(
        settings,
        "quick",
        [
            Part(name="lint", command=("ruff", "check")),
            Part(name="format", command=("ruff", "format", "--check", "--quiet")),
            Part(name="types", command=("basedpyright",)),
            Part.of_tests("deps", *LOCKS, tile="pf-deps"),
            Part.of_tests("fast tests", *FAST),
            Part(name="policy", command=("bin.commands.policy",), is_lane=True),
        ],
    )


if __name__ == "__main__":
    run(main)

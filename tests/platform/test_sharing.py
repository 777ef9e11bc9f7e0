"""How bin/test shares the suite out."""

import pytest

from bin.commands.test import sharing
from bin.settings import ROOT
from tests.conftest import LONG


@pytest.mark.parametrize("arguments", [[], ["-q"], ["-x", "-q"], ["--durations=5"]])
def test_the_whole_suite_is_shared_out_a_file_at_a_time(arguments: list[str]) -> None:
    how = ["--dist", "loadfile", "--no-loadscope-reorder"]
    assert sharing(arguments, 2) == ["-n", "3", *how]
    assert sharing(arguments, 64) == ["-n", "4", *how]


@pytest.mark.parametrize(
    "arguments", [["tests/api"], ["-q", "tests/api/test_ops.py"], ["-n0"], ["--pdb"], ["-m", "slow"], ["--co"]]
)
def test_what_is_asked_for_by_name_runs_as_it_is(arguments: list[str]) -> None:
    assert sharing(arguments, 2) == []


@pytest.mark.parametrize("name", LONG)
def test_what_is_begun_first_is_there(name: str) -> None:
    assert (ROOT / "tests" / name).is_file()


def test_one_processor_shares_nothing() -> None:
    assert sharing([], 1) == []

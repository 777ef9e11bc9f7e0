"""Every order of the moves around a partition that is found empty, or full, on paper: the chosen form holds, each simpler one fails.

The same moves on a real database are in test_queue_races.py.
"""

import pytest

from tests.engine.queue_model import Explored, Rules, explore_partition

ENQUEUEING = Rules("---", janitors=2)  # three producers come to a partition without a cap
FEW_ENQUEUEING = Rules("--", janitors=2)
GATED = Rules("QQQ", cap=1, claims=2, returns=1)


def told(explored: Explored) -> list[str]:
    print(f"{explored.states} states", *explored.way, sep="\n  ")
    return explored.way


@pytest.mark.parametrize(
    "rules",
    [ENQUEUEING, GATED, GATED._replace(cap=2), Rules("-QQ", cap=1, janitors=2)],
    ids=["found empty", "one place", "two places", "one place, two janitors"],
)
def test_nothing_is_stranded_and_no_cap_is_exceeded(rules: Rules) -> None:
    explored = explore_partition(rules)
    assert told(explored) == []
    assert explored.states > 10_000  # all of them, not a corner


@pytest.mark.parametrize(
    "rules",
    [
        FEW_ENQUEUEING._replace(looks=0),
        FEW_ENQUEUEING._replace(looks=1),
        FEW_ENQUEUEING._replace(check="same snapshot"),
        FEW_ENQUEUEING._replace(check="nudge first"),
        FEW_ENQUEUEING._replace(claims_are_late=True),
    ],
    ids=["no look", "one look", "one statement, or REPEATABLE READ", "nudge first", "looks counted from the claim's beginning"],
)
def test_a_simpler_form_strands_a_workflow_in_an_empty_partition(rules: Rules) -> None:
    assert "stranded in e" in told(explore_partition(rules))[-1]


@pytest.mark.parametrize(
    "rules",
    [GATED._replace(nudge="never"), GATED._replace(looks=0), GATED._replace(looks=1), GATED._replace(check="same snapshot")],
    ids=["no nudge", "no look", "one look", "one statement, or REPEATABLE READ"],
)
def test_a_simpler_form_strands_a_workflow_in_a_full_partition(rules: Rules) -> None:
    assert "stranded" in told(explore_partition(rules))[-1]


@pytest.mark.parametrize("counting", ["in the statement that locks", "without the lock"])
def test_a_count_that_is_older_than_the_lock_exceeds_the_cap(counting: str) -> None:
    assert told(explore_partition(GATED._replace(counting=counting)))[-1] == "2 at work under a cap of 1"


@pytest.mark.parametrize("rules", [FEW_ENQUEUEING, GATED], ids=["found empty", "found full"])
def test_what_a_writer_under_repeatable_read_leaves_behind_is_found_by_reconciling(rules: Rules) -> None:
    assert told(explore_partition(rules._replace(check="same snapshot", reconciles=True))) == []

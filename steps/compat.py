"""What older clients leave to us, as data: whose share of the queue their runs take, and the goals that they rehearse with.

A goal of the table stands for constraints, and becomes them at the way in, where it can be seen: the stored intent holds them, and
nothing behind it knows any goal.
"""

from collections.abc import Mapping

from steps.contracts.base import JsonObject
from steps.contracts.intent import Intent, RunRequest

#: Goals, letter by letter, and the test hooks that they stand for.
REHEARSALS: Mapping[str, JsonObject] = {
    "ask user": {"askUser": True},
    "parallel test": {"parallelApprovals": True},
    "timeout test": {"planApprovalTimeoutS": 2},
    "fail me": {"replay": {"build": {"test_command": "FAIL_ME"}}},
}

PARTITION = "legacy"


def rehearsed(intent: Intent) -> Intent:
    """The intent with the test hooks that its goal stands for; as it is for any other goal, or if it brings test hooks itself."""
    hooks = REHEARSALS.get(intent.goal)
    if hooks is None or "testHooks" in intent.constraints:
        return intent
    return intent.model_copy(update={"constraints": intent.constraints | {"testHooks": hooks}})


def partitioned(options: RunRequest) -> RunRequest:
    """The options with a partition: the tenant's, when none is named, or the one that all nameless runs share."""
    if options.queuePartitionKey is not None:
        return options
    return options.model_copy(update={"queuePartitionKey": options.tenantId or PARTITION})

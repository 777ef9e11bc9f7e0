"""bin/test: the test suite. Arguments are pytest's; paths count from the top of the checkout.

The whole suite is shared out, a file at a time, among processes with a database server each: one more than there are processors, since
much of it waits. Where paths are given, or -n, -p or --pdb, pytest is called as it is.
"""

import os
import sys
from collections.abc import Sequence

from bin.settings import ROOT

MOST_PROCESSES = 4
ITS_OWN = ("-n", "-p", "--pdb", "--dist", "--collect-only", "--co")


def sharing(arguments: Sequence[str], processors: int) -> list[str]:
    """What makes pytest share the suite out, where that is of use."""
    named = any(not argument.startswith("-") or argument.startswith(ITS_OWN) for argument in arguments)
    processes = min(processors + 1, MOST_PROCESSES)
    return [] if named or processors < 2 else ["-n", str(processes), "--dist", "loadfile", "--no-loadscope-reorder"]


if __name__ == "__main__":
    os.chdir(ROOT)
    shared = sharing(sys.argv[1:], len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    os.execv(sys.executable, [sys.executable, "-P", "-m", "pytest", *shared, *sys.argv[1:]])

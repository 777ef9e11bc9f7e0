"""What processes that work for long have in common."""

import subprocess
import sys

from bin.settings import ROOT

LEAVES_A_CYCLE = """
import time, weakref
from bin import wiring

class Node:
    pass

wiring.COLLECT_S = 0.01
wiring.calm_garbage_collector()
node = Node()
node.itself = node
left = weakref.ref(node)
del node
deadline = time.monotonic() + 30
while left() is not None and time.monotonic() < deadline:
    time.sleep(0.01)
print("gone" if left() is None else "still there")
"""


def test_a_process_with_little_to_do_keeps_no_garbage() -> None:
    said = subprocess.run(
        [sys.executable, "-P", "-c", LEAVES_A_CYCLE], cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, check=True
    )
    assert said.stdout.split() == [b"gone"]

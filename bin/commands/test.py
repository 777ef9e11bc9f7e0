"""bin/test: the test suite. Arguments are pytest's; paths count from the top of the checkout."""

import os
import sys

from bin.settings import ROOT

if __name__ == "__main__":
    os.chdir(ROOT)
    os.execv(sys.executable, [sys.executable, "-P", "-m", "pytest", *sys.argv[1:]])

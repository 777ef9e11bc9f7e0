"""How far a long command is: on a terminal one line that rewrites itself, elsewhere a line now and then. On standard error."""

import shutil
import sys
import time

WIDTH = 20
PLAIN_S = 10.0


class Bar:
    """Shown until the end of the `with` block, whatever ends it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._began = time.monotonic()
        self._told = float("-inf")
        self._rewrites = sys.stderr.isatty()
        self._last = ""

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_: object) -> None:
        if self._last and self._rewrites:
            print(file=sys.stderr)
        elif self._last:
            self._print(self._last)

    def show(self, share: float, text: str) -> None:
        """share: how much is done, from 0 to 1."""
        share = min(max(share, 0.0), 1.0)
        filled = round(share * WIDTH)
        seconds = time.monotonic() - self._began
        line = f"{self._name} [{'#' * filled}{'-' * (WIDTH - filled)}] {share:4.0%} {seconds:4.0f} s  {text}"
        if self._rewrites:
            columns = shutil.get_terminal_size().columns
            print(f"\r{line[: columns - 1]:<{columns - 1}}", end="", file=sys.stderr, flush=True)
            self._last = line
        elif time.monotonic() - self._told >= PLAIN_S:
            self._print(line)
            self._told, self._last = time.monotonic(), ""
        else:
            self._last = line

    def _print(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)

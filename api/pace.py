"""How much one caller may ask: so many requests a second, by a bucket that fills at that rate and holds two seconds' worth.

It is counted in this process, so that a caller of several processes has as many buckets.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

BURST_S = 2.0


class TooMany(Exception):
    """429: ask again in `wait_s` seconds."""

    def __init__(self, message: str, wait_s: float) -> None:
        super().__init__(message)
        self.wait_s = wait_s


@dataclass(slots=True)
class Bucket:
    left: float
    at_s: float


class Pace:
    """per_s: requests a second of one caller; 0 for no limit. Callers are tokens, so there are not many."""

    def __init__(self, per_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._clock = clock
        self._buckets: dict[str, Bucket] = {}

    def take(self, caller: str) -> None:
        """Count a request. Raises TooMany, and then it is not counted."""
        if self._per_s <= 0:
            return
        now_s, most = self._clock(), max(1.0, self._per_s * BURST_S)
        bucket = self._buckets.setdefault(caller, Bucket(most, now_s))
        bucket.left = min(most, bucket.left + (now_s - bucket.at_s) * self._per_s)
        bucket.at_s = now_s
        if bucket.left < 1:
            wait_s = (1 - bucket.left) / self._per_s
            raise TooMany(f"more than {self._per_s:g} requests a second with one token; wait {wait_s:.2f} s", wait_s)
        bucket.left -= 1

"""What recorded times tell about fairness and limits. Nothing here asks a database.

*Contended service.* A tenant is contending while it has work queued, without a break, for at least SETTLED_MS: from the creation of the
first run of such a stretch to the start of its last. (A shorter stretch is no contention but a wait: its run was the next to start.)
Contended service is the starts of contending tenants' runs. Each of these starts is owed, in equal parts or by weight, to all tenants
that contend at that moment. What a tenant got by what it was owed is its share of its fair share; 1 is perfectly fair.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

SETTLED_MS = 1000


@dataclass(frozen=True, slots=True)
class Queued:
    """One run's time in the queue. `started_ms` None: it has not started."""

    tenant: str
    created_ms: int
    started_ms: int | None


@dataclass(frozen=True, slots=True)
class Service:
    """Starts that a tenant got while it contended, and how many it was owed."""

    got: int
    owed: float

    @property
    def share(self) -> float:
        return self.got / self.owed


def contended(runs: Iterable[Queued], end_ms: int, weights: Mapping[str, float] | None = None) -> dict[str, Service]:
    """Each contending tenant's part of the contended service until `end_ms`."""
    by_tenant: dict[str, list[Queued]] = defaultdict(list)
    for run in runs:
        if run.created_ms < end_ms:
            by_tenant[run.tenant].append(run)
    events: list[tuple[int, int, str]] = []  # (time, 0 begins to contend / 1 a start / 2 ceases, tenant)
    for tenant, own in by_tenant.items():
        for first_ms, last_ms in _stretches(own, end_ms):
            events += [(first_ms, 0, tenant), (last_ms, 2, tenant)]
            events += [(r.started_ms, 1, tenant) for r in own if r.started_ms is not None and first_ms <= r.started_ms <= last_ms]
    return _divided(sorted(events), weights or {})


def _stretches(own: list[Queued], end_ms: int) -> list[tuple[int, int]]:
    """The times from SETTLED_MS on in which one of these runs was queued."""
    found: list[tuple[int, int]] = []
    for run in sorted(own, key=lambda r: r.created_ms):
        last_ms = end_ms if run.started_ms is None else min(run.started_ms, end_ms)
        if found and run.created_ms <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], last_ms))
        else:
            found.append((run.created_ms, last_ms))
    return [(first, last) for first, last in found if last - first >= SETTLED_MS]


def _divided(events: Sequence[tuple[int, int, str]], weights: Mapping[str, float]) -> dict[str, Service]:
    got: dict[str, int] = defaultdict(int)
    owed: dict[str, float] = defaultdict(float)
    since: dict[str, float] = {}  # of each contending tenant: what a weight of 1 had been owed when it began
    per_weight = weight = 0.0
    for _, kind, tenant in events:
        own = weights.get(tenant, 1.0)
        if kind == 0:
            since[tenant] = per_weight
            weight += own
        elif kind == 1:
            got[tenant] += 1
            per_weight += 1 / weight
        else:
            owed[tenant] += own * (per_weight - since.pop(tenant))
            weight -= own
    return {tenant: Service(got[tenant], owed[tenant]) for tenant in owed}


def most_at_once(intervals: Iterable[tuple[int, int]]) -> int:
    """The greatest number of these [begin, end) that hold one moment."""
    changes = sorted(change for begin, end in intervals for change in ((begin, 1), (end, -1)) if begin < end)
    now = most = 0
    for _, change in changes:  # at one moment what ends goes before what begins
        now += change
        most = max(most, now)
    return most


def most_in_window(times: Iterable[int], length: int) -> int:
    """The greatest number of these moments in any window [t, t + length)."""
    ordered = sorted(times)
    first = most = 0
    for n, moment in enumerate(ordered):
        while ordered[first] <= moment - length:
            first += 1
        most = max(most, n - first + 1)
    return most

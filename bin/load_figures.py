"""What a load test measured, held against its thresholds, and written down in the form in which k6 writes its summaries.

Times are milliseconds, from the first byte sent to the last byte read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

JsonObject = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """All requests of one kind: how long each took, and how many had no answer or one with a code that nobody expects."""

    times: list[float]
    failed: int


@dataclass(frozen=True, slots=True)
class Measured:
    """What the users saw. checks: by name, how often it held and how often not. seconds: how it went, second by second."""

    endpoints: Mapping[str, Endpoint]
    checks: Mapping[str, tuple[int, int]]
    iterations: int
    took_s: float
    most_users: int
    seconds: Sequence[JsonObject]

    @property
    def times(self) -> list[float]:
        """Of all requests, the shortest first."""
        return sorted(time for endpoint in self.endpoints.values() for time in endpoint.times)

    @property
    def failed(self) -> int:
        return sum(endpoint.failed for endpoint in self.endpoints.values())

    @property
    def checked(self) -> tuple[int, int]:
        """How many checks held, and how many did not."""
        return sum(held for held, _ in self.checks.values()), sum(broken for _, broken in self.checks.values())


@dataclass(frozen=True, slots=True)
class Limits:
    """What a load test must keep to. Rates are shares of one."""

    p95_ms: float
    failed_below: float = 0.01
    checks_above: float = 0.99


#: Nothing can keep to these: a load test that passes them looks at nothing.
IMPOSSIBLE = Limits(p95_ms=0, failed_below=0, checks_above=1)


@dataclass(frozen=True, slots=True)
class Threshold:
    """One limit: of which metric, in k6's words, what was found (None: nothing was measured), and whether it was kept."""

    metric: str
    text: str
    found: str | None
    ok: bool


def judge(measured: Measured, limits: Limits) -> list[Threshold]:
    """What was not measured was not kept."""
    times, (held, broken) = measured.times, measured.checked
    p95 = percentile(times, 0.95)
    failed = measured.failed / len(times) if times else None
    checks = held / (held + broken) if held + broken else None
    return [
        Threshold(
            "http_req_duration",
            f"p(95)<{limits.p95_ms:g}",
            None if p95 is None else f"{p95:.1f} ms",
            p95 is not None and p95 < limits.p95_ms,
        ),
        Threshold(
            "http_req_failed",
            f"rate<{limits.failed_below:g}",
            None if failed is None else f"{failed:.2%}",
            failed is not None and failed < limits.failed_below,
        ),
        Threshold(
            "checks",
            f"rate>{limits.checks_above:g}",
            None if checks is None else f"{checks:.2%}",
            checks is not None and checks > limits.checks_above,
        ),
    ]


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """Between the two nearest values, in proportion; None of nothing."""
    if not ordered:
        return None
    place = (len(ordered) - 1) * share
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def trend(times: Sequence[float]) -> JsonObject:
    """k6's figures of a metric that is a time; all null when there is none."""
    ordered = sorted(times)
    found = {
        "avg": sum(ordered) / len(ordered) if ordered else None,
        "min": ordered[0] if ordered else None,
        "med": percentile(ordered, 0.5),
        "max": ordered[-1] if ordered else None,
        "p(90)": percentile(ordered, 0.9),
        "p(95)": percentile(ordered, 0.95),
        "p(99)": percentile(ordered, 0.99),
    }
    return {name: None if value is None else round(value, 3) for name, value in found.items()}


def rate(passes: int, fails: int) -> JsonObject:
    return {"rate": passes / (passes + fails) if passes + fails else 0.0, "passes": passes, "fails": fails}


def summary(measured: Measured, thresholds: Sequence[Threshold]) -> JsonObject:
    """The form of k6's handleSummary, with the metrics that a reader looks for."""
    times, (held, broken) = measured.times, measured.checked
    metrics: dict[str, JsonObject] = {
        "http_req_duration": {"type": "trend", "contains": "time", "values": trend(times)},
        "http_req_failed": {"type": "rate", "contains": "default", "values": rate(measured.failed, len(times) - measured.failed)},
        "checks": {"type": "rate", "contains": "default", "values": rate(held, broken)},
        "http_reqs": {"type": "counter", "contains": "default", "values": counter(len(times), measured.took_s)},
        "iterations": {"type": "counter", "contains": "default", "values": counter(measured.iterations, measured.took_s)},
        "vus_max": {"type": "gauge", "contains": "default", "values": {"value": measured.most_users}},
    }
    for one in thresholds:
        metrics[one.metric].setdefault("thresholds", {})[one.text] = {"ok": one.ok}
    return {"metrics": metrics, "state": {"testRunDurationMs": round(measured.took_s * 1000, 3)}}


def counter(count: int, took_s: float) -> JsonObject:
    return {"count": count, "rate": round(count / took_s, 3) if took_s else 0.0}


def details(suite: str, measured: Measured) -> JsonObject:
    """Endpoint by endpoint, check by check, second by second."""
    return {
        "suite": suite,
        "endpoints": {
            name: {"count": len(one.times), "failed": one.failed, **trend(one.times)} for name, one in measured.endpoints.items()
        },
        "checks": {name: {"passes": held, "fails": broken} for name, (held, broken) in measured.checks.items()},
        "seconds": list(measured.seconds),
    }

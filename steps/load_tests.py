"""What load tests left behind: k6's summaries, read from files.

Both forms that k6 writes are read, the one of `handleSummary` and the one of `--summary-export`. A test counts as passed only if it set
a threshold and none was crossed; a file that cannot be read is shown as a test that failed, not left out.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import orjson

from steps.contracts.base import JsonObject
from steps.contracts.proof import K6Row

SUFFIX = "-summary.json"
MOST_FILES = 100
MOST_BYTES = 1024 * 1024
DURATION = "http_req_duration"
THRESHOLD = re.compile(r"p\(95\)\s*<=?\s*([0-9]+(?:\.[0-9]+)?)")


def read_load_tests(folder: Path | None) -> list[K6Row]:
    """A row for each summary in the folder, by name; none when there is no such folder."""
    if folder is None or not folder.is_dir():
        return []
    return [read_summary(path) for path in sorted(folder.glob(f"*{SUFFIX}"))[:MOST_FILES]]


def read_summary(path: Path) -> K6Row:
    row: JsonObject = {"name": path.name.removesuffix(SUFFIX), "source": "k6", "provenance": DURATION, "rawRef": path.name}
    row |= {"p95": None, "p99": None, "avg": None, "threshold": None, "pass": False, "ts": 0}
    try:
        row["ts"] = int(path.stat().st_mtime * 1000)
        if path.stat().st_size <= MOST_BYTES:
            row |= figures_of(orjson.loads(path.read_bytes()))
    except (OSError, orjson.JSONDecodeError, LookupError, TypeError, AttributeError):
        pass  # the row says that it failed
    return K6Row.model_validate(row)


def figures_of(summary: Any) -> JsonObject:
    """What a summary says of its requests. Raises LookupError, TypeError or AttributeError for what is none."""
    metrics: dict[str, JsonObject] = summary["metrics"]
    duration = metrics[DURATION]
    values: JsonObject = duration.get("values", duration)
    verdicts = [passed for metric in metrics.values() for passed in verdicts_of(metric)]
    limits = [found[1] for text in duration.get("thresholds", {}) if (found := THRESHOLD.fullmatch(text.strip()))]
    return {
        "p95": number(values["p(95)"]),
        "p99": number(values.get("p(99)")),
        "avg": number(values["avg"]),
        "threshold": float(limits[0]) if limits else None,
        "pass": bool(verdicts) and all(verdicts),
    }


def verdicts_of(metric: JsonObject) -> Iterator[bool]:
    """Whether each threshold of a metric was kept. The older form says of each whether it was crossed."""
    for verdict in metric.get("thresholds", {}).values():
        yield verdict["ok"] is True if isinstance(verdict, dict) else verdict is False


def number(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{value!r} is no number")
    return float(cast(float, value))

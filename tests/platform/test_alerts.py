"""The rules in docs/deploy/alerts.yml: each asks for metrics, labels and values that there are, and leads to its entry in the runbook."""

import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from bin.settings import ROOT
from engine import FINAL
from steps.policy import QUEUES
from steps.queues import STANDINGS
from tests.platform.conftest import Observed

FILE = ROOT / "docs/deploy/alerts.yml"
METRIC = re.compile(r"\b(?P<name>holdfast_\w+|process_\w+|up)\b(?:\{(?P<labels>[^}]*)\})?")
LABEL = re.compile(r'(?P<name>\w+)(?P<how>=~?)"(?P<value>[^"]*)"')
BY = re.compile(r"\bby \((?P<names>[^)]*)\)")
WORDS = {"sum", "min", "max", "by", "and", "or", "increase", "rate", "min_over_time", "histogram_quantile"}
#: Prometheus adds these to everything that it scrapes.
TARGETS = {"job", "instance"}
#: What a label may say, where that is known beforehand.
VALUES = {
    "history": {"kept", "went_back"},
    "how": {*FINAL, "parked", "lost"},
    "outcome": {"ok", "failed", "lost"},
    "queue": set(QUEUES),
    "state": set(STANDINGS.values()),
    "workflow": {"RunIntent", "ExecuteTask"},
    "status": {str(code) for code in range(200, 600)},
    "method": {"GET", "POST", "PUT", "DELETE"},
}

GROUPS: list[dict[str, Any]] = yaml.safe_load(FILE.read_text())["groups"]
RULES: list[dict[str, Any]] = [rule for group in GROUPS for rule in group["rules"]]
NAMES = [rule["alert"] for rule in RULES]


def known(observed: Observed) -> dict[str, set[str]]:
    """Label names by what can be asked for, from what an API and a worker tell."""
    page = (ROOT / "docs/operating.md").read_text()
    documented = {
        name: set(re.findall(r"`(\w+)`", labels))
        for name, labels in re.findall(r"^\| `(\w+)` \| \w+ \| ([^|]*)\|", page, re.MULTILINE)
    }
    found: dict[str, set[str]] = {"up": set()}
    for text in observed.metrics.values():
        for family in text_string_to_metric_families(text):
            base = family.name + ("_total" if family.type == "counter" else "")
            labels = documented.get(base, set())
            if family.type == "histogram":
                found |= {f"{base}_bucket": labels | {"le"}, f"{base}_count": labels, f"{base}_sum": labels}
            else:
                found[base] = labels
    return found


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_a_rule_asks_for_what_there_is(rule: dict[str, Any], observed: Observed) -> None:
    there = known(observed)
    asked = list(METRIC.finditer(rule["expr"]))
    assert asked
    wrong: list[str] = []
    allowed = set(TARGETS)
    for one in asked:
        if one["name"] not in there:
            wrong.append(one["name"])
            continue
        allowed |= there[one["name"]]
        for label in LABEL.finditer(one["labels"] or ""):
            if label["name"] not in there[one["name"]] | TARGETS:
                wrong.append(f"{one['name']} has no {label['name']}")
            wrong += wrong_values(label["name"], label["how"], label["value"])
    for by in BY.finditer(rule["expr"]):
        wrong += [f"by {name.strip()}" for name in by["names"].split(",") if name.strip() not in allowed]
    assert wrong == []


def wrong_values(name: str, how: str, value: str) -> list[str]:
    if name not in VALUES:
        return []
    patterns = value.split("|") if how == "=~" else [re.escape(value)]
    return [f"{name} is never {pattern}" for pattern in patterns if not any(re.fullmatch(pattern, one) for one in VALUES[name])]


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_a_rule_is_whole(rule: dict[str, Any]) -> None:
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"Holdfast[A-Z]\w+", rule["alert"])
    assert re.fullmatch(r"\d+[smhd]", rule.get("for", "0s"))
    assert rule["labels"] in ({"severity": "page"}, {"severity": "ticket"})
    assert set(rule["annotations"]) == {"summary", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{rule['alert'].lower()}"
    bare = BY.sub("", METRIC.sub("", rule["expr"]))
    assert set(re.findall(r"\b[a-z_]{2,}\b", bare)) <= WORDS
    assert [bare.count(one) for one in "([{"] == [bare.count(one) for one in ")]}"]


def test_no_name_is_used_twice() -> None:
    assert len(set(NAMES)) == len(NAMES) > 15


def test_every_metric_that_can_show_trouble_is_watched() -> None:
    """Those that are left out tell how much there is, not that something is wrong."""
    amounts = {
        "holdfast_runs_claimed_total",
        "holdfast_runs_running",
        "holdfast_journal_commit_records",
        "holdfast_pool_size",
        "holdfast_pool_available",
        "holdfast_queue_opens_seconds",
        "holdfast_gates_open",
    }
    page = (ROOT / "docs/operating.md").read_text()
    documented = set(re.findall(r"^\| `(holdfast_\w+)` \|", page, re.MULTILINE))
    asked = {re.sub(r"_(count|bucket|sum)$", "", one["name"]) for rule in RULES for one in METRIC.finditer(rule["expr"])}
    assert documented - asked == amounts


def test_promtool_takes_the_rules() -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed; it comes with Prometheus")
    done = subprocess.run(["promtool", "check", "rules", FILE], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "how", "value", "wrong"),
    [
        ("how", "=~", "SUCCESS|ERROR", []),
        ("how", "=", "FAILED", ["how is never FAILED"]),
        ("status", "=~", "5..", []),
        ("status", "=~", "6..", ["status is never 6.."]),
        ("job", "=~", "anything", []),
    ],
)
def test_values_that_never_occur_are_found(name: str, how: str, value: str, wrong: list[str]) -> None:
    assert wrong_values(name, how, value) == wrong

"""bin/load: a load test of the API, with thresholds, whose outcome the throughput board shows.

    bin/load smoke [--users N] [--duration TIME]
    bin/load ramp [--ramp-up TIME] [--target N] [--steady TIME] [--ramp-down TIME]
        both: [--p95-ms MS] [--base URL] [--bad-fixture]

`smoke` is a few users for a short while; `ramp` goes up to more, stays, and comes down. Each user stores an intent, starts it, and reads
the run, the queues, the steps and an artifact, over and over. Without --base a service of the test's own is started, on a database of its
own, and nothing is left of it. Exit code 1 means that a threshold was crossed. --bad-fixture sets thresholds that nothing can keep to, and
so shows that a test can fail. Written to K6_DIR: SUITE-summary.json (for the board), SUITE-metrics.json, SUITE.log. One test at a time.
"""

import argparse
import fcntl
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import orjson

from bin.children import stopping_on_term
from bin.evidence import write_whole
from bin.lanes import table
from bin.load_figures import IMPOSSIBLE, Endpoint, Limits, Measured, Threshold, details, judge, summary, trend
from bin.own_server import own_server, surroundings
from bin.progress import Bar
from bin.service import ServiceFailed, ServiceProcess
from bin.settings import ROOT, LoadSettings, Settings
from bin.variables import BadSetting, check_url, duration
from bin.wiring import FAILED, complain, run

P95_MS = {"smoke": 1200, "ramp": 1500}
LONGEST_S = 24 * 3600


@dataclass(frozen=True, slots=True)
class Plan:
    """stages: (seconds, users at the start, users at the end). base: a service that runs, or None for one of our own."""

    suite: str
    stages: list[tuple[float, int, int]]
    limits: Limits
    base: str | None

    @property
    def seconds(self) -> float:
        return sum(length for length, _, _ in self.stages)


class LoadFailed(Exception):
    """The test could not be carried out; one sentence says why."""


def main(settings: Settings) -> int:
    plan = read_arguments(sys.argv[1:], settings.load)
    if find_spec("locust") is None:
        complain(
            "load tests need Locust, one of the packages for developers: `bin/bootstrap --dev bin.commands.load smoke` installs them"
        )
        return FAILED
    folder = (settings.k6_dir or settings.state_dir / "k6").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with stopping_on_term(), one_at_a_time(folder):
            (folder / f"{plan.suite}-summary.json").unlink(missing_ok=True)  # a test that is killed leaves no older verdict
            measured = measure(settings, plan, folder / f"{plan.suite}.log")
    except (LoadFailed, ServiceFailed) as error:
        complain(error)
        return FAILED
    thresholds = judge(measured, plan.limits)
    for name, content in (("metrics", details(plan.suite, measured)), ("summary", summary(measured, thresholds))):
        write_whole(folder / f"{plan.suite}-{name}.json", orjson.dumps(content, option=orjson.OPT_INDENT_2))
    tell(plan, measured, thresholds, folder)
    return 0 if all(one.ok for one in thresholds) else FAILED


# -- what is asked ----------------------------------------------------------------------------------------------------------------


def read_arguments(arguments: Sequence[str], defaults: LoadSettings) -> Plan:
    parser = argparse.ArgumentParser(prog="bin/load", description="A load test of the API, with thresholds.")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--p95-ms", type=_milliseconds, default=defaults.p95_ms, metavar="MS", help="95 of 100 answers are faster"
    )
    common.add_argument("--base", type=_base, default=None, metavar="URL", help="a service that runs (one of the test's own)")
    common.add_argument(
        "--bad-fixture", action="store_true", default=defaults.bad_fixture, help="thresholds that nothing keeps to"
    )
    suites = parser.add_subparsers(dest="suite", required=True, metavar="smoke|ramp")
    smoke = suites.add_parser("smoke", parents=[common], help="a few users for a short while")
    smoke.add_argument("--users", type=_count, default=defaults.vus, metavar="N", help="at once (%(default)s)")
    smoke.add_argument("--duration", type=_time, default=defaults.duration, metavar="TIME", help="such as 20s (%(default)s)")
    ramp = suites.add_parser("ramp", parents=[common], help="up to more users, there for a while, and down again")
    ramp.add_argument("--ramp-up", type=_time, default=defaults.ramp_up, metavar="TIME", help="on the way up (%(default)s)")
    ramp.add_argument("--target", type=_count, default=defaults.ramp_target, metavar="N", help="users at the top (%(default)s)")
    ramp.add_argument("--steady", type=_time, default=defaults.steady, metavar="TIME", help="at the top (%(default)s)")
    ramp.add_argument("--ramp-down", type=_time, default=defaults.ramp_down, metavar="TIME", help="on the way down (%(default)s)")
    asked = parser.parse_args(arguments)
    plan = Plan(asked.suite, stages(asked), limits(asked), asked.base)
    if not 1 <= plan.seconds <= LONGEST_S:
        parser.error("a load test takes from 1 second to 24 hours")
    return plan


def stages(asked: argparse.Namespace) -> list[tuple[float, int, int]]:
    if asked.suite == "smoke":
        return [(asked.duration.total_seconds(), asked.users, asked.users)]
    top = asked.target
    return [
        (asked.ramp_up.total_seconds(), 1, top),
        (asked.steady.total_seconds(), top, top),
        (asked.ramp_down.total_seconds(), top, 1),
    ]


def limits(asked: argparse.Namespace) -> Limits:
    return IMPOSSIBLE if asked.bad_fixture else Limits(p95_ms=asked.p95_ms or P95_MS[asked.suite])


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1 to 1000")
    return int(text)


def _milliseconds(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text} is not a number of milliseconds from 1 to 1000000")
    return int(text)


def _time(text: str) -> timedelta:
    try:
        return duration("time", text)
    except BadSetting:
        raise argparse.ArgumentTypeError(f"{text} is no time; write it as 20s, 2m or 1m30s") from None


def _base(text: str) -> str:
    try:
        check_url("--base", text)
    except BadSetting as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text.rstrip("/")


# -- the test ---------------------------------------------------------------------------------------------------------------------


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Two tests at once would measure each other. Raises LoadFailed."""
    lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LoadFailed(f"another load test that writes to {folder} is running: wait for its end") from None
        yield
    finally:
        os.close(lock)


def measure(settings: Settings, plan: Plan, log: Path) -> Measured:
    """What the users saw. Raises LoadFailed or ServiceFailed."""
    with ExitStack() as open_things:
        log.write_bytes(b"")
        base = plan.base or open_things.enter_context(own_service(settings, log))
        return visit(plan, base, log, open_things.enter_context(Bar(plan.suite)))


@contextmanager
def own_service(settings: Settings, log: Path) -> Iterator[str]:
    """The address of a service all by itself, which writes into the log too."""
    folder = settings.state_dir.absolute() / "drills" / f"load-{secrets.token_hex(4)}"
    with own_server(folder, settings.pg_bindir) as server:
        service = ServiceProcess("start", log, surroundings(server.dsn, folder / "state"))
        service.start()
        try:
            yield service.url()
        finally:
            service.stop()


def visit(plan: Plan, base: str, log: Path, bar: Bar) -> Measured:
    asked = json.dumps({"base": base, "stages": plan.stages})
    with log.open("ab") as errors:
        users = subprocess.Popen(
            [sys.executable, "-P", "-m", "bin.load_users", asked],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
    try:
        return follow(users, plan, log, bar)
    finally:
        users.kill()  # once it has told everything, it has nothing left to do
        users.communicate()


def follow(users: "subprocess.Popen[bytes]", plan: Plan, log: Path, bar: Bar) -> Measured:
    """Reads the users' lines up to the last one."""
    assert users.stdout is not None
    seconds: list[dict[str, Any]] = []
    for line in users.stdout:
        said: dict[str, Any] = orjson.loads(line)
        if "end" in said:
            return measured(said["end"], seconds)
        seconds.append(said)
        p95 = "no answer" if said["p95"] is None else f"p95 {said['p95']:.0f} ms"
        failed = sum(one["failed"] for one in seconds)
        bar.show(said["at"] / plan.seconds, f"{said['users']} users, {said['requests']} requests/s, {p95}, {failed} failed")
    raise LoadFailed(f"the users ended by themselves: see {log}")


def measured(end: dict[str, Any], seconds: list[dict[str, Any]]) -> Measured:
    return Measured(
        endpoints={name: Endpoint(one["times"], one["failed"]) for name, one in end["endpoints"].items()},
        checks={name: (held, broken) for name, (held, broken) in end["checks"].items()},
        iterations=end["iterations"],
        took_s=end["took"],
        most_users=end["most_users"],
        seconds=seconds,
    )


# -- what one sees ----------------------------------------------------------------------------------------------------------------


def tell(plan: Plan, found: Measured, thresholds: Sequence[Threshold], folder: Path) -> None:
    rows = [row(name, one.times, one.failed) for name, one in found.endpoints.items()]
    table([("request", "count", "failed", "avg ms", "p95 ms", "p99 ms", "max ms"), *rows, row("all", found.times, found.failed)])
    broken = [f"{name} ({fails} times)" for name, (_, fails) in found.checks.items() if fails]
    print(f"\n{found.iterations} iterations by up to {found.most_users} users in {found.took_s:.1f} s")
    if broken:
        print(f"checks that failed: {', '.join(broken)}")
    print()
    table(
        [
            ("threshold", "", "found", ""),
            *((one.metric, one.text, one.found or "nothing", "PASS" if one.ok else "FAIL") for one in thresholds),
        ]
    )
    print(
        f"\n{plan.suite}: {'PASS' if all(one.ok for one in thresholds) else 'FAIL'}; {folder / f'{plan.suite}-summary.json'}",
        flush=True,
    )


def row(name: str, times: Sequence[float], failed: int) -> tuple[str, ...]:
    figures = trend(times)
    shown = ("-" if figures[key] is None else f"{figures[key]:.1f}" for key in ("avg", "p(95)", "p(99)", "max"))
    return (name, str(len(times)), str(failed), *shown)


if __name__ == "__main__":
    run(main)

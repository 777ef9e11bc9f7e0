"""Four-step workflows a second through a queue: Holdfast beside the ceiling and DBOS, in turns, on one server.

Each round runs every case once. Ratios are made inside a round and their median is taken, because a stranger's load comes and goes.
"""

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import ceiling, dbos_peer, holdfast
from benchmarks.report import Report, Table, Verdict
from benchmarks.server import Server
from benchmarks.stretch import Mode, Peer, Stretch, run

Say = Callable[[str], None]


@dataclass(frozen=True)
class Size:
    """How much work a run does."""

    rounds: int = 3
    live: int = 2000
    drain: int = 8000
    dbos: int = 600

    def count(self, peer: Peer, mode: Mode) -> int:
        return self.dbos if peer.name == "dbos" else self.drain if mode == "drain" else self.live


QUICK = Size(rounds=1, live=1000, drain=3000, dbos=200)


TITLES: dict[Mode, str] = {
    "live": "enqueued live, a commit each",
    "shared": "enqueued live by callers who share commits",
    "drain": "drained",
}


@dataclass(frozen=True)
class Case:
    peer: Peer
    mode: Mode
    workers: int = 1
    rider: bool = False

    @property
    def title(self) -> str:
        riding = " + rider" if self.rider else ""
        return f"{self.peer.name}{riding}" if self.workers == 1 else f"{self.peer.name}{riding}, {self.workers} workers"


def measure(server: Server, state_dir: Path, size: Size, say: Say) -> Report:
    """Run all rounds. DBOS is left out, with a note, when it can't be installed."""
    report = Report("throughput")
    cases = _cases(state_dir, report)
    found: dict[Case, list[Stretch]] = {case: [] for case in cases}
    for number in range(size.rounds):
        for case in cases:
            count = size.count(case.peer, case.mode)
            stretch = run(server, case.peer, case.mode, count, state_dir / "logs", case.workers, case.rider)
            found[case].append(stretch)
            say(f"round {number + 1}/{size.rounds} {case.mode} {case.title}: {stretch.rate:,.0f} wf/s (load {stretch.load:.1f})")
    report.figures["stretches"] = [asdict(s) | {"rate": s.rate} for each in found.values() for s in each]
    for mode in TITLES:
        _tabulate(report, mode, size, {case: each for case, each in found.items() if case.mode == mode})
    return report


def _cases(state_dir: Path, report: Report) -> list[Case]:
    bare, ours = ceiling.ceiling(), holdfast.holdfast()
    others: list[Peer] = []
    try:
        others.append(dbos_peer.dbos(state_dir))
    except dbos_peer.NoDbos as error:
        report.notes.append(f"{error}; so there is no comparison with DBOS here")
    cases: list[Case] = []
    for mode in TITLES:
        cases += [Case(bare, mode), Case(ours, mode), Case(bare, mode, rider=True), Case(ours, mode, rider=True)]
        cases += [Case(ours, mode, workers=2), Case(ours, mode, workers=2, rider=True)] if mode != "shared" else []
        cases += [Case(peer, mode) for peer in others if mode != "shared"]
    return cases


def _tabulate(report: Report, mode: Mode, size: Size, found: dict[Case, list[Stretch]]) -> None:
    title = f"{size.drain if mode == 'drain' else size.live:,} workflows {TITLES[mode]}"
    columns = ["", "wf/s", "range", "of ceiling", "x DBOS", "commits/wf", "WAL kB/wf", "worker ms/wf", "PG ms/wf"]
    rows = [_row(case, each, found) for case, each in found.items()]
    report.tables.append(Table(f"{title}, 4 steps each, one worker process unless said; median of {size.rounds}", columns, rows))
    for case, each in found.items():
        rate = statistics.median(s.rate for s in each)
        report.figures[f"{mode} {case.title} wf/s"] = round(rate)
        report.bars[f"{mode}: {case.title}"] = rate
        if case.peer.name == "holdfast" and case.workers == 1 and mode != "shared":
            _judge(report, case, each, found)


def _row(case: Case, each: list[Stretch], found: dict[Case, list[Stretch]]) -> list[str]:
    rates = [s.rate for s in each]
    ours = case.peer.name == "holdfast"
    share, times = (_against("ceiling", case, each, found), _against("dbos", case, each, found)) if ours else (None, None)
    return [
        case.title,
        f"{statistics.median(rates):,.0f}",
        f"{min(rates):,.0f}-{max(rates):,.0f}",
        "" if share is None else f"{share:.2f}",
        "" if times is None else f"{times:.1f}",
        _median([s.commits / s.workflows for s in each], 2),
        _median([s.wal_bytes / s.workflows / 1024 for s in each], 2),
        _median([s.worker_cpu_s / s.workflows * 1000 for s in each], 3),
        _median([s.server_cpu_s / s.workflows * 1000 for s in each if s.server_cpu_s is not None], 3),
    ]


def _against(peer: str, case: Case, each: list[Stretch], found: dict[Case, list[Stretch]]) -> float | None:
    """The median over the rounds of our rate by the peer's in the same round; None when the peer did not run."""
    rider = case.rider and peer == "ceiling"  # DBOS has no riders: it is compared without
    theirs = next((s for c, s in found.items() if c.peer.name == peer and c.rider is rider), None)
    return None if theirs is None else statistics.median(a.rate / b.rate for a, b in zip(each, theirs, strict=True))


def _judge(report: Report, case: Case, each: list[Stretch], found: dict[Case, list[Stretch]]) -> None:
    least, riding = (0.5, " with a rider a step") if case.rider else (0.6, "")
    share, times = _against("ceiling", case, each, found), _against("dbos", case, each, found)
    if share is not None:
        report.verdicts.append(Verdict(f"{case.mode}{riding}: at least {least} of the ceiling", f"{share:.2f}", share >= least))
    if times is not None and not case.rider:
        report.verdicts.append(Verdict(f"{case.mode}: at least 20 times DBOS", f"{times:.1f}", times >= 20))


def _median(values: list[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f}" if values else ""

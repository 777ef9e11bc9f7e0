"""Figures as tables, and what makes them mean something: the machine, the server, the date and the load of strangers."""

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.server import Server


@dataclass(frozen=True)
class Table:
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def text(self) -> str:
        """A Markdown table, columns aligned so that a terminal shows it well too."""
        cells = [list(self.columns), *map(list, self.rows)]
        widths = [max(len(row[n]) for row in cells) for n in range(len(self.columns))]

        def drawn(row: Sequence[str]) -> str:
            first, *rest = (
                cell.ljust(w) if n == 0 else cell.rjust(w) for n, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
            return "| " + " | ".join([first, *rest]) + " |"

        rule = "|" + "|".join("-" * (w + 2) if n == 0 else "-" * (w + 1) + ":" for n, w in enumerate(widths)) + "|"
        return "\n".join([f"**{self.title}**", "", drawn(cells[0]), rule, *map(drawn, cells[1:])])


@dataclass(frozen=True)
class Verdict:
    """One promise in figures, and whether this run kept it."""

    promise: str
    measured: str
    kept: bool


@dataclass(frozen=True)
class Plot:
    """One picture of bars, to be kept as NAME.svg."""

    name: str
    title: str
    unit: str
    bars: dict[str, float]


@dataclass
class Report:
    """What one benchmark found."""

    name: str
    tables: list[Table] = field(default_factory=list[Table])
    verdicts: list[Verdict] = field(default_factory=list[Verdict])
    notes: list[str] = field(default_factory=list[str])
    figures: dict[str, Any] = field(default_factory=dict[str, Any])
    bars: dict[str, float] = field(default_factory=dict[str, float])
    plots: list[Plot] = field(default_factory=list[Plot])

    def add(self, part: "Report") -> None:
        """Take in what a part of this benchmark found, under the part's name."""
        self.tables += part.tables
        self.verdicts += part.verdicts
        self.notes += part.notes
        self.plots += part.plots
        self.figures[part.name] = part.figures

    def text(self) -> str:
        parts = [table.text() for table in self.tables]
        if self.verdicts:
            rows = [[v.promise, v.measured, "kept" if v.kept else "MISSED"] for v in self.verdicts]
            parts.append(Table(f"{self.name}: promises", ["promise", "measured", ""], rows).text())
        parts += [f"Note: {note}" for note in self.notes]
        return "\n\n".join(parts)

    def plain(self) -> dict[str, Any]:
        return {"figures": self.figures, "verdicts": [asdict(v) for v in self.verdicts], "notes": self.notes}


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def surroundings(server: Server) -> dict[str, str]:
    """When, on what and against what the figures were taken."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{_processor()}, {os.cpu_count()} cores, {_memory_gb()} GB, {platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "postgresql": f"{server.version}, shared_buffers {server.shared_buffers}, fsync and synchronous_commit on",
        "load before": f"{os.getloadavg()[0]:.2f}",
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory_gb() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)

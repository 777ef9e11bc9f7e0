"""The picture of an endurance soak."""

from collections.abc import Callable, Sequence

from benchmarks.plot import Panel, Points, panels
from bin.soaks.samples import HOT, MB, MINUTE_S, Sample

RED, GREEN, BLUE, GREY = "#b3402e", "#2f6f5e", "#3a5f9e", "#b9c2be"
MARKS = {"failover": RED, "crash database": "#d9902f"}


def draw(samples: Sequence[Sample], lasting: Sequence[str], happened: Sequence[tuple[float, str]]) -> str:
    """Memory, sizes, dead rows and rates over the minutes; lines where the database failed over (red) or crashed (orange)."""

    def line(value: Callable[[Sample], float | None]) -> Points:
        return [(sample.at_s / MINUTE_S, y) for sample in samples if (y := value(sample)) is not None]

    def memory(name: str) -> Points:
        return line(lambda sample: sample.processes[name].memory / MB if name in sample.processes else None)

    names = sorted({name for sample in samples for name in sample.processes} - set(lasting))
    colours = {**dict.fromkeys(names, GREY), **dict(zip(lasting, (BLUE, GREEN), strict=True))}
    marks = [(at_s / MINUTE_S, MARKS.get(what, "#e4e8e6")) for at_s, what in happened]
    return panels(
        "Endurance: minutes, with failovers (red), crashes of the database (orange) and other trouble (grey)",
        [
            Panel("memory, MB", {name: (colour, memory(name)) for name, colour in colours.items()}),
            Panel(
                "tables, MB",
                {"all": (BLUE, line(lambda sample: sample.bytes / MB if sample.bytes is not None else None))},
            ),
            Panel(
                "dead rows, thousands",
                {
                    "all": (
                        GREY,
                        line(
                            lambda sample: sum(table.dead for table in sample.tables.values()) / 1000 if sample.tables else None
                        ),
                    ),
                    HOT[0]: (GREEN, line(lambda sample: sample.tables[HOT[0]].dead / 1000 if HOT[0] in sample.tables else None)),
                },
            ),
            Panel(
                "runs a second",
                {
                    "accepted": (BLUE, line(lambda sample: sample.accepted_per_s)),
                    "ended": (GREEN, line(lambda sample: sample.ended_per_s)),
                },
            ),
        ],
        marks,
    )

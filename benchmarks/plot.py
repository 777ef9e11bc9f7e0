"""Plots as small hand-written SVG, bars and lines, so that figures can be looked at without any plotting library."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

ROW, BAR, LEFT, WIDTH = 26, 16, 300, 480


def bars(title: str, unit: str, values: Mapping[str, float]) -> str:
    """One horizontal bar a value, longest at full width."""
    most = max(values.values(), default=1) or 1
    height = ROW * len(values) + 48
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 110}" height="{height}" font-family="sans-serif" font-size="13">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        f'<text x="12" y="24" font-size="15" font-weight="bold" fill="#1a1a1a">{escape(title)}</text>',
    ]
    for n, (name, value) in enumerate(values.items()):
        y = 40 + n * ROW
        long = max(1.0, value / most * WIDTH)
        colour = "#2f6f5e" if "holdfast" in name else "#9aa5a0"
        figure = f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
        parts += [
            f'<text x="{LEFT - 8}" y="{y + 13}" text-anchor="end" fill="#1a1a1a">{escape(name)}</text>',
            f'<rect x="{LEFT}" y="{y}" width="{long:.1f}" height="{BAR}" fill="{colour}"/>',
            f'<text x="{LEFT + long + 6:.1f}" y="{y + 13}" fill="#1a1a1a">{figure} {escape(unit)}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])


def write(folder: Path, name: str, title: str, unit: str, values: Mapping[str, float]) -> Path:
    """Write NAME.svg into the folder; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.svg"
    path.write_text(bars(title, unit, values))
    return path


Points = Sequence[tuple[float, float]]
PANEL, GAP, PLOT_LEFT, PLOT_WIDTH = 110, 46, 60, 760


@dataclass(frozen=True)
class Panel:
    """Lines over the same x, from zero up: name to colour and points. title: what it is, with its unit."""

    title: str
    lines: Mapping[str, tuple[str, Points]]


def panels(title: str, shown: Sequence[Panel], marks: Sequence[tuple[float, str]] = ()) -> str:
    """Panels below each other over one x. marks: places in x that all of them show, with a colour."""
    most_x = max((x for panel in shown for _, points in panel.lines.values() for x, _ in points), default=1) or 1
    height = 48 + len(shown) * (PANEL + GAP)
    width = PLOT_LEFT + PLOT_WIDTH + 180
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        f'<text x="12" y="22" font-size="15" font-weight="bold" fill="#1a1a1a">{escape(title)}</text>',
    ]
    for number, panel in enumerate(shown):
        parts += _panel(panel, 52 + number * (PANEL + GAP), most_x, marks)
    return "\n".join([*parts, "</svg>", ""])


def _panel(panel: Panel, top: int, most_x: float, marks: Sequence[tuple[float, str]]) -> list[str]:
    most = max((y for _, points in panel.lines.values() for _, y in points), default=1) or 1
    bottom = top + PANEL

    def x_of(x: float) -> float:
        return PLOT_LEFT + x / most_x * PLOT_WIDTH

    parts = [f'<text x="{PLOT_LEFT}" y="{top - 6}" fill="#1a1a1a">{escape(panel.title)}</text>']
    parts += [
        f'<line x1="{x_of(x):.1f}" y1="{top}" x2="{x_of(x):.1f}" y2="{bottom}" stroke="{colour}" stroke-width="1"/>'
        for x, colour in marks
    ]
    parts += [
        f'<polyline points="{PLOT_LEFT},{top} {PLOT_LEFT},{bottom} {PLOT_LEFT + PLOT_WIDTH},{bottom}" fill="none" stroke="#1a1a1a"/>',
        f'<text x="{PLOT_LEFT - 6}" y="{top + 10}" text-anchor="end" fill="#1a1a1a">{most:,.3g}</text>',
        f'<text x="{PLOT_LEFT - 6}" y="{bottom}" text-anchor="end" fill="#1a1a1a">0</text>',
        f'<text x="{PLOT_LEFT + PLOT_WIDTH}" y="{bottom + 14}" text-anchor="end" fill="#1a1a1a">{most_x:,.3g}</text>',
    ]
    for number, (name, (colour, points)) in enumerate(panel.lines.items()):
        path = " ".join(f"{x_of(x):.1f},{bottom - y / most * PANEL:.1f}" for x, y in points)
        parts += [
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>',
            f'<text x="{PLOT_LEFT + PLOT_WIDTH + 10}" y="{top + 12 + number * 16}" fill="{colour}">{escape(name)}</text>',
        ]
    return parts

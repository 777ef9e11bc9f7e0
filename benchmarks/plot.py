"""Bar plots as small hand-written SVG, so that figures can be looked at without any plotting library."""

from collections.abc import Mapping
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

"""Colours can be told apart: text from its ground at 4.5 to 1, what is drawn at 3 to 1, in both themes."""

import re
from itertools import product

import pytest

from api.console.assets import FOLDER

TOKEN = re.compile(r"--([\w-]+): (?:light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)|(#[0-9a-f]{6}));")
THEMES = ("light", "dark")
GROUNDS = ("bg", "surface", "raised", "sunken")
TEXT = ("text", "text-2", "text-3", "accent", "ok", "run", "wait", "bad", "mute")
TONES = ("ok", "run", "wait", "bad")
DRAWN = ("ctl", "ok-fill", "run-fill", "wait-fill", "bad-fill", "mute-fill", "accent-fill")


def tokens() -> dict[str, tuple[str, str]]:
    """Every colour by its name: light, dark."""
    found = TOKEN.findall((FOLDER / "css/tokens.css").read_text())
    return {name: (light or both, dark or both) for name, light, dark, both in found}


COLOURS = tokens()


def luminance(colour: str) -> float:
    def linear(channel: float) -> float:
        return channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4

    red, green, blue = (linear(int(colour[at : at + 2], 16) / 255) for at in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_black_on_white_is_21_to_1() -> None:
    assert round(contrast("#000000", "#ffffff"), 2) == 21.0


@pytest.mark.parametrize("theme", THEMES)
def test_text_can_be_read_on_every_ground(theme: str) -> None:
    at = THEMES.index(theme)
    pairs = [*product(TEXT, GROUNDS), *((tone, f"{tone}-tint") for tone in TONES), ("accent", "accent-tint")]
    pairs += [("text", f"{tone}-tint") for tone in TONES] + [
        ("text", "accent-tint"),
        ("text-2", "mute-tint"),
        ("on-accent", "accent-fill"),
    ]
    weak = {pair: round(contrast(COLOURS[pair[0]][at], COLOURS[pair[1]][at]), 2) for pair in pairs}
    assert {pair: ratio for pair, ratio in weak.items() if ratio < 4.5} == {}


@pytest.mark.parametrize("theme", THEMES)
def test_shapes_and_borders_of_controls_can_be_seen(theme: str) -> None:
    at = THEMES.index(theme)
    weak = {
        pair: round(contrast(COLOURS[pair[0]][at], COLOURS[pair[1]][at]), 2) for pair in product(DRAWN, ("surface", "raised"))
    }
    assert {pair: ratio for pair, ratio in weak.items() if ratio < 3} == {}

"""Draws docs/images/recall.svg from benchmarks/results/recall.json: recall's time and quality.

.venv/bin/python -m benchmarks.plot
"""

import json
import math
from collections.abc import Iterable
from pathlib import Path

from benchmarks.results import FOLDER

TARGET = Path(__file__).parent.parent / "docs" / "images" / "recall.svg"
COLOURS = {
    "recall": "#0b6e4f",
    "exact scan": "#555555",
    "planner's choice": "#9aa7b1",
    "HNSW and a user filter": "#c1440e",
    "mem0": "#7b2d8b",
    "langchain-postgres": "#1f6fb2",
    "llama-index": "#b8860b",
}
WIDTH, HEIGHT, LEFT, TOP, BOTTOM, GAP = 900, 380, 60, 40, 90, 80
PANEL = (WIDTH - LEFT - GAP) / 2 - 10
DECADES = (0, 3)  # 1 ms to 1 s
Figures = dict[str, dict[str, dict[str, float]]]


def main() -> None:
    """Write the image."""
    figures: Figures = json.loads((FOLDER / "recall.json").read_text())["figures"]
    TARGET.write_text(picture(figures))


def picture(figures: Figures) -> str:
    """The SVG: two panels and their key."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
    parts = [
        f'{head} font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        *panel(figures, 0, "p50_ms", "p50, ms", [1, 10, 100, 1000]),
        *panel(figures, 1, "found", "found of the five nearest", [0, 0.25, 0.5, 0.75, 1]),
        *key(figures),
        "</svg>\n",
    ]
    return "\n".join(parts)


def panel(
    figures: Figures, number: int, name: str, title: str, marks: list[float]
) -> Iterable[str]:
    """The axes, and a line for each way."""
    left = LEFT + number * (PANEL + GAP)
    heading = f"{title}, by the user's messages"
    yield f'<text x="{left}" y="{TOP - 16}" font-weight="bold">{heading}</text>'
    for mark in marks:
        y = height_of(mark, name)
        yield f'<line x1="{left}" x2="{left + PANEL}" y1="{y:.1f}" y2="{y:.1f}" stroke="#dddddd"/>'
        yield f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{mark:g}</text>'
    for size in figures:
        x = left + across(figures, size)
        y = HEIGHT - BOTTOM + 18
        yield f'<text x="{x:.1f}" y="{y}" text-anchor="middle">{int(size):,}</text>'
    for way, colour in shown(figures).items():
        points = [
            f"{left + across(figures, size):.1f},{height_of(ways[way][name], name):.1f}"
            for size, ways in figures.items()
        ]
        line = f'fill="none" stroke="{colour}" stroke-width="2"'
        yield f'<polyline points="{" ".join(points)}" {line}/>'


def across(figures: Figures, size: str) -> float:
    """The x coordinate of a size, logarithmic."""
    first, last = (math.log(int(list(figures)[place])) for place in (0, -1))
    return PANEL * (math.log(int(size)) - first) / (last - first)


def height_of(value: float, name: str) -> float:
    """The y coordinate: logarithmic for milliseconds, linear for shares."""
    share = value
    if name.endswith("ms"):
        share = (math.log10(max(value, 1)) - DECADES[0]) / (DECADES[1] - DECADES[0])
    return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)


def shown(figures: Figures) -> dict[str, str]:
    """The colours of the ways in this run."""
    (ways, *_) = figures.values()
    return {way: colour for way, colour in COLOURS.items() if way in ways}


def key(figures: Figures) -> Iterable[str]:
    """The key: the name of each colour."""
    for number, (way, colour) in enumerate(shown(figures).items()):
        x, y = LEFT + number % 3 * 270, HEIGHT - 42 + number // 3 * 22
        yield f'<line x1="{x}" x2="{x + 24}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="3"/>'
        yield f'<text x="{x + 32}" y="{y + 4}">{way}</text>'


if __name__ == "__main__":
    main()

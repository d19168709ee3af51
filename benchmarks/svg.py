"""A little of SVG: bars in panels, and lines in axes. No more than the pictures here need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

Points = Sequence[tuple[float, float]]
WIDTH = 720
#: Told apart also by those who see no red or no green (Okabe and Ito's); the first is ours.
COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7f7f7f", "#8c6d31")
#: Read on a white page and on a dark one.
STYLE = (
    "text{font:12px sans-serif;fill:#24292f}.h{font-weight:bold}.q{fill:#57606a}"
    ".a{stroke:#8c959f;stroke-opacity:.5}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.q{fill:#9198a1}}"
)


def plain(value: float) -> str:
    """Three digits that mean something."""
    for limit, places in ((1, 3), (10, 2), (100, 1)):
        if value < limit:
            return f"{value:.{places}f}"
    return f"{value:,.0f}"


def _document(title: str, height: int, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">'
        f"<title>{escape(title)}</title><style>{STYLE}</style>"
    )
    return "\n".join([head, _text(10, 18, title, "h"), *parts, "</svg>", ""])


def _text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    style = f' class="{kind}"' if kind else ""
    place = f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text x="{x:.0f}" y="{y:.0f}"{style}{place}>{escape(words)}</text>'


def bars(title: str, panels: Mapping[str, Mapping[str, float]]) -> str:
    """Panels below each other, each with a scale of its own: panel to label to value."""
    left, room, step = 130, WIDTH - 220, 17
    parts, y = [], 44
    for heading, values in panels.items():
        parts.append(_text(10, y, heading, "q"))
        longest = max(values.values(), default=0.0) or 1.0
        for number, (label, value) in enumerate(values.items()):
            y += step
            width = max(1.0, value / longest * room)
            colour = COLOURS[0] if number == 0 else COLOURS[6]
            parts.append(_text(left - 8, y, label, anchor="end"))
            parts.append(
                f'<rect x="{left}" y="{y - 10}" width="{width:.1f}" height="12" fill="{colour}"/>'
            )
            parts.append(_text(left + width + 6, y, plain(value)))
        y += 28
    return _document(title, y - 12, parts)


def lines(title: str, across: str, up: str, series: Mapping[str, Points]) -> str:
    """Both axes begin at 0; ``series``: name to points, in the order of their x."""
    left, top, right, bottom = 60, 56, WIDTH - 170, 330
    points = [point for line in series.values() for point in line]
    widest = max((x for x, _ in points), default=0.0) or 1.0
    highest = round_up(max((y for _, y in points), default=0.0)) or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        return left + x / widest * (right - left), bottom - y / highest * (bottom - top)

    parts = [_text(10, 42, up, "q"), _text(right, bottom + 34, across, "q", "end")]
    for part in range(5):
        x, y = place(0, highest * part / 4)
        parts.append(f'<path class="a" d="M{left} {y:.0f}H{right}"/>')
        parts.append(_text(left - 6, y + 4, f"{highest * part / 4:,.0f}", "q", "end"))
    for tick in _ticks([x for x, _ in points]):
        parts.append(_text(place(tick, 0)[0], bottom + 17, f"{tick:,.0f}", "q", "middle"))
    for number, (name, line) in enumerate(series.items()):
        parts += _line(number, name, [place(x, y) for x, y in line])
    return _document(title, bottom + 44, parts)


def _line(number: int, name: str, points: Points) -> list[str]:
    colour = COLOURS[number % len(COLOURS)]
    drawn = " ".join(f"{x:.0f},{y:.0f}" for x, y in points)
    width = 3 if number == 0 else 1.5
    y = 66 + number * 20
    return [
        f'<polyline points="{drawn}" fill="none" stroke="{colour}" stroke-width="{width}"/>',
        f'<rect x="{WIDTH - 150}" y="{y - 9}" width="14" height="10" fill="{colour}"/>',
        _text(WIDTH - 130, y, name),
    ]


def round_up(value: float) -> float:
    """To a whole number whose quarters read well."""
    size = 1.0
    while size * 20 < value:
        size *= 10
    for step in (1, 2, 4, 8, 12, 16, 20):
        if value <= step * size:
            return step * size
    return value


def _ticks(places: Sequence[float]) -> list[float]:
    """All of them when they are few, else a handful of round ones."""
    different = sorted(set(places))
    if len(different) <= 6:
        return different
    return [different[-1] * part / 4 for part in range(5)]

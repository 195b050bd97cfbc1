"""Plots in SVG: rows of equal height, each a small picture as wide as its cell.

Places across are in percent and places down in pixels, so that nothing is distorted at any width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from blocks._report._html import Markup, element, joined
from blocks._report._numbers import unit_of

LEAST = 1e-30  # what is less is nothing
BEFORE = 2.0  # the place of 0 before decades, in percent
TICKS = 7  # at most, on a logarithmic scale
HUES, SHADES = 5, 3  # that page.css has
# The shapes of marks, within 5 pixels of their middle.
SHAPES = (
    "M-3.9,0a3.9,3.9 0 1 0 7.8,0a3.9,3.9 0 1 0 -7.8,0z",
    "M-3.5,-3.5h7v7h-7z",
    "M0,-4.8L4.8,0L0,4.8L-4.8,0z",
    "M0,4.5L4.4,-3.3H-4.4z",
    "M0,-4.5L4.4,3.3H-4.4z",
    "M-1.4,-4.2h2.8v2.8h2.8v2.8h-2.8v2.8h-2.8v-2.8h-2.8v-2.8h2.8z",
    "M-4.6,-1.7h9.2v3.4h-9.2z",
    "M-1.7,-4.6h3.4v9.2h-3.4z",
)


@dataclass(frozen=True)
class Look:
    """How a contender is drawn: a hue for its framework, a shade and a shape for its engine too;
    what is compiled is hollow. So up to eight of each kind differ without colours too.
    """

    hue: int
    shade: int
    shape: int
    hollow: bool

    @property
    def class_(self) -> str:
        return f"h{self.hue % HUES} e{self.shade % SHADES}"


def looks(rows: Sequence[dict[str, Any]]) -> list[Look]:
    """How each contender is drawn, by its backend, engine and mode."""
    engines: dict[str, list[Any]] = {}
    for row in rows:
        known = engines.setdefault(row["backend"], [])
        if row["engine"] not in known:
            known.append(row["engine"])
    stacks = [(backend, engine) for backend, known in engines.items() for engine in known]
    found: list[Look] = []
    taken: set[tuple[int, bool]] = set()
    for row in rows:
        backend, engine = row["backend"], row["engine"]
        shape, hollow = stacks.index((backend, engine)) % len(SHAPES), row["mode"] == "compiled"
        free = ((n % len(SHAPES), hollow) for n in range(shape, shape + len(SHAPES)))
        shape, _ = next((one for one in free if one not in taken), (shape, hollow))
        taken.add((shape, hollow))
        hue, shade = list(engines).index(backend), engines[backend].index(engine)
        found.append(Look(hue, shade, shape, hollow))
    return found


@dataclass(frozen=True)
class Scale:
    """Numbers to percent of the width, by their logarithm or not; what is not finite is last, and
    where there are decades, what lies before them has a place of its own.
    """

    low: float
    high: float
    log: bool
    ticks: tuple[float, ...]

    def at(self, value: float) -> float:
        if value == math.inf:
            return 99.0
        if self.log:
            if value < self.low:
                return BEFORE
            low, high, value = math.log(self.low), math.log(self.high), math.log(value)
        else:
            low, high = self.low, self.high
        first = 12 if self.log else 5
        return round(first + (95 - first) * (value - low) / (high - low), 2)


def decades(values: Sequence[float]) -> Scale:
    """A logarithmic scale around all positive values, from and to 1, 2 or 5 of a power of ten."""
    found = [max(v, LEAST) for v in values if 0 < v < math.inf] or [1e-8, 1e-5]
    first, last = (math.floor(math.log10(pick(found))) for pick in (min, max))
    steps = [float(f"{n}e{power}") for power in range(first - 1, last + 2) for n in (1, 2, 5)]
    low = max(step for step in steps if step <= min(found))
    high = min(step for step in steps if step >= max(found) and step > 2 * low)
    inside = [step for step in steps if low <= step <= high]
    if len(inside) > TICKS:
        powers = [step for step in inside if f"{step:e}".startswith("1.0")]
        inside = powers[:: math.ceil(len(powers) / TICKS)]
    return Scale(low, high, True, tuple(inside))


def linear(top: float) -> Scale:
    """A scale from 0 to a round number."""
    top = max(top, LEAST)
    power = 10.0 ** math.floor(math.log10(top / 4))
    step = next(power * n for n in (1, 2, 2.5, 5, 10) if power * n * 5 >= top)
    count = math.ceil(top / step)
    return Scale(0, step * count, False, tuple(step * i for i in range(count + 1)))


def fitting(values: Sequence[float]) -> Scale:
    """Linear, but logarithmic where the largest is more than twenty times the smallest."""
    return decades(values) if max(values) > 20 * min(values) > 0 else linear(max(values))


def picture(*content: Any, height: int = 24, class_: str = "row", label: str = "") -> Markup:
    hidden = {"role": "img", "aria_label": label} if label else {"aria_hidden": "true"}
    return element("svg", *content, class_=class_, width="100%", height=height, **hidden)


def mark(look: Look, at: float | None = None, y: Any = 0, title: str = "") -> Markup:
    """The mark of a contender, at a percentage of the width."""
    inner = element("title", title) if title else ""
    kind = "hollow" if look.hollow else "mark"
    shape = element("path", inner, d=SHAPES[look.shape], class_=f"{kind} {look.class_}")
    if at is None:
        return shape
    return element("svg", shape, x=f"{at}%", y=y, overflow="visible", width=1, height=1)


def badge(look: Look) -> Markup:
    """The mark beside a name."""
    return element(
        "svg",
        mark(look),
        class_="badge",
        width=12,
        height=12,
        viewBox="-6 -6 12 12",
        aria_hidden="true",
    )


def line(x1: float, y1: Any, x2: float, y2: Any, class_: str) -> Markup:
    return element("line", x1=f"{x1}%", y1=y1, x2=f"{x2}%", y2=y2, class_=class_)


def bar(start: float, end: float, y: float, height: float, class_: str, title: str = "") -> Markup:
    inner = element("title", title) if title else ""
    width = f"{max(0.0, round(end - start, 2))}%"
    return element("rect", inner, x=f"{start}%", y=y, width=width, height=height, class_=class_)


def grid(scale: Scale, height: Any = "100%") -> Markup:
    return joined(
        *(line(scale.at(tick), 0, scale.at(tick), height, "grid") for tick in scale.ticks)
    )


def axis(scale: Scale, written: Any, *more: tuple[float, str]) -> Markup:
    """The numbers under a plot, and more words at places of their own."""
    places = [(scale.at(tick), written(tick)) for tick in scale.ticks]
    words = (
        element("text", words, x=f"{at}%", y=13, class_="tick") for at, words in (*more, *places)
    )
    return picture(*words, height=18, class_="axis")


def in_seconds(scale: Scale) -> Callable[[float], str]:
    """How ticks are written: in the unit of the last, or each in its own if there are decades."""
    return lambda tick: amount(tick, tick if scale.log else scale.high)


def amount(seconds: float, top: float) -> str:
    unit, factor = unit_of(top)
    return f"{seconds * factor:g} {unit}" if seconds else "0"


def in_bytes(scale: Scale) -> Callable[[float], str]:
    return lambda tick: f"{tick / 1e6:,g} MB" if tick else "0"


def strip(look: Look, seconds: Sequence[float], middle: Any, median: float, scale: Scale) -> Markup:
    """Each round a dot, the middle half a bar, the median a line with the contender's mark."""
    low, high = map(scale.at, middle)
    dots = (
        element("circle", cx=f"{scale.at(s)}%", cy=14 + 5 * ((i % 3) - 1), r=1.8, class_="dot")
        for i, s in enumerate(seconds)
    )
    return picture(
        grid(scale),
        bar(low, high, 6, 16, f"middle {look.class_}"),
        *dots,
        line(scale.at(median), 3, scale.at(median), 25, "median"),
        mark(look, scale.at(median), 14),
        height=28,
    )


def stacked(parts: Sequence[tuple[str, float, str]], scale: Scale) -> Markup:
    """Bars one after the other: each a class, an amount and its words."""
    bars, total = [], 0.0
    for class_, amount, words in parts:
        bars.append(bar(scale.at(total), scale.at(total + amount), 5, 16, class_, words))
        total += amount
    return picture(grid(scale), *bars, height=26)

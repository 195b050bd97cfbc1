"""Numbers of a comparison: middles, spreads, and how people write them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

from blocks._comparison import three
from blocks._limits import counted

UNITS = (("s", 1), ("ms", 1e3), ("µs", 1e6))


@dataclass(frozen=True)
class Times:
    """Seconds a step, of one contender: each round, the middle, and where the middle half lies."""

    name: str
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.seconds)

    @property
    def middle(self) -> tuple[float, float]:
        """The first and the third quartile."""
        if len(self.seconds) < 2:
            return self.median, self.median
        low, _, high = quantiles(self.seconds, n=4, method="inclusive")
        return low, high

    def overlaps(self, other: Times) -> bool:
        """Whether the middle halves have anything in common."""
        return self.middle[0] <= other.middle[1] and other.middle[0] <= self.middle[1]


def measures(data: dict[str, Any]) -> dict[str, list[Times]]:
    """What was timed, in words, to the times of every contender that has any."""
    rows = data["contenders"]
    found = {
        f"Outputs of {counted(size, 'example')}": [
            (r["name"], r["forward"].get(str(size))) for r in rows
        ]
        for size in data["batch_sizes"]
    }
    found[f"A training step on {counted(data['training_batch'], 'example')}"] = [
        (r["name"], r["training"]) for r in rows
    ]
    return {
        what: times
        for what, pairs in found.items()
        if (times := [Times(name, tuple(seconds)) for name, seconds in pairs if seconds])
    }


def share(figure: dict[str, Any]) -> float:
    """A relative difference; null is what is not finite."""
    value = figure["relative"]
    return math.inf if value is None else float(value)


def beyond(figure: dict[str, Any]) -> bool:
    """Whether a difference is larger than is allowed."""
    return not share(figure) <= figure["tolerance"]


def badness(figure: dict[str, Any]) -> float:
    """How far a difference uses up what is allowed: 1 is the limit."""
    return share(figure) / figure["tolerance"] if figure["tolerance"] else share(figure)


def sized(value: float) -> str:
    """A relative difference, or what is allowed."""
    if value == 0:
        return "0"
    return f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e+") if value < math.inf else "∞"


def duration(seconds: float) -> str:
    """Seconds in three digits and the unit that fits."""
    unit, factor = unit_of(seconds)
    return f"{three(seconds * factor)} {unit}"


def unit_of(seconds: float) -> tuple[str, float]:
    """The largest unit that there is one of, and how many of it are a second."""
    return next((pair for pair in UNITS if seconds * pair[1] >= 1), UNITS[-1])

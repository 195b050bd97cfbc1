"""What it costs: times, what passes before the first step, and memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from blocks._report._findings import starting
from blocks._report._html import Markup, element, joined
from blocks._report._numbers import duration, measures, memory
from blocks._report._plots import (
    Scale,
    axis,
    badge,
    fitting,
    in_bytes,
    in_seconds,
    linear,
    stacked,
    strip,
)
from blocks._report._tables import Row, folded, name_of, table

PARTS = {
    "import": "importing the framework",
    "build": "building the model",
    "forward": "compiling the outputs",
    "training": "compiling the training step",
}


def timings(data: Row) -> Markup:
    """A plot for each step that was timed."""
    numbers = {row["name"]: i for i, row in enumerate(data["contenders"])}
    made = []
    for what, times in measures(data).items():
        scale = fitting([s for t in times for s in t.seconds])
        rows = [
            element(
                "tr",
                element("th", badge(numbers[t.name]), " ", t.name, scope="row"),
                element(
                    "td",
                    strip(numbers[t.name], t.seconds, t.middle, t.median, scale),
                    class_="plot",
                ),
                element(
                    "td",
                    duration(t.median),
                    element("small", f" {duration(t.middle[0])} - {duration(t.middle[1])}"),
                ),
            )
            for t in times
        ]
        made.append(plotted(what, rows, scale, in_seconds, "median and middle half"))
    return joined(*made)


def plotted(
    what: str, rows: Sequence[Markup], scale: Scale, ticks: Callable[[Scale], Any], last: str
) -> Markup:
    """A plot with its heading and scale."""
    kind = "logarithmic scale" if scale.log else "linear scale from 0"
    numbers = element(
        "tr",
        element("td"),
        element("td", axis(scale, ticks(scale)), class_="plot"),
        element("td"),
        class_="scale",
    )
    return element(
        "div",
        element("h3", what, " ", element("small", kind)),
        table(["", "", last], [*rows, numbers], class_="rows"),
        class_="figure",
    )


def start(rows: Sequence[Row]) -> Markup:
    """What passes before the first step is fast, in parts."""
    ready = [(i, row, total) for i, row in enumerate(rows) if (total := starting(row)) is not None]
    if not ready:
        return element("p", "No contender came so far.")
    scale = linear(max(total for *_, total in ready))
    lines = [
        element(
            "tr",
            element("th", name_of(i, row), scope="row"),
            element(
                "td",
                stacked(
                    [
                        (f"part s{n}", seconds, f"{PARTS[key]}: {duration(seconds)}")
                        for n, (key, seconds) in enumerate(starts(row).items())
                    ],
                    scale,
                ),
                class_="plot",
            ),
            element("td", duration(total)),
        )
        for i, row, total in ready
    ]
    keyed = (
        element("span", element("i", class_=f"swatch s{n}"), " ", words)
        for n, words in enumerate(PARTS.values())
    )
    cells = (
        element(
            "tr",
            element("th", name_of(i, row), scope="row"),
            *(element("td", duration(seconds)) for seconds in starts(row).values()),
            element("td", duration(total)),
        )
        for i, row, total in ready
    )
    return joined(
        element("p", *keyed, class_="legend"),
        plotted("Until all steps are compiled", lines, scale, in_seconds, "together"),
        folded(
            "The numbers",
            table(["", *PARTS.values(), "together"], cells, class_="numbers"),
        ),
    )


def starts(row: Row) -> dict[str, float]:
    """The parts of a start in seconds; what was not needed is 0."""
    compiling = row["compile_seconds"]
    found = {
        "import": row["import_seconds"],
        "build": row["build_seconds"],
        "forward": compiling["forward"],
        "training": compiling["training"],
    }
    return {key: seconds or 0.0 for key, seconds in found.items()}


def peaks(rows: Sequence[Row]) -> Markup:
    """Memory at its peak, and the share that the framework takes by being imported."""
    known = [(i, row) for i, row in enumerate(rows) if row["peak_memory"] is not None]
    if not known:
        return element("p", "This system does not tell.")
    scale = linear(max(row["peak_memory"] for _, row in known))
    lines = []
    for i, row in known:
        own = min(row["memory_after_import"] or 0, row["peak_memory"])
        rest = row["peak_memory"] - own
        parts = [
            ("part s0", own, f"after the import: {memory(own)}"),
            ("part s2", rest, f"more at the peak: {memory(rest)}"),
        ]
        lines.append(
            element(
                "tr",
                element("th", name_of(i, row), scope="row"),
                element("td", stacked(parts, scale), class_="plot"),
                element("td", memory(row["peak_memory"]), element("small", f" {memory(own)}")),
            )
        )
    legend = (
        element("span", element("i", class_="swatch s0"), " held once the framework is imported"),
        element("span", element("i", class_="swatch s2"), " what the network adds at the peak"),
    )
    return joined(
        element("p", *legend, class_="legend"),
        plotted("Peak of each process", lines, scale, in_bytes, "peak, and import"),
    )

"""What it costs: times, what passes before the first step, and memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from blocks._comparison import memory
from blocks._report._findings import starting
from blocks._report._html import Markup, element, joined
from blocks._report._numbers import duration, measures
from blocks._report._plots import (
    Scale,
    axis,
    fitting,
    in_bytes,
    in_seconds,
    linear,
    looks,
    stacked,
    strip,
)
from blocks._report._tables import Row, boxed, folded, name_of, table

PARTS = {
    "import": "importing the framework",
    "build": "building the model",
    "forward": "compiling the outputs",
    "training": "compiling the training step",
}


def timings(data: Row) -> Markup:
    """A plot for each step that was timed."""
    rows = data["contenders"]
    names = {row["name"]: name_of(look, row) for look, row in zip(looks(rows), rows, strict=True)}
    looked = dict(zip(names, looks(rows), strict=True))
    made = []
    for what, times in measures(data).items():
        scale = fitting([s for t in times for s in t.seconds])
        lines = [
            element(
                "tr",
                element("th", names[t.name], scope="row"),
                element(
                    "td",
                    strip(looked[t.name], t.seconds, t.middle, t.median, scale),
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
        made.append(plotted(what, lines, scale, in_seconds, "median and middle half"))
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
        table(["contender", "", last], [*rows, numbers], "rows"),
        class_="figure",
    )


def start(rows: Sequence[Row]) -> Markup:
    """What passes before the first step is fast, in parts."""
    ready = [
        (look, row, total)
        for look, row in zip(looks(rows), rows, strict=True)
        if (total := starting(row)) is not None
    ]
    if not ready:
        return element("p", "No contender came so far.")
    scale = linear(max(total for *_, total in ready))
    lines = [
        element(
            "tr",
            element("th", name_of(look, row), scope="row"),
            element(
                "td",
                stacked(
                    [
                        (f"part s{n}", seconds, f"{PARTS[key]}: {duration(seconds)}")
                        for n, (key, seconds) in enumerate(starts(row).items())
                        if seconds is not None
                    ],
                    scale,
                ),
                class_="plot",
            ),
            element("td", duration(total)),
        )
        for look, row, total in ready
    ]
    keyed = (
        element("span", element("i", class_=f"swatch s{n}"), " ", words)
        for n, words in enumerate(PARTS.values())
    )
    cells = (
        element(
            "tr",
            element("th", name_of(look, row), scope="row"),
            *(element("td", "-" if s is None else duration(s)) for s in starts(row).values()),
            element("td", duration(total)),
        )
        for look, row, total in ready
    )
    heads = ["contender", *PARTS.values(), "together"]
    text = (
        "What passes before all steps are as fast as above. Compiling is what the first step of a "
        "kind takes more than the median of the later ones: an eager contender, which compiles "
        "nothing, warms up in that time."
    )
    return joined(
        element("p", text),
        element("p", *keyed, class_="legend"),
        plotted("Until all steps are compiled", lines, scale, in_seconds, "together"),
        folded(
            "The numbers",
            boxed("A start in parts", table(heads, cells, "numbers")),
        ),
    )


def starts(row: Row) -> dict[str, float | None]:
    """The parts of a start in seconds; None for a step that was not timed."""
    compiling = row["compile_seconds"]
    return {
        "import": row["import_seconds"],
        "build": row["build_seconds"],
        "forward": compiling["forward"],
        "training": compiling["training"],
    }


def peaks(rows: Sequence[Row]) -> Markup:
    """Memory at its peak, and the share that the framework takes by being imported."""
    known = [
        (look, row)
        for look, row in zip(looks(rows), rows, strict=True)
        if row["peak_memory"] is not None
    ]
    if not known:
        return element("p", "This system does not tell.")
    scale = linear(max(row["peak_memory"] for _, row in known))
    lines = [
        element(
            "tr",
            element("th", name_of(look, row), scope="row"),
            element("td", stacked(held(row), scale), class_="plot"),
            element("td", memory(row["peak_memory"]), imported(row)),
        )
        for look, row in known
    ]
    legend = (
        element("span", element("i", class_="swatch s0"), " held once the framework is imported"),
        element("span", element("i", class_="swatch s3"), " what the network adds at the peak"),
    )
    return joined(
        element("p", *legend, class_="legend"),
        plotted("Peak of each process", lines, scale, in_bytes, "peak, and import"),
    )


def held(row: Row) -> list[tuple[str, float, str]]:
    """The parts of a peak: what the import left, where that is known, and what came on top."""
    peak, own = row["peak_memory"], row["memory_after_import"]
    if own is None:
        return [("part s3", peak, f"at the peak: {memory(peak)}")]
    own = min(own, peak)
    return [
        ("part s0", own, f"after the import: {memory(own)}"),
        ("part s3", peak - own, f"more at the peak: {memory(peak - own)}"),
    ]


def imported(row: Row) -> Markup:
    own = row["memory_after_import"]
    return element("small", "" if own is None else f" {memory(own)}")

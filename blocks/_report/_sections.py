"""What was measured: parity, times, start and memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from blocks._report._findings import first_beyond, place, starting
from blocks._report._html import Markup, element, joined
from blocks._report._numbers import (
    badness,
    beyond,
    duration,
    measures,
    memory,
    share,
    sized,
)
from blocks._report._plots import (
    Scale,
    axis,
    badge,
    decades,
    fitting,
    grid,
    in_bytes,
    in_seconds,
    line,
    linear,
    mark,
    picture,
    stacked,
    strip,
)

LEVELS = {
    "outputs": "outputs",
    "blocks": "blocks",
    "gradients": "gradients",
    "training": "training mode",
    "state": "running state",
    "curve": "loss curve",
}
HEIGHT = 28  # of a row, in pixels
PARTS = {
    "import": "importing the framework",
    "build": "building the model",
    "forward": "compiling the outputs",
    "training": "compiling the training step",
}
Row = dict[str, Any]


def name_of(number: int, row: Row) -> Markup:
    """A contender with its mark."""
    return joined(badge(number), " ", row["name"])


def table(head: Iterable[Any], rows: Iterable[Markup], class_: str) -> Markup:
    """A table that scrolls in a box of its own."""
    heads = element("tr", *(element("th", words, scope="col") for words in head))
    return element(
        "div",
        element(
            "table",
            element("thead", heads),
            element("tbody", *rows),
            class_=class_,
        ),
        class_="scroll",
        tabindex=0,
    )


def folded(summary: str, *content: Any) -> Markup:
    return element("details", element("summary", summary), *content, open=True)


# Parity


def parity(rows: Sequence[Row], order: dict[str, int], kinds: dict[str, str]) -> Markup:
    """How exactly each contender computes: all levels, then block by block."""
    return joined(glance(rows), blocks(rows, order, kinds), *details(rows))


def glance(rows: Sequence[Row]) -> Markup:
    """Every contender at every level: what comes closest to its limit, or is farthest beyond it."""
    levels = [level for level in LEVELS if any(of_level(row, level) for row in rows)]
    lines = (
        element(
            "tr",
            element("th", name_of(i, row), scope="row"),
            *(worst_cell(of_level(row, level)) for level in levels),
        )
        for i, row in enumerate(rows)
    )
    caption = (
        "The largest difference from the reference in float64, as a share of its largest number. "
        "✓ is within what is allowed, ✗ beyond it, - not compared."
    )
    found = table(["", *map(LEVELS.__getitem__, levels)], lines, class_="numbers")
    return joined(element("p", caption), found)


def of_level(row: Row, level: str) -> list[Row]:
    return [figure for figure in row["figures"] if figure["level"] == level]


def worst_cell(figures: list[Row]) -> Markup:
    if not figures:
        return element("td", "-")
    worst = max(figures, key=badness)
    title = f"{place(worst['name'])}{' at ' + worst['where'] if worst['where'] else ''}"
    return element(
        "td",
        verdict(worst),
        element("small", f"of {sized(worst['tolerance'])}"),
        title=title,
        class_="bad" if beyond(worst) else None,
    )


def verdict(figure: Row) -> Markup:
    sign = element("b", "✗") if beyond(figure) else element("i", "✓")
    return joined(sign, " ", sized(share(figure)), " ")


def blocks(rows: Sequence[Row], order: dict[str, int], kinds: dict[str, str]) -> Markup:
    """A row for each block in the order in which they return, a line for each contender."""
    seen = [{f["name"]: f for f in of_level(row, "blocks") if f["name"] in order} for row in rows]
    paths = sorted({path for figures in seen for path in figures}, key=order.__getitem__)
    if not paths:
        return element("p", "No contender was compared block by block.")
    figures = [f for one in seen for f in one.values()]
    scale = decades([*map(share, figures), *(f["tolerance"] for f in figures)])
    places = [[one.get(path) for path in paths] for one in seen]
    starts = {first["name"]: row["name"] for row in rows if (first := first_beyond(row, order))}
    lines = [
        block_row(rows, places, i, path, kinds[path], starts.get(path), scale)
        for i, path in enumerate(paths)
    ]
    scale_row = element(
        "tr",
        element("td", "relative difference"),
        element("td", scale_of(scale), class_="plot"),
        element("td"),
        class_="scale",
    )
    legend = element("p", *keys(rows, seen), class_="legend")
    caption = (
        "What every block returns, from the input down to the output: the line of each contender "
        "moves right as its difference from the reference grows, on a logarithmic scale; the "
        "dashed line is what is allowed. Where a line first crosses it, a port has its mistake."
    )
    whole = table(["block", "difference", "largest"], [scale_row, *lines, scale_row], class_="rows")
    return joined(element("h3", "Block by block"), element("p", caption), legend, whole)


def keys(rows: Sequence[Row], seen: Sequence[Any]) -> list[Markup]:
    return [element("span", name_of(i, row)) for i, row in enumerate(rows) if seen[i]]


def scale_of(scale: Scale) -> Markup:
    """Numbers under the plot, with the place of what is exact."""
    return axis(scale, lambda tick: "1e" + str(round(math.log10(tick))), (2.0, "0"))


def block_row(
    rows: Sequence[Row],
    places: Sequence[Sequence[Row | None]],
    i: int,
    path: str,
    kind: str,
    starter: str | None,
    scale: Scale,
) -> Markup:
    here = [(n, figures[i]) for n, figures in enumerate(places) if figures[i] is not None]
    tolerance = max(figure["tolerance"] for _, figure in here)
    traces = [segment(places[n], i, n, scale) for n, _ in here]
    marks = [
        mark(
            n,
            scale.at(share(figure)),
            HEIGHT // 2,
            f"{rows[n]['name']}: {sized(share(figure))} at {figure['where'] or 'all'}",
        )
        for n, figure in here
    ]
    n, worst = max(here, key=lambda pair: share(pair[1]))
    limit = line(scale.at(tolerance), 0, scale.at(tolerance), HEIGHT, "limit")
    words = ", ".join(f"{rows[m]['name']} {sized(share(f))}" for m, f in here)
    plot = picture(grid(scale), limit, *traces, *marks, height=HEIGHT, label=words)
    link = element("a", path or "the whole", href=f"#block={path}", title=f"{path} {kind}")
    note = element("em", "first", element("span", f" of {starter}"), class_="first")
    return element(
        "tr",
        element("th", note if starter else "", link, " ", element("small", kind), scope="row"),
        element("td", plot, class_="plot"),
        element("td", verdict(worst), badge(n), class_="bad" if beyond(worst) else None),
        data_block=path,
        class_="wrong" if any(beyond(figure) for _, figure in here) else None,
    )


def segment(figures: Sequence[Row | None], i: int, kind: int, scale: Scale) -> Markup:
    """The part of a contender's line in one row: half the way to its neighbours."""
    at = scale.at(share(figures[i] or {}))
    made = []
    for j, y in ((i - 1, 0), (i + 1, HEIGHT)):
        other = figures[j] if 0 <= j < len(figures) else None
        if other is not None:
            half = round((at + scale.at(share(other))) / 2, 2)
            made.append(line(at, HEIGHT // 2, half, y, f"trace k{kind % 8}"))
    return joined(*made)


def details(rows: Sequence[Row]) -> list[Markup]:
    """All numbers, by level, in tables that are folded."""
    made = []
    for level, words in LEVELS.items():
        seen = [{f["name"]: f for f in of_level(row, level)} for row in rows]
        names = list(dict.fromkeys(name for figures in seen for name in figures))
        columns = [i for i, figures in enumerate(seen) if figures]
        if names:
            lines = (
                element(
                    "tr",
                    element("th", name or "the whole", scope="row"),
                    *(number_cell(seen[i].get(name)) for i in columns),
                )
                for name in names
            )
            head = ["", *(name_of(i, rows[i]) for i in columns)]
            title = f"All numbers: {words} ({len(names)})"
            made.append(folded(title, table(head, lines, class_="numbers")))
    return made


def number_cell(figure: Row | None) -> Markup:
    if figure is None:
        return element("td", "-")
    title = f"at {figure['where']}; allowed {sized(figure['tolerance'])}"
    return element("td", verdict(figure), title=title, class_="bad" if beyond(figure) else None)


# Times, start, memory


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
    ticks = element(
        "tr",
        element("td"),
        element("td", axis(scale, ticks(scale)), class_="plot"),
        element("td"),
        class_="scale",
    )
    return element(
        "div",
        element("h3", what, " ", element("small", kind)),
        table(["", "", last], [*rows, ticks], class_="rows"),
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


def held(rows: Sequence[Row]) -> Markup:
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


def remarks(rows: Sequence[Row]) -> Markup:
    """What every contender says of itself."""
    lines = (
        element(
            "tr",
            element("th", name_of(i, row), scope="row"),
            element("td", ", ".join(f"{k} {v}" for k, v in row["versions"].items()) or "-"),
            element("td", *sentences([row["error"], *row["facts"], *row["notes"]])),
        )
        for i, row in enumerate(rows)
    )
    return table(["", "software", "notes"], lines, class_="words")


def sentences(texts: Iterable[str | None]) -> list[Markup]:
    return [element("p", text) for text in texts if text]

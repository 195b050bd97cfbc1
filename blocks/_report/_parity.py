"""How exactly each contender computes: at every level, and block by block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from blocks._report._findings import first_beyond, place
from blocks._report._html import Markup, element, joined, link
from blocks._report._numbers import badness, beyond, share, sized
from blocks._report._plots import (
    BEFORE,
    Look,
    Scale,
    axis,
    badge,
    decades,
    grid,
    line,
    looks,
    mark,
    picture,
)
from blocks._report._tables import Row, boxed, folded, name_of, table

LEVELS = {
    "outputs": "outputs",
    "blocks": "blocks",
    "gradients": "gradients",
    "training": "training mode",
    "state": "running state",
    "curve": "loss curve",
}
HEIGHT = 28  # of a row, in pixels


def parity(rows: Sequence[Row], order: dict[str, int], kinds: dict[str, str]) -> Markup:
    """All levels, block by block, and all numbers. `order` tells when each block returns, `kinds`
    what it is.
    """
    seen = [{f["name"]: f for f in of_level(row, "blocks") if f["name"] in order} for row in rows]
    paths = sorted({path for figures in seen for path in figures}, key=order.__getitem__)
    depth = (
        Depth(rows, seen, paths, order, kinds).section()
        if paths
        else element("p", "No contender was compared block by block.")
    )
    return joined(glance(rows), depth, *details(rows))


def glance(rows: Sequence[Row]) -> Markup:
    """Every contender at every level: what comes closest to its limit, or is farthest beyond it."""
    levels = [level for level in LEVELS if any(of_level(row, level) for row in rows)]
    lines = (
        element(
            "tr",
            element("th", name_of(look, row), scope="row"),
            *(worst_cell(of_level(row, level)) for level in levels),
        )
        for look, row in zip(looks(rows), rows, strict=True)
    )
    caption = (
        "The largest difference from the reference in float64, as a share of its largest number. "
        "✓ is within what is allowed, ✗ beyond it, - not compared. A framework has its colour, "
        "each of its engines a shape; what is compiled is hollow."
    )
    found = table(["contender", *map(LEVELS.__getitem__, levels)], lines, "numbers")
    return joined(element("p", caption), boxed("The largest differences", found))


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


@dataclass(frozen=True)
class Depth:
    """A plot with a row for each block, in the order in which they return, and a line for each
    contender. `seen` has what is known of each contender, by path.
    """

    rows: Sequence[Row]
    seen: Sequence[dict[str, Row]]
    paths: Sequence[str]
    order: dict[str, int]
    kinds: dict[str, str]

    @cached_property
    def looks(self) -> list[Look]:
        return looks(self.rows)

    @cached_property
    def scale(self) -> Scale:
        figures = [f for one in self.seen for f in one.values()]
        return decades([*map(share, figures), *(f["tolerance"] for f in figures)])

    @cached_property
    def starts(self) -> dict[str, list[str]]:
        """Who differs first at each block."""
        found: dict[str, list[str]] = {}
        for row in self.rows:
            if first := first_beyond(row, self.order):
                found.setdefault(first["name"], []).append(row["name"])
        return found

    def section(self) -> Markup:
        keys = (
            element("span", name_of(look, row))
            for look, row, seen in zip(self.looks, self.rows, self.seen, strict=True)
            if seen
        )
        text = (
            "What every block returns, from the input down to the output: the line of each "
            "contender moves right as its difference from the reference grows, on a logarithmic "
            "scale; the dashed line is what is allowed. Where a line first crosses it, a port has "
            "its mistake."
        )
        exact = any(share(f) < self.scale.low for one in self.seen for f in one.values())
        zero = [(BEFORE, "0")] if exact else []
        numbers = axis(self.scale, power, *zero)
        cells = element("td", "relative difference"), element("td", numbers, class_="plot")
        ends = element("tr", *cells, element("td"), class_="scale")
        lines = map(self.row, range(len(self.paths)))
        heads = "block", "", "largest"
        return joined(
            element("h3", "Block by block"),
            element("p", text),
            element("p", *keys, class_="legend"),
            table(heads, [*lines, ends], "rows depth", ends),
        )

    def row(self, i: int) -> Markup:
        path = self.paths[i]
        here = [(n, one[path]) for n, one in enumerate(self.seen) if path in one]
        n, worst = max(here, key=lambda pair: share(pair[1]))
        wrong = any(beyond(figure) for _, figure in here)
        return element(
            "tr",
            element("th", *self.label(path), scope="row"),
            element("td", self.plot(i, here), class_="plot"),
            element(
                "td", verdict(worst), badge(self.looks[n]), class_="bad" if beyond(worst) else None
            ),
            data_block=path,
            class_="wrong" if wrong else None,
        )

    def label(self, path: str) -> Iterator[Markup]:
        """The name of a block, which is a link to it."""
        if path in self.starts:
            who = element("span", f" of {', '.join(self.starts[path])}")
            yield element("em", "first", who, class_="first")
        kind = self.kinds[path]
        name = element("a", path or "the whole", href=link(path), title=f"{path} {kind}")
        yield element("span", name, element("small", f" {kind}"), class_="label")

    def plot(self, i: int, here: Sequence[tuple[int, Row]]) -> Markup:
        limit = self.scale.at(max(figure["tolerance"] for _, figure in here))
        words = [f"{self.rows[n]['name']}: {sized(share(f))}" for n, f in here]
        marks = (
            mark(self.looks[n], self.scale.at(share(f)), HEIGHT // 2, word)
            for (n, f), word in zip(here, words, strict=True)
        )
        return picture(
            grid(self.scale),
            line(limit, 0, limit, HEIGHT, "limit"),
            *(part for n, _ in here for part in self.trace(n, i)),
            *marks,
            height=HEIGHT,
            label=", ".join(words),
        )

    def trace(self, n: int, i: int) -> Iterator[Markup]:
        """The part of a contender's line in one row: half the way to its neighbours."""
        figures = self.seen[n]
        at = self.scale.at(share(figures[self.paths[i]]))
        for j, y in ((i - 1, 0), (i + 1, HEIGHT)):
            if 0 <= j < len(self.paths) and self.paths[j] in figures:
                other = self.scale.at(share(figures[self.paths[j]]))
                half = round((at + other) / 2, 2)
                yield line(at, HEIGHT // 2, half, y, f"trace {self.looks[n].class_}")


def power(tick: float) -> str:
    """A tick of a logarithmic scale: 2e-7."""
    return sized(tick).replace(".0", "")


def details(rows: Sequence[Row]) -> list[Markup]:
    """All numbers, by level, in tables that are folded."""
    made, looked = [], looks(rows)
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
            head = ["", *(name_of(looked[i], rows[i]) for i in columns)]
            title = f"All numbers: {words} ({len(names)})"
            made.append(folded(title, boxed(title, table(head, lines, "numbers"))))
    return made


def number_cell(figure: Row | None) -> Markup:
    if figure is None:
        return element("td", "-")
    title = f"at {figure['where']}; allowed {sized(figure['tolerance'])}"
    return element("td", verdict(figure), title=title, class_="bad" if beyond(figure) else None)

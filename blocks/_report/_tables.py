"""Tables, each in a box of its own that scrolls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from blocks._report._html import Markup, element, joined
from blocks._report._plots import badge

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

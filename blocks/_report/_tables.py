"""Tables, and boxes in which wide ones scroll."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from blocks._report._html import Markup, element
from blocks._report._plots import Look, badge, looks

Row = dict[str, Any]


def name_of(look: Look, row: Row) -> Markup:
    """A contender with its mark."""
    return element("span", badge(look), " ", row["name"], class_="label")


def table(head: Iterable[Any], rows: Iterable[Markup], class_: str, *more: Markup) -> Markup:
    """A table. `more` are further rows of its head, which is seen again on every sheet of paper."""
    heads = element("tr", *(element("th", words, scope="col") for words in head))
    return element("table", element("thead", heads, *more), element("tbody", *rows), class_=class_)


def boxed(label: str, content: Markup) -> Markup:
    """What scrolls in a box of its own where it is too wide."""
    return element("div", content, class_="scroll", tabindex=0, role="region", aria_label=label)


def folded(summary: str, *content: Any) -> Markup:
    return element("details", element("summary", summary), *content, open=True)


def remarks(rows: Sequence[Row]) -> Markup:
    """What every contender says of itself."""
    lines = (
        element(
            "tr",
            element("th", name_of(look, row), scope="row"),
            element("td", ", ".join(f"{k} {v}" for k, v in row["versions"].items()) or "-"),
            element("td", *sentences([row["error"], *row["facts"], *row["notes"]])),
        )
        for look, row in zip(looks(rows), rows, strict=True)
    )
    return table(["contender", "software", "notes"], lines, "words")


def sentences(texts: Iterable[str | None]) -> list[Markup]:
    return [element("p", text) for text in texts if text]

"""The network as a diagram, and its listings beside it, each line with the blocks it is of."""

from __future__ import annotations

import io
import keyword
import tokenize
from collections.abc import Iterator, Mapping

from blocks._draw import draw
from blocks._report._html import Markup, element, joined
from blocks._report._listings import Listing
from blocks._report._paper import columns, named
from blocks._spec import Node

KINDS = {
    tokenize.COMMENT: "comment",
    tokenize.STRING: "string",
    tokenize.NUMBER: "number",
    # from Python 3.12 on
    getattr(tokenize, "FSTRING_START", -1): "string",
    getattr(tokenize, "FSTRING_MIDDLE", -1): "string",
    getattr(tokenize, "FSTRING_END", -1): "string",
}


def network(node: Node, code: Mapping[str, Listing], index: dict[str, int]) -> Markup:
    """The diagram and all listings; those that cannot be say why."""
    tabs = (
        element(
            "button",
            name,
            type="button",
            role="tab",
            id=f"tab-{i}",
            aria_controls=f"source-{i}",
        )
        for i, name in enumerate(code)
    )
    panels = (panel(name, one, i, index) for i, (name, one) in enumerate(code.items()))
    svg = draw(node).svg
    return element(
        "div",
        element(
            "div", named(svg), class_="diagram", tabindex=0, role="region", aria_label="Diagram"
        ),
        columns(svg),
        element(
            "div",
            element(
                "div",
                element("div", *tabs, role="tablist", aria_label="Listings"),
                class_="tabs",
                hidden=True,
            ),
            element("div", *panels, class_="all"),
            class_="sources",
        ),
        class_="network",
    )


def panel(backend: str, listing: Listing, number: int, index: dict[str, int]) -> Markup:
    if listing.missing:
        content = element("p", f"No listing: {listing.missing}", class_="missing")
    else:
        found = {path: listing.lines[path] for path in index if path in listing.lines}
        content = source(listing.text, found, index)
    return element(
        "section",
        element("h3", backend),
        content,
        class_="panel",
        id=f"source-{number}",
        aria_labelledby=f"tab-{number}",
    )


def source(text: str, found: dict[str, list[int]], index: dict[str, int]) -> Markup:
    """A listing; what stands before the network can be folded."""
    blocks: dict[int, list[str]] = {}
    for path, numbers in found.items():
        for number in numbers:
            blocks.setdefault(number, []).append(path)
    rows = [
        row(number, words, blocks.get(number, []), found, index)
        for number, words in enumerate(highlighted(text), 1)
    ]
    before = min(blocks, default=1) - 1
    helpers = element(
        "details",
        element("summary", f"{before} lines before the network: imports and what it uses"),
        element("pre", *rows[:before]),
        class_="helpers",
        open=True,
    )
    main = element("pre", *rows[before:])
    return element("div", helpers if before > 1 else element("pre", *rows[:before]), main,
                   class_="code", tabindex=0, role="region", aria_label="Listing")  # fmt: skip


def row(
    number: int,
    words: Markup,
    paths: list[str],
    found: dict[str, list[int]],
    index: dict[str, int],
) -> Markup:
    """A line. Its blocks are those that it is most about, then after a bar those around them."""
    fewest = min((len(found[path]) for path in paths), default=0)
    own = [str(index[path]) for path in paths if len(found[path]) == fewest]
    rest = [str(index[path]) for path in paths if len(found[path]) > fewest]
    marks = f"{' '.join(own)}|{' '.join(rest)}" if own else None
    gutter = element("span", class_="no", data_no=number)
    return joined(element("span", gutter, words, class_="line", data_b=marks), "\n")


def highlighted(text: str) -> Iterator[Markup]:
    """The lines of Python code with what is no name or sign in spans."""
    rows = text.splitlines()
    spans: dict[int, list[tuple[int, int, str]]] = {}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        kind = KINDS.get(token.type)
        if token.type == tokenize.NAME and keyword.iskeyword(token.string):
            kind = "keyword"
        if kind is not None:
            (first, start), (last, end) = token.start, token.end
            for number in range(first, last + 1):
                left = start if number == first else 0
                right = end if number == last else len(rows[number - 1])
                spans.setdefault(number, []).append((left, right, kind))
    for number, row in enumerate(rows, 1):
        pieces, at = [], 0
        for left, right, kind in spans.get(number, []):
            pieces += [row[at:left], element("span", row[left:right], class_=kind)]
            at = right
        yield joined(*pieces, row[at:])

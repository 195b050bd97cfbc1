"""`page`: a comparison as one HTML page that needs nothing else, and no network to be read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from blocks._backends import ordered
from blocks._comparison import cores, memory
from blocks._limits import counted
from blocks._report._costs import peaks, start, timings
from blocks._report._findings import Finding, findings
from blocks._report._html import Markup, element, joined, link
from blocks._report._listings import Listing, listings
from blocks._report._parity import parity
from blocks._report._sources import network
from blocks._report._tables import remarks
from blocks._sourcemap import with_written
from blocks._spec import Node, shapes

# Nothing is loaded from anywhere.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
HINT = (
    "Point at a block, a line or a row of the parity below: it is marked in all places. A click or "
    "tap keeps it marked; the names of blocks below lead here."
)


def page(comparison: Any, code: Mapping[str, Listing] | None = None) -> str:
    """A comparison as an HTML page: the network as a diagram beside its listings, how exactly each
    contender computes every block, and what it costs.

    Args:
        comparison: with the network as `node`, and as `data` what was measured.
        code: its listings by backend; they are made if left out, each in a process of its own.

    Returns:
        The whole text of the page. It refers to no other file, works without scripts, and prints
        with all that it folds.
    """
    node, data = comparison.node, comparison.data
    rows = data["contenders"]
    index = {path: i for i, path in enumerate(dict.fromkeys(n.path for n in node.walk()))}
    order = {path: i for i, path in enumerate(returned(node))}
    kinds = {n.path: type(n.block).__name__ for n in node.walk()}
    title = f"One network, {counted(len(rows), 'way')} to run it"
    picture = network(node, listings(node, ordered()) if code is None else code, index)
    body = joined(
        element("header", element("h1", title), element("p", subtitle(node, data))),
        section("Findings", "findings", found(findings(data, order))),
        section(
            "The network and its code",
            "network",
            element("p", HINT, class_="hint"),
            picture,
        ),
        section("Parity", "parity", parity(rows, order, kinds)),
        section("Speed", "speed", element("p", how(comparison)), timings(data)),
        section("Start", "start", start(rows)),
        section("Memory", "memory", peaks(rows)),
        section("Contenders", "contenders", remarks(rows)),
    )  # fmt: skip
    known = {"paths": list(index), "drawn": drawn(node, index, picture)}
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("title", f"{title}: {shapes(node.in_spec)} to {shapes(node.out_spec)}"),
        element("style", Markup(beside("page.css"))),
    )
    scripts = joined(
        element("script", Markup(embedded(known)), type="application/json", id="known"),
        element("script", Markup(beside("page.js"))),
    )
    whole = element("html", head, element("body", element("main", body), scripts), lang="en")
    return f"<!DOCTYPE html>\n{whole}\n"


def section(title: str, name: str, *content: Any) -> Markup:
    return element("section", element("h2", title), *content, id=f"section-{name}", class_="part")


def found(sentences: list[Finding]) -> Markup:
    signs = {"good": "✓ ", "bad": "✗ ", "plain": ""}
    return element("ul", *(
        element("li", signs[one.kind], one.text, seek(one.block), class_=one.kind)
        for one in sentences
    ))  # fmt: skip


def seek(path: str | None) -> Markup:
    """A link to a block, if there is one."""
    return Markup() if path is None else joined(" ", element("a", "Show it.", href=link(path)))


def subtitle(node: Node, data: dict[str, Any]) -> str:
    """The network and the machine in a few words."""
    held, numbers = data["machine"], data["parameters"]
    return (
        f"{shapes(node.in_spec)} to {shapes(node.out_spec)} in {node.dtype}, "
        f"{counted(numbers['count'], 'parameter')} ({memory(numbers['bytes'])}). Measured on "
        f"{data['date'][:10]} on {held['processor']}, {cores(data)}, Python {held['python']}."
    )


def how(comparison: Any) -> str:
    rounds = counted(comparison.data["rounds"], "round")
    return (
        f"Time for one step, in {rounds}: in each, all contenders made "
        "some steps in turn, and its mean is a dot. The mark is the median of the rounds, the bar "
        "their middle half. Further left is faster. Arrays of NumPy go in, and arrays of NumPy "
        f"come out; a training step is one of fit on {comparison.training()}."
    )


def returned(root: Node) -> Iterator[str]:
    """Paths in the order in which blocks return: a block of blocks after its last part."""
    stack = [(root, False)]
    while stack:
        node, done = stack.pop()
        if done:
            yield node.path
        else:
            stack.append((node, True))
            stack += [(child, False) for child in reversed(node.children)]


def drawn(root: Node, index: dict[str, int], picture: str) -> list[int]:
    """For each block the one whose picture stands for it: its twin in the repetition that is drawn,
    the first of those that are left out, or the nearest block around it.
    """
    pictures = {path: path for path in index if element_of(path) in picture}
    pictures |= left_out(root, picture)
    stands: dict[str, str] = {}
    for node, twin in with_written(root, pictures):
        path = twin.path
        while path and path not in pictures:
            path = path.rpartition("/")[0]
        stands[node.path] = pictures.get(path, path)
    return [index[stands[path]] for path in index]


def left_out(root: Node, picture: str) -> dict[str, str]:
    """Blocks that one picture says there are more of, each with the first of them."""
    counts = dict(re.findall(r'data-more="([^"]*)" data-count="(\d+)"', picture))
    return {
        child.path: first.path
        for node in root.walk()
        for i, first in enumerate(node.children)
        for child in node.children[i : i + int(counts.get(first.path, 0))]
    }


def element_of(path: str) -> str:
    """How the drawing says whose picture it is."""
    return f"data-path={quoteattr(path)}"


def embedded(value: Any) -> str:
    """JSON that can stand in a script."""
    return json.dumps(value).replace("<", "\\u003c")


def beside(name: str) -> str:
    """The text of a file that lies beside this one."""
    return Path(__file__).with_name(name).read_text(encoding="utf-8")

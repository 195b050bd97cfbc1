"""A drawing as SVG: one file that brings its colours along and refers to nothing."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from colorsys import hls_to_rgb
from functools import cache, singledispatch
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from blocks._drawing.layout import (
    BAND,
    BESIDE,
    LINE,
    MARGIN,
    MERGE,
    SMALL,
    TITLE,
    TOP,
    Box,
    Chain,
    Edge,
    Frame,
    Meeting,
    Part,
    Rect,
    gap,
    layout,
)
from blocks._drawing.outline import Item
from blocks._drawing.words import sizes, title, width

BORDER = 16  # around everything
BEND = 8  # radius of a corner of a line
HEAD = 6  # length of an arrow's head
CORNER = 8  # radius of a frame's corners

# Hues in degrees, by family. Neighbours in networks are far apart.
HUES = {
    "linear": 176,
    "conv": 214,
    "attention": 262,
    "recurrent": 238,
    "norm": 45,
    "activation": 135,
    "pool": 350,
    "shape": 75,
    "pattern": 75,
    "regularisation": 25,
    "value": 310,
    "custom": 285,
    "loss": 5,
}

BASE = """
.isoblocks text{font-family:Helvetica,Arial,"Liberation Sans",sans-serif;font-size:13px;
fill:#1f2328;text-anchor:middle}
.isoblocks .small,.isoblocks .size{font-size:10.5px;fill:#59636e}
.isoblocks .size,.isoblocks .heading{text-anchor:start}
.isoblocks .paper{fill:#fff;stroke:none}
.isoblocks .box{fill:#f6f8fa;stroke:#818b98}
.isoblocks .end .box{fill:none;stroke:none}
.isoblocks .more .box,.isoblocks .again .box{stroke-dasharray:4 3}
.isoblocks .frame{fill:#818b98;fill-opacity:.04;stroke:#818b98}
.isoblocks .chain{fill:none;stroke:none}
.isoblocks .band{fill:#818b98;fill-opacity:.14;stroke:none}
.isoblocks .sign{fill:#fff;stroke:#59636e}
.isoblocks .edge{fill:none;stroke:#59636e;stroke-width:1.25}
.isoblocks .several{stroke-width:3.5}
.isoblocks .head{fill:#59636e}
"""
DARK = """
.isoblocks text{fill:#e6edf3}
.isoblocks .small,.isoblocks .size{fill:#b1bac4}
.isoblocks .paper,.isoblocks .sign{fill:#0d1117}
.isoblocks .box{fill:#21262d}
.isoblocks .sign,.isoblocks .edge{stroke:#9ea7b3}
.isoblocks .head{fill:#9ea7b3}
"""
SPOKEN = 60  # titles in the description, for those who do not see the drawing


def svg(root: Item) -> str:
    """The drawing of a network."""
    parts = layout(root)
    whole = parts[0].rect
    paper = Rect(
        whole.x - BORDER, whole.y - BORDER, whole.width + 2 * BORDER, whole.height + 2 * BORDER
    )
    lines = [
        *described(root),
        f"<style>{style()}</style>",
        rectangle(paper, "paper"),
        *(group(part) for part in parts if not (isinstance(part, Chain) and part.item is None)),
        *(line(edge) for part in parts for edge in part.edges()),
    ]
    return element(
        "svg",
        "\n".join(["", *lines, ""]),
        xmlns="http://www.w3.org/2000/svg",
        class_="isoblocks",
        role="img",
        width=paper.width,
        height=paper.height,
        viewBox=f"{paper.x} {paper.y} {paper.width} {paper.height}",
    )


def described(root: Item) -> Iterator[str]:
    """What the drawing shows, for those who do not see it."""
    shown = [title(item) for item in root.preorder() if not item.items]
    more = [f"and {len(shown) - SPOKEN:,} more"] if len(shown) > SPOKEN else []
    rule = "Data flows from top to bottom; a shape stands where it changes. "
    yield element("title", text(spoken(root)))
    yield element("desc", text(rule + "; ".join([*shown[:SPOKEN], *more]) + "."))


def spoken(item: Item) -> str:
    """A block in one line."""
    node = item.node
    way = f", {sizes(node.in_spec)} to {sizes(node.out_spec)}" if sizes(node.in_spec) else ""
    return f"{node.path}: {title(item)}{way}" if node.path else title(item) + way


@cache
def style() -> str:
    """The colours: light ones, and dark ones for dark screens, but not for paper."""
    light = BASE + families(fill=(0.93, 0.75), stroke=(0.55, 0.45))
    dark = DARK + families(fill=(0.2, 0.4), stroke=(0.55, 0.35))
    return f"{light}@media screen and (prefers-color-scheme:dark){{{dark}}}\n"


def families(**shades: tuple[float, float]) -> str:
    """A rule for each family: its hue, in a lightness and saturation for fill and stroke."""
    rules = []
    for name, hue in HUES.items():
        colours = (f"{what}:{colour(hue, *shade)}" for what, shade in shades.items())
        rules.append(f".isoblocks .{name} .box{{{';'.join(colours)}}}\n")
    return "".join(rules)


def colour(hue: float, lightness: float, saturation: float) -> str:
    """The colour as "#rrggbb"; the hue in degrees."""
    parts = hls_to_rgb(hue / 360, lightness, saturation)
    return "#" + "".join(f"{round(255 * part):02x}" for part in parts)


def element(tag: str, content: str = "", **attributes: Any) -> str:
    """An element of SVG; its content is written as it is."""
    words = "".join(
        f" {name.rstrip('_').replace('_', '-')}={quoteattr(printable(str(value)))}"
        for name, value in attributes.items()
    )
    return f"<{tag}{words}>{content}</{tag}>" if content else f"<{tag}{words}/>"


def text(words: str) -> str:
    """Words as the content of an element."""
    return escape(printable(words))


def printable(text: str) -> str:
    """The text without what XML has no place for: control characters, halves of characters."""
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(char) in ("Cc", "Cs", "Cn") else char
        for char in text
    )


def rectangle(rect: Rect, class_: str, radius: int = 0) -> str:
    return element(
        "rect",
        class_=class_,
        x=rect.x,
        y=rect.y,
        width=rect.width,
        height=rect.height,
        rx=radius,
    )


def written(words: str, x: float, y: float, size: float, **attributes: str) -> str:
    """A text, of the width that was reckoned with, whatever fonts there are."""
    fitted = {"textLength": round(width(words, size), 1), "lengthAdjust": "spacingAndGlyphs"}
    return element("text", text(words), x=x, y=y, **fitted, **attributes)


def group(part: Part) -> str:
    """The rectangle of a node and its words. What stands for no node has no path; what stands for
    several has that of the first as `data-more`, and how many they are.
    """
    item, names = part.item, [part.kind]
    if item is None:
        return element("g", "".join(drawn(part)), class_=" ".join(names))
    node = item.node
    if item.left_out:
        first = {"data_more": node.path, "data_count": item.left_out}
        return element("g", "".join(drawn(part)), class_=" ".join(names), **first)
    if node.home != node.path:
        names.append("again")
    tooltip = element("title", text(spoken(item)))
    return element(
        "g",
        tooltip + "".join(drawn(part)),
        class_=" ".join(names),
        id=f"block/{node.path}".rstrip("/").replace("/", "-"),
        data_path=node.path,
    )


@singledispatch
def drawn(part: Any) -> Iterator[str]:
    """The elements of a part, but for what is inside."""
    raise NotImplementedError


@drawn.register
def _(part: Chain) -> Iterator[str]:
    yield rectangle(part.rect, "chain")


@drawn.register
def _(part: Box) -> Iterator[str]:
    yield rectangle(part.rect, "box", 4)
    heading, *lines = part.texts
    yield written(heading, part.x, part.y + TOP - 9.5, TITLE)
    for i, text in enumerate(lines, 1):
        yield written(text, part.x, part.y + TOP - 9 + LINE * i, SMALL, class_="small")


@drawn.register
def _(part: Frame) -> Iterator[str]:
    x, y, across, r = part.rect.x, part.y, part.rect.width, CORNER
    yield rectangle(part.rect, "frame", r)
    corners = f"a{r},{r} 0 0 1 {r},{-r}h{across - 2 * r}a{r},{r} 0 0 1 {r},{r}"
    yield element("path", class_="band", d=f"M{x},{y + BAND}v{r - BAND}{corners}v{BAND - r}z")
    yield written(part.heading, x + MARGIN, y + BAND - 7.5, TITLE, class_="heading")


@drawn.register
def _(part: Meeting) -> Iterator[str]:
    yield from drawn.dispatch(Frame)(part)
    rect = part.sign_rect
    yield rectangle(rect, "sign", MERGE // 2)
    yield written(part.sign, part.x, rect.y + MERGE - 6.5, TITLE)


def line(edge: Edge) -> str:
    """A line with its head and shape; a thick one for several tensors."""
    (x, y), *corner, (end_x, end_y) = edge.points
    several = isinstance(edge.value, tuple)
    size = HEAD + 4 if several else HEAD
    short = size - 1 if edge.arrow else 0
    if corner:  # down, then to the left
        way = f"M{x},{y}V{end_y - BEND}q0,{BEND} {-BEND},{BEND}H{end_x + short}"
        head = f"M{end_x},{end_y}l{size},{-size // 2}v{size}z"
    else:
        way = f"M{x},{y}V{end_y - short}"
        head = f"M{end_x},{end_y}l{-size // 2},{-size}h{size}z"
    made = element("path", class_="edge several" if several else "edge", d=way)
    if edge.arrow:
        made += element("path", class_="head", d=head)
    if edge.label:
        middle = y + gap(edge.label) // 2 + 3
        made += written(edge.label, x + BESIDE, middle, SMALL, class_="size")
    return made

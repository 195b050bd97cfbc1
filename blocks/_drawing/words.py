"""What is written on blocks, and how wide it is."""

from __future__ import annotations

import dataclasses
import textwrap
from functools import singledispatch
from typing import Any

from blocks import activation
from blocks._block import Block, Combinator
from blocks._drawing.outline import Item
from blocks._params import count
from blocks._spec import Node, Spec, ValueSpec, shapes
from blocks.combine import Repeat, Sequential, Shared
from blocks.pattern import Pattern
from blocks.regularisation import Dropout

# Widths in thousandths of the font's size: those of Helvetica, and of fonts made to replace it.
WIDTHS = {
    char: width
    for width, chars in {
        191: "'",
        222: "ijl",
        260: "|",
        278: " !,./:;I[\\]ft",
        333: "()-`r",
        334: "{}",
        355: '"',
        389: "*",
        469: "^",
        500: "Jckszvxy",
        556: "#$0123456789?L_abdeghnopqu",
        584: "+<=>~\N{MULTIPLICATION SIGN}",
        611: "FTZ",
        667: "&ABEKPSVXY",
        722: "CDHNRUw",
        778: "GOQ",
        833: "Mm",
        889: "%",
        944: "W",
        1000: "…",
    }.items()
    for char in chars
}
TIMES = "\N{MULTIPLICATION SIGN}"
LONGEST = 56  # letters of a line
DETAILS = 32  # letters of a line of details


def width(text: str, size: float) -> float:
    """The width of a text in a font of that size; letters that are not known are wide ones."""
    return sum(WIDTHS.get(char, 1015) for char in text) * size / 1000


def clipped(text: str) -> str:
    """The text without what would be too long."""
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def sizes(value: ValueSpec) -> str:
    """The shape of a value; nothing if it is not known."""
    return clipped(whole(value))


def whole(value: ValueSpec) -> str:
    return shapes(value) if isinstance(value, (Spec, tuple)) else ""


def change(before: ValueSpec, after: ValueSpec) -> str:
    """The shape of a value, if it is another than before."""
    return sizes(after) if whole(after) != whole(before) else ""


def family(form: Any) -> str:
    """The class of a leaf in the drawing's style: the module of `blocks` that it comes from."""
    modules = (kind.__module__.split(".") for kind in type(form).__mro__)
    return next(names[-1].strip("_") for names in modules if names[0] == "blocks")


def called(block: Block) -> str:
    """What a block is called where it is written: "ReLU" for an Activation."""
    if not isinstance(block, activation.Activation):
        return type(block).__name__
    helpers = {name.lower(): name for name in vars(activation)}
    return helpers.get(block.kind.replace("_", ""), block.kind)


def required(block: Block) -> list[str]:
    """The fields that have no default."""
    return [f.name for f in dataclasses.fields(block) if f.default is dataclasses.MISSING]


@singledispatch
def main(block: Block) -> list[str]:
    """The fields that stand in its title: what it cannot be without."""
    return required(block)


@main.register(activation.Activation)
@main.register(Repeat)
def _(block: Block) -> list[str]:
    return []  # their titles say it


@main.register
def _(block: Dropout) -> list[str]:
    return ["rate"]


@main.register
def _(block: Pattern) -> list[str]:
    return [name for name in required(block) if name != "axes_lengths"]


def plain(value: Any) -> bool:
    """Whether a field holds numbers or words, and not blocks or arrays."""
    if isinstance(value, tuple):
        return all(map(plain, value))
    return isinstance(value, (bool, int, float, str))


def written(block: Block) -> Block:
    """The block that a Shared one holds; else itself."""
    while isinstance(block, Shared):
        block = block.block
    return block


def title(item: Item) -> str:
    """The block with its main fields, after the name that it was given: "mean: Dense 16"."""
    if item.left_out:
        return f"… {item.left_out:,} more"
    block = written(item.node.block)
    if item.name and type(block) is Sequential:
        return clipped(item.name)
    fields = (getattr(block, name) for name in main(block))
    values = ", ".join(str(value) for value in fields if plain(value))
    text = " ".join(filter(None, (called(block), values)))
    if item.times:
        text += f"{',' if values else ''} {TIMES} {item.times:,}"
    elif isinstance(block, Repeat):
        text += f", {block.times:,} in a row"
    return clipped(f"{item.name}: {text}" if item.name else text)


def sharing(node: Node) -> str:
    """The name that a block is shared by, and at a later use the place of the first."""
    if not node.shared:
        return ""
    where = f", as at {node.home or '/'}" if node.home != node.path else ""
    return f"shared {node.shared}{where}"


def heading(item: Item) -> str:
    """The title of a frame."""
    shared = sharing(item.node)
    return clipped(f"{title(item)}, {shared}" if shared else title(item))


def details(item: Item) -> list[str]:
    """The small print of a box."""
    node = item.node
    if item.left_out:
        return []
    lines = [sharing(node)]
    if item.closed:
        lines.append(f"{sum(1 for _ in node.walk()) - 1:,} blocks inside")
    elif not isinstance(node.form, Combinator):
        lines += other_fields(written(node.block))
    parameters = count(node) if node.home == node.path else 0
    lines.append(f"{parameters:,} parameters" if parameters else "")
    return [clipped(line) for line in lines if line]


def other_fields(block: Block) -> list[str]:
    """The fields that are not at their defaults, in three lines at most."""
    known = {*required(block), *main(block), "in_features"}
    fields = [(name, value) for name, value in block.shown() if name and name not in known]
    words = [said(name, value) for name, value in fields if plain(value)]
    together = ", ".join(word.replace(" ", "\N{NO-BREAK SPACE}") for word in words)
    lines = textwrap.wrap(together, DETAILS, max_lines=3, placeholder="…")
    return [line.replace("\N{NO-BREAK SPACE}", " ").rstrip(",") for line in lines]


def said(name: str, value: Any) -> str:
    """A field for people: "stride (2, 2)", "no bias"."""
    words = name.replace("_", " ")
    if isinstance(value, bool):
        return ("" if value else "no ") + words.removeprefix("use ")
    return f"{words} {value}"

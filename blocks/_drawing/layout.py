"""Where everything is: parts measure themselves from the inside out, then place what they hold.

Data flows from top to bottom along the axis of each part. A frame has a band with its title at the
top, from which the data goes on to what is inside: straight down, so that no line crosses another
or a box.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from blocks._block import Combinator
from blocks._drawing.outline import Item
from blocks._drawing.words import TIMES, change, details, family, heading, sizes, title, width
from blocks.combine import Residual

# All in pixels.
TITLE, SMALL = 13, 10.5  # sizes of the font
TOP, LINE = 28, 14  # heights of a box with a title alone, and of each small line
MARGIN = 12  # beside the text in a box
NARROWEST = 84
BAND = 24  # height of a frame's title
PAD = 12  # beside what is in a frame
GAP, LABELLED = 20, 32  # of a line between boxes, and of one with a shape beside it
BESIDE = 7  # between a line and its shape
COLUMN = 18  # between branches
MERGE = 22  # height of the sign where branches meet

SIGNS = {"add": "+", "multiply": TIMES}


@dataclass(frozen=True)
class Rect:
    """A rectangle by its corner and its size."""

    x: int
    y: int
    width: int
    height: int

    @property
    def right(self) -> int:
        return self.x + self.width

    @property
    def bottom(self) -> int:
        return self.y + self.height


@dataclass(frozen=True)
class Edge:
    """A line that data flows along; `label` is its shape, where it is another than before."""

    points: tuple[tuple[int, int], ...]
    value: Any
    arrow: bool = True
    label: str = ""


def even(number: float) -> int:
    """The next even number of pixels, so that halves are whole and lines are sharp."""
    return 2 * math.ceil(number / 2)


def gap(label: str) -> int:
    """The length of a line with that shape beside it."""
    return LABELLED if label else GAP


def beside(label: str) -> int:
    """How far a shape goes to the right of its line."""
    return even(BESIDE + width(label, SMALL)) if label else 0


class Part:
    """A rectangle with an axis: `left` and `right` are its extents from there.

    `x` is the axis and `y` the top, once it is placed. `taken` and `value` are what goes in and
    comes out, `label` is the shape beside the line that leaves it.
    """

    kind = ""  # its class in the drawing's style
    label = ""
    left = right = height = 0
    x = y = 0

    def __init__(self, taken: Any, value: Any, inside: list[Part], item: Item | None = None):
        self.taken, self.value, self.inside, self.item = taken, value, inside, item

    @property
    def rect(self) -> Rect:
        return Rect(self.x - self.left, self.y, self.left + self.right, self.height)

    @property
    def bottom(self) -> int:
        return self.y + self.height

    @property
    def reach(self) -> int:
        """How far it goes to the right, with the shape below it."""
        return max(self.right, beside(self.label))

    def at(self, x: int, y: int) -> None:
        self.x, self.y = x, y

    def place(self) -> None:
        """Put what is inside at its place."""

    def edges(self) -> Iterator[Edge]:
        """The lines inside."""
        return iter(())

    def leaving(self, end: int, *, arrow: bool = True) -> Edge:
        """The line straight down from it."""
        return Edge(((self.x, self.bottom), (self.x, end)), self.value, arrow, self.label)


class Box(Part):
    """A leaf, a closed block, what was left out, or an end: a box with a title and small print."""

    def __init__(self, kind: str, texts: list[str], taken: Any, value: Any, item: Item | None):
        super().__init__(taken, value, [], item)
        self.kind, self.texts = kind, texts
        widths = [width(text, SMALL if i else TITLE) for i, text in enumerate(texts)]
        self.left = self.right = even(max(NARROWEST, max(widths) + 2 * MARGIN) / 2)
        self.height = TOP + LINE * (len(texts) - 1)
        self.label = change(taken, value)


class Chain(Part):
    """One below the other, without a frame."""

    kind = "row"

    def __init__(self, inside: list[Part], item: Item | None = None):
        super().__init__(inside[0].taken, inside[-1].value, inside, item)
        self.left = max(part.left for part in inside)
        self.right = max(part.reach for part in inside)
        between = sum(gap(part.label) for part in inside[:-1])
        self.height = between + sum(part.height for part in inside)
        self.label = inside[-1].label

    def place(self) -> None:
        y = self.y
        for part in self.inside:
            part.at(self.x, y)
            y = part.bottom + gap(part.label)

    def edges(self) -> Iterator[Edge]:
        for part, following in zip(self.inside, self.inside[1:], strict=False):
            yield part.leaving(following.y)


class Frame(Part):
    """A frame around a part, with a band for its title from which data goes on."""

    kind = "group"

    def __init__(self, item: Item, inside: list[Part]):
        super().__init__(item.node.in_spec, item.node.out_spec, inside, item)
        self.heading = heading(item)
        self.measure()
        lacking = width(self.heading, TITLE) + 2 * MARGIN - self.left - self.right
        self.left += even(max(lacking, 0) / 2)
        self.right += even(max(lacking, 0) / 2)

    @property
    def start(self) -> int:
        """Where data leaves the band."""
        return self.y + BAND

    def measure(self) -> None:
        (part,) = self.inside
        self.left = part.left + PAD
        self.right = part.right + PAD
        self.height = BAND + GAP + part.height + gap(part.label)

    def place(self) -> None:
        self.inside[0].at(self.x, self.start + GAP)

    def edges(self) -> Iterator[Edge]:
        (part,) = self.inside
        yield self.entering(part)
        yield part.leaving(self.bottom, arrow=False)

    def entering(self, part: Part) -> Edge:
        """The line from the band to a part."""
        return Edge(((part.x, self.start), (part.x, part.y)), part.taken)


class Meeting(Frame):
    """A frame in which several values are merged, by a sign that stands above its lower end."""

    offsets: list[int]  # of the axes of what is inside

    def __init__(self, item: Item, inside: list[Part]):
        self.merge = item.node.form.merge
        self.sign = SIGNS.get(self.merge, self.merge)
        self.half = even(max(MERGE, width(self.sign, TITLE) + 2 * BESIDE)) // 2  # of its width
        changes = [change(part.value, item.node.out_spec) for part in inside]
        self.merged = next(filter(None, changes), "")
        super().__init__(item, inside)

    def measure(self) -> None:
        self.columns()
        rows = max(part.height + gap(part.label) for part in self.inside)
        self.right = max(self.right, beside(self.merged) + PAD)
        self.height = BAND + GAP + rows + MERGE + gap(self.merged)

    def columns(self) -> None:
        """Find the offsets of the axes inside, and the extents to both sides."""
        raise NotImplementedError

    @property
    def sign_rect(self) -> Rect:
        top = self.bottom - gap(self.merged) - MERGE
        return Rect(self.x - self.half, top, 2 * self.half, MERGE)

    def place(self) -> None:
        for part, offset in zip(self.inside, self.offsets, strict=True):
            part.at(self.x + offset, self.start + GAP)

    def edges(self) -> Iterator[Edge]:
        sign = self.sign_rect
        yield from map(self.entering, self.inside)
        yield from self.meeting(sign)
        ends = (self.x, sign.bottom), (self.x, self.bottom)
        yield Edge(ends, self.value, arrow=False, label=self.merged)

    def meeting(self, sign: Rect) -> Iterator[Edge]:
        """The lines to the sign."""
        raise NotImplementedError


class Fork(Meeting):
    """Branches side by side; the sign is as wide as they are."""

    def columns(self) -> None:
        self.offsets, end = [], 0
        for part in self.inside:
            self.offsets.append(end + part.left)
            end += part.left + part.reach + COLUMN
        axis = (self.offsets[0] + self.offsets[-1]) // 2
        self.offsets = [offset - axis for offset in self.offsets]
        self.half = max(self.half, self.offsets[-1] + MERGE // 2, MERGE // 2 - self.offsets[0])
        self.left = max(axis, self.half) + PAD
        self.right = max(end - COLUMN - axis, self.half) + PAD

    def meeting(self, sign: Rect) -> Iterator[Edge]:
        for part in self.inside:
            yield part.leaving(sign.y)


class Skip(Meeting):
    """A body with a way around it on the right, on which there may be a part too."""

    def __init__(self, item: Item, inside: list[Part]):
        super().__init__(item, inside[::-1])  # the body first

    def columns(self) -> None:
        body, *shortcut = self.inside
        self.left = max(body.left, self.half) + PAD
        self.lane = max(body.reach, self.half) + COLUMN
        self.lane += sum(part.left for part in shortcut)
        self.right = self.lane + sum(part.reach for part in shortcut) + PAD
        self.offsets = [0, self.lane][: len(self.inside)]

    def meeting(self, sign: Rect) -> Iterator[Edge]:
        body, *shortcut = self.inside
        yield body.leaving(sign.y)
        around = self.x + self.lane
        start, value, label = self.start, self.taken, ""
        for part in shortcut:
            start, value, label = part.bottom, part.value, part.label
        middle = sign.y + MERGE // 2
        yield Edge(((around, start), (around, middle), (sign.right, middle)), value, label=label)


def part(item: Item, inside: list[Part]) -> Part:
    """The part that an item is drawn as."""
    node = item.node
    if not inside:
        return Box(box_kind(item), [title(item), *details(item)], node.in_spec, node.out_spec, item)
    if node.form.flow == "fork":
        return (Skip if isinstance(node.form, Residual) else Fork)(item, inside)
    return Chain(inside, item) if item.bare else Frame(item, [Chain(inside)])


def box_kind(item: Item) -> str:
    """The class of a box in the drawing's style."""
    if item.left_out:
        return "more"
    return "closed" if isinstance(item.node.form, Combinator) else family(item.node.form)


def layout(root: Item) -> list[Part]:
    """All parts of a drawing at their places, frames before what they hold; the first is all."""
    made: dict[int, Part] = {}
    for item in reversed(root.preorder()):
        made[id(item)] = part(item, [made.pop(id(inner)) for inner in item.items])
    network = made[id(root)]
    network.label = ""  # the output says it
    ends = end("input", network.taken), end("output", network.value)
    parts: list[Part] = []
    stack: list[Part] = [Chain([ends[0], network, ends[1]])]
    while stack:
        parts.append(stack.pop())
        parts[-1].place()
        stack.extend(reversed(parts[-1].inside))
    return parts


def end(word: str, value: Any) -> Box:
    """Where data enters or leaves the network."""
    return Box("end", [f"{word} {sizes(value)}".strip()], value, value, None)

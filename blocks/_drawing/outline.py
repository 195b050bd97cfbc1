"""What of a network is shown: which blocks are opened, which of a long row are left out."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field, replace
from typing import Any

from blocks._block import Block, Combinator
from blocks._infer import Inference
from blocks._repeat import keeps_sizes
from blocks._spec import Node
from blocks._stack import run
from blocks.combine import Container, Repeat, Sequential

# How many of a row are shown at most: half of them are its first, half its last.
MOST = {"chain": 40, "fork": 12, "loop": 2}


def outline(block: Block) -> Node:
    """The nodes of a block without sizes; of those that are alike in a loop, the first."""
    inference = Inference("float32", "float32", None)

    def made(block: Block, name: str, path: str, home: str) -> Generator[Any, Any, Node]:
        frame = inference.enter(block, name, path, home, None)
        if isinstance(frame.form, Combinator):
            prefix, place = (f"{p}/" if p else "" for p in (frame.path, frame.home))
            for name, part in frame.form.parts().items():
                frame.children.append((yield made(part, name, prefix + name, place + name)))
        return frame.node(None)

    return run(made(block, "", "", ""))


@dataclass(eq=False)
class Item:
    """A node that is shown, with what is shown inside it.

    Attributes:
        node: it is the whole of several in a row, if these are left out.
        name: that the user gave it, "" for a position.
        left_out: how many nodes it stands for; 0 for the node itself.
        times: how often the one item inside is repeated, each time alike; 0 for other blocks.
        bare: whether it is a mere chain in a place of its own, which needs no frame.
        items: what is inside; none if it is closed.
    """

    node: Node
    name: str = ""
    left_out: int = 0
    times: int = 0
    bare: bool = False
    items: list[Item] = field(default_factory=list)

    @property
    def closed(self) -> bool:
        """Whether there is more inside than is shown."""
        return bool(self.node.children) and not self.items and not self.left_out

    def inside(self) -> list[Item]:
        """What is shown inside, when it is opened."""
        form, children = self.node.form, self.node.children
        if self.left_out or not children:
            return []
        if self.times:
            children = children[:1]
        alone = form.flow == "fork" or self.times > 0
        named = isinstance(form, Container)
        items = [item(c, c.name if named and not c.name.isdigit() else "", alone) for c in children]
        most = MOST[form.flow]
        if len(items) > most:
            start, end = most - most // 2, len(items) - most // 2
            items[start:end] = [between(items[start:end])]
        return items

    def preorder(self) -> list[Item]:
        """It and all below, parents first."""
        found, stack = [], [self]
        while stack:
            found.append(stack.pop())
            stack.extend(reversed(found[-1].items))
        return found


def item(node: Node, name: str = "", alone: bool = True) -> Item:
    """The item of a node, which is alone in its place or one of a row."""
    alike = isinstance(node.form, Repeat) and (node.in_spec is None or keeps_sizes(node))
    bare = type(node.block) is Sequential and alone and not name
    return Item(node, name, times=node.form.times if alike else 0, bare=bare)


def between(items: list[Item]) -> Item:
    """One item for several in a row."""
    first, last = items[0].node, items[-1].node
    return Item(replace(first, out_spec=last.out_spec), left_out=len(items))


def opened(node: Node, depth: int, limit: int) -> Item:
    """Open a network from the outside in: a level as a whole, as long as all items are at most
    `limit`, and at most `depth` levels.
    """
    root = item(node)
    level, count = [root], 1
    for _ in range(depth):
        inner = [each.inside() for each in level]
        count += sum(map(len, inner))
        if count > limit:
            break
        for each, items in zip(level, inner, strict=True):
            each.items = items
        level = [item for items in inner for item in items]
    return root

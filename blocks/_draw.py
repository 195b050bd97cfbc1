"""`draw`: a network as a diagram, in SVG, made of the standard library alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blocks._arrays import replacing
from blocks._block import Block
from blocks._errors import FieldError
from blocks._fields import as_index
from blocks._infer import as_node
from blocks._spec import Node

DEPTH = 20  # levels of blocks in blocks that are opened
LIMIT = 400  # boxes and frames


@dataclass(frozen=True, repr=False)
class Drawing:
    """A diagram, as `draw` makes it: a notebook shows it, `save` writes it.

    Attributes:
        svg: the text of an SVG file, which can stand in an HTML page as it is. The group of each
            block has its path as `data-path`, and "block-" with the path's parts joined by "-" as
            `id`.
    """

    svg: str

    def save(self, path: str | Path) -> None:
        """Write the SVG to a file.

        Raises:
            FileError: if it cannot be written there.
        """
        with replacing(path) as file:
            file.write_text(self.svg, encoding="utf-8")

    def _repr_svg_(self) -> str:
        return self.svg

    def __repr__(self) -> str:
        return f"<Drawing of {self.svg.count('data-path=')} blocks>"


def draw(
    network: Node | Block,
    input_shape: Any = None,
    *,
    depth: int = DEPTH,
    limit: int = LIMIT,
    **options: Any,
) -> Drawing:
    """Draw a network: a box for each leaf, a frame around blocks of blocks, and lines between them.

    Data flows from top to bottom. A shape stands beside a line where it is another than before; a
    line of several tensors is thick. A box has the block's name and main fields, then the fields
    that are not at their defaults, and its parameters. A Repeat is drawn once, with "× 12", if all
    its repetitions are alike; a later use of a Shared block is dashed.

    Large networks stay small: of more than 40 blocks in a row, or 12 branches, the first and last
    are drawn; blocks are opened from the outside in, level by level, as long as all fit.

    Args:
        network: a node; or a block, whose drawing has no sizes without an `input_shape`.
        input_shape: as in `infer`; not for a node.
        depth: how many levels of blocks in blocks are opened; 0 is one box.
        limit: how many boxes and frames there may be.
        options: those of `infer`: layout and dtype.

    Raises:
        FieldError: for what is no network, or if two blocks share a name.
        ShapeError: if blocks do not fit together at that `input_shape`.

    >>> import blocks as bl
    >>> bl.draw(bl.Sequential(bl.Dense(256), bl.ReLU(), bl.Dense(10)), (20,))
    <Drawing of 4 blocks>
    """
    from blocks._drawing.outline import opened, outline
    from blocks._drawing.svg import svg

    for name, value, low in (("depth", depth, 0), ("limit", limit, 1)):
        if (as_index(value) or 0) < low or as_index(value) is None:
            raise FieldError(f"draw.{name} must be an int of at least {low}, got {value!r}.")
    if isinstance(network, Block) and input_shape is None and not options:
        node = outline(network)
    else:
        node = as_node(network, input_shape, options)
    return Drawing(svg(opened(node, depth, limit)))


def html(network: Node | Block) -> str | None:
    """The drawing for a notebook; None, for which it shows the repr, if there can be none."""
    try:
        drawing = draw(network)
    except Exception:  # whatever a block's own code raises must not hide the block
        return None
    return f'<div style="overflow-x: auto">{drawing.svg}</div>'

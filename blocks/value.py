"""Values."""

from __future__ import annotations

from typing import Any

from blocks import _fields as fields
from blocks._block import Leaf, block
from blocks._errors import ShapeError
from blocks._spec import ValueSpec


@block
class Identity(Leaf):
    """The input, unchanged; a tuple too.

    Shape: any; unchanged.

    >>> import blocks as bl
    >>> bl.infer(bl.Identity(), (7,)).out_spec.shape
    (7,)
    """

    layout_role = "elementwise"
    takes_tuple = True
    numbers = "any"

    def out_spec(self, x: ValueSpec) -> ValueSpec:
        return x


@block
class Select(Leaf):
    """One tensor of a tuple.

        y = x[index]

    Shape: that of the member.
    Fields:
        index: its place in the tuple, from 0, or from the end if negative.
    Differs: none of the frameworks has such a layer; their code indexes.

    >>> import blocks as bl
    >>> around = bl.Parallel(bl.Select(0), bl.Select(1), merge="add")
    >>> bl.infer(around, ((7,), (7,))).out_spec.shape
    (7,)
    """

    takes_tuple = True
    numbers = "any"

    index: int = fields.axis()

    def out_spec(self, x: ValueSpec) -> ValueSpec:
        size = len(x) if isinstance(x, tuple) else 0
        if not size:
            raise ShapeError("selects from a tuple, got one tensor", fix="Leave it out.")
        if not -size <= self.index < size:
            raise ShapeError(
                f"selects member {self.index}, but its input has {size}",
                fix=f"Write an index from 0 to {size - 1}.",
            )
        return x[self.index]

    def resolve(self, x: ValueSpec) -> dict[str, Any]:
        return {"index": self.index % len(x)}

"""Values."""

from __future__ import annotations

from blocks._block import Leaf, block
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

    def out_spec(self, x: ValueSpec) -> ValueSpec:
        return x

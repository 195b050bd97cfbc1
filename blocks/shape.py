"""Blocks that change the shape of a value and none of its numbers."""

from __future__ import annotations

import math

from blocks import _fields as fields
from blocks._block import Leaf, block
from blocks._errors import FieldError, ShapeError
from blocks._spec import Spec, shapes


@block
class Flatten(Leaf):
    """All axes but the batch become one, in the order of the array as it is (row by row).

    Shape: any -> (product of the sizes,).
    Differs: torch users flatten (C, H, W), Keras and Flax users (H, W, C), so the weights of the
        next Dense differ. Here the program's layout says it, and every backend gives that order.

    >>> import blocks as bl
    >>> bl.infer(bl.Flatten(), (5, 6, 3)).out_spec.shape
    (90,)
    """

    def out_spec(self, x: Spec) -> Spec:
        size = None if None in x.shape else math.prod(x.shape)  # type: ignore[arg-type]
        return x.with_shape((size,))


@block
class Permute(Leaf):
    """The axes in another order: axis i of the output is axis axes[i] of the input.

    Shape: s -> (s[axes[0]], s[axes[1]], ...); the batch axis is not counted and stays first.
    Fields:
        axes: every axis of the input once; 0 is the first after the batch.
    Differs: torch and JAX count the batch axis as 0, Keras counts the axes after it from 1.

    >>> import blocks as bl
    >>> bl.infer(bl.Permute((2, 0, 1)), (5, 6, 3)).out_spec.shape
    (3, 5, 6)
    """

    axes: tuple[int, ...] = fields.integers(low=0)

    def check(self) -> None:
        if sorted(self.axes) != list(range(len(self.axes))):
            raise FieldError(
                f"Permute.axes must hold each of 0 to {len(self.axes) - 1} once, got {self.axes}."
            )

    def out_spec(self, x: Spec) -> Spec:
        if x.rank != len(self.axes):
            raise ShapeError(f"orders {len(self.axes)} axes, but its input is {shapes(x)}")
        return x.with_shape(tuple(x.shape[a] for a in self.axes))

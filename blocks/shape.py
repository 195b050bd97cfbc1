"""Blocks that change the shape of a value: no number but those of `Upsample` is new."""

from __future__ import annotations

import math
from typing import Any

from blocks import _fields as fields
from blocks._block import Leaf, block
from blocks._errors import FieldError, ShapeError
from blocks._limits import MAX_AXES
from blocks._shape import need_known, need_spatial
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

    numbers = "any"

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

    numbers = "any"

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


@block
class Reshape(Leaf):
    """The same numbers, row by row, in another shape.

    Shape: any -> shape, with as many numbers; one -1 in `shape` is worked out.
    Fields:
        shape: without the batch axis.
    Differs: torch's Unflatten splits one axis, Keras's Reshape is this one, Flax has none.

    >>> import blocks as bl
    >>> bl.infer(bl.Reshape((3, -1)), (6, 4)).out_spec.shape
    (3, 8)
    """

    numbers = "any"

    shape: tuple[int, ...] = fields.integers(low=-1)

    def check(self) -> None:
        if len(self.shape) > MAX_AXES:
            raise FieldError(f"Reshape.shape has {len(self.shape):,} axes; {MAX_AXES} is the most.")
        if 0 in self.shape or self.shape.count(-1) > 1:
            raise FieldError(
                f"Reshape.shape must hold positive ints and at most one -1, got {self.shape}."
            )

    def out_spec(self, x: Spec) -> Spec:
        size = math.prod(need_known(x, n, "elements") for n in x.shape)
        stated = math.prod(n for n in self.shape if n != -1)
        if size % stated or (-1 not in self.shape and size != stated):
            raise ShapeError(
                f"makes {self.shape}, that is {stated} numbers, of {shapes(x)}, that is {size}",
                fix=f"Write a shape of {size} numbers.",
            )
        return x.with_shape(tuple(size // stated if n == -1 else n for n in self.shape))


def pair_per_axis() -> Any:
    """A (before, after) pair of ints for each axis of the value."""

    def convert(block: Any, label: str, value: Any) -> Any:
        rank = len(value) if hasattr(value, "__len__") else 0
        pairs = fields.pair_tuple(value, rank)
        if not pairs:
            rule = "a (before, after) pair for each axis, such as ((1, 1), (0, 2), (0, 0))"
            raise fields.refuse(label, rule, value)
        return pairs

    return fields.converted(convert)


@block
class Pad(Leaf):
    """More cells at both ends of the axes.

    Shape: each size grows by its pair.
    Fields:
        pads: a (before, after) pair for each axis of the value, the batch not counted.
        mode: "constant" fills with `value`, "reflect" mirrors without repeating the edge, "edge"
            repeats the edge.
        value: of the new cells for "constant".
    Differs: torch's F.pad takes the last axis first; its "replicate" and NumPy's "edge" are one.

    >>> import blocks as bl
    >>> bl.infer(bl.Pad(((1, 1), (0, 2))), (5, 6)).out_spec.shape
    (7, 8)
    """

    pads: tuple[tuple[int, int], ...] = pair_per_axis()
    mode: str = fields.choice(("constant", "reflect", "edge"), "constant")
    value: float = fields.real(0.0)

    def check(self) -> None:
        if self.value and self.mode != "constant":
            raise FieldError(f"Pad.value={self.value} has no meaning for mode={self.mode!r}.")

    def out_spec(self, x: Spec) -> Spec:
        need_pairs(self, x, self.pads)
        for axis, (size, pair) in enumerate(zip(x.shape, self.pads, strict=True)):
            if self.mode == "reflect" and size is not None and max(pair) >= size:
                raise ShapeError(
                    f"reflects {max(pair)} cells of axis {axis}, which has {size}",
                    fix=f"Reflect at most {size - 1}.",
                )
        grown = zip(x.shape, self.pads, strict=True)
        return x.with_shape(tuple(None if n is None else n + sum(pair) for n, pair in grown))


@block
class Crop(Leaf):
    """Fewer cells at both ends of the axes.

    Shape: each size shrinks by its pair.
    Fields:
        crops: a (before, after) pair for each axis of the value, the batch not counted.
    Differs: Keras's Cropping layers leave channels alone; torch and Flax have none.

    >>> import blocks as bl
    >>> bl.infer(bl.Crop(((1, 1), (0, 2))), (5, 6)).out_spec.shape
    (3, 4)
    """

    numbers = "any"

    crops: tuple[tuple[int, int], ...] = pair_per_axis()

    def out_spec(self, x: Spec) -> Spec:
        need_pairs(self, x, self.crops)
        sizes = []
        for axis, (size, pair) in enumerate(zip(x.shape, self.crops, strict=True)):
            if size is not None and sum(pair) >= size:
                raise ShapeError(
                    f"cuts {sum(pair)} cells off axis {axis}, which has {size}",
                    fix=f"Cut at most {size - 1}." if size > 1 else "Leave that axis as it is.",
                )
            sizes.append(None if size is None else size - sum(pair))
        return x.with_shape(tuple(sizes))


def need_pairs(block: Leaf, x: Spec, pairs: Any) -> None:
    if len(pairs) != x.rank:
        raise ShapeError(
            f"needs a pair for each of {x.rank} axes of {shapes(x)}, but has {len(pairs)}",
            fix="Give a pair for each axis, (0, 0) where nothing changes.",
        )


@block
class Upsample(Leaf):
    """More cells along each spatial axis, taken or interpolated from those that are there.

        s = (i + 1/2) * n / m
        y[i] = x[floor(s)]                                         for "nearest"
        y[i] = (1 - w) * x[j] + w * x[j + 1], j + w = s - 1/2      for "linear"

    along each axis in turn, from its n cells to m: cell i of the output is where its centre is. At
    the edges the outer cells go on. With `size` it may be fewer cells, without a filter before.

    Shape: (*spatial, C) -> (*sizes, C) in channels_last, (C, *spatial) -> (C, *sizes) in
        channels_first; sizes = size * scale, or as stated.
    Fields:
        scale: how many cells each becomes, a tuple; its length is the number of spatial axes.
        size: the sizes to reach, a tuple; either this or `scale`.
        mode: "nearest" or "linear" (over two axes also called bilinear, over three trilinear).
    Differs: torch's "nearest" takes floor(i * n / m); the one here is its "nearest-exact". JAX
        filters before it makes an image smaller unless antialias=False, and its "nearest" misses
        by a cell for some sizes where s is an integer. Keras interpolates over two axes only, and
        under TensorFlow in float32 whatever the dtype. In float32 all of them lose digits with the
        size where n / m is no power of two: 1e-5 from 224 to 336 cells.

    >>> import blocks as bl
    >>> bl.infer(bl.Upsample((2, 3)), (5, 6, 4)).out_spec.shape
    (10, 18, 4)
    >>> bl.infer(bl.Upsample(size=(8, 3), mode="linear"), (5, 6, 4)).out_spec.shape
    (8, 3, 4)
    """

    layout_role = "spatial"

    scale: tuple[int, ...] | None = fields.sizes(None, optional=True)
    size: tuple[int, ...] | None = fields.sizes(None, optional=True)
    mode: str = fields.choice(("nearest", "linear"), "nearest")

    def check(self) -> None:
        if (self.scale is None) == (self.size is None):
            raise FieldError(
                f"Upsample needs either scale or size, got scale={self.scale} and size={self.size}."
            )

    def out_spec(self, x: Spec) -> Spec:
        if self.size is not None:
            need_spatial(x, len(self.size), "a size")
            return x.with_channels(x.channels, self.size)
        scale: Any = self.scale
        need_spatial(x, len(scale), "a scale")
        grown = zip(x.spatial, scale, strict=True)
        return x.with_channels(x.channels, tuple(n and n * times for n, times in grown))

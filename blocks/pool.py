"""Pooling: one number for each window, or for the whole image, in each channel."""

from __future__ import annotations

from typing import Any

from blocks import _fields as fields
from blocks import _shape
from blocks._block import Leaf, block
from blocks._errors import ShapeError
from blocks._spec import Spec, shapes


@block
class WindowPool(Leaf):
    """What the pools with a window share: where the window goes."""

    layout_role = "spatial"

    kernel_size: tuple[int, ...] = fields.sizes()
    stride: tuple[int, ...] = fields.per_axis(None, same_as="kernel_size")
    padding: str | _shape.Pairs = fields.padding("valid", below_kernel=True)

    def resolve(self, x: Spec) -> dict[str, Any]:
        ones = (1,) * len(self.kernel_size)
        return _shape.windows(x, self.padding, self.kernel_size, self.stride, ones)

    def out_spec(self, x: Spec) -> Spec:
        _shape.need_spatial(x, len(self.kernel_size))
        ones = (1,) * len(self.kernel_size)
        pads = self.resolve(x)["padding"]
        sizes = _shape.slide(x, pads, self.kernel_size, self.stride, ones)
        return x.with_channels(x.channels, sizes)


@block
class MaxPool(WindowPool):
    """The largest number of each window, channel by channel.

        y[p, c] = max_k x[p * stride + k - before, c]

    Padded cells never win. Among equal numbers the first (row by row) receives the gradient.

    Shape: (*spatial, C) -> (*windows, C) in channels_last, (C, *spatial) -> (C, *windows) in
        channels_first; windows = floor((size + pads - kernel_size) / stride) + 1.
    Fields:
        kernel_size: a tuple; its length is the number of spatial axes.
        stride: step between windows, one int or a tuple; kernel_size if left out.
        padding: "valid", "same", or a (before, after) pair for each spatial axis, each smaller
            than kernel_size.
    Differs: the stride is the window by default in torch and Keras, and 1 in Flax. torch pads both
        ends alike; Keras knows no pairs.

    >>> import blocks as bl
    >>> bl.infer(bl.MaxPool((2, 3)), (7, 9, 4)).out_spec.shape
    (3, 3, 4)
    """


@block
class AvgPool(WindowPool):
    """The mean of each window, channel by channel.

        y[p, c] = sum_k x[p * stride + k - before, c] / n[p]

    where n is the number of real cells in the window, or with count_include_pad the window's size.

    Shape: (*spatial, C) -> (*windows, C) in channels_last, (C, *spatial) -> (C, *windows) in
        channels_first; windows = floor((size + pads - kernel_size) / stride) + 1.
    Fields:
        kernel_size, stride, padding: as in MaxPool.
        count_include_pad: whether padded cells count in the mean, as zeros.
    Differs: torch and Flax count padded cells by default, Keras never does. Here: not by default.

    >>> import blocks as bl
    >>> bl.infer(bl.AvgPool((2, 2), padding="same"), (7, 9, 4)).out_spec.shape
    (4, 5, 4)
    """

    count_include_pad: bool = fields.flag(False)


@block
class GlobalPool(Leaf):
    """What the pools over the whole image share."""

    layout_role = "spatial"

    def out_spec(self, x: Spec) -> Spec:
        if not 2 <= x.rank <= 4:
            raise ShapeError(
                f"needs one to three spatial axes and channels, got {shapes(x)}",
                fix="Leave it out: there is nothing left to pool." if x.rank == 1 else "",
            )
        return x.with_shape((x.channels,))


@block
class GlobalAvgPool(GlobalPool):
    """The mean over all spatial axes, channel by channel.

        y[c] = mean_p x[p, c]

    Shape: (*spatial, C) -> (C,) in channels_last, (C, *spatial) -> (C,) in channels_first.
    Differs: torch has no such layer (AdaptiveAvgPool2d(1) keeps axes of size 1); Keras's jax and
        torch engines compute it in float32 whatever the dtype.

    >>> import blocks as bl
    >>> bl.infer(bl.GlobalAvgPool(), (7, 9, 4)).out_spec.shape
    (4,)
    """


@block
class GlobalMaxPool(GlobalPool):
    """The largest number over all spatial axes, channel by channel.

        y[c] = max_p x[p, c]

    Among equal numbers, the first receives the gradient or all share it, as the framework does.

    Shape: (*spatial, C) -> (C,) in channels_last, (C, *spatial) -> (C,) in channels_first.
    Differs: torch has no such layer (AdaptiveMaxPool2d(1) keeps axes of size 1).

    >>> import blocks as bl
    >>> bl.infer(bl.GlobalMaxPool(), (7, 9, 4)).out_spec.shape
    (4,)
    """


@block
class AdaptiveAvgPool(Leaf):
    """The means of as many windows as are asked for, channel by channel.

        y[i, c] = mean_p x[p, c], p from floor(i * n / m) to below ceil((i + 1) * n / m)

    along each spatial axis, from its n cells to m: windows overlap where m does not divide n, and
    cells are repeated where m > n.

    Shape: (*spatial, C) -> (*output_size, C) in channels_last, (C, *spatial) -> (C, *output_size)
        in channels_first; the sizes must be known.
    Fields:
        output_size: a tuple; its length is the number of spatial axes.
    Differs: torch takes None for an axis that stays as it is; Flax has no such layer.

    >>> import blocks as bl
    >>> bl.infer(bl.AdaptiveAvgPool((3, 2)), (7, 9, 4)).out_spec.shape
    (3, 2, 4)
    """

    layout_role = "spatial"

    output_size: tuple[int, ...] = fields.sizes()

    def out_spec(self, x: Spec) -> Spec:
        _shape.need_spatial(x, len(self.output_size), "an output_size")
        for size in x.spatial:
            _shape.need_known(x, size, "cells along each axis")
        return x.with_channels(x.channels, self.output_size)

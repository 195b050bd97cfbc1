"""Convolution."""

from __future__ import annotations

import math
from typing import Any

from blocks import _fields as fields
from blocks import _shape
from blocks._block import Leaf, block
from blocks._errors import FieldError, ShapeError
from blocks._spec import ParamSpec, Spec
from blocks.initializers import Init, initializer


@block
class Conv(Leaf):
    """A kernel slides over one, two or three spatial axes (a cross-correlation: not flipped).

        y[p, o] = sum_{k, i} x[p * stride + k * dilation - before, i] * kernel[k, i, o] + bias[o]

    where i runs over the in / groups channels of o's group, and x is 0 outside.

    Shape: (*spatial, in) -> (*windows, features) in channels_last, (in, *spatial) ->
        (features, *windows) in channels_first; windows = floor((size + pads - span) / stride) + 1
        with span = (kernel_size - 1) * dilation + 1.
    Parameters: kernel (*kernel_size, in / groups, features); bias (features,) if use_bias.
    Fields:
        features: number of output channels.
        kernel_size: a tuple; its length is the number of spatial axes.
        stride, dilation: steps between windows and between cells of a window, one int or a tuple.
        padding: "valid" (none), "same" (ceil(size / stride) windows, an odd cell at the end), or a
            (before, after) pair for each spatial axis.
        groups: channels are split into so many groups that do not see each other; equal to the
            input channels it is a depthwise convolution.
        use_bias: whether to add a bias.
        in_features: stated only to be checked; it is inferred.
        kernel_init, bias_init: initialisers.
    Differs: padding is 0 by default in torch, "valid" in Keras and SAME in Flax. torch refuses
        "same" with a stride and pads both ends alike, which gives other numbers in the same shape;
        Keras knows no pairs. torch keeps kernels as (out, in / groups, *window), Keras and Flax as
        (*window, in / groups, out).

    >>> import blocks as bl
    >>> bl.infer(bl.Conv(8, (3, 5), stride=2, padding="same"), (7, 10, 3)).out_spec.shape
    (4, 5, 8)
    """

    layout_role = "spatial"

    features: int = fields.integer()
    kernel_size: tuple[int, ...] = fields.kernel_size()
    stride: tuple[int, ...] = fields.per_axis()
    padding: str | _shape.Pairs = fields.padding("valid")
    dilation: tuple[int, ...] = fields.per_axis()
    groups: int = fields.integer(1)
    use_bias: bool = fields.flag(True)
    in_features: int | None = fields.integer(None, optional=True)
    kernel_init: Init = initializer("glorot_uniform")
    bias_init: Init = initializer("zeros")

    def check(self) -> None:
        if self.features % self.groups:
            raise FieldError(f"Conv.groups={self.groups} does not divide features={self.features}.")

    def resolve(self, x: Spec) -> dict[str, Any]:
        return _shape.windows(x, self.padding, self.kernel_size, self.stride, self.dilation)

    def out_spec(self, x: Spec) -> Spec:
        _shape.need_spatial(x, len(self.kernel_size))
        pads = self.resolve(x)["padding"]
        sizes = _shape.slide(x, pads, self.kernel_size, self.stride, self.dilation)
        return x.with_channels(self.features, sizes)

    def param_specs(self, x: Spec) -> dict[str, ParamSpec]:
        channels = _shape.need_known(x, x.channels, "input channels")
        _shape.check_stated(self.in_features, channels)
        if channels % self.groups:
            raise ShapeError(
                f"has groups={self.groups}, which does not divide its {channels} input channels",
                fix=f"Use groups={math.gcd(channels, self.features)}, or change the channels.",
            )
        kernel = (*self.kernel_size, channels // self.groups, self.features)
        specs = {"kernel": ParamSpec(kernel, self.kernel_init)}
        if self.use_bias:
            specs["bias"] = ParamSpec((self.features,), self.bias_init)
        return specs

    def multiply_adds(self, x: Spec, y: Spec) -> int | None:
        if x.channels is None or None in y.shape:
            return None
        window = math.prod(self.kernel_size) * x.channels // self.groups
        return math.prod(y.shape) * window  # type: ignore[arg-type]

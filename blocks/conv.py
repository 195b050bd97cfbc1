"""Convolution, and its transpose."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

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
    kernel_size: tuple[int, ...] = fields.sizes()
    stride: tuple[int, ...] = fields.per_axis()
    padding: str | _shape.Pairs = fields.padding("valid")
    dilation: tuple[int, ...] = fields.per_axis()
    groups: int = fields.integer(1)
    use_bias: bool = fields.flag(True)
    in_features: int | None = fields.integer(None, optional=True)
    kernel_init: Init = initializer("glorot_uniform")
    bias_init: Init = initializer("zeros")

    def check(self) -> None:
        check_groups(self)

    def resolve(self, x: Spec) -> dict[str, Any]:
        steps = self.kernel_size, self.stride, self.dilation
        found = _shape.windows(x, self.padding, *steps)
        return found | {"unreached": _shape.unreached(x, found["padding"], *steps)}

    def out_spec(self, x: Spec) -> Spec:
        _shape.need_spatial(x, len(self.kernel_size))
        pads = self.resolve(x)["padding"]
        sizes = _shape.slide(x, pads, self.kernel_size, self.stride, self.dilation)
        return x.with_channels(self.features, sizes)

    def param_specs(self, x: Spec) -> dict[str, ParamSpec]:
        channels = grouped_channels(self, x)
        return kernel_and_bias(self, channels // self.groups, self.features)

    def multiply_adds(self, x: Spec, y: Spec) -> int | None:
        if x.channels is None or None in y.shape:
            return None
        window = math.prod(self.kernel_size) * x.channels // self.groups
        return math.prod(y.shape) * window  # type: ignore[arg-type]


@block
class ConvTranspose(Leaf):
    """The transpose of a convolution: each cell of the input adds a kernel to the output.

        y[p * stride + k * dilation - before, o] += sum_i x[p, i] * kernel[k, i, o]

    for all cells p and k, where i runs over the in / groups channels of o's group; then + bias[o].

    Shape: (*spatial, in) -> (*sizes, features) in channels_last, (in, *spatial) ->
        (features, *sizes) in channels_first; with span = (kernel_size - 1) * dilation + 1, sizes =
        size * stride + max(span - stride, 0) + output_padding for "valid", size * stride +
        output_padding for "same", (size - 1) * stride + span - before - after + output_padding
        for pairs.
    Parameters: kernel (*kernel_size, in, features / groups); bias (features,) if use_bias.
    Fields:
        features: number of output channels.
        kernel_size: a tuple; its length is the number of spatial axes.
        stride, dilation: steps between the kernels of neighbours and between the cells of a
            kernel, one int or a tuple.
        padding: how much is cut off the ends: a (before, after) pair for each spatial axis, the
            padding of the Conv that this one is the transpose of; "valid" (nothing, and never less
            than size * stride is left); or "same" (size * stride cells are left, with before =
            max(span - stride, 0) // 2).
        output_padding: so many cells more at the end, one int or a tuple, below stride or dilation:
            those that `padding` would have cut off, then cells of bias alone.
        groups: channels are split into so many groups that do not see each other.
        use_bias: whether to add a bias.
        in_features: stated only to be checked; it is inferred.
        kernel_init, bias_init: initialisers.
    Differs: padding is 0 by default in torch, "valid" in Keras and SAME in Flax. torch cuts both
        ends alike, so an odd span - stride is beyond it; integers in Flax pad the input between
        whose cells are zeros, and so have the opposite sense. Keras's output_padding sets the
        length instead of adding to it, and it refuses stride with dilation; Keras and Flax have no
        groups. torch keeps kernels as (in, out / groups, *window), Keras as (*window, out, in),
        Flax as (*window, in, out) turned around.

    >>> import blocks as bl
    >>> bl.infer(bl.ConvTranspose(8, (3, 5), stride=2, padding="same"), (7, 10, 3)).out_spec.shape
    (14, 20, 8)
    """

    layout_role = "spatial"

    features: int = fields.integer()
    kernel_size: tuple[int, ...] = fields.sizes()
    stride: tuple[int, ...] = fields.per_axis()
    padding: str | _shape.Pairs = fields.padding("valid")
    output_padding: tuple[int, ...] = fields.per_axis(0, low=0)
    dilation: tuple[int, ...] = fields.per_axis()
    groups: int = fields.integer(1)
    use_bias: bool = fields.flag(True)
    in_features: int | None = fields.integer(None, optional=True)
    kernel_init: Init = initializer("glorot_uniform")
    bias_init: Init = initializer("zeros")

    def check(self) -> None:
        check_groups(self)
        steps = zip(self.output_padding, self.stride, self.dilation, strict=True)
        if any(more >= max(step, gap) for more, step, gap in steps):
            raise FieldError(
                f"ConvTranspose.output_padding={self.output_padding} must be smaller than "
                f"stride={self.stride} or dilation={self.dilation}, axis by axis."
            )

    def resolve(self, x: Spec) -> dict[str, Any]:
        steps = self.kernel_size, self.stride, self.dilation
        return _shape.transposed(self.padding, self.output_padding, *steps)

    def out_spec(self, x: Spec) -> Spec:
        _shape.need_spatial(x, len(self.kernel_size))
        crop = self.resolve(x)["crop"]
        sizes = _shape.spread(x, crop, self.kernel_size, self.stride, self.dilation)
        return x.with_channels(self.features, sizes)

    def param_specs(self, x: Spec) -> dict[str, ParamSpec]:
        channels = grouped_channels(self, x)
        return kernel_and_bias(self, channels, self.features // self.groups)

    def multiply_adds(self, x: Spec, y: Spec) -> int | None:
        if None in x.shape:
            return None
        window = math.prod(self.kernel_size) * self.features // self.groups
        return math.prod(x.shape) * window  # type: ignore[arg-type]


Convolution: TypeAlias = Conv | ConvTranspose


def check_groups(made: Convolution) -> None:
    if made.features % made.groups:
        name = type(made).__name__
        raise FieldError(f"{name}.groups={made.groups} does not divide features={made.features}.")


def grouped_channels(made: Convolution, x: Spec) -> int:
    """The number of input channels; refuse one that was not stated or has no equal groups."""
    channels = _shape.need_known(x, x.channels, "input channels")
    _shape.check_stated(made.in_features, channels)
    if channels % made.groups:
        raise ShapeError(
            f"has groups={made.groups}, which does not divide its {channels} input channels",
            fix=f"Use groups={math.gcd(channels, made.features)}, or change the channels.",
        )
    return channels


def kernel_and_bias(made: Convolution, inputs: int, outputs: int) -> dict[str, ParamSpec]:
    kernel = (*made.kernel_size, inputs, outputs)
    specs = {"kernel": ParamSpec(kernel, made.kernel_init)}
    if made.use_bias:
        specs["bias"] = ParamSpec((made.features,), made.bias_init)
    return specs

"""Convolution."""

from __future__ import annotations

from typing import Any

from backends._expression import optional
from backends._rules import Bind, each, leaps
from backends._transforms import out_in, turned_around
from backends.keras._common import (
    LAST,
    layer,
    native_padding,
    op,
    padded,
    pipe,
    refuse_in_3d,
    rule,
    zero_padding,
)
from blocks._errors import UnsupportedError, place
from blocks._spec import Node
from blocks.conv import Conv, ConvTranspose


@rule(Conv, kernel="kernel", bias="bias")
def conv(node: Node) -> Any:
    block, rank = node.form, len(node.form.kernel_size)
    # Keras refuses stride and dilation together: take every window, then drop the others.
    thinned = max(block.stride) > 1 and max(block.dilation) > 1
    stride = (1,) * rank if thinned else block.stride
    pads = node.resolved["padding"]
    native = native_padding(node) if not thinned else ("valid" if not padded(pads) else None)
    main = layer(
        node,
        f"Conv{rank}D",
        block.features,
        kernel_size=each(block.kernel_size),
        strides=optional(each(stride), 1),
        padding=optional(native or "valid", "valid"),
        dilation_rate=optional(each(block.dilation), 1),
        groups=optional(block.groups, 1),
        use_bias=optional(block.use_bias, True),
        **LAST,
    )
    left_over = tuple((0, cells) for cells in node.resolved["unreached"])
    cropped = padded(left_over) and leaps(node, node.in_spec.channels) and not thinned
    return pipe(
        *(() if native else (zero_padding(node, pads),)),
        *((cropping(node, left_over),) if cropped else ()),
        main,
        *((thin(node),) if thinned else ()),
    )


def thin(node: Node) -> Any:
    """Every stride-th window."""
    refuse_in_3d(node)
    name = f"MaxPooling{len(node.form.stride)}D"
    return layer(node, name, 1, strides=each(node.form.stride), suffix="-thin", **LAST)


def fits(node: Node) -> bool:
    """Whether Keras has the layer: without groups and dilation, and with no cell beyond "valid"."""
    block, crop = node.form, node.resolved["valid_crop"]
    alone = block.groups == max(block.dilation) == 1 and not leaps(node, block.features)
    return alone and min(map(min, crop)) >= 0


def transposed_kernel(node: Node) -> Bind:
    return Bind("kernel", out_in if fits(node) else turned_around(node.form.groups))


@rule(ConvTranspose, kernel=transposed_kernel, bias="bias")
def conv_transpose(node: Node) -> Any:
    return stock_conv_transpose(node) if fits(node) else conv_of_spread(node)


def stock_conv_transpose(node: Node) -> Any:
    block, name = node.form, node.resolved["name"]
    main = layer(
        node,
        f"Conv{len(block.kernel_size)}DTranspose",
        block.features,
        kernel_size=each(block.kernel_size),
        strides=optional(each(block.stride), 1),
        padding=optional(name or "valid", "valid"),
        output_padding=optional(None, None),
        dilation_rate=optional(1, 1),
        use_bias=optional(block.use_bias, True),
        **LAST,
    )
    return main if name else pipe(main, cropping(node, node.resolved["valid_crop"]))


def conv_of_spread(node: Node) -> Any:
    """A convolution over the input with zeros between its cells, its kernel turned around."""
    block, rank = node.form, len(node.form.kernel_size)
    # spreading leaves stride - 1 zeros after the last cell too
    pads = [
        (low, high - step + 1)
        for (low, high), step in zip(node.resolved["padding"], block.stride, strict=True)
    ]
    more = tuple((max(low, 0), max(high, 0)) for low, high in pads)
    less = tuple((max(-low, 0), max(-high, 0)) for low, high in pads)
    main = layer(
        node,
        f"Conv{rank}D",
        block.features,
        kernel_size=each(block.kernel_size),
        strides=optional(1, 1),
        padding=optional("valid", "valid"),
        dilation_rate=optional(each(block.dilation), 1),
        groups=optional(block.groups, 1),
        use_bias=optional(block.use_bias, True),
        **LAST,
    )
    return pipe(
        *(spread(node) if max(block.stride) > 1 else ()),
        *((zero_padding(node, more),) if padded(more) else ()),
        *((cropping(node, less),) if padded(less) else ()),
        main,
    )


def spread(node: Node) -> tuple[Any, ...]:
    """Each cell with stride - 1 zeros after it."""
    sizes, stride = node.in_spec.spatial, node.form.stride
    if sizes.count(None) > 1:
        raise UnsupportedError(
            f"keras cannot lower ConvTranspose {place(node.path)} with several axes of any length: "
            "its layer has no such groups, dilation or padding, and Reshape infers one size.\n"
            "  Give the sizes to infer."
        )
    apart = [size for n in sizes for size in (n or -1, 1)]
    zeros = [pair for step in stride for pair in ((0, 0), (0, step - 1))]
    grown = [n * step if n else -1 for n, step in zip(sizes, stride, strict=True)]
    channels = node.in_spec.channels
    return (
        layer(node, "Reshape", (*apart, channels), suffix="-apart"),
        op("pad", pad_width=((0, 0), *zeros, (0, 0))),
        layer(node, "Reshape", (*grown, channels), suffix="-spread"),
    )


def cropping(node: Node, crop: Any) -> Any:
    last = LAST if len(crop) > 1 else {}  # Cropping1D knows no other format
    sizes = crop if len(crop) > 1 else crop[0]
    return layer(node, f"Cropping{len(crop)}D", sizes, suffix="-crop", **last)

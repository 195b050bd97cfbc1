"""Convolution."""

from __future__ import annotations

from typing import Any

from backends._expression import optional
from backends._rules import each
from backends.keras._common import (
    LAST,
    layer,
    native_padding,
    padded,
    pipe,
    refuse_float64_in_3d,
    rule,
    zero_padding,
)
from blocks._spec import Node
from blocks.conv import Conv


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
    before = () if native else (zero_padding(node),)
    return pipe(*before, main, *((thin(node),) if thinned else ()))


def thin(node: Node) -> Any:
    """Every stride-th window."""
    refuse_float64_in_3d(node)
    name = f"MaxPooling{len(node.form.stride)}D"
    return layer(node, name, 1, strides=each(node.form.stride), suffix="-thin", **LAST)

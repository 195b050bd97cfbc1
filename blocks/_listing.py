"""`listing`: a network as torch users print it, one line for each module; torch is not needed."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

from blocks._block import Block, Combinator
from blocks._infer import as_node
from blocks._spec import Node, Spec
from blocks.activation import Activation, LogSoftmax, Softmax
from blocks.combine import Container
from blocks.conv import Conv, ConvTranspose
from blocks.linear import Dense, Embedding
from blocks.norm import BatchNorm, GroupNorm, LayerNorm
from blocks.pool import AdaptiveAvgPool, AvgPool, MaxPool
from blocks.regularisation import Dropout
from blocks.shape import Flatten

ACTIVATIONS = {
    "relu": "ReLU()",
    "relu6": "ReLU6()",
    "leaky_relu": "LeakyReLU(negative_slope={slope})",
    "elu": "ELU(alpha={alpha})",
    "selu": "SELU()",
    "celu": "CELU(alpha={alpha})",
    "gelu": "GELU(approximate='none')",
    "gelu_tanh": "GELU(approximate='tanh')",
    "silu": "SiLU()",
    "mish": "Mish()",
    "softplus": "Softplus(beta=1.0, threshold=40)",  # the formula to the last digit
    "softsign": "Softsign()",
    "sigmoid": "Sigmoid()",
    "log_sigmoid": "LogSigmoid()",
    "tanh": "Tanh()",
    "hard_sigmoid": "Hardsigmoid()",
    "hard_silu": "Hardswish()",
    "hard_tanh": "Hardtanh(min_val=-1.0, max_val=1.0)",
    "tanh_shrink": "Tanhshrink()",
    "soft_shrink": "Softshrink({threshold})",
    "hard_shrink": "Hardshrink({threshold})",
}


def listing(
    network: Node | Block, input_shape: Any = None, *, name: str = "", **options: Any
) -> str:
    """The leaves of a network in their order, numbered, by torch's names and arguments.

    A leaf with a name of its own has that before it: `mean=Dense(16)` is `Mean-Linear(...)`. Blocks
    that torch has no module for are listed as they are written here. An axis counts the batch, as
    torch counts it, and is stated: where torch code says `Softmax(dim=None)`, this says which.

    Args:
        network: a block or a node, that of a `Validation` too.
        input_shape: as in `infer`; not for a node.
        name: of the model, for a heading; none if left out.
        options: those of `infer`: layout and dtype.

    >>> import blocks as bl
    >>> print(bl.listing(bl.Sequential(bl.Dense(16), bl.ReLU()), (8,), name="test1"))
    Model: test1
    Modules:
    0: Linear(in_features=8, out_features=16, bias=True)
    1: ReLU()
    """
    node = as_node(network, input_shape, options)
    lines = [f"Model: {name}", "Modules:"] if name else []
    words = prefixes(node)
    rows = [n for n in node.walk() if not isinstance(n.form, Combinator)]
    numbered = (f"{i}: {words.get(id(n), '')}{row(n)}" for i, n in enumerate(rows))
    return "\n".join([*lines, *numbered])


def row(node: Node) -> str:
    """A leaf without its prefix; as it is written where its input has no axes to take sizes of."""
    x = node.in_spec
    return shown(node.form, node) if isinstance(x, Spec) and x.rank else repr(node.form)


def prefixes(node: Node) -> dict[int, str]:
    """By the identity of nodes: the names that were given as keywords, as "LogVar-"."""
    return {
        id(child): "".join(map(str.capitalize, child.name.split("_"))) + "-"
        for parent in node.walk()
        if isinstance(parent.form, Container)
        for child in parent.children
        if not child.name.isdigit()
    }


def text(name: str, *arguments: Any, **named: Any) -> str:
    """A call as torch prints it."""
    words = [*map(str, arguments), *(f"{key}={value}" for key, value in named.items())]
    return f"{name}({', '.join(words)})"


def where(sizes: tuple[int, ...], default: int, **named: Any) -> dict[str, Any]:
    """The argument, unless it is the default along every axis."""
    return {} if set(sizes) == {default} else named


def lone(sizes: tuple[int, ...]) -> Any:
    """One int if all are equal."""
    return sizes[0] if len(set(sizes)) == 1 else sizes


def padding(form: Any, node: Node) -> Any:
    """Cells at both ends of each axis, pairs where the ends differ, or the word for them."""
    pads = node.resolved.get("padding", form.padding)
    if isinstance(pads, str) or any(low != high for low, high in pads):
        return pads
    return tuple(low for low, _ in pads)


def rank(node: Node) -> int:
    """How many spatial axes torch's module is named for; it has none for vectors alone."""
    return max(node.in_spec.rank - 1, 1)


def size(node: Node, param: str, axis: int, default: Any) -> Any:
    """A size of a parameter, which is the one that the block states; else that of the input."""
    return node.params[param].shape[axis] if param in node.params else default


@singledispatch
def shown(form: Any, node: Node) -> str:
    """One line of the listing."""
    return repr(form)


@shown.register
def _(form: Dense, node: Node) -> str:
    inputs = size(node, "kernel", 0, node.in_spec.shape[-1])
    return text("Linear", in_features=inputs, out_features=form.features, bias=form.use_bias)


@shown.register
def _(form: Embedding, node: Node) -> str:
    return text("Embedding", form.num_embeddings, form.features)


@shown.register
def _(form: Conv, node: Node) -> str:
    pads = padding(form, node)
    inputs = size(node, "kernel", -2, None)
    return convolution(form, node, "Conv", inputs and inputs * form.groups, pads, {})


@shown.register
def _(form: ConvTranspose, node: Node) -> str:
    crop = form.resolve(node.in_spec)["crop"]
    more = tuple(low - high for low, high in crop)
    if min(more) >= 0:
        crop = tuple(low for low, _ in crop)
        extra = where(more, 0, output_padding=more)
    else:
        extra = {}
    return convolution(form, node, "ConvTranspose", size(node, "kernel", -2, None), crop, extra)


def convolution(
    form: Conv | ConvTranspose, node: Node, name: str, inputs: Any, pads: Any, extra: dict[str, Any]
) -> str:
    return text(
        f"{name}{len(form.kernel_size)}d",
        node.in_spec.channels if inputs is None else inputs,
        form.features,
        kernel_size=form.kernel_size,
        stride=form.stride,
        **where(pads, 0, padding=pads),
        **where(form.dilation, 1, dilation=form.dilation),
        **extra,
        **where((form.groups,), 1, groups=form.groups),
        **({} if form.use_bias else {"bias": False}),
    )


@shown.register
def _(form: BatchNorm, node: Node) -> str:
    return text(
        f"BatchNorm{rank(node)}d",
        size(node, "mean", 0, node.in_spec.channels),
        eps=form.epsilon,
        momentum=round(1 - form.decay, 12),
        affine=form.use_scale or form.use_bias,
        track_running_stats=True,
    )


@shown.register
def _(form: LayerNorm, node: Node) -> str:
    sizes = node.in_spec.shape[-len(form.axes) :]
    affine = form.use_scale or form.use_bias
    return text("LayerNorm", sizes, eps=form.epsilon, elementwise_affine=affine)


@shown.register
def _(form: GroupNorm, node: Node) -> str:
    affine = form.use_scale or form.use_bias
    return text("GroupNorm", form.groups, node.in_spec.channels, eps=form.epsilon, affine=affine)


@shown.register
def _(form: MaxPool, node: Node) -> str:
    name = f"MaxPool{len(form.kernel_size)}d"
    return text(name, **window(form, node), dilation=1, ceil_mode=False)


@shown.register
def _(form: AvgPool, node: Node) -> str:
    return text(f"AvgPool{len(form.kernel_size)}d", **window(form, node))


def window(form: MaxPool | AvgPool, node: Node) -> dict[str, Any]:
    return {
        "kernel_size": lone(form.kernel_size),
        "stride": lone(form.stride),
        "padding": lone(padding(form, node)),
    }


@shown.register
def _(form: AdaptiveAvgPool, node: Node) -> str:
    return text(f"AdaptiveAvgPool{len(form.output_size)}d", output_size=form.output_size)


@shown.register
def _(form: Activation, node: Node) -> str:
    return ACTIVATIONS[form.kind].format(
        slope=form.slope, alpha=form.alpha, threshold=form.threshold
    )


@shown.register(Softmax)
@shown.register(LogSoftmax)
def _(form: Softmax, node: Node) -> str:
    axis = node.resolved.get("axis")
    return text(type(form).__name__, dim=form.axis if axis is None else axis + 1)


@shown.register
def _(form: Dropout, node: Node) -> str:
    many = form.whole_channels and node.in_spec.rank > 1
    return text(f"Dropout{rank(node)}d" if many else "Dropout", p=form.rate, inplace=False)


@shown.register
def _(form: Flatten, node: Node) -> str:
    return text("Flatten", start_dim=1, end_dim=-1)

"""`by_activation`: first numbers of kernels that suit the activation after them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator
from typing import Any

from blocks._block import Combinator
from blocks._errors import FieldError
from blocks._spec import Node, join
from blocks._stack import run
from blocks.activation import Activation
from blocks.combine import Residual
from blocks.conv import Conv, ConvTranspose
from blocks.initializers import Init, VarianceScaling
from blocks.linear import Dense
from blocks.norm import BatchNorm, GroupNorm, LayerNorm, RMSNorm
from blocks.pattern import Rearrange, Reduce
from blocks.pool import AdaptiveAvgPool, GlobalPool, WindowPool
from blocks.regularisation import Dropout
from blocks.shape import Crop, Flatten, Pad, Permute, Reshape, Upsample
from blocks.value import ArrayLeaf, Identity

LAYERS = (Dense, Conv, ConvTranspose)
PASSED = (
    *(BatchNorm, GroupNorm, LayerNorm, RMSNorm, Dropout, WindowPool, GlobalPool, AdaptiveAvgPool),
    *(Flatten, Reshape, Permute, Pad, Crop, Upsample, Rearrange, Reduce),
    *(Identity, ArrayLeaf),
)

NONE_FOLLOWS = "glorot_uniform"

# He's factor of 2 makes up for the half of the numbers that a function takes to about 0; those with
# Glorot's treat both signs alike; for SELU, a variance of 1 / fan_in keeps mean 0 and variance 1.
SUITS: dict[str, Init] = {
    "relu": "he_uniform",
    "relu6": "he_uniform",
    "elu": "he_uniform",
    "selu": "lecun_normal",
    "celu": "he_uniform",
    "gelu": "he_uniform",
    "gelu_tanh": "he_uniform",
    "silu": "he_uniform",
    "mish": "he_uniform",
    "softplus": "he_uniform",
    "softsign": "glorot_uniform",
    "sigmoid": "glorot_uniform",
    "log_sigmoid": "he_uniform",
    "tanh": "glorot_uniform",
    "hard_sigmoid": "glorot_uniform",
    "hard_silu": "he_uniform",
    "hard_tanh": "glorot_uniform",
    "tanh_shrink": "glorot_uniform",
    "soft_shrink": "glorot_uniform",
    "hard_shrink": "glorot_uniform",
}


def by_activation(node: Node) -> dict[str, Init]:
    """First numbers of every kernel by the activation that follows it, for `init(initial=...)`.

        relu, relu6, elu, celu, gelu, gelu_tanh, silu, hard_silu, mish,
        softplus, log_sigmoid                 he_uniform: variance 2 / fan_in
        leaky_relu                            variance 2 / ((1 + slope^2) fan_in), uniform
        selu                                  lecun_normal: variance 1 / fan_in
        tanh, hard_tanh, softsign, sigmoid, hard_sigmoid, tanh_shrink,
        soft_shrink, hard_shrink; or none     glorot_uniform: variance 2 / (fan_in + fan_out)

    (He et al. 2015; Klambauer et al. 2017; Glorot and Bengio 2010.)

    Kernels are those of Dense, Conv and ConvTranspose, but not where a layer states a `kernel_init`
    of its own; all other parameters are drawn by their blocks' fields: biases stay 0. Norms,
    Dropout, pools, constants and blocks of shape between a layer and its activation are passed
    over; Softmax is none of the activations.

    What ends a branch of a Residual or Parallel is followed by what follows the merge. Where a
    value goes several ways, into branches, around a Residual, or from each use of a Shared layer,
    ways that lead to no activation do not count; if the others ask for different first numbers,
    none of them is followed.

    Args:
        node: the network at known sizes.

    Returns:
        Path of a kernel to its initialiser, in the order of the program. Other choices are added
        by `|`.

    Raises:
        FieldError: if it is no node.

    >>> import blocks as bl
    >>> node = bl.infer(bl.Sequential(bl.Dense(5), bl.BatchNorm(), bl.ReLU(), bl.Dense(3)), (4,))
    >>> bl.by_activation(node)
    {'0/kernel': 'he_uniform', '3/kernel': 'glorot_uniform'}
    >>> params = bl.init(node, initial=bl.by_activation(node) | {"3/kernel": "zeros"})
    """
    if not isinstance(node, Node):
        raise FieldError(f"by_activation takes a node from infer, got {node!r}.")
    ways: dict[str, set[Init]] = defaultdict(set)
    run(followed(node, set(), ways))
    return {path: only(ways[path]) for path in node.param_specs() if path in ways}


def only(suited: set[Init]) -> Init:
    """What all ways ask for; if that differs, or there is none, as if no activation followed."""
    return next(iter(suited)) if len(suited) == 1 else NONE_FOLLOWS


def suits(form: Activation) -> Init:
    """The initialiser for a layer before an activation."""
    if form.slope is not None:
        return VarianceScaling(2 / (1 + form.slope**2), "fan_in", "uniform")
    return SUITS[form.kind]


def followed(
    node: Node, after: set[Init], ways: dict[str, set[Init]]
) -> Generator[Any, Any, set[Init]]:
    """What suits a layer right before a node, given what suits one right after it.

    Layers in the node are noted in `ways`, by the path of their kernel.
    """
    form = node.form
    if isinstance(form, Combinator) and form.flow == "fork":
        around = isinstance(form, Residual) and form.shortcut is None
        before = set(after) if around else set()
        for child in node.children:
            before |= yield followed(child, after, ways)
        return before
    if isinstance(form, Combinator):
        for child in reversed(node.children):
            after = yield followed(child, after, ways)
        return after
    if isinstance(form, Activation):
        return {suits(form)}
    if isinstance(form, LAYERS) and "kernel_init" not in form.fields():
        ways[join(node.home, "kernel")] |= after
    return after if isinstance(form, PASSED) else set()

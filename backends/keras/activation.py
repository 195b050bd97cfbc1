"""Activations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from backends._expression import optional
from backends._rules import own_axis
from backends.keras._common import (
    layer,
    op,
    pipe,
    rule,
)
from blocks._spec import Node
from blocks.activation import Activation, LogSoftmax, Softmax

# Kinds whose name is Keras's own are layers.Activation(kind); these are not, or take a number.
ACTIVATIONS: dict[str, Callable[[Node, Activation], Any]] = {
    "relu": lambda node, a: layer(node, "ReLU"),
    "leaky_relu": lambda node, a: layer(node, "LeakyReLU", negative_slope=optional(a.slope, 0.3)),
    "elu": lambda node, a: layer(node, "ELU", alpha=optional(a.alpha, 1.0)),
    # Keras's own celu and selu have other gradients at 0, on TensorFlow
    "celu": lambda node, a: celu(node, a.alpha),
    "selu": lambda node, a: pipe(
        layer(node, "ELU", alpha=1.6732632423543772), op("multiply", x2=1.0507009873554805)
    ),
    "gelu_tanh": lambda node, a: op("gelu", approximate=optional(True, True)),
    "soft_shrink": lambda node, a: op("soft_shrink", threshold=optional(a.threshold, 0.5)),
    "hard_shrink": lambda node, a: op("hard_shrink", threshold=optional(a.threshold, 0.5)),
}


@rule(Activation)
def activation(node: Node) -> Any:
    kind = node.form.kind
    if kind in ACTIVATIONS:
        return ACTIVATIONS[kind](node, node.form)
    return layer(node, "Activation", kind)


def celu(node: Node, alpha: Any) -> Any:
    """Alpha * elu(x / alpha)."""
    elu = layer(node, "ELU", alpha=optional(1.0, 1.0))
    return elu if alpha == 1 else pipe(op("multiply", x2=1 / alpha), elu, op("multiply", x2=alpha))


@rule(Softmax)
def softmax(node: Node) -> Any:
    return layer(node, "Softmax", axis=optional(own_axis(node), -1))


@rule(LogSoftmax)
def log_softmax(node: Node) -> Any:
    return op("log_softmax", axis=optional(own_axis(node), -1))

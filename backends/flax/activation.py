"""Activations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from backends._expression import Name
from backends._rules import own_axis
from backends.flax._common import partial, rule
from blocks._spec import Node
from blocks.activation import Activation, LogSoftmax, Softmax

ACTIVATIONS: dict[str, Callable[[Activation], Any]] = {
    "relu": lambda a: Name("nnx.relu"),
    "relu6": lambda a: Name("jax.nn.relu6"),
    "leaky_relu": lambda a: partial("leaky_relu", slope=a.slope),
    "elu": lambda a: partial("nnx.elu", alpha=a.alpha) if a.alpha != 1 else Name("nnx.elu"),
    "selu": lambda a: Name("nnx.selu"),
    "celu": lambda a: partial("nnx.celu", alpha=a.alpha) if a.alpha != 1 else Name("nnx.celu"),
    "gelu": lambda a: partial("nnx.gelu", approximate=False),
    "gelu_tanh": lambda a: partial("nnx.gelu", approximate=True),
    "silu": lambda a: Name("nnx.silu"),
    "mish": lambda a: Name("jax.nn.mish"),
    "softplus": lambda a: Name("nnx.softplus"),
    "softsign": lambda a: Name("nnx.soft_sign"),
    "sigmoid": lambda a: Name("nnx.sigmoid"),
    "log_sigmoid": lambda a: Name("nnx.log_sigmoid"),
    "tanh": lambda a: Name("nnx.tanh"),
    "hard_sigmoid": lambda a: Name("nnx.hard_sigmoid"),
    "hard_silu": lambda a: Name("nnx.hard_silu"),
    "hard_tanh": lambda a: Name("hard_tanh"),
    "tanh_shrink": lambda a: Name("tanh_shrink"),
    "soft_shrink": lambda a: partial("soft_shrink", threshold=a.threshold),
    "hard_shrink": lambda a: partial("hard_shrink", threshold=a.threshold),
}


@rule(Activation)
def activation(node: Node) -> Any:
    return ACTIVATIONS[node.form.kind](node.form)


@rule(Softmax)
def softmax(node: Node) -> Any:
    return along_axis(node, "nnx.softmax")


@rule(LogSoftmax)
def log_softmax(node: Node) -> Any:
    return along_axis(node, "nnx.log_softmax")


def along_axis(node: Node, function: str) -> Any:
    axis = own_axis(node)
    return Name(function) if axis == -1 else partial(function, axis=axis)

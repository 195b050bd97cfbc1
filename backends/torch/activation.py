"""Activations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from backends._expression import call, optional
from backends._rules import own_axis
from backends.torch._common import rule
from blocks._spec import Node
from blocks.activation import Activation, LogSoftmax, Softmax

ACTIVATIONS: dict[str, Callable[[Activation], Any]] = {
    "relu": lambda a: call("nn.ReLU"),
    "relu6": lambda a: call("nn.ReLU6"),
    "leaky_relu": lambda a: call("nn.LeakyReLU", negative_slope=optional(a.slope, 0.01)),
    "elu": lambda a: call("nn.ELU", alpha=optional(a.alpha, 1.0)),
    "selu": lambda a: call("nn.SELU"),
    "celu": lambda a: call("nn.CELU", alpha=optional(a.alpha, 1.0)),
    "gelu": lambda a: call("nn.GELU"),
    "gelu_tanh": lambda a: call("nn.GELU", approximate="tanh"),
    "silu": lambda a: call("nn.SiLU"),
    "mish": lambda a: call("nn.Mish"),
    # torch's softplus is x above its threshold: 20 would be wrong in the 10th digit.
    "softplus": lambda a: call("nn.Softplus", threshold=40),
    "softsign": lambda a: call("nn.Softsign"),
    "sigmoid": lambda a: call("nn.Sigmoid"),
    "log_sigmoid": lambda a: call("nn.LogSigmoid"),
    "tanh": lambda a: call("nn.Tanh"),
    "hard_sigmoid": lambda a: call("nn.Hardsigmoid"),
    "hard_silu": lambda a: call("nn.Hardswish"),
    "hard_tanh": lambda a: call("nn.Hardtanh"),
    "tanh_shrink": lambda a: call("nn.Tanhshrink"),
    "soft_shrink": lambda a: call("nn.Softshrink", lambd=optional(a.threshold, 0.5)),
    "hard_shrink": lambda a: call("nn.Hardshrink", lambd=optional(a.threshold, 0.5)),
}


@rule(Activation)
def activation(node: Node) -> Any:
    return ACTIVATIONS[node.form.kind](node.form)


rule.rounds(Activation, 1e-7, "torch's backward has 1/6 in float32", kind="hard_sigmoid")
rule.rounds(Activation, 1e-7, "torch's backward has alpha in float32", kind="celu")


@rule(Softmax)
def softmax(node: Node) -> Any:
    return call("nn.Softmax", dim=own_axis(node))


@rule(LogSoftmax)
def log_softmax(node: Node) -> Any:
    return call("nn.LogSoftmax", dim=own_axis(node))

"""Activations."""

from __future__ import annotations

from typing import Any

from backends._expression import call
from backends._rules import own_axis
from backends.numpy._common import rule
from blocks._spec import Node
from blocks.activation import Activation, LogSoftmax, Softmax

ACTIVATIONS = {
    "relu": "ReLU",
    "relu6": "ReLU6",
    "leaky_relu": "LeakyReLU",
    "elu": "ELU",
    "selu": "SELU",
    "celu": "CELU",
    "gelu": "GELU",
    "gelu_tanh": "TanhGELU",
    "silu": "SiLU",
    "mish": "Mish",
    "softplus": "Softplus",
    "softsign": "Softsign",
    "sigmoid": "Sigmoid",
    "log_sigmoid": "LogSigmoid",
    "tanh": "Tanh",
    "hard_sigmoid": "HardSigmoid",
    "hard_silu": "HardSiLU",
    "hard_tanh": "HardTanh",
    "tanh_shrink": "TanhShrink",
    "soft_shrink": "SoftShrink",
    "hard_shrink": "HardShrink",
}


@rule(Activation)
def activation(node: Node) -> Any:
    block = node.form
    numbers = {"slope": block.slope, "alpha": block.alpha, "threshold": block.threshold}
    stated = {name: number for name, number in numbers.items() if number is not None}
    return call(ACTIVATIONS[block.kind], **stated)


@rule(Softmax)
def softmax(node: Node) -> Any:
    return call("Softmax", axis=own_axis(node))


@rule(LogSoftmax)
def log_softmax(node: Node) -> Any:
    return call("LogSoftmax", axis=own_axis(node))

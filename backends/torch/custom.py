"""Blocks that users write."""

from __future__ import annotations

from typing import Any

from backends._custom import arrays, define, native_attributes, operations, plain_fields
from backends._expression import call
from backends.torch import modules, ops
from backends.torch._common import rule
from blocks._spec import Node, ParamSpec
from blocks.custom import Custom
from blocks.initializers import Array, Constant, Normal, Uniform

OPS = operations(ops.WORDS, vars(ops))
TAKEN = native_attributes(modules.Custom)


@rule(Custom, attribute="{name}")
def custom(node: Node) -> Any:
    definition = define(node, modules.Custom, ops.WORDS, OPS)
    return call(definition, **arrays(node, first), **plain_fields(node, TAKEN))


def first(spec: ParamSpec, init: Any) -> Any:
    empty = call("torch.empty", *spec.shape)
    match init:
        case Constant(0):
            return call("torch.zeros", *spec.shape)
        case Constant(value):
            return call("torch.full", spec.shape, value)
        case Array(values):
            return call("torch.tensor", values)
        case Normal(std, mean):
            return call("nn.init.normal_", empty, mean, std)
        case Uniform(low, high):
            return call("nn.init.uniform_", empty, low, high)
    return call("nn.init.orthogonal_", empty, init.gain)

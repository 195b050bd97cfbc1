"""Blocks that users write."""

from __future__ import annotations

from typing import Any

from backends._custom import arrays, define, native_attributes, operations, plain_fields
from backends._expression import call
from backends.numpy._common import RNG, rule
from backends.numpy.modules import custom as own
from backends.numpy.modules import ops
from blocks._spec import Node, ParamSpec
from blocks.custom import Custom
from blocks.initializers import Array, Constant, Normal, Uniform

OPS = operations(ops.WORDS, vars(ops))
TAKEN = native_attributes(own.Custom)


@rule(Custom, attribute="{name}")
def custom(node: Node) -> Any:
    definition = define(node, own.Custom, ops.WORDS, OPS)
    return call(definition, **arrays(node, first), **plain_fields(node, TAKEN))


def first(spec: ParamSpec, init: Any) -> Any:
    match init:
        case Constant(0):
            return call("np.zeros", spec.shape)
        case Constant(value):
            return call("np.full", spec.shape, value)
        case Array(values):
            return call("np.array", values)
        case Normal(std, mean):
            return call("rng.normal", mean, std, spec.shape)
        case Uniform(low, high):
            return call("rng.uniform", low, high, spec.shape)
    return call("orthogonal", RNG, spec.shape, init.gain)

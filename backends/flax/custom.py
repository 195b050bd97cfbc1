"""Blocks that users write."""

from __future__ import annotations

from typing import Any

from backends._custom import arrays, define, native_attributes, operations, plain_fields
from backends._expression import Name, call, optional
from backends.flax import modules, ops
from backends.flax._common import rule
from blocks._spec import Node, ParamSpec
from blocks.custom import Custom
from blocks.initializers import Array, Constant, Normal, Uniform

OPS = operations(ops.WORDS, vars(modules) | vars(ops))
TAKEN = native_attributes(modules.Custom)


@rule(Custom, attribute="{name}")
def custom(node: Node) -> Any:
    definition = define(node, modules.Custom, ops.WORDS, OPS)
    mixed = node.dtype != node.param_dtype
    dtype = optional(Name(f"jnp.{node.dtype}") if mixed else None, None)
    return call(definition, **arrays(node, first), dtype=dtype, **plain_fields(node, TAKEN))


def first(spec: ParamSpec, init: Any) -> Any:
    stated = None if spec.dtype == "float32" else Name(f"jnp.{spec.dtype}")
    dtype = {"dtype": optional(stated, None)}
    match init:
        case Constant(0):
            return call("jnp.zeros", spec.shape, **dtype)
        case Constant(value):
            return call("jnp.full", spec.shape, value, **dtype)
        case Array(values):
            return call("jnp.array", values, **dtype)
        case Normal(std, mean):
            return call("normal", Name("rngs"), spec.shape, mean, std, **dtype)
        case Uniform(low, high):
            return call("uniform", Name("rngs"), spec.shape, low, high, **dtype)
    return call("orthogonal", Name("rngs"), spec.shape, init.gain, **dtype)

"""Blocks that users write: the one case in which Keras needs a layer of our own."""

from __future__ import annotations

from typing import Any

from backends._custom import arrays, define, native_attributes, operations, plain_fields
from backends._expression import call
from backends.keras import modules, ops
from backends.keras._common import layer_name, rule
from blocks._spec import Node, ParamSpec, ValueSpec, map_value
from blocks.custom import Custom
from blocks.initializers import Array, Constant, Normal, Uniform

OPS = operations(ops.WORDS, vars(ops))
TAKEN = native_attributes(modules.Custom, outputs={})


@rule(Custom, attribute="{name}")
def custom(node: Node) -> Any:
    definition = define(node, modules.Custom, ops.WORDS, OPS)
    fields = plain_fields(node, TAKEN)
    given = arrays(node, first)
    name = layer_name(node.home)
    return call(definition, outputs=outputs(node.out_spec), **given, **fields, name=name)


def outputs(value: ValueSpec) -> Any:
    """Shape and dtype of what comes out; a tuple of them for a tuple."""
    return map_value(lambda spec: {"shape": spec.shape, "dtype": spec.dtype}, value)


def first(spec: ParamSpec, init: Any) -> Any:
    match init:
        case Constant(0):
            made: Any = "zeros"
        case Constant(value):
            made = call("keras.initializers.Constant", value)
        case Array(values):
            made = call("keras.initializers.Constant", values)
        case Normal(std, mean):
            made = call("keras.initializers.RandomNormal", mean, std)
        case Uniform(low, high):
            made = call("keras.initializers.RandomUniform", low, high)
        case _:
            made = call("keras.initializers.Orthogonal", init.gain)
    return spec.shape, made

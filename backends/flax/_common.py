"""The rule table of flax, and what rules of several families need."""

from __future__ import annotations

from typing import Any

from backends._expression import Let, Mark, Name, call, optional
from backends._rules import Rules
from blocks._spec import Node

rule = Rules("flax")


def layer(node: Node, function: str, *args: Any, **kwargs: Any) -> Any:
    """A layer with parameters: their dtype, and the random numbers for their first values."""
    param_dtype = optional(Name(f"jnp.{node.param_dtype}"), Name("jnp.float32"))
    mixed = node.dtype != node.param_dtype
    dtype = optional(Name(f"jnp.{node.dtype}") if mixed else None, None)
    kwargs = {"dtype": dtype, "param_dtype": param_dtype} | kwargs
    return call(function, *args, **kwargs, rngs=Name("rngs"))


def module(expression: Any) -> Any:
    """The expression, in an nnx.Sequential if it is a function."""
    inner = expression
    while isinstance(inner, (Let, Mark)):
        inner = inner.value
    function = isinstance(inner, Name) or inner.function == "partial"
    return call("nnx.Sequential", expression) if function else expression


def partial(function: str, **kwargs: Any) -> Any:
    """A function of the value alone."""
    return call("partial", Name(function), **kwargs)


def padding(node: Node) -> Any:
    """Padding in Flax's words; its "SAME" is the block's own."""
    pads = node.resolved["padding"]
    if not any(map(sum, pads)):
        return "VALID"
    return "SAME" if node.resolved["same"] else pads

"""The rule table of flax, and what rules of several families need."""

from __future__ import annotations

from typing import Any

from backends._expression import Name, call, optional
from backends._rules import Rules
from blocks._spec import Node

rule = Rules("flax")


def layer(node: Node, function: str, *args: Any, **kwargs: Any) -> Any:
    """A layer with parameters: their dtype, and the random numbers for their first values."""
    dtype = Name(f"jnp.{node.in_spec.dtype}")
    param_dtype = optional(dtype, Name("jnp.float32"))
    return call(function, *args, **kwargs, param_dtype=param_dtype, rngs=Name("rngs"))


def partial(function: str, **kwargs: Any) -> Any:
    """A function of the value alone."""
    return call("partial", Name(function), **kwargs)


def padding(node: Node) -> Any:
    """Padding in Flax's words; its "SAME" is the block's own."""
    pads = node.resolved["padding"]
    if not any(map(sum, pads)):
        return "VALID"
    return "SAME" if node.resolved["same"] else pads

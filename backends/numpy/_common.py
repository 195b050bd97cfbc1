"""The rule table of numpy, and what rules of several families need."""

from __future__ import annotations

from typing import Any

from backends._expression import Name, optional
from backends._rules import Rules
from blocks._spec import Node

rule = Rules("numpy")
RNG = Name("rng")


def channel_axis(node: Node) -> Any:
    """Where the channels are in an array with its batch axis."""
    return optional(-1 if node.in_spec.layout == "channels_last" else 1, -1)

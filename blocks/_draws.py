"""Draws that are the same on every backend: `lower(..., draws="shared")`.

Blocks that draw random numbers use the framework's own generator. With shared draws they use one
counter-based stream instead, so that training is comparable number by number: the bits for an
element depend on the seed, the block's path, the element's place in the batch and how often the
block has been called in training, and on nothing else.

The bits are those of Threefry-2x32 with 20 rounds (Salmon et al. 2011), with counter (place, calls)
and a key made of seed and path. For the words a, b of an element:

    dropped        if floor(a / 2^8) / 2^24 < rate
    normal number  sqrt(-2 log u) cos(2 pi v), u = (floor(a / 2^9) + 1/2) / 2^23,
                   v = floor(b / 2^9) / 2^23   (Box and Muller 1958)
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Any

import numpy as np

from blocks._spec import Node
from blocks._stack import run


def shared_draws(node: Node, seed: int) -> Node:
    """The same tree, whose stochastic blocks know the key of their stream."""

    def keyed(node: Node) -> Generator[Any, Any, Node]:
        children = []
        for child in node.children:
            children.append((yield keyed(child)))
        resolved = dict(node.resolved)
        if node.form.stochastic:
            resolved["key"] = stream_key(seed, node.home)
        return replace(node, children=tuple(children), resolved=resolved)

    return run(keyed(node))


def stream_key(seed: int, path: str) -> tuple[int, int]:
    """Two words of 32 bits for a seed and a path."""
    words = np.random.SeedSequence(seed, spawn_key=tuple(path.encode())).generate_state(2)
    return int(words[0]), int(words[1])

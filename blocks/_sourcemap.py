"""`lines`: at which lines of its listings each block of a network stands.

`python -m blocks._sourcemap BACKEND` answers with them in a process of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Container, Iterator
from typing import Any

from blocks._backends import find_backend
from blocks._block import Block
from blocks._files import node_from_json
from blocks._infer import as_node
from blocks._spec import Node
from blocks._stack import call_deep
from blocks._worker import serve
from blocks.combine import Repeat


def lines(
    network: Node | Block, backend: str, input_shape: Any = None, **options: Any
) -> tuple[str, dict[str, list[int]]]:
    """The listing of `source`, and the numbers of its lines, from 1, by the path of each block.

    A block of blocks has the lines of its parts; all repetitions have those of the one that is
    written, and a shared block those of its layers and of every use. A block without a line, such
    as an Identity in Keras, has none.

    >>> import blocks as bl
    >>> text, found = lines(bl.Sequential(bl.Dense(3), bl.ReLU()), "numpy", (2,))
    >>> number = found["1"][0]
    >>> text.splitlines()[number - 1]
    'model = Sequential([Dense(2, 3, rng=rng), ReLU()])'
    """
    node = as_node(network, input_shape, options)
    adapter = find_backend(backend)
    program = adapter.program(node)
    text, places = call_deep(node.levels(), adapter.located, program)
    pairs = list(with_written(program.node, places))
    found: dict[str, set[int]] = {}
    of_node: dict[int, set[int]] = {}
    for node, written in reversed(pairs):  # children before parents
        inside = (of_node[id(child)] for child in node.children)
        of_node[id(node)] = places.get(written.home, set()).union(*inside)
    for node, _ in pairs:
        found.setdefault(node.path, set()).update(of_node[id(node)])
    return text, {path: sorted(numbers) for path, numbers in found.items()}


def with_written(root: Node, places: Container[str]) -> Iterator[tuple[Node, Node]]:
    """Each node with the one whose code stands for it: of a loop that is its first repetition."""
    stack = [(root, root)]
    while stack:
        node, written = stack.pop()
        yield node, written
        pairs = list(zip(node.children, written.children, strict=True))
        if isinstance(node.form, Repeat) and pairs[-1][1].home not in places:
            pairs = [(child, written.children[0]) for child in node.children]
        stack += reversed(pairs)


def main(backend: str) -> None:
    def answer(network: str, custom: list[str]) -> Any:
        return lines(node_from_json(network, custom), backend)

    serve({"lines": answer})


if __name__ == "__main__":
    main(sys.argv[1])

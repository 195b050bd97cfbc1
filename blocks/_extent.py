"""How much there is of a network: what is beyond the limits is refused before it is made."""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import Any

from blocks._block import Block, Combinator
from blocks._errors import ParamError, ShapeError, place, shown
from blocks._fields import as_index
from blocks._limits import (
    MAX_AXES,
    MAX_LEVELS,
    MAX_NODES,
    MAX_NUMBERS,
    MAX_TENSORS,
    amount,
    machine_memory,
)
from blocks._spec import Node, ParamSpec, Spec, ValueSpec, array_dtype, join, leaves, shapes
from blocks._stack import run


def check_extent(network: Block) -> None:
    """Refuse a network of too many blocks, or with too many inside each other.

    A block that stands at several places is counted once, so this takes no longer than to write
    the network down, however often it repeats.

    Raises:
        ShapeError: naming the innermost block that comes to too many.
    """
    known: dict[int, tuple[Block, int, int]] = {}  # with the block, or its id may be another's

    def extent(block: Block, path: tuple[Any, str]) -> Generator[Any, Any, tuple[int, int]]:
        if id(block) in known:
            return known[id(block)][1:]
        form, nodes, levels = block, 1, 1
        while (inner := form.expand()) is not None:
            form = inner
        if isinstance(form, Combinator):
            for name, part in form.parts().items():
                each, below = yield extent(part, (path, name))
                nodes += form.copies * each
                levels = max(levels, below + 1)
        for number, most, what in ((nodes, MAX_NODES, ""), (levels, MAX_LEVELS, " in each other")):
            if number > most:
                raise beyond(block, path, f"comes to {number:,} blocks{what}", f"{most:,}")
        known[id(block)] = block, nodes, levels
        return nodes, levels

    run(extent(network, (None, "")))


def beyond(block: Block, path: Any, fact: str, most: str) -> ShapeError:
    """The error of a block, with its place as text."""
    names: list[str] = []
    while path is not None:
        path, name = path
        names.append(name)
    where = ""
    for name in reversed(names):
        where = join(where, name)
    error = ShapeError(f"{type(block).__name__} {place(where)} {fact}; {most} is the most.")
    error.path, error.block = where, block
    return error


def bounded(value: ValueSpec) -> ValueSpec:
    """The value itself; refused if it has too many tensors, axes or numbers."""
    tensors, stack = 0, [(value, 0)]
    while stack:
        here, level = stack.pop()
        if isinstance(here, tuple):
            if level == MAX_AXES:
                raise ShapeError(f"makes a tuple inside {MAX_AXES} others, which is too deep")
            stack += [(member, level + 1) for member in here]
        elif isinstance(here, Spec):
            tensors += 1
            check_shape("makes a value", here.shape)
        if tensors + len(stack) > MAX_TENSORS:
            raise ShapeError(f"makes a tuple of more than {MAX_TENSORS:,} tensors")
    return value


def bounded_param(name: str, spec: ParamSpec) -> ParamSpec:
    """The parameter itself; refused if it has too many axes or numbers."""
    check_shape(f"needs a parameter {name}", spec.shape)
    return spec


def check_shape(what: str, shape: tuple[int | None, ...]) -> None:
    sizes = [size for size in shape if size is not None]
    if any(as_index(size) is None or size < 0 for size in sizes):
        raise ShapeError(f"{what} of shape {shown(shape)}, which is none")
    if len(shape) > MAX_AXES:
        raise ShapeError(f"{what} with {len(shape):,} axes; {MAX_AXES} is the most")
    numbers = math.prod(sizes)
    if numbers > MAX_NUMBERS:
        raise ShapeError(f"{what} of {numbers:,} numbers; {MAX_NUMBERS:,} is the most")


def check_memory(node: Node, values: bool = False) -> None:
    """Refuse parameters, or also values, for which the machine has not the memory.

    Raises:
        ParamError: if all parameters together are too large.
        ShapeError: if what a block makes of one example is.
    """
    memory = machine_memory()
    if memory is None:
        return
    needed = sum(
        spec.size * array_dtype(spec.dtype).itemsize for spec in node.param_specs().values()
    )
    if needed > memory:
        raise ParamError(
            f"the parameters need {amount(needed)}, but the machine has {amount(memory)}."
        )
    for inner in node.walk() if values else ():
        needed = sum(map(numbers, leaves(inner.out_spec))) * array_dtype(inner.dtype).itemsize
        if needed > memory:
            raise ShapeError(
                f"{type(inner.block).__name__} {place(inner.path)} makes {shapes(inner.out_spec)} "
                f"of one example, for which it needs {amount(needed)}, but the machine has "
                f"{amount(memory)}."
            )


def numbers(spec: Spec) -> int:
    """How many numbers a tensor has at least."""
    return math.prod(size for size in spec.shape if size is not None)

"""How canonical arrays become native ones: steps that are computed, undone and printed.

A transform is a few calls of NumPy that follow from the shape of the canonical array, so there is
one text of it: `to_native` runs the calls, `to_canonical` their inverses in reverse order, and
`code` is what a listing prints, for NumPy or for another framework that has the same functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from backends._expression import Subscript, call

Sizes: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Step:
    """A function of NumPy, what it takes after the array, and what undoes it."""

    function: str
    args: tuple[Any, ...]
    undone: tuple[Any, ...]

    def do(self, a: np.ndarray) -> np.ndarray:
        return getattr(np, self.function)(a, *self.args)

    def undo(self, a: np.ndarray) -> np.ndarray:
        return getattr(np, self.function)(a, *self.undone)

    def code(self, a: Any, words: Mapping[str, str]) -> Any:
        """The step on an expression, as a native expression."""
        if self.args == ((1, 0),) and isinstance(a, Subscript):
            return replace(a, attribute=".T")
        return call(words[self.function], a, *self.args)


Steps: TypeAlias = tuple[Step, ...]


def transposed(*axes: int) -> Steps:
    plain = range(len(axes))
    back = tuple(map(axes.index, plain))
    return (Step("transpose", (axes,), (back,)),) if axes != tuple(plain) else ()


def reshaped(before: Sizes, after: Sizes) -> Steps:
    return (Step("reshape", (after,), (before,)),) if before != after else ()


def flipped(*axes: int) -> Steps:
    return (Step("flip", (axes,), (axes,)),)


def taken(order: Sizes, axis: int) -> Steps:
    """The cells of an axis in another order."""
    back = tuple(map(order.index, range(len(order))))
    return (Step("take", (order, axis), (back, axis)),)


@dataclass(frozen=True)
class Transform:
    """A canonical array as a native one, and back; the steps follow from the canonical shape."""

    name: str
    steps: Callable[[Sizes], Steps]

    def to_native(self, a: np.ndarray) -> np.ndarray:
        for step in self.steps(a.shape):
            a = step.do(a)
        return a

    def to_canonical(self, a: np.ndarray, shape: Sizes) -> np.ndarray:
        for step in reversed(self.steps(shape)):
            a = step.undo(a)
        return a

    def code(self, a: Any, shape: Sizes, words: Mapping[str, str]) -> Any:
        """The native array as an expression, from that of the canonical one.

        `words` are the framework's names of NumPy's functions.
        """
        for step in self.steps(shape):
            a = step.code(a, words)
        return a


same = Transform("same", lambda shape: ())


def reordered(name: str, axes: Callable[[int], tuple[int, ...]]) -> Transform:
    """The axes in another order, which follows from how many there are."""
    return Transform(name, lambda shape: transposed(*axes(len(shape))))


# (*window, in, out) <-> (*window, out, in)
out_in = reordered("out_in", lambda n: (*range(n - 2), n - 1, n - 2))

# (*window, in, out) <-> (in, out, *window): how torch keeps the kernels of ConvTranspose.
in_first = reordered("in_first", lambda n: (n - 2, n - 1, *range(n - 2)))

# (*window, in, out) <-> (out, in, *window): how torch keeps the kernels of Linear and Conv.
out_first = reordered("out_first", lambda n: (n - 1, n - 2, *range(n - 2)))

# (a, b, ...) <-> (a * b * ...,)
flat = Transform("flat", lambda shape: reshaped(shape, (math.prod(shape),)))

# (a, b, ...) <-> (1, a * b * ...)
one_row = Transform("one_row", lambda shape: reshaped(shape, (1, math.prod(shape))))


def rearranged(before: str, after: str) -> Transform:
    """Axes in another order, with others of size 1 between them, as einops patterns say."""
    old, new = before.split(), after.split()
    order = [old.index(axis) for axis in new if axis != "1"]

    def steps(shape: Sizes) -> Steps:
        moved = tuple(shape[i] for i in order)
        spread = tuple(1 if axis == "1" else shape[old.index(axis)] for axis in new)
        return transposed(*order) + reshaped(moved, spread)

    return Transform(f"{before} -> {after}", steps)


def turned_around(groups: int) -> Transform:
    """A kernel of ConvTranspose as that of the convolution over its input with zeros between cells.

    (*window, in, out / groups) <-> (*window, in / groups, out), with every window axis reversed.
    """

    def steps(shape: Sizes) -> Steps:
        *window, inputs, outputs = shape
        n, size = len(window), inputs // groups
        if groups == 1:
            return flipped(*range(n))
        return (
            *reshaped(shape, (*window, groups, size, outputs)),
            *transposed(*range(n), n + 1, n, n + 2),
            *reshaped((*window, size, groups, outputs), (*window, size, groups * outputs)),
            *flipped(*range(n)),
        )

    return Transform("turned_around", steps)


def parted(axis: int, count: int) -> Transform:
    """(..., count * size, ...) <-> (..., count, size, ...), where `axis` is that of the product."""

    def steps(shape: Sizes) -> Steps:
        parts = count, shape[axis] // count
        return reshaped(shape, (*shape[:axis], *parts, *shape[axis + 1 :]))

    return Transform(f"parted({axis}, {count})", steps)


@dataclass(frozen=True)
class Part:
    """The rows of a native array that hold a canonical one; `place` orders those of one array."""

    place: int
    rows: Callable[[int], slice]

    def of(self, array: np.ndarray) -> np.ndarray:
        """The part of a whole array, as a view."""
        return array[self.rows(len(array))]


def share(index: int, count: int) -> Part:
    """One of several equal parts of the first axis."""
    return Part(index, lambda n: slice(index * n // count, (index + 1) * n // count))

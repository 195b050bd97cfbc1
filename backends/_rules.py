"""The rule table of a backend, and the fold that turns a node tree into a native program.

A rule takes a node (and, for a combinator, its children as native expressions) and returns a native
expression. Its decorator declares how each canonical parameter maps to the native one:

    @rule(Dense, kernel=("weight", out_first), bias="bias")
    def dense(node): ...
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Container, Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from backends._expression import Let, Mark, optional
from backends._transforms import Part, Transform, parted, same
from blocks._block import Block, Combinator
from blocks._errors import MissingRuleError, UnsupportedError, place
from blocks._spec import Node, ParamSpec, join, shapes
from blocks._stack import run


@dataclass(frozen=True)
class Bind:
    """Where a canonical parameter lives in a native layer: all of an array, or a part of it."""

    attribute: str
    transform: Transform = same
    part: Part | None = None


def as_bind(target: Any) -> Bind:
    """A Bind from an attribute, (attribute, transform) or (attribute, transform, part)."""
    if isinstance(target, Bind):
        return target
    return Bind(target) if isinstance(target, str) else Bind(*target)


@dataclass(frozen=True)
class Rule:
    """How one block becomes a native expression.

    A bind that depends on the block's fields is a function of the node. `child` says how a native
    container reaches a child, from its name and its index; `stacked`, that it is one for all
    children, with their parameters along a new first axis; `attribute`, if there is one, what a
    parameter without a bind is called natively, from its name.
    """

    function: Callable[..., Any]
    binds: dict[str, Bind | Callable[[Node], Any]]
    child: str = "{name}"
    stacked: bool = False
    attribute: str = ""

    def bind(self, name: str, node: Node) -> Bind:
        """Where a parameter of that name lives."""
        if self.attribute and name not in self.binds:
            return Bind(self.attribute.format(name=name))
        found = self.binds[name]
        return found if isinstance(found, Bind) else as_bind(found(node))


@dataclass(frozen=True)
class Binding:
    """One canonical parameter of a network and where the native model keeps it.

    `place` is the module and the attribute there. It may hold several parameters: stacked, where
    `index` says which of the stack, and as parts of one array.
    """

    path: str
    module: str
    attribute: str
    transform: Transform
    part: Part | None
    spec: ParamSpec
    index: tuple[int, ...] = ()

    @property
    def place(self) -> tuple[str, str]:
        return self.module, self.attribute

    @property
    def whole(self) -> bool:
        """Whether nothing else is at its place."""
        return self.part is None and not self.index

    def mine(self, array: np.ndarray) -> np.ndarray:
        """What belongs to this parameter of all that is at its place, as a view."""
        array = array[(*self.index, ...)]  # type: ignore[arg-type]  # an Ellipsis is fine
        return array if self.part is None else self.part.of(array)

    def to_native(self, array: np.ndarray) -> np.ndarray:
        return self.transform.to_native(array)

    def to_canonical(self, array: np.ndarray) -> np.ndarray:
        return self.transform.to_canonical(self.mine(array), self.spec.shape)


CALLS = ParamSpec((), "zeros", trainable=False, dtype="int32")


@dataclass(frozen=True)
class Program:
    """A network as a backend's native expression, with the bindings of its parameters.

    `modules` tells where the native module of each node is, by its path: like a binding's `module`
    and `index`. With shared draws `streams` says where each block that draws counts its calls.
    """

    node: Node
    expression: Any
    bindings: tuple[Binding, ...]
    modules: Mapping[str, tuple[str, tuple[int, ...]]]
    streams: tuple[Binding, ...] = ()


@dataclass(frozen=True)
class Inexact:
    """A block that a framework computes in less than float64, by how much, and why."""

    block: type[Block]
    fields: dict[str, Any]
    error: float
    reason: str

    def concerns(self, node: Node) -> bool:
        form = node.form
        return form.ruled_as() is self.block and all(
            getattr(form, name) == value for name, value in self.fields.items()
        )


class Rules:
    """The table: exact block type to rule. A subclass of a block has no rule of its own accord."""

    def __init__(self, backend: str):
        self.backend = backend
        self.table: dict[type[Block], Rule] = {}
        self.refused: dict[type[Block], str] = {}
        self.inexact: list[Inexact] = []

    def __call__(
        self,
        block: type[Block],
        *,
        child: str = "{name}",
        stacked: bool = False,
        attribute: str = "",
        **binds: Any,
    ) -> Any:
        """Register a rule: each keyword is a canonical parameter, its value the native attribute,
        (attribute, transform) or (attribute, transform, part), or a function of the node that
        returns one of these. An attribute of a layer inside the layer is a dotted path.
        """

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            if block in self.table:
                raise TypeError(f"{self.backend} already has a rule for {block.__name__}.")
            bound = {
                name: target if callable(target) else as_bind(target)
                for name, target in binds.items()
            }
            self.table[block] = Rule(function, bound, child, stacked, attribute)
            return function

        return register

    def unsupported(self, block: type[Block], reason: str) -> None:
        """State that this backend cannot express a block, and why."""
        self.refused[block] = reason

    def rounds(self, block: type[Block], to: float, reason: str, **fields: Any) -> None:
        """State that the framework computes a block, with these fields, no better in float64."""
        self.inexact.append(Inexact(block, fields, to, reason))

    def precision(self, node: Node) -> list[Inexact]:
        """What keeps a network from float64 precision on this backend."""
        return [limit for limit in self.inexact if any(map(limit.concerns, node.walk()))]

    def find(self, node: Node) -> Rule:
        """The rule of the block as written, else of what it expands to, else of its family."""
        for kind in (type(node.block), type(node.form), node.form.ruled_as()):
            if kind in self.refused:
                raise UnsupportedError(
                    f"{self.backend} cannot lower {kind.__name__} {place(node.path)}: "
                    f"{self.refused[kind]}"
                )
            if kind in self.table:
                return self.table[kind]
        name = type(node.form).__name__
        raise MissingRuleError(
            f"{self.backend} has no rule for {name}, needed {place(node.path)}.\n"
            f"  Add @rule({name}) in backends/{self.backend}.py, or give {name} an expand()."
        )

    def program(self, node: Node, reserved: Container[str] = ()) -> Program:
        """The native program of a node tree that has been through the layout pass.

        Names of shared blocks that are `reserved` in a listing get an underscore.
        """
        bindings: dict[str, Binding] = {}
        streams: dict[str, Binding] = {}
        shared: dict[str, Any] = {}
        modules: dict[str, tuple[str, tuple[int, ...]]] = {}

        def lowered(node: Node, module: str, stack: tuple[int, ...]) -> Generator[Any, Any, Any]:
            rule = self.find(node)
            modules[node.path] = module, stack
            children = {}
            for index, child in enumerate(node.children):
                step = rule.child.format(name=child.name, index=index)
                inner = ".".join(part for part in (module, step) if part)
                deeper = (*stack, index) if rule.stacked else stack
                children[child.name] = yield lowered(child, inner, deeper)
            for name, spec in node.params.items():
                bind = rule.bind(name, node)
                where = bind.attribute, bind.transform, bind.part
                binding = Binding(join(node.home, name), module, *where, spec, stack)
                bindings.setdefault(binding.path, binding)
            if "key" in node.resolved:
                calls = Binding(join(node.home, "calls"), module, "calls", same, None, CALLS)
                streams.setdefault(calls.path, calls)
            combines = isinstance(node.form, Combinator)
            expression = rule.function(node, children) if combines else rule.function(node)
            expression = Mark(node.home, expression)
            if not node.shared:
                return expression
            if shared.setdefault(node.shared, expression) != expression:
                raise UnsupportedError(
                    f"{self.backend} cannot share {node.shared!r} {place(node.path)} with its "
                    f"first use {place(node.home)}: its native layers depend on the input, "
                    f"{shapes(node.in_spec)} here.\n  Bring all its inputs to the same size."
                )
            name = node.shared
            while name in reserved:
                name += "_"
            return Let(name, expression)

        expression = run(lowered(node, "", ()))
        return Program(node, expression, tuple(bindings.values()), modules, tuple(streams.values()))


def load_rules(package: str, path: Iterable[str]) -> None:
    """Import every family of a backend's package, so that its rules are in the table."""
    for found in pkgutil.iter_modules(path):
        if not found.name.startswith("_"):
            importlib.import_module(f"{package}.{found.name}")


# What rules of several backends need


def each(sizes: tuple[int, ...]) -> int | tuple[int, ...]:
    """One number where all are equal, as most people write it."""
    return sizes[0] if len(set(sizes)) == 1 else sizes


def leaps(node: Node, channels: int) -> bool:
    """Whether a convolution goes from one cell to another and leaves out those between them.

    On few channels that lie together in memory, the gradient of such a kernel in oneDNN, which
    torch 2.13 and TensorFlow 2.21 use on CPUs, writes beyond its end if cells are left over behind
    the last window, and ends the process.
    """
    return max(node.form.kernel_size) == 1 < max(node.form.stride) and channels < 16


def native_axis(axis: int, rank: int) -> int:
    """An axis of a value as frameworks count it, with the batch; the last is -1."""
    return -1 if axis == rank - 1 else axis + 1


def own_axis(node: Node) -> int:
    """The axis along which a block works, as frameworks count it."""
    return native_axis(node.resolved["axis"], node.out_spec.rank)


def listed(children: dict[str, Any]) -> list[Any] | dict[str, Any]:
    """Children as a list if their names are their positions, else as they are."""
    positional = list(children) == [str(i) for i in range(len(children))]
    return list(children.values()) if positional else children


def dropped_together(node: Node) -> tuple[int, ...]:
    """The axes, as frameworks count them, along which a Dropout draws one number."""
    return tuple(axis + 1 for axis in node.in_spec.spatial_axes) if node.form.whole_channels else ()


def shared_dropout(node: Node) -> dict[str, Any]:
    """What a Dropout with shared draws takes beside its rate."""
    return {"key": node.resolved["key"], "axes": optional(dropped_together(node), ())}


def each_projection(place: Callable[[str, str], Any]) -> dict[str, Any]:
    """Where each parameter of attention lives, by the name of its projection and its kind."""
    return {
        f"{name}_{kind}": place(name, kind)
        for name in ("query", "key", "value", "out")
        for kind in ("kernel", "bias")
    }


def heads(node: Node, name: str, kind: str) -> Transform:
    """A parameter of attention as Keras and Flax keep it: with an axis for the heads.

    `name` is query, key, value or out; `kind` is kernel or bias.
    """
    if name == "out":
        return parted(0, node.form.num_heads) if kind == "kernel" else same
    count = node.form.num_heads if name == "query" else node.resolved["num_kv_heads"]
    return parted(1 if kind == "kernel" else 0, count)

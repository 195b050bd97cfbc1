"""What `infer` produces: the spec of a value, the spec of a parameter, and the node."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from blocks._block import Block
    from blocks.initializers import Init

Size: TypeAlias = int | None
Shape: TypeAlias = tuple[Size, ...]

LAYOUTS = ("channels_last", "channels_first")
FLOATS = ("float32", "float64", "float16", "bfloat16")
DTYPES = (*FLOATS, "int32", "bool")
FLOAT = "float"  # in what `out_spec` returns: floats of the network's dtype


@dataclass(frozen=True)
class Spec:
    """Shape (without the batch axis), dtype and layout of one tensor.

    The layout says which axis spatial blocks treat as channels: the last, or the first. The dtype
    is that of the network, or "int32" or "bool"; `below` bounds integers: 0 <= number < below.

    >>> x = Spec((8, 6, 3))
    >>> x.channels, x.spatial
    (3, (8, 6))
    >>> x.in_layout("channels_first").shape
    (3, 8, 6)
    """

    shape: Shape
    dtype: str = "float32"
    layout: str = "channels_last"
    below: int | None = None

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def channel_axis(self) -> int:
        """Index of the channel axis in `shape`."""
        return self.rank - 1 if self.layout == "channels_last" else 0

    @property
    def channels(self) -> Size:
        return self.shape[self.channel_axis]

    @property
    def spatial(self) -> Shape:
        """The sizes of all axes but the channels."""
        axis = self.channel_axis
        return self.shape[:axis] + self.shape[axis + 1 :]

    @property
    def spatial_axes(self) -> tuple[int, ...]:
        return tuple(i for i in range(self.rank) if i != self.channel_axis)

    def with_shape(self, shape: Shape) -> Spec:
        return replace(self, shape=tuple(shape))

    def with_channels(self, channels: Size, spatial: Shape | None = None) -> Spec:
        """The same tensor with other channels and, where given, other spatial sizes."""
        spatial = self.spatial if spatial is None else tuple(spatial)
        last = self.layout == "channels_last"
        return self.with_shape((*spatial, channels) if last else (channels, *spatial))

    def in_layout(self, layout: str) -> Spec:
        """The same tensor with its channel axis where `layout` wants it."""
        same = replace(self, layout=layout)
        return same.with_channels(self.channels, self.spatial) if self.rank else same


@dataclass(frozen=True)
class Kind:
    """The numbers that a block takes: "float", "int", "bool" or "any"; integers below a bound."""

    name: str
    below: int | None = None

    def takes(self, spec: Spec) -> bool:
        if self.name == "any":
            return True
        if self.name == "float":
            return is_float(spec)
        if self.name == "bool":
            return spec.dtype == "bool"
        return spec.dtype == "int32" and (spec.below or math.inf) <= (self.below or math.inf)

    def made(self, spec: Spec) -> Spec:
        """The input of a network as this kind; itself if it is of another already."""
        if is_float(spec):
            return replace(spec, dtype={"int": "int32"}.get(self.name, self.name), below=self.below)
        both = spec.dtype == "int32" and self.name == "int"
        return replace(spec, below=self.below) if both else spec

    def __str__(self) -> str:
        return {"float": "floats", "int": "integers", "bool": "booleans"}[self.name]


# A value is a tensor or a tuple of tensors.
ValueSpec: TypeAlias = Any


@dataclass(frozen=True)
class ParamSpec:
    """Shape and initialiser of one parameter in canonical form.

    A parameter that is not trainable is running state: carried, saved and compared, but never
    given a gradient.
    """

    shape: tuple[int, ...]
    init: Init
    trainable: bool = True
    dtype: str = "float32"

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, eq=False, repr=False)
class Node:
    """A block at known sizes, made by `infer`.

    Attributes:
        name: the last part of the path; "" for the root.
        path: where the block stands in the network: "encoder/0".
        home: the path under which its parameters live. It differs from `path` only inside the
            second and later uses of a `Shared` block.
        block: the block as it was written.
        form: the leaf or combinator that `block` stands for: itself, unless it has an `expand`.
        in_spec, out_spec: what goes in and comes out.
        params: canonical parameter name to its spec.
        resolved: what the block worked out from its input, such as padding as pairs.
        children: the nodes inside.
        shared: the name that a `Shared` block gave it, or "".
        dtype: of the values that are computed.
        param_dtype: of the parameters: the same, or float32 for mixed precision.
    """

    name: str
    path: str
    home: str
    block: Block
    form: Any
    in_spec: ValueSpec
    out_spec: ValueSpec
    params: Mapping[str, ParamSpec] = field(default_factory=dict)
    resolved: Mapping[str, Any] = field(default_factory=dict)
    children: tuple[Node, ...] = ()
    shared: str = ""
    dtype: str = "float32"
    param_dtype: str = "float32"

    def walk(self) -> Iterator[Node]:
        """All nodes, parents before children, in the order of the program."""
        stack = [self]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(reversed(node.children))

    def levels(self) -> int:
        """How deep blocks are nested: 1 for a leaf."""
        deepest, stack = 0, [(self, 1)]
        while stack:
            node, level = stack.pop()
            deepest = max(deepest, level)
            stack.extend((child, level + 1) for child in node.children)
        return deepest

    def param_specs(self) -> dict[str, ParamSpec]:
        """Canonical path of every parameter below this node to its spec; shared ones once."""
        return {
            join(node.home, name): spec
            for node in self.walk()
            for name, spec in node.params.items()
        }

    def __repr__(self) -> str:
        sizes = f"{shapes(self.in_spec)} -> {shapes(self.out_spec)}"
        return f"<Node {self.path or '/'} {type(self.block).__name__} {sizes}>"

    def _repr_html_(self) -> str | None:
        """What a notebook shows: the diagram, with sizes."""
        from blocks._draw import html

        return html(self)


def join(path: str, name: str) -> str:
    """Join two parts of a path; the root's path is empty."""
    return f"{path}/{name}" if path else name


def shapes(value: ValueSpec) -> str:
    """The shape of a value, for people: "(8, 8, 3)", or "((4,), (4,))" for a tuple."""
    if isinstance(value, tuple):
        return "(" + ", ".join(shapes(v) for v in value) + ")"
    return str(value.shape)


def leaves(value: Any) -> tuple[Any, ...]:
    """The tensors of a value, in order: itself alone, or the members of the tuple."""
    if isinstance(value, tuple):
        return tuple(leaf for v in value for leaf in leaves(v))
    return (value,)


def half(dtype: str) -> bool:
    """Whether a dtype has 16 bits."""
    return dtype.endswith("16")


def is_float(tensor: Any) -> bool:
    """Whether a spec, an array or a framework's tensor holds floats, of any width."""
    return "float" in str(tensor.dtype)


def floats(value: Any) -> list[Any]:
    """The tensors of a value that hold floats: only they have gradients."""
    return [leaf for leaf in leaves(value) if is_float(leaf)]


def with_floats(value: Any, new: Iterable[Any]) -> Any:
    """The value with other tensors in the place of its floats."""
    others = iter(new)
    return map_value(lambda leaf: next(others) if is_float(leaf) else leaf, value)


def array_dtype(name: str) -> np.dtype:
    """NumPy's dtype of that name; bfloat16 and floats of 8 bits are some by ml_dtypes."""
    if name == "bfloat16" or name.startswith("float8"):
        import ml_dtypes  # noqa: F401  (importing it tells NumPy)
    return np.dtype(name)


ALIGNMENT = 64  # bytes


def aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Zeros that begin at a multiple of 64 bytes, which JAX and TensorFlow ask of an array before
    they take it without a copy.
    """
    dtype = np.dtype(dtype)
    memory = np.zeros(math.prod(shape) * dtype.itemsize + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + memory.size - ALIGNMENT].view(dtype).reshape(shape)


def is_aligned(array: np.ndarray) -> bool:
    """Whether an array begins where `aligned` lets one begin."""
    return array.ctypes.data % ALIGNMENT == 0


def map_inputs(function: Any, value: Any) -> Any:
    """Apply a function to each array that someone's model takes: one, a tuple or a dict of them."""
    if isinstance(value, Mapping):
        return {name: map_inputs(function, member) for name, member in value.items()}
    return map_value(function, value)


def map_value(function: Any, value: Any, *others: Any) -> Any:
    """Apply a function to each tensor of a value, keeping the tuples."""
    if isinstance(value, tuple):
        return tuple(map_value(function, *vs) for vs in zip(value, *others, strict=True))
    return function(value, *others)

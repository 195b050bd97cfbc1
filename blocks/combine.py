"""Combinators: blocks made of blocks."""

from __future__ import annotations

import keyword
from collections.abc import Callable, Iterator, Sequence
from types import NoneType
from typing import Any, ClassVar, TypeAlias

from blocks import _fields as fields
from blocks._block import Block, Combinator, Composite, Wiring, block
from blocks._errors import FieldError, ShapeError, shown
from blocks._extent import bounded
from blocks._shape import norm_axis
from blocks._spec import Shape, ValueSpec, shapes

# A repair that depends on the block which made the last of the values.
Repair: TypeAlias = Callable[[Any], str]

ELEMENTWISE_MERGES = ("add", "multiply", "mean", "max")
MERGES = (*ELEMENTWISE_MERGES, "concat", "stack", "tuple")


def a_block(block: Any, label: str, value: Any) -> Block:
    """Accept a block; a class or anything else is a slip that is easily said."""
    if isinstance(value, Block):
        return value
    hint = ""
    if isinstance(value, (list, tuple)):
        hint = "Write the blocks as arguments: Sequential(*blocks)."
    elif name := getattr(value, "__name__", ""):  # a class, or a function that makes blocks
        hint = f"Write {name}(...)."
    raise fields.refuse(label, "a block", value, hint)


def child(default: Any = fields.REQUIRED, *, optional: bool = False) -> Any:
    """A field that holds a block; None too if optional."""

    def convert(block: Any, label: str, value: Any) -> Block | None:
        return None if value is None and optional else a_block(block, label, value)

    return fields.converted(convert, default)


def is_name(value: Any) -> bool:
    """Whether a word can stand in a listing and in every framework's names."""
    return (
        isinstance(value, str)
        and value.isascii()
        and value.isidentifier()
        and not keyword.iskeyword(value)
    )


@block
class Container(Combinator):
    """What `Sequential` and `Parallel` share: children by position or by name."""

    blocks: tuple[Block, ...] = ()
    names: tuple[str, ...] = ()

    @staticmethod
    def collect(label: str, blocks: Sequence[Any], named: dict[str, Any]) -> tuple[Any, Any]:
        """Children and their names: a position is its index, a keyword is its word."""
        children = [a_block(None, f"{label}[{i}]", b) for i, b in enumerate(blocks)]
        for name, child in named.items():
            if not is_name(name):
                raise FieldError(f"{label} has a child named {name!r}; use a Python name in ASCII.")
            children.append(a_block(None, f"{label}.{name}", child))
        names = (*map(str, range(len(blocks))), *named)
        return tuple(children), names

    def __len__(self) -> int:
        return len(self.blocks)

    def __iter__(self) -> Iterator[Block]:
        return iter(self.blocks)

    def __getitem__(self, key: int | str) -> Block:
        if isinstance(key, str) and key not in self.names:
            raise KeyError(key)
        return self.blocks[self.names.index(key) if isinstance(key, str) else key]

    def parts(self) -> dict[str, Block]:
        return dict(zip(self.names, self.blocks, strict=True))

    def with_blocks(self, blocks: dict[str, Block]) -> Block:
        names = [str(i) if name.isdigit() else name for i, name in enumerate(blocks)]
        made: Block = self.of_fields(tuple(blocks.values()), names, **self.options())
        return made

    def fields(self) -> dict[str, Any]:
        """Names are left out where all are positions."""
        found = super().fields()
        if all(name.isdigit() for name in self.names):
            found.pop("names", None)
        return found

    @classmethod
    def of_fields(
        cls, blocks: Sequence[Block] = (), names: Sequence[str] | None = None, **options: Any
    ) -> Any:
        for label, value in {"blocks": blocks, "names": names}.items():
            if not isinstance(value, tuple | list | NoneType):
                raise fields.refuse(f"{cls.__name__}.{label}", "a tuple", value)
        names = list(map(str, range(len(blocks)))) if names is None else list(names)
        first = next((i for i, name in enumerate(names) if name != str(i)), len(names))
        words = dict(zip(names[first:], blocks[first:], strict=False))
        fits = len(names) == len(blocks) and len(words) == len(names[first:])
        if not fits or words.keys() & options or not all(isinstance(name, str) for name in words):
            raise FieldError(f"{cls.__name__} cannot have the names {shown(names)} for its blocks.")
        make: Any = cls
        return make(*blocks[:first], **words, **options)

    def options(self) -> dict[str, Any]:
        """The fields beside the children."""
        return {}

    def shown(self) -> list[tuple[str, Any]]:
        names = ["" if name.isdigit() else name for name in self.names]
        return list(zip(names, self.blocks, strict=True))


@block
class Sequential(Container):
    """One block after the other.

        y = block_n(... block_1(block_0(x)))

    Children are named by position, or by keyword: `Sequential(encoder=..., head=Dense(10))` has
    the parameter `head/kernel`. Without children it is the identity.

    Shape: that of the last block.
    Differs: nnx.Sequential unpacks a tuple into the arguments of the next layer; in torch, in Keras
        and here it is one value.

    >>> import blocks as bl
    >>> net = bl.Sequential(bl.Dense(256), bl.ReLU(), bl.Dense(10))
    >>> len(net), net[2]
    (3, Dense(features=10))
    >>> bl.infer(net, (20,)).out_spec.shape
    (10,)
    """

    def __init__(self, /, *blocks: Block, **named: Block):
        children, names = self.collect("Sequential", blocks, named)
        object.__setattr__(self, "blocks", children)
        object.__setattr__(self, "names", names)

    def connect(self, x: ValueSpec) -> Wiring:
        for name, child in self.parts().items():
            x = yield name, child, x
        return x


@block
class Parallel(Container):
    """Every branch receives the same input, and their outputs are merged.

        y = merge(branch_0(x), branch_1(x), ...)

    Shape: "add", "multiply", "mean" and "max" work number by number and need equal shapes, which
        they keep, but in a product a size of 1 repeats; "concat" joins along `axis` and needs all
        other sizes equal; "stack" puts equal shapes along a new axis; "tuple" keeps the outputs
        apart as a tuple.
    Fields:
        merge: how the outputs are joined. Where several are largest, "max" sends the gradient to
            one of them or splits it, as the framework does.
        axis: of "concat" (the channels of the layout if left out) or "stack" (the new axis, 0 if
            left out); counted without the batch axis, negative from the end.
    Differs: torch's cat and stack default to the batch axis, Keras's Concatenate to the last.

    >>> import blocks as bl
    >>> bl.infer(bl.Parallel(bl.Dense(16), bl.Dense(8)), (20,)).out_spec.shape
    (24,)
    """

    flow = "fork"

    merge: str = "concat"
    axis: int | None = None

    def __init__(
        self, /, *branches: Block, merge: str = "concat", axis: int | None = None, **named: Block
    ):
        children, names = self.collect("Parallel", branches, named)
        if not children:
            raise FieldError("Parallel needs at least one branch, got none.")
        object.__setattr__(self, "blocks", children)
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "merge", MERGE(self, "Parallel.merge", merge))
        object.__setattr__(self, "axis", AXIS(self, "Parallel.axis", axis))
        if merge == "tuple" and len(children) < 2:
            raise FieldError("Parallel with merge='tuple' needs at least two branches, got one.")
        if axis is not None and merge not in ("concat", "stack"):
            raise FieldError(f"Parallel.axis={axis} has no meaning for merge={merge!r}.")

    def connect(self, x: ValueSpec) -> Wiring:
        outputs = {}
        for name, child in self.parts().items():
            outputs[name] = yield name, child, x
        return merge_specs(self, outputs)

    def resolve(self, y: ValueSpec) -> dict[str, Any]:
        return merge_axis(self, y)

    def why_one_shape(self) -> str:
        return f"merges its branches by {self.merge!r}, so all need one shape"

    def repair(self, outputs: dict[str, Any]) -> str:
        return f"Make every branch end in {shapes(next(iter(outputs.values())))}."

    def options(self) -> dict[str, Any]:
        return {"merge": self.merge, "axis": self.axis}

    def shown(self) -> list[tuple[str, Any]]:
        defaults = {"merge": "concat", "axis": None}
        own = [(name, v) for name, v in self.options().items() if v != defaults[name]]
        return super().shown() + own


MERGE = fields.choice(MERGES).metadata["convert"]
AXIS = fields.axis(None, optional=True).metadata["convert"]


@block
class Residual(Combinator):
    """The input, or its shortcut, merged with what the body makes of it.

        y = merge(shortcut(x), body(x)), with shortcut(x) = x if there is none

    Shape: that of the body; it must equal the shortcut's, except for "concat"; for "multiply"
        a size of 1 repeats. (He et al. 2016.)
    Fields:
        body: the block around which the input goes.
        shortcut: a block on the way around, such as a Conv with a kernel of ones.
        merge: "add", "multiply", "mean", "max", or "concat" along the channels, input first.
    Differs: no framework has such a layer; in Keras the two ways meet in Add, Concatenate, ...

    >>> import blocks as bl
    >>> bl.infer(bl.Residual(bl.Dense(7)), (7,)).out_spec.shape
    (7,)
    """

    flow = "fork"
    axis: ClassVar[int | None] = None

    body: Block = child()
    shortcut: Block | None = child(None, optional=True)
    merge: str = fields.choice((*ELEMENTWISE_MERGES, "concat"), "add")

    def connect(self, x: ValueSpec) -> Wiring:
        shortcut = x
        if self.shortcut is not None:
            shortcut = yield "shortcut", self.shortcut, x
        body = yield "body", self.body, x
        return merge_specs(self, {self.other: shortcut, "body": body})

    def parts(self) -> dict[str, Block]:
        shortcut = {} if self.shortcut is None else {"shortcut": self.shortcut}
        return {**shortcut, "body": self.body}

    def with_blocks(self, blocks: dict[str, Block]) -> Block:
        return Residual(blocks["body"], blocks.get("shortcut"), self.merge)

    def resolve(self, y: ValueSpec) -> dict[str, Any]:
        return merge_axis(self, y)

    @property
    def other(self) -> str:
        return "input" if self.shortcut is None else "shortcut"

    def why_one_shape(self) -> str:
        verb = {
            "add": "adds its body to",
            "multiply": "multiplies its body with",
            "mean": "averages its body with",
            "max": "takes the larger of its body and",
        }[self.merge]
        return f"{verb} its {self.other}, so both need one shape"

    def repair(self, outputs: dict[str, Any]) -> Repair:
        """Name the features to set, or the shortcut to add, if that is all that is wrong."""
        wanted, body = outputs.values()

        def fix(block: Any) -> str:
            if body.rank != wanted.rank or not hasattr(block, "features"):
                return f"Make the body end in {shapes(wanted)}."
            plain = type(block).layout_role == "plain"
            features = wanted.shape[-1] if plain else wanted.channels
            reached = block.features
            if plain and body.shape[:-1] != wanted.shape[:-1]:
                return f"Make the body end in {shapes(wanted)}."
            alike = one_shape(self.merge, (wanted.with_channels(1), body.with_channels(1)))
            if not plain and alike is None:
                return "Keep the spatial sizes in the body, or add a shortcut with the same stride."
            if self.shortcut is not None:
                return f"Set features={features} in the body."
            window = "" if plain else f", kernel_size={(1,) * (body.rank - 1)}"
            shortcut = f"{type(block).__name__}(features={reached}{window})"
            return f"Set features={features}, or add shortcut={shortcut}."

        return fix


@block
class Repeat(Combinator):
    """One block several times in a row, with parameters of its own each time.

        y = block_n(... block_1(block_0(x)))

    Shape: that of the last. Where every repetition keeps the shape, Flax runs them as one loop over
        stacked parameters, which compiles in a time that does not grow with their number.
    Parameters: those of Sequential(*[block] * times): the fourth kernel is `3/kernel`, however a
        backend keeps it.
    Fields:
        block: what is repeated.
        times: how often.
    Differs: torch and Keras have a Python loop over layers, Flax has nnx.scan.

    >>> import blocks as bl
    >>> net = bl.Repeat(bl.Sequential(bl.Dense(5), bl.Tanh()), 3)
    >>> list(bl.infer(net, (5,)).param_specs())[-2:]
    ['2/0/kernel', '2/0/bias']
    """

    flow = "loop"

    block: Block = child()
    times: int = fields.integer()

    def connect(self, x: ValueSpec) -> Wiring:
        for i in range(self.times):
            x = yield str(i), self.block, x
        return x

    @property
    def copies(self) -> int:
        return self.times

    def parts(self) -> dict[str, Block]:
        return {"0": self.block}

    def with_blocks(self, blocks: dict[str, Block]) -> Block:
        return Repeat(blocks["0"], self.times)


@block
class Shared(Composite):
    """Every use of the name is one set of parameters.

    The second and later uses must hold the same block. Their parameters have the path of the first.

    Shape: that of the block.
    Fields:
        key: the name, a Python identifier.
        block: what is used again.
    Differs: torch's state_dict lists the parameters at every use, Keras and Flax list them once.

    >>> import blocks as bl
    >>> layer = bl.Shared("tied", bl.Dense(5))
    >>> list(bl.infer(bl.Sequential(layer, bl.ReLU(), layer), (5,)).param_specs())
    ['0/kernel', '0/bias']
    """

    key: str = fields.converted(lambda block, label, value: shared_key(label, value))
    block: Block = child()

    def expand(self) -> Block:
        return self.block


def shared_key(label: str, value: Any) -> str:
    if not is_name(value):
        raise fields.refuse(label, "a Python name in ASCII", value)
    return value


def merge_axis(fork: Parallel | Residual, y: ValueSpec) -> dict[str, Any]:
    """The axis along which outputs were joined or stacked, counted in the output's shape."""
    if fork.merge == "concat":
        return {"axis": concat_axis(fork.axis, y)}
    if fork.merge == "stack":
        return {"axis": (fork.axis or 0) % y.rank}
    return {}


def merge_specs(fork: Parallel | Residual, outputs: dict[str, ValueSpec]) -> ValueSpec:
    """The spec of merged outputs; raises `ShapeError` if they do not go together."""
    specs = tuple(outputs.values())
    if fork.merge == "tuple":
        return bounded(specs)
    if any(isinstance(spec, tuple) for spec in specs):
        raise ShapeError(
            f"cannot merge tuples by {fork.merge!r}",
            values=outputs,
            fix="Let each branch give one tensor: Select(0) takes the first of a tuple.",
        )
    if fork.merge == "concat":
        return bounded(concat_specs(fork.axis, outputs))
    first = specs[0]
    shape = one_shape(fork.merge, specs)
    if shape is None:
        raise ShapeError(fork.why_one_shape(), values=outputs, fix=fork.repair(outputs))
    if fork.merge != "stack":
        return first.with_shape(shape)  # a value of its own, made here
    where = norm_axis(0 if fork.axis is None else fork.axis, first.rank + 1, first)
    return bounded(first.with_shape((*first.shape[:where], len(specs), *first.shape[where:])))


def one_shape(merge: str, specs: Sequence[Any]) -> Shape | None:
    """The shape of all, None if they differ; in a product a size of 1 repeats."""
    if len({spec.rank for spec in specs}) > 1:
        return None
    axes = [set(sizes) for sizes in zip(*(spec.shape for spec in specs), strict=True)]
    if merge == "multiply":
        axes = [sizes - {1} or {1} for sizes in axes]
    return tuple(sizes.pop() for sizes in axes) if all(len(n) == 1 for n in axes) else None


def concat_specs(axis: int | None, outputs: dict[str, Any]) -> ValueSpec:
    specs = tuple(outputs.values())
    first = specs[0]
    where = concat_axis(axis, first)
    others = {(s.rank, *s.shape[:where], *s.shape[where + 1 :]) for s in specs}
    if len(others) > 1:
        raise ShapeError(
            f"joins its outputs along axis {where}, so all other sizes must be equal",
            values=outputs,
        )
    sizes = [spec.shape[where] for spec in specs]
    total = None if None in sizes else sum(sizes)
    return first.with_shape((*first.shape[:where], total, *first.shape[where + 1 :]))


def concat_axis(axis: int | None, x: Any) -> int:
    """The axis of "concat" in the shape of `x`: the channels if none is given."""
    if x.rank == 0:
        raise ShapeError("cannot join scalars", fix="Use merge='stack'.")
    return x.channel_axis if axis is None else norm_axis(axis, x.rank, x)

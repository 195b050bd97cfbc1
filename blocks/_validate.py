"""`validate`: all that does not fit in a network, not only the first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import singledispatch
from typing import Any, TypeVar

from blocks._block import Block, Combinator
from blocks._errors import BlockError, FieldError, ShapeError, UnknownSizeError
from blocks._infer import Frame, Inference, inferred
from blocks._spec import Node, Spec, ValueSpec, leaves, map_value, shapes
from blocks.conv import Conv, ConvTranspose
from blocks.pool import WindowPool
from blocks.shape import Reshape

T = TypeVar("T")


@dataclass(frozen=True, repr=False)
class Validation:
    """What `validate` found: true if there is no error; prints all of them.

    Attributes:
        errors: in the order of the program, each with `path`, `block`, and its message.
        node: the network at known sizes. Where a block states another input size than it gets, its
            parameters are those that it states, so that `count` and `listing` show it as written.
            None if a builder's attributes make no network.
    """

    node: Node | None
    errors: tuple[BlockError, ...]

    def __bool__(self) -> bool:
        return not self.errors

    def __len__(self) -> int:
        return len(self.errors)

    def __iter__(self) -> Iterator[BlockError]:
        return iter(self.errors)

    def __repr__(self) -> str:
        if self.node and self:
            return f"{shapes(self.node.in_spec)} -> {shapes(self.node.out_spec)}: no errors"
        number = f"{len(self)} error{'s' if len(self) > 1 else ''}"
        return "\n".join([number, *map(str, self.errors)])


def validate(block: Block, input_shape: Any, **options: Any) -> Validation:
    """Every error that `infer` would raise, one after the other repaired.

    After an error it goes on with what the block gives all the same, or else with what its fields
    say: a Conv that does not fit its image gives `features` channels of unknown sizes. A size that
    is unknown for that reason is no second error, nor is what the same block of a `Repeat` meets in
    another repetition.

    Args:
        block: the network.
        input_shape: as in `infer`.
        options: those of `infer`: layout, dtype and param_dtype.

    >>> import blocks as bl
    >>> net = bl.Sequential(bl.Dense(16, in_features=8), bl.Dense(16, in_features=15))
    >>> found = bl.validate(net, (8,))
    >>> bool(found), [error.path for error in found]
    (False, ['1'])
    >>> print(found)
    1 error
    Dense at '1' states in_features=15, but its input has 16.
      (16,) is the output of Dense at '0', from (8,).
      Write in_features=16, or leave it out: it is inferred.
    """
    checking, node = inferred(Checking, block, input_shape, **options)
    return Validation(node, tuple(checking.errors))


class Checking(Inference):
    """An inference that notes errors and goes on."""

    def __init__(self, dtype: str, param_dtype: str, x: ValueSpec):
        super().__init__(dtype, param_dtype, x)
        self.errors: list[BlockError] = []
        self.loops: set[str] = set()  # paths of repetitions
        self.noted: set[str] = set()  # paths of errors, in the first of all repetitions

    def note(self, error: BlockError, path: str) -> None:
        """Keep an error; a block inside a Repeat has one at most, whatever becomes of its size."""
        names = path.split("/")
        before = ["/".join(names[:i]) for i in range(len(names))]
        first = "/".join(
            "0" if at in self.loops else n for at, n in zip(before, names, strict=True)
        )
        if first == path or first not in self.noted:
            self.errors.append(error)
        self.noted.add(first)

    def enter(self, block: Block, name: str, path: str, home: str, x: ValueSpec) -> Frame:
        try:
            frame = super().enter(block, name, path, home, x)
        except FieldError as error:  # another block has this Shared name; this one has its own
            self.note(error, path)
            while (inner := block.expand()) is not None:
                block = inner
            frame = super().enter(block, name, path, home, x)
        if isinstance(frame.form, Combinator) and frame.form.flow == "loop":
            self.loops.add(path)
        return frame

    def failed(self, error: ShapeError, frame: Frame) -> Node:
        if not (self.errors and isinstance(error, UnknownSizeError)):
            self.note(error, frame.path)
        if isinstance(frame.form, Combinator):
            made = frame.children[0] if frame.form.flow == "fork" else frame.children[-1]
            return frame.node(made.out_spec, **self.dtypes)
        form, x = frame.form, frame.x
        if isinstance(x, tuple) and not form.takes_tuple:
            x = leaves(x)[0]
        out = tried(lambda: map_value(self.typed, form.out_spec(x)))
        fits = out is not None
        facts: dict[str, Any] = {}
        if fits or states(form):
            facts["params"] = tried(lambda: self.params(form, as_stated(form, x))) or {}
        if fits:
            facts["resolved"] = tried(lambda: form.resolve(x)) or {}
        out = map_value(self.as_float, out if fits else declared(form, x))
        return frame.node(out, **facts, **self.dtypes)

    def leaf(self, frame: Frame) -> Node:
        try:
            return super().leaf(frame)
        except BlockError:
            raise
        except Exception as error:  # a Custom's own code met a size that an error made unknown
            if not self.errors:
                raise
            raise UnknownSizeError(f"raises {error!r}") from error

    def as_float(self, spec: Spec) -> Spec:
        """What comes out of a block that failed, so that the next one need not fail for it."""
        return Spec(spec.shape, self.dtypes["dtype"], spec.layout)


def tried(function: Callable[[], T]) -> T | None:
    """The result of a function, or None if it fails on a value that does not fit."""
    try:
        return function()
    except Exception:
        return None


def states(form: Any) -> bool:
    return getattr(form, "in_features", None) is not None


def as_stated(form: Any, x: ValueSpec) -> ValueSpec:
    """The input with the number of features that the block states, if it does."""
    if not states(form):
        return x
    if form.layout_role == "plain":
        return x.with_shape((*x.shape[:-1], form.in_features))
    return x.with_channels(form.in_features)


@singledispatch
def declared(form: Any, x: ValueSpec) -> ValueSpec:
    """What comes out as far as the fields alone say, where the input does not fit."""
    return x


@declared.register(Conv)
@declared.register(ConvTranspose)
@declared.register(WindowPool)
def _(form: Any, x: Spec) -> ValueSpec:
    channels = getattr(form, "features", x.channels if x.rank else None)
    return x.with_channels(channels, (None,) * len(form.kernel_size))


@declared.register
def _(form: Reshape, x: Spec) -> ValueSpec:
    return x.with_shape(tuple(None if n == -1 else n for n in form.shape))

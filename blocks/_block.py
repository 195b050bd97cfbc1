"""The base of all blocks."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Iterator
from typing import Any, ClassVar, dataclass_transform

from blocks._errors import FieldError
from blocks._spec import Kind, ParamSpec, ValueSpec, map_value
from blocks._stack import run


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def block(cls: type) -> type:
    """Make a class a block: a frozen, hashable dataclass with a repr that can be pasted back."""
    return dataclasses.dataclass(frozen=True, repr=False, eq=False)(cls)


@block
class Config:
    """A frozen set of fields, each checked and normalised when it is built.

    Equal if its fields are equal. Blocks may be nested to any depth: nothing here recurses.
    """

    package: ClassVar[str] = ""  # where `repr` finds the class
    instead: ClassVar[str] = ""  # of a class that is only a base: a kind of it, as users write it

    def __post_init__(self) -> None:
        if instead := vars(type(self)).get("instead"):
            name = type(self).__name__
            raise FieldError(f"{name} is only what others are kinds of; write {instead}.")
        for field in dataclasses.fields(self):
            if convert := field.metadata.get("convert"):
                label = f"{type(self).__name__}.{field.name}"
                value = convert(self, label, getattr(self, field.name))
                object.__setattr__(self, field.name, value)
        self.check()

    def check(self) -> None:
        """Refuse fields that do not go together; runs after every single field was checked."""

    def __repr__(self) -> str:
        return run(written(self))

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and list(tokens(self)) == list(tokens(other))

    def __hash__(self) -> int:
        return hash(tuple(tokens(self)))

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: Any) -> Any:
        return self

    def fields(self) -> dict[str, Any]:
        """The fields that are not at their defaults."""
        values = {f: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {f.name: value for f, value in values.items() if value != self.default(f)}

    @classmethod
    def of_fields(cls, **fields: Any) -> Any:
        """The opposite of `fields`."""
        return cls(**fields)

    def shown(self) -> list[tuple[str, Any]]:
        """Names and values of the arguments that make it; "" for the name of a positional one."""
        return list(self.fields().items())

    def default(self, field: dataclasses.Field[Any]) -> Any:
        """The value that a field gets if it is left out: normalised, given the other fields."""
        convert = field.metadata.get("convert")
        if field.default is dataclasses.MISSING or convert is None:
            return field.default
        return convert(self, field.name, field.default)


def written(value: Any) -> Generator[Any, Any, str]:
    """A value as code that makes it again."""
    if not isinstance(value, Config):
        return repr(value)
    shown = []
    for name, inner in value.shown():
        shown.append((f"{name}=" if name else "") + (yield written(inner)))
    return f"{value.package}{type(value).__name__}({', '.join(shown)})"


def tokens(value: Any) -> Iterator[Any]:
    """All that a block holds, in one line: for each block its type, then the values of its fields;
    for each tuple its length, then its members.
    """
    stack = [value]
    while stack:
        here = stack.pop()
        if isinstance(here, Config):
            yield type(here)
            stack.extend(getattr(here, f.name) for f in reversed(dataclasses.fields(here)))
        elif isinstance(here, tuple):
            yield tuple, len(here)
            stack.extend(reversed(here))
        else:
            yield here


@block
class Block(Config):
    """What to compute: configuration only, no arrays and no sizes that can be inferred.

    A block is a `Leaf`, a `Combinator`, or a `Composite`, which expands to one of the others. One
    that is `stochastic` draws random numbers in training.
    """

    instead = "Dense(8)"
    stochastic: ClassVar[bool] = False

    def expand(self) -> Block | None:
        """The block that this one stands for; None if it stands for itself."""
        return None

    def ruled_as(self) -> type[Block]:
        """The type under which backends keep its rule: its own, not that of a base."""
        return type(self)

    def summary(self, input_shape: Any, **options: Any) -> Any:
        """Path, block, output shape, parameters and multiply-adds of every leaf, as a table.

        `options` are those of `infer`: layout and dtype.
        """
        from blocks._infer import infer
        from blocks._summary import Summary

        return Summary(infer(self, input_shape, **options))

    def listing(self, input_shape: Any, **options: Any) -> str:
        """One numbered line for each module, as torch users print it; see `blocks.listing`."""
        from blocks._listing import listing

        return listing(self, input_shape, **options)

    def transpose(self, input_shape: Any, **options: Any) -> Any:
        """The decoder that mirrors this encoder; see `blocks.transpose`."""
        from blocks._transpose import transpose

        return transpose(self, input_shape, **options)

    def _repr_html_(self) -> str | None:
        """What a notebook shows: the diagram, without sizes."""
        from blocks._draw import html

        return html(self)


class Leaf(Block):
    """A block that every backend has a rule for.

    `layout_role` says how it looks at the axes: "spatial" blocks find their channels by the
    layout, "elementwise" ones work in any layout, "plain" ones see the array as it is. `numbers`
    says what it takes: "float", "any", or by `kinds` others for each tensor.
    """

    instead = "Dense(8)"
    layout_role: ClassVar[str] = "plain"
    takes_tuple: ClassVar[bool] = False
    numbers: ClassVar[str] = "float"

    def kinds(self, x: ValueSpec) -> Any:
        """The kind of numbers that it takes, for each tensor of its input."""
        return map_value(lambda _: Kind(self.numbers), x)

    def out_spec(self, x: ValueSpec) -> ValueSpec:
        """What comes out for the input `x`; raises `ShapeError` if `x` does not fit."""
        raise NotImplementedError

    def param_specs(self, x: ValueSpec) -> dict[str, ParamSpec]:
        """The parameters that the block has at input `x`."""
        return {}

    def resolve(self, x: ValueSpec) -> dict[str, Any]:
        """Facts that follow from the input and that rules need, such as padding as pairs."""
        return {}

    def multiply_adds(self, x: ValueSpec, y: ValueSpec) -> int | None:
        """Multiplications fused with an addition for one example; None if a size is unknown."""
        return 0


# A combinator's `connect` yields (name, child block, its input) and is sent the child's output.
Wiring = Generator[tuple[str, Block, ValueSpec], ValueSpec, ValueSpec]


class Combinator(Block):
    """A block made of other blocks.

    `flow` says how values move: "chain", one child after the other; "loop", the same, but all
    children are alike; "fork", every child receives the same input and `merge` joins the outputs.
    """

    instead = "Sequential(Dense(8), ReLU())"
    flow: ClassVar[str] = "chain"

    def connect(self, x: ValueSpec) -> Wiring:
        """Yield (name, child, its input) in order, receive its output, return the result."""
        raise NotImplementedError

    @property
    def copies(self) -> int:
        """How many nodes each of its `parts` becomes."""
        return 1

    def parts(self) -> dict[str, Block]:
        """The children by the names that `connect` gives them; the first of those that are alike
        in a "loop".
        """
        raise NotImplementedError

    def with_blocks(self, blocks: dict[str, Block]) -> Block:
        """The same combinator with other children, by the names that `connect` gave them; those
        of a Sequential may be fewer.
        """
        raise NotImplementedError

    def resolve(self, y: ValueSpec) -> dict[str, Any]:
        """Facts that follow from the output and that rules need, such as the axis of a merge."""
        return {}


class Composite(Block):
    """A block that is an abbreviation: it defines `expand` and needs no backend code."""

    instead = "MLP(10)"

    def expand(self) -> Block:
        raise NotImplementedError

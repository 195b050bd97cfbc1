"""Blocks written as einops patterns: every axis has a name, the batch comes first."""

from __future__ import annotations

import dataclasses
import itertools
import math
import operator
import re
from collections.abc import Iterable, Iterator, Mapping
from string import ascii_letters
from typing import Any, TypeAlias

from einops import EinopsError
from einops.parsing import ParsedExpression

from blocks import _fields as fields
from blocks._block import Leaf, block
from blocks._errors import FieldError, ShapeError, did_you_mean
from blocks._limits import MAX_AXES, MAX_PATTERN
from blocks._shape import need_known
from blocks._spec import ParamSpec, Shape, Size, Spec, shapes
from blocks.combine import is_name
from blocks.initializers import Init, initializer, with_fans

# One side of a pattern: for each axis of the array the names behind it, () where it is a 1;
# "..." is the axes that the pattern does not name, or inside a group all of them in one.
Group: TypeAlias = tuple[str, ...]
Side: TypeAlias = tuple[Group | str, ...]
Lengths: TypeAlias = tuple[tuple[str, int], ...]

REST = "..."
REDUCTIONS = ("mean", "sum", "max", "min", "prod")

# A length is given as a keyword, so an axis cannot have the name of another argument of the layers.
ARGUMENTS = {"self", "tensor", "pattern", "reduction", "axes_lengths", "weight_shape", "bias_shape"}
ARGUMENTS |= {"axis", "kernel_init", "bias_init", "rng", "rngs", "dtype", "param_dtype"}


def side(label: str, text: str) -> Side:
    """The groups of one side of a pattern, read by einops itself."""
    for word in re.findall(r"\w+", text):
        if not word.isdecimal() and (not is_name(word) or word != word.strip("_")):
            raise FieldError(
                f"{label} has an axis named {word!r}; use a Python name in ASCII that neither "
                "begins nor ends with an underscore."
            )
        if word in ARGUMENTS:
            raise FieldError(f"{label} has an axis named {word!r}, like an argument. Rename it.")
    try:
        composition = ParsedExpression(text).composition
    except EinopsError as error:
        raise FieldError(f"{label} has a side {text!r} that is no pattern: {error}.") from None
    rest = ParsedExpression(REST).composition[0]  # how einops writes "..."

    def name(axis: Any) -> str:
        return REST if axis == rest else str(getattr(axis, "value", axis))

    return tuple(REST if group == rest else tuple(map(name, group)) for group in composition)


def groups(side: Side, rest: Iterable[str] = (REST,)) -> Iterator[Group]:
    """The groups of a side with names for the axes behind "..."."""
    for group in side:
        if isinstance(group, str):
            yield from ((axis,) for axis in rest)
        else:
            yield tuple(a for axis in group for a in (rest if axis == REST else (axis,)))


def flat(side: Iterable[Group]) -> list[str]:
    """All names in their order."""
    return [axis for group in side for axis in group]


def spelled(group: Group) -> str:
    """A group as it stands in a pattern."""
    return group[0] if len(group) == 1 else f"({' '.join(group)})"


def size_of(group: Iterable[str], sizes: Mapping[str, Size]) -> Size:
    """The size of several axes in one; None if one of them may have any length."""
    found = [sizes[axis] for axis in group]
    return None if None in found else math.prod(found)  # type: ignore[arg-type]


def one_pattern() -> Any:
    """A text with one arrow."""

    def convert(block: Any, label: str, value: Any) -> str:
        if not isinstance(value, str) or value.count("->") != 1:
            raise fields.refuse(label, "a pattern such as 'b h w -> b (h w)'", value)
        if len(value) > MAX_PATTERN:
            raise fields.refuse(label, f"a text of at most {MAX_PATTERN:,} letters", value)
        return " -> ".join(" ".join(text.split()) for text in value.split("->"))

    return fields.converted(convert)


def names(*, optional: bool = False) -> Any:
    """Names of axes with spaces between them; None too if optional."""

    def convert(block: Any, label: str, value: Any) -> str | None:
        if value is None and optional:
            return None
        words = value.split() if isinstance(value, str) else []
        if not words or not all(map(is_name, words)) or len(set(words)) < len(words):
            raise fields.refuse(label, "names of axes such as 'c o'", value)
        return " ".join(words)

    return fields.converted(convert, None) if optional else fields.converted(convert)


def lengths() -> Any:
    """Pairs of an axis and its length, by name."""

    def convert(block: Any, label: str, value: Any) -> Lengths:
        for axis, length in value.items():
            number = fields.as_index(length)
            if number is None or number < 1:
                raise fields.refuse(f"{type(block).__name__}.{axis}", "a positive int", length)
        return tuple(sorted((axis, operator.index(n)) for axis, n in value.items()))

    return fields.converted(convert)


def as_lengths(value: Any) -> dict[str, Any]:
    """Lengths of axes by name, from a dict or from pairs."""
    try:
        found = dict(value)
    except (TypeError, ValueError):
        found = {None: value}
    if not all(isinstance(axis, str) for axis in found):
        raise fields.refuse("axes_lengths", "pairs of a name and a length", value)
    return found


@dataclasses.dataclass(frozen=True)
class Plan:
    """A pattern at known sizes; groups and axes are those after the batch."""

    left: tuple[Group, ...]
    right: tuple[Group, ...]
    sizes: Mapping[str, Size]

    def shape(self, groups: Iterable[Group]) -> Shape:
        return tuple(size_of(group, self.sizes) for group in groups)


@block
class Pattern(Leaf):
    """What the blocks share that are written as einops patterns."""

    pattern: str = one_pattern()
    axes_lengths: Lengths = lengths()

    def assign(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)
        self.__post_init__()

    @property
    def label(self) -> str:
        """What errors call the pattern."""
        return f"{type(self).__name__}.pattern {self.pattern!r}"

    @property
    def sides(self) -> tuple[Side, Side]:
        left, right = self.pattern.split(" -> ")
        label = f"{type(self).__name__}.pattern"
        return side(label, left), side(label, right)

    @property
    def batch(self) -> str:
        return self.sides[0][0][0]

    def known(self) -> set[str]:
        """The axes that may be given a length."""
        return set(flat(groups(self.sides[0])))

    def check(self) -> None:
        left, right = self.sides
        first = left[:1]
        if first != right[:1] or not first or len(first[0]) != 1 or not is_name(first[0][0]):
            raise FieldError(
                f"{self.label} must begin with the batch, by a name of its own on both sides. A "
                "block has no batch size: write 'b ... -> b ...', and change the batch outside the "
                "network."
            )
        if any(REST in group for group in left if group != REST):
            raise FieldError(
                f"{self.label} has {REST} in brackets on the left; only the right may merge it."
            )
        if left.count(REST) < right.count(REST):
            raise FieldError(f"{self.label} has {REST} on the right only.")
        if len(set(flat(groups(left)) + flat(groups(right)))) > MAX_AXES:
            raise FieldError(f"{self.label} has more than {MAX_AXES} axes.")
        self.check_axes(left, right)
        self.check_lengths(left)

    def check_axes(self, left: Side, right: Side) -> None:
        """Refuse axes that appear, vanish or are numbers where that has no meaning."""
        raise NotImplementedError

    def check_lengths(self, left: Side) -> None:
        stated, known = dict(self.axes_lengths), self.known() - {REST}
        for axis, length in self.axes_lengths:
            if axis == self.batch:
                raise FieldError(
                    f"{type(self).__name__} has {axis}={length}, but {axis} is the batch, which "
                    "may have any size. Leave it out."
                )
            if axis not in known:
                raise FieldError(
                    f"{type(self).__name__} has {axis}={length}, but {self.pattern!r} has no axis "
                    f"{axis}.{did_you_mean(axis, known)}"
                )
        for group in groups(left):
            unknown = [axis for axis in group if axis not in stated and not axis.isdecimal()]
            if len(unknown) > 1:
                written = ", ".join(f"{axis}=2" for axis in unknown[1:])
                raise FieldError(
                    f"{self.label} splits an axis into {spelled(group)}, so it needs the lengths "
                    f"of all but one of {', '.join(unknown)}. Write {written}, say."
                )

    def refuse_numbers(self, *sides: Side) -> None:
        for axis in flat(group for side in sides for group in groups(side)):
            if axis.isdecimal():
                raise FieldError(
                    f"{self.label} has an axis {axis} without a name. "
                    f"Name it and give its length: n={axis}, say."
                )

    def refuse_new(self, left: Side, right: Side) -> None:
        new = [axis for axis in flat(groups(right)) if axis not in flat(groups(left))]
        if new:
            raise FieldError(
                f"{self.label} has {new[0]} on the right only; {type(self).__name__} makes no new "
                f"axes. Write {new[0]} on the left too, or use EinMix."
            )

    def plan(self, x: Spec) -> Plan:
        """The pattern at the sizes of the input; raises `ShapeError` if they do not fit."""
        left, right = (side[1:] for side in self.sides)
        free = x.rank - len(left) + left.count(REST)
        if free < 0 or (free and REST not in left):
            least = "at least " if REST in left else ""
            raise ShapeError(
                f"takes {least}{len(left) - left.count(REST)} axes after the batch in "
                f"{self.pattern!r}, got {shapes(x)}",
                fix=f"Name every axis after {self.batch!r}, or write ... for any number of them.",
            )
        rest = [f"{REST}{i}" for i in range(free)]
        before, after = tuple(groups(left, rest)), tuple(groups(right, rest))
        numbers = {axis: int(axis) for axis in flat(before) if axis.isdecimal()}
        stated = dict(self.axes_lengths) | numbers
        sizes: dict[str, Size] = {**stated}
        for index, group in enumerate(before):
            sizes |= inferred(x, index, group, stated)
        return Plan(before, after, sizes)

    def out_spec(self, x: Spec) -> Spec:
        plan = self.plan(x)
        return x.with_shape(plan.shape(plan.right))

    def shown(self) -> list[tuple[str, Any]]:
        own = [(name, value) for name, value in super().shown() if name != "axes_lengths"]
        return own + list(self.axes_lengths)


def inferred(x: Spec, index: int, group: Group, stated: Mapping[str, int]) -> dict[str, Size]:
    """The length of the one axis of a group that has none yet, from the size of all together."""
    size = x.shape[index]
    known = math.prod(stated.get(axis, 1) for axis in group)
    unknown = [axis for axis in group if axis not in stated]
    if size is None and group:
        return dict.fromkeys(unknown)
    if size is None or (size % known if unknown else size != known):
        raise misfit(x, index, group, stated)
    return dict.fromkeys(unknown, size // known)


def misfit(x: Spec, index: int, group: Group, stated: Mapping[str, int]) -> ShapeError:
    """Axis `index` of the input has not the size that its group needs."""
    size, there = x.shape[index], f"axis {index} of {shapes(x)}"
    known = math.prod(stated.get(axis, 1) for axis in group)
    given = ", ".join(f"{a}={stated[a]}" for a in group if a in stated and not a.isdecimal())
    if not given and len(group) < 2:
        has = "may have any length" if size is None else f"has {size}"
        return ShapeError(f"has a {known} for {there}, which {has}", fix="Give that axis a name.")
    if len(group) == 1:
        return ShapeError(
            f"states {given}, but {there} has {size}",
            fix=f"Write {group[0]}={size}, or leave it out: it is inferred.",
        )
    fact = f"splits {there} into {spelled(group)}" + (f" with {given}" if given else "")
    if all(axis in stated for axis in group):
        return ShapeError(
            f"{fact}, that is {known}, but it has {size}",
            fix="Leave one of the lengths out: it is inferred.",
        )
    return ShapeError(
        f"{fact}, but {known} does not divide {size}",
        fix=f"Use lengths that divide {size}, or bring the axis to a multiple of {known}.",
    )


@block
class Rearrange(Pattern):
    """The axes split, in another order and merged, as an einops pattern says.

        y = einops.rearrange(x, pattern, **axes_lengths)

    Shape: the left side of the pattern -> its right side. Every axis has a name and keeps it; (a b)
        is a and b in one axis, 1 an axis of size 1, ... all axes that are not named. The first name
        is the batch, alone on both sides.
    Fields:
        pattern: such as "b (h h2) (w w2) c -> b h w (h2 w2 c)".
        axes_lengths: given as keywords; of an axis that is split, all lengths but one.
    Differs: einops has layers for torch, and for Keras under TensorFlow, which do not reload alone;
        for Flax nnx it has functions.

    >>> import blocks as bl
    >>> bl.infer(bl.Rearrange("b (h h2) w c -> b h w (h2 c)", h2=2), (4, 5, 3)).out_spec.shape
    (2, 5, 6)
    """

    numbers = "any"

    def __init__(self, pattern: str, *, axes_lengths: Any = (), **lengths: int):
        self.assign(pattern=pattern, axes_lengths=as_lengths(axes_lengths) | lengths)

    def check_axes(self, left: Side, right: Side) -> None:
        self.refuse_numbers(left, right)
        self.refuse_new(left, right)
        gone = [axis for axis in flat(groups(left)) if axis not in flat(groups(right))]
        if gone:
            raise FieldError(
                f"{self.label} has {gone[0]} on the left only. Use Reduce to remove an axis."
            )

    def resolve(self, x: Spec) -> dict[str, Any]:
        return moves(self.plan(x))

    def reversed(self, x: Spec) -> Rearrange:
        """The pattern that brings the output for `x` back, with the lengths that it needs."""
        plan = self.plan(x)
        stated = {*flat(plan.left), self.batch}
        fresh = (name for i in itertools.count() if (name := f"rest{i}") not in stated)
        named = {a: next(fresh) if a.startswith(REST) else a for a in flat(plan.left)}
        left, right = (
            [tuple(named[axis] for axis in group) for group in groups]
            for groups in (plan.right, plan.left)
        )
        lengths = {
            named[axis]: size
            for group in plan.right
            for axis in group
            if len(group) > 1 and (size := plan.sizes[axis]) is not None
        }
        sides = (" ".join([self.batch, *map(spelled, side)]) for side in (left, right))
        return Rearrange(" -> ".join(sides), axes_lengths=lengths)


@block
class Reduce(Pattern):
    """The axes that an einops pattern has on its left alone are reduced, the others rearranged.

        y = einops.reduce(x, pattern, reduction, **axes_lengths)

    Among equal numbers, the first receives the gradient of "max" and "min" or all share it, as the
    framework does.

    Shape: the left side of the pattern -> its right side, as in Rearrange; a number greater than 1
        is an axis of that length without a name, which is reduced.
    Fields:
        pattern: such as "b (h h2) (w w2) c -> b h w c".
        reduction: "mean", "sum", "max", "min" or "prod".
        axes_lengths: given as keywords; of an axis that is split, all lengths but one.
    Differs: as in Rearrange. torch, TensorFlow and JAX share the gradient among equal numbers.

    >>> import blocks as bl
    >>> bl.infer(bl.Reduce("b (h 2) (w 3) c -> b c h w", "max"), (4, 6, 5)).out_spec.shape
    (5, 2, 2)
    """

    reduction: str = fields.choice(REDUCTIONS)

    def __init__(self, pattern: str, reduction: str, *, axes_lengths: Any = (), **lengths: int):
        lengths = as_lengths(axes_lengths) | lengths
        self.assign(pattern=pattern, reduction=reduction, axes_lengths=lengths)

    def check_axes(self, left: Side, right: Side) -> None:
        self.refuse_numbers(right)
        self.refuse_new(left, right)

    def resolve(self, x: Spec) -> dict[str, Any]:
        return moves(self.plan(x)) | self.rows()

    def rows(self) -> dict[str, Any]:
        """The pattern that brings what is reduced into a last axis, and the lengths that it needs.

        Numbers get names, as a rearrangement wants them.
        """
        left, right = self.sides
        used = {*flat(groups(left))}
        fresh = (name for i in itertools.count() if (name := f"n{i}") not in used)
        lengths = dict(self.axes_lengths)
        named = []
        for group in groups(left):
            renamed = [next(fresh) if axis.isdecimal() else axis for axis in group]
            lengths |= {new: int(a) for new, a in zip(renamed, group, strict=True) if new != a}
            named.append(tuple(renamed))
        gone = tuple(axis for axis in flat(named) if axis not in flat(groups(right)))
        before, after = " ".join(map(spelled, named)), self.pattern.split(" -> ")[1]
        return {"rows": f"{before} -> {after} ({' '.join(gone)})", "lengths": lengths}


@block
class EinMix(Pattern):
    """A product with a learned kernel, summed over axes that einops patterns name.

        y = rearrange(einsum(rearrange(x), kernel) + bias)

    An axis that is in the kernel and the output is kept, number by number; one that is in the input
    or the kernel and not in the output is summed over. A Dense is EinMix("b ... c -> b ... o",
    "c o", "o", o=8).

    Shape: the left side of the pattern -> its right side, as in Rearrange.
    Parameters: kernel with the axes of weight_shape; bias with those of bias_shape, if it is given.
    Fields:
        pattern: such as "b (h h2) (w w2) c -> b h w o".
        weight_shape: the kernel's axes, such as "h2 w2 c o".
        bias_shape: the bias's axes, all of them in the output; None for no bias.
        axes_lengths: given as keywords; those that the input does not tell.
        kernel_init, bias_init: initialisers; fan_in counts the kernel's axes that are not in the
            output, fan_out those that are not in the input.
    Differs: einops calls the kernel weight, wants the lengths of all its axes, and draws it from
        U(-sqrt(3 / fan_in), sqrt(3 / fan_in)), the bias from U(-1, 1) / sqrt(fan_in). Here: the
        kernel from the same, and bias 0. Keras has EinsumDense and nnx has Einsum, both without the
        rearrangement.

    >>> import blocks as bl
    >>> mix = bl.EinMix("b (h h2) (w w2) c -> b h w o", "h2 w2 c o", "o", h2=2, w2=3, o=8)
    >>> bl.infer(mix, (4, 6, 5)).out_spec.shape
    (2, 2, 8)
    """

    weight_shape: str = names()
    bias_shape: str | None = names(optional=True)
    kernel_init: Init = initializer("lecun_uniform")
    bias_init: Init = initializer("zeros")

    def __init__(
        self,
        pattern: str,
        weight_shape: str,
        bias_shape: str | None = None,
        *,
        kernel_init: Any = "lecun_uniform",
        bias_init: Any = "zeros",
        axes_lengths: Any = (),
        **lengths: int,
    ):
        self.assign(
            pattern=pattern,
            weight_shape=weight_shape,
            bias_shape=bias_shape,
            kernel_init=kernel_init,
            bias_init=bias_init,
            axes_lengths=as_lengths(axes_lengths) | lengths,
        )

    @property
    def weight(self) -> list[str]:
        return self.weight_shape.split()

    @property
    def bias(self) -> list[str]:
        return (self.bias_shape or "").split()

    def known(self) -> set[str]:
        return super().known() | set(self.weight)

    def check_axes(self, left: Side, right: Side) -> None:
        self.refuse_numbers(left, right)
        inputs, outputs = flat(groups(left)), flat(groups(right))
        if left.count(REST) > flat(groups(right)).count(REST):
            raise FieldError(f"{self.label} has {REST} on the left only.")
        for axis in (*self.weight, *self.bias):
            if axis == self.batch:
                raise FieldError(f"EinMix has {axis}, the batch, in the shape of a parameter.")
        for axis in outputs:
            if axis not in (*inputs, *self.weight):
                raise FieldError(
                    f"{self.label} has {axis} on the right, but neither its left side nor "
                    f"weight_shape={self.weight_shape!r} has it. Add it to weight_shape."
                )
        for axis in self.weight:
            if axis not in (*inputs, *outputs):
                raise FieldError(
                    f"EinMix.weight_shape has {axis}, but {self.pattern!r} has not. Take it out."
                )
            if axis not in inputs and axis not in dict(self.axes_lengths):
                raise FieldError(
                    f"EinMix needs the length of {axis}, which its input does not have. "
                    f"Write {axis}=8, say."
                )
        for axis in self.bias:
            if axis not in outputs:
                raise FieldError(
                    f"EinMix.bias_shape has {axis}, but the right side of {self.pattern!r} has not."
                    " A bias has axes of the output."
                )
            if REST in outputs and outputs.index(axis) < outputs.index(REST):
                raise FieldError(
                    f"EinMix.bias_shape has {axis}, which comes before {REST} in the output of "
                    f"{self.pattern!r}. Name the axes that it stands for."
                )

    def lengths(self, x: Spec) -> dict[str, int]:
        """The lengths that were given, and those of the parameters' axes."""
        sizes = self.plan(x).sizes
        needed = {
            axis: need_known(x, sizes[axis], f"cells along {axis}")
            for axis in (*self.weight, *self.bias)
        }
        return needed | dict(self.axes_lengths)

    def param_specs(self, x: Spec) -> dict[str, ParamSpec]:
        lengths, (left, right) = self.lengths(x), self.sides
        fan_in = math.prod(lengths[a] for a in self.weight if a not in flat(groups(right)))
        fan_out = math.prod(lengths[a] for a in self.weight if a not in flat(groups(left)))
        kernel_init = with_fans(self.kernel_init, fan_in, fan_out)
        specs = {"kernel": ParamSpec(tuple(lengths[a] for a in self.weight), kernel_init)}
        if self.bias:
            specs["bias"] = ParamSpec(tuple(lengths[a] for a in self.bias), self.bias_init)
        return specs

    def resolve(self, x: Spec) -> dict[str, Any]:
        """The einsum in letters, the shapes around it, and the bias as it is added."""
        plan = self.plan(x)
        left, right = ([self.batch, *flat(side)] for side in (plan.left, plan.right))
        letter = letters((*left, *self.weight))
        written = ["".join(letter[axis] for axis in axes) for axes in (left, self.weight, right)]
        spread = [axis for axis in flat(groups(self.sides[1])) if axis != REST]
        return {
            "lengths": self.lengths(x),
            "equation": "{},{}->{}".format(*written),
            "split": plan.shape((axis,) for axis in flat(plan.left)),
            "mixed": plan.shape((axis,) for axis in flat(plan.right)),
            "bias_axes": "".join(letter[axis] for axis in right if axis in self.bias),
            "bias": " ".join(axis if axis in self.bias else "1" for axis in spread),
        }

    def multiply_adds(self, x: Spec, y: Spec) -> int | None:
        plan = self.plan(x)
        return size_of({*flat(plan.left), *self.weight}, plan.sizes)


def moves(plan: Plan) -> dict[str, Any]:
    """A pattern as steps: split all axes, reduce some, order the others; then merge."""
    left, right = flat(plan.left), flat(plan.right)
    kept = [axis for axis in left if axis in right]
    order = tuple(kept.index(axis) for axis in right)
    return {
        "split": tuple(plan.sizes[axis] for axis in left),
        "reduced": tuple(i for i, axis in enumerate(left) if axis not in right),
        "order": order,
        "ordered": tuple(plan.sizes[axis] for axis in right),
    }


def letters(names: Iterable[str]) -> dict[str, str]:
    """A letter for each name: one of its own, if it is not taken yet."""
    found: dict[str, str] = {}
    for name in dict.fromkeys(names):
        wanted = (letter for letter in (*name, *ascii_letters) if letter in ascii_letters)
        found[name] = next(letter for letter in wanted if letter not in found.values())
    return found

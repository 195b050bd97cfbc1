"""Fields of blocks: each states its rule once, checks it at construction and normalises the value.

A field is made by one of the functions below and stores a converter in its metadata;
`Block.__post_init__` runs it. So `Dense(0)` is refused where it is written, and equal blocks are
equal (a list becomes a tuple, NumPy's integers become Python's, `True` is never a 1).
"""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from blocks._errors import FieldError, did_you_mean, shown
from blocks._limits import MAX_INT

REQUIRED = dataclasses.MISSING


def converted(convert: Callable[..., Any], default: Any = REQUIRED) -> Any:
    """A dataclass field whose value is `convert(block, label, value)`, with ints of 64 bits."""

    def checked(block: Any, label: str, value: Any) -> Any:
        made = convert(block, label, value)
        if not all(-MAX_INT <= number < MAX_INT for number in whole(made)):
            raise refuse(label, "made of integers below 2**63", value)
        return made

    return dataclasses.field(default=default, metadata={"convert": checked})


def whole(value: Any) -> Iterator[int]:
    """The integers in a value of nested tuples."""
    if isinstance(value, tuple):
        for item in value:
            yield from whole(item)
    elif isinstance(value, int):
        yield value


def refuse(label: str, rule: str, value: Any, hint: str = "") -> FieldError:
    hint = f" {hint}" if hint else ""
    return FieldError(f"{label} must be {rule}, got {shown(value)}.{hint}")


def as_index(value: Any) -> int | None:
    """The value as a Python int, or None if it is none (a bool is none)."""
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def integer(default: Any = REQUIRED, *, low: int = 1, optional: bool = False) -> Any:
    """An int of at least `low`; None too if optional."""

    def convert(block: Any, label: str, value: Any) -> int | None:
        if value is None and optional:
            return None
        number = as_index(value)
        if number is None or number < low:
            rule = "a positive int" if low == 1 else f"an int of at least {low}"
            raise refuse(label, rule, value)
        return number

    return converted(convert, default)


def axis(default: Any = REQUIRED, *, optional: bool = False) -> Any:
    """An int that counts the axes of a value without its batch axis, negative from the end."""

    def convert(block: Any, label: str, value: Any) -> int | None:
        number = as_index(value)
        if number is None and not (value is None and optional):
            raise refuse(label, "an int", value)
        return number

    return converted(convert, default)


def real(
    default: Any = REQUIRED,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    open_low: bool = False,
    open_high: bool = False,
    optional: bool = False,
) -> Any:
    """A finite number between two bounds, which count as allowed unless open."""
    left = f"{'>' if open_low else '>='} {low:g}" if low > -math.inf else ""
    right = f"{'<' if open_high else '<='} {high:g}" if high < math.inf else ""
    rule = " ".join(["a number", " and ".join(filter(None, (left, right)))]).strip()

    def convert(block: Any, label: str, value: Any) -> float | None:
        if value is None and optional:
            return None
        try:
            number = math.nan if isinstance(value, (bool, str)) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        inside = low <= number <= high and math.isfinite(number)
        if not inside or (open_low and number == low) or (open_high and number == high):
            raise refuse(label, rule, value)
        return number + 0.0  # -0.0 is 0.0

    return converted(convert, default)


def flag(default: bool | None, *, optional: bool = False) -> Any:
    """True or False, nothing else; None too if optional."""

    def convert(block: Any, label: str, value: Any) -> bool | None:
        if not isinstance(value, bool) and not (value is None and optional):
            raise refuse(label, "True or False", value)
        return value

    return converted(convert, default)


def text(default: Any = REQUIRED) -> Any:
    """A text."""

    def convert(block: Any, label: str, value: Any) -> str:
        if not isinstance(value, str):
            raise refuse(label, "a text", value)
        return value

    return converted(convert, default)


def choice(options: Sequence[str], default: Any = REQUIRED) -> Any:
    """One of a few words."""

    def convert(block: Any, label: str, value: Any) -> str:
        if not isinstance(value, str) or value not in options:
            known = ", ".join(map(repr, options))
            raise refuse(label, f"one of {known}", value, did_you_mean(str(value), options).strip())
        return value

    return converted(convert, default)


def integers(default: Any = REQUIRED, *, low: int = 1, optional: bool = False) -> Any:
    """A tuple of ints of at least `low`; None too if optional."""

    def convert(block: Any, label: str, value: Any) -> tuple[int, ...] | None:
        if value is None and optional:
            return None
        numbers = int_tuple(value)
        if numbers is None or any(n < low for n in numbers):
            rule = "a tuple of positive ints" if low == 1 else f"a tuple of ints of at least {low}"
            raise refuse(label, rule, value)
        return numbers

    return converted(convert, default)


def reals(default: Any = REQUIRED, *, low: float = -math.inf) -> Any:
    """A tuple of finite numbers of at least `low`."""
    number = real(low=low).metadata["convert"]

    def convert(block: Any, label: str, value: Any) -> tuple[float, ...]:
        if not is_sequence(value):
            raise refuse(label, "a tuple of numbers", value)
        return tuple(number(block, f"{label}[{i}]", v) for i, v in enumerate(value))

    return converted(convert, default)


def axes(default: Any = REQUIRED) -> Any:
    """A tuple of axes, as in `axis`; a lone int is one axis."""

    def convert(block: Any, label: str, value: Any) -> tuple[int, ...]:
        number = as_index(value)
        numbers = (number,) if number is not None else int_tuple(value)
        if numbers is None:
            raise refuse(label, "a tuple of ints", value)
        return numbers

    return converted(convert, default)


def sizes(default: Any = REQUIRED, *, optional: bool = False) -> Any:
    """A tuple of one to three positive ints: its length is the number of spatial axes."""

    def convert(block: Any, label: str, value: Any) -> tuple[int, ...] | None:
        if value is None and optional:
            return None
        number = as_index(value)
        if number is not None:
            name = label.rpartition(".")[2]
            hint = f"For two spatial axes write {name}=({number}, {number})."
            raise refuse(label, "a tuple of positive ints", value, hint)
        numbers = int_tuple(value)
        if not numbers or len(numbers) > 3 or min(numbers) < 1:
            raise refuse(label, "a tuple of one to three positive ints", value)
        return numbers

    return converted(convert, default)


def per_axis(default: Any = 1, *, low: int = 1, same_as: str = "") -> Any:
    """An int of at least `low` for each spatial axis; a lone int serves all axes.

    With `same_as`, None means the value of that field.
    """

    def convert(block: Any, label: str, value: Any) -> tuple[int, ...]:
        rank = len(block.kernel_size)
        if value is None and same_as:
            return getattr(block, same_as)
        number = as_index(value)
        numbers = (number,) * rank if number is not None else int_tuple(value)
        if numbers is None or len(numbers) != rank or min(numbers) < low:
            one = "a positive int" if low == 1 else f"an int of at least {low}"
            rule = f"{one}, or {rank} of them as kernel_size={block.kernel_size} has"
            raise refuse(label, rule, value)
        return numbers

    return converted(convert, default)


def padding(default: str, *, below_kernel: bool = False) -> Any:
    """Either "same" or "valid", or a (before, after) pair of ints for each spatial axis.

    With `below_kernel`, padding as wide as the kernel is refused: a window would see no input.
    """

    def convert(block: Any, label: str, value: Any) -> Any:
        if isinstance(value, str) and value in ("same", "valid"):
            return value
        rank = len(block.kernel_size)
        number = as_index(value)
        if number is not None:
            pairs = ((number, number),) * rank
            raise refuse(label, "'same', 'valid' or pairs", value, f"Write padding={pairs}.")
        numbers = pair_tuple(value, rank)
        if numbers is None:
            example = ((1, 1),) * rank
            raise refuse(label, f"'same', 'valid' or {rank} pairs such as {example}", value)
        if below_kernel and any(
            max(p) >= k for p, k in zip(numbers, block.kernel_size, strict=True)
        ):
            rule = f"smaller than kernel_size={block.kernel_size}"
            raise refuse(label, rule, value, "A window of padding alone has no value.")
        return numbers

    return converted(convert, default)


def is_sequence(value: Any) -> bool:
    """Whether a value has an order: a list, a tuple or an array, but no text and no scalar."""
    return (
        hasattr(value, "__getitem__")
        and hasattr(value, "__len__")
        and not (isinstance(value, (str, bytes, dict)) or getattr(value, "ndim", 1) == 0)
    )


def int_tuple(value: Any) -> tuple[int, ...] | None:
    """The value as a tuple of Python ints, or None if it is none."""
    if not is_sequence(value):
        return None
    numbers = tuple(as_index(v) for v in value)
    return None if None in numbers else numbers  # type: ignore[return-value]


def pair_tuple(value: Any, rank: int) -> tuple[tuple[int, int], ...] | None:
    """The value as `rank` pairs of ints >= 0, or None if it is none."""
    if not is_sequence(value):
        return None
    pairs = tuple(int_tuple(pair) for pair in value)
    fits = len(pairs) == rank and all(p and len(p) == 2 and min(p) >= 0 for p in pairs)
    return pairs if fits else None  # type: ignore[return-value]

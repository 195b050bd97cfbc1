"""Where two models part: what every block returns, side by side."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

import numpy as np

from blocks import _fields as fields
from blocks._activations import Seen, ours, theirs
from blocks._errors import BlockError
from blocks._models import origin
from blocks._parity import TOLERANCES, largest_difference
from blocks._spec import is_float, leaves, map_value, shapes


@dataclass(frozen=True)
class Pair:
    """One block in two models.

    Attributes:
        a, b: its path, or the name of the module, in each.
        kind: what it is, in the words of the first model.
        shape: of what it returns, with the batch.
        error: the largest difference.
        relative: the same as a share of the largest number of the first model.
        where: at which index it is, in the first model's order of axes.
    """

    a: str
    b: str
    kind: str
    shape: str
    error: float
    relative: float
    where: str


@dataclass(frozen=True, repr=False)
class Diff:
    """Two models block by block, in the order of the first; true if all agree.

    Attributes:
        pairs: the blocks that were compared.
        only_a, only_b: those that the other model does not show.
        tolerance: up to which relative difference blocks agree.
        matched: how pairs were found, "names" or "order".
    """

    pairs: tuple[Pair, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    tolerance: float
    matched: str

    def __bool__(self) -> bool:
        return self.first is None

    @property
    def first(self) -> Pair | None:
        """The first block that disagrees."""
        return next((pair for pair in self.pairs if not pair.relative <= self.tolerance), None)

    def __rich_console__(self, console: Any, options: Any) -> Any:
        from rich.markup import escape
        from rich.table import Table

        table = Table(title=f"What every block returns, matched by {self.matched}")
        alike = all(pair.a == pair.b for pair in self.pairs)
        for name in ("path",) if alike else ("a", "b"):
            table.add_column(name, overflow="fold")
        for name in ("block", "output"):
            table.add_column(name, no_wrap=True)
        for name in ("largest", "relative"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("at")
        for pair in self.pairs:
            colour = "green" if pair.relative <= self.tolerance else "red"
            numbers = f"{pair.error:.1e}", f"[{colour}]{pair.relative:.1e}[/]"
            words = (*((pair.a,) if alike else (pair.a, pair.b)), pair.kind, pair.shape)
            where = pair.where if pair.error else ""
            table.add_row(*map(escape, words), *numbers, escape(where))
        yield table
        for label, names in (("a", self.only_a), ("b", self.only_b)):
            if names:
                yield escape(f"Only {label} shows: {', '.join(names)}.")
        if self.first is None:
            yield f"All agree within {self.tolerance:.0e}."
        else:
            first = self.first
            yield (
                f"[red]The first that differs is {escape(first.a)}: {first.relative:.1e} "
                f"at {escape(first.where)}; allowed {self.tolerance:.0e}.[/]"
            )

    def __repr__(self) -> str:
        from blocks._console import as_text

        return as_text(self)


def diff(a: Any, b: Any, x: Any, *, x_b: Any = None, tolerance: float | None = None) -> Diff:
    """Compare what every block of two models returns in evaluation, to find the first that differs.

    Each may be lowered to any backend, or be someone's own torch, Keras or Flax model. Blocks are
    matched by their names if all leaves of one model have their like in the other, else in order,
    by kind and shape; the channel axis may be first in one model and last in the other.

    Args:
        a, b: two models.
        x: a batch for both, as arrays.
        x_b: the same batch for b, if that takes it in another layout.
        tolerance: up to which difference, as a share of a block's largest number, two agree; that
            of `parity` for the wider of the two dtypes if left out.

    Raises:
        BlockError: if one is no model, or nothing in them is alike.

    >>> import blocks as bl
    >>> node = bl.infer(bl.MLP(2, hidden=(5,)), (3,), dtype="float64")
    >>> a, b = (bl.lower(node, "numpy", seed=seed) for seed in (0, 1))
    >>> x = np.ones((4, 3))
    >>> bl.diff(a, b, x).first.a, bool(bl.diff(a, a, x))
    ('0', True)
    """
    if tolerance is not None:
        tolerance = fields.real(low=0).metadata["convert"](None, "tolerance", tolerance)
    seen_a, seen_b = seen(a, x), seen(b, x if x_b is None else x_b)
    matched, pairs = by_name(seen_a, seen_b) or ("order", in_order(seen_a, seen_b))
    if not pairs:
        raise BlockError("diff finds nothing alike in the two models: no names, no shapes.")
    if tolerance is None:
        tolerance = max(limit(first.value) for pair in pairs for first in pair)
    used = {id(one) for pair in pairs for one in pair}
    only_a, only_b = (
        tuple(one.name or "the whole" for one in all_ if one.leaf and id(one) not in used)
        for all_ in (seen_a, seen_b)
    )
    return Diff(tuple(compared(*pair) for pair in pairs), only_a, only_b, tolerance, matched)


def seen(model: Any, x: Any) -> list[Seen]:
    try:
        known = origin(model)
    except BlockError:
        return theirs(model, x)
    return ours(known, model, x)


def by_name(a: list[Seen], b: list[Seen]) -> tuple[str, list[tuple[Seen, Seen]]] | None:
    """Pairs of equal names, if one model's leaves all have their like; None if they have not.

    A module that is used several times has as many records of one name.
    """
    keys_a, keys_b = numbered(a), numbered(b)
    smaller = min((keys_a, keys_b), key=lambda keys: sum(one.leaf for one in keys.values()))
    if not all(key in keys_a and key in keys_b for key, one in smaller.items() if one.leaf):
        return None
    both = [(one, keys_b[key]) for key, one in keys_a.items() if key in keys_b]
    alike = all(aligned(one.value, other.value) is not None for one, other in both)
    return ("names", both) if alike else None


def numbered(all_: list[Seen]) -> dict[tuple[str, int], Seen]:
    counts: dict[str, int] = {}
    found = {}
    for one in all_:
        name = one.name.replace("-", "/").rstrip("/")  # as Keras names layers
        counts[name] = counts.get(name, 0) + 1
        found[name, counts[name]] = one
    return found


def in_order(a: list[Seen], b: list[Seen]) -> list[tuple[Seen, Seen]]:
    """Leaves that come in the same order in both, by kind and shape."""
    a, b = [one for one in a if one.leaf], [one for one in b if one.leaf]
    matcher = SequenceMatcher(None, list(map(token, a)), list(map(token, b)), autojunk=False)
    return [
        (a[block.a + i], b[block.b + i])
        for block in matcher.get_matching_blocks()
        for i in range(block.size)
    ]


# What frameworks call the same thing, without case and "1d", "2d", "3d".
KINDS = {
    "linear": "dense",
    "globalaveragepooling": "globalavgpool",
    "globalmaxpooling": "globalmaxpool",
    "maxpooling": "maxpool",
    "averagepooling": "avgpool",
    "adaptiveavgpool": "avgpool",
    "batchnormalization": "batchnorm",
    "layernormalization": "layernorm",
    "groupnormalization": "groupnorm",
    "rmsnormalization": "rmsnorm",
}


def token(one: Seen) -> Any:
    """What must be equal in both models: the kind, and the sizes in any order."""
    word = re.sub(r"[123]d$|_", "", one.kind.lower())
    return KINDS.get(word, word), tuple(
        (y.shape[0], tuple(sorted(y.shape[1:]))) for y in leaves(one.value)
    )


def compared(a: Seen, b: Seen) -> Pair:
    value = aligned(a.value, b.value)
    share, where, error = math.inf, "another shape", math.inf
    if value is not None:
        share, where, error = largest_difference(value, a.value)
    return Pair(a.name, b.name, a.kind, shapes(a.value), error, share, where)


def aligned(a: Any, b: Any) -> Any:
    """The second value with its axes in the order of the first; None if they are not alike."""
    members = leaves(a), leaves(b)
    if len(members[0]) != len(members[1]):
        return None
    found = iter([in_order_of(*pair) for pair in zip(*members, strict=True)])
    value = map_value(lambda _: next(found), a)
    return None if any(member is None for member in leaves(value)) else value


def in_order_of(a: np.ndarray, b: np.ndarray) -> np.ndarray | None:
    """The second array itself, or with its channels on the other side: what is nearer."""
    fitting = [y for y in orders(b) if y.shape == a.shape]
    return min(fitting, key=lambda y: largest_difference(y, a)[0], default=None)


def orders(array: np.ndarray) -> Iterable[np.ndarray]:
    yield array
    if array.ndim > 2:
        yield np.moveaxis(array, 1, -1)
        yield np.moveaxis(array, -1, 1)


def limit(value: Any) -> float:
    """Up to which difference two values of that dtype agree."""
    dtypes = [str(y.dtype) for y in leaves(value) if is_float(y)]
    return max((TOLERANCES[dtype]["outputs"] for dtype in dtypes), default=0.0)

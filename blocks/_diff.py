"""Where two models part: what every block returns, side by side."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product, takewhile, zip_longest
from typing import Any

import numpy as np

from blocks import _fields as fields
from blocks import activation
from blocks._activations import Seen, ours, theirs
from blocks._batch import as_array
from blocks._errors import BlockError, short
from blocks._models import apply, origin
from blocks._parity import TOLERANCES, largest_difference
from blocks._spec import is_float, leaves, shapes


@dataclass(frozen=True)
class Pair:
    """One block in two models.

    Attributes:
        a, b: its path, or the name of the module, in each; "" for the whole model.
        kind: what it is, in the words of the first model.
        shape: of what it returns, with the batch.
        error: the largest difference.
        relative: the same as a share of the largest number of the first model.
        where: at which index it is, in the first model's order of axes; or which shape the other
            has.
        allowed: up to which relative difference the two agree.
    """

    a: str
    b: str
    kind: str
    shape: str
    error: float
    relative: float
    where: str
    allowed: float

    def __bool__(self) -> bool:
        return self.relative <= self.allowed

    @property
    def name(self) -> str:
        """What the block is called: by both models if they call it otherwise."""
        a, b = (name or WHOLE for name in (self.a, self.b))
        return a if a == b else f"{a} ({b} in b)"


WHOLE = "the whole"


@dataclass(frozen=True, repr=False)
class Diff:
    """Two models block by block, in the order of the first; true if all agree.

    Attributes:
        pairs: the blocks that were compared, and the whole models where that says more.
        only_a, only_b: blocks that the other model does not show.
        tolerance: up to which relative difference a block agrees before which all is equal.
        matched: how pairs were found, "names" or "order".
        stopped: which model did not run to its end, and why; "" if both did.
    """

    pairs: tuple[Pair, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    tolerance: float
    matched: str
    stopped: str = ""

    def __bool__(self) -> bool:
        return self.first is None and not self.stopped

    @property
    def first(self) -> Pair | None:
        """The first block that disagrees."""
        return next((pair for pair in self.pairs if not pair), None)

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
            colour = "green" if pair else "red"
            numbers = f"{pair.error:.1e}", f"[{colour}]{pair.relative:.1e}[/]"
            called = [name or WHOLE for name in ((pair.a,) if alike else (pair.a, pair.b))]
            words = (*called, pair.kind, pair.shape)
            where = pair.where if pair.error else ""
            table.add_row(*map(escape, words), *numbers, escape(where))
        yield table
        for label, names in (("a", self.only_a), ("b", self.only_b)):
            if names:
                yield escape(f"Only {label} shows: {', '.join(names)}.")
        verdict = escape(self.verdict())
        yield verdict if self.first is None else f"[red]{verdict}[/]"
        if self.stopped:
            yield f"[red]{escape(self.stopped)}[/]"

    def verdict(self) -> str:
        """What the table says, in a sentence."""
        first, most = self.first, max(pair.relative for pair in self.pairs)
        if first is None and self.stopped:
            return "All that both came to agree."
        if first is None and most <= self.tolerance:
            return f"All agree within {self.tolerance:.0e}."
        if first is None:
            return (
                f"All agree: rounding adds up to {most:.1e}, and no block adds more than "
                f"{self.tolerance:.0e} to twice what came before."
            )
        if first.relative == math.inf and not first.where.startswith("["):
            how = f"it returns {first.shape}, {first.where}"
        else:
            how = f"{first.relative:.1e} at {first.where}; allowed {first.allowed:.0e}"
        if not first.a and first is self.pairs[-1] and len(self.pairs) > 1:
            return f"All blocks agree, but the whole models differ after the last of them: {how}."
        return f"The first that differs is {first.name}: {how}."

    def __repr__(self) -> str:
        from blocks._console import as_text

        return as_text(self)


def diff(a: Any, b: Any, x: Any, *, x_b: Any = None, tolerance: float | None = None) -> Diff:
    """Compare what every block of two models returns in evaluation, to find the first that differs.

    Each may be lowered to any backend, or be someone's own torch, Keras or Flax model. Blocks are
    matched by their names if all leaves of one model have their like in the other, else in order,
    by kind and shape; the channel axis may be first in one model and last in the other, and the
    axis of time before the batch. Last come the whole models, where what they return is not what
    the last block does: after it someone's model may go on in functions, which are no modules.

    Args:
        a, b: two models.
        x: a batch for both: an array; a tuple of arrays, or a dict of them for someone's model.
        x_b: the same batch for b, if that takes it in another layout.
        tolerance: up to which difference, as a share of a block's largest number, two agree. If
            left out, that of `parity` for the wider of the two dtypes, beyond twice what the blocks
            before differ by: rounding adds up.

    Raises:
        BlockError: if the batch is empty or holds NaN, if one is no model or its first module does
            not run, or nothing is alike. Of a model that stops later, what came before is compared,
            and `stopped` says why.

    >>> import blocks as bl
    >>> node = bl.infer(bl.MLP(2, hidden=(5,)), (3,), dtype="float64")
    >>> a, b = (bl.lower(node, "numpy", seed=seed) for seed in (0, 1))
    >>> x = np.ones((4, 3))
    >>> bl.diff(a, b, x).first.a, bool(bl.diff(a, a, x))
    ('0', True)
    """
    if tolerance is not None:
        tolerance = fields.real(low=0).metadata["convert"](None, "tolerance", tolerance)
    for batch in (x, x_b):
        check_batch(batch)
    (seen_a, whole_a, why_a), (seen_b, whole_b, why_b) = (
        seen(model, given) for model, given in ((a, x), (b, x if x_b is None else x_b))
    )
    stopped = "\n".join(f"{name} stops: {why}" for name, why in (("a", why_a), ("b", why_b)) if why)
    matched, pairs = matches(seen_a, seen_b)
    if not pairs:
        raise BlockError(
            "diff finds nothing alike in the two models, neither names nor kinds in order:\n"
            f"  a has {words_for(seen_a)};\n  b has {words_for(seen_b)}.\n{stopped}".rstrip()
        )
    base = usual([*pairs, (whole_a, whole_b)]) if tolerance is None else tolerance
    growing = tolerance is None
    ends = [(whole_a, whole_b)]
    if stopped or (same(whole_a, pairs[-1][0]) and same(whole_b, pairs[-1][1])):
        ends = []
    if matched == "order":
        agreed = [*takewhile(bool, judged([*pairs, *ends], base, growing))]
        if len(agreed) < len(pairs) + len(ends):
            at = min(len(agreed), len(pairs))
            pairs[at:at] = suspected(pairs, at, seen_a, seen_b)
    used = {id(one) for pair in pairs for one in pair}
    only_a, only_b = (
        tuple(one.name or WHOLE for one in all_ if one.leaf and id(one) not in used)
        for all_ in (seen_a, seen_b)
    )
    found = tuple(judged([*pairs, *ends], base, growing))
    return Diff(found, only_a, only_b, base, matched, stopped)


def check_batch(x: Any) -> None:
    """Refuse a batch on which models cannot be told apart; another mistake is seen by them."""
    for array in inputs_of(x):
        if array.ndim and not array.size:
            raise BlockError(f"diff compares nothing on an empty batch, got {array.shape}.")
        if is_float(array) and np.isnan(array).any():
            raise BlockError("diff compares nothing on a batch that holds NaN.")


def inputs_of(x: Any) -> Iterator[np.ndarray]:
    """The arrays in what is given to a model."""
    for value in x.values() if isinstance(x, Mapping) else leaves(x):
        if isinstance(value, (tuple, Mapping)):
            yield from inputs_of(value)
        elif value is not None:
            yield as_array(value, "diff")


def seen(model: Any, x: Any) -> tuple[list[Seen], Seen, str]:
    """What every block of a model returns, what the model does, and why it stopped if it did."""
    try:
        known = origin(model)
    except BlockError:
        records, why = theirs(model, x)
        return records, next((one for one in records if not one.name), records[-1]), why
    whole = Seen("", type(known.node.block).__name__, apply(model, x), leaf=False)
    return ours(known, model, x), whole, ""


def same(one: Seen, other: Seen) -> bool:
    """Whether two return the very same numbers."""
    pair = leaves(one.value), leaves(other.value)
    return len(pair[0]) == len(pair[1]) and all(map(np.array_equal, *pair))


def words_for(all_: list[Seen]) -> str:
    """The blocks of a model, in words."""
    found = [f"{one.name or WHOLE}: {one.kind} {shapes(one.value)}" for one in all_ if one.leaf]
    return short(", ".join(found), 300)


def usual(pairs: Iterable[tuple[Seen, Seen]]) -> float:
    """Up to which difference values of their dtypes agree; integers have none."""
    dtypes = {str(y.dtype) for pair in pairs for one in pair for y in leaves(one.value)}
    return max((TOLERANCES[name]["outputs"] for name in dtypes & TOLERANCES.keys()), default=0.0)


def judged(pairs: list[tuple[Seen, Seen]], tolerance: float, growing: bool) -> Iterable[Pair]:
    """The pairs compared, each with what it may differ by."""
    before = 0.0
    for a, b in pairs:
        pair = compared(a, b, tolerance + 2 * before)
        yield pair
        if growing and pair:
            before = max(before, pair.relative)


# Which block is which

Pairs = list[tuple[Seen, Seen]]


def matches(a: list[Seen], b: list[Seen]) -> tuple[str, Pairs]:
    """The blocks that belong together, and how they were found.

    Names that are numbers may be alike by chance: then the way counts by which more blocks agree,
    or are of one kind.
    """
    named = by_name(a, b)
    if named and all(likeness(token(one), token(other))[0] == ALIKE for one, other in named):
        return "names", named
    ways = {"names": named, "order": in_order(a, b)}
    return max(ways.items(), key=lambda way: merit(way[1]))


def merit(pairs: Pairs) -> tuple[int, int]:
    """How many pairs agree, and how many are of one kind."""
    agreeing = sum(map(bool, judged(pairs, usual(pairs), growing=True)))
    return agreeing, sum(token(one)[0] == token(other)[0] for one, other in pairs)


def by_name(a: list[Seen], b: list[Seen]) -> Pairs:
    """Pairs of equal names, if one model's leaves all have their like; none if they have not.

    A module that is used several times has as many records of one name. Whole models are not
    alike because neither has a name.
    """
    if not all(one.name for one in (*a, *b) if one.leaf):
        return []
    keys_a, keys_b = numbered(a), numbered(b)
    smaller = min((keys_a, keys_b), key=lambda keys: sum(one.leaf for one in keys.values()))
    if not all(key in keys_a and key in keys_b for key, one in smaller.items() if one.leaf):
        return []
    return [(one, keys_b[key]) for key, one in keys_a.items() if key in keys_b]


def numbered(all_: list[Seen]) -> dict[tuple[str, int], Seen]:
    counts: dict[str, int] = {}
    found = {}
    for one in filter(lambda one: one.name, all_):
        name = one.name.replace("-", "/").rstrip("/")  # as Keras names layers
        counts[name] = counts.get(name, 0) + 1
        found[name, counts[name]] = one
    return found


def in_order(a: list[Seen], b: list[Seen]) -> Pairs:
    """Leaves that come in the same order in both: the pairs that weigh most together."""
    a, b = [one for one in a if one.leaf], [one for one in b if one.leaf]
    weights = weighed(a, b)[::-1, ::-1]  # from the end, so that of equal ways the earliest is found
    best = np.zeros((len(a) + 1, len(b) + 1), int)
    for i, row in enumerate(weights):
        paired = np.where(row, best[i, :-1] + row, 0)
        best[i + 1, 1:] = np.maximum.accumulate(np.maximum(best[i, 1:], paired))
    pairs, i, j = [], len(a), len(b)
    while i and j:
        weight = weights[i - 1, j - 1]
        if weight and best[i, j] == best[i - 1, j - 1] + weight:
            pairs.append((a[-i], b[-j]))
            i, j = i - 1, j - 1
        elif best[i, j] == best[i - 1, j]:
            i -= 1
        else:
            j -= 1
    return pairs


def suspected(pairs: Pairs, at: int, a: list[Seen], b: list[Seen]) -> Pairs:
    """The last blocks without their like before a pair that differs, if they may be one another's:
    a block that is several modules in the other model is known by what it returns, unless that is
    wrong.
    """
    last = []
    for side, all_ in enumerate((a, b)):
        ids = [id(one) for one in all_]
        start = ids.index(id(pairs[at - 1][side])) + 1 if at else 0
        stop = ids.index(id(pairs[at][side])) if at < len(pairs) else len(ids)
        last += [one for one in all_[start:stop] if one.leaf][-1:]
    return [(last[0], last[1])] if len(last) == 2 and fits(*(token(o)[1] for o in last)) else []


ALIKE, FAMILY, NEAR, OTHER_SHAPE = 8, 3, 8, 1


def weighed(a: list[Seen], b: list[Seen]) -> np.ndarray:
    """How likely two blocks are the same one: by kind and shape, else by the numbers they return.
    Another activation or norm, and the same kind in another shape, may be a mistake.
    """
    tokens = [list(map(token, all_)) for all_ in (a, b)]
    rows, columns = (list(dict.fromkeys(all_)) for all_ in tokens)
    table = np.array([[likeness(one, other) for other in columns] for one in rows]).reshape(
        len(rows), len(columns), 2
    )
    at = np.ix_([rows.index(t) for t in tokens[0]], [columns.index(t) for t in tokens[1]])
    kind, fit = table[..., 0][at], table[..., 1][at]
    return kind + NEAR * fit * near(a, b)


def likeness(a: Any, b: Any) -> tuple[int, bool]:
    """What the kinds and shapes of two blocks say: a weight, and whether their shapes fit."""
    fit = fits(a[1], b[1])
    if a[0] == b[0]:
        return (ALIKE if fit else OTHER_SHAPE), fit
    return (FAMILY if fit and family(a[0]) == family(b[0]) else 0), fit


def family(word: str) -> str:
    """What may stand where a block of that kind stands."""
    if word in ACTIVATIONS:
        return "activation"
    return next((name for name in ("norm", "pool") if word.endswith(name)), word)


@cache
def fits(a: tuple[Any, ...], b: tuple[Any, ...]) -> bool:
    """Whether values of these shapes can be compared."""
    empty = [tuple(np.broadcast_to(0.0, shape) for shape in value) for value in (a, b)]
    return aligned(*empty) is not None


def near(a: list[Seen], b: list[Seen]) -> np.ndarray:
    """Which values are about as large as which, in any order of axes; one of several is enough."""
    rows, columns = lengths(a), lengths(b)
    found = np.zeros((len(a), len(b)), bool)
    for row, column in product(rows, columns):
        found |= (abs(row[:, None] - column) <= 1e-3 * row[:, None]).all(axis=-1)
    return found


def lengths(all_: list[Seen]) -> np.ndarray:
    """How large all first members are, all second ones, and so on; NaN where there is none."""
    found = [list(map(length, leaves(one.value))) for one in all_]
    return np.array(list(zip_longest(*found, fillvalue=(math.nan, math.nan))))


def length(array: np.ndarray) -> tuple[float, float]:
    """Of all numbers, and of the largest: norms make the first alike."""
    numbers = np.abs(array.astype(float).ravel())
    return float(np.linalg.norm(numbers)), float(numbers.max(initial=0.0))


# What frameworks call the same thing, without case and "1d", "2d", "3d".
KINDS = {
    "linear": "dense",
    "embed": "embedding",
    "rnn": "simplernn",
    "simplecell": "simplernn",
    "lstmcell": "lstm",
    "optimizedlstmcell": "lstm",
    "grucell": "gru",
    "depthwiseconv": "conv",
    "globalaveragepooling": "avgpool",
    "globalavgpool": "avgpool",
    "adaptiveavgpool": "avgpool",
    "averagepooling": "avgpool",
    "globalmaxpooling": "maxpool",
    "globalmaxpool": "maxpool",
    "adaptivemaxpool": "maxpool",
    "maxpooling": "maxpool",
    "batchnormalization": "batchnorm",
    "layernormalization": "layernorm",
    "groupnormalization": "groupnorm",
    "rmsnormalization": "rmsnorm",
    "zeropad": "pad",
    "zeropadding": "pad",
    "upsampling": "upsample",
    "swish": "silu",
    "hardswish": "hardsilu",
}


ACTIVATIONS = {kind.replace("_", "") for kind in activation.KINDS} | {"softmax", "logsoftmax"}


def token(one: Seen) -> Any:
    """The kind of a block, and the shapes of what it returns."""
    word = re.sub(r"[123]d|_", "", one.kind.lower())
    return KINDS.get(word, word), tuple(y.shape for y in leaves(one.value))


# Two values


def compared(a: Seen, b: Seen, allowed: float) -> Pair:
    pair = aligned(a.value, b.value)
    if pair is None:
        share, error = math.inf, math.inf
        where = f"{shapes(b.value)} in b"
    else:
        share, where, error = largest_difference(*reversed(without_infinities(*pair)))
    return Pair(a.name, b.name, a.kind, shapes(a.value), error, share, where, allowed)


def without_infinities(a: Any, b: Any) -> tuple[Any, Any]:
    """Two values with 0 where both are infinite alike, as scores that a mask leaves out."""
    alike = [np.isinf(p) & (p == q) for p, q in zip(a, b, strict=True)]
    kept = [tuple(np.where(m, 0, y) for m, y in zip(alike, v, strict=True)) for v in (a, b)]
    return (kept[0], kept[1]) if any(map(np.any, alike)) else (a, b)


def aligned(a: Any, b: Any) -> Any:
    """The tensors of two values in one order of axes; None if they are not alike.

    Where one is a tensor and the other several, such as a sequence and the last states, it is
    compared with that which is nearest.
    """
    members = leaves(a), leaves(b)
    if len(members[0]) == len(members[1]):
        found = [in_one_order(*pair) for pair in zip(*members, strict=True)]
    elif 1 in map(len, members):
        found = [nearest(pair for both in product(*members) if (pair := in_one_order(*both)))]
    else:
        return None
    return None if None in found else tuple(zip(*found, strict=True))


def nearest(pairs: Iterable[Any]) -> Any:
    return min(pairs, key=lambda pair: largest_difference(pair[1], pair[0])[0], default=None)


def in_one_order(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Two arrays as they are, or with the axes of one, rather the second, as the other has them."""
    pairs = [(a, y) for y in orders(b) if y.shape == a.shape]
    pairs = pairs or [(y, b) for y in orders(a) if y.shape == b.shape]
    if not pairs and without_ones(a) == without_ones(b):
        return a, b.reshape(a.shape)
    return nearest(pairs)


def without_ones(array: np.ndarray) -> list[int]:
    return [size for size in array.shape if size != 1]


def orders(array: np.ndarray) -> Iterable[np.ndarray]:
    """An array in every order of axes that frameworks have."""
    yield array
    if array.ndim > 2:
        yield np.moveaxis(array, 1, -1)
        yield np.moveaxis(array, -1, 1)
    if array.ndim == 3:
        yield np.swapaxes(array, 0, 1)  # time before the batch
        yield array[-1]  # the state of the last layer
        yield np.concatenate(array[-2:], axis=-1)  # those of both directions

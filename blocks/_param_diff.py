"""The difference between parameters: of two models of any backends, of before and after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from blocks import _fields as fields
from blocks._errors import ParamError
from blocks._models import given_params
from blocks._params import as_numbers, refuse


@dataclass(frozen=True)
class Row:
    """One parameter of either side. Where it has two shapes or is missing, there are no numbers.

    Attributes:
        path: its name.
        shapes: the reference's and the other's; None where a side does not have it.
        largest: the largest absolute difference; NaN if either side has a NaN.
        relative: the same as a share of the largest finite number of the reference, or as it is if
            that is 0.
        index: where it is; None where there is no difference.
        tolerance: how large `relative` may be.
    """

    path: str
    shapes: tuple[tuple[int, ...] | None, tuple[int, ...] | None]
    largest: float | None
    relative: float | None
    index: tuple[int, ...] | None
    tolerance: float

    def __bool__(self) -> bool:
        return self.relative is not None and self.relative <= self.tolerance

    @property
    def verdict(self) -> str:
        """In a word: "equal", "differs", "shape", "missing" or "extra"."""
        if self.shapes[1] is None:
            return "missing"
        if self.shapes[0] is None:
            return "extra"
        if self.relative is None:
            return "shape"
        return "equal" if self else "differs"


@dataclass(frozen=True, repr=False)
class ParamDiff:
    """The differences of all parameters: true if there are none; prints as a table."""

    rows: tuple[Row, ...]
    tolerance: float

    def __bool__(self) -> bool:
        return all(self.rows)

    def __rich_console__(self, console: Any, options: Any) -> Any:
        from rich.markup import escape
        from rich.table import Table

        table = Table(title="Parameters: the reference, and the other")
        for column in ("path", "reference", "other"):
            table.add_column(column)
        for column in ("largest difference", "relative", "at"):
            table.add_column(column, justify="right")
        table.add_column("")
        for row in self.rows:
            shapes = ["-" if shape is None else str(shape) for shape in row.shapes]
            numbers = ["-" if n is None else f"{n:.1e}" for n in (row.largest, row.relative)]
            where = "-" if row.index is None else f"[{', '.join(map(str, row.index))}]"
            verdict = f"[{'green' if row else 'red'}]{row.verdict}[/]"
            table.add_row(escape(row.path), *shapes, *numbers, escape(where), verdict)
        yield table
        different = sum(not row for row in self.rows)
        yield f"{different} of {len(self.rows)} parameters differ; allowed {self.tolerance:.0e}"

    def __repr__(self) -> str:
        from blocks._console import as_text

        return as_text(self)


def diff_params(a: Any, b: Any, *, tolerance: float = 0.0) -> ParamDiff:
    """Compare the parameters of two models, whatever the backend of either.

    Args:
        a: the reference: a model made by `lower`, or a dict of canonical parameters.
        b: the other.
        tolerance: by how much each parameter may differ, as a share of the largest number of the
            reference; 0 for exactly equal. A NaN on either side, or on both, is a difference.

    Returns:
        A report that is true if both have the same parameters with the same shapes and numbers.
        Its `rows` have, for each path, shapes, largest difference, share and index.

    >>> import blocks as bl
    >>> node = bl.infer(bl.Dense(4), (3,))
    >>> before = bl.init(node)
    >>> after = before | {"bias": np.array([0, 0.5, 0, 0])}
    >>> report = bl.diff_params(before, after)
    >>> bool(report), [(row.path, row.largest, row.index) for row in report.rows if not row]
    (False, [('bias', 0.5, (1,))])
    """
    share = fields.real(low=0).metadata["convert"](None, "tolerance", tolerance)
    one, other = arrays_of(a), arrays_of(b)
    rows = (compared(path, one.get(path), other.get(path), share) for path in {**one, **other})
    return ParamDiff(tuple(rows), share)


def arrays_of(given: Any) -> dict[str, np.ndarray]:
    """The parameters of a model, or those of a dict, all of them numbers."""
    params = given_params(given)
    arrays, wrong = {}, {}
    for path, value in params.items():
        try:
            arrays[path] = as_numbers(value)
        except ParamError as error:
            wrong[path] = str(error)
    refuse(wrong)
    return arrays


def compared(path: str, a: np.ndarray | None, b: np.ndarray | None, tolerance: float) -> Row:
    """The row of one parameter; None for a side that does not have it."""
    shapes = None if a is None else a.shape, None if b is None else b.shape
    if a is None or b is None or a.shape != b.shape:
        return Row(path, shapes, None, None, None, tolerance)
    wide, other = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        distance = np.where(wide == other, 0.0, np.abs(wide - other))  # infinities may be equal
    if not distance.any():
        return Row(path, shapes, 0.0, 0.0, None, tolerance)
    at = np.unravel_index(distance.argmax(), a.shape)  # NumPy takes a NaN for the largest
    largest = float(distance[at])
    scale = float(np.abs(wide[np.isfinite(wide)]).max(initial=0.0)) or 1.0
    return Row(path, shapes, largest, largest / scale, tuple(map(int, at)), tolerance)

"""A comparison of contenders as data: a table for the terminal, and a file."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from blocks._arrays import replacing
from blocks._certificate import agreeing, check_parts, figure, is_number, largest, number, remarks
from blocks._errors import FieldError, FileError, shown
from blocks._files import Allowed, config_in, node_in
from blocks._json import as_text, read_document
from blocks._limits import counted
from blocks._params import count
from blocks._plan import Plan
from blocks._spec import Node, array_dtype

FORMAT, VERSION = "isoblocks comparison", 1
LEVELS = ("outputs", "gradients", "curve")
MB = 1e6


@dataclass(frozen=True, repr=False)
class Comparison:
    """What `compare` measured: true if all contenders ran and agree; prints as a table.

    Attributes:
        node: the network at its input.
        data: all that the file holds: plain JSON, with times in seconds and memory in bytes.
        plan: of the steps of training: their loss, optimiser and number of examples.
    """

    node: Node
    data: dict[str, Any]
    plan: Plan

    def __bool__(self) -> bool:
        return bool(self.contenders) and all(row["agrees"] for row in self.contenders)

    @property
    def contenders(self) -> list[dict[str, Any]]:
        """A row for each contender, in the order in which they were started."""
        found: list[dict[str, Any]] = self.data["contenders"]
        return found

    def save(self, path: str | Path) -> None:
        """Write it as JSON: all of it, or nothing."""
        text = as_text(self.data, "comparison", indent=1) + "\n"
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def __rich_console__(self, console: Any, options: Any) -> Any:
        from rich.markup import escape

        def fits(columns: list[Column]) -> bool:
            wide = options.update(width=10**6)
            found = console.measure(self.table(columns), options=wide).maximum
            return bool(found <= options.max_width)

        rows, groups, numbers = self.contenders, columns_of(self.data), self.data["parameters"]
        whole = [column for group in groups for column in group]
        parts = [whole] if fits(whole) else [part for g in groups for part in packed(g, fits)]
        yield f"{numbers['count']:,} parameters, {memory(numbers['bytes'])}"
        yield from map(self.table, parts)
        yield f"[dim italic]{escape(self.caption())}[/]"
        for row in rows:
            if row["error"] is not None:
                yield f"[red]{escape(row['name'])}: {escape(row['error'])}[/]"
            yield from remarks(row["name"], row)
        yield "All agree." if self else "[red]Not all ran and agree.[/]"

    def table(self, columns: list[Column]) -> Any:
        """Some columns, with a row for each contender."""
        from rich.markup import escape
        from rich.table import Table

        table = Table(padding=(0, 1, 0, 0))
        table.add_column("contender")
        for column in columns:
            table.add_column(column.head, justify="right", no_wrap=True)
        best = [column.least(self.contenders) for column in columns]
        for row in self.contenders:
            cells = (column.cell(row, least) for column, least in zip(columns, best, strict=True))
            table.add_row(escape(row["name"]), *cells)
        return table

    def caption(self) -> str:
        """Where and how it was measured."""
        data, held = self.data, self.data["machine"]
        versions = {k: v for row in self.contenders for k, v in row["versions"].items()}
        software = ", ".join(f"{name} {version}" for name, version in versions.items())
        rounds = f"Medians of {data['rounds']} rounds ± half the interquartile range."
        return (
            f"{held['processor']}, {cores(data)}; Python {held['python']}, {software}. "
            f"{rounds if data['rounds'] > 1 else 'One round.'} forward is apply "
            f"in evaluation, training a step of fit on {self.training()}: NumPy in and out. "
            "compile is the first step, at the first batch size and of training, less a later one. "
            "MB is the peak of the process, in brackets after the import. The last columns are the "
            "largest difference from the reference in float64, as a share."
        )

    def training(self) -> str:
        """What the steps of training are, in words."""
        plan = self.plan
        loss = plan.loss if isinstance(plan.loss, str) else repr(plan.loss)
        examples = counted(plan.batch_size, "example")
        return f"{examples} with {loss} and {type(plan.optimizer).__name__}"

    def __repr__(self) -> str:
        from blocks._console import as_text

        return as_text(self, width=140)


def cores(data: dict[str, Any]) -> str:
    """How many cores the contenders had, in words."""
    used, all_ = data["threads"], data["machine"]["cores"]
    return counted(all_, "core") if used == all_ else f"{used} of {counted(all_, 'core')}"


def three(number: float) -> str:
    """Three digits that say something, thousands with commas."""
    digits = 2 if number < 10 else 1 if number < 100 else 0
    return f"{number:,.{digits}f}"


def memory(count: float) -> str:
    """Bytes, in kB of a thousand or MB of a million."""
    if count < 1e6:
        return f"{count:,.0f} bytes" if count < 1e3 else f"{three(count / 1e3)} kB"
    return f"{count / 1e6:,.0f} MB" if count >= 1e7 else f"{count / 1e6:,.2f} MB"


def packed(columns: list[Column], fits: Callable[[list[Column]], bool]) -> Iterator[list[Column]]:
    """The columns in order, as many together as fit."""
    part: list[Column] = []
    for column in columns:
        if part and not fits([*part, column]):
            yield part
            part = []
        part.append(column)
    yield part


# Columns of the table


@dataclass(frozen=True)
class Column:
    """A column: its head, its number in a row, what is written for it, and whether less is better.

    A row has no number where nothing was measured.
    """

    head: str
    value: Any
    text: Any
    judged: bool = True

    def least(self, rows: list[dict[str, Any]]) -> float | None:
        """The number that is emphasised."""
        found = [v for row in rows if (v := self.value(row)) is not None]
        return min(found) if self.judged and len(found) > 1 else None

    def cell(self, row: dict[str, Any], least: float | None) -> str:
        value = self.value(row)
        if value is None:
            return "-"
        return f"[bold green]{self.text(row)}[/]" if value == least else str(self.text(row))


def columns_of(data: dict[str, Any]) -> tuple[list[Column], list[Column], list[Column]]:
    """What the table shows: what is paid once, what each step takes, and how exact it is."""
    import_, build = (plain(f"{name}_seconds", f"{name}\ns") for name in ("import", "build"))
    compile_ = Column("compile\ns", compiled, lambda row: f"{compiled(row):.2f}")
    memory = Column("peak\nMB", lambda row: row["peak_memory"], held)
    forward = [
        timed(f"forward\n{size}, ms", lambda row, size=size: row["forward"][str(size)])
        for size in data["batch_sizes"]
    ]
    training = timed(f"training\n{data['training_batch']}, ms", lambda row: row["training"])
    return [import_, build, compile_, memory], [*forward, training], list(map(judged, LEVELS))


def plain(key: str, head: str) -> Column:
    return Column(head, lambda row: row[key], lambda row: f"{row[key]:.2f}")


def compiled(row: dict[str, Any]) -> float | None:
    found = [seconds for seconds in row["compile_seconds"].values() if seconds is not None]
    return sum(found) if found else None


def timed(head: str, times: Any) -> Column:
    def middle(row: dict[str, Any]) -> float | None:
        return median(times(row)) if times(row) else None

    def text(row: dict[str, Any]) -> str:
        found = times(row)
        middle = digits(1e3 * median(found))
        return f"{middle} ±{digits(1e3 * spread(found))}" if len(found) > 1 else middle

    return Column(head, middle, text)


def digits(number: float) -> str:
    """Three digits that say something."""
    return f"{number:.3f}" if number < 1 else f"{number:.2f}" if number < 100 else f"{number:.0f}"


def spread(times: list[float]) -> float:
    """Half the interquartile range."""
    low, _, high = quantiles(times, n=4, method="inclusive")
    return (high - low) / 2


def held(row: dict[str, Any]) -> str:
    """The peak, and in brackets the share of the framework alone."""
    own = row["memory_after_import"]
    return f"{row['peak_memory'] / MB:.0f}" + (f" ({own / MB:.0f})" if own is not None else "")


def judged(level: str) -> Column:
    """How far a level is from the reference; exactness is no race."""

    def worst(row: dict[str, Any]) -> dict[str, Any] | None:
        return largest(f for f in row["figures"] if f["level"] == level)

    def text(row: dict[str, Any]) -> str:
        found = worst(row)
        wrong = found is not None and number(found["relative"]) > found["tolerance"]
        return f"[red]{figure(found)}[/]" if wrong else figure(found)

    return Column(level, worst, text, judged=False)


# Reading

NUMBERS = {"seed": 0, "steps": 0, "rounds": 1, "training_batch": 1, "threads": 1}  # the least
TEXTS = ("name", "backend", "mode")
SECONDS = ("import_seconds", "build_seconds")
BYTES = ("memory_after_import", "peak_memory")
KEYS = {*TEXTS, *SECONDS, *BYTES, "engine", "versions", "error", "compile_seconds"} | {
    *("forward", "training", "agrees", "facts", "notes", "figures")
}


def load_comparison(path: str | Path, custom: Allowed = ()) -> Comparison:
    """Read what `Comparison.save` wrote.

    Args:
        path: of the file.
        custom: the `Custom` classes that its network and its loss may name, as in `load`.

    Raises:
        FileError: if it is no comparison, or its parts contradict each other.
    """
    data = read_document(path, FORMAT, VERSION, "comparison")
    wrong = [name for name, least in NUMBERS.items() if not is_number(data.get(name), int, least)]
    wrong += [name for name in ("machine", "parameters") if not isinstance(data.get(name), dict)]
    wrong += [
        name for name in ("batch_sizes", "contenders") if not isinstance(data.get(name), list)
    ]
    if not wrong and not all(is_number(size, int, 1) for size in data["batch_sizes"]):
        wrong.append("batch_sizes")
    if not is_date(data.get("date")):
        wrong.append("date")
    if not wrong and {"processor", "cores", "python"} - data["machine"].keys():
        wrong.append("machine")
    if wrong:
        raise FileError(f"{path} is a comparison without a proper {wrong[0]!r}.")
    node = node_in(path, data, custom)
    if data["parameters"] != sizes_of(node):
        raise FileError(
            f"{path} counts the parameters {shown(data['parameters'])}, but its network has "
            f"{sizes_of(node)}."
        )
    for row in data["contenders"]:
        check_contender(path, row, data)
    return Comparison(node, data, plan_in(path, data, custom))


def is_date(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(datetime.fromisoformat(value))
    except ValueError:
        return False


def plan_in(path: str | Path, data: dict[str, Any], custom: Allowed) -> Plan:
    """The plan of training that a file says."""
    given = {name: config_in(data, name, custom) for name in ("loss", "optimizer")}
    try:
        return Plan(batch_size=data["training_batch"], **given)
    except FieldError as error:
        raise FileError(f"{path} is a comparison of no training: {error}") from None


def sizes_of(node: Node) -> dict[str, int]:
    """How many numbers the parameters are, how many of them are trained, and their bytes."""
    specs = node.param_specs().values()
    held = sum(math.prod(s.shape) * array_dtype(s.dtype).itemsize for s in specs)
    return {"count": count(node), "trainable": count(node, trainable=True), "bytes": held}


def check_contender(path: str | Path, row: Any, data: dict[str, Any]) -> None:
    """Refuse what is no measurement of a contender, or says other than its own figures."""
    label = f"{path}: {shown(row.get('name') if isinstance(row, dict) else row)}"
    if not isinstance(row, dict) or row.keys() != KEYS:
        raise FileError(f"{label} is no contender with {', '.join(sorted(KEYS))}.")
    check_parts(label, row)
    compiling, forward = row["compile_seconds"], row["forward"]
    proper = {
        **{name: isinstance(row[name], str) for name in TEXTS},
        **{name: isinstance(row[name], str | None) for name in ("engine", "error")},
        **{name: is_amount(row[name], float | int) for name in SECONDS},
        **{name: is_amount(row[name], int) for name in BYTES},
        "compile_seconds": isinstance(compiling, dict)
        and compiling.keys() == {"forward", "training"}
        and all(is_amount(value, float | int) for value in compiling.values()),
        "forward": isinstance(forward, dict)
        and list(forward) == [str(size) for size in data["batch_sizes"]]
        and all(are_times(times, data["rounds"]) for times in forward.values()),
        "training": are_times(row["training"], data["rounds"]),
    }
    if wrong := [name for name, right in proper.items() if not right]:
        raise FileError(f"{label} has {wrong[0]!r} that is none: {shown(row[wrong[0]])}.")
    agreed = row["error"] is None and agreeing(row)
    if row["agrees"] is not agreed:
        raise FileError(f"{label} contradicts itself: 'agrees' does not follow from its figures.")


def is_amount(value: Any, kind: Any) -> bool:
    """Whether a value is a number of seconds or bytes, or null where nobody knows."""
    return value is None or is_number(value, kind, 0)


def are_times(values: Any, rounds: int) -> bool:
    """Whether values are seconds of at most so many rounds."""
    return (
        isinstance(values, list)
        and len(values) <= rounds
        and all(is_number(value, float | int, 0) for value in values)
    )

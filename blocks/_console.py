"""Terminal output: everything that is shown to a person goes through rich."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console


def as_text(renderable: Any, width: int = 100) -> str:
    """What a rich object looks like, as plain text."""
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(renderable)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in text.splitlines())


@contextmanager
def silenced() -> Iterator[None]:
    """Drop what C++ libraries write to standard error while they are imported."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextmanager
def step_bar(
    name: str, steps: int, console: Console | None = None
) -> Iterator[Callable[[int, float], None]]:
    """A progress bar that is told the number of steps made and the loss."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn(f"{name:<6}"), BarColumn(), TextColumn("{task.fields[loss]:.4f}")
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task(name, total=steps, loss=0.0)
        yield lambda step, loss: progress.update(task, completed=step, loss=loss)


def sparkline(values: Any, width: int = 24) -> str:
    """A curve in one line of text, the mean of each stretch, from its smallest to its largest."""
    bars = "▁▂▃▄▅▆▇█"
    size = max(1, -(-len(values) // width))
    means = [sum(part) / len(part) for part in chunks(list(values), size)]
    low, high = min(means), max(means)
    span = (high - low) or 1.0
    return "".join(bars[round((m - low) / span * (len(bars) - 1))] for m in means)


def chunks(values: list[float], size: int) -> list[list[float]]:
    return [values[i : i + size] for i in range(0, len(values), size)]

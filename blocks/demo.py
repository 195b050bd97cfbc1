"""The demo: handwritten digits, one small residual network, every backend that is installed.

The digits are the 1,797 images of 8x8 pixels that scikit-learn ships, from the UCI repository's
"Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak 1998, CC BY 4.0).
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from blocks._backends import installed, missing
from blocks._block import Block
from blocks._console import silenced, sparkline, step_bar
from blocks._errors import BackendError
from blocks._evaluate import accuracy
from blocks._infer import infer
from blocks._models import lower
from blocks._params import init
from blocks._parity import parity
from blocks._plan import History
from blocks._summary import Summary
from blocks._train import fit
from blocks.activation import SiLU
from blocks.combine import Residual, Sequential
from blocks.conv import Conv
from blocks.linear import Dense
from blocks.norm import BatchNorm
from blocks.optimizer import SGD
from blocks.pool import AvgPool, GlobalAvgPool

INPUT = (8, 8, 1)
FIRST_STEPS = 50


def conv_norm(features: int) -> tuple[Block, Block]:
    return Conv(features, (3, 3), padding="same", use_bias=False), BatchNorm()


def network() -> Block:
    """A residual network for 8x8 images in one channel.

    It is smooth, with SiLU and average pooling: then rounding is all that training can make grow. A
    ReLU or a maximum that tips over within the rounding of one framework would send its curve
    another way, and say nothing about the frameworks.
    """
    return Sequential(
        *conv_norm(16),
        SiLU(),
        Residual(Sequential(*conv_norm(16), SiLU(), *conv_norm(16))),
        SiLU(),
        AvgPool((2, 2)),
        Residual(
            Sequential(*conv_norm(32), SiLU(), *conv_norm(32)),
            shortcut=Conv(32, (1, 1)),
        ),
        SiLU(),
        GlobalAvgPool(),
        Dense(10),
    )


@dataclass(frozen=True)
class Digits:
    """Images (n, 8, 8, 1) in [0, 1] and labels (n,), for training and for the test."""

    x: np.ndarray
    y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray

    @classmethod
    def load(cls) -> Digits:
        """All 1,797 digits, a fifth of them for the test, drawn once and for all."""
        with files("blocks").joinpath("digits.npz").open("rb") as file, np.load(file) as data:
            images, labels = data["images"], data["labels"]
        x = (images[..., None] / 16).astype(np.float32)
        order = np.random.default_rng(0).permutation(len(x))
        train, test = order[360:], order[:360]
        return cls(x[train], labels[train].astype(int), x[test], labels[test].astype(int))


@dataclass(frozen=True)
class Run:
    """What training gave on one backend."""

    backend: str
    history: History
    accuracy: float


def demo(*, epochs: int = 8, plot: str | None = None) -> list[Run]:
    """Train the same network on every installed backend and show whether they agree.

    Args:
        epochs: how often the training digits are seen.
        plot: a PNG file for the curves.
    """
    from rich.markup import escape

    console = Console()
    data, node = Digits.load(), infer(network(), INPUT)
    with console.status("importing frameworks"), silenced():
        names = installed()
    console.rule("One network")
    console.print(Summary(node))
    console.rule("The same on every backend")
    with console.status("comparing " + ", ".join(names)):
        report = parity(node, backends=names)
    console.print(report)
    console.rule("Trained side by side")
    console.print(
        f"{len(data.x)} handwritten digits to train on, {len(data.test_x)} to test; the same first "
        "parameters and batches everywhere."
    )
    runs = [train(console, node, data, name, epochs) for name in names]
    console.print(results(runs))
    for line in agreement(runs):
        console.print(line)
    for name, error in missing().items():
        console.print(f"[yellow]Not compared: {name}.[/] {escape(error)}")
    if plot:
        draw(runs, Path(plot))
        console.print(f"Curves drawn to {plot}.")
    return runs


def train(console: Console, node: Any, data: Digits, name: str, epochs: int) -> Run:
    """Train on one backend, with a progress bar."""
    model = lower(node, name, params=init(node, seed=0))
    batch_size = 64
    steps = epochs * -(-len(data.x) // batch_size)
    with step_bar(name, steps, console) as advance:
        history = fit(
            model,
            (data.x, data.y),
            optimizer=SGD(0.02, momentum=0.9),
            epochs=epochs,
            batch_size=batch_size,
            on_step=advance,
        )
    return Run(name, history, accuracy(model, data.test_x, data.test_y))


def results(runs: list[Run]) -> Any:
    """Curve, accuracy and seconds of each backend, as a table."""
    from rich.table import Table

    table = Table("backend", "loss, first to last step")
    for column in ("last loss", "test accuracy", "seconds"):
        table.add_column(column, justify="right")
    for run in runs:
        losses = run.history.losses
        table.add_row(
            run.backend,
            sparkline(losses),
            f"{losses[-1]:.4f}",
            f"{run.accuracy:.1%}",
            f"{run.history.seconds:.1f}",
        )
    return table


def agreement(runs: list[Run]) -> list[str]:
    """The largest difference between any two loss curves, at first and over all."""
    if len(runs) < 2:
        return []
    curves = np.array([run.history.losses for run in runs])
    spread = curves.max(0) - curves.min(0)
    steps = min(FIRST_STEPS, len(spread))
    return [
        f"Largest difference between the curves: {spread[:steps].max():.1e} over the first "
        f"{steps} steps, {spread.max():.1e} over all {len(spread)}.",
    ]


def draw(runs: list[Run], path: Path) -> None:
    """The loss curves, and their distance from the first backend's, as a picture."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        raise BackendError(
            "--plot needs matplotlib. Install it with: pip install 'isoblocks[plot]'"
        ) from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (above, below) = pyplot.subplots(
        2, 1, figsize=(8, 7), sharex=True, layout="constrained"
    )
    first, *others = runs
    reference = np.array(first.history.losses)
    steps = np.arange(1, len(reference) + 1)
    for i, run in enumerate(runs):
        label = f"{run.backend}: {run.accuracy:.1%} on the test digits"
        width = 2 * (len(runs) - i) - 1  # curves that agree lie on each other
        above.plot(steps, run.history.losses, label=label, linewidth=width)
    above.set(yscale="log", ylabel="loss of the batch", title="One network, trained on digits")
    above.legend()
    for i, run in enumerate(others, 1):
        distance = np.abs(np.array(run.history.losses) - reference)
        below.plot(steps, distance, ".", label=run.backend, color=f"C{i}", markersize=4)
    below.set(xlabel="step", ylabel=f"distance from {first.backend}'s loss")
    below.set_yscale("symlog", linthresh=1e-7)
    below.set_ylim(bottom=0)
    if others:
        below.legend(loc="upper right")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)

"""Training: one loop for every backend, over the same batches in the same order."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from blocks import _fields as fields
from blocks._block import Config, block
from blocks._errors import FieldError, ParamError, did_you_mean
from blocks._evaluate import Data, check_loss, score
from blocks._infer import check_ints
from blocks._models import origin, params_of, trainable_of
from blocks._params import Params
from blocks._spec import Node
from blocks._stack import call_deep
from blocks.optimizer import SGD, Optimizer


@block
class EarlyStop(Config):
    """Stops training when a number of the table of epochs no longer gets better.

    Losses are better when they are lower, accuracies when they are higher.

    Fields:
        metric: a column of the table of epochs: "loss", a metric, or "validation_" and one of them.
        patience: after how many epochs without a better number training stops.
        min_change: by how much more than that a number must be better than the best to count.

    >>> EarlyStop("loss", patience=2)
    EarlyStop(metric='loss', patience=2)
    """

    metric: str = fields.text("validation_loss")
    patience: int = fields.integer(3)
    min_change: float = fields.real(0.0, low=0)

    def stops(self, epochs: list[dict[str, float]]) -> bool:
        """Whether training should stop after these epochs."""
        sign = -1 if self.metric.endswith("accuracy") else 1
        best, at = math.inf, 0
        for i, row in enumerate(epochs):
            if sign * row[self.metric] < best - self.min_change:
                best, at = sign * row[self.metric], i
        return len(epochs) - 1 - at >= self.patience


@dataclass(frozen=True)
class History:
    """What training did.

    Attributes:
        losses: the loss before every step, of its batch.
        seconds: how long the steps took.
        epochs: a table with a row for each epoch: "loss" is the mean of those before its steps,
            each example counted once; metrics, and "validation_loss" and so on, are those of the
            parameters after it, in evaluation mode.
        best: with `keep_best`, the parameters after the epoch with the lowest "validation_loss", or
            "loss" if there is no validation; None if that was finite after no epoch.
    """

    losses: tuple[float, ...]
    seconds: float
    epochs: tuple[dict[str, float], ...] = ()
    best: Params | None = field(default=None, repr=False, compare=False)


def fit(
    model: Any,
    data: tuple[Any, Any],
    *,
    loss: Any = "cross_entropy",
    optimizer: Optimizer | None = None,
    epochs: int = 1,
    batch_size: int = 32,
    seed: int = 0,
    node: Node | None = None,
    clip_norm: float | None = None,
    metrics: Iterable[str] = (),
    validation: tuple[Any, Any] | None = None,
    early_stop: EarlyStop | None = None,
    keep_best: bool = False,
    progress: bool = False,
    on_step: Callable[[int, float], None] | None = None,
    on_epoch: Callable[[int, dict[str, float]], None] | None = None,
) -> History:
    """Train a model in place with its framework's own optimiser and loss.

    Every backend sees the same batches: the order comes from `seed` alone, and the last batch of an
    epoch may be smaller. What is frozen (see `set_trainable`) stays as it is.

    Args:
        model: any model made by `lower`.
        data: inputs and targets; their first axis is the examples.
        loss: "cross_entropy" (the mean of -log softmax(output)[label]; the last axis is the
            classes, and there is an integer label for each position before it), "mse" and "mae"
            (the mean of (output - target)^2 or |output - target| over all elements; that of |0| has
            gradient 0), "binary_cross_entropy" (the mean of log(1 + exp(x)) - target * x for
            outputs x that are logits and targets from 0 to 1), or a `Custom` block that takes
            (*outputs, target) and returns one number for the batch or for each example, of which
            the mean is taken.
        optimizer: `SGD(0.01)` if left out.
        epochs, batch_size: how often the data is seen, and how many examples make a step.
        seed: of the order.
        node: of a model that was not made by `lower`.
        clip_norm: all gradients g become g * clip_norm / max(norm, clip_norm), where norm is that
            of all of them together, without frozen ones; before any weight decay.
        metrics: for the table of epochs; those of `evaluate`.
        validation: inputs and targets to evaluate after each epoch.
        early_stop: when to stop before the last epoch.
        keep_best: whether `History.best` keeps the parameters of the best epoch.
        progress: whether to show a bar.
        on_step: called with the number of steps made and the loss.
        on_epoch: called with the number of epochs made and the row of the table.

    >>> import blocks as bl
    >>> model = bl.lower(bl.Dense(1), "numpy", input_shape=(2,))
    >>> x = np.random.default_rng(0).normal(size=(50, 2))
    >>> history = bl.fit(model, (x, x.sum(1, keepdims=True)), loss="mse", optimizer=bl.SGD(0.1),
    ...                  epochs=20)
    >>> len(history.losses), history.losses[-1] < 1e-3
    (40, True)
    """
    known = origin(model, node)
    names = check_loss(loss, metrics)
    optimizer = SGD() if optimizer is None else optimizer
    check_options(optimizer, clip_norm, on_step=on_step, on_epoch=on_epoch)
    check_ints(epochs=(epochs, 1), batch_size=(batch_size, 1), seed=(seed, 0))
    optimizer.check_dtype(known.node.param_dtype)
    if not any(spec.trainable for spec in known.node.param_specs().values()):
        raise ParamError("fit has nothing to train: the network has no trainable parameters.")
    if not any(trainable_of(model, node=known.node).values()):
        raise ParamError(
            "fit has nothing to train: all parameters are frozen.\n"
            '  Let some change: set_trainable(model, {"**": True}).'
        )
    words = (loss, *names)
    given = Data.of(known.node, data, words, "data")
    tests = None if validation is None else Data.of(known.node, validation, words, "validation")
    check_early_stop(early_stop, names, tests is not None)
    judge = Judge(partial(score, model, known), loss, names, given, tests)
    step = known.call("trainer", known.node, model, loss, optimizer, clip_norm)
    losses: list[float] = []
    table: list[dict[str, float]] = []
    best, lowest, seconds = None, math.inf, 0.0
    with shown(progress, epochs * -(-len(given) // batch_size)) as advance:
        for epoch in range(epochs):
            sizes, start = [], time.perf_counter()
            for rows in batches(len(given), batch_size, seed, epoch):
                rate = optimizer.rate(len(losses))
                losses.append(call_deep(known.levels, step, *given.take(rows), rate))
                sizes.append(len(rows))
                for call in (advance, on_step):
                    if call is not None:
                        call(len(losses), losses[-1])
            seconds += time.perf_counter() - start
            table.append(judge.row(np.average(losses[-len(sizes) :], weights=sizes)))
            if on_epoch is not None:
                on_epoch(len(table), table[-1])
            if keep_best and table[-1][judge.column] < lowest:
                best, lowest = params_of(model, node=known.node), table[-1][judge.column]
            if early_stop and early_stop.stops(table):
                break
    return History(tuple(losses), seconds, tuple(table), best)


@dataclass(frozen=True)
class Judge:
    """What the table says of an epoch."""

    score: Callable[[Data, dict[str, Any]], dict[str, float]]
    loss: Any
    metrics: tuple[str, ...]
    data: Data
    tests: Data | None

    @property
    def column(self) -> str:
        """The loss that says which epoch is the best."""
        return "loss" if self.tests is None else "validation_loss"

    def row(self, loss: float) -> dict[str, float]:
        """The row of an epoch whose steps had this loss."""
        metrics = {name: name for name in self.metrics}
        row = {"loss": float(loss)}
        if metrics:
            row |= self.score(self.data, metrics)
        if self.tests is not None:
            found = self.score(self.tests, {"loss": self.loss} | metrics)
            row |= {f"validation_{name}": value for name, value in found.items()}
        return row


def check_options(optimizer: Any, clip_norm: Any, **calls: Any) -> None:
    """Refuse what is no optimiser, a norm that is not above 0, and what cannot be called."""
    if not isinstance(optimizer, Optimizer):
        raise FieldError(f"optimizer must be an optimiser such as SGD(0.1), got {optimizer!r}.")
    fields.real(low=0, open_low=True, optional=True).metadata["convert"](
        None, "clip_norm", clip_norm
    )
    for name, call in calls.items():
        if call is not None and not callable(call):
            raise FieldError(f"{name} must be a function, got {call!r}.")


def check_early_stop(early_stop: Any, metrics: tuple[str, ...], validated: bool) -> None:
    """Refuse to stop by a column that the table of epochs does not have."""
    if early_stop is None:
        return
    if not isinstance(early_stop, EarlyStop):
        raise FieldError(f"early_stop must be an EarlyStop, got {early_stop!r}.")
    columns = ["loss", *metrics]
    if validated:
        columns += [f"validation_{name}" for name in columns]
    if early_stop.metric not in columns:
        missing = early_stop.metric.startswith("validation_") and not validated
        hint = " Give validation=(inputs, targets)." if missing else ""
        raise FieldError(
            f"EarlyStop.metric={early_stop.metric!r} is no column of the table of epochs, which "
            f"has {', '.join(map(repr, columns))}.{did_you_mean(early_stop.metric, columns)}{hint}"
        )


@contextmanager
def shown(progress: bool, steps: int) -> Iterator[Callable[[int, float], None] | None]:
    """A bar that is told of each step, if one is wanted."""
    if not progress:
        yield None
        return
    from blocks._console import step_bar

    with step_bar("fit", steps) as advance:
        yield advance


def batches(examples: int, batch_size: int, seed: int, epoch: int) -> Iterator[np.ndarray]:
    """Row numbers of each batch of an epoch: a new order every epoch."""
    order = np.random.default_rng([seed, epoch]).permutation(examples)
    for start in range(0, examples, batch_size):
        yield order[start : start + batch_size]

"""What training is asked to do, and what it did: the options of `fit`, and its history."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from blocks import _fields as fields
from blocks._block import Config, block
from blocks._errors import FieldError, did_you_mean
from blocks._evaluate import check_loss, metric_names
from blocks._infer import check_ints
from blocks._params import Params
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

    def check_columns(self, columns: list[str], validated: bool) -> None:
        """Refuse to stop by a column that the table of epochs does not have."""
        if self.metric not in columns:
            missing = self.metric.startswith("validation_") and not validated
            hint = " Give validation=(inputs, targets)." if missing else ""
            raise FieldError(
                f"EarlyStop.metric={self.metric!r} is no column of the table of epochs, which "
                f"has {', '.join(map(repr, columns))}.{did_you_mean(self.metric, columns)}{hint}"
            )


@dataclass(frozen=True, repr=False)
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
    best: Params | None = field(default=None, compare=False)

    def __repr__(self) -> str:
        curve = f": loss {self.losses[0]:.4g} to {self.losses[-1]:.4g}" if self.losses else ""
        return f"<History of {len(self.losses):,} steps in {self.seconds:.3g} s{curve}>"


class LeftOut:
    """What stands for an option that was not given: None is one that was."""

    def __repr__(self) -> str:
        return "left out"


LEFT_OUT: Any = LeftOut()


def option(check: Callable[[str, Any], Any], default: Any = fields.REQUIRED) -> Any:
    """An option of `fit`, which is named as the caller knows it."""
    return fields.converted(lambda _, label, value: check(label.rpartition(".")[2], value), default)


def count(low: int) -> Callable[[str, Any], int]:
    """An int of at least `low`."""

    def check(name: str, value: Any) -> int:
        check_ints(**{name: (value, low)})
        return int(value)

    return check


def instance(kind: type, words: str, optional: bool = False) -> Callable[[str, Any], Any]:
    """An object of a class."""

    def check(name: str, value: Any) -> Any:
        if not isinstance(value, kind) and not (optional and value is None):
            raise fields.refuse(name, words, value)
        return value

    return check


positive = fields.real(low=0, open_low=True, optional=True).metadata["convert"]


@block
class Plan(Config):
    """The options of `fit`, checked; those of a checkpoint are what it goes on with."""

    loss: Any = option(lambda _, value: check_loss(value), "cross_entropy")
    optimizer: Optimizer = option(
        instance(Optimizer, "an optimiser such as SGD(0.1)"),
        SGD(),
    )
    epochs: int = option(count(1), 1)
    batch_size: int = option(count(1), 32)
    seed: int = option(count(0), 0)
    clip_norm: float | None = option(lambda name, value: positive(None, name, value), None)
    metrics: tuple[str, ...] = option(lambda _, value: metric_names(value), ())
    early_stop: EarlyStop | None = option(instance(EarlyStop, "an EarlyStop", optional=True), None)
    keep_best: bool = option(instance(bool, "True or False"), False)

    def columns(self, validated: bool) -> list[str]:
        """Those of the table of epochs."""
        own = ["loss", *dict.fromkeys(self.metrics)]
        return own + ([f"validation_{name}" for name in own] if validated else [])

    def steps(self, examples: int) -> int:
        """How many steps an epoch has."""
        return -(-examples // self.batch_size)

    def done(self, epochs: list[dict[str, float]]) -> bool:
        """Whether there is nothing left to do after these epochs."""
        stopped = self.early_stop is not None and self.early_stop.stops(epochs)
        return stopped or len(epochs) >= self.epochs

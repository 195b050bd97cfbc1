"""Evaluation: losses and metrics of a model, in evaluation mode and changing nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from blocks._backends import find_backend
from blocks._batch import batch
from blocks._errors import FieldError, ShapeError
from blocks._infer import check_ints, check_word
from blocks._models import Origin, apply, origin
from blocks._spec import Node, leaves, map_value
from blocks.custom import Custom
from blocks.loss import LOSSES, METRICS, targets


@dataclass(frozen=True)
class Data:
    """Inputs and targets, checked; their first axis is the examples."""

    x: Any
    y: Any

    @classmethod
    def of(cls, node: Node, data: Any, words: Iterable[Any], who: str) -> Data:
        """A pair that fits a network and each of some losses and metrics."""
        if not isinstance(data, (tuple, list)) or len(data) != 2:
            raise FieldError(f"{who} must be a pair: inputs and targets.")
        x, concrete = batch(node, data[0])
        y, *_ = (targets(concrete, data[1], word) for word in words)
        examples = [len(array) if array.ndim else 0 for array in leaves(y)]
        if set(examples) != {len(leaves(x)[0])}:
            found = " and ".join(map(str, (len(leaves(x)[0]), *examples)))
            raise ShapeError(f"{who} needs one target for each input, got {found}.")
        if not examples[0]:
            raise ShapeError(f"{who} has no examples.")
        return cls(x, y)

    def __len__(self) -> int:
        return len(leaves(self.x)[0])

    def take(self, rows: Any) -> tuple[Any, Any]:
        """Some of the examples."""
        x, y = (map_value(lambda array: array[rows], value) for value in (self.x, self.y))
        return x, y

    def parts(self, size: int) -> Iterator[tuple[Any, Any]]:
        """All of the examples in their order."""
        for start in range(0, len(self), size):
            yield self.take(slice(start, start + size))


def check_loss(loss: Any) -> Any:
    """The loss; refuse what is none."""
    if not isinstance(loss, Custom):
        check_word("loss", loss, LOSSES)
    return loss


def metric_names(metrics: Any) -> tuple[str, ...]:
    """The names of metrics; refuse what is none."""
    if not isinstance(metrics, Iterable):
        raise FieldError(f"metrics must be names such as 'accuracy', got {metrics!r}.")
    names = (metrics,) if isinstance(metrics, str) else tuple(metrics)
    for name in names:
        check_word("a metric", name, METRICS)
    return names


def evaluate(
    model: Any,
    data: tuple[Any, Any],
    *,
    loss: Any = "cross_entropy",
    metrics: Iterable[str] = (),
    batch_size: int = 256,
    node: Node | None = None,
) -> dict[str, float]:
    """The loss and metrics of a model in evaluation mode; nothing of it changes.

    They are worked out from the outputs by the reference, in float64, and are means over all
    examples: whatever the batch size, but for a loss of your own that is no mean over examples.

    Args:
        model: any model made by `lower`.
        data, loss: as in `fit`.
        metrics: of "accuracy" (the share of positions whose largest output is at their label),
            "binary_accuracy" (the share of outputs that are above 0 where the target is above
            1/2, and only there) and the names of losses.
        batch_size: how many examples are computed at once.
        node: of a model that was not made by `lower`.

    Returns:
        {"loss": ..., and one number for each metric}.

    >>> import blocks as bl
    >>> model = bl.lower(bl.Identity(), "numpy", input_shape=(2,))
    >>> x, labels = np.array([[3.0, 0.0], [0.0, 3.0]]), np.array([0, 0])
    >>> found = bl.evaluate(model, (x, labels), metrics=["accuracy"])
    >>> {name: round(value, 4) for name, value in found.items()}
    {'loss': 1.5486, 'accuracy': 0.5}
    """
    known = origin(model, node)
    check_loss(loss)
    names = metric_names(metrics)
    check_ints(batch_size=(batch_size, 1))
    checked = Data.of(known.node, data, (loss, *names), "data")
    words = {"loss": loss} | {name: name for name in names}
    return score(model, known, checked, words, batch_size)


def score(
    model: Any, known: Origin, data: Data, words: dict[str, Any], batch_size: int = 256
) -> dict[str, float]:
    """The mean of each loss or metric, by its name, over data that was checked."""
    measures = {name: measure(word) for name, word in words.items()}
    total = dict.fromkeys(measures, 0.0)
    for x, y in data.parts(batch_size):
        found = apply(model, x, node=known.node)
        outputs = map_value(lambda a: a.astype(np.float64), found)
        for name, function in measures.items():
            total[name] += function(outputs, y) * len(leaves(x)[0])
    return {name: value / len(data) for name, value in total.items()}


def measure(word: Any) -> Callable[[Any, Any], float]:
    """The mean of a loss or a metric over a batch."""
    if word in SHARES:
        return SHARES[word]
    reference = find_backend("numpy").loss(word)
    return lambda outputs, y: reference(outputs, y)[0]


SHARES: dict[Any, Callable[[Any, Any], float]] = {
    "accuracy": lambda outputs, y: float(np.mean(outputs.argmax(-1) == y)),
    "binary_accuracy": lambda outputs, y: float(np.mean((outputs > 0) == (y > 0.5))),
}


def accuracy(model: Any, x: np.ndarray, labels: np.ndarray) -> float:
    """The share of examples whose largest output is at their label, in evaluation mode."""
    outputs, labels = apply(model, x), np.asarray(labels)
    if labels.shape != outputs.shape[:-1]:
        raise ShapeError(
            f"accuracy needs labels of shape {outputs.shape[:-1]}, got {labels.shape}."
        )
    return SHARES["accuracy"](outputs, labels)

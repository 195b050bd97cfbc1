"""Training: one loop for every backend, over the same batches in the same order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from blocks import _fields as fields
from blocks._block import Config, block
from blocks._errors import FieldError, ParamError, ShapeError
from blocks._fields import as_index
from blocks._infer import check_word
from blocks._models import apply, as_array, batch, origin
from blocks._spec import Node, array_dtype, is_float, leaves, map_value
from blocks._stack import call_deep

LOSSES = ("cross_entropy", "mse")


@block
class SGD(Config):
    """Stochastic gradient descent with momentum.

        v = momentum * v + g;    w = w - learning_rate * v
        nesterov: w = w - learning_rate * (g + momentum * v)

    Fields:
        learning_rate: the step along the gradient.
        momentum: how much of the last step is kept.
        nesterov: whether to look ahead along the new velocity.

    >>> SGD(0.1, momentum=0.9)
    SGD(learning_rate=0.1, momentum=0.9)
    """

    learning_rate: float = fields.real(0.01, low=0)
    momentum: float = fields.real(0.0, low=0, high=1)
    nesterov: bool = fields.flag(False)

    def check(self) -> None:
        if self.nesterov and not self.momentum:
            raise FieldError("SGD.nesterov=True needs a momentum above 0, got 0.")


@dataclass(frozen=True)
class History:
    """What training did: the loss before every step, and the seconds that the steps took."""

    losses: tuple[float, ...]
    seconds: float


def fit(
    model: Any,
    data: tuple[np.ndarray, np.ndarray],
    *,
    loss: str = "cross_entropy",
    optimizer: SGD | None = None,
    epochs: int = 1,
    batch_size: int = 32,
    seed: int = 0,
    node: Node | None = None,
    on_step: Callable[[int, float], None] | None = None,
) -> History:
    """Train a model in place with its framework's own optimiser and loss.

    Every backend sees the same batches: the order comes from `seed` alone, and the last batch of an
    epoch may be smaller.

    Args:
        model: any model made by `lower`.
        data: inputs and targets; their first axis is the examples.
        loss: "cross_entropy" (the mean of -log softmax(output)[label], labels as integers) or "mse"
            (the mean of (output - target)^2 over all elements).
        optimizer: `SGD(0.01)` if left out.
        epochs, batch_size: how often the data is seen, and how many examples make a step.
        seed: of the order.
        node: of a model that was not made by `lower`.
        on_step: called with the number of steps made and the loss.

    >>> import blocks as bl
    >>> model = bl.lower(bl.Dense(1), "numpy", input_shape=(2,))
    >>> x = np.random.default_rng(0).normal(size=(50, 2))
    >>> history = bl.fit(model, (x, x.sum(1, keepdims=True)), loss="mse", optimizer=bl.SGD(0.1),
    ...                  epochs=20)
    >>> len(history.losses), history.losses[-1] < 1e-3
    (40, True)
    """
    known = origin(model, node)
    check_word("loss", loss, LOSSES)
    optimizer = SGD() if optimizer is None else optimizer
    if not isinstance(optimizer, SGD):
        raise FieldError(f"optimizer must be an optimiser such as SGD(0.1), got {optimizer!r}.")
    whole = (("epochs", epochs, 1), ("batch_size", batch_size, 1), ("seed", seed, 0))
    for name, number, low in whole:
        if as_index(number) is None or number < low:
            raise FieldError(f"{name} must be an int of at least {low}, got {number!r}.")
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise FieldError("data must be a pair: inputs and targets.")
    if not any(spec.trainable for spec in known.node.param_specs().values()):
        raise ParamError("fit has nothing to train: the network has no trainable parameters.")
    x, concrete = batch(known.node, data[0])
    y = targets(concrete, data[1], loss)
    if len(leaves(x)[0]) != len(y):
        raise ShapeError(
            f"fit needs one target for each input, got {len(leaves(x)[0])} and {len(y)}."
        )
    step = known.call("trainer", known.node, model, loss, optimizer)
    losses: list[float] = []
    start = time.perf_counter()
    for rows in batches(len(y), batch_size, epochs, seed):
        taken = map_value(lambda array: array[rows], x)  # noqa: B023
        losses.append(call_deep(known.levels, step, taken, y[rows]))
        if on_step:
            on_step(len(losses), losses[-1])
    return History(tuple(losses), time.perf_counter() - start)


def batches(examples: int, batch_size: int, epochs: int, seed: int) -> Iterator[np.ndarray]:
    """Row numbers of each batch: a new order every epoch."""
    for epoch in range(epochs):
        order = np.random.default_rng([seed, epoch]).permutation(examples)
        for start in range(0, examples, batch_size):
            yield order[start : start + batch_size]


def targets(node: Node, y: Any, loss: str) -> np.ndarray:
    """Targets in the form that the loss takes; refuse what does not fit the network's output."""
    out, array = node.out_spec, as_array(y, "fit")
    if isinstance(out, tuple):
        raise ShapeError(f"fit needs one output, but the network has {len(out)}.")
    if loss == "mse":
        numbers = is_float(array) or array.dtype.kind in "iub"
        if array.shape[1:] != out.shape or not numbers:
            raise ShapeError(
                f"mse needs targets {('batch', *out.shape)}, got {array.dtype} of {array.shape}."
            )
        return array.astype(array_dtype(out.dtype))
    if array.ndim != 1 or array.dtype.kind not in "iu" or out.rank != 1:
        raise ShapeError(
            f"cross_entropy needs one integer label for each output {('batch', *out.shape)}, "
            f"got {array.dtype} of shape {array.shape}."
        )
    if array.size and not 0 <= array.min() <= array.max() < out.shape[0]:
        raise ShapeError(
            f"cross_entropy needs labels from 0 to {out.shape[0] - 1}, "
            f"got {array.min()} to {array.max()}."
        )
    return array.astype(np.int64)


def accuracy(model: Any, x: np.ndarray, labels: np.ndarray) -> float:
    """The share of examples whose largest output is at their label, in evaluation mode."""
    found, labels = apply(model, x).argmax(-1), np.asarray(labels)
    if labels.shape != found.shape:
        raise ShapeError(f"accuracy needs labels of shape {found.shape}, got {labels.shape}.")
    return float(np.mean(found == labels))

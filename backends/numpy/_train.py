"""How numpy models are trained: losses with their gradients, and the optimisers, in full."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial, singledispatch
from typing import Any, TypeAlias

import numpy as np
from autograd import make_vjp

from backends.numpy.custom import OPS
from blocks._spec import leaves, map_value
from blocks.custom import Custom
from blocks.loss import custom_loss
from blocks.optimizer import SGD, Adagrad, Adam, AdamW, Optimizer, without_rule

# Losses: the mean over the batch, and its gradient for the outputs.


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """The mean of -log softmax(logits)[label]."""
    classes, rows = labels.reshape(-1), np.arange(labels.size)
    flat = logits.reshape(labels.size, -1)
    shifted = flat - flat.max(-1, keepdims=True)
    logp = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    gradient = np.exp(logp)
    gradient[rows, classes] -= 1
    return float(-logp[rows, classes].mean()), gradient.reshape(logits.shape) / labels.size


def mse(outputs: np.ndarray, target: np.ndarray) -> tuple[float, np.ndarray]:
    """The mean of (outputs - target)^2 over all elements."""
    error = outputs - target
    return float((error**2).mean()), 2 * error / error.size


def mae(outputs: np.ndarray, target: np.ndarray) -> tuple[float, np.ndarray]:
    """The mean of |outputs - target| over all elements; the gradient of |0| is 0."""
    error = outputs - target
    return float(np.abs(error).mean()), np.sign(error) / error.size


def binary_cross_entropy(logits: np.ndarray, target: np.ndarray) -> tuple[float, np.ndarray]:
    """The mean of -target * log(p) - (1 - target) * log(1 - p), p the sigmoid of the logits."""
    small = np.exp(-np.abs(logits))
    loss = np.maximum(logits, 0) - target * logits + np.log1p(small)
    p = np.where(logits < 0, small, 1) / (1 + small)
    return float(loss.mean()), (p - target) / logits.size


LOSSES: dict[str, Callable[..., tuple[float, np.ndarray]]] = {
    "cross_entropy": cross_entropy,
    "mse": mse,
    "mae": mae,
    "binary_cross_entropy": binary_cross_entropy,
}


def own(loss: Custom, outputs: Any, target: Any) -> tuple[float, Any]:
    """A loss that users write; its gradient comes from autograd."""

    def value(arrays: list[Any]) -> Any:
        return custom_loss(loss, OPS, rebuilt(arrays), target)

    def rebuilt(arrays: list[Any]) -> Any:
        members = iter(arrays)
        return map_value(lambda _: next(members), outputs)

    with warnings.catch_warnings():  # it need not depend on the outputs
        warnings.filterwarnings("ignore", "Output seems independent of input")
        back, found = make_vjp(value, 0)(list(leaves(outputs)))
    return float(found), rebuilt(back(found.dtype.type(1)))


def loss_of(loss: Any) -> Callable[[Any, Any], tuple[float, Any]]:
    return LOSSES[loss] if isinstance(loss, str) else partial(own, loss)


# Optimisers: they change the parameters, given with their gradients, in place.

Parameters: TypeAlias = list[tuple[np.ndarray, np.ndarray]]


class Update:
    """An optimiser: what it keeps of each parameter, by slot, and how many steps it has made."""

    def __init__(self, optimizer: Any, params: Parameters):
        self.optimizer, self.steps = optimizer, 0
        self.slots = {name: [np.zeros_like(w) for w, _ in params] for name in optimizer.slots}

    def __call__(self, params: Parameters, rate: float) -> None:
        self.steps += 1
        for i, (w, g) in enumerate(params):
            w -= rate * self.step(w, g, *(arrays[i] for arrays in self.slots.values()))

    def step(self, w: np.ndarray, g: np.ndarray, *slots: Any) -> np.ndarray:
        """What goes from a parameter, in units of the learning rate."""
        raise NotImplementedError


class Descent(Update):
    """SGD; without momentum it keeps no velocity."""

    def step(self, w: np.ndarray, g: np.ndarray, v: Any = None) -> np.ndarray:
        momentum = self.optimizer.momentum
        g = g + self.optimizer.weight_decay * w
        if v is None:
            return g
        v *= momentum
        v += g
        return g + momentum * v if self.optimizer.nesterov else v


class Squares(Update):
    """Adagrad."""

    def step(self, w: np.ndarray, g: np.ndarray, s: Any) -> np.ndarray:
        s += g * g
        return g / (np.sqrt(s) + self.optimizer.epsilon)


class Moments(Update):
    """Adam."""

    def step(self, w: np.ndarray, g: np.ndarray, m: Any, v: Any) -> np.ndarray:
        own = self.optimizer
        m += (1 - own.beta1) * (g - m)
        v += (1 - own.beta2) * (g * g - v)
        root = np.sqrt(v / (1 - own.beta2**self.steps)) + own.epsilon
        return m / (1 - own.beta1**self.steps) / root


class DecayedMoments(Moments):
    """AdamW."""

    def step(self, w: np.ndarray, g: np.ndarray, m: Any, v: Any) -> np.ndarray:
        return super().step(w, g, m, v) + self.optimizer.weight_decay * w


@singledispatch
def native(optimizer: Optimizer, params: Parameters) -> Update:
    """The reference's own optimiser."""
    raise without_rule("numpy", optimizer)


native.register(SGD, Descent)
native.register(Adagrad, Squares)
native.register(Adam, Moments)
native.register(AdamW, DecayedMoments)


def clip(params: Parameters, limit: float) -> None:
    """Scale all gradients so that their norm, of all together, is at most the limit."""
    norm = np.sqrt(sum((g**2).sum(dtype=np.float64) for _, g in params))
    for _, g in params:
        g *= limit / max(norm, limit)

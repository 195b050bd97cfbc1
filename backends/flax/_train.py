"""How flax models are trained: losses and optimisers of optax."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, singledispatch
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from backends.flax.custom import OPS
from blocks.loss import custom_loss
from blocks.optimizer import SGD, Adagrad, Adam, AdamW, Optimizer, without_rule


def cross_entropy(logits: Any, labels: Any) -> Any:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def mse(outputs: Any, target: Any) -> Any:
    return jnp.mean((outputs - target) ** 2)


def mae(outputs: Any, target: Any) -> Any:
    """By the sign: JAX's gradient of |0| is 1."""
    error = outputs - target
    return jnp.mean(error * lax.stop_gradient(jnp.sign(error)))


def binary_cross_entropy(logits: Any, target: Any) -> Any:
    return optax.sigmoid_binary_cross_entropy(logits, target).mean()


LOSSES: dict[str, Callable[..., Any]] = {
    "cross_entropy": cross_entropy,
    "mse": mse,
    "mae": mae,
    "binary_cross_entropy": binary_cross_entropy,
}


def loss_of(loss: Any) -> Callable[[Any, Any], Any]:
    return LOSSES[loss] if isinstance(loss, str) else partial(custom_loss, loss, OPS)


@singledispatch
def native(optimizer: Optimizer, rate: Any) -> optax.GradientTransformation:
    """optax's own optimiser at one learning rate: its state is the same at all of them."""
    raise without_rule("flax", optimizer)


@native.register
def _(optimizer: SGD, rate: Any) -> optax.GradientTransformation:
    descent = optax.sgd(rate, optimizer.momentum or None, optimizer.nesterov)
    return optax.chain(optax.add_decayed_weights(optimizer.weight_decay), descent)


@native.register
def _(optimizer: Adagrad, rate: Any) -> optax.GradientTransformation:
    return optax.chain(by_root_of_squares(optimizer.epsilon), optax.scale_by_learning_rate(rate))


@native.register
def _(optimizer: Adam, rate: Any) -> optax.GradientTransformation:
    return optax.adam(rate, optimizer.beta1, optimizer.beta2, optimizer.epsilon)


@native.register
def _(optimizer: AdamW, rate: Any) -> optax.GradientTransformation:
    betas = optimizer.beta1, optimizer.beta2
    return optax.adamw(rate, *betas, optimizer.epsilon, weight_decay=optimizer.weight_decay)


def by_root_of_squares(epsilon: float) -> optax.GradientTransformation:
    """Adagrad's own part; optax's adds epsilon to the sum under the root."""

    def init(params: Any) -> optax.ScaleByRssState:
        return optax.ScaleByRssState(jax.tree.map(jnp.zeros_like, params))

    def update(grads: Any, state: optax.ScaleByRssState, params: Any = None) -> Any:
        squares = jax.tree.map(lambda g, s: s + g * g, grads, state.sum_of_squares)
        steps = jax.tree.map(lambda g, s: g / (jnp.sqrt(s) + epsilon), grads, squares)
        return steps, optax.ScaleByRssState(squares)

    return optax.GradientTransformation(init, update)


# What optax calls the slots of an optimiser.
SLOTS = {"velocity": "trace", "square_sum": "sum_of_squares", "mean": "mu", "square": "nu"}


def slot(state: Any, name: str) -> list[Any]:
    """What optax keeps under a name of each parameter."""
    return optax.tree_utils.tree_get(state, SLOTS[name])


def filled(state: Any, steps: int, slots: dict[str, list[Any]]) -> Any:
    """The state with other slots, after so many steps."""
    new = {SLOTS[name]: arrays for name, arrays in slots.items()}
    count = optax.tree_utils.tree_get(state, "count")
    if count is not None:
        new["count"] = jnp.asarray(steps, count.dtype)
    return optax.tree_utils.tree_set(state, **new)


def clipped(rule: optax.GradientTransformation, limit: float | None) -> Any:
    """The rule on gradients whose norm, of all together, is at most the limit."""
    return rule if limit is None else optax.chain(optax.clip_by_global_norm(limit), rule)

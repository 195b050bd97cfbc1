"""How keras models are trained: Keras's own losses, and its optimisers where they are exact."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, singledispatch
from typing import Any

import keras
import numpy as np
from keras import ops

from backends.keras._engine import ENGINES
from backends.keras.custom import OPS
from blocks._spec import map_value
from blocks.loss import custom_loss
from blocks.optimizer import SGD, Adagrad, Adam, AdamW, Optimizer, without_rule


class Training(keras.Model):  # type: ignore[misc]  # it has no types
    """The graph and the layers of a model, with a loss of all its outputs together.

    It is this that is compiled: the model itself is left as its owner compiled it, and is saved
    without an optimiser that Keras alone would not know.
    """

    objective: Callable[[Any, Any], Any]

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):  # type: ignore[no-untyped-def]
        return self.objective(y_pred, y)


def cross_entropy(loss: Any, logits: Any, labels: Any) -> Any:
    """All positions in one axis: Keras takes a last axis of size 1 for one that is left over."""
    return loss(ops.reshape(labels, (-1,)), ops.reshape(logits, (-1, logits.shape[-1])))


def elementwise(loss: Any, outputs: Any, target: Any) -> Any:
    return loss(target, outputs)


class AbsoluteError(keras.losses.Loss):  # type: ignore[misc]  # it has no types
    """Keras's own has the gradient of JAX under that engine, which is 1 for an error of 0."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        error = y_pred - y_true
        return error * ops.stop_gradient(ops.sign(error))


LOSSES: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "cross_entropy": (
        cross_entropy,
        partial(keras.losses.SparseCategoricalCrossentropy, from_logits=True),
    ),
    "mse": (elementwise, keras.losses.MeanSquaredError),
    "mae": (elementwise, AbsoluteError),
    "binary_cross_entropy": (
        elementwise,
        partial(keras.losses.BinaryCrossentropy, from_logits=True),
    ),
}


def loss_of(loss: Any, dtype: str) -> Callable[[Any, Any], Any]:
    if not isinstance(loss, str):
        # uncompiled steps get the targets as NumPy's arrays
        return lambda y, target: custom_loss(loss, OPS, y, map_value(ops.convert_to_tensor, target))
    call, made = LOSSES[loss]
    return partial(call, made(dtype=dtype))


class Whole:
    """Gradients of all that is trained, as whole arrays.

    TensorFlow gives those of embeddings row by row. Keras would square each row by itself, also
    where an id was used several times and its rows should be added first. And it would skip what
    the loss does not depend on, which decays like the rest.
    """

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        whole = ENGINES[keras.backend.backend()].whole
        variables = trainable_variables or grads  # JAX gives no variables, and all gradients
        pairs = zip(grads, variables, strict=True)
        grads = [ops.zeros_like(v) if g is None else whole(g) for g, v in pairs]
        super().apply(grads, trainable_variables)  # type: ignore[misc]


class Descent(Whole, keras.optimizers.SGD):  # type: ignore[misc]  # it has no types
    """SGD whose velocity is free of the learning rate, and whose weight decay is in the gradient.

    Keras keeps the rate in the velocity, where old gradients keep the old rate, and takes decay
    from the parameter.
    """

    def __init__(self, learning_rate: float, decay: float, **options: Any):
        super().__init__(learning_rate, **options)
        self.decay = decay

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        rate, momentum, decay = (
            ops.cast(number, variable.dtype)
            for number in (learning_rate, self.momentum, self.decay)
        )
        step = gradient = ops.cast(gradient, variable.dtype) + decay * variable
        if self.momentum:
            velocity = self.momentums[self._get_variable_index(variable)]
            self.assign(velocity, momentum * velocity + gradient)
            step = gradient + momentum * velocity if self.nesterov else velocity
        self.assign_sub(variable, rate * step)


class Squares(Whole, keras.optimizers.Adagrad):  # type: ignore[misc]  # it has no types
    """Adagrad whose epsilon is added to the root: Keras adds it to the sum under the root."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        rate, epsilon = (
            ops.cast(number, variable.dtype) for number in (learning_rate, self.epsilon)
        )
        gradient = ops.cast(gradient, variable.dtype)
        squares = self._accumulators[self._get_variable_index(variable)]
        self.assign_add(squares, ops.square(gradient))
        self.assign_sub(variable, rate * gradient / (ops.sqrt(squares) + epsilon))


class Moments(Whole, keras.optimizers.Adam):  # type: ignore[misc]  # it has no types
    """Adam whose epsilon is added to the corrected root.

    Keras adds it before the correction, which makes it 1 / sqrt(1 - beta_2^t) times as large: 32
    times at the first step.
    """

    @property
    def epsilon(self) -> Any:
        dtype = self.learning_rate.dtype
        kept = ops.power(ops.cast(self.beta_2, dtype), ops.cast(self.iterations + 1, dtype))
        return ops.cast(self.stated, dtype) * ops.sqrt(1 - kept)

    @epsilon.setter
    def epsilon(self, stated: float) -> None:
        self.stated = stated


@singledispatch
def native(optimizer: Optimizer, rate: float, number: Callable[[float], Any], **clip: Any) -> Any:
    """Keras's own optimiser; the rate is set before a step where it changes.

    `number` makes what Keras does not round: TensorFlow would turn a Python float into a float32.
    """
    raise without_rule("keras", optimizer)


@native.register
def _(optimizer: SGD, rate: float, number: Callable[[float], Any], **clip: Any) -> Any:
    options = {"momentum": number(optimizer.momentum), "nesterov": optimizer.nesterov, **clip}
    if optimizer.momentum or optimizer.weight_decay or clip:
        return Descent(rate, number(optimizer.weight_decay), **options)
    return keras.optimizers.SGD(rate, **options)


@native.register
def _(optimizer: Adagrad, rate: float, number: Callable[[float], Any], **clip: Any) -> Any:
    return Squares(rate, 0.0, number(optimizer.epsilon), **clip)


@native.register
def _(optimizer: Adam, rate: float, number: Callable[[float], Any], **clip: Any) -> Any:
    return Moments(
        rate,
        number(optimizer.beta1),
        number(optimizer.beta2),
        number(optimizer.epsilon),
        weight_decay=number(optimizer.weight_decay) if isinstance(optimizer, AdamW) else None,
        **clip,
    )


# What Keras calls the slots of an optimiser.
SLOTS = {
    "velocity": "momentums",
    "square_sum": "_accumulators",
    "mean": "_momentums",
    "square": "_velocities",
}


def exact(dtype: str) -> Callable[[float], Any]:
    return np.float64 if dtype == "float64" else float

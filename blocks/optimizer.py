"""Optimisers: how gradients become steps. Every backend takes its framework's own, made exact.

All of them change every trainable parameter alike, biases and scales of norms too.
"""

from __future__ import annotations

from typing import Any

from blocks import _fields as fields
from blocks._block import Config, block
from blocks._errors import FieldError, MissingRuleError
from blocks._spec import array_dtype
from blocks.schedule import Schedule


def rate(default: Any = fields.REQUIRED) -> Any:
    """A number of at least 0, or a schedule."""
    number = fields.real(low=0).metadata["convert"]

    def convert(owner: Any, label: str, value: Any) -> Any:
        return value if isinstance(value, Schedule) else number(owner, label, value)

    return fields.converted(convert, default)


@block
class Optimizer(Config):
    """The base of all optimisers: a learning rate, which is a number or a schedule."""

    instead = "SGD(0.1)"

    learning_rate: float | Schedule = rate(0.01)

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        given = self.learning_rate
        return given.value(step) if isinstance(given, Schedule) else given

    @property
    def slots(self) -> tuple[str, ...]:
        """What it keeps of each parameter from one step to the next, arrays of its shape."""
        return ()

    def check_dtype(self, dtype: str) -> None:
        """Refuse numbers that mean nothing beside parameters of this dtype."""

    def check_kept(self, dtype: str, **lost: float) -> None:
        """Refuse fields that become such a number when they are rounded to a dtype."""
        for name, number in lost.items():
            value = getattr(self, name)
            if array_dtype(dtype).type(value) == number:
                raise FieldError(
                    f"{type(self).__name__}.{name}={value} is {number} beside parameters in "
                    f"{dtype}, so that its steps mean nothing.\n"
                    '  Keep the parameters in float32: infer(..., param_dtype="float32").'
                )


def without_rule(backend: str, optimizer: Optimizer) -> MissingRuleError:
    """For an optimiser that is none of those below, nor a kind of them."""
    return MissingRuleError(
        f"{backend} has no rule for the optimiser {type(optimizer).__name__}.\n"
        "  Use SGD, Adagrad, Adam or AdamW, or subclass one of them."
    )


@block
class SGD(Optimizer):
    """Stochastic gradient descent with momentum.

        g = gradient + weight_decay * w
        v = momentum * v + g;    w = w - learning_rate * v
        nesterov: w = w - learning_rate * (g + momentum * v)

    The velocity v begins at 0 and knows nothing of the learning rate: where that changes, old
    gradients get the new rate. Weight decay is L2: a part of the gradient, which momentum keeps.

    Fields:
        learning_rate: the step along the velocity; a number or a schedule.
        momentum: how much of the last velocity is kept.
        nesterov: whether to look ahead along the new velocity.
        weight_decay: how much of the parameter is added to its gradient.

    >>> SGD(0.1, momentum=0.9)
    SGD(learning_rate=0.1, momentum=0.9)
    """

    momentum: float = fields.real(0.0, low=0, high=1)
    nesterov: bool = fields.flag(False)
    weight_decay: float = fields.real(0.0, low=0)

    def check(self) -> None:
        if self.nesterov and not self.momentum:
            raise FieldError("SGD.nesterov=True needs a momentum above 0, got 0.")

    @property
    def slots(self) -> tuple[str, ...]:
        return ("velocity",) if self.momentum else ()


@block
class Adagrad(Optimizer):
    """Steps in units of the root of all squared gradients so far (Duchi et al. 2011).

        s = s + g^2;    w = w - learning_rate * g / (sqrt(s) + epsilon)

    The sum s begins at 0, so that the first step is by the sign alone. Epsilon is added to the
    root, outside of it.

    Fields:
        learning_rate: the size of the first step; a number or a schedule.
        epsilon: added to the root, so that none is 0.

    >>> Adagrad(0.1)
    Adagrad(learning_rate=0.1)
    """

    epsilon: float = fields.real(1e-10, low=0, open_low=True)

    @property
    def slots(self) -> tuple[str, ...]:
        return ("square_sum",)

    def check_dtype(self, dtype: str) -> None:
        self.check_kept(dtype, epsilon=0)


@block
class Adam(Optimizer):
    """Steps by the mean of the gradient, in units of its size (Kingma and Ba 2015).

        m = beta1 * m + (1 - beta1) * g;    v = beta2 * v + (1 - beta2) * g^2
        w = w - learning_rate * m' / (sqrt(v') + epsilon)
        m' = m / (1 - beta1^t);    v' = v / (1 - beta2^t);    t = 1, 2, ...

    Both moments begin at 0. Epsilon is added to the root of the corrected v', outside of it.

    Fields:
        learning_rate: the usual size of a step; a number or a schedule.
        beta1: how much of the mean of gradients is kept.
        beta2: how much of the mean of their squares is kept.
        epsilon: added to the root, so that none is 0.

    >>> Adam(epsilon=1e-6).learning_rate
    0.001
    """

    learning_rate: float | Schedule = rate(1e-3)
    beta1: float = fields.real(0.9, low=0, high=1, open_high=True)
    beta2: float = fields.real(0.999, low=0, high=1, open_high=True)
    epsilon: float = fields.real(1e-8, low=0, open_low=True)

    @property
    def slots(self) -> tuple[str, ...]:
        return ("mean", "square")

    def check_dtype(self, dtype: str) -> None:
        self.check_kept(dtype, beta1=1, beta2=1, epsilon=0)


@block
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019).

        w = w - learning_rate * (m' / (sqrt(v') + epsilon) + weight_decay * w)

    The decay is of the parameter before the step, and is not in the gradient: neither moment sees
    it. Its share is learning_rate * weight_decay, so that it follows a schedule.

    Fields:
        learning_rate, beta1, beta2, epsilon: as in Adam.
        weight_decay: the share of each parameter that goes, times the learning rate.

    >>> AdamW(0.01, weight_decay=0.1)
    AdamW(learning_rate=0.01, weight_decay=0.1)
    """

    weight_decay: float = fields.real(0.01, low=0)

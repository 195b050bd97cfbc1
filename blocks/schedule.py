"""Schedules: the learning rate of every step, as one formula in the number of steps before it."""

from __future__ import annotations

import math
from itertools import pairwise

from blocks import _fields as fields
from blocks._block import Config, block
from blocks._errors import FieldError


@block
class Schedule(Config):
    """A learning rate that changes: `value(step)` is that of a step, counted from 0.

    It is worked out here, in Python's floats, and each framework's optimiser is handed the number.
    """

    instead = "CosineDecay(0.1, steps=1000)"

    def value(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        raise NotImplementedError


@block
class StepDecay(Schedule):
    """The rate is multiplied by a factor after every so many steps.

        value = initial * factor^floor(step / every)

    Fields:
        initial: the first rate.
        every: how many steps have one rate.
        factor: of one rate to the one before it.

    >>> [StepDecay(0.5, every=2, factor=0.1).value(step) for step in (0, 1, 2, 4)]
    [0.5, 0.5, 0.05, 0.005000000000000001]
    """

    initial: float = fields.real(low=0)
    every: int = fields.integer()
    factor: float = fields.real(0.1, low=0)

    def value(self, step: int) -> float:
        return self.initial * self.factor ** (step // self.every)


@block
class ExponentialDecay(Schedule):
    """The rate falls by the same factor in any so many steps, a little in each.

        value = initial * factor^(step / steps)

    Fields:
        initial: the first rate.
        steps: in how many steps it is multiplied by the factor.
        factor: of the rate to what it was.

    >>> [ExponentialDecay(0.5, steps=2, factor=0.25).value(step) for step in range(3)]
    [0.5, 0.25, 0.125]
    """

    initial: float = fields.real(low=0)
    steps: int = fields.integer()
    factor: float = fields.real(low=0)

    def value(self, step: int) -> float:
        return self.initial * self.factor ** (step / self.steps)


@block
class CosineDecay(Schedule):
    """Half a wave down from the first rate to the last (Loshchilov and Hutter 2017), then flat.

        value = final + (initial - final) * (1 + cos(pi * share)) / 2
        share = (step - warmup) / (steps - warmup), at most 1

    Before it, the rate may rise from near 0 in even steps: initial * (step + 1) / (warmup + 1).

    Fields:
        initial: the highest rate, which step `warmup` has.
        steps: the step from which on the rate is the final one.
        final: the last rate.
        warmup: how many steps come before the highest rate.

    >>> [round(CosineDecay(0.8, steps=6, warmup=2).value(step), 4) for step in range(7)]
    [0.2667, 0.5333, 0.8, 0.6828, 0.4, 0.1172, 0.0]
    """

    initial: float = fields.real(low=0)
    steps: int = fields.integer()
    final: float = fields.real(0.0, low=0)
    warmup: int = fields.integer(0, low=0)

    def check(self) -> None:
        if self.warmup >= self.steps:
            raise FieldError(
                f"CosineDecay.warmup={self.warmup} must be below steps={self.steps}, "
                "which counts the steps of the warmup too."
            )

    def value(self, step: int) -> float:
        if step < self.warmup:
            return self.initial * (step + 1) / (self.warmup + 1)
        share = min(1.0, (step - self.warmup) / (self.steps - self.warmup))
        return self.final + (self.initial - self.final) * (1 + math.cos(math.pi * share)) / 2


@block
class PiecewiseConstant(Schedule):
    """One rate after the other: `values[i]` up to, but not with, step `boundaries[i]`.

    Fields:
        boundaries: the steps at which the rate changes, each larger than the one before.
        values: the rates, one more than there are boundaries.

    >>> [PiecewiseConstant((2, 3), (0.1, 0.05, 0.01)).value(step) for step in range(4)]
    [0.1, 0.1, 0.05, 0.01]
    """

    boundaries: tuple[int, ...] = fields.integers()
    values: tuple[float, ...] = fields.reals(low=0)

    def check(self) -> None:
        bounds = self.boundaries
        if any(a >= b for a, b in pairwise(bounds)):
            raise FieldError(f"PiecewiseConstant.boundaries must grow, got {bounds}.")
        if len(self.values) != len(bounds) + 1:
            raise FieldError(
                f"PiecewiseConstant.values must be one more than its {len(bounds)} boundaries, "
                f"got {len(self.values)}."
            )

    def value(self, step: int) -> float:
        return self.values[sum(step >= bound for bound in self.boundaries)]

"""Initialisers: how the first numbers of a parameter are drawn, the same for every backend.

A block's field takes a name ("he_normal") or an instance (`Normal(std=0.02)`). For a canonical
kernel `(*window, in, out)`: fan_in = window * in, fan_out = window * out.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, TypeAlias

import numpy as np

from blocks import _fields as fields
from blocks._block import Config, block
from blocks._errors import FieldError, ParamError, did_you_mean, shown
from blocks._spec import aligned


class Initializer(Config):
    """Draws the first numbers of a parameter.

    `one_by_one` says that each number is drawn by itself, wherever it stands.
    """

    package = "initializers."
    instead = "initializers.Normal(0.02)"
    one_by_one: ClassVar[bool] = False

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """An array of `shape`, in float64."""
        raise NotImplementedError


Init: TypeAlias = str | Initializer


@block
class Constant(Initializer):
    """Every element is `value`.

    >>> Constant(3.0).draw(np.random.default_rng(0), (2,))
    array([3., 3.])
    """

    one_by_one = True

    value: float = fields.real(0.0)

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return np.full(shape, self.value)


@block
class Normal(Initializer):
    """Normal numbers with the given mean and standard deviation.

    >>> Normal(std=0.1).draw(np.random.default_rng(0), (2, 3)).shape
    (2, 3)
    """

    one_by_one = True

    std: float = fields.real(0.05, low=0)
    mean: float = fields.real(0.0)

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return rng.normal(self.mean, self.std, shape)


@block
class Uniform(Initializer):
    """Uniform numbers in [low, high).

    >>> Uniform(0.0, 1.0).draw(np.random.default_rng(0), (4,)).min() >= 0
    np.True_
    """

    one_by_one = True

    low: float = fields.real(-0.05)
    high: float = fields.real(0.05)

    def check(self) -> None:
        if self.low > self.high:
            raise FieldError(f"Uniform.low={self.low} is above high={self.high}.")
        if not math.isfinite(self.high - self.low):
            raise FieldError(f"Uniform: from {self.low} to {self.high} is too far for a float.")

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return rng.uniform(self.low, self.high, shape)


@block
class VarianceScaling(Initializer):
    """Zero-mean numbers whose variance is scale / fan, neither truncated nor corrected.

    The names of the field, with their sources: glorot (Glorot and Bengio 2010), scale 1 over the
    mean of both fans; he (He et al. 2015), scale 2 over fan_in; lecun (LeCun et al. 1998), scale 1
    over fan_in.

    >>> VarianceScaling(2.0, "fan_in", "normal") == NAMED["he_normal"]
    True
    """

    scale: float = fields.real(1.0, low=0, open_low=True)
    mode: str = fields.choice(("fan_in", "fan_out", "fan_avg"), "fan_avg")
    distribution: str = fields.choice(("uniform", "normal"), "uniform")

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return self.at(*fans(shape)).draw(rng, shape)

    def at(self, fan_in: int, fan_out: int) -> Initializer:
        """What it comes to at these fans."""
        fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        std = math.sqrt(self.scale / max(fan, 1))
        if self.distribution == "normal":
            return Normal(std)
        bound = math.sqrt(3) * std
        return Uniform(-bound, bound)


@block
class Orthogonal(Initializer):
    """A (semi-)orthogonal matrix times `gain`; all axes but the last are rows (Saxe et al. 2014).

    >>> q = Orthogonal().draw(np.random.default_rng(0), (4, 3))
    >>> np.allclose(q.T @ q, np.eye(3))
    True
    """

    gain: float = fields.real(1.0)

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        rows, columns = math.prod(shape[:-1]), shape[-1]
        normal = rng.normal(size=(max(rows, columns), min(rows, columns)))
        q, r = np.linalg.qr(normal)
        q = q * np.sign(np.diagonal(r))  # makes the draw uniform over orthogonal matrices
        return self.gain * (q if rows >= columns else q.T).reshape(shape)


def frozen(block: Any, label: str, value: Any) -> Any:
    """Nested tuples of floats, so that a block stays hashable and its repr can be pasted back."""
    try:
        array = np.asarray(value, dtype=np.float64) + 0.0  # -0.0 is 0.0
    except (TypeError, ValueError, OverflowError):
        raise fields.refuse(label, "an array of numbers", value) from None

    def nest(items: Any) -> Any:
        return tuple(map(nest, items)) if isinstance(items, list) else items

    return nest(array.tolist())


@block
class Array(Initializer):
    """Exactly these numbers; the shape must be the parameter's canonical shape.

    >>> Array([[1.0, 2.0]]).draw(np.random.default_rng(0), (1, 2))
    array([[1., 2.]])
    """

    values: Any = fields.converted(frozen)

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return np.asarray(self.values, dtype=np.float64)

    @property
    def shape(self) -> tuple[int, ...]:
        return np.shape(self.values)


NAMED: dict[str, Initializer] = {
    "zeros": Constant(0.0),
    "ones": Constant(1.0),
    "normal": Normal(),
    "uniform": Uniform(),
    "orthogonal": Orthogonal(),
} | {
    f"{name}_{distribution}": VarianceScaling(scale, mode, distribution)
    for name, scale, mode in (
        ("glorot", 1.0, "fan_avg"),
        ("he", 2.0, "fan_in"),
        ("lecun", 1.0, "fan_in"),
    )
    for distribution in ("uniform", "normal")
}


def initializer(default: Any = fields.REQUIRED) -> Any:
    """A block's field: a name of `NAMED`, an `Initializer`, an array of exact numbers, a number."""
    return fields.converted(lambda block, label, value: as_init(label, value), default)


def as_init(label: str, value: Any) -> Init:
    """What the field `label` takes, as a name or an `Initializer`."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return Constant(value)
    if isinstance(value, (np.ndarray, list, tuple)):
        return Array(value)
    if isinstance(value, Initializer) or (isinstance(value, str) and value in NAMED):
        return value
    known = ", ".join(map(repr, NAMED))
    rule = f"an Initializer, an array or one of {known}"
    raise fields.refuse(label, rule, value, did_you_mean(str(value), NAMED).strip())


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """fan_in and fan_out of a canonical parameter `(*window, in, out)`; a vector has equal fans."""
    if len(shape) < 2:
        size = math.prod(shape)
        return size, size
    window = math.prod(shape[:-2])
    return window * shape[-2], window * shape[-1]


def with_fans(init: Init, fan_in: int, fan_out: int) -> Init:
    """The initialiser for a parameter whose axes are not those of a kernel `(*window, in, out)`."""
    found = NAMED.get(init) if isinstance(init, str) else init
    return found.at(fan_in, fan_out) if isinstance(found, VarianceScaling) else init


def settled(init: Init, shape: tuple[int, ...]) -> Initializer:
    """What an initialiser comes to at a shape, with no fans left to find."""
    found = NAMED[init] if isinstance(init, str) else init
    return found.at(*fans(shape)) if isinstance(found, VarianceScaling) else found


PIECE = 2**20  # numbers drawn at a time, so that float64 does not take twice the memory


def drawn(init: Init, rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """First numbers in a dtype; the same ones whatever the dtype is.

    Raises:
        ParamError: if the dtype cannot hold them.
    """
    initializer = settled(init, shape)
    try:
        with np.errstate(over="raise"):
            if not initializer.one_by_one:
                return initializer.draw(rng, shape).astype(dtype)
            array = aligned((math.prod(shape),), dtype)
            for start in range(0, array.size, PIECE):
                piece = array[start : start + PIECE]
                piece[:] = initializer.draw(rng, piece.shape)
    except FloatingPointError:
        raise ParamError(f"{shown(initializer)} is too large for {np.dtype(dtype)}.") from None
    return array.reshape(shape)


def draw(init: Init, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw by name or by instance."""
    return (NAMED[init] if isinstance(init, str) else init).draw(rng, shape)


@block
class PerGate(Initializer):
    """Equal parts of the last axis, one for each gate, each drawn by `init` on its own.

    >>> q = PerGate("orthogonal", 2).draw(np.random.default_rng(0), (3, 6))[:, 3:]
    >>> np.allclose(q.T @ q, np.eye(3))
    True
    """

    init: Init = initializer("orthogonal")
    gates: int = fields.integer(1)

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        part = (*shape[:-1], shape[-1] // self.gates)
        return np.concatenate([draw(self.init, rng, part) for _ in range(self.gates)], -1)

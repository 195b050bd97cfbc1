"""Activations: one block with a kind, and a helper for each kind."""

from __future__ import annotations

from typing import Any

from blocks import _fields as fields
from blocks._block import Leaf, block
from blocks._errors import FieldError
from blocks._shape import norm_axis
from blocks._spec import Spec

# Every kind, and the number that some of them take with its value if left out.
KINDS: dict[str, dict[str, float]] = {
    "relu": {},
    "relu6": {},
    "leaky_relu": {"slope": 0.01},
    "elu": {"alpha": 1.0},
    "selu": {},
    "celu": {"alpha": 1.0},
    "gelu": {},
    "gelu_tanh": {},
    "silu": {},
    "mish": {},
    "softplus": {},
    "softsign": {},
    "sigmoid": {},
    "log_sigmoid": {},
    "tanh": {},
    "hard_sigmoid": {},
    "hard_silu": {},
    "hard_tanh": {},
    "tanh_shrink": {},
    "soft_shrink": {"threshold": 0.5},
    "hard_shrink": {"threshold": 0.5},
}


@block
class Activation(Leaf):
    """A function of each number alone.

        relu          max(x, 0)                        sigmoid       1 / (1 + exp(-x))
        relu6         min(max(x, 0), 6)                log_sigmoid   log(sigmoid(x))
        leaky_relu    x if x > 0 else slope * x        tanh          tanh(x)
        elu           x if x > 0 else alpha * (exp(x) - 1)
        selu          1.0507009873554805 * elu(x, 1.6732632423543772)
        celu          x if x > 0 else alpha * (exp(x / alpha) - 1)
        gelu          x * Phi(x), Phi the normal distribution function
        gelu_tanh     x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3))) / 2
        silu          x * sigmoid(x)                   softplus      log(1 + exp(x))
        mish          x * tanh(softplus(x))            softsign      x / (1 + |x|)
        hard_sigmoid  min(max(x + 3, 0), 6) / 6        hard_silu     x * hard_sigmoid(x)
        hard_tanh     min(max(x, -1), 1)               tanh_shrink   x - tanh(x)
        soft_shrink   sign(x) * max(|x| - threshold, 0)
        hard_shrink   x if |x| > threshold else 0

    At a kink the gradient is that of the flatter side: 0 for relu at 0, for relu6 and the hard ones
    at both ends, and for the shrinks at the threshold; slope for leaky_relu at 0.

    Shape: any; unchanged.
    Fields:
        kind: one of the names above.
        slope: of leaky_relu for negative numbers, 0.01 if left out.
        alpha: of elu and celu, 1 if left out.
        threshold: of soft_shrink and hard_shrink, 0.5 if left out.
    Differs: "gelu" is the exact one in torch and Keras and the tanh approximation in Flax: here two
        names. The slope of leaky_relu is 0.01 in torch and Flax, 0.3 in Keras. At kinks, JAX's
        leaky_relu and hard_tanh have gradient 1. So has Keras's hard_tanh, and on its jax engine
        leaky_relu: there the model stays with the stock layer.

    >>> Activation("leaky_relu", slope=0.2)
    Activation(kind='leaky_relu', slope=0.2)
    """

    layout_role = "elementwise"

    kind: str = fields.choice(tuple(KINDS))
    slope: float | None = fields.real(None, optional=True)
    alpha: float | None = fields.real(None, low=0, open_low=True, optional=True)
    threshold: float | None = fields.real(None, low=0, optional=True)

    def check(self) -> None:
        for name in ("slope", "alpha", "threshold"):
            default, stated = KINDS[self.kind].get(name), getattr(self, name)
            if stated is None:
                object.__setattr__(self, name, default)
            elif default is None:
                raise FieldError(f"Activation.{name}={stated} has no meaning for {self.kind!r}.")

    def out_spec(self, x: Spec) -> Spec:
        return x


@block
class Softmax(Leaf):
    """Positive numbers that sum to 1 along an axis.

        y = exp(x) / sum(exp(x)) along `axis`

    Shape: any; unchanged.
    Fields:
        axis: counted without the batch axis, negative from the end.
    Differs: torch wants the axis stated, counting the batch; Keras and Flax take the last.

    >>> import blocks as bl
    >>> bl.infer(bl.Softmax(), (7, 3)).out_spec.shape
    (7, 3)
    """

    axis: int = fields.axis(-1)

    def out_spec(self, x: Spec) -> Spec:
        norm_axis(self.axis, x.rank, x)
        return x

    def resolve(self, x: Spec) -> dict[str, Any]:
        return {"axis": norm_axis(self.axis, x.rank, x)}


@block
class LogSoftmax(Softmax):
    """The logarithm of Softmax, computed without it.

        y = x - log(sum(exp(x))) along `axis`

    Shape: any; unchanged.
    Fields:
        axis: counted without the batch axis, negative from the end.
    Differs: as Softmax.

    >>> import blocks as bl
    >>> bl.infer(bl.LogSoftmax(0), (7, 3)).out_spec.shape
    (7, 3)
    """


def ReLU() -> Activation:
    """max(x, 0)."""
    return Activation("relu")


def ReLU6() -> Activation:
    """min(max(x, 0), 6)."""
    return Activation("relu6")


def LeakyReLU(slope: float = 0.01) -> Activation:
    """x if x > 0 else slope * x."""
    return Activation("leaky_relu", slope=slope)


def ELU(alpha: float = 1.0) -> Activation:
    """x if x > 0 else alpha * (exp(x) - 1)."""
    return Activation("elu", alpha=alpha)


def SELU() -> Activation:
    """Self-normalising ELU (Klambauer et al. 2017)."""
    return Activation("selu")


def CELU(alpha: float = 1.0) -> Activation:
    """x if x > 0 else alpha * (exp(x / alpha) - 1)."""
    return Activation("celu", alpha=alpha)


def GELU(approximate: bool = False) -> Activation:
    """x * Phi(x); the tanh formula if approximate (Hendrycks and Gimpel 2016)."""
    return Activation("gelu_tanh" if approximate else "gelu")


def SiLU() -> Activation:
    """x * sigmoid(x), also called swish."""
    return Activation("silu")


def Mish() -> Activation:
    """x * tanh(softplus(x))."""
    return Activation("mish")


def Softplus() -> Activation:
    """log(1 + exp(x))."""
    return Activation("softplus")


def Softsign() -> Activation:
    """x / (1 + |x|)."""
    return Activation("softsign")


def Sigmoid() -> Activation:
    """1 / (1 + exp(-x))."""
    return Activation("sigmoid")


def LogSigmoid() -> Activation:
    """log(sigmoid(x))."""
    return Activation("log_sigmoid")


def Tanh() -> Activation:
    """tanh(x)."""
    return Activation("tanh")


def HardSigmoid() -> Activation:
    """min(max(x + 3, 0), 6) / 6."""
    return Activation("hard_sigmoid")


def HardSiLU() -> Activation:
    """x * hard_sigmoid(x), also called hard swish."""
    return Activation("hard_silu")


def HardTanh() -> Activation:
    """min(max(x, -1), 1)."""
    return Activation("hard_tanh")


def TanhShrink() -> Activation:
    """x - tanh(x)."""
    return Activation("tanh_shrink")


def SoftShrink(threshold: float = 0.5) -> Activation:
    """sign(x) * max(|x| - threshold, 0)."""
    return Activation("soft_shrink", threshold=threshold)


def HardShrink(threshold: float = 0.5) -> Activation:
    """x if |x| > threshold else 0."""
    return Activation("hard_shrink", threshold=threshold)

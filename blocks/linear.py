"""Linear blocks."""

from __future__ import annotations

import math

from blocks import _fields as fields
from blocks._block import Leaf, block
from blocks._errors import ShapeError
from blocks._shape import check_stated, need_known
from blocks._spec import ParamSpec, Spec
from blocks.initializers import Init, initializer


@block
class Dense(Leaf):
    """Every output feature is a weighted sum of the input features, plus a bias.

        y[..., o] = sum_i x[..., i] * kernel[i, o] + bias[o]

    Shape: (*, in) -> (*, features); works on the last axis, whatever the layout.
    Parameters: kernel (in, features); bias (features,) if use_bias.
    Fields:
        features: number of output features.
        use_bias: whether to add a bias.
        in_features: stated only to be checked; it is inferred.
        kernel_init, bias_init: initialisers.
    Differs: torch calls it Linear and keeps the kernel as (out, in); Keras and Flax as (in, out).
        By default torch draws kernel and bias from U(-1/sqrt(in), 1/sqrt(in)), Keras the kernel
        from Glorot's uniform and Flax from LeCun's truncated normal, both with bias 0. Here:
        Glorot's uniform and bias 0.

    >>> import blocks as bl
    >>> bl.infer(bl.Dense(4), (7, 3)).out_spec.shape
    (7, 4)
    """

    features: int = fields.integer()
    use_bias: bool = fields.flag(True)
    in_features: int | None = fields.integer(None, optional=True)
    kernel_init: Init = initializer("glorot_uniform")
    bias_init: Init = initializer("zeros")

    def out_spec(self, x: Spec) -> Spec:
        if x.rank == 0:
            raise ShapeError("needs a feature axis, got a scalar ()")
        return x.with_shape((*x.shape[:-1], self.features))

    def param_specs(self, x: Spec) -> dict[str, ParamSpec]:
        inputs = need_known(x, x.shape[-1], "input features")
        check_stated(self.in_features, inputs)
        specs = {"kernel": ParamSpec((inputs, self.features), self.kernel_init)}
        if self.use_bias:
            specs["bias"] = ParamSpec((self.features,), self.bias_init)
        return specs

    def multiply_adds(self, x: Spec, y: Spec) -> int | None:
        sizes = (*x.shape, self.features)
        return None if None in sizes else math.prod(sizes)  # type: ignore[arg-type]

"""Linear blocks."""

from __future__ import annotations

import math
from dataclasses import replace

from blocks import _fields as fields
from blocks._block import Leaf, block
from blocks._errors import ShapeError
from blocks._shape import check_stated, need_known
from blocks._spec import FLOAT, Kind, ParamSpec, Spec
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


@block
class Embedding(Leaf):
    """Each integer is replaced by its row of a learned table.

        y[..., f] = embedding[x[...], f]

    Shape: integers (*,) -> (*, features), whatever the layout.
    Parameters: embedding (num_embeddings, features).
    Fields:
        num_embeddings: number of rows; integers are from 0 to num_embeddings - 1.
        features: length of a row.
        embedding_init: initialiser.
    Differs: rows are from N(0, 1) in torch, U(-0.05, 0.05) in Keras and N(0, 1 / features) in Flax.
        Here: N(0, 0.05^2). An integer out of range is an IndexError in torch and NaN in Flax, where
        -1 is the last row. Here `apply`, `gradients` and `fit` refuse it at the network's input.

    >>> import blocks as bl
    >>> node = bl.infer(bl.Embedding(100, 8), (5,))
    >>> node.in_spec.dtype, node.out_spec.shape
    ('int32', (5, 8))
    """

    num_embeddings: int = fields.integer()
    features: int = fields.integer()
    embedding_init: Init = initializer("normal")

    def kinds(self, x: Spec) -> Kind:
        return Kind("int", below=self.num_embeddings)

    def out_spec(self, x: Spec) -> Spec:
        return replace(x, shape=(*x.shape, self.features), dtype=FLOAT, below=None)

    def param_specs(self, x: Spec) -> dict[str, ParamSpec]:
        shape = (self.num_embeddings, self.features)
        return {"embedding": ParamSpec(shape, self.embedding_init)}

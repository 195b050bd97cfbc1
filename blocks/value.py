"""Values."""

from __future__ import annotations

from typing import Any, ClassVar

from blocks import _fields as fields
from blocks._block import Leaf, block
from blocks._errors import ShapeError
from blocks._shape import need_known
from blocks._spec import ParamSpec, Spec, ValueSpec, shapes
from blocks.initializers import Array, Init, initializer


@block
class Identity(Leaf):
    """The input, unchanged; a tuple too.

    Shape: any; unchanged.
    Differs: no difference; torch and Keras call it Identity, Flax nnx.identity.

    >>> import blocks as bl
    >>> bl.infer(bl.Identity(), (7,)).out_spec.shape
    (7,)
    """

    layout_role = "elementwise"
    takes_tuple = True
    numbers = "any"

    def out_spec(self, x: ValueSpec) -> ValueSpec:
        return x


@block
class Select(Leaf):
    """One tensor of a tuple.

        y = x[index]

    Shape: that of the member.
    Fields:
        index: its place in the tuple, from 0, or from the end if negative.
    Differs: none of the frameworks has such a layer; their code indexes.

    >>> import blocks as bl
    >>> around = bl.Parallel(bl.Select(0), bl.Select(1), merge="add")
    >>> bl.infer(around, ((7,), (7,))).out_spec.shape
    (7,)
    """

    takes_tuple = True
    numbers = "any"

    index: int = fields.axis()

    def out_spec(self, x: ValueSpec) -> ValueSpec:
        size = len(x) if isinstance(x, tuple) else 0
        if not size:
            raise ShapeError("selects from a tuple, got one tensor", fix="Leave it out.")
        if not -size <= self.index < size:
            raise ShapeError(
                f"selects member {self.index}, but its input has {size}",
                fix=f"Write an index from 0 to {size - 1}.",
            )
        return x[self.index]

    def resolve(self, x: ValueSpec) -> dict[str, Any]:
        return {"index": self.index % len(x)}


MERGES = ("add", "multiply", "prepend")


class ArrayLeaf(Leaf):
    """What `Parameter` and `Constant` share: an array, and how it meets the input."""

    trainable: ClassVar[bool]
    shape: tuple[int, ...] | None
    merge: str
    init: Init

    def resolve(self, x: Spec) -> dict[str, Any]:
        return {"shape": self.array_shape(x)}

    def array_shape(self, x: Spec) -> tuple[int, ...]:
        """The shape of the array: as stated, else that of the input, or one row to prepend."""
        if self.shape is not None:
            return self.shape
        if isinstance(self.init, Array):
            return self.init.shape
        sizes = tuple(need_known(x, n, "elements") for n in x.shape[self.merge == "prepend" :])
        return (1, *sizes) if self.merge == "prepend" else sizes

    def out_spec(self, x: Spec) -> Spec:
        if x.rank == 0:
            raise ShapeError("needs at least one axis, got a scalar ()")
        shape = self.array_shape(x)
        if self.merge == "prepend":
            if len(shape) != x.rank or shape[1:] != x.shape[1:]:
                raise ShapeError(
                    f"prepends an array of shape {shape}, but its input is {shapes(x)}",
                    fix=f"Give it the shape {(1, *x.shape[1:])}, with any first size.",
                )
            first = x.shape[0]
            return x.with_shape((None if first is None else shape[0] + first, *x.shape[1:]))
        pairs = zip(reversed(shape), reversed(x.shape), strict=False)
        if len(shape) > x.rank or any(n not in (1, m) for n, m in pairs):
            verb = {"add": "adds", "multiply": "multiplies by"}[self.merge]
            raise ShapeError(
                f"{verb} an array of shape {shape}, but its input is {shapes(x)}",
                fix=f"Give it the shape {x.shape}, or sizes of 1 where it repeats.",
            )
        return x.with_shape(x.shape)

    def param_specs(self, x: Spec) -> dict[str, ParamSpec]:
        return {"value": ParamSpec(self.array_shape(x), self.init, self.trainable)}


@block
class Parameter(ArrayLeaf):
    """A learned array meets every example: position embeddings, scales, class tokens.

        y = x + value, or x * value, or value followed by x along the first axis

    Shape: unchanged for "add" and "multiply", to whose input the array broadcasts; (n, *) ->
        (k + n, *) for "prepend" with an array (k, *).
    Parameters: value, of the stated shape.
    Fields:
        shape: of the array; that of the input if left out, or for "prepend" one row of it.
        merge: "add", "multiply" or "prepend".
        init: initialiser, or an array.
    Differs: torch and Flax users write a module with a parameter; Keras's functional models have no
        layer for it, so there it is the one row of an Embedding.

    >>> import blocks as bl
    >>> bl.infer(bl.Parameter(merge="prepend"), (5, 3)).out_spec.shape
    (6, 3)
    """

    trainable = True

    shape: tuple[int, ...] | None = fields.integers(None, optional=True)
    merge: str = fields.choice(MERGES, "add")
    init: Init = initializer("normal")


@block
class Constant(ArrayLeaf):
    """A fixed array, never trained, meets every example.

        y = x + value, or x * value, or value followed by x along the first axis

    It is kept, saved and compared with the parameters, but has no gradient.

    Shape: as for `Parameter`.
    Parameters: value, not trainable.
    Fields:
        value: an array, a number, or an initialiser that draws it once.
        shape: of the array; that of `value`, else as for `Parameter`.
        merge: "add", "multiply" or "prepend".
    Differs: it is a buffer in torch, a weight with trainable=False in Keras and a variable that is
        no nnx.Param in Flax.

    >>> import blocks as bl
    >>> node = bl.infer(bl.Constant([1.0, 2.0, 3.0], merge="multiply"), (5, 3))
    >>> node.params["value"].shape, bl.count(node, trainable=True)
    ((3,), 0)
    """

    trainable = False

    value: Init = initializer()
    shape: tuple[int, ...] | None = fields.integers(None, optional=True)
    merge: str = fields.choice(MERGES, "add")

    @property
    def init(self) -> Init:  # type: ignore[override]
        """How the array is drawn."""
        return self.value


@block
class Sample(Leaf):
    """A draw from a normal distribution, given its mean and the logarithm of its variance.

        y = mean + exp(log_variance / 2) * noise, noise ~ N(0, 1), in training; y = mean in
        evaluation

    Gradients flow to both (the reparametrisation of Kingma and Welling 2014). The noise comes from
    each framework's own generator, or from one stream with `lower(..., draws="shared")`.

    Shape: (mean, log_variance), of one shape -> that shape.
    Differs: none of the frameworks has such a layer. Those in textbooks often draw in evaluation
        too; here evaluation is deterministic, as it is for Dropout.

    >>> import blocks as bl
    >>> heads = bl.Parallel(bl.Dense(2), bl.Dense(2), merge="tuple")
    >>> bl.infer(bl.Sequential(heads, bl.Sample()), (7,)).out_spec.shape
    (2,)
    """

    takes_tuple = True
    stochastic = True

    def out_spec(self, x: ValueSpec) -> ValueSpec:
        if not isinstance(x, tuple) or len(x) != 2:
            raise ShapeError(
                "takes a tuple of mean and log variance, "
                f"got {f'{len(x)} tensors' if isinstance(x, tuple) else 'one tensor'}",
                fix="Put Parallel(mean, log_variance, merge='tuple') before it.",
            )
        mean, log_variance = x
        if mean.shape != log_variance.shape:
            raise ShapeError(
                "needs a mean and a log variance of one shape",
                values={"mean": mean, "log variance": log_variance},
            )
        return mean.with_shape(mean.shape)

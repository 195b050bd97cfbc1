"""Blocks that users write themselves."""

from __future__ import annotations

import dataclasses
import inspect
import keyword
import math
from typing import Any, dataclass_transform

import numpy as np

from blocks._block import Block, Leaf, block
from blocks._errors import FieldError, ShapeError, did_you_mean
from blocks._spec import ValueSpec, shapes
from blocks.initializers import Initializer


@block
@dataclass_transform(frozen_default=True)
class Custom(Leaf):
    """Code of your own, written once: subclass it, and every backend runs and differentiates it.

        y = forward(ops, x, **parameters)

    A subclass is a block like any other (a frozen dataclass; no decorator is needed) whose fields
    are plain data or initialisers. It may define:

    - `param_specs(x)`: name to `ParamSpec(shape, init)`; with `trainable=False` a constant, which
      is compared and saved but never given a gradient. None if left out.
    - `out_spec(x)`: the spec of what comes out, usually `x.with_shape(...)`; `x` if left out.
    - `forward(self, ops, x, ...)`: the computation, with the parameters by their names. `ops` has
      NumPy's names: abs, exp, where, sum, matmul, einsum, concatenate, ... (all are in
      blocks/_ops.py).

    Python's branches and loops may depend on values. To compile such a model, use `ops.cond` and
    `ops.while_loop`. A batch shares them: decide row by row with `ops.where` if the output for an
    example should not depend on the others. Other functions and methods that `forward` calls take
    `ops` as an argument of that name.

    Shape: as out_spec says; a tuple too, in and out.
    Parameters: as param_specs says.
    Fields: those of the subclass.
    Differs: torch, Keras and Flax have a base class each (Module, Layer, Module) for one framework.
        Keras and Flax compile what they train and stop at a branch on a value; `apply`, `gradients`
        and `fit` run such a network uncompiled. A listing holds the class in the framework's
        words, made from its source; Keras loads a saved model with that class in custom_objects.

    >>> import blocks as bl
    >>> class Gated(bl.Custom):
    ...     features: int
    ...     steps: int = 2
    ...
    ...     def param_specs(self, x):
    ...         return {"kernel": bl.ParamSpec((x.shape[-1], self.features), "glorot_uniform")}
    ...
    ...     def out_spec(self, x):
    ...         return x.with_shape((*x.shape[:-1], self.features))
    ...
    ...     def forward(self, ops, x, kernel):
    ...         y = ops.matmul(x, kernel)
    ...         for _ in range(self.steps):
    ...             y = ops.tanh(y)
    ...         return ops.where(y > 0, y, 0.1 * y)
    >>> net = bl.Sequential(Gated(4), bl.Dense(3))
    >>> bl.infer(net, (5,)).out_spec.shape
    (3,)
    >>> bool(bl.parity(net, (5,), backends=["numpy"]))
    True
    """

    takes_tuple = True

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        doc = cls.__doc__
        dataclasses.dataclass(frozen=True, repr=False, eq=False)(cls)
        cls.__doc__ = doc  # and not the signature that dataclass writes

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            label = f"{type(self).__name__}.{field.name}"
            object.__setattr__(self, field.name, plain(label, getattr(self, field.name)))
        super().__post_init__()

    def ruled_as(self) -> type[Block]:
        return Custom

    def out_spec(self, x: ValueSpec) -> ValueSpec:
        return x

    def forward(self, ops: Any, x: Any, **params: Any) -> Any:
        """The computation on a batch, in neutral operations."""
        raise NotImplementedError

    def multiply_adds(self, x: ValueSpec, y: ValueSpec) -> int | None:
        """Unknown, unless a subclass says it."""
        return None

    def resolve(self, x: ValueSpec) -> dict[str, Any]:
        """Nothing; but this is where what the subclass says is checked."""
        name = type(self).__name__
        if type(self).forward is Custom.forward:
            raise FieldError(f"{name} has no forward(self, ops, x, ...).")
        specs = self.param_specs(x)
        for param in specs:
            if not is_name(param):
                raise FieldError(f"{name}.param_specs has {param!r}, which is no name in Python.")
            if hasattr(self, param):
                raise FieldError(
                    f"{name} has a parameter {param!r}, but also a field or method of that name. "
                    "Rename one of them."
                )
        self.check_arguments(set(specs))
        return {}

    def check_arguments(self, params: set[str]) -> None:
        """Refuse parameters that `forward` does not take, and arguments that are no parameters."""
        name, signature = type(self).__name__, inspect.signature(type(self).forward)
        _, _, _, *taken = signature.parameters.values()
        named = [a for a in taken if a.kind not in (a.VAR_KEYWORD, a.VAR_POSITIONAL)]
        names = {a.name for a in named}
        anything = any(a.kind is a.VAR_KEYWORD for a in taken)
        for argument in named:
            if argument.default is argument.empty and argument.name not in params:
                hint = did_you_mean(argument.name, params)
                raise FieldError(
                    f"{name}.forward takes {argument.name!r}, "
                    f"which param_specs does not have.{hint}"
                )
        for param in sorted(params - names):
            if not anything:
                raise FieldError(
                    f"{name}.param_specs has {param!r}, which forward{signature} does not take."
                    f"{did_you_mean(param, names)}"
                )


def is_name(text: Any) -> bool:
    return isinstance(text, str) and text.isidentifier() and not keyword.iskeyword(text)


def plain(label: str, value: Any) -> Any:
    """The value as data that can be hashed and pasted back: lists and arrays as tuples."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, (tuple, list)):
        return tuple(plain(label, item) for item in value)
    if value is None or isinstance(value, (bool, int, str, Initializer)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise FieldError(
        f"{label} must be a finite number, a text, None, a tuple of these or an initialiser, "
        f"got {value!r}."
    )


def check_output(y: Any, out: ValueSpec, who: str) -> Any:
    """What `forward` returned; refuse what `out_spec` did not announce."""
    if not fits(y, out):
        raise ShapeError(
            f"{who} returns {returned(y)} from forward, but its out_spec says {shapes(out)}.\n"
            "  Both are without the batch axis. Change one of them."
        )
    return y


def fits(y: Any, out: ValueSpec) -> bool:
    """Whether a value has the shapes of a spec; sizes that are not known yet are taken as right."""
    if isinstance(out, tuple):
        return isinstance(y, tuple) and len(y) == len(out) and all(map(fits, y, out))
    if not hasattr(y, "shape") or len(y.shape) != out.rank + 1:
        return False
    return all(
        None in pair or pair[0] == pair[1] for pair in zip(y.shape[1:], out.shape, strict=True)
    )


def returned(y: Any) -> str:
    """The shape of a value without its batch axis, for people."""
    if isinstance(y, tuple):
        return "(" + ", ".join(map(returned, y)) + ")"
    if not hasattr(y, "shape"):
        return f"a {type(y).__name__}"
    return str(tuple(y.shape[1:])) if len(y.shape) else "a single number"

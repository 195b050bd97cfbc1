"""Losses: what training makes small, and the metrics that are only looked at.

A loss is a word, or a `Custom` block of your own, which takes the outputs and the target as one
tuple. All losses are means.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from blocks import _fields as fields
from blocks._batch import as_array
from blocks._errors import FieldError, ShapeError
from blocks._spec import Node, Spec, ValueSpec, array_dtype, is_float, leaves, map_value, shapes
from blocks.custom import Custom

# Targets are one class for each position, as an integer; or numbers, one for each output.
CLASSES = ("cross_entropy", "accuracy")
LOSSES = ("cross_entropy", "mse", "mae", "binary_cross_entropy")
METRICS = (*LOSSES, "accuracy", "binary_accuracy")


def targets(node: Node, y: Any, word: Any) -> Any:
    """Targets in the form that a loss or a metric takes; refuse what does not fit the outputs."""
    if isinstance(word, Custom):
        return own_targets(node, y, word)
    out, array = node.out_spec, as_array(y, word)
    if isinstance(out, tuple):
        raise ShapeError(
            f"{word} needs one output, but the network has {len(out)}.\n"
            "  Write a loss of your own: a Custom block that takes (*outputs, target)."
        )
    return labels(out, array, word) if word in CLASSES else alike(out, array, word)


def own_targets(node: Node, y: Any, loss: Custom) -> Any:
    """An array, or a tuple of them, that a loss of one's own takes beside the outputs."""
    name = type(loss).__name__
    found = map_value(lambda array: numbers(node, array, name), y)
    like = leaves(node.out_spec)[0]
    given = [replace(like, shape=a.shape[1:], dtype=str(a.dtype)) for a in leaves(found)]
    specs = (*leaves(node.out_spec), *given)
    loss.resolve(specs)
    if loss.param_specs(specs):
        raise FieldError(f"{name} has parameters, which a loss cannot have.")
    try:
        loss.out_spec(specs)
    except ShapeError as error:
        raise ShapeError(f"{name} {error.fact}") from None
    return found


def numbers(node: Node, y: Any, who: str) -> np.ndarray:
    """An array as it is, in dtypes that every framework has."""
    array = as_array(y, who)
    if array.dtype.kind in "iub":
        return array.astype(np.int32)
    if not is_float(array):
        raise FieldError(f"{who} takes numbers as targets, got dtype {array.dtype}.")
    return array.astype(array_dtype(node.dtype))


def alike(out: Spec, array: np.ndarray, word: str) -> np.ndarray:
    """A number for each number of the output."""
    if array.shape[1:] != out.shape or not (is_float(array) or array.dtype.kind in "iub"):
        raise ShapeError(
            f"{word} needs targets {('batch', *out.shape)}, got {array.dtype} of {array.shape}."
        )
    if word.startswith("binary") and array.size and not 0 <= array.min() <= array.max() <= 1:
        raise ShapeError(f"{word} needs targets from 0 to 1, got {array.min()} to {array.max()}.")
    return array.astype(array_dtype(out.dtype))


def labels(out: Spec, array: np.ndarray, word: str) -> np.ndarray:
    """A class for each position of the output, whose last axis is the classes."""
    if not out.rank or array.dtype.kind not in "iu" or array.shape[1:] != out.shape[:-1]:
        raise ShapeError(
            f"{word} needs one integer label for each output {('batch', *out.shape)}, "
            f"got {array.dtype} of shape {array.shape}.\n"
            f"  The last axis is the classes, so that labels are {('batch', *out.shape[:-1])}."
        )
    last = (out.shape[-1] or 0) - 1
    if array.size and not 0 <= array.min() <= array.max() <= last:
        raise ShapeError(
            f"{word} needs labels from 0 to {last}, got {array.min()} to {array.max()}."
        )
    return array.astype(np.int64)


def custom_loss(loss: Custom, ops: Any, outputs: Any, target: Any) -> Any:
    """The mean of what a loss of one's own makes of a batch."""
    value = loss.forward(ops, (*leaves(outputs), *leaves(target)))
    if not hasattr(value, "shape") or len(value.shape) > 1:
        shape = tuple(getattr(value, "shape", ())) or type(value).__name__
        raise ShapeError(
            f"{type(loss).__name__} must return one number for a batch or for each example, "
            f"got {shape}.\n  Take ops.mean or ops.sum over the other axes."
        )
    return ops.mean(value)


class VAELoss(Custom):
    """The loss of a variational autoencoder (Kingma and Welling 2014; beta: Higgins et al. 2017).

        loss = reconstruction(output, target) + beta * KL
        KL = -sum(1 + logvar - mean^2 - exp(logvar)) / 2

    KL is the distance of the code's normal distribution from the standard one: 0 for mean 0 and
    logvar 0. Sums are over all elements of an example; training takes the mean over the batch.

    Shape: ((*shape), (*code), (*code), (*shape)) -> (), of output, mean, logvar and target: the
        network's outputs are output, mean and logvar, in this order.
    Parameters: none.
    Fields:
        beta: the weight of KL.
        reconstruction: "squared_error", or "binary_cross_entropy" of outputs that are logits.
    Differs: no framework has such a loss.

    >>> VAELoss(beta=0.5).reconstruction
    'squared_error'
    """

    beta: float = fields.real(1.0, low=0)
    reconstruction: str = fields.choice(("squared_error", "binary_cross_entropy"), "squared_error")

    def out_spec(self, x: ValueSpec) -> ValueSpec:
        fits = isinstance(x, tuple) and len(x) == 4 and x[0].shape == x[3].shape
        if not fits or x[1].shape != x[2].shape:
            raise ShapeError(
                f"takes output, mean, logvar and target, of two shapes in pairs, got {shapes(x)}."
            )
        return x[0].with_shape(())

    def forward(self, ops: Any, x: Any) -> Any:  # type: ignore[override]
        output, mean, logvar, target = x
        if self.reconstruction == "squared_error":
            error = ops.square(output - target)
        else:
            # log(1 + exp(output)), which is the loss for target 0, without overflow
            error = ops.logaddexp(output, ops.zeros_like(output)) - target * output
        kl = -0.5 * (1 + logvar - ops.square(mean) - ops.exp(logvar))
        return self.summed(ops, error) + self.beta * self.summed(ops, kl)

    def summed(self, ops: Any, x: Any) -> Any:
        return ops.sum(x, axis=tuple(range(1, len(x.shape))))

"""The engines under Keras 3: how each one computes gradients and keeps float64."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from blocks._spec import leaves, map_value


class TensorFlow:
    """Gradients by a tape."""

    def precision(self, dtype: Any) -> AbstractContextManager[Any]:
        return nullcontext()

    def gradients(
        self, model: Any, x: Any, cotangent: Any, training: bool, variables: list[Any]
    ) -> tuple[Any, list[Any]]:
        import tensorflow as tf

        inputs = leaves(x)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(inputs)
            tape.watch([v.value for v in variables])
            y = model(x, training=training)
        wanted = [*inputs, *(v.value for v in variables)]
        grads = tape.gradient(leaves(y), wanted, leaves(cotangent), tf.UnconnectedGradients.ZERO)
        return grads[: len(inputs)], grads[len(inputs) :]


class Torch:
    """Gradients by autograd."""

    def precision(self, dtype: Any) -> AbstractContextManager[Any]:
        return nullcontext()

    def gradients(
        self, model: Any, x: Any, cotangent: Any, training: bool, variables: list[Any]
    ) -> tuple[Any, list[Any]]:
        import torch

        x = map_value(lambda a: a.detach().requires_grad_(), x)
        y = model(x, training=training)
        wanted = [*leaves(x), *(v.value for v in variables)]
        grads = torch.autograd.grad(leaves(y), wanted, leaves(cotangent), materialize_grads=True)
        return grads[: len(leaves(x))], grads[len(leaves(x)) :]


class Jax:
    """Gradients by a transformation of Keras's stateless call."""

    def precision(self, dtype: Any) -> AbstractContextManager[Any]:
        import jax

        return jax.enable_x64(True) if str(dtype) == "float64" else nullcontext()

    def gradients(
        self, model: Any, x: Any, cotangent: Any, training: bool, variables: list[Any]
    ) -> tuple[Any, list[Any]]:
        import jax

        state = [v.value for v in model.non_trainable_variables]

        def output(weights: list[Any], x: Any) -> Any:
            return model.stateless_call(weights, state, x, training=training)

        weights = [v.value for v in model.trainable_variables]
        y, back, new = jax.vjp(output, weights, x, has_aux=True)
        cotangent = map_value(lambda c, like: c.astype(like.dtype), cotangent, y)
        for variable, value in zip(model.non_trainable_variables, new, strict=True):
            variable.assign(value)
        dweights, dx = back(cotangent)
        by_variable = {id(v): g for v, g in zip(model.trainable_variables, dweights, strict=True)}
        return leaves(dx), [by_variable[id(v)] for v in variables]


ENGINES: dict[str, Any] = {"tensorflow": TensorFlow(), "torch": Torch(), "jax": Jax()}

"""The engines under Keras 3: how each one computes gradients, keeps float64 and takes an array.

Two of them make graphs of functions: those in `GRAPHS` do so with all that they compute.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from blocks._spec import floats, half, is_aligned, leaves, map_value, with_floats


class Engine:
    """What one engine does that another does not."""

    def random(self) -> dict[str, np.ndarray]:
        """The generators from which it draws beside the seeds that layers keep."""
        return {}

    def set_random(self, state: Mapping[str, np.ndarray]) -> None:
        """Set generators to what `random` returned."""


class TensorFlow(Engine):
    """Gradients by a tape."""

    traces = True  # training steps, which become a graph

    def graph(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function as this engine runs it."""
        return function

    def call(self, model: Any, x: Any, training: bool) -> Any:
        return self.graph(lambda x: model(x, training=training))(x)

    def precision(self, dtype: Any) -> AbstractContextManager[Any]:
        return nullcontext()

    def tensor(self, array: np.ndarray) -> Any:
        import tensorflow as tf

        # DLPack knows no bfloat16 of NumPy's, and TensorFlow ends the process at other memory
        if half(str(array.dtype)) or not array.size or not is_aligned(array):
            return tf.convert_to_tensor(array)
        return tf.experimental.dlpack.from_dlpack(array.__dlpack__())

    def whole(self, gradient: Any) -> Any:
        """A gradient as one array: that of an embedding is a list of rows."""
        import tensorflow as tf

        return tf.convert_to_tensor(gradient)

    def gradients(
        self, model: Any, x: Any, cotangent: Any, training: bool, variables: list[Any]
    ) -> tuple[Any, list[Any]]:
        import tensorflow as tf

        def backward(x: Any, cotangent: Any) -> Any:
            inputs = floats(x)
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(inputs)
                tape.watch([v.value for v in variables])
                y = model(x, training=training)
            wanted = [*inputs, *(v.value for v in variables)]
            seeds = [
                tf.cast(c, like.dtype) for c, like in zip(leaves(cotangent), leaves(y), strict=True)
            ]
            grads = tape.gradient(leaves(y), wanted, seeds, tf.UnconnectedGradients.ZERO)
            grads = list(map(self.whole, grads))
            return grads[: len(inputs)], grads[len(inputs) :]

        dx, dweights = self.graph(backward)(x, cotangent)
        return dx, dweights


class Torch(Engine):
    """Gradients by autograd.

    A Dropout without a seed of its own draws from torch's generator.
    """

    def random(self) -> dict[str, np.ndarray]:
        import torch

        return {"generator": torch.get_rng_state().numpy()}

    def set_random(self, state: Mapping[str, np.ndarray]) -> None:
        import torch

        if "generator" in state:
            torch.set_rng_state(torch.from_numpy(state["generator"].copy()))

    traces = False

    def whole(self, gradient: Any) -> Any:
        return gradient

    def precision(self, dtype: Any) -> AbstractContextManager[Any]:
        return nullcontext()

    def tensor(self, array: np.ndarray) -> Any:
        return array

    def gradients(
        self, model: Any, x: Any, cotangent: Any, training: bool, variables: list[Any]
    ) -> tuple[Any, list[Any]]:
        import torch

        inputs = [a.detach().requires_grad_() for a in floats(x)]
        frozen = [v.value for v in variables if not v.value.requires_grad]
        for weight in frozen:
            weight.requires_grad_(True)
        try:
            y = model(with_floats(x, inputs), training=training)
            wanted = [*inputs, *(v.value for v in variables)]
            pairs = zip(leaves(y), leaves(cotangent), strict=True)
            moving = [(like, c.to(like.dtype)) for like, c in pairs if like.requires_grad]
            outputs, seeds = [like for like, _ in moving], [c for _, c in moving]
            grads = torch.autograd.grad(outputs, wanted, seeds, materialize_grads=True)
        finally:
            for weight in frozen:
                weight.requires_grad_(False)
        return grads[: len(inputs)], grads[len(inputs) :]


class Jax(Engine):
    """Gradients by a transformation of Keras's stateless call."""

    traces = True

    def graph(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return function

    def call(self, model: Any, x: Any, training: bool) -> Any:
        def output(weights: list[Any], state: list[Any], x: Any) -> Any:
            return model.stateless_call(weights, state, x, training=training)

        weights = [v.value for v in model.trainable_variables]
        state = [v.value for v in model.non_trainable_variables]
        y, new = self.graph(output)(weights, state, x)
        self.assign(model, new)
        return y

    def assign(self, model: Any, state: list[Any]) -> None:
        for variable, value in zip(model.non_trainable_variables, state, strict=True):
            variable.assign(value)

    def whole(self, gradient: Any) -> Any:
        return gradient

    def precision(self, dtype: Any) -> AbstractContextManager[Any]:
        import jax

        return jax.enable_x64(True) if str(dtype) == "float64" else nullcontext()

    def tensor(self, array: np.ndarray) -> Any:
        import jax

        return jax.device_put(array, may_alias=True)

    def gradients(
        self, model: Any, x: Any, cotangent: Any, training: bool, variables: list[Any]
    ) -> tuple[Any, list[Any]]:
        import jax

        # Keras's two lists say what is trained; here the gradients of frozen ones are wanted too
        groups = model.trainable_variables, model.non_trainable_variables

        def backward(weights: dict[int, Any], state: list[Any], x: Any, cotangent: Any) -> Any:
            def output(weights: dict[int, Any], inputs: list[Any]) -> Any:
                values = [
                    [weights.get(id(v), held) for v, held in zip(*pair, strict=True)]
                    for pair in zip(groups, state, strict=True)
                ]
                return model.stateless_call(*values, with_floats(x, inputs), training=training)

            y, back, new = jax.vjp(output, weights, floats(x), has_aux=True)
            cotangent = map_value(lambda c, like: c.astype(like.dtype), cotangent, y)
            return back(cotangent), new

        weights = {id(v): v.value for v in variables}  # once, though it may hold several parameters
        state = [[v.value for v in group] for group in groups]
        (dweights, dx), new = self.graph(backward)(weights, state, x, cotangent)
        for variable, value in zip(groups[1], new, strict=True):
            if id(variable) not in weights:
                variable.assign(value)
        return dx, [dweights[id(v)] for v in variables]


class TensorFlowGraph(TensorFlow):
    """All that TensorFlow computes, as graphs."""

    def graph(self, function: Callable[..., Any]) -> Callable[..., Any]:
        import tensorflow as tf

        return tf.function(function)


class JaxGraph(Jax):
    """All that JAX computes, compiled."""

    def graph(self, function: Callable[..., Any]) -> Callable[..., Any]:
        import jax

        return jax.jit(function)


ENGINES: dict[str, Any] = {"tensorflow": TensorFlow(), "torch": Torch(), "jax": Jax()}
GRAPHS: dict[str, Any] = {"tensorflow": TensorFlowGraph(), "jax": JaxGraph()}

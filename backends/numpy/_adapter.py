"""How numpy models are built, read, written, run and trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import numpy as np

from backends._backend import Backend
from backends._rules import Binding
from backends.numpy import modules
from backends.numpy._common import rule
from blocks._spec import Node, array_dtype, half, is_float, leaves, map_value
from blocks._train import SGD

# Losses: the mean over the batch, and its gradient for the prediction.


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """The mean of -log softmax(logits)[label]."""
    rows = np.arange(len(labels))
    shifted = logits - logits.max(-1, keepdims=True)
    logp = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    gradient = np.exp(logp)
    gradient[rows, labels] -= 1
    return float(-logp[rows, labels].mean()), gradient / len(labels)


def mse(prediction: np.ndarray, target: np.ndarray) -> tuple[float, np.ndarray]:
    """The mean of (prediction - target)^2 over all elements."""
    error = prediction - target
    return float((error**2).mean()), 2 * error / error.size


LOSSES: dict[str, Callable[..., tuple[float, np.ndarray]]] = {
    "cross_entropy": cross_entropy,
    "mse": mse,
}


class NumpyBackend(Backend):
    """Reference models: `modules.Layer`."""

    name = "numpy"
    layout = None
    rules = rule
    helpers: ClassVar = modules.FAMILIES
    imports: ClassVar = {
        "math": "import math",
        "warnings": "import warnings",
        "einops": "import einops",
        "np": "import numpy as np",
        "anp": "import autograd.numpy as anp",
        "make_vjp": "from autograd import make_vjp",
        "getval": "from autograd.tracer import getval",
    }
    setup: ClassVar = {"rng": "rng = np.random.default_rng({seed})"}

    def find(self, model: Any, binding: Binding) -> tuple[Any, dict[str, np.ndarray], str]:
        """The layer, the one of its dicts that holds the parameter, and its name there."""
        *layers, name = f"{binding.module}.{binding.attribute}".lstrip(".").split(".")
        for child in layers:
            model = model.children[child]
        return model, model.params if binding.spec.trainable else model.state, name

    def read(self, model: Any, binding: Binding) -> np.ndarray:
        _, arrays, name = self.find(model, binding)
        return arrays[name].copy()

    def write(self, model: Any, binding: Binding, array: np.ndarray) -> None:
        layer, arrays, name = self.find(model, binding)
        arrays[name] = widened(array.astype(array_dtype(binding.spec.dtype)))
        layer.grads = {name: np.zeros_like(p) for name, p in layer.params.items()}

    def sizes(self, model: Any) -> tuple[int, int]:
        trainable = sum(value.size for value, _ in model.param())
        state = (a for layer in model.layers() for a in layer.state.values())
        return trainable, sum(a.size for a in state)

    def forward(self, node: Node, model: Any, x: Any, training: bool) -> Any:
        return model(map_value(widened, x), training)

    def gradients(
        self,
        node: Node,
        model: Any,
        x: Any,
        cotangent: Any,
        training: bool,
        bindings: Iterable[Binding],
    ) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
        model.zero_grad()
        model(map_value(widened, x), training)
        dx = model.backward(map_value(widened, cotangent))
        found = {b.path: self.find(model, b) for b in bindings if b.spec.trainable}
        return [g for g, a in zip(leaves(dx), leaves(x), strict=True) if is_float(a)], {
            path: layer.grads[name].copy() for path, (layer, _, name) in found.items()
        }

    def trainer(
        self, node: Node, model: Any, loss: str, optimizer: SGD
    ) -> Callable[[np.ndarray, np.ndarray], float]:
        compute = LOSSES[loss]
        velocity = [np.zeros_like(value) for value, _ in model.param()]

        def step(x: np.ndarray, y: np.ndarray) -> float:
            model.zero_grad()
            value, gradient = compute(model(map_value(widened, x), training=True), y)
            model.backward(gradient)
            for (w, g), v in zip(model.param(), velocity, strict=True):
                v *= optimizer.momentum
                v += g
                w -= optimizer.learning_rate * (
                    g + optimizer.momentum * v if optimizer.nesterov else v
                )
            return value

        return step


def widened(array: np.ndarray) -> np.ndarray:
    """Numbers of 16 bits in 32: the reference computes no narrower, and only rounds at the ends."""
    return array.astype(np.float32) if half(str(array.dtype)) else array


backend = NumpyBackend()
__all__ = ["backend"]

"""NumPy: the reference, and the living definition of every block.

It works in the layout of the program, in float32 or float64, with layers from `numpy_modules.py`
whose backward is written out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import numpy as np

from backends import numpy_modules
from backends._backend import Backend
from backends._expression import Name, call, optional
from backends._rules import Binding, Rules, listed, own_axis
from blocks._spec import Node
from blocks._train import SGD
from blocks.activation import Activation, LogSoftmax, Softmax
from blocks.combine import Parallel, Residual, Sequential
from blocks.conv import Conv
from blocks.linear import Dense
from blocks.norm import BatchNorm, GroupNorm, LayerNorm, RMSNorm
from blocks.pool import AvgPool, GlobalAvgPool, GlobalMaxPool, MaxPool
from blocks.regularisation import Dropout
from blocks.shape import Crop, Flatten, Pad, Permute, Reshape
from blocks.value import Identity

rule = Rules("numpy")
RNG = Name("rng")


def channel_axis(node: Node) -> Any:
    """Where the channels are in an array with its batch axis."""
    return optional(-1 if node.in_spec.layout == "channels_last" else 1, -1)


# linear


@rule(Dense, kernel="kernel", bias="bias")
def dense(node: Node) -> Any:
    use_bias = optional(node.form.use_bias, True)
    return call("Dense", node.in_spec.shape[-1], node.form.features, use_bias=use_bias, rng=RNG)


# conv


@rule(Conv, kernel="kernel", bias="bias")
def conv(node: Node) -> Any:
    block = node.form
    return call(
        "Conv",
        node.in_spec.channels,
        block.features,
        kernel_size=block.kernel_size,
        stride=block.stride,
        padding=node.resolved["padding"],
        dilation=block.dilation,
        groups=optional(block.groups, 1),
        use_bias=optional(block.use_bias, True),
        channel_axis=channel_axis(node),
        rng=RNG,
    )


# pool


@rule(MaxPool)
def max_pool(node: Node) -> Any:
    return pool(node, "MaxPool")


@rule(AvgPool)
def avg_pool(node: Node) -> Any:
    return pool(node, "AvgPool", count_include_pad=optional(node.form.count_include_pad, False))


def pool(node: Node, name: str, **options: Any) -> Any:
    block, padding = node.form, node.resolved["padding"]
    axis = channel_axis(node)
    return call(name, block.kernel_size, block.stride, padding, **options, channel_axis=axis)


@rule(GlobalAvgPool)
def global_avg_pool(node: Node) -> Any:
    return call("GlobalAvgPool", channel_axis=channel_axis(node))


@rule(GlobalMaxPool)
def global_max_pool(node: Node) -> Any:
    return call("GlobalMaxPool", channel_axis=channel_axis(node))


# norm


@rule(BatchNorm, scale="scale", bias="bias", mean="mean", var="var")
def batch_norm(node: Node) -> Any:
    block = node.form
    return call(
        "BatchNorm",
        node.in_spec.channels,
        epsilon=block.epsilon,
        decay=block.decay,
        use_scale=optional(block.use_scale, True),
        use_bias=optional(block.use_bias, True),
        channel_axis=channel_axis(node),
    )


@rule(LayerNorm, scale="scale", bias="bias")
def layer_norm(node: Node) -> Any:
    block = node.form
    return call(
        "LayerNorm",
        node.in_spec.shape[-len(block.axes) :],
        epsilon=block.epsilon,
        use_scale=optional(block.use_scale, True),
        use_bias=optional(block.use_bias, True),
    )


@rule(GroupNorm, scale="scale", bias="bias")
def group_norm(node: Node) -> Any:
    block = node.form
    return call(
        "GroupNorm",
        node.in_spec.channels,
        block.groups,
        epsilon=block.epsilon,
        use_scale=optional(block.use_scale, True),
        use_bias=optional(block.use_bias, True),
        channel_axis=channel_axis(node),
    )


@rule(RMSNorm, scale="scale")
def rms_norm(node: Node) -> Any:
    block = node.form
    shape = node.in_spec.shape[-len(block.axes) :]
    use_scale = optional(block.use_scale, True)
    return call("RMSNorm", shape, epsilon=block.epsilon, use_scale=use_scale)


# activation

ACTIVATIONS = {
    "relu": "ReLU",
    "relu6": "ReLU6",
    "leaky_relu": "LeakyReLU",
    "elu": "ELU",
    "selu": "SELU",
    "celu": "CELU",
    "gelu": "GELU",
    "gelu_tanh": "TanhGELU",
    "silu": "SiLU",
    "mish": "Mish",
    "softplus": "Softplus",
    "softsign": "Softsign",
    "sigmoid": "Sigmoid",
    "log_sigmoid": "LogSigmoid",
    "tanh": "Tanh",
    "hard_sigmoid": "HardSigmoid",
    "hard_silu": "HardSiLU",
    "hard_tanh": "HardTanh",
    "tanh_shrink": "TanhShrink",
    "soft_shrink": "SoftShrink",
    "hard_shrink": "HardShrink",
}


@rule(Activation)
def activation(node: Node) -> Any:
    block = node.form
    numbers = {"slope": block.slope, "alpha": block.alpha, "threshold": block.threshold}
    stated = {name: number for name, number in numbers.items() if number is not None}
    return call(ACTIVATIONS[block.kind], **stated)


@rule(Softmax)
def softmax(node: Node) -> Any:
    return call("Softmax", axis=own_axis(node))


@rule(LogSoftmax)
def log_softmax(node: Node) -> Any:
    return call("LogSoftmax", axis=own_axis(node))


# regularisation


@rule(Dropout)
def dropout(node: Node) -> Any:
    return call("Dropout", node.form.rate, rng=RNG)


# shape


@rule(Flatten)
def flatten(node: Node) -> Any:
    return call("Flatten")


@rule(Permute)
def permute(node: Node) -> Any:
    return call("Permute", 0, *(axis + 1 for axis in node.form.axes))


@rule(Reshape)
def reshape(node: Node) -> Any:
    return call("Reshape", node.out_spec.shape)


@rule(Pad)
def pad(node: Node) -> Any:
    block = node.form
    if block.mode == "constant":
        return call("ConstantPad", block.pads, block.value)
    return call("EdgePad", block.pads, block.mode)


@rule(Crop)
def crop(node: Node) -> Any:
    return call("Crop", node.form.crops)


# value


@rule(Identity)
def identity(node: Node) -> Any:
    return call("Identity")


# combine


@rule(Sequential)
def sequential(node: Node, children: dict[str, Any]) -> Any:
    return call("Sequential", listed(children))


@rule(Residual)
def residual(node: Node, children: dict[str, Any]) -> Any:
    if node.form.merge == "add":
        shortcut = optional(children.get("shortcut"), None)
        return call("Residual", children["body"], shortcut=shortcut)
    around = {"shortcut": children.get("shortcut", call("Identity"))}
    return merged(node, around | {"body": children["body"]})


@rule(Parallel)
def parallel(node: Node, children: dict[str, Any]) -> Any:
    return merged(node, listed(children))


def merged(node: Node, branches: Any) -> Any:
    axis = node.resolved.get("axis", 0) + 1
    return call("Parallel", branches, merge=node.form.merge, axis=optional(axis, 1))


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
    """Reference models: `numpy_modules.Layer`."""

    name = "numpy"
    layout = None
    rules = rule
    helpers: ClassVar = numpy_modules
    imports: ClassVar = {"math": "import math", "np": "import numpy as np"}
    setup: ClassVar = {"rng": "rng = np.random.default_rng({seed})"}

    def find(self, model: Any, binding: Binding) -> tuple[Any, dict[str, np.ndarray]]:
        """The layer, and the one of its dicts that holds the parameter."""
        for name in filter(None, binding.module.split(".")):
            model = model.children[name]
        return model, model.params if binding.spec.trainable else model.state

    def read(self, model: Any, binding: Binding) -> np.ndarray:
        return self.find(model, binding)[1][binding.attribute].copy()

    def write(self, model: Any, binding: Binding, array: np.ndarray) -> None:
        layer, arrays = self.find(model, binding)
        arrays[binding.attribute] = array.astype(binding.spec.dtype)
        layer.grads = {name: np.zeros_like(p) for name, p in layer.params.items()}

    def sizes(self, model: Any) -> tuple[int, int]:
        trainable = sum(value.size for value, _ in model.param())
        state = (a for layer in model.layers() for a in layer.state.values())
        return trainable, sum(a.size for a in state)

    def forward(self, model: Any, x: Any, training: bool) -> Any:
        return model(x, training)

    def gradients(
        self, model: Any, x: Any, cotangent: Any, training: bool, bindings: Iterable[Binding]
    ) -> tuple[Any, dict[str, np.ndarray]]:
        model.zero_grad()
        model(x, training)
        dx = model.backward(cotangent)
        return dx, {
            b.path: self.find(model, b)[0].grads[b.attribute].copy()
            for b in bindings
            if b.spec.trainable
        }

    def trainer(
        self, model: Any, loss: str, optimizer: SGD
    ) -> Callable[[np.ndarray, np.ndarray], float]:
        compute = LOSSES[loss]
        velocity = [np.zeros_like(value) for value, _ in model.param()]

        def step(x: np.ndarray, y: np.ndarray) -> float:
            model.zero_grad()
            value, gradient = compute(model(x, training=True), y)
            model.backward(gradient)
            for (w, g), v in zip(model.param(), velocity, strict=True):
                v *= optimizer.momentum
                v += g
                w -= optimizer.learning_rate * (
                    g + optimizer.momentum * v if optimizer.nesterov else v
                )
            return value

        return step


backend = NumpyBackend()
__all__ = ["backend"]

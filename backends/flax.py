"""Flax: stock `nnx` layers and functions in `nnx.Sequential`s, channels last.

Where nnx has no layer, or one with another meaning, `flax_modules.py` has the smallest that does:
functions with the stated gradient at their kinks, LayerNorm over several axes, the combinators.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from backends import flax_modules
from backends._backend import Backend
from backends._expression import Let, Name, call, optional
from backends._rules import Binding, Program, Rules, each, flat, own_axis
from blocks._spec import Node, leaves, map_value
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

rule = Rules("flax")


def layer(node: Node, function: str, *args: Any, **kwargs: Any) -> Any:
    """A layer with parameters: their dtype, and the random numbers for their first values."""
    dtype = Name(f"jnp.{node.in_spec.dtype}")
    param_dtype = optional(dtype, Name("jnp.float32"))
    return call(function, *args, **kwargs, param_dtype=param_dtype, rngs=Name("rngs"))


def partial(function: str, **kwargs: Any) -> Any:
    """A function of the value alone."""
    return call("partial", Name(function), **kwargs)


# linear


@rule(Dense, kernel="kernel", bias="bias")
def dense(node: Node) -> Any:
    use_bias = optional(node.form.use_bias, True)
    return layer(node, "nnx.Linear", node.in_spec.shape[-1], node.form.features, use_bias=use_bias)


# conv


@rule(Conv, kernel="kernel", bias="bias")
def conv(node: Node) -> Any:
    block = node.form
    return layer(
        node,
        "nnx.Conv",
        node.in_spec.channels,
        block.features,
        kernel_size=block.kernel_size,
        strides=optional(each(block.stride), 1),
        padding=padding(node),
        kernel_dilation=optional(each(block.dilation), 1),
        feature_group_count=optional(block.groups, 1),
        use_bias=optional(block.use_bias, True),
    )


# pool


@rule(MaxPool)
def max_pool(node: Node) -> Any:
    return pool(node, "nnx.max_pool")


@rule(AvgPool)
def avg_pool(node: Node) -> Any:
    counted = optional(node.form.count_include_pad, True)
    return pool(node, "nnx.avg_pool", count_include_pad=counted)


def pool(node: Node, function: str, **options: Any) -> Any:
    block = node.form
    pads = optional(padding(node), "VALID")
    return partial(
        function,
        window_shape=block.kernel_size,
        strides=block.stride,
        padding=pads,
        **options,
    )


def padding(node: Node) -> Any:
    """Padding in Flax's words; its "SAME" is the block's own."""
    pads = node.resolved["padding"]
    if not any(map(sum, pads)):
        return "VALID"
    return "SAME" if node.resolved["same"] else pads


@rule(GlobalAvgPool)
def global_avg_pool(node: Node) -> Any:
    return partial("jnp.mean", axis=tuple(range(1, node.in_spec.rank)))


@rule(GlobalMaxPool)
def global_max_pool(node: Node) -> Any:
    return partial("jnp.max", axis=tuple(range(1, node.in_spec.rank)))


# norm


@rule(BatchNorm, scale="scale", bias="bias", mean="mean", var="var")
def batch_norm(node: Node) -> Any:
    block = node.form
    return layer(
        node,
        "nnx.BatchNorm",
        node.in_spec.channels,
        momentum=optional(block.decay, 0.99),
        epsilon=optional(block.epsilon, 1e-5),
        use_fast_variance=False,
        use_scale=optional(block.use_scale, True),
        use_bias=optional(block.use_bias, True),
    )


@rule(LayerNorm, scale=("scale", flat), bias=("bias", flat))
def layer_norm(node: Node) -> Any:
    block = node.form
    shape = node.in_spec.shape[-len(block.axes) :]
    several = len(shape) > 1
    return layer(
        node,
        "LayerNorm" if several else "nnx.LayerNorm",
        shape if several else shape[0],
        epsilon=optional(block.epsilon, 1e-6),
        use_fast_variance=False,
        use_scale=optional(block.use_scale, True),
        use_bias=optional(block.use_bias, True),
    )


@rule(GroupNorm, scale="scale", bias="bias")
def group_norm(node: Node) -> Any:
    block = node.form
    return layer(
        node,
        "nnx.GroupNorm",
        node.in_spec.channels,
        num_groups=optional(block.groups, 32),
        epsilon=optional(block.epsilon, 1e-6),
        use_fast_variance=False,
        use_scale=optional(block.use_scale, True),
        use_bias=optional(block.use_bias, True),
    )


@rule(RMSNorm, scale=("scale", flat))
def rms_norm(node: Node) -> Any:
    block = node.form
    shape = node.in_spec.shape[-len(block.axes) :]
    several = len(shape) > 1
    return layer(
        node,
        "RMSNorm" if several else "nnx.RMSNorm",
        shape if several else shape[0],
        epsilon=optional(block.epsilon, 1e-6),
        use_scale=optional(block.use_scale, True),
    )


# activation

ACTIVATIONS: dict[str, Callable[[Activation], Any]] = {
    "relu": lambda a: Name("nnx.relu"),
    "relu6": lambda a: Name("jax.nn.relu6"),
    "leaky_relu": lambda a: partial("leaky_relu", slope=a.slope),
    "elu": lambda a: partial("nnx.elu", alpha=a.alpha) if a.alpha != 1 else Name("nnx.elu"),
    "selu": lambda a: Name("nnx.selu"),
    "celu": lambda a: partial("nnx.celu", alpha=a.alpha) if a.alpha != 1 else Name("nnx.celu"),
    "gelu": lambda a: partial("nnx.gelu", approximate=False),
    "gelu_tanh": lambda a: partial("nnx.gelu", approximate=True),
    "silu": lambda a: Name("nnx.silu"),
    "mish": lambda a: Name("jax.nn.mish"),
    "softplus": lambda a: Name("nnx.softplus"),
    "softsign": lambda a: Name("nnx.soft_sign"),
    "sigmoid": lambda a: Name("nnx.sigmoid"),
    "log_sigmoid": lambda a: Name("nnx.log_sigmoid"),
    "tanh": lambda a: Name("nnx.tanh"),
    "hard_sigmoid": lambda a: Name("nnx.hard_sigmoid"),
    "hard_silu": lambda a: Name("nnx.hard_silu"),
    "hard_tanh": lambda a: Name("hard_tanh"),
    "tanh_shrink": lambda a: Name("tanh_shrink"),
    "soft_shrink": lambda a: partial("soft_shrink", threshold=a.threshold),
    "hard_shrink": lambda a: partial("hard_shrink", threshold=a.threshold),
}


@rule(Activation)
def activation(node: Node) -> Any:
    return ACTIVATIONS[node.form.kind](node.form)


@rule(Softmax)
def softmax(node: Node) -> Any:
    return along_axis(node, "nnx.softmax")


@rule(LogSoftmax)
def log_softmax(node: Node) -> Any:
    return along_axis(node, "nnx.log_softmax")


def along_axis(node: Node, function: str) -> Any:
    axis = own_axis(node)
    return Name(function) if axis == -1 else partial(function, axis=axis)


# regularisation


@rule(Dropout)
def dropout(node: Node) -> Any:
    return call("nnx.Dropout", node.form.rate, rngs=Name("rngs"))


# shape


@rule(Flatten)
def flatten(node: Node) -> Any:
    return Name("flatten")


@rule(Permute)
def permute(node: Node) -> Any:
    return partial("jnp.transpose", axes=(0, *(axis + 1 for axis in node.form.axes)))


@rule(Reshape)
def reshape(node: Node) -> Any:
    return partial("reshape", shape=node.out_spec.shape)


@rule(Pad)
def pad(node: Node) -> Any:
    block = node.form
    value = {"constant_values": block.value} if block.mode == "constant" else {}
    pads = ((0, 0), *block.pads)
    return partial("jnp.pad", pad_width=pads, mode=optional(block.mode, "constant"), **value)


@rule(Crop)
def crop(node: Node) -> Any:
    return partial("crop", crops=node.form.crops)


# value


@rule(Identity)
def identity(node: Node) -> Any:
    return Name("identity")


# combine


@rule(Sequential, child="layers.{index}")
def sequential(node: Node, children: dict[str, Any]) -> Any:
    return call("nnx.Sequential", *children.values())


@rule(Residual)
def residual(node: Node, children: dict[str, Any]) -> Any:
    shortcut = optional(children.get("shortcut"), None)
    if node.form.merge == "add":
        return call("Residual", children["body"], shortcut=shortcut)
    return call("MergedResidual", children["body"], shortcut=shortcut, **merge(node))


@rule(Parallel, child="branches.{index}")
def parallel(node: Node, children: dict[str, Any]) -> Any:
    return call("Parallel", list(children.values()), **merge(node))


def merge(node: Node) -> dict[str, Any]:
    """How outputs are merged; the last axis is -1, as Flax users write it."""
    axis = own_axis(node) if "axis" in node.resolved else -1
    return {"merge": node.form.merge, "axis": optional(axis, -1)}


def cross_entropy(logits: Any, labels: Any) -> Any:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def mse(prediction: Any, target: Any) -> Any:
    return jnp.mean((prediction - target) ** 2)


LOSSES: dict[str, Callable[..., Any]] = {"cross_entropy": cross_entropy, "mse": mse}


class FlaxBackend(Backend):
    """Flax models: `nnx.Module`."""

    name = "flax"
    layout = "channels_last"
    rules = rule
    helpers: ClassVar = flax_modules
    imports: ClassVar = {
        "math": "import math",
        "partial": "from functools import partial",
        "reduce": "from functools import reduce",
        "jax": "import jax",
        "jnp": "import jax.numpy as jnp",
        "lax": "from jax import lax",
        "nnx": "from flax import nnx",
    }
    setup: ClassVar = {"rngs": "rngs = nnx.Rngs({seed})"}

    def program(self, node: Node) -> Program:
        program = super().program(node)
        root = program.expression
        inner = root.value if isinstance(root, Let) else root
        if isinstance(inner, Name) or inner.function == "partial":  # a function is no module
            return replace(program, expression=call("nnx.Sequential", root))
        return program

    def build(self, program: Program, seed: int) -> Any:
        with precision(program.node.dtype):
            return super().build(program, seed)

    def body(self, program: Program) -> str:
        wide = 'jax.config.update("jax_enable_x64", True)\n'
        return (wide if program.node.dtype == "float64" else "") + super().body(program)

    def read(self, model: Any, binding: Binding) -> np.ndarray:
        return np.array(self.find(model, binding).get_value())

    def write(self, model: Any, binding: Binding, array: np.ndarray) -> None:
        with precision(binding.spec.dtype):
            self.find(model, binding).set_value(jnp.asarray(array))

    @staticmethod
    def find(model: Any, binding: Binding) -> Any:
        for part in filter(None, binding.module.split(".")):
            model = model[int(part)] if part.isdigit() else getattr(model, part)
        return getattr(model, binding.attribute)

    def sizes(self, model: Any) -> tuple[int, int]:
        kinds = (nnx.Param, nnx.BatchStat)
        trainable, state = (jax.tree.leaves(nnx.state(model, kind)) for kind in kinds)
        return sum(a.size for a in trainable), sum(a.size for a in state)

    def forward(self, model: Any, x: Any, training: bool) -> Any:
        with precision(leaves(x)[0].dtype):
            return map_value(np.asarray, run(in_mode(model, training), map_value(jnp.asarray, x)))

    def gradients(
        self, model: Any, x: Any, cotangent: Any, training: bool, bindings: Iterable[Binding]
    ) -> tuple[Any, dict[str, np.ndarray]]:
        with precision(leaves(x)[0].dtype):
            viewed = in_mode(model, training)
            arrays = map_value(jnp.asarray, x), map_value(jnp.asarray, cotangent)
            weights, dx = run_backward(viewed, *arrays)
            return map_value(np.asarray, dx), {
                b.path: self.read(weights, b) for b in bindings if b.spec.trainable
            }

    def trainer(
        self, model: Any, loss: str, optimizer: SGD
    ) -> Callable[[np.ndarray, np.ndarray], float]:
        compute = LOSSES[loss]
        rule = optax.sgd(
            optimizer.learning_rate,
            momentum=optimizer.momentum or None,
            nesterov=optimizer.nesterov,
        )

        @nnx.jit
        def train(model: Any, native: Any, x: Any, y: Any) -> Any:
            value, grads = nnx.value_and_grad(lambda m: compute(m(x), y))(model)
            native.update(model, grads)
            return value

        native = nnx.Optimizer(model, rule, wrt=nnx.Param)

        def step(x: np.ndarray, y: np.ndarray) -> float:
            with precision(x.dtype):
                return float(train(in_mode(model, True), native, x, y))

        return step


def precision(dtype: Any) -> Any:
    """JAX drops float64 unless told otherwise; this tells it so for one call only."""
    return jax.enable_x64(True) if np.dtype(dtype) == np.float64 else nullcontext()


def in_mode(model: Any, training: bool) -> Any:
    """The same variables in training or evaluation mode, whatever mode the model is in."""
    flags = {"deterministic": not training, "use_running_average": not training}
    return nnx.view(model, raise_if_not_found=False, **flags)


@nnx.jit
def run(model: Any, x: Any) -> Any:
    return call_model(model, x)


def call_model(model: Any, x: Any) -> Any:
    """As nnx.Sequential does it: a tuple arrives as several arguments."""
    return model(*x) if isinstance(x, tuple) else model(x)


@nnx.jit
def run_backward(model: Any, x: Any, cotangent: Any) -> Any:
    """A model that holds the gradients of its parameters, and the gradient of the input."""
    graph, weights, rest = nnx.split(model, nnx.Param, ...)

    def output(weights: Any, x: Any) -> Any:
        inner = nnx.merge(graph, weights, rest, copy=True)
        return call_model(inner, x), nnx.split(inner, nnx.Param, ...)[2]

    _, back, rest = jax.vjp(output, weights, x, has_aux=True)
    nnx.update(model, rest)
    dweights, dx = back(cotangent)
    return nnx.merge(graph, dweights, rest), dx


backend = FlaxBackend()
__all__ = ["backend"]

"""Keras 3: a functional `keras.Model` of stock layers, channels last, under the engine that is set.

A functional model has no modules for Sequential or Residual: layers are called on values one after
the other. So rules here return steps: a layer or a function (`call`), `Pipe` of several steps, or
`Join` of branches; `Tracer` writes them as the statements that `build` runs and `source` prints.

The engine is the one that KERAS_BACKEND names, else the first installed of tensorflow, jax, torch.
"""

from __future__ import annotations

import importlib.util
import math
import os
import random
import re
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np

if "KERAS_BACKEND" not in os.environ:
    engines = [e for e in ("tensorflow", "jax", "torch") if importlib.util.find_spec(e)]
    if engines:
        os.environ["KERAS_BACKEND"] = engines[0]
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras

from backends._backend import Backend
from backends._expression import Let, Name, call, evaluate, literal, one_line, optional, render
from backends._keras_engine import ENGINES
from backends._rules import Binding, Program, Rules, each, own_axis
from blocks._errors import UnsupportedError, place
from blocks._spec import Node, leaves, map_value
from blocks._stack import run
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

rule = Rules("keras")


@dataclass(frozen=True)
class Op:
    """A function of the value, with the arguments that follow it; of several values if spread."""

    call: Any
    spread: bool = False


@dataclass(frozen=True)
class Pipe:
    """Steps one after the other."""

    steps: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Join:
    """Branches that receive the same value; the layer or Op that joins them, None for a tuple."""

    names: tuple[str, ...]
    branches: tuple[Any, ...]
    merge: Any


def layer(node: Node, function: str, *args: Any, suffix: str = "", **kwargs: Any) -> Any:
    """A layer named by its path."""
    return call(f"layers.{function}", *args, **kwargs, name=layer_name(node.home) + suffix)


def layer_name(path: str) -> str:
    """A path as Keras and its engines allow it: with "-" for "/".

    A "-" at the end keeps it apart from the names that Keras itself gives to operations.
    """
    name = path.replace("/", "-") or "root-block"
    taken = re.sub(r"_\d+$", "", name) in {*dir(keras.ops), "input_layer", "get_item"}
    return name + "-" if taken else name


def op(function: str, **kwargs: Any) -> Op:
    return Op(call(f"ops.{function}", **kwargs))


LAST: dict[str, Any] = {"data_format": optional("channels_last", "channels_last")}


# linear


@rule(Dense, kernel="kernel", bias="bias")
def dense(node: Node) -> Any:
    return layer(node, "Dense", node.form.features, use_bias=optional(node.form.use_bias, True))


# conv


@rule(Conv, kernel="kernel", bias="bias")
def conv(node: Node) -> Any:
    block, rank = node.form, len(node.form.kernel_size)
    # Keras refuses stride and dilation together: take every window, then drop the others.
    thinned = max(block.stride) > 1 and max(block.dilation) > 1
    stride = (1,) * rank if thinned else block.stride
    pads = node.resolved["padding"]
    native = native_padding(node) if not thinned else ("valid" if not padded(pads) else None)
    main = layer(
        node,
        f"Conv{rank}D",
        block.features,
        kernel_size=each(block.kernel_size),
        strides=optional(each(stride), 1),
        padding=optional(native or "valid", "valid"),
        dilation_rate=optional(each(block.dilation), 1),
        groups=optional(block.groups, 1),
        use_bias=optional(block.use_bias, True),
        **LAST,
    )
    before = () if native else (zero_padding(node),)
    return pipe(*before, main, *((thin(node),) if thinned else ()))


def thin(node: Node) -> Any:
    """Every stride-th window."""
    refuse_float64_in_3d(node)
    name = f"MaxPooling{len(node.form.stride)}D"
    return layer(node, name, 1, strides=each(node.form.stride), suffix="-thin", **LAST)


def native_padding(node: Node) -> str | None:
    """Padding in Keras's words, or None if it has none for it."""
    if not padded(node.resolved["padding"]):
        return "valid"
    return "same" if node.resolved["same"] else None


def padded(pads: Any) -> bool:
    return any(map(sum, pads))


def zero_padding(node: Node, suffix: str = "-pad") -> Any:
    pads = node.resolved["padding"]
    sizes = pads[0] if len(pads) == 1 else pads
    return layer(node, f"ZeroPadding{len(pads)}D", sizes, suffix=suffix, **LAST)


# pool


@rule(MaxPool)
def max_pool(node: Node) -> Any:
    native = native_padding(node)
    if native:
        return pool(node, "MaxPooling", native)
    pads = ((0, 0), *node.resolved["padding"], (0, 0))
    outside = op("pad", pad_width=pads, constant_values=call("float", "-inf"))
    return pipe(outside, pool(node, "MaxPooling", "valid"))


@rule(AvgPool)
def avg_pool(node: Node) -> Any:
    native = native_padding(node)
    # Keras's torch engine averages over the padded cells of "same" too.
    leaves_out = native == "same" and keras.backend.backend() != "torch"
    if native == "valid" or (leaves_out and not node.form.count_include_pad):
        return pool(node, "AveragePooling", native)
    mean = pipe(zero_padding(node), pool(node, "AveragePooling", "valid"))
    if node.form.count_include_pad:
        return mean
    # the mean over all cells, divided by the share of real cells
    real = pipe(
        op("ones_like"),
        zero_padding(node, "-pad-real"),
        pool(node, "AveragePooling", "valid", suffix="-real"),
    )
    return Join(("mean", "real"), (mean, real), Op(call("ops.divide"), spread=True))


def pool(node: Node, function: str, padding: Any, suffix: str = "") -> Any:
    kernel, stride = node.form.kernel_size, node.form.stride
    refuse_float64_in_3d(node)
    return layer(
        node,
        f"{function}{len(kernel)}D",
        each(kernel),
        strides=optional(each(stride), each(kernel)),
        padding=optional(padding, "valid"),
        suffix=suffix,
        **LAST,
    )


def refuse_float64_in_3d(node: Node) -> None:
    engine = keras.backend.backend()
    if node.in_spec.rank == 4 and node.dtype == "float64" and engine == "tensorflow":
        raise UnsupportedError(
            f"keras cannot lower {type(node.block).__name__} {place(node.path)}: TensorFlow has no "
            "3-D pooling in float64.\n  Use dtype='float32', or KERAS_BACKEND=jax or torch."
        )


@rule(GlobalAvgPool)
def global_avg_pool(node: Node) -> Any:
    return layer(node, f"GlobalAveragePooling{node.in_spec.rank - 1}D", **LAST)


@rule(GlobalMaxPool)
def global_max_pool(node: Node) -> Any:
    return layer(node, f"GlobalMaxPooling{node.in_spec.rank - 1}D", **LAST)


# norm


@rule(BatchNorm, scale="gamma", bias="beta", mean="moving_mean", var="moving_variance")
def batch_norm(node: Node) -> Any:
    block = node.form
    return layer(
        node,
        "BatchNormalization",
        momentum=optional(block.decay, 0.99),
        epsilon=optional(block.epsilon, 1e-3),
        center=optional(block.use_bias, True),
        scale=optional(block.use_scale, True),
    )


@rule(LayerNorm, scale="gamma", bias="beta")
def layer_norm(node: Node) -> Any:
    block = node.form
    return layer(
        node,
        "LayerNormalization",
        axis=optional(block.axes[0] if len(block.axes) == 1 else list(block.axes), -1),
        epsilon=optional(block.epsilon, 1e-3),
        center=optional(block.use_bias, True),
        scale=optional(block.use_scale, True),
    )


@rule(GroupNorm, scale="gamma", bias="beta")
def group_norm(node: Node) -> Any:
    block = node.form
    return layer(
        node,
        "GroupNormalization",
        groups=optional(block.groups, 32),
        epsilon=optional(block.epsilon, 1e-3),
        center=optional(block.use_bias, True),
        scale=optional(block.use_scale, True),
    )


@rule(RMSNorm, scale="scale")
def rms_norm(node: Node) -> Any:
    block = node.form
    axes = block.axes[0] if len(block.axes) == 1 else list(block.axes)
    if not block.use_scale:
        return op("rms_normalization", axis=optional(axes, -1), epsilon=block.epsilon)
    epsilon = optional(block.epsilon, 1e-6)
    return layer(node, "RMSNormalization", axis=optional(axes, -1), epsilon=epsilon)


# activation

# Kinds whose name is Keras's own are layers.Activation(kind); these are not, or take a number.
ACTIVATIONS: dict[str, Callable[[Node, Activation], Any]] = {
    "relu": lambda node, a: layer(node, "ReLU"),
    "leaky_relu": lambda node, a: layer(node, "LeakyReLU", negative_slope=optional(a.slope, 0.3)),
    "elu": lambda node, a: layer(node, "ELU", alpha=optional(a.alpha, 1.0)),
    # Keras's own celu and selu have other gradients at 0, on TensorFlow
    "celu": lambda node, a: celu(node, a.alpha),
    "selu": lambda node, a: pipe(
        layer(node, "ELU", alpha=1.6732632423543772), op("multiply", x2=1.0507009873554805)
    ),
    "gelu_tanh": lambda node, a: op("gelu", approximate=optional(True, True)),
    "soft_shrink": lambda node, a: op("soft_shrink", threshold=optional(a.threshold, 0.5)),
    "hard_shrink": lambda node, a: op("hard_shrink", threshold=optional(a.threshold, 0.5)),
}


@rule(Activation)
def activation(node: Node) -> Any:
    kind = node.form.kind
    if kind in ACTIVATIONS:
        return ACTIVATIONS[kind](node, node.form)
    return layer(node, "Activation", kind)


def celu(node: Node, alpha: Any) -> Any:
    """Alpha * elu(x / alpha)."""
    elu = layer(node, "ELU", alpha=optional(1.0, 1.0))
    return elu if alpha == 1 else pipe(op("multiply", x2=1 / alpha), elu, op("multiply", x2=alpha))


@rule(Softmax)
def softmax(node: Node) -> Any:
    return layer(node, "Softmax", axis=optional(own_axis(node), -1))


@rule(LogSoftmax)
def log_softmax(node: Node) -> Any:
    return op("log_softmax", axis=optional(own_axis(node), -1))


# regularisation


@rule(Dropout)
def dropout(node: Node) -> Any:
    return layer(node, "Dropout", node.form.rate)


# shape


@rule(Flatten)
def flatten(node: Node) -> Any:
    return layer(node, "Flatten", **LAST)


@rule(Permute)
def permute(node: Node) -> Any:
    return layer(node, "Permute", tuple(axis + 1 for axis in node.form.axes))


@rule(Reshape)
def reshape(node: Node) -> Any:
    return layer(node, "Reshape", node.out_spec.shape)


@rule(Pad)
def pad(node: Node) -> Any:
    block = node.form
    if block.mode == "edge":  # TensorFlow has no such padding
        return taken(node, [np.pad(np.arange(n), p, "edge") for n, p in sized(node, block.pads)])
    value = {"constant_values": block.value} if block.mode == "constant" else {}
    pads = ((0, 0), *block.pads)
    return op("pad", pad_width=pads, mode=optional(block.mode, "constant"), **value)


@rule(Crop)
def crop(node: Node) -> Any:
    crops = node.form.crops
    if crops[-1] == (0, 0) and 2 <= len(crops) <= 4:
        sizes = crops[0] if len(crops) == 2 else crops[:-1]
        last = LAST if len(crops) > 2 else {}  # Cropping1D knows no other format
        return layer(node, f"Cropping{len(crops) - 1}D", sizes, **last)
    return taken(node, [np.arange(n)[low : n - high] for n, (low, high) in sized(node, crops)])


def sized(node: Node, pairs: Any) -> list[tuple[int, Any]]:
    """Size and pair of each axis; Keras must know the sizes."""
    if None in node.in_spec.shape:
        raise UnsupportedError(
            f"keras cannot lower {type(node.block).__name__} {place(node.path)} at any length: "
            "TensorFlow has no such operation.\n  Give the size to infer."
        )
    return list(zip(node.in_spec.shape, pairs, strict=True))


def taken(node: Node, cells: list[np.ndarray]) -> Any:
    """Cells picked along each axis that changes."""
    steps = [
        op("take", indices=picked.tolist(), axis=axis)
        for axis, (picked, size) in enumerate(zip(cells, node.in_spec.shape, strict=True), 1)
        if picked.tolist() != list(range(size))
    ]
    return pipe(*steps)


# value


@rule(Identity)
def identity(node: Node) -> Any:
    return Pipe()


# combine


@rule(Sequential)
def sequential(node: Node, children: dict[str, Any]) -> Any:
    return Pipe(tuple(children.values()))


@rule(Residual)
def residual(node: Node, children: dict[str, Any]) -> Any:
    return merged(node, {"shortcut": children.get("shortcut", Pipe())} | children)


@rule(Parallel)
def parallel(node: Node, children: dict[str, Any]) -> Any:
    return merged(node, children)


MERGES = {"add": "Add", "multiply": "Multiply", "mean": "Average", "max": "Maximum"}


def merged(node: Node, children: dict[str, Any]) -> Any:
    names = tuple(name if name.isidentifier() else f"branch_{name}" for name in children)
    branches, merge = tuple(children.values()), node.form.merge
    if len(branches) == 1 and merge not in ("stack", "tuple"):
        return branches[0]  # Keras's merges refuse a single value
    if merge == "tuple":
        return Join(names, branches, None)
    if merge == "stack":
        return Join(names, branches, op("stack", axis=node.resolved["axis"] + 1))
    if merge == "concat":
        merge_layer = layer(node, "Concatenate", axis=optional(own_axis(node), -1))
        return Join(names, branches, merge_layer)
    return Join(names, branches, layer(node, MERGES[merge]))


def pipe(*steps: Any) -> Any:
    return steps[0] if len(steps) == 1 else Pipe(steps)


# Where Keras loses float64

if keras.backend.backend() == "tensorflow":
    rule.rounds(Activation, 1e-7, "TensorFlow takes the slope as a float32", kind="leaky_relu")
    rule.rounds(Activation, 1e-7, "Keras rounds the constants of gelu to float32", kind="gelu")
    rule.rounds(Activation, 1e-7, "Keras rounds the constants of gelu to float32", kind="gelu_tanh")
else:
    for block in (BatchNorm, LayerNorm, GroupNorm, RMSNorm, GlobalAvgPool, Activation, Dense):
        rule.rounds(block, 5e-5, "Keras promotes float64 to float32 there on this engine")


@dataclass(frozen=True)
class Statement:
    """`target = callee(source)`; a bare value if there is no callee, a layer alone if no source."""

    target: str
    callee: Any
    source: Any

    def run(self, values: dict[str, Any], namespace: dict[str, Any]) -> Any:
        source = map_names(values.__getitem__, self.source)
        match self.callee:
            case None:
                return source
            case str(name):
                return values[name](source)
            case Op(native, spread):
                options = evaluate(dict((*native.kwargs, *native.implied)), namespace)
                inputs = source if spread else [source]
                return evaluate(Name(native.function), namespace)(*inputs, **options)
        layer = evaluate(self.callee, namespace)
        return layer if self.source is None else layer(source)

    def code(self) -> str:
        source = map_names(Name, self.source)
        target, brackets = f"{self.target} = ", f"({one_line(source)})"
        match self.callee:
            case None:
                return target + one_line(source)
            case str(name):
                return f"{target}{name}{brackets}"
            case Op(native, spread):
                args = tuple(source) if spread else (source,)
                return render(replace(native, args=args), prefix=target)
        return render(self.callee, prefix=target, suffix="" if source is None else brackets)


def map_names(function: Callable[[str], Any], source: Any) -> Any:
    if isinstance(source, (list, tuple)):
        return type(source)(map(function, source))
    return None if source is None else function(source)


class Tracer:
    """Writes steps as statements on named values."""

    def __init__(self, used: set[str]) -> None:
        self.statements: list[Statement] = []
        self.used = used
        self.layers: dict[str, str] = {}  # name of a shared layer -> the variable that holds it

    def fresh(self, name: str) -> str:
        """A variable of that name, with a number if it is taken."""
        found, count = name, 1
        while found in self.used:
            count += 1
            found = f"{name}_{count}"
        self.used.add(found)
        return found

    def emit(self, target: str, callee: Any, source: Any) -> str:
        self.statements.append(Statement(target, callee, source))
        return target

    def trace(self, step: Any, x: str, target: str, shared: str = "") -> Generator[Any, Any, str]:
        """Write a step on the value `x`; returns the name of its result, `target` if it does
        anything. Layers inside a shared step get variables, so that each is made once.
        """
        match step:
            case Pipe(steps):
                for inner in steps:
                    x = yield self.trace(inner, x, target, shared)
                return x
            case Join():
                return (yield self.join(step, x, target, shared))
            case Let(name, inner):
                return (yield self.trace(inner, x, target, name))
            case Op():
                return self.emit(target, step, x)
        return self.emit(target, self.shared_layer(step, shared) if shared else step, x)

    def shared_layer(self, step: Any, shared: str) -> str:
        name = dict(step.kwargs)["name"]
        if name not in self.layers:
            self.layers[name] = self.emit(self.fresh(shared), step, None)
        return self.layers[name]

    def join(self, step: Join, x: str, target: str, shared: str) -> Generator[Any, Any, str]:
        """Branches in variables of their own; the last may overwrite the input."""
        results: list[str] = []
        for name, branch in zip(step.names[:-1], step.branches[:-1], strict=True):
            own = self.fresh(name)
            result = yield self.trace(branch, x, own, shared)
            if result == target:  # the input itself, which the last branch will overwrite
                result = self.emit(own, None, x)
            results.append(result)
        results.append((yield self.trace(step.branches[-1], x, target, shared)))
        if step.merge is None:
            return self.emit(target, None, tuple(results))
        own_layer = shared and not isinstance(step.merge, Op)
        merge = self.shared_layer(step.merge, shared) if own_layer else step.merge
        return self.emit(target, merge, results)


class KerasBackend(Backend):
    """Keras models: a functional `keras.Model`."""

    name = "keras"
    layout = "channels_last"
    rules = rule
    imports: ClassVar = {
        "keras": "import keras",
        "layers": "from keras import layers",
        "ops": "from keras import ops",
    }

    @property
    def engine(self) -> Any:
        return ENGINES[keras.backend.backend()]

    def statements(self, program: Program) -> tuple[list[Statement], str]:
        """The statements after `inputs = ...`, and the name of the result."""
        tracer = Tracer(self.reserved() | {"x"})
        out = run(tracer.trace(program.expression, "inputs", "x"))
        return tracer.statements, out

    def build(self, program: Program, seed: int) -> Any:
        dtype = program.node.dtype
        with self.engine.precision(dtype), policy(dtype), seeded(seed):
            values = {"inputs": map_value(evaluated(self.namespace(seed)), inputs_of(program))}
            statements, out = self.statements(program)
            for statement in statements:
                values[statement.target] = statement.run(values, self.namespace(seed))
            return keras.Model(values["inputs"], values[out])

    def body(self, program: Program) -> str:
        dtype = program.node.dtype
        lines = [] if dtype == "float32" else [f"keras.config.set_dtype_policy({literal(dtype)})"]
        lines.append(render(inputs_of(program), prefix="inputs = "))
        statements, out = self.statements(program)
        lines += [statement.code() for statement in statements]
        return "\n".join([*lines, f"model = keras.Model(inputs, {out})"])

    def read(self, model: Any, binding: Binding) -> np.ndarray:
        return keras.ops.convert_to_numpy(self.find(model, binding)).copy()

    def write(self, model: Any, binding: Binding, array: np.ndarray) -> None:
        with self.engine.precision(binding.spec.dtype):
            self.find(model, binding).assign(array)

    @staticmethod
    def find(model: Any, binding: Binding) -> Any:
        layer = model.get_layer(layer_name(binding.path.rpartition("/")[0]))
        return getattr(layer, binding.attribute)

    def sizes(self, model: Any) -> tuple[int, int]:
        trainable, state = model.trainable_weights, model.non_trainable_weights
        return sum(math.prod(w.shape) for w in trainable), sum(math.prod(w.shape) for w in state)

    def forward(self, model: Any, x: Any, training: bool) -> Any:
        with self.engine.precision(leaves(x)[0].dtype):
            y = model(map_value(tensor, x), training=training)
            return map_value(keras.ops.convert_to_numpy, y)

    def gradients(
        self, model: Any, x: Any, cotangent: Any, training: bool, bindings: Iterable[Binding]
    ) -> tuple[Any, dict[str, np.ndarray]]:
        variables = {b.path: self.find(model, b) for b in bindings if b.spec.trainable}
        with self.engine.precision(leaves(x)[0].dtype):
            tensors = map_value(tensor, x), map_value(tensor, cotangent)
            wanted = list(variables.values())
            dx, dweights = self.engine.gradients(model, *tensors, training, wanted)
            inputs = iter(map(keras.ops.convert_to_numpy, dx))
            arrays = map(keras.ops.convert_to_numpy, dweights)
            return map_value(lambda _: next(inputs), x), dict(zip(variables, arrays, strict=True))

    def trainer(
        self, model: Any, loss: str, optimizer: SGD
    ) -> Callable[[np.ndarray, np.ndarray], float]:
        dtype = model.dtype
        with self.engine.precision(dtype), policy(dtype):
            native = keras.optimizers.SGD(
                optimizer.learning_rate,
                # TensorFlow would round a Python float to float32
                momentum=np.float64(optimizer.momentum),
                nesterov=optimizer.nesterov,
            )
            model.compile(optimizer=native, loss=LOSSES[loss](dtype=dtype))

        def step(x: np.ndarray, y: np.ndarray) -> float:
            with self.engine.precision(dtype), policy(dtype):
                return float(model.train_on_batch(x, y))

        return step


LOSSES: dict[str, Callable[..., Any]] = {
    "cross_entropy": partial(keras.losses.SparseCategoricalCrossentropy, from_logits=True),
    "mse": keras.losses.MeanSquaredError,
}


def inputs_of(program: Program) -> Any:
    """keras.Input for each tensor that the network takes."""

    def one(spec: Any) -> Any:
        return call("keras.Input", spec.shape, dtype=optional(spec.dtype, "float32"))

    return map_value(one, program.node.in_spec)


def evaluated(namespace: dict[str, Any]) -> Callable[[Any], Any]:
    return lambda expression: evaluate(expression, namespace)


def tensor(array: np.ndarray) -> Any:
    """A native tensor of the array's own dtype."""
    return keras.ops.convert_to_tensor(array, dtype=str(array.dtype))


@contextmanager
def policy(dtype: str) -> Iterator[None]:
    """Make layers and metrics of that dtype, then restore what was set."""
    before = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_dtype_policy(dtype)
    keras.config.set_floatx(dtype)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before[0])
        keras.config.set_floatx(before[1])


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Keras draws the seeds of initialisers from Python's generator; give it one for a while."""
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)


backend = KerasBackend()
__all__ = ["backend"]

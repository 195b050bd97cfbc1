"""PyTorch: stock `nn` modules in named `nn.Sequential`s, channels first.

Where a stock module cannot express a block, `torch_modules.py` has the smallest one that can: Conv
and AvgPool with unequal padding, BatchNorm (torch's running variance is the unbiased one),
LayerNorm with a bias alone, and the combinators that torch lacks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from backends import torch_modules
from backends._backend import Backend
from backends._expression import call, optional
from backends._rules import Binding, Program, Rules, each, listed, out_first, own_axis
from blocks._errors import UnsupportedError, place
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

rule = Rules("torch")


# linear


@rule(Dense, kernel=("weight", out_first), bias="bias")
def dense(node: Node) -> Any:
    bias = optional(node.form.use_bias, True)
    return call("nn.Linear", node.in_spec.shape[-1], node.form.features, bias=bias)


# conv


@rule(Conv, kernel=("weight", out_first), bias="bias")
def conv(node: Node) -> Any:
    block, rank = node.form, len(node.form.kernel_size)
    pads = node.resolved["padding"]
    padding: dict[str, Any]
    if symmetric(pads):
        name, padding = f"nn.Conv{rank}d", {"padding": optional(each(before(pads)), 0)}
    elif node.resolved["same"] and set(block.stride) == {1}:
        name, padding = f"nn.Conv{rank}d", {"padding": "same"}
    else:
        name, padding = f"PaddedConv{rank}d", {"pads": last_first(pads)}
    return call(
        name,
        node.in_spec.channels,
        block.features,
        kernel_size=each(block.kernel_size),
        stride=optional(each(block.stride), 1),
        **padding,
        dilation=optional(each(block.dilation), 1),
        groups=optional(block.groups, 1),
        bias=optional(block.use_bias, True),
    )


# pool


@rule(MaxPool)
def max_pool(node: Node) -> Any:
    return pool(node, "nn.MaxPool", call("float", "-inf"))


@rule(AvgPool)
def avg_pool(node: Node) -> Any:
    pads, counted = node.resolved["padding"], node.form.count_include_pad
    if not counted and not pools_natively(node):
        name = f"PaddedAvgPool{len(pads)}d"
        return call(name, *window(node), pads=last_first(pads))
    return pool(node, "nn.AvgPool", 0.0, count_include_pad=optional(counted, True))


def pool(node: Node, name: str, outside: Any, **options: Any) -> Any:
    """A stock pool, after a pad with `outside` where torch's own padding cannot do it."""
    pads = node.resolved["padding"]
    rank = len(pads)
    if pools_natively(node):
        padding = optional(each(before(pads)), 0)
        return call(f"{name}{rank}d", *window(node), padding=padding, **options)
    pad = call(f"nn.ConstantPad{rank}d", last_first(pads), outside)
    return call("nn.Sequential", pad, call(f"{name}{rank}d", *window(node)))


def pools_natively(node: Node) -> bool:
    """Torch pads both ends of an axis alike, by at most half the window."""
    pads = node.resolved["padding"]
    sizes = zip(before(pads), node.form.kernel_size, strict=True)
    return symmetric(pads) and all(2 * pad <= kernel for pad, kernel in sizes)


def window(node: Node) -> list[Any]:
    """Window and stride as torch's pools take them; the stride is the window unless given."""
    kernel, stride = node.form.kernel_size, node.form.stride
    return [each(kernel)] if stride == kernel else [each(kernel), each(stride)]


@rule(GlobalAvgPool)
def global_avg_pool(node: Node) -> Any:
    return global_pool(node, "nn.AdaptiveAvgPool")


@rule(GlobalMaxPool)
def global_max_pool(node: Node) -> Any:
    return global_pool(node, "nn.AdaptiveMaxPool")


def global_pool(node: Node, name: str) -> Any:
    pool = call(f"{name}{node.in_spec.rank - 1}d", 1)
    return call("nn.Sequential", pool, call("nn.Flatten"))


# norm


@rule(BatchNorm, scale="weight", bias="bias", mean="running_mean", var="running_var")
def batch_norm(node: Node) -> Any:
    block = node.form
    rank = max(1, node.in_spec.rank - 1)
    return call(
        f"BatchNorm{rank}d",
        node.in_spec.channels,
        eps=optional(block.epsilon, 1e-5),
        momentum=optional(round(1 - block.decay, 12), 0.1),
        affine=optional(block.use_scale or block.use_bias, True),
        bias=optional(block.use_bias, True),
        scale=optional(block.use_scale, True),
    )


@rule(LayerNorm, scale="weight", bias="bias")
def layer_norm(node: Node) -> Any:
    block = node.form
    shape = node.in_spec.shape[-len(block.axes) :]
    bias_only = block.use_bias and not block.use_scale
    return call(
        "BiasOnlyLayerNorm" if bias_only else "nn.LayerNorm",
        shape,
        eps=optional(block.epsilon, 1e-5),
        elementwise_affine=optional(block.use_scale or block.use_bias, True),
        bias=optional(block.use_bias, True),
    )


@rule(GroupNorm, scale="weight", bias="bias")
def group_norm(node: Node) -> Any:
    block = node.form
    name = "GroupNorm" if "moved" in node.resolved else "nn.GroupNorm"
    return call(
        "BiasOnlyGroupNorm" if block.use_bias and not block.use_scale else name,
        block.groups,
        node.in_spec.channels,
        eps=optional(block.epsilon, 1e-5),
        affine=optional(block.use_scale or block.use_bias, True),
        bias=optional(block.use_bias, True),
    )


@rule(RMSNorm, scale="weight")
def rms_norm(node: Node) -> Any:
    block = node.form
    shape = node.in_spec.shape[-len(block.axes) :]
    affine = optional(block.use_scale, True)
    return call("nn.RMSNorm", shape, eps=block.epsilon, elementwise_affine=affine)


# activation

ACTIVATIONS: dict[str, Callable[[Activation], Any]] = {
    "relu": lambda a: call("nn.ReLU"),
    "relu6": lambda a: call("nn.ReLU6"),
    "leaky_relu": lambda a: call("nn.LeakyReLU", negative_slope=optional(a.slope, 0.01)),
    "elu": lambda a: call("nn.ELU", alpha=optional(a.alpha, 1.0)),
    "selu": lambda a: call("nn.SELU"),
    "celu": lambda a: call("nn.CELU", alpha=optional(a.alpha, 1.0)),
    "gelu": lambda a: call("nn.GELU"),
    "gelu_tanh": lambda a: call("nn.GELU", approximate="tanh"),
    "silu": lambda a: call("nn.SiLU"),
    "mish": lambda a: call("nn.Mish"),
    # torch's softplus is x above its threshold: 20 would be wrong in the 10th digit.
    "softplus": lambda a: call("nn.Softplus", threshold=40),
    "softsign": lambda a: call("nn.Softsign"),
    "sigmoid": lambda a: call("nn.Sigmoid"),
    "log_sigmoid": lambda a: call("nn.LogSigmoid"),
    "tanh": lambda a: call("nn.Tanh"),
    "hard_sigmoid": lambda a: call("nn.Hardsigmoid"),
    "hard_silu": lambda a: call("nn.Hardswish"),
    "hard_tanh": lambda a: call("nn.Hardtanh"),
    "tanh_shrink": lambda a: call("nn.Tanhshrink"),
    "soft_shrink": lambda a: call("nn.Softshrink", lambd=optional(a.threshold, 0.5)),
    "hard_shrink": lambda a: call("nn.Hardshrink", lambd=optional(a.threshold, 0.5)),
}


@rule(Activation)
def activation(node: Node) -> Any:
    return ACTIVATIONS[node.form.kind](node.form)


rule.rounds(Activation, 1e-7, "torch's backward has 1/6 in float32", kind="hard_sigmoid")
rule.rounds(Activation, 1e-7, "torch's backward has alpha in float32", kind="celu")


@rule(Softmax)
def softmax(node: Node) -> Any:
    return call("nn.Softmax", dim=own_axis(node))


@rule(LogSoftmax)
def log_softmax(node: Node) -> Any:
    return call("nn.LogSoftmax", dim=own_axis(node))


# regularisation


@rule(Dropout)
def dropout(node: Node) -> Any:
    return call("nn.Dropout", p=optional(node.form.rate, 0.5))


# shape


@rule(Flatten)
def flatten(node: Node) -> Any:
    return call("nn.Flatten")


@rule(Permute)
def permute(node: Node) -> Any:
    return call("Permute", 0, *(axis + 1 for axis in node.form.axes))


@rule(Reshape)
def reshape(node: Node) -> Any:
    flatten, shape = call("nn.Flatten"), node.out_spec.shape
    if len(shape) == 1:
        return flatten
    return call("nn.Sequential", flatten, call("nn.Unflatten", 1, shape))


@rule(Pad)
def pad(node: Node) -> Any:
    block, rank = node.form, node.in_spec.rank
    sizes = last_first(block.pads)
    if block.mode == "constant":
        return call(f"nn.ConstantPad{min(rank, 3)}d", sizes, block.value)
    if rank > 3:
        return call("AnyPad", block.pads, block.mode)
    name = {"reflect": "Reflection", "edge": "Replication"}[block.mode]
    return call(f"nn.{name}Pad{rank}d", sizes)


@rule(Crop)
def crop(node: Node) -> Any:
    return call("Crop", *node.form.crops)


# value


@rule(Identity)
def identity(node: Node) -> Any:
    return call("nn.Identity")


# combine


@rule(Sequential)
def sequential(node: Node, children: dict[str, Any]) -> Any:
    if isinstance(listed(children), list):
        return call("nn.Sequential", *children.values())
    check_names(node, children)
    return call("nn.Sequential", call("OrderedDict", list(children.items())))


def check_names(node: Node, children: dict[str, Any]) -> None:
    """Refuse names that torch's modules, or ours, have for something else."""
    module: Any = torch_modules.Parallel
    module = module([], merge="tuple")
    for name in children:
        if hasattr(module, name):
            raise UnsupportedError(
                f"torch cannot name a child {name!r} {place(node.path)}: its modules have an "
                "attribute of that name.\n  Give the child another name."
            )


@rule(Residual)
def residual(node: Node, children: dict[str, Any]) -> Any:
    if node.form.merge == "add":
        shortcut = optional(children.get("shortcut"), None)
        return call("Residual", children["body"], shortcut=shortcut)
    around = {"shortcut": children.get("shortcut", call("nn.Identity"))}
    return merged(node, around | {"body": children["body"]})


@rule(Parallel)
def parallel(node: Node, children: dict[str, Any]) -> Any:
    check_names(node, children)
    return merged(node, listed(children))


def merged(node: Node, branches: Any) -> Any:
    dim = node.resolved.get("axis", 0) + 1
    return call("Parallel", branches, merge=node.form.merge, dim=optional(dim, 1))


# How torch writes sizes


def before(pads: Any) -> tuple[int, ...]:
    return tuple(pair[0] for pair in pads)


def symmetric(pads: Any) -> bool:
    return all(low == high for low, high in pads)


def last_first(pads: Any) -> tuple[int, ...]:
    """Padding as F.pad takes it: the last axis first."""
    return tuple(size for pair in reversed(pads) for size in pair)


LOSSES: dict[str, Callable[..., torch.Tensor]] = {
    "cross_entropy": F.cross_entropy,
    "mse": F.mse_loss,
}


class TorchBackend(Backend):
    """torch models: `nn.Module`."""

    name = "torch"
    layout = "channels_first"
    rules = rule
    helpers: ClassVar = torch_modules
    imports: ClassVar = {
        "OrderedDict": "from collections import OrderedDict",
        "reduce": "from functools import reduce",
        "torch": "import torch",
        "F": "import torch.nn.functional as F",
        "nn": "from torch import nn",
    }

    def build(self, program: Program, seed: int) -> Any:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = super().build(program, seed)
        return model.to(getattr(torch, program.node.dtype))

    def body(self, program: Program) -> str:
        double = "\nmodel = model.double()" if program.node.dtype == "float64" else ""
        return super().body(program) + double

    def read(self, model: Any, binding: Binding) -> np.ndarray:
        return self.find(model, binding).detach().cpu().numpy().copy()

    def write(self, model: Any, binding: Binding, array: np.ndarray) -> None:
        with torch.no_grad():
            self.find(model, binding).copy_(torch.from_numpy(array))

    @staticmethod
    def find(model: Any, binding: Binding) -> torch.Tensor:
        return getattr(model.get_submodule(binding.module), binding.attribute)

    def sizes(self, model: Any) -> tuple[int, int]:
        counters = ("num_batches_tracked",)  # torch's own; no other framework has them
        state = [b for n, b in model.named_buffers() if not n.endswith(counters)]
        return sum(p.numel() for p in model.parameters()), sum(b.numel() for b in state)

    def forward(self, model: Any, x: Any, training: bool) -> Any:
        with mode(model, training), torch.no_grad():
            return map_value(to_numpy, model(to_tensors(model, x)))

    def gradients(
        self, model: Any, x: Any, cotangent: Any, training: bool, bindings: Iterable[Binding]
    ) -> tuple[Any, dict[str, np.ndarray]]:
        weights = {b.path: self.find(model, b) for b in bindings if b.spec.trainable}
        with mode(model, training), differentiable(weights.values()):
            inputs = map_value(torch.Tensor.requires_grad_, to_tensors(model, x))
            outputs = model(inputs)
            wanted = [*leaves(inputs), *weights.values()]
            grads = torch.autograd.grad(
                leaves(outputs),
                wanted,
                leaves(to_tensors(model, cotangent)),
                materialize_grads=True,
            )
        arrays = iter(map(to_numpy, grads))
        return map_value(lambda _: next(arrays), inputs), dict(zip(weights, arrays, strict=True))

    def trainer(
        self, model: Any, loss: str, optimizer: SGD
    ) -> Callable[[np.ndarray, np.ndarray], float]:
        compute = LOSSES[loss]
        native = torch.optim.SGD(
            model.parameters(),
            lr=optimizer.learning_rate,
            momentum=optimizer.momentum,
            nesterov=optimizer.nesterov,
        )

        def step(x: np.ndarray, y: np.ndarray) -> float:
            with mode(model, training=True):
                native.zero_grad()
                value = compute(model(to_tensors(model, x)), to_tensors(model, y))
                value.backward()
                native.step()
            return value.item()

        return step


@contextmanager
def mode(model: Any, training: bool) -> Iterator[None]:
    """Run in training or evaluation mode, then leave every module in the mode that it had."""
    modes = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, was in modes:
            module.training = was


@contextmanager
def differentiable(weights: Iterable[torch.Tensor]) -> Iterator[None]:
    """Track gradients whatever the user switched off, frozen parameters included."""
    frozen = [weight for weight in weights if not weight.requires_grad]
    with torch.inference_mode(False), torch.enable_grad():
        for weight in frozen:
            weight.requires_grad_(True)
        try:
            yield
        finally:
            for weight in frozen:
                weight.requires_grad_(False)


def to_tensors(model: Any, value: Any) -> Any:
    """Arrays on the model's device."""
    held = (*model.parameters(), *model.buffers())
    device = held[0].device if held else torch.device("cpu")
    return map_value(lambda a: torch.from_numpy(np.ascontiguousarray(a)).to(device), value)


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


backend = TorchBackend()
__all__ = ["backend"]

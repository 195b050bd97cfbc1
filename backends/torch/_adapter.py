"""How torch models are built, read, written, run and trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import chain
from operator import attrgetter
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn import init
from torch.overrides import TorchFunctionMode

from backends._backend import Backend, Record, given, tensors_in
from backends._backend import Trainer as Base
from backends._expression import Code, Name, call, optional
from backends._loading import TORCH, dotted, example, indented, native_array
from backends._rules import Binding, Program
from backends.torch import _weights, modules, ops
from backends.torch._common import rule
from backends.torch._train import clip, filled, kept, loss_of, native
from blocks._activations import partly
from blocks._errors import UnsupportedError
from blocks._spec import (
    Node,
    Spec,
    array_dtype,
    floats,
    is_float,
    leaves,
    map_inputs,
    map_value,
)


class TorchBackend(Backend):
    """torch models: `nn.Module`."""

    name = "torch"
    layout = "channels_first"
    rules = rule
    packages: ClassVar = ("torch",)
    weights: ClassVar = _weights
    helpers: ClassVar = (modules, ops)
    imports: ClassVar = {
        "math": "import math",
        "sys": "import sys",
        "OrderedDict": "from collections import OrderedDict",
        "reduce": "from functools import reduce",
        "torch": "import torch",
        "F": "import torch.nn.functional as F",
        "EinMix": "from einops.layers.torch import EinMix",
        "Rearrange": "from einops.layers.torch import Rearrange",
        "Reduce": "from einops.layers.torch import Reduce",
        "nn": "from torch import nn",
        "load_file": "from safetensors.torch import load_file",
    }

    def build(self, program: Program, seed: int, blank: bool = False) -> Any:
        with torch.random.fork_rng(), Undrawn() if blank else nullcontext(), trainable():
            torch.manual_seed(seed)
            model = super().build(program, seed)
            return model.to(getattr(torch, program.node.param_dtype))

    def body(self, program: Program) -> Code:
        node, code = program.node, super().body(program)
        if node.param_dtype != "float32":
            code.add(f"model = model.to(torch.{node.param_dtype})")
        if node.dtype != node.param_dtype:
            code.add(f"# run it inside torch.autocast('cpu', torch.{node.dtype})")
        return code

    def loaded(self, places: list[list[Binding]]) -> str:
        state = {dotted(b[0]): native_array(b, TORCH) for b in places}
        # what has no path in the file, such as counts of batches, stays as it is
        lines = indented(state, "state = "), "    model.load_state_dict(model.state_dict() | state)"
        return "\n".join(lines)

    def zeros(self, spec: Spec) -> Any:
        dtype = optional(Name(f"torch.{spec.dtype}"), Name("torch.float32"))
        return call("torch.zeros", (2, *example(spec)), dtype=dtype)

    def called(self, program: Program) -> str:
        node, modes = program.node, ["torch.no_grad()"]
        if node.dtype != node.param_dtype:
            modes.append(f'torch.autocast("cpu", torch.{node.dtype})')
        return f"    with {', '.join(modes)}:\n        y = model.eval()(x)"

    def finder(self, model: Any) -> Callable[[Binding], torch.Tensor]:
        return lambda b: attrgetter(b.attribute)(model.get_submodule(b.module))

    def read(self, variable: torch.Tensor) -> np.ndarray:
        return to_numpy(variable)

    def write(self, variable: torch.Tensor, array: np.ndarray) -> None:
        with torch.no_grad():
            variable.copy_(from_numpy(array))

    def adopt(self, variable: torch.Tensor, array: np.ndarray) -> None:
        with trainable():
            variable.data = from_numpy(array).to(variable)

    def trains(self, model: Any, variables: list[Any]) -> list[bool]:
        return [variable.requires_grad for variable in variables]

    def set_trains(self, model: Any, variables: list[Any], on: list[bool]) -> None:
        for variable, trained in zip(variables, on, strict=True):
            variable.requires_grad_(trained)
            if not trained:
                variable.grad = None  # an optimiser would go on with it

    def sizes(self, model: Any) -> tuple[int, int]:
        saved = model.state_dict()
        # integers count batches, which no other framework does
        buffers = [b for n, b in model.named_buffers() if n in saved and is_float(b)]
        return sum(p.numel() for p in model.parameters()), sum(b.numel() for b in buffers)

    def forward(self, node: Node, model: Any, x: Any, training: bool) -> Any:
        device = device_of(model)
        with mode(model, training), torch.no_grad(), autocast(node, device):
            return map_value(to_numpy, model(to_tensors(device, x)))

    def record(self, program: Program | None, model: Any, x: Any) -> list[Record]:
        found: list[Record] = []

        def recorded(name: str) -> Callable[..., None]:
            def hook(module: Any, inputs: Any, y: Any) -> None:
                # a copy, for modules may work in place
                arrays = map_value(lambda t: to_numpy(t).copy(), tensors_in(y, torch.is_tensor))
                found.append(Record((name, ()), type(module).__name__, arrays))

            return hook

        if isinstance(model, torch.jit.ScriptModule):
            raise UnsupportedError(
                "torch shows no values inside a ScriptModule; give the module it was made from."
            )
        hooks = [
            part.register_forward_hook(recorded(name))
            for name, part in model.named_modules()
            if not isinstance(part, torch.jit.ScriptModule)  # which takes none
        ]
        try:
            with partly(found):
                self.run(program, model, x)
        finally:
            for hook in hooks:
                hook.remove()
        return found

    def run(self, program: Program | None, model: Any, x: Any) -> Any:
        """Evaluate a model of ours, or one of someone else, whose dtype its parameters tell."""
        if program is not None:
            return self.forward(program.node, model, x, training=False)
        device, held = device_of(model), next(filter(is_float, model.parameters()), None)

        def tensor(array: np.ndarray) -> torch.Tensor:
            found = to_tensors(device, array)
            return found.to(held.dtype) if held is not None and is_float(found) else found

        with mode(model, training=False), torch.no_grad():
            return given(model, model.forward, map_inputs(tensor, x))

    def gradients(
        self,
        node: Node,
        model: Any,
        x: Any,
        cotangent: Any,
        training: bool,
        bindings: Iterable[Binding],
    ) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
        find, device = self.finder(model), device_of(model)
        weights = {b.path: find(b) for b in bindings if b.spec.trainable}
        with mode(model, training), differentiable(weights.values()):
            inputs = to_tensors(device, x)
            tracked = [tensor.requires_grad_() for tensor in floats(inputs)]
            with autocast(node, device):
                outputs = leaves(model(inputs))
            seeds = leaves(to_tensors(device, cotangent))
            pairs = zip(outputs, seeds, strict=True)
            moving = [(y, seed.to(y.dtype)) for y, seed in pairs if y.requires_grad]
            grads = torch.autograd.grad(
                [y for y, _ in moving],
                [*tracked, *weights.values()],
                [seed for _, seed in moving],
                materialize_grads=True,
            )
        arrays = list(map(to_numpy, grads))
        return arrays[: len(tracked)], dict(zip(weights, arrays[len(tracked) :], strict=True))

    def trainer(
        self, node: Node, model: Any, loss: Any, optimizer: Any, clip_norm: float | None = None
    ) -> Base:
        return Trainer(node, model, loss, optimizer, clip_norm)

    def random(self, model: Any) -> dict[str, np.ndarray]:
        return {name: to_numpy(get()) for name, (get, _) in generators(model).items()}

    def set_random(self, model: Any, state: Mapping[str, np.ndarray]) -> None:
        for name, (_, set_state) in generators(model).items():
            if name in state:
                set_state(from_numpy(state[name]))

    @property
    def modes(self) -> dict[str, Backend]:
        return {"eager": self, "compiled": CompiledTorch()}


class CompiledTorch(TorchBackend):
    """torch models that are compiled: for each batch size, and never in part.

    torch counts for each model how often it is compiled: it would else go on without after a few.
    """

    unseen: ClassVar = {"blocks": "compiled code keeps no values inside"}

    def build(self, program: Program, seed: int, blank: bool = False) -> Any:
        model = super().build(program, seed, blank)
        whole = {"fullgraph": True, "dynamic": False}
        return torch.compile(model, **whole, recompile_limit=64, isolate_recompiles=True)


class Trainer(Base):
    """Makes steps by torch's own optimiser, which is `native`."""

    def __init__(self, node: Node, model: Any, loss: Any, optimizer: Any, clip_norm: float | None):
        self.node, self.model, self.clip_norm = node, model, clip_norm
        self.loss, self.device = loss_of(loss), device_of(model)
        self.trained = [param for param in model.parameters() if param.requires_grad]
        self.native = native(optimizer, self.trained, optimizer.rate(0))

    def __call__(self, x: Any, y: Any, rate: float) -> float:
        model, optimizer = self.model, self.native
        with mode(model, training=True), differentiable(()):
            optimizer.zero_grad()
            with autocast(self.node, self.device):
                outputs = model(to_tensors(self.device, x))
                value = self.loss(outputs, to_tensors(self.device, y))
            self.backward(value)
            if self.clip_norm is not None:
                clip(self.trained, self.clip_norm)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
        return value.item()

    def slot(self, name: str) -> list[np.ndarray]:
        return [to_numpy(kept(self.native, param, name)) for param in self.trained]

    def resume(self, steps: int, slots: Mapping[str, list[np.ndarray]]) -> None:
        for i, param in enumerate(self.trained):
            arrays = {name: from_numpy(all_[i]) for name, all_ in slots.items()}
            self.native.state[param] = filled(param, steps, arrays)

    def backward(self, value: torch.Tensor) -> None:
        """Gradients of all that is trained: torch skips what has none, which would not decay."""
        if value.requires_grad:
            value.backward()
        for param in self.trained:
            if param.grad is None:
                param.grad = torch.zeros_like(param)


@contextmanager
def mode(model: Any, training: bool) -> Iterator[None]:
    """Run in training or evaluation mode, then leave every module in the mode that it had."""
    others = [module for module in model.modules() if module.training is not training]
    if not others:
        yield
        return
    model.train(training)
    try:
        yield
    finally:
        for module in others:
            module.training = not training


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


def autocast(node: Node, device: torch.device) -> Any:
    """torch's own mixed precision, where the node asks for it."""
    mixed = node.dtype != node.param_dtype
    dtype = getattr(torch, node.dtype) if mixed else None
    return torch.autocast(device.type, dtype, enabled=mixed)  # whatever is set around it


def device_of(model: Any) -> torch.device:
    held = next(chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if held is None else held.device


def generators(model: Any) -> dict[str, tuple[Callable[[], Any], Callable[[Any], None]]]:
    """How to get and set torch's generators that a model draws from."""
    found: dict[str, Any] = {"cpu": (torch.get_rng_state, torch.set_rng_state)}
    if (device := device_of(model)).type == "cuda":
        cuda = torch.cuda
        found["cuda"] = (
            partial(cuda.get_rng_state, device),
            partial(cuda.set_rng_state, device=device),
        )
    return found


def to_tensors(device: torch.device, value: Any) -> Any:
    """Arrays on a device."""
    return map_value(lambda a: from_numpy(np.ascontiguousarray(a)).to(device), value)


def trainable() -> Any:
    """Parameters of a model that is made in inference mode could never be trained."""
    return torch.inference_mode(False)


DRAWING = {
    torch.Tensor.uniform_,
    torch.Tensor.normal_,
    init.uniform_,
    init.normal_,
    init.kaiming_uniform_,  # these show the mode none of the methods that they call
    init.xavier_uniform_,
}


class Undrawn(TorchFunctionMode):  # type: ignore[misc]  # it has no types
    """Leaves the random numbers of first parameters out."""

    def __torch_function__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if function in DRAWING:
            return args[0] if args else kwargs["tensor"]
        return function(*args, **(kwargs or {}))


def from_numpy(array: np.ndarray) -> torch.Tensor:
    """The array as a tensor; torch and ml_dtypes share bfloat16's bits, not its name."""
    if not array.flags.writeable or min(array.strides, default=0) < 0:
        array = array.copy()
    if str(array.dtype) == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(array_dtype("bfloat16"))
    return tensor.numpy()


backend = TorchBackend()
__all__ = ["backend"]

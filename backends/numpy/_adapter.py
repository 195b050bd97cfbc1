"""How numpy models are built, read, written, run and trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np

from backends._backend import Backend, Record
from backends._backend import Trainer as Base
from backends._expression import Name, call, evaluate
from backends._loading import NUMPY, dotted, example, indented, native_array
from backends._rules import Binding, Program
from backends.numpy import modules
from backends.numpy._common import rule
from backends.numpy._train import clip, loss_of, native
from blocks._spec import Node, Spec, half, is_float, leaves, map_value


class Variable(NamedTuple):
    """A layer, the one of its dicts that holds an array, and its name there."""

    layer: Any
    arrays: dict[str, np.ndarray]
    name: str


class Undrawn(np.random.Generator):
    """A generator for kernels that will be written over."""

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        return np.empty(size)


class NumpyBackend(Backend):
    """Reference models: `modules.Layer`."""

    name = "numpy"
    layout = None
    rules = rule
    packages: ClassVar = ("numpy",)
    helpers: ClassVar = modules.FAMILIES
    imports: ClassVar = {
        "math": "import math",
        "sys": "import sys",
        "warnings": "import warnings",
        "einops": "import einops",
        "np": "import numpy as np",
        "anp": "import autograd.numpy as anp",
        "make_vjp": "from autograd import make_vjp",
        "getval": "from autograd.tracer import getval",
        "load_file": "from safetensors.numpy import load_file",
    }
    setup: ClassVar = {"rng": "rng = np.random.default_rng({seed})"}

    def build(self, program: Program, seed: int, blank: bool = False) -> Any:
        namespace = self.namespace(seed) | (
            {"rng": Undrawn(np.random.PCG64(seed))} if blank else {}
        )
        return evaluate(program.expression, namespace)

    def loaded(self, places: list[list[Binding]]) -> str:
        weights = {dotted(b[0]): native_array(b, NUMPY) for b in places}
        dtype = "float64" if places[0][0].spec.dtype == "float64" else "float32"
        return indented(weights, "weights = ") + SET.format(dtype=dtype)

    def reading(self, program: Program) -> str:
        if program.node.param_dtype != "bfloat16":
            return super().reading(program)
        known = "    import ml_dtypes  # noqa: F401  # from which NumPy knows bfloat16\n\n"
        return known + super().reading(program)

    def zeros(self, spec: Spec) -> Any:
        dtype = "float32" if half(spec.dtype) else spec.dtype
        return call("np.zeros", (2, *example(spec)), dtype=Name(f"np.{dtype}"))

    def finder(self, model: Any) -> Callable[[Binding], Variable]:
        def find(binding: Binding) -> Variable:
            layer = model
            *path, name = f"{binding.module}.{binding.attribute}".lstrip(".").split(".")
            for child in path:
                layer = layer.children[child]
            if name == "calls":  # of a stream of shared draws
                return Variable(layer, vars(layer), name)
            return Variable(layer, layer.params if binding.spec.trainable else layer.state, name)

        return find

    def read(self, variable: Variable) -> np.ndarray:
        return np.asarray(variable.arrays[variable.name])

    def adopt(self, variable: Variable, array: np.ndarray) -> None:
        layer, arrays, name = variable
        arrays[name] = widened(array)
        if arrays is layer.params and layer.grads[name].dtype != arrays[name].dtype:
            layer.grads[name] = np.zeros(array.shape, arrays[name].dtype)  # never touched till used

    def trains(self, model: Any, variables: list[Variable]) -> list[bool]:
        return [name not in layer.frozen for layer, _, name in variables]

    def set_trains(self, model: Any, variables: list[Variable], on: list[bool]) -> None:
        for (layer, _, name), trained in zip(variables, on, strict=True):
            (layer.frozen.discard if trained else layer.frozen.add)(name)

    def sizes(self, model: Any) -> tuple[int, int]:
        trainable = sum(value.size for value, _ in model.param())
        state = (a for layer in model.layers() for a in layer.state.values())
        return trainable, sum(a.size for a in state)

    def forward(self, node: Node, model: Any, x: Any, training: bool) -> Any:
        return model(map_value(widened, x), training)

    def record(self, program: Program | None, model: Any, x: Any) -> list[Record]:
        found: list[Record] = []
        layers = list(named(model))
        for name, layer in layers:
            layer.forward = recorded(found, name, layer.forward)
        try:
            model(map_value(widened, x))
        finally:
            for _, layer in layers:
                vars(layer).pop("forward", None)
        return found

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
        find = self.finder(model)
        found = {b.path: find(b) for b in bindings if b.spec.trainable}
        return [g for g, a in zip(leaves(dx), leaves(x), strict=True) if is_float(a)], {
            path: layer.grads[name] for path, (layer, _, name) in found.items()
        }

    def loss(self, loss: Any) -> Callable[[Any, Any], tuple[float, Any]]:
        """A loss as a function of outputs and target, which returns its gradient too."""
        return loss_of(loss)

    def trainer(
        self, node: Node, model: Any, loss: Any, optimizer: Any, clip_norm: float | None = None
    ) -> Base:
        return Trainer(model, loss, optimizer, clip_norm)

    def random(self, model: Any) -> dict[str, np.ndarray]:
        return {name: state_of(rng) for name, rng in generators(model).items()}

    def set_random(self, model: Any, state: Mapping[str, np.ndarray]) -> None:
        for name, rng in generators(model).items():
            if name in state:
                set_state(rng, state[name])


class Trainer(Base):
    """Makes steps by the reference's own optimiser, which is `native`."""

    def __init__(self, model: Any, loss: Any, optimizer: Any, clip_norm: float | None):
        self.model, self.loss, self.clip_norm = model, loss_of(loss), clip_norm
        self.trained = [
            Variable(layer, layer.params, name)
            for layer in model.layers()
            for name in layer.params
            if name not in layer.frozen
        ]
        self.native = native(optimizer, model.param())

    def __call__(self, x: Any, y: Any, rate: float) -> float:
        self.model.zero_grad()
        value, gradient = self.loss(self.model(map_value(widened, x), training=True), y)
        self.model.backward(gradient)
        params = self.model.param()
        if self.clip_norm is not None:
            clip(params, self.clip_norm)
        self.native(params, rate)
        return value

    def key(self, variable: Variable) -> Any:
        return id(variable.layer), variable.name

    def slot(self, name: str) -> list[np.ndarray]:
        return self.native.slots[name]

    def resume(self, steps: int, slots: Mapping[str, list[np.ndarray]]) -> None:
        self.native.steps = steps
        for name, arrays in slots.items():
            for kept, array in zip(self.native.slots[name], arrays, strict=True):
                kept[...] = array


def generators(model: Any) -> dict[str, np.random.Generator]:
    """The generators that the layers of a model draw from, by number."""
    found = {id(rng): rng for layer in model.layers() if (rng := getattr(layer, "rng", None))}
    return {str(i): rng for i, rng in enumerate(found.values())}


WORD = 2**64


def state_of(rng: np.random.Generator) -> np.ndarray:
    """The state of a PCG64 as words of 64 bits."""
    state = rng.bit_generator.state
    long = (state["state"][name] for name in ("state", "inc"))
    words = [word for number in long for word in divmod(number, WORD)]
    return np.array([*words, state["has_uint32"], state["uinteger"]], np.uint64)


def set_state(rng: np.random.Generator, words: np.ndarray) -> None:
    high, low, inc_high, inc_low, has_uint32, uinteger = map(int, words)
    rng.bit_generator.state = {
        "bit_generator": "PCG64",
        "state": {"state": high * WORD + low, "inc": inc_high * WORD + inc_low},
        "has_uint32": has_uint32,
        "uinteger": uinteger,
    }


def named(model: Any) -> Iterator[tuple[str, Any]]:
    """Every layer by the names that lead to it, shared ones once."""
    seen, todo = set(), [("", model)]
    while todo:
        name, layer = todo.pop()
        if id(layer) not in seen:
            seen.add(id(layer))
            yield name, layer
            todo += [(f"{name}.{key}".lstrip("."), child) for key, child in layer.children.items()]


def recorded(found: list[Record], name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
    """A layer's forward that also writes down what it returns."""

    def call(x: Any, training: bool) -> Any:
        y = forward(x, training)
        kind = type(forward.__self__).__name__  # type: ignore[attr-defined]
        found.append(Record((name, ()), kind, map_value(np.copy, y)))
        return y

    return call


SET = """
    for place, array in weights.items():
        *children, name = place.split(".")
        layer = model
        for child in children:
            layer = layer.children[child]
        arrays = layer.params if name in layer.params else layer.state
        if arrays[name].shape != array.shape:
            raise ValueError(f"{{place}} is {{arrays[name].shape}}, not {{array.shape}}")
        arrays[name] = array.astype(np.{dtype})
    model.zero_grad()"""


def widened(array: np.ndarray) -> np.ndarray:
    """Numbers of 16 bits in 32: the reference computes no narrower, and only rounds at the ends."""
    return array.astype(np.float32) if half(str(array.dtype)) else array


backend = NumpyBackend()
__all__ = ["backend"]

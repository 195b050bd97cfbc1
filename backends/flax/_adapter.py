"""How flax models are built, read, written, run and trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from backends._backend import Backend, Record
from backends._backend import Trainer as Base
from backends._expression import Code, Name, call, evaluate, optional
from backends._loading import NUMPY, example, indented, native_array
from backends._rules import Binding, Program
from backends.flax import _weights, modules, ops
from backends.flax._common import module, rule
from backends.flax._record import record
from backends.flax._train import clipped, filled, loss_of, native, slot
from blocks._spec import Node, Spec, floats, is_float, map_inputs, map_value, with_floats

FROZEN = "frozen"  # nnx's tag of parameters that are not trained
TRAINED = nnx.All(nnx.Param, nnx.Not(nnx.WithTag(FROZEN)))


class FlaxBackend(Backend):
    """Flax models: `nnx.Module`."""

    name = "flax"
    layout = "channels_last"
    rules = rule
    packages: ClassVar = ("jax", "jaxlib", "flax", "optax")
    weights: ClassVar = _weights
    helpers: ClassVar = (modules, ops)
    imports: ClassVar = {
        "math": "import math",
        "sys": "import sys",
        "np": "import numpy as np",
        "partial": "from functools import partial",
        "reduce": "from functools import reduce",
        "einops": "import einops",
        "jax": "import jax",
        "jnp": "import jax.numpy as jnp",
        "lax": "from jax import lax",
        "nnx": "from flax import nnx",
        "load_file": "from safetensors.numpy import load_file",
    }
    setup: ClassVar = {"rngs": "rngs = nnx.Rngs({seed})"}

    @property
    def modes(self) -> dict[str, Backend]:
        return {"compiled": self}

    def program(self, node: Node) -> Program:
        program = super().program(node)
        return replace(program, expression=module(program.expression))

    def build(self, program: Program, seed: int, blank: bool = False) -> Any:
        with precision(program.node.dtype):
            if not blank:
                return super().build(program, seed)
            namespace = self.namespace(seed)

            def make() -> Any:
                rngs = nnx.Rngs(default=0)
                rngs.default = Undrawn(0, tag="default")
                return evaluate(program.expression, namespace | {"rngs": rngs})

            written = {path_of(binding) for binding in program.bindings}
            return completed(nnx.eval_shape(make), written, seed)

    def body(self, program: Program) -> Code:
        code = Code()
        if program.node.dtype == "float64":
            code.add('jax.config.update("jax_enable_x64", True)')
        return self.assignments(program, code)

    def loaded(self, places: list[list[Binding]]) -> str:
        pairs = [(Name(spelled(b[0])), native_array(b, NUMPY)) for b in places]
        return indented(pairs, "weights = ") + SET

    def zeros(self, spec: Spec) -> Any:
        dtype = optional(Name(f"jnp.{spec.dtype}"), Name("jnp.float32"))
        return call("jnp.zeros", (2, *example(spec)), dtype=dtype)

    def called(self, program: Program) -> str:
        star = "*" * isinstance(program.node.in_spec, tuple)
        return f"    model.eval()\n    y = model({star}x)"

    def finder(self, model: Any) -> Callable[[Binding], Any]:
        def find(binding: Binding) -> Any:
            found = model
            for part in path_of(binding):
                found = found[part] if isinstance(part, int) else getattr(found, part)
            return found

        return find

    def read(self, variable: Any) -> np.ndarray:
        return np.asarray(variable.get_value())

    def adopt(self, variable: Any, array: np.ndarray) -> None:
        with precision(str(array.dtype)):
            # nnx keeps running statistics in float32, and JAX will refuse to store them in less
            wide = jnp.promote_types(variable.dtype, array.dtype)
            variable.set_value(jax.device_put(array.astype(wide, copy=False), may_alias=True))

    def trains(self, model: Any, variables: list[Any]) -> list[bool]:
        trained = nnx.filterlib.to_predicate(TRAINED)
        return [trained((), variable) for variable in variables]

    def set_trains(self, model: Any, variables: list[Any], on: list[bool]) -> None:
        now = self.trains(model, variables)
        for variable, before, trained in zip(variables, now, on, strict=True):
            if before and not trained:
                variable.set_metadata(tag=FROZEN)
            elif trained and not before:
                variable.del_metadata("tag")

    def sizes(self, model: Any) -> tuple[int, int]:
        others = nnx.Not(nnx.Any(nnx.Param, nnx.RngState))
        trainable, state = (jax.tree.leaves(nnx.state(model, kind)) for kind in (nnx.Param, others))
        return sum(a.size for a in trainable), sum(a.size for a in state)

    def forward(self, node: Node, model: Any, x: Any, training: bool) -> Any:
        with precision(node.dtype):
            graph, state = nnx.split(model)
            mode = in_mode(graph, state, training)
            y, state = run(mode, state, map_value(jnp.asarray, x))
            if training:
                nnx.update(model, state)
            return map_value(np.asarray, y)

    def record(self, program: Program | None, model: Any, x: Any) -> list[Record]:
        with precision(dtype_of(model, x) if program is None else program.node.dtype):
            return record(model, map_inputs(jnp.asarray, x))

    def gradients(
        self,
        node: Node,
        model: Any,
        x: Any,
        cotangent: Any,
        training: bool,
        bindings: Iterable[Binding],
    ) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
        with precision(node.dtype):
            graph, weights, rest = nnx.split(model, nnx.Param, ...)
            mode = in_mode(graph, nnx.merge_state(weights, rest), training)
            arrays = map_value(jnp.asarray, x), map_value(jnp.asarray, cotangent)
            dweights, dx, rest = run_backward(mode, weights, rest, *arrays)
            if training:
                nnx.update(model, rest)
            find = self.finder(nnx.merge(graph, dweights, rest))
            return list(map(np.asarray, dx)), {
                b.path: self.read(find(b)) for b in bindings if b.spec.trainable
            }

    def trainer(
        self, node: Node, model: Any, loss: Any, optimizer: Any, clip_norm: float | None = None
    ) -> Base:
        return Trainer(node, model, loss_of(loss), partial(native, optimizer), clip_norm)

    def random(self, model: Any) -> dict[str, np.ndarray]:
        return {name: np.asarray(words(v.get_value())) for name, v in generators(model).items()}

    def set_random(self, model: Any, state: Mapping[str, np.ndarray]) -> None:
        for name, variable in generators(model).items():
            if name in state:
                variable.set_value(like(variable.get_value(), state[name]))


class Trainer(Base):
    """Makes steps; `native` is the state of optax's optimiser."""

    def __init__(
        self,
        node: Node,
        model: Any,
        loss: Callable[[Any, Any], Any],
        rule: Callable[[Any], Any],
        clip_norm: float | None,
    ):
        self.node = node
        with precision(node.dtype):
            graph, weights, rest = nnx.split(model, TRAINED, ...)
            mode = in_mode(graph, nnx.merge_state(weights, rest), training=True)
            self.weights, self.held = Variables(model, weights), Variables(model, rest)
            self.native = clipped(rule(0.0), clip_norm).init(self.weights.values())
            self.trained = self.weights.variables

        @compiled
        def train(weights: Any, rest: Any, native: Any, x: Any, y: Any, rate: Any) -> Any:
            def value(weights: Any) -> Any:
                state = self.weights.state(weights), self.held.state(rest)
                inner = nnx.merge(mode.graph, *state, copy=True)
                found = loss(call_model(inner, x), y)
                return found, jax.tree.leaves(nnx.split(inner, TRAINED, ...)[2])

            (found, rest), grads = jax.value_and_grad(value, has_aux=True)(weights)
            steps, native = clipped(rule(rate), clip_norm).update(grads, native, weights)
            return found, optax.apply_updates(weights, steps), rest, native

        self.train = train

    def __call__(self, x: Any, y: Any, rate: float) -> float:
        with precision(self.node.dtype):
            now = self.weights.values(), self.held.values(), self.native
            found, weights, rest, self.native = self.train(*now, x, y, rate)
            self.weights.set(weights)
            self.held.set(rest)
            return float(found)

    def slot(self, name: str) -> list[np.ndarray]:
        return list(map(np.asarray, slot(self.native, name)))

    def resume(self, steps: int, slots: Mapping[str, list[np.ndarray]]) -> None:
        with precision(self.node.dtype):
            arrays = {name: list(map(jnp.array, all_)) for name, all_ in slots.items()}
            self.native = filled(self.native, steps, arrays)


class Variables:
    """Some variables of a model, in the order of a state's leaves, as plain arrays and back.

    nnx.jit would go through the whole model in every step, which takes longer than a small one.
    """

    def __init__(self, model: Any, state: Any):
        found = dict(nnx.iter_graph(model))
        self.variables = [found[path] for path, _ in nnx.to_flat_state(state)]
        self.tree = jax.tree.structure(state)

    def values(self) -> list[Any]:
        return [variable.get_value() for variable in self.variables]

    def set(self, values: list[Any]) -> None:
        for variable, value in zip(self.variables, values, strict=True):
            variable.set_value(value)

    def state(self, values: list[Any]) -> Any:
        return jax.tree.unflatten(self.tree, values)


def dtype_of(model: Any, x: Any) -> str:
    """Of the numbers that someone's model holds; of what it takes, if it holds none."""
    held = jax.tree.leaves((nnx.state(model), x))
    return next((str(array.dtype) for array in held if is_float(array)), "float32")


def precision(dtype: str) -> Any:
    """JAX drops float64 unless told otherwise; this tells it so for one call only."""
    return jax.enable_x64(True) if dtype == "float64" else nullcontext()


class Undrawn(nnx.RngStream):  # type: ignore[misc]  # nnx has no types
    """A stream for parameters that will be written over: it does not count its draws, which takes
    JAX longer the more it has traced.
    """

    def __call__(self) -> jax.Array:
        return self.key[...]

    def fork(self, **options: Any) -> nnx.RngStream:
        return nnx.RngStream(self(), tag=self.tag)


def generators(model: Any) -> dict[str, Any]:
    """The keys of a model and how often each was used, by path; shared draws are no part of it."""
    drawn = nnx.All(nnx.RngState, nnx.Not(modules.Calls))
    wanted = {path for path, _ in nnx.to_flat_state(nnx.state(model, drawn))}
    found = dict(nnx.iter_graph(model))
    return {"/".join(map(str, path)): found[path] for path in wanted}


def words(value: Any) -> Any:
    """A key as the numbers in it; a count as it is."""
    return jax.random.key_data(value) if jnp.issubdtype(value.dtype, jax.dtypes.prng_key) else value


def like(value: Any, array: np.ndarray) -> Any:
    """The array as a key where the value is one."""
    if not jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        return jnp.asarray(array)
    return jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(value))


def path_of(binding: Binding) -> tuple[str | int, ...]:
    """The path of a variable as nnx has it."""
    parts = f"{binding.module}.{binding.attribute}".split(".")
    return tuple(int(part) if part.isdigit() else part for part in parts if part)


def spelled(binding: Binding) -> str:
    """The path of a variable as code."""
    return "model" + "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path_of(binding))


SET = """
    for i, (variable, array) in enumerate(weights):
        if variable.shape != array.shape:
            raise ValueError(f"weights[{i}] is {variable.shape}, not {array.shape}")
        dtype = jnp.promote_types(variable.dtype, array.dtype)
        variable.set_value(jnp.asarray(array, dtype))"""


def completed(model: Any, written: set[tuple[str | int, ...]], seed: int) -> Any:
    """The model with values for all variables but those that will be written: a random key of its
    own for each block that draws, and zeros.
    """
    key, places = jax.random.key(seed), count()

    def fresh(variable: Any) -> Any:
        shape = variable.shape
        if not isinstance(variable, nnx.RngKey):
            return variable.replace(jnp.zeros(shape, variable.dtype))
        own = jax.random.fold_in(key, next(places))
        return variable.replace(jax.random.split(own, shape) if shape else own)

    flat = nnx.to_flat_state(nnx.state(model))
    if missing := [(path, fresh(variable)) for path, variable in flat if path not in written]:
        nnx.update(model, nnx.from_flat_state(missing))
    return model


@dataclass(frozen=True, eq=False)
class Mode:
    """The graph of a model in training or evaluation mode; JAX compares it by identity, fast."""

    graph: Any
    training: bool


MODES: dict[Any, Mode] = {}


def in_mode(graph: Any, state: Any, training: bool) -> Mode:
    """The same graph in one mode, whatever mode it is in."""
    key = graph, training
    found = MODES.get(key)
    if found is None:
        flags = {"deterministic": not training, "use_running_average": not training}
        viewed = nnx.view(nnx.merge(graph, state), raise_if_not_found=False, **flags)
        if len(MODES) > 100:
            MODES.clear()
        found = MODES[key] = Mode(nnx.split(viewed)[0], training)
    return found


def compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """The function by jax.jit; as it is where a Custom block branches on values."""
    fast = jax.jit(function, **options)

    def call(*args: Any) -> Any:
        try:
            return fast(*args)
        except (jax.errors.JAXTypeError, jax.errors.JAXIndexError):
            return function(*args)

    return call


def call_model(model: Any, x: Any) -> Any:
    """As nnx.Sequential does it: a tuple arrives as several arguments."""
    return model(*x) if isinstance(x, tuple) else model(x)


@partial(compiled, static_argnums=0)
def run(mode: Mode, state: Any, x: Any) -> Any:
    """The output, and the state after it in training."""
    model = nnx.merge(mode.graph, state, copy=True)
    y = call_model(model, x)
    return y, nnx.state(model) if mode.training else None


@partial(compiled, static_argnums=0)
def run_backward(mode: Mode, weights: Any, rest: Any, x: Any, cotangent: Any) -> Any:
    """Gradients of the parameters and of the input's floats, and the other state after it."""

    def output(weights: Any, numbers: Any) -> Any:
        inner = nnx.merge(mode.graph, weights, rest, copy=True)
        y = call_model(inner, with_floats(x, numbers))
        return y, nnx.split(inner, nnx.Param, ...)[2]

    y, back, rest = jax.vjp(output, weights, floats(x), has_aux=True)
    dweights, dx = back(map_value(lambda seed, like: seed.astype(like.dtype), cotangent, y))
    return dweights, dx, rest


backend = FlaxBackend()
__all__ = ["backend"]

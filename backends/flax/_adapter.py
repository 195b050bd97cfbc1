"""How flax models are built, read, written, run and trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import replace
from itertools import count
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from backends._backend import Backend
from backends._expression import evaluate
from backends._rules import Binding, Program
from backends.flax import modules, ops
from backends.flax._common import module, rule
from blocks._spec import Node, floats, map_value, with_floats
from blocks._train import SGD


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
    helpers: ClassVar = (modules, ops)
    imports: ClassVar = {
        "math": "import math",
        "partial": "from functools import partial",
        "reduce": "from functools import reduce",
        "einops": "import einops",
        "jax": "import jax",
        "jnp": "import jax.numpy as jnp",
        "lax": "from jax import lax",
        "nnx": "from flax import nnx",
    }
    setup: ClassVar = {"rngs": "rngs = nnx.Rngs({seed})"}

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

            return with_fresh_streams(nnx.eval_shape(make), seed)

    def body(self, program: Program) -> str:
        wide = 'jax.config.update("jax_enable_x64", True)\n'
        return (wide if program.node.dtype == "float64" else "") + super().body(program)

    def finder(self, model: Any) -> Callable[[Binding], Any]:
        def find(binding: Binding) -> Any:
            found = model
            path = f"{binding.module}.{binding.attribute}"
            for part in filter(None, path.split(".")):
                found = found[int(part)] if part.isdigit() else getattr(found, part)
            return found

        return find

    def read(self, variable: Any) -> np.ndarray:
        return np.asarray(variable.get_value())

    def write(self, variable: Any, array: np.ndarray, *, keep: bool = False) -> None:
        with precision(str(array.dtype)):
            # nnx keeps running statistics in float32, and JAX will refuse to store them in less
            wide = jnp.promote_types(variable.dtype, array.dtype)
            variable.set_value(jnp.array(array, wide, copy=not keep))

    def sizes(self, model: Any) -> tuple[int, int]:
        others = nnx.Not(nnx.Any(nnx.Param, nnx.RngState))
        trainable, state = (jax.tree.leaves(nnx.state(model, kind)) for kind in (nnx.Param, others))
        return sum(a.size for a in trainable), sum(a.size for a in state)

    def forward(self, node: Node, model: Any, x: Any, training: bool) -> Any:
        with precision(node.dtype):
            return map_value(np.asarray, run(in_mode(model, training), map_value(jnp.asarray, x)))

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
            viewed = in_mode(model, training)
            arrays = map_value(jnp.asarray, x), map_value(jnp.asarray, cotangent)
            weights, dx = run_backward(viewed, *arrays)
            find = self.finder(weights)
            return list(map(np.asarray, dx)), {
                b.path: self.read(find(b)) for b in bindings if b.spec.trainable
            }

    def trainer(
        self, node: Node, model: Any, loss: str, optimizer: SGD
    ) -> Callable[[np.ndarray, np.ndarray], float]:
        compute = LOSSES[loss]
        rule = optax.sgd(
            optimizer.learning_rate,
            momentum=optimizer.momentum or None,
            nesterov=optimizer.nesterov,
        )

        @compiled
        def train(model: Any, native: Any, x: Any, y: Any) -> Any:
            value, grads = nnx.value_and_grad(lambda m: compute(call_model(m, x), y))(model)
            native.update(model, grads)
            return value

        native = nnx.Optimizer(model, rule, wrt=nnx.Param)

        def step(x: np.ndarray, y: np.ndarray) -> float:
            with precision(node.dtype):
                return float(train(in_mode(model, True), native, x, y))

        return step


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


def with_fresh_streams(model: Any, seed: int) -> Any:
    """The model with a random key of its own for each block that draws."""
    state = nnx.state(model, nnx.RngState)
    if not jax.tree.leaves(state):
        return model
    key, places = jax.random.key(seed), count()

    def fresh(variable: Any) -> Any:
        shape = variable.shape
        if not isinstance(variable, nnx.RngKey):  # it counts
            return variable.replace(jnp.zeros(shape, variable.dtype))
        own = jax.random.fold_in(key, next(places))
        return variable.replace(jax.random.split(own, shape) if shape else own)

    is_variable = lambda found: isinstance(found, nnx.Variable)  # noqa: E731
    nnx.update(model, jax.tree.map(fresh, state, is_leaf=is_variable))
    return model


def in_mode(model: Any, training: bool) -> Any:
    """The same variables in training or evaluation mode, whatever mode the model is in."""
    flags = {"deterministic": not training, "use_running_average": not training}
    return nnx.view(model, raise_if_not_found=False, **flags)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function by nnx.jit; as it is where a Custom block branches on values."""
    fast = nnx.jit(function)

    def call(*args: Any) -> Any:
        try:
            return fast(*args)
        except (jax.errors.JAXTypeError, jax.errors.JAXIndexError):
            return function(*args)

    return call


@compiled
def run(model: Any, x: Any) -> Any:
    return call_model(model, x)


def call_model(model: Any, x: Any) -> Any:
    """As nnx.Sequential does it: a tuple arrives as several arguments."""
    return model(*x) if isinstance(x, tuple) else model(x)


@compiled
def run_backward(model: Any, x: Any, cotangent: Any) -> Any:
    """A model that holds the gradients of its parameters, and those of the input's floats."""
    graph, weights, rest = nnx.split(model, nnx.Param, ...)

    def output(weights: Any, numbers: Any) -> Any:
        inner = nnx.merge(graph, weights, rest, copy=True)
        y = call_model(inner, with_floats(x, numbers))
        return y, nnx.split(inner, nnx.Param, ...)[2]

    y, back, rest = jax.vjp(output, weights, floats(x), has_aux=True)
    nnx.update(model, rest)
    dweights, dx = back(map_value(lambda seed, like: seed.astype(like.dtype), cotangent, y))
    return nnx.merge(graph, dweights, rest), dx


backend = FlaxBackend()
__all__ = ["backend"]

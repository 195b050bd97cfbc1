"""How keras models are built, read, written, run and trained."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from itertools import chain, groupby
from operator import attrgetter
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import keras
import numpy as np

from backends._backend import Backend, Place, Record
from backends._backend import Trainer as Base
from backends._expression import Code, call, evaluate, literal, optional
from backends._loading import NUMPY, example, indented, native_array
from backends._rules import Binding, Program
from backends.keras import _weights, modules, ops
from backends.keras._common import layer_name, rule
from backends.keras._engine import ENGINES, GRAPHS
from backends.keras._record import watched
from backends.keras._trace import Tracer, called
from backends.keras._train import SLOTS, Training, exact, loss_of, native
from blocks._errors import UnsupportedError
from blocks._spec import (
    Node,
    Spec,
    aligned,
    array_dtype,
    is_float,
    leaves,
    map_inputs,
    map_value,
)
from blocks._stack import call_deep, run
from blocks.custom import Custom


class KerasBackend(Backend):
    """Keras models: a functional `keras.Model`."""

    name = "keras"
    layout = "channels_last"
    rules = rule
    packages: ClassVar = ("keras",)
    weights: ClassVar = _weights
    helpers: ClassVar = (modules, ops)
    imports: ClassVar = {
        "math": "import math",
        "sys": "import sys",
        "np": "import numpy as np",
        "keras": "import keras",
        "layers": "from keras import layers",
        "ops": "from keras import ops",
        "load_file": "from safetensors.numpy import load_file",
    }

    @property
    def engine(self) -> Any:
        return ENGINES[keras.backend.backend()]

    @property
    def engines(self) -> dict[str, dict[str, str]]:
        now = keras.backend.backend()
        others = [name for name in ENGINES if name != now and find_spec(name)]
        return {name: {"KERAS_BACKEND": name} for name in (now, *others)}

    @property
    def modes(self) -> dict[str, Backend]:
        """Under torch Keras compiles nothing, unless each model says so."""
        return {"eager": Eager()} | ({"compiled": Compiled()} if self.engine.traces else {})

    def versions(self) -> dict[str, str]:
        engine = keras.backend.backend()
        return super().versions() | {engine: import_module(engine).__version__}

    def traced(self, program: Program) -> tuple[Tracer, str]:
        """The statements after `inputs = ...`, and the name of the result."""
        tracer = Tracer(self.reserved() | {"x"})
        return tracer, run(tracer.trace(program.expression, "inputs", "x"))

    def build(self, program: Program, seed: int, blank: bool = False) -> Any:
        with self.engine.precision(program.node.dtype), policy(program.node), seeded(seed):
            namespace = self.namespace(seed)
            values = {"inputs": map_value(evaluated(namespace), inputs_of(program))}
            tracer, out = self.traced(program)
            made = run_all(tracer, values, namespace, undrawn if blank else called)
            model = call_deep(len(tracer.statements), keras.Model, values["inputs"], values[out])
        check_kept(model, program)
        MADE[model] = made
        return model

    def body(self, program: Program) -> Code:
        code, name = Code(), policy_name(program.node)
        if name != "float32":
            code.add(f"keras.config.set_dtype_policy({literal(name)})")
        code.write(inputs_of(program), prefix="inputs = ")
        tracer, out = self.traced(program)
        lines = [code.add(statement.code()) for statement in tracer.statements]
        for mark in tracer.marks:
            code.mark(mark.home, chain(*lines[mark.first : mark.end]))
        code.add(f"model = keras.Model(inputs, {out})")
        return code

    def expressions(self, program: Program) -> list[Any]:
        return [statement.callee for statement in self.traced(program)[0].statements]

    def loaded(self, places: list[list[Binding]]) -> str:
        lines = []
        for layer, inside in groupby(places, lambda bindings: layer_of(bindings[0])):
            lines.append(indented(call("model.get_layer", layer), "layer = "))
            for bindings in inside:
                name = bindings[0].attribute.rpartition(":")[2]
                array = native_array(bindings, NUMPY)
                lines.append(indented(call(f"layer.{name}.assign", array)))
        return "\n".join(lines)

    def zeros(self, spec: Spec) -> Any:
        return call("ops.zeros", (2, *example(spec)), dtype=optional(spec.dtype, "float32"))

    def finder(self, model: Any) -> Callable[[Binding], Any]:
        layers = {layer.name: layer for layer in model.layers}
        return lambda b: attrgetter(b.attribute.rpartition(":")[2])(layers[layer_of(b)])

    def read(self, variable: Any) -> np.ndarray:
        return keras.ops.convert_to_numpy(variable)

    def adopt(self, variable: Any, array: np.ndarray) -> None:
        with self.engine.precision(array.dtype):
            variable.assign(self.engine.tensor(array))

    def trains(self, model: Any, variables: list[Any]) -> list[bool]:
        trained = set(map(id, model.trainable_weights))
        return [id(variable) in trained for variable in variables]

    def set_trains(self, model: Any, variables: list[Any], on: list[bool]) -> None:
        trained = {id(variable) for variable, wanted in zip(variables, on, strict=True) if wanted}
        params, frozen = set(map(id, variables)), [x for x in model.layers if not x.trainable]
        if trained and not model.trainable:
            model.trainable = True  # which it also makes all its layers
        for layer in model.layers:
            held = set(map(id, layer.weights))
            if not layer.trainable and held & trained:
                layer.trainable = True
            elif held and not held & trained and (layer in frozen or held <= params):
                layer.trainable = False  # what a file keeps; with running state it would mean more
        for weight in model.weights:
            weight.trainable = id(weight) in trained

    def sizes(self, model: Any) -> tuple[int, int]:
        trainable, state = model.trainable_weights, model.non_trainable_weights
        numbers = [w for w in state if is_float(w)]  # others count calls
        return sum(math.prod(w.shape) for w in trainable), sum(math.prod(w.shape) for w in numbers)

    def forward(self, node: Node, model: Any, x: Any, training: bool) -> Any:
        with self.engine.precision(node.dtype):
            y = model(map_value(tensor, x), training=training)
            return map_value(keras.ops.convert_to_numpy, y)

    def place(self, program: Program, node: Node) -> Place:
        return node.home, ()

    def record(self, program: Program | None, model: Any, x: Any) -> list[Record]:
        if program is None or model not in MADE:  # a clone of ours has no symbolic values
            dtype = model.compute_dtype if program is None else program.node.dtype
            with self.engine.precision(dtype):
                found = watched(model, map_inputs(lambda a: tensor(cast(a, dtype)), x))
            homes = {layer_name(n.home): n.home for n in program.node.walk()} if program else {}
            return [r._replace(place=(homes.get(r.place[0], r.place[0]), ())) for r in found]
        made = MADE[model]
        values = [value for _, value in made]
        with self.engine.precision(program.node.dtype):
            inputs = model.inputs[0] if len(model.inputs) == 1 else model.input
            seen = keras.Model(inputs, [tensor for v in values for tensor in leaves(v)])
            # one output alone comes without its list
            arrays = iter(map(keras.ops.convert_to_numpy, tuple_of(seen(map_value(tensor, x)))))
        return [
            Record((name, ()), "", map_value(lambda _: next(arrays), value)) for name, value in made
        ]

    def gradients(
        self,
        node: Node,
        model: Any,
        x: Any,
        cotangent: Any,
        training: bool,
        bindings: Iterable[Binding],
    ) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
        find = self.finder(model)
        variables = {b.path: find(b) for b in bindings if b.spec.trainable}
        with self.engine.precision(node.dtype):
            tensors = map_value(tensor, x), map_value(tensor, cotangent)
            wanted = list(variables.values())
            dx, dweights = self.engine.gradients(model, *tensors, training, wanted)
            arrays = map(keras.ops.convert_to_numpy, dweights)
            inputs = list(map(keras.ops.convert_to_numpy, dx))
            return inputs, dict(zip(variables, arrays, strict=True))

    def trainer(
        self, node: Node, model: Any, loss: Any, optimizer: Any, clip_norm: float | None = None
    ) -> Base:
        return Trainer(self.engine, node, model, loss, optimizer, clip_norm)

    def random(self, model: Any) -> dict[str, np.ndarray]:
        seeds = {name: self.read(variable) for name, variable in generators(model).items()}
        start = keras.backend.backend()
        return {f"{start}/{name}": array for name, array in (seeds | self.engine.random()).items()}

    def set_random(self, model: Any, state: Mapping[str, np.ndarray]) -> None:
        start = f"{keras.backend.backend()}/"
        own = {n.removeprefix(start): array for n, array in state.items() if n.startswith(start)}
        for name, variable in generators(model).items():
            if name in own:
                variable.assign(own[name])
        self.engine.set_random(own)


class Eager(KerasBackend):
    """Keras models whose steps of training are no graph either."""

    def trainer(
        self, node: Node, model: Any, loss: Any, optimizer: Any, clip_norm: float | None = None
    ) -> Base:
        step = Trainer(self.engine, node, model, loss, optimizer, clip_norm)
        if self.engine.traces:
            step.step_by_step()
        return step


class Compiled(KerasBackend):
    """Keras models in graphs, as `predict` and `fit` of Keras make them."""

    unseen: ClassVar = {"blocks": "a graph keeps no values inside"}

    @property
    def engine(self) -> Any:
        return GRAPHS[keras.backend.backend()]

    def forward(self, node: Node, model: Any, x: Any, training: bool) -> Any:
        with self.engine.precision(node.dtype):
            if not training:
                return map_value(np.asarray, model.predict_on_batch(map_value(tensor, x)))
            y = self.engine.call(model, map_value(tensor, x), training)
            return map_value(keras.ops.convert_to_numpy, y)


class Trainer(Base):
    """Makes steps by Keras's own optimiser, which is `native`."""

    def __init__(
        self,
        engine: Any,
        node: Node,
        model: Any,
        loss: Any,
        optimizer: Any,
        clip_norm: float | None,
    ):
        self.engine, self.node, self.rate = engine, node, optimizer.rate(0)
        custom = isinstance(loss, Custom) or any(isinstance(n.form, Custom) for n in node.walk())
        self.doubtful = custom and engine.traces
        clip = {} if clip_norm is None else {"global_clipnorm": clip_norm}
        with engine.precision(node.dtype), policy(node):
            ends = model.input, model.output
            self.training = call_deep(len(model.layers), Training, *ends)
            self.training.objective = loss_of(loss, node.param_dtype)
            self.native = native(optimizer, self.rate, exact(node.param_dtype), **clip)
            # Keras would scale the loss in mixed_float16, and skip steps while it looks for a scale
            self.training.compile(self.native, auto_scale_loss=False)
            self.trained = self.training.trainable_variables
            self.native.build(self.trained)

    def __call__(self, x: Any, y: Any, rate: float) -> float:
        with self.engine.precision(self.node.dtype), policy(self.node):
            if rate != self.rate:
                self.native.learning_rate = self.rate = rate
            if self.doubtful:
                try:
                    return float(self.training.train_on_batch(x, y))
                except Exception:  # of any kind: what fails without a graph too is raised below
                    self.step_by_step()
            return float(self.training.train_on_batch(x, y))

    def slot(self, name: str) -> list[np.ndarray]:
        return list(map(keras.ops.convert_to_numpy, getattr(self.native, SLOTS[name])))

    def resume(self, steps: int, slots: Mapping[str, list[np.ndarray]]) -> None:
        with self.engine.precision(self.node.dtype):
            self.native.iterations.assign(steps)
            for name, arrays in slots.items():
                for variable, array in zip(getattr(self.native, SLOTS[name]), arrays, strict=True):
                    variable.assign(array)

    def step_by_step(self) -> None:
        """Do without a graph, where a Custom block branches on values. It failed before its step:
        no variable has changed.
        """
        self.doubtful, self.training.run_eagerly = False, True
        self.training.make_train_function(force=True)


# What each node of a model returns: its home, and the symbolic value.
MADE: WeakKeyDictionary[Any, list[tuple[str, Any]]] = WeakKeyDictionary()


def run_all(
    tracer: Tracer, values: dict[str, Any], namespace: dict[str, Any], apply: Callable[..., Any]
) -> list[tuple[str, Any]]:
    """Run the statements; returns what each node makes."""
    made, marks = [], deque(tracer.marks)
    for count, statement in enumerate([None, *tracer.statements]):
        if statement is not None:
            values[statement.target] = statement.run(values, namespace, apply)
        while marks and marks[0].end == count:
            mark = marks.popleft()
            made.append((mark.home, values[mark.variable]))
    return made


def tuple_of(value: Any) -> Any:
    return value if isinstance(value, (list, tuple)) else (value,)


def inputs_of(program: Program) -> Any:
    """keras.Input for each tensor that the network takes."""

    def one(spec: Any) -> Any:
        return call("keras.Input", spec.shape, dtype=optional(spec.dtype, "float32"))

    return map_value(one, program.node.in_spec)


class Untouched(keras.initializers.Initializer):  # type: ignore[misc]  # Keras has no types
    """First numbers that take no memory as long as nobody looks at them."""

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Any:
        return ENGINES[keras.backend.backend()].tensor(aligned(shape, array_dtype(dtype)))


def undrawn(layer: Any, source: Any) -> Any:
    """Call a layer, which makes its parameters, without drawing random numbers for them."""
    drawing = [
        (owner, name, value)
        for owner in (layer, getattr(layer, "cell", layer))
        for name, value in vars(owner).items()
        if isinstance(value, keras.initializers.Initializer) and not name.startswith("_")
    ]
    for owner, name, _ in drawing:
        setattr(owner, name, Untouched())
    try:
        return called(layer, source)
    finally:
        for owner, name, value in drawing:
            setattr(owner, name, value)


def evaluated(namespace: dict[str, Any]) -> Callable[[Any], Any]:
    return lambda expression: evaluate(expression, namespace)


def tensor(array: np.ndarray) -> Any:
    """A native tensor of the array's own dtype."""
    return keras.ops.convert_to_tensor(array, dtype=str(array.dtype))


def cast(array: np.ndarray, dtype: str) -> np.ndarray:
    """Numbers in the dtype in which a model computes; integers as they are."""
    return array.astype(array_dtype(dtype)) if is_float(array) else array


def generators(model: Any) -> dict[str, Any]:
    """The seeds of the layers that draw."""
    found = {layer.name: getattr(layer, "seed_generator", None) for layer in model.layers}
    return {f"seed/{name}": seed.state for name, seed in found.items() if seed is not None}


def layer_of(binding: Binding) -> str:
    """The name of the layer that holds a parameter; "-out:kernel" is in one of several layers."""
    suffix = binding.attribute.rpartition(":")[0]
    return layer_name(binding.path.rpartition("/")[0]) + suffix


def check_kept(model: Any, program: Program) -> None:
    """Refuse parameters in layers that a functional model leaves out."""
    kept = {layer.name for layer in model.layers}
    for binding in program.bindings:
        if layer_of(binding) not in kept:
            raise UnsupportedError(
                f"keras cannot hold {binding.path!r}: nothing in the output depends on it, and a "
                "functional model keeps no such layers.\n  Leave that block out."
            )


def policy_name(node: Node) -> str:
    """Keras's name for the dtypes of a network."""
    return node.dtype if node.dtype == node.param_dtype else f"mixed_{node.dtype}"


@contextmanager
def policy(node: Node) -> Iterator[None]:
    """Make layers and metrics of the node's dtypes, then restore what was set."""
    before = keras.config.dtype_policy(), keras.config.floatx()
    if (before[0].name, before[1]) == (policy_name(node), node.param_dtype):
        yield
        return
    keras.config.set_dtype_policy(policy_name(node))
    keras.config.set_floatx(node.param_dtype)
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

"""What every module of a flax model returns, and every function in its place.

nnx has no hooks: while a model is recorded, the classes of its modules have a `__call__` that also
writes down, and functions that stand where modules may, such as `nnx.relu`, are wrapped in a view
of the model. A Repeat runs as a plain loop, for nothing can be written down from inside of a scan.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import wraps
from typing import Any
from unittest.mock import patch

import jax
import numpy as np
from flax import nnx

from backends._backend import Place, Record, given, tensors_in
from backends.flax.modules import Repeat
from blocks._activations import partly
from blocks._spec import leaves, map_value


def record(model: Any, x: Any) -> list[Record]:
    """All that is returned in evaluation."""
    modes = {"deterministic": True, "use_running_average": True}
    view = nnx.view(model, raise_if_not_found=False, **modes)
    with ExitStack() as stack:
        recorder = Recorder(stack)
        recorder.install(view, "", ())
        with partly(recorder.found):
            given(view, type(view).__call__, x)
    return recorder.found


class Recorder:
    """Writes down what the modules that it knows return."""

    def __init__(self, stack: ExitStack):
        self.stack = stack
        self.found: list[Record] = []
        self.known: dict[int, tuple[Any, Place]] = {}
        self.running: set[int] = set()
        self.inside = False
        self.patched: set[type] = set()

    def install(self, model: Any, name: str, index: tuple[int, ...]) -> None:
        """Know all modules and functions of a model, which itself has that place."""
        for path, module in list(nnx.iter_graph(model)):
            inner = ".".join(part for part in (name, *map(str, path)) if part)
            if isinstance(module, nnx.Module):
                self.known.setdefault(id(module), (module, (inner, index)))
                self.patch(type(module))
            if isinstance(module, (nnx.Module, nnx.List)):
                self.wrap(module, inner, index)

    def wrap(self, owner: Any, name: str, index: tuple[int, ...]) -> None:
        """Wrap the functions that stand where modules may."""
        for key, value in functions(owner).items():
            place = f"{name}.{key}".lstrip("."), index
            put(owner, key, self.told(value, place))

    def told(self, function: Callable[..., Any], place: Place) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            y = function(*args)
            self.tell(place, getattr(function, "__name__", type(function).__name__), y)
            return y

        return call

    def tell(self, place: Place, kind: str, y: Any) -> None:
        value = tensors_in(y, is_array)
        # a recurrent layer runs its cell in a scan, where there are no values
        if not any(isinstance(part, jax.core.Tracer) for part in leaves(value)):
            self.found.append(Record(place, kind, map_value(np.asarray, value)))

    def patch(self, kind: type) -> None:
        if kind in self.patched or not hasattr(kind, "__call__"):  # noqa: B004  (which class has it)
            return
        self.patched.add(kind)
        plain = self.loop if kind is Repeat else kind.__call__

        @wraps(kind.__call__)
        def call(module: Any, *args: Any, **options: Any) -> Any:
            known = self.known.get(id(module))
            # a base's, called by its subclass; or inside a layer that is stock, as in an attention
            if known is None or id(module) in self.running or self.inside:
                return plain(module, *args, **options)
            self.running.add(id(module))
            self.inside = closed(module)
            try:
                y = plain(module, *args, **options)
            finally:
                self.running.discard(id(module))
                self.inside = False
            self.tell(known[1], kind_of(module, kind), y)
            return y

        self.stack.enter_context(patch.object(kind, "__call__", call))

    def loop(self, repeat: Any, *x: Any) -> Any:
        name, index = self.known[id(repeat)][1]
        value = x if len(x) > 1 else x[0]
        graph, state = nnx.split(repeat.block)
        for i in range(repeat.times):
            block = nnx.merge(graph, jax.tree.map(lambda stacked, i=i: stacked[i], state))
            self.install(block, f"{name}.block".lstrip("."), (*index, i))
            value = call_on(block, value)
        return value


def closed(module: Any) -> bool:
    """Whether a module is a layer of flax itself, and no container."""
    stock = type(module).__module__.partition(".")[0] == "flax"
    return stock and not isinstance(module, (nnx.Sequential, nnx.bridge.ToNNX))


def kind_of(module: Any, kind: type) -> str:
    """The class of a module; of the cell that a recurrent layer runs."""
    module = getattr(module, "forward_rnn", module)
    return type(module.cell).__name__ if isinstance(module, nnx.RNN) else kind.__name__


def is_array(value: Any) -> bool:
    return isinstance(value, jax.Array)


def call_on(module: Any, x: Any) -> Any:
    """A tuple arrives as several arguments."""
    return module(*x) if isinstance(x, tuple) else module(x)


def functions(owner: Any) -> Mapping[Any, Callable[..., Any]]:
    """The functions among the members of a list, or of the modules that combine others."""
    if isinstance(owner, nnx.List):
        return {i: item for i, item in enumerate(owner) if plain(item)}
    names = ("layers", "body", "shortcut", "block")
    return {name: vars(owner)[name] for name in names if plain(vars(owner).get(name))}


def plain(value: Any) -> bool:
    return callable(value) and not isinstance(value, nnx.Pytree)


def put(owner: Any, key: Any, value: Any) -> None:
    if isinstance(key, int):
        owner[key] = value
    else:
        setattr(owner, key, value)

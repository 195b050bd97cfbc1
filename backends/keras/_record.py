"""What every layer of someone's keras model returns, whichever way the model is written.

Keras has no hooks: while a model is watched, `Layer.__call__` also writes down. What a layer of
Keras itself is made of (the cell of an LSTM) stays inside; an activation that is an argument of a
layer is written down as one of its own, as it is in all other frameworks.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import keras
import numpy as np

from backends._backend import Record, given, tensors_in
from blocks._activations import partly
from blocks._spec import map_value


def watched(model: Any, x: Any) -> list[Record]:
    """All that is returned in evaluation."""
    watch = Watch()
    call = keras.layers.Layer.__call__
    with ExitStack() as stack:
        stack.enter_context(patch.object(keras.layers.Layer, "__call__", watch.over(call)))
        for layer in [layer for _, layer in named(model) if activated(layer)]:
            told = watch.before(layer, vars(layer)["activation"])
            stack.enter_context(patch.dict(vars(layer), activation=told))
        found: list[Record] = []
        with partly(found):
            try:
                if takes_several(model):
                    given(model, model.call, x, training=False)
                else:
                    model(x, training=False)
            finally:
                names = {id(layer): name for name, layer in named(model)}  # some the call makes
                found += [
                    Record((names[id(layer)], ()), kind, value)
                    for layer, kind, value in watch.found
                    if id(layer) in names
                ]
    return found


class Watch:
    """Writes down what layers return, but for those inside a layer of Keras."""

    def __init__(self) -> None:
        self.found: list[tuple[Any, str, Any]] = []
        self.inside = 0

    def over(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        def call(layer: Any, *args: Any, **options: Any) -> Any:
            whole, before = not opened(layer), len(self.found)
            self.inside += whole
            try:
                y = plain(layer, *args, **options)
            finally:
                self.inside -= whole
            if not self.inside:
                told = any(one is layer for one, _, _ in self.found[before:])
                kind = vars(layer)["activation"].__name__ if told else kind_of(layer)
                self.found.append((layer, kind, arrays(y)))
            return y

        return call

    def before(self, layer: Any, activation: Callable[..., Any]) -> Callable[..., Any]:
        """The activation of a layer, which also writes down what it takes."""

        def call(x: Any, *args: Any, **options: Any) -> Any:
            if self.inside == 1:
                self.found.append((layer, kind_of(layer), arrays(x)))
            return activation(x, *args, **options)

        call.__name__ = getattr(activation, "__name__", type(activation).__name__)
        return call


def arrays(value: Any) -> Any:
    """What a layer returns, copied: a later one may work in place."""
    found = tensors_in(value, keras.ops.is_tensor)
    return map_value(lambda tensor: np.array(keras.ops.convert_to_numpy(tensor)), found)


def named(model: Any) -> Iterator[tuple[str, Any]]:
    """A model and the layers in it, by the names that lead to them, shared ones once."""
    seen, todo = set(), [("", model)]
    while todo:
        name, layer = todo.pop()
        if id(layer) not in seen:
            seen.add(id(layer))
            yield name, layer
            if opened(layer):
                todo += [(f"{name}.{key}".lstrip("."), one) for key, one in members(layer)]


def members(layer: Any) -> Iterator[tuple[str, Any]]:
    """The layers in a layer: by the attributes of a class that someone wrote, else by their own
    names.
    """
    inside = layer._flatten_layers(recursive=False, include_self=False)
    names: dict[int, str] = {}
    if type(layer).__module__.partition(".")[0] != "keras":
        for key in (*vars(layer), *vars(layer).get("_modules", ())):  # where torch keeps them
            value = getattr(layer, key, None)
            items = enumerate(value) if isinstance(value, list) else [("", value)]
            for at, one in () if key.startswith("_") else items:
                names.setdefault(id(one), f"{key}.{at}".rstrip("."))
    return ((names.get(id(one), one.name), one) for one in inside)


def opened(layer: Any) -> bool:
    """Whether a layer is shown with what is in it: models, and all that users write."""
    return isinstance(layer, keras.Model) or type(layer).__module__.partition(".")[0] != "keras"


def activated(layer: Any) -> bool:
    """Whether an activation is an argument of a layer, and does something."""
    found = vars(layer).get("activation")
    if opened(layer) or isinstance(layer, keras.layers.Activation):
        return False
    return callable(found) and found is not keras.activations.linear


def kind_of(layer: Any) -> str:
    """The class of a layer; of that in a wrapper; the function of an activation."""
    if isinstance(layer, keras.layers.Activation):
        return getattr(layer.activation, "__name__", "Activation")
    if isinstance(layer, keras.layers.Bidirectional):
        layer = layer.forward_layer
    return type(layer.layer if isinstance(layer, keras.layers.Wrapper) else layer).__name__


def takes_several(model: Any) -> bool:
    """Whether the `call` that someone wrote has arguments of their own for several inputs."""
    names = inspect.signature(model.call).parameters.values()
    needed = [p for p in names if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    return len(needed) > 1

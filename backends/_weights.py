"""How a framework's users keep the parameters of a block: the rules' binds as forms of layers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from backends._rules import Bind, Rules
from blocks._errors import MissingRuleError, UnsupportedError
from blocks._foreign import Form, UnfitError
from blocks._spec import Node, ParamSpec

Arrays = Mapping[str, np.ndarray]


def binds(rules: Rules, node: Node) -> dict[str, Bind]:
    """Where this backend's own layer keeps each parameter of a leaf; nothing if it has none."""
    try:
        rule = rules.find(node)
        return {name: rule.bind(name, node) for name in node.params}
    except (MissingRuleError, UnsupportedError):
        return {}


def native_shape(bind: Bind, spec: ParamSpec) -> tuple[int, ...]:
    """The shape of a parameter as the native layer has it."""
    return bind.transform.to_native(np.empty(spec.shape, np.int8)).shape


def own_form(node: Node, found: Mapping[str, Bind], name: Callable[[str], str]) -> Form:
    """The form of this backend's own layer.

    Args:
        node: the leaf.
        found: where it keeps its parameters; parts of one array are joined along the first axis.
        name: from an attribute to the name in a file.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    sources: dict[str, tuple[tuple[str, ...], str]] = {}
    part_of: dict[str, tuple[str, Bind]] = {}
    for param, bind in found.items():
        inner, shape = name(bind.attribute), native_shape(bind, node.params[param])
        if inner in shapes:
            shape = (shapes[inner][0] + shape[0], *shape[1:])
        shapes[inner] = shape
        how = bind.transform.name
        sources[param] = (inner,), f"{how}, a part" if bind.part else how
        part_of[param] = inner, bind

    def read(arrays: Arrays) -> dict[str, np.ndarray]:
        canonical = {}
        for param, (inner, bind) in part_of.items():
            array = arrays[inner]
            mine = array if bind.part is None else bind.part.of(array)
            canonical[param] = bind.transform.to_canonical(mine, node.params[param].shape)
        return canonical

    return Form(shapes, sources, read)


def renamed(form: Form, name: Callable[[str], str]) -> Form:
    """The same form with other names inside the layer."""
    own = {inner: name(inner) for inner in form.shapes}
    return Form(
        {own[inner]: shape for inner, shape in form.shapes.items()},
        {
            p: (tuple(own[inner] for inner in names), how)
            for p, (names, how) in form.sources.items()
        },
        lambda arrays: form.read({inner: arrays[given] for inner, given in own.items()}),
    )


def stripped(form: Form, separator: str) -> Form:
    """The form without the container that all its names begin with."""
    first = {inner.split(separator)[0] for inner in form.shapes}
    if len(first) > 1 or not all(separator in inner for inner in form.shapes):
        return form
    return renamed(form, lambda inner: inner.partition(separator)[2])


def lone(node: Node, param: str, shapes: Iterable[tuple[int, ...]]) -> list[Form]:
    """Forms of a parameter that is an array of its own in a container of other things."""
    spec = node.params[param]

    def form(shape: tuple[int, ...]) -> Form:
        return Form(
            {"": shape},
            {param: (("",), "same" if shape == spec.shape else "reshaped")},
            lambda arrays: {param: arrays[""].reshape(spec.shape)},
        )

    return [form(shape) for shape in dict.fromkeys(shapes)]


def single(node: Node, param: str, bind: Bind | None) -> Callable[[Any], tuple[Any, str]]:
    """From an array that was stated to be one parameter to the canonical one, and how.

    The array is the framework's own form of that parameter, or has its canonical shape where the
    framework has none.
    """
    spec = node.params[param]

    def read(array: np.ndarray) -> tuple[Any, str]:
        if bind is not None and array.shape == native_shape(bind, spec):
            return bind.transform.to_canonical(array, spec.shape), bind.transform.name
        if bind is None and array.shape == spec.shape:
            return array, "same"
        return None, "unfit"

    return read


def natural(name: str) -> list[Any]:
    """Sorts numbers in names as numbers."""
    pieces = re.split(r"(\d+)", name)
    return [(1, int(piece), "") if piece.isdigit() else (0, 0, piece) for piece in pieces]


def added(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The sum, in float64."""
    return a.astype(np.float64) + b


def check_hidden(name: str, bias: np.ndarray) -> None:
    """Refuse a bias that the reset gate scales: our GRU has none."""
    if np.any(bias != 0):
        raise UnfitError(
            f"{name} adds to the candidate before the reset gate scales it, and a GRU here has no "
            "such bias; only one whose last third is 0 can be imported."
        )

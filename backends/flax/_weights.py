"""Reading what Flax's users saved: trees of linen and nnx as msgpack or in orbax's folders."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx, serialization

from backends._rules import Binding
from backends._weights import (
    Arrays,
    binds,
    check_hidden,
    lone,
    natural,
    own_form,
    renamed,
    single,
    stripped,
)
from backends.flax._common import rule
from blocks._arrays import readable
from blocks._errors import FieldError, FileError
from blocks._foreign import Form, Weights
from blocks._match import Unit
from blocks._spec import Node
from blocks.recurrent import GRU, LSTM, Recurrent, SimpleRNN
from blocks.value import Constant, Parameter

DEPTH = 100
COLLECTIONS = ("params", "batch_stats")  # of linen
VALUES = ("value", "raw_value")  # what nnx keeps in a variable
SKIPPED = {
    "opt_state": "belongs to the optimiser",
    "step": "counts steps",
    "rngs": "random state",
    "dropout_rng": "random state",
}


def read_weights(source: Any) -> Weights:
    """The arrays of a file, a folder, a module or a tree."""
    notes: list[str] = []
    if isinstance(source, nnx.Module):
        source = nnx.state(source)
    if isinstance(source, nnx.State):
        tree = nnx.to_pure_dict(source)
    elif isinstance(source, Mapping):
        tree = source
    elif not isinstance(source, (str, Path)):
        raise FieldError(f"Flax weights are a path, a module or a tree, got {source!r}.")
    else:
        path = Path(source)
        tree = read_folder(path) if os.path.isdir(path) else read_msgpack(path)
    flat: dict[tuple[str, ...], np.ndarray] = {}
    ignored: dict[str, str] = {}
    flatten(tree, flat, ignored)
    flat = merged(inner(flat, ignored, notes))
    names = {"/".join(parts): array for parts, array in flat.items()}
    ordered = {name: names[name] for name in sorted(names, key=natural)}
    return Weights("flax", ordered, ignored, False, tuple(notes))


def read_msgpack(path: Path) -> Any:
    """The tree that flax.serialization wrote."""
    with readable(path):
        data = path.read_bytes()
    try:
        tree = serialization.msgpack_restore(data)
    except Exception as error:  # a damaged file ends in errors of many kinds
        raise FileError(f"{path} is no msgpack file of Flax: {error}.") from None
    if not isinstance(tree, Mapping):
        raise FileError(f"{path} holds no tree of arrays.")
    return tree


def read_folder(path: Path) -> Any:
    """The tree in a folder that orbax wrote."""
    try:
        import orbax.checkpoint as ocp
    except ModuleNotFoundError:
        raise FileError(
            f"{path} is a folder; reading one of orbax needs: pip install orbax-checkpoint"
        ) from None
    folder = path.resolve()
    inside = [folder / name for name in ("default", "params", "state", "model")]
    folder = next((p for p in (folder, *inside) if (p / "_METADATA").is_file()), folder)
    if not (folder / "_METADATA").is_file():
        raise FileError(f"{path} is no folder that orbax wrote: it has no _METADATA.")
    check_inside(folder, path)
    try:
        with ocp.PyTreeCheckpointer() as reader:
            kinds = reader.metadata(folder).item_metadata.tree
            arrays = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), kinds)
            tree = reader.restore(folder, restore_args=arrays)
    except Exception as error:  # a damaged folder ends in errors of many kinds
        reason = str(error).partition("\n")[0]
        raise FileError(f"{path} cannot be read by orbax: {reason}.") from None
    if not isinstance(tree, Mapping):
        raise FileError(f"{path} holds no tree of arrays.")
    return tree


def check_inside(folder: Path, path: Path) -> None:
    """Refuse links that lead elsewhere."""
    for item in folder.rglob("*"):
        if item.is_symlink():
            raise FileError(f"{path} has a link to elsewhere, at {item.relative_to(folder)}.")


def flatten(tree: Any, flat: dict[tuple[str, ...], np.ndarray], ignored: dict[str, str]) -> None:
    """The arrays of a tree by their path."""
    stack: list[tuple[tuple[str, ...], Any]] = [((), tree)]
    while stack:
        path, here = stack.pop()
        name = "/".join(path)
        if len(path) > DEPTH:
            raise FileError(f"the tree is deeper than {DEPTH} levels.")
        if isinstance(here, nnx.Variable):
            here = here.get_value()
        if path and path[-1] in SKIPPED:
            ignored[name] = SKIPPED[path[-1]]
        elif isinstance(here, Mapping):
            stack += [((*path, str(key)), value) for key, value in here.items()]
        elif isinstance(here, (list, tuple)):
            stack += [((*path, str(i)), value) for i, value in enumerate(here)]
        elif isinstance(here, jax.Array) and jax.dtypes.issubdtype(here.dtype, jax.dtypes.prng_key):
            ignored[name] = "random state"
        elif isinstance(here, (np.ndarray, jax.Array, np.generic)):
            flat[path] = np.asarray(here)
        elif here is None or isinstance(here, (bool, int, float, str, bytes)):
            ignored[name] = f"{type(here).__name__}, no array"
        else:
            raise FileError(f"{name} is no array, but {type(here).__name__}.")


def inner(
    flat: dict[tuple[str, ...], np.ndarray], ignored: dict[str, str], notes: list[str]
) -> dict[tuple[str, ...], np.ndarray]:
    """The arrays without the variables of nnx around each of them, and without random state."""
    found = {}
    for path, array in flat.items():
        parts = path[:-1] if len(path) > 1 and path[-1] in VALUES else path
        if path[-1] in ("count", "key") and "rngs" in path:
            ignored["/".join(path)] = "random state"
        else:
            found[parts] = array
    if len(found) < len(flat) - len(ignored):
        notes.append("variables of nnx are read as their values")
    return found


def merged(flat: dict[tuple[str, ...], np.ndarray]) -> dict[tuple[str, ...], np.ndarray]:
    """The collections of linen as one tree: a BatchNorm's statistics beside its scale."""
    while flat and len({path[0] for path in flat}) == 1 and min(map(len, flat)) > 1:
        if next(iter(flat))[0] in COLLECTIONS or not any(p[1] in COLLECTIONS for p in flat):
            break
        flat = {path[1:]: array for path, array in flat.items()}
    if not flat or not all(path[0] in COLLECTIONS and len(path) > 1 for path in flat):
        return flat
    return {path[1:]: array for path, array in flat.items()}


def own_names(bindings: tuple[Binding, ...]) -> dict[tuple[str, str], str]:
    """What our own model's state calls each place."""
    return {b.place: ".".join(filter(None, b.place)).replace(".", "/") for b in bindings}


def own_arrays(weights: Weights) -> dict[str, tuple[str, np.ndarray]]:
    return {name: (name, array) for name, array in weights.arrays.items()}


def split(units: list[Unit], templates: set[frozenset[str]]) -> list[Unit]:
    return units


def slashed(attribute: str) -> str:
    return attribute.replace(".", "/")


def one(node: Node, param: str) -> Any:
    return single(node, param, binds(rule, node).get(param))


def forms(node: Node) -> list[Form]:
    """All the ways in which Flax's users keep the parameters of a leaf."""
    found = binds(rule, node)
    if not found:
        return []
    form = own_form(node, found, slashed)
    if isinstance(node.form, Recurrent):
        return recurrent(node, form)
    if isinstance(node.form, (Parameter, Constant)):
        shape = node.params["value"].shape
        return [form, *lone(node, "value", (shape, (1, *shape)))]
    return [form]


# Cells: those of linen and nnx.LSTMCell have one layer for each gate.

GATES: dict[type, tuple[str, ...]] = {LSTM: ("i", "f", "g", "o"), GRU: ("r", "z", "n")}


def recurrent(node: Node, form: Form) -> list[Form]:
    every = [form, stripped(form, "/")]
    if type(node.form) is SimpleRNN:
        every += [renamed(f, short) for f in every]
    for kind, gates in GATES.items():
        if isinstance(node.form, kind):
            every += cells(node, gates)
    if not node.form.bidirectional:
        return every
    sides = {"branches/0": "forward_rnn", "branches/1": "backward_rnn"}

    def sided(name: str) -> str:
        first, second, rest = name.split("/", 2)
        return f"{sides.get(f'{first}/{second}', f'{first}/{second}')}/{rest}"

    return every + [renamed(f, sided) for f in every if all("branches/" in n for n in f.shapes)]


def short(name: str) -> str:
    return name.replace("dense_i/", "i/").replace("dense_h/", "h/")


def cells(node: Node, gates: tuple[str, ...]) -> list[Form]:
    """A cell with one layer for each gate and side; GRU's "n" is "in" and "hn"."""
    sides = {"": "branches/0/cell/", "backward_": "branches/1/cell/"}
    if not node.form.bidirectional:
        sides = {"": ""}
    size, gru = node.form.features, isinstance(node.form, GRU)
    shapes: dict[str, tuple[int, ...]] = {}
    sources: dict[str, tuple[tuple[str, ...], str]] = {}
    for side, holder in sides.items():
        for param, letter in (("kernel", "i"), ("recurrent_kernel", "h")):
            names = tuple(f"{holder}{letter}{gate}/kernel" for gate in gates)
            rows = node.params[f"{side}{param}"].shape[0]
            shapes |= dict.fromkeys(names, (rows, size))
            sources[f"{side}{param}"] = names, "joined"
        if node.form.use_bias:
            letter = "i" if gru else "h"
            names = tuple(f"{holder}{letter}{gate}/bias" for gate in gates)
            shapes |= dict.fromkeys(names, (size,))
            hidden = (f"{holder}hn/bias",) if gru else ()
            shapes |= dict.fromkeys(hidden, (size,))
            sources[f"{side}bias"] = (*names, *hidden), "joined"

    def read(arrays: Arrays) -> dict[str, np.ndarray]:
        found = {}
        for param, (names, _) in sources.items():
            if gru and param.endswith("bias"):
                check_hidden(names[-1], arrays[names[-1]])
                names = names[:-1]
            found[param] = np.concatenate([arrays[name] for name in names], -1)
        return found

    form = Form(shapes, sources, read)
    # a Python keyword gets an underscore in nnx
    every = [form, renamed(form, lambda n: n.replace("if/", "if_/").replace("in/", "in_/"))]
    return every + ([] if node.form.bidirectional else [within(f) for f in every])


def within(form: Form) -> Form:
    return renamed(form, lambda name: f"cell/{name}")

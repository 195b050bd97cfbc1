"""Reading what Keras's users saved: .weights.h5 and .keras, arrays alone."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import keras
import numpy as np

from backends._rules import Bind, Binding
from backends._weights import (
    Arrays,
    added,
    binds,
    check_hidden,
    lone,
    natural,
    own_form,
    renamed,
    single,
    stripped,
)
from backends.keras import _h5
from backends.keras._common import layer_name, rule
from backends.keras.recurrent import z_first
from blocks._arrays import readable
from blocks._errors import FieldError, FileError
from blocks._foreign import Form, UnfitError, Weights
from blocks._match import Unit
from blocks._spec import Node, array_dtype
from blocks.recurrent import GRU
from blocks.value import Constant, Parameter

H5 = "model.weights.h5"
GROWTH = 64  # how much larger than its file what is read may be
SECONDS = 20  # that reading may take
SPEED = 10_000_000  # bytes a second, at least
SKIPPED = {
    "optimizer": "belongs to the optimiser",
    "_optimizer": "belongs to the optimiser",
    "seed_generator": "random state",
    "metrics": "a metric",
    "_metrics": "a metric",
    "loss_tracker": "a metric",
    "_loss_tracker": "a metric",
    "compile_metrics": "a metric",
}


def read_weights(source: Any) -> Weights:
    """The arrays of a file, a model, or a dict from name to array."""
    notes: list[str] = []
    if isinstance(source, keras.layers.Layer):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / H5
            keras.Model.save_weights(source, path)
            return read_weights(path)
    if isinstance(source, Mapping):
        arrays = {str(name): np.asarray(array) for name, array in source.items()}
        aliases: dict[str, str] = {}
    elif not isinstance(source, (str, Path)):
        raise FieldError(f"Keras weights are a path, a model or a dict, got {source!r}.")
    else:
        path = Path(source)
        with readable(path), open(path, "rb") as file:
            if path.suffix == ".keras":
                notes.append("the configuration in the file is not looked at")
                with tempfile.NamedTemporaryFile(suffix=".h5") as inside:
                    inside.write(unzipped(path, file))
                    inside.flush()
                    arrays, aliases = read_h5(Path(inside.name), path)
            else:
                arrays, aliases = read_h5(path, path)
    ignored = {name: why for name in arrays if (why := reason(name))}
    kept = {name: array for name, array in arrays.items() if name not in ignored}
    kept = {name: kept[name] for name in sorted(kept, key=natural)}
    return Weights("keras", kept, ignored, False, tuple(notes), unique(aliases))


def reason(name: str) -> str:
    """Why an array is no parameter, if it is none."""
    parts = name.split("/")
    found = [SKIPPED[part] for part in parts[:1] if part in SKIPPED]
    random = [part for part in parts if re.fullmatch(r"_?seed_generator(_\d+)?", part)]
    return found[0] if found else (SKIPPED["seed_generator"] if random else "")


def unzipped(path: Path, file: BinaryIO) -> bytes:
    """The file of arrays inside a .keras file."""
    limit = GROWTH * path.stat().st_size
    try:
        with zipfile.ZipFile(file) as archive:
            if archive.getinfo(H5).file_size > limit:
                raise FileError(f"{path} holds more than {GROWTH} times its own size.")
            with archive.open(H5) as member:
                data = member.read(limit + 1)
    except FileError:
        raise
    except KeyError:
        raise FileError(f"{path} has no {H5}.") from None
    except Exception as error:  # a damaged archive ends in errors of many kinds
        raise FileError(f"{path} is no .keras file: {error}.") from None
    if len(data) > limit:
        raise FileError(f"{path} holds more than {GROWTH} times its own size.")
    return data


def read_h5(file: Path, path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """All arrays by their path, and the name that Keras gave to the layer at a path.

    Args:
        file: what to read.
        path: what it is called in messages.
    """
    size = file.stat().st_size
    command = [sys.executable, "-P", _h5.__file__, str(file), str(GROWTH * size)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=SECONDS + size // SPEED)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise FileError(f"{path} is a damaged HDF5 file: reading it does not end.") from None
    if done.returncode == 3:
        raise FileError(f"{path} {done.stderr.decode(errors='replace')}.")
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise FileError(f"{path} cannot be read by h5py: {reason or 'it crashed'}.")
    line, _, data = done.stdout.partition(b"\n")
    head, arrays, start = json.loads(line), {}, 0
    for held in head["arrays"]:
        dtype, shape = np.dtype(held["dtype"]), held["shape"]
        array = np.frombuffer(data, dtype, math.prod(shape), start).reshape(shape)
        start += array.nbytes
        arrays[held["name"]] = as_bfloat16(array) if held["bfloat16"] else array
    return arrays, head["names"]


def as_bfloat16(array: np.ndarray) -> np.ndarray:
    """What Keras marks as bfloat16: the bits, or the numbers in more."""
    half = array_dtype("bfloat16")
    return array.view(half) if array.dtype == np.uint16 else array.astype(half)


def unique(aliases: dict[str, str]) -> dict[str, str]:
    """The names that one layer alone has."""
    names = list(aliases.values())
    return {path: name for path, name in aliases.items() if names.count(name) == 1}


# Names


def numbered(attributes: Any) -> dict[str, str]:
    """What each attribute of a layer is called in a file: its number in what holds it."""
    found: dict[str, str] = {}
    counts: dict[str, int] = {}
    for attribute in attributes:
        if attribute in found:
            continue
        holder = attribute.rpartition(".")[0].replace(".", "/")
        number = counts.get(holder, 0)
        counts[holder] = number + 1
        found[attribute] = f"{holder}/vars/{number}".lstrip("/")
    return found


def own_names(bindings: tuple[Binding, ...]) -> dict[tuple[str, str], str]:
    """What a file of our own model has at each place, behind the name of the layer."""
    layers: dict[str, list[Binding]] = {}
    for b in bindings:
        suffix = b.attribute.rpartition(":")[0]
        layers.setdefault(layer_name(b.path.rpartition("/")[0]) + suffix, []).append(b)
    names = {}
    for layer, held in layers.items():
        trained_first = sorted(held, key=lambda b: not b.spec.trainable)
        inner = numbered(b.attribute.rpartition(":")[2] for b in trained_first)
        for b in held:
            own = inner[b.attribute.rpartition(":")[2]]
            names[b.place] = f"{layer}/{public(own)}"
    return names


def public(name: str) -> str:
    """A private attribute as Keras finds it first, by its public name."""
    return name.removeprefix("_")


def own_arrays(weights: Weights) -> dict[str, tuple[str, np.ndarray]]:
    """The arrays by the name of their layer and what is behind it."""
    found = {}
    for name, array in weights.arrays.items():
        parts = name.split("/")
        layer = weights.aliases.get("/".join(parts[:2]))
        own = "/".join([layer, *map(public, parts[2:])]) if layer else name
        found[own] = name, array
    return found


def split(units: list[Unit], templates: set[frozenset[str]]) -> list[Unit]:
    return units


# Forms


def one(node: Node, param: str) -> Any:
    return single(node, param, stock(node).get(param))


def stock(node: Node) -> dict[str, Bind]:
    """Where Keras's own layer keeps each parameter."""
    found = binds(rule, node)
    if isinstance(node.form, GRU):
        return {name: Bind(bind.attribute, z_first) for name, bind in found.items()}
    return found


def forms(node: Node) -> list[Form]:
    """All the ways in which Keras's users keep the parameters of a leaf."""
    found = binds(rule, node)
    if not found or any(":" in bind.attribute for bind in found.values()):
        return []
    if isinstance(node.form, GRU):
        return gru(node)
    trained_first = sorted(found, key=lambda name: not node.params[name].trainable)
    names = numbered(found[name].attribute for name in trained_first)
    form = own_form(node, found, names.__getitem__)
    every = [form, renamed(form, public), stripped(form, "/")]
    if isinstance(node.form, (Parameter, Constant)):
        shape = node.params["value"].shape
        for other in lone(node, "value", (shape, (1, *shape))):
            every.append(renamed(other, lambda inner: "vars/0"))
    return every


def gru(node: Node) -> list[Form]:
    """Of Keras itself: the gates are z, r, h, and there are two biases. Ours has them as one more
    row of the kernel.
    """
    sides = {"": "cell"}
    if node.form.bidirectional:
        sides = {"": "forward_layer/cell", "backward_": "backward_layer/cell"}
    bias = node.form.use_bias
    width = 3 * node.form.features

    def form(kind: str) -> Form:
        shapes: dict[str, tuple[int, ...]] = {}
        sources: dict[str, tuple[tuple[str, ...], str]] = {}
        for side, holder in sides.items():
            kernel, recurrent, both = (f"{holder}/vars/{i}" for i in range(3))
            rows, columns = node.params[f"{side}kernel"].shape
            shapes[kernel] = rows + (kind == "row"), columns
            shapes[recurrent] = node.params[f"{side}recurrent_kernel"].shape
            sources[f"{side}kernel"] = (kernel,), z_first.name
            sources[f"{side}recurrent_kernel"] = (recurrent,), z_first.name
            if bias:
                held = kernel if kind == "row" else both
                sources[f"{side}bias"] = (held,), f"{z_first.name}, sum" if held == both else "row"
            if bias and kind != "row":
                shapes[both] = (2, width) if kind == "two" else (width,)

        def read(arrays: Arrays) -> dict[str, np.ndarray]:
            found = {}
            for param, ((name,), _) in sources.items():
                array = arrays[name]
                if param.endswith("bias"):
                    array = array[-1] if kind == "row" else one_bias(name, array)
                elif kind == "row" and not param.endswith("recurrent_kernel"):
                    array = array[:-1]
                found[param] = z_first.to_canonical(array, node.params[param].shape)
            return found

        return Form(shapes, sources, read)

    kinds = ("two", "one", "row") if bias else ("none",)
    every = [form(kind) for kind in kinds]
    return every + [stripped(f, "/") for f in every if not node.form.bidirectional]


def one_bias(name: str, array: np.ndarray) -> np.ndarray:
    """The sum of the two biases of a GRU in Keras."""
    if array.ndim == 1:
        raise UnfitError(
            f"{name} is one bias, so that GRU has reset_after=False: its reset gate acts before "
            "the product with the recurrent kernel, and here it acts after it."
        )
    check_hidden(name, np.split(array[1], 3)[2])
    return added(array[0], array[1])

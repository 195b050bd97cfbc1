"""Reading what Keras's users saved: .weights.h5 and .keras, arrays alone."""

from __future__ import annotations

import io
import re
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
DEPTH = 64  # of groups in groups
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
                arrays, aliases = read_h5(io.BytesIO(unzipped(path, file)), path)
            else:
                arrays, aliases = read_h5(file, path)
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


def read_h5(file: Any, path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """All arrays by their path, and the name that Keras gave to the layer at a path."""
    import h5py

    try:
        file.seek(0, io.SEEK_END)
        limit = GROWTH * file.tell()
        file.seek(0)
        with h5py.File(file, "r") as held:
            return Reader(h5py, path, limit).read(held)
    except FileError:
        raise
    except Exception as error:  # a damaged file ends in errors of many kinds
        raise FileError(f"{path} is no HDF5 file of Keras: {error}.") from None


class Reader:
    """Walks through a file: no links to elsewhere, and no more than its size allows."""

    def __init__(self, h5py: Any, path: Path, limit: int):
        self.h5py, self.path, self.limit = h5py, path, limit
        self.arrays: dict[str, np.ndarray] = {}
        self.aliases: dict[str, str] = {}

    def read(self, held: Any) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        stack = [("", held, frozenset())]
        while stack:
            name, group, above = stack.pop()
            address = self.h5py.h5o.get_info(group.id).addr
            if address in above or len(above) > DEPTH:
                raise FileError(f"{self.path} has groups that hold themselves, at {name!r}.")
            for key in group:
                inner = f"{name}/{key}" if name else key
                if not isinstance(group.get(key, getlink=True), self.h5py.HardLink):
                    raise FileError(f"{self.path} has a link to elsewhere, at {inner!r}.")
                item = group[key]
                if isinstance(item, self.h5py.Group):
                    self.alias(inner, item)
                    stack.append((inner, item, above | {address}))
                elif isinstance(item, self.h5py.Dataset):
                    self.arrays[inner] = self.array(inner, item)
        return self.arrays, self.aliases

    def alias(self, name: str, group: Any) -> None:
        given = group.attrs.get("name")
        if name.endswith("/vars") and isinstance(given, str):
            self.aliases[name.removesuffix("/vars")] = given

    def array(self, name: str, data: Any) -> np.ndarray:
        if data.external or data.is_virtual:
            raise FileError(f"{self.path} keeps {name!r} in another file.")
        if data.shape is None or data.dtype.kind not in "biufV" or data.dtype.fields:
            raise FileError(f"{self.path} has no numbers at {name!r}, but {data.dtype}.")
        self.limit -= data.nbytes
        if self.limit < 0:
            raise FileError(f"{self.path} holds more than {GROWTH} times its own size.")
        array = data[()]
        if data.attrs.get("dtype") == "bfloat16":
            array = np.asarray(array).view(array_dtype("bfloat16"))
        return np.asarray(array)


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
        inner = numbered(b.attribute.rpartition(":")[2] for b in held)
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
    names = numbered(bind.attribute for bind in found.values())
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

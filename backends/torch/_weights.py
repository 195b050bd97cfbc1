"""Reading what torch's users saved: state_dicts in files of torch and safetensors."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from backends._rules import Bind, Binding
from backends._transforms import out_first
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
)
from backends.torch._common import rule
from blocks._arrays import readable
from blocks._errors import FieldError, FileError
from blocks._foreign import Form, Weights
from blocks._match import Unit
from blocks._spec import Node, array_dtype
from blocks.attention import MultiHeadAttention
from blocks.recurrent import GRU, Recurrent
from blocks.value import Constant, Parameter

WRAPPED = ("module", "_orig_mod")  # by DataParallel and by torch.compile
LAYER = re.compile(r"_l(\d+)(_reverse)?$")
PROJECTIONS = ("query", "key", "value", "out")
# What people call the projections of attention that they write themselves.
SPELLINGS = (
    ("q_proj", "k_proj", "v_proj", "out_proj"),
    ("q_proj", "k_proj", "v_proj", "o_proj"),
    ("query", "key", "value", "out"),
    ("query", "key", "value", "proj"),
    ("to_q", "to_k", "to_v", "to_out"),
    ("wq", "wk", "wv", "wo"),
    ("q", "k", "v", "o"),
    ("q", "k", "v", "out"),
)


def read_weights(source: Any) -> Weights:
    """The arrays of a file, a module or a state_dict."""
    notes: list[str] = []
    ordered = True
    if isinstance(source, torch.nn.Module):
        tensors: Mapping[str, Any] = source.state_dict()
    elif isinstance(source, Mapping):
        tensors = inner(source, notes, "what was given")
    elif not isinstance(source, (str, Path)):
        raise FieldError(f"torch weights are a path, a module or a dict, got {source!r}.")
    elif Path(source).suffix == ".safetensors":
        tensors, ordered = read_safetensors(Path(source)), False
    else:
        tensors = inner(read_pickle(Path(source)), notes, str(source))
    arrays = {name: as_array(name, tensor) for name, tensor in tensors.items()}
    counters = {
        name: "counts batches" for name in arrays if name.split(".")[-1] == "num_batches_tracked"
    }
    arrays = unwrapped({n: a for n, a in arrays.items() if n not in counters}, notes)
    return Weights("torch", arrays, counters, ordered, tuple(notes))


def read_safetensors(path: Path) -> dict[str, Any]:
    """All arrays, in the natural order of their names: the file does not keep another."""
    from safetensors import SafetensorError, safe_open

    try:
        with readable(path), safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in sorted(file.keys(), key=natural)}
    except (SafetensorError, ValueError, RuntimeError, TypeError, KeyError) as error:
        raise FileError(f"{path} is no safetensors file: {error}.") from None


def read_pickle(path: Path) -> Any:
    """What torch loads without running code."""
    with readable(path), open(path, "rb"):
        pass
    check_stored(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what a damaged file seems to be
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file ends in errors of any kind
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise FileError(
            f"{path} cannot be read as weights of torch: {reason}\n"
            "  Only tensors are read, never code; of a whole module, save its state_dict()."
        ) from None


def check_stored(path: Path) -> None:
    """Refuse an archive that grows when it is read: torch writes plain ones."""
    try:
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        raise FileError(f"{path} is a damaged archive: {error}.") from None
    if size > path.stat().st_size:
        raise FileError(f"{path} is an archive that grows when it is read; torch writes none.")


def inner(held: Any, notes: list[str], where: str) -> dict[str, Any]:
    """The one dict of tensors in a checkpoint."""
    if isinstance(held, torch.Tensor):
        raise FileError(f"{where} holds a single tensor, no dict from name to tensor.")
    found: list[tuple[str, dict[str, Any]]] = []
    stack: list[tuple[str, Any, int]] = [("", held, 0)]
    while stack:
        name, here, depth = stack.pop()
        if not isinstance(here, Mapping) or depth > 8:
            continue
        tensors = {k: v for k, v in here.items() if isinstance(v, (torch.Tensor, np.ndarray))}
        if tensors and all(isinstance(key, str) for key in tensors):
            found.append((name, tensors))
            others = [repr(key) for key in here if key not in tensors]
            if others:
                notes.append(f"beside the arrays there is {', '.join(others)}, which is not read")
            continue
        inside = [(f"{name}[{key!r}]", value, depth + 1) for key, value in here.items()]
        stack += [
            (label, value, level)
            for (label, value, level) in inside
            if not re.search(r"optim|sched|scaler", label, re.I)
        ]
    if len(found) != 1:
        names = ", ".join(name or "itself" for name, _ in sorted(found)) or "none"
        raise FileError(
            f"{where} needs one dict from name to tensor, and has: {names}.\n"
            "  Load it with torch and give the one that is meant."
        )
    name, tensors = found[0]
    if name:
        notes.append(f"the tensors are those of the checkpoint's {name}")
    return tensors


def unwrapped(arrays: dict[str, np.ndarray], notes: list[str]) -> dict[str, np.ndarray]:
    """The names without what DataParallel and torch.compile put before them."""
    while arrays and len({name.partition(".")[0] for name in arrays}) == 1:
        first = next(iter(arrays)).partition(".")[0]
        if first not in WRAPPED or not all("." in name for name in arrays):
            break
        notes.append(f"{first!r} before all names is left out")
        arrays = {name.partition(".")[2]: array for name, array in arrays.items()}
    return arrays


def as_array(name: Any, tensor: Any) -> np.ndarray:
    if isinstance(tensor, np.ndarray):
        return tensor
    if not isinstance(tensor, torch.Tensor):
        raise FileError(f"{name} is no tensor, but {type(tensor).__name__}.")
    try:
        tensor = tensor.detach().cpu()
        word, width = str(tensor.dtype).removeprefix("torch."), tensor.dtype.itemsize
        if word == "bfloat16" or (width == 1 and tensor.dtype.is_floating_point):
            # never in a copy: a tensor that repeats one number may claim to be of any size
            bits = tensor.view(torch.uint8 if width == 1 else torch.int16).numpy()
            return bits.view(array_dtype(word))
        return tensor.numpy()
    except (TypeError, RuntimeError, ValueError, NotImplementedError) as error:
        raise FileError(f"{name} is no plain tensor: {error}.") from None


def own_names(bindings: tuple[Binding, ...]) -> dict[tuple[str, str], str]:
    """What our own model's state_dict calls each place."""
    return {b.place: ".".join(filter(None, b.place)) for b in bindings}


def own_arrays(weights: Weights) -> dict[str, tuple[str, np.ndarray]]:
    return {name: (name, array) for name, array in weights.arrays.items()}


def split(units: list[Unit], templates: set[frozenset[str]]) -> list[Unit]:
    """Recurrent layers of several levels, level by level."""
    found = []
    levels: dict[tuple[str, ...], dict[int, dict[str, tuple[str, tuple[int, ...]]]]] = {}
    for unit in units:
        match = LAYER.search(unit.prefix[-1]) if "" in unit.names and unit.prefix else None
        if match is None:
            found.append(unit)
            continue
        holder, level = unit.prefix[:-1], int(match[1])
        name = LAYER.sub(lambda m: f"_l0{m[2] or ''}", unit.prefix[-1])
        if holder not in levels:
            levels[holder] = {}
            found.append(Unit(holder, {}, {}))  # its place in the order
        levels[holder].setdefault(level, {})[name] = unit.names[""], unit.shapes[""]
    whole = []
    for unit in found:
        if unit.names:
            whole.append(unit)
            continue
        for level, held in sorted(levels[unit.prefix].items()):
            names = {inner: name for inner, (name, _) in held.items()}
            shapes = {inner: shape for inner, (_, shape) in held.items()}
            several = len(levels[unit.prefix]) > 1
            prefix = (*unit.prefix, f"l{level}") if several else unit.prefix
            whole.append(Unit(prefix, names, shapes))
    return whole


def one(node: Node, param: str) -> Any:
    return single(node, param, binds(rule, node).get(param))


def forms(node: Node) -> list[Form]:
    """All the ways in which torch's users keep the parameters of a leaf."""
    found = binds(rule, node)
    if not found:
        return []
    form = own_form(node, found, str)
    kind = node.form
    if isinstance(kind, Recurrent):
        return [form, *([two_biases(node, form)] if kind.use_bias else [])]
    if isinstance(kind, MultiHeadAttention):
        return [form, *separate(node, found)]
    if isinstance(kind, (Parameter, Constant)):
        shape = node.params["value"].shape
        return [form, *lone(node, "value", (shape, (1, *shape), squeezed(shape)))]
    return [form]


def squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    while len(shape) > 1 and shape[0] == 1:
        shape = shape[1:]
    return shape


def two_biases(node: Node, form: Form) -> Form:
    """A recurrent layer of torch itself: a second bias, which is added to the first."""
    second = {n: n.replace("bias_ih", "bias_hh") for n in form.shapes if n.startswith("bias_ih")}
    shapes = form.shapes | {other: form.shapes[name] for name, other in second.items()}

    def read(arrays: Arrays) -> dict[str, np.ndarray]:
        if isinstance(node.form, GRU):
            for other in second.values():
                check_hidden(other, np.split(arrays[other], 3)[2])
        sums = {name: added(arrays[name], arrays[other]) for name, other in second.items()}
        return form.read(dict(arrays) | sums)

    sources = {
        param: ((*names, *(second[n] for n in names)), f"{how}, sum")
        if names[0] in second
        else (names, how)
        for param, (names, how) in form.sources.items()
    }
    return Form(shapes, sources, read)


def separate(node: Node, found: Mapping[str, Bind]) -> list[Form]:
    """Attention written by hand, from four linear layers."""
    plain = {
        param: Bind(
            f"{param.partition('_')[0]}.{'weight' if param.endswith('kernel') else 'bias'}",
            *((out_first,) if param.endswith("kernel") else ()),
        )
        for param in found
    }
    form = own_form(node, plain, str)

    def spelled(spelling: tuple[str, ...]) -> Form:
        names = dict(zip(PROJECTIONS, spelling, strict=True))

        def name(inner: str) -> str:
            projection, _, kind = inner.partition(".")
            return f"{names[projection]}.{kind}"

        return renamed(form, name)

    return [spelled(spelling) for spelling in SPELLINGS]

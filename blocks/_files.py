"""Networks as JSON files and parameters as safetensors files.

A network is the tree of blocks, with the fields that are not at their defaults:

    {"format": "isoblocks network", "version": 1,
     "network": {"type": "Sequential", "blocks": [{"type": "Dense", "features": 10}]}}

Every block is written and read by its dataclass fields; none has code of its own here. Reading runs
no code and imports nothing: a block is looked up by name among those of isoblocks and among the
`Custom` classes that the caller gives. Parameters are written by their canonical paths, so a file
does not say which backend they were trained on.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Generator, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import blocks
from blocks import initializers
from blocks._arrays import read_arrays, readable, replacing, write_arrays
from blocks._block import Block, Config
from blocks._errors import BlockError, FileError, did_you_mean
from blocks._infer import infer
from blocks._params import Params
from blocks._spec import Node, Spec, ValueSpec, leaves
from blocks._stack import call_deep, run
from blocks.custom import Custom

FORMAT, VERSION = "isoblocks network", 1
PARAMS_HEADER = {"format": "isoblocks parameters", "version": "1"}
NODE_KEYS = ("input", "layout", "dtype", "param_dtype")
SPEC_KEYS = {"shape", "dtype", "below"}
TYPE = "type"  # no block has a field of that name
BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]')


def to_json(network: Block) -> str:
    """A network as JSON.

    >>> import blocks as bl
    >>> net = bl.Sequential(bl.Dense(3), bl.Residual(bl.Tanh()))
    >>> from_json(to_json(net)) == net
    True
    """
    if not isinstance(network, Block):
        raise FileError(f"a network file holds a block, got {type(network).__name__}.")
    return written({"network": run(encoded(network))})


def node_to_json(node: Node) -> str:
    """A node as JSON: its block, its input, its layout and its dtypes, from which it is inferred.

    >>> import blocks as bl
    >>> node = bl.infer(bl.Embedding(10, 4), (None,), dtype="float64")
    >>> again = node_from_json(node_to_json(node))
    >>> again.block == node.block, again.in_spec == node.in_spec, again.dtype
    (True, True, 'float64')
    """
    if not isinstance(node, Node):
        raise FileError(f"node_to_json takes a node from infer, got {type(node).__name__}.")
    return written(
        {
            "network": run(encoded(node.block)),
            "input": map_spec(encoded_spec, node.in_spec),
            "layout": leaves(node.in_spec)[0].layout,
            "dtype": node.dtype,
            "param_dtype": node.param_dtype,
        }
    )


def from_json(text: str, custom: Iterable[type[Custom]] = ()) -> Block:
    """The network in a text that `to_json` wrote.

    Args:
        text: the JSON.
        custom: the `Custom` classes that it may name.

    Raises:
        FileError: if it is no such text, or names a block or a field that is unknown.
    """
    return block_of(parsed(text), custom)


def node_from_json(text: str, custom: Iterable[type[Custom]] = ()) -> Node:
    """The node in a text that `node_to_json` wrote; arguments and errors as in `from_json`."""
    data = parsed(text)
    missing = [name for name in NODE_KEYS if name not in data]
    if missing:
        raise FileError(f"this is a network without its {', '.join(missing)}: no node.")
    block = block_of(data, custom)
    x = decoded_spec(data["input"], "input")
    words = {name: data[name] for name in NODE_KEYS[1:]}
    try:
        return infer(block, x, **words)
    except (BlockError, TypeError) as error:
        raise FileError(f"the network of this file has no such input: {error}") from None


def written(content: dict[str, Any]) -> str:
    data = {"format": FORMAT, "version": VERSION} | content
    return call_deep(depth(data), json.dumps, data) + "\n"


def parsed(text: str) -> dict[str, Any]:
    """The content of a text that `written` made."""
    try:
        data = call_deep(nesting(text), json.loads, text)
    except (ValueError, TypeError) as error:
        raise FileError(f"this is no JSON: {error}.") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise FileError(f"this is no network: it does not say 'format': {FORMAT!r}.")
    if data.get("version") != VERSION:
        raise FileError(
            f"this network has version {data.get('version')!r}, but version {VERSION} is what this "
            "isoblocks reads. Install a newer one."
        )
    return data


def block_of(data: dict[str, Any], custom: Iterable[type[Custom]]) -> Block:
    known = library() | {kind.__name__: kind for kind in custom}
    network = run(decoded(data.get("network"), "network", known))
    if not isinstance(network, Block):
        raise FileError("the network of this file is no block.")
    return network


def map_spec(function: Any, value: ValueSpec) -> Any:
    """Apply a function to each tensor of a value; tuples become lists."""
    if isinstance(value, tuple):
        return [map_spec(function, inner) for inner in value]
    return function(value)


def encoded_spec(spec: Spec) -> dict[str, Any]:
    """One tensor of an input as JSON has it."""
    data = {"shape": list(spec.shape), "dtype": spec.dtype}
    return data if spec.below is None else data | {"below": spec.below}


def decoded_spec(data: Any, where: str) -> ValueSpec:
    """The input that JSON holds, for `infer`."""
    if isinstance(data, list) and len(data) > 1:
        return tuple(decoded_spec(item, f"{where}[{i}]") for i, item in enumerate(data))
    if not isinstance(data, dict) or not {"shape", "dtype"} <= data.keys() <= SPEC_KEYS:
        raise FileError(f"{where} is no tensor with a shape and a dtype: {data!r}.")
    shape, below = data["shape"], data.get("below")
    if not isinstance(shape, list) or not isinstance(below, int | None):
        raise FileError(f"{where} has no shape, or no bound: {data!r}.")
    return Spec(tuple(shape), data["dtype"], below=below)


def save(network: Block, path: str | Path) -> None:
    """Write a network to a JSON file."""
    text = to_json(network)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def load(path: str | Path, custom: Iterable[type[Custom]] = ()) -> Block:
    """Read a network from a JSON file; arguments and errors as in `from_json`."""
    try:
        with readable(path):
            text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise FileError(f"{path} is no text in UTF-8.") from None
    return from_json(text, custom)


def save_params(params: Mapping[str, np.ndarray], path: str | Path) -> None:
    """Write parameters to a safetensors file: by their canonical paths, each in its own dtype.

    Raises:
        FileError: if they are no dict from path to array of numbers, or cannot be written there.
    """
    write_arrays(path, params, PARAMS_HEADER, "a file of parameters")


def load_params_file(path: str | Path) -> Params:
    """The parameters in a file that `save_params` wrote, for `lower` or `load_params`.

    Raises:
        FileError: if it is no such file, or was damaged.
    """
    return read_arrays(path, PARAMS_HEADER, "parameters of isoblocks")[0]


def encoded(value: Any) -> Generator[Any, Any, Any]:
    """A value of a field as JSON has it."""
    if isinstance(value, tuple):
        items = []
        for item in value:
            items.append((yield encoded(item)))
        return items
    if not isinstance(value, Config):
        return value
    data = {TYPE: value.package + type(value).__name__}
    for name, inner in value.fields().items():
        data[name] = yield encoded(inner)
    return data


def decoded(data: Any, where: str, known: dict[str, type[Config]]) -> Generator[Any, Any, Any]:
    """A value of a field from what JSON holds."""
    if isinstance(data, list):
        items = []
        for i, item in enumerate(data):
            items.append((yield decoded(item, f"{where}[{i}]", known)))
        return tuple(items)
    if not isinstance(data, dict):
        return data
    name = data.get(TYPE)
    if not isinstance(name, str) or name not in known:
        hint = did_you_mean(str(name), known) or " Is it a Custom class? Then give custom=[...]."
        raise FileError(f"{where} has the unknown {TYPE} {name!r}.{hint}")
    kind, fields = known[name], {}
    allowed = {f.name for f in dataclasses.fields(kind)}
    for field, inner in data.items():
        if field not in (TYPE, *allowed):
            hint = did_you_mean(field, allowed)
            raise FileError(f"{name} at {where} has no field {field!r}.{hint}")
        if field != TYPE:
            fields[field] = yield decoded(inner, f"{where}.{field}", known)
    try:
        return kind.of_fields(**fields)
    except (BlockError, TypeError) as error:
        raise FileError(f"{name} at {where} cannot be built: {error}") from None


def classes(module: Any, base: type[Config]) -> dict[str, type[Config]]:
    """The public classes of a module that can be built, by the name that `repr` writes."""
    return {
        kind.package + name: kind
        for name, kind in vars(module).items()
        if isinstance(kind, type) and issubclass(kind, base) and kind not in (Block, Custom)
        if "__dataclass_fields__" in vars(kind)  # which those do not have that are only bases
    }


@cache
def library() -> dict[str, type[Config]]:
    """All blocks and initialisers of isoblocks, by name."""
    return classes(blocks, Block) | classes(initializers, initializers.Initializer)


def depth(data: Any) -> int:
    """How deep lists and dicts are nested."""
    deepest, stack = 0, [(data, 1)]
    while stack:
        here, level = stack.pop()
        deepest = max(deepest, level)
        inner = here.values() if isinstance(here, dict) else here if isinstance(here, list) else ()
        stack.extend((item, level + 1) for item in inner)
    return deepest


def nesting(text: str) -> int:
    """How deep the brackets of a JSON text are nested."""
    deepest = level = 0
    for found in BRACKETS.finditer(text):
        bracket = found[0]
        if bracket in "[{":
            level += 1
            deepest = max(deepest, level)
        elif bracket in "]}":
            level -= 1
    return deepest

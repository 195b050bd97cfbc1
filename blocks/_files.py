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
from blocks._params import Params
from blocks._stack import call_deep, run
from blocks.custom import Custom

FORMAT, VERSION = "isoblocks network", 1
PARAMS_HEADER = {"format": "isoblocks parameters", "version": "1"}
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
    data = {"format": FORMAT, "version": VERSION, "network": run(encoded(network))}
    return call_deep(depth(data), json.dumps, data) + "\n"


def from_json(text: str, custom: Iterable[type[Custom]] = ()) -> Block:
    """The network in a text that `to_json` wrote.

    Args:
        text: the JSON.
        custom: the `Custom` classes that it may name.

    Raises:
        FileError: if it is no such text, or names a block or a field that is unknown.
    """
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
    known = library() | {kind.__name__: kind for kind in custom}
    network = run(decoded(data.get("network"), "network", known))
    if not isinstance(network, Block):
        raise FileError("the network of this file is no block.")
    return network


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

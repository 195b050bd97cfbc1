"""Networks as JSON files.

A network is the tree of blocks, with the fields that are not at their defaults:

    {"format": "isoblocks network", "version": 1,
     "network": {"type": "Sequential", "blocks": [{"type": "Dense", "features": 10}]}}

and a node has its input, its layout and its dtypes beside it. docs/files.md is the whole format.

Every block is written and read by its dataclass fields; none has code of its own here. Reading runs
no code and imports nothing that a file names: a block is looked up by name among those of isoblocks
and among the classes that the caller gives.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Generator, Iterable, Mapping
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeAlias

import blocks
from blocks import initializers
from blocks._arrays import replacing
from blocks._block import Block, Config
from blocks._errors import BlockError, FileError, did_you_mean, short, shown
from blocks._infer import infer
from blocks._json import Where, as_text, canonical, inside, parsed, read_text, spelled
from blocks._limits import MAX_AXES
from blocks._spec import Node, Spec, ValueSpec, leaves
from blocks._stack import run
from blocks.custom import Custom

FORMAT, VERSION = "isoblocks network", 1
NODE_KEYS = ("input", "layout", "dtype", "param_dtype")
SPEC_KEYS = {"shape", "dtype", "below"}
TYPE = "type"  # no block has a field of that name

# Classes that a file may name, or their import names; or what a file calls them, to these.
Allowed: TypeAlias = Iterable[type[Config] | str] | Mapping[str, type[Config] | str]


def to_json(network: Block | Node) -> str:
    """A network as JSON; a node with its input, its layout and its dtypes.

    Raises:
        FileError: if it holds what no file holds, such as an infinite number, and where.

    >>> import blocks as bl
    >>> net = bl.Sequential(bl.Dense(3), bl.Residual(bl.Tanh()))
    >>> bl.from_json(bl.to_json(net)) == net
    True
    """
    return as_text(document(network), "file") + "\n"


def from_json(text: str, custom: Allowed = ()) -> Block | Node:
    """The network in a text that `to_json` wrote: a block, or a node if it was one.

    Args:
        text: the JSON.
        custom: the classes that it may name beside those of isoblocks: classes, or their import
            names such as "package.module:Class", which are imported because they stand here; or a
            dict from the name in the file to one of these, where a class has moved.

    Raises:
        FileError: if it is no such text, or names a class or a field that is unknown.
    """
    data = parsed(text, "file")
    check_keys(data)
    block = run(decoded(data.get("network"), (None, "network"), named(custom)))
    if not isinstance(block, Block):
        raise FileError("the network of this file is no block.")
    return node_at(block, data) if "input" in data else block


def node_to_json(node: Node) -> str:
    """A node as JSON: its block, its input, its layout and its dtypes, from which it is inferred.

    >>> import blocks as bl
    >>> node = bl.infer(bl.Embedding(10, 4), (None,), dtype="float64")
    >>> again = node_from_json(node_to_json(node))
    >>> again.block == node.block, again.in_spec == node.in_spec, again.dtype
    (True, True, 'float64')
    """
    if not isinstance(node, Node):
        raise FileError(f"node_to_json takes a node from infer, got {shown(node)}.")
    return to_json(node)


def node_from_json(text: str, custom: Allowed = ()) -> Node:
    """The node in a text that `node_to_json` wrote; arguments and errors as in `from_json`."""
    found = from_json(text, custom)
    if not isinstance(found, Node):
        raise FileError("this is a network without its input: no node.")
    return found


def save(network: Block | Node, path: str | Path) -> None:
    """Write a network, or a node with its input, to a JSON file: all of it, or nothing."""
    text = to_json(network)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def load(path: str | Path, custom: Allowed = ()) -> Block | Node:
    """Read what `save` wrote, a block or a node; arguments and errors as in `from_json`."""
    return from_json(read_text(path), custom)


def fingerprint(network: Block | Node) -> str:
    """32 hexadecimal digits that are the same for equal networks, on every machine.

    They cover what a file has of the network: its blocks, their fields and their names; for a node
    its input, layout and dtypes too. Custom blocks count by name and fields, not by their code.

    >>> import blocks as bl
    >>> bl.fingerprint(bl.Dense(3)) == bl.fingerprint(bl.Dense(3, use_bias=True))
    True
    >>> bl.fingerprint(bl.Dense(3)) == bl.fingerprint(bl.infer(bl.Dense(3), (2,)))
    False
    """
    text = canonical(document(network), "network")
    return blake2b(text.encode(), digest_size=16).hexdigest()


def with_fingerprint(node: Node) -> dict[str, Any]:
    """What a file about a node says of it."""
    return {"network": document(node), "fingerprint": fingerprint(node)}


def node_in(path: str | Path, data: dict[str, Any], custom: Allowed) -> Node:
    """The node of which a file says that, if it is the one of that fingerprint."""
    node = node_from_json(as_text(data.get("network"), "network"), custom)
    if data.get("fingerprint") != fingerprint(node):
        raise FileError(
            f"{path} is about a network with the fingerprint {shown(data.get('fingerprint'))}, "
            f"but holds one with {fingerprint(node)}."
        )
    return node


def config_in(data: dict[str, Any], name: str, custom: Allowed) -> Any:
    """What a file says under a name, such as a loss: a word, or an object of a known class."""
    return run(decoded(data.get(name), (None, name), named(custom)))


def document(network: Block | Node) -> dict[str, Any]:
    """All that a file says of a network."""
    block = network.block if isinstance(network, Node) else network
    if not isinstance(block, Block):
        raise FileError(f"a network file holds a block, or a node from infer, got {shown(block)}.")
    data = {"format": FORMAT, "version": VERSION, "network": run(encoded(block))}
    if isinstance(network, Node):
        data |= {
            "input": encoded_input(network.in_spec),
            "layout": leaves(network.in_spec)[0].layout,
            "dtype": network.dtype,
            "param_dtype": network.param_dtype,
        }
    return data


def check_keys(data: Any) -> None:
    """Refuse a file of another kind, of another version, or with unknown parts."""
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise FileError(f"this is no network: it does not say 'format': {FORMAT!r}.")
    if type(data.get("version")) is not int or data["version"] != VERSION:
        raise FileError(
            f"this network has version {shown(data.get('version'))}, but version {VERSION} is what "
            "this isoblocks reads. Install a newer one."
        )
    known = ("format", "version", "network", *NODE_KEYS)
    for key in data:
        if key not in known:
            raise FileError(f"file has no part {short(repr(key))}.{did_you_mean(key, known)}")
    if lacking := [key for key in NODE_KEYS if key not in data and data.keys() & {*NODE_KEYS}]:
        raise FileError(f"this network has an input, but lacks its {', '.join(lacking)}.")


# Fields


def encoded(value: Any) -> Generator[Any, Any, Any]:
    """A value of a field as JSON has it."""
    if isinstance(value, tuple):
        items = []
        for item in value:
            items.append((yield encoded(item)) if isinstance(item, tuple | Config) else item)
        return items
    if not isinstance(value, Config):
        return value
    data = {TYPE: name_of(type(value))}
    for name, inner in value.fields().items():
        data[name] = yield encoded(inner)
    return data


def decoded(
    data: Any, where: Where, known: Mapping[str, type[Config]], axes: int = 0
) -> Generator[Any, Any, Any]:
    """A value of a field from what JSON holds; `axes` counts the lists around it."""
    if isinstance(data, list):
        if axes == MAX_AXES:
            raise FileError(f"{spelled(where)} is a list inside {MAX_AXES} others.")
        items = []
        for i, item in enumerate(data):
            if isinstance(item, dict | list):
                item = yield decoded(item, inside(where, i), known, axes + 1)
            items.append(item)
        return tuple(items)
    if not isinstance(data, dict):
        return data
    kind, fields = class_of(data, where, known), {}
    for field, inner in data.items():
        if field != TYPE:
            fields[field] = yield decoded(inner, inside(where, field), known)
    try:
        return kind.of_fields(**fields)
    except BlockError as error:
        raise unbuilt(kind, where, error) from None
    except Exception as error:  # a class of the caller's may raise anything
        raise unbuilt(kind, where, error) from error


def unbuilt(kind: type[Config], where: Where, error: Exception) -> FileError:
    why = short(str(error), 1000)
    return FileError(f"{kind.__name__} at {spelled(where)} cannot be built: {why}")


def class_of(data: dict[str, Any], where: Where, known: Mapping[str, type[Config]]) -> type[Config]:
    """The class that an object names, if it is known and has just those fields."""
    name = data.get(TYPE)
    if not isinstance(name, str) or name not in known:
        raise FileError(f"{spelled(where)} {unknown(name, known)}")
    kind = known[name]
    allowed = {f.name for f in dataclasses.fields(kind)}
    for field in data:
        if field not in (TYPE, *allowed):
            hint = did_you_mean(field, allowed)
            raise FileError(f"{name} at {spelled(where)} has no field {short(repr(field))}.{hint}")
    for field in required(kind):
        if field not in data:
            raise FileError(f"{name} at {spelled(where)} cannot be built: it lacks its {field!r}.")
    return kind


def unknown(name: Any, known: Mapping[str, type[Config]]) -> str:
    """Why a name is refused, and what to type."""
    if not isinstance(name, str) or ":" not in name:
        hint = did_you_mean(str(name), known) if isinstance(name, str) else ""
        hint = hint or " Is it a Custom class? Then give custom=[...]."
        return f"has the unknown {TYPE} {shown(name)}.{hint}"
    label = shown(name)
    cls = name.rpartition(":")[2].rpartition(".")[2]
    moved = f"custom={{{label}: {short(cls)}}}"
    if name.startswith("__main__:") or "<" in name:
        return f"is a {label}, which is not allowed here. Write {moved}, with the class."
    return (
        f"is a {label}, which is not allowed here, and a file imports nothing by itself. If you "
        f"trust that module write custom=[{label}]; if the class is elsewhere now, {moved}."
    )


def required(kind: type[Config]) -> list[str]:
    """The arguments without which a class cannot be built."""
    return [
        a.name
        for a in inspect.signature(kind).parameters.values()
        if a.default is a.empty and a.kind not in (a.VAR_POSITIONAL, a.VAR_KEYWORD)
    ]


# Classes by name


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
    """All blocks, initialisers, optimisers and schedules of isoblocks, by name."""
    return classes(blocks, Config) | classes(initializers, initializers.Initializer)


def name_of(kind: type[Config]) -> str:
    """What a file calls a class: its name if isoblocks has it, else where it is imported from."""
    name = kind.package + kind.__name__
    return name if library().get(name) is kind else import_name(kind)


def import_name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def named(custom: Allowed) -> dict[str, type[Config]]:
    """Every class that a file may name, by its name there."""
    if isinstance(custom, str | type) or not isinstance(custom, Iterable):
        raise FileError(f"custom is a list of classes, got {shown(custom)}. Put it into brackets.")
    if isinstance(custom, Mapping):
        given = {name: allowed(item) for name, item in custom.items()}
    else:
        given = {}
        for item in custom:
            kind = allowed(item)
            given |= {import_name(kind): kind} | ({item: kind} if isinstance(item, str) else {})
    return given | library()


def allowed(item: Any) -> type[Config]:
    """A class that the caller gives, as it is or by its import name."""
    kind = imported(item) if isinstance(item, str) else item
    if not isinstance(kind, type) or not issubclass(kind, Config):
        raise FileError(
            "custom takes classes of blocks, or their import names such as "
            f"'package.module:Class', got {shown(item)}."
        )
    return kind


def imported(name: str) -> Any:
    """What an import name of the caller's stands for."""
    module, colon, path = name.partition(":")
    if not module or not colon or not path:
        raise FileError(f"custom takes names such as 'package.module:Class', got {name!r}.")
    try:
        found = importlib.import_module(module)
    except (ImportError, ValueError, TypeError) as error:
        raise FileError(f"custom has {name!r}, which cannot be imported: {error}.") from None
    except Exception as error:  # code of the caller's
        raise FileError(f"custom has {name!r}, which raises {error!r} in its import.") from error
    for part in path.split("."):
        if not hasattr(found, part):
            hint = did_you_mean(part, vars(found)) or " Give the class itself."
            raise FileError(f"custom has {name!r}, but there is no {part!r}.{hint}")
        found = getattr(found, part)
    return found


# Inputs


def encoded_input(value: ValueSpec) -> Any:
    """An input as JSON has it: an object for each tensor, a list for a tuple."""
    if isinstance(value, tuple):
        return [encoded_input(member) for member in value]
    data = {"shape": list(value.shape), "dtype": value.dtype}
    return data if value.below is None else data | {"below": value.below}


def node_at(block: Block, data: dict[str, Any]) -> Node:
    """The node of a block at the input that a file has."""
    x = decoded_input(data["input"], (None, "input"))
    try:
        node = infer(block, x, **{name: data[name] for name in NODE_KEYS[1:]})
    except BlockError as error:
        raise FileError(f"this network cannot have this input: {short(str(error), 1000)}") from None
    stated, found = encoded_input(x), encoded_input(node.in_spec)
    if stated != found:
        raise FileError(f"this network has the input {shown(found)}, but states {shown(stated)}.")
    return node


def decoded_input(data: Any, where: Where, levels: int = 0) -> ValueSpec:
    """An input for `infer` from what JSON holds."""
    if isinstance(data, list) and len(data) > 1 and levels < MAX_AXES:
        pairs = enumerate(data)
        return tuple(decoded_input(item, inside(where, i), levels + 1) for i, item in pairs)
    if not isinstance(data, dict) or not {"shape", "dtype"} <= data.keys() <= SPEC_KEYS:
        raise FileError(f"{spelled(where)} is no tensor with a shape and a dtype: {shown(data)}.")
    shape, below = data["shape"], data.get("below")
    if not isinstance(shape, list) or any(type(size) not in (int, type(None)) for size in shape):
        raise FileError(f"{spelled(where)} has a shape that is none: {shown(shape)}.")
    if type(below) not in (int, type(None)) or (below is not None and below < 1):
        raise FileError(f"{spelled(where)} has a bound that is none: {shown(below)}.")
    return Spec(tuple(shape), data["dtype"], below=below)

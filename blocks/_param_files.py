"""Parameters as safetensors files: one, or for large ones several shards with an index.

Parameters are written by their canonical paths, so a file does not say which backend they were
trained on. docs/files.md is the whole format.

An index names its shards, whose names hold a digest of what is in them. So shards are never
overwritten by others: new ones are written beside the old, then the index is replaced, then the old
ones are removed, and whoever is stopped on the way leaves one complete set or the other.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from blocks._arrays import (
    check_header,
    checked,
    checksums_of,
    listed,
    read_arrays,
    read_header,
    real_path,
    replacing,
    synced,
    writable,
    write_arrays,
    write_checked,
)
from blocks._block import Block
from blocks._errors import FileError, did_you_mean, short, shown
from blocks._files import fingerprint
from blocks._infer import check_ints
from blocks._json import as_text, canonical, parsed, read_text
from blocks._params import Params, check_used, matching
from blocks._spec import Node

HEADER = {"format": "isoblocks parameters", "version": "1"}
WHAT, A_FILE = "parameters of isoblocks", "a file of parameters"
INDEX, SUFFIX = ".index.json", ".safetensors"
KEYS = ("metadata", "weight_map")


def save_params(
    params: Mapping[str, np.ndarray],
    path: str | Path,
    *,
    network: Block | Node | None = None,
    max_shard_bytes: int | None = None,
) -> None:
    """Write parameters to a safetensors file: by their canonical paths, each in its own dtype.

    All is written, or nothing: whoever is stopped meanwhile leaves what was there before.

    Args:
        params: canonical path to array.
        path: such as "net.safetensors".
        network: whose parameters they are. Its fingerprint is written too, and checked by
            `load_params_file`.
        max_shard_bytes: splits them into files of at most so many bytes of numbers (or one array):
            "net-<digest>-00001-of-00002.safetensors", ..., and the index
            "net.safetensors.index.json". They are read by the same `path`.

    Raises:
        FileError: if they are no dict from path to array of numbers, or cannot be written there.
    """
    path, header = base(path), HEADER | fingerprints(network)
    index = index_of(path)
    obsolete = writable(path if max_shard_bytes is not None else index)
    if max_shard_bytes is None:
        write_arrays(path, params, header, A_FILE)
        kept: set[str] = set()
    else:
        check_ints(max_shard_bytes=(max_shard_bytes, 1))
        kept = write_shards(index, checked(params, A_FILE), header, max_shard_bytes)
    if os.path.exists(obsolete):  # what is read if both are there is the index
        obsolete.unlink()
        synced(obsolete.parent)
    remove_shards(index, kept)


def load_params_file(
    path: str | Path, *, pattern: str | None = None, network: Block | Node | None = None
) -> Params:
    """The parameters in a file that `save_params` wrote, for `lower` or `load_params`.

    Args:
        path: of the file, or of the index of its shards with or without ".index.json".
        pattern: of paths, as in `select`: only those are read from the disk and checked.
        network: whose parameters they must be, by the fingerprint that was written.

    Raises:
        FileError: if it is no such file, was damaged, or belongs to another network.
        ParamError: if the pattern matches nothing.
    """
    path = base(path)
    index = index_of(path)
    if os.path.exists(index):  # Path.exists raises for a name too long
        return read_shards(index, pattern, network)
    params, header = read_arrays(path, HEADER, WHAT, wanted(pattern))
    check_network(path, header, network)
    return params


def base(path: str | Path) -> Path:
    """The path of the parameters as a whole, through symbolic links."""
    found = real_path(path)
    return found.with_name(found.name.removesuffix(INDEX)) if found.name != INDEX else found


def index_of(path: Path) -> Path:
    return real_path(path.with_name(path.name + INDEX))


def wanted(pattern: str | None) -> Callable[[list[str]], list[str]]:
    """What to read of the names in a file."""

    def chosen(names: list[str]) -> list[str]:
        if pattern is None:
            return names
        found = matching(names, pattern)
        if not found:
            check_used([pattern], names)
        return found

    return chosen


def only(names: list[str]) -> Callable[[list[str]], list[str]]:
    return lambda _: names


# Fingerprints


def fingerprints(network: Block | Node | None) -> dict[str, str]:
    """What a header says of a network: the fingerprint of its block; of a node that of both."""
    if network is None:
        return {}
    if isinstance(network, Node):
        return {"network": fingerprint(network.block), "node": fingerprint(network)}
    return {"network": fingerprint(network)}


def check_network(path: Path, header: Mapping[str, Any], network: Block | Node | None) -> None:
    """Refuse the parameters of another network, or of the same one at another input."""
    for key, given in fingerprints(network).items():
        stated = header.get(key)
        if stated is None and key == "network":
            raise FileError(
                f"{path} does not say which network it belongs to. Leave out network=, or write it "
                "by save_params(params, path, network=...)."
            )
        if stated not in (None, given):
            other = "another network" if key == "network" else "another input, layout or dtype"
            raise FileError(
                f"{path} was written for {other}: its fingerprint is {shown(stated)}, but that of "
                f"the given {key} is {given!r}."
            )


# Shards


def write_shards(
    index: Path, arrays: dict[str, np.ndarray], header: dict[str, str], most: int
) -> set[str]:
    """Write the shards, then the index that refers to them; returns the names of the shards."""
    groups = split(arrays, most)
    places: dict[str, str] = {}
    for i, group in enumerate(groups, 1):
        sums = checksums_of(group)
        name = f"{stem(index)}-{digest(sums)}-{i:05}-of-{len(groups):05}{SUFFIX}"
        write_checked(index.with_name(name), group, sums, header)
        places |= dict.fromkeys(group, name)
    size = sum(array.nbytes for array in arrays.values())
    metadata = {**header, "total_size": size}
    metadata["checksum"] = digest({"metadata": metadata, "weight_map": places})
    text = as_text({"metadata": metadata, "weight_map": places}, "index", indent=1)
    with replacing(index) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    return set(places.values())


def split(arrays: dict[str, np.ndarray], most: int) -> list[dict[str, np.ndarray]]:
    """Arrays in their order, in groups of at most so many bytes, or of one that is larger."""
    groups: list[dict[str, np.ndarray]] = []
    room = 0
    for name, array in arrays.items():
        if not groups or array.nbytes > room:
            groups.append({})
            room = most
        groups[-1][name] = array
        room -= array.nbytes
    return groups


def stem(index: Path) -> str:
    return index.name.removesuffix(INDEX).removesuffix(SUFFIX)


def twins(index: Path) -> list[Path]:
    """Other indices whose shards have names of the same form."""
    names = stem(index) + INDEX, stem(index) + SUFFIX + INDEX
    return [index.with_name(name) for name in names if name != index.name]


def digest(data: Any) -> str:
    """16 hexadecimal digits of plain data."""
    return blake2b(canonical(data, "index").encode(), digest_size=8).hexdigest()


def remove_shards(index: Path, kept: set[str]) -> None:
    """Remove the shards that belong to an index by their names, but are not those it refers to.

    Those of "net" and of "net.safetensors" have the same names; where both are there, all stay.
    """
    if any(os.path.exists(other) for other in twins(index)):
        return
    own = re.compile(re.escape(stem(index)) + r"-[0-9a-f]{16}-\d{5,}-of-\d{5,}\.safetensors")
    for file in index.parent.iterdir():
        if own.fullmatch(file.name) and file.name not in kept:
            file.unlink(missing_ok=True)


def read_shards(index: Path, pattern: str | None, network: Block | Node | None) -> Params:
    """The parameters that an index refers to."""
    header, places = read_index(index)
    check_network(index, header, network)
    names = wanted(pattern)(list(places))
    shards: dict[str, list[str]] = {}
    for name in names:
        shards.setdefault(places[name], []).append(name)
    check_shards(index, places, list(shards))
    found: Params = {}
    for shard, members in shards.items():
        file = index.with_name(shard)
        found |= read_arrays(file, HEADER, WHAT, only(members))[0]
    return {name: found[name] for name in names}


def read_index(index: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The header of an index, and the shard of each array."""
    data = parsed(read_text(index), "index")
    if not isinstance(data, dict) or not all(isinstance(data.get(key), dict) for key in KEYS):
        raise FileError(f"{index} is no index: it has not the objects {' and '.join(KEYS)}.")
    for key in data:
        if key not in KEYS:
            raise FileError(f"{index} has no part {shown(key)}.{did_you_mean(key, KEYS)}")
    header, places = data["metadata"], data["weight_map"]
    check_header(index, header, HEADER, WHAT)
    rest = {key: value for key, value in header.items() if key != "checksum"}
    if header.get("checksum") != digest({"metadata": rest, "weight_map": places}):
        raise FileError(f"{index} was damaged: its checksum is another.")
    for name, shard in places.items():
        if not is_plain(shard):
            raise FileError(
                f"{index} has {short(name)} in {shown(shard)}, which is no name of a file beside "
                "it that ends in '.safetensors'."
            )
    return header, places


def is_plain(name: Any) -> bool:
    """Whether a text is the name of a file, and no path."""
    if not isinstance(name, str) or not name.endswith(SUFFIX) or name.startswith("."):
        return False
    return not set(name) & set('/\\:*?"<>|') and name.isprintable()


def check_shards(index: Path, places: Mapping[str, str], shards: list[str]) -> None:
    """Refuse shards that are not there or were exchanged, and arrays that are not where the index
    has them; all at once.
    """
    wrong = []
    where: dict[str, list[str]] = {}
    for shard in shards:
        file = index.with_name(shard)
        if file.is_symlink() or not file.is_file():
            wrong.append(f"{shard}: no such file beside the index.")
            continue
        try:
            sums = read_header(file, HEADER, WHAT)[1]
        except FileError as error:
            wrong.append(f"{shard}: {error}")
            continue
        if f"-{digest(sums)}-" not in shard:
            wrong.append(f"{shard}: it holds other arrays than its name says.")
        for name in sums:
            where.setdefault(name, []).append(shard)
        missing = [name for name, place in places.items() if place == shard and name not in sums]
        extra = [name for name in sums if places.get(name) != shard]
        wrong += [f"{shard}: missing {listed(missing)}."] if missing else []
        wrong += [f"{shard}: not in the index: {listed(extra)}."] if extra else []
    twice = [name for name, files in where.items() if len(files) > 1]
    wrong += [f"in more than one shard: {listed(twice)}."] if twice else []
    if wrong:
        raise FileError(f"{index} and its shards do not fit.\n  " + "\n  ".join(wrong))

"""Reads the arrays of an HDF5 file: a program of its own, run as `python _h5.py FILE LIMIT`.

The HDF5 library may crash, or never come back, where a file is damaged on purpose or by accident;
then only this process ends. It follows no link to another file, and reads LIMIT bytes at most. To
standard output go one line of JSON and the bytes of the arrays; a reason to refuse goes to standard
error, with exit status 3.
"""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any

DEPTH = 64  # of groups in groups
MEMORY = 2**31  # bytes that the libraries themselves may need


class Refused(Exception):
    """The file is none that is read."""


def main(path: str, limit: int) -> None:
    bound(MEMORY + 4 * limit)
    import h5py

    try:
        with h5py.File(path, "r") as held:
            arrays, names = Reader(h5py, limit).read(held)
    except Refused as refused:
        stop(str(refused))
    except Exception as error:  # a damaged file ends in errors of many kinds
        stop(f"is no HDF5 file of Keras: {error}")
    head = [
        {"name": name, "dtype": str(a.dtype), "shape": a.shape, "bfloat16": half}
        for name, (a, half) in arrays.items()
    ]
    line = json.dumps({"arrays": head, "names": names})
    sys.stdout.buffer.write(line.encode() + b"\n")
    for array, _ in arrays.values():
        sys.stdout.buffer.write(array.tobytes())


def stop(reason: str) -> None:
    sys.stderr.write(reason)
    sys.exit(3)


def bound(size: int) -> None:
    """Bound the memory of this process, where the system can."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (size, size))


class Reader:
    """Walks through a file."""

    def __init__(self, h5py: Any, limit: int):
        self.h5py, self.limit = h5py, limit
        self.arrays: dict[str, tuple[Any, bool]] = {}
        self.names: dict[str, str] = {}

    def read(self, held: Any) -> tuple[dict[str, tuple[Any, bool]], dict[str, str]]:
        """All arrays by their path, and the names that Keras gave to layers by theirs."""
        stack: list[tuple[str, Any, frozenset[int]]] = [("", held, frozenset())]
        while stack:
            name, group, above = stack.pop()
            address = self.h5py.h5o.get_info(group.id).addr
            if address in above or len(above) > DEPTH:
                raise Refused(f"has groups that hold themselves, at {name!r}")
            for key in group:
                inner = f"{name}/{key}" if name else key
                if not isinstance(group.get(key, getlink=True), self.h5py.HardLink):
                    raise Refused(f"has a link to elsewhere, at {inner!r}")
                item = group[key]
                if isinstance(item, self.h5py.Group):
                    self.layer(inner, item)
                    stack.append((inner, item, above | {address}))
                elif isinstance(item, self.h5py.Dataset):
                    self.arrays[inner] = self.array(inner, item)
        return self.arrays, self.names

    def layer(self, path: str, group: Any) -> None:
        given = group.attrs.get("name")
        if path.endswith("/vars") and isinstance(given, str):
            self.names[path.removesuffix("/vars")] = given

    def array(self, path: str, data: Any) -> tuple[Any, bool]:
        """An array, and whether its 16 bits are a bfloat16."""
        if data.external or data.is_virtual:
            raise Refused(f"keeps {path!r} in another file")
        if data.shape is None or data.dtype.kind not in "biufV" or data.dtype.names:
            raise Refused(f"has no numbers at {path!r}, but {data.dtype}")
        self.limit -= data.nbytes
        if self.limit < 0:
            raise Refused("holds many times more than its own size")
        half = data.attrs.get("dtype") == "bfloat16"
        array = data[...]
        if array.dtype.kind == "V":
            if array.dtype.itemsize != 2:
                raise Refused(f"has no numbers at {path!r}, but {data.dtype}")
            array, half = array.view("u2"), True
        return array.astype("u2") if half and array.dtype.kind in "iu" else array, half


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

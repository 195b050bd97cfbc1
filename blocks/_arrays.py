"""Files of arrays: safetensors with a kind, a version and checksums, written whole or not at all.

The header of a file is a dict of texts. It says what the file is ("format"), in which version, and
for each array the checksum of its dtype, shape and bytes, so that an array that was damaged or
exchanged is never taken for the one that was written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from tempfile import mkstemp
from typing import Any

import numpy as np

from blocks._errors import FileError
from blocks._spec import array_dtype, is_float

CHECKSUMS = "checksums"


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A new file beside `path`, which takes its place when all is written and on the disk.

    Whoever is stopped before leaves the old file, and one ".<name>.<random>.tmp" that nobody reads.

    Raises:
        FileError: if it cannot be written there.
    """
    path = Path(path)
    try:
        handle, name = mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    except OSError as error:
        raise FileError(f"{path} cannot be written: {error.strerror}.") from None
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(allowed(path))
        synced(temporary)
        os.replace(temporary, path)
        synced(path.parent)
    except OSError as error:
        raise FileError(f"{path} cannot be written: {error.strerror}.") from None
    finally:
        temporary.unlink(missing_ok=True)


def allowed(path: Path) -> int:
    """Who may read and write a file: as before, or as for any new file."""
    if path.exists():
        return path.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def synced(path: Path) -> None:
    """Wait until a file or a folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def readable(path: str | Path) -> Iterator[None]:
    """Say of a file that it cannot be read."""
    try:
        yield
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror or error}.") from None


def write_arrays(
    path: str | Path, arrays: Mapping[str, Any], header: Mapping[str, str], what: str
) -> None:
    """Write arrays by name, each in its own dtype.

    Args:
        path: of the file.
        arrays: a dict from name to array of numbers.
        header: texts that belong to them; "format" and "version" among them.
        what: "a file of parameters", for messages.

    Raises:
        FileError: if there are other things than arrays, or the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    plain = checked(arrays, what)
    sums = {name: checksum(array) for name, array in plain.items()}
    try:
        with replacing(path) as temporary:
            save_file(plain, temporary, {**header, CHECKSUMS: json.dumps(sums)})
    except SafetensorError as error:
        raise FileError(f"{path} cannot be written: {error}.") from None


def checked(arrays: Any, what: str) -> dict[str, np.ndarray]:
    """Arrays of numbers, whose memory is in order: safetensors reads it from its start."""
    if not isinstance(arrays, Mapping) or not all(isinstance(name, str) for name in arrays):
        raise FileError(f"{what} holds a dict from path to array.")
    try:
        plain = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    except (TypeError, ValueError) as error:
        raise FileError(f"{what} holds arrays: {error}.") from None
    for name, array in plain.items():
        if array.dtype.kind not in "biuf" and not is_float(array):
            raise FileError(f"{what} holds numbers; {name} has dtype {array.dtype}.")
    return plain


def read_arrays(
    path: str | Path,
    known: Mapping[str, str],
    what: str,
    wanted: Callable[[list[str]], list[str]] = list,
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays that `write_arrays` wrote, and the header.

    Args:
        path: of the file.
        known: the format and the version that can be read.
        what: "parameters of isoblocks", for messages.
        wanted: which of the names to read; only those are read from the disk and checked.

    Raises:
        FileError: if it is no such file, or what is in it was damaged.
    """
    from safetensors import SafetensorError, safe_open

    array_dtype("bfloat16")  # so that NumPy knows it
    try:
        with readable(path), safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            check_header(path, header, known, what)
            sums = checksums(path, header, set(file.keys()))
            arrays = {name: file.get_tensor(name) for name in wanted(list(file.keys()))}
    except SafetensorError as error:
        raise FileError(f"{path} is no safetensors file: {error}.") from None
    damaged = [name for name, array in arrays.items() if checksum(array) != sums[name]]
    if damaged:
        raise FileError(f"{path} was damaged: the checksum of {', '.join(damaged)} is another.")
    return arrays, {name: text for name, text in header.items() if name != CHECKSUMS}


def check_header(
    path: str | Path, header: Mapping[str, str], known: Mapping[str, str], what: str
) -> None:
    """Refuse a file of another kind, or of another version."""
    if header.get("format") != known["format"]:
        raise FileError(f"{path} holds no {what}: it does not say 'format': {known['format']!r}.")
    if header.get("version") != known["version"]:
        raise FileError(
            f"{path} has version {header.get('version')!r}, but version {known['version']} is what "
            "this isoblocks reads. Install a newer one."
        )


def checksums(path: str | Path, header: Mapping[str, str], names: set[str]) -> dict[str, str]:
    """The checksum of each array, as the header has them."""
    try:
        sums = json.loads(header.get(CHECKSUMS, ""))
    except (ValueError, RecursionError):
        sums = None
    if not isinstance(sums, dict) or sums.keys() != names:
        raise FileError(f"{path} was damaged: it has not one checksum for each array.")
    return sums


def checksum(array: np.ndarray) -> str:
    """16 bytes of BLAKE2b over dtype, shape and bytes, as hexadecimal digits."""
    state = blake2b(f"{array.dtype} {array.shape} ".encode(), digest_size=16)
    state.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return state.hexdigest()

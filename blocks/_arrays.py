"""Files of arrays: safetensors with a kind, a version and checksums, written whole or not at all.

The header of a file is a dict of texts. It says what the file is ("format"), in which version, and
for each array the checksum of its dtype, shape and bytes, so that an array that was damaged or
exchanged is never taken for the one that was written.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from tempfile import mkstemp
from typing import Any

import numpy as np

from blocks._errors import BlockError, FileError, short, shown
from blocks._limits import amount, machine_memory
from blocks._spec import array_dtype, is_float

CHECKSUMS = "checksums"
# How many bytes a number has, by the name that safetensors has for its dtype.
WIDTHS = {"BOOL": 1, "F16": 2, "BF16": 2, "F32": 4, "F64": 8} | {
    f"{sign}{8 * width}": width for sign in "IU" for width in (1, 2, 4, 8)
}


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A new file beside `path`, which takes its place when all is written and on the disk.

    Whoever is stopped before leaves the old file, and one ".<name>.<random>.tmp" that nobody reads.
    A file keeps its permissions. A symbolic link stays one: the file that it leads to is replaced.

    Raises:
        FileError: if it cannot be written there.
    """
    path = writable(path)
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


def writable(path: str | Path) -> Path:
    """Where a path leads to; refused if no file can take that place."""
    path = real_path(path)
    if os.path.exists(path) and not path.is_file():  # Path.exists raises for a name too long
        raise FileError(f"{path} cannot be written: it is no regular file.")
    return path


def real_path(path: str | Path) -> Path:
    """Where a path leads to, through symbolic links."""
    try:
        return Path(os.path.realpath(path))
    except (TypeError, ValueError) as error:
        raise FileError(f"{path!r} is no path: {error}.") from None


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
    except BlockError:
        raise
    except (TypeError, ValueError) as error:  # no path, or one with the letter NUL
        raise FileError(f"{path!r} cannot be read: {error}.") from None


def is_name(name: Any) -> bool:
    """Whether an array can have that name in a file."""
    return isinstance(name, str) and name != "__metadata__" and is_unicode(name)


def is_unicode(text: str) -> bool:
    """Whether a text has no halves of surrogate pairs, and not the letter NUL."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


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
    plain = checked(arrays, what)
    write_checked(path, plain, checksums_of(plain), header)


def checksums_of(arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    """The checksum of each array."""
    return {name: checksum(array) for name, array in arrays.items()}


def write_checked(
    path: str | Path, arrays: dict[str, np.ndarray], sums: dict[str, str], header: Mapping[str, str]
) -> None:
    """Write arrays that are in order, with their checksums."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        with replacing(path) as temporary:
            save_file(arrays, temporary, {**header, CHECKSUMS: json.dumps(sums)})
            settle(temporary)
    except SafetensorError as error:
        raise FileError(f"{path} cannot be written: {error}.") from None


def settle(path: Path) -> None:
    """Put the texts of a header in order: safetensors writes them in another one each time."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        data = json.loads(file.read(size))
        data["__metadata__"] = dict(sorted(data["__metadata__"].items()))
        text = json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode()
        file.seek(8)
        file.write(text.ljust(size))


def checked(arrays: Any, what: str) -> dict[str, np.ndarray]:
    """Arrays of numbers in the machine's order of bytes, whose memory is in order too: safetensors
    reads it from its start.
    """
    if not isinstance(arrays, Mapping) or not all(map(is_name, arrays)):
        raise FileError(f"{what} holds a dict from path to array.")
    try:
        plain = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    except (TypeError, ValueError) as error:
        raise FileError(f"{what} holds arrays: {error}.") from None
    for name, array in plain.items():
        if array.dtype.kind not in "biuf" and not is_float(array):
            raise FileError(f"{what} holds numbers; {name} has dtype {array.dtype}.")
        plain[name] = array.astype(array.dtype.newbyteorder("="), copy=False)
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
    with opened(path) as file:
        header, sums = header_of(path, file, known, what)
        names = wanted(list(sums))  # in the order in which they were written
        check_size(path, file, names)
        arrays = {name: file.get_tensor(name) for name in names}
    damaged = [name for name, array in arrays.items() if checksum(array) != sums[name]]
    if damaged:
        raise FileError(f"{path} was damaged: the checksum of {listed(damaged)} is another.")
    return arrays, header


def read_header(
    path: str | Path, known: Mapping[str, str], what: str
) -> tuple[dict[str, str], dict[str, str]]:
    """The header of such a file, and the checksum of each array; arguments as in `read_arrays`."""
    with opened(path) as file:
        return header_of(path, file, known, what)


@contextmanager
def opened(path: str | Path) -> Iterator[Any]:
    """A safetensors file, of which nothing is in memory yet."""
    from safetensors import SafetensorError, safe_open

    array_dtype("bfloat16")  # so that NumPy knows it
    try:
        with readable(path), safe_open(path, framework="numpy") as file:
            yield file
    except SafetensorError as error:
        raise FileError(f"{path} is no safetensors file: {short(str(error))}.") from None
    except MemoryError:
        raise FileError(f"{path} holds more than fits into memory.") from None


def header_of(
    path: str | Path, file: Any, known: Mapping[str, str], what: str
) -> tuple[dict[str, str], dict[str, str]]:
    header = file.metadata() or {}
    check_header(path, header, known, what)
    sums = checksums(path, header, set(file.keys()))
    return {name: text for name, text in header.items() if name != CHECKSUMS}, sums


def check_size(path: str | Path, file: Any, names: list[str]) -> None:
    """Refuse what is not numbers, and more than the machine holds; nothing is read for that."""
    size = 0
    for name in names:
        part = file.get_slice(name)
        width = WIDTHS.get(part.get_dtype())
        if width is None:
            raise FileError(f"{path} holds {short(name)} in {part.get_dtype()}, which is not read.")
        size += math.prod(part.get_shape()) * width
    memory = machine_memory()
    if memory is not None and size > memory:
        raise FileError(f"{path} holds {amount(size)}, but the machine has {amount(memory)}.")


def listed(names: list[str], most: int = 20) -> str:
    """Names for messages, the first of them if they are many."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(short(name) for name in names[:most]) + more


def check_header(
    path: str | Path, header: Mapping[str, str], known: Mapping[str, str], what: str
) -> None:
    """Refuse a file of another kind, or of another version."""
    if header.get("format") != known["format"]:
        raise FileError(f"{path} holds no {what}: it does not say 'format': {known['format']!r}.")
    if header.get("version") != known["version"]:
        raise FileError(
            f"{path} has version {shown(header.get('version'))}, but version {known['version']} is "
            "what this isoblocks reads. Install a newer one."
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

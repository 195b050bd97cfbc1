"""Limits in one place: what a network, or a file, may be at most. docs/files.md has them too.

They are far above what networks need, and so low that reaching one takes seconds, not the machine.
"""

from __future__ import annotations

import os

MAX_TEXT = 2**25  # bytes of a JSON text
MAX_BRACKETS = 500_000  # lists and objects in a JSON text
MAX_NESTING = 12_000  # of these inside each other: a level of a network has two
MAX_AXES = 32  # of a value; NumPy has 64, and of lists of numbers inside each other
MAX_LEVELS = 5_000  # of blocks inside each other
MAX_NODES = 100_000  # blocks of a network, with every repetition
MAX_TENSORS = 1_000  # of one value
MAX_NUMBERS = 2**40  # of one tensor, the batch not counted, or of one parameter
MAX_PATTERN = 1_000  # letters of an einops pattern
MAX_MEASURED = 10_000  # examples of a batch, and steps, of a certificate
MAX_INT = 2**63  # what an integer must be below


def machine_memory() -> int | None:
    """Bytes that this process may have: the machine's, or its own limit; None if unknown."""
    try:
        found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        found += [] if limit == resource.RLIM_INFINITY else [limit]
    except (AttributeError, ImportError, OSError, ValueError):
        return None  # not on this system
    return min(found)


def amount(size: int) -> str:
    """Bytes for people: "1.5 GiB".

    >>> amount(3 * 2**29), amount(1000)
    ('1.5 GiB', '1,000 bytes')
    """
    if size < 2**10:
        return f"{size:,} bytes"
    units = ("KiB", "MiB", "GiB", "TiB")
    exponent = min((size.bit_length() - 1) // 10, len(units))
    return f"{size / 2 ** (10 * exponent):,.1f} {units[exponent - 1]}"


def counted(count: int, word: str) -> str:
    """A number of things: "1 core", "1,024 cores"."""
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"

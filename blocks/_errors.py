"""The errors of isoblocks. Every message says what is wrong, where, and what to type instead.

BlockError(ValueError)
├── FieldError        a block was built wrong                  (construction)
├── ShapeError        blocks do not fit together               (infer, apply)
├── ParamError        arrays do not fit the model              (lower, load_params)
├── FileError         a file is not what it says               (load)
├── BackendError      unknown backend, or framework missing    (also an ImportError)
├── MissingRuleError  a backend has no rule for a block        (lower, source)
└── UnsupportedError  a rule exists, this value has no native form; or no mirror (transpose)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any


class BlockError(ValueError):
    """Base of every error that isoblocks raises on purpose."""


class FieldError(BlockError):
    """A field of a block has a value that it cannot have."""


class ParamError(BlockError):
    """Arrays do not fit the parameters of a network; lists every mismatch at once."""


class FileError(BlockError):
    """A file is not what it says, or names what is unknown."""


class BackendError(BlockError, ImportError):
    """The backend is unknown, or the framework behind it is not installed."""


class MissingRuleError(BlockError):
    """A backend has no rule for a block."""


class UnsupportedError(BlockError):
    """A backend cannot express this value of a field, or `transpose` has no mirror of a block."""


class ShapeError(BlockError):
    """Blocks do not fit together, or data does not fit the network.

    A block raises the bare fact; ``infer`` adds block, path and origin of the values, once.

    Args:
        fact: what is wrong, continuing the words "<Block> at '<path>'".
        fix: a repair that can be typed; or a function that makes it from the block which made the
            last of the values.
        values: named specs whose origin explains the fact; the block's input if left out.
    """

    def __init__(
        self,
        fact: str,
        *,
        fix: str | Callable[[Any], str] = "",
        values: Mapping[str, Any] | None = None,
    ):
        super().__init__(fact)
        self.fact = fact
        self.fix = fix
        self.values = values
        self.path: str | None = None
        self.block: Any = None


class UnknownSizeError(ShapeError):
    """A size must be known where any length was given; a `ShapeError` for those who catch it."""


def did_you_mean(word: str, known: Any) -> str:
    """Return " Did you mean 'x'?" if a known word is near, else nothing."""
    near = get_close_matches(short(word), list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def place(path: str) -> str:
    """Say where a path is, for messages: "at 'encoder/0'", or "at the top" for the root."""
    return f"at {path!r}" if path else "at the top"


def short(text: str, most: int = 200) -> str:
    """A text of at most so many letters: where it is longer, its middle is left out.

    >>> short("abcdefghijklmnop", 9)
    'ab ... op'
    """
    half = (most - 5) // 2
    return text if len(text) <= most else f"{text[:half]} ... {text[-half:]}"


def shown(value: Any) -> str:
    """A value as code for messages, however long or deep it is."""
    try:
        return short(repr(value))
    except (RecursionError, ValueError):  # too deep; an integer of too many digits
        return f"a {type(value).__name__} too large to print"

"""JSON that anybody may have written: read strictly, within limits, and written so that it is read.

What passes holds finite numbers, integers of 64 bits, texts that are Unicode and no key twice. What
does not is a `FileError` that says where.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from blocks._arrays import is_unicode, readable
from blocks._errors import FileError, short, shown
from blocks._limits import MAX_BRACKETS, MAX_INT, MAX_NESTING, MAX_TEXT, amount
from blocks._stack import call_deep

# A place in JSON: the place around it, and the step from there. Text only where it is needed, for
# the places of deeply nested values are long.
Where: TypeAlias = tuple["Where | None", str]

BRACKETS = re.compile(r'"(?:[^"\\]++|\\.)*+"|[\[{]|[\]}]', re.DOTALL)
DIGITS = 20  # more are beyond 64 bits


@dataclass(frozen=True)
class Refused:
    """What stands where JSON holds something that is refused."""

    why: str


def inside(where: Where, step: str | int) -> Where:
    """The place of a member, by its key or its index."""
    return where, f"[{step}]" if isinstance(step, int) else f".{step}"


def spelled(where: Where | None) -> str:
    """A place for people: "network.blocks[1]"."""
    steps = []
    while where is not None:
        where, step = where
        steps.append(step)
    return short("".join(reversed(steps)), 300)


def read_text(path: str | Path) -> str:
    """The text in a file, if it is one of a size that is read."""
    with readable(path), Path(path).open("rb") as file:
        data = file.read(MAX_TEXT + 1)
    if len(data) > MAX_TEXT:
        raise FileError(f"{path} is larger than {amount(MAX_TEXT)}, the most that is read as JSON.")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FileError(f"{path} is no text in UTF-8: {error}.") from None


def read_document(path: str | Path, format: str, version: int, what: str) -> dict[str, Any]:
    """The object in a file, which must say its format and a version that is known."""
    data = parsed(read_text(path), what)
    if not isinstance(data, dict) or data.get("format") != format:
        raise FileError(f"{path} is no {what}: it does not say 'format': {format!r}.")
    if type(data.get("version")) is not int or data["version"] != version:
        raise FileError(
            f"{path} has version {shown(data.get('version'))}, but version {version} is what this "
            "isoblocks reads. Install a newer one."
        )
    return data


def parsed(text: str, name: str) -> Any:
    """What a text of JSON holds; `name` is what errors call it."""
    if not isinstance(text, str):
        raise FileError(f"this is no JSON, but {type(text).__name__}.")
    try:
        data = call_deep(check_text(text), decode, text)
    except FileError:
        raise
    except ValueError as error:
        raise FileError(f"this is no JSON: {error}.") from None
    check_data(data, (None, name))
    return data


def decode(text: str) -> Any:
    return json.loads(
        text, parse_int=integer, parse_constant=constant, object_pairs_hook=without_twins
    )


def integer(text: str) -> Any:
    return int(text) if len(text) <= DIGITS else Refused(f"is an integer of {len(text)} digits")


def constant(text: str) -> Refused:
    return Refused(f"is {text}, which is no finite number")


def without_twins(pairs: list[tuple[str, Any]]) -> Any:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            return Refused(f"has the key {short(repr(key))} twice")
        found[key] = value
    return found


def as_text(data: Any, name: str, **options: Any) -> str:
    """Plain data as JSON in one line, which `parsed` reads."""
    check_data(data, (None, name))
    text: str = call_deep(depth(data), dumps, data, options)
    check_text(text)
    return text


def canonical(data: Any, name: str) -> str:
    """The one text for plain data: keys in order, and no spaces."""
    return as_text(data, name, sort_keys=True, separators=(",", ":"))


def dumps(data: Any, options: dict[str, Any]) -> str:
    return json.dumps(data, allow_nan=False, **options)


def check_text(text: str) -> int:
    """How deep a text is nested; one beyond the limits is refused before anything is made of it."""
    if len(text) > MAX_TEXT:
        raise FileError(
            f"this JSON has {len(text):,} letters, of which {MAX_TEXT:,} is the most. "
            "Keep large arrays in a file of parameters."
        )
    levels = nesting(text)
    if levels > MAX_NESTING:
        raise FileError(f"this JSON is nested deeper than {MAX_NESTING:,} brackets.")
    return levels


def check_data(data: Any, where: Where) -> None:
    """Refuse what JSON does not hold, or not everywhere alike."""
    if why := wrong(data):
        raise FileError(f"{spelled(where)} {why}.")
    stack = [(data, where)]
    while stack:
        here, place = stack.pop()
        if isinstance(here, dict) and (why := next(filter(None, map(wrong, here)), "")):
            raise FileError(f"{spelled(place)} has a key that {why}.")
        for step, item in members(here):
            if isinstance(item, dict | list):
                stack.append((item, inside(place, step)))
            elif why := wrong(item):
                raise FileError(f"{spelled(inside(place, step))} {why}.")


def members(data: Any) -> Iterable[tuple[Any, Any]]:
    """The members of a list or a dict, with their indices or keys."""
    if isinstance(data, dict):
        return data.items()
    return enumerate(data) if isinstance(data, list) else ()


def wrong(value: Any) -> str:
    """What is wrong with a value, its members aside; "" if nothing is."""
    if isinstance(value, Refused):
        return value.why
    if isinstance(value, str):
        if not is_unicode(value):
            return f"holds NUL, or half of a surrogate pair: {shown(value)}"
    elif isinstance(value, float) and not math.isfinite(value):
        return f"is {value}, which is no finite number"
    elif isinstance(value, int) and not -MAX_INT <= value < MAX_INT:
        return "is an integer of more than 64 bits"
    return ""


def depth(data: Any) -> int:
    """How deep lists and dicts are nested."""
    deepest, stack = 0, [(data, 1)]
    while stack:
        here, level = stack.pop()
        deepest = max(deepest, level)
        stack += [(item, level + 1) for _, item in members(here) if isinstance(item, dict | list)]
    return deepest


def nesting(text: str) -> int:
    """How deep the brackets of a JSON text are nested; refuses one with too many of them."""
    deepest = level = opened = 0
    for found in BRACKETS.finditer(text):
        bracket = found[0]
        if bracket in "[{":
            level += 1
            opened += 1
            deepest = max(deepest, level)
            if opened > MAX_BRACKETS:
                raise FileError(f"this JSON has more than {MAX_BRACKETS:,} lists and objects.")
        elif bracket in "]}":
            level -= 1
    return deepest

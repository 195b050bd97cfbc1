"""Backends are found through the entry-point group `blocks.backends` and imported when used."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from blocks._errors import BackendError, did_you_mean


@cache
def known() -> dict[str, EntryPoint]:
    """Every backend that is registered, by name; its framework need not be installed."""
    return {entry.name: entry for entry in entry_points(group="blocks.backends")}


@cache
def find_backend(name: str) -> Any:
    """The adapter of that name; raises `BackendError` if it is unknown or cannot be imported.

    A backend's name may have one of its modes behind it: "torch compiled".
    """
    word, _, mode = str(name).partition(" ")
    if word not in known():
        names = ", ".join(sorted(known())) or "none; install isoblocks with pip first"
        raise BackendError(
            f"unknown backend {name!r}. Known: {names}.{did_you_mean(str(name), known())}"
        )
    try:
        adapter = known()[word].load()
    except ModuleNotFoundError as error:
        raise BackendError(
            f"backend {word!r} needs {error.name}, which is not installed. "
            f"Install it with: pip install 'isoblocks[{word}]'"
        ) from None
    if mode and mode not in adapter.modes:
        modes = ", ".join(adapter.modes)
        raise BackendError(f"backend {word!r} has no mode {mode!r}. It has: {modes}.")
    return adapter.modes[mode] if mode else adapter


def installed() -> list[str]:
    """The backends whose framework can be imported, the reference first, torch before the rest."""
    return [name for name in ordered() if not why_missing(name)]


def missing() -> dict[str, str]:
    """The backends that cannot be used here, each with the reason and what to install."""
    return {name: why for name in ordered() if (why := why_missing(name))}


def ordered() -> list[str]:
    first = ["numpy", "torch", "keras", "flax"]
    return sorted(known(), key=lambda n: (first.index(n) if n in first else len(first), n))


def why_missing(name: str) -> str:
    try:
        find_backend(name)
    except BackendError as error:
        return str(error)
    return ""

"""The rule table of torch, and what rules of several families need."""

from __future__ import annotations

from typing import Any

from backends._rules import Rules

rule = Rules("torch")


# How torch writes sizes


def before(pads: Any) -> tuple[int, ...]:
    return tuple(pair[0] for pair in pads)


def symmetric(pads: Any) -> bool:
    return all(low == high for low, high in pads)


def last_first(pads: Any) -> tuple[int, ...]:
    """Padding as F.pad takes it: the last axis first."""
    return tuple(size for pair in reversed(pads) for size in pair)

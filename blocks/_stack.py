"""Recursion without Python's recursion limit: our own, and that of frameworks."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Generator
from typing import Any, TypeVar

from blocks._errors import BlockError
from blocks._limits import MAX_NESTING

T = TypeVar("T")


def run(task: Generator[Any, Any, T]) -> T:
    """Run a recursive function written as a generator that yields its recursive calls.

    >>> def depth(n):
    ...     return 0 if n == 0 else 1 + (yield depth(n - 1))
    >>> run(depth(100_000))
    100000
    """
    stack: list[Generator[Any, Any, Any]] = [task]
    value: Any = None
    while stack:
        try:
            stack.append(stack[-1].send(value))
            value = None
        except StopIteration as stop:
            stack.pop()
            value = stop.value
    return value


SHALLOW = 40  # levels that fit into Python's usual limit, whatever a framework does at each
FRAMES = 20  # of Python, that a framework may need for one level
STACK = 2**15  # bytes of the machine's stack that it may need


def call_deep(levels: int, function: Callable[..., T], *args: Any) -> T:
    """Call a function that recurses through so many levels of a network.

    Few levels are an ordinary call. For many, Python's limit is raised meanwhile, and the function
    runs in a thread that has the stack for it.

    >>> def depth(n):
    ...     return 0 if n == 0 else 1 + depth(n - 1)
    >>> call_deep(10_000, depth, 10_000)
    10000
    """
    if levels <= SHALLOW:
        return function(*args)
    if levels > MAX_NESTING:
        raise BlockError(f"a call through {levels:,} levels; {MAX_NESTING:,} is the most.")
    result: list[T] = []
    errors: list[BaseException] = []

    def attempt() -> None:
        try:
            result.append(function(*args))
        except BaseException as error:  # it is raised again where the caller waits
            errors.append(error)

    limit, size = sys.getrecursionlimit(), threading.stack_size(2**24 + levels * STACK)
    sys.setrecursionlimit(limit + levels * FRAMES)
    try:
        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()
    finally:
        sys.setrecursionlimit(limit)
        threading.stack_size(size)
    if errors:
        raise errors[0]
    return result[0]

"""What a listing says of parameters: from which paths of a file each native array is made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from backends._expression import Each, Name, Subscript, call, render
from backends._rules import Binding
from blocks._spec import Spec

# NumPy's functions that are printed, and what torch calls those that have another name there.
FUNCTIONS = ("transpose", "reshape", "flip", "take", "stack", "concatenate")
NUMPY = {name: f"np.{name}" for name in FUNCTIONS}
TORCH = {name: f"torch.{name}" for name in FUNCTIONS} | {
    "transpose": "torch.permute",
    "concatenate": "torch.cat",
}


def places(bindings: Iterable[Binding]) -> list[list[Binding]]:
    """The bindings, those of one native array together."""
    found: dict[Any, list[Binding]] = {}
    for binding in bindings:
        found.setdefault(binding.place, []).append(binding)
    return list(found.values())


def native_array(bindings: list[Binding], words: Mapping[str, str]) -> Any:
    """The array at one place as an expression on `params`, the arrays of a file.

    `words` are the framework's names of NumPy's functions.
    """
    if bindings[0].index:
        return stacked(bindings, words)
    if len(bindings) == 1:
        return converted(bindings[0], bindings[0].path, words)
    parts = sorted(bindings, key=lambda b: b.part.place if b.part else 0)
    return call(words["concatenate"], [converted(b, b.path, words) for b in parts])


def converted(binding: Binding, key: Any, words: Mapping[str, str]) -> Any:
    """One array of the file in its native form."""
    return binding.transform.code(Subscript("params", key), binding.spec.shape, words)


def stacked(bindings: list[Binding], words: Mapping[str, str]) -> Any:
    """The arrays of all repetitions as loops, one inside the other where repetitions are."""
    counts = [index + 1 for index in bindings[-1].index]
    names = [f"i{level}" if level else "i" for level in range(len(counts))]
    looped = iter([name for name, count in zip(names, counts, strict=True) if count > 1])
    steps = zip(*(binding.path.split("/") for binding in bindings), strict=True)
    path = "/".join(step[0] if len(set(step)) == 1 else f"{{{next(looped)}}}" for step in steps)
    expression = converted(bindings[0], Name(f'f"{path}"') if "{" in path else path, words)
    for name, count in reversed(list(zip(names, counts, strict=True))):
        expression = call(words["stack"], Each(expression, count, name))
    return expression


def dotted(binding: Binding) -> str:
    """The module and the attribute where a parameter lives."""
    return f"{binding.module}.{binding.attribute}".lstrip(".")


def example(spec: Spec) -> tuple[int, ...]:
    """Sizes at which a listing runs: those of the network; any length is 5."""
    return tuple(5 if size is None else size for size in spec.shape)


def indented(expression: Any, prefix: str = "", level: int = 1) -> str:
    """A statement inside a function."""
    return " " * 4 * level + render(expression, 4 * level, prefix)

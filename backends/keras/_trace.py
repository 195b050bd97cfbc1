"""From steps to the statements of a functional model."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from backends._expression import Let, Mark, Name, call, evaluate, one_line, render
from backends.keras._common import (
    Flow,
    Item,
    Join,
    Op,
    Pipe,
)


@dataclass(frozen=True)
class Statement:
    """`target = callee(source)`; a bare value if there is no callee, a layer alone if no source.

    The source is the name of a value, several names, or a dict of names and constants by keyword.
    """

    target: str
    callee: Any
    source: Any

    def run(
        self, values: dict[str, Any], namespace: dict[str, Any], apply: Callable[..., Any]
    ) -> Any:
        """The value of the target; `apply` calls a layer on what it takes."""
        source = map_names(values.__getitem__, self.source)
        match self.callee:
            case None:
                return source
            case str(name):
                return apply(values[name], source)
            case Item(index):
                return source[index]
            case Op(native, spread):
                options = evaluate(dict((*native.kwargs, *native.implied)), namespace)
                inputs = source if spread else [source]
                function = evaluate(Name(native.function), namespace)
                return function(*native.args, *inputs, **options)
        layer = evaluate(self.callee, namespace)
        return layer if self.source is None else apply(layer, source)

    def code(self) -> str:
        source = map_names(Name, self.source)
        target, brackets = f"{self.target} = ", render(arguments(source))
        match self.callee:
            case None:
                return target + one_line(source)
            case str(name):
                return f"{target}{name}{brackets}"
            case Item(index):
                return f"{target}{one_line(source)}[{index}]"
            case Op(native, spread):
                args = (*native.args, *(source if spread else (source,)))
                return render(replace(native, args=args), prefix=target)
        return render(self.callee, prefix=target, suffix="" if source is None else brackets)


def map_names(function: Callable[[str], Any], source: Any) -> Any:
    match source:
        case list() | tuple():
            return type(source)(map(function, source))
        case dict():
            return {key: map_names(function, value) for key, value in source.items()}
        case str():
            return function(source)
    return source


def called(layer: Any, source: Any) -> Any:
    return layer(**source) if isinstance(source, dict) else layer(source)


def arguments(source: Any) -> Any:
    """What stands behind a layer, as a call without a name."""
    return call("", **source) if isinstance(source, dict) else call("", source)


class Made(NamedTuple):
    """The statements, from the first to before the end, that make a block's result, a variable."""

    first: int
    end: int
    home: str
    variable: str


class Tracer:
    """Writes steps as statements on named values."""

    def __init__(self, used: set[str]) -> None:
        self.statements: list[Statement] = []
        self.marks: list[Made] = []
        self.used = used
        self.layers: dict[str, str] = {}  # name of a shared layer -> the variable that holds it

    def fresh(self, name: str) -> str:
        """A variable of that name, with a number if it is taken."""
        found, count = name, 1
        while found in self.used:
            count += 1
            found = f"{name}_{count}"
        self.used.add(found)
        return found

    def emit(self, target: str, callee: Any, source: Any) -> str:
        self.statements.append(Statement(target, callee, source))
        return target

    def trace(self, step: Any, x: str, target: str, shared: str = "") -> Generator[Any, Any, str]:
        """Write a step on the value `x`; returns the name of its result, `target` if it does
        anything. Layers inside a shared step get variables, so that each is made once.
        """
        match step:
            case Mark(home, inner):
                first = len(self.statements)
                x = yield self.trace(inner, x, target, shared)
                self.marks.append(Made(first, len(self.statements), home, x))
                return x
            case Pipe(steps):
                for inner in steps:
                    x = yield self.trace(inner, x, target, shared)
                return x
            case Join():
                return (yield self.join(step, x, target, shared))
            case Flow(lines):
                return self.flow(lines, x, target, shared)
            case Let(name, inner):
                return (yield self.trace(inner, x, target, name))
        return self.emit(target, self.callee(step, shared), x)

    def flow(self, lines: Any, x: str, target: str, shared: str) -> str:
        """Every line in a variable of its own name."""
        values = {"": x}
        for name, step, source in lines[:-1]:
            given = map_names(values.__getitem__, source)
            own = values.get(name) or self.fresh(name)
            values[name] = self.emit(own, self.callee(step, shared), given)
        _, step, source = lines[-1]
        return self.emit(target, self.callee(step, shared), map_names(values.__getitem__, source))

    def callee(self, step: Any, shared: str) -> Any:
        """The step itself; the variable of its layer inside a shared step."""
        own = shared and not isinstance(step, (Op, Item))
        return self.shared_layer(step, shared) if own else step

    def shared_layer(self, step: Any, shared: str) -> str:
        name = dict(step.kwargs)["name"]
        if name not in self.layers:
            self.layers[name] = self.emit(self.fresh(shared), step, None)
        return self.layers[name]

    def join(self, step: Join, x: str, target: str, shared: str) -> Generator[Any, Any, str]:
        """Branches in variables of their own; the last may overwrite the input."""
        results: list[str] = []
        for name, branch in zip(step.names[:-1], step.branches[:-1], strict=True):
            own = self.fresh(name)
            result = yield self.trace(branch, x, own, shared)
            if result == target:  # the input itself, which the last branch will overwrite
                result = self.emit(own, None, x)
            results.append(result)
        results.append((yield self.trace(step.branches[-1], x, target, shared)))
        if step.merge is None:
            return self.emit(target, None, tuple(results))
        return self.emit(target, self.callee(step.merge, shared), results)

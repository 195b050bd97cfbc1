"""Native expressions: constructor calls as data, so that one rule serves the model and its source.

`call("nn.Linear", 3, 4)` is evaluated by `evaluate` into a layer and printed by `render` as code.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from blocks._stack import run

WIDTH = 88
NESTED = 40


@dataclass(frozen=True)
class Name:
    """Something that the framework or the listing already has: "nnx.relu"."""

    text: str


@dataclass(frozen=True)
class Definition:
    """A class that the listing defines: `made` when a model is built, `code` when it is printed.

    It comes from the user's class `origin`; `facts` tells apart what is made from the same class.
    """

    name: str
    origin: type
    facts: Any
    made: type = field(compare=False)
    code: Callable[[set[str], Mapping[str, Any]], Any] = field(compare=False)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Call:
    """A call of `function`.

    Arguments in `implied` equal the framework's own default: they are passed when a model is built,
    so that no default is relied on, but not printed, so that the listing reads as if hand-written.
    """

    function: str | Definition
    args: tuple[Any, ...] = ()
    kwargs: tuple[tuple[str, Any], ...] = ()
    implied: tuple[tuple[str, Any], ...] = ()

    def shown(self) -> list[tuple[str, Any]]:
        """The printed arguments, in order, with "" for the name of a positional one."""
        return [("", arg) for arg in self.args] + list(self.kwargs)


@dataclass(frozen=True)
class Let:
    """An expression with a name: built once, used wherever the name occurs again."""

    name: str
    value: Any


@dataclass(frozen=True)
class Mark:
    """The expression of a block, with the home of its node: it changes neither model nor code."""

    home: str
    value: Any


@dataclass(frozen=True)
class Lambda:
    """A function of one argument that builds something."""

    argument: str
    body: Any


@dataclass(frozen=True)
class Each:
    """A list of as many things, each built by itself; `name` counts them."""

    body: Any
    times: int
    name: str = "_"


@dataclass(frozen=True)
class Subscript:
    """What a variable holds under a key; only printed. `attribute` is ".T", or nothing."""

    variable: str
    key: Any
    attribute: str = ""


@dataclass(frozen=True)
class Star:
    """A list as the positional arguments of a call."""

    items: Any


@dataclass(frozen=True)
class Optional:
    """An argument that need not be printed if it equals the framework's default."""

    value: Any
    default: Any


def optional(value: Any, default: Any) -> Optional:
    """An argument whose native default is `default`."""
    return Optional(value, default)


def call(function: str | Definition, /, *args: Any, **kwargs: Any) -> Call:
    """A call as data; keyword arguments may be `optional`."""
    shown: list[tuple[str, Any]] = []
    implied: list[tuple[str, Any]] = []
    for name, value in kwargs.items():
        if isinstance(value, Optional):
            kind = implied if value.value == value.default else shown
            kind.append((name, value.value))
        else:
            shown.append((name, value))
    return Call(function, args, tuple(shown), tuple(implied))


def children(expression: Any) -> list[Any]:
    """The expressions directly inside an expression."""
    match expression:
        case Call():
            return [value for _, value in (*expression.shown(), *expression.implied)]
        case Let() | Mark():
            return [expression.value]
        case Lambda() | Each():
            return [expression.body]
        case Star():
            return [expression.items]
        case tuple() | list():
            return list(expression)
        case dict():
            return list(expression.values())
    return []


def walk(expression: Any) -> Iterator[Any]:
    """All expressions inside an expression, itself first."""
    stack = [expression]
    while stack:
        here = stack.pop()
        yield here
        stack.extend(reversed(children(here)))


def lets(expression: Any) -> dict[str, Any]:
    """Name and value of every `Let`, those inside others first."""
    found = [e for e in walk(expression) if isinstance(e, Let)]
    return {let.name: let.value for let in reversed(found)}


def hoisted(expression: Any, fresh: Iterator[str]) -> tuple[dict[str, Any], Any]:
    """An expression whose brackets are nested no deeper than `NESTED`, and what it names: the
    expressions inside it, by `fresh` names, in the order in which they are to be made.

    Python reads no more than 200 brackets inside each other.
    """
    named: dict[str, Any] = {}

    def rebuilt(expression: Any) -> Generator[Any, Any, tuple[Any, int]]:
        match expression:
            case Mark(home, value):
                made, height = yield rebuilt(value)
                if isinstance(made, Name) and made.text in named:
                    named[made.text] = Mark(home, named[made.text])
                return Mark(home, made), height
            case Call():
                args, deepest = yield rebuilt(expression.args)
                kwargs, below = yield rebuilt(dict(expression.kwargs))
                made = replace(expression, args=args, kwargs=tuple(kwargs.items()))
                height = max(deepest, below)
                if height < NESTED:
                    return made, height
                name = next(fresh)
                named[name] = made
                return Name(name), 0
            case tuple() | list():
                pairs = []
                for item in expression:
                    pairs.append((yield rebuilt(item)))
                items = type(expression)(item for item, _ in pairs)
                return items, 1 + max((height for _, height in pairs), default=0)
            case dict():
                values, height = yield rebuilt(list(expression.values()))
                return dict(zip(expression, values, strict=True)), height
        return expression, 0

    return named, run(rebuilt(expression))[0]


def evaluate(expression: Any, namespace: Mapping[str, Any]) -> Any:
    """The object that an expression describes."""
    built: dict[str, Any] = {}

    def value(expression: Any) -> Generator[Any, Any, Any]:
        match expression:
            case Name(text):
                return lookup(text, namespace)
            case Mark(_, inner):
                return (yield value(inner))
            case Call():
                args = []
                for arg in expression.args:
                    if isinstance(arg, Star):
                        args += yield value(arg.items)
                    else:
                        args.append((yield value(arg)))
                kwargs = {}
                for name, arg in (*expression.kwargs, *expression.implied):
                    kwargs[name] = yield value(arg)
                return lookup(expression.function, namespace)(*args, **kwargs)
            case Let(name, inner):
                if name not in built:
                    built[name] = yield value(inner)
                return built[name]
            case Lambda(argument, body):
                return lambda given: evaluate(body, {**namespace, argument: given})
            case Each(body, times):
                items = []
                for _ in range(times):
                    items.append((yield value(body)))
                return items
            case tuple() | list():
                items = []
                for item in expression:
                    items.append((yield value(item)))
                return type(expression)(items)
            case dict():
                entries = {}
                for key, item in expression.items():
                    entries[key] = yield value(item)
                return entries
        return expression

    return run(value(expression))


def lookup(text: str | Definition, namespace: Mapping[str, Any]) -> Any:
    """The object behind a dotted name, or the class of a definition."""
    if isinstance(text, Definition):
        return text.made
    first, *rest = text.split(".")
    found = namespace[first]
    for part in rest:
        found = getattr(found, part)
    return found


@dataclass(frozen=True)
class Code:
    """Lines of a listing, and at which of them, counted from 0, the block of each home stands."""

    lines: list[str] = field(default_factory=list)
    places: dict[str, set[int]] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def add(self, text: str) -> range:
        """Write a text; returns where it is."""
        first = len(self.lines)
        self.lines.extend(text.split("\n"))
        return range(first, len(self.lines))

    def mark(self, home: str, lines: Iterable[int]) -> None:
        """Note where a block stands."""
        self.places.setdefault(home, set()).update(lines)

    def write(self, expression: Any, indent: int = 0, prefix: str = "", suffix: str = "") -> None:
        """Write an expression, in one line if it fits, else one argument a line.

        `prefix` and `suffix` stand before and after it on the same line and count in its width.
        """
        run(self.written(expression, indent, prefix, suffix))

    def written(
        self, expression: Any, indent: int, prefix: str, suffix: str
    ) -> Generator[Any, Any, None]:
        line = one_line(expression)
        items, opening, closing, between = parts(expression)
        margin, first = " " * indent if self.lines else "", len(self.lines)
        if not items or indent + len(prefix) + len(line) + len(suffix) <= WIDTH:
            marks = written_marks(expression)
            self.add(margin + prefix + line + suffix)
        else:
            marks = outer_marks(expression)
            # a lone argument has no comma, as formatters write it
            comma = "" if closing == ")" and len(items) == 1 and opening != "(" else between.strip()
            self.add(margin + prefix + opening)
            for label, item in items:
                yield self.written(item, indent + 4, label, comma)
            self.add(" " * indent + closing + suffix)
        for home in marks:
            self.mark(home, range(first, len(self.lines)))


def render(expression: Any, indent: int = 0, prefix: str = "", suffix: str = "") -> str:
    """Code for an expression, as `Code.write` lays it out; the first line has no margin."""
    code = Code()
    code.write(expression, indent, prefix, suffix)
    return code.text


def outer_marks(expression: Any) -> Iterator[str]:
    """The homes of the blocks that an expression is, not of those inside; a name is its value."""
    while isinstance(expression, (Mark, Let, Lambda, Star)):
        if isinstance(expression, Mark):
            yield expression.home
        expression = children(expression)[0]


def written_marks(expression: Any) -> Iterator[str]:
    """The homes of all blocks that are written where an expression is."""
    stack = [expression]
    while stack:
        here = stack.pop()
        if isinstance(here, Let):
            yield from outer_marks(here)
            continue
        if isinstance(here, Mark):
            yield here.home
        stack.extend(children(here))


def parts(expression: Any) -> tuple[list[tuple[str, Any]], str, str, str]:
    """What an expression is made of: labelled items, opening and closing bracket, and what stands
    between the items: a comma also behind the last if each has a line of its own.
    """
    match expression:
        case Mark(_, value):
            return parts(value)
        case Call():
            items = [(f"{name}=" if name else "", item) for name, item in expression.shown()]
            return items, f"{expression.function}(", ")", ", "
        case Lambda(argument, body):
            items, opening, closing, between = parts(body)
            return items, f"lambda {argument}: {opening}", closing, between
        case Each(body, times, name):
            return [("", body), ("", Name(f"for {name} in range({times})"))], "[", "]", " "
        case Star(inner):
            items, opening, closing, between = parts(inner)
            return items, f"*{opening}", closing, between
        case Subscript(variable, key, attribute):
            return [("", key)], f"{variable}[", f"]{attribute}", " "
        case list():
            return [("", item) for item in expression], "[", "]", ", "
        case tuple():
            return [("", item) for item in expression], "(", ")", ", "
        case dict():
            items = [(f"{literal(key)}: ", item) for key, item in expression.items()]
            return items, "{", "}", ", "
    return [], "", "", ""


def one_line(expression: Any) -> str:
    """Code for an expression in one line."""

    def code(expression: Any) -> Generator[Any, Any, str]:
        match expression:
            case Name(text):
                return text
            case Let(name, _):
                return name
            case Mark(_, value):
                return (yield code(value))
            case Call() | Lambda() | Each() | Star() | Subscript() | list() | tuple() | dict():
                items, opening, closing, between = parts(expression)
                texts = []
                for label, item in items:
                    texts.append(label + (yield code(item)))
                comma = "," if isinstance(expression, tuple) and len(texts) == 1 else ""
                return opening + between.join(texts) + comma + closing
        return literal(expression)

    return run(code(expression))


def literal(value: Any) -> str:
    """A constant as code, with double quotes around strings as formatters write them."""
    text = repr(value)
    return f'"{text[1:-1]}"' if isinstance(value, str) and '"' not in text else text

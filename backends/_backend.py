"""What every backend offers to `blocks`: the verbs, on one framework's models."""

from __future__ import annotations

import ast
import builtins
import inspect
import keyword
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping
from functools import cache, cached_property
from importlib import import_module
from itertools import count
from symtable import symtable
from types import ModuleType
from typing import Any, ClassVar, NamedTuple, TypeAlias

import numpy as np

from backends._custom import Own, check_name
from backends._expression import (
    WIDTH,
    Call,
    Code,
    Definition,
    evaluate,
    hoisted,
    lets,
    walk,
)
from backends._loading import indented, places
from backends._rules import Binding, Program, Rules
from blocks._layout import layout_pass
from blocks._repeat import unrolled
from blocks._spec import Node, Spec, ValueSpec, aligned, leaves, map_value

Place: TypeAlias = tuple[str, tuple[int, ...]]


class Record(NamedTuple):
    """What a native module returned: arrays as it had them. `kind` is the name of its class."""

    place: Place
    kind: str
    value: Any


def tensors_in(value: Any, is_tensor: Callable[[Any], bool]) -> Any:
    """What a module returns, as a value: the tensors in its lists and dicts in one tuple, without
    what is none, such as a mask that is None; a tensor that is left alone is no tuple.
    """
    if all(map(is_tensor, leaves(value))):
        return value
    found, todo = [], [value]
    while todo:
        here = todo.pop()
        if is_tensor(here):
            found.append(here)
        elif isinstance(here, Mapping):
            todo += reversed(list(here.values()))
        elif isinstance(here, list | tuple):
            todo += reversed(here)
    return found[0] if len(found) == 1 else tuple(found)


def given(model: Any, function: Any, x: Any, **options: Any) -> Any:
    """Call someone's model as its function is written: a tuple is several arguments, and so is a
    dict where the arguments have the names of its keys.
    """
    names = inspect.signature(function).parameters
    if isinstance(x, tuple):
        return model(*x, **options)
    if isinstance(x, Mapping) and x.keys() <= names.keys():
        return model(**x, **options)
    return model(x, **options)


class Trainer:
    """Makes training steps, and shows what the optimiser keeps between them.

    That is an array for each of its slots (those of `Optimizer.slots`) and each variable that is
    trained, of the variable's own shape.

    Attributes:
        trained: the native variables that it changes, as `finder` finds them.
    """

    trained: list[Any]

    def __call__(self, x: Any, y: Any, rate: float) -> float:
        """Make a step on inputs and targets at a learning rate; the loss before it."""
        raise NotImplementedError

    def key(self, variable: Any) -> Any:
        """What is the same whenever the same variable is found."""
        return id(variable)

    @cached_property
    def positions(self) -> dict[Any, int]:
        return {self.key(variable): i for i, variable in enumerate(self.trained)}

    def position(self, variable: Any) -> int | None:
        """Where a variable stands among those that are trained; None if it is none of them."""
        return self.positions.get(self.key(variable))

    def slot(self, name: str) -> list[np.ndarray]:
        """What is kept under a name for each variable, in their order."""
        raise NotImplementedError

    def resume(self, steps: int, slots: Mapping[str, list[np.ndarray]]) -> None:
        """Go on as if so many steps had been made, which left this."""
        raise NotImplementedError


class Backend:
    """One framework: its rules, and how its models are built, read, written, run and trained.

    Subclasses set the class attributes and define the methods that raise `NotImplementedError`.

    Attributes:
        name: the backend's name.
        layout: the memory layout in which its spatial layers work; None for the program's own.
        rules: the rule table.
        weights: the module that reads what the framework's users saved (`backends/_weights`), if
            there is one.
        helpers: modules with the small public classes that its rules use beside the framework's,
            those that others need first.
        imports: each name that listings may use, to the line that imports it.
        setup: each name that listings may use, to the line that makes it after the imports, with
            {seed} where a seed goes.
        packages: the modules whose versions decide what its models do.
        unseen: levels of `parity` that it does not measure by the way in which its models run, each
            with the reason. The other adapters of `modes` set it.
    """

    name: ClassVar[str]
    layout: ClassVar[str | None]
    rules: ClassVar[Rules]
    weights: ClassVar[ModuleType | None] = None
    helpers: ClassVar[tuple[ModuleType, ...]] = ()
    imports: ClassVar[dict[str, str]]
    setup: ClassVar[dict[str, str]] = {}
    packages: ClassVar[tuple[str, ...]]
    unseen: ClassVar[dict[str, str]] = {}

    @property
    def modes(self) -> dict[str, Backend]:
        """The ways in which its models run, each with an adapter that runs them so.

        `compare` times them all; "torch compiled" is the backend "torch" in its mode "compiled".
        """
        return {"eager": self}

    @property
    def engines(self) -> dict[str, dict[str, str]]:
        """The frameworks that can be under it, that of this process first, each to the environment
        variables of a process that has it; none if it is a framework itself.
        """
        return {}

    def versions(self) -> dict[str, str]:
        """Each package that decides what its models do, to its version."""
        return {name: import_module(name).__version__ for name in self.packages}

    def program(self, node: Node) -> Program:
        """The network as this backend's native expression."""
        return self.rules.program(unrolled(layout_pass(node, self.layout)), self.reserved())

    def reserved(self) -> set[str]:
        """Names that a listing needs for other things than values."""
        own = {"model", "inputs", "load_params", *self.imports, *self.setup, *self.helper_names()}
        return own | set(dir(builtins)) | set(keyword.kwlist)

    # Models

    def build(self, program: Program, seed: int, blank: bool = False) -> Any:
        """The native model, with the framework's own first parameters.

        If blank, all parameters will be written before they are read, and need not be drawn.
        """
        return evaluate(program.expression, self.namespace(seed))

    def namespace(self, seed: int) -> dict[str, Any]:
        """What the names in expressions stand for."""
        names: dict[str, Any] = {}
        for line in (*self.imports.values(), *self.setup.values()):
            exec(line.format(seed=seed), names)  # noqa: S102  (our own lines, as listings print them)
        return names | self.helper_names() | {"float": float}

    def helper_names(self) -> dict[str, Any]:
        """The classes and functions of its own, in the order in which a listing has them."""
        return {
            name: value
            for module in self.helpers
            for name, value in vars(module).items()
            if getattr(value, "__module__", None) == module.__name__
        }

    def finder(self, model: Any) -> Callable[[Binding], Any]:
        """A function that finds the native variable at the place of a binding."""
        raise NotImplementedError

    def read(self, variable: Any) -> np.ndarray:
        """What a native variable holds, without a copy where that can be had."""
        raise NotImplementedError

    def write(self, variable: Any, array: np.ndarray) -> None:
        """Set a native variable to a copy of an array."""
        own = aligned(array.shape, array.dtype)
        own[...] = array
        self.adopt(variable, own)

    def adopt(self, variable: Any, array: np.ndarray) -> None:
        """Set a native variable to an array that is nobody else's, without a copy if it can."""
        raise NotImplementedError

    def trains(self, model: Any, variables: list[Any]) -> list[bool]:
        """Whether the framework trains each of these native variables of a model."""
        raise NotImplementedError

    def set_trains(self, model: Any, variables: list[Any], on: list[bool]) -> None:
        """Let the framework train these native variables, or not; no others change."""
        raise NotImplementedError

    def sizes(self, model: Any) -> tuple[int, int]:
        """How many numbers the native model holds: trainable ones, and running state."""
        raise NotImplementedError

    def forward(self, node: Node, model: Any, x: Any, training: bool) -> Any:
        """Arrays in, arrays out."""
        raise NotImplementedError

    def place(self, program: Program, node: Node) -> Place:
        """Where the native module of a node is: its name, and which of a stack it is."""
        return program.modules[node.home]

    def record(self, program: Program | None, model: Any, x: Any) -> list[Record]:
        """What every module returns in evaluation, in the order in which they return it.

        Without a program the model is someone else's: its places are its own names.
        """
        raise NotImplementedError

    def gradients(
        self,
        node: Node,
        model: Any,
        x: Any,
        cotangent: Any,
        training: bool,
        bindings: Iterable[Binding],
    ) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
        """Gradients of sum(cotangent * output): for inputs of floats, and native ones by path."""
        raise NotImplementedError

    def trainer(
        self, node: Node, model: Any, loss: Any, optimizer: Any, clip_norm: float | None = None
    ) -> Trainer:
        """What makes training steps. The loss is a word or a Custom block; `native` of the trainer
        is the framework's optimiser or its state.
        """
        raise NotImplementedError

    def random(self, model: Any) -> dict[str, np.ndarray]:
        """The state of the framework's generators that the model draws from, by name."""
        return {}

    def set_random(self, model: Any, state: Mapping[str, np.ndarray]) -> None:
        """Set generators to what `random` returned, or to some of it."""

    # Listings

    def source(self, program: Program, loading: bool = False) -> str:
        """The network as code that runs with the framework alone and defines `model`.

        If loading, it is a program: with a docstring, `load_params` and what it does as a script.
        """
        definitions = self.definitions(program)
        body = self.body(program).text
        own = Own(self.reserved() | assigned_in(body), self.namespace(0))
        for definition in definitions:
            own.add(definition)
        helpers = self.helper_source("\n".join([*own.texts(), body]))
        ending = [*self.loader(program), self.script(program)] if loading else []
        pieces = [*helpers, *own.texts(), body, *ending]
        code = "\n\n\n".join(pieces)
        used = names_in(code)
        setup = [line.format(seed=0) for name, line in self.setup.items() if name in used]
        used |= names_in("\n".join(setup))
        imports = self.imports | own.imports
        lines = import_lines(line for name, line in imports.items() if name in used)
        standard = [line for line in lines if line.split()[1] in sys.stdlib_module_names]
        others = [line for line in lines if line not in standard]
        doc = self.docstring(program).splitlines() if loading else []
        groups = (doc, standard, others, setup)
        header = "\n\n".join("\n".join(group) for group in groups if group)
        return header + ("\n\n" if pieces[0] is body else "\n\n\n") + code + "\n"

    def docstring(self, program: Program) -> str:
        """What the listing is, at which input."""
        node = program.node
        text = f"A {self.name} model from {sizes(node.in_spec)} to {sizes(node.out_spec)}."
        usage = "As a script it takes the parameters: a safetensors file by canonical paths."
        lines = textwrap.wrap(f'"""{text}', WIDTH - 3) + (["", usage] if program.bindings else [])
        return "\n".join([*lines, '"""']) if len(lines) > 1 else f'{lines[0]}"""'

    def loader(self, program: Program) -> list[str]:
        """The function that loads parameters, if there are any."""
        if not program.bindings:
            return []
        return [
            "def load_params(path):\n"
            '    """Set all parameters of the model to those in a file."""\n'
            + self.reading(program)
            + "\n"
            + self.loaded(places(program.bindings))
        ]

    def reading(self, program: Program) -> str:
        """The statements that read the file; of names that are missing Python says which."""
        known = len({binding.path for binding in program.bindings})
        return (
            "    params = load_file(path)\n"
            f"    if len(params) > {known}:\n"
            f'        raise ValueError(f"{{path}} has {{len(params)}} arrays, the model {known}")'
        )

    def loaded(self, places: list[list[Binding]]) -> str:
        """The statements that set native arrays from `params`, the arrays in a file by path."""
        raise NotImplementedError

    def script(self, program: Program) -> str:
        """What the listing does when it is run: the model, and the shape of what it returns."""
        given = "    if len(sys.argv) > 1:\n        load_params(sys.argv[1])\n"
        shapes = [f"{member}.shape" for member in members("y", program.node.out_spec)]
        return (
            'if __name__ == "__main__":\n'
            + (given if program.bindings else "")
            + indented(map_value(self.zeros, program.node.in_spec), "x = ")
            + f"\n{self.called(program)}\n    print({', '.join(shapes)})"
        )

    def zeros(self, spec: Spec) -> Any:
        """An array of zeros for an input, as an expression."""
        raise NotImplementedError

    def called(self, program: Program) -> str:
        """The statements that make `y` of `x`, in evaluation."""
        return "    y = model(x)"

    def located(self, program: Program) -> tuple[str, dict[str, set[int]]]:
        """The listing, and at which of its lines, counted from 1, the block of each home stands."""
        text, code = self.source(program), self.body(program)
        before = text.count("\n") - len(code.lines) + 1  # the statements are the end of a listing
        places = {home: {before + line for line in lines} for home, lines in code.places.items()}
        return text, places

    def body(self, program: Program) -> Code:
        """The statements that build the model."""
        return self.assignments(program, Code())

    def assignments(self, program: Program, code: Code) -> Code:
        """Write what has a name in the program, then the model."""
        statements: dict[str, Any] = {}
        shared = lets(program.expression)
        taken = self.reserved() | shared.keys()
        fresh = filter(lambda part: part not in taken, map("part_{}".format, count(1)))
        for name, value in (shared | {"model": program.expression}).items():
            parts, whole = hoisted(value, fresh)
            statements |= {**parts, name: whole}
        for name, value in statements.items():
            code.write(value, prefix=f"{name} = ")
        return code

    def expressions(self, program: Program) -> Iterable[Any]:
        """All expressions of a program."""
        return walk(program.expression)

    def definitions(self, program: Program) -> list[Definition]:
        """The classes that a listing defines itself."""
        calls = [found for found in self.expressions(program) if isinstance(found, Call)]
        found = [call.function for call in calls if isinstance(call.function, Definition)]
        for definition in found:
            check_name(definition.name)
        return found

    def helper_source(self, code: str) -> list[str]:
        """The source of every helper that the code uses, and of those that they use, in order."""
        own = {name: source_of(value) for name, value in self.helper_names().items()}
        needed: set[str] = set()
        todo = names_in(code)
        while new := (todo & own.keys()) - needed:
            needed |= new
            todo = set().union(*(names_in(own[name]) for name in new))
        return [text for name, text in own.items() if name in needed]


def import_lines(lines: Iterable[str]) -> list[str]:
    """Imports as isort writes them: modules first, then names from modules, one line each."""
    plain, named = set(), dict[str, list[str]]()
    for line in lines:
        match line.split(" import "):
            case [module, names] if " as " not in names:
                named.setdefault(module, []).extend(names.split(", "))
            case [module, _]:
                named[line] = []
            case _:
                plain.add(line)
    joined = [
        f"{start} import {', '.join(sorted(set(names), key=isort_key))}" if names else start
        for start, names in named.items()
    ]
    return sorted(plain, key=str.lower) + sorted(joined, key=str.lower)


def isort_key(name: str) -> tuple[bool, bool, str]:
    """Constants, classes, then the others."""
    return not (name.isupper() and len(name) > 1), not name[0].isupper(), name.lower()


def members(name: str, value: ValueSpec) -> list[str]:
    """The tensors of a value, as expressions on its name."""
    if not isinstance(value, tuple):
        return [name]
    return [m for i, member in enumerate(value) for m in members(f"{name}[{i}]", member)]


def sizes(value: ValueSpec) -> str:
    """Shapes and dtypes in words: "float32 (batch, 8, 3)"."""

    def one(spec: Spec) -> str:
        axes = ("any" if size is None else str(size) for size in spec.shape)
        return f"{spec.dtype} ({', '.join(['batch', *axes])})"

    return ", ".join(map(one, leaves(value)))


@cache
def source_of(helper: Any) -> str:
    """The source of a helper, which takes Python a while to find."""
    return inspect.getsource(helper).rstrip()


def names_in(code: str) -> set[str]:
    """Every name that a piece of code reads from its module: no variable of a function."""
    found, tables = set(), [symtable(code, "listing", "exec")]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        names = table.get_symbols()
        found |= {n.get_name() for n in names if n.is_referenced() and n.is_global()}
    return found


def assigned_in(code: str) -> set[str]:
    """Every variable that a piece of code sets."""
    names = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)]
    return {node.id for node in names if isinstance(node.ctx, ast.Store)}

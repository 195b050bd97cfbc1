"""What every backend needs for blocks that users write: operations, native classes, listings.

A `Custom` block becomes a call of a `Definition`. When a model is built, that is a native class
whose `compute` calls the user's `forward` with the backend's operations. When it is printed, it is
a class written from the user's own source, with `ops.name` in the framework's words.
"""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from io import StringIO
from itertools import pairwise
from tokenize import STRING, generate_tokens, untokenize
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

from backends._expression import Definition, lookup
from blocks._errors import UnsupportedError, place
from blocks._ops import OPS, Ops, unknown
from blocks._spec import Node, ParamSpec, map_value
from blocks.custom import Custom, check_output, is_name
from blocks.initializers import Array, Constant, Normal, Orthogonal, Uniform, settled

METHODS = (FunctionType, staticmethod, property)


def define(node: Node, base: Any, words: Mapping[str, str], ops: Ops) -> Definition:
    """The native class of a block: a subclass of `base`, which is called Custom in listings.

    `words` are the backend's spellings of the operations, `ops` the functions that they name.
    """
    block, out = node.form, node.out_spec
    kind = type(block)
    who = f"{kind.__name__} {place(node.path)}"

    def compute(self: Any, x: Any, **arrays: Any) -> Any:
        return check_output(block.forward(ops, x, **arrays), out, who)

    members = {"compute": compute, "__doc__": kind.__doc__, "__module__": kind.__module__}
    made = type(base)(kind.__name__, (base,), members)
    shapes = map_value(lambda spec: (spec.shape, spec.dtype), out)
    hidden = {name for name, value in vars(block).items() if not is_data(value)}
    return Definition(
        kind.__name__, kind, shapes, made, partial(listing, kind, base, words, hidden)
    )


def operations(words: Mapping[str, str], namespace: Mapping[str, Any]) -> Ops:
    """The functions behind a backend's words."""
    return Ops({name: lookup(text, namespace) for name, text in words.items()})


def native_attributes(base: Any, **options: Any) -> set[str]:
    """The names that a native object has for other things, its constructor's arguments included."""
    return {*dir(base(**options)), *inspect.signature(base).parameters} - {"fields"}


def plain_fields(node: Node, taken: set[str]) -> dict[str, Any]:
    """The fields that `forward` may read: numbers, texts and tuples of them.

    `taken` are the attributes that native objects have for other things.
    """
    found = {name: value for name, value in vars(node.form).items() if is_data(value)}
    for name in (*found, *node.params):
        if name in taken:
            what = "field" if name in found else "parameter"
            raise UnsupportedError(
                f"{type(node.form).__name__} {place(node.path)} has a {what} {name!r}, but native "
                "layers have an attribute of that name.\n  Rename it."
            )
    return found


def arrays(node: Node, native: Any) -> dict[str, Any]:
    """Arguments for the parameters and the constants, as far as there are any.

    `native` makes the expression of one from its spec and its initialiser.
    """
    found = {}
    for argument, trainable in (("params", True), ("constants", False)):
        group = {
            name: native(spec, simple(spec))
            for name, spec in node.params.items()
            if spec.trainable is trainable
        }
        if group:
            found[argument] = group
    return found


def simple(spec: ParamSpec) -> Any:
    """An initialiser that every framework has; for others, numbers of the usual size."""
    found = settled(spec.init, spec.shape)
    known = isinstance(found, (Constant, Array, Normal, Uniform, Orthogonal))
    return found if known else settled("lecun_normal", spec.shape)


# Listings


@dataclass(frozen=True)
class Code:
    """The class as code; constants and functions that it needs, and imports, by their names."""

    text: str
    needed: dict[str, str]
    imports: dict[str, str]


def check_name(name: str) -> None:
    """Refuse what is no name: it would be read as code."""
    if not is_name(name):
        raise UnsupportedError(f"cannot print {name!r}: a class needs a name.\n  Rename it.")


@dataclass
class Own:
    """The classes that one listing defines itself; see `listing` for the names."""

    taken: set[str]
    known: Mapping[str, Any]
    origins: dict[str, type] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)
    needed: dict[str, str] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)

    def add(self, definition: Definition) -> None:
        name = definition.name
        if self.origins.setdefault(name, definition.origin) is not definition.origin:
            raise UnsupportedError(f"cannot print two blocks called {name}.\n  Rename one of them.")
        code = definition.code(self.taken, self.known)
        if code.text in self.classes:
            return
        for mine, more in ((self.needed, code.needed), (self.imports, code.imports)):
            for other, text in more.items():
                if mine.setdefault(other, text) != text:
                    raise UnsupportedError(
                        f"cannot print {name}: another block's {other!r} is not the same.\n"
                        "  Rename one of them."
                    )
        self.classes.append(code.text)

    def texts(self) -> list[str]:
        """Constants in one piece, functions and classes in one each."""
        constants = [text for text in self.needed.values() if not text.startswith("def ")]
        functions = [text for text in self.needed.values() if text.startswith("def ")]
        return ["\n".join(constants)] * bool(constants) + functions + self.classes


def listing(
    kind: type[Custom],
    base: type,
    words: Mapping[str, str],
    hidden: set[str],
    taken: set[str],
    known: Mapping[str, Any],
) -> Code:
    """A class of the framework from the user's own.

    `hidden` are fields that cannot be printed, `taken` names that the listing needs, `known` what
    they stand for.
    """
    return Writer(kind, base, words, hidden, taken, known).code()


@dataclass
class Writer:
    """Writes one class: `forward` and everything that it uses."""

    kind: type[Custom]
    base: type
    words: Mapping[str, str]
    hidden: set[str]
    taken: set[str]
    known: Mapping[str, Any]
    methods: dict[str, ast.FunctionDef] = field(default_factory=dict)
    constants: dict[str, ast.stmt] = field(default_factory=dict)
    needed: dict[str, str] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)

    def refuse(self, why: str) -> UnsupportedError:
        return UnsupportedError(f"cannot print {self.kind.__name__}: {why}")

    def code(self) -> Code:
        name = self.kind.__name__
        if name in self.taken:
            raise self.refuse("a listing has something else of that name.\n  Rename the class.")
        self.ops = list(inspect.signature(self.kind.forward).parameters)[1]
        self.method("forward")
        doc = [ast.Expr(ast.Constant(self.kind.__doc__))] if self.kind.__doc__ else []
        body = [*doc, *self.constants.values(), *self.methods.values()]
        made = ast.ClassDef(name, [ast.Name("Custom")], [], body, [])
        return Code(unparse(made), self.needed, self.imports)

    def method(self, name: str) -> None:
        """Write a method, and all that it uses."""
        found = inspect.getattr_static(self.kind, name)
        function = {staticmethod: "__func__", property: "fget"}.get(type(found))
        function = getattr(found, function) if function else found
        tree = self.parse(function, name)
        tree.name = "compute" if name == "forward" else name
        self.methods[tree.name] = tree  # before its body: it may call itself
        arguments = [a.arg for a in (*tree.args.posonlyargs, *tree.args.args)]
        this = None if isinstance(found, staticmethod) else arguments[0]
        self.methods[tree.name] = self.rewritten(tree, function, this)

    def parse(self, function: Any, name: str) -> ast.FunctionDef:
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
        except (OSError, TypeError, SyntaxError, IndexError):
            raise self.refuse(
                f"Python has no source of {name!r}.\n  Write it in a file and import it."
            ) from None
        if not isinstance(tree, ast.FunctionDef) or tree.name != function.__name__:
            raise self.refuse(f"{name!r} is no function with a def of its own.")
        kept = [
            d for d in tree.decorator_list if ast.unparse(d) not in ("staticmethod", "property")
        ]
        if kept:
            raise self.refuse(f"{name!r} has the decorator {ast.unparse(kept[0])}.")
        return tree

    def rewritten(self, tree: ast.FunctionDef, function: Any, this: str | None) -> ast.FunctionDef:
        """The function in the framework's words; what else it reads comes along."""
        names = function.__globals__ | inspect.getclosurevars(function).nonlocals
        words, read = Words(self, this, tree, names), names_in(tree) - {self.ops}
        tree = words.visit(tree)
        local = set(bound(tree))
        if clash := sorted(local & words.roots):
            raise self.refuse(f"the listing needs {clash[0]!r}.\n  Rename that variable.")
        for name in sorted(read - local):
            if name in names:
                self.outside(name, names[name])
        return tree

    def attribute(self, name: str) -> None:
        """Bring along what `self.name` reads."""
        fields = self.kind.__dataclass_fields__
        if name in fields and name not in self.hidden:
            return
        found = inspect.getattr_static(self.kind, name, None)
        if name in self.methods or name in self.constants or name == "forward":
            return
        if hasattr(self.base, name):
            raise self.refuse(f"native layers have a {name!r} of their own.\n  Rename it.")
        own = found is not inspect.getattr_static(Custom, name, None)
        if isinstance(found, METHODS) and own:
            self.method(name)
        elif own and is_data(found) and hasattr(self.kind, name) and name not in fields:
            self.constants[name] = ast.Assign(
                [ast.Name(name)], ast.parse(repr(found), mode="eval").body
            )
        else:
            raise self.refuse(f"forward reads self.{name}, which cannot stand in a listing.")

    def outside(self, name: str, value: Any) -> None:
        """Bring along something from the user's module: an import, a constant or a function."""
        line = imported(name, value)
        if self.known.get(name) is value:
            return
        if name in self.taken:
            raise self.refuse(f"the listing needs {name!r} for itself.\n  Rename it.")
        if line is not None:
            self.imports[name] = line
        elif name in self.needed:
            return
        elif is_data(value):
            self.needed[name] = f"{name} = {value!r}"
        elif isinstance(value, FunctionType):
            self.needed[name] = ""  # it may call itself
            tree = self.parse(value, name)
            tree.name = name
            text = unparse(self.rewritten(tree, value, None))
            del self.needed[name]
            self.needed[name] = text  # after those that it calls
        else:
            raise self.refuse(f"it uses {name!r}, which is {value!r}.")


class Words(ast.NodeTransformer):
    """Rewrites a function: `ops.name` in the framework's words, no argument `ops`."""

    def __init__(self, writer: Writer, this: str | None, tree: ast.AST, names: Mapping[str, Any]):
        self.writer, self.this, self.names = writer, this, names
        defined = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
        self.inner = {n.name for n in defined if writer.ops in {a.arg for a in n.args.args}}
        self.roots: set[str] = set()  # names of the framework and of helpers that it brought in

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_arguments(self, node: ast.arguments) -> ast.AST:
        for arguments in (node.posonlyargs, node.args):
            arguments[:] = [a for a in arguments if a.arg != self.writer.ops]
        for argument in (*node.posonlyargs, *node.args, *node.kwonlyargs):
            argument.annotation = None
        for rest in (node.vararg, node.kwarg):
            if rest:
                rest.annotation = None
        if len(node.defaults) > len(node.posonlyargs) + len(node.args):
            raise self.writer.refuse(f"{self.writer.ops!r} has a default.")
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        return self.visit(ast.Assign([node.target], node.value)) if node.value else None

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if self.takes_ops(node.func):
            node.args = [a for a in node.args if not self.is_ops(a)]
            node.keywords = [k for k in node.keywords if not self.is_ops(k.value)]
        return self.generic_visit(node)

    def takes_ops(self, function: ast.AST) -> bool:
        """Whether a function or a method has an argument of that name, which is taken away."""
        found = None
        match function:
            case ast.Name(id=name):
                if name in self.inner:
                    return True
                found = self.names.get(name)
            case ast.Attribute(value=ast.Name(id=this), attr=name) if this == self.this:
                found = getattr(self.writer.kind, name, None)
        return isinstance(found, FunctionType) and (
            self.writer.ops in inspect.signature(found).parameters
        )

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if self.is_ops(node.value):
            if node.attr not in OPS:
                raise unknown(node.attr)
            word = self.writer.words[node.attr]
            self.roots.add(word.partition(".")[0])
            return ast.parse(word, mode="eval").body
        if isinstance(node.value, ast.Name) and node.value.id == self.this:
            self.writer.attribute(node.attr)
            attribute = "compute" if node.attr == "forward" else node.attr
            return ast.Attribute(node.value, attribute, node.ctx)
        return self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if self.is_ops(node):
            raise self.writer.refuse(f"{node.id!r} is used as a value, not as {node.id}.name(...).")
        if node.id == self.this:
            raise self.writer.refuse(f"{node.id!r} is used as a value, not as {node.id}.name.")
        if node.id in ("super", "__class__"):
            raise self.writer.refuse("it calls super().\n  Write the method out.")
        return node

    def is_ops(self, node: ast.AST) -> bool:
        return isinstance(node, ast.Name) and node.id == self.writer.ops


def bound(tree: ast.AST) -> Iterator[str]:
    """Every name that a function gives a value to."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()):
                yield name
            case ast.arg(arg=name):
                yield name
            case ast.FunctionDef(name=name) if node is not tree:
                yield name
            case ast.alias(name=name, asname=other):
                yield other or name.partition(".")[0]


def names_in(tree: ast.AST) -> set[str]:
    """Every name that a function reads or writes."""
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def is_data(value: Any) -> bool:
    """Whether a value is numbers and texts, which can be printed as they are."""
    if isinstance(value, tuple):
        return all(map(is_data, value))
    return value is None or type(value) in (bool, int, float, str)


def imported(name: str, value: Any) -> str | None:
    """The line that imports a part of Python's library or of NumPy; None for anything else."""
    if isinstance(value, ModuleType):
        module, start, own = value.__name__, "", value.__name__
    elif isinstance(value, (FunctionType, BuiltinFunctionType, type)):
        module, own = (value.__module__ or "").lstrip("_"), value.__name__  # _functools has reduce
        start = f"from {module} "
    else:
        return None
    if module.partition(".")[0] not in {*sys.stdlib_module_names, "numpy"}:
        return None
    return f"{start}import {own}" + (f" as {name}" if own != name else "")


def unparse(tree: ast.AST) -> str:
    """Code for a tree without positions, spaced and quoted as formatters do; long lines stay."""
    code = quoted(ast.unparse(ast.fix_missing_locations(tree)))
    lines, parents = code.split("\n"), ast.walk(ast.parse(code))
    apart = {
        min(part.lineno for part in (after, *getattr(after, "decorator_list", ()))) - 1
        for parent in parents
        for before, after in pairwise(statements(parent))
        if isinstance(before, ast.FunctionDef) or is_text(parent, before)
    }
    for i in sorted(apart, reverse=True):
        if lines[i - 1]:
            lines.insert(i, "")
    return "\n".join(lines)


def statements(node: ast.AST) -> list[ast.stmt]:
    """What stands in a definition, a loop or a branch."""
    body = getattr(node, "body", [])
    return body if isinstance(body, list) else []  # that of a lambda is an expression


def is_text(parent: ast.AST, part: ast.AST) -> bool:
    """Whether a part of a class is its docstring."""
    return isinstance(parent, ast.ClassDef) and isinstance(part, ast.Expr)


def quoted(code: str) -> str:
    """The code with texts in double quotes, but for those that hold some."""
    tokens = [
        token._replace(string=f'"{token.string[1:-1]}"')
        if token.type == STRING and token.string[0] == "'" and not set('"\\') & set(token.string)
        else token
        for token in generate_tokens(StringIO(code).readline)
    ]
    return untokenize(tokens)

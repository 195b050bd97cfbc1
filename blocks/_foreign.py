"""Reading weights that other people's models saved: files, and a mapping to canonical parameters.

A model of somebody else has other names, other containers and another order. What it has in common
with a network is its structure: which arrays of which shapes belong to one layer, which layers are
together in a container, how they are numbered, in which order they were defined. The mapping is
found from that, shown, and refused as a whole if anything is left over or is not certain.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from blocks._backends import find_backend
from blocks._errors import FieldError, FileError, ParamError, did_you_mean
from blocks._flattened import reorderings
from blocks._infer import check_word
from blocks._layout import layout_pass
from blocks._match import Unit, match
from blocks._models import framework as framework_behind
from blocks._params import Params, check_params
from blocks._spec import LAYOUTS, Node, is_float, join

FRAMEWORKS = ("torch", "keras", "flax")
ENDINGS = {
    ".pth": "torch",
    ".pt": "torch",
    ".bin": "torch",
    ".safetensors": "torch",
    ".h5": "keras",
    ".keras": "keras",
    ".msgpack": "flax",
}


@dataclass(frozen=True, repr=False)
class Weights:
    """The arrays of a foreign file or model by their own names.

    Attributes:
        framework: "torch", "keras" or "flax".
        arrays: name to array, in the order of the file.
        ignored: name to the reason why it is no parameter.
        ordered: whether the order is that in which the layers were defined.
        notes: what was done to get there, for people.
        aliases: other names of modules, such as those of Keras's layers.
    """

    framework: str
    arrays: dict[str, np.ndarray]
    ignored: dict[str, str] = field(default_factory=dict)
    ordered: bool = False
    notes: tuple[str, ...] = ()
    aliases: dict[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<Weights of {self.framework}: {len(self.arrays):,} arrays>"

    @property
    def separator(self) -> str:
        """What stands between the parts of a name."""
        return "." if self.framework == "torch" else "/"

    def parts(self, name: str) -> tuple[str, ...]:
        return tuple(name.split(self.separator)) if name else ()


class UnfitError(ParamError):
    """Arrays have the right shapes, but their numbers mean what the block cannot express."""


@dataclass(frozen=True)
class Form:
    """One way in which a framework's users keep the parameters of a block.

    Attributes:
        shapes: name inside the layer to shape.
        sources: canonical parameter to the names that it is made of, and how, for people.
        read: from the arrays by those names to the canonical ones; raises `UnfitError`.
    """

    shapes: dict[str, tuple[int, ...]]
    sources: dict[str, tuple[tuple[str, ...], str]]
    read: Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Row:
    """One foreign array and where it goes."""

    name: str
    shape: tuple[int, ...]
    paths: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    transform: str


@dataclass(frozen=True)
class WeightMap:
    """How foreign arrays become the parameters of a network; true if it is complete.

    Prints as a table. `to_dict()` is the same as plain data, to be kept or compared.

    Attributes:
        rows: what goes where.
        left_over: foreign names that nothing takes, with what is nearest.
        missing: canonical paths that get nothing, with what is nearest.
        wrong: what has another shape, could be read in two ways, or cannot be expressed.
        ignored: foreign names that are no parameters, with the reason.
        notes: what else was done or decided.
    """

    node: Node
    weights: Weights
    rows: tuple[Row, ...] = ()
    left_over: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    wrong: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    found: Params = field(default_factory=dict, repr=False)

    @property
    def ignored(self) -> dict[str, str]:
        return self.weights.ignored

    def __bool__(self) -> bool:
        return not (self.left_over or self.missing or self.wrong)

    def params(self) -> Params:
        """The parameters in canonical form, in the node's dtype.

        Raises:
            ParamError: with the whole report, if anything is left over, missing or wrong.
        """
        if not self:
            raise ParamError(f"these weights do not fit the network.\n{self!r}")
        arrays = {path: np.array(array, order="C") for path, array in self.found.items()}
        return check_params(self.node, arrays)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, for JSON."""
        return {
            "framework": self.weights.framework,
            "complete": bool(self),
            "rows": [
                {
                    "name": row.name,
                    "shape": list(row.shape),
                    "paths": list(row.paths),
                    "shapes": [list(shape) for shape in row.shapes],
                    "transform": row.transform,
                }
                for row in self.rows
            ],
            "left_over": dict(self.left_over),
            "missing": dict(self.missing),
            "wrong": list(self.wrong),
            "ignored": dict(self.ignored),
            "notes": [*self.weights.notes, *self.notes],
        }

    def __rich_console__(self, console: Any, options: Any) -> Any:
        from rich.markup import escape
        from rich.table import Table

        table = Table(title=f"{self.weights.framework} weights", show_lines=False)
        for column in ("foreign name", "shape", "path", "canonical shape", "how"):
            table.add_column(column, overflow="fold")
        for row in self.rows:
            shapes = "\n".join(map(str, row.shapes))
            cells = (row.name, str(row.shape), "\n".join(row.paths), shapes, row.transform)
            table.add_row(*map(escape, cells))  # names in brackets are no styles
        yield table
        yield from self.remarks()

    def remarks(self) -> Iterator[Any]:
        """All that is not a row, line by line."""
        from rich.text import Text

        for title, lines in (
            ("left over, nothing takes it", pairs(self.left_over)),
            ("missing, nothing gives it", pairs(self.missing)),
            ("wrong", self.wrong),
            ("ignored, no parameter", by_reason(self.ignored)),
            ("notes", (*self.weights.notes, *self.notes)),
        ):
            if lines:
                yield Text(f"{title}:")
                yield from (Text(f"  {line}") for line in lines)

    def __repr__(self) -> str:
        from blocks._console import as_text

        return as_text(self, width=160)


def place_of(home: str) -> str:
    return repr(home) if home else "the network"


def by_reason(lines: Mapping[str, str]) -> list[str]:
    """Names with one reason in one line."""
    reasons: dict[str, list[str]] = {}
    for name, reason in lines.items():
        reasons.setdefault(reason, []).append(name)
    return [f"{reason}: {', '.join(names)}" for reason, names in reasons.items()]


def pairs(lines: Mapping[str, str]) -> list[str]:
    return [f"{name or '(all)'}: {text}" for name, text in lines.items()]


def read_weights(source: Any, *, framework: str | None = None) -> Weights:
    """The arrays in a file that a user of torch, Keras or Flax saved, or in a model of theirs.

    Files are known by their endings: .safetensors, .pth and .pt (only what torch loads with
    `weights_only`), .weights.h5 and .keras (arrays alone; its configuration is not executed),
    .msgpack (flax.serialization), or a folder of orbax. In memory: an `nn.Module`, `keras.Model`
    or `nnx.Module`, a `state_dict`, or a tree of arrays.

    Args:
        source: the path or the model.
        framework: "torch", "keras" or "flax", where the ending or the type does not tell.

    Raises:
        FileError: if it cannot be read, is no such file, or holds what is no array of numbers,
            or a name that cannot be printed.
    """
    framework = framework or framework_of(source)
    check_word("framework", framework, FRAMEWORKS)
    found: Weights = find_backend(framework).weights.read_weights(source)
    for name in (*found.arrays, *found.ignored, *found.aliases):
        if not name.isprintable():  # it would reach the terminal
            raise FileError(f"{name!r} is no name of a parameter: some of it cannot be printed.")
    integers = {
        name: "integers are no parameters"
        for name, array in found.arrays.items()
        if array.dtype.kind in "biu"
    }
    arrays = {name: a for name, a in found.arrays.items() if name not in integers}
    for name, array in arrays.items():
        if not is_float(array):
            raise FileError(f"{name} holds no real numbers, but {array.dtype}.")
    rest = found.ordered, found.notes, found.aliases
    return Weights(framework, arrays, found.ignored | integers, *rest)


def framework_of(source: Any) -> str:
    """The framework that a file or a model belongs to."""
    if isinstance(source, (str, Path)):
        path = Path(source)
        if os.path.isdir(path):  # Path.is_dir raises for a name too long
            return "flax"
        if path.suffix in ENDINGS:
            return ENDINGS[path.suffix]
        raise FileError(
            f"{path} does not say whose weights it holds: its ending is none of "
            f"{', '.join(ENDINGS)}.\n  Give framework='torch', 'keras' or 'flax'."
        )
    held = list(source.values()) if isinstance(source, Mapping) else []
    inside = [item for value in held if isinstance(value, Mapping) for item in value.values()]
    for value in (source, *held, *inside):  # a checkpoint has its dict of tensors in another
        if name := framework_behind(value):
            return name
    if any(isinstance(value, Mapping) for value in held):
        return "flax"
    raise FieldError(
        f"a {type(source).__name__} does not say whose weights it holds.\n"
        "  Give framework='torch', 'keras' or 'flax'."
    )


def match_weights(
    node: Node,
    weights: Any,
    *,
    framework: str | None = None,
    rename: Mapping[str, str] | None = None,
    flattened: str | None = None,
) -> WeightMap:
    """Which foreign array is which parameter, as a report.

    Names that are those of the network's own model in that framework are taken as they are. Else
    layers are matched by the names and shapes of their arrays, by the order of definition where the
    file keeps it, by containers and by numbers at the end of names. What could be read in two ways
    is refused.

    Args:
        node: the network at known sizes.
        weights: from `read_weights`, or all that it takes.
        framework: as in `read_weights`.
        rename: foreign name of a container, a layer or an array to the path of the node or
            parameter that it is, where that must be stated: {"layer1.0.downsample": "2/shortcut"}.
        flattened: the layout in which the foreign model flattens images and makes them from
            vectors: "channels_first" for torch, "channels_last" for Keras and Flax. It must be
            stated only if the network has another layout and such a place.

    >>> import blocks as bl
    >>> node = bl.infer(bl.Sequential(bl.Dense(3), bl.Tanh(), bl.Dense(2)), (4,))
    >>> shapes = {"fc1.weight": (3, 4), "fc1.bias": (3,), "fc2.weight": (2, 3), "fc2.bias": (2,)}
    >>> weights = {name: np.ones(shape) for name, shape in shapes.items()}
    >>> found = bl.match_weights(node, weights, framework="torch")  # doctest: +SKIP
    >>> [row.paths for row in found.rows][-1]  # doctest: +SKIP
    ('2/bias',)
    """
    if not isinstance(node, Node):
        raise FieldError(f"match_weights takes a node from infer, got {node!r}.")
    if not isinstance(weights, Weights):
        weights = read_weights(weights, framework=framework)
    if flattened is not None:
        check_word("flattened", flattened, LAYOUTS)
    if rename is not None and not isinstance(rename, Mapping):
        raise FieldError(f"rename is a dict from foreign name to path, got {rename!r}.")
    adapter = find_backend(weights.framework)
    return Matching(node, weights, adapter, dict(rename or {}), flattened).mapping()


def import_params(
    node: Node,
    source: Any,
    *,
    framework: str | None = None,
    rename: Mapping[str, str] | None = None,
    flattened: str | None = None,
) -> Params:
    """Foreign weights as the parameters of a network, for `lower`.

    Args are those of `match_weights`, which shows what goes where.

    Raises:
        FileError: if the file cannot be read.
        ParamError: with the whole report, if anything is left over, missing, of another shape, or
            could be read in two ways; then nothing is imported.
    """
    found = match_weights(node, source, framework=framework, rename=rename, flattened=flattened)
    return found.params()


class Matching:
    """One attempt."""

    def __init__(
        self,
        node: Node,
        weights: Weights,
        adapter: Any,
        rename: dict[str, str],
        flattened: str | None,
    ):
        self.node, self.weights, self.adapter = node, weights, adapter
        self.flattened = flattened
        self.rows: dict[str, Row] = {}
        self.found: Params = {}
        self.wrong: list[str] = []
        self.notes: list[str] = []
        physical = {n.path: n for n in layout_pass(node, adapter.layout).walk() if n.params}
        self.homes = {n.home: n for n in reversed([n for n in node.walk() if n.params])}
        self.forms: dict[str, list[Form]] = {
            home: adapter.weights.forms(physical[n.path]) for home, n in self.homes.items()
        }
        self.rename = self.checked(rename)

    def checked(self, rename: dict[str, str]) -> dict[str, str]:
        """What the user stated, with the names of layers as the file has them."""
        prefixes = {
            self.weights.separator.join(parts[:i])
            for parts in map(self.weights.parts, self.weights.arrays)
            for i in range(len(parts) + 1)
        }
        paths = {n.path for n in self.node.walk()} | set(self.node.param_specs())
        named = {alias: name for name, alias in self.weights.aliases.items()}
        known = {}
        for name, path in rename.items():
            name = named.get(name, name) if name not in prefixes else name
            if name not in prefixes:
                hint = did_you_mean(str(name), prefixes)
                raise ParamError(f"rename: the weights have no {name!r}.{hint}")
            if path not in paths:
                hint = did_you_mean(str(path), paths)
                raise ParamError(f"rename: the network has no {path!r}.{hint}")
            known[name] = path
        return known

    def mapping(self) -> WeightMap:
        if self.rename or not self.by_names():
            taken = self.stated()
            self.by_structure(taken)
        specs = self.node.param_specs()
        left = [n for n in self.weights.arrays if n not in self.rows]
        missing = [path for path in specs if path not in self.found]
        self.reorder()
        return WeightMap(
            self.node,
            self.weights,
            tuple(self.rows[name] for name in self.weights.arrays if name in self.rows),
            {name: self.nearest_path(name, missing) for name in left},
            {path: self.nearest_name(path, left) for path in missing},
            tuple(self.wrong),
            tuple(self.notes),
            self.found,
        )

    # Names that are the network's own

    def by_names(self) -> bool:
        """Take everything by name, if the names and shapes are those of our own native model."""
        arrays = self.adapter.weights.own_arrays(self.weights)
        program = self.adapter.program(self.node)
        names = self.adapter.weights.own_names(program.bindings)
        places: dict[str, list[Any]] = {}
        for binding in program.bindings:
            places.setdefault(names[binding.place], []).append(binding)
        if arrays.keys() != places.keys():
            return False
        found: Params = {}
        rows = {}
        for name, bindings in places.items():
            given, array = arrays[name]
            if sum(b.spec.size for b in bindings) != array.size:
                return False
            for b in bindings:
                try:
                    canonical = b.to_canonical(array)
                    fits = b.to_native(canonical).shape == b.mine(array).shape
                except (ValueError, IndexError):
                    return False
                if canonical.shape != b.spec.shape or not fits:
                    return False
                found[b.path] = canonical
            paths = tuple(b.path for b in bindings)
            shapes = tuple(b.spec.shape for b in bindings)
            how = ", ".join(dict.fromkeys(b.transform.name for b in bindings))
            rows[given] = Row(given, array.shape, paths, shapes, how)
        self.found, self.rows = found, rows
        self.notes.append("all names are those of the network's own model")
        return True

    # What the user stated, array by array

    def stated(self) -> set[str]:
        """Take the arrays that `rename` gives to single parameters."""
        specs, taken = self.node.param_specs(), set()
        for name, path in self.rename.items():
            if path not in specs or name not in self.weights.arrays:
                continue
            array, spec = self.weights.arrays[name], specs[path]
            home, _, param = path.rpartition("/")
            read = self.adapter.weights.one(self.physical(home), param)
            canonical, how = read(array)
            taken.add(name)
            if canonical is None:
                self.wrong.append(f"{name} {array.shape} cannot be {path} {spec.shape}.")
            self.take((name,), path, canonical, f"stated, {how}")
        return taken

    def physical(self, home: str) -> Node:
        path = self.homes[home].path
        found = layout_pass(self.node, self.adapter.layout).walk()
        return next(n for n in found if n.path == path and n.params)

    def take(self, names: tuple[str, ...], path: str, array: Any, how: str) -> None:
        spec = self.node.param_specs()[path]
        if array is not None:
            self.found[path] = array
        for name in names:
            row = self.rows.get(name)
            paths = (*row.paths, path) if row else (path,)
            shapes = (*row.shapes, spec.shape) if row else (spec.shape,)
            hows = [row.transform, how] if row else [how]
            text = ", ".join(dict.fromkeys(hows))
            self.rows[name] = Row(name, self.weights.arrays[name].shape, paths, shapes, text)

    # By structure

    def by_structure(self, taken: set[str]) -> None:
        done = set(self.found)
        homes = {
            home: forms
            for home, forms in self.forms.items()
            if not any(join(home, name) in done for name in self.homes[home].params)
        }
        templates = {frozenset(form.shapes) for forms in homes.values() for form in forms}
        names = [name for name in self.weights.arrays if name not in taken]
        units = self.adapter.weights.split(list(grouped(self.weights, names, templates)), templates)
        pinned = {
            name: path
            for name, path in self.rename.items()
            if path not in self.node.param_specs() or name not in self.weights.arrays
        }
        result = match(self.node, homes, units, self.weights, pinned)
        self.notes += result.notes
        self.wrong += result.wrong
        for home, unit, form in result.pairs:
            self.read(home, unit, form)

    def read(self, home: str, unit: Unit, form: Form) -> None:
        """Take the arrays of one layer."""
        arrays = {inner: self.weights.arrays[name] for inner, name in unit.names.items()}
        try:
            found = form.read(arrays)
        except UnfitError as error:
            prefix = self.weights.separator.join(unit.prefix)
            self.wrong.append(f"{prefix or 'all of it'} as {place_of(home)}: {error}")
            found = {}
        for param, (inner, how) in form.sources.items():
            path = join(home, param)
            names = tuple(unit.names[name] for name in inner)
            array = found.get(param)
            before = self.found.get(path)
            if before is not None and array is not None and not np.array_equal(before, array):
                self.wrong.append(
                    f"{path} belongs to a shared block, but {', '.join(names)} differs from what "
                    "its other use has."
                )
            self.take(names, path, array, how)
        self.found |= {
            path: np.zeros(0) for p in form.sources if (path := join(home, p)) not in self.found
        }

    # Flattened images

    def reorder(self) -> None:
        """Permute what belongs to flattened images, or say that it must be stated."""
        layout = self.adapter.layout
        order = self.flattened or layout
        changes, problems = reorderings(self.node, order)
        if not changes and not problems:
            return
        if self.flattened is None:
            places = ", ".join(changes) or "the network"
            own = next(other for other in LAYOUTS if other != layout)
            self.wrong.append(
                f"{places}: an image is flattened, or made from a vector, and {self.adapter.name} "
                f"usually does that in {layout}, this network in {own}; the file does not say.\n"
                f"    Give flattened='{layout}' (the usual) or flattened='{own}' (if the foreign "
                "model permutes before it flattens)."
            )
            return
        self.wrong += problems
        for path, axes in changes.items():
            array = self.found.get(path)
            if array is None or array.ndim <= max(axes):
                continue
            for axis, order_ in axes.items():
                array = np.take(array, order_, axis)
            self.found[path] = array
            axis_names = " and ".join(f"axis {axis}" for axis in axes)
            self.notes.append(f"{path}: {axis_names} reordered from {self.flattened}")

    # Hints

    def nearest_path(self, name: str, missing: list[str]) -> str:
        shape = self.weights.arrays[name].shape
        specs = self.node.param_specs()
        near = [p for p in missing if sorted(specs[p].shape) == sorted(shape)]
        near = near or [p for p in missing if len(specs[p].shape) == len(shape)]
        hint = ", ".join(f"{p} {specs[p].shape}" for p in near[:3])
        return f"{shape}" + (f"; nearest: {hint}" if hint else "")

    def nearest_name(self, path: str, left: list[str]) -> str:
        shape = self.node.param_specs()[path].shape
        shapes = {n: self.weights.arrays[n].shape for n in left}
        near = [n for n, s in shapes.items() if sorted(s) == sorted(shape)]
        near = near or [n for n, s in shapes.items() if len(s) == len(shape)]
        hint = ", ".join(f"{n} {shapes[n]}" for n in near[:3])
        return f"{shape}" + (f"; nearest: {hint}" if hint else "")


def grouped(weights: Weights, names: list[str], templates: set[frozenset[str]]) -> Iterator[Unit]:
    """The foreign arrays, layer by layer: the largest containers that hold what one block does.

    An array that is in no such layer is one of its own, whose inner name is "".
    """
    sep = weights.separator
    tree: dict[tuple[str, ...], list[str]] = {}
    for name in names:
        parts = weights.parts(name)
        for i in range(len(parts)):
            tree.setdefault(parts[:i], []).append(name)
    done: set[str] = set()
    for name in names:
        if name in done:
            continue
        parts = weights.parts(name)
        for i in range(len(parts)):
            prefix = parts[:i]
            inner = {sep.join(weights.parts(n)[i:]): n for n in tree[prefix]}
            if frozenset(inner) in templates:
                yield Unit(prefix, inner, {k: weights.arrays[n].shape for k, n in inner.items()})
                done |= set(inner.values())
                break
        else:
            yield Unit(parts, {"": name}, {"": weights.arrays[name].shape})
            done.add(name)


__all__ = [
    "Form",
    "UnfitError",
    "Weights",
    "import_params",
    "match_weights",
    "read_weights",
]

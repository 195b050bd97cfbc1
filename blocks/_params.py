"""Parameters in canonical form: a flat dict from path to array, drawn and checked here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

import numpy as np

from blocks._errors import FieldError, ParamError, did_you_mean
from blocks._extent import check_memory
from blocks._infer import check_ints
from blocks._spec import Node, ParamSpec, array_dtype, is_float
from blocks.initializers import Init, as_init, drawn

Params: TypeAlias = dict[str, np.ndarray]
Draw: TypeAlias = Callable[[np.random.Generator, tuple[int, ...]], Any]


def init(node: Node, seed: int = 0, *, initial: Mapping[str, Any] | None = None) -> Params:
    """First parameters of a network, the same for every backend.

    Every parameter has a generator of its own, made from the seed and its path, so inserting a
    block does not change its neighbours.

    Args:
        node: the network at known sizes.
        seed: of the random numbers.
        initial: path or pattern (see `select`) to what draws the parameters there, in the place of
            the blocks' own fields: all that those take (a name, an `Initializer`, a number, an
            array), or a function of a NumPy generator and a shape. The last pattern that matches
            wins, so the general ones come first.

    Returns:
        Canonical path to array, in the node's dtype.

    Raises:
        ParamError: if a pattern matches nothing, a function fails, what is drawn has another shape,
            or the machine has not the memory for all.

    >>> import blocks as bl
    >>> node = bl.infer(bl.Dense(4), (3,))
    >>> {path: array.shape for path, array in bl.init(node, seed=1).items()}
    {'kernel': (3, 4), 'bias': (4,)}
    >>> bl.init(node, initial={"kernel": "he_normal", "**/bias": 42})["bias"]
    array([42., 42., 42., 42.], dtype=float32)
    """
    if not isinstance(node, Node):
        raise FieldError(f"init takes a node from infer, got {node!r}.")
    check_ints(seed=(seed, 0))
    check_memory(node)
    specs = node.param_specs()
    inits = {path: spec.init for path, spec in specs.items()} | overridden(specs, initial or {})
    arrays = {path: first(path, inits[path], generator(seed, path), specs[path]) for path in specs}
    return check_params(node, arrays)


def overridden(paths: Iterable[str], initial: Mapping[str, Any]) -> dict[str, Init | Draw]:
    """The initialisers that patterns give to paths; the last one that matches wins."""
    if not isinstance(initial, Mapping):
        raise FieldError(f"initial is a dict from path to initialiser, got {initial!r}.")
    inits: dict[str, Init | Draw] = {}
    unused = []
    for pattern, value in initial.items():
        found = dict.fromkeys(matching(paths, pattern), as_draw(f"initial[{pattern!r}]", value))
        inits |= found
        unused += [] if found else [pattern]
    check_used(unused, paths)
    return inits


def as_draw(label: str, value: Any) -> Init | Draw:
    """What draws a parameter: an initialiser or a function; an array is copied in its own shape."""
    if isinstance(value, np.ndarray):
        return lambda rng, shape: value.copy()
    return value if callable(value) and not isinstance(value, type) else as_init(label, value)


def first(path: str, init: Init | Draw, rng: np.random.Generator, spec: ParamSpec) -> Any:
    """The first numbers of one parameter."""
    if not callable(init):
        return drawn(init, rng, spec.shape, array_dtype(spec.dtype))
    try:
        return init(rng, spec.shape)
    except Exception as error:  # code of users
        raise ParamError(
            f"{path}: the function in initial raises {error!r}.\n"
            f"  It is called with a NumPy generator and {spec.shape}, and returns an array."
        ) from error


def select(params: Mapping[str, np.ndarray], pattern: str) -> Params:
    """The parameters whose path matches a pattern: the arrays themselves, not copies.

    In a pattern `*`, `?` and `[...]` stand for names, as in a shell, and do not cross a `/`; `**`
    stands for any number of names, none included. `encoder/**` is all below `encoder`, `**/bias`
    every bias.

    Raises:
        ParamError: if nothing matches, or `params` is no dict.

    >>> import blocks as bl
    >>> params = bl.init(bl.infer(bl.MLP(1, hidden=(8,)), (4,)))
    >>> list(bl.select(params, "*/kernel"))
    ['0/kernel', '2/kernel']
    """
    check_mapping(params)
    found = matching(params, pattern)
    if not found:
        check_used([pattern], params)
    return {path: params[path] for path in found}


def matching(paths: Iterable[str], pattern: str) -> list[str]:
    """The paths that match a pattern, in their order."""
    if not isinstance(pattern, str):
        raise FieldError(f"a pattern of paths is a text such as '*/kernel', got {pattern!r}.")
    words = pattern.split("/")
    return [path for path in paths if matches(path.split("/"), words)]


def matches(names: list[str], words: list[str]) -> bool:
    """Whether the names of a path match the words of a pattern, `**` any number of them."""
    passed = {0}  # how many names may be behind the words so far
    for word in words:
        if word == "**":
            passed = set(range(min(passed, default=len(names) + 1), len(names) + 1))
        else:
            passed = {n + 1 for n in passed if n < len(names) and fnmatchcase(names[n], word)}
    return len(names) in passed


def check_used(unused: list[str], paths: Iterable[str]) -> None:
    """Refuse patterns that match no path."""
    if unused:
        hints = [
            f"{pattern!r} matches no parameter.{did_you_mean(pattern, paths)}" for pattern in unused
        ]
        raise ParamError("\n  ".join(hints))


def generator(seed: int, path: str) -> np.random.Generator:
    """The random numbers that belong to a seed and a path."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=tuple(path.encode())))


def count(node: Node, *, trainable: bool | None = None) -> int:
    """Number of parameters, shared ones once; all, or only those that are (not) trainable."""
    return sum(
        spec.size
        for spec in node.param_specs().values()
        if trainable is None or spec.trainable is trainable
    )


def check_mapping(params: Any) -> None:
    """Refuse what is no dict of parameters."""
    if not isinstance(params, Mapping):
        raise ParamError(f"parameters are a dict from path to array, got {type(params).__name__}.")


def check_params(node: Node, params: Mapping[str, Any]) -> Params:
    """The parameters as arrays of the node's dtype; raises `ParamError` with every mismatch."""
    check_mapping(params)
    specs = node.param_specs()
    wrong = []
    arrays = {}
    for path, spec in specs.items():
        if path not in params:
            wrong.append(f"{path}: missing, expected {spec.shape}.")
            continue
        try:
            array = np.asarray(params[path])
        except (TypeError, ValueError):
            wrong.append(f"{path}: expected an array, got {type(params[path]).__name__}.")
            continue
        if array.dtype.kind == "O":
            wrong.append(f"{path}: expected an array, got {type(params[path]).__name__}.")
        elif array.dtype.kind not in "iu" and not is_float(array):
            wrong.append(f"{path}: expected numbers, got dtype {array.dtype}.")
        elif array.shape != spec.shape:
            wrong.append(f"{path}: expected {spec.shape}, got {array.shape}.{hint(array, spec)}")
        else:
            arrays[path] = array.astype(array_dtype(spec.dtype), copy=False)
    known = [path for path in specs if path not in params] or list(specs)
    wrong += [
        f"{path}: unknown.{did_you_mean(path, known)}" for path in params if path not in specs
    ]
    if wrong:
        verb = "parameter does" if len(wrong) == 1 else "parameters do"
        raise ParamError(f"{len(wrong)} {verb} not fit.\n  " + "\n  ".join(wrong))
    return arrays


def hint(array: np.ndarray, spec: Any) -> str:
    if array.ndim == 2 and array.shape == spec.shape[::-1]:
        return " Canonical kernels are (in, out); this looks transposed."
    if array.ndim > 2 and array.shape == (*spec.shape[:-3:-1], *spec.shape[:-2]):
        return " Canonical kernels are (*window, in, out); this looks like (out, in, *window)."
    return ""

"""Parameters in canonical form: a flat dict from path to array, drawn and checked here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, TypeAlias, TypeVar

import numpy as np

from blocks._errors import FieldError, ParamError, did_you_mean
from blocks._extent import check_memory
from blocks._infer import check_ints
from blocks._spec import Node, ParamSpec, array_dtype, is_float
from blocks.initializers import Init, as_init, drawn

Params: TypeAlias = dict[str, np.ndarray]
Draw: TypeAlias = Callable[[np.random.Generator, tuple[int, ...]], Any]
T = TypeVar("T")

GLOB = frozenset("*?[")


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
    return by_pattern("initial", paths, initial, "initialiser", as_draw)


def flags(specs: Mapping[str, ParamSpec], trainable: Mapping[str, Any]) -> dict[str, bool]:
    """Which parameters patterns train (True) or freeze; running state is passed over."""
    found = by_pattern("trainable", specs, trainable, "bool", as_bool)
    if still := [path for path, on in trainable.items() if on and is_state(specs.get(path))]:
        raise ParamError(
            f"cannot train {', '.join(map(repr, still))}: running state and constants have no "
            "gradient.\n  Leave them out; running state moves in training, frozen or not."
        )
    return {path: on for path, on in found.items() if not is_state(specs[path])}


def is_state(spec: ParamSpec | None) -> bool:
    return spec is not None and not spec.trainable


def by_pattern(
    name: str,
    paths: Iterable[str],
    given: Mapping[str, Any],
    wanted: str,
    convert: Callable[[str, Any], T],
) -> dict[str, T]:
    """The values that patterns give to paths; the last pattern that matches wins."""
    if not isinstance(given, Mapping):
        raise FieldError(f"{name} is a dict from path to {wanted}, got {given!r}.")
    values: dict[str, T] = {}
    unused = []
    for pattern, value in given.items():
        found = dict.fromkeys(matching(paths, pattern), convert(f"{name}[{pattern!r}]", value))
        values |= found
        unused += [] if found else [pattern]
    check_used(unused, paths)
    return values


def as_bool(label: str, value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise FieldError(f"{label} must be True or False, got {value!r}.")
    return bool(value)


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
    return [path for path in paths if matches(str(path).split("/"), words)]


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
            f"{pattern!r} matches no parameter.{nearest(pattern, paths)}" for pattern in unused
        ]
        raise ParamError("\n  ".join(hints))


def nearest(pattern: str, paths: Iterable[str]) -> str:
    """Return " Did you mean 'x'?": a path, or the pattern with its names as there are some."""
    if not GLOB.intersection(pattern):
        if matching(paths, f"{pattern}/**"):
            return f" For all that is in that block write '{pattern}/**'."
        return did_you_mean(pattern, paths)
    names = {name for path in paths for name in path.split("/")}
    words = [
        word if GLOB.intersection(word) else (get_close_matches(word, names, 1) or [word])[0]
        for word in pattern.split("/")
    ]
    near = "/".join(words)
    return f" Did you mean {near!r}?" if matching(paths, near) else ""


def generator(seed: int, path: str) -> np.random.Generator:
    """The random numbers that belong to a seed and a path."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=tuple(path.encode())))


def count(node: Node, pattern: str = "**", *, trainable: bool | None = None) -> int:
    """Number of parameters, shared ones once.

    Args:
        node: the network at known sizes.
        pattern: counts those alone whose path matches, as in `select`.
        trainable: counts those alone that have a gradient (True), or that are running state
            (False). What a model freezes is another matter: see `trainable_of`.

    Raises:
        ParamError: if a pattern matches nothing.

    >>> import blocks as bl
    >>> node = bl.infer(bl.Sequential(bl.Dense(4), bl.BatchNorm(), bl.Dense(2)), (3,))
    >>> bl.count(node), bl.count(node, "0/**"), bl.count(node, "*/bias"), bl.count(node, "1/*")
    (42, 16, 10, 16)
    >>> bl.count(node, trainable=False)
    8
    """
    if not isinstance(node, Node):
        raise FieldError(f"count takes a node from infer, got {node!r}.")
    wanted = None if trainable is None else as_bool("trainable", trainable)
    specs = node.param_specs()
    found = matching(specs, pattern)
    if not found and pattern != "**":  # a network may have none at all
        check_used([pattern], specs)
    return sum(
        specs[path].size for path in found if wanted is None or specs[path].trainable is wanted
    )


def check_mapping(params: Any) -> None:
    """Refuse what is no dict of parameters."""
    if not isinstance(params, Mapping):
        raise ParamError(f"parameters are a dict from path to array, got {type(params).__name__}.")
    for path in params:
        if not isinstance(path, str):
            raise ParamError(f"parameters are a dict from path to array, but have {path!r}.")


def check_params(node: Node, params: Mapping[str, Any]) -> Params:
    """The parameters as arrays of the node's dtype; raises `ParamError` with every mismatch."""
    specs = node.param_specs()
    arrays, wrong = checked(specs, params)
    wrong |= {path: f"missing, expected {specs[path].shape}." for path in specs.keys() - params}
    refuse({path: wrong[path] for path in specs if path in wrong} | unknown(specs, params))
    return arrays


def checked(specs: Mapping[str, ParamSpec], params: Any) -> tuple[Params, dict[str, str]]:
    """The arrays that fit, in the dtype of their specs, and by path what is wrong with others."""
    check_mapping(params)
    arrays, wrong = {}, {}
    for path, spec in specs.items():
        if path not in params:
            continue
        try:
            array = as_numbers(params[path])
        except ParamError as error:
            wrong[path] = str(error)
            continue
        if array.shape != spec.shape:
            wrong[path] = f"expected {spec.shape}, got {array.shape}.{hint(array, spec)}"
            continue
        with np.errstate(over="ignore"):  # it is refused below
            arrays[path] = array.astype(array_dtype(spec.dtype), copy=False)
        if beyond := overflowed(array, arrays[path]):
            wrong[path] = f"{beyond} is more than {spec.dtype} holds. Infer at a wider dtype."
    return arrays, wrong


def overflowed(array: np.ndarray, narrow: np.ndarray) -> Any:
    """A finite number of the array that is infinite in its narrower copy, if there is one."""
    if np.can_cast(array.dtype, narrow.dtype):
        return None
    found = array[np.isinf(narrow) & np.isfinite(array)]
    return found[0] if found.size else None


def as_numbers(value: Any) -> np.ndarray:
    """An array of integers or floats."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError):  # torch's, for a tensor that has a gradient
        raise ParamError(f"expected an array, got {type(value).__name__}.") from None
    if array.dtype.kind == "O":
        raise ParamError(f"expected an array, got {type(value).__name__}.")
    if array.dtype.kind not in "iu" and not is_float(array):
        raise ParamError(f"expected numbers, got dtype {array.dtype}.")
    return array


def unknown(known: Iterable[str], given: Iterable[str]) -> dict[str, str]:
    """The paths that are given but not known, with the nearest that is still free."""
    known, given = dict.fromkeys(known), dict.fromkeys(given)
    free = [path for path in known if path not in given] or known
    strange = [path for path in given if path not in known]
    return {path: f"unknown.{did_you_mean(str(path), free)}" for path in strange}


def refuse(wrong: Mapping[str, str]) -> None:
    """Raise a `ParamError` if anything is wrong, by path."""
    if wrong:
        verb = "parameter does" if len(wrong) == 1 else "parameters do"
        facts = [f"{path}: {fact}" for path, fact in wrong.items()]
        raise ParamError(f"{len(wrong)} {verb} not fit.\n  " + "\n  ".join(facts))


def hint(array: np.ndarray, spec: Any) -> str:
    if array.ndim == 2 and array.shape == spec.shape[::-1]:
        return " Canonical kernels are (in, out); this looks transposed."
    if array.ndim > 2 and array.shape == (*spec.shape[:-3:-1], *spec.shape[:-2]):
        return " Canonical kernels are (*window, in, out); this looks like (out, in, *window)."
    return ""

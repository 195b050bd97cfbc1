"""The verbs on models: from nodes to native models and listings, and numbers in and out of them.

A native model carries nothing of isoblocks. Which node it was lowered from is remembered here for
as long as the model lives; for a model that came from elsewhere (a copy, a merge of a split), the
verbs take its `node`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import NoneType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from blocks._backends import find_backend
from blocks._batch import batch, fitted
from blocks._block import Block
from blocks._draws import shared_draws
from blocks._errors import BlockError, FieldError, ParamError
from blocks._extent import check_memory
from blocks._infer import as_node, check_ints, check_word
from blocks._params import (
    Params,
    check_mapping,
    check_params,
    check_used,
    checked,
    flags,
    matching,
    refuse,
)
from blocks._params import init as init_params
from blocks._spec import (
    Node,
    aligned,
    array_dtype,
    half,
    is_float,
    leaves,
    map_value,
    with_floats,
)
from blocks._stack import call_deep


@dataclass(frozen=True)
class Origin:
    """What is known of a model: the node, its backend, and where the parameters live; how it draws
    random numbers, if that is known, and where shared draws count their calls.
    """

    node: Node
    backend: Any
    bindings: tuple[Any, ...]
    streams: tuple[Any, ...] = ()
    draws: str = ""
    seed: int = 0

    @cached_property
    def places(self) -> list[list[Any]]:
        """The bindings, those of one native variable together."""
        found: dict[Any, list[Any]] = {}
        for binding in self.bindings:
            found.setdefault(binding.place, []).append(binding)
        return list(found.values())

    @cached_property
    def trained_places(self) -> list[list[Any]]:
        """The places of parameters that have a gradient: a place holds either kind."""
        return [bindings for bindings in self.places if bindings[0].spec.trainable]

    def variables(self, model: Any) -> list[Any]:
        """The native variables at the `trained_places`."""
        find = self.backend.finder(model)
        return [find(bindings[0]) for bindings in self.trained_places]

    @cached_property
    def levels(self) -> int:
        return self.node.levels()

    def call(self, verb: str, *args: Any) -> Any:
        """What the backend does, on a stack that the network does not overflow."""
        return call_deep(self.levels, getattr(self.backend, verb), *args)


ORIGINS: WeakKeyDictionary[Any, Origin] = WeakKeyDictionary()


def lower(
    network: Node | Block,
    backend: str,
    *,
    params: Mapping[str, np.ndarray] | None = None,
    seed: int = 0,
    init: str = "shared",
    draws: str = "native",
    trainable: Mapping[str, bool] | None = None,
    input_shape: Any = None,
    **options: Any,
) -> Any:
    """The network as a native model of a backend.

    Args:
        network: a node, or a block together with `input_shape` and the options of `infer`.
        backend: "torch", "keras", "flax", "numpy", or another that is installed; with a mode behind
            it, such as "torch compiled" or "keras eager", a model that runs so in all verbs.
        params: canonical parameters; drawn from `seed` if left out.
        seed: of the first parameters, and of shared draws.
        init: "shared" for the same first parameters on every backend, "native" for the framework's
            own.
        draws: "native" for the framework's own random numbers in training (Dropout, Sample),
            "shared" for one stream that is the same on every backend, to compare them.
        trainable: what to freeze, by path or pattern, as in `set_trainable`.

    Returns:
        An `nn.Module`, `keras.Model`, `nnx.Module` or NumPy `Layer`.

    >>> import blocks as bl
    >>> model = bl.lower(bl.Dense(3), "numpy", input_shape=(2,), seed=1)
    >>> bl.apply(model, np.ones((4, 2))).shape
    (4, 3)
    """
    node = as_node(network, input_shape, options)
    check_memory(node, values=True)
    check_word("init", init, ("shared", "native"))
    if init == "native" and params is not None:
        raise FieldError("init='native' leaves the parameters to the backend; drop params=.")
    adapter = find_backend(backend)
    native = init == "native"
    given = None if params is None else check_params(node, params)
    wanted = flags(node.param_specs(), {} if trainable is None else trainable)
    program = drawing_program(adapter, node, draws, seed)
    known = Origin(node, adapter, program.bindings, program.streams, draws, seed)
    model = known.call("build", program, seed, not native)
    ORIGINS[inner(model)] = known
    if native:
        given = check_params(node, params_of(model))  # in the node's dtype
    adopt(inner(model), known, init_params(node, seed) if given is None else given, given is None)
    if wanted:
        train(inner(model), known, wanted)
    return model


def drawing_program(adapter: Any, node: Node, draws: str, seed: int) -> Any:
    """The network as a native program that draws its random numbers in one of the two ways."""
    check_word("draws", draws, ("native", "shared"))
    check_ints(seed=(seed, 0))
    return adapter.program(shared_draws(node, seed) if draws == "shared" else node)


def source(
    network: Node | Block,
    backend: str,
    *,
    draws: str = "native",
    seed: int = 0,
    loading: bool = False,
    input_shape: Any = None,
    **options: Any,
) -> str:
    """The network as code that runs with the framework alone and defines `model`.

    Args are those of `lower`; `seed` is that of shared draws. If `loading`, the listing is a
    program: it also defines `load_params(path)`, which reads a safetensors file of canonical
    parameters, as `save_params` writes it, and says what it is.

    >>> import blocks as bl
    >>> print(bl.source(bl.Sequential(bl.Dense(3), bl.ReLU()), "torch", input_shape=(2,)))
    from torch import nn
    <BLANKLINE>
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    <BLANKLINE>
    """
    adapter = find_backend(backend)
    node = as_node(network, input_shape, options)
    program = drawing_program(adapter, node, draws, seed)
    return call_deep(node.levels(), adapter.source, program, loading)


def origin(model: Any, node: Node | None = None) -> Origin:
    """Where a model came from; by its node for one that was not made by `lower`."""
    if not isinstance(node, (Node, NoneType)):
        raise FieldError(f"node must be a node from infer, got {node!r}.")
    try:
        known = ORIGINS.get(inner(model))
    except TypeError:  # what cannot be hashed or referred to is no model
        known = None
    if known is not None and (node is None or node is known.node):
        return known
    if node is None:
        raise BlockError(
            f"this {type(model).__name__} was not made by lower, so its blocks are unknown. "
            "Give the node that it belongs to: node=..."
        )
    adapter = find_backend(framework(model) or "numpy")
    return Origin(node, adapter, adapter.program(node).bindings)


def framework(model: Any) -> str | None:
    """The framework whose module a model is."""
    packages = {kind.__module__.partition(".")[0] for kind in type(model).__mro__}
    # Keras first: its models are also modules of the engine underneath.
    return next((name for name in ("keras", "flax", "torch") if name in packages), None)


def inner(model: Any) -> Any:
    """The module inside a compiled one: torch.compile keeps it under this name."""
    return getattr(model, "_orig_mod", model)


def params_of(model: Any, *, node: Node | None = None) -> Params:
    """The parameters of a model in canonical form, as copies.

    >>> import blocks as bl
    >>> model = bl.lower(bl.Dense(3), "numpy", input_shape=(2,))
    >>> {path: array.shape for path, array in bl.params_of(model).items()}
    {'kernel': (2, 3), 'bias': (3,)}
    """
    known = origin(model, node)
    find = known.backend.finder(inner(model))
    params = parted(known.places, lambda first: known.backend.read(find(first)), canonical)
    return {b.path: params[b.path] for b in known.bindings}


def parted(places: Any, read: Callable[[Any], np.ndarray], canonical: Any) -> Params:
    """The canonical arrays in native ones: `read` finds that at the place of a binding."""
    params: Params = {}
    for bindings in places:
        array = read(bindings[0])
        params |= {b.path: canonical(b, array) for b in bindings}
    return params


def canonical(binding: Any, native: np.ndarray) -> np.ndarray:
    """A parameter, or its gradient, of its own dtype and in memory of its own."""
    return np.array(narrowed(binding.to_canonical(native), binding.spec.dtype), order="C")


class Loaded(NamedTuple):
    """What `load_params` left as it was, and what it had no place for."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]


def load_params(
    model: Any, params: Mapping[str, np.ndarray], *, strict: bool = True, node: Node | None = None
) -> Loaded:
    """Set the parameters of a model; raises `ParamError` with every mismatch, then sets none.

    Args:
        model: any model made by `lower`.
        params: canonical parameters, all of them.
        strict: if False, only those that are given and known are set, for a model that shares a
            part with another one. A wrong shape is refused all the same.
        node: of a model that was not made by `lower`.

    Returns:
        The paths that were `missing` in the parameters, and those that were `unexpected`: none if
        strict.

    >>> import blocks as bl
    >>> body = bl.Dense(4)
    >>> old = bl.lower(bl.Sequential(body=body, head=bl.Dense(10)), "numpy", input_shape=(3,))
    >>> new = bl.lower(bl.Sequential(body=body, top=bl.Dense(2)), "numpy", input_shape=(3,))
    >>> bl.load_params(new, bl.params_of(old), strict=False)
    Loaded(missing=('top/kernel', 'top/bias'), unexpected=('head/kernel', 'head/bias'))
    """
    known = origin(model, node)
    specs = known.node.param_specs()
    if strict:
        arrays = check_params(known.node, params)
    else:
        arrays, wrong = checked(specs, params)
        refuse(wrong)
    write(model, known, arrays)
    unexpected = tuple(path for path in params if path not in specs)
    return Loaded(tuple(path for path in specs if path not in params), unexpected)


def write(model: Any, known: Origin, arrays: Params) -> None:
    """Set the parameters that are given, also where others share their native variable."""
    find = known.backend.finder(inner(model))
    for bindings in known.places:
        given = [b for b in bindings if b.path in arrays]
        if not given:
            continue
        variable = find(bindings[0])
        if len(given) == len(bindings):
            native = joined(variable, bindings, arrays)
        else:
            native = filled(np.array(known.backend.read(variable)), given, arrays)
        known.backend.write(variable, native)


def joined(variable: Any, bindings: list[Any], arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """The native array of these parameters, which live in that variable or in one of its shape."""
    first, *_ = bindings
    if first.whole:
        return first.to_native(arrays[first.path])
    return assembled(variable.shape, bindings, arrays)


def copy_params(
    source: Any, target: Any, pattern: str = "**", *, node: Node | None = None
) -> list[str]:
    """Copy parameters from one model to another, whatever the backend of either.

    They are rounded to the dtype of the target. The parameters that match must be the same ones in
    both networks, in the same shapes; the rest may be anything.

    Args:
        source: any model made by `lower`, or a dict of canonical parameters.
        target: any model made by `lower`.
        pattern: which parameters, as in `select`; running state too.
        node: of a target that was not made by `lower`; of such a source, give
            `params_of(source, node=...)`.

    Returns:
        The paths that were copied.

    Raises:
        ParamError: if nothing matches, or with every parameter that matches in one of the two
            alone or has another shape there; then nothing is copied.

    >>> import blocks as bl
    >>> a = bl.lower(bl.Sequential(bl.Dense(4), bl.Dense(10)), "numpy", input_shape=(3,), seed=1)
    >>> b = bl.lower(bl.Sequential(bl.Dense(4), bl.Dense(2)), "numpy", input_shape=(3,))
    >>> bl.copy_params(a, b, "0/**")
    ['0/kernel', '0/bias']
    """
    known, params = origin(target, node), given_params(source)
    specs = known.node.param_specs()
    given = {path: params[path] for path in matching(params, pattern)}
    wanted = {path: specs[path] for path in matching(specs, pattern)}
    if not given and not wanted:
        check_used([pattern], {**params, **specs})
    arrays, wrong = checked(wanted, given)
    wrong |= {path: "the source has none." for path in wanted if path not in given}
    refuse(wrong | {path: "the target has none." for path in given if path not in wanted})
    write(target, known, arrays)
    return list(arrays)


def given_params(source: Any) -> Mapping[str, Any]:
    """The parameters of a model, or those that are given as such."""
    if not isinstance(source, Mapping):
        return params_of(source)
    check_mapping(source)
    return source


def set_trainable(model: Any, trainable: Mapping[str, bool], *, node: Node | None = None) -> None:
    """Freeze parameters of a model, or train them again, by its framework's own means.

    `fit` does not touch a frozen parameter: no gradient, no momentum, no weight decay, and no share
    in the norm that `clip_norm` limits. Running state has no gradient and is never trained; that
    of a frozen BatchNorm moves in training as ever, and it normalises by the batch as ever.

    - torch: `requires_grad`.
    - Keras: `trainable` of each variable; of the layer too where all in it is frozen and it has no
      running state. Files keep that of layers alone: where more is frozen, reload a model that
      was compiled by `load_model(..., compile=False)`. After a change, compile again.
    - Flax: frozen parameters have nnx's tag "frozen", so `nnx.All(nnx.Param, nnx.Not("frozen"))`
      is the filter of what is trained, as `wrt=` of `nnx.Optimizer` and of `nnx.DiffState`.
    - NumPy: `model.param()` leaves them out.

    Args:
        model: any model made by `lower`.
        trainable: path or pattern (see `select`) to True or False. The last pattern that matches
            wins, so the general ones come first; what none matches stays as it is. A parameter
            that is shared is one parameter, frozen in all its uses.
        node: of a model that was not made by `lower`.

    Raises:
        ParamError: if a pattern matches nothing, if a path names running state to be trained, or if
            the framework keeps parameters in one array of which only some would be frozen.

    >>> import blocks as bl
    >>> net = bl.Sequential(body=bl.Dense(4), head=bl.Dense(2))
    >>> model = bl.lower(net, "numpy", input_shape=(3,))
    >>> bl.set_trainable(model, {"**": False, "head/*": True})
    >>> bl.trainable_of(model)
    {'body/kernel': False, 'body/bias': False, 'head/kernel': True, 'head/bias': True}
    """
    known = origin(model, node)
    train(inner(model), known, flags(known.node.param_specs(), trainable))


def trainable_of(model: Any, *, node: Node | None = None) -> dict[str, bool]:
    """Which parameters `fit` changes, by path: what the framework itself says.

    So it sees what was frozen in the framework's own words too: `requires_grad_(False)` in torch,
    `layer.trainable = False` in Keras. Running state is False.
    """
    known = origin(model, node)
    found = {
        b.path: on
        for bindings, on in zip(known.trained_places, now(inner(model), known), strict=True)
        for b in bindings
    }
    return {b.path: found.get(b.path, False) for b in known.bindings}


def now(model: Any, known: Origin) -> list[bool]:
    """Whether the framework trains the native variable at each of the `trained_places`."""
    return list(known.backend.trains(model, known.variables(model)))


def train(model: Any, known: Origin, wanted: Mapping[str, bool]) -> None:
    """Train the parameters that are wanted True, freeze those that are wanted False."""
    after, split = [], []
    for bindings, on in zip(known.trained_places, now(model, known), strict=True):
        asked = {b.path: wanted.get(b.path, on) for b in bindings}
        after.append(all(asked.values()))
        if len(set(asked.values())) > 1:
            split.append(one_array(known.backend.name, asked))
    if split:
        raise ParamError("\n".join(split))
    known.backend.set_trains(model, known.variables(model), after)


def one_array(backend: str, asked: dict[str, bool]) -> str:
    frozen = [path for path, on in asked.items() if not on]
    others = [path for path, on in asked.items() if on]
    return (
        f"{backend} cannot freeze {', '.join(frozen)} and train {', '.join(others)}: it keeps them "
        "in one array.\n  Freeze all of them, or none."
    )


def adopt(model: Any, known: Origin, arrays: Params, ours: bool) -> None:
    """Give all parameters to a new model. What is ours the model keeps, and here it is let go; an
    array that a caller gave is copied, for training one model would change it in all others.
    """
    find = known.backend.finder(model)
    for bindings in known.places:
        variable, (first, *_) = find(bindings[0]), bindings
        native = first.to_native(arrays[first.path])
        if not (ours and first.whole and native.flags.c_contiguous):
            shape = native.shape if first.whole else variable.shape
            native = assembled(shape, bindings, arrays)
        if ours:
            for binding in bindings:
                del arrays[binding.path]
        known.backend.adopt(variable, native)


def assembled(shape: Any, bindings: list[Any], arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """The native array of that shape that holds these parameters, in memory of its own."""
    return filled(aligned(tuple(shape), arrays[bindings[0].path].dtype), bindings, arrays)


def filled(whole: np.ndarray, bindings: list[Any], arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """The native array, with these parameters in their parts of it."""
    for binding in bindings:
        binding.mine(whole)[...] = binding.to_native(arrays[binding.path])
    return whole


def apply(model: Any, x: Any, *, training: bool = False, node: Node | None = None) -> Any:
    """The output of a model: NumPy in, NumPy out, whatever the backend.

    Args:
        model: any model made by `lower`.
        x: a batch as an array with the batch axis first, or a tuple of arrays. It is converted to
            the model's dtype.
        training: whether blocks behave as in training: Dropout drops, BatchNorm uses the batch's
            statistics and moves the running ones.

    Raises:
        ShapeError: if the batch does not have the shape that the network was inferred for.
    """
    known = origin(model, node)
    inputs, _ = batch(known.node, x)
    outputs = known.call("forward", known.node, model, inputs, training)
    return map_value(lambda y: owned(narrowed(y, known.node.dtype), inputs), outputs)


def narrowed(array: np.ndarray, dtype: str) -> np.ndarray:
    """A result of a network of 16 bits, parts of which a framework computes in 32."""
    return array.astype(array_dtype(dtype)) if half(dtype) and is_float(array) else array


def owned(y: np.ndarray, inputs: Any) -> np.ndarray:
    """An array that the caller may write to without changing what went in."""
    shared = any(np.may_share_memory(y, x) for x in leaves(inputs))
    return y.copy() if shared or not y.flags.writeable else y


def gradients(
    model: Any, x: Any, cotangent: Any, *, training: bool = False, node: Node | None = None
) -> dict[str, Any]:
    """Gradients of sum(cotangent * output), for the input and every parameter that has one.

    It is a measurement: frozen parameters (see `set_trainable`) are among them.

    Args:
        model, x, training: as in `apply`.
        cotangent: an array of the output's shape, or a tuple of arrays.

    Returns:
        {"input": ..., "0/kernel": ..., ...} in canonical form; 0 for an input of integers.
    """
    known = origin(model, node)
    inputs, concrete = batch(known.node, x)
    size = len(leaves(inputs)[0])
    weight = fitted(cotangent, concrete.out_spec, "the cotangent", size)
    values = model, inputs, weight
    dx, native = known.call("gradients", known.node, *values, training, known.bindings)
    weights = {b.path: canonical(b, native[b.path]) for b in known.bindings if b.spec.trainable}
    dx = [owned(narrowed(g, known.node.dtype), (*leaves(inputs), *leaves(weight))) for g in dx]
    still = map_value(lambda a: a if is_float(a) else np.zeros_like(a), inputs)
    return {"input": with_floats(still, dx), **weights}

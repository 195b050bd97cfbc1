"""Parity: is a network the same on every backend? Measured against the reference in float64.

Three levels: what holds whatever the weights are (names, shapes, dtypes, evaluation that does not
depend on the rest of the batch); outputs, gradients and running statistics with the same
parameters; the loss over a few steps of training. A control changes one parameter, by 1 % where
the dtype allows, and must be seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from blocks._activations import activations
from blocks._backends import find_backend, installed
from blocks._block import Block
from blocks._errors import FieldError, UnsupportedError
from blocks._evaluate import check_loss
from blocks._infer import again, as_node
from blocks._models import apply, gradients, lower, params_of
from blocks._params import Params, count, init
from blocks._spec import (
    Node,
    Spec,
    array_dtype,
    floats,
    half,
    is_float,
    leaves,
    map_value,
    with_floats,
)
from blocks._train import fit
from blocks.custom import Custom
from blocks.optimizer import SGD

# Levels that share their tolerances with another.
ALIKE = {level: level for level in ("outputs", "state", "curve")} | {"blocks": "outputs"}

# How much larger the control makes a parameter: at 16 bits 1 % is within rounding.
CONTROL = {"float64": 0.01, "float32": 0.01, "float16": 1.0, "bfloat16": 1.0}

# Largest difference, as a share of the largest reference value of its level, by dtype of the model:
# a gradient that is 0 but for rounding is judged by the size of the others.
TOLERANCES = {
    "float64": {"outputs": 1e-12, "gradients": 1e-11, "state": 1e-12, "curve": 1e-10},
    "float32": {"outputs": 2e-6, "gradients": 2e-5, "state": 2e-6, "curve": 2e-5},
    "float16": {"outputs": 4e-3, "gradients": 1e-2, "state": 4e-3, "curve": 1e-2},
    "bfloat16": {"outputs": 3e-2, "gradients": 8e-2, "state": 3e-2, "curve": 8e-2},
}


@dataclass(frozen=True)
class Difference:
    """One comparison: what was compared, the largest difference as a share of the largest wanted
    value, where, the limit, and the largest difference itself.
    """

    level: str
    kind: str
    error: float
    where: str
    tolerance: float
    absolute: float

    def __bool__(self) -> bool:
        return self.error <= self.tolerance


@dataclass(frozen=True)
class BackendReport:
    """All comparisons of one backend; `facts` lists what is wrong whatever the weights are."""

    backend: str
    differences: tuple[Difference, ...]
    facts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return not self.facts and all(self.differences)

    def worst(self, level: str) -> Difference | None:
        """The comparison of a level that comes nearest to its limit, or passes it."""
        found = [d for d in self.differences if d.level == level]
        return max(found, key=lambda d: d.error / d.tolerance, default=None)


LEVELS = ("outputs", "gradients", "training", "state", "curve")


@dataclass(frozen=True, repr=False)
class Report:
    """Parity of a network over backends: true if all agree; prints as a table."""

    node: Node
    dtype: str
    backends: tuple[BackendReport, ...]
    control: float

    @property
    def controlled(self) -> bool:
        """Whether the change of one parameter was seen."""
        margin = 1 if half(self.dtype) else 10
        return self.control > margin * TOLERANCES[self.dtype]["outputs"]

    def __bool__(self) -> bool:
        return self.controlled and all(self.backends)

    def __rich_console__(self, console: Any, options: Any) -> Any:
        from rich.markup import escape
        from rich.table import Table

        table = Table(title=f"Parity in {self.dtype}, against the reference in float64")
        table.add_column("backend")
        table.add_column("names, shapes")
        for level in LEVELS:
            table.add_column(level, justify="right")
        for report in self.backends:
            cells = [cell(report.worst(level)) for level in LEVELS]
            facts = "[red]differ[/]" if report.facts else "[green]equal[/]"
            table.add_row(report.backend, facts, *cells)
        yield table
        for report in self.backends:
            for text in (*report.facts, *report.notes):
                yield escape(f"{report.backend}: {text}")
            for d in report.differences:
                if not d:
                    yield (
                        f"[red]{report.backend}: {d.level} {d.kind} differs by {d.error:.1e} "
                        f"at {escape(d.where)}; allowed {d.tolerance:.0e}[/]"
                    )
        seen = "seen" if self.controlled else "[red]NOT SEEN: the comparison is blind[/]"
        moved = f"{self.control:.1e}"
        share = f"{100 * CONTROL[self.dtype]:g} %"
        yield f"Control: one parameter changed by {share} moves the outputs by {moved}: {seen}."

    def __repr__(self) -> str:
        from blocks._console import as_text

        return as_text(self)


def cell(difference: Difference | None) -> str:
    if difference is None:
        return "-"
    colour = "green" if difference else "red"
    return f"[{colour}]{difference.error:.1e}[/]"


def parity(
    network: Node | Block,
    input_shape: Any = None,
    *,
    backends: Iterable[str] | None = None,
    params: Params | None = None,
    seed: int = 0,
    batch_size: int = 7,
    steps: int = 5,
    blocks: bool = False,
    loss: Any = "mse",
    **options: Any,
) -> Report:
    """Compare a network on several backends with the NumPy reference in float64.

    Args:
        network, input_shape, options: as in `lower`; options are those of `infer`.
        backends: their names; all that are installed if left out.
        params: canonical parameters; random ones off their defaults if left out.
        seed: of parameters and inputs.
        batch_size: number of examples.
        steps: of training for the loss curve; 0 leaves it out.
        blocks: whether to compare also what every block returns.
        loss: of the loss curve, as in `fit`; its targets are random.

    Returns:
        A report that is true if all agree within `TOLERANCES`.

    >>> import blocks as bl
    >>> bool(bl.parity(bl.Dense(3), (4,), backends=["numpy"]))
    True
    """
    node = as_node(network, input_shape, options)
    backends = installed() if backends is None else backends
    names = [backends] if isinstance(backends, str) else list(backends)
    if not names:
        raise FieldError("parity needs at least one backend, got none.")
    draw = Draw(node, params, batch_size, steps, blocks, check_loss(loss))
    reports, control = draw.compare(names, seed)
    for redraw in range(1, 1 + REDRAWS):
        doubtful = [r.backend for r in reports.values() if not r and not r.facts]
        if node.dtype == "float64" or not doubtful:
            break
        for name, report in draw.compare(doubtful, seed + redraw)[0].items():
            if report:
                reports[name] = replace(report, notes=(*report.notes, TIPPED.format(redraw)))
    return Report(node, node.dtype, tuple(reports.values()), control)


# In float32 a ReLU or a maximum may tip over within rounding, which moves gradients by more. That
# happens in one draw and not in the next; a network that is another one differs in all.
REDRAWS = 2
TIPPED = "agrees, but on draw {}: before, a kink tipped over within float32's rounding"


@dataclass(frozen=True)
class Draw:
    """What is compared: a network, its parameters if they are given, and how much of it."""

    node: Node
    params: Params | None
    batch_size: int
    steps: int
    blocks: bool = False
    loss: Any = "mse"

    def compare(self, names: list[str], seed: int) -> tuple[dict[str, BackendReport], float]:
        """A report for each backend, and how far the control moves the outputs."""
        node, rng = self.node, np.random.default_rng(seed)
        params = random_params(node, seed) if self.params is None else self.params
        start = init(node, seed) if self.params is None else self.params
        inputs = Inputs.draw(node, self.batch_size, rng, start, self.loss)
        how = self.steps, self.blocks
        reference = measure("numpy", doubled(node), params, inputs, *how)
        larger = enlarged(reference, params, inputs, CONTROL[node.dtype])
        changed = measure_outputs("numpy", doubled(node), *larger)
        control = relative(changed, reference.values["outputs"]["output"])[0]
        reports = {name: compare(name, node, params, inputs, reference, *how) for name in names}
        return reports, control


@dataclass(frozen=True)
class Inputs:
    """What goes in: a batch, a cotangent for the output, a target, and where training starts."""

    x: Any
    cotangent: Any
    target: Any
    start: Params
    loss: Any = "mse"

    @classmethod
    def draw(
        cls,
        node: Node,
        batch_size: int,
        rng: np.random.Generator,
        start: Params | None = None,
        loss: Any = "mse",
    ) -> Inputs:
        x = draw_batch(node, batch_size, rng)
        lengths = lower(doubled(node), "numpy")
        y = apply(lengths, x)
        like = lambda a: narrow(rng.normal(size=a.shape), node.dtype)  # noqa: E731
        cotangent, target = map_value(like, y), draw_target(leaves(y)[0].shape, loss, rng, node)
        return cls(x, cotangent, target, start or {}, loss)


def draw_batch(node: Node, batch_size: int, rng: np.random.Generator) -> Any:
    """Normal numbers, a few of them large, exact in float32; any length is 5."""

    def draw(spec: Spec) -> np.ndarray:
        sizes = (batch_size, *(5 if n is None else n for n in spec.shape))
        if not is_float(spec):
            return rng.integers(0, spec.below or 2, sizes).astype(spec.dtype)
        return narrow(rng.normal(size=sizes) * np.exp(rng.normal(size=sizes)), spec.dtype)

    return map_value(draw, node.in_spec)


# How targets are drawn; those of other losses are numbers from 0 to 1.
DRAWN: dict[Any, Callable[[np.random.Generator, Any], np.ndarray]] = {
    "cross_entropy": lambda rng, shape: rng.integers(0, shape[-1], shape[:-1]),
    "mse": lambda rng, shape: rng.normal(size=shape),
    "mae": lambda rng, shape: rng.normal(size=shape),
}


def draw_target(shape: Any, loss: Any, rng: np.random.Generator, node: Node) -> np.ndarray:
    """Targets for the first output: classes, normal numbers, or numbers from 0 to 1."""
    drawn = DRAWN[loss](rng, shape) if loss in DRAWN else rng.uniform(size=shape)
    return narrow(drawn, node.dtype) if is_float(drawn) else drawn


def untrained(node: Node, loss: Any) -> str:
    """Why there is no training with a loss; "" if there is."""
    if isinstance(node.out_spec, tuple) and not isinstance(loss, Custom):
        return "several outputs need a loss of your own"
    return "" if count(node, trainable=True) else "nothing can be trained"


def narrow(array: np.ndarray, dtype: str) -> np.ndarray:
    """The numbers rounded so that they are exact in every dtype that is compared."""
    return array.astype(array_dtype(dtype if half(dtype) else "float32"))


@dataclass(frozen=True)
class Measured:
    """Everything that is compared, by level and kind; parameters, and how many there are."""

    values: dict[str, dict[str, Any]]
    params: Params
    sizes: tuple[int, int]


def doubled(node: Node) -> Node:
    """The same network in float64."""
    return again(node, node.in_spec, dtype="float64", param_dtype="float64")


def random_params(node: Node, seed: int) -> Params:
    """Parameters off their defaults: scales are not 1, biases not 0, variances not 1."""
    rng = np.random.default_rng([seed, 1])
    params = init(node, seed)
    for path, array in params.items():
        moved = array + 0.1 * rng.normal(size=array.shape)
        positive = path.rpartition("/")[2] == "var"
        params[path] = narrow(np.abs(moved) if positive else moved, node.param_dtype)
    return params


def measure_outputs(backend: str, node: Node, params: Params, inputs: Inputs) -> Any:
    return apply(lower(node, backend, params=params), inputs.x)


def measure(
    backend: str, node: Node, params: Params, inputs: Inputs, steps: int, blocks: bool = False
) -> Measured:
    """Run a network on one backend, from the same parameters for every level."""
    model = lower(node, backend, params=params)
    x, cotangent = inputs.x, inputs.cotangent
    values: dict[str, dict[str, Any]] = {"outputs": {"output": apply(model, x)}}
    values["gradients"] = gradients(model, x, cotangent)
    if blocks:
        values["blocks"] = activations(model, x)
    found, sizes = params_of(model), find_backend(backend).sizes(model)
    drawing = partial(lower, node, backend, draws="shared")
    if any(n.form.stochastic for n in node.walk()):
        model = drawing(params=params)
    values["training"] = {"output": apply(model, x, training=True)}
    specs = node.param_specs()
    state = {p: a for p, a in params_of(model).items() if not specs[p].trainable}
    values["state"] = state
    values["training"] |= gradients(model, x, cotangent, training=True)
    if steps and not untrained(node, inputs.loss):
        values["curve"] = {"loss": curve(drawing(params=inputs.start), inputs, steps)}
    return Measured(values, found, sizes)


def curve(model: Any, inputs: Inputs, steps: int) -> np.ndarray:
    """The loss over a few steps of training."""
    batch_size = len(leaves(inputs.x)[0])
    optimizer = SGD(0.01, momentum=0.9)
    how: Any = {"loss": inputs.loss, "epochs": steps, "batch_size": batch_size}
    return np.array(fit(model, (inputs.x, inputs.target), optimizer=optimizer, **how).losses)


def enlarged(
    reference: Measured, params: Params, inputs: Inputs, share: float
) -> tuple[Params, Inputs]:
    """The same with one parameter, where the outputs feel it most, larger by a share of itself.

    A network without parameters gets a larger input.
    """
    grads = reference.values["gradients"]
    felt = {p: magnitude(a * grads[p]) for p, a in params.items() if p in grads}
    if not felt:
        larger = [a * a.dtype.type(1 + share) for a in floats(inputs.x)]
        return params, replace(inputs, x=with_floats(inputs.x, larger))
    path = max(felt, key=felt.__getitem__)
    return params | {path: params[path] * (1 + share)}, inputs


def compare(
    name: str,
    node: Node,
    params: Params,
    inputs: Inputs,
    reference: Measured,
    steps: int,
    blocks: bool,
) -> BackendReport:
    """One backend against the reference."""
    try:
        measured = measure(name, node, params, inputs, steps, blocks)
    except UnsupportedError as refusal:
        return BackendReport(name, (), (str(refusal),))
    limits = find_backend(name).rules.precision(node) if node.dtype == "float64" else []
    floor = max((limit.error for limit in limits), default=0.0)
    differences = []
    for level, kinds in reference.values.items():
        strict = TOLERANCES[node.dtype]
        summed = level in ("gradients", "training")
        tolerance = strict["gradients"] * growth(node, inputs) if summed else strict[ALIKE[level]]
        tolerance = max(tolerance, floor)
        sizes = (magnitude(value) for kind, value in kinds.items() if kind != "output")
        largest = max(sizes, default=0.0)
        for kind, wanted in kinds.items():
            alone = kind == "output" or level == "blocks"  # outputs are judged by themselves
            got = measured.values[level][kind]
            error, where, absolute = largest_difference(got, wanted, 0.0 if alone else largest)
            differences.append(Difference(level, kind, error, where, tolerance, absolute))
    notes = tuple(f"{limit.block.__name__}: {limit.reason}" for limit in limits)
    facts = tuple(wrong_facts(name, node, params, inputs, measured, reference, floor))
    return BackendReport(name, tuple(differences), facts, notes)


def growth(node: Node, inputs: Inputs) -> float:
    """How much more rounding a gradient gathers than over the 2,048 terms of the tolerance.

    A framework may sum a bias's gradient over batch and positions one by one.
    """
    if node.dtype == "float64":
        return 1
    sizes = [spec.spatial for n in node.walk() for spec in leaves(n.out_spec) if spec.rank > 1]
    positions = max((math.prod(n or 1 for n in spatial) for spatial in sizes), default=1)
    return max(1.0, positions * len(leaves(inputs.x)[0]) / 2048)


def wrong_facts(
    name: str,
    node: Node,
    params: Params,
    inputs: Inputs,
    measured: Measured,
    reference: Measured,
    floor: float,
) -> Iterable[str]:
    """What is wrong whatever the weights are."""
    for path, array in reference.params.items():
        found = measured.params.get(path)
        if found is None:
            yield f"has no parameter {path}"
        elif found.shape != array.shape or not np.array_equal(found, params[path]):
            yield f"parameter {path} did not come back as it went in"
    wanted_sizes = count(node, trainable=True), count(node, trainable=False)
    if measured.sizes != wanted_sizes:
        yield f"holds {measured.sizes} trainable numbers and running ones, not {wanted_sizes}"
    wanted = leaves(reference.values["outputs"]["output"])
    for got, right in zip(leaves(measured.values["outputs"]["output"]), wanted, strict=True):
        if got.shape != right.shape:
            yield f"output has shape {got.shape}, not {right.shape}"
        if str(got.dtype) != node.dtype:
            yield f"output has dtype {got.dtype}, not {node.dtype}"
    first = replace(inputs, x=map_value(lambda a: a[:1], inputs.x))
    alone = measure_outputs(name, node, params, first)
    together = map_value(lambda a: a[:1], measured.values["outputs"]["output"])
    if relative(alone, together)[0] > max(TOLERANCES[node.dtype]["outputs"] * 10, floor):
        yield "an example's output depends on the rest of the batch in evaluation"


def magnitude(value: Any) -> float:
    return max((float(np.abs(a).max(initial=0)) for a in leaves(value)), default=0.0)


def relative(got: Any, wanted: Any, floor: float = 0.0) -> tuple[float, str]:
    """Largest difference as a share of the largest wanted value, and the index where it is."""
    return largest_difference(got, wanted, floor)[:2]


def largest_difference(got: Any, wanted: Any, floor: float = 0.0) -> tuple[float, str, float]:
    """As a share of the largest wanted value; the index where it is; and the difference itself.

    `floor` is the least that the difference is divided by. NaN, or another shape, is an infinite
    difference.
    """
    worst = (0.0, "", 0.0)
    for i, (a, b) in enumerate(zip(leaves(got), leaves(wanted), strict=True)):
        if a.shape != b.shape:
            return math.inf, f"shape {a.shape}, not {b.shape}", math.inf
        if not b.size:
            continue
        b = b.astype(np.float64)
        with np.errstate(invalid="ignore"):
            distance = np.abs(a.astype(np.float64) - b)
        finite = np.isfinite(b)
        distance = np.where(finite & ~np.isnan(distance), distance, np.inf)
        at = np.unravel_index(distance.argmax(), b.shape)
        scale = max(float(np.abs(b, where=finite, out=np.zeros(b.shape)).max()), floor) or 1.0
        absolute = float(distance.max())
        where = f"[{', '.join(map(str, at))}]" + (f" of output {i}" if i else "")
        if not finite[at]:
            where += ", where the reference is not finite"
        worst = max(worst, (absolute / scale, where, absolute))
    return worst

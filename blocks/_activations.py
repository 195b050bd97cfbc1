"""What every block of a model returns, and every module of someone else's."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from blocks._backends import find_backend
from blocks._batch import as_array, batch
from blocks._block import Combinator
from blocks._errors import BlockError, short
from blocks._models import Origin, framework, inner, narrowed, origin
from blocks._spec import Node, Spec, leaves, map_inputs, map_value, shapes


def activations(model: Any, x: Any, *, node: Node | None = None) -> dict[str, Any]:
    """What every block returns in evaluation: path to array, in the program's layout.

    Leaves are all there, but for those that a framework does not keep apart; of combinators those
    that merge values. They come in the order in which they are computed.

    Args:
        model, x, node: as in `apply`.

    >>> import blocks as bl
    >>> net = bl.Sequential(bl.Dense(3), bl.Residual(bl.ReLU()))
    >>> model = bl.lower(net, "numpy", input_shape=(2,))
    >>> {path: y.shape for path, y in bl.activations(model, np.ones((4, 2))).items()}
    {'0': (4, 3), '1/body': (4, 3), '1': (4, 3)}
    """
    known = origin(model, node)
    return {seen.name: seen.value for seen in ours(known, model, x)}


class Stopped(Exception):
    """A model did not run to its end: `records` came before, and the cause is its own error."""

    def __init__(self, records: list[Any]):
        super().__init__(f"a model stopped after {len(records)} of its modules")
        self.records = records


@contextmanager
def partly(records: list[Any]) -> Iterator[None]:
    """Run a model of which backends write down what it returns; an error does not lose that."""
    try:
        yield
    except Exception as error:
        raise Stopped(records) from error


@dataclass(frozen=True)
class Seen:
    """What one block or module returned: its path or name, what it is, whether it is a leaf."""

    name: str
    kind: str
    value: Any
    leaf: bool = True


def ours(known: Origin, model: Any, x: Any) -> list[Seen]:
    """What every node of a model that was lowered returns."""
    inputs, _ = batch(known.node, x)
    program = known.backend.program(known.node)
    homes = {program.modules[n.path]: program.modules[n.home] for n in program.node.walk()}
    records: dict[Any, deque[Any]] = {}
    try:
        told = known.call("record", program, inner(model), inputs)
    except Stopped as stopped:
        raise stopped.__cause__ or stopped from None
    for at, record in enumerate(told):
        place = homes.get(record.place, record.place)  # a shared module has one name of several
        records.setdefault(place, deque()).append((at, record.value))
    physical = {n.path: n for n in program.node.walk()}  # a node's own after the one around it
    found: list[tuple[int, Seen]] = []
    for node in known.node.walk():  # where a shared block is used again, its next record
        queue = records.get(known.backend.place(program, physical[node.path]))
        leaf = not isinstance(node.form, Combinator)
        if not queue or not (leaf or node.form.flow == "fork"):
            continue
        at, value = queue.popleft()
        value = map_value(lambda a, node=node: narrowed(a, node.dtype), value)
        value = map_value(logical, value, physical[node.path].out_spec, node.out_spec)
        kind = getattr(node.form, "kind", type(node.form).__name__)
        found.append((at, Seen(node.path, kind, value, leaf)))
    return [seen for _, seen in sorted(found, key=lambda pair: pair[0])]


def logical(array: np.ndarray, physical: Spec, spec: Spec) -> np.ndarray:
    """An array with its channels where the program has them."""
    if physical.layout == spec.layout or spec.rank < 2:
        return array
    return np.moveaxis(array, physical.channel_axis + 1, spec.channel_axis + 1)


def theirs(model: Any, x: Any) -> tuple[list[Seen], str]:
    """What every module of someone else's model returns; and why it stopped, if it did not run to
    its end.

    Raises:
        BlockError: if it is no model, or stopped before any module returned.
    """
    name = framework(model)
    if name is None:
        raise BlockError(
            f"diff takes models, got {type(model).__name__}. "
            "Give a module of torch, Keras or Flax, or what lower made."
        )
    copied = map_inputs(lambda a: np.array(as_array(a, "diff")), x)  # theirs may work in place
    why = ""
    try:
        records = find_backend(name).record(None, inner(model), copied)
    except BlockError:
        raise
    except Exception as stopped:  # theirs may raise anything, also before it runs
        records, error = getattr(stopped, "records", []), stopped.__cause__ or stopped
        reason = f"on {shapes_of(copied)}: {short(str(error), 500)}"
        why = f"{type(model).__name__} cannot be run {reason}"
        if not records:
            raise BlockError(
                f"{why}\n  The first model takes x, the second x_b where that is given: its own "
                "layout of x."
            ) from error
    records = [record for record in records if leaves(record.value)]
    around = {name for record in records for name in parents(record.place[0])}
    return [
        Seen(r.place[0].replace(".", "/"), r.kind, r.value, r.place[0] not in around)
        for r in records
    ], why


def parents(name: str) -> Iterable[str]:
    """The names of all that is around a module."""
    while name:
        name = name.rpartition(".")[0]
        yield name


def shapes_of(x: Any) -> str:
    """What was given, in words."""
    if isinstance(x, Mapping):
        return ", ".join(f"{name} {shapes_of(value)}" for name, value in x.items())
    return shapes(x)

"""Checkpoints: training that stopped in the middle, as a value and as a file.

All of it is in canonical form, so that it goes on with any backend: the parameters, what the
optimiser keeps of each (by the names of `Optimizer.slots`, with the parameter's path and shape),
the calls of shared draws, and the options and losses so far. Only the state of a framework's own
random numbers means nothing to another one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from blocks import _fields as fields
from blocks._arrays import read_arrays, write_arrays
from blocks._block import Config, block
from blocks._draws import shared_draws
from blocks._errors import BlockError, FieldError, FileError, ParamError, UnsupportedError
from blocks._files import TYPE, Allowed, decoded, encoded, named, node_from_json, node_to_json
from blocks._json import as_text, parsed
from blocks._models import Origin, inner, joined, lower, parted, trainable_of
from blocks._params import Params, check_params
from blocks._plan import History, Plan, count, instance, option
from blocks._spec import Node, is_float, join
from blocks._stack import run
from blocks.optimizer import Optimizer

HEADER = {"format": "isoblocks checkpoint", "version": "1"}
WHAT = "checkpoint of isoblocks"


@dataclass(frozen=True, eq=False, repr=False)
class Checkpoint:
    """Training that can go on, on any backend: `fit(model, data, resume=checkpoint)`.

    The data is not in it.

    Attributes:
        node: the network.
        plan: the options of `fit`: loss, optimizer, epochs, batch_size, seed, ...
        examples: how many the data had.
        params: path to array.
        slots: what the optimiser keeps: for each of `plan.optimizer.slots`, path to array. What is
            not trained has none.
        history: losses of all steps so far, rows of all epochs, and the best parameters.
        frozen: the paths of parameters that could be trained and were not; see `set_trainable`.
        draws, draws_seed: how random numbers are drawn; see `lower`.
        calls: how often each block with shared draws was called in training.
        random: the state of the framework's generators, under the name of the backend.
    """

    node: Node
    plan: Plan
    examples: int
    params: Params
    slots: dict[str, Params]
    history: History
    frozen: tuple[str, ...] = ()
    draws: str = "native"
    draws_seed: int = 0
    calls: Params | None = None
    random: dict[str, dict[str, np.ndarray]] | None = None

    @property
    def step(self) -> int:
        """How many steps were made."""
        return len(self.history.losses)

    @property
    def optimizer(self) -> Optimizer:
        return self.plan.optimizer

    def lower(self, backend: str) -> Any:
        """The model at this point, which `fit` trains on with `resume`."""
        options: dict[str, Any] = {"draws": self.draws, "seed": self.draws_seed}
        options["trainable"] = dict.fromkeys(self.frozen, False)
        return lower(self.node, backend, params=self.params, **options)

    def save(self, path: str | Path) -> None:
        """Write it to a file: all of it, or nothing if it is stopped.

        Raises:
            FileError: if it cannot be written there.
        """
        write_arrays(path, arrays_of(self), header_of(self), "a checkpoint")

    def __repr__(self) -> str:
        return f"<Checkpoint at step {self.step} of {self.node!r}>"


# From a model in training, and back to one.


def snapshot(
    model: Any, known: Origin, trainer: Any, plan: Plan, examples: int, history: History
) -> Checkpoint:
    """Training as it stands, in copies."""
    backend, find = known.backend, known.backend.finder(inner(model))
    trained = trained_places(known, trainer, find)

    def slot(name: str) -> Params:
        kept = trainer.slot(name)
        return parted(trained, lambda b: kept[trainer.position(find(b))], copied)

    return Checkpoint(
        node=known.node,
        plan=plan,
        examples=examples,
        params=parted(known.places, lambda b: backend.read(find(b)), copied),
        slots={name: slot(name) for name in plan.optimizer.slots},
        history=history,
        frozen=frozen_of(model, known),
        draws=known.draws or "native",
        draws_seed=known.seed,
        calls={b.path: np.array(backend.read(find(b)), np.int64) for b in known.streams},
        random={backend.name: copies(backend.random(inner(model)))} if draws_own(known) else {},
    )


def copied(binding: Any, native: np.ndarray) -> np.ndarray:
    """A canonical array in the dtype that the framework keeps it in, which may be wider."""
    return np.array(binding.to_canonical(native), order="C")


def copies(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.array(array) for name, array in arrays.items()}


def frozen_of(model: Any, known: Origin) -> tuple[str, ...]:
    """The parameters that could be trained and are not."""
    specs, on = known.node.param_specs(), trainable_of(model, node=known.node)
    return tuple(path for path, spec in specs.items() if spec.trainable and not on[path])


def trained_places(known: Origin, trainer: Any, find: Any) -> list[list[Any]]:
    """The places of variables that are trained."""
    return [bs for bs in known.places if trainer.position(find(bs[0])) is not None]


def stochastic(node: Node) -> bool:
    return any(n.form.stochastic for n in node.walk())


def draws_own(known: Origin) -> bool:
    """Whether the model draws from generators of its framework."""
    return known.draws != "shared" and stochastic(known.node)


def check_draws(model: Any, known: Origin) -> None:
    """Refuse a copy of a model with shared draws: their seed is known of what `lower` made only."""
    if known.draws or not stochastic(known.node):
        return
    backend, find = known.backend, known.backend.finder(inner(model))
    try:
        for stream in backend.program(shared_draws(known.node, 0)).streams:
            backend.read(find(stream))
    except (AttributeError, KeyError):  # it has no such streams
        return
    raise UnsupportedError(
        "fit cannot write a checkpoint of a copy of a model with shared draws, whose seed nobody "
        'knows.\n  Train the model itself: lower(..., draws="shared").'
    )


def restore(checkpoint: Checkpoint, model: Any, known: Origin, trainer: Any) -> None:
    """Bring a model, its optimiser and its random numbers to where a checkpoint was."""
    backend, find = known.backend, known.backend.finder(inner(model))
    state = fitting_random(checkpoint, model, known)
    try:
        backend.set_random(inner(model), state)
    except (RuntimeError, ValueError, OverflowError) as error:
        raise ParamError(
            f"the checkpoint's random state is none of {backend.name}: {error}."
        ) from None
    for bindings in known.places:
        variable = find(bindings[0])
        native = joined(variable, bindings, checkpoint.params)
        backend.write(variable, native.astype(backend.read(variable).dtype))
    slots = {}
    for name, given in checkpoint.slots.items():
        slots[name] = list(map(np.zeros_like, trainer.slot(name)))
        for bindings in trained_places(known, trainer, find):
            mine = {b.path: given.get(b.path, np.zeros(b.spec.shape)) for b in bindings}
            position = trainer.position(find(bindings[0]))
            like = slots[name][position]
            slots[name][position] = joined(like, bindings, mine).astype(like.dtype)
    trainer.resume(checkpoint.step, slots)
    for binding in known.streams:
        variable, calls = find(binding), (checkpoint.calls or {})[binding.path]
        backend.write(variable, calls.astype(backend.read(variable).dtype))


def fitting_random(checkpoint: Checkpoint, model: Any, known: Origin) -> dict[str, np.ndarray]:
    """The state of generators that this model has; none of another backend's or engine's."""
    given = (checkpoint.random or {}).get(known.backend.name, {})
    if not given or not draws_own(known):
        return {}
    own = known.backend.random(inner(model))
    state = {name: array for name, array in given.items() if name in own}
    for name, array in state.items():
        if (array.shape, array.dtype) != (own[name].shape, own[name].dtype):
            raise ParamError(
                f"the checkpoint's random state {name!r} of {known.backend.name} is "
                f"{array.dtype} of {array.shape}, but this version of it has {own[name].dtype} of "
                f"{own[name].shape}.\n  Go on with another seed: replace(checkpoint, random=None)."
            )
    return state


def check_resume(
    resume: Any, model: Any, known: Origin, plan: Plan, examples: int, columns: list[str]
) -> None:
    """Refuse to go on with another network, other options or other data."""
    node, before = known.node, resume.node
    if [getattr(node, name) for name in SAME] != [getattr(before, name) for name in SAME]:
        raise FieldError(
            f"the model is {node!r} in {node.dtype}, but the checkpoint is of another network: "
            f"{before!r} in {before.dtype}.\n  Take checkpoint.lower({known.backend.name!r})."
        )
    if other := sorted(set(frozen_of(model, known)) ^ set(resume.frozen)):
        raise FieldError(
            f"the model trains {', '.join(other)}, or not, other than the checkpoint did.\n"
            f"  Take checkpoint.lower({known.backend.name!r}), or say with "
            "dataclasses.replace(checkpoint, frozen=...) what shall be frozen from here on."
        )
    drawn = (known.draws or "native"), known.seed
    wanted = resume.draws, resume.draws_seed if resume.draws == "shared" else known.seed
    if stochastic(node) and drawn != wanted:
        raise FieldError(
            f"the model draws its random numbers with draws={drawn[0]!r} and seed={drawn[1]}, the "
            f"checkpoint with draws={resume.draws!r} and seed={resume.draws_seed}.\n"
            f"  Take checkpoint.lower({known.backend.name!r})."
        )
    rate = resume.optimizer.learning_rate
    now = replace(plan, optimizer=same_rate(plan.optimizer, rate))
    others = [name for name in STEPS if getattr(now, name) != getattr(resume.plan, name)]
    wrong = [f"{n}={getattr(plan, n)!r}, not {getattr(resume.plan, n)!r}" for n in others]
    if examples != resume.examples:
        wrong.append(f"{examples} examples, not {resume.examples}")
    if resume.history.epochs and columns != list(resume.history.epochs[0]):
        had = ", ".join(resume.history.epochs[0])
        wrong.append(f"a table of epochs of {', '.join(columns)}, not {had}")
    if wrong:
        raise FieldError(
            "fit cannot go on as the checkpoint began: it has\n  " + "\n  ".join(wrong) + ".\n"
            "Leave these options out; only epochs, early_stop, keep_best and the learning rate may "
            "change. Give the same data."
        )
    if resume.step > plan.epochs * plan.steps(examples):
        raise FieldError(
            f"epochs={plan.epochs} end at step {plan.epochs * plan.steps(examples)}, but the "
            f"checkpoint is at step {resume.step}.\n  epochs= counts from the beginning."
        )


SAME = ("block", "in_spec", "dtype", "param_dtype")  # fields of a node
STEPS = ("loss", "optimizer", "batch_size", "seed", "clip_norm")  # options that make the steps


def same_rate(given: Optimizer, rate: Any) -> Optimizer:
    return replace(given, learning_rate=rate)


# Files.


@block
class Facts(Config):
    """What a file holds beside arrays and the network."""

    plan: Plan = option(instance(Plan, "a Plan"))
    examples: int = option(count(1))
    columns: tuple[str, ...] = option(instance(tuple, "a tuple of texts"))
    frozen: tuple[str, ...] = option(instance(tuple, "a tuple of texts"))
    seconds: float = fields.real(low=0)
    draws: str = fields.choice(("native", "shared"))
    draws_seed: int = option(count(0))


def header_of(checkpoint: Checkpoint) -> dict[str, str]:
    """The texts of a file."""
    history = checkpoint.history
    facts = Facts(
        checkpoint.plan,
        checkpoint.examples,
        tuple(history.epochs[0]) if history.epochs else (),
        checkpoint.frozen,
        history.seconds,
        checkpoint.draws,
        checkpoint.draws_seed,
    )
    texts = {
        "node": node_to_json(checkpoint.node),
        "training": as_text(as_data(facts), "training"),
    }
    return HEADER | texts | {"checksum": text_checksum(texts)}


def text_checksum(header: Mapping[str, str]) -> str:
    """16 bytes of BLAKE2b over the texts, as hexadecimal digits."""
    texts = "\n".join(header.get(name, "") for name in ("node", "training"))
    return blake2b(texts.encode(), digest_size=16).hexdigest()


def as_data(config: Facts | Plan) -> dict[str, Any]:
    """The facts, and the plan in them, as JSON has them; nobody else writes these two."""
    data: dict[str, Any] = {TYPE: type(config).__name__}
    for name, value in config.fields().items():
        data[name] = as_data(value) if isinstance(value, Plan) else run(encoded(value))
    return data


def arrays_of(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    """The arrays of a file, by names that say what they are."""
    history = checkpoint.history
    groups: dict[str, Mapping[str, np.ndarray]] = {
        "params": checkpoint.params,
        "best": history.best or {},
        "calls": checkpoint.calls or {},
    }
    groups |= {f"slots/{name}": arrays for name, arrays in checkpoint.slots.items()}
    groups |= {f"random/{name}": arrays for name, arrays in (checkpoint.random or {}).items()}
    table = [list(row.values()) for row in history.epochs]
    return {
        "losses": np.array(history.losses, np.float64),
        "epochs": np.array(table, np.float64).reshape(len(table), -1 if table else 0),
    } | {join(group, name): a for group, arrays in groups.items() for name, a in arrays.items()}


def load_checkpoint(path: str | Path, custom: Allowed = ()) -> Checkpoint:
    """The checkpoint in a file that `fit` wrote.

    Args:
        path: of the file.
        custom: the classes that its network and its loss may name, as in `load`.

    Raises:
        FileError: if it is no such file, was damaged, or holds what does not fit together.
    """
    arrays, header = read_arrays(path, HEADER, WHAT)
    try:
        return read(arrays, header, custom)
    except BlockError as error:
        raise FileError(f"{path} holds no whole checkpoint: {error}") from None


def read(arrays: dict[str, np.ndarray], header: dict[str, str], custom: Allowed) -> Checkpoint:
    """A checkpoint from the texts and arrays of a file."""
    if header.get("checksum") != text_checksum(header):
        raise FileError("its texts were damaged: their checksum is another.")
    node = node_from_json(header.get("node", ""), custom)
    facts = facts_of(header.get("training", ""), custom)
    group = partial(taken, arrays)
    losses, table = arrays.pop("losses", None), arrays.pop("epochs", None)
    slots = {name: group(f"slots/{name}") for name in facts.plan.optimizer.slots}
    places = [name.split("/") for name in arrays]
    backends = {place[1] for place in places if place[0] == "random" and len(place) > 2}
    best = group("best")
    found = Checkpoint(
        node,
        facts.plan,
        facts.examples,
        group("params"),
        slots,
        history_of(facts, losses, table, best or None),
        facts.frozen,
        facts.draws,
        facts.draws_seed,
        group("calls"),
        {name: group(f"random/{name}") for name in backends},
    )
    if arrays:
        raise FileError(f"it has the unknown arrays {', '.join(sorted(arrays))}.")
    check(found)
    return found


def taken(arrays: dict[str, np.ndarray], group: str) -> dict[str, np.ndarray]:
    """The arrays of a group, by their own names; they are no longer among the others."""
    start = f"{group}/"
    names = [name for name in arrays if name.startswith(start)]
    return {name.removeprefix(start): arrays.pop(name) for name in names}


def facts_of(text: str, custom: Allowed) -> Facts:
    """The facts in a JSON text."""
    known = named(custom) | {"Facts": Facts, "Plan": Plan}
    facts = run(decoded(parsed(text, "training"), (None, "training"), known))
    if not isinstance(facts, Facts):
        raise FileError("training holds no Facts.")
    return facts


def history_of(facts: Facts, losses: Any, table: Any, best: Params | None) -> History:
    """The history, whose arrays must have one loss a step and one row an epoch."""
    plan = facts.plan
    if losses is None or losses.ndim != 1 or losses.dtype != np.float64:
        raise FileError("losses are no row of numbers in float64.")
    rows = len(losses) // plan.steps(facts.examples)
    if len(losses) > plan.epochs * plan.steps(facts.examples):
        raise FileError(f"{len(losses)} losses are more than {plan.epochs} epochs have.")
    if table is None or table.shape != (rows, len(facts.columns)) or table.dtype != np.float64:
        raise FileError(
            f"epochs are no table of {rows} rows and {len(facts.columns)} columns, as "
            f"{len(losses)} steps in batches of {plan.batch_size} of {facts.examples} have."
        )
    known = [plan.columns(validated) for validated in (False, True)]
    if rows and list(facts.columns) not in known:
        raise FileError(f"epochs have the columns {facts.columns}, not those of the plan.")
    if rows and plan.early_stop is not None:
        plan.early_stop.check_columns(list(facts.columns), True)
    epochs = [dict(zip(facts.columns, map(float, row), strict=True)) for row in table]
    return History(tuple(map(float, losses)), facts.seconds, tuple(epochs), best)


def check(found: Checkpoint) -> None:
    """Refuse arrays that do not fit the network or each other."""
    specs = found.node.param_specs()
    for name, arrays in (("params", found.params), ("best", found.history.best)):
        if arrays is not None:
            with_name(name, partial(check_params, found.node, arrays))
    trainable = {path: spec for path, spec in specs.items() if spec.trainable}
    strange = [path for path in found.frozen if path not in trainable]
    if strange:
        raise FileError(f"frozen has {strange}, which could not be trained.")
    groups = list(found.slots.values())
    for name, arrays in found.slots.items():
        if arrays.keys() != groups[0].keys():
            raise FileError(f"slots/{name} are of other parameters than the first slots.")
        for path, array in arrays.items():
            if path not in trainable:
                raise FileError(f"slots/{name}/{path} belongs to nothing that is trained.")
            if array.shape != trainable[path].shape or not is_float(array):
                raise FileError(
                    f"slots/{name}/{path} is {array.dtype} of {array.shape}, its parameter has "
                    f"{trainable[path].shape}."
                )
            if name == "square" and (array < 0).any():
                raise FileError(f"slots/{name}/{path} has squares below 0.")
    drawing = found.draws == "shared"
    wanted = {join(n.home, "calls") for n in found.node.walk() if n.form.stochastic and drawing}
    calls = found.calls or {}
    if calls.keys() != wanted:
        raise FileError(f"calls has {sorted(calls)}, but its network draws at {sorted(wanted)}.")
    for path, array in calls.items():
        if array.shape or array.dtype != np.int64 or not 0 <= array < 2**31:
            raise FileError(f"calls/{path} is no count.")


def with_name(name: str, verb: Any) -> None:
    try:
        verb()
    except BlockError as error:
        raise FileError(f"{name}: {error}") from None

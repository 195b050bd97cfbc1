"""What the same network costs and does on each framework, measured here.

Every contender, a backend under one engine and in one mode, has a process of its own, so that none
disturbs another. They are started, imported and built one after the other, each after a scout that
tells the modes of its backend, and for which the disk reads what is imported. Then come the rounds:
in each, every contender makes some steps in turn while all others wait, so that a slow minute of
the machine meets all alike. Parity is measured at the end, when memory has been read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from statistics import median
from typing import Any, Protocol

import numpy as np

from blocks._backends import find_backend, known, ordered
from blocks._block import Block
from blocks._certificate import Certificate, Verification, check_some, machine, verified
from blocks._checkpoint import as_data
from blocks._comparison import FORMAT, VERSION, Comparison, sizes_of
from blocks._contender import TRAINING, cores, examples
from blocks._errors import FieldError, did_you_mean
from blocks._files import document, encoded, node_to_json, with_fingerprint
from blocks._infer import as_node, check_ints
from blocks._parity import untrained
from blocks._plan import Plan
from blocks._spec import Node
from blocks._stack import run
from blocks._worker import Worker, WorkerError
from blocks.optimizer import Optimizer

MOST = 16  # processes that are alive at once
PATIENCE = 1800.0  # seconds for one answer

Tell = Callable[..., None]


class Answering(Protocol):
    """What a contender needs of a `Worker`."""

    def ask(self, call: str, patience: float, **arguments: Any) -> Any: ...

    def close(self) -> None: ...


def compare(
    network: Node | Block,
    input_shape: Any = None,
    *,
    backends: Iterable[str] | None = None,
    contenders: Iterable[str] | None = None,
    batch_sizes: Iterable[int] = (1, 32),
    loss: Any = "mse",
    optimizer: Optimizer | None = None,
    training_batch: int = 32,
    rounds: int = 15,
    seed: int = 0,
    steps: int = 5,
    progress: bool = False,
    **options: Any,
) -> Comparison:
    """What a network costs, and how exactly it is computed, on each framework of this machine.

    A contender is a backend under one engine and in one mode: "numpy", "torch eager", "torch
    compiled", "keras jax compiled", "flax". Each has a process of its own; in every round all make
    some steps in turn while the others wait. Steps are those of `apply` in evaluation and of `fit`,
    from arrays of NumPy to arrays of NumPy, or to the loss. Inputs and targets are random, and the
    same for all. Then each measures its own parity with the reference in float64.

    All have the same cores: those of this process, and no more of them than OMP_NUM_THREADS says
    (on Linux; elsewhere only some frameworks heed it).

    Args:
        network, input_shape, options: as in `lower`; options are those of `infer`.
        backends: their names; all that are installed if left out.
        contenders: which of them, by names or the beginnings of names such as "keras jax"; all if
            left out.
        batch_sizes: of the outputs that are timed.
        loss, optimizer: of the steps of training that are timed, as in `fit`; the loss curve has
            this loss too. A `Custom` loss gets targets from 0 to 1 of the first output's shape.
        training_batch: how many examples make such a step.
        rounds: how often all are timed in turn.
        seed: of parameters, inputs and targets.
        steps: of training for the loss curve; 0 leaves it out.
        progress: whether to show what is being measured.

    Returns:
        A comparison that is true if every contender ran and agrees with the reference. What went
        wrong with one is in its row, and the others go on.

    Raises:
        FieldError: if a contender is unknown, or a Custom block cannot be imported elsewhere.
        ShapeError: if the loss does not fit the network.
        BackendError: if a backend is unknown.

    >>> import blocks as bl
    >>> found = bl.compare(bl.Dense(3), (2,), backends=["numpy"], rounds=2)
    >>> bool(found), [row["name"] for row in found.contenders]
    (True, ['numpy'])
    """
    node = as_node(network, input_shape, options)
    sizes, wanted = (
        listed(batch_sizes, "batch_sizes"),
        listed([] if contenders is None else contenders, "contenders"),
    )
    check_ints(rounds=(rounds, 1), seed=(seed, 0), steps=(steps, 0))
    check_ints(training_batch=(training_batch, 1))
    given: Any = {} if optimizer is None else {"optimizer": optimizer}
    plan = Plan(loss=loss, batch_size=training_batch, **given)
    check_ints(**{f"batch_sizes[{i}]": (size, 1) for i, size in enumerate(sizes)})
    if contenders is not None and not wanted:
        raise FieldError("contenders must be one or more names; leave them out for all.")
    if not sizes or len({*sizes}) < len(sizes):
        raise FieldError(f"batch_sizes must be one or more, each once, got {sizes}.")
    check_plan(node, plan)
    data = as_data(plan)
    how = {"plan": data, "seed": seed, "batch_sizes": sizes}
    how["custom"] = custom_names(document(node)["network"], data)
    names = chosen(backends, wanted)
    with ExitStack() as stack, telling(progress) as tell:
        crew = hired(names, wanted, backends is None, stack, tell)
        measure(crew, {"network": node_to_json(node)} | how, rounds, steps, tell)
    numbers = {"seed": seed, "steps": steps, "rounds": rounds}
    return Comparison(node, described(node, crew, sizes, plan, numbers), plan)


def check_plan(node: Node, plan: Plan) -> None:
    """Refuse a loss or an optimiser that does not fit the network, before anything is started."""
    plan.optimizer.check_dtype(node.param_dtype)
    if not untrained(node, plan.loss):
        examples(node, plan.loss, 1, np.random.default_rng(0))


def listed(values: Any, name: str) -> list[Any]:
    """The values of an argument that takes several."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        values = (values,)
    found = list(values)
    if name == "contenders" and not all(isinstance(word, str) for word in found):
        raise FieldError(f"contenders must be names such as 'torch eager', got {found}.")
    return found


def custom_names(*documents: Any) -> list[str]:
    """The import names of the classes of users in a network, or in a plan."""
    names, todo = set(), [*documents]
    while todo:
        here = todo.pop()
        if isinstance(here, dict):
            names |= {here["type"]} if ":" in here["type"] else set()
            todo += here.values()
        elif isinstance(here, list):
            todo += here
    for name in sorted(names):
        if name.startswith("__main__:") or "<" in name:
            kind = name.rpartition(":")[2].rpartition(".")[2]
            raise FieldError(
                f"compare runs every contender in a process of its own, which cannot import {name}."
                f"\n  Put the class {kind} into a module, and import it from there."
            )
    return sorted(names)


def chosen(backends: Iterable[str] | None, wanted: list[str]) -> list[str]:
    """The backends to start: those that are named, of which contenders may be wanted."""
    names = ordered() if backends is None else listed(backends, "backends")
    for name in (*names, *(word.partition(" ")[0] for word in wanted)):
        if " " in str(name) and str(name).partition(" ")[0] in known():
            raise FieldError(
                f"backends are names without a mode, got {name!r}.\n"
                f"  Choose it as a contender: contenders=[{name!r}]."
            )
        if name not in known():
            find_backend(name)  # which raises, and says which ones there are
    if len({*names}) < len(names):
        raise FieldError(f"backends must be named once each, got {names}.")
    found = [name for name in names if not wanted or any(begins(name, word) for word in wanted)]
    if not found:
        raise FieldError(f"compare has nothing to compare: {wanted} of the backends {names}.")
    return found


# Contenders


class Row:
    """A contender: its process, and what was measured of it."""

    def __init__(self, backend: str, engine: str | None, environ: dict[str, str], stack: ExitStack):
        self.backend, self.engine, self.mode = backend, engine, ""
        self.name = name_of(backend, engine, "")
        self.modes: list[str] = []
        self.engines: dict[Any, dict[str, str]] = {}
        self.error: str | None = None
        self.kind = ""
        self.found: dict[str, Any] = {}
        self.times: dict[str, list[float]] = {}
        self.worker: Answering = Worker("blocks._contender", backend, environ)
        stack.callback(self.worker.close)

    def ask(self, call: str, **arguments: Any) -> Any:
        """What the process answers; None, and no more questions, once something went wrong."""
        if self.error is not None:
            return None
        try:
            return self.worker.ask(call, PATIENCE, **arguments)
        except WorkerError as error:
            self.error, self.kind = str(error), error.kind
            self.worker.close()
            return None

    def load(self) -> None:
        """Import the framework; its modes and engines are known then."""
        told = self.ask("load") or {"modes": [], "engines": {}}
        self.modes, self.engines = told.pop("modes"), told.pop("engines")
        self.found |= told

    def build(self, how: dict[str, Any]) -> None:
        self.found |= self.ask("build", mode=self.mode, **how) or {}

    def first(self) -> None:
        self.found["first"] = self.ask("first") or {}

    def round(self) -> None:
        for step, seconds in (self.ask("round") or {}).items():
            self.times.setdefault(step, []).append(seconds)

    def finish(self, steps: int) -> None:
        self.found["peak_memory"] = self.ask("memory")
        told = self.ask("figures", steps=steps) or {}
        told["notes"] = [*self.found.get("notes", []), *told.get("notes", [])]
        self.found |= told
        self.worker.close()


def hired(
    names: list[str], wanted: list[str], lenient: bool, stack: ExitStack, tell: Tell
) -> list[Row]:
    """A process for each contender that is wanted, its framework imported."""
    crew: list[Row] = []
    seen: list[str] = []
    for scout, environ in scouted(names, wanted, lenient, seen, stack, tell):
        scout.worker.close()
        if scout.error is not None:  # it failed before it knew its modes
            crew.append(scout)
            seen.append(scout.name)
        for mode in scout.modes:
            only = scout.modes == [mode] and scout.engine is None
            name = name_of(scout.backend, scout.engine, "" if only else mode)
            seen.append(name)
            if not wanted or any(begins(word, name) for word in wanted):
                if len(crew) == MOST:
                    raise FieldError(
                        f"compare runs {MOST} contenders at most; choose some: contenders=."
                    )
                row = started(scout.backend, scout.engine, environ, stack, tell)
                row.name, row.mode = name, mode
                crew.append(row)
    for word in wanted:
        if not any(related(word, name) for name in seen):
            raise FieldError(
                f"there is no contender {word!r}. There are {', '.join(seen) or 'none'}."
                f"{did_you_mean(word, seen)}"
            )
    return crew


def scouted(
    names: list[str],
    wanted: list[str],
    lenient: bool,
    seen: list[str],
    stack: ExitStack,
    tell: Tell,
) -> Iterator[tuple[Row, dict[str, str]]]:
    """A process of each backend under each engine that may be wanted, and what it is started with.

    Only such a process knows the modes. What the disk read for it is there for all that follow, so
    that no import takes longer than another because it came first. If lenient, backends that are
    not installed are left out.
    """
    for backend in names:
        scout = started(backend, None, {}, stack, tell)
        if lenient and scout.kind == "BackendError":
            continue
        (scout.engine, environ), *others = scout.engines.items() or [(None, {})]
        yield scout, environ
        for engine, environ in others:
            name = name_of(backend, engine, "")
            if not wanted or any(related(name, word) for word in wanted):
                yield started(backend, engine, environ, stack, tell), environ
            else:
                seen.append(name)


def started(
    backend: str, engine: str | None, environ: dict[str, str], stack: ExitStack, tell: Tell
) -> Row:
    """A process that has imported its framework."""
    row = Row(backend, engine, environ, stack)
    tell(f"{row.name}: importing")
    row.load()
    return row


def related(one: str, other: str) -> bool:
    """Whether one name begins the other."""
    return begins(one, other) or begins(other, one)


def begins(start: str, name: str) -> bool:
    """Whether the first words of a name are these."""
    words = start.split()
    return name.split()[: len(words)] == words


def name_of(backend: str, engine: str | None, mode: str) -> str:
    """What a contender is called, of what is known of it."""
    return " ".join(filter(None, (backend, engine, mode)))


def measure(crew: list[Row], how: dict[str, Any], rounds: int, steps: int, tell: Tell) -> None:
    """Everything, in an order that is fair: see above."""
    tell("building", total=3 * len(crew) + rounds)
    for row in crew:
        tell(f"{row.name}: building", advance=1)
        row.build(how)
    for row in crew:
        tell(f"{row.name}: compiling", advance=1)
        row.first()
    for i in range(rounds):
        tell(f"round {i + 1} of {rounds}", advance=1)
        for row in in_turn(crew, i):
            row.round()
    for row in crew:
        tell(f"{row.name}: comparing its numbers", advance=1)
        row.finish(steps)


def in_turn(crew: list[Row], i: int) -> list[Row]:
    """The order in a round: every round begins with another contender."""
    return crew[(at := i % len(crew)) :] + crew[:at] if crew else []


@contextmanager
def telling(progress: bool) -> Iterator[Tell]:
    """A line that says what is being measured, if one is wanted."""
    from rich.console import Console

    console = Console(stderr=True)  # standard output may go into a file
    if not progress or not (console.is_terminal or console.is_jupyter):
        yield lambda *args, **options: None
        return
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda text, **how: bar.update(task, description=text, **how)


# Data


def described(
    node: Node, crew: list[Row], sizes: list[int], plan: Plan, how: dict[str, int]
) -> dict[str, Any]:
    """All that a comparison says."""
    return {
        "format": FORMAT,
        "version": VERSION,
        **with_fingerprint(node),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "threads": cores(),
        "parameters": sizes_of(node),
        **how,
        "batch_sizes": sizes,
        "loss": run(encoded(plan.loss)),
        "optimizer": run(encoded(plan.optimizer)),
        "training_batch": plan.batch_size,
        "contenders": [contender(row, sizes) for row in crew],
    }


def contender(row: Row, sizes: list[int]) -> dict[str, Any]:
    """What a comparison says of a contender: null and empty where it was not measured."""
    found = row.found
    return {
        "name": row.name,
        "backend": row.backend,
        "engine": row.engine,
        "mode": row.mode,
        "versions": found.get("versions", {}),
        "error": row.error,
        "import_seconds": found.get("import_seconds"),
        "build_seconds": found.get("build_seconds"),
        "compile_seconds": {
            "forward": compiling(row, str(sizes[0])),
            "training": compiling(row, TRAINING),
        },
        "forward": {str(size): row.times.get(str(size), []) for size in sizes},
        "training": row.times.get(TRAINING, []),
        "memory_after_import": found.get("memory_after_import"),
        "peak_memory": found.get("peak_memory"),
        "agrees": row.error is None and found.get("agrees", False),
        "facts": found.get("facts", []),
        "notes": found.get("notes", []),
        "figures": found.get("figures", []),
    }


def compiling(row: Row, step: str) -> float | None:
    """How much longer the first step took than the later ones."""
    first, later = row.found.get("first", {}).get(step), row.times.get(step)
    return None if first is None or not later else max(0.0, first - median(later))


# Verifying


def verify_comparison(comparison: Comparison) -> Verification:
    """Measure the parity of the same contenders again, each in its own process."""
    certified = certificate_of(comparison)
    homes = {row["name"]: row["backend"] for row in comparison.contenders if not row["error"]}
    names = [name for name, backend in homes.items() if backend in known()]
    check_some(names, homes.values())
    here = list(dict.fromkeys(homes[name] for name in names))
    how: Any = {name: comparison.data[name] for name in ("seed", "steps")}
    how["loss"] = comparison.plan.loss
    how |= {"backends": here, "contenders": names}
    found = compare(comparison.node, batch_sizes=[1], rounds=1, **how)
    now = certificate_of(found)
    missing = {
        name: why_failed(found, name) for name in certified.backends if name not in now.backends
    }
    kept = {name: part for name, part in now.backends.items() if name in certified.backends}
    check_some(kept, certified.backends)
    return verified(certified, replace(now, data=now.data | {"backends": kept}), missing)


def why_failed(comparison: Comparison, name: str) -> str:
    """The error of a contender; where nothing can be imported its row has only the first words."""
    rows = (row for row in comparison.contenders if begins(row["name"], name))
    return next((row["error"] for row in rows if row["error"]), "there is no such contender")


def certificate_of(comparison: Comparison) -> Certificate:
    """What a comparison says of parity."""
    parts = ("agrees", "versions", "facts", "notes", "figures")
    backends = {
        row["name"]: {name: row[name] for name in parts}
        for row in comparison.contenders
        if row["error"] is None
    }
    agrees = all(found["agrees"] for found in backends.values())
    data = {**comparison.data, "agrees": agrees, "backends": backends}
    return Certificate(comparison.node, data, comparison.plan.loss)

"""What the same network costs and does on each framework, measured here.

Every contender, a backend under one engine and in one mode, has a process of its own, so that none
disturbs another. They are started, imported and built one after the other; then come the rounds: in
each, every contender makes some steps in turn while all others wait, so that a slow minute of the
machine meets all alike. Parity is measured at the end, when memory has been read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from statistics import median
from typing import Any, Protocol

from blocks._backends import find_backend, known, ordered, why_missing
from blocks._block import Block
from blocks._certificate import Certificate, Verification, check_some, machine, verified
from blocks._comparison import FORMAT, VERSION, Comparison, sizes_of
from blocks._contender import TRAINING, TRAINING_BATCH
from blocks._errors import FieldError, did_you_mean
from blocks._files import document, node_to_json, with_fingerprint
from blocks._infer import check_ints
from blocks._models import as_node
from blocks._spec import Node
from blocks._worker import Worker, WorkerError

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
    rounds: int = 15,
    seed: int = 0,
    steps: int = 5,
    progress: bool = False,
    **options: Any,
) -> Comparison:
    """What a network costs, and how exactly it is computed, on each framework of this machine.

    A contender is a backend under one engine and in one mode: "numpy", "torch eager", "torch
    compiled", "keras jax compiled", "flax". Each has a process of its own; in every round all make
    some steps in turn while the others wait. Steps are those of `apply` in evaluation and of `fit`
    with SGD and the loss "mse" on 32 examples, from arrays of NumPy to arrays of NumPy. Then each
    measures its own parity with the reference in float64.

    Args:
        network, input_shape, options: as in `lower`; options are those of `infer`.
        backends: their names; all that are installed if left out.
        contenders: which of them, by names or the beginnings of names such as "keras jax"; all if
            left out.
        batch_sizes: of the outputs that are timed.
        rounds: how often all are timed in turn.
        seed: of parameters, inputs and targets.
        steps: of training for the loss curve; 0 leaves it out.
        progress: whether to show what is being measured.

    Returns:
        A comparison that is true if every contender ran and agrees with the reference. What went
        wrong with one is in its row, and the others go on.

    Raises:
        FieldError: if a contender is unknown, or a Custom block cannot be imported elsewhere.
        BackendError: if a backend is unknown.

    >>> import blocks as bl
    >>> found = bl.compare(bl.Dense(3), (2,), backends=["numpy"], rounds=2)
    >>> bool(found), [row["name"] for row in found.contenders]
    (True, ['numpy'])
    """
    node = as_node(network, input_shape, options)
    sizes, wanted = listed(batch_sizes, "batch_sizes"), listed(contenders or (), "contenders")
    check_ints(rounds=(rounds, 1), seed=(seed, 0), steps=(steps, 0))
    check_ints(**{f"batch_sizes[{i}]": (size, 1) for i, size in enumerate(sizes)})
    if not sizes or len({*sizes}) < len(sizes):
        raise FieldError(f"batch_sizes must be one or more, each once, got {sizes}.")
    how = {"custom": custom_names(node), "seed": seed, "batch_sizes": sizes}
    with ExitStack() as stack, telling(progress) as tell:
        crew = hired(chosen(backends, wanted), wanted, backends is None, stack, tell)
        measure(crew, {"network": node_to_json(node)} | how, rounds, steps, tell)
    numbers = {"seed": seed, "steps": steps, "rounds": rounds}
    return Comparison(node, described(node, crew, sizes, numbers))


def listed(values: Any, name: str) -> list[Any]:
    """The values of an argument that takes several."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        values = (values,)
    found = list(values)
    if name == "contenders" and not all(isinstance(word, str) for word in found):
        raise FieldError(f"contenders must be names such as 'torch eager', got {found}.")
    return found


def custom_names(node: Node) -> list[str]:
    """The import names of the classes of users in a network."""
    names, todo = set(), [document(node)["network"]]
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
        if name not in known():
            find_backend(name)  # which raises, and says which ones there are
    found = [name for name in names if not wanted or any(begins(name, word) for word in wanted)]
    if not found:
        raise FieldError(f"compare has nothing to compare: {wanted} of the backends {names}.")
    return found


# Contenders


class Row:
    """A contender: its process, and what was measured of it."""

    def __init__(self, backend: str, environ: dict[str, str], stack: ExitStack):
        self.backend, self.name = backend, backend
        self.engine: str | None = None
        self.mode = ""
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

    def load(self) -> dict[str, Any]:
        """Import the framework; returns its modes and engines."""
        told = self.ask("load") or {"modes": [], "engines": {}}
        self.found |= {key: told.pop(key) for key in (*LOADED,) if key in told}
        self.engine = next(iter(told["engines"]), None)
        return told

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


LOADED = ("import_seconds", "memory_after_import", "versions")


def hired(
    names: list[str], wanted: list[str], lenient: bool, stack: ExitStack, tell: Tell
) -> list[Row]:
    """A process for each contender that is wanted, its framework imported.

    Only a process of a backend knows its modes, and under one engine only: the first one of each
    takes its first mode itself. If lenient, backends that are not installed are left out.
    """
    crew: list[Row] = []
    seen: list[str] = []

    def start(backend: str, environ: dict[str, str]) -> tuple[Row, dict[str, Any]]:
        if len(crew) == MOST:
            raise FieldError(f"compare runs {MOST} contenders at most; choose some: contenders=.")
        tell(f"{' '.join([backend, *environ.values()])}: importing")
        row = Row(backend, environ, stack)
        return row, row.load()

    def enlist(row: Row, modes: list[str], environ: dict[str, str]) -> None:
        """Contenders of one backend under one engine, whose first process is there."""
        spare: Row | None = row
        for mode in modes:
            name = name_of(row.backend, row.engine, mode, len(modes) == 1)
            seen.append(name)
            if not wanted or any(begins(word, name) for word in wanted):
                one = spare or start(row.backend, environ)[0]
                one.name, one.engine, one.mode, spare = name, row.engine, mode, None
                crew.append(one)
        if spare is not None and spare.error is None:
            spare.worker.close()
        elif spare is not None:  # it failed before it knew its modes
            spare.name = name_of(row.backend, row.engine, "", True)
            seen.append(spare.name)
            crew.append(spare)

    for backend in names:
        row, told = start(backend, {})
        if lenient and row.kind == "BackendError":
            continue
        enlist(row, told["modes"], {})
        for engine, environ in list(told["engines"].items())[1:]:
            here = f"{backend} {engine}"
            if not wanted or any(begins(here, word) or begins(word, here) for word in wanted):
                row, told = start(backend, environ)
                row.engine = engine
                enlist(row, told["modes"], environ)
    for word in wanted:
        if not any(begins(word, name) or begins(name, word) for name in seen):
            raise FieldError(
                f"there is no contender {word!r}. There are {', '.join(seen) or 'none'}."
                f"{did_you_mean(word, seen)}"
            )
    return crew


def begins(start: str, name: str) -> bool:
    """Whether the first words of a name are these."""
    words = start.split()
    return name.split()[: len(words)] == words


def name_of(backend: str, engine: str | None, mode: str, only: bool) -> str:
    """What a contender is called: by its mode too, unless that is the only one."""
    return " ".join(filter(None, (backend, engine, "" if only and engine is None else mode)))


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
    if not progress:
        yield lambda *args, **options: None
        return
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda text, **how: bar.update(task, description=text, **how)


# Data


def described(node: Node, crew: list[Row], sizes: list[int], how: dict[str, int]) -> dict[str, Any]:
    """All that a comparison says."""
    return {
        "format": FORMAT,
        "version": VERSION,
        **with_fingerprint(node),
        "machine": machine(),
        "parameters": sizes_of(node),
        **how,
        "batch_sizes": sizes,
        "training_batch": TRAINING_BATCH,
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
    rows = {row["name"]: row["backend"] for row in comparison.contenders}
    gone = {b: why for b in dict.fromkeys(rows.values()) if (why := why_missing(b))}
    here = [b for b in dict.fromkeys(rows.values()) if b not in gone]
    check_some(here, rows)
    how = {name: comparison.data[name] for name in ("seed", "steps")}
    found = compare(comparison.node, backends=here, batch_sizes=[1], rounds=1, **how)
    errors = {row["name"]: row["error"] for row in found.contenders}
    now = certificate_of(found)
    missing = {
        name: gone.get(backend) or errors.get(name) or "there is no such contender"
        for name, backend in rows.items()
        if name in certified.backends and name not in now.backends
    }
    kept = {name: part for name, part in now.backends.items() if name in certified.backends}
    return verified(certified, replace(now, data=now.data | {"backends": kept}), missing)


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
    return Certificate(comparison.node, data)

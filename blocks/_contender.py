"""One contender of `compare`, in a process of its own: `python -m blocks._contender BACKEND`.

It imports one framework, builds the network, makes its first steps and then as many as it is asked
for, and at last measures its parity. Steps are timed as `apply` and `fit` make them: arrays of
NumPy go in, and arrays of NumPy, or the loss as a number, come out, which waits until they are
there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from blocks._backends import find_backend
from blocks._batch import batch
from blocks._certificate import measured
from blocks._evaluate import Data
from blocks._files import decoded, named, node_from_json
from blocks._models import apply, lower, origin
from blocks._parity import CONTROL, Report, draw_batch, draw_target, parity, untrained
from blocks._plan import Plan
from blocks._spec import Node, leaves
from blocks._stack import call_deep, run
from blocks._worker import serve

ROUND = 0.05  # seconds of steps of each kind in a round
MOST = 1000  # steps of each kind in a round
RATE = 1e-4  # so small that the network hardly changes
TRAINING = "training"  # what its steps are called among batch sizes

Step = Callable[[], Any]


class Contender:
    """A backend, from its import on."""

    node: Node
    name: str
    seed: int
    plan: Plan
    model: Any

    def __init__(self, backend: str):
        self.backend = backend
        self.steps: dict[str, Step] = {}
        self.counts: dict[str, int] = {}

    def load(self) -> dict[str, Any]:
        """Import the framework; which modes and engines it has."""
        start = perf_counter()
        adapter = find_backend(self.backend)
        return {
            "import_seconds": perf_counter() - start,
            "memory_after_import": peak_memory(),
            "versions": adapter.versions(),
            "modes": list(adapter.modes),
            "engines": adapter.engines,
        }

    def build(
        self,
        network: str,
        plan: dict[str, Any],
        custom: list[str],
        mode: str,
        seed: int,
        batch_sizes: list[int],
    ) -> dict[str, Any]:
        """Lower the network, first parameters included."""
        self.node, self.seed = node_from_json(network, custom), seed
        self.plan = run(decoded(plan, (None, "plan"), named(custom) | {"Plan": Plan}))
        self.name = f"{self.backend} {mode}"
        start = perf_counter()
        self.model = lower(self.node, self.name, seed=seed)
        seconds = perf_counter() - start
        rng = np.random.default_rng(seed)
        self.steps = {str(size): self.forward(size, rng) for size in batch_sizes}
        if why := untrained(self.node, self.plan.loss):
            return {"build_seconds": seconds, "notes": [f"training is not timed: {why}"]}
        self.steps[TRAINING] = self.training(rng)
        return {"build_seconds": seconds, "notes": []}

    def forward(self, size: int, rng: np.random.Generator) -> Step:
        """A step of evaluation."""
        x, _ = batch(self.node, draw_batch(self.node, size, rng))
        return lambda: apply(self.model, x)

    def training(self, rng: np.random.Generator) -> Step:
        """A step towards random targets."""
        data = examples(self.node, self.plan.loss, self.plan.batch_size, rng)
        known, optimizer = origin(self.model), replace(self.plan.optimizer, learning_rate=RATE)
        step = known.call("trainer", self.node, self.model, self.plan.loss, optimizer, None)
        return lambda: call_deep(known.levels, step, data.x, data.y, RATE)

    def first(self) -> dict[str, float]:
        """Seconds of the first step of each kind; another tells how many make a round."""
        found = {}
        for name, step in self.steps.items():
            found[name] = seconds_of(step)
            self.counts[name] = min(MOST, max(1, int(ROUND / seconds_of(step))))
        return found

    def round(self) -> dict[str, float]:
        """Seconds a step, of each kind."""
        found = {}
        for name, step in self.steps.items():
            times = self.counts[name]
            start = perf_counter()
            for _ in range(times):
                step()
            found[name] = (perf_counter() - start) / times
        return found

    def memory(self) -> int | None:
        return peak_memory()

    def figures(self, steps: int) -> dict[str, Any]:
        """Parity of its own way to run the network, and of nothing that runs otherwise."""
        unseen = find_backend(self.name).unseen
        how: Any = {"seed": self.seed, "steps": steps, "loss": self.plan.loss}
        report = parity(self.node, backends=[self.name], blocks="blocks" not in unseen, **how)
        reasons = [f"{level} not compared: {why}" for level, why in unseen.items()]
        return certified(report, unseen, reasons)


def examples(node: Node, loss: Any, size: int, rng: np.random.Generator) -> Data:
    """Random inputs and targets for training; refused if the loss does not fit the network."""
    x, concrete = batch(node, draw_batch(node, size, rng))
    shape = (size, *leaves(concrete.out_spec)[0].shape)
    return Data.of(node, (x, draw_target(shape, loss, rng, node)), (loss,), "data")


def certified(report: Report, unseen: Any, reasons: list[str]) -> dict[str, Any]:
    """What parity says of the one backend, without the levels that it did not see."""
    (found,) = report.backends
    seen = tuple(d for d in found.differences if d.level not in unseen)
    facts = found.facts
    if not report.controlled:
        share = f"{100 * CONTROL[report.dtype]:g} %"
        facts = (*facts, f"the comparison is blind: it does not see a parameter change by {share}")
    return measured(replace(found, differences=seen, facts=facts, notes=(*found.notes, *reasons)))


def seconds_of(step: Step) -> float:
    start = perf_counter()
    step()
    return perf_counter() - start


def peak_memory() -> int | None:
    """The most bytes that this process ever held at once; None where nobody knows."""
    status = Path("/proc/self/status")
    if status.exists():  # where resource would also count the process that started this one
        lines = status.read_text().splitlines()
        found = [line.split()[1] for line in lines if line.startswith("VmHWM")]
        return int(found[0]) * 1024 if found else None
    try:
        import resource
    except ImportError:
        return None
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held if sys.platform == "darwin" else held * 1024


def cores() -> int:
    """How many cores this process may use, and how many of them OMP_NUM_THREADS leaves."""
    affine = hasattr(os, "sched_getaffinity")
    usable = len(os.sched_getaffinity(0)) if affine else os.cpu_count() or 1
    wanted = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return min(usable, int(wanted)) if wanted.isdecimal() and int(wanted) else usable


def main(backend: str) -> None:
    if hasattr(os, "sched_setaffinity"):  # for frameworks that do not read OMP_NUM_THREADS
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: cores()])
    contender = Contender(backend)
    calls = ("load", "build", "first", "round", "memory", "figures")
    serve({name: getattr(contender, name) for name in calls})


if __name__ == "__main__":
    main(sys.argv[1])

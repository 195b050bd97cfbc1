"""Comparisons that nobody measured, for tests of their page, and a loss of one's own."""

import math
import random
from dataclasses import dataclass, field
from typing import Any

import blocks as bl
from blocks._comparison import Comparison
from blocks._files import document, fingerprint
from blocks._plan import Plan
from blocks._report import returned

NET = bl.Sequential(
    stem=bl.ConvNormAct(8, (3, 3), pool=bl.MaxPool((2, 2))),
    body=bl.Repeat(bl.ResidualBlock(8), 3),
    pool=bl.GlobalAvgPool(),
    first=bl.Shared("tied", bl.Sequential(bl.Dense(8), bl.ReLU())),
    again=bl.Shared("tied", bl.Sequential(bl.Dense(8), bl.ReLU())),
    head=bl.Dense(10),
)
NAMES = {
    "numpy": ("numpy", None, "eager"),
    "torch eager": ("torch", None, "eager"),
    "torch compiled": ("torch", None, "compiled"),
    "keras tensorflow eager": ("keras", "tensorflow", "eager"),
    "keras jax compiled": ("keras", "jax", "compiled"),
    "flax": ("flax", None, "compiled"),
}


@dataclass
class Fabricated:
    node: bl.Node
    data: dict[str, Any]
    plan: Plan = field(default_factory=Plan)
    training = Comparison.training


def fabricated(node: bl.Node, seed: int = 0, wrong: str = "", names: Any = tuple(NAMES)) -> Any:
    """A comparison with the figures and times that `seed` draws; contender 1 goes wrong at the
    block `wrong`, if there is one, and what comes after it is worse.
    """
    rng = random.Random(seed)
    return Fabricated(
        node,
        {
            "format": "isoblocks comparison",
            "version": 1,
            "network": document(node),
            "fingerprint": fingerprint(node),
            "date": "2026-02-03T04:05:06+00:00",
            "threads": 2,
            "machine": {"system": "Linux", "processor": "A CPU", "cores": 2, "python": "3.12.1"},
            "parameters": {"count": bl.count(node), "trainable": 1, "bytes": 4 * bl.count(node)},
            "seed": 0,
            "batch_sizes": [1, 32],
            "rounds": 15,
            "training_batch": 32,
            "contenders": [
                contender(node, name, rng, wrong if i == 1 else "") for i, name in enumerate(names)
            ],
        },
    )


def contender(node: bl.Node, name: str, rng: random.Random, wrong: str) -> dict[str, Any]:
    backend, engine, mode = NAMES.get(name, (name, None, "eager"))
    speed = math.exp(rng.uniform(0, 2))
    paths = [*returned(node)]
    seen = not (mode == "compiled" and backend in ("torch", "keras"))
    figures = [figure("outputs", "output", rng, 2e-6, bool(wrong))]
    if seen:
        late = [bool(wrong) and paths.index(p) >= paths.index(wrong) for p in paths]
        figures += [figure("blocks", p, rng, 2e-6, bad) for p, bad in zip(paths, late, strict=True)]
    figures += [figure("gradients", "input", rng, 2e-5), figure("curve", "loss", rng, 2e-5)]
    figures += [figure("gradients", path, rng, 2e-5) for path in node.param_specs()]

    def times(scale: float) -> list[float]:
        return [scale * speed * (1 + rng.expovariate(12)) for _ in range(15)]

    return {
        "name": name,
        "backend": backend,
        "engine": engine,
        "mode": mode,
        "versions": {backend: "1.2.3"},
        "error": None,
        "import_seconds": rng.uniform(0.1, 6),
        "build_seconds": rng.uniform(0.01, 0.5),
        "compile_seconds": {"forward": rng.uniform(0, 3), "training": rng.uniform(0, 6)},
        "forward": {"1": times(2e-4), "32": times(3e-3)},
        "training": times(9e-3),
        "memory_after_import": rng.randrange(30, 400) * 10**6,
        "peak_memory": rng.randrange(400, 900) * 10**6,
        "agrees": not wrong,
        "facts": [],
        "notes": [] if seen else ["blocks not compared: compiled models do not show them"],
        "figures": figures,
    }


def figure(
    level: str, name: str, rng: random.Random, tolerance: float, wrong: bool = False
) -> dict[str, Any]:
    size = rng.uniform(2e3, 5e4) if wrong else 10 ** rng.uniform(-2, -0.5)
    return {
        "level": level,
        "name": name,
        "absolute": tolerance * size,
        "relative": tolerance * size,
        "where": "[0, 3]",
        "tolerance": tolerance,
    }


class Quartic(bl.Custom):
    """A loss for each example."""

    def out_spec(self, x):
        return x[0].with_shape(())

    def forward(self, ops, x):
        return ops.sum((x[0] - x[1]) ** 4, axis=-1)

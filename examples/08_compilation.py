"""Compilation: what is lowered is native, so each framework's own compiler takes it.

Run `python examples/08_compilation.py`; `--backend torch` shows one backend alone.
"""

import shutil
from collections.abc import Callable
from time import perf_counter

import numpy as np

import blocks as bl
from _backends import chosen

net = bl.Sequential(bl.Dense(256), bl.ReLU(), bl.Dense(128), bl.ReLU(), bl.Dense(2))


class HalvedSum(bl.Custom):
    """As in 03, but in a form that can be compiled.

    Python decides once which way to go, while a compiler looks. `ops.while_loop` decides again at
    each call. A number of steps bounds it, so that it has a gradient everywhere.
    """

    limit: int = 8

    def out_spec(self, x):
        return x.with_shape(())

    def large(self, ops, x):
        axes = tuple(range(1, len(x.shape)))
        return ops.sum(ops.abs(x), axis=axes, keepdims=True) > 1

    def forward(self, ops, x):
        x = ops.while_loop(
            lambda x: ops.any(self.large(ops, x)),
            lambda x: ops.where(self.large(ops, x), x / 2, x),
            x,
            self.limit,
        )
        return ops.sum(x, axis=tuple(range(1, len(x.shape))))


def torch_pair(model, x: np.ndarray) -> tuple[Callable, Callable]:
    """The model as it is, and by torch.compile."""
    import torch

    # torch writes C++; without a compiler for that, it only records what happens
    how = "inductor" if any(map(shutil.which, ("c++", "g++", "clang++"))) else "aot_eager"
    fast = torch.compile(model.eval(), fullgraph=True, backend=how)
    tensor = torch.from_numpy(x)
    return lambda: model(tensor).detach().numpy(), lambda: fast(tensor).detach().numpy()


def keras_pair(model, x: np.ndarray) -> tuple[Callable, Callable]:
    """The model as it is, and as the function that Keras compiles for predictions."""
    return lambda: np.asarray(model(x)), lambda: model.predict_on_batch(x)


def flax_pair(model, x: np.ndarray) -> tuple[Callable, Callable]:
    """The model as it is, and by nnx.jit."""
    from flax import nnx

    fast = nnx.jit(lambda model, x: model(x))
    return lambda: np.asarray(model(x)), lambda: np.asarray(fast(model, x))


PAIRS = {"torch": torch_pair, "keras": keras_pair, "flax": flax_pair}


def seconds(function: Callable, times: int = 20) -> float:
    """The shortest of a few runs."""
    runs = []
    for _ in range(times):
        start = perf_counter()
        function()
        runs.append(perf_counter() - start)
    return min(runs)


if __name__ == "__main__":
    X = np.random.default_rng(0).normal(size=(64, 512)).astype(np.float32)
    for backend in chosen():
        if backend not in PAIRS:
            print(f"{backend:6} has no compiler")
            continue
        for network in (net, HalvedSum(16)):
            node = bl.infer(network, (512,))
            plain, compiled = PAIRS[backend](bl.lower(node, backend), X)
            distance = abs(plain() - compiled()).max()
            print(
                f"{backend:6} {type(network).__name__:10} {bl.count(node):,} parameters, "
                f"{1e3 * seconds(plain):.2f} ms, compiled {1e3 * seconds(compiled):.2f} ms, "
                f"largest distance {distance:.0e}"
            )

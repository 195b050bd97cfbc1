"""Parameters: reading, drawing, setting and tying them.

Run `python examples/05_parameters.py`; `--backend torch` shows one backend alone.

Parameters are arrays by path, the same on every backend: {"0/kernel": (4, 8), ...}.
"""

import numpy as np

import blocks as bl
from _backends import chosen

net = bl.Sequential(bl.Dense(8), bl.ReLU(), bl.Dense(1))

shared = bl.Shared("shared", bl.Dense(8))
tied = bl.Sequential(bl.Dense(8), bl.ReLU(), shared, bl.ReLU(), shared, bl.ReLU(), bl.Dense(1))


def far_from_zero(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers from [5, 10) or (-10, -5], a quarter each; the others are 0."""
    numbers = rng.uniform(-10, 10, shape)
    return numbers * (abs(numbers) >= 5)


INITIAL = {
    "normal": {"**/kernel": bl.initializers.Normal(0.01), "**/bias": "zeros"},
    "constant": {"**/kernel": 1, "**/bias": "zeros"},
    "by layer": {"0/kernel": "glorot_uniform", "2/kernel": 42},
    "by function": {"**/kernel": far_from_zero},
}

if __name__ == "__main__":
    backends = chosen()
    X = np.random.default_rng(0).random((2, 4), dtype=np.float32)
    node = bl.infer(net, (4,))

    # All of them, one of them, some of them.
    params = bl.init(node, seed=0)
    print({path: array.shape for path, array in params.items()}, bl.count(node))
    print("2/bias", params["2/bias"])
    print("*/bias", list(bl.select(params, "*/bias")))

    # First numbers come from the blocks' fields, or by pattern; the last that matches wins.
    for name, initial in INITIAL.items():
        params = bl.init(node, seed=0, initial=initial)
        print(f"{name}: {params['0/kernel'][0, :4].round(3)} {params['2/kernel'][:4, 0].round(3)}")

    # Every backend starts from these numbers, gives its own back, and takes new ones.
    params = bl.init(node, seed=0)
    for backend in backends:
        model = bl.lower(node, backend, params=params)
        changed = bl.params_of(model)
        changed["0/kernel"] += 1
        changed["0/kernel"][0, 0] = 42
        bl.load_params(model, changed)
        read = bl.params_of(model)["0/kernel"]
        slope = bl.gradients(model, X, np.ones((2, 1)))["2/bias"]
        print(f"{backend:6} {read[0, :4].round(3)}, gradient of 2/bias {slope}")

    # Two uses of one layer: one set of parameters, whose gradient is the sum over both uses.
    node = bl.infer(tied, (4,))
    print(list(node.param_specs()), bl.count(node))
    for backend in backends:
        model = bl.lower(node, backend, seed=0)
        slope = bl.gradients(model, X, np.ones((2, 1)))["2/bias"]
        print(f"{backend:6} gradient of 2/bias {slope.round(4)[:4]}")

"""Layers of your own: without parameters, with parameters, and in one formula.

Run `python examples/06_layers_of_your_own.py`; `--backend torch` shows one backend alone.
"""

import math

import numpy as np

import blocks as bl
from _backends import chosen


class Centered(bl.Custom):
    """Subtracts from each example its mean."""

    def forward(self, ops, x):
        return x - ops.mean(x, axis=-1, keepdims=True)


class MyDense(bl.Custom):
    """A Dense layer and its ReLU."""

    features: int

    def param_specs(self, x):
        return {
            "kernel": bl.ParamSpec((x.shape[-1], self.features), bl.initializers.Normal(0.1)),
            "bias": bl.ParamSpec((self.features,), "zeros"),
        }

    def out_spec(self, x):
        return x.with_shape((*x.shape[:-1], self.features))

    def forward(self, ops, x, kernel, bias):
        return ops.maximum(ops.matmul(x, kernel) + bias, 0)


class Quadratic(bl.Custom):
    """y[k] = sum_ij kernel[i, j, k] * x[i] * x[j]."""

    features: int

    def param_specs(self, x):
        size = x.shape[-1]
        return {"kernel": bl.ParamSpec((size, size, self.features), "normal")}

    def out_spec(self, x):
        return x.with_shape((self.features,))

    def forward(self, ops, x, kernel):
        return ops.einsum("bi,bj,ijk->bk", x, x, kernel)


class HalfFourier(bl.Custom):
    """The first half of the Fourier coefficients of real numbers, as (real, imaginary) pairs."""

    def out_spec(self, x):
        return x.with_shape((x.shape[-1] // 2, 2))

    def forward(self, ops, x):
        size = x.shape[-1]
        times, waves = ops.arange(size, like=x), ops.arange(size // 2, like=x)
        angles = 2 * math.pi / size * ops.expand_dims(times, axis=1) * waves
        parts = [ops.matmul(x, ops.cos(angles)), -ops.matmul(x, ops.sin(angles))]
        return ops.stack(parts, axis=-1)


net = bl.Sequential(MyDense(8), MyDense(1))

if __name__ == "__main__":
    backends = chosen()
    rng = np.random.default_rng(0)
    shown = {
        "Centered": (Centered(), np.array([[1.0, 2, 3, 4, 5]])),
        "Dense and Centered": (bl.Sequential(bl.Dense(128), Centered()), rng.random((4, 8))),
        "MyDense": (net, rng.random((2, 64))),
        "Quadratic": (Quadratic(3), rng.random((2, 5))),
        "HalfFourier": (HalfFourier(), rng.random((1, 16))),
    }
    for name, (network, x) in shown.items():
        node = bl.infer(network, x.shape[1:])
        print(f"{name}: {bl.count(node)} parameters")
        for backend in backends:
            y = bl.apply(bl.lower(node, backend), x)
            print(f"  {backend:6} {y.shape}, mean {y.mean():.6f}, {y.ravel()[:5].round(3)}")

    # Listings hold the class in the framework's own words.
    for backend in backends:
        print(f"\n# ---- {backend} ----\n")
        print(bl.source(Centered(), backend, input_shape=(5,)))

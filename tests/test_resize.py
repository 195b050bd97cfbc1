"""AdaptiveAvgPool and Upsample, for sizes where a rounded quotient would take another cell."""

from fractions import Fraction

import numpy as np
import pytest

import blocks as bl
from blocks._parity import relative
from conftest import need

BLOCKS = {
    "adaptive": lambda m: bl.AdaptiveAvgPool((m,)),
    "nearest": lambda m: bl.Upsample(size=(m,)),
    "linear": lambda m: bl.Upsample(size=(m,), mode="linear"),
}


def window(i, n, m):
    """Row i of the matrix: weights of the n old cells in new cell i of m, in exact numbers."""
    low, high = Fraction(i * n, m), Fraction((i + 1) * n, m)
    cells = range(int(low), -(-high.numerator // high.denominator))
    return [Fraction(p in cells, len(cells)) for p in range(n)]


def nearest(i, n, m):
    return [p <= Fraction((2 * i + 1) * n, 2 * m) < p + 1 for p in range(n)]


def linear(i, n, m):
    centre = min(max(Fraction((2 * i + 1) * n, 2 * m) - Fraction(1, 2), 0), n - 1)
    return [max(1 - abs(centre - p), 0) for p in range(n)]


ROWS = {"adaptive": window, "nearest": nearest, "linear": linear}


@pytest.mark.parametrize("kind", BLOCKS)
def test_the_reference_is_the_definition_in_exact_fractions(kind):
    for n in range(1, 12):
        for m in range(1, 16):
            model = bl.lower(BLOCKS[kind](m), "numpy", input_shape=(n, n), dtype="float64")
            got = bl.apply(model, np.eye(n)[None])[0]
            rows = [[float(w) for w in ROWS[kind](i, n, m)] for i in range(m)]
            assert abs(got - rows).max() < 1e-15, (n, m)


# 7, 13 and 14 windows, where Keras's own layer is NaN under jax.jit; one, where it cannot be traced
# by TensorFlow; centres on an edge, where torch goes another way back and JAX misses a cell.
PAIRS = [(30, 7), (14, 13), (28, 14), (7, 7), (9, 1), (2, 55), (14, 23), (8, 5)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", BLOCKS)
def test_sizes_that_are_easily_missed(kind, dtype, framework):
    for n, m in PAIRS:
        block, steps = BLOCKS[kind](m), 0
        if framework == "keras":  # its own training compiles the model
            block, steps = bl.Sequential(block, bl.Dense(2)), 1
        report = bl.parity(block, (n, 3), backends=[framework], dtype=dtype, steps=steps)
        assert report, f"{n} to {m}\n{report}"


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_torchs_own_layers_mean_the_same(rank):
    need("torch")
    import torch
    from torch import nn

    shape, size = (3, 7, 6, 5)[: rank + 1], (4, 9, 5)[:rank]
    x = np.random.default_rng(0).normal(size=(2, *shape))
    linear = ("linear", "bilinear", "trilinear")[rank - 1]
    pool = getattr(nn, f"AdaptiveAvgPool{rank}d")
    for block, layer in (
        (bl.AdaptiveAvgPool(size), pool(size)),
        (bl.Upsample(size=size, mode="linear"), nn.Upsample(size=size, mode=linear)),
        (bl.Upsample((2, 3, 4)[:rank]), nn.Upsample(scale_factor=(2, 3, 4)[:rank])),
    ):
        node = bl.infer(block, shape, layout="channels_first", dtype="float64")
        wanted = layer(torch.from_numpy(x)).numpy()
        assert relative(bl.apply(bl.lower(node, "numpy"), x), wanted)[0] < 1e-14, block

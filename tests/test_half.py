"""Sixteen bits: parameters and values of 16 bits, and mixed precision with parameters of 32."""

import numpy as np
import pytest

import blocks as bl
from blocks._parity import TOLERANCES
from cases import CASES
from conftest import need

PRECISIONS = [
    ("bfloat16", None),
    ("float16", None),
    ("bfloat16", "float32"),
    ("float16", "float32"),
]
UNSUPPORTED = {
    ("keras", name, "float16") for name in ("MaxPool3d", "AvgPool3d", "AdaptiveAvgPool3d")
}
SMALL = {"Dense", "Conv2d", "BatchNorm", "LayerNorm", "Residual", "Dropout", "Embedding", "Sample"}


def runs():
    """A few rows in every precision; the others when there is time."""
    for case in CASES:
        for dtype, param_dtype in PRECISIONS:
            marks = [] if case.name in SMALL else [pytest.mark.exhaustive]
            name = f"{case.name}-{dtype}-{param_dtype or dtype}"
            yield pytest.param(case, dtype, param_dtype, id=name, marks=marks)


@pytest.mark.parametrize(("case", "dtype", "param_dtype"), [*runs()])
def test_parity_at_that_precision(case, dtype, param_dtype, backend):
    report = bl.parity(
        case.base, case.shape, backends=[backend], dtype=dtype, param_dtype=param_dtype, steps=3
    )
    if (backend, case.name, dtype) in UNSUPPORTED:
        assert "TensorFlow has no 3-D pooling in float16" in str(report)
    else:
        assert all(report.backends), f"\n{report}"


NET = bl.Sequential(bl.Conv(4, (3, 2)), bl.BatchNorm(), bl.ReLU(), bl.Flatten(), bl.Dense(3))


@pytest.mark.parametrize(("dtype", "param_dtype"), PRECISIONS)
def test_dtypes_are_those_that_were_asked_for(dtype, param_dtype, backend):
    node = bl.infer(NET, (5, 6, 2), dtype=dtype, param_dtype=param_dtype)
    model = bl.lower(node, backend)
    x = np.random.default_rng(0).normal(size=(3, 5, 6, 2))
    assert {str(a.dtype) for a in bl.params_of(model).values()} == {param_dtype or dtype}
    assert str(bl.apply(model, x).dtype) == dtype
    grads = bl.gradients(model, x, np.ones((3, 3)))
    assert str(grads["input"].dtype) == dtype
    assert str(grads["0/kernel"].dtype) == (param_dtype or dtype)


@pytest.mark.parametrize(("dtype", "param_dtype"), PRECISIONS[2:])
def test_mixed_precision_computes_in_sixteen_bits(dtype, param_dtype, framework):
    """Far enough from float32 to see that it does, near enough to be the same network."""
    x = np.random.default_rng(0).normal(size=(9, 50))
    net = bl.Sequential(bl.Dense(60), bl.Tanh(), bl.Dense(40))
    wide = bl.apply(bl.lower(net, framework, input_shape=(50,), seed=1), x)
    mixed = bl.infer(net, (50,), dtype=dtype, param_dtype=param_dtype)
    found = bl.apply(bl.lower(mixed, framework, seed=1), x).astype(np.float32)
    error = np.abs(found - wide).max() / np.abs(wide).max()
    assert TOLERANCES[dtype]["outputs"] / 100 < error < TOLERANCES[dtype]["outputs"]


def test_a_listing_states_the_precision():
    node = bl.infer(bl.Dense(3), (4,), dtype="bfloat16", param_dtype="float32")
    assert "torch.autocast('cpu', torch.bfloat16)" in bl.source(node, need("torch"))
    assert 'set_dtype_policy("mixed_bfloat16")' in bl.source(node, need("keras"))
    assert "dtype=jnp.bfloat16" in bl.source(node, need("flax"))
    pure = bl.infer(bl.Dense(3), (4,), dtype="bfloat16")
    assert "model = model.to(torch.bfloat16)" in bl.source(pure, "torch")
    assert 'set_dtype_policy("bfloat16")' in bl.source(pure, "keras")
    assert "param_dtype=jnp.bfloat16" in bl.source(pure, "flax")

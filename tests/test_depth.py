"""Large networks: nested 2,000 levels deep, and 10,000 blocks in a row."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import blocks as bl
from blocks._layout import layout_pass
from blocks._stack import call_deep

LEVELS = 2000


def nested(wrap, levels=LEVELS):
    net = bl.Dense(4)
    for _ in range(levels):
        net = wrap(net)
    return net


DEEP = {
    "Sequential": nested(bl.Sequential),
    "Residual": nested(bl.Residual),
    "Parallel": nested(lambda inner: bl.Parallel(inner, merge="max")),
}


@pytest.mark.parametrize("name", DEEP)
def test_blocks(name):
    net, twin = DEEP[name], bl.from_json(bl.to_json(DEEP[name]))
    assert net == twin
    assert net is not twin
    assert hash(net) == hash(twin)
    assert repr(net).count("(") == LEVELS + 1
    assert net != bl.Sequential(net)
    assert copy.deepcopy(net) is net


@pytest.mark.parametrize("name", DEEP)
def test_passes(name):
    node = bl.infer(DEEP[name], (5, 4), layout="channels_first")
    assert node.levels() == LEVELS + 1
    assert bl.count(node) == 20
    layout_pass(node, "channels_last")
    assert str(LEVELS) not in str(DEEP[name].summary((5, 4)))
    folded, params = bl.fold_batchnorm(node, bl.init(node))
    assert folded.block == DEEP[name]
    assert len(params) == 2


def test_models(backend):
    """A model of 2,000 levels runs, has gradients, learns and is listed."""
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    for name in ("Sequential", "Residual"):
        scale = np.float32(1e-3) if name == "Residual" else 1
        node = bl.infer(DEEP[name], (4,))
        params = {path: array * scale for path, array in bl.init(node).items()}
        model = bl.lower(node, backend, params=params)
        found = bl.params_of(model)
        assert all(np.array_equal(found[path], params[path]) for path in params)
        kernel, bias = params.values()
        wanted = x @ kernel + bias + (LEVELS * x if name == "Residual" else 0)
        np.testing.assert_allclose(bl.apply(model, x), wanted, rtol=1e-4, atol=1e-3)
        grads = bl.gradients(model, x, np.ones_like(x))
        assert np.isfinite(grads["input"]).all()
        bl.fit(model, (x, x), loss="mse", optimizer=bl.SGD(1e-12))
        compile(bl.source(node, backend), "listing", "exec")


def test_a_listing_of_many_levels_makes_the_same_model():
    net = nested(bl.Residual, 150)
    node = bl.infer(net, (4,))
    scope = {}
    exec(bl.source(node, "numpy"), scope)
    x = np.random.default_rng(0).normal(size=(3, 4))
    for value, _ in scope["model"].param():
        value[...] = 0
    np.testing.assert_allclose(scope["model"](x), 150 * x)


def test_many_blocks():
    net = bl.Sequential(*[b for _ in range(5000) for b in (bl.Dense(4), bl.ReLU())])
    node = bl.infer(net, (4,))
    assert len(bl.init(node)) == 10_000
    assert bl.from_json(bl.to_json(net)) == net
    model = bl.lower(node, "numpy")
    assert len(bl.params_of(model)) == 10_000
    assert bl.source(node, "numpy").count("ReLU()") == 5000


def test_errors_come_out_of_a_deep_call_as_they_are():
    with pytest.raises(KeyError):
        call_deep(1000, {}.__getitem__, "missing")
    assert call_deep(1000, sum, [1, 2]) == 3

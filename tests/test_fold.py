"""Folding BatchNorm into the layer before it: the same outputs with fewer layers."""

from __future__ import annotations

import numpy as np
import pytest

import blocks as bl
from blocks._parity import random_params

CONV = bl.Conv(6, (3, 2), stride=(2, 1), padding="same", use_bias=False)
TRANSPOSE = bl.ConvTranspose(6, (3, 2), stride=2, groups=3, bias_init="normal")
BODY = bl.Sequential(bl.Conv(6, (3, 2), padding="same"), bl.BatchNorm(), bl.ReLU())

# name -> network, how many BatchNorms it has, and how many are left
NETWORKS = {
    "Conv": (bl.Sequential(CONV, bl.BatchNorm(epsilon=0.1), bl.ReLU()), 1, 0),
    "grouped Conv": (bl.Sequential(bl.Conv(4, (2, 3), groups=2), bl.BatchNorm()), 1, 0),
    "grouped ConvTranspose": (bl.Sequential(TRANSPOSE, bl.BatchNorm(use_scale=False)), 1, 0),
    "without bias": (bl.Sequential(CONV, bl.BatchNorm(use_bias=False)), 1, 0),
    "two in a row": (bl.Sequential(CONV, bl.BatchNorm(), bl.BatchNorm()), 2, 1),
    "nested": (
        bl.Sequential(bl.Sequential(a=bl.Tanh(), b=CONV), bl.Sequential(bl.BatchNorm(), BODY)),
        2,
        0,
    ),
    "by name": (bl.Sequential(conv=CONV, norm=bl.BatchNorm(), head=bl.Dense(3)), 1, 0),
    "Parallel": (bl.Parallel(bl.Sequential(CONV, bl.BatchNorm()), right=CONV, merge="max"), 1, 0),
    "Repeat": (bl.Sequential(bl.Conv(6, (1, 1)), bl.Repeat(bl.Residual(BODY), 3)), 3, 0),
    "Shared": (
        bl.Sequential(
            bl.Conv(6, (1, 1)), bl.Shared("tied", BODY), bl.Tanh(), bl.Shared("tied", BODY)
        ),
        2,
        0,
    ),
    "after Shared": (bl.Sequential(bl.Shared("tied", CONV), bl.BatchNorm()), 1, 1),
    "first": (bl.Sequential(bl.BatchNorm(), CONV), 1, 1),
    "apart": (bl.Sequential(CONV, bl.ReLU(), bl.BatchNorm()), 1, 1),
    "MLP": (bl.Sequential(bl.Flatten(), bl.MLP(3, hidden=(4,)), bl.BatchNorm()), 1, 0),
}
NETWORKS["Residual"] = (
    bl.Residual(bl.Sequential(CONV, bl.BatchNorm()), bl.Sequential(CONV, bl.BatchNorm())),
    2,
    0,
)


def norms(node: bl.Node) -> int:
    return sum(isinstance(n.form, bl.BatchNorm) for n in node.walk())


@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_stay(name, layout, backend):
    net, before, after = NETWORKS[name]
    shape = (5, 7, 6) if layout == "channels_last" else (6, 5, 7)
    node = bl.infer(net, shape, layout=layout, dtype="float64")
    params = random_params(node, 1)
    folded, fewer = bl.fold_batchnorm(node, params)
    assert (norms(node), norms(folded)) == (before, after)
    assert fewer.keys() == folded.param_specs().keys()
    x = np.random.default_rng(0).normal(size=(3, *shape))
    wanted = bl.apply(bl.lower(node, "numpy", params=params), x)
    found = bl.apply(bl.lower(folded, backend, params=fewer), x)
    np.testing.assert_allclose(found, wanted, rtol=1e-11, atol=1e-12)


def test_a_dense_folds_only_where_its_features_are_the_channels():
    net = bl.Sequential(bl.Dense(4), bl.BatchNorm())
    for layout, left in (("channels_last", 0), ("channels_first", 1)):
        node = bl.infer(net, (5, 6), layout=layout)
        assert norms(bl.fold_batchnorm(node, bl.init(node))[0]) == left


def test_the_given_parameters_stay_and_are_not_shared():
    node = bl.infer(bl.Sequential(bl.Dense(4), bl.BatchNorm(), bl.Dense(2)), (3,))
    params = random_params(node, 0)
    before = {path: array.copy() for path, array in params.items()}
    folded, fewer = bl.fold_batchnorm(node, params)
    assert list(fewer) == ["0/kernel", "0/bias", "1/kernel", "1/bias"]
    assert all(np.array_equal(params[path], before[path]) for path in before)
    assert {array.dtype for array in fewer.values()} == {np.dtype("float32")}
    assert folded.dtype == "float32"
    alone = bl.infer(bl.Dense(4), (3,))
    same, copies = bl.fold_batchnorm(alone, own := bl.init(alone))
    assert same is alone
    assert not np.shares_memory(copies["kernel"], own["kernel"])


def test_parameters_that_do_not_fit_are_refused():
    node = bl.infer(bl.Sequential(bl.Dense(4), bl.BatchNorm()), (3,))
    with pytest.raises(bl.ParamError, match="1/var: missing"):
        bl.fold_batchnorm(node, {p: a for p, a in bl.init(node).items() if p != "1/var"})

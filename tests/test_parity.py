"""Every row and variant of the table, on every backend, in both layouts where it is spatial."""

import dataclasses

import numpy as np
import pytest

import blocks as bl
from backends._transforms import out_first, same
from blocks import _parity
from blocks._backends import find_backend
from blocks._models import origin
from blocks._parity import TOLERANCES, relative
from cases import CASES
from conftest import FRAMEWORKS, need

# What a backend refuses, and why nobody can do better there. Anything else is a red test.
UNSUPPORTED = {
    ("keras", "MaxPool3d"): "TensorFlow has no 3-D pooling in float64",
    ("keras", "AvgPool3d"): "TensorFlow has no 3-D pooling in float64",
    ("keras", "AdaptiveAvgPool3d"): "TensorFlow has no 3-D pooling in float64",
}

# Where a framework falls short of float64, by how much at most, and why.
ROUNDED = {
    ("torch", "hard_sigmoid", 1e-7): "torch's backward has 1/6 in float32",
    ("torch", "celu", 1e-7): "torch's backward has alpha in float32",
    ("keras", "leaky_relu", 1e-7): "TensorFlow takes the slope as a float32",
    ("keras", "gelu", 1e-7): "Keras rounds the constants of gelu to float32",
    ("keras", "gelu_tanh", 1e-7): "Keras rounds the constants of gelu to float32",
    ("keras", "MultiHeadAttention", 1e-6): "TensorFlow takes 1 / sqrt(head_size) as a float32",
}


def in_layout(shape, layout):
    return (shape[-1], *shape[:-1]) if layout == "channels_first" else shape


def runs():
    """Every variant; in the second layout only the bases are fast."""
    for case in CASES:
        for i, (name, block) in enumerate(case.variants()):
            for layout in ["channels_last", "channels_first"][: 1 + case.spatial]:
                slow = i > 0 and layout == "channels_first"
                yield pytest.param(
                    case,
                    block,
                    layout,
                    id=f"{case.name}-{name}-{layout}",
                    marks=[pytest.mark.exhaustive] if slow else [],
                )


def bases():
    for case in CASES:
        for layout in ["channels_last", "channels_first"][: 1 + case.spatial]:
            yield pytest.param(case, case.base, layout, id=f"{case.name}-{layout}")


def check(case, block, layout, framework, **options):
    report = bl.parity(
        block, in_layout(case.shape, layout), backends=[framework], layout=layout, **options
    )
    assert report, f"\n{report}"


@pytest.mark.parametrize(("case", "block", "layout"), [*runs()])
def test_float64(case, block, layout, framework):
    """Forward, gradients, training mode and running state mean the same."""
    if reason := UNSUPPORTED.get((framework, case.name)):
        report = bl.parity(block, case.shape, backends=[framework], dtype="float64", steps=0)
        assert not report
        assert reason in str(report)
        check(case, block, layout, framework, dtype="float32", steps=0)
    else:
        check(case, block, layout, framework, dtype="float64", steps=0)


@pytest.mark.parametrize(("case", "block", "layout"), [*bases()])
def test_float32_with_training(case, block, layout, backend):
    check(case, block, layout, backend, dtype="float32", steps=5)


def test_what_is_rounded_is_listed():
    """The exceptions of the rule tables are exactly those above (with TensorFlow under Keras)."""
    found = {
        (name, limit.fields.get("kind", limit.block.__name__), limit.error): limit.reason
        for name in FRAMEWORKS
        for limit in find_backend(need(name)).rules.inexact
    }
    assert found == ROUNDED


def test_nothing_is_refused_as_a_whole():
    assert {name: find_backend(need(name)).rules.refused for name in FRAMEWORKS} == {
        name: {} for name in FRAMEWORKS
    }


# Negative controls: a comparison that cannot fail is worth nothing.

NETWORK = bl.Sequential(
    bl.Conv(4, (3, 2), padding="same"), bl.BatchNorm(), bl.ReLU(), bl.Flatten(), bl.Dense(3)
)


def moved(path: str):
    """Parameters, and the same with one array 1 % larger."""
    node = bl.infer(NETWORK, (5, 6, 2), dtype="float64")
    params = bl.init(node, seed=1)
    params["0/bias"] += 0.3
    params["1/bias"] += 0.2
    params["4/bias"] += 0.1
    return node, params, params | {path: params[path] * 1.01}


def test_normal_networks_raise_no_false_alarm():
    """Float32 differs by rounding alone, whatever the draw."""
    stage = [bl.Conv(4, (3, 3), padding="same"), bl.BatchNorm(), bl.ReLU()]
    nets = [
        (bl.Sequential(bl.Dense(3), bl.BatchNorm()), (5,)),
        (
            bl.Sequential(*stage * 3),
            (6, 7, 2),
        ),
        (bl.MLP(10, hidden=(64, 64)), (100,)),
    ]
    for net, shape in nets:
        for seed in range(6):
            report = bl.parity(net, shape, backends=["numpy", need("torch")], seed=seed)
            assert report, f"seed {seed}\n{report}"


@pytest.mark.parametrize("path", ["0/kernel", "0/bias", "1/scale", "1/bias", "1/var", "4/kernel"])
def test_one_percent_of_any_parameter_is_seen(path, framework):
    node, params, changed = moved(path)
    x = np.random.default_rng(0).normal(size=(3, 5, 6, 2))
    right = bl.apply(bl.lower(node, "numpy", params=params), x)
    same = bl.apply(bl.lower(node, framework, params=params), x)
    wrong = bl.apply(bl.lower(node, framework, params=changed), x)
    tolerance = TOLERANCES["float64"]["outputs"]
    assert relative(same, right)[0] <= tolerance
    assert relative(wrong, right)[0] > 1e6 * tolerance


def test_a_dropped_transform_is_seen(framework, monkeypatch):
    """A kernel of equal sizes that is loaded without its transform has the right shape."""
    node = bl.infer(bl.Dense(4), (4,), dtype="float64")
    adapter = find_backend(framework)
    rule = adapter.rules.table[bl.Dense]
    flipped = dataclasses.replace(
        rule.binds["kernel"], transform=another(rule.binds["kernel"].transform)
    )
    monkeypatch.setitem(rule.binds, "kernel", flipped)
    assert not bl.parity(node, backends=[framework], steps=0)


def another(transform):
    return same if transform is out_first else out_first


def test_the_report_says_where_it_differs(framework, monkeypatch):
    adapter = find_backend(framework)
    original = adapter.forward
    monkeypatch.setattr(
        type(adapter), "forward", lambda self, *args: original(*args) + 1e-3, raising=True
    )
    report = bl.parity(bl.Dense(4), (3,), backends=[framework], steps=0)
    assert not report
    assert f"{framework}: outputs output differs by" in str(report)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_never_pass(bad):
    wanted = np.ones((2, 3))
    got = wanted.copy()
    got[1, 2] = bad
    error, where = relative(got, wanted)
    assert error == np.inf
    assert where == "[1, 2]"
    assert relative(np.ones((2, 4)), wanted)[0] == np.inf
    assert relative(wanted, got)[0] == relative(got, got)[0] == np.inf


# The kinks of each activation: gradients there are stated too.
KINKS = {
    "relu": [0],
    "relu6": [0, 6],
    "leaky_relu": [0],
    "elu": [0],
    "selu": [0],
    "celu": [0],
    "hard_sigmoid": [-3, 3],
    "hard_silu": [-3, 3],
    "hard_tanh": [-1, 1],
    "soft_shrink": [-0.5, 0.5],
    "hard_shrink": [-0.5, 0.5],
}
STOCK_AT_KINKS = {("keras", "hard_tanh"): "Keras's layer has 1 at both ends"}


@pytest.mark.parametrize("kind", KINKS)
def test_gradients_at_kinks(kind, framework):
    node = bl.infer(bl.Activation(kind), (len(KINKS[kind]),), dtype="float64")
    x = np.array([KINKS[kind]], dtype="float64")
    ones = np.ones_like(x)
    wanted = bl.gradients(bl.lower(node, "numpy"), x, ones)["input"]
    got = bl.gradients(bl.lower(node, framework), x, ones)["input"]
    if (framework, kind) in STOCK_AT_KINKS:
        assert np.array_equal(got, ones)
        assert not wanted.any()
    else:
        np.testing.assert_allclose(got, wanted, atol=1e-7)


def test_the_first_of_equal_numbers_gets_the_gradient(framework):
    x = np.ones((1, 4, 6, 1))
    model = bl.lower(bl.MaxPool((2, 3)), framework, input_shape=x.shape[1:], dtype="float64")
    wanted = np.zeros_like(x)
    wanted[:, ::2, ::3] = 1
    assert np.array_equal(bl.gradients(model, x, np.ones((1, 2, 2, 1)))["input"], wanted)


def test_softplus_is_exact_where_torch_would_cut_it_off(framework):
    x = np.array([[19.0, 20.5, 22.0, 25.0]])
    got = bl.apply(bl.lower(bl.Softplus(), framework, input_shape=(4,), dtype="float64"), x)
    np.testing.assert_allclose(got - x, np.log1p(np.exp(-x)), rtol=1e-2)


@pytest.mark.parametrize("norm", [bl.BatchNorm(), bl.LayerNorm(), bl.GroupNorm(2)], ids=str)
def test_norms_keep_their_digits_at_a_large_offset(norm, framework):
    """Flax alone would compute the variance as E[x^2] - E[x]^2, which is noise here."""
    shape = (5, 6, 64)
    node = bl.infer(norm, shape)
    x = np.random.default_rng(0).normal(1e4, 1, (3, *shape)).astype(np.float32)
    wide = bl.lower(bl.infer(norm, shape, dtype="float64"), "numpy")
    wanted = bl.apply(wide, x, training=True)
    got = bl.apply(bl.lower(node, framework), x, training=True)
    assert relative(got, wanted)[0] < 2e-3  # a float32 step at 1e4 is 1e-3


def test_an_extra_parameter_is_seen(framework, monkeypatch):
    """A bias that should not be there changes no output while it is 0."""
    table = find_backend(framework).rules.table
    rule = table[bl.Dense]

    def with_bias(node):
        biased = dataclasses.replace(node.form, use_bias=True)
        return rule.function(dataclasses.replace(node, form=biased))

    monkeypatch.setitem(table, bl.Dense, dataclasses.replace(rule, function=with_bias))
    report = bl.parity(bl.Dense(4, use_bias=False), (3,), backends=[framework], steps=0)
    assert not report
    assert "holds (16, 0) trainable numbers and running ones, not (12, 0)" in str(report)


def test_parity_takes_one_name():
    assert bl.parity(bl.Dense(3), (4,), backends="numpy")


def test_any_length_is_compared(framework):
    net = bl.Sequential(bl.Conv(4, (3,), padding="same"), bl.ReLU(), bl.Dense(3))
    assert bl.parity(net, (None, 2), backends=[framework])


@pytest.mark.parametrize(
    "last",
    [bl.GlobalMaxPool(), bl.Reduce("b c h w -> b c", "max"), bl.Reduce("b c h w -> b c", "min")],
    ids=["GlobalMaxPool", "max", "min"],
)
def test_the_gradient_of_a_maximum_finds_its_cell(last, framework):
    """jnp.max gives it to the cells that equal the result, which a compiler may round otherwise."""
    net = bl.Sequential(bl.LayerNorm(), last)
    report = bl.parity(
        net,
        (4, 7, 6),
        backends=[framework],
        layout="channels_first",
        dtype="float64",
        steps=0,
    )
    assert report, f"\n{report}"


LOSSES = ["mse", "mae", "cross_entropy", "binary_cross_entropy", bl.VAELoss()]


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_the_curve_of_any_loss(loss, framework, monkeypatch):
    """It agrees, is that of this loss, and is seen to be another's."""
    net: bl.Block = bl.MLP(4, hidden=(5,))
    if isinstance(loss, bl.VAELoss):
        net = bl.Parallel(net, bl.Dense(2), bl.Dense(2), merge="tuple")
    node = bl.infer(net, (3,), dtype="float64")
    trained = []

    def fit(model, data, *, loss, **how):
        trained.append(loss)
        return bl.fit(model, data, loss=loss, **how)

    monkeypatch.setattr(_parity, "fit", fit)
    report = bl.parity(node, backends=[framework], loss=loss, steps=3)
    assert report, str(report)
    assert report.backends[0].worst("curve") is not None
    assert trained == [loss] * 2

    def mean_of_less(model, data, **how):
        x, y = (array[:-1] if model_is(model, framework) else array for array in data)
        return bl.fit(model, (x, y), **how)

    monkeypatch.setattr(_parity, "fit", mean_of_less)
    report = bl.parity(node, backends=[framework], loss=loss, steps=3)
    assert not report.backends[0].worst("curve")


def model_is(model, backend):
    return origin(model).backend.name == backend


def test_a_loss_that_does_not_fit_is_refused():
    with pytest.raises(bl.FieldError, match="loss must be one of"):
        bl.parity(bl.Dense(2), (3,), backends=["numpy"], loss="l2")
    with pytest.raises(bl.ShapeError, match="VAELoss takes output, mean"):
        bl.parity(bl.Dense(2), (3,), backends=["numpy"], loss=bl.VAELoss())

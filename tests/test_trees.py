"""Random trees: whatever fits together means the same everywhere."""

import numpy as np
import pytest
from conftest import FRAMEWORKS, need
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import blocks as bl
from blocks._parity import TOLERANCES, one_percent, relative
from blocks.activation import KINDS

# relu6 and the like sit at their kinks only by chance; these are exact in float64 everywhere.
SMOOTH = sorted(set(KINDS) - {"gelu", "gelu_tanh", "leaky_relu", "celu", "hard_sigmoid"})

windows = st.tuples(st.integers(1, 3), st.integers(1, 3))
features = st.integers(2, 5)
pairs = st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * 2)


@st.composite
def conv(draw):
    out = draw(features)
    return bl.Conv(
        out * 2,
        draw(windows),
        stride=draw(st.tuples(st.integers(1, 2), st.integers(1, 2))),
        padding=draw(st.one_of(st.sampled_from(["same", "valid"]), pairs)),
        dilation=draw(st.tuples(st.integers(1, 2), st.integers(1, 2))),
        groups=draw(st.sampled_from([1, 2])),
        use_bias=draw(st.booleans()),
    )


@st.composite
def pool(draw):
    options = {"stride": draw(st.sampled_from([None, 1, 2])), "padding": draw(
        st.sampled_from(["same", "valid"])
    )}
    if draw(st.booleans()):
        return bl.MaxPool(draw(windows), **options)
    return bl.AvgPool(draw(windows), count_include_pad=draw(st.booleans()), **options)


leaves = st.one_of(
    conv(),
    pool(),
    st.builds(bl.Dense, st.sampled_from([2, 4, 6]), use_bias=st.booleans()),
    st.builds(bl.BatchNorm, use_scale=st.booleans(), use_bias=st.booleans()),
    st.builds(bl.LayerNorm, st.sampled_from([(-1,), (-2, -1)])),
    st.builds(bl.Activation, st.sampled_from(SMOOTH)),
    st.just(bl.Identity()),
    st.just(bl.GlobalAvgPool()),
    st.just(bl.Flatten()),
    st.builds(bl.Permute, st.permutations([0, 1, 2]).map(tuple)),
    st.builds(bl.MLP, st.sampled_from([2, 4]), hidden=st.just((3,))),
)

merges = st.sampled_from(["add", "multiply", "mean", "max", "concat", "stack"])


def groups(inner):
    several = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        several.map(lambda blocks: bl.Sequential(*blocks)),
        st.builds(bl.Residual, inner, merge=merges.filter(lambda m: m != "stack")),
        st.builds(bl.Residual, inner, inner, merge=merges.filter(lambda m: m != "stack")),
        st.builds(lambda blocks, merge: bl.Parallel(*blocks, merge=merge), several, merges),
        inner.map(lambda b: bl.Sequential(bl.Shared("tied", b), bl.Shared("tied", b))),
    )


trees = st.lists(st.recursive(leaves, groups, max_leaves=6), min_size=1, max_size=4).map(
    lambda blocks: bl.Sequential(*blocks)
)


def inferred(net, layout):
    """The node if the blocks fit together, else None; nothing but our own errors may be raised."""
    shape = (7, 6, 4) if layout == "channels_last" else (4, 7, 6)
    try:
        node = bl.infer(net, shape, layout=layout, dtype="float64")
    except bl.BlockError as error:
        assert str(error)
        return None
    return node if bl.count(node) < 20_000 else None


def well_posed(report) -> bool:
    """Whether the reference itself is finite and not at the edge of what float64 can tell."""
    return np.isfinite(report.control) and report.controlled


@settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
@given(trees, st.sampled_from(["channels_last", "channels_first"]), st.integers(0, 10))
def test_random_trees_agree(net, layout, seed):
    check(net, layout, seed)


@pytest.mark.exhaustive
@settings(deadline=None, max_examples=500, suppress_health_check=list(HealthCheck))
@given(trees, st.sampled_from(["channels_last", "channels_first"]), st.integers(0, 1000))
def test_many_random_trees_agree(net, layout, seed):
    check(net, layout, seed)


def check(net, layout, seed):
    node = inferred(net, layout)
    if node is None:
        return
    names = [need(name) for name in FRAMEWORKS]
    try:
        report = bl.parity(node, backends=names, seed=seed, steps=0)
    except bl.UnsupportedError as error:
        assert "cannot share" in str(error)
        return
    assert all(report.backends), f"\n{net!r}\n{report}"


@settings(deadline=None, max_examples=200, suppress_health_check=list(HealthCheck))
@given(trees, st.sampled_from(["channels_last", "channels_first"]))
def test_inferred_shapes_are_produced_and_one_percent_is_seen(net, layout):
    """The reference makes the shape that infer says, and feels a change of a parameter."""
    node = inferred(net, layout)
    if node is None:
        return
    from blocks._parity import Inputs, measure, random_params

    inputs = Inputs.draw(node, 2, np.random.default_rng(0))
    params = random_params(node, 0)
    found = measure("numpy", node, params, inputs, steps=0)
    output = found.values["outputs"]["output"]
    assert output.shape == (2, *node.out_spec.shape)
    changed, same_inputs = one_percent(found, params, inputs)
    slope = sum(
        float((abs(changed[p] - params[p]) * abs(found.values["gradients"][p])).sum())
        for p in params
        if p in found.values["gradients"]
    )
    if slope > 1e-6 * abs(output).max() > 0:
        moved = bl.apply(bl.lower(node, "numpy", params=changed), same_inputs.x)
        assert relative(moved, output)[0] > TOLERANCES["float64"]["outputs"]


@settings(deadline=None, max_examples=100)
@given(trees)
def test_repr_and_equality_of_random_trees(net):
    again = eval(repr(net), vars(bl))
    assert again == net
    assert hash(again) == hash(net)

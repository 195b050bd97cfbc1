"""Random trees: whatever fits together means the same everywhere."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import blocks as bl
from blocks._backends import find_backend
from blocks._parity import TOLERANCES, Inputs, enlarged, measure, random_params, relative
from blocks.activation import KINDS
from conftest import FRAMEWORKS, need

# relu6 and the like sit at their kinks only by chance; these are exact in float64 everywhere.
SMOOTH = sorted(set(KINDS) - {"gelu", "gelu_tanh", "leaky_relu", "celu", "hard_sigmoid"})

windows = st.tuples(st.integers(1, 3), st.integers(1, 3))
# Mostly what keeps the shape, so that residuals fit.
steps = st.sampled_from([1, 1, 1, 2])
features = st.sampled_from([4, 4, 6])
pairs = st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * 2)
paddings = st.one_of(st.just("same"), st.just("same"), st.just("valid"), pairs)

convs = st.builds(
    bl.Conv,
    features,
    windows,
    stride=st.tuples(steps, steps),
    padding=paddings,
    dilation=st.tuples(steps, steps),
    groups=st.sampled_from([1, 2]),
    use_bias=st.booleans(),
)
pools = st.one_of(
    st.builds(bl.MaxPool, windows, steps, st.just("same")),
    st.builds(bl.AvgPool, windows, steps, st.just("same"), count_include_pad=st.booleans()),
)
leaves = st.one_of(
    convs,
    convs,
    pools,
    st.builds(bl.Dense, features, use_bias=st.booleans()),
    st.builds(bl.BatchNorm, use_scale=st.booleans(), use_bias=st.booleans()),
    st.builds(bl.LayerNorm, st.sampled_from([(-1,), (-2, -1)])),
    st.builds(bl.Activation, st.sampled_from(SMOOTH)),
    st.builds(bl.MLP, features, hidden=st.just((3,))),
    st.builds(bl.Permute, st.permutations([0, 1, 2]).map(tuple)),
    st.just(bl.Identity()),
)
tails = st.sampled_from(
    [
        bl.Identity(),
        bl.Sequential(bl.Flatten(), bl.Dense(3)),
        bl.Sequential(bl.GlobalAvgPool(), bl.BatchNorm(), bl.Dense(3)),
    ]
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


trees = st.recursive(leaves, groups, max_leaves=6)


def inferred(net, layout):
    """The node if the blocks fit together, else None; only our own errors may be raised."""
    shape = (7, 6, 4) if layout == "channels_last" else (4, 7, 6)
    try:
        node = bl.infer(net, shape, layout=layout, dtype="float64")
        find_backend("numpy").program(node)
    except (bl.ShapeError, bl.FieldError, bl.UnsupportedError):
        return None
    return node if bl.count(node) < 20_000 else None


@st.composite
def networks(draw):
    """Trees one after the other, without those that do not fit where they would stand."""
    layout = draw(st.sampled_from(["channels_last", "channels_first"]))
    blocks = []
    for tree in [*draw(st.lists(trees, min_size=2, max_size=6)), draw(tails)]:
        if inferred(bl.Sequential(*blocks, tree), layout) is not None:
            blocks.append(tree)
    return inferred(bl.Sequential(*blocks), layout)


@settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
@given(networks(), st.integers(0, 10))
def test_random_trees_agree(node, seed):
    check(node, seed)


@pytest.mark.exhaustive
@settings(deadline=None, max_examples=500, suppress_health_check=list(HealthCheck))
@given(networks(), st.integers(0, 1000))
def test_many_random_trees_agree(node, seed):
    check(node, seed)


def check(node, seed):
    names = [need(name) for name in FRAMEWORKS]
    report = bl.parity(node, backends=names, seed=seed, steps=0)
    assert all(report.backends), f"\n{node.block!r}\n{report}"


@settings(deadline=None, max_examples=200, suppress_health_check=list(HealthCheck))
@given(networks())
def test_inferred_shapes_are_produced_and_one_percent_is_seen(node):
    """The reference makes the shape that infer says, and feels a change of a parameter."""
    inputs = Inputs.draw(node, 2, np.random.default_rng(0))
    params = random_params(node, 0)
    found = measure("numpy", node, params, inputs, steps=0)
    output = found.values["outputs"]["output"]
    assert output.shape == (2, *node.out_spec.shape)
    changed, same_inputs = enlarged(found, params, inputs, 0.01)
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

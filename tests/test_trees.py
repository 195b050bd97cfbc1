"""Random trees: whatever fits together means the same everywhere."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import blocks as bl
from blocks._backends import find_backend
from blocks._parity import TOLERANCES, Inputs, enlarged, measure, random_params, relative
from blocks.activation import KINDS
from blocks.pattern import REDUCTIONS
from conftest import FRAMEWORKS, need
from custom_blocks import Gated

ADAPTERS = [find_backend(name) for name in bl.backends()]

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
turned = st.builds(
    bl.ConvTranspose,
    features,
    windows,
    stride=st.tuples(steps, steps),
    padding=paddings,
    dilation=st.tuples(steps, steps),
    groups=st.sampled_from([1, 2]),
    use_bias=st.booleans(),
)
norms = st.one_of(
    st.builds(bl.BatchNorm, use_scale=st.booleans(), use_bias=st.booleans()),
    st.builds(bl.LayerNorm, st.sampled_from([(-1,), (-2, -1)])),
    st.builds(bl.GroupNorm, st.sampled_from([1, 2]), use_scale=st.booleans()),
    st.builds(bl.RMSNorm, st.sampled_from([(-1,), (-2, -1)]), use_scale=st.booleans()),
)
ends = st.tuples(st.integers(0, 2), st.integers(0, 1))
shapes = st.one_of(
    st.builds(bl.Permute, st.permutations([0, 1, 2]).map(tuple)),
    st.builds(
        bl.Pad, st.tuples(ends, ends, ends), st.sampled_from(["constant", "reflect", "edge"])
    ),
    st.builds(bl.Crop, st.tuples(ends, ends, ends)),
    st.sampled_from(
        [bl.Reshape((-1, 2)), bl.Reshape((2, -1, 3)), bl.Rearrange("b ... c -> b c ...")]
    ),
    st.builds(bl.Upsample, windows, mode=st.sampled_from(["nearest", "linear"])),
    st.builds(bl.AdaptiveAvgPool, windows),
    st.builds(bl.Reduce, st.just("b (h 2) w c -> b h w c"), st.sampled_from(REDUCTIONS)),
    st.just(bl.EinMix("b h w c -> b h w d", "c d", "d", c=4, d=6)),
)
# Blocks of sequences: the rows of the picture one after the other.
sequences = st.one_of(
    st.builds(bl.SimpleRNN, features, st.booleans(), st.booleans(), st.booleans()),
    st.builds(bl.LSTM, features, st.booleans(), st.booleans(), st.booleans()),
    st.builds(bl.GRU, features, st.booleans(), st.booleans(), st.booleans()),
    st.builds(
        bl.MultiHeadAttention,
        st.sampled_from([1, 2]),
        causal=st.booleans(),
        head_size=windows.map(max),
    ),
).map(lambda block: bl.Sequential(bl.Rearrange("b h w c -> b (h w) c"), block))
values = st.one_of(
    st.builds(bl.Parameter, merge=st.sampled_from(["add", "multiply", "prepend"])),
    st.builds(
        bl.Constant, st.sampled_from(["normal", 2.0]), merge=st.sampled_from(["add", "multiply"])
    ),
    convs.map(
        lambda conv: bl.Sequential(
            bl.Parallel(conv, bl.Sequential(conv, bl.Tanh()), merge="tuple"), bl.Sample()
        )
    ),
    # both members, in the other order
    st.builds(
        lambda a, b: bl.Sequential(
            bl.Parallel(a, b, merge="tuple"), bl.Parallel(bl.Select(1), bl.Select(0))
        ),
        convs,
        pools,
    ),
    st.just(bl.Identity()),
)
leaves = st.one_of(
    convs,
    convs,
    turned,
    pools,
    norms,
    shapes,
    sequences,
    values,
    st.builds(bl.Dense, features, use_bias=st.booleans()),
    st.builds(bl.Activation, st.sampled_from(SMOOTH)),
    st.builds(bl.Softmax, st.integers(-2, 1)),
    st.builds(bl.LogSoftmax, st.integers(-2, 1)),
    st.builds(bl.Dropout, st.sampled_from([0.0, 0.3]), whole_channels=st.booleans()),
    st.builds(bl.MLP, features, hidden=st.just((3,)), rate=st.sampled_from([0.0, 0.5])),
    st.just(Gated()),
)
tails = st.sampled_from(
    [
        bl.Identity(),
        bl.Sequential(bl.Flatten(), bl.Dense(3)),
        bl.Sequential(bl.GlobalAvgPool(), bl.BatchNorm(), bl.Dense(3)),
        bl.Sequential(bl.GlobalMaxPool(), bl.Dense(3)),
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
    if any(isinstance(block, bl.Embedding) for block in net):
        shape = (7, 6)
    try:
        node = bl.infer(net, shape, layout=layout, dtype="float64")
        for adapter in ADAPTERS:
            adapter.program(node)
    except (bl.ShapeError, bl.FieldError, bl.UnsupportedError):
        return None
    return node if bl.count(node) < 20_000 else None


@st.composite
def networks(draw):
    """Trees one after the other, without those that do not fit where they would stand."""
    layout = draw(st.sampled_from(["channels_last", "channels_first"]))
    blocks = list(draw(st.sampled_from([(), (), (), (bl.Embedding(9, 4),)])))
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
    again = eval(repr(net), {**vars(bl), "Gated": Gated})
    assert again == net
    assert hash(again) == hash(net)

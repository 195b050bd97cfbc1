"""First numbers of kernels by the activation that follows."""

import numpy as np
import pytest

import blocks as bl
from blocks.activation import KINDS

HE, GLOROT, LECUN = "he_uniform", "glorot_uniform", "lecun_normal"

# The variance of a kernel before each kind, times fan_in or the sum of both fans.
HALVING = ("relu", "relu6", "elu", "celu", "gelu", "gelu_tanh", "silu", "hard_silu")
HALVING += ("mish", "softplus", "log_sigmoid")
EVEN = ("tanh", "hard_tanh", "softsign", "sigmoid", "hard_sigmoid")
EVEN += ("tanh_shrink", "soft_shrink", "hard_shrink")
FAN_IN = dict.fromkeys(HALVING, 2) | {"leaky_relu": 2 / (1 + 0.01**2), "selu": 1}
LAYERS = [
    (bl.Dense(150), (90,), 90, 150),
    (bl.Conv(60, (3, 5)), (7, 8, 11), 15 * 11, 15 * 60),
    (bl.ConvTranspose(50, (4,)), (6, 70), 4 * 70, 4 * 50),
]


def by_activation(*blocks, shape=(6,), **named):
    return bl.by_activation(bl.infer(bl.Sequential(*blocks, **named), shape))


@pytest.mark.parametrize(("layer", "shape", "fan_in", "fan_out"), LAYERS, ids=str)
@pytest.mark.parametrize("kind", [*KINDS, None])
def test_the_spread_suits_the_activation(kind, layer, shape, fan_in, fan_out):
    after = [] if kind is None else [bl.Activation(kind)]
    node = bl.infer(bl.Sequential(layer, *after), shape, dtype="float64")
    drawn = bl.init(node, seed=1, initial=bl.by_activation(node))
    variance = FAN_IN[kind] / fan_in if kind in FAN_IN else 2 / (fan_in + fan_out)
    assert drawn["0/kernel"].var() == pytest.approx(variance, rel=0.06)
    assert not drawn["0/bias"].any()
    bound = np.sqrt(3 * variance)
    inside = np.abs(drawn["0/kernel"]).max() <= bound
    assert inside == (kind != "selu")  # lecun_normal is the only one without a bound


def test_every_kind_is_settled():
    assert sorted([*FAN_IN, *EVEN]) == sorted(KINDS)


@pytest.mark.parametrize("slope", [0.2, 0.5, 1.0])
def test_a_slope_takes_away_less(slope):
    node = bl.infer(bl.Sequential(bl.Dense(150), bl.LeakyReLU(slope)), (90,), dtype="float64")
    drawn = bl.init(node, initial=bl.by_activation(node))["0/kernel"]
    assert drawn.var() == pytest.approx(2 / ((1 + slope**2) * 90), rel=0.03)


def test_each_layer_of_a_chain_has_its_own():
    found = by_activation(
        bl.Dense(7), bl.ReLU(), bl.Dense(5), bl.Tanh(), bl.Dense(4), bl.SELU(), bl.Dense(3)
    )
    assert found == {"0/kernel": HE, "2/kernel": GLOROT, "4/kernel": LECUN, "6/kernel": GLOROT}


BETWEEN = {
    "norms": ([bl.BatchNorm(), bl.LayerNorm(), bl.RMSNorm(), bl.GroupNorm(2)], (8, 9, 6)),
    "dropout": ([bl.Dropout(0.2), bl.Identity()], (8, 9, 6)),
    "pools": ([bl.MaxPool((2, 2)), bl.AvgPool((2, 2)), bl.AdaptiveAvgPool((1, 2))], (8, 9, 6)),
    "a global pool": ([bl.GlobalAvgPool()], (8, 9, 6)),
    "shapes": (
        [
            bl.Pad(((1, 1), (0, 0), (0, 0))),
            bl.Crop(((1, 1), (0, 0), (0, 0))),
            bl.Upsample((2, 2)),
            bl.Permute((1, 0, 2)),
            bl.Flatten(),
            bl.Reshape((-1, 2)),
            bl.Rearrange("b h c -> b c h"),
            bl.Reduce("b h c -> b c", "mean"),
        ],
        (8, 9, 6),
    ),
    "an array": ([bl.Parameter(merge="multiply"), bl.Constant(2.0, merge="multiply")], (8, 9, 6)),
    "chains": ([bl.Sequential(bl.Sequential(), bl.Repeat(bl.BatchNorm(), 2))], (8, 9, 6)),
}


@pytest.mark.parametrize("name", BETWEEN)
def test_what_is_between_is_passed_over(name):
    between, shape = BETWEEN[name]
    found = by_activation(bl.Conv(6, (1, 1)), *between, bl.ReLU(), shape=shape)
    assert found == {"0/kernel": HE}


@pytest.mark.parametrize(
    "between",
    [
        bl.Dense(4),
        bl.Softmax(),
        bl.Dense(6, use_bias=False),
        bl.EinMix("b i -> b o", weight_shape="i o", i=6, o=6),
    ],
)
def test_what_computes_is_not(between):
    assert by_activation(bl.Dense(6), between, bl.ReLU())["0/kernel"] == GLOROT


def test_a_branch_goes_on_after_the_merge():
    """As in residual networks, whose last activation is after the sum."""
    found = bl.by_activation(bl.infer(bl.ResidualBlock(8, stride=2, project=True), (6, 7, 4)))
    assert found == {
        "0/shortcut/0/kernel": HE,
        "0/body/0/kernel": HE,
        "0/body/3/kernel": HE,
    }
    found = by_activation(bl.Parallel(bl.Dense(3), bl.Sequential(bl.Dense(2), bl.Tanh())), bl.ELU())
    assert found == {"0/0/kernel": HE, "0/1/0/kernel": GLOROT}


def test_a_gate_is_a_way_of_its_own():
    found = by_activation(bl.Conv(32, (3, 3)), bl.SqueezeExcite(32), bl.ReLU(), shape=(6, 7, 4))
    assert found == {"0/kernel": HE, "1/body/1/kernel": HE, "1/body/3/kernel": GLOROT}


def test_a_value_that_goes_several_ways():
    """Ways without an activation do not count; where the others differ, there is none."""
    relu, tanh = (bl.Sequential(act, bl.Dense(6)) for act in (bl.ReLU(), bl.Tanh()))
    bare = bl.Dense(6)

    def first(fork, *after):
        return by_activation(bl.Dense(6), fork, *after)["0/kernel"]

    assert first(bl.Residual(relu)) == HE
    assert first(bl.Residual(bare), bl.ReLU()) == HE  # around it
    assert first(bl.Residual(bare, shortcut=bare), bl.ReLU()) == GLOROT
    assert first(bl.Parallel(relu, bare)) == HE
    assert first(bl.Parallel(relu, relu)) == HE
    assert first(bl.Parallel(relu, tanh)) == GLOROT
    assert first(bl.Parallel(bl.Sequential(bl.SELU(), bare), relu)) == GLOROT
    assert first(bl.Residual(bl.Sequential(bl.SELU(), bare)), bl.SELU()) == LECUN


def test_each_use_of_a_shared_layer_counts():
    tied = bl.Shared("tied", bl.Dense(6))
    assert by_activation(tied, bl.ReLU(), tied, bl.ReLU()) == {"0/kernel": HE}
    assert by_activation(tied, bl.ReLU(), tied) == {"0/kernel": HE}
    assert by_activation(tied, bl.ReLU(), tied, bl.Tanh()) == {"0/kernel": GLOROT}


def test_repetitions_follow_each_other():
    found = by_activation(bl.Repeat(bl.Sequential(bl.ReLU(), bl.Dense(6)), 3))
    assert found == {"0/0/1/kernel": HE, "0/1/1/kernel": HE, "0/2/1/kernel": GLOROT}


def test_what_a_layer_states_stays():
    """A last layer of zeros begins with the input."""
    node = bl.infer(bl.Residual(bl.MLP(6, hidden=(9,))), (6,))
    assert bl.by_activation(node) == {"body/0/kernel": HE, "body/2/kernel": GLOROT}
    zeros = bl.Sequential(bl.Dense(9), bl.ReLU(), bl.Dense(6, kernel_init="zeros"), bl.ReLU())
    node = bl.infer(zeros, (6,))
    assert bl.by_activation(node) == {"0/kernel": HE}
    assert not bl.init(node, initial=bl.by_activation(node))["2/kernel"].any()


def test_other_parameters_stay_as_their_blocks_draw_them():
    blocks = bl.Embedding(5, 8), bl.MultiHeadAttention(2), bl.LSTM(8), bl.Dense(8), bl.ReLU()
    node = bl.infer(bl.Sequential(*blocks), bl.Spec((4,), "int32"))
    found = bl.by_activation(node)
    assert list(found) == ["3/kernel"]
    usual, drawn = bl.init(node), bl.init(node, initial=found)
    changed = [path for path in usual if not np.array_equal(usual[path], drawn[path])]
    assert changed == ["3/kernel"]


def test_other_choices_are_added():
    node = bl.infer(bl.MLP(3, hidden=(5, 4)), (6,))
    params = bl.init(node, initial=bl.by_activation(node) | {"4/kernel": "zeros", "**/bias": 1})
    assert not params["4/kernel"].any()
    assert params["0/kernel"].any()
    assert params["0/bias"].all()


def test_a_builders_network():
    attributes = {"in_features_list": [8, 16, 16, 1], "output_activation": bl.Sigmoid()}
    node = bl.infer(bl.MLPBuilder(attributes).build(), (8,))
    assert list(bl.by_activation(node).values()) == [HE, HE, GLOROT]


def test_depth_costs_no_recursion():
    net = bl.Dense(6)
    for _ in range(2000):
        net = bl.Sequential(net)
    assert list(by_activation(net, bl.ReLU()).values()) == [HE]


def test_a_network_without_kernels_has_none():
    node = bl.infer(bl.ReLU(), (3,))
    assert bl.by_activation(node) == {}
    assert bl.init(node, initial=bl.by_activation(node)) == {}


@pytest.mark.parametrize("node", [None, bl.Dense(3), "net"])
def test_only_a_node_has_sizes(node):
    with pytest.raises(bl.FieldError, match="by_activation takes a node from infer, got"):
        bl.by_activation(node)

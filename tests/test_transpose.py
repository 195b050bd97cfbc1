"""Mirrored decoders: every shape on the way comes back, and norms and activations stand right."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import blocks as bl
from conftest import need

LAYOUTS = ("channels_last", "channels_first")


def kinds(net):
    return [getattr(block, "kind", type(block).__name__) for block in net]


def way(node):
    """The shapes of values from input to output, without those that repeat the one before."""
    links = [n for n in node.walk() if not n.children]
    shapes = [node.in_spec.shape, *(n.out_spec.shape for n in links)]
    return [shape for shape, _ in itertools.groupby(shapes)]


def decoded(net, shape, layout="channels_last"):
    """The nodes of an encoder and of its decoder; the decoder restores the input's shape."""
    node = bl.infer(net, shape, layout=layout)
    decoder = bl.infer(bl.transpose(node), node.out_spec, layout=layout)
    assert decoder.out_spec.shape == node.in_spec.shape
    return node, decoder


# ---- layers -----------------------------------------------------------------------------------


def test_a_perceptron():
    """1 -> 16 -> 16 -> 8: what stands between two layers stays there, Softmax at the end goes."""
    net = bl.Sequential(
        bl.Dense(16, use_bias=False),
        bl.ReLU(),
        bl.Dense(16, use_bias=False),
        bl.Tanh(),
        bl.Dropout(0.2),
        bl.Dense(1, use_bias=False),
        bl.Softmax(),
    )
    decoder = net.transpose((8,))
    assert decoder == bl.Sequential(
        bl.Dense(16, use_bias=False),
        bl.Tanh(),
        bl.Dense(16, use_bias=False),
        bl.ReLU(),
        bl.Dense(8, use_bias=False),
    )
    node = bl.infer(decoder, (1,))
    assert (node.out_spec.shape, bl.count(node)) == ((8,), 400)
    again = decoder.transpose((1,))
    assert [b.features for b in again if hasattr(b, "features")] == [16, 16, 1]
    assert bl.count(bl.infer(again, (8,))) == 400


def test_the_output_activation_is_the_last_one_only():
    net = bl.Sequential(bl.Dense(5), bl.ReLU(), bl.Dense(3), bl.ReLU(), bl.Dense(2))
    decoder = net.transpose((7,), output_activation=bl.Sigmoid())
    assert kinds(decoder) == ["Dense", "relu", "Dense", "relu", "Dense", "sigmoid"]


@pytest.mark.parametrize("width", range(3, 40))
def test_stride_two_comes_back_from_every_width(width):
    net = bl.Conv(4, (3,), stride=2, padding=((1, 1),))
    decoded(net, (width, 3))
    (layer,) = net.transpose((width, 3))
    if width == 28:
        assert bl.infer(net, (28, 3)).out_spec.shape == (14, 4)
        assert layer == bl.ConvTranspose(3, (3,), 2, ((1, 1),), output_padding=1)
        without = bl.ConvTranspose(3, (3,), 2, ((1, 1),))
        assert bl.infer(without, (14, 4)).out_spec.shape == (27, 3)


def test_names_of_padding_are_kept_where_they_mean_the_same():
    assert bl.Conv(4, (3,), padding="same").transpose((9, 2))[0].padding == "same"
    assert bl.Conv(4, (3,)).transpose((9, 2))[0].padding == "valid"
    assert bl.Conv(4, (4,), stride=2, padding="same").transpose((8, 2))[0].padding == "same"
    assert bl.ConvTranspose(4, (4,), 2, "same").transpose((8, 2))[0].padding == "same"


def test_cells_beyond_the_kernel_are_cut_off_first():
    """Two cells of bias alone would be two windows more."""
    net = bl.ConvTranspose(4, (1,), output_padding=2, dilation=3)
    decoder = net.transpose((5, 2))
    assert decoder == bl.Sequential(bl.Crop(((0, 2), (0, 0))), bl.Conv(2, (1,), dilation=3))
    decoded(net, (5, 2))


def test_use_bias_and_initialisers_are_kept_but_not_arrays():
    net = bl.Sequential(
        bl.Dense(3, use_bias=False, kernel_init="he_normal"),
        bl.Dense(2, kernel_init=np.ones((3, 2)), bias_init=np.ones(2), in_features=3),
    )
    first, second = net.transpose((4,))
    assert first == bl.Dense(3)
    assert second == bl.Dense(4, use_bias=False, kernel_init="he_normal")


@st.composite
def windows(draw, rank, channels, kind=bl.Conv):
    def several(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(rank))

    kernel = several(1, 4)
    pairs = tuple((draw(st.integers(0, k)), draw(st.integers(0, k))) for k in kernel)
    groups = draw(st.sampled_from([g for g in (1, 2, 3) if channels % g == 0]))
    return kind(
        groups * draw(st.integers(1, 2)),
        kernel,
        stride=several(1, 3),
        dilation=several(1, 3),
        padding=draw(st.sampled_from(["same", "valid", pairs])),
        groups=groups,
        use_bias=draw(st.booleans()),
    )


@st.composite
def pools(draw, rank):
    kernel = tuple(draw(st.integers(1, 3)) for _ in range(rank))
    stride = draw(st.sampled_from([None, 1, 2]))
    padding = draw(st.sampled_from(["same", "valid"]))
    return draw(st.sampled_from([bl.MaxPool, bl.AvgPool]))(kernel, stride, padding)


@st.composite
def encoders(draw):
    """Blocks one after the other, without those that do not fit where they would stand."""
    rank = draw(st.integers(1, 3))
    layout = draw(st.sampled_from(LAYOUTS))
    sizes = tuple(draw(st.lists(st.integers(4, 13), min_size=rank, max_size=rank)))
    channels = draw(st.integers(1, 4))
    shape = (*sizes, channels) if layout == "channels_last" else (channels, *sizes)
    blocks: list[bl.Block] = []

    def add(*new):
        try:
            node = bl.infer(bl.Sequential(*blocks, *new), shape, layout=layout)
        except bl.BlockError:
            return
        if math.prod(node.out_spec.shape) < 50_000:
            blocks.extend(new)

    def spec():
        return bl.infer(bl.Sequential(*blocks), shape, layout=layout).out_spec

    for _ in range(draw(st.integers(1, 4))):
        here = spec()
        if here.rank == rank + 1:
            conv = draw(windows(rank, here.channels))
            add(*draw(st.sampled_from([(conv,), (conv, bl.BatchNorm()), (bl.Residual(conv),)])))
            add(draw(pools(rank)))
        else:
            add(bl.Dense(draw(st.integers(1, 5))))
        ends = st.tuples(st.integers(0, 2), st.integers(0, 2))
        odd = [
            bl.ReLU(),
            bl.LayerNorm(),
            bl.Dropout(0.3),
            bl.Upsample(draw(st.tuples(*[st.integers(1, 2)] * rank))),
            bl.Upsample(size=draw(st.tuples(*[st.integers(2, 9)] * rank))),
            bl.AdaptiveAvgPool(draw(st.tuples(*[st.integers(1, 5)] * rank))),
            bl.Pad(draw(st.tuples(*[ends] * (rank + 1)))),
            bl.Crop(draw(st.tuples(*[ends] * (rank + 1)))),
            bl.Permute(draw(st.permutations(range(rank + 1)))),
            bl.Rearrange("b a ... c -> b c ... a"),
            bl.Rearrange("b (a c) ... -> b ... a c", c=2),
            bl.Rearrange("b a ... -> b (a ...)"),
            bl.Flatten(),
            bl.GlobalAvgPool(),
            draw(windows(rank, 2, bl.ConvTranspose)),
        ]
        add(draw(st.sampled_from(odd)))
    return bl.infer(bl.Sequential(*blocks), shape, layout=layout)


@settings(deadline=None, max_examples=300, suppress_health_check=list(HealthCheck))
@given(encoders())
def test_every_shape_on_the_way_comes_back(node):
    decoder = bl.infer(bl.transpose(node), node.out_spec, layout=node.in_spec.layout)
    assert decoder.out_spec.shape == node.in_spec.shape
    back = iter(reversed(way(decoder)))  # a GlobalAvgPool or a Crop has one step more in between
    assert all(shape in back for shape in way(node))
    again = bl.infer(bl.transpose(decoder), decoder.out_spec, layout=node.in_spec.layout)
    assert again.out_spec.shape == node.out_spec.shape


@settings(deadline=None, max_examples=200)
@given(st.data(), st.integers(1, 3), st.sampled_from(LAYOUTS))
def test_layers_alone_come_back(data, rank, layout):
    kind = data.draw(st.sampled_from([bl.Conv, bl.ConvTranspose]))
    block = data.draw(windows(rank, 6, kind))
    sizes = tuple(data.draw(st.integers(1, 12)) for _ in range(rank))
    shape = (*sizes, 6) if layout == "channels_last" else (6, *sizes)
    try:
        bl.infer(block, shape, layout=layout)
    except bl.ShapeError:
        assume(False)
    decoded(block, shape, layout)


def test_it_is_the_transposed_map():
    """With the same kernel, a mirrored Conv is the adjoint: <conv(x), y> = <x, mirror(y)>."""
    rng = np.random.default_rng(0)
    conv = bl.Conv(4, (3, 2), (2, 3), ((1, 0), (0, 2)), (2, 1), groups=2, use_bias=False)
    node = bl.infer(conv, (9, 8, 6), dtype="float64")
    (mirror,) = bl.transpose(node)
    kernel = rng.normal(size=node.params["kernel"].shape)
    x, y = rng.normal(size=(1, 9, 8, 6)), rng.normal(size=(1, *node.out_spec.shape))
    there = bl.apply(bl.lower(node, "numpy", params={"kernel": kernel}), x)
    back_node = bl.infer(mirror, node.out_spec.shape, dtype="float64")
    swapped = kernel.swapaxes(-1, -2)
    back = bl.apply(bl.lower(back_node, "numpy", params={"kernel": swapped}), y)
    assert np.isclose((there * y).sum(), (x * back).sum(), rtol=1e-12)


# ---- what stands between layers ---------------------------------------------------------------


def test_norms_and_activations_follow_their_layer():
    stage = (bl.BatchNorm(in_features=8), bl.ReLU(), bl.MaxPool((2, 2)), bl.Dropout(0.25))
    net = bl.Sequential(bl.Conv(8, (3, 3)), *stage, bl.Conv(16, (3, 3)), bl.BatchNorm(), bl.Tanh())
    decoder = net.transpose((12, 14, 3))
    assert kinds(decoder) == ["ConvTranspose", "BatchNorm", "relu", "Upsample", "ConvTranspose"]
    assert decoder[3] == bl.Upsample((2, 2))
    _, mirrored = decoded(net, (12, 14, 3))
    assert mirrored.children[1].params["scale"].shape == (8,)


def test_they_come_back_in_the_order_of_the_encoder():
    """Before activation, after activation, and a norm that sees the places of its numbers."""
    stage = (bl.ReLU(), bl.BatchNorm(), bl.AvgPool((2,)), bl.LayerNorm((-2, -1)))
    net = bl.Sequential(bl.BatchNorm(), bl.ReLU(), bl.Conv(4, (3,)), *stage, bl.Conv(6, (3,)))
    decoder = net.transpose((13, 2))
    assert kinds(decoder) == [
        "ConvTranspose",
        "LayerNorm",
        "relu",
        "BatchNorm",
        "Upsample",
        "ConvTranspose",
    ]


def test_flatten_comes_back_before_the_norm_of_the_channels():
    net = bl.Sequential(
        bl.Conv(4, (3, 2)), bl.BatchNorm(), bl.ReLU(), bl.Flatten(), bl.Dense(9), bl.ReLU()
    )
    decoder = net.transpose((2, 7, 6), layout="channels_first")
    assert kinds(decoder) == ["Dense", "Reshape", "BatchNorm", "relu", "ConvTranspose"]
    assert decoder[1] == bl.Reshape((4, 5, 5))


@pytest.mark.parametrize(
    ("pool", "mirror"),
    [
        (bl.MaxPool((2, 3)), bl.Upsample((2, 3))),
        (bl.AvgPool((4, 3)), bl.Upsample((5, 3))),  # a remainder
        (bl.AvgPool((3, 3)), bl.Upsample(size=(10, 9))),  # a remainder that is no multiple
        (bl.MaxPool((2, 2), 1), bl.Upsample(size=(10, 9))),  # overlapping
        (bl.MaxPool((3, 3), 2, "same"), bl.Upsample(size=(10, 9))),
        (bl.AdaptiveAvgPool((4, 3)), bl.Upsample(size=(10, 9))),
        (bl.AdaptiveAvgPool((2, 3)), bl.Upsample((5, 3))),
    ],
)
def test_pools_come_back(pool, mirror):
    assert list(pool.transpose((10, 9, 2))) == [mirror]
    decoded(pool, (10, 9, 2))


@pytest.mark.parametrize(
    "block", [bl.MaxPool((1, 1), 1), bl.Upsample((1, 1)), bl.Reshape((5, 4, -1))]
)
def test_a_block_that_changes_no_size_leaves_nothing(block):
    assert list(block.transpose((5, 4, 2))) == []


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("pool", [bl.GlobalAvgPool(), bl.GlobalMaxPool()])
def test_global_pools_come_back(pool, layout):
    shape = (5, 4, 2) if layout == "channels_last" else (2, 5, 4)
    ones = (1, 1, 2) if layout == "channels_last" else (2, 1, 1)
    decoder = pool.transpose(shape, layout=layout)
    assert list(decoder) == [bl.Reshape(ones), bl.Upsample(size=(5, 4))]


MOVES = {
    "Permute": (bl.Permute((2, 0, 1)), bl.Permute((1, 2, 0))),
    "Reshape": (bl.Reshape((2, -1)), bl.Reshape((6, 4, 3))),
    "Rearrange": (
        bl.Rearrange("b (h h2) w c -> b h w (h2 c)", h2=2),
        bl.Rearrange("b h w (h2 c) -> b (h h2) w c", h2=2, c=3),
    ),
    "Rearrange of ...": (
        bl.Rearrange("b rest0 ... -> b (... rest0)"),
        bl.Rearrange("b (rest1 rest2 rest0) -> b rest0 rest1 rest2", rest0=6, rest1=4, rest2=3),
    ),
    "Pad": (bl.Pad(((0, 2), (1, 0), (0, 0)), "edge"), bl.Crop(((0, 2), (1, 0), (0, 0)))),
    "Crop": (bl.Crop(((0, 2), (1, 0), (0, 0))), bl.Pad(((0, 2), (1, 0), (0, 0)))),
    "Upsample": (bl.Upsample((2, 3), mode="linear"), bl.AvgPool((2, 3))),
    "Upsample to a size": (bl.Upsample(size=(9, 8)), bl.AdaptiveAvgPool((6, 4))),
}


@pytest.mark.parametrize("name", MOVES)
def test_moves_come_back(name):
    block, mirror = MOVES[name]
    assert list(block.transpose((6, 4, 3))) == [mirror]
    decoded(block, (6, 4, 3))


@pytest.mark.parametrize("name", ["Permute", "Reshape", "Rearrange", "Rearrange of ..."])
def test_moves_come_back_number_by_number(name):
    block, mirror = MOVES[name]
    x = np.random.default_rng(0).normal(size=(2, 6, 4, 3))
    model = bl.lower(bl.Sequential(block, mirror), "numpy", input_shape=(6, 4, 3), dtype="float64")
    assert np.array_equal(bl.apply(model, x), x)


# ---- structure --------------------------------------------------------------------------------


def residual(n, **options):
    body = bl.Sequential(
        bl.Conv(n, (3, 3), padding="same", **options),
        bl.BatchNorm(),
        bl.ReLU(),
        bl.Conv(n, (3, 3), padding="same"),
        bl.BatchNorm(),
    )
    return bl.Residual(body)


def test_nested_blocks_are_one_chain():
    net = bl.Sequential(
        stem=bl.Sequential(bl.Dense(6), bl.Sequential(bl.Tanh())),
        middle=bl.Repeat(bl.Sequential(bl.Dense(5), bl.ReLU()), 2),
        head=bl.MLP(3, hidden=(4,)),
        end=bl.Identity(),
    )
    decoder = net.transpose((7,))
    wanted = ["Dense", "relu", "Dense", "relu", "Dense", "relu", "Dense", "tanh", "Dense"]
    assert kinds(decoder) == wanted
    assert [b.features for b in decoder if hasattr(b, "features")] == [4, 5, 5, 6, 7]
    decoded(net, (7,))


def test_a_residual_is_one_layer_and_keeps_the_norm_at_its_end():
    net = bl.Sequential(bl.Conv(4, (3, 3)), bl.ReLU(), residual(4), bl.ReLU(), bl.Conv(6, (3, 3)))
    decoder = net.transpose((9, 8, 2))
    assert kinds(decoder) == ["ConvTranspose", "relu", "Residual", "relu", "ConvTranspose"]
    assert kinds(decoder[2].body) == [
        "ConvTranspose",
        "BatchNorm",
        "relu",
        "ConvTranspose",
        "BatchNorm",
    ]
    decoded(net, (9, 8, 2))


def test_a_shortcut_is_mirrored_too():
    body = bl.Sequential(bl.Conv(6, (3, 3), 2, ((1, 1), (1, 1))), bl.BatchNorm(), bl.ReLU())
    net = bl.Residual(bl.Sequential(body, bl.Conv(6, (1, 1))), bl.Conv(6, (1, 1), 2))
    decoder = net.transpose((10, 9, 2))
    assert decoder[0].shortcut == bl.ConvTranspose(
        2, (1, 1), 2, ((0, 0), (0, 0)), output_padding=(1, 0)
    )
    decoded(net, (10, 9, 2))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_gate_comes_back_as_a_gate(layout):
    """In a product the body may have a size of 1, which repeats: all cells, or all channels."""
    shape = (12, 9, 8) if layout == "channels_last" else (8, 12, 9)
    cells = bl.SqueezeExcite(8, ratio=2)
    places = bl.Sequential(bl.Conv(1, (3, 3), padding="same"), bl.BatchNorm(in_features=1))
    channels = bl.Residual(bl.Sequential(places, bl.Sigmoid()), merge="multiply")
    for gate in (cells, channels):
        decoder = gate.transpose(shape, layout=layout)
        assert "sigmoid" in kinds(decoder[0].body)
        decoded(gate, shape, layout)
    conv = bl.Conv(8, (3, 3), padding="same")
    decoded(bl.Residual(conv, cells.expand().body, merge="multiply"), shape, layout)
    decoded(bl.Sequential(conv, cells, bl.ReLU(), bl.MaxPool((2, 2)), cells), shape, layout)


def test_norms_at_the_end_of_a_body_stay_only_where_they_fit():
    body = bl.Sequential(
        bl.Permute((2, 0, 1)),
        bl.BatchNorm(in_features=6),
        bl.Tanh(),
        bl.Conv(6, (1, 1)),
        bl.GroupNorm(3),
        bl.Permute((1, 2, 0)),
        bl.GroupNorm(2),
    )
    decoder = bl.Residual(body).transpose((5, 6, 4))
    assert kinds(decoder[0].body) == ["tanh", "Permute", "ConvTranspose", "Permute", "GroupNorm"]
    decoded(bl.Residual(body), (5, 6, 4))


def test_shared_layers_are_shared_with_each_other_alone():
    tied = bl.Shared("tied", bl.Dense(6))
    net = bl.Sequential(tied, bl.Shared("bent", bl.ReLU()), tied, bl.Dense(2))
    node = bl.infer(bl.autoencoder(net, (6,)), (6,))
    assert list(node.param_specs()) == [
        "encoder/0/kernel",
        "encoder/0/bias",
        "encoder/3/kernel",
        "encoder/3/bias",
        "decoder/0/kernel",
        "decoder/0/bias",
        "decoder/1/kernel",
        "decoder/1/bias",
    ]


def test_shared_blocks_without_parameters_need_no_name():
    pool = bl.Shared("pool", bl.MaxPool((2,)))
    decoder = bl.Sequential(pool, bl.Conv(3, (2,)), pool).transpose((11, 2))
    assert decoder[0] == bl.Upsample((2,))
    assert decoder[2] == bl.Upsample(size=(11,))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "conv",
    [
        bl.Conv(4, (3, 2), (2, 3)),
        bl.Conv(4, (3, 5), 2, "same"),
        bl.Conv(4, (1, 2), 3, ((0, 1), (2, 0)), dilation=2),
        bl.ConvTranspose(4, (2, 4), (1, 2), "same"),
        bl.ConvTranspose(4, (2, 1), (2, 3), output_padding=(1, 2)),
    ],
)
def test_a_shared_convolution_comes_back_from_every_size_at_which_it_is_used(conv, layout):
    shared = bl.Shared("tied", conv)
    net = bl.Sequential(shared, bl.ReLU(), shared, bl.ReLU(), shared)
    for size in (28, 29, 31, 34):
        shape = (size, size + 2, 4) if layout == "channels_last" else (4, size, size + 2)
        _, decoder = decoded(net, shape, layout)
        assert len(decoder.param_specs()) == 2


def test_a_residual_is_shared_only_where_one_mirror_serves_all_its_uses():
    halves = bl.Conv(4, (2,), 2, "same"), bl.Conv(4, (1,), 2)
    shared = bl.Shared("tied", bl.Residual(*halves))
    net = bl.Sequential(shared, bl.ReLU(), shared)
    assert len(decoded(net, (28, 4))[1].param_specs()) == 4
    with pytest.raises(bl.UnsupportedError) as error:
        net.transpose((27, 4))
    assert str(error.value) == (
        "Shared at '2' has no mirror: its uses (27, 4) -> (14, 4) at '0' and (14, 4) -> (7, 4) "
        "at '2' need different ones; share the layers in it."
    )
    around = bl.Residual(*(bl.Shared(name, conv) for name, conv in zip("ab", halves, strict=True)))
    assert len(decoded(bl.Sequential(around, bl.ReLU(), around), (27, 4))[1].param_specs()) == 4


@pytest.mark.parametrize(
    ("block", "shape", "name"),
    [
        (
            bl.Sequential(bl.Parallel(bl.Dense(2), bl.Dense(2), merge="tuple"), bl.Sample()),
            (3,),
            "Sample",
        ),
        (bl.Parallel(bl.Dense(2), bl.Dense(2)), (3,), "Parallel"),
        (bl.Embedding(5, 2), (3,), "Embedding"),
        (bl.LSTM(3), (4, 2), "LSTM"),
        (bl.MultiHeadAttention(1), (4, 2), "MultiHeadAttention"),
        (bl.Parameter(), (4, 2), "Parameter"),
        (bl.Reduce("b h c -> b c", "max"), (4, 2), "Reduce"),
        (bl.Residual(bl.Dense(2), merge="concat"), (4,), "Residual"),
        (bl.Residual(bl.Dense(2), merge="multiply"), (1,), "Residual"),
        (bl.Shared("tied", bl.Sequential(bl.Dense(2))), (4,), "Shared"),
        (bl.Conv(2, (3,), 2), (None, 4), "Conv"),
        (bl.MaxPool((2,)), (None, 4), "MaxPool"),
    ],
)
def test_what_has_no_mirror_is_named(block, shape, name):
    net = bl.Sequential(bl.Identity(), encoder=bl.Sequential(last=block))
    with pytest.raises(bl.UnsupportedError, match=rf"^{name} at 'encoder/last.*has no mirror: "):
        net.transpose(shape)


def test_any_length_is_no_hindrance_where_nothing_is_lost():
    net = bl.Sequential(bl.Conv(4, (3,), padding="same"), bl.ReLU(), bl.Conv(5, (2,)))
    assert bl.infer(net.transpose((None, 2)), (None, 5)).out_spec.shape == (None, 2)


def test_arguments_are_checked():
    with pytest.raises(bl.FieldError, match="Write ReLU"):
        bl.Dense(2).transpose((3,), output_activation=bl.ReLU)
    with pytest.raises(bl.FieldError, match="needs a block or a node"):
        bl.transpose("net", (3,))
    with pytest.raises(bl.FieldError, match="input_shape"):
        bl.transpose(bl.Dense(2))


def test_a_node_is_transposed_in_its_layout():
    node = bl.infer(bl.Conv(4, (3,), 2), (3, 10), layout="channels_first")
    assert bl.transpose(node)[0].features == 3


def test_depth_costs_no_recursion():
    net = bl.Dense(2)
    for _ in range(300):
        net = bl.Residual(bl.Sequential(net))
    assert isinstance(net.transpose((2,))[0], bl.Residual)


# ---- whole networks ---------------------------------------------------------------------------


def convolutions(*channels, residuals=0):
    """Convolutions that halve, with ReLU between them, and residuals after the first of them."""
    blocks = []
    for i, n in enumerate(channels):
        blocks.append(bl.Conv(n, (4, 4), 2, ((1, 1), (1, 1))))
        blocks += [residual(n)] if i < residuals else []
        blocks += [bl.ReLU()] if i < len(channels) - 1 else []
    return bl.Sequential(*blocks)


def test_seven_convolutions_mirror():
    """3 x 128 x 128 -> 64 x 8 x 8 -> 512 x 1 x 1 and back."""
    net = convolutions(8, 16, 32, 64, 128, 256, 512)
    node, decoder = decoded(net, (3, 128, 128), "channels_first")
    assert bl.count(node) == 2_796_920
    assert node.out_spec.shape == (512, 1, 1)
    assert (64, 8, 8) in way(decoder)
    assert way(decoder) == way(node)[::-1]


def test_the_counts_of_a_convolutional_autoencoder():
    net = convolutions(32, 64, 128, 256, 1024)
    node, decoder = decoded(net, (3, 32, 32), "channels_first")
    assert bl.count(node) == 4_885_472
    assert bl.count(decoder) == 4_884_451
    convs = [bl.count(n) for n in decoder.walk() if n.params]
    assert convs == [4_194_560, 524_416, 131_136, 32_800, 1_539]
    both = bl.infer(
        bl.autoencoder(net, (3, 32, 32), layout="channels_first"),
        (3, 32, 32),
        layout="channels_first",
    )
    assert both.out_spec.shape == (3, 32, 32)
    assert bl.count(both) == 9_769_923


def test_the_counts_of_a_residual_autoencoder():
    net = convolutions(32, 64, 128, 256, 1024, residuals=4)
    node, decoder = decoded(net, (3, 32, 32), "channels_first")
    assert bl.count(node, trainable=True) == 6_455_072
    assert bl.count(decoder, trainable=True) == 6_454_051


def test_mirrors_mean_the_same_everywhere(framework):
    net = bl.Sequential(
        bl.Conv(4, (3, 2), (2, 3), ((1, 0), (0, 2)), groups=2),
        bl.BatchNorm(),
        bl.ReLU(),
        bl.MaxPool((2, 2), 1),
        bl.Residual(bl.Sequential(bl.Conv(4, (3, 3), padding="same"), bl.BatchNorm())),
        bl.Tanh(),
        bl.AvgPool((2, 2), padding="same"),
        bl.Flatten(),
        bl.Dense(5),
    )
    both = bl.autoencoder(net, (11, 13, 2), output_activation=bl.Sigmoid())
    assert bl.parity(both, (11, 13, 2), backends=["numpy", need(framework)], steps=1)

"""Composites: networks of the literature have their known sizes; what is wrong is said."""

from itertools import pairwise, product

import numpy as np
import pytest

import blocks as bl
from conftest import need


def trainable(block, shape) -> int:
    return bl.count(bl.infer(block, shape), trainable=True)


def dense(*sizes):
    """Dense layers with ReLU between."""
    return [b for n in sizes for b in (bl.Dense(n), bl.ReLU())][:-1]


def lenet(activation):
    """LeCun et al. 1998, with Dense for its partly connected layers, as it is taught."""
    plain = {"norm": None, "activation": activation, "pool": bl.AvgPool((2, 2))}
    return bl.Sequential(
        bl.ConvNormAct(6, (5, 5), **plain),
        bl.ConvNormAct(16, (5, 5), padding="valid", **plain),
        bl.Flatten(),
        bl.Dense(120),
        activation,
        bl.Dense(84),
        activation,
        bl.Dense(10),
    )


def alexnet():
    """Krizhevsky et al. 2012, in one piece, as torchvision has it."""
    plain, pool = {"norm": None}, bl.MaxPool((3, 3), 2)
    return bl.Sequential(
        bl.ConvNormAct(64, (11, 11), 4, ((2, 2), (2, 2)), pool=pool, **plain),
        bl.ConvNormAct(192, (5, 5), pool=pool, **plain),
        bl.ConvNormAct(384, (3, 3), **plain),
        bl.ConvNormAct(256, (3, 3), **plain),
        bl.ConvNormAct(256, (3, 3), pool=pool, **plain),
        bl.Flatten(),
        *dense(4096, 4096, 1000),
    )


def vgg(norm=None):
    """Simonyan and Zisserman 2015, configuration A: VGG-11."""
    stages = []
    for features, times in ((64, 1), (128, 1), (256, 2), (512, 2), (512, 2)):
        convs = [bl.ConvNormAct(features, (3, 3), norm=norm) for _ in range(times)]
        stages += [*convs, bl.MaxPool((2, 2))]
    return bl.Sequential(*stages, bl.Flatten(), *dense(4096, 4096, 1000))


STEM = (
    bl.ConvNormAct(64, (7, 7), 2, ((3, 3), (3, 3))),
    bl.MaxPool((3, 3), 2, padding=((1, 1), (1, 1))),
)
HEAD = (bl.GlobalAvgPool(), bl.Dense(1000))


def resnet(*times, **options):
    """He et al. 2016 with bottlenecks; Xie et al. 2017 with groups."""
    stages = []
    for i, n in enumerate(times):
        features = 256 * 2**i
        first = bl.Bottleneck(features, stride=min(i + 1, 2), project=True, **options)
        stages += [first, bl.Repeat(bl.Bottleneck(features, **options), n - 1)]
    return bl.Sequential(*STEM, *stages, *HEAD)


def resnet18():
    stages = [bl.Repeat(bl.ResidualBlock(64), 2)]
    for features in (128, 256, 512):
        stages += [bl.ResidualBlock(features, 2, project=True), bl.ResidualBlock(features)]
    return bl.Sequential(*STEM, *stages, *HEAD)


def densenet():
    """Huang et al. 2017 without their bottlenecks, as it is taught: growth 32, blocks of four."""
    blocks = [bl.ConvNormAct(64, (7, 7), 2, use_bias=True), bl.MaxPool((3, 3), 2, "same")]
    for features in (96, 112, 120, None):
        blocks += [bl.DenseBlock(32, 4, use_bias=True), bl.BatchNorm(), bl.ReLU()]
        blocks += [bl.Conv(features, (1, 1)), bl.AvgPool((2, 2))] if features else []
    return bl.Sequential(*blocks, bl.GlobalAvgPool(), bl.Dense(10))


def googlenet():
    """Szegedy et al. 2015 without the two heads beside."""

    def conv(features, size, **options):
        return bl.ConvNormAct(features, (size, size), norm=None, **options)

    def pool(step=2):
        return bl.MaxPool((3, 3), step, "same")

    return bl.Sequential(
        *(conv(64, 7, stride=2), pool(), conv(64, 1), conv(192, 3), pool()),
        bl.Inception(64, (96, 128), (16, 32), 32),
        bl.Inception(128, (128, 192), (32, 96), 64),
        pool(),
        bl.Inception(192, (96, 208), (16, 48), 64),
        bl.Inception(160, (112, 224), (24, 64), 64),
        bl.Inception(128, (128, 256), (24, 64), 64),
        bl.Inception(112, (144, 288), (32, 64), 64),
        bl.Inception(256, (160, 320), (32, 128), 128),
        pool(),
        bl.Inception(256, (160, 320), (32, 128), 128),
        bl.Inception(384, (192, 384), (48, 128), 128),
        *HEAD,
    )


IMAGE = (224, 224, 3)

# Name -> network, input and number of trained parameters, as published or as torchvision has it.
NETWORKS = {
    "LeNet": (lenet(bl.Sigmoid()), (28, 28, 1), 61_706),
    "AlexNet": (alexnet(), IMAGE, 61_100_840),
    "VGG-11": (vgg(), IMAGE, 132_863_336),
    "VGG-11 with BatchNorm": (vgg(bl.BatchNorm()), IMAGE, 132_866_088),  # and no biases before it
    "ResNet-18": (resnet18(), IMAGE, 11_689_512),
    "ResNet-50": (resnet(3, 4, 6, 3), IMAGE, 25_557_032),
    "ResNet-152": (resnet(3, 8, 36, 3), IMAGE, 60_192_808),
    "ResNeXt-50": (resnet(3, 4, 6, 3, expansion=2, groups=32), IMAGE, 25_028_904),
    "GoogLeNet": (googlenet(), IMAGE, 6_998_552),
    "DenseNet": (densenet(), (96, 96, 1), 758_226),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_the_literature_have_their_number_of_parameters(name):
    block, shape, wanted = NETWORKS[name]
    assert trainable(block, shape) == wanted
    assert bl.infer(block, shape).out_spec.rank == 1


@pytest.mark.parametrize("n", [32, 64, 128, 256])
def test_a_residual_block_has_18_n_squared_and_6_n_parameters(n):
    assert trainable(bl.ResidualBlock(n, use_bias=True), (8, 6, n)) == 18 * n**2 + 6 * n
    assert trainable(bl.ResidualBlock(n), (8, 6, n)) == 18 * n**2 + 4 * n


def test_what_is_left_out_of_a_conv_leaves_no_placeholder():
    full = bl.ConvNormAct(8, (3, 3), pool=bl.MaxPool((2, 2)), rate=0.2).expand()
    kinds = [type(block).__name__ for block in full]
    assert kinds == ["Conv", "BatchNorm", "Activation", "MaxPool", "Dropout"]
    assert full[4].whole_channels
    assert len(bl.ConvNormAct(8, (3, 3), norm=None, activation=None).expand()) == 1


@pytest.mark.parametrize(
    ("fields", "bias"),
    [({}, False), ({"norm": None}, True), ({"use_bias": True}, True)],
)
def test_a_conv_has_a_bias_if_no_norm_takes_it_away(fields, bias):
    assert bl.ConvNormAct(8, (3, 3), **fields).expand()[0].use_bias is bias


@pytest.mark.parametrize("block", [bl.ResidualBlock, bl.Bottleneck])
def test_another_size_needs_a_projection(block):
    with pytest.raises(bl.ShapeError, match=r"(?s)at '1/0'.*\(8, 7, 4\).*\(4, 4, 4\).*stride"):
        bl.infer(bl.Sequential(bl.ReLU(), block(4, stride=2)), (8, 7, 4))
    with pytest.raises(bl.ShapeError, match=r"(?s)\(8, 7, 4\).*\(8, 7, 12\)"):
        bl.infer(block(12), (8, 7, 4))
    node = bl.infer(block(12, stride=2, project=True), (8, 7, 4))
    assert node.out_spec.shape == (4, 4, 12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bl.ConvNormAct(6, 3), r"kernel_size must be .* write kernel_size=\(3, 3\)"),
        (lambda: bl.ConvNormAct(6, (3, 3), groups=4), "groups=4 does not divide features=6"),
        (lambda: bl.ConvNormAct(6, (3, 3), use_bias=1), "use_bias must be True or False, got 1"),
        (lambda: bl.ConvNormAct(6, (3, 3), norm=bl.BatchNorm), r"Write BatchNorm\(...\)"),
        (lambda: bl.ResidualBlock(6, norm=None), "ResidualBlock.norm must be a block, got None"),
        (lambda: bl.Bottleneck(6), "features=6 cannot be divided by expansion=4"),
        (lambda: bl.Bottleneck(8, groups=4), "expansion=4 and then by groups=4"),
        (lambda: bl.SqueezeExcite(8), "ratio=16 leaves nothing of features=8"),
        (lambda: bl.TransformerEncoderLayer(6, 4, 8), "num_heads=4 does not divide features=6"),
        (lambda: bl.Inception(3, (2,), (3, 2), 2), r"threes must be two positive ints, got \(2,\)"),
    ],
)
def test_wrong_fields_are_refused(make, message):
    with pytest.raises(bl.FieldError, match=message):
        make()


def test_squeeze_and_excite_has_two_small_layers():
    """Hu et al. 2018: 2 C^2 / r weights, here with biases."""
    assert trainable(bl.SqueezeExcite(64, ratio=4), (5, 6, 64)) == 2 * 64**2 // 4 + 64 // 4 + 64


def test_squeeze_and_excite_scales_channels():
    x = np.random.default_rng(0).normal(size=(2, 5, 6, 4))
    model = bl.lower(bl.SqueezeExcite(4, 2), "numpy", input_shape=(5, 6, 4), dtype="float64")
    scale = bl.apply(model, x) / x
    assert np.allclose(scale, scale[:, :1, :1])
    assert len(np.unique(scale.round(12))) == 8


def test_a_product_repeats_sizes_of_one_and_no_others():
    gate = bl.Sequential(bl.AdaptiveAvgPool((1, 1)), bl.Conv(1, (1, 1)))
    assert bl.infer(bl.Residual(gate, merge="multiply"), (5, 6, 4)).out_spec.shape == (5, 6, 4)
    assert bl.infer(bl.Residual(bl.Dense(4), merge="multiply"), (1,)).out_spec.shape == (4,)
    for block, shape, merge in (
        (gate, (5, 6, 4), "add"),
        (bl.Conv(4, (2, 1)), (5, 6, 4), "multiply"),
        (bl.Flatten(), (5, 6), "multiply"),
    ):
        with pytest.raises(bl.ShapeError, match="so both need one shape"):
            bl.infer(bl.Residual(block, merge=merge), shape)


# torch has the transformer's layers. Its names, and where ours are, norm behind or before.
ENCODER = {
    False: {"self_attn": "0/body/0", "norm1": "1", "linear": "2/body/0", "norm2": "3"},
    True: {"norm1": "0/body/0", "self_attn": "0/body/1", "norm2": "1/body/0", "linear": "1/body/1"},
}
DECODER = {
    False: {
        "self_attn": "0/0/1/body/0",
        "norm1": "0/0/2",
        "multihead_attn": "1/body/0",
        "norm2": "2",
        "linear": "3/body/0",
        "norm3": "4",
    },
    True: {
        "norm1": "0/0/1/body/0",
        "self_attn": "0/0/1/body/1",
        "norm2": "1/body/0/0/1",
        "multihead_attn": "1/body/1",
        "norm3": "2/body/0",
        "linear": "2/body/1",
    },
}


def of_torch(layer, places: dict[str, str]) -> dict[str, np.ndarray]:
    """The parameters of torch's layer under our names."""
    state = {name: tensor.numpy() for name, tensor in layer.state_dict().items()}
    found = {}
    for name, path in places.items():
        if name == "linear":
            for i, theirs in ((0, "linear1"), (2, "linear2")):
                found[f"{path}/{i}/kernel"] = state[f"{theirs}.weight"].T
                found[f"{path}/{i}/bias"] = state[f"{theirs}.bias"]
        elif name.startswith("norm"):
            found |= {f"{path}/scale": state[f"{name}.weight"]}
            found |= {f"{path}/bias": state[f"{name}.bias"]}
        else:
            kernels = np.split(state[f"{name}.in_proj_weight"], 3)
            biases = np.split(state[f"{name}.in_proj_bias"], 3)
            for part, kernel, bias in zip(("query", "key", "value"), kernels, biases, strict=True):
                found |= {f"{path}/{part}_kernel": kernel.T, f"{path}/{part}_bias": bias}
            found[f"{path}/out_kernel"] = state[f"{name}.out_proj.weight"].T
            found[f"{path}/out_bias"] = state[f"{name}.out_proj.bias"]
    return found


KINDS = [*product([False, True], [("relu", bl.ReLU()), ("gelu", bl.GELU())], [False, True])]


def pair(kind: str, norm_first: bool, activation):
    """torch's layer with parameters off their defaults, and ours."""
    import torch

    torch.manual_seed(0)
    options = {"dropout": 0.0, "batch_first": True, "dtype": torch.float64}
    theirs = getattr(torch.nn, f"Transformer{kind}Layer")(
        6, 3, 10, activation=activation[0], norm_first=norm_first, **options
    ).eval()
    for p in theirs.parameters():
        p.data += 0.3 * torch.randn_like(p)
    ours = getattr(bl, f"Transformer{kind}Layer")(
        6, 3, 10, activation=activation[1], norm_first=norm_first
    )
    return theirs, ours


@pytest.mark.parametrize(("norm_first", "activation", "causal"), KINDS)
def test_the_encoder_layer_is_torchs(norm_first, activation, causal):
    need("torch")
    import torch

    theirs, ours = pair("Encoder", norm_first, activation)
    ours = ours.of_fields(**ours.fields(), causal=causal)
    x = np.random.default_rng(0).normal(size=(2, 5, 6))
    mask = torch.nn.Transformer.generate_square_subsequent_mask(5, dtype=torch.float64)
    with torch.no_grad():
        wanted = theirs(torch.tensor(x), src_mask=mask if causal else None).numpy()
    params = of_torch(theirs, ENCODER[norm_first])
    model = bl.lower(ours, "numpy", input_shape=(5, 6), params=params, dtype="float64")
    assert np.abs(bl.apply(model, x) - wanted).max() < 1e-12 * np.abs(wanted).max()


@pytest.mark.parametrize("norm_first", [False, True])
def test_the_decoder_layer_is_torchs(norm_first):
    need("torch")
    import torch

    theirs, ours = pair("Decoder", norm_first, ("relu", bl.ReLU()))
    rng = np.random.default_rng(0)
    x, memory = rng.normal(size=(2, 5, 6)), rng.normal(size=(2, 7, 6))
    mask = torch.nn.Transformer.generate_square_subsequent_mask(5, dtype=torch.float64)
    with torch.no_grad():
        wanted = theirs(torch.tensor(x), torch.tensor(memory), tgt_mask=mask).numpy()
    params = of_torch(theirs, DECODER[norm_first])
    model = bl.lower(ours, "numpy", input_shape=((5, 6), (7, 6)), params=params, dtype="float64")
    assert np.abs(bl.apply(model, (x, memory)) - wanted).max() < 1e-12 * np.abs(wanted).max()


def test_dropout_is_where_torch_has_it():
    for norm_first in (False, True):
        layer = bl.TransformerEncoderLayer(6, 3, 10, norm_first=norm_first, rate=0.2)
        node = bl.infer(layer, (5, 6))
        before = [type(n.form).__name__ for n in node.walk() if isinstance(n.form, bl.Leaf)]
        kinds = [a for a, b in pairwise(before) if b == "Dropout"]
        assert kinds == ["MultiHeadAttention", "Activation", "Dense"]


def test_decoder_layers_can_be_stacked():
    layer = bl.TransformerDecoderLayer(6, 3, 10)
    both = bl.Parallel(layer, bl.Select(1), merge="tuple")
    net = bl.Sequential(bl.Repeat(both, 3), bl.Select(0))
    assert bl.infer(net, ((5, 6), (7, 4))).out_spec.shape == (5, 6)


def test_a_residual_autoencoder_has_the_parameters_that_arithmetic_says():
    """18 n^2 + 6 n for each block; in * out * 16 + out for each layer that halves or doubles."""
    halving, doubling = (32, 64, 128, 256, 1024), (256, 128, 64, 32, 3)
    window = {"kernel_size": (4, 4), "stride": 2, "padding": ((1, 1), (1, 1))}

    def staged(make, sizes, inner):
        parts = [[make(n, **window), bl.ReLU(), bl.ResidualBlock(n, use_bias=True)] for n in inner]
        return bl.Sequential(
            *(part for stage in parts for part in stage), make(sizes[-1], **window)
        )

    encoder = staged(bl.Conv, halving, halving[:-1])
    decoder = staged(bl.ConvTranspose, doubling, doubling[:-1])
    assert trainable(encoder, (32, 32, 3)) == 6_455_072
    assert trainable(decoder, (1, 1, 1024)) == 6_454_051
    net = bl.Sequential(encoder=encoder, decoder=decoder)
    assert trainable(net, (32, 32, 3)) == 12_909_123
    node = bl.infer(net, (3, 32, 64), layout="channels_first")
    assert node.children[0].out_spec.shape == (1024, 1, 2)
    assert node.out_spec.shape == (3, 32, 64)


def test_resnet_152_has_152_layers():
    node = bl.infer(*NETWORKS["ResNet-152"][:2])
    layers = [n.path for n in node.walk() if isinstance(n.form, (bl.Conv, bl.Dense))]
    assert len([path for path in layers if "shortcut" not in path]) == 152


def test_a_conv_with_norm_and_activation_has_any_rank():
    signal = bl.ConvNormAct(4, (3,), pool=bl.MaxPool((2,)))
    assert bl.infer(signal, (28, 2)).out_spec.shape == (14, 4)
    volume = bl.ConvNormAct(4, (3, 3, 3), pool=bl.MaxPool((2, 2, 2), 1))
    assert bl.infer(volume, (8, 28, 28, 2)).out_spec.shape == (7, 27, 27, 4)

"""The practical on architectures: images, encoders and decoders, residual blocks.

Shapes are (channels, height, width). The networks are those of the examples.
"""

from __future__ import annotations

import numpy as np
import pytest
from einops import rearrange, reduce, repeat
from hypothesis import given, settings
from hypothesis import strategies as st

import blocks as bl
from conftest import example, need

IMAGES = example("09_images_and_patterns")
CODERS = example("10_encoder_and_decoder")
IMAGE = example("12_image_to_image")

FIRST = {"layout": "channels_first"}


def infer(net, *shape, **options):
    return bl.infer(net, shape, **FIRST, **options)


def counts(net, *shape):
    """The number of parameters of each layer that has some, and of all of them."""
    node = infer(net, *shape)
    each = [bl.count(child, trainable=True) for child in node.children]
    return [size for size in each if size], bl.count(node, trainable=True)


def shapes(net, *shape):
    """The shape after each layer with parameters."""
    return [n.out_spec.shape for n in infer(net, *shape).children if n.params]


def batch(*shape):
    return np.random.default_rng(0).normal(size=shape)


def agree(net, *shape, backend, **options):
    options = {"dtype": "float64", "steps": 0, "batch_size": 2} | FIRST | options
    report = bl.parity(net, shape, backends=[backend], **options)
    assert report, report


# Images and patterns


@pytest.fixture(scope="module")
def coffee():
    """Ten times the same image, small enough for a test, with its edges."""
    image = IMAGES.picture().astype(np.float32)[::8, ::8]
    return repeat(image / image.max(), "h w c -> b c h w", b=10)


def test_the_picture_and_its_batch():
    image = IMAGES.picture()
    assert (image.shape, image.dtype) == ((400, 600, 3), np.uint8)
    image = image / image.max()
    assert image.max() == 1.0
    found = repeat(image, "h w c -> b c h w", b=10)
    assert found.shape == (10, 3, 400, 600)
    assert all(np.array_equal(one, image.transpose(2, 0, 1)) for one in found)


def test_a_mosaic_of_two_rows():
    images = batch(10, 3, 4, 6)
    mosaic = rearrange(images, "(b1 b2) c h w -> (b1 h) (b2 w) c", b1=2)
    assert mosaic.shape == (2 * 4, 5 * 6, 3)
    for row, column in np.ndindex(2, 5):
        piece = mosaic[4 * row : 4 * row + 4, 6 * column : 6 * column + 6]
        assert np.array_equal(piece, images[5 * row + column].transpose(1, 2, 0))
    with pytest.raises(Exception, match="divide"):
        rearrange(images, "(b1 b2) c h w -> (b1 h) (b2 w) c", b1=3)


def test_a_perceptron_of_pixels(backend):
    """Pixels are in the same order everywhere, whatever a framework's own layout is."""
    node = infer(IMAGES.mlp, 3, 400, 600)
    assert [child.out_spec.shape for child in node.children] == [(720_000,), (5,), (5,), (1,)]
    assert (bl.count(node.children[1]), bl.count(node.children[3])) == (3_600_005, 6)
    assert bl.count(node) == 3_600_011
    small = infer(IMAGES.mlp, 3, 4, 6, dtype="float64")
    params, x = bl.init(small), batch(10, 3, 4, 6)
    y = x.reshape(10, -1) @ params["1/kernel"] + params["1/bias"]
    y = np.maximum(y, 0) @ params["3/kernel"] + params["3/bias"]
    found = bl.apply(bl.lower(small, backend, params=params), x)
    assert found.shape == (10, 1)
    np.testing.assert_allclose(found, y, rtol=0, atol=1e-13)


def test_patterns_that_are_none_are_refused():
    with pytest.raises(bl.FieldError, match="is no pattern"):
        bl.Rearrange("b c h w -> b (c h w")
    with pytest.raises(bl.ShapeError, match="at the top"):
        infer(bl.Reduce("b c (h h2) w -> b c h w", "max", h2=2), 3, 5, 4)


def test_numbers_in_a_kernel():
    sizes = {
        (1, 1): 4 * 4,
        (3, 1): 3 * 4 * 4,
        (3, 24): 24 * 3 * 4 * 4,
    }
    for (channels, features), size in sizes.items():
        node = infer(bl.Conv(features, (4, 4)), channels, 9, 8)
        assert node.params["kernel"].size == size
        assert bl.count(node) == size + features
    assert sizes[3, 24] == 1152


def test_an_edge_filter_set_by_hand(backend, coffee):
    node = infer(IMAGES.edges, *coffee.shape[1:])
    model = bl.lower(node, backend)
    params = bl.params_of(model)
    assert params["kernel"].size == 27
    params["kernel"][...] = IMAGES.SOBEL[:, :, None, None]
    bl.load_params(model, params)
    found = bl.apply(model, coffee)
    assert found.shape == (10, 1, 50 - 2, 75 - 2)
    grey = coffee.sum(1)  # the same filter for each colour is a filter of their sum
    across = grey[:, :, :-2] - grey[:, :, 2:]
    wanted = across[:, :-2] + 2 * across[:, 1:-1] + across[:, 2:]
    np.testing.assert_allclose(found[:, 0], wanted, rtol=0, atol=1e-5)
    assert abs(found).max() > 1
    flat = bl.apply(model, np.full_like(coffee, 0.7))
    np.testing.assert_allclose(flat, 0, atol=1e-5)
    assert infer(IMAGES.edges, 3, 400, 600).out_spec.shape == (1, 398, 598)
    if backend == "torch":
        assert tuple(model.weight.shape) == (1, 3, 3, 3)
        assert model.weight.requires_grad


@pytest.mark.parametrize("kind", ["max", "mean"])
def test_a_pool_is_a_pattern(backend, kind):
    pattern, pool = {
        "max": (IMAGES.max_pool, bl.MaxPool((2, 2))),
        "mean": (IMAGES.mean_pool, bl.AvgPool((2, 2))),
    }[kind]
    x = batch(2, 3, 6, 10)
    wanted = reduce(x, "b c (h1 h2) (w1 w2) -> b c h1 w1", kind, h2=2, w2=2)
    for block in (pattern, pool):
        found = bl.apply(bl.lower(infer(block, 3, 6, 10, dtype="float64"), backend), x)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-15 if kind == "mean" else 0)


# Kernel, stride and padding


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 32).map(lambda n: 2 * n), st.integers(1, 32).map(lambda n: 2 * n))
def test_one_pattern_keeps_and_one_halves(height, width):
    """For all even sizes, and each axis by itself."""
    sizes = height, width
    halved = height // 2, width // 2
    assert infer(CODERS.keep(5), 3, *sizes).out_spec.shape == (5, *sizes)
    assert infer(CODERS.halve(5), 3, *sizes).out_spec.shape == (5, *halved)
    assert infer(CODERS.double(5), 3, *halved).out_spec.shape == (5, *sizes)


def test_transposed_convolutions_double(backend):
    assert infer(CODERS.double(5), 3, 16, 16).out_spec.shape == (5, 32, 32)
    agree(CODERS.double(4), 3, 5, 2, backend=backend)


def test_only_a_window_of_one_without_padding_is_linear(backend):
    """1, 1, 1 makes nine cells of one."""
    padded = bl.Conv(4, (1, 1), padding=((1, 1), (1, 1)))
    assert infer(padded, 3, 1, 1).out_spec.shape == (4, 3, 3)
    conv, dense = infer(bl.Conv(4, (1, 1)), 3, 1, 1), bl.infer(bl.Dense(4), (3,))
    params, x = bl.init(dense), np.float32(batch(2, 3))
    linear = bl.apply(bl.lower(dense, backend, params=params), x)
    params["kernel"] = params["kernel"][None, None]
    found = bl.apply(bl.lower(conv, backend, params=params), x[:, :, None, None])
    np.testing.assert_allclose(found[:, :, 0, 0], linear, rtol=0, atol=1e-6)


# Encoder and decoder

LAYERS = [1_568, 32_832, 131_200, 524_544, 4_195_328]
LAYERS_BACK = [4_194_560, 524_416, 131_136, 32_800, 1_539]


def test_an_encoder_of_five_layers(backend):
    sizes = [(32, 16, 16), (64, 8, 8), (128, 4, 4), (256, 2, 2), (1024, 1, 1)]
    assert shapes(CODERS.encoder, 3, 32, 32) == sizes
    assert counts(CODERS.encoder, 3, 32, 32) == (LAYERS, 4_885_472)
    model = bl.lower(infer(CODERS.encoder, 3, 32, 32), backend)
    assert bl.apply(model, np.zeros((10, 3, 32, 32))).shape == (10, 1024, 1, 1)


def test_an_encoder_with_fewer_parameters():
    assert counts(CODERS.small, 3, 32, 32)[1] == 2_526_048
    assert infer(CODERS.small, 3, 32, 32).out_spec.shape == (1024, 1, 1)


def test_a_decoder_of_five_layers(backend):
    sizes = [(256, 2, 2), (128, 4, 4), (64, 8, 8), (32, 16, 16), (3, 32, 32)]
    assert shapes(CODERS.decoder, 1024, 1, 1) == sizes
    assert counts(CODERS.decoder, 1024, 1, 1) == (LAYERS_BACK, 4_884_451)
    small = CODERS.stack(CODERS.double, (6, 4, 3))
    agree(small, 7, 1, 2, backend=backend)


def test_a_summary_says_the_same_of_each_layer():
    text = str(CODERS.encoder.summary((3, 32, 32), **FIRST))
    assert all(f"{size:,}" in text for size in (*LAYERS, 4_885_472))


def test_encoder_and_decoder_of_seven_layers():
    down, up = CODERS.deep_encoder, CODERS.deep_decoder
    assert infer(down, 3, 128, 128).out_spec.shape == (512, 1, 1)
    assert shapes(down, 3, 128, 128)[3] == (64, 8, 8)
    assert counts(down, 3, 128, 128)[1] == 2_796_920
    assert infer(up, 512, 1, 1).out_spec.shape == (3, 128, 128)
    assert shapes(up, 512, 1, 1)[2] == (64, 8, 8)


def test_images_that_are_not_square():
    assert infer(CODERS.encoder, 3, 32, 64).out_spec.shape == (1024, 1, 2)
    more, other = CODERS.halved_width, CODERS.quartered_width
    assert shapes(more, 3, 32, 64)[0] == (16, 32, 32)
    assert counts(more, 3, 32, 64)[0][0] == 592
    assert infer(more, 3, 32, 64).out_spec.shape == (1024, 1, 1)
    assert shapes(other, 3, 32, 64)[0] == (32, 16, 16)
    assert counts(other, 3, 32, 64) == ([3_104, *LAYERS[1:]], 4_887_008)
    assert infer(other, 3, 32, 64).out_spec.shape == (1024, 1, 1)


def test_windows_that_are_not_square(backend):
    agree(CODERS.quartered_width[0], 3, 4, 8, backend=backend)
    agree(CODERS.halved_width[0], 3, 5, 6, backend=backend)


@pytest.mark.parametrize("features", [32, 64, 128, 256])
def test_parameters_of_a_residual_block(features):
    node = infer(CODERS.residual(features), features, 3, 2)
    assert bl.count(node, trainable=True) == 18 * features**2 + 6 * features
    assert node.out_spec.shape == (features, 3, 2)


def test_a_residual_block(backend):
    """relu(x + body(x)), and a body of another size is refused."""
    block, x = CODERS.residual(3), batch(2, 3, 4, 5)
    node = infer(block, 3, 4, 5, dtype="float64")
    params = bl.init(node, initial={"**/bias": bl.initializers.Normal()})
    body = {p.removeprefix("0/body/"): a for p, a in params.items()}
    inner = bl.lower(infer(block[0].body, 3, 4, 5, dtype="float64"), backend, params=body)
    found = bl.apply(bl.lower(node, backend, params=params), x)
    wanted = np.maximum(x + bl.apply(inner, x), 0)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)
    agree(block, 3, 4, 5, backend=backend, steps=3)
    with pytest.raises(bl.ShapeError, match="adds its body to its input"):
        infer(bl.Residual(CODERS.halve(3)), 3, 4, 4)


def test_autoencoders(backend):
    plain, residual = CODERS.autoencoder(), CODERS.net
    assert counts(plain, 3, 32, 32)[1] == 9_769_923
    assert counts(residual, 3, 32, 32)[1] == 12_909_123
    assert counts(residual["encoder"], 3, 32, 32)[1] == 6_455_072
    assert counts(residual["decoder"], 1024, 1, 1)[1] == 6_454_051
    assert infer(residual, 3, 32, 32).out_spec.shape == (3, 32, 32)
    model = bl.lower(infer(plain, 3, 32, 32), backend)
    assert bl.apply(model, np.zeros((10, 3, 32, 32))).shape == (10, 3, 32, 32)


def test_a_small_residual_autoencoder(backend):
    net = bl.Sequential(
        encoder=CODERS.stack(CODERS.halve, (4, 6), CODERS.residual),
        decoder=CODERS.stack(CODERS.double, (4, 3), CODERS.residual),
    )
    agree(net, 3, 8, 4, backend=backend)


def test_a_listing_of_nested_blocks():
    """The hierarchy is the blocks', by the same names."""
    need("torch")
    model = bl.lower(infer(CODERS.net, 3, 32, 32), "torch")
    text = repr(model.encoder)
    assert "(0): Conv2d(3, 32, kernel_size=(4, 4), stride=(2, 2), padding=(1, 1))" in text
    assert list(dict(model.encoder[1].named_children())) == ["0", "1"]
    assert [type(m).__name__ for m in model.encoder[1][0].body] == [
        "Conv2d",
        "BatchNorm2d",
        "ReLU",
        "Conv2d",
        "BatchNorm2d",
    ]


# Image to image


def test_a_last_layer_of_zeros_begins_with_the_input(backend):
    node = infer(IMAGE.net, 1, 32, 32)
    x = np.float32(batch(2, 1, 32, 32))
    y = bl.apply(bl.lower(node, backend), x)
    assert y.shape == (2, 3, 32, 32)
    assert np.array_equal(y, np.broadcast_to(x, y.shape))


def test_stages_with_skips(backend):
    agree(IMAGE.coloured(2, 3), 1, 4, 2, backend=backend)

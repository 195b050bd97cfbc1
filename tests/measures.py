"""What the stock layers of torch, Keras and Flax do as they come, measured.

One function for each entry of `differences.py` that has numbers. It returns three, for torch, Keras
and Flax, in float32: how far each is from what isoblocks means, as a share of the largest number,
unless the entry says otherwise. None stands where a framework has no such thing. Keras runs under
TensorFlow. What is only said in the entry is asserted here.
"""

from __future__ import annotations

from functools import cache, partial

import numpy as np
import pytest

import blocks as bl
from blocks._parity import relative

torch = pytest.importorskip("torch")
pytest.importorskip("backends.keras")  # it chooses Keras's engine
keras = pytest.importorskip("keras")
jax = pytest.importorskip("jax")
nnx = pytest.importorskip("flax.nnx")
optax = pytest.importorskip("optax")

nn, F, tensor = torch.nn, torch.nn.functional, torch.from_numpy
layers, ops = keras.layers, keras.ops
jnp = jax.numpy

MEASURES = {}


def measures(block, topic):
    """Say which entry a function measures."""

    def register(function):
        assert (block, topic) not in MEASURES
        MEASURES[block, topic] = function
        return function

    return register


# Tools.


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def swing(size, *shape, around=0.0):
    """`around` - size and `around` + size in turn: mean and variance are known exactly."""
    return (around + np.resize([-size, size], shape)).astype(np.float32)


def array(value):
    """The numbers of any framework's tensor."""
    return np.asarray(value.detach() if isinstance(value, torch.Tensor) else value)


def gap(got, wanted):
    """The largest difference, as a share of the largest number wanted."""
    return relative(array(got), array(wanted))[0]


def gaps(wanted, *found):
    return tuple(None if got is None else gap(got, wanted) for got in found)


def first(x):
    """Channels to the front, for torch."""
    return tensor(np.ascontiguousarray(np.moveaxis(x, -1, 1)))


def last(y):
    """Channels to the back again."""
    return np.moveaxis(array(y), 1, -1)


def rngs():
    return nnx.Rngs(0)


def ours(block, x, params=None, training=False):
    """What isoblocks means: its reference, in float64."""
    node = bl.infer(block, x.shape[1:], dtype="float64")
    params = bl.init(node) | (params or {})
    return bl.apply(bl.lower(node, "numpy", params=params), x.astype(float), training=training)


def spread(value):
    return float(array(value).std())


def refuses(error, run, *args, **options):
    with pytest.raises(error):
        run(*args, **options)


def set_torch(layer, **arrays):
    for name, value in arrays.items():
        layer.get_parameter(name).data = tensor(np.ascontiguousarray(value))
    return layer


def set_keras(layer, shape, *arrays):
    layer.build((None, *shape))
    layer.set_weights(arrays)
    return layer


def set_flax(layer, **arrays):
    for name, value in arrays.items():
        getattr(layer, name).set_value(jnp.asarray(value))
    return layer


def torch_gradient(function, x):
    x = tensor(x).requires_grad_()
    function(x).sum().backward()
    return x.grad


def keras_gradient(function, x):
    import tensorflow as tf

    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    return tape.gradient(y, x)


def flax_gradient(function, x):
    return jax.grad(lambda a: function(a).sum())(jnp.asarray(x))


def gradients(x, of_torch, of_keras, of_flax):
    x = np.asarray(x, np.float32)
    return (
        torch_gradient(of_torch, x),
        keras_gradient(of_keras, x),
        flax_gradient(of_flax, x),
    )


def trained(layer, x):
    """A layer of torch, Keras or Flax in training mode, applied."""
    if isinstance(layer, nn.Module):
        return layer.train()(tensor(x))
    if isinstance(layer, nnx.Module):
        layer.train()
        return layer(jnp.asarray(x))
    return layer(x, training=True)


# Linear.


@measures("Dense", "kernel")
def _():
    x, kernel, bias = draw(5, 4), draw(4, 3, seed=1), draw(3, seed=2)
    return gaps(
        ours(bl.Dense(3), x, {"kernel": kernel, "bias": bias}),
        set_torch(nn.Linear(4, 3), weight=kernel.T, bias=bias)(tensor(x)),
        set_keras(layers.Dense(3), (4,), kernel, bias)(x),
        set_flax(nnx.Linear(4, 3, rngs=rngs()), kernel=kernel, bias=bias)(x),
    )


@cache
def fresh_dense():
    """First parameters of 400 to 100 features: kernels (400, 100) and biases."""
    torch.manual_seed(0)
    keras.utils.set_random_seed(0)
    of_torch, of_keras = nn.Linear(400, 100), layers.Dense(100)
    of_keras.build((None, 400))
    of_flax = nnx.Linear(400, 100, rngs=rngs())
    kernels = (of_torch.weight.T, of_keras.kernel, of_flax.kernel.get_value())
    return kernels, (of_torch.bias, of_keras.bias, of_flax.bias.get_value())


@measures("Dense", "first kernel")
def _():
    of_torch, of_keras, of_flax = (array(kernel) for kernel in fresh_dense()[0])
    assert np.abs(of_torch).max() == pytest.approx(400**-0.5, rel=1e-3)
    assert np.abs(of_keras).max() == pytest.approx((6 / 500) ** 0.5, rel=1e-3)
    assert np.abs(of_flax).max() / of_flax.std() == pytest.approx(2.27, abs=0.02)
    assert spread(bl.init(bl.infer(bl.Dense(100), (400,)))["kernel"]) == pytest.approx(0.063, 0.02)
    return spread(of_torch), spread(of_keras), spread(of_flax)


@measures("Dense", "first bias")
def _():
    return tuple(spread(bias) for bias in fresh_dense()[1])


def embeddings(rows=50, features=64):
    torch.manual_seed(0)
    keras.utils.set_random_seed(0)
    of_keras = layers.Embedding(rows, features)
    of_keras.build()
    return nn.Embedding(rows, features), of_keras, nnx.Embed(rows, features, rngs=rngs())


@measures("Embedding", "first rows")
def _():
    of_torch, of_keras, of_flax = embeddings()
    assert np.abs(array(of_keras.embeddings)).max() <= 0.05
    return spread(of_torch.weight), spread(of_keras.embeddings), spread(of_flax.embedding[...])


@measures("Embedding", "id beyond the last row")
def _():
    import tensorflow as tf

    of_torch, of_keras, of_flax = embeddings(rows=3)
    refuses(IndexError, of_torch, torch.tensor([3]))
    refuses(tf.errors.InvalidArgumentError, of_keras, np.array([3]))
    assert np.isnan(of_flax(jnp.array([3]))).all()
    return "error", "error", "NaN"


@measures("Embedding", "id -1")
def _():
    of_torch, of_keras, of_flax = embeddings(rows=3)
    refuses(IndexError, of_torch, torch.tensor([-1]))
    assert np.array_equal(of_keras(np.array([-1]))[0], of_keras.embeddings[-1])
    assert np.array_equal(of_flax(jnp.array([-1]))[0], of_flax.embedding[-1])
    return "error", "last row", "last row"


@measures("Embedding", "padding row")
def _():
    import tensorflow as tf

    torch.manual_seed(0)
    of_torch, of_keras = nn.Embedding(3, 4, padding_idx=0), layers.Embedding(3, 4, mask_zero=True)
    of_torch(torch.tensor([0, 1])).sum().backward()
    assert not of_torch.weight[0].any()
    with tf.GradientTape() as tape:
        y = of_keras(np.array([0, 1]))
    grad = array(tf.convert_to_tensor(tape.gradient(y, of_keras.embeddings.value)))
    return int(of_torch.weight.grad[0].any()), int(grad[0].any()), None


# Convolution.


def convs(x, kernel, of_torch=None, of_keras=None, of_flax=None):
    """The three stock convolutions of one kernel, each with its own options."""
    *window, inner, features = kernel.shape
    rank, inputs = len(window), x.shape[-1]
    turned = np.moveaxis(kernel, (-1, -2), (0, 1))
    found = [None, None, None]
    if of_torch is not None:
        conv = [nn.Conv1d, nn.Conv2d][rank - 1](
            inputs, features, tuple(window), bias=False, groups=inputs // inner, **of_torch
        )
        found[0] = last(set_torch(conv, weight=turned)(first(x)))
    if of_keras is not None:
        conv = [layers.Conv1D, layers.Conv2D][rank - 1](
            features, tuple(window), use_bias=False, groups=inputs // inner, **of_keras
        )
        found[1] = array(set_keras(conv, x.shape[1:], kernel)(x))
    if of_flax is not None:
        groups = {"feature_group_count": inputs // inner}
        conv = nnx.Conv(
            inputs, features, tuple(window), use_bias=False, rngs=rngs(), **groups, **of_flax
        )
        found[2] = array(set_flax(conv, kernel=kernel)(x))
    return found


def conv(x, kernel, **options):
    *window, inner, features = kernel.shape
    block = bl.Conv(features, window, groups=x.shape[-1] // inner, use_bias=False, **options)
    return ours(block, x, {"kernel": kernel})


VALID = ({}, {}, {"padding": "VALID"})


@measures("Conv", "kernel")
def _():
    x, kernel = draw(2, 7, 8, 4), draw(3, 2, 2, 6, seed=1)  # two groups
    return gaps(conv(x, kernel), *convs(x, kernel, *VALID))


@measures("Conv", "first kernel")
def _():
    torch.manual_seed(0)
    keras.utils.set_random_seed(0)
    of_keras = layers.Conv2D(40, (5, 4))
    of_keras.build((None, 9, 9, 20))
    of_torch, of_flax = nn.Conv2d(20, 40, (5, 4)), nnx.Conv(20, 40, (5, 4), rngs=rngs())
    return spread(of_torch.weight), spread(of_keras.kernel), spread(of_flax.kernel[...])


@measures("Conv", "padding")
def _():
    return tuple(y.shape[1] for y in convs(draw(1, 8, 4), draw(3, 4, 2, seed=1), {}, {}, {}))


@measures("Conv", '"same" and stride 1')
def _():
    x, kernel = draw(2, 7, 4), draw(4, 4, 3, seed=1)
    options = {"padding": "same"}, {"padding": "same"}, {}
    return gaps(conv(x, kernel, padding="same"), *convs(x, kernel, *options))


@measures("Conv", '"same" and stride 2')
def _():
    refuses(ValueError, nn.Conv1d, 4, 3, 3, stride=2, padding="same")
    kernel = draw(3, 4, 3, seed=1)
    options = (
        {"stride": 2, "padding": 1},
        {"strides": 2, "padding": "same"},
        {"strides": 2, "padding": "SAME"},
    )
    odd, even = draw(2, 7, 4), draw(2, 8, 4)
    wanted = conv(odd, kernel, stride=2, padding="same")
    assert max(gaps(wanted, *convs(odd, kernel, *options))) < 1e-6
    wanted = conv(even, kernel, stride=2, padding="same")
    return gaps(wanted, *convs(even, kernel, *options))


@measures("Conv", "padding by pairs")
def _():
    x, kernel = draw(2, 7, 4), draw(3, 4, 3, seed=1)
    refuses(TypeError, convs, x, kernel, of_torch={"padding": ((2, 1),)})
    refuses(ValueError, convs, x, kernel, of_keras={"padding": ((2, 1),)})
    wanted = conv(x, kernel, padding=((2, 1),))
    (by_flax,) = convs(x, kernel, of_flax={"padding": ((2, 1),)})[2:]
    return "refused", "refused", gap(by_flax, wanted)


@measures("Conv", "causal padding")
def _():
    x, kernel = draw(2, 7, 4), draw(3, 4, 3, seed=1)
    refuses(ValueError, nn.Conv1d, 4, 3, 3, padding="causal")
    refuses(ValueError, layers.Conv2D, 3, 3, padding="causal")
    options = {"of_keras": {"padding": "causal"}, "of_flax": {"padding": "CAUSAL"}}
    _, of_keras, of_flax = convs(x, kernel, **options)
    wanted = conv(x, kernel, padding=((2, 0),))
    return "refused", gap(of_keras, wanted), gap(of_flax, wanted)


@measures("Conv", "circular padding")
def _():
    x, kernel = draw(2, 7, 4), draw(3, 4, 3, seed=1)
    refuses(ValueError, layers.Conv1D, 3, 3, padding="circular")
    options = {"of_torch": {"padding": 1, "padding_mode": "circular"}}
    of_torch, _, of_flax = convs(x, kernel, **options, of_flax={"padding": "CIRCULAR"})
    round_about = np.concatenate([x[:, -1:], x, x[:, :1]], axis=1)
    wanted = conv(round_about, kernel)
    return gap(of_torch, wanted), "refused", gap(of_flax, wanted)


@measures("Conv", "stride with dilation")
def _():
    x, kernel = draw(2, 9, 4), draw(3, 4, 3, seed=1)
    refuses(ValueError, layers.Conv1D, 3, 3, strides=2, dilation_rate=2)
    options = {"of_torch": {"stride": 2, "dilation": 2}}
    flax = {"strides": 2, "kernel_dilation": 2, "padding": "VALID"}
    of_torch, _, of_flax = convs(x, kernel, **options, of_flax=flax)
    wanted = conv(x, kernel, stride=2, dilation=2)
    return gap(of_torch, wanted), "refused", gap(of_flax, wanted)


@measures("Conv", "depthwise")
def _():
    """Two outputs for each input channel; they are neighbours everywhere."""
    x, kernel = draw(2, 7, 8, 4), draw(3, 2, 1, 8, seed=1)
    of_torch, _, of_flax = convs(x, kernel, {}, None, {"padding": "VALID"})
    own = layers.DepthwiseConv2D((3, 2), depth_multiplier=2, use_bias=False)
    of_keras = set_keras(own, x.shape[1:], kernel.reshape(3, 2, 4, 2))(x)
    return gaps(conv(x, kernel), of_torch, of_keras, of_flax)


# Transposed convolution. The rule that all follow is written here.


def transposed(x, kernel, stride, padding):
    """One axis: windows (k, in, out) laid down every `stride` cells, then cut to length."""
    size, span = x.shape[1], len(kernel)
    whole = np.zeros((len(x), size * stride + span, kernel.shape[-1]))
    for i in range(size):
        whole[:, i * stride : i * stride + span] += np.einsum("bi,kio->bko", x[:, i], kernel)
    length = size * stride + (max(span - stride, 0) if padding == "valid" else 0)
    start = 0 if padding == "valid" else max(span - stride, 0) // 2
    return whole[:, start : start + length]


def transposed_by_torch(x, kernel, **options):
    window, inputs, features = kernel.shape
    layer = nn.ConvTranspose1d(inputs, features, window, bias=False, **options)
    return last(set_torch(layer, weight=kernel.transpose(1, 2, 0))(first(x)))


def transposed_by_keras(x, kernel, **options):
    window, _, features = kernel.shape
    layer = layers.Conv1DTranspose(features, window, use_bias=False, **options)
    return array(set_keras(layer, x.shape[1:], kernel.transpose(0, 2, 1))(x))


def transposed_by_flax(x, kernel, **options):
    window, inputs, features = kernel.shape
    layer = nnx.ConvTranspose(inputs, features, (window,), use_bias=False, rngs=rngs(), **options)
    return array(set_flax(layer, kernel=kernel)(x))


def flipped(x, kernel, **options):
    """Flax as the others: its window turned round."""
    return transposed_by_flax(x, kernel[::-1], **options)


@measures("ConvTranspose", "kernel")
def _():
    x, kernel = draw(2, 5, 3), draw(4, 3, 2, seed=1)
    wanted = transposed(x, kernel, 2, "valid")
    by_flax = nnx.ConvTranspose(
        3, 2, (4,), 2, padding="VALID", use_bias=False, transpose_kernel=True, rngs=rngs()
    )
    assert gap(set_flax(by_flax, kernel=kernel.transpose(0, 2, 1))(x), wanted) < 1e-6
    return gaps(
        wanted,
        transposed_by_torch(x, kernel, stride=2),
        transposed_by_keras(x, kernel, strides=2),
        transposed_by_flax(x, kernel, strides=2, padding="VALID"),
    )


@measures("ConvTranspose", "size")
def _():
    x, kernel = draw(2, 5, 3), draw(3, 3, 2, seed=1)
    found = (
        transposed_by_torch(x, kernel, stride=2),
        transposed_by_keras(x, kernel, strides=2),
        transposed_by_flax(x, kernel, strides=2),
    )
    return tuple(y.shape[1] for y in found)


@measures("ConvTranspose", "window shorter than the stride")
def _():
    x, kernel = draw(2, 5, 3), draw(2, 3, 2, seed=1)
    found = (
        transposed_by_torch(x, kernel, stride=3),
        transposed_by_keras(x, kernel, strides=3),
        transposed_by_flax(x, kernel, strides=3, padding="VALID"),
    )
    return tuple(y.shape[1] for y in found)


@measures("ConvTranspose", '"valid" and "same"')
def _():
    """The rule, on every relation of window and stride."""
    x, worst = draw(2, 5, 3), [0.0, 0.0]
    for span in (1, 2, 3, 4, 5):
        for stride in (1, 2, 3):
            for padding in ("valid", "same"):
                kernel = draw(span, 3, 2, seed=span)
                wanted = transposed(x, kernel, stride, padding)
                found = (
                    transposed_by_keras(x, kernel, strides=stride, padding=padding),
                    flipped(x, kernel, strides=stride, padding=padding.upper()),
                )
                worst = [max(old, gap(y, wanted)) for old, y in zip(worst, found, strict=True)]
    return None, *worst


@measures("ConvTranspose", '"same" by torch\'s padding')
def _():
    """Window 3, stride 2: the length is right, everything is moved by one cell."""
    x, kernel = draw(2, 5, 3), draw(3, 3, 2, seed=1)
    wanted = transposed(x, kernel, 2, "same")
    by_torch = transposed_by_torch(x, kernel, stride=2, padding=1, output_padding=1)
    assert gap(by_torch[:, :-1], wanted[:, 1:]) < 1e-6
    return gaps(
        wanted,
        by_torch,
        transposed_by_keras(x, kernel, strides=2, padding="same"),
        flipped(x, kernel, strides=2),
    )


@measures("ConvTranspose", "padding as a number")
def _():
    x, kernel = draw(2, 5, 3), draw(4, 3, 2, seed=1)
    by_torch = transposed_by_torch(x, kernel, stride=2, padding=1)
    refuses(AttributeError, layers.Conv1DTranspose, 2, 4, padding=1)
    by_flax = flipped(x, kernel, strides=2, padding=1)
    same = flipped(x, kernel, strides=2, padding=2)  # window - 1 - padding
    assert gap(same, by_torch) < 1e-6
    return by_torch.shape[1], "refused", by_flax.shape[1]


@measures("ConvTranspose", "output_padding")
def _():
    x, kernel = draw(2, 5, 3), draw(3, 3, 2, seed=1)
    refuses(RuntimeError, transposed_by_torch, x, kernel, stride=2, output_padding=2)
    by_torch = transposed_by_torch(x, kernel, stride=2, output_padding=1)
    options = {"strides": 2, "padding": "same"}
    by_keras = transposed_by_keras(x, kernel, **options, output_padding=1)
    assert transposed_by_keras(x, kernel, **options, output_padding=0).shape[1] == 9
    assert transposed_by_keras(x, kernel, **options).shape[1] == 10
    refuses(TypeError, transposed_by_flax, x, kernel, output_padding=1)
    return by_torch.shape[1], by_keras.shape[1], None


# Pooling.


@measures("MaxPool", "stride")
def _():
    x = draw(1, 8, 6, 3)
    found = (
        last(nn.MaxPool2d(2)(first(x))),
        layers.MaxPooling2D(2)(x),
        nnx.max_pool(jnp.asarray(x), (2, 2)),
    )
    return tuple(y.shape[1] for y in found)


@measures("MaxPool", "padding")
def _():
    x = draw(2, 7, 3)
    refuses(RuntimeError, nn.MaxPool1d(3, padding=2), first(x))  # at most half the window
    refuses(AttributeError, layers.MaxPooling1D(3, padding=((2, 0),)), x)
    by_flax = nnx.max_pool(jnp.asarray(x), (3,), (3,), ((2, 0),))
    return "refused", "refused", gap(by_flax, ours(bl.MaxPool((3,), padding=((2, 0),)), x))


@measures("MaxPool", "padded cells")
def _():
    x = -1 - np.abs(draw(2, 8, 6, 3))
    return gaps(
        ours(bl.MaxPool((3, 3), stride=1, padding="same"), x),
        last(nn.MaxPool2d(3, stride=1, padding=1)(first(x))),
        layers.MaxPooling2D(3, strides=1, padding="same")(x),
        nnx.max_pool(jnp.asarray(x), (3, 3), (1, 1), "SAME"),
    )


@measures("MaxPool", "cells left over")
def _():
    x = draw(1, 8, 3)
    assert last(nn.MaxPool1d(3, ceil_mode=True)(first(x))).shape[1] == 3
    found = (
        last(nn.MaxPool1d(3)(first(x))),
        layers.MaxPooling1D(3)(x),
        nnx.max_pool(jnp.asarray(x), (3,), (3,)),
    )
    return tuple(y.shape[1] for y in found)


@measures("MaxPool", "gradient among equal numbers")
def _():
    x = np.ones((1, 4, 1), np.float32)
    wanted = [[[1], [0], [1], [0]]]
    found = gradients(
        x,
        lambda a: F.max_pool1d(a.movedim(-1, 1), 2),
        layers.MaxPooling1D(2),
        lambda a: nnx.max_pool(a, (2,), (2,)),
    )
    return gaps(np.array(wanted), *found)


@measures("AvgPool", "stride")
def _():
    x = draw(1, 8, 6, 3)
    found = (
        last(nn.AvgPool2d(2)(first(x))),
        layers.AveragePooling2D(2)(x),
        nnx.avg_pool(jnp.asarray(x), (2, 2)),
    )
    return tuple(y.shape[1] for y in found)


@measures("AvgPool", "padded cells")
def _():
    """Around ones, a corner's window of 9 holds 4 real cells."""
    x = np.ones((1, 5, 5, 2), np.float32)
    options = {"stride": (1, 1), "padding": "same"}
    return gaps(
        ours(bl.AvgPool((3, 3), **options), x),
        last(nn.AvgPool2d(3, 1, padding=1)(first(x))),
        layers.AveragePooling2D(3, 1, padding="same")(x),
        nnx.avg_pool(jnp.asarray(x), (3, 3), (1, 1), "SAME"),
    )


@measures("GlobalAvgPool", "output")
def _():
    x = draw(2, 5, 6, 3)
    by_torch = last(nn.AdaptiveAvgPool2d(1)(first(x)))
    assert by_torch.shape == (2, 1, 1, 3)
    wanted = ours(bl.GlobalAvgPool(), x)
    return gaps(wanted, by_torch[:, 0, 0], layers.GlobalAveragePooling2D()(x), x.mean((1, 2)))


@measures("GlobalMaxPool", "gradient among equal numbers")
def _():
    """The share of the first of two."""
    x = np.ones((1, 2, 1), np.float32)
    found = gradients(
        x,
        lambda a: F.adaptive_max_pool1d(a.movedim(-1, 1), 1),
        layers.GlobalMaxPooling1D(),
        lambda a: jnp.max(a, axis=1),
    )
    return tuple(float(array(g)[0, 0, 0]) for g in found)


@measures("AdaptiveAvgPool", "windows")
def _():
    """Seven cells to three: windows overlap, from floor(i n / m) to ceil((i + 1) n / m)."""
    x = draw(2, 7, 3)
    wanted = np.stack([x[:, 0:3].mean(1), x[:, 2:5].mean(1), x[:, 4:7].mean(1)], 1)
    by_torch = last(nn.AdaptiveAvgPool1d(3)(first(x)))
    return gaps(wanted, by_torch, layers.AdaptiveAveragePooling1D(3)(x), None)


# Normalisation.


@measures("BatchNorm", "epsilon")
def _():
    x = swing(0.03, 64, 3)
    return gaps(
        ours(bl.BatchNorm(), x, training=True),
        trained(nn.BatchNorm1d(3), x),
        trained(layers.BatchNormalization(), x),
        trained(nnx.BatchNorm(3, rngs=rngs()), x),
    )


@measures("BatchNorm", "decay")
def _():
    """The share of a batch with mean 1 that one step of training leaves."""
    x = swing(2, 64, 3, around=1)
    of_torch, of_keras = nn.BatchNorm1d(3), layers.BatchNormalization()
    of_flax = nnx.BatchNorm(3, rngs=rngs())
    for layer in (of_torch, of_keras, of_flax):
        trained(layer, x)
    running = of_torch.running_mean, of_keras.moving_mean, of_flax.mean[...]
    return tuple(float(array(mean)[0]) for mean in running)


@measures("BatchNorm", "running variance")
def _():
    """All of it from one batch of four numbers."""
    x = draw(4, 3)
    of_torch, of_keras = nn.BatchNorm1d(3, momentum=1.0), layers.BatchNormalization(momentum=0.0)
    of_flax = nnx.BatchNorm(3, momentum=0.0, rngs=rngs())
    for layer in (of_torch, of_keras, of_flax):
        trained(layer, x)
    return gaps(x.var(0), of_torch.running_var, of_keras.moving_variance, of_flax.var[...])


@measures("BatchNorm", "variance of the batch")
def _():
    x = draw(4, 3)
    return gaps(
        ours(bl.BatchNorm(), x, training=True),
        trained(nn.BatchNorm1d(3), x),
        trained(layers.BatchNormalization(epsilon=1e-5), x),
        trained(nnx.BatchNorm(3, rngs=rngs()), x),
    )


def far(*shape):
    """-1 and +1 around 8192: their squares do not fit into a float32, all else is exact."""
    return swing(1.0, *shape, around=8192.0)


def lost(*found):
    """Differences, where they are more than the step of a float32 at 8192, which is 1e-3."""
    return tuple(size if size > 1e-3 else 0.0 for size in gaps(*found))


@measures("BatchNorm", "variance far from 0")
def _():
    x = far(64, 3)
    return lost(
        ours(bl.BatchNorm(), x, training=True),
        trained(nn.BatchNorm1d(3), x),
        trained(layers.BatchNormalization(epsilon=1e-5), x),
        trained(nnx.BatchNorm(3, rngs=rngs()), x),
    )


@measures("BatchNorm", "mode of a new layer")
def _():
    """The share by which calling a fresh layer, as it comes, is training."""
    x = swing(2, 64, 3, around=1)
    wanted = ours(bl.BatchNorm(), x, training=True)
    evaluated = ours(bl.BatchNorm(), x)
    of_torch, of_keras = nn.BatchNorm1d(3), layers.BatchNormalization(epsilon=1e-5)
    found = of_torch(tensor(x)), of_keras(x), nnx.BatchNorm(3, rngs=rngs())(x)
    modes = []
    for y in found:
        assert min(gap(y, wanted), gap(y, evaluated)) < 1e-4
        modes.append("training" if gap(y, wanted) < 1e-4 else "evaluation")
    return tuple(modes)


@measures("BatchNorm", "frozen")
def _():
    """In training mode, with the learned numbers switched off: who still takes the batch's?"""
    x = swing(2, 64, 3, around=1)
    batch, running = (ours(bl.BatchNorm(), x, training=mode) for mode in (True, False))
    of_torch, of_keras = nn.BatchNorm1d(3).requires_grad_(False), layers.BatchNormalization()
    of_keras.trainable = False
    assert gap(trained(of_torch, x), batch) < 1e-4
    assert gap(trained(of_keras, x), running) < 1e-3
    return "batch", "running", None


@measures("BatchNorm", "what counts as a parameter")
def _():
    of_torch, of_keras = nn.BatchNorm1d(3), layers.BatchNormalization()
    of_keras.build((None, 3))
    of_flax = nnx.BatchNorm(3, rngs=rngs())
    assert set(dict(of_torch.named_buffers())) == {
        "running_mean",
        "running_var",
        "num_batches_tracked",
    }
    assert sum(array(v).size for v in of_keras.trainable_weights) == 6
    assert sum(v.size for v in jax.tree.leaves(nnx.state(of_flax, nnx.BatchStat))) == 6
    return (
        sum(p.numel() for p in of_torch.parameters()),
        of_keras.count_params(),
        sum(v.size for v in jax.tree.leaves(nnx.state(of_flax, nnx.Param))),
    )


@measures("BatchNorm", "axis of the channels")
def _():
    """How many channels the layer finds in an input of (5, 7, 3), whatever they mean."""
    of_torch, of_keras = nn.LazyBatchNorm1d(), layers.BatchNormalization()
    of_torch(torch.ones(5, 7, 3))
    of_keras.build((5, 7, 3))
    nnx.BatchNorm(3, rngs=rngs())(jnp.ones((5, 7, 3)))
    return of_torch.num_features, of_keras.gamma.shape[0], 3


@measures("LayerNorm", "epsilon")
def _():
    x = swing(0.003, 4, 6)
    return gaps(
        ours(bl.LayerNorm(), x),
        nn.LayerNorm(6)(tensor(x)),
        layers.LayerNormalization()(x),
        nnx.LayerNorm(6, rngs=rngs())(x),
    )


@measures("LayerNorm", "variance far from 0")
def _():
    x = far(4, 6)
    return lost(
        ours(bl.LayerNorm(), x),
        nn.LayerNorm(6)(tensor(x)),
        layers.LayerNormalization(epsilon=1e-5)(x),
        nnx.LayerNorm(6, epsilon=1e-5, rngs=rngs())(x),
    )


@measures("LayerNorm", "variance by hand")
def _():
    x = draw(7, 3)
    return gaps(x.var(0), tensor(x).var(0), ops.var(x, 0), jnp.var(x, 0))


@measures("GroupNorm", "epsilon")
def _():
    x = swing(0.003, 2, 5, 4)
    return gaps(
        ours(bl.GroupNorm(2), x),
        last(nn.GroupNorm(2, 4)(first(x))),
        layers.GroupNormalization(2)(x),
        nnx.GroupNorm(4, 2, rngs=rngs())(x),
    )


@measures("GroupNorm", "groups")
def _():
    refuses(TypeError, nn.GroupNorm)
    refuses(ValueError, layers.GroupNormalization().build, (None, 5, 16))
    refuses(ValueError, nnx.GroupNorm, 16, rngs=rngs())
    assert layers.GroupNormalization().groups == nnx.GroupNorm(64, rngs=rngs()).num_groups == 32
    return None, 32, 32


@measures("GroupNorm", "variance far from 0")
def _():
    x = far(2, 5, 4)
    return lost(
        ours(bl.GroupNorm(2), x),
        last(nn.GroupNorm(2, 4)(first(x))),
        layers.GroupNormalization(2, epsilon=1e-5)(x),
        nnx.GroupNorm(4, 2, epsilon=1e-5, rngs=rngs())(x),
    )


@measures("GroupNorm", "instance norm")
def _():
    x = draw(2, 5, 6, 3)
    assert nn.InstanceNorm2d(3).weight is None
    return gaps(
        ours(bl.GroupNorm(3), x),
        last(nn.InstanceNorm2d(3)(first(x))),
        layers.GroupNormalization(3, epsilon=1e-5)(x),
        nnx.InstanceNorm(3, epsilon=1e-5, rngs=rngs())(x),
    )


@measures("RMSNorm", "epsilon")
def _():
    x = swing(1e-3, 4, 6)
    return gaps(
        ours(bl.RMSNorm(), x),
        nn.RMSNorm(6)(tensor(x)),
        layers.RMSNormalization()(x),
        nnx.RMSNorm(6, rngs=rngs())(x),
    )


@measures("RMSNorm", "equal epsilon")
def _():
    x = draw(4, 6)
    return gaps(
        ours(bl.RMSNorm(epsilon=1e-3), x),
        nn.RMSNorm(6, eps=1e-3)(tensor(x)),
        layers.RMSNormalization(epsilon=1e-3)(x),
        nnx.RMSNorm(6, epsilon=1e-3, rngs=rngs())(x),
    )


# Activation.


X = np.linspace(-4, 4, 801, dtype=np.float32)[None]


@measures("Activation", "gelu")
def _():
    wanted = ours(bl.GELU(), X)
    assert (
        gap(ops.gelu(X), ours(bl.GELU(approximate=True), X)) < 1e-6
    )  # Keras disagrees with itself
    return tuple(
        float(np.abs(array(y) - wanted).max())
        for y in (nn.GELU()(tensor(X)), keras.activations.gelu(X), nnx.gelu(X))
    )


@measures("Activation", "slope of leaky_relu")
def _():
    assert gap(keras.activations.leaky_relu(X), ours(bl.LeakyReLU(0.2), X)) < 1e-6
    return gaps(
        ours(bl.LeakyReLU(), X), nn.LeakyReLU()(tensor(X)), layers.LeakyReLU()(X), nnx.leaky_relu(X)
    )


@measures("Activation", "softplus of a large number")
def _():
    """Beyond 20, in float64: what is left out of log(1 + exp(x)) = x + log(1 + exp(-x))."""
    x = np.array([20.5])
    missing = nn.Softplus()(tensor(x)).item() - x[0]
    with jax.enable_x64(True):
        by_flax = float(nnx.softplus(jnp.asarray(x))[0]) - x[0]
    by_keras = array(keras.ops.softplus(x))[0] - x[0]
    left = np.log1p(np.exp(-x[0]))
    return tuple(float(abs(found / left - 1)) for found in (missing, by_keras, by_flax))


@measures("Activation", "hard_sigmoid")
def _():
    return gaps(
        ours(bl.HardSigmoid(), X),
        nn.Hardsigmoid()(tensor(X)),
        keras.activations.hard_sigmoid(X),
        nnx.hard_sigmoid(X),
    )


SAME_EVERYWHERE = {
    "relu": (F.relu, ops.relu, nnx.relu),
    "relu6": (F.relu6, ops.relu6, nnx.relu6),
    "elu": (F.elu, ops.elu, nnx.elu),
    "selu": (F.selu, ops.selu, nnx.selu),
    "celu": (F.celu, ops.celu, nnx.celu),
    "silu": (F.silu, ops.silu, nnx.silu),
    "mish": (F.mish, keras.activations.mish, jax.nn.mish),
    "softsign": (F.softsign, ops.softsign, nnx.soft_sign),
    "sigmoid": (F.sigmoid, ops.sigmoid, nnx.sigmoid),
    "log_sigmoid": (F.logsigmoid, ops.log_sigmoid, nnx.log_sigmoid),
    "tanh": (F.tanh, ops.tanh, nnx.tanh),
    "hard_silu": (F.hardswish, ops.hard_silu, nnx.hard_silu),
    "hard_tanh": (F.hardtanh, ops.hard_tanh, nnx.hard_tanh),
}


@measures("Activation", "kinds that agree")
def _():
    worst = (0.0, 0.0, 0.0)
    for kind, (by_torch, by_keras, by_flax) in SAME_EVERYWHERE.items():
        wanted = ours(bl.Activation(kind), X)
        worst = np.maximum(worst, gaps(wanted, by_torch(tensor(X)), by_keras(X), by_flax(X)))
    return tuple(map(float, worst))


@measures("Activation", "the shrinks")
def _():
    names = {"tanh_shrink": "tanhshrink", "soft_shrink": "softshrink", "hard_shrink": "hardshrink"}
    worst = (0.0, 0.0)
    for kind, name in names.items():
        assert not hasattr(jax.nn, name)
        assert not hasattr(jax.nn, kind)
        found = getattr(F, name)(tensor(X)), getattr(ops, kind)(X)
        worst = np.maximum(worst, gaps(ours(bl.Activation(kind), X), *found))
    return *map(float, worst), None


@measures("Activation", "gradient of leaky_relu at 0")
def _():
    found = gradients(
        [0], F.leaky_relu, partial(ops.leaky_relu, negative_slope=0.01), nnx.leaky_relu
    )
    return tuple(float(array(g)[0]) for g in found)


@measures("Activation", "gradient of hard_tanh at -1 and 1")
def _():
    found = gradients([-1, 1], F.hardtanh, ops.hard_tanh, nnx.hard_tanh)
    assert all(len(set(array(g))) == 1 for g in found)
    return tuple(float(array(g)[0]) for g in found)


@measures("Activation", "gradient of relu at 0, relu6 at 0 and 6")
def _():
    worst = [0.0] * 3
    for x, functions in (
        ([0], (F.relu, ops.relu, nnx.relu)),
        ([0, 6], (F.relu6, ops.relu6, nnx.relu6)),
    ):
        found = gradients(x, *functions)
        worst = [
            max(old, float(np.abs(array(g)).max())) for old, g in zip(worst, found, strict=True)
        ]
    return tuple(worst)


@measures("Softmax", "axis")
def _():
    """Of (5, 3, 4): the sums along the last axis that are 1."""
    x = draw(5, 3, 4)
    with pytest.warns(UserWarning, match="Implicit dimension choice"):
        by_torch = nn.Softmax()(tensor(x))
    assert gap(by_torch, torch.softmax(tensor(x), 0)) == 0  # the batch
    return gaps(ours(bl.Softmax(), x), by_torch, layers.Softmax()(x), nnx.softmax(x))


@measures("LogSoftmax", "axis")
def _():
    x = draw(5, 3, 4)
    with pytest.warns(UserWarning, match="Implicit dimension choice"):
        by_torch = nn.LogSoftmax()(tensor(x))
    return gaps(ours(bl.LogSoftmax(), x), by_torch, ops.log_softmax(x), nnx.log_softmax(x))


# Regularisation.


def dropped(x, rate=0.25):
    torch.manual_seed(0)
    return (
        trained(nn.Dropout(rate), x),
        trained(layers.Dropout(rate, seed=0), x),
        trained(nnx.Dropout(rate, rngs=rngs()), x),
    )


@measures("Dropout", "scale of what is kept")
def _():
    found = [array(y) for y in dropped(np.ones((200, 100), np.float32))]
    for y in found:
        assert (y == 0).mean() == pytest.approx(0.25, abs=0.01)
    return tuple(float(y.max()) - 1 / 0.75 for y in found)


@measures("Dropout", "masks")
def _():
    """Where the other frameworks' masks, from the same seed, differ from torch's."""
    of_torch, of_keras, of_flax = (array(y) == 0 for y in dropped(np.ones((200, 100), np.float32)))
    return (
        float((of_torch != of_keras).mean()),
        float((of_keras != of_flax).mean()),
        float((of_flax != of_torch).mean()),
    )


@measures("Dropout", "whole channels")
def _():
    """Of 2 x 50 channels with 12 cells each: all cells of a channel live or die together."""
    x = np.ones((2, 3, 4, 50), np.float32)
    torch.manual_seed(0)
    found = (
        last(trained(nn.Dropout2d(), np.ascontiguousarray(np.moveaxis(x, -1, 1)))),
        array(trained(layers.SpatialDropout2D(0.5, seed=0), x)),
        array(trained(nnx.Dropout(0.5, broadcast_dims=(1, 2), rngs=rngs()), x)),
    )
    assert all(0.3 < (y == 0).mean() < 0.7 for y in found)
    return tuple(int((y.std(axis=(1, 2)) > 0).sum()) for y in found)


# Shape.


@measures("Flatten", "order")
def _():
    x = draw(2, 5, 6, 3)
    wanted = ours(bl.Flatten(), x)
    turned = layers.Flatten(data_format="channels_first")(np.moveaxis(x, -1, 1))
    assert gap(turned, wanted) < 1e-6  # Keras turns the axes first
    return gaps(wanted, nn.Flatten()(first(x)), layers.Flatten()(x), x.reshape(2, -1))


@measures("Permute", "counting of axes")
def _():
    x = draw(2, 5, 6, 3)
    return gaps(
        ours(bl.Permute((2, 0, 1)), x),
        tensor(x).permute(0, 3, 1, 2),
        layers.Permute((3, 1, 2))(x),
        jnp.transpose(x, (0, 3, 1, 2)),
    )


@measures("Reshape", "layer")
def _():
    x = draw(2, 6, 4)
    assert not hasattr(nnx, "Reshape")
    return gaps(
        ours(bl.Reshape((3, 8)), x),
        nn.Unflatten(1, (3, 8))(tensor(x).flatten(1)),
        layers.Reshape((3, -1))(x),
        jnp.reshape(x, (2, 3, 8)),
    )


@measures("Pad", "order of the pairs")
def _():
    """Two axes of an image, written as (1, 0) and (2, 3) in each framework."""
    x = draw(2, 4, 5, 3)
    wanted = ours(bl.Pad(((1, 0), (2, 3), (0, 0))), x)
    as_written = last(F.pad(first(x), (1, 0, 2, 3)))
    assert as_written.shape != wanted.shape
    return gaps(
        wanted,
        last(F.pad(first(x), (2, 3, 1, 0))),
        layers.ZeroPadding2D(((1, 0), (2, 3)))(x),
        jnp.pad(x, ((0, 0), (1, 0), (2, 3), (0, 0))),
    )


@measures("Pad", "repeating the edge")
def _():
    x = draw(2, 5, 3)
    refuses(NotImplementedError, F.pad, first(x), (2, 1), mode="edge")
    refuses(ValueError, ops.pad, x, ((0, 0), (2, 1), (0, 0)), mode="replicate")
    return gaps(
        ours(bl.Pad(((2, 1), (0, 0)), mode="edge"), x),
        last(F.pad(first(x), (2, 1), mode="replicate")),
        None,
        jnp.pad(x, ((0, 0), (2, 1), (0, 0)), mode="edge"),
    )


@measures("Crop", "layer")
def _():
    x = draw(2, 5, 6, 3)
    return gaps(
        ours(bl.Crop(((1, 0), (2, 1), (0, 0))), x),
        last(F.pad(first(x), (-2, -1, -1, 0))),
        layers.Cropping2D(((1, 0), (2, 1)))(x),
        x[:, 1:, 2:-1],
    )


def resized(x, size, method):
    """One axis to `size` cells: torch, Keras, JAX as they come."""
    picture = x[:, :, None]
    wide = (size, 1)
    return (
        last(F.interpolate(first(picture), wide, mode=method))[:, :, 0],
        array(ops.image.resize(picture, wide, interpolation=method))[:, :, 0],
        array(jax.image.resize(picture, (len(x), *wide, x.shape[-1]), method))[:, :, 0],
    )


def nearest(x, size):
    """The cell in which the centre of the new cell lies."""
    centres = (np.arange(size) + 0.5) * x.shape[1] / size
    return x[:, np.floor(centres).astype(int)]


@measures("Upsample", "nearest, 5 to 8 cells")
def _():
    x = draw(2, 5, 3)
    exact = F.interpolate(tensor(np.moveaxis(x, -1, 1).copy()), 8, mode="nearest-exact")
    assert gap(last(exact), nearest(x, 8)) == 0
    return gaps(nearest(x, 8), *resized(x, 8, "nearest"))


@measures("Upsample", "nearest, a whole factor")
def _():
    x = draw(2, 5, 4, 3)
    return gaps(
        x.repeat(3, 1).repeat(2, 2),
        last(nn.Upsample(scale_factor=(3, 2))(first(x))),
        layers.UpSampling2D((3, 2))(x),
        jax.image.resize(x, (2, 15, 8, 3), "nearest"),
    )


def linear(x, size):
    """Between the centres of the two nearest cells; the edge beyond the first and last."""
    centres = (np.arange(size) + 0.5) * x.shape[1] / size - 0.5
    flat = np.moveaxis(x, 1, -1).reshape(-1, x.shape[1]).astype(float)
    found = np.stack([np.interp(centres, np.arange(x.shape[1]), row) for row in flat])
    return np.moveaxis(found.reshape(len(x), x.shape[2], size), -1, 1)


@measures("Upsample", "bilinear, larger")
def _():
    x = draw(2, 5, 3)
    return gaps(linear(x, 8), *resized(x, 8, "bilinear"))


@measures("Upsample", "bilinear, smaller")
def _():
    x = draw(2, 8, 3)
    plain = jax.image.resize(x, (2, 3, 3), "linear", antialias=False)
    assert gap(plain, linear(x, 3)) < 1e-5
    return gaps(linear(x, 3), *resized(x, 3, "bilinear"))


@measures("Upsample", "bicubic")
def _():
    """From torch's; in the middle, so that no edge has a say."""
    x = draw(2, 9, 3)
    of_torch, of_keras, of_flax = (y[:, 5:-5] for y in resized(x, 18, "bicubic"))
    return gaps(of_torch, of_torch, of_keras, of_flax)


@measures("Rearrange", "pixel shuffle")
def _():
    """The order in which channels become cells: torch's is b (c h2 w2) h w -> b c (h h2) (w w2)."""
    import tensorflow as tf

    x = draw(2, 3, 4, 8)
    wanted = x.reshape(2, 3, 4, 2, 2, 2).transpose(0, 1, 4, 2, 5, 3).reshape(2, 6, 8, 2)
    assert not hasattr(layers, "PixelShuffle")
    assert not hasattr(nnx, "PixelShuffle")
    by_torch = last(nn.PixelShuffle(2)(first(x)))
    return gap(by_torch, wanted), gap(tf.nn.depth_to_space(x, 2), wanted), None


# Attention: two heads of four features, a batch of 3, 5 steps.


def attention():
    """The same projections in the three stock layers."""
    kernels = {name: draw(8, 8, seed=i) for i, name in enumerate(("query", "key", "value", "out"))}
    inward = [kernels[name] for name in ("query", "key", "value")]
    of_torch = nn.MultiheadAttention(8, 2, batch_first=True)
    packed = np.concatenate([kernel.T for kernel in inward])
    set_torch(of_torch, in_proj_weight=packed)
    set_torch(of_torch.out_proj, weight=kernels["out"].T)
    of_keras, of_flax = layers.MultiHeadAttention(2, 4), nnx.MultiHeadAttention(2, 8, rngs=rngs())
    of_keras.build((None, 5, 8), (None, 5, 8))
    heads = [kernel.reshape(8, 2, 4) for kernel in inward]
    zeros = np.zeros((2, 4), np.float32)
    out = kernels["out"].reshape(2, 4, 8)
    inner = [array for head in heads for array in (head, zeros)]
    of_keras.set_weights([*inner, out, np.zeros(8, np.float32)])
    for name, kernel in zip(kernels, [*heads, out], strict=True):
        set_flax(getattr(of_flax, name), kernel=kernel)
    return kernels, of_torch, of_keras, of_flax


def attended(x, kernels, mask):
    """The meaning: True is seen, and who sees nothing gets 0."""
    heads = (len(x), x.shape[1], 2, 4)
    q, k, v = ((x @ kernels[name]).reshape(heads) for name in ("query", "key", "value"))
    weights = np.exp(np.einsum("bqhd,bkhd->bhqk", q, k) / 2) * mask
    weights = weights / np.maximum(weights.sum(-1, keepdims=True), 1e-300)
    return np.einsum("bhqk,bkhd->bqhd", weights, v).reshape(x.shape) @ kernels["out"]


def attend(x, mask=None, torch_mask=None):
    kernels, of_torch, of_keras, of_flax = attention()
    torch_mask = mask if torch_mask is None else torch_mask
    mask = np.ones((5, 5), bool) if mask is None else mask
    found = (
        of_torch(*[tensor(x)] * 3, attn_mask=None if torch_mask is None else tensor(torch_mask))[0],
        of_keras(x, x, attention_mask=mask[None]),
        of_flax(jnp.asarray(x), mask=jnp.asarray(mask)[None, None], decode=False),
    )
    return attended(x.astype(float), kernels, mask), *found


CAUSAL = np.tril(np.ones((5, 5), bool))


@measures("MultiHeadAttention", "kernels")
def _():
    return gaps(*attend(draw(3, 5, 8, seed=9)))


@measures("MultiHeadAttention", "features")
def _():
    """Trainable numbers of two heads and the size 8."""
    of_keras = layers.MultiHeadAttention(2, 8)
    of_keras.build((None, 5, 8), (None, 5, 8))
    state = nnx.state(nnx.MultiHeadAttention(2, 8, rngs=rngs()), nnx.Param)
    return (
        sum(p.numel() for p in nn.MultiheadAttention(8, 2).parameters()),
        of_keras.count_params(),
        sum(v.size for v in jax.tree.leaves(state)),
    )


@measures("MultiHeadAttention", "mask")
def _():
    """A mask without an empty row either way, that means True = seen, given to all."""
    mask = np.roll(np.eye(5, dtype=bool), 1, 1) | np.eye(5, dtype=bool)
    x = draw(3, 5, 8, seed=9)
    wanted, turned, *_ = attend(x, mask, torch_mask=~mask)
    assert gap(turned, wanted) < 1e-6
    q = tensor(draw(3, 2, 5, 4))
    seen = F.scaled_dot_product_attention(q, q, q, tensor(mask))
    hidden = F.scaled_dot_product_attention(q, q, q, tensor(np.where(mask, 0, -np.inf)).float())
    assert gap(seen, hidden) < 1e-6  # torch's own function means the opposite of its layer
    return gaps(*attend(x, mask))


@measures("MultiHeadAttention", "a row that sees nothing")
def _():
    mask = CAUSAL.copy()
    mask[0] = False
    x = draw(3, 5, 8, seed=9)
    wanted, *found = attend(x, mask, torch_mask=~mask)
    assert not wanted[:, 0].any()
    everything = attend(x)[0]
    kernels = attention()[0]
    mean = (x @ kernels["value"]).mean(1) @ kernels["out"]
    assert gap(mean, everything[:, 0]) > 0.1
    of_torch, of_keras, of_flax = (array(y)[:, 0] for y in found)
    assert np.isnan(of_torch).all()
    layer = attention()[1].eval()
    for gradients_on in (True, False):  # without them it takes another way
        with torch.set_grad_enabled(gradients_on):
            y = layer(*[tensor(x)] * 3, attn_mask=tensor(~mask), need_weights=False)[0]
        assert torch.isnan(y[:, 0]).all() != gradients_on
        assert gradients_on == (not torch.isnan(y).any() and not y[:, 0].any())
    assert max(gaps(mean, of_keras, of_flax)) < 1e-5
    q = tensor(draw(3, 2, 5, 4))
    by_function = F.scaled_dot_product_attention(q, q, q, tensor(mask))
    assert not by_function[:, :, 0].any()
    return "NaN", "mean", "mean"


@measures("MultiHeadAttention", "order of the axes")
def _():
    x = draw(3, 5, 8, seed=9)
    wanted, _, of_keras, of_flax = attend(x)
    of_torch = attention()[1]
    of_torch.batch_first = nn.MultiheadAttention(8, 2).batch_first
    return gaps(wanted, of_torch(*[tensor(x)] * 3)[0], of_keras, of_flax)


@measures("MultiHeadAttention", "what is returned")
def _():
    """The number of values; torch's second one are the weights, averaged over the heads."""
    x = draw(3, 5, 8, seed=9)
    _, of_torch, of_keras, of_flax = attention()
    found = of_torch(*[tensor(x)] * 3)
    assert found[1].shape == (3, 5, 5)
    single = of_keras(x, x), of_flax(jnp.asarray(x), decode=False)
    assert all(array(y).shape == x.shape for y in single)
    return len(found), 1, 1


# Recurrence: 4 features in, 5 in the state, a batch of 3, 6 steps.


def split(kernels, order):
    return np.concatenate([kernels[gate] for gate in order], -1)


def gates(names, seed=0):
    """For each gate: a kernel (4, 5), a recurrent kernel (5, 5), a bias (5,)."""
    shapes = (4, 5), (5, 5), (5,)
    return [
        {gate: draw(*shape, seed=seed + 10 * i + j) / 2 for j, gate in enumerate(names)}
        for i, shape in enumerate(shapes)
    ]


def recurrent(of_torch, of_keras, cell, kernel, hidden, bias, hidden_bias=None, order=None):
    """The three stock layers with these numbers; torch's second bias is 0 unless it is given."""
    order = order or "".join(kernel)
    second = np.zeros(5 * len(kernel), np.float32)
    if hidden_bias is not None:
        second = split(hidden_bias, kernel)
    set_torch(
        of_torch,
        weight_ih_l0=split(kernel, kernel).T,
        weight_hh_l0=split(hidden, kernel).T,
        bias_ih_l0=split(bias, kernel),
        bias_hh_l0=second,
    )
    biases = split(bias, order)
    if len(kernel) == 3:  # GRU, with reset_after
        other = split(hidden_bias, order) if hidden_bias is not None else np.zeros_like(biases)
        biases = np.stack([biases, other])
    set_keras(of_keras, (6, 4), split(kernel, order), split(hidden, order), biases)
    inward, recur = cell.dense_i, cell.dense_h
    set_flax(inward, kernel=split(kernel, kernel))
    set_flax(recur, kernel=split(hidden, kernel))
    set_flax(inward if inward.bias is not None else recur, bias=split(bias, kernel))
    return of_torch, of_keras, nnx.RNN(cell, rngs=rngs())


def steps(x, of_torch, of_keras, of_flax):
    return of_torch(tensor(x))[0], of_keras(x), of_flax(jnp.asarray(x))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def unrolled(x, cell, *state):
    """`cell(x, *state) -> state`, whose first part is the output, from a state of zeros."""
    state, outputs = [np.zeros((len(x), 5))] * 2, []
    for step in np.moveaxis(x.astype(float), 1, 0):
        state = cell(step, *state)
        outputs.append(state[0])
    return np.stack(outputs, 1)


def lstm():
    kernel, hidden, bias = gates("ifgo")
    found = recurrent(
        nn.LSTM(4, 5, batch_first=True),
        layers.LSTM(5, return_sequences=True),
        nnx.OptimizedLSTMCell(4, 5, rngs=rngs()),
        *(kernel, hidden, bias),
    )

    def cell(x, h, c):
        i, f, g, o = (x @ kernel[a] + h @ hidden[a] + bias[a] for a in "ifgo")
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        return sigmoid(o) * np.tanh(c), c

    return cell, found


def gru(hidden_bias=None):
    kernel, hidden, bias = gates("rzn")
    found = recurrent(
        nn.GRU(4, 5, batch_first=True),
        layers.GRU(5, return_sequences=True),
        nnx.GRUCell(4, 5, rngs=rngs()),
        *(kernel, hidden, bias),
        hidden_bias=hidden_bias,
        order="zrn",
    )

    def cell(x, h, _):
        r, z = (sigmoid(x @ kernel[a] + h @ hidden[a] + bias[a]) for a in "rz")
        n = np.tanh(x @ kernel["n"] + bias["n"] + r * (h @ hidden["n"]))
        return (1 - z) * n + z * h, None

    return cell, found


def simple():
    kernel, hidden, bias = gates("h")
    found = recurrent(
        nn.RNN(4, 5, batch_first=True),
        layers.SimpleRNN(5, return_sequences=True),
        nnx.SimpleCell(4, 5, rngs=rngs()),
        *(kernel, hidden, bias),
    )

    def cell(x, h, _):
        return np.tanh(x @ kernel["h"] + h @ hidden["h"] + bias["h"]), None

    return cell, found


def trainable(of_torch, of_keras, of_flax):
    return (
        sum(p.numel() for p in of_torch.parameters()),
        of_keras.count_params(),
        sum(v.size for v in jax.tree.leaves(nnx.state(of_flax, nnx.Param))),
    )


STEPS = draw(3, 6, 4, seed=9)


@measures("SimpleRNN", "step")
def _():
    cell, found = simple()
    return gaps(unrolled(STEPS, cell), *steps(STEPS, *found))


@measures("SimpleRNN", "biases")
def _():
    return trainable(*simple()[1])


@measures("LSTM", "gates")
def _():
    cell, found = lstm()
    return gaps(unrolled(STEPS, cell), *steps(STEPS, *found))


@measures("LSTM", "biases")
def _():
    return trainable(*lstm()[1])


@measures("LSTM", "step of the bias")
def _():
    """How far one step of SGD moves the bias that acts, in units of its gradient."""
    import tensorflow as tf

    _, (of_torch, of_keras, of_flax) = lstm()
    of_torch(tensor(STEPS))[0].sum().backward()
    grads = [of_torch.bias_ih_l0.grad, of_torch.bias_hh_l0.grad]
    with tf.GradientTape() as tape:
        y = tf.reduce_sum(of_keras(STEPS))
    by_keras = tape.gradient(y, of_keras.weights[2].value)
    by_flax = nnx.grad(lambda model: model(STEPS).sum())(of_flax)["cell"]["dense_h"]["bias"][...]
    one = array(grads[0])
    assert max(gaps(one, by_keras, by_flax)) < 1e-5
    return tuple(
        float(np.abs(array(g)).max() / np.abs(one).max()) for g in (sum(grads), by_keras, by_flax)
    )


@cache
def fresh_lstm():
    """25 features in, 100 in the state."""
    torch.manual_seed(0)
    keras.utils.set_random_seed(0)
    of_torch, of_keras = nn.LSTM(25, 100), layers.LSTM(100)
    of_keras.build((None, 6, 25))
    return of_torch, of_keras.cell, nnx.OptimizedLSTMCell(25, 100, rngs=rngs())


@measures("LSTM", "first kernel")
def _():
    of_torch, of_keras, of_flax = fresh_lstm()
    kernels = of_torch.weight_ih_l0, of_keras.kernel, of_flax.dense_i.kernel[...]
    return tuple(map(spread, kernels))


@measures("LSTM", "first recurrent kernel")
def _():
    of_torch, of_keras, of_flax = fresh_lstm()
    kernels = of_torch.weight_hh_l0.T, of_keras.recurrent_kernel, of_flax.dense_h.kernel[...]
    for kernel in map(array, kernels[1:]):
        assert gap(kernel @ kernel.T, np.eye(100)) < 1e-5
    return tuple(map(spread, kernels))


@measures("LSTM", "first bias of the forget gate")
def _():
    of_torch, of_keras, of_flax = fresh_lstm()
    biases = of_torch.bias_ih_l0, of_keras.bias, of_flax.dense_h.bias[...]
    return tuple(float(np.abs(array(bias)[100:200]).max()) for bias in biases)


@measures("LSTM", "order of the axes")
def _():
    cell, (of_torch, *others) = lstm()
    of_torch.batch_first = nn.LSTM(4, 5).batch_first
    return gaps(unrolled(STEPS, cell), *steps(STEPS, of_torch, *others))


@measures("LSTM", "output")
def _():
    """The number of steps that come out of six."""
    as_it_comes = layers.LSTM(5)(STEPS)
    of_flax = nnx.RNN(nnx.OptimizedLSTMCell(4, 5, rngs=rngs()), rngs=rngs())
    assert as_it_comes.shape == (3, 5)
    return nn.LSTM(4, 5, batch_first=True)(tensor(STEPS))[0].shape[1], 1, of_flax(STEPS).shape[1]


@measures("LSTM", "bidirectional")
def _():
    """The same numbers in both directions."""
    cell, (forward, of_keras, of_flax) = lstm()
    of_torch = nn.LSTM(4, 5, batch_first=True, bidirectional=True)
    for name, value in forward.named_parameters():
        set_torch(
            of_torch, **{name: value.detach().numpy(), f"{name}_reverse": value.detach().numpy()}
        )
    both = layers.Bidirectional(layers.LSTM(5, return_sequences=True))
    set_keras(both, (6, 4), *of_keras.get_weights() * 2)
    reverse = nnx.RNN(of_flax.cell, rngs=rngs())
    turned = nnx.Bidirectional(of_flax, reverse, rngs=rngs())
    back = unrolled(STEPS[:, ::-1], cell)[:, ::-1]
    wanted = np.concatenate([unrolled(STEPS, cell), back], -1)
    return gaps(wanted, of_torch(tensor(STEPS))[0], both(STEPS), turned(STEPS))


@measures("GRU", "gates")
def _():
    cell, found = gru()
    return gaps(unrolled(STEPS, cell), *steps(STEPS, *found))


@measures("GRU", "biases")
def _():
    return trainable(*gru()[1])


@measures("GRU", "bias of the candidate")
def _():
    """What a second bias, inside the reset, adds."""
    _, _, second = gates("rzn", seed=50)
    cell, found = gru(hidden_bias={gate: second[gate] * (gate == "n") for gate in "rzn"})
    return gaps(unrolled(STEPS, cell), *steps(STEPS, *found))


@measures("GRU", "reset")
def _():
    """After the product with the recurrent kernel, or before."""
    cell, (of_torch, after, of_flax) = gru()
    before = layers.GRU(5, return_sequences=True, reset_after=False)
    kernel, hidden, biases = after.get_weights()
    set_keras(before, (6, 4), kernel, hidden, biases[0])
    wanted = unrolled(STEPS, cell)
    assert 0.01 < gap(before(STEPS), wanted) < 1
    return gaps(wanted, *steps(STEPS, of_torch, after, of_flax))


# Combinators.


@measures("Sequential", "a tuple inside")
def _():
    """How many arguments the next layer gets from a layer that returns two values."""

    class Pair(nn.Module):
        def forward(self, x):
            return x, x

    class Count(nn.Module):
        def forward(self, *values):
            return len(values)

    def pair(x):
        return x, x

    def count(*values):
        return len(values)

    class KerasPair(layers.Layer):
        def call(self, x):
            return x, x

    class KerasCount(layers.Layer):
        def call(self, *values):
            return ops.ones(len(values))

    x = np.ones((1, 2), np.float32)
    by_keras = keras.Sequential([KerasPair(), KerasCount()])(x)
    by_torch = nn.Sequential(Pair(), Count())(tensor(x))
    return by_torch, len(array(by_keras)), nnx.Sequential(pair, count)(jnp.asarray(x))


@measures("Parallel", "axis of concat")
def _():
    x = np.ones((5, 3), np.float32)
    joined = torch.cat([tensor(x)] * 2), layers.Concatenate()([x, x]), jnp.concatenate([x, x])
    return tuple(y.shape[-1] for y in joined)


@measures("Parallel", "axis of stack")
def _():
    x = np.ones((5, 3), np.float32)
    stacked = torch.stack([tensor(x)] * 2), ops.stack([x, x]), jnp.stack([x, x])
    return tuple(tuple(y.shape).index(2) for y in stacked)


@measures("Parallel", "gradient of max among equal numbers")
def _():
    """The share of the first of two."""
    other = np.zeros(1, np.float32)
    found = gradients(
        [0],
        lambda a: torch.maximum(a, tensor(other)),
        lambda a: layers.Maximum()([a, ops.convert_to_tensor(other)]),
        lambda a: jnp.maximum(a, other),
    )
    return tuple(float(array(g)[0]) for g in found)


@measures("Shared", "how often it is listed")
def _():
    """Arrays of a Dense that is used twice."""
    of_torch, of_flax = nn.Linear(3, 3), nnx.Linear(3, 3, rngs=rngs())
    twice = nn.Sequential(of_torch, of_torch)
    assert len(list(twice.parameters())) == 2
    inputs, tied = keras.Input((3,)), layers.Dense(3)
    of_keras = keras.Model(inputs, tied(tied(inputs)))
    state = nnx.state(nnx.Sequential(of_flax, of_flax))
    return len(twice.state_dict()), len(of_keras.weights), len(jax.tree.leaves(state))


# Numbers and training.


@measures("infer", "float64 given to a layer")
def _():
    """What comes out of a stock Dense."""
    x = draw(2, 4).astype(np.float64)
    refuses(RuntimeError, nn.Linear(4, 3), tensor(x))
    of_flax = nnx.Linear(4, 3, rngs=rngs())
    return "refused", str(layers.Dense(3)(x).dtype.name), str(of_flax(jnp.asarray(x)).dtype)


def descend(optimizers, rates=(0.1,) * 8, start=1.0):
    """A weight after steps down the hill of w^2 / 2 in torch, Keras and optax."""
    for_torch, for_keras, for_optax = optimizers
    found = []
    w = torch.tensor([start], requires_grad=True)
    optimizer = for_torch([w])
    for rate in rates:
        optimizer.param_groups[0]["lr"] = rate
        w.grad = w.detach().clone()
        optimizer.step()
    found.append(w.item())
    v = keras.Variable([start])
    optimizer = for_keras()
    for rate in rates:
        optimizer.learning_rate = rate
        optimizer.apply([v.value], [v])
    found.append(float(array(v)[0]))
    optimizer = for_optax(lambda step: jnp.asarray(rates)[step])
    u = jnp.array([start])
    state = optimizer.init(u)
    for _ in rates:
        change, state = optimizer.update(u, state, u)
        u = optax.apply_updates(u, change)
    found.append(float(u[0]))
    return found


def by_hand(momentum, nesterov=False, rates=(0.1,) * 8):
    w, v = 1.0, 0.0
    for rate in rates:
        g = w
        v = momentum * v + g
        w -= rate * (g + momentum * v if nesterov else v)
    return w


def momentum(nesterov=False):
    options = {"momentum": 0.9, "nesterov": nesterov}
    return (
        partial(torch.optim.SGD, lr=0.1, **options),
        partial(keras.optimizers.SGD, 0.1, **options),
        partial(optax.sgd, **options),
    )


def off(found, wanted):
    return tuple(float(abs(w - wanted) / abs(wanted)) for w in found)


@measures("SGD", "momentum")
def _():
    return off(descend(momentum()), by_hand(0.9))


@measures("SGD", "nesterov")
def _():
    return off(descend(momentum(nesterov=True)), by_hand(0.9, nesterov=True))


@measures("SGD", "momentum when the rate changes")
def _():
    rates = (0.1, 0.1, 0.01, 0.01)
    return off(descend(momentum(), rates), by_hand(0.9, rates=rates))


@measures("SGD", "weight decay")
def _():
    """From torch's: one of the gradient, or of the weight alone."""
    options = {"weight_decay": 0.5}
    found = descend(
        (
            partial(torch.optim.SGD, lr=0.1, momentum=0.9, **options),
            partial(keras.optimizers.SGD, 0.1, 0.9, **options),
            lambda rate: optax.chain(optax.add_decayed_weights(0.5), optax.sgd(rate, 0.9)),
        )
    )
    return off(found, found[0])


@measures("Adam", "place of epsilon")
def _():
    found = descend(
        (
            partial(torch.optim.Adam, lr=0.1, betas=(0.9, 0.75), eps=0.5),
            partial(keras.optimizers.Adam, 0.1, 0.9, 0.75, epsilon=0.5),
            partial(optax.adam, b2=0.75, eps=0.5),
        )
    )
    w, m, v = 1.0, 0.0, 0.0
    for t in range(1, 9):
        m, v = 0.9 * m + 0.1 * w, 0.75 * v + 0.25 * w**2
        w -= 0.1 * m / (1 - 0.9**t) / ((v / (1 - 0.75**t)) ** 0.5 + 0.5)
    return off(found, w)


@measures("Adam", "id used again in a batch")
def _():
    """Four times, in fact, each with the gradient 1."""
    import tensorflow as tf

    ids = np.array([1, 1, 1, 1])
    of_torch, of_keras = nn.Embedding(3, 1), layers.Embedding(3, 1)
    before = array(of_torch.weight).copy()
    of_torch(tensor(ids)).sum().backward()
    torch.optim.Adam(of_torch.parameters(), lr=1.0).step()
    by_torch = before - array(of_torch.weight)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(of_keras(ids))
    before = array(of_keras.embeddings).copy()
    variables = of_keras.trainable_variables
    rows = tape.gradient(total, [v.value for v in variables])
    keras.optimizers.Adam(1.0).apply(rows, variables)
    by_keras = before - array(of_keras.embeddings)
    grads = jax.grad(lambda table: table[ids].sum())(jnp.zeros((3, 1)))
    rule = optax.adam(1.0)
    by_flax = -array(rule.update(grads, rule.init(grads))[0])
    return tuple(float(step[1, 0]) for step in (by_torch, by_keras, by_flax))


LOGITS, LABELS = draw(4, 3), np.array([0, 2, 1, 2])


@measures("fit", "cross-entropy of logits")
def _():
    shifted = np.exp(LOGITS.astype(float))
    wanted = -np.log((shifted / shifted.sum(1, keepdims=True))[range(4), LABELS]).mean()
    by_keras = keras.losses.SparseCategoricalCrossentropy()
    with_logits = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    assert float(with_logits(LABELS, LOGITS)) == pytest.approx(wanted, rel=1e-6)
    found = (
        nn.CrossEntropyLoss()(tensor(LOGITS), tensor(LABELS)),
        by_keras(LABELS, LOGITS),
        optax.softmax_cross_entropy_with_integer_labels(LOGITS, LABELS).mean(),
    )
    return off(map(float, found), wanted)


@measures("fit", "mean over the batch")
def _():
    """How many numbers come out for four examples."""
    found = (
        nn.CrossEntropyLoss()(tensor(LOGITS), tensor(LABELS)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True)(LABELS, LOGITS),
        optax.softmax_cross_entropy_with_integer_labels(LOGITS, LABELS),
    )
    return tuple(array(loss).size for loss in found)


@measures("fit", "mean squared error")
def _():
    x, y = draw(4, 3), draw(4, 3, seed=1)
    found = (
        nn.MSELoss()(tensor(x), tensor(y)),
        keras.losses.MeanSquaredError()(y, x),
        optax.l2_loss(x, y).mean(),
    )
    return off(map(float, found), ((x - y) ** 2).mean())


@measures("fit", "mean absolute error of 0")
def _():
    import tensorflow as tf

    zero = torch.zeros(1, requires_grad=True)
    nn.L1Loss()(zero, torch.zeros(1)).backward()
    x = tf.Variable([0.0])
    with tf.GradientTape() as tape:
        y = keras.losses.MeanAbsoluteError()(np.zeros(1, np.float32), x)
    by_keras = tape.gradient(y, x)
    found = zero.grad, by_keras, jax.grad(lambda x: jnp.abs(x).mean())(jnp.zeros(1))
    return tuple(float(array(g)[0]) for g in found)


@measures("fit", "binary cross-entropy, far off")
def _():
    logit, target = np.full((1, 1), -30, np.float32), np.ones((1, 1), np.float32)
    found = (
        nn.BCEWithLogitsLoss()(tensor(logit), tensor(target)),
        keras.losses.BinaryCrossentropy()(target, 1 / (1 + np.exp(-logit))),
        optax.sigmoid_binary_cross_entropy(logit, target).mean(),
    )
    return off(map(float, found), 30)


@measures("fit", "clipping by the norm")
def _():
    """The first of the two after it."""
    given = np.float32([3e-5]), np.float32([4e-5])
    weights = [torch.zeros(1) for _ in given]
    for weight, g in zip(weights, given, strict=True):
        weight.grad = tensor(g.copy())
    nn.utils.clip_grad_norm_(weights, 1e-5)
    variables = [keras.Variable([0.0]) for _ in given]
    keras.optimizers.SGD(1.0, clipnorm=1e-5).apply(
        [*map(keras.ops.convert_to_tensor, given)], variables
    )
    by_flax = optax.clip_by_global_norm(1e-5).update(given, optax.EmptyState())[0]
    found = weights[0].grad, -array(variables[0]), by_flax[0]
    return off((float(array(g)[0]) for g in found), 0.6e-5)

"""ConvTranspose is what the frameworks' own layers compute, for every size, kernel and stride."""

import itertools

import numpy as np
import pytest

import blocks as bl
from blocks._parity import relative
from conftest import need

SIZES = list(itertools.product((4, 5, 6, 7), (1, 2, 3, 4, 5), (1, 2, 3, 4)))
RNG = np.random.default_rng(0)


def reference(block, kernel, bias, x, layout="channels_last"):
    node = bl.infer(block, x.shape[1:], layout=layout, dtype="float64")
    y = bl.apply(bl.lower(node, "numpy", params={"kernel": kernel, "bias": bias}), x)
    assert y.shape[1:] == node.out_spec.shape
    return y


def equal(got, wanted):
    return relative(np.asarray(got), wanted)[0] < 1e-13


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_same_and_valid_are_those_of_keras_and_flax(padding):
    need("keras")
    need("flax")
    import jax
    import keras
    from flax import nnx

    wrong = []
    for n, k, s in SIZES:
        x, kernel, bias = (RNG.normal(size=shape) for shape in ((2, n, 3), (k, 3, 5), (5,)))
        wanted = reference(bl.ConvTranspose(5, (k,), stride=s, padding=padding), kernel, bias, x)
        layer = keras.layers.Conv1DTranspose(5, k, s, padding, dtype="float64")
        layer.build(x.shape)
        layer.set_weights([kernel.swapaxes(1, 2), bias])
        if not equal(keras.ops.convert_to_numpy(layer(x)), wanted):
            wrong.append(("keras", n, k, s))
        with jax.enable_x64(True):
            own = nnx.ConvTranspose(
                3, 5, (k,), s, padding=padding.upper(), param_dtype="float64", rngs=nnx.Rngs(0)
            )
            own.kernel.set_value(jax.numpy.asarray(kernel[::-1]))
            own.bias.set_value(jax.numpy.asarray(bias))
            if not equal(own(x), wanted):
                wrong.append(("flax", n, k, s))
    assert not wrong


def test_pairs_and_output_padding_are_those_of_torch():
    need("torch")
    import torch
    from torch import nn

    wrong, tried = [], 0
    for n, k, s in itertools.product((4, 6), (1, 2, 3, 5), (1, 2, 3)):
        for p, more, d, groups in itertools.product(range(3), range(3), (1, 3), (1, 2)):
            length = (n - 1) * s - 2 * p + (k - 1) * d + more + 1
            if more >= max(s, d) or length < 1:
                continue
            tried += 1
            x, kernel, bias = (
                RNG.normal(size=shape) for shape in ((2, 4, n), (k, 4, 6 // groups), (6,))
            )
            block = bl.ConvTranspose(
                6, (k,), s, padding=((p, p),), output_padding=more, dilation=d, groups=groups
            )
            wanted = reference(block, kernel, bias, x, "channels_first")
            layer = nn.ConvTranspose1d(4, 6, k, s, p, more, groups, dilation=d).double()
            layer.weight.data = torch.from_numpy(kernel.transpose(1, 2, 0))
            layer.bias.data = torch.from_numpy(bias)
            if not equal(layer(torch.from_numpy(x)).detach(), wanted):
                wrong.append((n, k, s, p, more, d, groups))
    assert tried > 300
    assert not wrong


def test_it_is_the_transpose_of_conv():
    """<ConvTranspose(c), x> = <c, Conv(x)> with one kernel, padding and stride."""
    steps = {"stride": (2, 3), "dilation": (1, 2), "use_bias": False}
    pads = ((1, 0), (2, 1))
    conv = bl.lower(
        bl.Conv(4, (3, 2), padding=pads, **steps), "numpy", input_shape=(9, 10, 6), dtype="float64"
    )
    x = RNG.normal(size=(2, 9, 10, 6))
    y = bl.apply(conv, x)
    cotangent = RNG.normal(size=y.shape)
    back = bl.ConvTranspose(6, (3, 2), padding=pads, output_padding=(1, 1), **steps)
    node = bl.infer(back, y.shape[1:], dtype="float64")
    kernel = bl.params_of(conv)["kernel"].swapaxes(-1, -2)
    z = bl.apply(bl.lower(node, "numpy", params={"kernel": kernel}), cotangent)
    assert z.shape == x.shape
    assert equal(z, bl.gradients(conv, x, cotangent)["input"])


LENGTHS = [
    bl.ConvTranspose(6, (3,), stride=2, padding="same"),
    bl.ConvTranspose(6, (3,), stride=2, groups=2, padding=((1, 0),)),
    bl.ConvTranspose(6, (2,), dilation=3),
    bl.Upsample((3,)),
]


@pytest.mark.parametrize("block", LENGTHS, ids=str)
def test_any_length(block, framework):
    assert bl.parity(block, (None, 4), backends=[framework], dtype="float64", steps=0)


def test_several_axes_of_any_length_are_refused_where_keras_has_no_layer():
    need("keras")
    node = bl.infer(bl.ConvTranspose(6, (3, 3), stride=2, groups=2), (None, None, 4))
    with pytest.raises(bl.UnsupportedError) as error:
        bl.lower(node, "keras")
    assert str(error.value) == (
        "keras cannot lower ConvTranspose at the top with several axes of any length: its layer "
        "has no such groups, dilation or padding, and Reshape infers one size.\n"
        "  Give the sizes to infer."
    )
    assert bl.parity(
        bl.ConvTranspose(6, (3, 3), stride=2), (None, None, 4), backends=["keras"], steps=0
    )


def test_multiply_adds():
    """Every cell of the input meets every cell of the kernel once."""
    block = bl.ConvTranspose(6, (3, 2), stride=2, groups=2)
    node = bl.infer(block, (5, 7, 4))
    assert block.multiply_adds(node.in_spec, node.out_spec) == 5 * 7 * 4 * 3 * 2 * 3
    node = bl.infer(block, (None, 7, 4))
    assert block.multiply_adds(node.in_spec, node.out_spec) is None

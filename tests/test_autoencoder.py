"""A variational autoencoder, written out with its sizes: shapes, counts, listing, what is wrong."""

import numpy as np
import pytest

import blocks as bl
from conftest import need

IMAGE = (3, 28, 28)
FIRST = {"layout": "channels_first"}


def encoding(inputs, features):
    return (
        bl.Conv(features, (3, 3), in_features=inputs),
        bl.BatchNorm(in_features=features),
        bl.ReLU(),
        bl.MaxPool((1, 1), 1),
        bl.Dropout(0.25, whole_channels=True),
    )


def decoding(inputs, features, norm):
    return (
        bl.ConvTranspose(features, (3, 3), use_bias=False, in_features=inputs),
        bl.BatchNorm(in_features=norm),
        bl.ReLU(),
        bl.Dropout(0.25, whole_channels=True),
    )


ENCODER = bl.Sequential(*encoding(3, 8), *encoding(8, 16), flatten=bl.Flatten())


def autoencoder(decoder):
    return bl.Sequential(
        encoder=ENCODER,
        heads=bl.Parallel(
            mean=bl.Dense(16, in_features=9216),
            log_var=bl.Dense(16, in_features=9216),
            merge="tuple",
        ),
        sample=bl.Sample(),
        sampler=bl.Dense(9216, in_features=16),
        decoder=decoder,
    )


def by_hand(first, second):
    """The decoder with these channels stated for its norms."""
    stages = (*decoding(16, 8, first), *decoding(8, 3, second))
    return autoencoder(bl.Sequential(bl.Reshape((16, 24, 24)), bl.Sequential(*stages)))


def test_shapes():
    node = bl.infer(by_hand(8, 3), IMAGE, **FIRST)
    shapes = [n.out_spec.shape for n in node.walk() if n.name and not n.children and n.params]
    assert shapes == [
        *[(8, 26, 26)] * 2,
        *[(16, 24, 24)] * 2,
        (16,),
        (16,),
        (9216,),
        *[(8, 26, 26)] * 2,
        *[IMAGE] * 2,
    ]


def test_counts():
    node = bl.infer(by_hand(8, 3), IMAGE, **FIRST)
    rows = [bl.count(n, trainable=True) for n in node.walk() if n.params]
    assert rows == [224, 16, 1168, 32, 147_472, 147_472, 156_672, 1152, 16, 216, 6]
    assert bl.count(node, trainable=True) == 454_446


def test_norms_with_the_channels_before_their_layer():
    found = bl.validate(by_hand(16, 8), IMAGE, **FIRST)
    assert [error.path for error in found] == ["decoder/1/1", "decoder/1/5"]
    assert bl.count(found.node, trainable=True) == 454_472


def test_listing():
    """All that has a name of its own says so; Flatten, Sample and Reshape are modules here."""
    found = bl.validate(by_hand(16, 8), IMAGE, **FIRST)
    rows = [line.partition(": ")[2] for line in bl.listing(found.node).splitlines()]
    assert len(rows) == 24
    shapes = ("Flatten-", "Sample-", "Reshape(")
    assert [row for row in rows if not row.startswith(shapes)] == [
        "Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1))",
        "BatchNorm2d(8, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True)",
        "ReLU()",
        "MaxPool2d(kernel_size=1, stride=1, padding=0, dilation=1, ceil_mode=False)",
        "Dropout2d(p=0.25, inplace=False)",
        "Conv2d(8, 16, kernel_size=(3, 3), stride=(1, 1))",
        "BatchNorm2d(16, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True)",
        "ReLU()",
        "MaxPool2d(kernel_size=1, stride=1, padding=0, dilation=1, ceil_mode=False)",
        "Dropout2d(p=0.25, inplace=False)",
        "Mean-Linear(in_features=9216, out_features=16, bias=True)",
        "LogVar-Linear(in_features=9216, out_features=16, bias=True)",
        "Sampler-Linear(in_features=16, out_features=9216, bias=True)",
        "ConvTranspose2d(16, 8, kernel_size=(3, 3), stride=(1, 1), bias=False)",
        "BatchNorm2d(16, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True)",
        "ReLU()",
        "Dropout2d(p=0.25, inplace=False)",
        "ConvTranspose2d(8, 3, kernel_size=(3, 3), stride=(1, 1), bias=False)",
        "BatchNorm2d(8, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True)",
        "ReLU()",
        "Dropout2d(p=0.25, inplace=False)",
    ]


def test_the_decoder_by_mirror():
    """The layers of the one by hand, with the encoder's biases, and nothing after the image."""
    decoder = ENCODER.transpose(IMAGE, output_activation=bl.Sigmoid(), **FIRST)
    assert decoder == bl.Sequential(
        bl.Reshape((16, 24, 24)),
        bl.ConvTranspose(8, (3, 3)),
        bl.BatchNorm(in_features=8),
        bl.ReLU(),
        bl.ConvTranspose(3, (3, 3)),
        bl.Sigmoid(),
    )
    node = bl.infer(autoencoder(decoder), IMAGE, **FIRST)
    assert node.out_spec.shape == IMAGE
    assert bl.count(node, trainable=True) == 454_446 + 8 + 3 - 6


def test_the_whole_has_no_mirror():
    with pytest.raises(bl.UnsupportedError, match=r"^Sample at 'sample' has no mirror"):
        by_hand(8, 3).transpose(IMAGE, **FIRST)


def test_it_is_the_same_everywhere(framework):
    """In evaluation, and in training with the same draws."""
    small = bl.Sequential(
        heads=bl.Parallel(mean=bl.Dense(3), log_var=bl.Dense(3), merge="tuple"),
        sample=bl.Sample(),
        rest=bl.Dense(5),
    )
    assert bl.parity(small, (7,), backends=["numpy", need(framework)], steps=1)
    x = np.random.default_rng(0).normal(size=(4, 7))
    outputs = []
    for name in ("numpy", framework):
        node = bl.infer(small, (7,), dtype="float64")
        model = bl.lower(node, name, params=bl.init(node), draws="shared")
        outputs.append(bl.apply(model, x, training=True))
    assert np.allclose(*outputs, rtol=1e-12, atol=0)


def test_noise_is_taken_away():
    """Inputs with noise of 0.2, cut off at 0 and 1; targets without."""
    rng = np.random.default_rng(0)
    clean = rng.random((600, 2)) @ rng.dirichlet([0.3] * 12, 2)  # of two parts, all from 0 to 1
    noisy = np.clip(clean + 0.2 * rng.normal(size=clean.shape), 0, 1)
    train, test = ((noisy[rows], clean[rows]) for rows in (slice(500), slice(500, None)))
    encoder = bl.Sequential(bl.Dense(8), bl.Tanh(), bl.Dense(2))
    model = bl.lower(bl.autoencoder(encoder, (12,)), "numpy", input_shape=(12,), dtype="float64")
    bl.fit(model, train, loss="mse", optimizer=bl.Adam(0.01), epochs=60)
    left = bl.evaluate(model, test, loss="mse")["loss"]
    assert left < 0.5 * np.mean((test[0] - test[1]) ** 2)
    assert left < 0.5 * bl.evaluate(model, test, loss="mae")["loss"]

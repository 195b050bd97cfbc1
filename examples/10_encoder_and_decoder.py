"""Encoder and decoder: from an image to 1024 numbers and back, plain and residual.

Run `python examples/10_encoder_and_decoder.py`; `--backend torch` shows one backend alone.

Two patterns of kernel, stride and padding suffice: 3, 1, 1 keeps a size and 4, 2, 1 halves it, or
doubles it in a transposed convolution.
"""

from collections.abc import Callable

import numpy as np

import blocks as bl
from _backends import chosen

LAYOUT = {"layout": "channels_first"}


def keep(features: int) -> bl.Block:
    """3, 1, 1: other channels, the same size."""
    return bl.Conv(features, (3, 3), padding=((1, 1), (1, 1)))


def halve(features: int) -> bl.Block:
    """4, 2, 1: half the size."""
    return bl.Conv(features, (4, 4), stride=2, padding=((1, 1), (1, 1)))


def double(features: int) -> bl.Block:
    """4, 2, 1, transposed: twice the size."""
    return bl.ConvTranspose(features, (4, 4), stride=2, padding=((1, 1), (1, 1)))


def residual(features: int) -> bl.Block:
    """Two convolutions, and a way around them."""
    body = bl.Sequential(keep(features), bl.BatchNorm(), bl.ReLU(), keep(features), bl.BatchNorm())
    return bl.Sequential(bl.Residual(body), bl.ReLU())


def relu(features: int) -> bl.Block:
    """What stands between the layers of a plain encoder."""
    return bl.ReLU()


def stack(layer: Callable, sizes: tuple[int, ...], between: Callable = relu) -> bl.Block:
    """A layer for each number of channels, and a block between two of them."""
    *inner, last = sizes
    blocks = [block for features in inner for block in (layer(features), between(features))]
    return bl.Sequential(*blocks, layer(last))


def autoencoder(between: Callable = relu) -> bl.Block:
    """From an image to 1024 numbers and back."""
    return bl.Sequential(
        encoder=stack(halve, (32, 64, 128, 256, 1024), between),
        decoder=stack(double, (256, 128, 64, 32, 3), between),
    )


encoder, decoder = autoencoder()
small = stack(halve, (32, 64, 128, 128, 1024))
net = autoencoder(residual)

# Images of 32 x 64: a first layer that halves the width alone, or one that quarters it.
halved_width = bl.Sequential(
    bl.Conv(16, (3, 4), stride=(1, 2), padding=((1, 1), (1, 1))), bl.ReLU(), encoder
)
quartered_width = bl.Sequential(
    bl.Conv(32, (4, 8), stride=(2, 4), padding=((1, 1), (2, 2))), *encoder[1:]
)

# Images of 128 x 128 and seven layers.
deep_encoder = stack(halve, (8, 16, 32, 64, 128, 256, 512))
deep_decoder = stack(double, (256, 128, 64, 32, 16, 8, 3))


if __name__ == "__main__":
    backends = chosen()
    print(encoder.summary((3, 32, 32), **LAYOUT))
    print(decoder.summary((1024, 1, 1), **LAYOUT))
    networks = {
        "encoder with fewer parameters": (small, (3, 32, 32)),
        "encoder of 32 x 64, unchanged": (encoder, (3, 32, 64)),
        "encoder of 32 x 64, one layer more": (halved_width, (3, 32, 64)),
        "encoder of 32 x 64, another first layer": (quartered_width, (3, 32, 64)),
        "encoder of 128 x 128": (deep_encoder, (3, 128, 128)),
        "decoder of 128 x 128": (deep_decoder, (512, 1, 1)),
        "autoencoder": (autoencoder(), (3, 32, 32)),
        "residual encoder": (net["encoder"], (3, 32, 32)),
        "residual decoder": (net["decoder"], (1024, 1, 1)),
        "residual autoencoder": (net, (3, 32, 32)),
    }
    for name, (network, shape) in networks.items():
        node = bl.infer(network, shape, **LAYOUT)
        sizes = f"{shape} -> {node.out_spec.shape}"
        print(f"{name}: {bl.count(node, trainable=True):,} parameters, {sizes}")

    x0 = np.zeros((10, 3, 32, 32), np.float32)
    for backend in backends:
        model = bl.lower(net, backend, input_shape=x0.shape[1:], **LAYOUT)
        print(f"{backend:6} {bl.apply(model, x0).shape}")

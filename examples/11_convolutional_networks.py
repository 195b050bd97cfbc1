"""Convolutional networks of the textbooks: LeNet, and the blocks of those that followed.

Run `python examples/11_convolutional_networks.py`; `--backend torch` shows one backend alone.
"""

import numpy as np

import blocks as bl
from _backends import chosen

LAYOUT = {"layout": "channels_first"}

# LeCun et al. 1998.
lenet = net = bl.Sequential(
    bl.Conv(6, (5, 5), padding="same"),
    bl.Sigmoid(),
    bl.AvgPool((2, 2)),
    bl.Conv(16, (5, 5)),
    bl.Sigmoid(),
    bl.AvgPool((2, 2)),
    bl.Flatten(),
    bl.MLP(10, hidden=(120, 84), activation=bl.Sigmoid()),
)


def conv(features: int, size: int) -> bl.Block:
    """A convolution that keeps the size, and ReLU."""
    return bl.Sequential(bl.Conv(features, (size, size), padding="same"), bl.ReLU())


def vgg_block(features: int, times: int) -> bl.Block:
    """Convolutions, then half the size (Simonyan and Zisserman 2015)."""
    return bl.Sequential(*[conv(features, 3)] * times, bl.MaxPool((2, 2)))


def nin_block(features: int, size: int) -> bl.Block:
    """A convolution and two perceptrons at each pixel (Lin et al. 2014)."""
    return bl.Sequential(conv(features, size), conv(features, 1), conv(features, 1))


def inception(c1: int, c2: tuple[int, int], c3: tuple[int, int], c4: int) -> bl.Block:
    """Windows of several sizes side by side (Szegedy et al. 2015)."""
    pool = bl.MaxPool((3, 3), stride=1, padding="same")
    return bl.Parallel(
        conv(c1, 1),
        bl.Sequential(conv(c2[0], 1), conv(c2[1], 3)),
        bl.Sequential(conv(c3[0], 1), conv(c3[1], 5)),
        bl.Sequential(pool, conv(c4, 1)),
    )


def residual_block(features: int, stride: int = 1) -> bl.Block:
    """Two convolutions and a way around, by 1 x 1 where the size changes (He et al. 2016)."""
    body = bl.Sequential(
        bl.Conv(features, (3, 3), stride=stride, padding=((1, 1), (1, 1))),
        bl.BatchNorm(),
        bl.ReLU(),
        bl.Conv(features, (3, 3), padding="same"),
        bl.BatchNorm(),
    )
    shortcut = None if stride == 1 else bl.Conv(features, (1, 1), stride=stride)
    return bl.Sequential(bl.Residual(body, shortcut), bl.ReLU())


def resnext_block(features: int, groups: int) -> bl.Block:
    """A bottleneck whose middle convolution is in groups (Xie et al. 2017)."""
    middle = bl.Conv(features, (3, 3), padding="same", groups=groups)
    body = bl.Sequential(conv(features, 1), middle, bl.ReLU(), bl.Conv(features, (1, 1)))
    return bl.Sequential(bl.Residual(body), bl.ReLU())


def dense_block(growth: int, times: int) -> bl.Block:
    """Each convolution sees the outputs of all before it (Huang et al. 2017)."""
    layer = bl.Sequential(bl.BatchNorm(), bl.ReLU(), bl.Conv(growth, (3, 3), padding="same"))
    return bl.Sequential(*[bl.Residual(layer, merge="concat")] * times)


# Block, shape of its input.
BLOCKS = {
    "LeNet": (lenet, (1, 28, 28)),
    "VGG block": (vgg_block(16, 2), (3, 12, 8)),
    "NiN block": (nin_block(10, 5), (3, 12, 8)),
    "Inception block": (inception(8, (6, 9), (2, 5), 4), (3, 12, 8)),
    "residual block": (residual_block(3), (3, 12, 8)),
    "residual block, stride 2": (residual_block(6, 2), (3, 12, 8)),
    "ResNeXt block": (resnext_block(8, 4), (8, 12, 6)),
    "dense block": (dense_block(10, 2), (3, 12, 8)),
}

if __name__ == "__main__":
    backends = chosen()
    print(lenet.summary((1, 28, 28), **LAYOUT))
    rng = np.random.default_rng(0)
    for name, (block, shape) in BLOCKS.items():
        node = bl.infer(block, shape, **LAYOUT)
        x = rng.normal(size=(2, *shape)).astype(np.float32)
        sums = {name: bl.apply(bl.lower(node, name), x).sum() for name in backends}
        print(f"{name}: {bl.count(node):,} parameters, {shape} -> {node.out_spec.shape}")
        print("  sum of the output: " + ", ".join(f"{k} {v:.4f}" for k, v in sums.items()))

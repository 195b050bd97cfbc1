"""The three networks that are timed, as blocks."""

from __future__ import annotations

from dataclasses import dataclass

import blocks as bl


@dataclass(frozen=True)
class Network:
    """A network of ten classes, the shape of an example and the size of a batch."""

    name: str
    block: bl.Block
    shape: tuple[int, ...]
    batch: int


def basic(features: int, stride: int) -> bl.Block:
    """Two convolutions with a way around them (He et al. 2016, figure 2)."""
    body = bl.Sequential(
        conv(features, 3, stride), bl.BatchNorm(), bl.ReLU(), conv(features, 3), bl.BatchNorm()
    )
    shortcut = None if stride == 1 else bl.Sequential(conv(features, 1, stride), bl.BatchNorm())
    return bl.Sequential(bl.Residual(body, shortcut), bl.ReLU())


def conv(features: int, size: int, stride: int = 1) -> bl.Block:
    pad = size // 2
    window = (size, size)
    return bl.Conv(features, window, stride, padding=((pad, pad),) * 2, use_bias=False)


RESNET20 = bl.Sequential(
    conv(16, 3),
    bl.BatchNorm(),
    bl.ReLU(),
    *(basic(16, 1) for _ in range(3)),
    *(basic(32, 2 if i == 0 else 1) for i in range(3)),
    *(basic(64, 2 if i == 0 else 1) for i in range(3)),
    bl.GlobalAvgPool(),
    bl.Dense(10),
)

WIDTH = 256
ENCODER_LAYER = bl.Sequential(
    bl.Residual(bl.Sequential(bl.LayerNorm(), bl.MultiHeadAttention(8))),
    bl.Residual(
        bl.Sequential(bl.LayerNorm(), bl.Dense(4 * WIDTH), bl.GELU(), bl.Dense(WIDTH)),
    ),
)

NETWORKS = {
    network.name: network
    for network in (
        Network("MLP", bl.MLP(10, hidden=(512, 512)), (784,), 64),
        Network("ResNet-20", RESNET20, (32, 32, 3), 32),
        Network(
            "Transformer",
            bl.Sequential(
                bl.Repeat(ENCODER_LAYER, 6),
                bl.LayerNorm(),
                bl.Reduce("b t d -> b d", "mean"),
                bl.Dense(10),
            ),
            (128, WIDTH),
            8,
        ),
    )
}

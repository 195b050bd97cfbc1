"""Image to image: stages down, stages up, ways around each, and a last layer of zeros.

Run `python examples/12_image_to_image.py`; `--backend torch` shows one backend alone.

The network gives a grey image three colours. It begins as the grey image itself, and learns what
to add to it.
"""

import numpy as np

import blocks as bl
from _backends import chosen

LAYOUT = {"layout": "channels_first"}


def keep(features: int, **fields) -> bl.Block:
    """Other channels, the same size."""
    return bl.Conv(features, (3, 3), padding="same", **fields)


def residual(features: int) -> bl.Block:
    """Two convolutions, and a way around them."""
    body = bl.Sequential(keep(features), bl.BatchNorm(), bl.ReLU(), keep(features), bl.BatchNorm())
    return bl.Sequential(bl.Residual(body), bl.ReLU())


def down(features: int) -> bl.Block:
    """Half the size."""
    conv = bl.Conv(features, (4, 4), stride=2, padding=((1, 1), (1, 1)))
    return bl.Sequential(conv, bl.ReLU(), residual(features), residual(features))


def up(features: int) -> bl.Block:
    """Twice the size, each cell as four: no window is met more often than another."""
    return bl.Sequential(bl.Upsample((2, 2)), keep(features), bl.ReLU())


def u_net(features: int, *deeper: int) -> bl.Block:
    """Down, further down, up again; what went in is added to what comes out."""
    if not deeper:
        return bl.Identity()
    return bl.Residual(bl.Sequential(down(deeper[0]), u_net(*deeper), up(features)))


def coloured(*sizes: int) -> bl.Block:
    """The image once for each colour, plus what the network makes of it: zeros at first."""
    last = keep(3, kernel_init="zeros", bias_init="zeros")
    body = bl.Sequential(keep(sizes[0]), u_net(*sizes), last)
    return bl.Residual(body, shortcut=bl.Parallel(*[bl.Identity()] * 3))


net = coloured(8, 16, 32)

if __name__ == "__main__":
    x = np.random.default_rng(0).random((2, 1, 32, 32), dtype=np.float32)
    node = bl.infer(net, x.shape[1:], **LAYOUT)
    print(f"{bl.count(node, trainable=True):,} parameters")
    for backend in chosen():
        y = bl.apply(bl.lower(node, backend), x)
        same = np.array_equal(y, np.broadcast_to(x, y.shape))
        print(f"{backend:6} {x.shape} -> {y.shape}, each colour is the image: {same}")

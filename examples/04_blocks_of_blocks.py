"""Blocks of blocks: side by side, many of a kind, tied, and in repeating groups.

Run `python examples/04_blocks_of_blocks.py`; `--backend torch` shows one backend alone.
"""

import numpy as np

import blocks as bl
from _backends import chosen

# Both branches see the same input; their outputs are joined.
parallel = net = bl.Parallel(bl.Dense(16), bl.Dense(8))


def several(block: bl.Block, times: int) -> bl.Block:
    """The same network several times side by side, with parameters of its own each time.

    A block says what to compute and holds no parameters. Where it stands decides which it gets.
    """
    return bl.Parallel(*[block] * times)


mlp = bl.MLP(20, hidden=(32,))
independent = several(mlp, 3)
tied = several(bl.Shared("tied", mlp), 3)


# ResNet-152 (He et al. 2016): groups of groups of layers, written as functions.
def conv(features: int, size: int, stride: int = 1) -> bl.Block:
    """A convolution that only its stride makes smaller, normalised."""
    padding = ((size // 2, size // 2),) * 2
    window = {"kernel_size": (size, size), "stride": stride, "padding": padding}
    return bl.Sequential(bl.Conv(features, use_bias=False, **window), bl.BatchNorm())


def bottleneck(features: int, stride: int = 1, project: bool = False) -> bl.Block:
    """Fewer channels, a 3x3 convolution, more channels again; and a way around."""
    body = bl.Sequential(
        conv(features, 1), bl.ReLU(), conv(features, 3, stride), bl.ReLU(), conv(4 * features, 1)
    )
    shortcut = conv(4 * features, 1, stride) if project else None
    return bl.Sequential(bl.Residual(body, shortcut), bl.ReLU())


def group(features: int, times: int, stride: int) -> bl.Block:
    """A bottleneck that changes the size, and more that do not."""
    first = bottleneck(features, stride, project=True)
    return bl.Sequential(first, bl.Repeat(bottleneck(features), times - 1))


resnet152 = bl.Sequential(
    stem=bl.Sequential(
        conv(64, 7, stride=2), bl.ReLU(), bl.MaxPool((3, 3), stride=2, padding=((1, 1), (1, 1)))
    ),
    groups=bl.Sequential(group(64, 3, 1), group(128, 8, 2), group(256, 36, 2), group(512, 3, 2)),
    head=bl.Sequential(bl.GlobalAvgPool(), bl.Dense(1000)),
)

X = np.random.default_rng(0).random((2, 20), dtype=np.float32)

if __name__ == "__main__":
    backends = chosen()
    networks = {"parallel": parallel, "independent": independent, "tied": tied}
    for name, network in networks.items():
        node = bl.infer(network, (20,))
        print(f"{name}: {bl.count(node):,} parameters")
        for backend in backends:
            Y = bl.apply(bl.lower(node, backend), X)
            print(f"  {backend:6} {Y.shape} {Y[0, ::20].round(4)}")

    # Sizes need no run, so a large network costs nothing until it is lowered.
    node = bl.infer(resnet152, (3, 224, 224), layout="channels_first")
    print(f"ResNet-152: {bl.count(node, trainable=True):,} parameters, {node.out_spec.shape}")
    for child in node.children[1].children:
        print(f"  {child.path}: {len(child.children[1].children) + 1} of {child.out_spec.shape}")

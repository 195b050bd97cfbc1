"""Weights that somebody else trained: from a ResNet-18 in plain torch to the same in blocks.

The torch half is written as torch's users write it, and knows nothing of blocks. Its state_dict is
matched by structure and shape; the mapping is printed before it is used.

Run `python examples/17_import.py`; `--backend torch` compares one backend alone.
"""

import tempfile
from pathlib import Path

import numpy as np

import blocks as bl
from _backends import chosen

IMAGE, CLASSES, WIDTHS = (3, 64, 56), 10, (8, 12, 16, 20)  # the real widths are 64, 128, 256, 512
LAYOUT = {"layout": "channels_first"}


def resnet18(classes: int = CLASSES, widths: tuple[int, ...] = WIDTHS) -> bl.Block:
    """He et al. 2016: a stem, four groups of two blocks, a mean, one layer."""
    pairs = ((3, 3), (3, 3))
    ends = ((1, 1), (1, 1))
    groups = []
    for i, width in enumerate(widths):
        first = bl.Sequential(block(width, 2, True) if i else block(width, 1, False))
        groups.append(bl.Sequential(*first.blocks, block(width, 1, False)))
    return bl.Sequential(
        bl.Conv(widths[0], (7, 7), stride=2, padding=pairs, use_bias=False),
        bl.BatchNorm(),
        bl.ReLU(),
        bl.MaxPool((3, 3), stride=2, padding=ends),
        *groups,
        bl.GlobalAvgPool(),
        bl.Dense(classes),
    )


def block(width: int, stride: int, project: bool) -> bl.Block:
    """Two convolutions and a way around them, padded as in torch."""
    ends = ((1, 1), (1, 1))
    body = bl.Sequential(
        bl.Conv(width, (3, 3), stride=stride, padding=ends, use_bias=False),
        bl.BatchNorm(),
        bl.ReLU(),
        bl.Conv(width, (3, 3), padding=ends, use_bias=False),
        bl.BatchNorm(),
    )
    around = bl.Sequential(bl.Conv(width, (1, 1), stride=stride, use_bias=False), bl.BatchNorm())
    return bl.Sequential(bl.Residual(body, around if project else None), bl.ReLU())


net = resnet18()


def plain_torch(classes: int = CLASSES, widths: tuple[int, ...] = WIDTHS):
    """The same in torch, without blocks."""
    import torch
    from torch import nn

    class BasicBlock(nn.Module):
        def __init__(self, before, width, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            self.relu = nn.ReLU(inplace=True)
            self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(width)
            self.downsample = None
            if stride != 1 or before != width:
                self.downsample = nn.Sequential(
                    nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width)
                )

        def forward(self, x):
            around = x if self.downsample is None else self.downsample(x)
            y = self.relu(self.bn1(self.conv1(x)))
            return self.relu(self.bn2(self.conv2(y)) + around)

    class ResNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(3, widths[0], 7, 2, 3, bias=False)
            self.bn1 = nn.BatchNorm2d(widths[0])
            self.relu = nn.ReLU(inplace=True)
            self.maxpool = nn.MaxPool2d(3, 2, 1)
            before = widths[0]
            for i, width in enumerate(widths, 1):
                stride = 1 if i == 1 else 2
                blocks = BasicBlock(before, width, stride), BasicBlock(width, width, 1)
                setattr(self, f"layer{i}", nn.Sequential(*blocks))
                before = width
            self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
            self.fc = nn.Linear(before, classes)

        def forward(self, x):
            x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
            x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
            return self.fc(torch.flatten(self.avgpool(x), 1))

    torch.manual_seed(0)
    return ResNet()


def trained(model):
    """Numbers that a training could have left: running statistics and norms off their defaults."""
    import torch

    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith(("running_var", "bn1.weight", "bn2.weight", "downsample.1.weight")):
                tensor.uniform_(0.5, 1.5)
            elif name.endswith(("running_mean", "bias")):
                tensor.normal_(0, 0.3)
    return model.eval()


if __name__ == "__main__":
    backends = chosen()
    try:
        import torch
    except ModuleNotFoundError:
        raise SystemExit("this example reads what torch wrote, so it needs torch") from None
    model = trained(plain_torch())
    x = np.random.default_rng(0).normal(size=(2, *IMAGE))
    with torch.no_grad():
        wanted = {
            "float32": model(torch.tensor(x, dtype=torch.float32)).numpy(),
            "float64": model.double()(torch.tensor(x)).numpy(),
        }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "resnet18.pth"
        torch.save(model.float().state_dict(), path)
        found = bl.match_weights(bl.infer(net, IMAGE, **LAYOUT), path)
        print(found)
        for dtype, y in wanted.items():
            node = bl.infer(net, IMAGE, dtype=dtype, **LAYOUT)
            params = bl.import_params(node, path)
            for name in backends:
                own = bl.apply(bl.lower(node, name, params=params), x)
                print(f"{dtype} {name}: largest difference {abs(own - y).max():.1e}")

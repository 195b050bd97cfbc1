"""The three networks as a good engineer writes them in torch, channels first as is usual there."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(784, 512)
        self.second = nn.Linear(512, 512)
        self.head = nn.Linear(512, 10)

    def forward(self, x):
        x = F.relu(self.first(x))
        x = F.relu(self.second(x))
        return self.head(x)


class BasicBlock(nn.Module):
    def __init__(self, inputs, features, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, features, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(features)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(features)
        self.shortcut = nn.Identity()
        if stride != 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, features, 1, stride, bias=False), nn.BatchNorm2d(features)
            )

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + self.shortcut(x))


class ResNet20(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        self.stages = nn.Sequential(
            *[BasicBlock(16, 16, 1) for _ in range(3)],
            *[BasicBlock(16 if i == 0 else 32, 32, 2 if i == 0 else 1) for i in range(3)],
            *[BasicBlock(32 if i == 0 else 64, 64, 2 if i == 0 else 1) for i in range(3)],
        )
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        x = self.stages(F.relu(self.bn(self.conv(x))))
        return self.head(x.mean((2, 3)))


class EncoderLayer(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm2 = nn.LayerNorm(width)
        self.grow = nn.Linear(width, 4 * width)
        self.shrink = nn.Linear(4 * width, width)

    def forward(self, x):
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.shrink(F.gelu(self.grow(self.norm2(x))))


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(*[EncoderLayer(256, 8) for _ in range(6)])
        self.norm = nn.LayerNorm(256)
        self.head = nn.Linear(256, 10)

    def forward(self, x):
        return self.head(self.norm(self.layers(x)).mean(1))


MODELS = {"MLP": MLP, "ResNet-20": ResNet20, "Transformer": Transformer}


def batch(x, network):
    """The batch as these models take it."""
    return torch.from_numpy(x.transpose(0, 3, 1, 2).copy() if network == "ResNet-20" else x)

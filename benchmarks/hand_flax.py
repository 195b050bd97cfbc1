"""The three networks as a good engineer writes them in Flax."""

from __future__ import annotations

from flax import nnx


class MLP(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(784, 512, rngs=rngs)
        self.second = nnx.Linear(512, 512, rngs=rngs)
        self.head = nnx.Linear(512, 10, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.first(x))
        x = nnx.relu(self.second(x))
        return self.head(x)


class BasicBlock(nnx.Module):
    def __init__(self, inputs, features, stride, rngs):
        kwargs = {"padding": 1, "use_bias": False, "rngs": rngs}
        self.conv1 = nnx.Conv(inputs, features, (3, 3), stride, **kwargs)
        self.bn1 = nnx.BatchNorm(features, momentum=0.9, rngs=rngs)
        self.conv2 = nnx.Conv(features, features, (3, 3), **kwargs)
        self.bn2 = nnx.BatchNorm(features, momentum=0.9, rngs=rngs)
        self.shortcut = (
            None
            if stride == 1
            else nnx.Sequential(
                nnx.Conv(inputs, features, (1, 1), stride, use_bias=False, rngs=rngs),
                nnx.BatchNorm(features, momentum=0.9, rngs=rngs),
            )
        )

    def __call__(self, x):
        y = nnx.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return nnx.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class ResNet20(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 16, (3, 3), padding=1, use_bias=False, rngs=rngs)
        self.bn = nnx.BatchNorm(16, momentum=0.9, rngs=rngs)
        self.stages = nnx.Sequential(
            *[BasicBlock(16, 16, 1, rngs) for _ in range(3)],
            *[BasicBlock(16 if i == 0 else 32, 32, 2 if i == 0 else 1, rngs) for i in range(3)],
            *[BasicBlock(32 if i == 0 else 64, 64, 2 if i == 0 else 1, rngs) for i in range(3)],
        )
        self.head = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, x):
        x = self.stages(nnx.relu(self.bn(self.conv(x))))
        return self.head(x.mean((1, 2)))


class EncoderLayer(nnx.Module):
    def __init__(self, width, heads, rngs):
        self.norm1 = nnx.LayerNorm(width, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(heads, width, decode=False, rngs=rngs)
        self.norm2 = nnx.LayerNorm(width, rngs=rngs)
        self.grow = nnx.Linear(width, 4 * width, rngs=rngs)
        self.shrink = nnx.Linear(4 * width, width, rngs=rngs)

    def __call__(self, x):
        x = x + self.attention(self.norm1(x))
        y = nnx.gelu(self.grow(self.norm2(x)), approximate=False)
        return x + self.shrink(y)


class Transformer(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.Sequential(*[EncoderLayer(256, 8, rngs) for _ in range(6)])
        self.norm = nnx.LayerNorm(256, rngs=rngs)
        self.head = nnx.Linear(256, 10, rngs=rngs)

    def __call__(self, x):
        return self.head(self.norm(self.layers(x)).mean(1))


MODELS = {"MLP": MLP, "ResNet-20": ResNet20, "Transformer": Transformer}

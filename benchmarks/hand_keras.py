"""The three networks as a good engineer writes them in Keras 3, for any of its engines."""

from __future__ import annotations

import keras
from keras import layers, ops


def mlp():
    inputs = keras.Input((784,))
    x = layers.Dense(512, activation="relu")(inputs)
    x = layers.Dense(512, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(10)(x))


def convolved(x, features, size, stride=1):
    """Padded as in the paper: "same" would pad on one side where the stride is 2."""
    if size == 3 and stride == 2:
        x = layers.ZeroPadding2D(1)(x)
        x = layers.Conv2D(features, size, stride, use_bias=False)(x)
    else:
        x = layers.Conv2D(features, size, stride, padding="same", use_bias=False)(x)
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)


def basic(x, features, stride):
    y = layers.ReLU()(convolved(x, features, 3, stride))
    y = convolved(y, features, 3)
    shortcut = x if stride == 1 else convolved(x, features, 1, stride)
    return layers.ReLU()(layers.Add()([y, shortcut]))


def resnet20():
    inputs = keras.Input((32, 32, 3))
    x = layers.ReLU()(convolved(inputs, 16, 3))
    for features, first in ((16, 1), (32, 2), (64, 2)):
        for i in range(3):
            x = basic(x, features, first if i == 0 else 1)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10)(x))


def encoder_layer(x, width, heads):
    y = layers.LayerNormalization(epsilon=1e-5)(x)
    x = layers.Add()([x, layers.MultiHeadAttention(heads, width // heads)(y, y)])
    y = layers.LayerNormalization(epsilon=1e-5)(x)
    y = layers.Dense(4 * width, activation="gelu")(y)
    return layers.Add()([x, layers.Dense(width)(y)])


def transformer():
    inputs = x = keras.Input((128, 256))
    for _ in range(6):
        x = encoder_layer(x, 256, 8)
    x = layers.LayerNormalization(epsilon=1e-5)(x)
    return keras.Model(inputs, layers.Dense(10)(ops.mean(x, axis=1)))


MODELS = {"MLP": mlp, "ResNet-20": resnet20, "Transformer": transformer}

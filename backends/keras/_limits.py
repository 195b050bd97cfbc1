"""Where Keras loses float64."""

from __future__ import annotations

import keras

from backends.keras._common import (
    rule,
)
from blocks.activation import Activation
from blocks.custom import Custom
from blocks.linear import Dense
from blocks.norm import BatchNorm, GroupNorm, LayerNorm, RMSNorm
from blocks.pool import GlobalAvgPool

if keras.backend.backend() == "tensorflow":
    rule.rounds(Activation, 1e-7, "TensorFlow takes the slope as a float32", kind="leaky_relu")
    rule.rounds(Activation, 1e-7, "Keras rounds the constants of gelu to float32", kind="gelu")
    rule.rounds(Activation, 1e-7, "Keras rounds the constants of gelu to float32", kind="gelu_tanh")
else:
    norms = (BatchNorm, LayerNorm, GroupNorm, RMSNorm)
    for block in (*norms, GlobalAvgPool, Activation, Dense, Custom):
        rule.rounds(block, 5e-5, "Keras promotes float64 to float32 there on this engine")

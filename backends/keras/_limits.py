"""Where Keras loses float64."""

from __future__ import annotations

import keras

from backends.keras._common import rule
from blocks.activation import Activation
from blocks.attention import MultiHeadAttention
from blocks.custom import Custom
from blocks.linear import Dense
from blocks.norm import BatchNorm, GroupNorm, LayerNorm, RMSNorm
from blocks.pattern import Reduce
from blocks.pool import GlobalAvgPool
from blocks.recurrent import GRU, LSTM, SimpleRNN
from blocks.value import Sample

if keras.backend.backend() == "tensorflow":
    rule.rounds(Activation, 1e-7, "TensorFlow takes the slope as a float32", kind="leaky_relu")
    rule.rounds(Activation, 1e-7, "Keras rounds the constants of gelu to float32", kind="gelu")
    rule.rounds(Activation, 1e-7, "Keras rounds the constants of gelu to float32", kind="gelu_tanh")
    rule.rounds(MultiHeadAttention, 1e-6, "TensorFlow takes 1 / sqrt(head_size) as a float32")
else:
    recurrent = (LSTM, GRU) if keras.backend.backend() == "jax" else (SimpleRNN,)
    norms = (BatchNorm, LayerNorm, GroupNorm, RMSNorm)
    for block in (*norms, GlobalAvgPool, Activation, Dense, MultiHeadAttention, Custom, *recurrent):
        rule.rounds(block, 5e-5, "Keras promotes float64 to float32 there on this engine")
    rule.rounds(Reduce, 1e-6, "Keras computes a mean in float32 on this engine", reduction="mean")
    rule.rounds(Sample, 1e-6, "Keras computes a cosine in float32 on this engine")
if keras.backend.backend() == "torch":
    rule.rounds(Reduce, 1e-6, "Keras computes a product in float32 there", reduction="prod")

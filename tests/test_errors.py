"""Messages, to the letter: what is wrong, where, both numbers, where they came from, the repair."""

import re
import sys

import numpy as np
import pytest

import blocks as bl
from blocks import _backends
from conftest import need

BUILD = [
    (
        lambda: bl.Conv(8, 3),
        "Conv.kernel_size must be a tuple of positive ints, got 3. "
        "For two spatial axes write kernel_size=(3, 3).",
    ),
    (lambda: bl.Conv(32, (3, 3), groups=3), "Conv.groups=3 does not divide features=32."),
    (
        lambda: bl.Conv(8, (3, 3), padding=1),
        "Conv.padding must be 'same', 'valid' or pairs, got 1. Write padding=((1, 1), (1, 1)).",
    ),
    (
        lambda: bl.Conv(8, (3, 3), padding=(1, 1)),
        "Conv.padding must be 'same', 'valid' or 2 pairs such as ((1, 1), (1, 1)), got (1, 1).",
    ),
    (
        lambda: bl.Conv(8, (3, 3), stride=(1, 2, 3)),
        "Conv.stride must be a positive int, or 2 of them as kernel_size=(3, 3) has, "
        "got (1, 2, 3).",
    ),
    (
        lambda: bl.MaxPool((2, 2), padding=((2, 0), (0, 0))),
        "MaxPool.padding must be smaller than kernel_size=(2, 2), got ((2, 0), (0, 0)). "
        "A window of padding alone has no value.",
    ),
    (
        lambda: bl.MultiHeadAttention(6, num_kv_heads=4),
        "MultiHeadAttention.num_kv_heads=4 does not divide num_heads=6.",
    ),
    (lambda: bl.Dense(0), "Dense.features must be a positive int, got 0."),
    (lambda: bl.Dense(2.5), "Dense.features must be a positive int, got 2.5."),
    (lambda: bl.Dense(True), "Dense.features must be a positive int, got True."),
    (lambda: bl.Dense(3, use_bias=1), "Dense.use_bias must be True or False, got 1."),
    (
        lambda: bl.SimpleRNN(4, activation="relu6"),
        "SimpleRNN.activation must be one of 'tanh', 'relu', got 'relu6'. Did you mean 'relu'?",
    ),
    (lambda: bl.Dropout(1.0), "Dropout.rate must be a number >= 0 and < 1, got 1.0."),
    (lambda: bl.BatchNorm(decay=1.5), "BatchNorm.decay must be a number >= 0 and <= 1, got 1.5."),
    (
        lambda: bl.LayerNorm((0, 1)),
        "LayerNorm.axes must be trailing axes such as (-1,) or (-2, -1), got (0, 1).",
    ),
    (
        lambda: bl.Activation("relu", slope=0.1),
        "Activation.slope=0.1 has no meaning for 'relu'.",
    ),
    (
        lambda: bl.Residual(bl.Dense(3), merge="plus"),
        "Residual.merge must be one of 'add', 'multiply', 'mean', 'max', 'concat', got 'plus'.",
    ),
    (
        lambda: bl.Sequential(bl.Dense(3), bl.ReLU),
        f"Sequential[1] must be a block, got {bl.ReLU!r}. Write ReLU(...).",
    ),
    (
        lambda: bl.Sequential([bl.Dense(3)]),
        "Sequential[0] must be a block, got [Dense(features=3)]. "
        "Write the blocks as arguments: Sequential(*blocks).",
    ),
    (
        lambda: bl.Parallel(bl.Dense(3), merge="tuple"),
        "Parallel with merge='tuple' needs at least two branches, got one.",
    ),
    (
        lambda: bl.lower("net", "torch"),
        "needs a block or a node, got 'net'.",
    ),
    (
        lambda: bl.parity(bl.Dense(3), (2,), backends=[]),
        "parity needs at least one backend, got none.",
    ),
    (
        lambda: bl.ConvTranspose(8, 3),
        "ConvTranspose.kernel_size must be a tuple of positive ints, got 3. "
        "For two spatial axes write kernel_size=(3, 3).",
    ),
    (
        lambda: bl.ConvTranspose(32, (3, 3), groups=3),
        "ConvTranspose.groups=3 does not divide features=32.",
    ),
    (
        lambda: bl.ConvTranspose(8, (3, 3), stride=2, output_padding=(1, 2)),
        "ConvTranspose.output_padding=(1, 2) must be smaller than stride=(2, 2) or "
        "dilation=(1, 1), axis by axis.",
    ),
    (
        lambda: bl.ConvTranspose(8, (3, 3), output_padding=-1),
        "ConvTranspose.output_padding must be an int of at least 0, or 2 of them as "
        "kernel_size=(3, 3) has, got -1.",
    ),
    (
        lambda: bl.AdaptiveAvgPool(7),
        "AdaptiveAvgPool.output_size must be a tuple of positive ints, got 7. "
        "For two spatial axes write output_size=(7, 7).",
    ),
    (
        lambda: bl.AdaptiveAvgPool((1, 2, 3, 4)),
        "AdaptiveAvgPool.output_size must be a tuple of one to three positive ints, "
        "got (1, 2, 3, 4).",
    ),
    (
        lambda: bl.Upsample(2),
        "Upsample.scale must be a tuple of positive ints, got 2. "
        "For two spatial axes write scale=(2, 2).",
    ),
    (
        lambda: bl.Upsample((1.5, 2)),
        "Upsample.scale must be a tuple of one to three positive ints, got (1.5, 2).",
    ),
    (
        lambda: bl.Upsample(size=8),
        "Upsample.size must be a tuple of positive ints, got 8. "
        "For two spatial axes write size=(8, 8).",
    ),
    (
        lambda: bl.Upsample(),
        "Upsample needs either scale or size, got scale=None and size=None.",
    ),
    (
        lambda: bl.Upsample((2,), (8,)),
        "Upsample needs either scale or size, got scale=(2,) and size=(8,).",
    ),
    (
        lambda: bl.Upsample((2, 2), mode="bilinear"),
        "Upsample.mode must be one of 'nearest', 'linear', got 'bilinear'. Did you mean 'linear'?",
    ),
    (
        lambda: bl.Dropout(whole_channels=1),
        "Dropout.whole_channels must be True or False, got 1.",
    ),
    (lambda: bl.GroupNorm(0), "GroupNorm.groups must be a positive int, got 0."),
    (lambda: bl.GroupNorm(2, epsilon=0), "GroupNorm.epsilon must be a number > 0, got 0."),
    (
        lambda: bl.RMSNorm((0, 1)),
        "RMSNorm.axes must be trailing axes such as (-1,) or (-2, -1), got (0, 1).",
    ),
    (lambda: bl.RMSNorm((0.5,)), "RMSNorm.axes must be a tuple of ints, got (0.5,)."),
    (lambda: bl.RMSNorm(epsilon=-1), "RMSNorm.epsilon must be a number > 0, got -1."),
    (lambda: bl.Softmax(1.5), "Softmax.axis must be an int, got 1.5."),
    (lambda: bl.LogSoftmax(None), "LogSoftmax.axis must be an int, got None."),
    (
        lambda: bl.Reshape((0, 3)),
        "Reshape.shape must hold positive ints and at most one -1, got (0, 3).",
    ),
    (
        lambda: bl.Reshape((-1, -1)),
        "Reshape.shape must hold positive ints and at most one -1, got (-1, -1).",
    ),
    (lambda: bl.Reshape(6), "Reshape.shape must be a tuple of ints of at least -1, got 6."),
    (
        lambda: bl.Pad(1),
        "Pad.pads must be a (before, after) pair for each axis, such as ((1, 1), (0, 2), (0, 0)), "
        "got 1.",
    ),
    (
        lambda: bl.Pad(((1, 1),), mode="mirror"),
        "Pad.mode must be one of 'constant', 'reflect', 'edge', got 'mirror'.",
    ),
    (
        lambda: bl.Pad(((1, 1),), mode="edge", value=2),
        "Pad.value=2.0 has no meaning for mode='edge'.",
    ),
    (
        lambda: bl.Crop(((1, -1),)),
        "Crop.crops must be a (before, after) pair for each axis, such as "
        "((1, 1), (0, 2), (0, 0)), got ((1, -1),).",
    ),
    (lambda: bl.Parallel(), "Parallel needs at least one branch, got none."),
    (
        lambda: bl.Permute((0, 2)),
        "Permute.axes must hold each of 0 to 1 once, got (0, 2).",
    ),
    (
        lambda: bl.Sequential(**{"a/b": bl.Dense(3)}),
        "Sequential has a child named 'a/b'; use a Python name in ASCII.",
    ),
    (
        lambda: bl.infer(bl.Dense(3), 20),
        "input_shape must be a tuple of sizes, got 20. Write (20,).",
    ),
    (
        lambda: bl.infer(bl.Dense(3), (0,)),
        "input_shape must hold positive ints or None, got (0,).",
    ),
    (
        lambda: bl.infer(bl.Dense(3), (4,), layout="channel_last"),
        "layout must be one of 'channels_last', 'channels_first', got 'channel_last'. "
        "Did you mean 'channels_last'?",
    ),
    (
        lambda: bl.infer(
            bl.Sequential(bl.Shared("a", bl.Dense(3)), bl.Shared("a", bl.Dense(4))), (3,)
        ),
        "Shared('a') holds Dense(features=4) at '1', but Dense(features=3) at '0'. "
        "Give one of them another name.",
    ),
    (
        lambda: bl.Rearrange("b h w"),
        "Rearrange.pattern must be a pattern such as 'b h w -> b (h w)', got 'b h w'.",
    ),
    (
        lambda: bl.Rearrange("b (h w -> b h w"),
        "Rearrange.pattern has a side 'b (h w' that is no pattern: Imbalanced parentheses in "
        'expression: "b (h w".',
    ),
    (
        lambda: bl.Rearrange("b h h -> b h"),
        "Rearrange.pattern has a side 'b h h' that is no pattern: Indexing expression contains "
        'duplicate dimension "h".',
    ),
    (
        lambda: bl.Rearrange("b _h -> b _h"),
        "Rearrange.pattern has an axis named '_h'; use a Python name in ASCII that neither "
        "begins nor ends with an underscore.",
    ),
    (
        lambda: bl.Rearrange("b axis -> b axis"),
        "Rearrange.pattern has an axis named 'axis', like an argument. Rename it.",
    ),
    (
        lambda: bl.Rearrange("(b1 b2) c -> b1 (b2 c)", b1=2),
        "Rearrange.pattern '(b1 b2) c -> b1 (b2 c)' must begin with the batch, by a name of "
        "its own on both sides. A block has no batch size: write 'b ... -> b ...', and change "
        "the batch outside the network.",
    ),
    (
        lambda: bl.Rearrange("... c -> c ..."),
        "Rearrange.pattern '... c -> c ...' must begin with the batch, by a name of its own on "
        "both sides. A block has no batch size: write 'b ... -> b ...', and change the batch "
        "outside the network.",
    ),
    (
        lambda: bl.Rearrange("b c -> c b"),
        "Rearrange.pattern 'b c -> c b' must begin with the batch, by a name of its own on "
        "both sides. A block has no batch size: write 'b ... -> b ...', and change the batch "
        "outside the network.",
    ),
    (
        lambda: bl.Rearrange("b c -> b c", b=10),
        "Rearrange has b=10, but b is the batch, which may have any size. Leave it out.",
    ),
    (
        lambda: bl.Rearrange("b h w -> b (h w)", w2=2),
        "Rearrange has w2=2, but 'b h w -> b (h w)' has no axis w2. Did you mean 'w'?",
    ),
    (
        lambda: bl.Rearrange("b (h h2) -> b h h2", h2=0),
        "Rearrange.h2 must be a positive int, got 0.",
    ),
    (
        lambda: bl.Rearrange("b (h w c) -> b h w c"),
        "Rearrange.pattern 'b (h w c) -> b h w c' splits an axis into (h w c), so it needs the "
        "lengths of all but one of h, w, c. Write w=2, c=2, say.",
    ),
    (
        lambda: bl.Rearrange("b h w -> b h"),
        "Rearrange.pattern 'b h w -> b h' has w on the left only. Use Reduce to remove an axis.",
    ),
    (
        lambda: bl.Rearrange("b h -> b h w", w=3),
        "Rearrange.pattern 'b h -> b h w' has w on the right only; Rearrange makes no new "
        "axes. Write w on the left too, or use EinMix.",
    ),
    (
        lambda: bl.Rearrange("b (h 2) -> b h 2"),
        "Rearrange.pattern 'b (h 2) -> b h 2' has an axis 2 without a name. Name it and give "
        "its length: n=2, say.",
    ),
    (
        lambda: bl.Rearrange("b c -> b c ..."),
        "Rearrange.pattern 'b c -> b c ...' has ... on the right only.",
    ),
    (
        lambda: bl.Rearrange("b (... c) -> b ... c"),
        "Rearrange.pattern 'b (... c) -> b ... c' has ... in brackets on the left; only the "
        "right may merge it.",
    ),
    (
        lambda: bl.Reduce("b h w -> b h", "median"),
        "Reduce.reduction must be one of 'mean', 'sum', 'max', 'min', 'prod', got 'median'. "
        "Did you mean 'mean'?",
    ),
    (
        lambda: bl.Reduce("b h -> b h w", "mean", w=3),
        "Reduce.pattern 'b h -> b h w' has w on the right only; Reduce makes no new axes. "
        "Write w on the left too, or use EinMix.",
    ),
    (
        lambda: bl.EinMix("b c -> b o", "c", o=2),
        "EinMix.pattern 'b c -> b o' has o on the right, but neither its left side nor "
        "weight_shape='c' has it. Add it to weight_shape.",
    ),
    (
        lambda: bl.EinMix("b c -> b o", "c k o", k=3, o=2),
        "EinMix.weight_shape has k, but 'b c -> b o' has not. Take it out.",
    ),
    (
        lambda: bl.EinMix("b c -> b o", "c o"),
        "EinMix needs the length of o, which its input does not have. Write o=8, say.",
    ),
    (
        lambda: bl.EinMix("b c -> b o", "c (o k)", o=2),
        "EinMix.weight_shape must be names of axes such as 'c o', got 'c (o k)'.",
    ),
    (
        lambda: bl.EinMix("b c -> b o", "b c o", o=2),
        "EinMix has b, the batch, in the shape of a parameter.",
    ),
    (
        lambda: bl.EinMix("b c -> b o", "c o", "c", o=2),
        "EinMix.bias_shape has c, but the right side of 'b c -> b o' has not. A bias has axes "
        "of the output.",
    ),
    (
        lambda: bl.EinMix("b h ... c -> b h ... o", "c o", "h", o=2),
        "EinMix.bias_shape has h, which comes before ... in the output of 'b h ... c -> b h "
        "... o'. Name the axes that it stands for.",
    ),
    (
        lambda: bl.EinMix("b ... c -> b o", "c o", o=2),
        "EinMix.pattern 'b ... c -> b o' has ... on the left only.",
    ),
]


@pytest.mark.parametrize(("build", "message"), BUILD, ids=[m[:40] for _, m in BUILD])
def test_field_errors(build, message):
    with pytest.raises(bl.FieldError) as error:
        build()
    assert str(error.value) == message


BODY = bl.Sequential(bl.Dense(96), bl.ReLU(), bl.Dense(48))

SHAPE = [
    (
        bl.Sequential(encoder=bl.Sequential(bl.ReLU(), bl.Residual(BODY))),
        (16, 64),
        "Residual at 'encoder/1' adds its body to its input, so both need one shape.\n"
        "  input (16, 64), body (16, 48) from Dense(features=48) at 'encoder/1/body/2'.\n"
        "  Set features=64, or add shortcut=Dense(features=48).",
    ),
    (
        bl.Sequential(stem=bl.Sequential(bl.ReLU(), bl.Flatten(), bl.Conv(4, (3, 3)))),
        (8, 8, 3),
        "Conv at 'stem/2' needs 2 spatial axes and channels, got (192,).\n"
        "  (192,) is the output of Flatten at 'stem/1', from (8, 8, 3).\n"
        "  Move Flatten after the last Conv.",
    ),
    (
        bl.MultiHeadAttention(4),
        (5, 6),
        "MultiHeadAttention at the top has num_heads=4, which does not divide the 6 features of "
        "its query.\n"
        "  (5, 6) is the input of the network.\n"
        "  Use num_heads=2, or state head_size.",
    ),
    (
        bl.MultiHeadAttention(2),
        (8, 7, 6),
        "MultiHeadAttention at the top needs a query of time and features, got (8, 7, 6).\n"
        "  (8, 7, 6) is the input of the network.\n"
        "  Write Reshape((-1, 6)) before it.",
    ),
    (
        bl.MultiHeadAttention(2),
        ((5, 6), (5,)),
        "MultiHeadAttention at the top needs a key of time and features, got (5,).\n"
        "  ((5, 6), (5,)) is the input of the network.\n"
        "  If that is a padding mask, write mask=True.",
    ),
    (
        bl.MultiHeadAttention(2, mask=True),
        (5, 6),
        "MultiHeadAttention at the top takes one tensor, (query, key_value) or (query, key, "
        "value), and then a padding mask, got (5, 6).\n"
        "  (5, 6) is the input of the network.\n"
        "  Give the mask, or leave out mask=True.",
    ),
    (
        bl.MultiHeadAttention(2),
        ((5, 6),) * 4,
        "MultiHeadAttention at the top takes one tensor, (query, key_value) or (query, key, "
        "value), got ((5, 6), (5, 6), (5, 6), (5, 6)).\n"
        "  ((5, 6), (5, 6), (5, 6), (5, 6)) is the input of the network.",
    ),
    (
        bl.MultiHeadAttention(2, mask=True),
        ((5, 6), (7, 4), (7, 4)),
        "MultiHeadAttention at the top needs a padding mask of one axis, the time of its key, got "
        "(7, 4).\n"
        "  ((5, 6), (7, 4), (7, 4)) is the input of the network.\n"
        "  Give a mask of shape (7,).",
    ),
    (
        bl.MultiHeadAttention(2),
        ((5, 6), (7, 4), (8, 3)),
        "MultiHeadAttention at the top needs a value as long as its key, got 8 and 7.\n"
        "  ((5, 6), (7, 4), (8, 3)) is the input of the network.\n"
        "  Bring both to one length.",
    ),
    (
        bl.MultiHeadAttention(2, mask=True),
        ((5, 6), (7, 4), (5,)),
        "MultiHeadAttention at the top needs a padding mask as long as its key, got 5 and 7.\n"
        "  ((5, 6), (7, 4), (5,)) is the input of the network.\n"
        "  Bring both to one length.",
    ),
    (
        bl.Conv(4, (3, 9)),
        (8, 7, 3),
        "Conv at the top has a kernel larger than its input: kernel 9, but axis 1 of (8, 7, 3) "
        "has 7.\n"
        "  (8, 7, 3) is the input of the network.\n"
        "  Use a kernel_size of at most 7 along that axis, or padding='same'.",
    ),
    (
        bl.Sequential(bl.MaxPool((4, 4)), bl.Conv(4, (3, 3), dilation=2)),
        (12, 13, 3),
        "Conv at '1' has a kernel larger than its input: kernel 3 with dilation 2 covers 5 cells, "
        "but axis 0 of (3, 3, 3) has 3.\n"
        "  (3, 3, 3) is the output of MaxPool at '0', from (12, 13, 3).\n"
        "  Use a kernel_size of at most 2 along that axis, or padding='same'.",
    ),
    (
        bl.Sequential(bl.Conv(8, (1, 1)), bl.Conv(6, (1, 1), groups=3)),
        (5, 6, 4),
        "Conv at '1' has groups=3, which does not divide its 8 input channels.\n"
        "  (5, 6, 8) is the output of Conv at '0', from (5, 6, 4).\n"
        "  Use groups=2, or change the channels.",
    ),
    (
        bl.Sequential(bl.Conv(8, (3,)), bl.ReLU()),
        (5, 6, 4),
        "Conv at '0' needs 1 spatial axis and channels, got (5, 6, 4).\n"
        "  (5, 6, 4) is the input of the network.\n"
        "  Use a kernel_size of length 2.",
    ),
    (
        bl.Conv(8, (3, 3)),
        (28, 27),
        "Conv at the top needs 2 spatial axes and channels, got (28, 27).\n"
        "  (28, 27) is the input of the network.\n"
        "  The channel axis is missing: write (28, 27, 1) for one channel.",
    ),
    (
        bl.Sequential(bl.Residual(bl.Dense(4)), bl.Conv(8, (3, 3))),
        (4,),
        "Conv at '1' needs 2 spatial axes and channels, got (4,).\n"
        "  (4,) is the output of Residual at '0', from (4,).\n"
        "  Give it an input with 3 axes, the batch not counted.",
    ),
    (
        bl.Dense(2, kernel_init=np.ones((3, 3))),
        (3,),
        "Dense at the top has an array of shape (3, 3) for its kernel of shape (3, 2).\n"
        "  (3,) is the input of the network.\n"
        "  Canonical kernels are (in, out) and (*window, in, out).",
    ),
    (
        bl.Sequential(bl.Dense(4), bl.Dense(3, in_features=5)),
        (7,),
        "Dense at '1' states in_features=5, but its input has 4.\n"
        "  (4,) is the output of Dense at '0', from (7,).\n"
        "  Write in_features=4, or leave it out: it is inferred.",
    ),
    (
        bl.Sequential(bl.LSTM(6), bl.GRU(4)),
        (7, 3),
        "GRU at '1' needs a time axis and features, got (6,).\n"
        "  (6,) is the output of LSTM at '0', from (7, 3).\n"
        "  Set return_sequences=True in the LSTM before it.",
    ),
    (
        bl.SimpleRNN(4),
        (20,),
        "SimpleRNN at the top needs a time axis and features, got (20,).\n"
        "  (20,) is the input of the network.\n"
        "  The time axis is missing: Reshape((20, 1)) makes 20 steps of one number.",
    ),
    (
        bl.Sequential(bl.Conv(6, (3, 3)), bl.LSTM(4)),
        (8, 9, 3),
        "LSTM at '1' needs a time axis and features, got (6, 7, 6).\n"
        "  (6, 7, 6) is the output of Conv at '0', from (8, 9, 3).\n"
        "  Bring it to (time, features): Reshape((-1, 6)) does.",
    ),
    (
        bl.GRU(4),
        (None, 8, 3),
        "GRU at the top needs a time axis and features, got (None, 8, 3).\n"
        "  (None, 8, 3) is the input of the network.\n"
        "  Give it an input (time, features), the batch not counted.",
    ),
    (
        bl.GRU(4),
        (7, None),
        "GRU at the top needs a known number of input features, got any length in (7, None).\n"
        "  (7, None) is the input of the network.\n"
        "  Give that size to infer.",
    ),
    (
        bl.Sequential(bl.LSTM(6, return_sequences=True), bl.GRU(4, in_features=5)),
        (7, 3),
        "GRU at '1' states in_features=5, but its input has 6.\n"
        "  (7, 6) is the output of LSTM at '0', from (7, 3).\n"
        "  Write in_features=6, or leave it out: it is inferred.",
    ),
    (
        bl.LSTM(5, recurrent_init=np.ones((5, 5))),
        (7, 3),
        "LSTM at the top has an array of shape (5, 5) for its recurrent_kernel of shape (5, 20).\n"
        "  (7, 3) is the input of the network.\n"
        "  Canonical kernels are (in, out) and (*window, in, out).",
    ),
    (
        bl.Residual(bl.Conv(8, (3, 3), padding="same")),
        (5, 6, 4),
        "Residual at the top adds its body to its input, so both need one shape.\n"
        "  input (5, 6, 4), body (5, 6, 8) from Conv(features=8, kernel_size=(3, 3), "
        "padding='same') at 'body'.\n"
        "  Set features=4, or add shortcut=Conv(features=8, kernel_size=(1, 1)).",
    ),
    (
        bl.Residual(bl.Conv(4, (3, 3), stride=2, padding="same")),
        (5, 6, 4),
        "Residual at the top adds its body to its input, so both need one shape.\n"
        "  input (5, 6, 4), body (3, 3, 4) from Conv(features=4, kernel_size=(3, 3), "
        "stride=(2, 2), padding='same') at 'body'.\n"
        "  Keep the spatial sizes in the body, or add a shortcut with the same stride.",
    ),
    (
        bl.SqueezeExcite(9, ratio=3),
        (5, 6, 8),
        "SqueezeExcite at the top multiplies its body with its input, so both need one shape.\n"
        "  input (5, 6, 8), body (1, 1, 9) from Conv(features=9, kernel_size=(1, 1)) at 'body/3'.\n"
        "  Set features=8, or add shortcut=Conv(features=9, kernel_size=(1, 1)).",
    ),
    (
        bl.Parallel(left=bl.Dense(3), right=bl.Dense(4), merge="add"),
        (5,),
        "Parallel at the top merges its branches by 'add', so all need one shape.\n"
        "  left (3,) from Dense(features=3) at 'left', right (4,) from Dense(features=4) at "
        "'right'.\n"
        "  Make every branch end in (3,).",
    ),
    (
        bl.Parallel(bl.Conv(3, (1, 1)), bl.Conv(3, (2, 1))),
        (5, 6, 2),
        "Parallel at the top joins its outputs along axis 2, so all other sizes must be equal.\n"
        "  0 (5, 6, 3) from Conv(features=3, kernel_size=(1, 1)) at '0', 1 (4, 6, 3) from "
        "Conv(features=3, kernel_size=(2, 1)) at '1'.",
    ),
    (
        bl.Sequential(bl.Parallel(bl.Dense(3), bl.Dense(4), merge="tuple"), bl.Dense(5)),
        (5,),
        "Dense at '1' takes one tensor, got a tuple of 2.\n"
        "  ((3,), (4,)) is the output of Parallel at '0', from (5,).",
    ),
    (
        bl.Sequential(bl.Flatten(), bl.Dense(3)),
        (None, 4),
        "Dense at '1' needs a known number of input features, got any length in (None,).\n"
        "  (None,) is the output of Flatten at '0', from (None, 4).\n"
        "  Give that size to infer.",
    ),
    (
        bl.Sequential(bl.Shared("t", bl.Dense(3)), bl.Dense(5), bl.Shared("t", bl.Dense(3))),
        (4,),
        "Shared at '2' shares kernel with '0', where it has shape (4, 3), but needs (5, 3) here.\n"
        "  (5,) is the output of Dense at '1', from (3,).\n"
        "  Use blocks of its own here, or bring the input to the same size.",
    ),
    (
        bl.Rearrange("b h w -> b (h w)"),
        (5, 6, 3),
        "Rearrange at the top takes 2 axes after the batch in 'b h w -> b (h w)', got (5, 6, "
        "3).\n"
        "  (5, 6, 3) is the input of the network.\n"
        "  Name every axis after 'b', or write ... for any number of them.",
    ),
    (
        bl.Rearrange("b h ... w -> b w ... h"),
        (5,),
        "Rearrange at the top takes at least 2 axes after the batch in 'b h ... w -> b w ... "
        "h', got (5,).\n"
        "  (5,) is the input of the network.\n"
        "  Name every axis after 'b', or write ... for any number of them.",
    ),
    (
        bl.Rearrange("b (h h2) w -> b h (h2 w)", h2=2),
        (7, 3),
        "Rearrange at the top splits axis 0 of (7, 3) into (h h2) with h2=2, but 2 does not "
        "divide 7.\n"
        "  (7, 3) is the input of the network.\n"
        "  Use lengths that divide 7, or bring the axis to a multiple of 2.",
    ),
    (
        bl.Reduce("b (h 2 k) w -> b h w", "max", k=2),
        (6, 3),
        "Reduce at the top splits axis 0 of (6, 3) into (h 2 k) with k=2, but 4 does not "
        "divide 6.\n"
        "  (6, 3) is the input of the network.\n"
        "  Use lengths that divide 6, or bring the axis to a multiple of 4.",
    ),
    (
        bl.Rearrange("b (h h2) w -> b h (h2 w)", h=3, h2=2),
        (7, 3),
        "Rearrange at the top splits axis 0 of (7, 3) into (h h2) with h=3, h2=2, that is 6, "
        "but it has 7.\n"
        "  (7, 3) is the input of the network.\n"
        "  Leave one of the lengths out: it is inferred.",
    ),
    (
        bl.Rearrange("b h w -> b w h", h=5),
        (7, 3),
        "Rearrange at the top states h=5, but axis 0 of (7, 3) has 7.\n"
        "  (7, 3) is the input of the network.\n"
        "  Write h=7, or leave it out: it is inferred.",
    ),
    (
        bl.Rearrange("b h 1 -> b h"),
        (7, 3),
        "Rearrange at the top has a 1 for axis 1 of (7, 3), which has 3.\n"
        "  (7, 3) is the input of the network.\n"
        "  Give that axis a name.",
    ),
    (
        bl.Reduce("b 6 w -> b w", "max"),
        (7, 3),
        "Reduce at the top has a 6 for axis 0 of (7, 3), which has 7.\n"
        "  (7, 3) is the input of the network.\n"
        "  Give that axis a name.",
    ),
    (
        bl.EinMix("b t c -> b o", "t c o", o=2),
        (None, 3),
        "EinMix at the top needs a known number of cells along t, got any length in (None, 3).\n"
        "  (None, 3) is the input of the network.\n"
        "  Give that size to infer.",
    ),
]


# One block alone: the input, what is wrong with it, the repair.
ALONE = [
    (
        bl.ConvTranspose(8, (3, 3)),
        (5, 4, 2, 3),
        "needs 2 spatial axes and channels, got (5, 4, 2, 3)",
        "Use a kernel_size of length 3.",
    ),
    (
        bl.ConvTranspose(8, (3,), groups=2),
        (5, 3),
        "has groups=2, which does not divide its 3 input channels",
        "Use groups=1, or change the channels.",
    ),
    (
        bl.ConvTranspose(8, (3,), in_features=4),
        (5, 3),
        "states in_features=4, but its input has 3",
        "Write in_features=3, or leave it out: it is inferred.",
    ),
    (
        bl.ConvTranspose(8, (3,)),
        (5, None),
        "needs a known number of input channels, got any length in (5, None)",
        "Give that size to infer.",
    ),
    (
        bl.ConvTranspose(8, (2, 3), stride=2, padding=((0, 0), (5, 7)), output_padding=1),
        (5, 4, 3),
        "cuts 11 cells off axis 1, where the 4 of (5, 4, 3) become 9",
        "Cut 3 fewer along that axis, or use padding='same'.",
    ),
    (
        bl.ConvTranspose(8, (3,), padding=((4, 3),)),
        (5, 3),
        "cuts 7 cells off axis 0, where the 5 of (5, 3) become 7",
        "Cut 1 fewer along that axis, or use padding='same'.",
    ),
    (
        bl.AdaptiveAvgPool((2, 2)),
        (5, 4),
        "needs 2 spatial axes and channels, got (5, 4)",
        "The channel axis is missing: write (5, 4, 1) for one channel.",
    ),
    (
        bl.AdaptiveAvgPool((2,)),
        (5, 4, 3),
        "needs 1 spatial axis and channels, got (5, 4, 3)",
        "Use an output_size of length 2.",
    ),
    (
        bl.AdaptiveAvgPool((2, 2)),
        (5, None, 3),
        "needs a known number of cells along each axis, got any length in (5, None, 3)",
        "Give that size to infer.",
    ),
    (
        bl.Upsample((2,)),
        (5, 4, 3),
        "needs 1 spatial axis and channels, got (5, 4, 3)",
        "Use a scale of length 2.",
    ),
    (
        bl.Upsample(size=(8, 9)),
        (5, 3),
        "needs 2 spatial axes and channels, got (5, 3)",
        "The channel axis is missing: write (5, 3, 1) for one channel.",
    ),
    (
        bl.Dropout(whole_channels=True),
        (2, 3, 4, 5, 6),
        "drops whole channels of at most three spatial axes, got (2, 3, 4, 5, 6)",
        "Use whole_channels=False.",
    ),
    (
        bl.GlobalMaxPool(),
        (4,),
        "needs one to three spatial axes and channels, got (4,)",
        "Leave it out: there is nothing left to pool.",
    ),
    (
        bl.GlobalMaxPool(),
        (2, 3, 4, 5, 6),
        "needs one to three spatial axes and channels, got (2, 3, 4, 5, 6)",
        "",
    ),
    (
        bl.GroupNorm(3),
        (5, 4),
        "has groups=3, which does not divide its 4 channels",
        "Use groups=1, or change the channels.",
    ),
    (
        bl.GroupNorm(2),
        (4,),
        "needs one to three spatial axes and channels, got (4,)",
        "Use LayerNorm for vectors.",
    ),
    (
        bl.GroupNorm(2),
        (5, None),
        "needs a known number of channels, got any length in (5, None)",
        "Give that size to infer.",
    ),
    (
        bl.RMSNorm((-2, -1)),
        (4,),
        "normalises axes (-2, -1), but its input is (4,)",
        "Use axes=(-1,).",
    ),
    (
        bl.RMSNorm(),
        (5, None),
        "needs a known number of features, got any length in (5, None)",
        "Give that size to infer.",
    ),
    (bl.Softmax(2), (5, 4), "has axis=2, which (5, 4) does not have", "Use an axis from -2 to 1."),
    (bl.LogSoftmax(-2), (4,), "has axis=-2, which (4,) does not have", "Use an axis from -1 to 0."),
    (
        bl.Reshape((3, 4)),
        (5, 2),
        "makes (3, 4), that is 12 numbers, of (5, 2), that is 10",
        "Write a shape of 10 numbers.",
    ),
    (
        bl.Reshape((3, -1)),
        (5, 2),
        "makes (3, -1), that is 3 numbers, of (5, 2), that is 10",
        "Write a shape of 10 numbers.",
    ),
    (
        bl.Reshape((3, 4)),
        (None, 2),
        "needs a known number of elements, got any length in (None, 2)",
        "Give that size to infer.",
    ),
    (
        bl.Pad(((1, 1),)),
        (5, 4),
        "needs a pair for each of 2 axes of (5, 4), but has 1",
        "Give a pair for each axis, (0, 0) where nothing changes.",
    ),
    (
        bl.Pad(((5, 0), (0, 0)), mode="reflect"),
        (5, 4),
        "reflects 5 cells of axis 0, which has 5",
        "Reflect at most 4.",
    ),
    (
        bl.Crop(((1, 1), (0, 0), (0, 0))),
        (5, 4),
        "needs a pair for each of 2 axes of (5, 4), but has 3",
        "Give a pair for each axis, (0, 0) where nothing changes.",
    ),
    (
        bl.Crop(((3, 2), (0, 0))),
        (5, 4),
        "cuts 5 cells off axis 0, which has 5",
        "Cut at most 4.",
    ),
]

SHAPE += [
    (
        block,
        shape,
        f"{type(block).__name__} at the top {fact}.\n  {shape} is the input of the network."
        + (f"\n  {fix}" if fix else ""),
    )
    for block, shape, fact, fix in ALONE
]


@pytest.mark.parametrize(("block", "shape", "message"), SHAPE, ids=[m[:40] for *_, m in SHAPE])
def test_shape_errors(block, shape, message):
    with pytest.raises(bl.ShapeError) as error:
        bl.infer(block, shape)
    assert str(error.value) == message
    assert error.value.path is not None
    assert error.value.block is not None


NODE = bl.infer(bl.Sequential(bl.Dense(4), bl.Dense(3)), (5,))

BATCH = [
    (
        np.zeros((2, 6)),
        "the network takes an array (batch, 5), got (2, 6).\n"
        "  Bring the batch to (5,) after its first axis.",
    ),
    (
        np.zeros(5),
        "the network takes an array (batch, 5), got (5,).\n"
        "  The batch axis is missing: write x[None] for a batch of one.",
    ),
    ((np.zeros((2, 5)),) * 2, "the network takes one array, got a tuple of 2."),
]


@pytest.mark.parametrize(("x", "message"), BATCH, ids=[m[:50] for _, m in BATCH])
def test_a_batch_that_does_not_fit(x, message, backend):
    with pytest.raises(bl.ShapeError) as error:
        bl.apply(bl.lower(NODE, backend), x)
    assert str(error.value) == message


@pytest.mark.parametrize("number", [-1, 7])
def test_an_id_that_has_no_row(number, backend):
    model = bl.lower(bl.Embedding(7, 3), backend, input_shape=(5,))
    x = np.array([[0, 6, number, 1, 2]])
    with pytest.raises(bl.FieldError, match=r"takes integers from 0 to 6, got "):
        bl.apply(model, x)


def test_a_batch_in_the_other_layout(backend):
    model = bl.lower(bl.Conv(4, (3, 3)), backend, input_shape=(8, 9, 3))
    with pytest.raises(bl.ShapeError) as error:
        bl.apply(model, np.zeros((2, 3, 8, 9)))
    assert str(error.value) == (
        "the network takes an array (batch, 8, 9, 3), got (2, 3, 8, 9).\n"
        "  This looks like channels_first; the network is channels_last."
    )


def test_a_cotangent_that_does_not_fit(backend):
    with pytest.raises(bl.ShapeError, match=r"the cotangent takes an array \(batch, 3\)"):
        bl.gradients(bl.lower(NODE, backend), np.zeros((2, 5)), np.zeros((2, 4)))
    with pytest.raises(bl.ShapeError, match="the cotangent needs one batch size"):
        bl.gradients(bl.lower(NODE, backend), np.zeros((2, 5)), np.zeros((4, 3)))


def test_parameters_that_do_not_fit_are_listed_together(backend):
    params = bl.init(NODE)
    params["0/kernel"] = params["0/kernel"].T
    params["1/weight"] = params.pop("1/kernel")
    model = bl.lower(NODE, backend)
    before = bl.params_of(model)
    for attempt in (
        lambda: bl.lower(NODE, backend, params=params),
        lambda: bl.load_params(model, params),
    ):
        with pytest.raises(bl.ParamError) as error:
            attempt()
        assert str(error.value) == (
            "3 parameters do not fit.\n"
            "  0/kernel: expected (5, 4), got (4, 5). Canonical kernels are (in, out); this looks "
            "transposed.\n"
            "  1/kernel: missing, expected (4, 3).\n"
            "  1/weight: unknown."
        )
    after = bl.params_of(model)
    assert all(np.array_equal(before[path], after[path]) for path in before)


def test_a_torch_kernel_of_a_conv_is_recognised():
    node = bl.infer(bl.Conv(8, (3, 2)), (5, 6, 4))
    params = bl.init(node) | {"kernel": np.zeros((8, 4, 3, 2))}
    with pytest.raises(bl.ParamError, match=re.escape("this looks like (out, in, *window)")):
        bl.lower(node, "numpy", params=params)


def test_an_unknown_backend():
    with pytest.raises(bl.BackendError) as error:
        bl.lower(NODE, "pytorch")
    assert str(error.value) == (
        "unknown backend 'pytorch'. Known: flax, keras, numpy, torch. Did you mean 'torch'?"
    )


@pytest.mark.parametrize(
    ("backend", "module"), [("torch", "torch"), ("keras", "keras"), ("flax", "jax")]
)
def test_a_framework_that_is_not_installed(backend, module, monkeypatch):
    for name in list(sys.modules):
        own = name == f"backends.{backend}" or name.startswith(f"backends.{backend}.")
        if name.partition(".")[0] == module or own:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delattr(sys.modules["backends"], backend, raising=False)
    _backends.find_backend.cache_clear()
    try:
        with pytest.raises(ImportError) as error:
            bl.lower(NODE, backend)
    finally:
        _backends.find_backend.cache_clear()
    assert isinstance(error.value, bl.BackendError)
    assert str(error.value) == (
        f"backend '{backend}' needs {module}, which is not installed. "
        f"Install it with: pip install 'isoblocks[{backend}]'"
    )


def test_a_model_from_elsewhere_is_refused_by_name():
    need("torch")
    import torch

    with pytest.raises(bl.BlockError) as error:
        bl.params_of(torch.nn.Linear(3, 2))
    assert str(error.value) == (
        "this Linear was not made by lower, so its blocks are unknown. "
        "Give the node that it belongs to: node=..."
    )


def test_a_block_that_keras_cannot_keep():
    net = bl.Sequential(bl.Parallel(bl.Dense(3), bl.Dense(4), merge="tuple"), bl.Select(0))
    with pytest.raises(bl.UnsupportedError) as error:
        bl.lower(net, need("keras"), input_shape=(5,))
    assert str(error.value) == (
        "keras cannot hold '0/1/kernel': nothing in the output depends on it, and a functional "
        "model keeps no such layers.\n  Leave that block out."
    )


def test_a_name_that_torch_cannot_give():
    need("torch")
    with pytest.raises(bl.UnsupportedError) as error:
        bl.lower(bl.Sequential(forward=bl.Dense(3)), "torch", input_shape=(2,))
    assert str(error.value) == (
        "torch cannot name a child 'forward' at the top: its modules have an attribute of that "
        "name.\n  Give the child another name."
    )
    for name in ("training", "type", "float", "dim", "merge"):
        if name not in ("merge",):  # a field of Parallel itself
            with pytest.raises(bl.UnsupportedError, match=f"cannot name a child '{name}'"):
                bl.lower(bl.Parallel(**{name: bl.Dense(3)}), "torch", input_shape=(2,))


FIT_FIELDS = [
    ({"batch_size": 8.0}, "batch_size must be an int of at least 1, got 8.0."),
    ({"epochs": 0}, "epochs must be an int of at least 1, got 0."),
    ({"seed": -1}, "seed must be an int of at least 0, got -1."),
    ({"optimizer": "sgd"}, "optimizer must be an optimiser such as SGD(0.1), got 'sgd'."),
]


@pytest.mark.parametrize(("options", "message"), FIT_FIELDS, ids=[m for _, m in FIT_FIELDS])
def test_options_of_fit(options, message):
    with pytest.raises(bl.FieldError) as error:
        bl.fit(bl.lower(NODE, "numpy"), (np.zeros((1, 5)), np.zeros(1, int)), **options)
    assert str(error.value) == message


def test_nothing_to_train(backend):
    model = bl.lower(bl.ReLU(), backend, input_shape=(3,))
    with pytest.raises(bl.ParamError, match="no trainable parameters"):
        bl.fit(model, (np.zeros((1, 3)), np.zeros((1, 3))), loss="mse")


def test_any_length_is_checked_when_the_length_is_known(backend):
    """No broadcasting, no framework error: the same ShapeError that infer gives."""
    model = bl.lower(bl.Residual(bl.Conv(4, (3,))), backend, input_shape=(None, 4))
    for length in (3, 5):
        with pytest.raises(bl.ShapeError, match="Residual at the top adds its body to its input"):
            bl.apply(model, np.zeros((2, length, 4)))
    with pytest.raises(bl.ShapeError, match="kernel larger than its input: kernel 3, but axis 0"):
        bl.apply(model, np.zeros((2, 2, 4)))


FIT = [
    ((np.zeros((6, 5)), np.zeros(5, int)), "cross_entropy", "one target for each input, got 6"),
    ((np.zeros((6, 5)), np.full(6, 3)), "cross_entropy", "labels from 0 to 2, got 3 to 3"),
    ((np.zeros((6, 5)), np.zeros((6, 3))), "cross_entropy", "one integer label for each output"),
    ((np.zeros((6, 5)), np.zeros((6, 2))), "mse", r"mse needs targets \('batch', 3\)"),
    ((np.zeros((6, 4)), np.zeros((6, 3))), "mse", r"takes an array \(batch, 5\), got \(6, 4\)"),
]


@pytest.mark.parametrize(("data", "loss", "message"), FIT, ids=[m[:30] for *_, m in FIT])
def test_data_that_does_not_fit_training(data, loss, message, backend):
    with pytest.raises(bl.ShapeError, match=message):
        bl.fit(bl.lower(NODE, backend), data, loss=loss)


def test_a_loss_that_is_unknown():
    with pytest.raises(bl.FieldError, match="loss must be one of 'cross_entropy', 'mse'"):
        bl.fit(bl.lower(NODE, "numpy"), (np.zeros((1, 5)), np.zeros(1, int)), loss="entropy")


def test_the_tree_of_errors():
    for kind in (
        bl.FieldError,
        bl.ShapeError,
        bl.ParamError,
        bl.BackendError,
        bl.MissingRuleError,
        bl.UnsupportedError,
    ):
        assert issubclass(kind, bl.BlockError)
    assert issubclass(bl.BlockError, ValueError)

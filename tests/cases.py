"""THE table: one row for each block (or several), one variant for each field.

Shapes are channels_last; where a block is spatial the tests run it in channels_first too. All sizes
of a shape are distinct, kernels are not square, and no field of a base is at an accidental optimum:
a variant that changes nothing is a red test.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

import blocks as bl
from blocks.activation import KINDS
from blocks.initializers import NAMED, Array, Constant, Normal, Orthogonal, Uniform
from blocks.pattern import REDUCTIONS
from custom_blocks import (
    Bilinear,
    Bounded,
    Either,
    FixedHidden,
    Gated,
    Halved,
    Moments,
    Positions,
)


@dataclass(frozen=True)
class Case:
    """A block at an input, with one or more variants for each of its fields.

    `stated` holds fields that are only checked: (a right value, a wrong one).
    """

    name: str
    base: bl.Block
    shape: Any
    vary: dict[str, list[bl.Block]] = field(default_factory=dict)
    stated: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    spatial: bool = False

    def variants(self) -> list[tuple[str, bl.Block]]:
        """The base and every variant, with names."""
        found = [("base", self.base)]
        for name, blocks in self.vary.items():
            numbers = [""] if len(blocks) == 1 else [f"-{i}" for i in range(len(blocks))]
            found += [(name + n, b) for n, b in zip(numbers, blocks, strict=True)]
        return found


def case(name: str, base: bl.Block, shape: Any, /, *, spatial: bool = False, **vary: Any) -> Case:
    """A row; each keyword is a field with its other value, or a list of them."""
    stated = {k: v.pair for k, v in vary.items() if isinstance(v, Stated)}
    variants = {
        name: [
            value if isinstance(value, bl.Block) else replace(base, **{name: value})
            for value in (values if isinstance(values, list) else [values])
        ]
        for name, values in vary.items()
        if name not in stated
    }
    return Case(name, base, shape, variants, stated, spatial)


@dataclass(frozen=True)
class Stated:
    pair: tuple[Any, Any]


def stated(right: Any, wrong: Any) -> Stated:
    """A field that is only checked."""
    return Stated((right, wrong))


DENSE = bl.Dense(4, bias_init="normal")
CONV = bl.Conv(6, (3, 2), stride=(2, 1), padding="same", bias_init="normal")
SIMPLE = bl.SimpleRNN(5, bias_init="normal")
RELU_BOTH = replace(SIMPLE, activation="relu", bidirectional=True, return_sequences=True)
TURNED = bl.ConvTranspose(6, (3, 2), stride=(2, 1), padding="same", bias_init="normal")
MAX = bl.MaxPool((3, 2), stride=(2, 1))
AVG = bl.AvgPool((3, 2), stride=(2, 1), padding="same")
REARRANGE = bl.Rearrange("b (h h2) (w w2) c -> b h w (h2 w2 c)", h2=2, w2=3)
REDUCE = bl.Reduce("b (h h2) (w 2) c -> b w h c", "mean", h2=3)
MIX = bl.EinMix("b (h h2) (w w2) c -> b h w o", "h2 w2 c o", "o", h2=2, w2=3, o=4)
BATCH = bl.BatchNorm()
LAYER = bl.LayerNorm()

STAGE = bl.ConvNormAct(6, (3, 2), pool=bl.MaxPool((2, 3)))
ENCODER = bl.TransformerEncoderLayer(6, 2, 7)
DECODER = bl.TransformerDecoderLayer(6, 2, 7)
INCEPTION = bl.Inception(3, (2, 4), (3, 2), 2)

TANH_HEAD = bl.Sequential(bl.Dense(3), bl.Tanh())
TOWER = bl.Sequential(bl.Dense(5), bl.Tanh())
CONVS = (bl.Conv(3, (3, 2), padding="same"), bl.Conv(3, (1, 3), padding="same"))


def merged(merge: str, **options: Any) -> bl.Block:
    return bl.Parallel(*CONVS, merge=merge, **options)


CASES = [
    # linear
    case(
        "Dense",
        DENSE,
        (5, 3),
        features=7,
        use_bias=False,
        in_features=stated(3, 4),
        kernel_init=[*(n for n in NAMED if n != "glorot_uniform"), Normal(std=0.3, mean=1.0)],
        bias_init=[Constant(0.5), Array([1.0, 2.0, 3.0, 4.0])],
    ),
    case(
        "Embedding",
        bl.Embedding(7, 3),
        (5, 4),
        num_embeddings=9,
        features=2,
        embedding_init="lecun_normal",
    ),
    case(
        "Embedding of a sequence",
        bl.Sequential(bl.Embedding(11, 6), bl.Conv(4, (3,), padding="same"), bl.GlobalMaxPool()),
        (5,),
    ),
    case(
        "Embedding beside Dense",
        bl.Sequential(
            bl.Parallel(
                bl.Sequential(bl.Select(0), bl.Embedding(7, 3), bl.Flatten()),
                bl.Sequential(bl.Select(1), bl.Dense(4)),
            ),
            bl.Dense(2),
        ),
        ((5,), (3,)),
    ),
    # convolution
    case(
        "Conv2d",
        CONV,
        (7, 8, 4),
        spatial=True,
        features=2,
        kernel_size=[(2, 5), (4, 3), (1, 1)],
        stride=[(1, 1), (3, 2), 2],
        padding=["valid", ((1, 1), (1, 1)), ((0, 2), (1, 0)), ((2, 2), (0, 0))],
        dilation=[
            bl.Conv(6, (3, 2), padding="same", dilation=(2, 3)),
            bl.Conv(6, (3, 2), stride=(2, 1), dilation=(1, 2), padding=((0, 1), (2, 2))),
            bl.Conv(6, (3, 2), stride=2, dilation=2, padding="same"),
        ],
        groups=[2, bl.Conv(8, (3, 2), groups=4), bl.Conv(4, (3, 2), groups=4, padding="same")],
        use_bias=False,
        in_features=stated(4, 3),
        kernel_init="he_normal",
        bias_init="ones",
    ),
    case(
        "Conv2d of single cells",
        bl.Conv(6, (1, 1), stride=2),
        (10, 8, 4),
        spatial=True,
        padding=((1, 0), (0, 2)),
        stride=(3, 2),
    ),
    case("Conv2d even, stride 1", bl.Conv(3, (4, 2), padding="same"), (7, 8, 4), spatial=True),
    case(
        "Conv1d",
        bl.Conv(5, (4,), stride=2, padding="same"),
        (9, 3),
        spatial=True,
        padding=["valid", ((3, 0),)],
        dilation=bl.Conv(5, (3,), dilation=2, padding=((4, 0),)),
        groups=bl.Conv(6, (3,), groups=3),
    ),
    case(
        "Conv3d",
        bl.Conv(4, (2, 3, 1), stride=(1, 2, 1), padding="same"),
        (5, 6, 4, 2),
        spatial=True,
        padding=["valid", ((1, 0), (0, 1), (1, 1))],
        dilation=bl.Conv(4, (2, 3, 1), dilation=(2, 1, 3)),
        groups=2,
    ),
    # recurrent
    *(
        case(
            name,
            base,
            (6, 3),
            features=4,
            return_sequences=replace(base, return_sequences=True),
            bidirectional=[
                True,
                replace(base, bidirectional=True, return_sequences=True),
            ],
            use_bias=[
                False,
                replace(base, use_bias=False, return_sequences=True),
                replace(base, use_bias=False, bidirectional=True),
                replace(base, use_bias=False, bidirectional=True, return_sequences=True),
            ],
            in_features=stated(3, 4),
            kernel_init="he_normal",
            recurrent_init=["uniform", Array(np.eye(5, base.gates * 5))],
            bias_init="zeros",
            **more,
        )
        for name, base, more in (
            ("SimpleRNN", SIMPLE, {"activation": ["relu", RELU_BOTH]}),
            ("LSTM", bl.LSTM(5, bias_init="normal"), {}),
            ("GRU", bl.GRU(5, bias_init="normal"), {}),
        )
    ),
    case(
        "LSTM, then GRU",
        bl.Sequential(
            bl.LSTM(5, return_sequences=True, bidirectional=True), bl.GRU(4), bl.Dense(2)
        ),
        (6, 3),
    ),
    case(
        "ConvTranspose2d",
        TURNED,
        (7, 8, 4),
        spatial=True,
        features=2,
        kernel_size=[(2, 5), (4, 3), (1, 1)],
        stride=[(1, 1), (3, 2), 2],
        padding=[
            "valid",
            ((1, 1), (1, 1)),
            ((0, 2), (1, 0)),
            ((2, 1), (0, 0)),
            ((4, 3), (0, 2)),
            bl.ConvTranspose(6, (4, 2), stride=2, padding="same"),
        ],
        output_padding=[
            (1, 0),
            bl.ConvTranspose(6, (3, 4), stride=2, padding=((1, 1), (1, 1)), output_padding=1),
            bl.ConvTranspose(6, (1, 2), stride=(3, 2), output_padding=(2, 1), bias_init="normal"),
            bl.ConvTranspose(6, (3, 2), dilation=(3, 2), output_padding=(2, 1)),
        ],
        dilation=[
            bl.ConvTranspose(6, (3, 2), padding="same", dilation=(2, 3)),
            bl.ConvTranspose(6, (3, 2), stride=(2, 1), dilation=(1, 2), padding=((0, 1), (2, 2))),
            bl.ConvTranspose(6, (3, 2), stride=(2, 3), dilation=2, padding=((5, 0), (1, 4))),
        ],
        groups=[
            2,
            bl.ConvTranspose(8, (3, 2), groups=4),
            bl.ConvTranspose(6, (3, 2), stride=(2, 3), dilation=(1, 2), groups=2),
        ],
        use_bias=[
            False,
            bl.ConvTranspose(6, (3, 2), stride=2, use_bias=False),
            bl.ConvTranspose(6, (3, 2), stride=2, groups=2, use_bias=False),
        ],
        in_features=stated(4, 3),
        kernel_init="he_normal",
        bias_init="ones",
    ),
    case(
        "ConvTranspose2d of single cells",
        bl.ConvTranspose(6, (1, 1), stride=2),
        (5, 4, 3),
        spatial=True,
        output_padding=1,
        stride=(3, 2),
    ),
    case(
        "ConvTranspose1d",
        bl.ConvTranspose(5, (3,), stride=2, padding="same"),
        (9, 3),
        spatial=True,
        padding=["valid", ((3, 0),), ((1, 1),)],
        output_padding=bl.ConvTranspose(5, (1,), stride=3, output_padding=2, bias_init="normal"),
        dilation=bl.ConvTranspose(5, (3,), dilation=2, padding=((0, 4),)),
        groups=bl.ConvTranspose(6, (3,), stride=2, groups=3),
    ),
    case(
        "ConvTranspose3d",
        bl.ConvTranspose(4, (2, 3, 1), stride=(1, 2, 1), padding="same"),
        (5, 6, 4, 2),
        spatial=True,
        padding=["valid", ((1, 0), (0, 1), (1, 1))],
        dilation=bl.ConvTranspose(4, (2, 3, 1), stride=(1, 2, 1), dilation=(2, 1, 3)),
        groups=2,
    ),
    # pooling
    case(
        "MaxPool2d",
        MAX,
        (7, 9, 4),
        spatial=True,
        kernel_size=[(2, 4), (5, 1)],
        stride=[None, (1, 3), 3],
        padding=["same", ((1, 1), (1, 1)), ((0, 2), (1, 0)), ((2, 2), (0, 0))],
    ),
    case("MaxPool1d", bl.MaxPool((3,)), (10, 4), spatial=True, padding=["same", ((2, 0),)]),
    case(
        "MaxPool3d",
        bl.MaxPool((2, 3, 1)),
        (5, 7, 4, 2),
        spatial=True,
        padding=["same", ((1, 0), (0, 2), (0, 0))],
    ),
    case(
        "AvgPool2d",
        AVG,
        (7, 9, 4),
        spatial=True,
        kernel_size=[(2, 4), (5, 1)],
        stride=[None, (1, 3), 3],
        padding=["valid", ((1, 1), (1, 1)), ((0, 2), (1, 0)), ((2, 2), (0, 0))],
        count_include_pad=[
            True,
            bl.AvgPool((3, 2), padding=((1, 1), (1, 1)), count_include_pad=True),
            bl.AvgPool((3, 2), padding=((0, 2), (1, 0)), count_include_pad=True),
        ],
    ),
    case("AvgPool1d", bl.AvgPool((3,)), (10, 4), spatial=True, padding=["same", ((2, 0),)]),
    case(
        "AvgPool3d",
        bl.AvgPool((2, 3, 1)),
        (5, 7, 4, 2),
        spatial=True,
        padding=["same", ((1, 0), (0, 2), (0, 0)), ((1, 1), (1, 1), (0, 0))],
    ),
    case("GlobalAvgPool", bl.GlobalAvgPool(), (5, 6, 4), spatial=True),
    case("GlobalAvgPool1d", bl.GlobalAvgPool(), (5, 4), spatial=True),
    case("GlobalAvgPool3d", bl.GlobalAvgPool(), (3, 5, 6, 4), spatial=True),
    case("GlobalMaxPool", bl.GlobalMaxPool(), (5, 6, 4), spatial=True),
    case("GlobalMaxPool1d", bl.GlobalMaxPool(), (5, 4), spatial=True),
    case("GlobalMaxPool3d", bl.GlobalMaxPool(), (3, 5, 6, 4), spatial=True),
    case(
        "AdaptiveAvgPool2d",
        bl.AdaptiveAvgPool((3, 2)),
        (7, 9, 4),
        spatial=True,
        output_size=[(7, 3), (1, 9), (9, 4), (5, 12)],
    ),
    case("AdaptiveAvgPool1d", bl.AdaptiveAvgPool((3,)), (10, 4), spatial=True, output_size=(5,)),
    case(
        "AdaptiveAvgPool3d",
        bl.AdaptiveAvgPool((3, 2, 4)),
        (5, 6, 3, 2),
        spatial=True,
        output_size=(1, 2, 3),
    ),
    # normalisation
    case(
        "BatchNorm",
        BATCH,
        (5, 6, 3),
        spatial=True,
        epsilon=0.1,
        decay=[0.7, 0.0],
        use_scale=False,
        use_bias=[False, bl.BatchNorm(use_scale=False, use_bias=False)],
        in_features=stated(3, 5),
        scale_init="normal",
        bias_init="ones",
    ),
    case("BatchNorm of vectors", BATCH, (4,)),
    case("BatchNorm1d", BATCH, (5, 3), spatial=True),
    case("BatchNorm3d", BATCH, (2, 5, 4, 3), spatial=True),
    case(
        "LayerNorm",
        LAYER,
        (5, 6, 3),
        axes=[(-2, -1), (-3, -2, -1)],
        epsilon=0.1,
        use_scale=False,
        use_bias=[False, bl.LayerNorm(use_scale=False, use_bias=False)],
        scale_init="normal",
        bias_init="ones",
    ),
    case("LayerNorm of two axes, bias", bl.LayerNorm((-2, -1), use_scale=False), (5, 6, 3)),
    case(
        "GroupNorm",
        bl.GroupNorm(2),
        (5, 3, 6),
        spatial=True,
        groups=[3, 6, 1],
        epsilon=0.1,
        use_scale=False,
        use_bias=[False, bl.GroupNorm(2, use_scale=False, use_bias=False)],
        scale_init="normal",
        bias_init="ones",
    ),
    case("GroupNorm1d", bl.GroupNorm(2), (5, 4), spatial=True),
    case("GroupNorm3d", bl.GroupNorm(2), (2, 5, 3, 4), spatial=True),
    case(
        "RMSNorm",
        bl.RMSNorm(),
        (5, 6, 3),
        axes=[(-2, -1), (-3, -2, -1)],
        epsilon=0.1,
        use_scale=[False, bl.RMSNorm((-2, -1), use_scale=False)],
        scale_init="normal",
    ),
    # activation
    case("Softmax", bl.Softmax(), (5, 3, 4), axis=[0, 1, -2]),
    case("LogSoftmax", bl.LogSoftmax(), (5, 3, 4), axis=[0, 1, -2]),
    case(
        "Activation",
        bl.Activation("relu"),
        (7, 11),
        kind=[bl.Activation(kind) for kind in KINDS if kind != "relu"],
    ),
    case("LeakyReLU", bl.LeakyReLU(), (5, 3), slope=[0.25, 0.3]),
    case("ELU", bl.ELU(), (5, 3), alpha=0.7),
    case("CELU", bl.CELU(), (5, 3), alpha=0.7),
    case("SoftShrink", bl.SoftShrink(), (5, 3), threshold=0.3),
    case("HardShrink", bl.HardShrink(), (5, 3), threshold=0.3),
    # regularisation
    case("Dropout", bl.Dropout(0.4), (5, 3), rate=[0.0, 0.7], whole_channels=True),
    *(
        case(
            f"Dropout of channels in {len(shape)} axes",
            bl.Dropout(0.4, whole_channels=True),
            shape,
            spatial=True,
            rate=[0.0, 0.7],
        )
        for shape in ((4,), (6, 4), (5, 6, 4), (3, 5, 6, 4))
    ),
    # shape
    case("Flatten", bl.Flatten(), (5, 6, 3)),
    case("Permute", bl.Permute((2, 0, 1)), (5, 6, 3), axes=(1, 0, 2)),
    case("Reshape", bl.Reshape((4, 15)), (5, 6, 2), shape=[(3, -1, 2), (-1,), (60,)]),
    case("Reshape of a vector", bl.Reshape((3, 2)), (6,)),
    case("Reshape to a scalar", bl.Sequential(bl.Dense(1), bl.Reshape(())), (6,)),
    case(
        "Reshape of a scalar",
        bl.Sequential(
            bl.Dense(1), bl.Reshape(()), bl.Flatten(), bl.Reshape(()), bl.Reshape((1, 1)), DENSE
        ),
        (6,),
    ),
    case(
        "Pad",
        bl.Pad(((1, 0), (2, 3), (0, 1))),
        (4, 5, 3),
        pads=((0, 0), (1, 0), (0, 2)),
        mode=[
            "reflect",
            "edge",
            bl.Pad(((0, 0), (1, 2), (0, 0)), mode="edge"),
        ],
        value=1.5,
    ),
    *(
        case(
            f"Pad of {len(shape)} axes",
            bl.Pad(((1, 0), (2, 1), (0, 1), (1, 1))[: len(shape)]),
            shape,
            mode=["reflect", "edge"],
        )
        for shape in ((4,), (4, 5), (4, 5, 3, 6))
    ),
    case(
        "Crop",
        bl.Crop(((1, 0), (0, 2), (0, 0))),
        (4, 5, 3),
        crops=[((1, 1), (0, 0), (0, 1)), ((0, 0), (2, 2), (0, 0))],
    ),
    case("Crop of a vector", bl.Crop(((1, 2),)), (6,)),
    case("Crop1d", bl.Crop(((1, 2), (0, 0))), (6, 3)),
    case("Crop3d", bl.Crop(((1, 2), (0, 0), (1, 0), (0, 1))), (6, 3, 4, 2)),
    # pattern
    case(
        "Rearrange",
        REARRANGE,
        (4, 6, 5),
        pattern=[
            "b (h h2) (w w2) c -> b (h2 h) (w2 w) c",
            bl.Rearrange("b h w c -> b (h w c)"),
            bl.Rearrange("b h w c -> b c w h"),
            bl.Rearrange("b ... c -> b c ..."),
            bl.Rearrange("b ... c -> b (c ...)"),
            bl.Rearrange("b h ... -> b 1 (...) () h"),
            bl.Sequential(
                bl.Rearrange("b ... c -> b ... 1 c"),
                bl.Rearrange("b h w 1 c -> b c (w 1) h"),
            ),
        ],
        axes_lengths=[
            {"h": 2, "w": 3},
            {"h2": 4, "w2": 2},
            {"h": 1, "h2": 4, "w2": 6, "w": 1},
        ],
    ),
    case(
        "Reduce",
        REDUCE,
        (6, 4, 5),
        pattern=[
            "b (h h2) w c -> b h c w",
            bl.Reduce("b ... c -> b c", "mean"),
            bl.Reduce("b h ... -> b (...) 1", "mean"),
            bl.Reduce("b 6 w (c 5) -> b c w", "mean"),
            bl.Reduce("b h w c -> b c w h", "mean"),
        ],
        reduction=[
            *(r for r in REDUCTIONS if r != "mean"),
            *(bl.Reduce("b h w c -> b () c", r) for r in REDUCTIONS),
            bl.Reduce("b ... -> b", "sum"),
            bl.Sequential(bl.Dense(4), bl.Reduce("b h w c -> b c h w", "max")),
        ],
        axes_lengths=[{"h2": 2}, {"h": 3}],
    ),
    case(
        "EinMix",
        MIX,
        (4, 6, 5),
        pattern=[
            "b (h h2) (w w2) c -> b o w h",
            "b (h h2) (w w2) c -> b (h o) w 1",
            "b (h h2) (w w2) c -> b w2 h o w",
            bl.EinMix("b h w c -> b h o", "c o", "o", o=7),
            bl.EinMix("b ... c -> b ... o", "c o", "o", o=7),
            bl.EinMix("b h ... -> b (...) o", "h o", "o", o=7),
            bl.EinMix("b h w (g c) -> b h w (g o)", "g c o", "g o", g=5, o=3),
            bl.EinMix("b h w c -> b", "w h c"),
            bl.EinMix("b h w c -> b h w c", "c", "c"),
        ],
        weight_shape=["o h2 w2 c", "h2 c o", "c w2 h2 o"],
        bias_shape=[None, "h o", "o w", "o h w"],
        axes_lengths=[{"h2": 2, "w2": 3, "o": 7}, {"h": 1, "w": 3, "o": 4}],
        kernel_init=["glorot_uniform", "he_normal", Normal(std=0.3)],
        bias_init=["ones", "normal"],
    ),
    case(
        "EinMix over heads",
        bl.EinMix("b t (g c) -> b t (g o)", "g c o", "o g", g=2, o=5, kernel_init="he_uniform"),
        (3, 8),
        axes_lengths={"g": 4, "o": 5},
    ),
    case(
        "EinMix of a vector",
        bl.EinMix("b ... c -> b ... o", "c o", "o", o=4, bias_init="normal"),
        (5,),
        pattern=["b ... c -> b 1 ... o", "b c ... -> b (... o) 1"],
    ),
    case(
        "Upsample2d",
        bl.Upsample((2, 3)),
        (5, 6, 4),
        spatial=True,
        scale=(3, 1),
        size=[bl.Upsample(size=size) for size in ((7, 4), (8, 9), (3, 6))],
        mode="linear",
    ),
    case(
        "Upsample2d, linear",
        bl.Upsample((2, 3), mode="linear"),
        (5, 6, 4),
        spatial=True,
        scale=(3, 1),
        size=[bl.Upsample(size=size, mode="linear") for size in ((7, 9), (3, 6), (2, 11))],
    ),
    case("Upsample2d to a size", bl.Upsample(size=(7, 3), mode="linear"), (5, 6, 4), spatial=True),
    case("Upsample1d", bl.Upsample((3,)), (5, 4), spatial=True, size=bl.Upsample(size=(8,))),
    case(
        "Upsample1d, linear",
        bl.Upsample((3,), mode="linear"),
        (5, 4),
        spatial=True,
        size=bl.Upsample(size=(8,), mode="linear"),
    ),
    case(
        "Upsample3d",
        bl.Upsample((2, 1, 3)),
        (3, 5, 6, 4),
        spatial=True,
        size=bl.Upsample(size=(2, 7, 9)),
    ),
    case(
        "Upsample3d, linear",
        bl.Upsample((2, 1, 3), mode="linear"),
        (3, 5, 6, 4),
        spatial=True,
        size=bl.Upsample(size=(2, 7, 9), mode="linear"),
    ),
    # attention
    case(
        "MultiHeadAttention",
        bl.MultiHeadAttention(2, bias_init="normal"),
        (5, 6),
        num_heads=[3, 1],
        head_size=[4, 2],
        features=3,
        num_kv_heads=[1, bl.MultiHeadAttention(6, num_kv_heads=2, head_size=4)],
        causal=True,
        use_bias=[False, bl.MultiHeadAttention(2, num_kv_heads=1, use_bias=False)],
        in_features=stated(6, 5),
        kernel_init="he_normal",
        bias_init="ones",
    ),
    case(
        "MultiHeadAttention to another",
        bl.MultiHeadAttention(2),
        ((5, 6), (7, 4)),
        head_size=5,
        features=3,
        num_kv_heads=1,
        causal=[True, bl.MultiHeadAttention(2, num_kv_heads=1, causal=True)],
        use_bias=[False, bl.MultiHeadAttention(2, num_kv_heads=1, use_bias=False)],
    ),
    case(
        "MultiHeadAttention to a shorter one",
        bl.MultiHeadAttention(2, head_size=5, num_kv_heads=1),
        ((7, 6), (5, 6)),
        num_kv_heads=None,
        causal=[True, bl.MultiHeadAttention(2, causal=True)],
    ),
    case(
        "MultiHeadAttention to key and value",
        bl.MultiHeadAttention(2),
        ((5, 6), (7, 4), (7, 3)),
        head_size=5,
        features=4,
        num_kv_heads=[1, bl.MultiHeadAttention(4, num_kv_heads=2, head_size=3, causal=True)],
        causal=True,
        use_bias=False,
    ),
    case(
        "MultiHeadAttention to a value like the query",
        bl.MultiHeadAttention(2, num_kv_heads=1),
        ((5, 6), (7, 4), (7, 6)),
        num_kv_heads=None,
    ),
    case(
        "MultiHeadAttention with padding",
        bl.MultiHeadAttention(2, mask=True),
        ((5, 6), (5,)),
        mask=bl.Sequential(bl.Select(0), bl.MultiHeadAttention(2)),
        head_size=4,
        features=4,
        num_kv_heads=[1, bl.MultiHeadAttention(2, num_kv_heads=1, causal=True, mask=True)],
        causal=True,
        use_bias=False,
    ),
    case(
        "MultiHeadAttention to another with padding",
        bl.MultiHeadAttention(2, mask=True, causal=True),
        ((5, 6), (7, 4), (7,)),
        features=4,
        num_kv_heads=[1, bl.MultiHeadAttention(2, num_kv_heads=1, mask=True)],
        causal=False,
    ),
    case(
        "MultiHeadAttention to key and value with padding",
        bl.MultiHeadAttention(4, head_size=3, num_kv_heads=2, mask=True),
        ((7, 6), (5, 4), (5, 3), (5,)),
        features=4,
        num_kv_heads=[None, 1],
        causal=True,
    ),
    case(
        "MultiHeadAttention shared",
        bl.Parallel(
            *(bl.Shared("whole", bl.MultiHeadAttention(2)),) * 2,
            *(bl.Shared("steps", bl.MultiHeadAttention(2, num_kv_heads=1, features=5)),) * 2,
        ),
        (5, 6),
    ),
    # value
    case("Identity", bl.Identity(), (5, 3)),
    case("Identity of a tuple", bl.Identity(), ((5,), (3, 2))),
    case(
        "Parameter",
        bl.Parameter(),
        (4, 5, 3),
        shape=[(3,), (5, 1), (4, 1, 3), (1, 3)],
        merge=["multiply", "prepend", bl.Parameter((2, 5, 3), "prepend")],
        init="glorot_uniform",
    ),
    case("Parameter of a vector", bl.Parameter(), (4,), merge=["multiply", "prepend"]),
    case(
        "Constant",
        bl.Sequential(bl.Dense(3), bl.Constant("normal")),
        (4, 5),
        value=[
            bl.Sequential(bl.Dense(3), bl.Constant([1.5, 2.0, -3.0])),
            bl.Sequential(bl.Dense(3), bl.Constant(2)),
        ],
        shape=bl.Sequential(bl.Dense(3), bl.Constant("normal", shape=(4, 1))),
        merge=[
            bl.Sequential(bl.Dense(3), bl.Constant("normal", merge=merge))
            for merge in ("multiply", "prepend")
        ],
    ),
    case("Constant alone", bl.Constant("normal"), (4, 5)),
    case("Sample", bl.Sample(), ((5, 3), (5, 3))),
    case(
        "Sample after two heads",
        bl.Sequential(bl.Tanh(), bl.Parallel(bl.Dense(3), TANH_HEAD, merge="tuple"), bl.Sample()),
        (5,),
    ),
    case("Select", bl.Select(1), ((5,), (3, 2), (4, 6)), index=[0, -1]),
    case(
        "Select in branches",
        bl.Residual(bl.Sequential(bl.Select(0), bl.Conv(3, (2, 3), padding="same")), bl.Select(-1)),
        ((5, 6, 2), (5, 6, 3)),
    ),
    # combine
    case(
        "Sequential",
        bl.Sequential(bl.Dense(4), bl.Tanh(), bl.Dense(3)),
        (5,),
        blocks=[bl.Sequential(bl.Dense(4)), bl.Sequential()],
        names=bl.Sequential(first=bl.Dense(4), second=bl.Sequential(bl.Tanh(), bl.Dense(3))),
    ),
    case(
        "Repeat",
        bl.Repeat(bl.Residual(bl.Sequential(bl.LayerNorm(), bl.Dense(5), bl.Tanh())), 3),
        (4, 5),
        block=[
            bl.Repeat(TOWER, 3),
            bl.Repeat(bl.Sequential(bl.Dropout(0.4), bl.Dense(5)), 3),
            bl.Repeat(bl.Repeat(TOWER, 2), 3),
            bl.Repeat(bl.Shared("tied", TOWER), 3),
            bl.Repeat(
                bl.Sequential(bl.MultiHeadAttention(1), bl.LSTM(5, return_sequences=True)), 3
            ),
            bl.Repeat(bl.Dense(6), 3),
            bl.Repeat(bl.Tanh(), 3),
            bl.Repeat(Bounded(0.5), 3),
        ],
        times=[2, 1],
    ),
    case(
        "Repeat of Conv",
        bl.Repeat(bl.Sequential(bl.Conv(4, (3, 2), padding="same"), BATCH, bl.ReLU()), 3),
        (5, 6, 4),
        spatial=True,
        block=[
            bl.Repeat(bl.Conv(4, (2, 2)), 3),
            bl.Repeat(bl.Sequential(bl.Dense(6), bl.Conv(4, (3, 2), padding="same")), 3),
        ],
    ),
    case(
        "Repeat of a tuple",
        bl.Sequential(
            bl.Parallel(bl.Dense(3), bl.Tanh(), merge="tuple"),
            bl.Repeat(
                bl.Parallel(
                    bl.Sequential(bl.Select(0), bl.Dense(3)),
                    bl.Sequential(bl.Select(1), bl.Dense(5)),
                    merge="tuple",
                ),
                3,
            ),
        ),
        (5,),
    ),
    case(
        "Flatten after Conv",
        bl.Sequential(CONV, bl.ReLU(), bl.Flatten(), bl.Dense(4)),
        (7, 8, 3),
        spatial=True,
    ),
    case(
        "Residual",
        bl.Residual(bl.Conv(4, (3, 2), padding="same")),
        (5, 6, 4),
        spatial=True,
        body=bl.Residual(bl.Residual(bl.Conv(4, (2, 2), padding="same"))),
        shortcut=[
            bl.Residual(bl.Conv(7, (3, 2), stride=2, padding="same"), bl.Conv(7, (1, 1), stride=2)),
            bl.Residual(bl.Identity(), bl.Conv(4, (2, 2), padding="same")),
        ],
        merge=["multiply", "mean", "max", "concat"],
    ),
    case("Residual of Dense", bl.Residual(TOWER), (4, 5), merge=["concat", "max"]),
    case(
        "Parallel",
        merged("concat"),
        (5, 6, 4),
        spatial=True,
        blocks=[
            bl.Parallel(*CONVS, bl.Conv(2, (2, 2), padding="same")),
            bl.Parallel(bl.Identity(), CONVS[0]),
            bl.Parallel(CONVS[0]),
            bl.Parallel(CONVS[1], CONVS[0]),
        ],
        names=bl.Parallel(left=CONVS[0], right=bl.Sequential(CONVS[1], bl.Tanh())),
        merge=[
            *(merged(m) for m in ("add", "multiply", "mean", "max", "stack", "tuple")),
            bl.Parallel(*CONVS, CONVS[0], merge="max"),
            bl.Parallel(*CONVS, CONVS[0], merge="mean"),
        ],
        axis=[
            *(merged("concat", axis=a) for a in (0, 1, -2)),
            *(merged("stack", axis=a) for a in (1, -1)),
        ],
    ),
    case(
        "Parallel product that repeats",
        bl.Parallel(
            bl.Conv(3, (3, 2), padding="same"),
            bl.Sequential(bl.Conv(3, (5, 1)), bl.Sigmoid()),
            bl.Sequential(bl.Conv(1, (1, 1)), bl.Sigmoid()),
            merge="multiply",
        ),
        (5, 6, 4),
        spatial=True,
    ),
    case(
        "Parallel of vectors",
        bl.Parallel(bl.Dense(3), bl.Dense(3)),
        (5,),
        merge=[bl.Parallel(bl.Dense(3), bl.Dense(3), merge=m) for m in ("stack", "tuple")],
    ),
    case(
        "Parallel of a tuple",
        bl.Sequential(bl.Parallel(bl.Dense(3), bl.Dense(4), merge="tuple"), bl.Identity()),
        (5,),
        blocks=bl.Sequential(
            bl.Parallel(bl.Dense(3), bl.Identity(), merge="tuple"),
            bl.Parallel(bl.Identity(), bl.Identity(), merge="tuple"),
        ),
    ),
    case(
        "Shared",
        bl.Sequential(bl.Shared("tied", bl.Dense(4)), bl.Tanh(), bl.Shared("tied", bl.Dense(4))),
        (4,),
        key=bl.Sequential(bl.Shared("one", bl.Dense(4)), bl.Tanh(), bl.Shared("two", bl.Dense(4))),
        block=bl.Sequential(
            *(bl.Shared("tied", bl.Sequential(bl.Dense(6), bl.ReLU(), bl.Dense(4))),) * 3
        ),
    ),
    case(
        "Shared Conv",
        bl.Sequential(
            *(bl.Shared("tied", bl.Sequential(bl.Conv(3, (3, 2), padding="same"), BATCH)),) * 2,
            bl.Residual(bl.Shared("other", bl.Conv(3, (1, 1)))),
            bl.Dense(5),
            bl.Parallel(*(bl.Shared("more", bl.Conv(2, (2, 2))),) * 2, merge="add"),
        ),
        (5, 6, 3),
    ),
    # custom
    case(
        "Custom",
        Gated(),
        (5, 3),
        features=7,
        steps=[0, 1],
        use_bias=False,
        kernel_init=[
            Normal(std=0.3, mean=1.0),
            Uniform(low=0.1, high=0.4),
            Orthogonal(),
            Constant(0.3),
            Gated(2, kernel_init=Array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])),
        ],
    ),
    case("Custom that branches", Bounded(), (5, 3), limit=9.0),
    case("Custom with a constant", FixedHidden(), (5,), hidden=7, bound=0.3),
    case("Custom with cond", Either(), (5, 3), shift=-9.0),
    case("Custom with while_loop", Halved(), (5, 3), limit=2, bound=0.1),
    case("Custom of a tuple", Bilinear(), ((5,), (3,)), features=2),
    case("Custom that makes a tuple", Moments(), (5, 3), spread="var", power=1),
    case("Custom with helpers", Positions(), (5, 3), base=7.0, offsets=(0.25,)),
    case(
        "VAELoss",
        bl.VAELoss(),
        ((5,), (3,), (3,), (5,)),
        beta=0.5,
        reconstruction="binary_cross_entropy",
    ),
    case(
        "Custom in a network",
        bl.Sequential(
            bl.Conv(3, (2, 2)),
            bl.Residual(bl.Sequential(Gated(3), *(bl.Shared("tied", FixedHidden(3)),) * 2)),
            bl.Flatten(),
            bl.Dense(4),
        ),
        (4, 5, 2),
    ),
    # composite
    case(
        "MLP",
        bl.MLP(3, hidden=(6, 4)),
        (5,),
        features=2,
        hidden=(7,),
        activation=bl.MLP(3, hidden=(6, 4), activation=bl.Tanh()),
        rate=0.5,
        use_bias=False,
    ),
    case(
        "ConvNormAct",
        STAGE,
        (8, 9, 4),
        spatial=True,
        features=4,
        kernel_size=(2, 5),
        stride=2,
        padding=["valid", ((0, 2), (1, 0))],
        dilation=bl.ConvNormAct(6, (3, 2), dilation=(2, 3)),
        groups=2,
        use_bias=[True, replace(STAGE, use_bias=False, norm=None)],
        norm=[None, replace(STAGE, norm=bl.GroupNorm(3))],
        activation=[None, replace(STAGE, activation=bl.Tanh())],
        pool=[None, replace(STAGE, pool=bl.AvgPool((2, 3)))],
        rate=0.5,
    ),
    case(
        "ResidualBlock",
        bl.ResidualBlock(4),
        (5, 6, 4),
        spatial=True,
        features=bl.ResidualBlock(7, project=True),
        stride=bl.ResidualBlock(7, stride=2, project=True),
        project=True,
        use_bias=True,
        norm=bl.ResidualBlock(4, norm=bl.GroupNorm(2)),
        activation=bl.ResidualBlock(4, activation=bl.Tanh()),
    ),
    case(
        "Bottleneck",
        bl.Bottleneck(8),
        (5, 6, 8),
        spatial=True,
        features=bl.Bottleneck(12, project=True),
        stride=bl.Bottleneck(12, stride=2, project=True),
        project=True,
        expansion=2,
        groups=2,
        use_bias=True,
        norm=bl.Bottleneck(8, norm=bl.GroupNorm(2)),
        activation=bl.Bottleneck(8, activation=bl.Tanh()),
    ),
    case(
        "Inception",
        INCEPTION,
        (5, 6, 4),
        spatial=True,
        features=4,
        threes=(3, 4),
        fives=(1, 2),
        pooled=3,
        norm=replace(INCEPTION, norm=BATCH),
        activation=replace(INCEPTION, activation=bl.Tanh()),
    ),
    case(
        "DenseBlock",
        bl.DenseBlock(2, 3),
        (5, 6, 4),
        spatial=True,
        growth=3,
        times=2,
        use_bias=True,
        norm=bl.DenseBlock(2, 3, norm=bl.GroupNorm(2)),
        activation=bl.DenseBlock(2, 3, activation=bl.Tanh()),
    ),
    case(
        "SqueezeExcite",
        bl.SqueezeExcite(4, ratio=2),
        (5, 6, 4),
        spatial=True,
        features=bl.Sequential(bl.Dense(8), bl.SqueezeExcite(8, ratio=2)),
        ratio=4,
        activation=bl.SqueezeExcite(4, 2, activation=bl.Tanh()),
    ),
    case(
        "TransformerEncoderLayer",
        ENCODER,
        (5, 6),
        features=bl.Sequential(bl.Dense(4), replace(ENCODER, features=4)),
        num_heads=3,
        hidden=8,
        activation=replace(ENCODER, activation=bl.GELU()),
        norm=replace(ENCODER, norm=bl.RMSNorm()),
        norm_first=[True, replace(ENCODER, norm_first=True, rate=0.3)],
        rate=0.3,
        causal=True,
    ),
    case(
        "TransformerDecoderLayer",
        DECODER,
        ((5, 6), (7, 4)),
        features=bl.Sequential(
            bl.Parallel(bl.Sequential(bl.Select(0), bl.Dense(4)), bl.Select(1), merge="tuple"),
            replace(DECODER, features=4),
        ),
        num_heads=3,
        hidden=8,
        activation=replace(DECODER, activation=bl.GELU()),
        norm=replace(DECODER, norm=bl.RMSNorm()),
        norm_first=[True, replace(DECODER, norm_first=True, rate=0.3)],
        rate=0.3,
    ),
]

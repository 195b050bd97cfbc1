"""Listings are what torch users print, line by line, without torch."""

import subprocess
import sys

import pytest
from test_builder import DIGITS, PERCEPTRON
from test_validate import CLASSIFIER

import blocks as bl
from blocks.activation import KINDS
from conftest import need

LAST = {"layout": "channels_first"}


def test_a_perceptron():
    """Where torch code leaves the axis open, the one that it means is said."""
    assert bl.MLPBuilder(PERCEPTRON).build().listing((8,), name="test1") == (
        "Model: test1\n"
        "Modules:\n"
        "0: Linear(in_features=8, out_features=16, bias=False)\n"
        "1: ReLU()\n"
        "2: Linear(in_features=16, out_features=16, bias=False)\n"
        "3: ReLU()\n"
        "4: Linear(in_features=16, out_features=1, bias=False)\n"
        "5: Softmax(dim=1)"
    )


def stage(first, inputs, features):
    return [
        f"{first}: Conv2d({inputs}, {features}, kernel_size=(3, 3), stride=(1, 1), "
        "padding=(1, 1), bias=False)",
        f"{first + 1}: BatchNorm2d({features}, eps=1e-05, momentum=0.1, affine=True, "
        "track_running_stats=True)",
        f"{first + 2}: ReLU()",
        f"{first + 3}: MaxPool2d(kernel_size=2, stride=1, padding=0, dilation=1, ceil_mode=False)",
        f"{first + 4}: Dropout2d(p=0.2, inplace=False)",
    ]


def test_all_modules_of_a_network_of_digits():
    """An activation that is used four times is there four times."""
    builder = bl.ConvBuilder(DIGITS)
    node = bl.infer(builder.build(), builder.input_shape("channels_first"), **LAST)
    assert bl.listing(node).splitlines() == [
        *stage(0, 8, 16),
        *stage(5, 16, 16),
        *stage(10, 16, 32),
        "15: Flatten(start_dim=1, end_dim=-1)",
        "16: Linear(in_features=20000, out_features=64, bias=False)",
        "17: ReLU()",
        "18: Dropout(p=0.2, inplace=False)",
        "19: Linear(in_features=64, out_features=10, bias=False)",
        "20: Softmax(dim=1)",
        "21: Dropout(p=0.2, inplace=False)",
    ]


def test_torch_prints_a_module_that_is_used_again_once():
    """One ReLU for all layers: of 22 modules that run, three are in no print of the children."""
    need("torch")
    from torch import nn

    builder = bl.ConvBuilder(DIGITS)
    shape = builder.input_shape("channels_first")
    model = bl.lower(builder.build(), "torch", input_shape=shape, **LAST)
    relu = nn.ReLU()
    shared = nn.Sequential(*(relu if isinstance(m, nn.ReLU) else m for m in model))
    assert [len(net) for net in (model, shared)] == [22, 22]
    assert [len(list(net.children())) for net in (model, shared)] == [22, 19]


def test_a_network_that_does_not_fit_is_listed_as_it_is_written():
    found = bl.validate(CLASSIFIER, (8, 28, 28), **LAST)
    lines = bl.listing(found.node).splitlines()
    assert len(lines) == 19
    assert lines[14] == "14: Linear(in_features=625, out_features=64, bias=False)"
    open_ended = bl.Sequential(
        bl.Conv(4, (5,), padding="same", stride=2), bl.ConvTranspose(3, (2, 2)), bl.Softmax(5)
    )
    assert bl.listing(bl.validate(open_ended, (None, 3)).node).splitlines() == [
        "0: Conv1d(3, 4, kernel_size=(5,), stride=(2,), padding=same)",
        "1: ConvTranspose2d(4, 3, kernel_size=(2, 2), stride=(1, 1))",
        "2: Softmax(dim=5)",
    ]


def test_names_stand_before_their_module():
    heads = bl.Parallel(mean=bl.Dense(4), log_var=bl.Dense(4), merge="tuple")
    net = bl.Sequential(heads=heads, sample=bl.Sample(), rest=bl.Sequential(bl.Dense(9)))
    assert net.listing((5,)).splitlines() == [
        "0: Mean-Linear(in_features=5, out_features=4, bias=True)",
        "1: LogVar-Linear(in_features=5, out_features=4, bias=True)",
        "2: Sample-Sample()",
        "3: Linear(in_features=4, out_features=9, bias=True)",
    ]


MODULES = {
    "Conv": (bl.Conv(6, (3, 2), (2, 1), ((1, 1), (0, 0)), (2, 1), 2), (9, 8, 4)),
    "Conv3d": (bl.Conv(6, (3, 2, 1), use_bias=False), (9, 8, 7, 4)),
    "Conv1d": (bl.Conv(6, (3,), padding=((2, 2),)), (9, 4)),
    "ConvTranspose": (
        bl.ConvTranspose(6, (4, 3), 2, ((1, 1), (0, 0)), (1, 0), 1, 2, False),
        (5, 4, 2),
    ),
    "ConvTranspose with less at the end": (
        bl.ConvTranspose(6, (4,), 2, ((2, 1),), dilation=3),
        (5, 2),
    ),
    "MaxPool": (bl.MaxPool((2, 3), 1, ((1, 1), (1, 1))), (9, 8, 4)),
    "AvgPool": (bl.AvgPool((2, 2), count_include_pad=True), (9, 8, 4)),
    "LayerNorm": (bl.LayerNorm((-2, -1)), (5, 4)),
    "GroupNorm": (bl.GroupNorm(2), (5, 4)),
    "Embedding": (bl.Embedding(9, 4), (5,)),
    "Dropout3d": (bl.Dropout(0.3, whole_channels=True), (4, 3, 2, 5)),
    "Dropout": (bl.Dropout(0.25), (4, 3, 2)),
    "Softmax": (bl.Softmax(0), (4, 3)),
    "LogSoftmax": (bl.LogSoftmax(0), (4, 3)),
    "Flatten": (bl.Flatten(), (4, 3)),
    "Identity": (bl.Identity(), (4, 3)),
    "AdaptiveAvgPool": (bl.AdaptiveAvgPool((3, 2)), (7, 9, 4)),
    "Dense": (bl.Dense(3), (4,)),
} | {kind: (bl.Activation(kind), (3,)) for kind in KINDS}


@pytest.mark.parametrize("name", MODULES)
def test_a_line_is_what_torch_prints(name):
    need("torch")
    block, shape = MODULES[name]
    last = block.layout_role == "spatial" and len(shape) > 1
    if last:
        shape = (shape[-1], *shape[:-1])
    node = bl.infer(block, shape, **LAST)
    printed = str(bl.lower(node, "torch")).replace(", bias=True)", ")")  # new in torch 2.13
    assert bl.listing(node).replace(", bias=True)", ")") == f"0: {printed}"


def test_a_batch_norm_is_what_torch_printed_before_it_had_a_bias():
    assert bl.BatchNorm(1e-3, 0.8, use_bias=False, use_scale=False).listing((4,)) == (
        "0: BatchNorm1d(4, eps=0.001, momentum=0.2, affine=False, track_running_stats=True)"
    )


def test_other_blocks_are_listed_as_they_are_written():
    assert bl.Upsample((2, 3)).listing((4, 5, 2)) == "0: Upsample(scale=(2, 3))"
    assert bl.Conv(4, (3,), padding=((1, 0),)).listing((4, 5)) == (
        "0: Conv1d(5, 4, kernel_size=(3,), stride=(1,), padding=((1, 0),))"
    )
    assert bl.ConvTranspose(4, (3,), padding=((0, 1),)).listing((4, 5)) == (
        "0: ConvTranspose1d(5, 4, kernel_size=(3,), stride=(1,), padding=((0, 1),))"
    )


@pytest.mark.parametrize("shape", [(), ((3,), (4,))])
def test_a_block_whose_input_has_no_sizes_is_listed_as_it_is_written(shape):
    for block in (bl.Dense(2), bl.BatchNorm(), bl.Conv(2, (3,)), bl.LayerNorm()):
        assert bl.listing(bl.validate(block, shape).node) == f"0: {block!r}"


def test_torch_is_not_needed():
    code = "import sys, blocks as bl; bl.Dense(2).listing((3,)); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)

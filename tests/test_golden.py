"""Files of version 1, as they were written first: they are written so today, and read.

`python tests/test_golden.py` writes those that are missing, for a new version; the others stay.
"""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest

import blocks as bl
from blocks import _limits, initializers
from blocks._block import Block
from blocks._checkpoint import arrays_of
from blocks._files import document, encoded, library
from blocks._plan import History, Plan
from blocks._stack import run
from blocks.initializers import Initializer
from custom_blocks import Gated

GOLDEN = Path(__file__).parent / "golden"

TANH = bl.Tanh()
WINDOW = {"stride": (2, 1), "padding": ((1, 0), (0, 1))}
NORM = {"use_scale": False, "use_bias": False, "scale_init": "normal", "bias_init": "ones"}
MADE = {"use_bias": False, "in_features": 3, "kernel_init": "he_normal", "bias_init": "normal"}
STEPS = {"return_sequences": True, "bidirectional": True, "recurrent_init": "uniform"}
RESIDUAL = {"stride": 2, "project": True, "use_bias": True, "activation": TANH}
LAYER = {"activation": bl.GELU(), "norm": bl.RMSNorm(), "norm_first": True, "rate": 0.3}

# One of every block and initialiser, with each of its fields.
NETWORK = bl.Sequential(
    bl.Activation("leaky_relu", slope=0.2),
    bl.Activation("elu", alpha=0.5),
    bl.Activation("soft_shrink", threshold=0.25),
    bl.AdaptiveAvgPool((3, 2)),
    bl.AvgPool((3, 2), count_include_pad=True, **WINDOW),
    bl.BatchNorm(0.1, 0.7, in_features=3, **NORM),
    bl.Bottleneck(8, expansion=2, groups=2, norm=bl.GroupNorm(2), **RESIDUAL),
    bl.Constant([[1.0, -0.5], [2.5e-8, 3.0]], shape=(2, 2), merge="multiply"),
    bl.Conv(6, (3, 2), dilation=(2, 3), groups=2, **WINDOW, **MADE),
    bl.ConvNormAct(
        6,
        (3, 2),
        dilation=3,
        groups=2,
        use_bias=True,
        norm=None,
        activation=None,
        pool=bl.MaxPool((2, 3)),
        rate=0.5,
        **WINDOW,
    ),
    bl.ConvTranspose(6, (3, 2), output_padding=(1, 0), dilation=(3, 2), groups=2, **WINDOW, **MADE),
    bl.Crop(((1, 0), (0, 2), (0, 0))),
    bl.Dense(4, **MADE),
    bl.DenseBlock(2, 3, use_bias=True, norm=bl.GroupNorm(2), activation=TANH),
    bl.Dropout(0.4, whole_channels=True),
    bl.EinMix(
        "b (h h2) (w w2) c -> b h w o",
        "h2 w2 c o",
        "o",
        kernel_init="glorot_uniform",
        bias_init="ones",
        h2=2,
        w2=3,
        o=4,
    ),
    bl.Embedding(7, 3, embedding_init="lecun_normal"),
    bl.Flatten(),
    bl.GRU(5, **STEPS, **MADE),
    Gated(2),
    bl.GlobalAvgPool(),
    bl.GlobalMaxPool(),
    bl.GroupNorm(2, 0.1, **NORM),
    bl.Identity(),
    bl.Inception(3, (2, 4), (3, 2), 2, norm=bl.BatchNorm(), activation=TANH),
    bl.LSTM(5, **STEPS, **MADE),
    bl.LayerNorm((-2, -1), 0.1, **NORM),
    bl.LogSoftmax(0),
    bl.MLP(3, (6, 4), TANH, 0.5, use_bias=False),
    bl.MaxPool((3, 2), **WINDOW),
    bl.MultiHeadAttention(2, 4, 3, 1, causal=True, mask=True, **MADE),
    bl.Pad(((1, 0), (2, 3), (0, 1)), "reflect"),
    bl.Pad(((1, 0), (2, 3), (0, 1)), value=1.5),
    bl.Parallel(bl.Identity(), merge="stack", axis=-1, other=TANH),
    bl.Parameter((3,), "multiply", "glorot_uniform"),
    bl.Permute((2, 0, 1)),
    bl.RMSNorm((-2, -1), 0.1, use_scale=False, scale_init="normal"),
    bl.Rearrange("b (h h2) (w w2) c -> b h w (h2 w2 c)", h2=2, w2=3),
    bl.Reduce("b (h h2) (w 2) c -> b w h c", "mean", h2=3),
    bl.Repeat(TANH, 3),
    bl.Reshape((4, -1)),
    bl.Residual(TANH, bl.Select(-1), "multiply"),
    bl.ResidualBlock(4, norm=bl.GroupNorm(2), **RESIDUAL),
    bl.Sample(),
    bl.Select(1),
    bl.SimpleRNN(5, activation="relu", **STEPS, **MADE),
    bl.Softmax(0),
    bl.SqueezeExcite(4, 2, TANH),
    bl.TransformerDecoderLayer(6, 2, 7, **LAYER),
    bl.TransformerEncoderLayer(6, 2, 7, causal=True, **LAYER),
    bl.Upsample((2, 3), mode="linear"),
    bl.Upsample(size=(5, 6)),
    bl.VAELoss(beta=0.5, reconstruction="binary_cross_entropy"),
    bl.Dense(2, kernel_init=initializers.Normal(0.5, 1.0), bias_init=3),
    bl.Dense(2, kernel_init=initializers.Uniform(-0.25, 0.5)),
    bl.Dense(2, kernel_init=initializers.VarianceScaling(2.0, "fan_out", "normal")),
    bl.Dense(2, kernel_init=initializers.Orthogonal(1.5)),
    bl.Dense(2, kernel_init=initializers.PerGate(initializers.Constant(0.125), 2)),
    tied=bl.Shared("tied", TANH),
)
NODE = bl.infer(
    bl.Parallel(bl.Sequential(bl.Select(0), bl.Embedding(9, 4)), bl.Select(1), merge="tuple"),
    ((None,), bl.Spec((3, 5), "bool")),
    layout="channels_first",
    dtype="bfloat16",
    param_dtype="float32",
)
PARAMS = {
    "encoder/0/kernel": np.array([[0.5, -1.25, 3e-7], [2.0, 0.0, -4.0]], np.float32),
    "encoder/0/bias": np.array([1.0, 2.0, 3.0], np.float64),
    "steps": np.array(7, np.int64),
}
DRAWING = bl.infer(bl.Sequential(bl.Dense(2), bl.Dropout(0.5)), (3,))
DRAWN = {"0/kernel": np.arange(6, dtype=np.float32).reshape(3, 2), "0/bias": np.float32([0.5, -1])}
CHECKPOINT = bl.Checkpoint(
    DRAWING,
    Plan(
        "mse",
        bl.AdamW(bl.StepDecay(0.01, 2, 0.5), weight_decay=0.1),
        epochs=3,
        batch_size=4,
        seed=7,
        clip_norm=2.0,
        metrics=("mae",),
        early_stop=bl.EarlyStop("validation_mae", patience=2),
        keep_best=True,
    ),
    examples=7,
    params=DRAWN,
    slots={
        "mean": {"0/kernel": np.float32([[1, 2], [3, 4], [5, 6]])},
        "square": {"0/kernel": np.float32([[0, 1], [4, 9], [16, 25]])},
    },
    history=History(
        (2.0, 1.5, 1.25),
        0.75,
        ({"loss": 1.8, "mae": 1.0, "validation_loss": 1.5, "validation_mae": 0.5},),
        DRAWN,
    ),
    frozen=("0/bias",),
    draws="shared",
    draws_seed=5,
    calls={"1/calls": np.int64(3)},
    random={},
)
NETWORKS = {"network_v1.json": NETWORK, "node_v1.json": NODE}
DEFAULTS = "defaults_v1.json"


def defaults():
    """The default of every field, as a file has it: left out there, it must never be another."""
    made = {item["type"]: item for item in objects(document(NETWORK))}
    found = {}
    for name, kind in sorted(library().items()):
        if issubclass(kind, Block | Initializer) and name in made:
            some = next(value for value in blocks_in(NETWORK) if type(value) is kind)
            pairs = {f.name: some.default(f) for f in dataclasses.fields(kind)}
            found[name] = {
                key: run(encoded(value))
                for key, value in pairs.items()
                if value is not dataclasses.MISSING
            }
    return json.dumps(found, indent=1) + "\n"


def objects(data):
    """Every object with a type in plain data."""
    if isinstance(data, dict):
        if "type" in data:
            yield data
        data = list(data.values())
    if isinstance(data, list):
        for item in data:
            yield from objects(item)


def blocks_in(value):
    """Every block and initialiser in a block."""
    if isinstance(value, bl.Block | Initializer):
        yield value
        value = tuple(getattr(value, f.name) for f in dataclasses.fields(value))
    if isinstance(value, tuple):
        for item in value:
            yield from blocks_in(item)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name):
    text = (GOLDEN / name).read_text(encoding="utf-8")
    network = NETWORKS[name]
    assert bl.to_json(network) == text
    found = bl.load(GOLDEN / name, [Gated])
    assert getattr(found, "block", found) == getattr(network, "block", network)
    assert document(found) == document(network)
    assert bl.fingerprint(found) == bl.fingerprint(network)


def test_every_field_of_every_block_is_in_it():
    data = json.loads((GOLDEN / "network_v1.json").read_text())
    seen = {}
    for item in objects(data):
        seen.setdefault(item["type"], set()).update(item)
    for name, kind in library().items():
        if issubclass(kind, Block | Initializer):
            assert seen[name] >= {f.name for f in dataclasses.fields(kind)}, name


def test_defaults_stay():
    assert (GOLDEN / DEFAULTS).read_text() == defaults()


def test_fingerprints_stay():
    assert bl.fingerprint(NETWORK) == (GOLDEN / "fingerprints_v1.txt").read_text().split()[0]
    assert bl.fingerprint(NODE) == (GOLDEN / "fingerprints_v1.txt").read_text().split()[1]


WRITTEN = {"params_v1.safetensors": None, "shards_v1.safetensors": 30}


@pytest.mark.parametrize("name", WRITTEN)
def test_parameters(name, tmp_path):
    found = bl.load_params_file(GOLDEN / name, network=NETWORK)
    assert found.keys() == PARAMS.keys()
    for path, array in PARAMS.items():
        assert found[path].dtype == array.dtype
        assert np.array_equal(found[path], array)
    bl.save_params(PARAMS, tmp_path / name, network=NETWORK, max_shard_bytes=WRITTEN[name])
    for file in tmp_path.iterdir():
        assert file.read_bytes() == (GOLDEN / file.name).read_bytes(), file.name


def test_a_checkpoint(tmp_path):
    found = bl.load_checkpoint(GOLDEN / "checkpoint_v1.safetensors")
    assert found.plan == CHECKPOINT.plan
    assert found.node.block == DRAWING.block
    assert found.history == CHECKPOINT.history
    assert (found.examples, found.frozen) == (7, ("0/bias",))
    assert (found.draws, found.draws_seed, found.step) == ("shared", 5, 3)
    ours, theirs = arrays_of(CHECKPOINT), arrays_of(found)
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    CHECKPOINT.save(tmp_path / "again")
    golden = (GOLDEN / "checkpoint_v1.safetensors").read_bytes()
    assert (tmp_path / "again").read_bytes() == golden


def test_the_documents_example():
    text = (GOLDEN.parents[1] / "docs" / "files.md").read_text()
    first, second, *_ = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    net = bl.Sequential(bl.Dense(3, kernel_init=initializers.Normal(0.5)), act=bl.ReLU())
    assert bl.from_json(first) == net
    node = bl.infer(net, (None, 8))
    assert bl.from_json(f"{first.strip()[:-1]}, {second}}}").in_spec == node.in_spec
    for name in (
        "MAX_TEXT",
        "MAX_BRACKETS",
        "MAX_NESTING",
        "MAX_LEVELS",
        "MAX_NODES",
        "MAX_TENSORS",
    ):
        number = getattr(_limits, name)
        assert (f"{number:,}" if name != "MAX_TEXT" else "32 MiB") in text


if __name__ == "__main__":
    for name, network in NETWORKS.items():
        if not (GOLDEN / name).exists():
            bl.save(network, GOLDEN / name)
    if not (GOLDEN / DEFAULTS).exists():
        (GOLDEN / DEFAULTS).write_text(defaults())
    if not (GOLDEN / "fingerprints_v1.txt").exists():
        prints = bl.fingerprint(NETWORK), bl.fingerprint(NODE)
        (GOLDEN / "fingerprints_v1.txt").write_text("\n".join(prints) + "\n")
    for name, most in WRITTEN.items():
        if not list(GOLDEN.glob(f"{name}*")):
            bl.save_params(PARAMS, GOLDEN / name, network=NETWORK, max_shard_bytes=most)
    if not (GOLDEN / "checkpoint_v1.safetensors").exists():
        CHECKPOINT.save(GOLDEN / "checkpoint_v1.safetensors")

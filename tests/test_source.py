"""Listings are the model: they run with the framework alone and compute the same."""

import os
import subprocess
import sys

import numpy as np
import pytest

import blocks as bl
from blocks._parity import Inputs, relative
from blocks._spec import leaves, map_value
from cases import CASES
from conftest import need


def runs():
    """Every base, and a third of the variants; the others when there is time."""
    for case in CASES:
        for i, (name, block) in enumerate(case.variants()):
            marks = [pytest.mark.exhaustive] if i % 3 else []
            yield pytest.param(block, case.shape, id=f"{case.name}-{name}", marks=marks)


def executed(text: str):
    """The model that a listing defines, run in an empty namespace."""
    assert "import blocks" not in text
    assert "from blocks" not in text
    assert "from backends" not in text
    namespace: dict = {"__name__": "listing"}
    exec(compile(text, "listing.py", "exec"), namespace)
    if "keras" in namespace:  # a listing of another precision sets it for the whole process
        namespace["keras"].config.set_dtype_policy("float32")
    return namespace["model"]


@pytest.mark.parametrize(("block", "shape"), [*runs()])
def test_the_listing_builds_the_same_model(block, shape, backend):
    """Same parameters in, same numbers out, in training mode too."""
    node = bl.infer(block, shape)
    model = executed(bl.source(node, backend))
    params = bl.init(node, seed=3)
    bl.load_params(model, params, node=node)
    lowered = bl.lower(node, backend, params=params)
    x = Inputs.draw(node, 3, np.random.default_rng(0)).x
    same(bl.apply(model, x, node=node), bl.apply(lowered, x))
    found = bl.params_of(model, node=node)
    assert found.keys() == params.keys()
    for path, array in params.items():
        np.testing.assert_array_equal(found[path], array)


def same(got, wanted):
    for a, b in zip(leaves(got), leaves(wanted), strict=True):
        assert a.shape == b.shape
        assert relative(a, b)[0] < 1e-6


NET = bl.Sequential(
    bl.Conv(4, (3, 2), stride=2, padding="same"),
    bl.BatchNorm(),
    bl.LeakyReLU(0.1),
    bl.Residual(bl.Conv(4, (1, 1)), merge="concat"),
    bl.Parallel(bl.MaxPool((2, 2)), bl.AvgPool((2, 2), padding=((0, 0), (0, 0)))),
    bl.Flatten(),
    bl.Dense(48),
    *(bl.Shared("tied", bl.Sequential(bl.Dense(48), bl.GELU())),) * 2,
    bl.Dense(3),
)

AWKWARD = [
    "nn",
    "torch",
    "np",
    "jnp",
    "rngs",
    "partial",
    "Residual",
    "flatten",
    "model",
    "x",
    "inputs",
]


@pytest.mark.parametrize("name", AWKWARD)
def test_names_of_shared_blocks_do_not_shadow_what_a_listing_needs(name, backend):
    tied = bl.Shared(name, bl.Sequential(bl.Dense(4), bl.ReLU()))
    net = bl.Sequential(tied, bl.Residual(bl.Dense(4)), bl.Flatten(), tied)
    node = bl.infer(net, (4,))
    executed(bl.source(node, backend))
    assert bl.parity(node, backends=[backend], steps=0)


@pytest.mark.parametrize("name", ["add", "gelu", "stack", "pad", "input_layer", "block", "root"])
def test_children_may_have_the_names_of_operations(name, framework):
    fork = bl.Parallel(bl.Identity(), bl.Identity(), merge="stack")
    net = bl.Sequential(**{name: bl.Dense(4), "second": bl.GELU(approximate=True), "third": fork})
    node = bl.infer(net, (4,))
    executed(bl.source(node, framework))
    assert bl.parity(node, backends=[framework], steps=0)
    side = bl.Parallel(**{name: bl.Dense(3), "other": bl.Dense(2)})
    assert bl.parity(side, (4,), backends=[framework], steps=0)


RUNS = {
    "torch": "import torch; y = model.eval()(torch.zeros(2, 7, 9, 3)).shape",
    "keras": "import numpy; y = model(numpy.zeros((2, 7, 9, 3), 'float32')).shape",
    "flax": "import numpy; y = model(numpy.zeros((2, 7, 9, 3), 'float32')).shape",
    "numpy": "import numpy; y = model(numpy.zeros((2, 7, 9, 3))).shape",
}


def test_a_listing_runs_without_isoblocks(backend, tmp_path):
    """In a process of its own in which importing blocks or backends fails."""
    guard = "import sys; sys.modules['blocks'] = sys.modules['backends'] = None\n"
    listing = tmp_path / "listing.py"
    listing.write_text(guard + bl.source(NET, backend, input_shape=(7, 9, 3)))
    code = f"exec(open('listing.py').read()); {RUNS[backend]}; print(tuple(y))"
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": ""},
    )
    assert run.stdout.strip().endswith("(2, 3)"), run.stderr


TEXTBOOK = bl.Sequential(
    bl.Conv(8, (3, 3), padding="same"),
    bl.BatchNorm(),
    bl.ReLU(),
    bl.MaxPool((2, 2)),
    bl.Flatten(),
    bl.Dense(10),
)

LISTINGS = {
    "torch": """\
model = nn.Sequential(
    nn.Conv2d(3, 8, kernel_size=3, padding=1),
    BatchNorm2d(8),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Flatten(),
    nn.Linear(96, 10),
)
""",
    "keras": """\
import keras
from keras import layers

inputs = keras.Input((6, 8, 3))
x = layers.Conv2D(8, kernel_size=3, padding="same", name="0")(inputs)
x = layers.BatchNormalization(momentum=0.9, epsilon=1e-05, name="1")(x)
x = layers.ReLU(name="2")(x)
x = layers.MaxPooling2D(2, name="3")(x)
x = layers.Flatten(name="4")(x)
x = layers.Dense(10, name="5")(x)
model = keras.Model(inputs, x)
""",
    "flax": """\
from functools import partial

from flax import nnx

rngs = nnx.Rngs(0)


def flatten(x):
    \"\"\"All axes but the batch in one.\"\"\"
    return x.reshape(x.shape[0], -1)


model = nnx.Sequential(
    nnx.Conv(3, 8, kernel_size=(3, 3), padding="SAME", rngs=rngs),
    nnx.BatchNorm(8, momentum=0.9, use_fast_variance=False, rngs=rngs),
    nnx.relu,
    partial(nnx.max_pool, window_shape=(2, 2), strides=(2, 2)),
    flatten,
    nnx.Linear(96, 10, rngs=rngs),
)
""",
}


@pytest.mark.parametrize("framework", list(LISTINGS))
def test_the_textbook_listing(framework):
    """What a reader sees, to the letter."""
    layout = "channels_first" if framework == "torch" else "channels_last"
    shape = (3, 6, 8) if framework == "torch" else (6, 8, 3)
    text = bl.source(TEXTBOOK, need(framework), input_shape=shape, layout=layout)
    assert text.endswith(LISTINGS[framework]), text


def test_float64_listings_build_float64_models(backend):
    node = bl.infer(TEXTBOOK, (6, 8, 3), dtype="float64")
    text = bl.source(node, backend)
    model = executed(text)
    assert bl.params_of(model, node=node)["0/kernel"].dtype == np.float64
    if backend == "flax":
        import jax

        jax.config.update("jax_enable_x64", False)


def test_values_keep_tuples():
    assert map_value(lambda a: a + 1, (1, (2, 3))) == (2, (3, 4))


@pytest.mark.parametrize(
    ("backend", "channels", "line"),
    [
        ("keras", 4, "Cropping2D(((0, 1), (0, 1))"),
        ("torch", 4, "PaddedConv2d(4, 6, kernel_size=1, stride=2, pads=(0, -1, 0, -1))"),
        ("keras", 16, "Conv2D(6, kernel_size=1, strides=2, name"),
        ("torch", 16, "nn.Conv2d(16, 6, kernel_size=1, stride=2)"),
    ],
)
def test_cells_left_over_behind_single_ones_are_cut_off(backend, channels, line):
    """On few channels: the numbers are the same, but oneDNN's gradient would end the process."""
    need(backend)
    listing = bl.source(bl.Conv(6, (1, 1), stride=2), backend, input_shape=(10, 8, channels))
    assert line in listing
    assert ("Cropping" in listing or "Padded" in listing) is (channels < 16)

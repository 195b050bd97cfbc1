"""What comes out is native: each framework's own tools work on it."""

import copy
import os
import subprocess
import sys

import numpy as np
import pytest

import blocks as bl
from blocks._backends import find_backend
from blocks._parity import random_params, relative
from cases import CASES
from conftest import need

IMAGE = bl.Sequential(
    bl.Conv(8, (3, 3), padding=((1, 1), (1, 1))),
    bl.BatchNorm(),
    bl.ReLU(),
    bl.MaxPool((2, 2)),
    bl.Flatten(),
    bl.Dense(10),
)
FIRST, LAST = (3, 6, 8), (6, 8, 3)


# A decoder: among others what is no stock layer.
DECODER = bl.Sequential(
    bl.ConvTranspose(6, (3, 4), stride=2, padding="same"),
    bl.ReLU(),
    bl.ConvTranspose(4, (3, 2), stride=2, dilation=(1, 2), groups=2, padding=((0, 1), (2, 0))),
    bl.Dropout(0.2, whole_channels=True),
    bl.Upsample((2, 1), mode="linear"),
    bl.Upsample(size=(37, 41)),
    bl.AdaptiveAvgPool((7, 9)),
)


def decoder(layout: str, backend: str):
    shape = (4, 5, 6) if layout == "channels_first" else (5, 6, 4)
    node = bl.infer(DECODER, shape, layout=layout)
    x = np.random.default_rng(0).normal(size=(3, *shape)).astype("float32")
    return bl.lower(node, backend, params=random_params(node, 0)), x


def image(layout: str, backend: str, dtype: str = "float32"):
    shape = FIRST if layout == "channels_first" else LAST
    node = bl.infer(IMAGE, shape, layout=layout, dtype=dtype)
    model = bl.lower(node, backend, params=random_params(node, 0))
    x = np.random.default_rng(0).normal(size=(4, *shape)).astype(dtype)
    return node, model, x


def close(got, wanted, tolerance=1e-6):
    error, where = relative(np.asarray(got), np.asarray(wanted))
    assert error < tolerance, where


class TestTorch:
    @pytest.fixture(autouse=True)
    def torch(self):
        need("torch")
        import torch

        return torch

    def test_prints_like_the_hand_written_model(self, torch):
        from torch import nn

        _, model, _ = image("channels_first", "torch")
        by_hand = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(96, 10),
        )
        assert str(model) == str(by_hand)
        assert list(model.state_dict()) == list(by_hand.state_dict())

    def test_channels_first_is_stock_modules_only(self, torch):
        """BatchNorm is the stated exception: stock but for its running variance."""
        _, model, _ = image("channels_first", "torch")
        own = [m for m in model.modules() if not type(m).__module__.startswith("torch.nn")]
        assert [type(m).__name__ for m in own] == ["BatchNorm2d"]
        assert isinstance(own[0], torch.nn.BatchNorm2d)

    def test_channels_last_adds_two_permutes(self, torch):
        _, model, _ = image("channels_last", "torch")
        names = [type(m).__name__ for m in model]
        assert names.count("Permute") == 2
        assert next(iter(model.state_dict())) == "0.weight"

    @pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
    def test_compiles_without_graph_breaks(self, torch, layout):
        _, model, x = image(layout, "torch")
        wanted = bl.apply(model, x)
        compiled = torch.compile(model.eval(), fullgraph=True, backend="aot_eager")
        close(compiled(torch.from_numpy(x)).detach(), wanted)
        compiled = torch.compile(model.train(), fullgraph=True, backend="aot_eager")
        compiled(torch.from_numpy(x)).sum().backward()
        assert bl.params_of(compiled).keys() == bl.params_of(model).keys()

    @pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
    def test_exports(self, torch, layout):
        _, model, x = image(layout, "torch")
        program = torch.export.export(model.eval(), (torch.from_numpy(x),))
        close(program.module()(torch.from_numpy(x)).detach(), bl.apply(model, x))

    @pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
    def test_a_decoder_compiles_and_exports(self, torch, layout):
        model, x = decoder(layout, "torch")
        wanted, x = bl.apply(model, x), torch.from_numpy(x)
        compiled = torch.compile(model.eval(), fullgraph=True, backend="aot_eager")
        close(compiled(x).detach(), wanted)
        close(torch.export.export(model.eval(), (x,)).module()(x).detach(), wanted)
        torch.compile(model.train(), fullgraph=True, backend="aot_eager")(x).sum().backward()

    def test_a_copy_needs_its_node(self):
        node, model, x = image("channels_last", "torch")
        twin = copy.deepcopy(model)
        with pytest.raises(bl.BlockError, match="was not made by lower"):
            bl.params_of(twin)
        close(bl.apply(twin, x, node=node), bl.apply(model, x))

    def test_gradients_whatever_the_user_switched_off(self, torch):
        _, model, x = image("channels_first", "torch")
        wanted = bl.gradients(model, x, np.ones((4, 10)))
        model[5].requires_grad_(False)
        with torch.no_grad():
            found = bl.gradients(model, x, np.ones((4, 10)))
        assert not model[5].weight.requires_grad
        assert found.keys() == wanted.keys()
        assert all(np.array_equal(found[path], wanted[path]) for path in wanted)

    def test_a_node_that_is_given_wins(self):
        _, model, _ = image("channels_first", "torch")
        other = bl.infer(IMAGE, (3, 6, 8), layout="channels_first", dtype="float32")
        assert bl.params_of(model, node=other).keys() == bl.params_of(model).keys()

    def test_modes_are_left_as_they_were(self, torch):
        _, model, x = image("channels_first", "torch")
        model.train()
        model[1].eval()
        before = {k: v.clone() for k, v in model.state_dict().items()}
        bl.apply(model, x)
        assert [m.training for m in model] == [True, False, True, True, True, True]
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


class TestKeras:
    @pytest.fixture(autouse=True)
    def keras(self):
        need("keras")
        import keras

        return keras

    def test_is_a_functional_model_of_stock_layers(self, keras):
        _, model, _ = image("channels_last", "keras")
        assert type(model).__name__ == "Functional"
        assert [type(layer).__name__ for layer in model.layers] == [
            "InputLayer",
            "Conv2D",
            "BatchNormalization",
            "ReLU",
            "MaxPooling2D",
            "Flatten",
            "Dense",
        ]
        assert all(type(layer).__module__.startswith("keras.") for layer in model.layers)

    @pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
    def test_reloads_in_a_fresh_process_without_isoblocks(self, layout, tmp_path):
        _, model, x = image(layout, "keras")
        model.save(tmp_path / "model.keras")
        np.save(tmp_path / "x.npy", x)
        code = (
            "import sys; sys.modules['blocks'] = sys.modules['backends'] = None\n"
            "import keras, numpy as np\n"
            "model = keras.saving.load_model('model.keras')\n"
            "np.save('y.npy', np.asarray(model(np.load('x.npy'), training=False)))\n"
        )
        run = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": ""},
        )
        assert run.returncode == 0, run.stderr
        close(np.load(tmp_path / "y.npy"), bl.apply(model, x))

    def test_every_kind_of_layer_reloads(self, keras, tmp_path):
        """Also those that are functions: shrinks, padding for unequal pads, stacks."""
        net = bl.Sequential(
            bl.MaxPool((3, 2), padding=((0, 2), (1, 0))),
            bl.AvgPool((3, 2), stride=1, padding=((0, 2), (1, 0))),
            bl.Conv(4, (3, 2), stride=2, dilation=2, padding="same"),
            bl.GELU(approximate=True),
            bl.CELU(0.7),
            bl.SoftShrink(0.1),
            bl.HardShrink(0.1),
            bl.Parallel(bl.Identity(), bl.Tanh(), merge="stack", axis=-1),
        )
        model = bl.lower(net, "keras", input_shape=(13, 10, 3))
        x = np.random.default_rng(0).normal(size=(2, 13, 10, 3)).astype("float32")
        model.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras")
        close(keras.ops.convert_to_numpy(again(x)), bl.apply(model, x))

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_a_decoder_reloads(self, keras, tmp_path, dtype):
        """In float64 it interpolates by weights, which are saved too."""
        net = bl.Sequential(DECODER, bl.Upsample(size=(5, 11), mode="linear"))
        model = bl.lower(net, "keras", input_shape=(5, 6, 4), dtype=dtype)
        x = np.random.default_rng(0).normal(size=(2, 5, 6, 4)).astype(dtype)
        model.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras")
        y = keras.ops.convert_to_numpy(again(x))
        assert y.dtype == dtype
        close(y, bl.apply(model, x), 1e-12 if dtype == "float64" else 1e-6)

    def test_global_settings_are_left_alone(self, keras):
        before = keras.config.floatx(), keras.config.dtype_policy().name
        _, model, x = image("channels_last", "keras", "float64")
        bl.apply(model, x)
        bl.fit(model, (x, np.array([0, 1, 2, 3])), epochs=1)
        assert (keras.config.floatx(), keras.config.dtype_policy().name) == before


class TestFlax:
    @pytest.fixture(autouse=True)
    def nnx(self):
        need("flax")
        from flax import nnx

        return nnx

    def test_is_stock_layers_only(self, nnx):
        _, model, _ = image("channels_last", "flax")
        assert type(model) is nnx.Sequential
        modules = [m for m in model.layers if isinstance(m, nnx.Module)]
        assert [type(m) for m in modules] == [nnx.Conv, nnx.BatchNorm, nnx.Linear]

    def test_jit_grad_split_merge_and_vmap(self, nnx):
        import jax

        node, model, x = image("channels_last", "flax")
        wanted = bl.apply(model, x)
        model.eval()
        close(nnx.jit(lambda m, x: m(x))(model, x), wanted)

        grads = nnx.grad(lambda m: m(x).sum())(model)
        right = bl.gradients(model, x, np.ones_like(wanted))
        close(grads["layers"][5]["kernel"].get_value(), right["5/kernel"], 1e-5)

        graph, state = nnx.split(model)
        merged = nnx.merge(graph, state)
        close(merged(x), wanted)
        close(bl.apply(merged, x, node=node), wanted)

        one_by_one = jax.vmap(lambda row: merged(row[None])[0])(x)
        close(one_by_one, wanted)

    def test_jit_grad_split_merge_and_vmap_of_a_decoder(self, nnx):
        import jax

        model, x = decoder("channels_last", "flax")
        wanted = bl.apply(model, x)
        model.eval()
        close(nnx.jit(lambda m, x: m(x))(model, x), wanted)
        grads = nnx.grad(lambda m: m(x).sum())(model)
        right = bl.gradients(model, x, np.ones_like(wanted))
        bias = grads["layers"][0]["bias"].get_value()
        close(bias, right["0/bias"], 1e-5)
        merged = nnx.merge(*nnx.split(model))
        close(jax.vmap(lambda row: merged(row[None])[0])(x), wanted)

    def test_float64_does_not_switch_jax_over(self):
        import jax
        import jax.numpy as jnp

        _, model, x = image("channels_last", "flax", "float64")
        assert bl.apply(model, x).dtype == np.float64
        assert jnp.ones(1).dtype == np.float32
        assert not jax.config.jax_enable_x64

    def test_apply_leaves_the_mode(self):
        _, model, x = image("channels_last", "flax")
        model.train()
        bl.apply(model, x)
        assert model.layers[1].use_running_average is False


def test_running_statistics_move_the_same_way(framework):
    """Three steps in training mode; torch alone would keep the unbiased variance."""
    node, model, x = image("channels_last", framework, "float64")
    reference = bl.lower(node, "numpy", params=bl.params_of(model))
    for _ in range(3):
        close(bl.apply(model, x, training=True), bl.apply(reference, x, training=True), 1e-11)
    got, wanted = bl.params_of(model), bl.params_of(reference)
    for name in ("1/mean", "1/var"):
        close(got[name], wanted[name], 1e-12)
        assert not np.allclose(wanted[name], random_params(node, 0)[name])


def test_a_single_value_per_channel_has_variance_zero(framework):
    """As the last batch of an epoch may be; torch alone would refuse it."""
    node = bl.infer(bl.BatchNorm(), (4,), dtype="float64")
    params = random_params(node, 0)
    x = np.random.default_rng(0).normal(size=(1, 4))
    models = [bl.lower(node, name, params=params) for name in (framework, "numpy")]
    got, wanted = (bl.apply(model, x, training=True) for model in models)
    close(got, wanted, 1e-12)
    got, wanted = (bl.params_of(model) for model in models)
    close(got["var"], wanted["var"], 1e-12)
    close(wanted["var"], 0.9 * params["var"].astype("float64"), 1e-12)


def test_flatten_after_conv_needs_no_transposed_weights(framework):
    """The same kernel of the last Dense, in both layouts, on every backend."""
    for layout in ("channels_last", "channels_first"):
        node, model, x = image(layout, framework, "float64")
        params = bl.params_of(model)
        by_hand = bl.lower(node, "numpy", params=params)
        close(bl.apply(model, x), bl.apply(by_hand, x), 1e-12)


def test_the_users_arrays_are_not_touched(backend):
    node, _, x = image("channels_last", backend)
    params = random_params(node, 0)
    before = {path: array.copy() for path, array in params.items()}
    data = x.copy()
    model = bl.lower(node, backend, params=params)
    bl.fit(model, (x, np.array([0, 1, 2, 3])), optimizer=bl.SGD(0.1), epochs=2)
    bl.apply(model, x, training=True)
    for same in (bl.Identity(), bl.Permute((1, 0, 2)), bl.Dropout(0.5)):
        y = bl.apply(bl.lower(same, backend, input_shape=LAST), x)
        y += 1
    assert all(np.array_equal(params[path], before[path]) for path in params)
    assert np.array_equal(x, data)


def test_parameters_travel_through_every_backend():
    """numpy -> torch -> keras -> flax -> numpy, bit by bit."""
    node = bl.infer(IMAGE, LAST)
    params = first = random_params(node, 0)
    for backend in ("torch", "keras", "flax", "numpy"):
        params = bl.params_of(bl.lower(node, need(backend), params=params))
    assert params.keys() == first.keys()
    assert all(np.array_equal(params[path], first[path]) for path in first)


VARIANTS = [(c.name, variant, block, c.shape) for c in CASES for variant, block in c.variants()]


@pytest.mark.parametrize(("name", "variant", "block", "shape"), VARIANTS)
def test_native_first_parameters_have_dtype_and_shape_of_ours(
    name, variant, block, shape, framework
):
    """Before ours are written over them; nnx keeps running statistics in float32 by itself."""
    node = bl.infer(block, shape, dtype="float64")
    adapter = find_backend(framework)
    try:
        program = adapter.program(node)
    except bl.UnsupportedError:
        return
    find = adapter.finder(adapter.build(program, 0))
    for binding in program.bindings:
        array = adapter.read(find(binding))
        written = binding.to_native(np.zeros(binding.spec.shape))
        assert binding.mine(array).shape == written.shape, binding.path
        assert array.dtype == np.float64 or not binding.spec.trainable, binding.path


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_keras_layers_are_named_by_path(case):
    """Those without parameters too."""
    need("keras")
    from backends.keras._common import layer_name

    node = bl.infer(case.base, case.shape)
    paths = tuple(layer_name(n.home) for n in node.walk())
    for layer in bl.lower(node, "keras").layers:
        kind = type(layer).__module__
        if kind.startswith("keras.src.layers") and not kind.endswith("input_layer"):
            assert layer.name.startswith(paths), layer.name

"""Recurrent blocks: the definition is right, any length runs, and what comes out is native."""

import copy
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import blocks as bl
from blocks._parity import random_params, relative
from conftest import need

BLOCKS = [bl.SimpleRNN(5), bl.SimpleRNN(5, activation="relu"), bl.LSTM(5), bl.GRU(5)]
FORMS = [
    replace(block, return_sequences=sequences, bidirectional=both)
    for block in BLOCKS
    for sequences in (False, True)
    for both in (False, True)
]
FEW = [
    bl.SimpleRNN(5, bidirectional=True),
    bl.SimpleRNN(5, activation="relu", return_sequences=True),
    bl.LSTM(5, bidirectional=True, use_bias=False),
    bl.LSTM(5, return_sequences=True),
    bl.GRU(5),
    bl.GRU(5, bidirectional=True, return_sequences=True),
]
forms = pytest.mark.parametrize("block", FORMS, ids=str)
few = pytest.mark.parametrize("block", FEW, ids=str)
STACK = bl.Sequential(
    bl.LSTM(5, return_sequences=True, bidirectional=True),
    bl.GRU(4, return_sequences=True, bidirectional=True),
    bl.SimpleRNN(3),
    bl.Dense(2),
)


def made(block, backend, shape=(None, 3), dtype="float64"):
    node = bl.infer(block, shape, dtype=dtype)
    return node, bl.lower(node, backend, params=random_params(node, 0))


def batch(*shape, dtype="float64"):
    return np.random.default_rng(1).normal(size=shape).astype(dtype)


def close(got, wanted, tolerance=1e-12):
    error, where = relative(np.asarray(got), np.asarray(wanted))
    assert error < tolerance, where


# The definition


@forms
def test_the_definition_is_torchs_with_the_second_bias_zero(block):
    need("torch")
    import torch
    from torch import nn

    _, model = made(block, "numpy")
    options = {"batch_first": True, "bidirectional": block.bidirectional, "dtype": torch.float64}
    if isinstance(block, bl.SimpleRNN):
        stock = nn.RNN(3, 5, nonlinearity=block.activation, **options)
    else:
        stock = getattr(nn, type(block).__name__)(3, 5, **options)
    params = bl.params_of(model)
    names = {"kernel": "weight_ih", "recurrent_kernel": "weight_hh", "bias": "bias_ih"}
    state = {name: torch.zeros_like(value) for name, value in stock.state_dict().items()}
    for name, array in params.items():
        forward = name.removeprefix("backward_")
        suffix = "_l0" if forward == name else "_l0_reverse"
        state[names[forward] + suffix] = torch.from_numpy(array.astype("float64").T)
    stock.load_state_dict(state)
    x = batch(2, 6, 3)
    outputs, last = stock(torch.from_numpy(x))
    if not block.return_sequences:
        hidden = last[0] if isinstance(block, bl.LSTM) else last
        outputs = hidden.transpose(0, 1).flatten(1)
    close(bl.apply(model, x), outputs.detach())


@forms
def test_the_definitions_gradients_are_finite_differences(block):
    node, model = made(block, "numpy")
    params = {path: a.astype("float64") for path, a in bl.params_of(model).items()}
    x = batch(2, 6, 3)
    cotangent = np.random.default_rng(2).normal(size=bl.apply(model, x).shape)
    arrays = params | {"input": x}
    found = bl.gradients(model, x, cotangent.astype("float64"))

    def value(name, array):
        changed = arrays | {name: array}
        inputs = changed.pop("input")
        return (bl.apply(bl.lower(node, "numpy", params=changed), inputs) * cotangent).sum()

    for name, array in arrays.items():
        direction = np.random.default_rng(3).normal(size=array.shape)
        step = 1e-6 * direction
        slope = (value(name, array + step) - value(name, array - step)) / 2e-6
        np.testing.assert_allclose(slope, (found[name] * direction).sum(), rtol=1e-6, atol=1e-8)


def test_every_gate_is_drawn_on_its_own():
    recurrent = bl.init(bl.infer(bl.LSTM(5), (7, 3)))["recurrent_kernel"].astype("float64")
    for gate in np.split(recurrent, 4, -1):
        np.testing.assert_allclose(gate.T @ gate, np.eye(5), atol=1e-6)


# Any length


@few
def test_any_length_runs(block, framework):
    """One model, two lengths, one of them a single step."""
    node, model = made(block, framework)
    reference = bl.lower(node, "numpy", params=bl.params_of(model))
    for time in (1, 6, 9):
        x = batch(2, time, 3)
        y = bl.apply(reference, x)
        close(bl.apply(model, x), y)
        got, wanted = bl.gradients(model, x, y), bl.gradients(reference, x, y)
        for path, array in wanted.items():
            close(got[path], array, 1e-11)


def test_a_stack_of_any_length_trains(backend):
    _, model = made(STACK, backend)
    x, y = batch(4, 6, 3), batch(4, 2)
    losses = bl.fit(model, (x, y), loss="mse", epochs=3, batch_size=4, seed=0).losses
    _, reference = made(STACK, "numpy")
    wanted = bl.fit(reference, (x, y), loss="mse", epochs=3, batch_size=4, seed=0).losses
    np.testing.assert_allclose(losses, wanted, rtol=1e-10)
    close(bl.apply(model, x[:, :4]), bl.apply(reference, x[:, :4]), 1e-10)


def test_a_shared_layer_runs_twice(backend):
    tied = bl.Shared("tied", bl.GRU(3, return_sequences=True))
    assert bl.parity(bl.Sequential(tied, bl.Tanh(), tied), (4, 3), backends=[backend], steps=2)


@few
@pytest.mark.parametrize("dtypes", [("bfloat16", "bfloat16"), ("bfloat16", "float32")], ids=str)
def test_sixteen_bits(block, dtypes, framework):
    """Keras and Flax would draw an orthogonal matrix, and have no QR decomposition for it."""
    node = bl.infer(block, (6, 3), dtype=dtypes[0], param_dtype=dtypes[1])
    params = random_params(node, 0)
    model = bl.lower(node, framework, params=params)
    reference = bl.lower(bl.infer(block, (6, 3), dtype="float64"), "numpy", params=params)
    y = bl.apply(model, batch(2, 6, 3))
    assert str(y.dtype) == "bfloat16"
    close(y.astype("float64"), bl.apply(reference, batch(2, 6, 3)), 0.04)


# Steps of Adam: as many numbers, so as large a step, on every backend


@forms
def test_one_bias_and_no_more(block, backend):
    from blocks._backends import find_backend

    node, model = made(block, backend)
    assert find_backend(backend).sizes(model) == (bl.count(node), 0)


def test_a_step_of_adam_is_the_same():
    """Also in Keras, whose GRU holds our kernel and our bias in one."""
    for name in ("torch", "keras", "flax"):
        need(name)
    import keras
    import optax
    import torch
    from flax import nnx

    rate, epsilon = 0.01, 1e-4
    x = batch(4, 6, 3, dtype="float32")
    models = {name: made(STACK, name, dtype="float32")[1] for name in ("torch", "keras", "flax")}
    before = bl.params_of(models["torch"])

    native = torch.optim.Adam(models["torch"].parameters(), lr=rate, eps=epsilon)
    (models["torch"](torch.from_numpy(x)) ** 2).mean().backward()
    native.step()

    native = nnx.Optimizer(models["flax"], optax.adam(rate, eps=epsilon), wrt=nnx.Param)
    grads = nnx.jit(nnx.grad(lambda model, x: (model(x) ** 2).mean()))(models["flax"], x)
    native.update(models["flax"], grads)

    # Keras adds its epsilon before it corrects the second moment, by 1 - 0.999 at the first step
    native = keras.optimizers.Adam(rate, epsilon=epsilon * (1 - 0.999) ** 0.5)
    models["keras"].compile(native, loss="mse")
    models["keras"].train_on_batch(x, np.zeros((4, 2), "float32"))

    after = {name: bl.params_of(model) for name, model in models.items()}
    for path, array in after["torch"].items():
        assert np.abs(array - before[path]).max() > rate / 2
        np.testing.assert_allclose(after["keras"][path], array, atol=rate / 1000)
        np.testing.assert_allclose(after["flax"][path], array, atol=rate / 1000)


# Native


class TestTorch:
    @pytest.fixture(autouse=True)
    def torch(self):
        need("torch")
        import torch

        return torch

    def test_is_a_stock_layer_without_the_second_bias(self, torch):
        _, model = made(bl.LSTM(5, bidirectional=True), "torch")
        assert isinstance(model, torch.nn.LSTM)
        stock = torch.nn.LSTM(3, 5, bidirectional=True)
        names = [n for n in stock.state_dict() if "bias_hh" not in n]
        assert list(model.state_dict()) == [n for n, _ in model.named_parameters()] == names

    @few
    def test_state_copies_and_dtypes(self, torch, block):
        _, model = made(block, "torch", dtype="float32")
        x = torch.from_numpy(batch(2, 6, 3))
        wanted = model.double()(x).detach()
        close(copy.deepcopy(model)(x).detach(), wanted)
        _, other = made(replace(block, kernel_init="ones"), "torch")
        other.load_state_dict(model.state_dict())
        close(other(x).detach(), wanted)
        assert model.to("meta")(x.to("meta")).shape == wanted.shape

    def test_trains_on_after_a_copy(self, torch):
        """A copy's weights are its own, not those of the original."""
        _, model = made(bl.GRU(5), "torch")
        twin = copy.deepcopy(model)
        before = bl.params_of(model)
        twin(torch.from_numpy(batch(2, 6, 3))).sum().backward()
        torch.optim.SGD(twin.parameters(), lr=0.1).step()
        after = bl.params_of(model)
        assert all(np.array_equal(before[path], after[path]) for path in before)
        assert not torch.equal(twin.weight_ih_l0, model.weight_ih_l0)

    @few
    def test_compiles_where_stock_layers_do(self, torch, block):
        """With a break before each layer, as dynamo treats torch's own; in one graph if allowed."""
        _, model = made(block, "torch")
        x = torch.from_numpy(batch(2, 6, 3))
        wanted = model(x).detach()
        torch.compile(model, backend="aot_eager")(x).sum().backward()
        with torch._dynamo.config.patch(allow_rnn=True), torch.no_grad():
            torch.compiler.reset()
            close(torch.compile(model, fullgraph=True, backend="aot_eager")(x), wanted)

    @few
    @pytest.mark.filterwarnings("ignore:The tensor attributes:UserWarning")  # of stock layers too
    def test_exports(self, torch, block):
        _, model = made(block, "torch")
        x = torch.from_numpy(batch(2, 6, 3))
        program = torch.export.export(model, (x,))
        close(program.module()(x).detach(), model(x).detach())


class TestKeras:
    @pytest.fixture(autouse=True)
    def keras(self):
        need("keras")
        import keras

        return keras

    def test_reloads_in_a_fresh_process_without_isoblocks(self, tmp_path):
        _, model = made(STACK, "keras", dtype="float32")
        model.save(tmp_path / "model.keras")
        x = batch(2, 6, 3, dtype="float32")
        np.save(tmp_path / "x.npy", x)
        code = (
            "import sys; sys.modules['blocks'] = sys.modules['backends'] = None\n"
            "import keras, numpy as np\n"
            "model = keras.saving.load_model('model.keras')\n"
            "np.save('y.npy', np.asarray(model(np.load('x.npy'))))\n"
        )
        run = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": ""},
        )
        assert run.returncode == 0, run.stderr
        close(np.load(tmp_path / "y.npy"), bl.apply(model, x), 1e-6)

    def test_every_form_reloads(self, keras, tmp_path):
        for block in FORMS:
            node, model = made(block, "keras")
            model.save(tmp_path / "model.keras")
            again = keras.saving.load_model(tmp_path / "model.keras")
            x = batch(2, 6, 3)
            close(bl.apply(again, x, node=node), bl.apply(model, x))

    def test_is_stock_layers_only(self):
        _, model = made(STACK, "keras")
        assert all(type(layer).__module__.startswith("keras.") for layer in model.layers)


class TestFlax:
    @pytest.fixture(autouse=True)
    def nnx(self):
        need("flax")
        from flax import nnx

        return nnx

    @few
    def test_jit_grad_split_merge_and_vmap(self, nnx, block):
        import jax

        node, model = made(block, "flax", dtype="float32")
        x = batch(4, 6, 3, dtype="float32")
        wanted = bl.apply(model, x)
        close(model(x), wanted, 1e-6)
        close(nnx.jit(lambda m, x: m(x))(model, x), wanted, 1e-6)
        graph, state = nnx.split(model)
        merged = nnx.merge(graph, state)
        close(merged(x), wanted, 1e-6)
        close(jax.vmap(lambda row: merged(row[None])[0])(x), wanted, 1e-6)
        close(jax.jit(merged)(x), wanted, 1e-6)
        right = bl.gradients(model, x, np.ones_like(wanted))

        @jax.jit
        def loss(state):
            return nnx.merge(graph, state)(x).sum()

        grads = nnx.merge(graph, jax.grad(loss)(state))
        found = bl.params_of(grads, node=node)
        for path, array in found.items():
            close(array, right[path], 1e-5)

    @few
    def test_a_call_changes_no_state(self, nnx, block):
        """No counter of random numbers moves: all that is kept is parameters."""
        _, model = made(block, "flax", dtype="float32")
        assert not nnx.state(model, nnx.Not(nnx.Param))

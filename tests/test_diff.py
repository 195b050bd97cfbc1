"""What every block returns, and where two models part."""

from __future__ import annotations

import numpy as np
import pytest

import blocks as bl
from blocks._backends import find_backend
from blocks._block import Combinator
from blocks._errors import UnsupportedError
from blocks._parity import Inputs, random_params
from blocks._spec import leaves
from cases import CASES


def shown(node):
    """The paths that `activations` promises."""
    forms = {n.path: n.form for n in node.walk()}
    return {
        path
        for path, form in forms.items()
        if not isinstance(form, Combinator) or form.flow == "fork"
    }


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_every_block_of_the_table_shows_the_same(case, framework):
    """Spatial ones in the layout that is not the framework's own."""
    last = framework == "torch" or not case.spatial
    shape = case.shape if last else (case.shape[-1], *case.shape[:-1])
    layout = "channels_last" if last else "channels_first"
    node = bl.infer(case.base, shape, layout=layout, dtype="float64")
    params = random_params(node, 3)
    x = Inputs.draw(node, 3, np.random.default_rng(1)).x
    reference = bl.activations(bl.lower(node, "numpy", params=params), x)
    assert reference.keys() == shown(node)
    try:
        model = bl.lower(node, framework, params=params)
    except UnsupportedError:
        return
    found = bl.activations(model, x)
    assert found.keys() == reference.keys()
    limits = find_backend(framework).rules.precision(node)
    share = max((limit.error for limit in limits), default=1e-12)
    for path, wanted in reference.items():
        for y, right in zip(leaves(found[path]), leaves(wanted), strict=True):
            assert (y.shape, y.dtype) == (right.shape, right.dtype), path
            np.testing.assert_allclose(y, right, rtol=0, atol=share * (abs(right).max() or 1))


def encoder():
    return bl.Sequential(
        bl.Conv(6, (3, 2), padding="same"),
        bl.BatchNorm(),
        bl.ReLU(),
        bl.Residual(bl.Sequential(bl.Conv(6, (1, 1)), bl.Tanh())),
        bl.Repeat(bl.Sequential(bl.Conv(6, (3, 3), padding="same"), bl.ReLU()), 3),
        bl.Flatten(),
        bl.Dense(4),
    )


def lowered(backend, dtype="float64"):
    node = bl.infer(encoder(), (5, 4, 2), dtype=dtype)
    return bl.lower(node, backend, params=random_params(node, 1))


X = np.random.default_rng(0).normal(size=(3, 5, 4, 2))


def test_equal_models_agree_block_by_block(framework):
    found = bl.diff(lowered("numpy"), lowered(framework), X)
    assert found
    assert found.matched == "names"
    assert not found.only_a
    assert not found.only_b
    assert [pair.a for pair in found.pairs if pair.a.startswith(("3", "4/1"))] == [
        "3/body/0",
        "3/body/1",
        "3",
        "4/1/0",
        "4/1/1",
    ]
    assert "All agree within 1e-12" in str(found)


def test_the_first_block_that_differs_is_found(backend):
    """Also inside a Repeat, which Flax runs as a scan; and by how much, and where."""
    right, wrong = lowered("numpy"), lowered(backend)
    params = bl.params_of(wrong)
    params["4/1/0/kernel"][0, 1, 2, 3] += 0.1
    bl.load_params(wrong, params)
    found = bl.diff(right, wrong, X)
    assert not found
    assert found.first.a == found.first.b == "4/1/0"
    assert found.first.kind == "Conv"
    assert found.first.shape == "(3, 5, 4, 6)"
    a, b = (bl.activations(model, X)["4/1/0"] for model in (right, wrong))
    np.testing.assert_allclose(found.first.error, np.abs(a - b).max(), rtol=1e-9)
    np.testing.assert_allclose(found.first.relative, np.abs(a - b).max() / np.abs(a).max())
    at = tuple(map(int, found.first.where.strip("[]").split(",")))
    assert np.abs(a - b)[at] == np.abs(a - b).max()
    assert at[-1] == 3
    assert f"The first that differs is 4/1/0: {found.first.relative:.1e}" in str(found)


def test_what_was_done_to_the_native_model_is_seen():
    """Not the network is compared but the models, as they are now."""
    torch = pytest.importorskip("torch")
    model = lowered("torch")
    model.set_submodule("2", torch.nn.LeakyReLU(0.3))
    found = bl.diff(lowered("numpy"), model, X)
    assert found.first.a == "2"


def test_nan_is_a_difference(backend):
    model = lowered(backend)
    params = bl.params_of(model)
    params["6/bias"][1] = np.nan
    bl.load_params(model, params)
    found = bl.diff(lowered("numpy"), model, X)
    assert found.first.a == "6"
    assert found.first.relative == np.inf


def test_nothing_changes_a_model_that_is_looked_at(backend):
    model = lowered(backend)
    before, y = bl.params_of(model), bl.apply(model, X)
    bl.activations(model, X)
    assert all(np.array_equal(before[path], array) for path, array in bl.params_of(model).items())
    assert np.array_equal(bl.apply(model, X), y)


def torch_by_hand(params):
    """The same network as most people write it: its own names, functions, channels first."""
    torch = pytest.importorskip("torch")
    from torch import nn

    class Body(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(6, 6, 1)

        def forward(self, x):
            return x + torch.tanh(self.conv(x))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(2, 6, (3, 2), padding="same")
            self.norm = nn.BatchNorm2d(6, eps=1e-5)
            self.act = nn.ReLU(inplace=True)
            self.body = Body()
            self.tail = nn.ModuleList(nn.Conv2d(6, 6, 3, padding=1) for _ in range(3))
            self.head = nn.Linear(120, 4)

        def forward(self, x):
            x = self.body(self.act(self.norm(self.stem(x))))
            for conv in self.tail:
                x = torch.relu(conv(x))
            return self.head(x.permute(0, 2, 3, 1).flatten(1))

    net = Net().double()
    tensors = {name: torch.from_numpy(array.copy()) for name, array in params.items()}
    convs = {"stem": "0", "body.conv": "3/body/0"} | {f"tail.{i}": f"4/{i}/0" for i in range(3)}
    state = net.state_dict()
    for name, path in convs.items():
        state[f"{name}.weight"] = tensors[f"{path}/kernel"].permute(3, 2, 0, 1)
        state[f"{name}.bias"] = tensors[f"{path}/bias"]
    for name, key in {"weight": "scale", "bias": "bias", "running_mean": "mean"}.items():
        state[f"norm.{name}"] = tensors[f"1/{key}"]
    state["norm.running_var"] = tensors["1/var"]
    state["head.weight"], state["head.bias"] = tensors["6/kernel"].T, tensors["6/bias"]
    net.load_state_dict(state)
    return net


def test_a_module_written_by_hand_is_matched_in_order():
    reference = lowered("numpy")
    net = torch_by_hand(bl.params_of(reference))
    found = bl.diff(reference, net, X, x_b=np.moveaxis(X, -1, 1))
    assert found
    assert found.matched == "order"
    pairs = {pair.a: pair.b for pair in found.pairs}
    assert pairs == {
        "0": "stem",
        "1": "norm",
        "2": "act",
        "3/body/0": "body/conv",
        **{f"4/{i}/0": f"tail/{i}" for i in range(3)},
        "6": "head",
    }
    assert "3/body/1" in found.only_a
    assert not found.only_b
    net.tail[1].padding_mode = "circular"
    net.tail[1]._reversed_padding_repeated_twice = [1, 1, 1, 1]
    assert bl.diff(reference, net, X, x_b=np.moveaxis(X, -1, 1)).first.b == "tail/1"


def test_a_keras_model_written_by_hand():
    keras = pytest.importorskip("keras")
    from keras import layers

    node = bl.infer(bl.MLP(3, hidden=(8, 5)), (6,))
    ours = bl.lower(node, "numpy", seed=2)
    params = bl.params_of(ours)
    net = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(8, activation="relu"),
            layers.Dense(5),
            layers.ReLU(),
            layers.Dense(3),
        ]
    )
    net.set_weights([params[f"{i}/{name}"] for i in (0, 2, 4) for name in ("kernel", "bias")])
    x = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")
    found = bl.diff(net, ours, x)
    assert [(pair.kind, pair.b) for pair in found.pairs][1:] == [
        ("Dense", "2"),
        ("ReLU", "3"),
        ("Dense", "4"),
    ]
    assert all(found.pairs[i].relative < 2e-6 for i in (1, 2, 3))


def test_a_flax_module_written_by_hand():
    nnx = pytest.importorskip("flax.nnx")
    node = bl.infer(bl.MLP(3, hidden=(8,)), (6,))
    ours = bl.lower(node, "numpy", seed=2)
    params = bl.params_of(ours)

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.first = nnx.Linear(6, 8, rngs=rngs)
            self.rest = nnx.Sequential(nnx.relu, nnx.Linear(8, 3, rngs=rngs))

        def __call__(self, x):
            return self.rest(self.first(x))

    net = Net(nnx.Rngs(0))
    for layer, path in ((net.first, "0"), (net.rest.layers[1], "2")):
        layer.kernel.set_value(params[f"{path}/kernel"])
        layer.bias.set_value(params[f"{path}/bias"])
    x = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")
    found = bl.diff(ours, net, x)
    assert found
    assert [pair.b for pair in found.pairs] == ["first", "rest/layers/0", "rest/layers/1"]


@pytest.mark.parametrize("tolerance", ["a", -1, float("nan")])
def test_what_is_no_tolerance_is_refused(tolerance):
    model = lowered("numpy")
    with pytest.raises(bl.FieldError, match="tolerance must be a number >= 0"):
        bl.diff(model, model, X, tolerance=tolerance)


def test_what_is_no_model_is_refused():
    with pytest.raises(bl.BlockError, match="diff takes models, got int"):
        bl.diff(lowered("numpy"), 3, X)
    pair = [bl.lower(b, "numpy", input_shape=(5, 4, 2)) for b in (bl.Tanh(), bl.Flatten())]
    with pytest.raises(bl.BlockError, match="nothing alike"):
        bl.diff(*pair, X)

"""What every block returns, and where two models part."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pytest

import blocks as bl
from blocks._activations import Seen
from blocks._backends import find_backend
from blocks._block import Combinator
from blocks._diff import Diff, judged
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
    *_, verdict = found.__rich_console__(None, None)
    assert verdict.startswith("[red]The first"), "it catches the eye"


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
    assert [(pair.kind, pair.b) for pair in found.pairs] == [
        ("Dense", "0"),
        ("relu", "1"),
        ("Dense", "2"),
        ("ReLU", "3"),
        ("Dense", "4"),
    ]
    assert found, "the activation in a layer is compared by itself"
    net.layers[0].activation = keras.activations.tanh
    assert bl.diff(net, ours, x).first.b == "1"


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


def test_flax_layers_that_hold_others():
    """Attention and recurrent layers are one block each, whatever flax makes them of."""
    nnx = pytest.importorskip("flax.nnx")

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.words = nnx.Embed(9, 8, rngs=rngs)
            self.attend = nnx.MultiHeadAttention(2, 8, decode=False, rngs=rngs)
            self.gru = nnx.RNN(nnx.GRUCell(8, 5, rngs=rngs))
            self.head = nnx.Linear(5, 3, rngs=rngs)

        def __call__(self, i, scale):
            return self.head(self.gru(self.attend(self.words(i)))[:, -1] * scale)

    i, scale = np.random.default_rng(0).integers(0, 9, (3, 6)), np.ones((3, 1))
    net = bl.Sequential(bl.Embedding(9, 8), bl.MultiHeadAttention(2), bl.GRU(5), bl.Dense(3))
    a, b = bl.lower(net, "numpy", input_shape=(6,)), Net(nnx.Rngs(0))
    found = bl.diff(b, b, (i, scale), x_b={"scale": scale, "i": i})
    assert found
    assert [p.a for p in found.pairs][:4] == ["words", "attend", "gru", "head"]
    found = bl.diff(a, b, i, x_b=(i, scale))
    assert [p.b for p in found.pairs] == ["words", "attend", "gru", "head"]


@pytest.mark.parametrize("tolerance", ["a", -1, float("nan")])
def test_what_is_no_tolerance_is_refused(tolerance):
    model = lowered("numpy")
    with pytest.raises(bl.FieldError, match="tolerance must be a number >= 0"):
        bl.diff(model, model, X, tolerance=tolerance)


def test_what_is_no_model_is_refused():
    with pytest.raises(bl.BlockError, match="diff takes models, got int"):
        bl.diff(lowered("numpy"), 3, X)
    pair = [bl.lower(b, "numpy", input_shape=(5, 4, 2)) for b in (bl.Tanh(), bl.Flatten())]
    with pytest.raises(bl.BlockError, match=r"nothing alike(.|\n)*b has the whole: Flatten"):
        bl.diff(*pair, X)


# What others write


def two_ways(hidden=4):
    """A network, and the same as someone wrote it: functions between layers, one layer twice."""
    torch = pytest.importorskip("torch")
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(2, hidden, 3, padding=1)
            self.conv = nn.Conv2d(hidden, hidden, 3, padding=1)
            self.head = nn.Linear(hidden, 3)

        def forward(self, x):
            x = torch.relu_(self.stem(x))
            x = torch.relu_(self.conv(torch.relu_(self.conv(x))))
            return self.head(x.mean((2, 3)))

    torch.manual_seed(0)
    theirs, same = Net(), {"padding": "same"}
    conv = bl.Shared("conv", bl.Conv(hidden, (3, 3), **same))
    blocks = [bl.Conv(hidden, (3, 3), **same), bl.ReLU(), conv, bl.ReLU(), conv, bl.ReLU()]
    net = bl.Sequential(*blocks, bl.GlobalAvgPool(), bl.Dense(3))
    node = bl.infer(net, (2, 6, 5), layout="channels_first")
    arrays = [p.detach() for p in theirs.parameters()]
    order = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}
    arrays = [a.permute(order[a.ndim]).numpy() for a in arrays]
    return bl.lower(node, "numpy", params=dict(zip(bl.init(node), arrays, strict=True))), theirs


IMAGES = np.random.default_rng(1).normal(size=(3, 2, 6, 5)).astype("float32")


def test_functions_between_layers_and_a_layer_that_is_used_twice():
    ours, theirs = two_ways()
    found = bl.diff(ours, theirs, IMAGES)
    assert found
    assert [(p.a, p.b) for p in found.pairs] == [
        ("0", "stem"),
        ("2", "conv"),
        ("4", "conv"),
        ("7", "head"),
    ]
    assert found.only_a == ("1", "3", "5", "6")


def test_a_block_of_another_shape_differs():
    """However alike the blocks after it are."""
    ours, theirs = two_ways()
    theirs.conv.padding = (0, 0)
    for found in (bl.diff(ours, theirs, IMAGES), bl.diff(two_ways()[1], theirs, IMAGES)):
        assert found.first.b == "conv"
        assert found.first.where == "(3, 4, 4, 3) in b"
        assert "it returns (3, 4, 6, 5), (3, 4, 4, 3) in b" in str(found)


def test_what_follows_the_last_block_is_seen():
    ours, theirs = two_ways()
    plain = theirs.forward
    theirs.forward = lambda x: plain(x).softmax(-1)
    found = bl.diff(ours, theirs, IMAGES)
    assert not found
    assert (found.first.a, found.first.b) == ("", "")
    assert "All blocks agree, but the whole models differ" in str(found)


def test_a_module_that_is_left_out_shifts_nothing():
    """Also where the first of several like blocks is left out, and where names are numbers."""
    torch = pytest.importorskip("torch")
    from torch import nn

    net = bl.Sequential(
        bl.Dense(6), bl.ReLU(), bl.Dropout(0.5), bl.Dense(6), bl.ReLU(), bl.Dense(6)
    )
    ours = bl.lower(net, "torch", input_shape=(6,))
    x = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")
    short = nn.Sequential(ours[0], ours[1], ours[3], ours[4], ours[5])
    found = bl.diff(ours, short, x)
    assert found
    assert [(p.a, p.b) for p in found.pairs] == [
        ("0", "0"),
        ("1", "1"),
        ("3", "2"),
        ("4", "3"),
        ("5", "4"),
    ]

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.act, self.c = ours[0], ours[3], ours[4], ours[5]

        def forward(self, x):
            return self.c(self.act(self.b(torch.relu(self.a(x)))))

    found = bl.diff(ours, Net(), x)
    assert found
    assert [(p.a, p.b) for p in found.pairs] == [("0", "a"), ("3", "b"), ("4", "act"), ("5", "c")]


@pytest.mark.parametrize("bidirectional", [False, True])
def test_layers_that_return_several_things(bidirectional):
    """torch's LSTM returns the sequence and two states, time first; attention returns None too."""
    torch = pytest.importorskip("torch")
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            size = 10 if bidirectional else 5
            self.words = nn.Embedding(9, 4)
            self.lstm = nn.LSTM(4, 5, bidirectional=bidirectional)
            self.attend = nn.MultiheadAttention(size, 1)
            self.last = nn.LSTM(size, 3, bidirectional=bidirectional)
            self.head = nn.Linear(6 if bidirectional else 3, 2)

        def forward(self, i):
            x = self.lstm(self.words(i).transpose(0, 1))[0]
            x = self.attend(x, x, x, need_weights=False)[0]
            _, (h, _) = self.last(x)
            return self.head(torch.cat(tuple(h), -1))

    theirs = Net()
    net = bl.Sequential(
        words=bl.Embedding(9, 4),
        lstm=bl.LSTM(5, bidirectional=bidirectional, return_sequences=True),
        attend=bl.MultiHeadAttention(1),
        last=bl.LSTM(3, bidirectional=bidirectional, return_sequences=False),
        head=bl.Dense(2),
    )
    node = bl.infer(net, (6,))
    ours = bl.lower(node, "numpy", params=bl.import_params(node, theirs))
    i = np.random.default_rng(0).integers(0, 9, (3, 6))
    found = bl.diff(ours, theirs, i)
    assert found, found
    assert [p.a for p in found.pairs] == ["words", "lstm", "attend", "last", "head"]
    with torch.no_grad():
        theirs.last.weight_hh_l0[[0, 1, 2, 3, 4, 5]] = theirs.last.weight_hh_l0[[3, 4, 5, 0, 1, 2]]
    assert bl.diff(ours, theirs, i).first.a == "last"


def test_rounding_that_adds_up_is_no_difference():
    """Over many blocks it may pass the tolerance of one; what a block adds by itself may not."""
    ones = np.ones(3)
    pairs = [(Seen(str(e), "", ones), Seen("", "", ones + e)) for e in (1.5e-6, 4e-6, 9e-6, 3e-5)]
    assert list(map(bool, judged(pairs, 2e-6, growing=True))) == [True, True, True, False]
    assert list(map(bool, judged(pairs, 2e-6, growing=False))) == [True, False, False, False]
    found = Diff(tuple(judged(pairs[:3], 2e-6, growing=True)), (), (), 2e-6, "order")
    assert "All agree: rounding adds up to 9.0e-06" in str(found)
    assert not bl.diff(lowered("numpy"), lowered("numpy"), X, tolerance=0).first


def test_an_array_stays_as_it_is():
    """Though the first thing that a module does with it is in place."""
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.ReLU(inplace=True), torch.nn.Linear(6, 3))
    x = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")
    kept = x.copy()
    assert bl.diff(net, net, x)
    assert np.array_equal(x, kept)


def test_several_inputs_by_position_and_by_name():
    torch = pytest.importorskip("torch")

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.l, self.r = torch.nn.Linear(4, 3), torch.nn.Linear(2, 3)

        def forward(self, left, right):
            return {"sum": self.l(left) + self.r(right), "none": None}

    class OfDict(Net):
        def forward(self, x):
            return super().forward(x["left"], x["right"])

    net, of_dict = Net(), OfDict()
    of_dict.load_state_dict(net.state_dict())
    left, right = (np.random.default_rng(n).normal(size=(5, n)) for n in (4, 2))
    batch = {"right": right, "left": left}
    assert bl.diff(net, net, (left, right), x_b=batch)
    found = bl.diff(net, of_dict, batch)
    assert found
    assert [(p.a, p.shape) for p in found.pairs] == [
        ("l", "(5, 3)"),
        ("r", "(5, 3)"),
        ("", "(5, 3)"),
    ]


def test_a_model_that_does_not_run_says_so():
    torch = pytest.importorskip("torch")
    ours, theirs = two_ways()
    theirs.train()
    with pytest.raises(bl.BlockError, match=r"Net cannot be run on \(3, 6, 5, 2\): (.|\n)*x_b"):
        bl.diff(theirs, ours, np.moveaxis(IMAGES, 1, -1))
    assert theirs.training
    assert not any(part._forward_hooks for part in theirs.modules())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.trace(theirs, torch.from_numpy(IMAGES))
    with pytest.raises(bl.UnsupportedError, match="ScriptModule"):
        bl.diff(ours, traced, IMAGES)


def test_what_came_before_a_model_stops_is_compared():
    """Such as an image that a wrong padding makes smaller than the Dense after it takes."""
    pytest.importorskip("torch")
    from torch import nn

    net = bl.Sequential(bl.Conv(4, (3, 3), padding="same"), bl.Tanh(), bl.Flatten(), bl.Dense(3))
    node = bl.infer(net, (2, 6, 5), layout="channels_first")
    model = bl.lower(node, "torch")
    ported = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(120, 3))
    ported[0].load_state_dict(model[0].state_dict())
    for found, side in (
        (bl.diff(model, ported, IMAGES), "b"),
        (bl.diff(ported, model, IMAGES), "a"),
    ):
        assert not found
        assert (found.first.a, found.first.kind[:4]) == ("0", "Conv")
        assert found.stopped.startswith(
            f"{side} stops: Sequential cannot be run on (3, 2, 6, 5): mat1"
        )
        assert found.stopped in str(found).replace("\n", " ")
    for part in (ported[0], ported[1]):
        assert not part._forward_hooks

    class Raising(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, x):
            self.inner(x)
            raise ValueError("no more")

    found = bl.diff(model, Raising(), IMAGES)
    assert found.first is None
    assert not found
    assert "All that both came to agree.\nb stops: Raising cannot be run" in str(found)


def decoder(length=3, causal=()):
    """Layers of a Transformer, and the same as someone writes them; some may look ahead."""
    torch = pytest.importorskip("torch")
    from torch import nn

    layer = bl.TransformerEncoderLayer(8, 2, 12, norm_first=True, causal=True)
    ours = bl.lower(bl.Repeat(layer, 3), "torch", input_shape=(6, 8), seed=1)

    class Attention(nn.Module):
        def __init__(self, causal):
            super().__init__()
            self.qkv, self.out, self.causal = nn.Linear(8, 24), nn.Linear(8, 8), causal

        def forward(self, x):
            q, k, v = (y.unflatten(-1, (2, 4)).transpose(1, 2) for y in self.qkv(x).chunk(3, -1))
            attend = nn.functional.scaled_dot_product_attention
            return self.out(attend(q, k, v, is_causal=self.causal).transpose(1, 2).flatten(2))

    class Layer(nn.Module):
        def __init__(self, causal):
            super().__init__()
            self.before, self.attention = nn.LayerNorm(8), Attention(causal)
            self.between, self.wide, self.narrow = (
                nn.LayerNorm(8),
                nn.Linear(8, 12),
                nn.Linear(12, 8),
            )

        def forward(self, x):
            x = x + self.attention(self.before(x))
            return x + self.narrow(torch.relu(self.wide(self.between(x))))

    theirs = nn.Sequential(*(Layer(i not in causal) for i in range(3)))
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    x = np.random.default_rng(0).normal(size=(3, 6, 8)).astype("float32")
    return ours, theirs[:length], x


@pytest.mark.parametrize("layer", range(3))
def test_a_wrong_block_that_is_several_modules_in_the_other_model(layer):
    ours, theirs, x = decoder(causal=(layer,))
    found = bl.diff(ours, theirs, x)
    assert (found.first.a, found.first.b) == (f"{layer}/0/body/1", f"{layer}/attention/out")
    assert bl.diff(*decoder())


@pytest.mark.parametrize("length", [1, 2])
def test_layers_that_are_left_out_at_the_end_shift_nothing(length):
    ours, theirs, x = decoder(length)
    found = bl.diff(ours, theirs, x)
    assert all(pair.a[0] == pair.b[0] for pair in found.pairs[:-1])
    assert {name[0] for name in found.only_a} >= set("012"[length:])
    assert (found.first.a, found.first.b) == ("", "")


def test_a_batch_that_tells_nothing_is_refused():
    model = lowered("numpy")
    with pytest.raises(bl.BlockError, match="nothing on an empty batch"):
        bl.diff(model, model, X[:0])
    with pytest.raises(bl.BlockError, match="a batch that holds NaN"):
        bl.diff(model, model, X * np.nan)
    with pytest.raises(bl.BlockError, match="a batch that holds NaN"):
        bl.diff(model, model, X, x_b=X * np.nan)


def test_infinite_numbers_that_are_equal_agree():
    """Such as scores that a mask leaves out."""
    torch = pytest.importorskip("torch")

    class Mask(torch.nn.Module):
        def forward(self, x):
            return torch.where(x > 0, x, -torch.inf)

    net = torch.nn.Sequential(Mask(), torch.nn.Softmax(-1))
    x = abs(np.random.default_rng(0).normal(size=(3, 4)))
    x[1, 2] = -1
    assert bl.diff(net, net, x)


def test_the_listing_of_the_guide_runs():
    torch = pytest.importorskip("torch")
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(1, 8, 3, padding=1), nn.Linear(8, 10)

        def forward(self, x):
            return self.head(torch.relu(self.conv(x)).mean((2, 3)))

    guide = (Path(__file__).parent.parent / "docs" / "parity.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    x = np.random.default_rng(0).normal(size=(2, 1, 28, 28)).astype("float32")
    namespace = {"bl": bl, "Net": Net, "x": x}
    exec(code, namespace)
    assert namespace["found"]
    assert [pair.b for pair in namespace["found"].pairs] == ["conv", "head"]


class TestKeras:
    @pytest.fixture
    def layers(self):
        keras = pytest.importorskip("keras")
        return keras.layers

    def test_a_subclass_a_shared_layer_and_a_wrapper(self, layers):
        import keras

        class Net(keras.Model):
            def __init__(self):
                super().__init__()
                self.first = layers.Bidirectional(layers.LSTM(5, return_sequences=True))
                self.norm = layers.BatchNormalization(epsilon=1e-5)
                self.twice = [layers.Dense(10, activation="gelu")]
                self.drop = layers.Dropout(0.5)
                self.head = layers.Dense(3)

            def call(self, x):
                x = self.drop(self.twice[0](self.twice[0](self.norm(self.first(x)))))
                return self.head(keras.ops.mean(x, axis=1))

        theirs, x = Net(), np.random.default_rng(0).normal(size=(4, 6, 2)).astype("float32")
        theirs(x)
        state = [keras.ops.convert_to_numpy(w) for w in theirs.weights]
        dense = bl.Shared("dense", bl.Dense(10))
        net = bl.Sequential(
            bl.LSTM(5, bidirectional=True, return_sequences=True),
            *(bl.BatchNorm(), dense, bl.GELU(), dense, bl.GELU()),
            *(bl.Reduce("b t c -> b c", "mean"), bl.Dense(3)),
        )
        ours = bl.lower(net, "keras", input_shape=(6, 2))
        found = bl.diff(ours, theirs, x)
        assert [(p.a, p.b) for p in found.pairs][:6] == [
            ("0", "first"),
            ("1", "norm"),
            *((str(i), "twice/0") for i in (2, 3, 4, 5)),
        ]
        assert bl.diff(theirs, theirs, x)
        for before, after in zip(state, theirs.weights, strict=True):
            assert np.array_equal(before, keras.ops.convert_to_numpy(after))

    def test_after_an_error_nothing_is_left(self, layers):
        import keras

        class Net(keras.Model):
            def __init__(self):
                super().__init__()
                self.dense = layers.Dense(2, activation="relu")

            def call(self, x):
                self.dense(x)
                raise ValueError("no")

        net, call = Net(), layers.Layer.__call__
        with pytest.raises(bl.BlockError, match="Net cannot be run"):
            bl.diff(net, net, np.ones((2, 3)))
        assert layers.Layer.__call__ is call
        assert net.dense.activation is keras.activations.relu

    def test_inputs_by_name(self, layers):
        import keras

        a, b = keras.Input((4,), name="a"), keras.Input((2,), name="b")
        inner = keras.Sequential([layers.Dense(3), layers.Dense(2)], name="inner")
        y = layers.Concatenate(name="both")([inner(a), layers.Dense(3, name="b_only")(b)])
        net, x = keras.Model({"a": a, "b": b}, y), {"a": np.ones((5, 4)), "b": np.ones((5, 2))}
        found = bl.diff(net, net, x)
        assert found
        assert {"inner", "both", "b_only"} <= {pair.a for pair in found.pairs}
        assert sum(pair.a.startswith("inner/") for pair in found.pairs) == 2

    def test_a_clone_shows_its_blocks(self):
        keras = pytest.importorskip("keras")
        model = lowered("keras", "float32")
        clone = keras.models.clone_model(model)
        clone.set_weights(model.get_weights())
        node = bl.infer(encoder(), (5, 4, 2))
        found, wanted = bl.activations(clone, X, node=node), bl.activations(model, X)
        assert found.keys() == wanted.keys()
        assert all(np.allclose(found[path], wanted[path]) for path in wanted)

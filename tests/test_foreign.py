"""Weights that users of torch, Keras and Flax saved become parameters, as a whole or not at all."""

import json
import os
import pickle
import zipfile
from importlib import import_module

import numpy as np
import pytest

import blocks as bl
from blocks._backends import find_backend
from blocks._flattened import reorderings
from cases import CASES
from conftest import example, need

RESNET = example("17_import")
FIRST = {"layout": "channels_first"}


def randoms(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def outputs(node, params, x):
    return bl.apply(bl.lower(node, "numpy", params=params), x)


def close(found, wanted, error=1e-12):
    assert found.shape == wanted.shape
    assert abs(found - wanted).max() <= error * max(1, abs(wanted).max())


@pytest.fixture
def torch():
    need("torch")
    return import_module("torch")


@pytest.fixture
def trained(torch):
    """The ResNet-18 of the example with its outputs in float64."""
    model = RESNET.trained(RESNET.plain_torch()).double()
    x = randoms((2, *RESNET.IMAGE))
    with torch.no_grad():
        return model, x, model(torch.tensor(x)).numpy()


def drawn(torch, model):
    """All numbers random, in float64 and evaluation mode."""
    torch.manual_seed(1)
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif tensor.is_floating_point():
            tensor.normal_()
    return model.double().eval()


def through(torch, model, x):
    with torch.no_grad():
        return model(torch.tensor(x)).numpy()


# torch: a ResNet-18


def test_a_resnet_of_plain_torch_is_the_same_on_every_backend(trained, backend, tmp_path, torch):
    model, x, y = trained
    torch.save(model.state_dict(), tmp_path / "net.pth")
    node = bl.infer(RESNET.net, RESNET.IMAGE, dtype="float64", **FIRST)
    params = bl.import_params(node, tmp_path / "net.pth")
    close(bl.apply(bl.lower(node, backend, params=params), x), y, 1e-10)


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_a_resnet_in_channels_last(trained, ending, tmp_path, torch):
    model, x, y = trained
    path = tmp_path / f"net.{ending}"
    from safetensors.torch import save_file

    (torch.save if ending == "pth" else save_file)(model.state_dict(), path)
    net = bl.infer(RESNET.net, (*RESNET.IMAGE[1:], 3), dtype="float64")
    found = bl.match_weights(net, path)
    assert len(found.rows) == len(model.state_dict()) - len(found.ignored)
    assert len(found.ignored) == 20
    close(outputs(net, found.params(), x.transpose(0, 2, 3, 1)), y, 1e-12)


def test_the_mapping_can_be_reviewed(trained):
    node = bl.infer(RESNET.net, RESNET.IMAGE, **FIRST)
    found = bl.match_weights(node, trained[0])
    text = repr(found)
    assert "layer2.0.downsample.0.weight" in text
    assert "5/0/0/shortcut/0/kernel" in text
    assert "num_batches_tracked" in text
    data = json.loads(json.dumps(found.to_dict()))
    assert data["complete"]
    assert data["rows"][0] == {
        "name": "conv1.weight",
        "shape": [8, 3, 7, 7],
        "paths": ["0/kernel"],
        "shapes": [[7, 7, 3, 8]],
        "transform": "out_first",
    }


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (lambda w: w.pop("layer3.1.bn2.bias"), ["7/", "6/1/0/body/4/bias"]),
        (lambda w: w.update(extra=w["fc.bias"]), ["left over", "extra"]),
        (lambda w: w.update({"fc.weight": w["fc.weight"][:7]}), ["(7, 20)", "9/kernel"]),
        (lambda w: w.update({"layer1.0.conv1.weight": w["conv1.weight"]}), ["layer1.0.conv1"]),
    ],
)
def test_what_does_not_fit_is_refused_as_a_whole(trained, change, wrong):
    weights = dict(trained[0].state_dict())
    change(weights)
    node = bl.infer(RESNET.net, RESNET.IMAGE, **FIRST)
    found = bl.match_weights(node, weights)
    assert not found
    with pytest.raises(bl.ParamError) as caught:
        bl.import_params(node, weights)
    assert wrong[-1] in str(caught.value)
    assert len(found.rows) > 90  # all the rest is shown where it belongs


def test_every_leftover_is_reported(trained):
    net = bl.Sequential(*RESNET.net.blocks[:-2])
    found = bl.match_weights(bl.infer(net, RESNET.IMAGE, **FIRST), trained[0])
    assert list(found.left_over) == ["fc.weight", "fc.bias"]
    assert not found.missing
    small = dict(list(trained[0].state_dict().items())[:-2])
    found = bl.match_weights(bl.infer(RESNET.net, RESNET.IMAGE, **FIRST), small)
    assert list(found.missing) == ["9/kernel", "9/bias"]


def test_wrapped_checkpoints(trained, torch, tmp_path):
    model = trained[0]
    node = bl.infer(RESNET.net, RESNET.IMAGE, dtype="float64", **FIRST)
    wanted = bl.import_params(node, model)
    named = {f"module._orig_mod.{k}": v for k, v in model.state_dict().items()}
    moments = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": []}
    torch.save({"state_dict": named, "epoch": 3, "optimizer": moments}, tmp_path / "all.pt")
    found = bl.match_weights(node, tmp_path / "all.pt")
    assert "state_dict" in repr(found)
    assert "_orig_mod" in repr(found)
    for path, array in found.params().items():
        assert np.array_equal(array, wanted[path])
    two = {"model": model.state_dict(), "ema": model.state_dict()}
    with pytest.raises(bl.FileError, match=r"one dict.*\['ema'\], \['model'\]"):
        bl.import_params(node, two)
    loaded = torch.load(tmp_path / "all.pt", weights_only=True)
    assert all(np.array_equal(a, wanted[p]) for p, a in bl.import_params(node, loaded).items())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_files_of_16_bits(trained, torch, dtype, ending, tmp_path):
    from safetensors.torch import save_file

    model = trained[0].to(getattr(torch, dtype))
    path = tmp_path / f"net.{ending}"
    (torch.save if ending == "pth" else save_file)(model.state_dict(), path)
    node = bl.infer(RESNET.net, RESNET.IMAGE, **FIRST)
    params = bl.import_params(node, path)
    kernel = model.fc.weight.detach().float().numpy().T
    assert params["9/kernel"].dtype == np.float32
    assert np.array_equal(params["9/kernel"], kernel)


# torch: what is ambiguous


def two_ways(torch):
    model = torch.nn.Module()
    model.main, model.skip = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
    model.out = torch.nn.Linear(4, 2)
    net = bl.Sequential(bl.Residual(bl.Dense(4), bl.Dense(4)), bl.Dense(2))
    return model, bl.infer(net, (4,))


def test_two_possibilities_are_refused_with_both(torch):
    model, node = two_ways(torch)
    found = bl.match_weights(node, model)
    assert not found
    assert "0/shortcut: main or skip" in found.wrong[0]
    assert "rename={'main': '0/shortcut'}" in found.wrong[0]
    assert [row.name for row in found.rows] == ["out.weight", "out.bias"]


@pytest.mark.parametrize(
    "rename",
    [
        {"skip": "0/shortcut"},
        {"main": "0/body"},
        {"skip.weight": "0/shortcut/kernel", "skip.bias": "0/shortcut/bias"},
    ],
)
def test_what_is_stated_decides(torch, rename):
    model, node = two_ways(torch)
    params = bl.import_params(node, model, rename=rename)
    assert np.array_equal(params["0/shortcut/kernel"].T, model.skip.weight.detach())
    assert np.array_equal(params["0/body/bias"], model.main.bias.detach())


@pytest.mark.parametrize("name", ["[red]", "[/x]", "[bold]a", "layers[0]"])
def test_names_are_shown_as_they_are(torch, name):
    """Brackets are no styles."""
    given = {f"{name}.weight": torch.ones(2, 3), f"{name}.bias": torch.ones(2)}
    found = bl.match_weights(bl.infer(bl.Dense(2), (3,)), given)
    assert f"│ {name}.weight " in repr(found)


@pytest.mark.parametrize("rename", ["skip", ["skip"], 3])
def test_what_is_stated_is_a_dict(torch, rename):
    model, node = two_ways(torch)
    with pytest.raises(bl.FieldError, match="rename is a dict from foreign name to path, got"):
        bl.import_params(node, model, rename=rename)


def test_what_is_stated_has_names(torch):
    model, node = two_ways(torch)
    with pytest.raises(bl.ParamError, match="the weights have no 7"):
        bl.import_params(node, model, rename={7: "0/shortcut"})


@pytest.mark.parametrize("rename", [{"skipp": "0/shortcut"}, {"skip": "0/shortcuts"}])
def test_what_is_stated_must_exist(torch, rename):
    model, node = two_ways(torch)
    with pytest.raises(bl.ParamError, match="Did you mean"):
        bl.import_params(node, model, rename=rename)


def test_names_of_branches_decide(torch):
    nn = torch.nn
    model = nn.ModuleDict({"body": nn.Linear(4, 4), "shortcut": nn.Linear(4, 4)})
    node = bl.infer(bl.Residual(bl.Dense(4), bl.Dense(4)), (4,))
    params = bl.import_params(node, model)
    assert np.array_equal(params["body/kernel"].T, model["body"].weight.detach())


def test_files_without_an_order_need_numbers(torch, tmp_path):
    from safetensors.torch import save_file

    node = bl.infer(bl.Sequential(*[bl.Dense(4, use_bias=False)] * 12), (4,))
    weights = {f"fc{i}.weight": torch.randn(4, 4) for i in range(12)}
    save_file(weights, tmp_path / "net.safetensors")
    params = bl.import_params(node, tmp_path / "net.safetensors")
    for i in range(12):
        assert np.array_equal(params[f"{i}/kernel"].T, weights[f"fc{i}.weight"])
    letters = {f"{chr(97 + i)}.weight": torch.randn(4, 4) for i in range(12)}
    save_file(letters, tmp_path / "net.safetensors")
    assert not bl.match_weights(node, tmp_path / "net.safetensors")
    params = bl.import_params(node, letters)  # a dict has the order of the definitions
    assert np.array_equal(params["11/kernel"].T, letters["l.weight"])


@pytest.mark.parametrize("numbers", [(3, 2, 1), (2, 3, 1), (10, 2, 1)])
def test_numbers_against_the_order_of_definition_are_refused(torch, numbers):
    """Decoders count down, and are defined in the order of their use: nobody knows."""
    model = torch.nn.Module()
    for number in numbers:
        setattr(model, f"up{number}", torch.nn.Linear(4, 4))
    node = bl.infer(bl.Sequential(bl.Dense(4), bl.Tanh(), bl.Dense(4), bl.Dense(4)), (4,))
    found = bl.match_weights(node, model)
    assert not found
    assert "more than one mapping" in found.wrong[0]
    first, second, third = (f"up{number}" for number in numbers)
    stated = bl.import_params(node, model, rename={first: "0", second: "2", third: "3"})
    assert np.array_equal(stated["0/kernel"].T, getattr(model, first).weight.detach())


def test_numbers_decide_where_the_order_of_definition_does_not_fit(torch):
    model = torch.nn.Module()
    model.fc3, model.fc1, model.fc2 = (torch.nn.Linear(*n) for n in ((4, 2), (4, 4), (4, 4)))
    node = bl.infer(bl.Sequential(bl.Dense(4), bl.Dense(4), bl.Dense(2)), (4,))
    params = bl.import_params(node, model)
    assert np.array_equal(params["1/kernel"].T, model.fc2.weight.detach())


def test_layers_defined_by_kind(torch):
    nn = torch.nn
    model = nn.Module()
    model.convs = nn.ModuleList([nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)])
    model.norms = nn.ModuleList([nn.BatchNorm2d(4) for _ in range(3)])
    drawn(torch, model)
    net = bl.Sequential(*[bl.Sequential(bl.Conv(4, (3, 3)), bl.BatchNorm())] * 3)
    params = bl.import_params(bl.infer(net, (3, 9, 8), dtype="float64", **FIRST), model)
    for i in range(3):
        assert np.array_equal(params[f"{i}/1/scale"], model.norms[i].weight.detach())


# torch: layers of their own kind


def test_recurrent_layers_have_two_biases(torch):
    nn = torch.nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(11, 6)
            self.lstm = nn.LSTM(6, 5, 2, batch_first=True, bidirectional=True)
            self.rnn = nn.RNN(10, 7, batch_first=True, nonlinearity="relu")
            self.gru = nn.GRU(7, 4, batch_first=True)
            self.head = nn.Linear(4, 3)

        def forward(self, x):
            x = self.rnn(self.lstm(self.embed(x))[0])[0]
            return self.head(self.gru(x)[0][:, -1])

    model = drawn(torch, Net())
    lstm = bl.LSTM(5, bidirectional=True, return_sequences=True)
    rnn = bl.SimpleRNN(7, activation="relu", return_sequences=True)
    net = bl.Sequential(bl.Embedding(11, 6), lstm, lstm, rnn, bl.GRU(4), bl.Dense(3))
    node = bl.infer(net, (8,), dtype="float64")
    with pytest.raises(bl.ParamError, match="reset gate"):
        bl.import_params(node, model)
    with torch.no_grad():
        model.gru.bias_hh_l0[8:] = 0
    x = np.random.default_rng(0).integers(0, 11, (3, 8))
    close(outputs(node, bl.import_params(node, model), x), through(torch, model, x))


@pytest.mark.parametrize("norm_first", [False, True])
def test_an_encoder_of_torch(torch, norm_first, tmp_path):
    from safetensors.torch import save_file

    layer = torch.nn.TransformerEncoderLayer(8, 2, 12, 0.0, batch_first=True, norm_first=norm_first)
    model = drawn(torch, torch.nn.TransformerEncoder(layer, 3, enable_nested_tensor=False))
    net = bl.Repeat(bl.TransformerEncoderLayer(8, 2, 12, norm_first=norm_first), 3)
    node = bl.infer(net, (5, 8), dtype="float64")
    x = randoms((2, 5, 8))
    close(outputs(node, bl.import_params(node, model), x), through(torch, model, x), 1e-11)
    save_file(model.state_dict(), tmp_path / "net.safetensors")
    params = bl.import_params(node, tmp_path / "net.safetensors")
    close(outputs(node, params, x), through(torch, model, x), 1e-11)


@pytest.mark.parametrize("names", [("q_proj", "k_proj", "v_proj", "out_proj"), "qkvo"])
def test_attention_by_hand(torch, names):
    nn = torch.nn
    model = nn.Module()
    model.attention = nn.ModuleDict({name: nn.Linear(6, 6) for name in sorted(names)})
    model.norm = nn.LayerNorm(6)
    drawn(torch, model)
    net = bl.Sequential(bl.MultiHeadAttention(2), bl.LayerNorm())
    params = bl.import_params(bl.infer(net, (5, 6), dtype="float64"), model)
    for name, own in zip(names, ("query", "key", "value", "out"), strict=True):
        assert np.array_equal(params[f"0/{own}_kernel"].T, model.attention[name].weight.detach())


def test_tied_layers(torch, tmp_path):
    nn = torch.nn
    tied = nn.Linear(4, 4)
    model = drawn(torch, nn.Sequential(tied, nn.Tanh(), tied, nn.Linear(4, 2)))
    shared = bl.Shared("tied", bl.Dense(4))
    node = bl.infer(bl.Sequential(shared, bl.Tanh(), shared, bl.Dense(2)), (4,), dtype="float64")
    x = randoms((3, 4))
    close(outputs(node, bl.import_params(node, model), x), through(torch, model, x))
    from safetensors.torch import save_model

    save_model(model, tmp_path / "net.safetensors")  # lists them once
    params = bl.import_params(node, tmp_path / "net.safetensors")
    close(outputs(node, params, x), through(torch, model, x))
    untied = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    untied["2.bias"] += 1
    with pytest.raises(bl.ParamError, match="shared"):
        bl.import_params(node, untied)


def flattening(torch):
    nn = torch.nn
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.BatchNorm1d(60),
        nn.Linear(60, 7),
        nn.ReLU(),
        nn.Linear(7, 24),
        nn.Unflatten(1, (2, 3, 4)),
        nn.ConvTranspose2d(2, 3, (2, 3)),
    )
    net = (
        bl.Sequential(bl.Conv(4, (3, 3)), bl.BatchNorm(), bl.ReLU(), bl.Flatten(), bl.BatchNorm()),
        bl.Sequential(bl.Dense(7), bl.ReLU(), bl.Dense(24)),
        bl.ConvTranspose(3, (2, 3)),
    )
    return drawn(torch, model), net


def test_flattened_images_are_in_the_order_of_the_layout(torch):
    model, (encoder, middle, last) = flattening(torch)
    x = randoms((2, 3, 5, 7))
    y = through(torch, model, x)
    first = bl.infer(
        bl.Sequential(encoder, middle, bl.Reshape((2, 3, 4)), last),
        (3, 5, 7),
        dtype="float64",
        **FIRST,
    )
    close(outputs(first, bl.import_params(first, model), x), y)
    node = bl.infer(
        bl.Sequential(encoder, middle, bl.Reshape((3, 4, 2)), last), (5, 7, 3), dtype="float64"
    )
    with pytest.raises(bl.ParamError, match="flattened='channels_first'"):
        bl.import_params(node, model)
    params = bl.import_params(node, model, flattened="channels_first")
    found = outputs(node, params, x.transpose(0, 2, 3, 1))
    close(found.transpose(0, 3, 1, 2), y)
    same = bl.import_params(node, model, flattened="channels_last")
    assert not np.array_equal(same["1/0/kernel"], params["1/0/kernel"])
    assert np.array_equal(same["1/0/kernel"].T, model[5].weight.detach())


@pytest.mark.parametrize(
    "after", [bl.Dropout(0.5), bl.Dropout(0.5, whole_channels=True), bl.GELU()]
)
def test_what_keeps_the_order_of_a_flattened_image(after):
    net = bl.Sequential(bl.Conv(4, (1, 1)), bl.Flatten(), after, bl.Dense(3))
    changes, problems = reorderings(bl.infer(net, (4, 5, 3)), "channels_first")
    assert list(changes) == ["3/kernel"]
    assert not problems


@pytest.mark.parametrize(
    "after",
    [
        (bl.Reshape((5, 16)), bl.Dense(3)),
        (bl.Rearrange("b (s n) -> b s n", s=5), bl.Dense(3)),
        (bl.Dropout(0.5),),
        (),
    ],
)
def test_an_order_that_no_parameter_can_take_is_refused(torch, after):
    """It must be stated, and if it is another one there is no such import."""
    nn = torch.nn
    model = nn.Sequential(nn.Conv2d(3, 4, 1), *([nn.Linear(16, 3)] if len(after) > 1 else []))
    net = bl.Sequential(bl.Conv(4, (1, 1)), bl.Flatten(), *after)
    node = bl.infer(net, (4, 5, 3))
    for flattened in (None, "channels_first"):
        assert bl.match_weights(node, model, flattened=flattened).wrong
    assert not bl.match_weights(node, model, flattened="channels_last").wrong


@pytest.mark.parametrize(
    ("shape", "refused"), [((4, 20), True), ((20, 4), False), ((5, 4, 4), False), ((10, 8), True)]
)
def test_an_image_that_gets_other_axes(shape, refused):
    """Where its channels stay the last axis, they are those of a model that moves them there."""
    net = bl.Sequential(bl.Conv(4, (1, 1)), bl.Reshape(shape), bl.Dense(3))
    changes, problems = reorderings(bl.infer(net, (4, 5, 3)), "channels_first")
    assert not changes
    assert bool(problems) == refused


@pytest.mark.parametrize(("window", "shape"), [((1,), (6, 3)), ((1, 1), (6, 5, 3))])
def test_an_image_stays_one(window, shape):
    """Also with one spatial axis, and through tuples."""
    edges = (*((1, 1),) * len(window), (0, 0))
    pair = bl.Parallel(bl.ReLU(), bl.Tanh(), merge="tuple")
    for block in (
        bl.LayerNorm(),
        bl.RMSNorm(),
        bl.Softmax(),
        bl.Pad(edges),
        bl.Crop(edges),
        bl.Sequential(pair, bl.Select(1)),
    ):
        net = bl.Sequential(bl.Conv(4, window), block, bl.Flatten(), bl.Dense(2))
        changes, problems = reorderings(bl.infer(net, shape), "channels_first")
        assert list(changes) == ["3/kernel"]
        assert not problems


def test_sequences_have_their_features_last():
    net = bl.Sequential(
        bl.Conv(4, (1,)), bl.GRU(5, return_sequences=True), bl.Flatten(), bl.Dense(2)
    )
    assert reorderings(bl.infer(net, (6, 3)), "channels_first") == ({}, [])


def test_flattened_branches_that_are_joined(torch):
    nn = torch.nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(2, 3, 1), nn.Conv2d(2, 4, (2, 1))
            self.out = nn.Linear(3 * 12 + 4 * 8, 5)

        def forward(self, x):
            return self.out(torch.cat([self.a(x).flatten(1), self.b(x).flatten(1)], 1))

    model = drawn(torch, Net())
    branches = bl.Conv(3, (1, 1)), bl.Conv(4, (2, 1))
    net = bl.Parallel(*[bl.Sequential(conv, bl.Flatten()) for conv in branches])
    node = bl.infer(bl.Sequential(net, bl.Dense(5)), (3, 4, 2), dtype="float64")
    x = randoms((2, 2, 3, 4))
    params = bl.import_params(node, model, flattened="channels_first")
    close(outputs(node, params, x.transpose(0, 2, 3, 1)), through(torch, model, x))


# Keras


@pytest.fixture
def keras():
    need("keras")
    return import_module("keras")


def set_random(keras, model):
    rng = np.random.default_rng(1)
    for weight in model.weights:
        if "float" in str(weight.dtype):
            low = 0.5 if "variance" in weight.path else -1.0
            weight.assign(rng.uniform(low, 1.5, weight.shape))
    return model


def same_in_keras(keras, model, net, shape, tmp_path, kinds=("weights.h5", "keras"), **options):
    node = bl.infer(net, shape)
    x = randoms((2, *shape)).astype(np.float32)
    y = keras.ops.convert_to_numpy(model(x, training=False))
    for kind in kinds:
        path = tmp_path / f"net.{kind}"
        (model.save if kind == "keras" else model.save_weights)(path)
        found = bl.match_weights(node, path, **options)
        close(outputs(node, found.params(), x), y, 1e-5)
    return found


NORM = bl.BatchNorm(epsilon=1e-3)


def test_a_sequential_of_keras(keras, tmp_path):
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 6, 3)),
            layers.Conv2D(4, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Conv2D(5, 3, strides=2),
            layers.BatchNormalization(),
            layers.Dropout(0.2),
            layers.Flatten(),
            layers.Dense(7, activation="relu"),
            layers.Dense(3),
        ]
    )
    model.compile("adam", "mse")
    model.fit(np.zeros((2, 8, 6, 3)), np.zeros((2, 3)), verbose=0)
    net = bl.Sequential(
        *(bl.Conv(4, (3, 3), padding="same", use_bias=False), NORM, bl.ReLU()),
        *(bl.Conv(5, (3, 3), stride=2), NORM, bl.Flatten(), bl.Dense(7), bl.ReLU(), bl.Dense(3)),
    )
    found = same_in_keras(keras, set_random(keras, model), net, (8, 6, 3), tmp_path)
    assert "optimizer/vars/0" in found.ignored


def test_a_functional_model_of_keras_with_ways_around(keras, tmp_path):
    layers = keras.layers
    x = inputs = keras.Input((9, 7, 3))
    for features, project in ((4, True), (4, False), (6, True)):
        y = layers.Conv2D(features, 3, padding="same", use_bias=False)(x)
        y = layers.ReLU()(layers.BatchNormalization()(y))
        y = layers.Conv2D(features, 3, padding="same", use_bias=False)(y)
        y = layers.BatchNormalization()(y)
        if project:
            x = layers.BatchNormalization()(layers.Conv2D(features, 1, use_bias=False)(x))
        x = layers.ReLU()(layers.Add()([y, x]))
    top = keras.Sequential([keras.Input((6,)), layers.Dense(5), layers.ReLU(), layers.Dense(3)])
    model = keras.Model(inputs, top(layers.GlobalAveragePooling2D()(x)))
    kinds = (4, True), (4, False), (6, True)
    blocks = [bl.ResidualBlock(f, project=p, norm=NORM) for f, p in kinds]
    net = bl.Sequential(*blocks, bl.GlobalAvgPool(), bl.MLP(3, hidden=(5,)))
    same_in_keras(keras, set_random(keras, model), net, (9, 7, 3), tmp_path)


def test_recurrent_layers_of_keras(keras, tmp_path):
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((7, 4)),
            layers.Bidirectional(layers.LSTM(3, return_sequences=True)),
            layers.GRU(5, return_sequences=True),
            layers.SimpleRNN(3, return_sequences=True),
            layers.LayerNormalization(),
            layers.LSTM(2),
        ]
    )
    net = bl.Sequential(
        bl.LSTM(3, bidirectional=True, return_sequences=True),
        bl.GRU(5, return_sequences=True),
        bl.SimpleRNN(3, return_sequences=True),
        bl.LayerNorm(epsilon=1e-3),
        bl.LSTM(2),
    )
    set_random(keras, model)
    with pytest.raises(bl.ParamError, match="reset gate"):
        bl.import_params(bl.infer(net, (7, 4)), model)
    gru = model.layers[1].cell.bias
    bias = np.array(keras.ops.convert_to_numpy(gru))
    bias[1, 10:] = 0
    gru.assign(bias)
    same_in_keras(keras, model, net, (7, 4), tmp_path)


def test_an_older_gru_of_keras_is_another(keras):
    gru = keras.layers.GRU(5, reset_after=False)
    model = keras.Sequential([keras.Input((7, 4)), gru])
    with pytest.raises(bl.ParamError, match="reset_after=False"):
        bl.import_params(bl.infer(bl.GRU(5), (7, 4)), model)


def test_attention_of_keras(keras, tmp_path):
    layers = keras.layers
    inputs = keras.Input((5, 6))
    y = layers.MultiHeadAttention(2, 3)(inputs, inputs)
    x = layers.LayerNormalization()(layers.Add()([inputs, y]))
    y = layers.Dense(6)(layers.Dense(9, activation="relu")(x))
    model = keras.Model(inputs, layers.LayerNormalization()(layers.Add()([x, y])))
    net = bl.TransformerEncoderLayer(6, 2, 9, norm=bl.LayerNorm(epsilon=1e-3))
    same_in_keras(keras, set_random(keras, model), net, (5, 6), tmp_path)


def test_a_network_of_channels_first_and_keras(keras, tmp_path):
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((5, 4, 3)), layers.Conv2D(2, 2), layers.Flatten(), layers.Dense(3)]
    )
    set_random(keras, model)
    net = bl.Sequential(bl.Conv(2, (2, 2)), bl.Flatten(), bl.Dense(3))
    node = bl.infer(net, (3, 5, 4), **FIRST)
    assert not bl.match_weights(node, model)
    params = bl.import_params(node, model, flattened="channels_last")
    x = randoms((2, 5, 4, 3)).astype(np.float32)
    y = keras.ops.convert_to_numpy(model(x))
    close(outputs(node, params, x.transpose(0, 3, 1, 2)), y, 1e-5)


def test_two_heads_of_one_shape_are_not_guessed(keras):
    """Keras numbers layers by their distance from the end, which a Tanh in a branch changes."""
    inputs = keras.Input((4,))
    dense = keras.layers.Dense
    heads = [dense(3)(inputs), keras.layers.Activation("tanh")(dense(3)(inputs))]
    net = bl.Parallel(bl.Dense(3), bl.Sequential(bl.Dense(3), bl.Tanh()))
    found = bl.match_weights(
        bl.infer(net, (4,)), keras.Model(inputs, keras.layers.concatenate(heads))
    )
    assert not found
    assert "rename" in repr(found)


# Flax


@pytest.fixture
def flax():
    need("flax")
    return import_module("flax")


def linen_model(nn):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.BatchNorm(use_running_average=True)(nn.Conv(4, (3, 3))(x))
            x = nn.BatchNorm(use_running_average=True)(nn.Conv(5, (3, 3), strides=2)(nn.relu(x)))
            x = x.reshape(x.shape[0], -1, 5)
            x = nn.LayerNorm()(x + nn.MultiHeadDotProductAttention(1)(x, x))
            x = nn.RNN(nn.GRUCell(4))(nn.RNN(nn.OptimizedLSTMCell(3))(x))
            return nn.Dense(2)(nn.RNN(nn.SimpleCell(3))(x))

    net = bl.Sequential(
        *(bl.Conv(4, (3, 3), padding="same"), bl.BatchNorm(), bl.ReLU()),
        *(bl.Conv(5, (3, 3), stride=2, padding="same"), bl.BatchNorm(), bl.Reshape((12, 5))),
        *(bl.Residual(bl.MultiHeadAttention(1)), bl.LayerNorm(epsilon=1e-6)),
        bl.LSTM(3, return_sequences=True),
        bl.GRU(4, return_sequences=True),
        bl.SimpleRNN(3, return_sequences=True),
        bl.Dense(2),
    )
    return Net(), net


def saved(tree, kind, tmp_path):
    from flax import serialization

    path = tmp_path / ("net.msgpack" if kind == "msgpack" else "net")
    if kind == "msgpack":
        path.write_bytes(serialization.to_bytes(tree))
        return path
    checkpoint = pytest.importorskip("orbax.checkpoint")
    with checkpoint.StandardCheckpointer() as writer:
        writer.save(path, tree)
    return path


@pytest.mark.parametrize("kind", ["msgpack", "orbax"])
def test_a_model_of_linen(flax, kind, tmp_path):
    import flax.linen as nn
    import jax

    model, net = linen_model(nn)
    x = randoms((2, 8, 6, 3)).astype(np.float32)
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    tree = jax.tree.map(lambda a: rng.uniform(0.3, 1, a.shape).astype(np.float32), shapes)
    node = bl.infer(net, (8, 6, 3))
    with pytest.raises(bl.ParamError, match="GRUCell_0"):
        bl.import_params(node, saved(tree, kind, tmp_path / "one" if kind == "orbax" else tmp_path))
    tree["params"]["GRUCell_0"]["hn"]["bias"] *= 0
    found = bl.match_weights(node, saved(tree, kind, tmp_path))
    close(outputs(node, found.params(), x), np.asarray(model.apply(tree, x)), 1e-5)


@pytest.mark.parametrize("kind", ["module", "msgpack", "orbax"])
def test_a_model_of_nnx(flax, kind, tmp_path):
    import jax.numpy as jnp
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.conv, self.norm = nnx.Conv(3, 4, (3, 3), rngs=rngs), nnx.BatchNorm(4, rngs=rngs)
            self.drop = nnx.Dropout(0.1, rngs=rngs)
            self.layers = nnx.List([nnx.Linear(4, 4, rngs=rngs) for _ in range(11)])
            self.rnn = nnx.RNN(nnx.LSTMCell(24, 3, rngs=rngs), rngs=rngs)
            self.head = nnx.Linear(3, 2, rngs=rngs)

        def __call__(self, x):
            x = self.norm(self.conv(x), use_running_average=True)
            for layer in self.layers:
                x = nnx.tanh(layer(x))
            return self.head(self.rnn(x.reshape(x.shape[0], 8, -1)))

    model, rng = Net(nnx.Rngs(0)), np.random.default_rng(1)
    for _, variable in nnx.iter_graph(model):
        if isinstance(variable, (nnx.Param, nnx.BatchStat)):
            value = rng.uniform(0.3, 1, variable.shape)
            variable.set_value(jnp.asarray(value, jnp.float32))
    state = nnx.state(model, nnx.Not(nnx.RngState))
    source = model if kind == "module" else saved(nnx.to_pure_dict(state), kind, tmp_path)
    net = bl.Sequential(
        *(bl.Conv(4, (3, 3), padding="same"), bl.BatchNorm()),
        bl.Repeat(bl.Sequential(bl.Dense(4), bl.Tanh()), 11),
        bl.Reshape((8, 24)),
        bl.LSTM(3, return_sequences=True),
        bl.Dense(2),
    )
    node, x = bl.infer(net, (8, 6, 3)), randoms((2, 8, 6, 3)).astype(np.float32)
    close(outputs(node, bl.import_params(node, source), x), np.asarray(model(x)), 1e-5)


# Every block


def other_names(framework, node, weights):
    """The arrays of our own model, under containers of other names."""
    adapter = find_backend(framework)
    sep = weights.separator
    modules = {b.module.replace(".", sep) for b in adapter.program(node).bindings} - {""}

    def renamed(name):
        found = [m for m in modules if name.startswith(m + sep)]
        module = max(found, key=len, default="")
        inner = name.removeprefix(module + sep) if module else name
        parts = [f"part{p}" if p.isdigit() else f"x{p}" for p in module.split(sep) if p]
        return sep.join(["net", *parts, inner])

    return {renamed(name): array for name, array in weights.arrays.items()}


def check_case(name, block, shape, framework):
    node = bl.infer(block, shape)
    if not node.param_specs():
        return
    try:
        model = bl.lower(node, framework)
    except bl.UnsupportedError:
        return
    rng = np.random.default_rng(0)
    params = {p: rng.normal(size=a.shape).astype("f") for p, a in bl.params_of(model).items()}
    bl.load_params(model, params)
    weights = bl.read_weights(model)
    own = find_backend(framework).layout
    sources = [weights]
    stacked = any(b.index for b in find_backend(framework).program(node).bindings)
    if framework != "keras" and not stacked:
        sources.append(other_names(framework, node, weights))
    for source in sources:
        for order in (None, "channels_last") if own == "channels_first" else (None,):
            found = bl.match_weights(node, source, framework=framework, flattened=order)
            if found:
                assert found.params().keys() == params.keys()
                for path, array in found.params().items():
                    assert np.array_equal(array, params[path]), (name, path)
            else:
                assert order is None or source is not weights or "shared" in repr(found), found
                assert "flattened" in repr(found) or "rename" in repr(found)


@pytest.mark.parametrize("case", CASES[::6], ids=lambda c: c.name)
def test_the_parameters_of_our_own_models_come_back(case, framework):
    check_case(case.name, case.base, case.shape, framework)


@pytest.mark.exhaustive
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_the_parameters_of_all_our_own_models_come_back(case, framework):
    for name, block in case.variants():
        check_case(f"{case.name} {name}", block, case.shape, framework)


# Files that are something else


class Runs:
    def __reduce__(self):
        return os.system, ("touch /tmp/isoblocks_was_here",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_is_not_run(torch, tmp_path, zipped):
    path = tmp_path / "net.pth"
    weights = {"weight": torch.zeros(3, 2), "x": Runs()}
    torch.save(weights, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(bl.FileError, match="never code"):
        bl.read_weights(path)
    path.write_bytes(pickle.dumps(Runs()))
    with pytest.raises(bl.FileError):
        bl.read_weights(path)
    assert not os.path.exists("/tmp/isoblocks_was_here")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_a_small_file_that_claims_much_takes_no_memory(torch, dtype, tmp_path):
    """One number, repeated by strides of 0: no copy of it is made."""
    one = torch.ones((), dtype=getattr(torch, dtype))
    torch.save({"weight": one.expand(2**20, 2**20)}, tmp_path / "net.pth")
    found = bl.read_weights(tmp_path / "net.pth").arrays["weight"]
    assert found.shape == (2**20, 2**20)
    assert found[-1, -1] == 1


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2"])
def test_files_of_8_bits(torch, dtype, tmp_path):
    node = bl.infer(bl.Dense(3), (4,), dtype="float64")
    given = {"weight": torch.randn(4, 3).T, "bias": torch.randn(3)}
    given = {name: tensor.to(getattr(torch, dtype)) for name, tensor in given.items()}
    torch.save(given, tmp_path / "net.pth")
    found = bl.import_params(node, tmp_path / "net.pth")
    assert np.array_equal(found["kernel"].T, given["weight"].double())
    assert np.array_equal(found["bias"], given["bias"].double())


def test_an_archive_that_grows_is_refused(torch, tmp_path):
    torch.save({"weight": torch.zeros(300, 200)}, tmp_path / "net.pth")
    with (
        zipfile.ZipFile(tmp_path / "net.pth") as plain,
        zipfile.ZipFile(tmp_path / "small.pth", "w", zipfile.ZIP_DEFLATED) as small,
    ):
        for member in plain.infolist():
            small.writestr(member.filename, plain.read(member))
    with pytest.raises(bl.FileError, match="grows"):
        bl.read_weights(tmp_path / "small.pth")


def test_hdf5_is_read_inside_the_file_only(keras, tmp_path):
    import h5py

    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["a"] = np.ones(3)
    changes = {
        "link": lambda f: f.__setitem__("a", h5py.ExternalLink(tmp_path / "secret.h5", "a")),
        "soft": lambda f: f.__setitem__("a", h5py.SoftLink("/b")),
        "cycle": lambda f: f.create_group("a").__setitem__("b", f["/"]),
        "text": lambda f: f.__setitem__("a", "text"),
        "external": lambda f: f.create_dataset(
            "a", (3,), "f8", external=[(str(tmp_path / "secret.h5"), 0, 24)]
        ),
        "huge": lambda f: f.create_dataset("a", (10**6, 10**6), "f8", chunks=(10, 10)),
    }
    for name, change in changes.items():
        path = tmp_path / f"{name}.weights.h5"
        with h5py.File(path, "w") as file:
            change(file)
        with pytest.raises(bl.FileError):
            bl.read_weights(path)


def test_a_keras_file_that_grows_is_refused(keras, tmp_path):
    path = tmp_path / "net.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(10**7))
    with pytest.raises(bl.FileError, match="its own size"):
        bl.read_weights(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(bl.FileError, match=r"no model\.weights\.h5"):
        bl.read_weights(path)


def small_file(kind, tmp_path):
    arrays = {"a.weight": np.ones((3, 2), "f"), "a.bias": np.ones(3, "f")}
    path = tmp_path / f"net.{kind}"
    if kind in ("pth", "pt"):
        torch = import_module("torch")
        tensors = {name: torch.tensor(array) for name, array in arrays.items()}
        torch.save(tensors, path, _use_new_zipfile_serialization=kind == "pth")
    elif kind == "safetensors":
        from safetensors.numpy import save_file

        save_file(arrays, path)
    elif kind == "msgpack":
        from flax import serialization

        path.write_bytes(serialization.to_bytes({"params": {"Dense_0": arrays}}))
    else:
        keras = import_module("keras")
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
        (model.save if kind == "keras" else model.save_weights)(path)
    return path


KINDS = {
    "pth": ("torch", 500),
    "pt": ("torch", 500),
    "safetensors": ("torch", 500),
    "msgpack": ("flax", 1000),
    "keras": ("keras", 40),
    "weights.h5": ("keras", 15),
}


def mutated(data, rng):
    data = bytearray(data)
    match rng.integers(3):
        case 0:
            return bytes(data[: rng.integers(len(data))])
        case 1:
            data[rng.integers(len(data))] = rng.integers(256)
        case _:
            start = rng.integers(len(data))
            data[start : start + 8] = bytes([rng.choice([0, 127, 128, 255])]) * 8
    return bytes(data)


def check_damage(kind, count, tmp_path, seed):
    path = small_file(kind, tmp_path)
    assert len(bl.read_weights(path).arrays) == 2
    data, rng = path.read_bytes(), np.random.default_rng(seed)
    refused = 0
    for _ in range(count):
        path.write_bytes(mutated(data, rng))
        try:
            bl.read_weights(path)
        except bl.FileError:
            refused += 1
    assert refused


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_refused(kind, tmp_path):
    framework, count = KINDS[kind]
    need(framework)
    check_damage(kind, count, tmp_path, seed=0)


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", KINDS)
def test_files_damaged_in_more_ways_are_refused(kind, tmp_path):
    need(KINDS[kind][0])
    check_damage(kind, 300 if kind == "weights.h5" else 5000, tmp_path, seed=1)


def test_a_folder_that_orbax_did_not_write(flax, tmp_path):
    with pytest.raises(bl.FileError, match="orbax"):
        bl.read_weights(tmp_path)
    pytest.importorskip("orbax.checkpoint")
    path = saved({"a": {"kernel": np.ones((2, 3))}}, "orbax", tmp_path)
    (path / "_METADATA").write_text("{")
    with pytest.raises(bl.FileError, match="orbax"):
        bl.read_weights(path)


def test_what_is_no_source_is_refused(torch, tmp_path):
    node = bl.infer(bl.Dense(2), (3,))
    for source in ("net.txt", tmp_path / "missing.pth", tmp_path / "missing.safetensors"):
        with pytest.raises(bl.FileError):
            bl.import_params(node, source)
    for source in (3, None, [np.ones(3)]):
        with pytest.raises(bl.BlockError):
            bl.import_params(node, source)
    with pytest.raises(bl.FieldError, match="framework"):
        bl.read_weights({"weight": np.ones(3)})
    with pytest.raises(bl.FieldError, match="framework"):
        bl.read_weights({"weight": np.ones(3)}, framework="jax")
    with pytest.raises(bl.FileError, match="no real numbers"):
        bl.read_weights({"weight": np.ones(3, "complex64")}, framework="torch")
    with pytest.raises(bl.FileError, match=r"'\\x1b\[31mweight' is no name"):
        bl.read_weights({"\x1b[31mweight": np.ones(3)}, framework="torch")


# The command line


def test_weights_are_imported_by_a_command(torch, tmp_path, capsys):
    from blocks.cli import main

    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2))
    torch.save(model.state_dict(), tmp_path / "net.pth")
    net = bl.Sequential(bl.Dense(3), bl.Tanh(), bl.Dense(2))
    bl.save(net, tmp_path / "net.json")
    files = [str(tmp_path / name) for name in ("net.json", "net.pth", "out.safetensors")]
    command = ["import", *files[:2], "--input", "4", "-o", files[2]]
    assert main(command) == 0
    assert "0.weight" in capsys.readouterr().out
    params = bl.load_params_file(files[2])
    assert np.array_equal(params["2/kernel"].T, model[2].weight.detach())
    bl.save(bl.Sequential(bl.Dense(3), bl.Dense(5)), tmp_path / "net.json")
    assert main(command) == 1
    assert "left over" in capsys.readouterr().out

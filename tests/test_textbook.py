"""The textbook's chapters on layers, parameters and files: what its pages show is what happens.

The networks are those of the examples.
"""

from __future__ import annotations

import math
import runpy
import sys

import numpy as np
import pytest

import blocks as bl
from conftest import FRAMEWORKS, example, need

CHAINS = example("02_layers_and_blocks")
CODE = example("03_code_in_a_block")
BLOCKS = example("04_blocks_of_blocks")
PARAMETERS = example("05_parameters")
LAYERS = example("06_layers_of_your_own")
FILES = example("07_files")
COMPILED = example("08_compilation")
CONVOLUTIONS = example("11_convolutional_networks")

CHANNELS_FIRST = {"layout": "channels_first"}


def agree(net, shape, backend, **options):
    """Whether a backend and the reference give the same outputs and gradients."""
    report = bl.parity(net, shape, backends=[backend], dtype="float64", steps=0, **options)
    assert report, report


def batch(*shape):
    return np.random.default_rng(0).normal(size=shape)


def model_of(net, shape, backend, **options):
    """A model in float64."""
    return bl.lower(bl.infer(net, shape, dtype="float64"), backend, **options)


# Layers and blocks


@pytest.mark.parametrize("name", ["net", "mlp"])
def test_a_perceptron(backend, name):
    net = getattr(CHAINS, name)
    node = bl.infer(net, (20,))
    assert [bl.count(child) for child in node.children] == [5376, 0, 2570]
    assert bl.count(node) == 7946
    model, x = bl.lower(node, backend), np.float32(batch(2, 20))
    assert bl.apply(model, x).shape == (2, 10)
    assert bl.gradients(model, x, np.ones((2, 10)))["input"].shape == (2, 20)
    agree(net, (20,), backend)


def test_gradients_are_slopes(backend):
    """The change of the output along a direction, of the input and of all parameters."""
    node = bl.infer(CHAINS.net, (20,), dtype="float64")
    rng, params = np.random.default_rng(1), bl.init(node)
    x, w = rng.normal(size=(2, 20)), rng.normal(size=(2, 10))
    ways = {path: rng.normal(size=a.shape) for path, a in params.items()} | {
        "input": rng.normal(size=x.shape)
    }
    found = bl.gradients(bl.lower(node, backend, params=params), x, w)

    def at(step):
        moved = {path: a + step * ways[path] for path, a in params.items()}
        model = bl.lower(node, backend, params=moved)
        return (bl.apply(model, x + step * ways["input"]) * w).sum()

    slope = (at(1e-6) - at(-1e-6)) / 2e-6
    assert sum((found[path] * ways[path]).sum() for path in ways) == pytest.approx(slope, rel=1e-6)


def test_names_are_carried_by_the_parameters_alone(backend):
    params = bl.init(bl.infer(CHAINS.net, (20,)))
    words = {"0": "hidden", "2": "out"}
    named = {f"{words[path[0]]}{path[1:]}": array for path, array in params.items()}
    x = np.float32(batch(3, 20))
    one = bl.lower(CHAINS.net, backend, input_shape=(20,), params=params)
    other = bl.lower(CHAINS.mlp, backend, input_shape=(20,), params=named)
    assert np.array_equal(bl.apply(one, x), bl.apply(other, x))


def test_two_models_of_one_block_learn_apart(backend):
    net1, net2 = (model_of(CHAINS.net, (20,), backend, seed=0) for _ in range(2))
    before = bl.params_of(net2)
    bl.fit(net1, (batch(4, 20), batch(4, 10)), loss="mse", optimizer=bl.SGD(0.1))
    assert all(np.array_equal(array, before[path]) for path, array in bl.params_of(net2).items())
    assert not np.array_equal(bl.params_of(net1)["0/kernel"], before["0/kernel"])


def test_to_call_a_model_is_its_forward(framework):
    model, x = bl.lower(CHAINS.net, framework, input_shape=(20,)), np.float32(batch(2, 20))
    if framework == "torch":
        import torch

        y, again = (f(torch.from_numpy(x)).detach() for f in (model, model.forward))
    else:
        y, again = model(x), getattr(model, "call", model.__call__)(x)
    assert np.array_equal(y, again)
    np.testing.assert_allclose(bl.apply(model, x), y, rtol=0, atol=1e-6)


def test_a_chain_is_what_it_holds_in_order(backend):
    net, x = CHAINS.net, batch(2, 20)
    params = bl.init(bl.infer(net, (20,), dtype="float64"))
    y = x
    for name, block in zip(net.names, net, strict=True):
        own = {p.partition("/")[2]: a for p, a in params.items() if p.partition("/")[0] == name}
        y = bl.apply(model_of(block, y.shape[1:], backend, params=own), y)
    whole = model_of(net, (20,), backend, params=params)
    np.testing.assert_allclose(bl.apply(whole, x), y, rtol=0, atol=1e-12)
    longer = bl.Sequential(*net, bl.Softmax())
    assert (len(net), len(longer), longer[:3]) == (3, 4, net.blocks)


def test_a_python_list_hides_blocks_from_torch():
    """And keys that are no texts break its walks; a Sequential has neither trouble."""
    need("torch")
    import torch
    from torch import nn

    class InList(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = [nn.Linear(20, 256), nn.ReLU(), nn.Linear(256, 10)]

        def forward(self, x):
            for layer in self.layers:
                x = layer(x)
            return x

    class ByBlock(nn.Module):
        def __init__(self, *blocks):
            super().__init__()
            for block in blocks:
                self._modules[block] = block

    net = InList()
    assert net(torch.ones(2, 20)).shape == (2, 10)
    assert (len(list(net.parameters())), len(net.state_dict())) == (0, 0)
    with pytest.raises(ValueError, match="empty parameter list"):
        torch.optim.SGD(net.parameters(), lr=0.1)
    for walk in (lambda m: list(m.parameters()), lambda m: m.state_dict(), repr):
        with pytest.raises(TypeError):
            walk(ByBlock(nn.Linear(20, 10)))
    ours = bl.lower(CHAINS.net, "torch", input_shape=(20,))
    assert len(list(ours.parameters())) == len(ours.state_dict()) == 4
    assert "Linear" in repr(ours)


def test_a_python_list_hides_nothing_from_keras():
    need("keras")
    import keras

    class InList(keras.Model):
        def __init__(self):
            super().__init__()
            self.all = [keras.layers.Dense(256, activation="relu"), keras.layers.Dense(10)]

        def call(self, x):
            for layer in self.all:
                x = layer(x)
            return x

    net = InList()
    net(np.ones((2, 20)))
    assert net.count_params() == 7946


def test_a_python_list_is_refused_by_flax():
    need("flax")
    from flax import nnx

    class InList(nnx.Module):
        def __init__(self):
            self.all = [nnx.Linear(20, 256, rngs=nnx.Rngs(0))]

    with pytest.raises(ValueError, match="static attribute"):
        InList()


def test_nested_chains(backend):
    node = bl.infer(CHAINS.nest_mlp, (20,))
    assert {path: spec.size for path, spec in node.param_specs().items()} == {
        "net/0/kernel": 1280,
        "net/0/bias": 64,
        "net/2/kernel": 2048,
        "net/2/bias": 32,
        "linear/kernel": 512,
        "linear/bias": 16,
    }
    assert bl.count(node) == 1344 + 2080 + 528 == 3952
    assert bl.apply(bl.lower(node, backend), batch(2, 20)).shape == (2, 16)
    agree(CHAINS.nest_mlp, (20,), backend)


def test_kernels_are_kept_as_each_framework_keeps_them(backend):
    model = bl.lower(CHAINS.net, backend, input_shape=(20,))
    assert bl.params_of(model)["0/kernel"].shape == (20, 256)
    native = {
        "numpy": lambda: bl.params_of(model)["0/kernel"],
        "torch": lambda: model[0].weight,
        "keras": lambda: model.layers[1].kernel,
        "flax": lambda: model.layers[0].kernel,
    }[backend]()
    assert tuple(native.shape) == ((256, 20) if backend == "torch" else (20, 256))


# Code in a block


def test_constants_are_kept_and_never_trained(backend):
    node = bl.infer(CODE.fixed_hidden_mlp, (20,), dtype="float64")
    assert (bl.count(node, trainable=True), bl.count(node, trainable=False)) == (420, 400)
    model = bl.lower(node, backend)
    before = bl.params_of(model)
    history = bl.fit(
        model, (batch(4, 20), np.ones(4)), loss="mse", optimizer=bl.SGD(0.01), epochs=3
    )
    after = bl.params_of(model)
    assert np.isfinite(history.losses).all()
    assert np.array_equal(before["1/rand_weight"], after["1/rand_weight"])
    assert not np.array_equal(before["0/kernel"], after["0/kernel"])
    if backend == "torch":
        assert "1.rand_weight" in model.state_dict()
        assert "1.rand_weight" not in dict(model.named_parameters())


def test_a_layer_used_twice_has_the_sum_of_both_gradients(backend):
    """The gradient of the tied kernel is that of two kernels apart, added."""
    tied = bl.Sequential(*CODE.fixed_hidden_mlp[:4])
    apart = bl.Sequential(bl.Dense(20), *tied[1:3], bl.Dense(20))
    params = bl.init(bl.infer(tied, (20,), dtype="float64"))
    both = params | {f"3/{name}": params[f"0/{name}"] for name in ("kernel", "bias")}
    x, w = batch(3, 20), batch(4, 20)[1:]
    one = bl.gradients(model_of(tied, (20,), backend, params=params), x, w)
    two = bl.gradients(model_of(apart, (20,), backend, params=both), x, w)
    for name in ("kernel", "bias"):
        total = two[f"0/{name}"] + two[f"3/{name}"]
        np.testing.assert_allclose(one[f"0/{name}"], total, rtol=0, atol=1e-12 * abs(total).max())


# The sum of sizes, and how often it is halved until it is at most 1.
HALVINGS = {0.3: 0, 1.0: 0, 1.0001: 1, 2.0: 1, 2.5: 2, 20.0: 5, 32.0: 5, 33.0: 6}


@pytest.mark.parametrize("halved", [CODE.HalvedSum(), COMPILED.HalvedSum(16)], ids=["python", "op"])
def test_a_loop_on_values(backend, halved):
    """Each example is halved by itself; what comes out has the slope of its halvings."""
    signs = np.sign(batch(len(HALVINGS), 2, 8))
    x = signs * np.reshape(list(HALVINGS), (-1, 1, 1)) / 16  # whose sums have no rounding
    assert list(abs(x).sum((1, 2))) == list(HALVINGS)
    slopes = 0.5 ** np.array(list(HALVINGS.values()))
    model = model_of(halved, (2, 8), backend)
    y = bl.apply(model, x)
    assert y.shape == (len(HALVINGS),)
    np.testing.assert_allclose(y, slopes * x.sum((1, 2)), rtol=0, atol=1e-15)
    found = bl.gradients(model, x, np.ones(len(x)))["input"]
    np.testing.assert_array_equal(found, np.broadcast_to(slopes[:, None, None], x.shape))


def test_one_number_for_a_whole_batch(backend):
    """What a textbook calls X is one example of shape (2, 20)."""
    model = model_of(CODE.fixed_hidden_mlp, (2, 20), backend)
    p = bl.params_of(model)
    x = 3 * batch(2, 20)
    y = x @ p["0/kernel"] + p["0/bias"]
    y = np.maximum(y @ p["1/rand_weight"] + 1, 0) @ p["0/kernel"] + p["0/bias"]
    halvings = 0
    while abs(y).sum() > 1:
        y, halvings = y / 2, halvings + 1
    assert halvings > 2
    assert bl.infer(CODE.fixed_hidden_mlp, (2, 20)).out_spec.shape == ()
    assert bl.apply(model, x[None])[0] == pytest.approx(y.sum(), abs=1e-12)


def test_an_example_does_not_depend_on_the_others(backend):
    model, x = model_of(CODE.chimera, (20,), backend), 5 * batch(4, 20)
    alone = np.concatenate([bl.apply(model, x[i : i + 1]) for i in range(4)])
    np.testing.assert_allclose(bl.apply(model, x), alone, rtol=0, atol=1e-12)


def test_a_chimera(backend):
    node = bl.infer(CODE.chimera, (2, 20))
    assert node.out_spec.shape == ()
    assert (bl.count(node, trainable=True), bl.count(node, trainable=False)) == (4712, 400)
    agree(CODE.chimera, (20,), backend)


def test_three_textbooks_say_three_things(backend):
    """One has no ReLU after its layer, one has it at both uses, one has no first use."""
    dense, relu = CODE.dense, bl.ReLU()
    fixed, end = CODE.FixedWeights(), CODE.HalvedSum()
    variants = [
        CODE.fixed_hidden_mlp,
        bl.Sequential(dense, relu, fixed, relu, dense, relu, end),
        bl.Sequential(fixed, relu, dense, relu, end),
    ]
    found = []
    for net in variants:
        node = bl.infer(net, (2, 20), dtype="float64")
        tied = bl.init(node, initial={"**/kernel": KERNEL, "**/rand_weight": CONSTANT})
        found.append(bl.apply(bl.lower(node, backend, params=tied), X[None])[0])
    assert len(set(np.round(found, 6))) == 3
    assert abs(found[0]) <= 1
    assert all(0.5 < y <= 1 for y in found[1:])


X = np.random.default_rng(0).uniform(size=(2, 20))
KERNEL = np.random.default_rng(1).uniform(-1, 1, size=(20, 20)) / math.sqrt(20)
CONSTANT = np.random.default_rng(2).uniform(size=(20, 20))


def compiled(model, backend):
    """A model by its framework's compiler, which may not go back to Python."""
    if backend == "torch":
        import torch

        fast = torch.compile(model, fullgraph=True, backend="aot_eager")
        return lambda x: fast(torch.from_numpy(x)).detach().numpy()
    if backend == "keras":
        return model.predict_on_batch
    from flax import nnx

    fast = nnx.jit(lambda model, x: model(x))
    return lambda x: np.asarray(fast(model, x))


def test_one_compiled_model_goes_both_ways(framework):
    net = bl.Sequential(bl.Dense(4, bias_init="normal"), COMPILED.HalvedSum(16))
    model = bl.lower(net, framework, input_shape=(5,))
    kernel = bl.params_of(model)["0/kernel"]
    fast = compiled(model, framework)
    sizes = []
    for scale in (1e-3, 1.0, 100.0):
        x = np.float32(scale * batch(1, 5))
        sizes.append(abs(x @ kernel).sum())
        np.testing.assert_allclose(fast(x), bl.apply(model, x), rtol=0, atol=1e-6)
    assert sizes[0] < 0.5 < 10 < sizes[2]


def test_jit_does_not_take_a_loop_in_python():
    """But the verbs of isoblocks run it: see `test_a_loop_on_values`."""
    need("flax")
    import jax

    model = bl.lower(CODE.HalvedSum(), "flax", input_shape=(5,))
    with pytest.raises(jax.errors.TracerBoolConversionError):
        compiled(model, "flax")(np.float32(batch(1, 5)))


def test_torch_compile_leaves_a_loop_in_python_to_python():
    need("torch")
    import torch

    model = bl.lower(CODE.HalvedSum(), "torch", input_shape=(5,))
    x = torch.from_numpy(np.float32(batch(1, 5)))
    with pytest.raises(torch._dynamo.exc.Unsupported):
        torch.compile(model, fullgraph=True, backend="aot_eager")(x)
    torch._dynamo.reset()
    assert torch.equal(torch.compile(model, backend="aot_eager")(x), model(x))


def test_a_compiled_perceptron(framework):
    node = bl.infer(COMPILED.net, (512,))
    assert bl.count(node) == 164_482
    model, x = bl.lower(node, framework), np.float32(batch(3, 512))
    np.testing.assert_allclose(compiled(model, framework)(x), bl.apply(model, x), atol=1e-6)


def test_times_of_compilation_are_taken(framework, monkeypatch):
    monkeypatch.setattr(COMPILED.shutil, "which", lambda name: None)
    model = bl.lower(COMPILED.HalvedSum(16), framework, input_shape=(7,))
    plain, fast = COMPILED.PAIRS[framework](model, np.float32(batch(3, 7)))
    np.testing.assert_allclose(plain(), fast(), atol=1e-6)
    assert 0 < COMPILED.seconds(fast, 2) < 60


def test_a_constant_times_a_product(backend):
    net = bl.Sequential(bl.Dense(1, use_bias=False), bl.Constant(3.5, merge="multiply"))
    model, x = model_of(net, (4,), backend), batch(2, 4)
    kernel = bl.params_of(model)["0/kernel"]
    np.testing.assert_allclose(bl.apply(model, x), 3.5 * x @ kernel, rtol=1e-12)
    found = bl.gradients(model, x, np.ones((2, 1)))
    np.testing.assert_allclose(found["0/kernel"][:, 0], 3.5 * x.sum(0), rtol=1e-12)
    assert found.keys() == {"input", "0/kernel"}


def test_an_operation_that_no_backend_has_is_refused(backend):
    class Transformed(bl.Custom):
        def forward(self, ops, x):
            return ops.fft(x)

    with pytest.raises(bl.FieldError, match="ops has no 'fft'"):
        bl.apply(bl.lower(Transformed(), backend, input_shape=(4,)), batch(2, 4))


# Blocks of blocks


def test_a_deep_network_of_repeating_groups():
    node = bl.infer(BLOCKS.resnet152, (3, 224, 224), **CHANNELS_FIRST)
    assert bl.count(node, trainable=True) == 60_192_808
    assert node.out_spec.shape == (1000,)
    weighted = [n for n in node.walk() if isinstance(n.form, (bl.Conv, bl.Dense))]
    around = [n for n in weighted if "/shortcut/" in n.path]
    assert len(weighted) - len(around) == 152
    times = [len(child.children[1].children) + 1 for child in node.children[1].children]
    assert times == [3, 8, 36, 3]


def test_a_group_of_a_deep_network(framework):
    """With fewer and smaller blocks, so that it runs."""
    agree(BLOCKS.group(2, 2, 2), (4, 5, 3), framework, batch_size=3)


def test_branches_side_by_side(backend):
    node = bl.infer(BLOCKS.parallel, (20,), dtype="float64")
    assert bl.count(node) == 504
    params, x = bl.init(node), batch(2, 20)
    y = bl.apply(bl.lower(node, backend, params=params), x)
    first = {name: params[f"0/{name}"] for name in ("kernel", "bias")}
    assert y.shape == (2, 24)
    alone = bl.apply(model_of(bl.Dense(16), (20,), backend, params=first), x)
    np.testing.assert_allclose(y[:, :16], alone, rtol=0, atol=1e-13)


def test_branches_that_do_not_fit_are_refused():
    branches = bl.Parallel(bl.Dense(3), bl.Sequential(bl.Reshape((4, 5)), bl.Dense(3)))
    with pytest.raises(bl.ShapeError, match="joins its outputs along axis 0"):
        bl.infer(branches, (20,))


def test_many_of_a_kind_apart_and_tied(backend):
    x = batch(2, 20)
    for net, size in ((BLOCKS.independent, 3996), (BLOCKS.tied, 1332)):
        node = bl.infer(net, (20,), dtype="float64")
        assert bl.count(node) == size
        parts = np.split(bl.apply(bl.lower(node, backend), x), 3, axis=-1)
        assert parts[0].shape == (2, 20)
        same = [np.array_equal(parts[0], part) for part in parts[1:]]
        assert all(same) if net is BLOCKS.tied else not any(same)


@pytest.mark.parametrize("name", CONVOLUTIONS.BLOCKS)
def test_blocks_of_convolutional_networks(framework, name):
    net, shape = CONVOLUTIONS.BLOCKS[name]
    node, x = bl.infer(net, shape, dtype="float64", **CHANNELS_FIRST), batch(2, *shape)
    found, wanted = (bl.apply(bl.lower(node, name), x) for name in (framework, "numpy"))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12 * abs(wanted).max())


def test_sizes_of_convolutional_networks():
    found = {
        name: bl.infer(net, shape, **CHANNELS_FIRST)
        for name, (net, shape) in CONVOLUTIONS.BLOCKS.items()
    }
    assert bl.count(found["LeNet"]) == 61_706
    assert {name: node.out_spec.shape for name, node in found.items()} == {
        "LeNet": (10,),
        "VGG block": (16, 6, 4),
        "NiN block": (10, 12, 8),
        "Inception block": (8 + 9 + 5 + 4, 12, 8),
        "residual block": (3, 12, 8),
        "residual block, stride 2": (6, 6, 4),
        "ResNeXt block": (8, 12, 6),
        "dense block": (3 + 2 * 10, 12, 8),
    }


# Parameters


def test_parameters_are_found_by_path(backend):
    node = bl.infer(PARAMETERS.net, (4,))
    model = bl.lower(node, backend)
    params = bl.params_of(model)
    assert bl.count(node) == sum(array.size for array in params.values()) == 49
    assert (params["2/kernel"].shape, params["2/bias"].shape) == ((8, 1), (1,))
    assert list(bl.select(params, "2/*")) == ["2/kernel", "2/bias"]
    found = bl.gradients(model, batch(2, 4), np.ones((2, 1)))
    assert np.array_equal(found["2/bias"], [2.0])
    if backend == "torch":
        assert tuple(model[2].weight.shape) == (1, 8)
        assert model[2].weight.grad is None


def test_a_tied_layer_is_one_set_of_parameters(backend):
    node = bl.infer(PARAMETERS.tied, (4,))
    assert bl.count(node) == 40 + 72 + 9 == 121
    model = bl.lower(node, backend)
    params = bl.params_of(model)
    assert len(params) == 6
    params["2/kernel"][0, 0] = 100
    bl.load_params(model, params)
    if backend == "torch":
        assert model[2] is model[4]
        assert len(dict(model.named_parameters())) == 6
        assert model[4].weight[0, 0] == 100
    if backend == "keras":
        assert len(model.weights) == 6
        assert model.count_params() == 121
    if backend == "flax":
        assert model.layers[2] is model.layers[4]
    agree(PARAMETERS.tied, (4,), backend)


def test_first_numbers_by_name_and_by_layer():
    node = bl.infer(bl.Sequential(bl.Dense(80), bl.ReLU(), bl.Dense(30)), (100,))
    drawn = {name: bl.init(node, initial=initial) for name, initial in PARAMETERS.INITIAL.items()}
    assert np.std(drawn["normal"]["0/kernel"]) == pytest.approx(0.01, rel=0.1)
    assert (drawn["constant"]["0/kernel"] == 1).all()
    assert not any(array.any() for array in bl.select(drawn["constant"], "**/bias").values())
    assert (drawn["by layer"]["2/kernel"] == 42).all()
    bound = math.sqrt(6 / (100 + 80))
    assert 0.95 * bound < abs(drawn["by layer"]["0/kernel"]).max() <= bound
    numbers = np.concatenate(
        [a.ravel() for a in bl.select(drawn["by function"], "*/kernel").values()]
    )
    assert np.mean(numbers == 0) == pytest.approx(0.5, abs=0.03)
    assert np.mean(numbers >= 5) == pytest.approx(0.25, abs=0.03)
    assert np.mean(numbers <= -5) == pytest.approx(0.25, abs=0.03)
    assert abs(numbers).max() <= 10


def test_parameters_are_set(backend):
    model = bl.lower(PARAMETERS.net, backend, input_shape=(4,))
    before = bl.params_of(model)
    changed = {path: array + 1 for path, array in before.items()}
    changed["0/kernel"][0, 0] = 42
    bl.load_params(model, changed)
    after = bl.params_of(model)
    assert after["0/kernel"][0, 0] == 42
    assert np.array_equal(after["2/kernel"], before["2/kernel"] + 1)


def test_all_sizes_are_known_from_the_first():
    net = bl.Sequential(bl.Dense(256), bl.ReLU(), bl.Dense(10))
    shapes = [spec.shape for spec in bl.infer(net, (20,)).param_specs().values()]
    assert shapes == [(20, 256), (256,), (256, 10), (10,)]
    wrong = bl.Sequential(bl.Dense(256), bl.ReLU(), bl.Dense(10, in_features=128))
    with pytest.raises(bl.ShapeError, match=r"at '2'.*128"):
        bl.infer(wrong, (20,))


def test_images_of_any_size(backend):
    """The same parameters, where a global pool takes the sizes away."""
    net = bl.Sequential(
        bl.Conv(4, (3, 3), padding="same"), bl.ReLU(), bl.GlobalAvgPool(), bl.Dense(10)
    )
    params = bl.init(bl.infer(net, (28, 28, 1)))
    for size in (28, 32):
        node = bl.infer(net, (size, size, 1))
        x = np.float32(batch(2, size, size, 1))
        y = bl.apply(bl.lower(node, backend, params=params), x)
        wanted = bl.apply(bl.lower(node, "numpy", params=params), x)
        np.testing.assert_allclose(y, wanted, rtol=0, atol=1e-6)


# Layers of your own


def test_a_layer_without_parameters(backend):
    centered = LAYERS.Centered()
    y = bl.apply(model_of(centered, (5,), backend), np.array([[1.0, 2, 3, 4, 5]]))
    assert np.array_equal(y, [[-2, -1, 0, 1, 2]])
    net = bl.Sequential(bl.Dense(128), centered)
    model = bl.lower(net, backend, input_shape=(8,))
    assert abs(bl.apply(model, np.float32(batch(4, 8))).mean()) < 1e-6


def test_a_layer_with_parameters_learns(backend):
    node = bl.infer(LAYERS.net, (64,), dtype="float64")
    assert bl.count(node) == 529
    model, x = bl.lower(node, backend), batch(6, 64)
    found = bl.gradients(model, x, np.ones((6, 1)))
    assert all(abs(found[path]).max() > 0 for path in node.param_specs())
    agree(LAYERS.net, (64,), backend)


def test_a_quadratic_form(backend):
    net = LAYERS.Quadratic(3)
    node = bl.infer(net, (5,), dtype="float64")
    assert bl.count(node) == 75
    model, x = bl.lower(node, backend), batch(2, 5)
    kernel = bl.params_of(model)["kernel"]
    wanted = [
        [
            sum(x[b, i] * x[b, j] * kernel[i, j, k] for i in range(5) for j in range(5))
            for k in range(3)
        ]
        for b in range(2)
    ]
    np.testing.assert_allclose(bl.apply(model, x), wanted, rtol=0, atol=1e-13)
    agree(net, (5,), backend)


@pytest.mark.parametrize("size", [16, 7])
def test_half_of_the_fourier_coefficients(backend, size):
    x = batch(2, size)
    y = bl.apply(model_of(LAYERS.HalfFourier(), (size,), backend), x)
    wanted = np.fft.rfft(x)[:, : size // 2]
    assert y.shape == (2, size // 2, 2)
    np.testing.assert_allclose(y[..., 0] + 1j * y[..., 1], wanted, rtol=0, atol=1e-12)


# Files


def test_layers_are_reused_in_another_network(backend):
    old = bl.init(bl.infer(FILES.net, (20,)), seed=0)
    node = bl.infer(FILES.other, (20,))
    new = bl.init(node, seed=1)
    for pattern in FILES.KEPT:
        new |= bl.select(old, pattern)
    model = bl.lower(node, backend, params=new)
    found = bl.params_of(model)
    kept = [np.array_equal(found[path], old[path]) for path in ("0/kernel", "2/bias", "2/kernel")]
    assert all(kept)
    assert found["4/kernel"].shape == (64, 3)


def test_a_network_comes_back_equal():
    assert bl.from_json(bl.to_json(FILES.net)) == FILES.net
    with pytest.raises(bl.FileError, match="FixedWeights', which is not allowed here"):
        bl.from_json(bl.to_json(CODE.net))
    again = bl.from_json(bl.to_json(CODE.net), [CODE.HalvedSum, CODE.FixedWeights])
    assert again == CODE.net


# What the examples print

PRINTED = {
    "01_one_network": ["Parity", "model = "],
    "02_layers_and_blocks": [
        "7,946 parameters",
        "3,952 parameters",
        "(2, 10), gradient of the input (2, 20)",
    ],
    "03_code_in_a_block": ["420 parameters and 400 constants", "4712 parameters and 400 constants"],
    "04_blocks_of_blocks": ["504", "3,996", "1,332", "60,192,808", "(2, 24)", "(2, 60)"],
    "05_parameters": [" 49\n", " 121\n", "42."],
    "06_layers_of_your_own": ["529", "[-2. -1.  0.  1.  2.]", "75 parameters", "(1, 8, 2)"],
    "07_files": ["read by", "reused by"],
    "09_images_and_patterns": ["3,600,011", "(800, 3000, 3)", "1,152", "(10, 1, 398, 598)"],
    "10_encoder_and_decoder": ["9,769,923", "12,909,123", "2,526,048", "(10, 3, 32, 32)"],
    "11_convolutional_networks": ["61,706"],
    "12_image_to_image": ["(2, 1, 32, 32) -> (2, 3, 32, 32), each colour is the image: True"],
}


# Each on one framework; the others are the same code, whose numbers are compared above.
RUNS = [
    pytest.param(name, framework, marks=[] if (i + j) % 3 == 0 else pytest.mark.exhaustive)
    for i, name in enumerate(PRINTED)
    for j, framework in enumerate(FRAMEWORKS)
]


@pytest.mark.parametrize(("name", "framework"), RUNS)
def test_examples_print_what_the_pages_say(name, framework, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--backend", need(framework)])
    runpy.run_path(example(name).__file__, run_name="__main__")
    text = capsys.readouterr().out
    assert all(words in text for words in PRINTED[name])
    assert framework in text


def moved(model, framework):
    """The model on the first GPU, or on the CPU where there is none."""
    if framework == "torch":
        import torch

        return model.to("cuda" if torch.cuda.is_available() else "cpu")
    if framework == "flax":
        import jax
        from flax import nnx

        nnx.update(model, jax.device_put(nnx.state(model), jax.devices()[0]))
    return model  # Keras has put it there


def test_a_model_runs_with_a_gpu_and_without(framework):
    """A model goes where its framework puts it, and the verbs follow."""
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    net = bl.Sequential(bl.Dense(5), bl.BatchNorm(), bl.Tanh(), bl.Dense(2))
    model = moved(bl.lower(net, framework, input_shape=(4,)), framework)
    reference = bl.lower(net, "numpy", input_shape=(4,))
    for each in (model, reference):
        bl.fit(each, (x, x[:, :2]), loss="mse", optimizer=bl.SGD(0.1), epochs=3)
    np.testing.assert_allclose(bl.apply(model, x), bl.apply(reference, x), atol=1e-5)
    grads = bl.gradients(model, x, np.ones((3, 2), np.float32))
    assert {grad.dtype for grad in grads.values()} == {np.dtype(np.float32)}

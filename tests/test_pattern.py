"""Blocks written as einops patterns mean what einops says, and are native in every framework."""

import dataclasses
import math
import os
import subprocess
import sys

import einops
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import blocks as bl
from blocks._parity import random_params, relative
from blocks._spec import Spec
from blocks.pattern import REDUCTIONS
from conftest import need


@st.composite
def patterns(draw):
    """A pattern that reduces some of its axes, the lengths of all, and an input's shape."""
    names = ["b", *draw(st.permutations("cdefg"))[: draw(st.integers(0, 5))]]
    lengths = {name: draw(st.integers(1, 4)) for name in names}

    def side(names):
        """Axes in groups, some of them 1."""
        groups, rest = [], list(names)
        while rest:
            count = draw(st.integers(0, min(3, len(rest))))
            groups.append(rest[:count])
            rest = rest[count:]
        return groups

    left = side(names[1:])
    kept = draw(st.lists(st.sampled_from(names[1:]), unique=True)) if names[1:] else []
    right = side(draw(st.permutations(kept)))
    text = " -> ".join(" ".join(["b", *(f"({' '.join(g)})" for g in s)]) for s in (left, right))
    shape = tuple(math.prod(lengths[a] for a in group) for group in left)
    return text, {a: n for a, n in lengths.items() if a != "b"}, shape, lengths["b"]


@settings(deadline=None, max_examples=200)
@given(patterns())
def test_any_pattern_is_worked_out_as_einops_does(drawn):
    """The steps that backends without einops take, one by one."""
    pattern, lengths, shape, batch = drawn
    node = bl.infer(bl.Reduce(pattern, "sum", **lengths), shape, dtype="float64")
    x = np.random.default_rng(0).normal(size=(batch, *shape))
    wanted = einops.reduce(x, pattern, "sum", **lengths)
    facts = node.resolved
    y = x.reshape(batch, *facts["split"]).sum(tuple(axis + 1 for axis in facts["reduced"]))
    y = y.transpose(0, *(axis + 1 for axis in facts["order"])).reshape(batch, *node.out_spec.shape)
    np.testing.assert_allclose(y, wanted, atol=1e-12)
    np.testing.assert_allclose(bl.apply(bl.lower(node, "numpy"), x), wanted, atol=1e-12)


BY_DIFFERENCES = [
    (bl.Rearrange("b (h h2) w c -> b (c h2) 1 (h w)", h2=2), (4, 3, 2)),
    *((bl.Reduce("b (h 2) w c -> b (c h)", r), (4, 3, 2)) for r in REDUCTIONS),
    (bl.EinMix("b (h h2) w c -> b o (h w)", "o c h2", "o w", h2=2, o=3), (4, 3, 2)),
    (bl.EinMix("b h ... -> b ... o 1", "o", "o", o=3), (4, 3, 2)),
    (bl.EinMix("b ... c -> b (...) o", "c o", o=3), (4, 3, 2)),
]


@pytest.mark.parametrize(("block", "shape"), BY_DIFFERENCES, ids=str)
def test_the_references_gradients_are_those_of_its_outputs(block, shape):
    """Central differences of sum(cotangent * output)."""
    node = bl.infer(block, shape, dtype="float64")
    params = {path: a.astype(np.float64) for path, a in random_params(node, 0).items()}
    rng = np.random.default_rng(1)
    x, cotangent = rng.normal(size=(3, *shape)), rng.normal(size=(3, *node.out_spec.shape))

    def objective(x, params):
        return (bl.apply(bl.lower(node, "numpy", params=params), x) * cotangent).sum()

    grads = bl.gradients(bl.lower(node, "numpy", params=params), x, cotangent)
    for name, array in {"input": x, **params}.items():
        found = np.zeros_like(array)
        for index in np.ndindex(array.shape):
            moved = []
            for step in (1e-6, -1e-6):
                other = array.copy()
                other[index] += step
                moved.append(
                    objective(other, params)
                    if name == "input"
                    else objective(x, params | {name: other})
                )
            found[index] = (moved[0] - moved[1]) / 2e-6
        assert relative(grads[name], found)[0] < 1e-7, name


def test_the_gradient_of_a_product_with_zeros(backend):
    """One zero: only it moves the product; two: none does."""
    x = np.array([[2.0, 3.0, 4.0], [2.0, 0.0, 4.0], [0.0, 0.0, 4.0]])
    model = bl.lower(bl.Reduce("b c -> b", "prod"), backend, input_shape=(3,), dtype="float64")
    assert bl.apply(model, x).tolist() == [24, 0, 0]
    wanted = [[12, 8, 6], [0, 8, 0], [0, 0, 0]]
    np.testing.assert_allclose(bl.gradients(model, x, np.ones(3))["input"], wanted, rtol=1e-6)


@pytest.mark.parametrize("reduction", ["max", "min"])
def test_equal_numbers_share_a_gradient_or_the_first_has_it(reduction, backend):
    x = np.array([[1.0, 1.0, 1.0, 1.0]])
    model = bl.lower(bl.Reduce("b c -> b", reduction), backend, input_shape=(4,))
    found = bl.gradients(model, x, np.ones(1))["input"].tolist()
    first = backend in ("numpy", "flax")
    assert found == ([[1, 0, 0, 0]] if first else [[0.25] * 4])


def test_one_pattern_has_one_form():
    block = bl.Rearrange("b  (h h2) w->b h (h2 w)", h2=2)
    assert block == bl.Rearrange("b (h h2) w -> b h (h2 w)", axes_lengths={"h2": np.int64(2)})
    assert repr(block) == "Rearrange(pattern='b (h h2) w -> b h (h2 w)', h2=2)"
    assert dataclasses.replace(block, axes_lengths={"h2": 3}).axes_lengths == (("h2", 3),)


ANY_LENGTH = [
    bl.Rearrange("b t (h d) -> b h t d", h=2),
    bl.Rearrange("b (t p) c -> b t (p c)", p=5),
    bl.Rearrange("b ... c -> b (c ...)"),
    bl.Reduce("b t c -> b c", "mean"),
    bl.Sequential(bl.Rearrange("b t c -> b c t"), bl.Reduce("b c ... -> b c", "max"), bl.Dense(3)),
    bl.EinMix("b t (h c) -> b (h o) t", "h c o", "o", h=2, o=3),
]


@pytest.mark.parametrize("block", ANY_LENGTH, ids=str)
def test_any_length(block, framework):
    assert bl.parity(block, (None, 6), backends=[framework])
    model = bl.lower(block, framework, input_shape=(None, 6))
    reference = bl.lower(block, "numpy", input_shape=(None, 6))
    bl.load_params(reference, bl.params_of(model))
    for length in (5, 10):
        x = np.random.default_rng(0).normal(size=(2, length, 6))
        assert relative(bl.apply(model, x), bl.apply(reference, x))[0] < 1e-6


def test_any_length_is_checked_when_it_is_known(backend):
    model = bl.lower(bl.Rearrange("b (t p) c -> b t (p c)", p=4), backend, input_shape=(None, 6))
    with pytest.raises(bl.ShapeError, match=r"splits axis 0 of .* but 4 does not divide 6"):
        bl.apply(model, np.zeros((2, 6, 6)))


def test_keras_knows_all_lengths_but_one():
    need("keras")
    node = bl.infer(bl.Rearrange("b h w (c d) -> b h w c d", d=2), (None, None, 4))
    with pytest.raises(bl.UnsupportedError) as error:
        bl.lower(node, "keras")
    assert str(error.value) == (
        "keras cannot lower Rearrange at the top with several axes of any length: its Reshape "
        "works out one of them.\n  Give the others to infer."
    )
    bl.lower(bl.Rearrange("b h w c -> b c w h"), "keras", input_shape=(None, None, 4))


@pytest.mark.parametrize("dtype", ["int32", "bool"])
def test_whole_numbers_are_rearranged_too(dtype, backend):
    block = bl.Rearrange("b (h h2) w -> b w h2 h", h2=2)
    x = np.random.default_rng(0).integers(0, 2, (3, 4, 5)).astype(dtype)
    y = bl.apply(bl.lower(block, backend, input_shape=Spec((4, 5), dtype)), x)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, einops.rearrange(x, block.pattern, h2=2))


# What EinMix is, in terms of other blocks.


@pytest.mark.parametrize(
    ("mix", "other", "shape"),
    [
        (bl.EinMix("b ... c -> b ... o", "c o", "o", o=4), bl.Dense(4), (5, 3)),
        (
            bl.EinMix("b (h h2) (w w2) c -> b h w o", "h2 w2 c o", "o", h2=2, w2=3, o=4),
            bl.Conv(4, (2, 3), stride=(2, 3)),
            (4, 6, 5),
        ),
    ],
    ids=["Dense", "Conv"],
)
def test_ein_mix_is_a_dense_or_a_convolution_without_overlap(mix, other, shape):
    nodes = bl.infer(mix, shape), bl.infer(other, shape)
    params = random_params(nodes[0], 0)
    x = np.random.default_rng(0).normal(size=(2, *shape))
    found = [bl.apply(bl.lower(node, "numpy", params=params), x) for node in nodes]
    assert relative(*found)[0] < 1e-6
    work = [node.form.multiply_adds(node.in_spec, node.out_spec) for node in nodes]
    assert work[0] == work[1]


MIX = bl.EinMix("b t (g c) -> b t (g o)", "g c o", "g o", g=4, o=50)


@pytest.mark.parametrize("native", ["", "numpy", "torch", "flax"])  # Keras draws as Glorot did
def test_the_first_kernel_is_drawn_as_einops_does(native):
    """U(-sqrt(3 / c), sqrt(3 / c)): heads and outputs are no inputs of a sum."""
    if native:
        model = bl.lower(MIX, need(native), input_shape=(2, 300), init="native")
        kernel = bl.params_of(model)["kernel"]
    else:
        kernel = bl.init(bl.infer(MIX, (2, 300)))["kernel"]
    bound = math.sqrt(3 / 75)
    assert kernel.shape == (4, 75, 50)
    assert 0.99 * bound < np.abs(kernel).max() <= bound
    assert abs(kernel.mean()) < 0.02 * bound
    assert kernel.std() == pytest.approx(math.sqrt(1 / 75), rel=0.02)


def test_ein_mix_in_mixed_precision(framework):
    options = {"dtype": "bfloat16", "param_dtype": "float32", "backends": [framework]}
    report = bl.parity(NET, (4, 6, 3), steps=0, **options)
    assert all(report.backends), f"\n{report}"


@pytest.mark.parametrize("bias", [None, "o"])
def test_flax_computes_in_the_narrower_dtype(bias):
    need("flax")
    import jax.numpy as jnp

    mix = bl.EinMix("b c -> b o", "c o", bias, o=3)
    options = {"input_shape": (4,), "dtype": "bfloat16", "param_dtype": "float32"}
    model = bl.lower(mix, "flax", **options)
    assert model.kernel.dtype == jnp.float32
    assert model(jnp.ones((2, 4), jnp.bfloat16)).dtype == jnp.bfloat16


def test_fans_are_those_of_the_sum():
    """Glorot's variance is 2 / (fan_in + fan_out)."""
    block = dataclasses.replace(MIX, kernel_init="glorot_normal")
    kernel = bl.init(bl.infer(block, (2, 300)))["kernel"]
    assert kernel.std() == pytest.approx(math.sqrt(2 / (75 + 50)), rel=0.02)


# Native


NET = bl.Sequential(
    bl.Rearrange("b (h h2) (w w2) c -> b (h w) (h2 w2 c)", h2=2, w2=2),
    bl.EinMix("b t (g c) -> b t (g o)", "g c o", "o g", g=2, o=5),
    bl.Tanh(),
    bl.Reduce("b (t 3) ... -> b ... t", "mean"),
    bl.EinMix("b ... t -> b (...) 1 o", "t o", o=2),
)


def lowered(backend):
    node = bl.infer(NET, (4, 6, 3))
    x = np.random.default_rng(0).normal(size=(7, 4, 6, 3)).astype(np.float32)
    return bl.lower(node, backend, params=random_params(node, 0)), x


def close(got, wanted, tolerance=1e-6):
    assert relative(np.asarray(got), np.asarray(wanted))[0] < tolerance


def test_torch_has_einops_own_layers():
    need("torch")
    import torch
    from einops.layers import torch as layers

    model, x = lowered("torch")
    kinds = [layers.Rearrange, layers.EinMix, torch.nn.Tanh, layers.Reduce, layers.EinMix]
    assert [type(module) for module in model] == kinds
    assert list(model.state_dict()) == ["1.weight", "1.bias", "4.weight"]
    wanted, tensor = bl.apply(model, x), torch.from_numpy(x)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    close(compiled(tensor).detach(), wanted)
    compiled(tensor).sum().backward()
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(model.eval(), (tensor,), dynamic_shapes=({0: batch},))
    close(program.module()(tensor).detach(), wanted)
    close(program.module()(tensor[:3]).detach(), wanted[:3])


def test_keras_has_stock_layers_that_reload_alone(tmp_path):
    need("keras")
    model, x = lowered("keras")
    assert all(type(layer).__module__.startswith("keras.") for layer in model.layers)
    close(bl.apply(model, x[:2]), bl.apply(model, x)[:2])
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", x)
    code = (
        "import sys; sys.modules['blocks'] = sys.modules['backends'] = None\n"
        "sys.modules['einops'] = None\n"
        "import keras, numpy as np\n"
        "model = keras.saving.load_model('model.keras')\n"
        "np.save('y.npy', np.asarray(model(np.load('x.npy'))))\n"
    )
    options = {"cwd": tmp_path, "capture_output": True, "text": True}
    environment = {**os.environ, "PYTHONPATH": ""}
    run = subprocess.run([sys.executable, "-c", code], **options, env=environment)
    assert run.returncode == 0, run.stderr
    close(np.load(tmp_path / "y.npy"), bl.apply(model, x))


def test_flax_works_with_jit_grad_vmap_split_and_merge():
    need("flax")
    import jax
    from flax import nnx

    model, x = lowered("flax")
    wanted = bl.apply(model, x)
    close(nnx.jit(lambda m, x: m(x))(model, x), wanted)
    grads = nnx.grad(lambda m: m(x).sum())(model)
    right = bl.gradients(model, x, np.ones_like(wanted))
    close(grads["layers"][1]["kernel"].get_value(), right["1/kernel"], 1e-5)
    close(grads["layers"][1]["bias"].get_value(), right["1/bias"], 1e-5)
    graph, state = nnx.split(model)
    merged = nnx.merge(graph, state)
    close(merged(x), wanted)
    close(jax.vmap(lambda row: merged(row[None])[0])(x), wanted)
    pure = jax.jit(lambda state, x: nnx.merge(graph, state)(x))
    close(pure(state, x), wanted)


# The seeds: the practical on einops and the coffee image.


def test_the_perceptron_of_the_coffee_image():
    mlp = bl.Sequential(bl.Rearrange("b c h w -> b (c h w)"), bl.Dense(5), bl.ReLU(), bl.Dense(1))
    node = bl.infer(mlp, (3, 400, 600), layout="channels_first")
    assert node.children[0].out_spec.shape == (720_000,)
    assert node.out_spec.shape == (1,)
    assert bl.count(node) == 3_600_011


def test_the_mosaic_of_a_batch_is_made_outside_of_a_network():
    with pytest.raises(bl.FieldError, match="must begin with the batch"):
        bl.Rearrange("(b1 b2) c h w -> (b1 h) (b2 w) c", b1=2)


@pytest.mark.parametrize(
    ("reduction", "pool"), [("max", bl.MaxPool((2, 2))), ("mean", bl.AvgPool((2, 2)))]
)
def test_pooling_as_a_reduction(reduction, pool, backend):
    reduce = bl.Reduce("b c (h1 h2) (w1 w2) -> b c h1 w1", reduction, h2=2, w2=2)
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 6))
    options = {"input_shape": (3, 4, 6), "layout": "channels_first"}
    found = [bl.apply(bl.lower(block, backend, **options), x) for block in (reduce, pool)]
    assert relative(*found)[0] < 2e-7

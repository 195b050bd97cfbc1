"""Attention: who sees whom, rows that see nobody, padding, and the layers that come out."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import blocks as bl
from blocks._parity import random_params, relative
from cases import CASES
from conftest import need

SELF = bl.MultiHeadAttention(2)
GROUPED = bl.MultiHeadAttention(4, head_size=3, num_kv_heads=2)
STEPS = bl.MultiHeadAttention(4, head_size=3, num_kv_heads=2, features=7)  # no Keras layer has it
KINDS = pytest.mark.parametrize("block", [SELF, GROUPED, STEPS], ids=["self", "grouped", "steps"])


def lowered(block, shape, backend, dtype="float64"):
    node = bl.infer(block, shape, dtype=dtype)
    return bl.lower(node, backend, params=random_params(node, 0))


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def close(got, wanted, tolerance=1e-7):
    error, where = relative(got, wanted)
    assert error < tolerance, where


def all_close(got, wanted, tolerance):
    """Gradients, judged by the largest: that of key_bias is 0 but for rounding."""
    largest = max(np.abs(a).max() for a in wanted)
    error, where = relative(tuple(got), tuple(wanted), largest)
    assert error < tolerance, where


# What it means


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@KINDS
def test_the_reference_is_what_torch_computes(block, masked, causal):
    """From F.scaled_dot_product_attention alone; it too gives 0 where a row sees nothing."""
    need("torch")
    import torch
    import torch.nn.functional as F

    block = replace(block, causal=causal, mask=masked)
    shape = ((5, 6), (7, 4), (7, 3), *(((7,),) if masked else ()))
    model = lowered(block, shape, "numpy")
    arrays = [normal(3, *sizes, seed=i) for i, sizes in enumerate(shape[:3])]
    mask = normal(3, 7, seed=9) > 0
    mask[0] = False
    x = (*arrays, *((mask,) if masked else ()))
    cotangent = normal(3, 5, block.features or 6, seed=8)

    q, k, v = tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    params = {n: torch.tensor(a, requires_grad=True) for n, a in bl.params_of(model).items()}

    def heads(name, value, count):
        y = value @ params[f"{name}_kernel"] + params[f"{name}_bias"]
        return y.unflatten(-1, (count, -1)).transpose(1, 2)

    kv_heads = block.num_kv_heads or block.num_heads
    seen = torch.ones(5, 7, dtype=torch.bool)
    seen = seen.tril() if causal else seen
    seen = seen & torch.tensor(mask)[:, None, None] if masked else seen
    y = F.scaled_dot_product_attention(
        heads("query", q, block.num_heads),
        heads("key", k, kv_heads),
        heads("value", v, kv_heads),
        attn_mask=seen,
        enable_gqa=True,
    )
    y = y.transpose(1, 2).flatten(2) @ params["out_kernel"] + params["out_bias"]
    wanted = torch.autograd.grad(y, [*tensors, *params.values()], torch.tensor(cotangent))

    close(bl.apply(model, x), y.detach().numpy(), 1e-13)
    grads = bl.gradients(model, x, cotangent)
    found = [*grads["input"][:3], *(grads[name] for name in params)]
    all_close(found, [g.numpy() for g in wanted], 1e-13)


@pytest.mark.parametrize("lengths", [(5, 5), (4, 6), (6, 4)])
@KINDS
def test_causal_counts_from_the_start(block, lengths, backend):
    """Position i feels keys up to i and no later ones, whatever the lengths."""
    queries, keys = lengths
    model = lowered(replace(block, causal=True), ((queries, 6), (keys, 4)), backend)
    query, key = normal(2, queries, 6), normal(2, keys, 4, seed=1)
    before = bl.apply(model, (query, key))
    for j in range(keys):
        changed = key.copy()
        changed[:, j] += 1
        moved = np.abs(bl.apply(model, (query, changed)) - before).max(-1) > 1e-9
        assert np.array_equal(moved, np.broadcast_to(np.arange(queries) >= j, moved.shape))


UNSEEN = [
    (False, [[True] * 5, [False] * 5], [[False] * 5, [True] * 5]),
    # causal and padded at the start: the first positions see nobody
    (
        True,
        [[True] * 5, [False, False, True, False, True]],
        [[False] * 5, [True] * 2 + [False] * 3],
    ),
]


@pytest.mark.parametrize(
    ("dtype", "training"),
    [
        ("float64", False),
        pytest.param("float32", True, marks=pytest.mark.exhaustive),
        pytest.param("float16", False, marks=pytest.mark.exhaustive),
    ],
)
@pytest.mark.parametrize(("causal", "mask", "blind"), UNSEEN, ids=["all", "causal"])
@KINDS
def test_a_row_that_sees_nobody_is_the_bias(block, causal, mask, blind, training, dtype, backend):
    """Nothing else: not NaN, not the mean of all values; and it has no gradient."""
    model = lowered(replace(block, causal=causal, mask=True), ((5, 6), (5,)), backend, dtype)
    x, blind = (normal(2, 5, 6), np.array(mask)), np.array(blind)
    y = bl.apply(model, x, training=training)
    assert np.isfinite(y.astype(np.float64)).all()
    bias = bl.params_of(model)["out_bias"]
    np.testing.assert_array_equal(y[blind], np.broadcast_to(bias, y[blind].shape))
    assert not (y[~blind] == bias).all(-1).any()

    grads = bl.gradients(model, x, blind[..., None] * normal(*y.shape), training=training)
    for path, gradient in {**grads, "input": grads["input"][0]}.items():
        assert path == "out_bias" or not gradient.any(), path
    assert grads["out_bias"].any()


@pytest.mark.parametrize("causal", [False, True])
@KINDS
def test_what_is_padded_changes_nothing(block, causal, backend):
    """Neither outputs nor gradients, however large; and it has no gradient itself."""
    model = lowered(replace(block, causal=causal, mask=True), ((5, 6), (7, 4), (7,)), backend)
    query, key, mask = normal(3, 5, 6), normal(3, 7, 4, seed=1), normal(3, 7, seed=2) > 0
    other = np.where(mask[..., None], key, 100 * normal(3, 7, 4, seed=3))
    cotangent = normal(*bl.apply(model, (query, key, mask)).shape, seed=4)
    one, two = ((query, k, mask) for k in (key, other))
    close(bl.apply(model, two), bl.apply(model, one), 1e-15)
    grads = [bl.gradients(model, x, cotangent) for x in (one, two)]
    assert not grads[1]["input"][1][~mask].any()
    (query, key, _), (other_query, other_key, _) = (g.pop("input") for g in grads)
    wanted, got = ([*g.values()] for g in grads)
    all_close([other_query, other_key, *got], [query, key, *wanted], 1e-13)


@KINDS
def test_padding_is_as_good_as_leaving_out(block, backend):
    padded = lowered(replace(block, mask=True), ((5, 6), (7, 4), (7,)), backend)
    short = bl.lower(bl.infer(block, ((5, 6), (4, 4)), dtype="float64"), backend)
    bl.load_params(short, bl.params_of(padded))
    query, key = normal(3, 5, 6), normal(3, 7, 4, seed=1)
    mask = np.tile(np.arange(7) < 4, (3, 1))
    close(bl.apply(padded, (query, key, mask)), bl.apply(short, (query, key[:, :4])), 1e-14)


@pytest.mark.parametrize("shape", [((None, 6), (None,)), ((None, 6), (None, 4), (None,))])
@KINDS
def test_any_length(block, shape, framework):
    block = replace(block, causal=True, mask=True)
    assert bl.parity(block, shape, backends=[framework], steps=0)


def test_equal_weights_give_the_mean_of_what_is_seen(backend):
    """With kernels of queries at 0 and the others at 1, by hand."""
    node = bl.infer(bl.MultiHeadAttention(1, causal=True, mask=True), ((4, 1), (4,)))
    params = {path: np.ones(spec.shape) for path, spec in node.param_specs().items()}
    params |= {name: np.zeros_like(a) for name, a in params.items() if "bias" in name}
    params["query_kernel"] *= 0
    model = bl.lower(node, backend, params=params)
    x = np.array([[[1.0], [2.0], [3.0], [6.0]]]), np.array([[False, True, False, True]])
    np.testing.assert_allclose(bl.apply(model, x)[0, :, 0], [0, 2, 2, 4], rtol=1e-6)


def test_multiply_adds():
    node = bl.infer(GROUPED, ((5, 6), (7, 4), (7, 3)))
    query, key, value, out = 5 * 6 * 12, 7 * 4 * 6, 7 * 3 * 6, 5 * 12 * 6
    attention = 2 * 4 * 5 * 7 * 3
    count = node.form.multiply_adds(node.in_spec, node.out_spec)
    assert count == query + key + value + out + attention
    unknown = bl.infer(SELF, (None, 6))
    assert unknown.form.multiply_adds(unknown.in_spec, unknown.out_spec) is None


def test_kernels_are_drawn_as_matrices():
    """Glorot's bound is that of all heads together."""
    params = bl.init(bl.infer(bl.MultiHeadAttention(8), (5, 64)))
    assert params["query_kernel"].shape == (64, 64)
    for name in ("query", "key", "value", "out"):
        bound = np.sqrt(6 / 128)
        assert 0.98 * bound < np.abs(params[f"{name}_kernel"]).max() <= bound


# What comes out

ROWS = [
    pytest.param(block, case.shape, id=f"{case.name}-{name}")
    for case in CASES
    if case.name.startswith("MultiHeadAttention")
    for name, block in case.variants()
]


@pytest.mark.parametrize(("block", "shape"), ROWS)
def test_layers_are_built_at_the_right_sizes(block, shape):
    """Before any parameter is loaded: nnx would take a kernel of any size afterwards."""
    node = bl.infer(block, shape)
    model = bl.lower(node, need("flax"), init="native")
    sizes = {path: array.shape for path, array in bl.params_of(model).items()}
    assert sizes == {path: spec.shape for path, spec in node.param_specs().items()}


ENCODER = bl.Sequential(
    bl.Residual(bl.Sequential(bl.LayerNorm(), bl.MultiHeadAttention(2, causal=True))),
    bl.Residual(bl.Sequential(bl.LayerNorm(), bl.Dense(12), bl.GELU(), bl.Dense(6))),
)


def test_in_a_transformer(framework):
    assert bl.parity(ENCODER, (5, 6), backends=[framework], dtype="float64")
    assert bl.parity(ENCODER, (5, 6), backends=[framework])


class TestTorch:
    @pytest.fixture(autouse=True)
    def torch(self):
        need("torch")
        import torch

        return torch

    @pytest.mark.parametrize("sizes", [(6, 6, 6), (6, 4, 3), (6, 6, 3)])
    @pytest.mark.parametrize("bias", [True, False])
    def test_takes_the_state_dict_of_torchs_own_layer(self, torch, sizes, bias):
        query, key, value = sizes
        stock = torch.nn.MultiheadAttention(
            query, 2, kdim=key, vdim=value, bias=bias, batch_first=True
        )
        block = bl.MultiHeadAttention(2, use_bias=bias)
        node = bl.infer(block, ((5, query), (7, key), (7, value)))
        model = bl.lower(node, "torch")
        model.load_state_dict(stock.state_dict())
        q, k, v = x = tuple(torch.randn(3, n, m) for n, m in zip((5, 7, 7), sizes, strict=True))
        with torch.no_grad():
            torch.testing.assert_close(model(x), stock(q, k, v)[0])
        reference = bl.lower(node, "numpy", params=bl.params_of(model))
        arrays = tuple(a.numpy() for a in x)
        close(bl.apply(model, arrays), bl.apply(reference, arrays), 1e-5)

    @pytest.mark.parametrize("kind", [{}, {"causal": True}, {"causal": True, "mask": True}])
    @KINDS
    def test_compiles_and_exports(self, torch, block, kind):
        block = replace(block, **kind)
        shape = ((5, 6), (5,)) if block.mask else (5, 6)
        model = lowered(block, shape, "torch", "float32").eval()
        x = torch.randn(3, 5, 6)
        mask = torch.tensor([[True] * 5, [False] * 5, [False, True, True, False, True]])
        x = (x, mask) if block.mask else x
        wanted = model(x)
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(x), wanted)
        compiled(x).sum().backward()
        for grad in (torch.enable_grad(), torch.no_grad()):
            with grad:
                program = torch.export.export(model, (x,))
            torch.testing.assert_close(program.module()(x), wanted)


class TestKeras:
    @pytest.fixture(autouse=True)
    def keras(self):
        need("keras")
        import keras

        return keras

    @pytest.mark.parametrize(
        ("block", "names"),
        [
            (SELF, ["MultiHeadAttention"]),
            (GROUPED, ["GroupedQueryAttention"]),
            (STEPS, ["EinsumDense", "Softmax"]),
        ],
        ids=["self", "grouped", "steps"],
    )
    def test_is_keras_own_layer_where_it_has_one(self, keras, block, names):
        model = bl.lower(block, "keras", input_shape=(5, 6))
        found = [type(layer).__name__ for layer in model.layers]
        assert all(name in found for name in names)
        assert all(type(layer).__module__.startswith("keras.") for layer in model.layers)

    @pytest.mark.parametrize("kind", [{}, {"causal": True, "mask": True}])
    @KINDS
    def test_reloads_in_a_fresh_process_without_isoblocks(self, block, kind, tmp_path):
        block = replace(block, **kind)
        model = lowered(block, ((5, 6), (5,)) if block.mask else (5, 6), "keras", "float32")
        x, mask = normal(3, 5, 6).astype(np.float32), normal(3, 5, seed=1) > 0
        model.save(tmp_path / "model.keras")
        np.savez(tmp_path / "data.npz", x=x, mask=mask)
        value = "(data['x'], data['mask'])" if block.mask else "data['x']"
        code = (
            "import sys; sys.modules['blocks'] = sys.modules['backends'] = None\n"
            "import keras, numpy as np\n"
            "data = np.load('data.npz')\n"
            f"np.save('y.npy', keras.models.load_model('model.keras')({value}))\n"
        )
        run = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": ""},
        )
        assert run.returncode == 0, run.stderr
        wanted = bl.apply(model, (x, mask) if block.mask else x)
        np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), wanted)

    @pytest.mark.parametrize("kind", [{}, {"causal": True}, {"mask": True}])
    @pytest.mark.parametrize("kv_heads", [2, 1])
    def test_only_the_scale_keeps_its_layers_from_float64(self, kv_heads, kind):
        """1 / sqrt(4) is exact in float32 too, so nothing else is lost."""
        block = bl.MultiHeadAttention(2, head_size=4, num_kv_heads=kv_heads, **kind)
        shape = ((5, 6), (5,)) if block.mask else (5, 6)
        node = bl.infer(block, shape, dtype="float64")
        x, mask = normal(3, 5, 6), normal(3, 5, seed=1) > 0
        x = (x, mask) if block.mask else x
        params = random_params(node, 0)
        one, two = (bl.lower(node, name, params=params) for name in ("keras", "numpy"))
        close(bl.apply(one, x), bl.apply(two, x), 1e-12)
        got, wanted = (bl.gradients(model, x, normal(3, 5, 6, seed=2)) for model in (one, two))
        del got["input"], wanted["input"]
        all_close(got.values(), wanted.values(), 1e-12)


class TestFlax:
    @pytest.fixture(autouse=True)
    def nnx(self):
        need("flax")
        from flax import nnx

        return nnx

    def test_is_nnxs_own_layer_where_that_says_it(self, nnx):
        for block, shape in [(SELF, (5, 6)), (STEPS, (5, 6)), (SELF, ((5, 6), (7, 4)))]:
            assert type(bl.lower(block, "flax", input_shape=shape)) is nnx.MultiHeadAttention

    @pytest.mark.parametrize("kind", [{}, {"causal": True, "mask": True}])
    @KINDS
    def test_jit_grad_vmap_split_merge(self, nnx, block, kind):
        import jax

        block = replace(block, **kind)
        node = bl.infer(block, ((5, 6), (5,)) if block.mask else (5, 6))
        model = bl.lower(node, "flax", params=random_params(node, 0))
        x, mask = normal(3, 5, 6).astype(np.float32), normal(3, 5, seed=1) > 0
        x = (x, mask) if block.mask else (x,)
        wanted = bl.apply(model, x if block.mask else x[0])
        close(np.array(nnx.jit(lambda m, *x: m(*x))(model, *x)), wanted, 1e-6)
        grads = nnx.grad(lambda m: m(*x).sum())(model)
        right = bl.gradients(model, x if block.mask else x[0], np.ones_like(wanted))
        close(np.array(grads["out"]["bias"].get_value()), right["out_bias"], 1e-6)
        merged = nnx.merge(*nnx.split(model))
        close(np.array(merged(*x)), wanted, 1e-6)
        one_by_one = jax.vmap(lambda *row: merged(*(a[None] for a in row))[0])(*x)
        close(np.array(one_by_one), wanted, 1e-6)

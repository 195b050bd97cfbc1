"""Repeat: a plain list of layers in torch and Keras, a loop over stacked parameters in Flax."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import blocks as bl
from blocks._parity import random_params
from conftest import need

BODY = bl.Residual(bl.Sequential(bl.LayerNorm(), bl.Dense(6), bl.Dropout(0.5), bl.Dense(4)))


def lowered(backend, block, times=3, shape=(5, 4)):
    node = bl.infer(bl.Sequential(body=bl.Repeat(block, times)), shape)
    params = random_params(node, 0)
    return bl.lower(node, backend, params=params), params


def test_parameters_have_one_form_however_they_are_kept(backend):
    model, params = lowered(backend, BODY, times=4)
    assert "body/3/body/1/kernel" in params
    found = bl.params_of(model)
    assert list(found) == list(params)
    assert all(np.array_equal(found[path], params[path]) for path in params)
    changed = {path: array + 1 for path, array in params.items()}
    bl.load_params(model, changed)
    assert all(np.array_equal(array, changed[p]) for p, array in bl.params_of(model).items())


def test_it_has_the_parameters_of_a_sequential(backend):
    model, params = lowered(backend, BODY)
    plain = bl.infer(bl.Sequential(body=bl.Sequential(*[BODY] * 3)), (5, 4))
    x = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)
    wanted = bl.apply(bl.lower(plain, backend, params=params), x)
    np.testing.assert_allclose(bl.apply(model, x), wanted, rtol=1e-5, atol=1e-5)


def test_torch_has_a_plain_list():
    need("torch")
    from torch import nn

    model, _ = lowered("torch", bl.Dense(4))
    assert [type(layer) for layer in model.body] == [nn.Linear] * 3
    assert "body.2.weight" in model.state_dict()
    text = bl.source(bl.Repeat(bl.Dense(4), 3), "torch", input_shape=(4,))
    assert "nn.Sequential(*[nn.Linear(4, 4) for _ in range(3)])" in text


class TestFlax:
    """One program for any number of repetitions."""

    @pytest.fixture(autouse=True)
    def flax(self):
        need("flax")

    def test_stacks_parameters(self):
        model, params = lowered("flax", bl.Dense(4))
        loop = model.layers[0]
        assert type(loop).__name__ == "Repeat"
        assert loop.block.kernel.shape == (3, 4, 4)
        assert np.array_equal(loop.block.kernel[...][2], params["body/2/kernel"])

    def test_the_program_does_not_grow(self):
        import jax
        from flax import nnx

        def size(times):
            model, _ = lowered("flax", BODY, times)
            graph, state = nnx.split(model)
            x = np.zeros((2, 5, 4), np.float32)
            program = jax.make_jaxpr(lambda state: nnx.merge(graph, state)(x))(state)
            return len(str(program).splitlines())

        assert size(3) == size(300)

    def test_every_repetition_drops_other_numbers(self):
        drop = bl.Sequential(bl.Dropout(0.5), bl.Identity())
        model = bl.lower(bl.Repeat(drop, 3), "flax", input_shape=(1000,))
        found = bl.apply(model, np.ones((1, 1000), np.float32), training=True)
        kept = np.count_nonzero(found)
        assert 80 < kept < 170  # 125 if the three are independent, 500 if they are one
        assert not np.array_equal(found, bl.apply(model, np.ones((1, 1000)), training=True))

    @pytest.mark.parametrize(
        "block",
        [bl.Shared("tied", bl.Dense(4)), bl.Dense(6), bl.Sequential(bl.Dense(7), bl.Dense(4))],
    )
    def test_unlike_repetitions_are_a_list(self, block):
        model = bl.lower(bl.Repeat(block, 3), "flax", input_shape=(4,))
        alike = isinstance(block, bl.Sequential)
        assert type(model).__name__ == ("Repeat" if alike else "Sequential")


def test_arrays_that_were_given_stay_the_users_own(backend):
    """Neither does training change them, nor changing them the model."""
    net = bl.Sequential(bl.Embedding(7, 4), bl.Repeat(bl.Dense(4), 2), bl.BatchNorm())
    node = bl.infer(net, (5,))
    params = random_params(node, 0)
    before = {path: array.copy() for path, array in params.items()}
    model = bl.lower(node, backend, params=params)
    ids = np.random.default_rng(0).integers(0, 7, (6, 5))
    target = np.ones((6, 5, 4), np.float32)
    bl.fit(model, (ids, target), loss="mse", optimizer=bl.SGD(0.1))
    assert all(np.array_equal(params[path], before[path]) for path in params)
    learned = bl.params_of(model)
    for array in (*params.values(), *learned.values()):
        array[...] = 9
    assert all((array != 9).any() for array in bl.params_of(model).values())


def test_large_parameters_are_drawn_in_place():
    """Float64 numbers for all of them would take twice their memory beside them."""
    node = bl.infer(bl.Dense(4000, use_bias=False), (1000,))
    tracemalloc.start()
    try:
        params = bl.init(node)
        drawn = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        bl.lower(node, "numpy", params=params)
        lowered = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    size = params["kernel"].nbytes
    assert drawn < 1.6 * size
    # the copy, and room that is never touched: of what is not drawn, and for gradients
    assert lowered < 6.2 * size

"""Random numbers: shared draws are the same everywhere, native ones have the right statistics."""

import importlib

import numpy as np
import pytest

import blocks as bl
from blocks._draws import stream_key
from conftest import FRAMEWORKS, need

ALL = ["numpy", *FRAMEWORKS]

# Known answers of Threefry-2x32 with 20 rounds: key, counter, result (from Random123).
KNOWN = [
    ((0x00000000, 0x00000000), (0x00000000, 0x00000000), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
]


@pytest.mark.parametrize(("key", "counter", "words"), KNOWN, ids=["zeros", "ones", "pi"])
def test_the_stream_is_threefry(key, counter, words, backend):
    place, calls = counter
    if backend == "numpy":
        from backends.numpy.modules.base import threefry

        found = threefry(key, np.array([place], dtype=np.int64), calls)
    else:
        modules = importlib.import_module(f"backends.{backend}.modules")
        if backend == "torch":
            import torch

            found = modules.threefry(key, torch.tensor([place]), torch.tensor(calls))
        elif backend == "flax":
            import jax.numpy as jnp

            counters = jnp.array([place], jnp.uint32), jnp.uint32(calls)
            found = modules.threefry(key, *counters)
        else:
            from keras import ops

            counters = [ops.convert_to_tensor(n, "uint32") for n in ([place], calls)]
            found = modules.threefry(key, *counters)
    assert tuple(int(np.asarray(w).item()) for w in found) == words


def drawn(backend, net, shape, x, *, seed=0, calls=1, layout="channels_last", draws="shared"):
    options = {"input_shape": shape, "seed": seed, "layout": layout, "draws": draws}
    model = bl.lower(net, backend, **options, dtype="float64")
    return [bl.apply(model, x, training=True) for _ in range(calls)]


def test_shared_draws_are_equal_on_every_backend_and_change_with_each_call(framework):
    x = np.ones((5, 6, 7))
    net = bl.Sequential(bl.Dropout(0.3), bl.Dropout(0.4))
    right = drawn("numpy", net, (6, 7), x, calls=3)
    found = drawn(framework, net, (6, 7), x, calls=3)
    np.testing.assert_allclose(found, right, rtol=1e-15)
    assert len({a.tobytes() for a in right}) == 3


def test_shared_draws_depend_on_seed_and_path_alone(framework):
    x = np.ones((5, 6))
    alone = drawn(framework, bl.Sequential(bl.Dropout(0.5), bl.Identity()), (6,), x)[0]
    again = drawn(framework, bl.Sequential(bl.Dropout(0.5), bl.Tanh()), (6,), x)[0]
    assert np.array_equal(np.tanh(alone), again)
    other = drawn(framework, bl.Sequential(bl.Dropout(0.5), bl.Identity()), (6,), x, seed=1)[0]
    moved = drawn(framework, bl.Sequential(bl.Identity(), bl.Dropout(0.5)), (6,), x)[0]
    assert not np.array_equal(alone, other)
    assert not np.array_equal(alone, moved)


def test_shared_draws_follow_the_program_not_the_memory(framework):
    """After a convolution the values lie in the backend's own layout; the draws do not care."""
    net = bl.Sequential(bl.Conv(4, (3, 2), padding="same"), bl.Dropout(0.5), bl.Conv(2, (2, 3)))
    for layout, shape in (("channels_last", (5, 6, 3)), ("channels_first", (3, 5, 6))):
        x = np.random.default_rng(0).normal(size=(2, *shape))
        right = drawn("numpy", net, shape, x, layout=layout)[0]
        np.testing.assert_allclose(drawn(framework, net, shape, x, layout=layout)[0], right, 1e-10)


def test_evaluation_draws_nothing_and_leaves_the_stream_alone(backend):
    x = np.ones((4, 50))
    model = bl.lower(bl.Dropout(0.5), backend, input_shape=(50,), draws="shared")
    other = bl.lower(bl.Dropout(0.5), backend, input_shape=(50,), draws="shared")
    assert np.array_equal(bl.apply(model, x), x)
    assert np.array_equal(bl.apply(model, x, training=True), bl.apply(other, x, training=True))


def test_shared_draws_have_the_right_statistics():
    x = np.ones((200, 500))
    y = drawn("numpy", bl.Dropout(0.3), (500,), x)[0]
    share = (y == 0).mean()
    assert abs(share - 0.3) < 5 * np.sqrt(0.3 * 0.7 / x.size)
    assert np.allclose(y[y != 0], 1 / 0.7)
    normal_statistics(drawn("numpy", bl.Sample(), ((500,), (500,)), (0 * x, 0 * x))[0])


def normal_statistics(z):
    """Mean, variance, skewness and kurtosis of normal numbers; neighbours uncorrelated."""
    n = z.size
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((z**power).mean() - moment) < 5 * np.sqrt(variance / n)
    assert abs((z[:, 1:] * z[:, :-1]).mean()) < 5 / np.sqrt(n)
    assert abs((z[1:] * z[:-1]).mean()) < 5 / np.sqrt(n)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_native_samples_are_normal(backend, dtype):
    shape = (300,)
    model = bl.lower(bl.Sample(), backend, input_shape=(shape, shape), dtype=dtype, seed=3)
    mean, log_variance = np.full((300, 300), 0.7), np.full((300, 300), -1.2)
    z = (bl.apply(model, (mean, log_variance), training=True) - 0.7) / np.exp(-0.6)
    normal_statistics(z.astype(np.float64))
    again = bl.apply(model, (mean, log_variance), training=True)
    assert not np.allclose((again - 0.7) / np.exp(-0.6), z)
    assert np.array_equal(bl.apply(model, (mean, log_variance)), mean.astype(dtype))


@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
@pytest.mark.parametrize("whole", [False, True])
def test_native_dropout_drops_its_share(backend, whole, layout):
    shape = (7, 90) if layout == "channels_last" else (90, 7)
    x = 1 + np.random.default_rng(0).random((60, *shape))
    net = bl.Dropout(0.3, whole_channels=whole)
    first, second = drawn(backend, net, shape, x, calls=2, layout=layout, draws="native")
    kept = first != 0
    np.testing.assert_allclose(first[kept], x[kept] / 0.7, rtol=1e-6)
    spatial = 1 if layout == "channels_last" else 2
    assert (kept.any(spatial) == kept.all(spatial)).all() == whole
    independent = kept.size / 7 if whole else kept.size
    assert abs(kept.mean() - 0.7) < 5 * np.sqrt(0.3 * 0.7 / independent)
    together = ((kept - 0.7) * ((second != 0) - 0.7)).mean() / 0.21
    assert abs(together) < 5 / np.sqrt(independent)
    evaluated = bl.apply(bl.lower(net, backend, input_shape=shape, layout=layout), x)
    np.testing.assert_allclose(evaluated, x, rtol=1e-6)


def test_a_shared_dropout_trains_alike():
    """Whole training runs with dropout and samples agree number by number."""
    net = bl.Sequential(bl.Dense(8), bl.Tanh(), bl.Dropout(0.4), bl.Dense(3))
    x = np.random.default_rng(0).normal(size=(40, 5))
    y = np.random.default_rng(1).integers(0, 3, 40)
    curves = []
    for name in ALL:
        model = bl.lower(net, need(name), input_shape=(5,), dtype="float64", draws="shared", seed=2)
        curves.append(bl.fit(model, (x, y), epochs=5, batch_size=8, optimizer=bl.SGD(0.1)).losses)
    assert len(set(curves[0])) == 25
    for curve in curves[1:]:
        np.testing.assert_allclose(curve, curves[0], rtol=1e-10)


def test_a_listing_can_have_shared_draws(framework):
    text = bl.source(bl.Dropout(0.5), framework, input_shape=(4,), draws="shared", seed=5)
    assert f"SharedDropout(0.5, key={stream_key(5, '')}" in text
    assert "def threefry" in text


def test_draws_is_one_of_two_words():
    with pytest.raises(bl.FieldError, match="draws must be one of 'native', 'shared', got 'same'"):
        bl.lower(bl.Dropout(0.5), "numpy", input_shape=(4,), draws="same")

"""Training: the same batches and the same curve on every backend."""

import numpy as np
import pytest

import blocks as bl
from blocks._train import batches

NET = bl.Sequential(
    bl.Conv(4, (3, 2), padding="same"),
    bl.BatchNorm(),
    bl.SiLU(),
    bl.AvgPool((2, 2)),
    bl.Residual(bl.Sequential(bl.Conv(4, (2, 2), padding="same"), bl.Tanh())),
    bl.Flatten(),
    bl.Dense(3),
)


def data(loss, dtype):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(23, 6, 5, 2)).astype(dtype)
    y = rng.integers(0, 3, 23) if loss == "cross_entropy" else rng.normal(size=(23, 3))
    return x, y


OPTIMIZERS = [bl.SGD(0.05), bl.SGD(0.02, momentum=0.9), bl.SGD(0.02, momentum=0.8, nesterov=True)]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 2e-5)])
def test_curves_agree(optimizer, loss, dtype, tolerance, framework):
    """Also with a smaller last batch, and in what training leaves behind."""
    node = bl.infer(NET, (6, 5, 2), dtype=dtype)
    options = {"loss": loss, "optimizer": optimizer, "epochs": 5, "batch_size": 8, "seed": 3}
    model, reference = bl.lower(node, framework), bl.lower(node, "numpy")
    history = bl.fit(model, data(loss, dtype), **options)
    wanted = bl.fit(reference, data(loss, dtype), **options)
    assert len(history.losses) == 15
    np.testing.assert_allclose(history.losses, wanted.losses, rtol=tolerance)
    assert np.ptp(wanted.losses) > 0.05 * wanted.losses[0]
    got, right = bl.params_of(model), bl.params_of(reference)
    for path, array in right.items():
        np.testing.assert_allclose(got[path], array, atol=tolerance * 10, err_msg=path)


def test_batches_come_from_the_seed_alone():
    one, same, other = (
        [rows for epoch in range(2) for rows in batches(10, 4, seed, epoch)] for seed in (1, 1, 2)
    )
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert [len(rows) for rows in one] == [4, 4, 2, 4, 4, 2]
    assert sorted(np.concatenate(one[:3])) == list(range(10))
    assert not np.array_equal(np.concatenate(one[:3]), np.concatenate(one[3:]))


def test_momentum_zero_is_plain_descent(backend):
    node = bl.infer(bl.Dense(2), (3,), dtype="float64")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(5, 3)), rng.normal(size=(5, 2))
    model = bl.lower(node, backend)
    before = bl.params_of(model)
    gradient = bl.gradients(model, x, 2 * (bl.apply(model, x) - y) / y.size)
    bl.fit(model, (x, y), loss="mse", optimizer=bl.SGD(0.1), batch_size=5)
    after = bl.params_of(model)
    for path in before:
        np.testing.assert_allclose(after[path], before[path] - 0.1 * gradient[path], atol=1e-14)


def test_dropout_drops_in_training_and_scales_what_is_left(backend):
    """Its statistics, on a network of nothing else: rate, scale and mean."""
    model = bl.lower(bl.Dropout(0.3), backend, input_shape=(50, 40))
    x = 1 + np.random.default_rng(0).random((8, 50, 40))
    assert np.array_equal(bl.apply(model, x), x.astype(np.float32))
    y = bl.apply(model, x, training=True)
    kept = y != 0
    assert abs(kept.mean() - 0.7) < 0.02
    np.testing.assert_allclose(y[kept], (x / 0.7)[kept], rtol=1e-6)
    assert not np.array_equal(y, bl.apply(model, x, training=True))


@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
@pytest.mark.parametrize("spatial", [(), (3,), (3, 2), (2, 3, 4)], ids=str)
def test_whole_channels_are_dropped_together(spatial, layout, backend):
    """Each channel of each example by itself, over all its spatial axes."""
    batch, channels, rate = 50, 120, 0.3
    shape = (*spatial, channels) if layout == "channels_last" else (channels, *spatial)
    block = bl.Dropout(rate, whole_channels=True)
    model = bl.lower(block, backend, input_shape=shape, layout=layout, seed=3)
    x = (1 + np.random.default_rng(0).random((batch, *shape))).astype(np.float32)
    assert np.array_equal(bl.apply(model, x), x)
    y = bl.apply(model, x, training=True)
    kept = y != 0
    np.testing.assert_allclose(y[kept], (x / (1 - rate))[kept], rtol=1e-6)
    axis = -1 if layout == "channels_last" else 1
    rows = np.moveaxis(kept, axis, 1).reshape(batch, channels, -1)
    assert np.array_equal(rows.all(-1), rows.any(-1))
    mask = rows.all(-1)
    sigma = (rate * (1 - rate) / mask.size) ** 0.5
    assert abs(mask.mean() - (1 - rate)) < 5 * sigma
    assert len(np.unique(mask, axis=0)) == batch
    assert len(np.unique(mask, axis=1).T) == channels
    assert not np.array_equal(y, bl.apply(model, x, training=True))


def test_accuracy_counts_right_answers():
    model = bl.lower(bl.Identity(), "numpy", input_shape=(3,))
    assert bl.accuracy(model, np.eye(3)[[0, 1, 2, 2]], np.array([0, 1, 2, 1])) == 0.75


def test_the_progress_is_reported():
    seen = []
    model = bl.lower(bl.Dense(1), "numpy", input_shape=(2,))
    history = bl.fit(
        model,
        (np.ones((5, 2)), np.ones((5, 1))),
        loss="mse",
        batch_size=2,
        on_step=lambda step, loss: seen.append((step, loss)),
    )
    assert seen == list(enumerate(history.losses, 1))

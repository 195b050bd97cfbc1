"""A framework from the inside: a disk is learned by explicit backwards and by every backend.

The network and the loop by hand are those of the example.
"""

import numpy as np
import pytest

import blocks as bl
from conftest import example, need

DISK = example("14_mini_framework")
NODE = bl.infer(DISK.net, (2,), dtype="float64")
TRAIN, TEST = DISK.disk(1000, seed=0), DISK.disk(1000, seed=1)
DATA = (TRAIN[0], DISK.one_hot(TRAIN[1]))
STEPS = {"epochs": 5, "batch_size": 48}  # which leaves a batch of 40 at the end


@pytest.fixture
def model():
    return bl.lower(NODE, "numpy", seed=0)


def test_three_layers_of_25():
    sizes = {path: spec.size for path, spec in NODE.param_specs().items()}
    assert [bl.count(n) for n in NODE.walk() if n.params] == [75, 650, 650, 52]
    assert sum(n for path, n in sizes.items() if path.endswith("kernel")) == 1350
    assert sum(n for path, n in sizes.items() if path.endswith("bias")) == 77
    assert NODE.out_spec.shape == (2,)


@pytest.mark.parametrize(
    ("radius", "centre", "share"),
    [
        (1 / np.sqrt(2 * np.pi), (0.5, 0.5), 0.5),
        (1 / np.sqrt(2 * np.pi), (0, 0), 0.125),
        (1 / (2 * np.pi), (0.5, 0.5), 0.0796),
        (1 / (2 * np.pi), (0, 0), 0.0199),
    ],
)
def test_share_of_points_in_the_disk(radius, centre, share):
    x, labels = DISK.disk(200_000, 3, radius, centre)
    assert x.min() >= 0
    assert x.max() <= 1
    assert labels.mean() == pytest.approx(share, abs=0.005)


def test_half_of_the_points_are_inside():
    for seed in range(5):
        assert 0.45 < DISK.disk(1000, seed)[1].mean() < 0.55


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("optimizer", [bl.SGD(0.1), bl.SGD(0.05, momentum=0.9)])
def test_the_disk_is_learned(optimizer, seed):
    model = bl.lower(NODE, "numpy", seed=seed)
    assert DISK.error(model, *TEST) > 0.2
    bl.fit(model, DATA, loss="mse", optimizer=optimizer, epochs=100, batch_size=50, seed=seed)
    assert DISK.error(model, *TRAIN) <= 0.08
    assert DISK.error(model, *TEST) <= 0.08


def test_by_hand_is_fit(model):
    """To the last bit: the same operations in the same order."""
    other = bl.lower(NODE, "numpy", seed=0)
    losses = DISK.by_hand(model, *DATA, rate=0.1, **STEPS)
    history = bl.fit(other, DATA, loss="mse", optimizer=bl.SGD(0.1), **STEPS)
    assert list(history.losses) == losses
    for path, array in bl.params_of(model).items():
        np.testing.assert_array_equal(array, bl.params_of(other)[path])


@pytest.mark.parametrize("name", ["torch", "keras", "flax"])
def test_the_same_curve_everywhere(name, model):
    need(name)
    losses = DISK.by_hand(model, *DATA, rate=0.1, **STEPS)
    other = bl.lower(NODE, name, seed=0)
    history = bl.fit(other, DATA, loss="mse", optimizer=bl.SGD(0.1), **STEPS)
    np.testing.assert_allclose(history.losses, losses, rtol=1e-12)
    np.testing.assert_allclose(
        bl.apply(other, TEST[0]), bl.apply(model, TEST[0]), rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize("name", ["torch", "keras", "flax"])
def test_single_precision_curves_agree(name):
    need(name)
    node = bl.infer(DISK.net, (2,))
    curves = [
        bl.fit(bl.lower(node, b), DATA, loss="mse", optimizer=bl.SGD(0.1), **STEPS).losses
        for b in ("numpy", name)
    ]
    np.testing.assert_allclose(*curves, rtol=1e-4)


def test_backward_is_the_slope(model):
    """Each gradient against a difference of losses."""
    x, target = TRAIN[0][:20], DATA[1][:20]

    def loss():
        return ((model(x) - target) ** 2).mean()

    model.zero_grad()
    model.backward(2 * (model(x) - target) / target.size)
    rng = np.random.default_rng(0)
    for weight, gradient in model.param():
        at = tuple(rng.integers(size) for size in weight.shape)
        value, step = weight[at], 1e-6
        weight[at] = value + step
        above = loss()
        weight[at] = value - step
        below = loss()
        weight[at] = value
        assert gradient[at] == pytest.approx((above - below) / (2 * step), abs=1e-8)


def test_gradients_add_up_until_they_are_zeroed(model):
    dy = np.random.default_rng(0).normal(size=(7, 2))
    model.zero_grad()
    for _ in range(2):
        model(TRAIN[0][:7])
        model.backward(dy)
    twice = [gradient.copy() for _, gradient in model.param()]
    model.zero_grad()
    assert not any(gradient.any() for _, gradient in model.param())
    model(TRAIN[0][:7])
    model.backward(dy)
    for (weight, once), double in zip(model.param(), twice, strict=True):
        assert once.shape == weight.shape
        np.testing.assert_allclose(double, 2 * once, rtol=1e-14)


def test_the_order_of_training_is_kept_in_a_log(model):
    before = bl.params_of(model)
    history = bl.fit(model, DATA, loss="mse", optimizer=bl.SGD(0.1), keep_best=True, **STEPS)
    assert len(history.epochs) == STEPS["epochs"]
    assert len(history.losses) == STEPS["epochs"] * 21  # 20 whole batches, and one of 40
    rows = [row["loss"] for row in history.epochs]
    best = rows.index(min(rows))
    other = bl.lower(NODE, "numpy", params=before)
    bl.fit(other, DATA, loss="mse", optimizer=bl.SGD(0.1), epochs=best + 1, batch_size=48)
    for path, array in bl.params_of(other).items():
        np.testing.assert_array_equal(history.best[path], array)
    trained = bl.params_of(model)
    bl.evaluate(model, (TEST[0], DISK.one_hot(TEST[1])), loss="mse")
    for path, array in bl.params_of(model).items():
        np.testing.assert_array_equal(array, trained[path])


def test_a_sweep_has_a_row_for_each_choice(monkeypatch):
    fitted = []
    monkeypatch.setattr(bl, "fit", lambda model, data, **options: fitted.append(options))
    rows = list(DISK.sweep(NODE, bl.init(NODE), TRAIN, TEST))
    assert len(rows) == len(fitted) == len({row[:4] for row in rows}) == 2 * 3 * 2 * 2


def test_a_task_without_classes():
    """The trainer knows of no classes: the mean of two sines."""
    x = TRAIN[0]
    y = np.sin(5 * x).mean(1, keepdims=True)
    net = bl.Sequential(bl.Dense(25), bl.Tanh(), bl.Dense(25), bl.Tanh(), bl.Dense(1))
    model = bl.lower(net, "numpy", input_shape=(2,))
    history = bl.fit(model, (x, y), loss="mse", optimizer=bl.Adam(0.01), epochs=30, batch_size=50)
    assert history.epochs[-1]["loss"] < 0.05 * history.epochs[0]["loss"]


def errors(net, seeds, data=DATA, **options):
    """Errors in test after some runs, each with first numbers and an order of its own."""
    found = []
    for seed in seeds:
        model = bl.lower(net, "numpy", input_shape=(2,), seed=seed)
        setting = {"loss": "mse", "epochs": 40, "batch_size": 50, "seed": seed} | options
        bl.fit(model, data, **setting)
        found.append(DISK.error(model, *TEST))
    return np.array(found)


def test_many_runs_have_a_mean_and_a_spread():
    """They come from the seeds alone; more epochs help by more than the runs are apart."""
    short, long = (errors(DISK.net, range(4), optimizer=bl.SGD(0.05), epochs=n) for n in (3, 40))
    assert np.array_equal(errors(DISK.net, [2], optimizer=bl.SGD(0.05)), long[2:3])
    assert long.std() > 0
    assert long.mean() + long.std() < short.mean() - short.std()


def test_two_models_are_compared():
    """On the same data, in the same order: a straight line leaves what a network learns."""
    table = {
        name: errors(net, [0], optimizer=bl.Adam(0.01))
        for name, net in {"line": bl.Dense(2), "network": DISK.net}.items()
    }
    assert table["line"] > 0.3
    assert table["network"] < 0.1


@pytest.mark.parametrize(
    ("parts", "optimizer"),
    [
        ([bl.ReLU()], bl.Adagrad(0.05)),
        ([bl.Sigmoid()], bl.Adam(0.03)),
        ([bl.BatchNorm(), bl.ReLU()], bl.Adam(0.01)),
        ([bl.ReLU(), bl.Dropout(0.1)], bl.Adam(0.01)),
    ],
    ids=str,
)
def test_other_parts_learn_the_disk(parts, optimizer):
    """By binary cross-entropy, from inputs of mean 0 and spread 1."""
    mean, spread = TRAIN[0].mean(0), TRAIN[0].std(0)
    x, z = ((points - mean) / spread for points in (TRAIN[0], TEST[0]))
    net = bl.Sequential(*(b for _ in range(2) for b in (bl.Dense(25), *parts)), bl.Dense(1))
    model = bl.lower(net, "numpy", input_shape=(2,))
    loss = {"loss": "binary_cross_entropy", "optimizer": optimizer, "epochs": 60, "batch_size": 50}
    bl.fit(model, (x, TRAIN[1][:, None]), **loss)
    options = {"loss": "binary_cross_entropy", "metrics": ["binary_accuracy"]}
    found = bl.evaluate(model, (z, TEST[1][:, None]), **options)
    assert found["binary_accuracy"] > 0.92

"""Training: the same batches and the same curve on every backend."""

import numpy as np
import pytest

import blocks as bl
from blocks._train import batches
from conftest import need

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


def test_another_optimiser_trains_the_same_model_on(backend):
    """It is no part of the model: what it begins with is what the first one left."""
    model, data = bl.lower(SMALL, backend, input_shape=(4,), dtype="float64"), labelled()
    losses = []
    for optimizer in (bl.SGD(0.5), bl.SGD(0.2, momentum=0.9)):
        before = bl.evaluate(model, data)["loss"]
        history = bl.fit(model, data, optimizer=optimizer, epochs=4, batch_size=23)
        assert history.losses[0] == pytest.approx(before, rel=1e-12)
        losses.extend(history.losses)
    assert sorted(losses, reverse=True) == losses


@pytest.mark.parametrize("name", ["torch", "keras"])
def test_what_is_frozen_by_its_framework_is_not_trained(name):
    model = bl.lower(SMALL, need(name), input_shape=(4,))
    if name == "torch":
        model[0].requires_grad_(False)
    else:
        model.layers[1].trainable = False
    before = bl.params_of(model)
    bl.fit(model, labelled(), optimizer=bl.SGD(0.1, momentum=0.9, weight_decay=0.1), epochs=2)
    same = {path: np.array_equal(a, before[path]) for path, a in bl.params_of(model).items()}
    assert same == {"0/kernel": True, "0/bias": True, "2/kernel": False, "2/bias": False}


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


# Epochs.

SMALL = bl.Sequential(bl.Dense(4), bl.Tanh(), bl.Dense(3))


def labelled(examples=23):
    rng = np.random.default_rng(0)
    return rng.normal(size=(examples, 4)), rng.integers(0, 3, examples)


def fitted(backend="numpy", **options):
    model = bl.lower(SMALL, backend, input_shape=(4,), dtype="float64")
    return model, bl.fit(model, labelled(), **({"batch_size": 8, "epochs": 3} | options))


def test_the_table_of_epochs(backend):
    """Losses of the steps by their examples; metrics and validation of what an epoch leaves."""
    seen, held = [], labelled(9)
    options = {"metrics": ["accuracy", "cross_entropy"], "validation": held}
    model, history = fitted(backend, on_epoch=lambda *row: seen.append(row), **options)
    assert seen == list(enumerate(history.epochs, 1))
    assert len(history.epochs) == 3
    for i, row in enumerate(history.epochs):
        wanted = np.average(history.losses[3 * i : 3 * i + 3], weights=[8, 8, 7])
        assert row["loss"] == pytest.approx(wanted, rel=1e-12)
    last = history.epochs[-1]
    for prefix, data in (("", labelled()), ("validation_", held)):
        now = bl.evaluate(model, data, metrics=options["metrics"])
        assert last[f"{prefix}accuracy"] == now["accuracy"]
        assert last[f"{prefix}cross_entropy"] == pytest.approx(now["loss"], rel=1e-12)
    assert last["validation_loss"] == last["validation_cross_entropy"]
    assert last["loss"] != last["cross_entropy"]


def test_looking_changes_nothing(backend):
    """Validation, metrics and callbacks leave the steps as they are."""
    net = bl.Sequential(bl.Dense(4), bl.BatchNorm(), bl.Dropout(0.4), bl.Dense(3))
    curves = []
    for options in ({}, {"metrics": "accuracy", "validation": labelled(9), "keep_best": True}):
        model = bl.lower(net, backend, input_shape=(4,), dtype="float64", draws="shared")
        curves.append(bl.fit(model, labelled(), epochs=3, batch_size=8, **options).losses)
    assert curves[0] == curves[1]


# Up, then down, then up again: the rates turn around.
TURNING = bl.PiecewiseConstant((6, 15), (0.2, 0.0, 30.0))


@pytest.mark.parametrize("validation", [None, tuple(array[:9] for array in labelled())])
def test_the_best_parameters_are_kept(validation, backend):
    seen = []
    model = bl.lower(SMALL, backend, input_shape=(4,), dtype="float64")
    history = bl.fit(
        model,
        labelled(),
        batch_size=8,
        epochs=8,
        optimizer=bl.SGD(TURNING),
        validation=validation,
        keep_best=True,
        on_epoch=lambda number, row: seen.append(bl.params_of(model)),
    )
    column = "loss" if validation is None else "validation_loss"
    judged = [row[column] for row in history.epochs]
    best = int(np.argmin(judged))
    assert 0 < best < 7
    for path, array in history.best.items():
        assert np.array_equal(array, seen[best][path])
    assert any(not np.array_equal(a, bl.params_of(model)[p]) for p, a in history.best.items())
    assert fitted()[1].best is None


@pytest.mark.parametrize("validation", [True, False])
def test_where_no_loss_is_finite_nothing_is_best(validation):
    x = np.full((8, 2), np.nan)
    model = bl.lower(bl.Dense(1), "numpy", input_shape=(2,))
    data = x, np.zeros((8, 1))
    options = {"loss": "mse", "validation": data if validation else None, "epochs": 3}
    assert bl.fit(model, data, keep_best=True, **options).best is None
    small = np.ones((8, 2)), np.zeros((8, 1))
    model = bl.lower(bl.Dense(1), "numpy", input_shape=(2,))
    assert bl.fit(model, small, keep_best=True, loss="mse").best is not None


def test_training_stops_early():
    """When the loss stands still; a patience later than the best epoch."""
    still = {"optimizer": bl.SGD(bl.PiecewiseConstant((6,), (0.2, 0.0))), "epochs": 20}
    stop = bl.EarlyStop("cross_entropy", patience=4)
    _, history = fitted(early_stop=stop, metrics="cross_entropy", **still)
    assert len(history.epochs) == 2 + 4
    assert len(history.losses) == 3 * (2 + 4)
    _, history = fitted(early_stop=bl.EarlyStop("loss", min_change=10.0), epochs=20)
    assert len(history.epochs) == 1 + 3
    _, history = fitted(early_stop=bl.EarlyStop(patience=20), epochs=5, validation=labelled(9))
    assert len(history.epochs) == 5


def rows(*values, name="loss"):
    return [{name: value} for value in values]


def test_an_accuracy_is_better_when_it_is_higher():
    stop = bl.EarlyStop("accuracy", patience=2)
    assert not stop.stops(rows(0.1, 0.2, 0.3, name="accuracy"))
    assert stop.stops(rows(0.3, 0.2, 0.2, name="accuracy"))
    stop = bl.EarlyStop("loss", patience=2, min_change=0.1)
    assert stop.stops(rows(0.3, 0.25, 0.21))
    assert not stop.stops(rows(0.3, 0.25, 0.15))
    assert bl.EarlyStop("loss", patience=2).stops(rows(0.3, float("nan"), float("nan")))


def test_a_bar_is_shown(capsys):
    fitted(progress=True)
    assert "fit" in capsys.readouterr().out
    fitted()
    assert not capsys.readouterr().out


WRONG = [
    ({"clip_norm": 0}, "clip_norm must be a number > 0, got 0."),
    ({"clip_norm": "1"}, "clip_norm must be a number > 0, got '1'."),
    ({"early_stop": 3}, "early_stop must be an EarlyStop, got 3."),
    (
        {"early_stop": bl.EarlyStop()},
        "EarlyStop.metric='validation_loss' is no column of the table of epochs, which has "
        "'loss'. Give validation=(inputs, targets).",
    ),
    (
        {"early_stop": bl.EarlyStop("acuracy"), "metrics": ["accuracy"]},
        "EarlyStop.metric='acuracy' is no column of the table of epochs, which has 'loss', "
        "'accuracy'. Did you mean 'accuracy'?",
    ),
    ({"validation": 3}, "validation must be a pair: inputs and targets."),
    ({"validation": (np.zeros((2, 4)), np.array([0, 3]))}, "cross_entropy needs labels from 0 to"),
    ({"on_step": 3}, "on_step must be a function, got 3."),
    ({"node": "net"}, "node must be a node from infer, got 'net'."),
    ({"optimizer": bl.Dense(3)}, "optimizer must be an optimiser such as SGD(0.1), got Dense("),
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=[m[:50] for _, m in WRONG])
def test_options_that_make_no_sense(options, message):
    with pytest.raises(bl.BlockError) as error:
        fitted(**options)
    assert str(error.value).startswith(message)


def test_the_users_keras_model_stays_as_it_was_compiled(tmp_path):
    """It is saved and reloads without isoblocks, whatever trained it."""
    need("keras")
    import keras

    model = bl.lower(SMALL, "keras", input_shape=(4,))
    mine = keras.optimizers.SGD(0.5)
    model.compile(mine, "mse")
    bl.fit(model, labelled(), optimizer=bl.AdamW(0.1), clip_norm=1.0)
    assert model.optimizer is mine
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    x = labelled()[0]
    np.testing.assert_allclose(again.predict(x, verbose=0), bl.apply(model, x), atol=1e-6)


def test_the_state_of_the_optimiser_can_be_read():
    """Of the framework's own object."""
    from blocks._models import origin

    model = bl.lower(SMALL, need("torch"), input_shape=(4,))
    known, (x, y) = origin(model), labelled()
    step = known.call("trainer", known.node, model, "cross_entropy", bl.Adam())
    step(x.astype(np.float32), y, 0.1)
    state = step.native.state_dict()
    assert state["param_groups"][0]["lr"] == 0.1
    assert all(entry["step"] == 1 for entry in state["state"].values())


class First(bl.Custom):
    """The square error of the first of several outputs."""

    def out_spec(self, x):
        return x[0].with_shape(())

    def forward(self, ops, x):
        return ops.mean(ops.square(x[0] - x[-1]))


class Still(First):
    """A loss that depends on no output."""

    def forward(self, ops, x):
        return ops.mean(ops.square(x[-1]))


@pytest.mark.parametrize("optimizer", [bl.SGD(0.1, weight_decay=0.5), bl.AdamW(0.1)])
def test_what_the_loss_does_not_depend_on_decays(optimizer, framework):
    net = bl.Parallel(bl.Dense(2), bl.Dense(3), merge="tuple")
    rng = np.random.default_rng(0)
    data, found = (rng.normal(size=(7, 5)), rng.normal(size=(7, 2))), []
    for name in ("numpy", framework):
        model = bl.lower(net, name, input_shape=(5,), dtype="float64")
        bl.fit(model, data, loss=First(), optimizer=optimizer, clip_norm=0.5, batch_size=4)
        found.append(bl.params_of(model))
    wanted, given = found
    assert all(np.abs(given[path] - wanted[path]).max() < 1e-12 for path in wanted)


def test_torch_trains_whatever_is_switched_off_around_it():
    torch = pytest.importorskip("torch")
    data = np.ones((4, 2)), np.ones((4, 1))
    for off in (torch.no_grad, torch.inference_mode):
        with off():
            model = bl.lower(bl.Dense(1), "torch", input_shape=(2,))
            losses = bl.fit(model, data, loss="mse", optimizer=bl.SGD(0.1), epochs=2).losses
        assert losses[1] < losses[0]
    assert bl.fit(model, data, loss=Still()).losses == (1.0,)


def test_frozen_parameters_stay_and_some_must_not_be_frozen():
    for name in ("torch", "keras"):
        pytest.importorskip(name)
    net = bl.Sequential(bl.Dense(3), bl.Dense(1))
    data = np.ones((4, 2)), np.ones((4, 1))
    freeze = {
        "torch": lambda model, i: model[i].requires_grad_(False),
        "keras": lambda model, i: setattr(model.layers[i + 1], "trainable", False),
    }
    for name, frozen in freeze.items():
        model = bl.lower(net, name, input_shape=(2,))
        before = bl.params_of(model)
        frozen(model, 0)
        bl.fit(model, data, loss="mse", optimizer=bl.AdamW(0.1), clip_norm=0.5)
        after = bl.params_of(model)
        assert [p for p in before if np.array_equal(before[p], after[p])] == ["0/kernel", "0/bias"]
        frozen(model, 1)
        with pytest.raises(bl.ParamError, match=r"nothing to train: all .* are frozen"):
            bl.fit(model, data, loss="mse")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_adam_on_parameters_of_16_bits_is_refused(backend, dtype):
    """float16 has no 1e-8, bfloat16 nothing between 0.996 and 1: the moments would be nonsense."""
    x = np.random.default_rng(0).normal(size=(6, 4))
    model = bl.lower(bl.Dense(4), backend, input_shape=(4,), dtype=dtype)
    with pytest.raises(bl.FieldError, match=rf"Adam\.\w+=.* beside parameters in {dtype}"):
        bl.fit(model, (x, x), loss="mse", optimizer=bl.Adam())
    mixed = bl.lower(bl.Dense(4), backend, input_shape=(4,), dtype=dtype, param_dtype="float32")
    history = bl.fit(mixed, (x, x), loss="mse", optimizer=bl.Adam(0.1), epochs=20)
    assert history.losses[-1] < history.losses[0]


@pytest.mark.parametrize("seed", ["os", -1, 1.5, None])
def test_seeds_are_checked_before_they_are_used(seed):
    node = bl.infer(bl.Dense(4), (4,))
    for verb in (
        lambda: bl.init(node, seed=seed),
        lambda: bl.lower(node, "numpy", seed=seed),
        lambda: bl.source(node, "numpy", seed=seed),
    ):
        with pytest.raises(bl.FieldError, match="seed must be an int of at least 0"):
            verb()

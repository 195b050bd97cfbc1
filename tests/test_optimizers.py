"""Optimisers, schedules and clipping: one meaning, by hand and on every backend."""

import math

import numpy as np
import pytest

import blocks as bl
from blocks.optimizer import Optimizer
from blocks.schedule import Schedule
from conftest import need

NET = bl.Sequential(bl.Dense(5), bl.Tanh(), bl.Dense(3))
COSINE = bl.CosineDecay(0.1, steps=180, final=0.01, warmup=7)
OPTIMIZERS = [
    bl.SGD(0.05),
    bl.SGD(bl.StepDecay(0.1, every=30), momentum=0.9),
    bl.SGD(COSINE, momentum=0.8, nesterov=True, weight_decay=0.05),
    bl.SGD(bl.PiecewiseConstant((20, 90), (0.1, 0.05, 0.02)), weight_decay=0.1),
    bl.Adam(bl.ExponentialDecay(0.03, steps=50, factor=0.5), beta1=0.8, beta2=0.99),
    bl.Adam(0.02, epsilon=1e-2),
    bl.AdamW(COSINE, weight_decay=0.5),
    bl.Adagrad(bl.StepDecay(0.3, every=60), epsilon=1e-3),
]
LOSSES = ["cross_entropy", "mse", "mae", "binary_cross_entropy"]
RUNS = [
    pytest.param(
        optimizer,
        loss,
        id=f"{optimizer}-{loss}",
        marks=[] if i % 4 == j else [pytest.mark.exhaustive],
    )
    for i, optimizer in enumerate(OPTIMIZERS)
    for j, loss in enumerate(LOSSES)
]


def data(loss, dtype="float64", examples=23):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(examples, 4)), rng.normal(size=(examples, 3))
    found = {
        "cross_entropy": rng.integers(0, 3, examples),
        "binary_cross_entropy": (y > 0) * 1.0,
    }
    return x.astype(dtype), found.get(loss, y)


def curve(backend, net=NET, shape=(4,), dtype="float64", given=None, **options):
    """The losses, and the parameters after the last step."""
    model = bl.lower(net, backend, input_shape=shape, dtype=dtype, seed=2)
    options = {"loss": "mse", "batch_size": 6, "seed": 3} | options
    given = data(options["loss"], dtype) if given is None else given
    history = bl.fit(model, given, **options)
    return np.array(history.losses), bl.params_of(model)


def far(found, wanted):
    """The largest difference of two curves and of what they lead to, as a share of the largest."""
    pairs = [(found[0], wanted[0]), *((found[1][path], a) for path, a in wanted[1].items())]
    return max(np.abs(a - b).max() / max(np.abs(b).max(), 1e-3) for a, b in pairs)


@pytest.mark.parametrize(("optimizer", "loss"), RUNS)
def test_curves_agree_over_200_steps(optimizer, loss, framework):
    options = {"optimizer": optimizer, "loss": loss, "epochs": 50}
    wanted = curve("numpy", **options)
    assert len(wanted[0]) == 200
    assert np.ptp(wanted[0]) > 0.1 * wanted[0][0]
    assert far(curve(framework, **options), wanted) < 1e-7


@pytest.mark.parametrize("optimizer", [OPTIMIZERS[2], OPTIMIZERS[6]], ids=str)
def test_curves_agree_in_float32(optimizer, framework):
    """Adam's correction of its moments is itself a float32 in Keras and optax: 1 - 0.999^t."""
    options = {"optimizer": optimizer, "epochs": 20, "dtype": "float32"}
    assert far(curve(framework, **options), curve("numpy", **options)) < 1e-4


# By hand.


def by_hand(optimizer, x, y, params, rates, clip_norm=None):
    """Parameters after steps on one batch, written as the papers do."""
    reference = bl.lower(NET, "numpy", input_shape=(4,), dtype="float64")
    first = {path: np.zeros_like(a) for path, a in params.items()}
    second = {path: np.zeros_like(a) for path, a in params.items()}
    for t, rate in enumerate(rates, 1):
        bl.load_params(reference, params)
        error = bl.apply(reference, x) - y
        grads = bl.gradients(reference, x, 2 * error / error.size)
        norm = math.sqrt(sum((grads[path] ** 2).sum() for path in params))
        share = 1 if clip_norm is None else clip_norm / max(norm, clip_norm)
        assert clip_norm is None or share < 0.9
        new = {}
        for path, w in params.items():
            g = share * grads[path]
            if isinstance(optimizer, bl.SGD):
                g = g + optimizer.weight_decay * w
                first[path] = optimizer.momentum * first[path] + g
                ahead = g + optimizer.momentum * first[path]
                new[path] = w - rate * (ahead if optimizer.nesterov else first[path])
                continue
            if isinstance(optimizer, bl.Adagrad):
                second[path] = second[path] + g**2
                new[path] = w - rate * g / (np.sqrt(second[path]) + optimizer.epsilon)
                continue
            one, two = optimizer.beta1, optimizer.beta2
            first[path] = one * first[path] + (1 - one) * g
            second[path] = two * second[path] + (1 - two) * g**2
            root = np.sqrt(second[path] / (1 - two**t)) + optimizer.epsilon
            decay = optimizer.weight_decay if isinstance(optimizer, bl.AdamW) else 0
            new[path] = w - rate * (first[path] / (1 - one**t) / root + decay * w)
        params = new
    return params


RATES = bl.PiecewiseConstant((1, 2), (0.3, 0.03, 0.2))


@pytest.mark.parametrize(
    ("optimizer", "clip_norm"),
    [
        (bl.SGD(RATES, weight_decay=0.3), None),
        (bl.SGD(RATES, momentum=0.7, weight_decay=0.3), 0.05),
        (bl.SGD(RATES, momentum=0.7, nesterov=True), None),
        (bl.Adam(RATES, beta1=0.6, beta2=0.95, epsilon=0.02), None),
        (bl.AdamW(RATES, weight_decay=0.7, epsilon=1e-3), 0.05),
        (bl.Adagrad(RATES, epsilon=0.02), None),
        (bl.Adagrad(RATES), 0.05),
    ],
    ids=str,
)
def test_three_steps_are_those_of_the_formula(optimizer, clip_norm, backend):
    """With a rate that changes, and clipping that acts."""
    x, y = data("mse")
    model = bl.lower(NET, backend, input_shape=(4,), dtype="float64", seed=2)
    wanted = by_hand(optimizer, x, y, bl.params_of(model), (0.3, 0.03, 0.2), clip_norm)
    options = {"batch_size": 23, "epochs": 3, "clip_norm": clip_norm}
    found = bl.fit(model, (x, y), loss="mse", optimizer=optimizer, **options)
    assert len(found.losses) == 3
    for path, array in bl.params_of(model).items():
        np.testing.assert_allclose(array, wanted[path], rtol=0, atol=1e-13, err_msg=path)


def test_a_norm_below_the_limit_changes_nothing(backend):
    unclipped = curve(backend, optimizer=bl.SGD(0.05))
    assert far(curve(backend, optimizer=bl.SGD(0.05), clip_norm=1e3), unclipped) < 1e-14
    assert far(curve(backend, optimizer=bl.SGD(0.05), clip_norm=0.1), unclipped) > 1e-2


def test_clipping_leaves_a_gradient_of_zero(backend):
    """A norm of 0 divides nothing."""
    x = np.ones((4, 2))
    net = bl.Dense(3, use_bias=False)
    model = bl.lower(net, backend, input_shape=(2,), params={"kernel": np.zeros((2, 3))})
    bl.fit(model, (x, np.zeros((4, 3))), loss="mse", clip_norm=1.0)
    assert np.array_equal(bl.params_of(model)["kernel"], np.zeros((2, 3)))


# Networks whose native parameters are not the canonical ones.

TOKENS = bl.Sequential(
    bl.Embedding(6, 4),
    bl.Constant(0.5, merge="multiply"),
    bl.Repeat(bl.Residual(bl.Sequential(bl.Dense(4), bl.Tanh())), 3),
    bl.Shared("tied", bl.Dense(4)),
    bl.Tanh(),
    bl.Shared("tied", bl.Dense(4)),
    bl.MultiHeadAttention(2),
    bl.LSTM(4),
    bl.BatchNorm(),
    bl.Dense(3),
)


@pytest.mark.parametrize(
    ("optimizer", "clip_norm"),
    [
        pytest.param(
            bl.SGD(bl.StepDecay(0.1, every=20), momentum=0.7, weight_decay=0.1),
            0.3,
            marks=pytest.mark.exhaustive,
        ),
        pytest.param(bl.SGD(0.05, momentum=0.7), None, marks=pytest.mark.exhaustive),
        (bl.AdamW(0.01, weight_decay=0.3, epsilon=1e-3), 0.3),
        pytest.param(bl.AdamW(0.01, weight_decay=0.3), None, marks=pytest.mark.exhaustive),
        (bl.Adagrad(0.05, epsilon=1e-3), None),
    ],
    ids=str,
)
def test_any_parameters_train_alike(optimizer, clip_norm, framework):
    """Shared, stacked, packed; ids that repeat; running statistics and constants stay outside."""
    rng = np.random.default_rng(0)
    given = rng.integers(0, 6, size=(17, 5)), rng.normal(size=(17, 3))
    options = {"shape": bl.Spec((5,), "int32"), "given": given, "epochs": 10, "net": TOKENS}
    options |= {"optimizer": optimizer, "clip_norm": clip_norm}
    wanted = curve("numpy", **options)
    found = curve(framework, **options)
    assert far(found, wanted) < 1e-6  # Keras takes 1 / sqrt(head_size) as a float32
    assert np.array_equal(found[1]["1/value"], wanted[1]["1/value"])


# What frameworks do by themselves is another thing.


@pytest.mark.parametrize(
    ("ours", "stock"),
    [
        (bl.Adam(0.02, epsilon=1e-2), lambda keras: keras.optimizers.Adam(0.02, epsilon=1e-2)),
        (
            bl.Adagrad(0.05, epsilon=1e-2),
            lambda keras: keras.optimizers.Adagrad(0.05, 0.0, epsilon=1e-2),
        ),
        (
            bl.SGD(bl.StepDecay(0.1, every=5), momentum=0.9),
            lambda keras: keras.optimizers.SGD(0.1, momentum=0.9),
        ),
        (
            bl.SGD(0.05, momentum=0.9, weight_decay=0.1),
            lambda keras: keras.optimizers.SGD(0.05, momentum=0.9, weight_decay=0.1),
        ),
    ],
    ids=["Adam", "Adagrad", "momentum when the rate changes", "weight decay"],
)
def test_kerass_own_is_another_one(ours, stock, monkeypatch):
    need("keras")
    import keras

    from backends.keras import _adapter

    options = {"optimizer": ours, "epochs": 5}
    wanted = curve("numpy", **options)
    assert far(curve("keras", **options), wanted) < 1e-12
    monkeypatch.setattr(_adapter, "native", lambda *_, **__: stock(keras))
    assert far(curve("keras", **options), wanted) > 1e-2


def test_torchs_own_clipping_is_another_one(monkeypatch):
    """It divides by the norm and 1e-6."""
    need("torch")
    import torch

    from backends.torch import _adapter

    options = {"optimizer": bl.SGD(0.05), "clip_norm": 1e-3, "epochs": 5}
    wanted = curve("numpy", **options)
    assert far(curve("torch", **options), wanted) < 1e-12
    monkeypatch.setattr(_adapter, "clip", torch.nn.utils.clip_grad_norm_)
    assert far(curve("torch", **options), wanted) > 1e-10


# Schedules.

SCHEDULES = [
    (bl.StepDecay(0.8, every=3, factor=0.5), [0.8, 0.8, 0.8, 0.4, 0.4, 0.4, 0.2]),
    (bl.ExponentialDecay(0.8, steps=2, factor=0.25), [0.8, 0.4, 0.2, 0.1]),
    (bl.CosineDecay(0.8, steps=4, final=0.2), [0.8, 0.5 + 0.3 * 2**-0.5, 0.5, None, 0.2, 0.2]),
    (bl.CosineDecay(0.9, steps=4, warmup=2), [0.3, 0.6, 0.9, 0.45, 0.0, 0.0]),
    (bl.PiecewiseConstant((1, 3), (0.3, 0.2, 0.1)), [0.3, 0.2, 0.2, 0.1, 0.1]),
    (bl.PiecewiseConstant((), (0.3,)), [0.3, 0.3]),
]


@pytest.mark.parametrize(("schedule", "wanted"), SCHEDULES, ids=lambda v: str(v)[:40])
def test_schedules_are_their_formula(schedule, wanted):
    for step, value in enumerate(wanted):
        if value is not None:
            assert schedule.value(step) == pytest.approx(value, rel=1e-15, abs=1e-16)
    assert eval(repr(schedule), vars(bl)) == schedule


@pytest.mark.parametrize("schedule", [s for s, _ in SCHEDULES], ids=str)
def test_every_step_has_the_rate_of_the_schedule(schedule, backend):
    """Seen in the steps of a weight whose gradient is always 1."""
    model = bl.lower(
        bl.Dense(1, use_bias=False),
        backend,
        input_shape=(1,),
        dtype="float64",
        params={"kernel": np.zeros((1, 1))},
    )
    one, weights = np.ones((1, 1)), [0.0]
    bl.fit(
        model,
        (one, -1e6 * one),
        loss="mae",
        optimizer=bl.SGD(schedule),
        epochs=7,
        on_step=lambda step, loss: weights.append(bl.params_of(model)["kernel"].item()),
    )
    wanted = [schedule.value(step) for step in range(7)]
    np.testing.assert_allclose(-np.diff(weights), wanted, rtol=0, atol=1e-15)


def test_steps_are_counted_over_epochs():
    steps = []

    class Seen(Schedule):
        def value(self, step):
            steps.append(step)
            return 0.1

    curve("numpy", optimizer=bl.SGD(Seen()), epochs=2)
    assert steps == list(range(8))


# Errors.


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Optimizer, "Optimizer is only what others are kinds of; write SGD(0.1)."),
        (
            Schedule,
            "Schedule is only what others are kinds of; write CosineDecay(0.1, steps=1000).",
        ),
        (lambda: bl.SGD(-1), "SGD.learning_rate must be a number >= 0, got -1."),
        (lambda: bl.SGD("fast"), "SGD.learning_rate must be a number >= 0, got 'fast'."),
        (lambda: bl.SGD(weight_decay=-1), "SGD.weight_decay must be a number >= 0, got -1."),
        (lambda: bl.SGD(nesterov=True), "SGD.nesterov=True needs a momentum above 0, got 0."),
        (lambda: bl.Adam(beta2=1), "Adam.beta2 must be a number >= 0 and < 1, got 1."),
        (lambda: bl.Adam(epsilon=0), "Adam.epsilon must be a number > 0, got 0."),
        (lambda: bl.AdamW(weight_decay=None), "AdamW.weight_decay must be a number >= 0, got None"),
        (lambda: bl.StepDecay(0.1, every=0), "StepDecay.every must be a positive int, got 0."),
        (
            lambda: bl.CosineDecay(0.1, steps=5, warmup=5),
            "CosineDecay.warmup=5 must be below steps=5, which counts the steps of the warmup too.",
        ),
        (
            lambda: bl.PiecewiseConstant((3, 2), (1, 2, 3)),
            "PiecewiseConstant.boundaries must grow, got (3, 2).",
        ),
        (
            lambda: bl.PiecewiseConstant((3,), (1,)),
            "PiecewiseConstant.values must be one more than its 1 boundaries, got 1.",
        ),
        (
            lambda: bl.PiecewiseConstant((3,), (1, -1)),
            "PiecewiseConstant.values[1] must be a number >= 0, got -1.",
        ),
        (
            lambda: bl.PiecewiseConstant((3,), 0.1),
            "PiecewiseConstant.values must be a tuple of numbers, got 0.1.",
        ),
    ],
)
def test_fields_that_make_no_sense(make, message):
    with pytest.raises(bl.FieldError) as error:
        make()
    assert str(error.value).startswith(message)


class Unheard(Optimizer):
    """It says nothing of what it does."""


class Gentle(bl.SGD):
    """A kind of one that all backends know."""


def test_an_optimiser_that_no_backend_knows_is_refused(backend):
    with pytest.raises(bl.MissingRuleError, match=f"{backend} has no rule for the optimiser Unhe"):
        curve(backend, optimizer=Unheard(0.1))
    assert far(curve(backend, optimizer=Gentle(0.1)), curve(backend, optimizer=bl.SGD(0.1))) == 0


def test_an_epsilon_that_16_bits_do_not_hold_is_refused():
    with pytest.raises(
        bl.FieldError, match=r"Adagrad\.epsilon=1e-10 is 0 beside parameters in flo"
    ):
        bl.Adagrad().check_dtype("float16")
    bl.Adagrad(epsilon=1e-3).check_dtype("float16")

"""Losses, metrics and evaluation: one meaning, by hand and on every backend."""

import numpy as np
import pytest

import blocks as bl
from blocks.loss import LOSSES
from conftest import FRAMEWORKS, need


def given(loss, shape=(3,), examples=11, large=1.0):
    """Outputs of a network that is the identity, and targets."""
    rng = np.random.default_rng(1)
    x, y = large * rng.normal(size=(examples, *shape)), rng.normal(size=(examples, *shape))
    if loss == "cross_entropy":
        return x, rng.integers(0, shape[-1], (examples, *shape[:-1]))
    return x, (y > 0) * 1.0 if loss == "binary_cross_entropy" else y


def loss_by_hand(loss, x, y):
    if loss == "cross_entropy":
        p = np.exp(x) / np.exp(x).sum(-1, keepdims=True)
        return -np.log(np.take_along_axis(p, y[..., None], -1)).mean()
    if loss == "binary_cross_entropy":
        p = 1 / (1 + np.exp(-x))
        return -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean()
    return ((x - y) ** 2).mean() if loss == "mse" else np.abs(x - y).mean()


def first_loss(backend, loss, x, y):
    """The loss of one step, and the gradient of each output, summed over the examples."""
    net, shape = bl.Parameter(init="zeros", shape=x.shape[1:]), x.shape[1:]
    model = bl.lower(net, backend, input_shape=shape, dtype="float64")
    options = {"loss": loss, "optimizer": bl.SGD(1.0), "batch_size": len(x)}
    history = bl.fit(model, (x, y), **options)
    return history.losses[0], -bl.params_of(model)["value"]


@pytest.mark.parametrize("shape", [(3,), (4, 3), (2, 4, 3)], ids=str)
@pytest.mark.parametrize("loss", LOSSES)
def test_losses_are_their_formula(loss, shape, backend):
    """Dense outputs too; with the gradient, by differences."""
    x, y = given(loss, shape)
    found, gradient = first_loss(backend, loss, x, y)
    assert found == pytest.approx(loss_by_hand(loss, x, y), rel=1e-12)
    step = np.zeros(shape)
    step.flat[1] = 1e-6
    rise = loss_by_hand(loss, x + step, y) - loss_by_hand(loss, x - step, y)
    assert gradient.flat[1] == pytest.approx(rise / 2e-6, rel=1e-6)


@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy"])
def test_logits_may_be_large(loss, backend):
    """Neither overflow nor a probability that is cut off."""
    x, y = given(loss, large=1e5)
    found, gradient = first_loss(backend, loss, x, y)
    if loss == "cross_entropy":
        wanted = (x.max(-1) - x[np.arange(len(x)), y]).mean()
    else:
        wanted = np.where(y == (x > 0), 0, np.abs(x)).mean()
    assert found == pytest.approx(wanted, rel=1e-12)
    assert np.isfinite(gradient).all()


def test_a_class_alone_is_certain(backend):
    x, y = given("cross_entropy", (4, 1))
    found, gradient = first_loss(backend, "cross_entropy", x, y)
    assert found == 0
    assert not gradient.any()


def test_the_gradient_of_mae_at_its_kink_is_0(backend):
    x, y = given("mae")
    y[:, 1] = x[:, 1]
    _, gradient = first_loss(backend, "mae", x, y)
    assert gradient[1] == 0
    assert gradient[0] == pytest.approx(np.sign(x - y)[:, 0].sum() / x.size)


# Losses of one's own.


class Huber(bl.Custom):
    """One number for each example."""

    delta: float = 0.5

    def forward(self, ops, x):
        output, target = x
        error = ops.abs(output - target)
        near = 0.5 * ops.square(error)
        cost = ops.where(error < self.delta, near, self.delta * (error - self.delta / 2))
        return ops.mean(cost, axis=-1)


class Batchwise(bl.Custom):
    """One number for the batch, from outputs and two targets, one of them labels."""

    def forward(self, ops, x):
        a, b, target, label = x
        hot = ops.take(ops.eye(4, 4, like=b), label, axis=0)
        return ops.mean(ops.square(a - target)) - ops.mean(hot * ops.log(ops.softmax(b)))


TWO = bl.Parallel(bl.Sequential(bl.Dense(3), bl.Tanh(), bl.Dense(3)), bl.Dense(4), merge="tuple")


def own_curve(backend, net, loss, data, epochs=4, **options):
    model = bl.lower(net, backend, input_shape=data[0].shape[1:], dtype="float64", **options)
    setting = {"optimizer": bl.Adam(0.02), "epochs": epochs, "batch_size": 5}
    return np.array(bl.fit(model, data, loss=loss, **setting).losses)


def test_a_loss_of_ones_own_trains(framework):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(13, 5)), rng.normal(size=(13, 3))
    net = bl.Sequential(bl.Dense(4), bl.Tanh(), bl.Dense(3))
    wanted = own_curve("numpy", net, Huber(), (x, y))
    error = np.abs(bl.apply(bl.lower(net, "numpy", input_shape=(5,), dtype="float64"), x) - y)
    cost = np.where(error < 0.5, error**2 / 2, 0.5 * (error - 0.25))
    first = own_curve("numpy", net, Huber(), (x, y), epochs=1)
    assert wanted[0] == first[0]
    assert cost.min() < first[0] < cost.max()
    np.testing.assert_allclose(own_curve(framework, net, Huber(), (x, y)), wanted, rtol=1e-10)


def test_a_loss_takes_several_outputs_and_targets(framework):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(13, 5)), (rng.normal(size=(13, 3)), rng.integers(0, 4, 13))
    wanted = own_curve("numpy", TWO, Batchwise(), (x, y))
    found = own_curve(framework, TWO, Batchwise(), (x, y))
    np.testing.assert_allclose(found, wanted, rtol=1e-10)
    assert np.ptp(wanted) > 0.1


class Counted(bl.Custom):
    """It counts how often its code runs."""

    calls = 0

    def forward(self, ops, x):
        type(self).calls += 1
        output, target = x
        return ops.mean(ops.square(output - target), axis=-1)


class Branching(Counted):
    """Large errors count twice, by a branch on their value."""

    calls = 0

    def forward(self, ops, x):
        cost = ops.mean(super().forward(ops, x))
        return 2 * cost if cost > 1 else cost


def test_a_loss_becomes_a_graph_if_it_can(framework):
    """Else it runs step by step, and no step is made twice. torch has no graphs."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(15, 4)), rng.normal(size=(15, 3))
    net = bl.Sequential(bl.Dense(5), bl.Dropout(0.3), bl.Dense(3))
    for loss in (Counted, Branching):
        wanted = own_curve("numpy", net, loss(), (x, y), draws="shared")
        loss.calls = 0
        found = own_curve(framework, net, loss(), (x, y), draws="shared")
        np.testing.assert_allclose(found, wanted, rtol=1e-10)
        traced = framework != "torch" and loss is Counted
        assert (loss.calls < 8) == traced
    assert wanted.min() < 1 < wanted.max()


# A variational autoencoder.

VAE = bl.Sequential(
    bl.Dense(5),
    bl.Tanh(),
    bl.Parallel(mean=bl.Dense(2), logvar=bl.Dense(2), merge="tuple"),
    bl.Parallel(bl.Sequential(bl.Sample(), bl.Dense(6)), bl.Identity(), merge="tuple"),
)


@pytest.mark.parametrize("reconstruction", ["squared_error", "binary_cross_entropy"])
def test_a_vae_trains_alike(reconstruction, framework):
    """With the noise of one stream for all."""
    x = np.random.default_rng(0).random((20, 6))
    loss = bl.VAELoss(beta=0.7, reconstruction=reconstruction)
    wanted = own_curve("numpy", VAE, loss, (x, x), epochs=10, draws="shared")
    found = own_curve(framework, VAE, loss, (x, x), epochs=10, draws="shared")
    np.testing.assert_allclose(found, wanted, rtol=1e-9)
    assert wanted[-8:].mean() < wanted[:8].mean()


def test_a_vaes_loss_is_its_formula():
    """Of its evaluation; and KL is 0 for the standard normal distribution."""
    rng = np.random.default_rng(0)
    y, mean, logvar, target = (rng.normal(size=(7, n)) for n in (6, 2, 2, 6))
    net = bl.Parallel(*(bl.Select(i) for i in range(3)), merge="tuple")
    model = bl.lower(net, "numpy", input_shape=((6,), (2,), (2,)), dtype="float64")

    def loss(*outputs, **options):
        return bl.evaluate(model, (outputs, target), loss=bl.VAELoss(**options))["loss"]

    error, none = ((y - target) ** 2).sum(1).mean(), np.zeros((7, 2))
    kl = (-0.5 * (1 + logvar - mean**2 - np.exp(logvar))).sum(1).mean()
    assert loss(y, mean, logvar, beta=0.3) == pytest.approx(error + 0.3 * kl, rel=1e-12)
    assert loss(y, none, none, beta=9.0) == pytest.approx(error, rel=1e-12)
    assert loss(y, mean, logvar, beta=0) == pytest.approx(error, rel=1e-12)


# Evaluation.

NET = bl.Sequential(bl.Dense(4), bl.BatchNorm(), bl.Dropout(0.5), bl.Tanh(), bl.Dense(3))


@pytest.mark.parametrize("loss", LOSSES)
def test_evaluation_does_not_depend_on_the_batch_and_changes_nothing(loss, backend):
    x, y = given(loss, (3,))
    model = bl.lower(NET, backend, input_shape=(3,), dtype="float64")
    before = bl.params_of(model)
    found = [
        bl.evaluate(model, (x, y), loss=loss, metrics=[loss], batch_size=n)[name]
        for n in (1, 4, 256)
        for name in ("loss", loss)
    ]
    wanted = loss_by_hand(loss, bl.apply(model, x), y)
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
    after = bl.params_of(model)
    assert all(np.array_equal(before[path], after[path]) for path in before)


def test_accuracies_are_shares():
    model = bl.lower(bl.Identity(), "numpy", input_shape=(2, 3))
    x = np.array([[[5, 1, 0], [0, 2, 1]], [[0, 0, 1], [3, 2, 1]]])
    found = bl.evaluate(model, (x, np.array([[0, 2], [2, 0]])), metrics="accuracy", batch_size=1)
    assert found["accuracy"] == 0.75
    model = bl.lower(bl.Identity(), "numpy", input_shape=(3,))
    targets = np.array([[0, 1, 1], [1, 0, 0.0]])
    x = np.array([[-1, 2, -3], [1, 2, -1]])
    found = bl.evaluate(model, (x, targets), loss="mse", metrics=["binary_accuracy"])
    assert found["binary_accuracy"] == pytest.approx(4 / 6)


def test_evaluation_takes_a_loss_of_ones_own():
    x, y = given("mse", examples=9)
    model = bl.lower(bl.Identity(), "numpy", input_shape=(3,), dtype="float64")
    found = [
        bl.evaluate(model, (x, y), loss=Huber(), batch_size=n, metrics=["mae"]) for n in (2, 9)
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-12)
    assert found[0]["mae"] == pytest.approx(np.abs(x - y).mean())


# Errors.


class Learned(bl.Custom):
    def param_specs(self, x):
        return {"scale": bl.ParamSpec((), "ones")}

    def forward(self, ops, x, scale):
        return scale


class Square(bl.Custom):
    def forward(self, ops, x):
        return ops.square(x[0] - x[1])


X, Y = np.zeros((4, 3)), np.zeros((4, 3))
WRONG = [
    (
        {"loss": "mse"},
        (X, np.zeros((4, 2))),
        "mse needs targets ('batch', 3), got float64 of (4, 2).",
    ),
    ({"loss": "mae"}, (X, "abc"), "mae needs targets ('batch', 3), got <U3 of ()."),
    (
        {"loss": "binary_cross_entropy"},
        (X, Y - 1),
        "binary_cross_entropy needs targets from 0 to 1, got -1.0 to -1.0.",
    ),
    ({"loss": "mse", "metrics": ["f1"]}, (X, Y), "a metric must be one of 'cross_entropy', "),
    ({"loss": "mse", "metrics": 3}, (X, Y), "metrics must be names such as 'accuracy', got 3."),
    ({"loss": None}, (X, Y), "loss must be one of 'cross_entropy', "),
    ({"loss": []}, (X, Y), "loss must be one of 'cross_entropy', "),
    ({"loss": "mse", "metrics": ["accuracy"]}, (X, Y), "accuracy needs one integer label for each"),
    ({"loss": Learned()}, (X, Y), "Learned has parameters, which a loss cannot have."),
    (
        {"loss": bl.VAELoss()},
        (X, Y),
        "VAELoss takes output, mean, logvar and target, of two shapes",
    ),
    (
        {"loss": Square()},
        (X, Y),
        "Square must return one number for a batch or for each example, got ",
    ),
    (
        {"loss": Square()},
        (X, np.array(["a"] * 4)),
        "Square takes numbers as targets, got dtype <U1.",
    ),
    ({"loss": "mse"}, (X,), "data must be a pair: inputs and targets."),
    ({"loss": "mse"}, 7, "data must be a pair: inputs and targets."),
    ({"loss": "mse"}, (X, Y[:2]), "data needs one target for each input, got 4 and 2."),
    ({"loss": "mse"}, (X[:0], Y[:0]), "data has no examples."),
]


@pytest.mark.parametrize(("options", "data", "message"), WRONG, ids=[m[:40] for *_, m in WRONG])
@pytest.mark.parametrize("verb", [bl.fit, bl.evaluate])
def test_what_does_not_fit_is_refused(verb, options, data, message):
    model = bl.lower(bl.Dense(3), "numpy", input_shape=(3,))
    with pytest.raises(bl.BlockError) as error:
        verb(model, data, **options)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_loss_that_is_no_number_is_refused_everywhere(framework):
    model = bl.lower(bl.Dense(3), need(framework), input_shape=(3,))
    with pytest.raises(bl.ShapeError, match="Square must return one number for a batch or for"):
        bl.fit(model, (X, Y), loss=Square())


def test_several_outputs_need_a_loss_of_ones_own():
    model = bl.lower(TWO, "numpy", input_shape=(3,))
    with pytest.raises(bl.ShapeError, match=r"mse needs one output, but the network has 2\.\n  W"):
        bl.fit(model, (X, Y), loss="mse")

"""The tree of parameters: counting, freezing, copying, comparing, and other blocks in a network."""

import numpy as np
import pytest
from test_engines import ran

import blocks as bl
from blocks._models import origin
from cases import CASES
from conftest import FRAMEWORKS, need

rng = np.random.default_rng(0)


def drawn(node, seed=1):
    """Parameters off their defaults, variances positive."""
    draw = np.random.default_rng(seed)
    moved = {p: a + 0.1 * np.abs(draw.normal(size=a.shape)) for p, a in bl.init(node, seed).items()}
    return {p: a.astype(bl.init(node)[p].dtype) for p, a in moved.items()}


def same(a, b):
    return [path for path in a if np.array_equal(a[path], b[path])]


# Counting

NESTED = bl.Sequential(
    encoder=bl.Sequential(bl.Dense(5), bl.BatchNorm(), bl.Sequential(bl.Dense(4), bl.Tanh())),
    head=bl.Dense(2),
)


def test_counts_by_pattern():
    node = bl.infer(NESTED, (3,))
    assert bl.count(node) == 20 + 20 + 24 + 10
    assert bl.count(node, "encoder/**") == 64
    assert bl.count(node, "**/kernel") == 15 + 20 + 8
    assert bl.count(node, "encoder/1/*", trainable=True) == 10
    assert bl.count(node, "**", trainable=False) == 10
    assert bl.count(node, trainable=np.bool_(False)) == 10
    with pytest.raises(bl.FieldError, match="trainable must be True or False, got 1"):
        bl.count(node, trainable=1)
    assert bl.count(node, "head/*", trainable=False) == 0
    assert bl.count(bl.infer(bl.ReLU(), (3,))) == 0
    with pytest.raises(
        bl.ParamError, match=r"'hed/\*' matches no parameter. Did you mean 'head/\*'"
    ):
        bl.count(node, "hed/*")
    with pytest.raises(bl.FieldError, match="count takes a node from infer, got Sequential"):
        bl.count(NESTED)
    with pytest.raises(bl.FieldError, match="a pattern of paths is a text"):
        bl.count(node, 3)


# Freezing

TIED = bl.Shared("tied", bl.Dense(4, bias_init="normal"))
NET = bl.Sequential(
    body=bl.Sequential(bl.Dense(4), bl.BatchNorm(), bl.SiLU()),
    seq=bl.Sequential(TIED, bl.Tanh(), bl.Dense(4), TIED),
    flat=bl.Flatten(),
    head=bl.Dense(3),
)
SHAPE = (5, 2)
X = rng.normal(size=(11, *SHAPE))
Y = rng.integers(0, 3, 11)
FREEZE = {"body/**": False, "seq/2/bias": False, "seq/0/kernel": False, "body/1/bias": True}
DESCENT = bl.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.1)
ADAMW = bl.AdamW(0.02, weight_decay=0.3, epsilon=1e-3)


def lowered(backend, freeze=FREEZE, dtype="float64", **options):
    node = bl.infer(NET, SHAPE, dtype=dtype)
    return bl.lower(node, backend, params=drawn(node), trainable=freeze, **options)


def trained(model, optimizer=DESCENT):
    return bl.fit(model, (X, Y), optimizer=optimizer, epochs=2, batch_size=6, clip_norm=0.3)


def test_what_is_frozen_is_not_touched(backend):
    """Whatever momentum, decay and clipping do; running statistics move; the curve is the
    reference's.
    """
    model, reference = lowered(backend), lowered("numpy")
    frozen = {path for path, on in bl.trainable_of(model).items() if not on}
    assert frozen == {
        *("body/0/kernel", "body/0/bias", "body/1/scale", "body/1/mean", "body/1/var"),
        *("seq/2/bias", "seq/0/kernel"),
    }
    before = bl.params_of(model)
    found, wanted = (trained(m, ADAMW) for m in (model, reference))
    np.testing.assert_allclose(found.losses, wanted.losses, rtol=1e-10)
    after, right = bl.params_of(model), bl.params_of(reference)
    assert set(same(before, after)) == frozen - {"body/1/mean", "body/1/var"}
    assert bl.diff_params(right, after, tolerance=1e-9)
    for each in (model, reference):  # what was frozen is trained, and the other way round
        bl.set_trainable(each, {"**": True, "head/*": False})
    found, wanted = (trained(m, DESCENT) for m in (model, reference))
    np.testing.assert_allclose(found.losses, wanted.losses, rtol=1e-10)
    assert same(after, bl.params_of(model)) == ["head/kernel", "head/bias"]


def test_the_norm_is_that_of_what_is_trained(backend):
    """One step by hand: gradients of frozen parameters would make it smaller."""
    model = lowered(backend, {"**": False, "head/**": True})
    before = bl.params_of(model)
    logits = bl.apply(model, X, training=True)
    chances = np.exp(logits - logits.max(-1, keepdims=True))
    cotangent = (chances / chances.sum(-1, keepdims=True) - np.eye(3)[Y]) / len(Y)
    grads = bl.gradients(model, X, cotangent, training=True)
    own = {path: grads[path] for path in ("head/kernel", "head/bias")}
    norm = np.sqrt(sum((g**2).sum() for g in own.values()))
    assert np.sqrt(sum((g**2).sum() for g in grads.values())) > 1.1 * norm
    bl.fit(model, (X, Y), optimizer=bl.SGD(0.1), batch_size=11, clip_norm=norm / 2)
    after = bl.params_of(model)
    for path, g in own.items():
        np.testing.assert_allclose(after[path], before[path] - 0.05 * g, atol=1e-12)


def test_gradients_are_those_of_all_parameters(backend):
    """Also of frozen ones, which stay frozen; and running statistics move as they do."""
    models = lowered(backend), lowered(backend, {})
    cotangent = rng.normal(size=(11, 3))
    found, wanted = (bl.gradients(m, X, cotangent, training=True) for m in models)
    assert bl.diff_params(wanted, found)
    assert "body/0/kernel" in found
    assert bl.diff_params(*models)
    assert not bl.trainable_of(models[0])["body/0/kernel"]
    assert bl.trainable_of(models[1])["body/0/kernel"]


def test_frozen_and_trained_again(backend):
    """The last pattern wins, and what none matches stays."""
    model = lowered(backend, {})
    everything = bl.trainable_of(model)
    assert [path for path, on in everything.items() if not on] == ["body/1/mean", "body/1/var"]
    bl.set_trainable(model, {"**": False})
    assert not any(bl.trainable_of(model).values())
    with pytest.raises(bl.ParamError, match="fit has nothing to train: all parameters are frozen"):
        trained(model)
    bl.set_trainable(model, {"head/*": True})
    bl.set_trainable(model, {"**": True, "head/bias": False})
    assert bl.trainable_of(model) == everything | {"head/bias": False}
    bl.set_trainable(model, {"head/b*": True})
    assert bl.trainable_of(model) == everything


def test_it_is_frozen_whatever_the_first_parameters(backend):
    options = {"init": "native"}, {"draws": "shared"}, {"seed": 3}
    node = bl.infer(bl.Sequential(bl.Dense(4), bl.Dropout(0.5), bl.Dense(2)), (3,))
    for more in options:
        model = bl.lower(node, backend, trainable={"0/**": False}, **more)
        assert list(bl.trainable_of(model).values()) == [False, False, True, True]


def test_running_statistics_are_not_trained():
    node = bl.infer(NET, SHAPE)
    with pytest.raises(bl.ParamError, match="cannot train 'body/1/mean': running state"):
        bl.lower(node, "numpy", trainable={"body/1/mean": True})
    model = bl.lower(node, "numpy", trainable={"**": False, "body/1/*": True, "body/1/var": False})
    found = bl.trainable_of(model)
    assert [path for path, on in found.items() if on] == ["body/1/scale", "body/1/bias"]


WRONG = [
    (3, "trainable is a dict from path to bool, got 3."),
    ({"head/*": 0}, "trainable['head/*'] must be True or False, got 0."),
    ({"head/*": None}, "trainable['head/*'] must be True or False, got None."),
    ({3: True}, "a pattern of paths is a text such as '*/kernel', got 3."),
    ({"hed/**": False, "**": True}, "'hed/**' matches no parameter. Did you mean 'head/**'?"),
    ({"seq/3/kernel": False}, "'seq/3/kernel' matches no parameter. Did you mean"),
]


@pytest.mark.parametrize(("freeze", "message"), WRONG, ids=[m[:40] for _, m in WRONG])
def test_what_cannot_be_frozen_is_refused(freeze, message):
    model = lowered("numpy", {})
    for attempt in (lambda: lowered("numpy", freeze), lambda: bl.set_trainable(model, freeze)):
        with pytest.raises(bl.BlockError) as error:
            attempt()
        assert str(error.value).startswith(message)
    assert bl.trainable_of(model)["head/bias"]


# Several parameters in one native array

PACKED = [case for case in CASES if case.name in ("MultiHeadAttention", "LSTM", "GRU", "Repeat")]


@pytest.mark.parametrize("case", PACKED, ids=lambda case: case.name)
def test_parameters_in_one_array_are_frozen_together(case, backend):
    """One alone is frozen exactly, or refused with the names of the others; all together always."""
    node = bl.infer(case.base, case.shape)
    model = bl.lower(node, backend)
    for bindings in origin(model).places:
        paths = [b.path for b in bindings]
        bl.set_trainable(model, {"**": True})
        if len(paths) > 1:
            with pytest.raises(bl.ParamError) as error:
                bl.set_trainable(model, {paths[0]: False})
            message = str(error.value)
            assert f"{backend} cannot freeze {paths[0]} and train" in message
            assert all(path in message for path in paths)
            assert all(bl.trainable_of(model).values())
        bl.set_trainable(model, dict.fromkeys(paths, False))
        assert [path for path, on in bl.trainable_of(model).items() if not on] == [
            path for path in node.param_specs() if path in paths
        ]


def test_what_lies_in_one_array_is_frozen_with_it(framework):
    """torch has query, key and value in one, Flax the layers of a Repeat."""
    net = bl.Sequential(
        bl.Repeat(bl.Sequential(bl.Dense(4), bl.Tanh()), 3), bl.MultiHeadAttention(2), bl.Dense(3)
    )
    freeze = {"0/**/kernel": False, "1/*": False, "1/out_*": True}
    data = rng.normal(size=(11, 5, 4)), rng.normal(size=(11, 5, 3))
    found = []
    for name in (framework, "numpy"):
        model = bl.lower(net, name, input_shape=(5, 4), dtype="float64", trainable=freeze)
        before, optimizer = bl.params_of(model), bl.AdamW(0.02, epsilon=1e-3)
        bl.fit(model, data, loss="mse", optimizer=optimizer, batch_size=6, clip_norm=0.1)
        after = bl.params_of(model)
        frozen = [path for path, on in bl.trainable_of(model).items() if not on]
        assert same(before, after) == frozen
        assert len(frozen) == 3 + 6
        found.append(after)
    assert bl.diff_params(*found, tolerance=1e-6)


# Each framework's own words


def test_torch_says_requires_grad():
    need("torch")
    model = lowered("torch")
    assert not model.body[0].weight.requires_grad
    assert model.head.bias.requires_grad
    model.head.requires_grad_(False)
    assert not bl.trainable_of(model)["head/kernel"]
    bl.set_trainable(model, {"head/kernel": True})
    assert model.head.weight.requires_grad
    assert not model.head.bias.requires_grad


def test_an_optimiser_of_torch_forgets_the_old_gradient():
    torch = pytest.importorskip("torch")
    model = bl.lower(bl.Dense(2), "torch", input_shape=(3,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    model(torch.ones(4, 3)).sum().backward()
    bl.set_trainable(model, {"kernel": False})
    before = bl.params_of(model)
    optimizer.step()
    assert same(before, bl.params_of(model)) == ["kernel"]


def test_keras_says_trainable(tmp_path):
    """Of variables: its own fit trains the rest, and a saved model is the same one."""
    need("keras")
    import keras

    model = lowered("keras", dtype="float32")
    on = bl.trainable_of(model)
    assert len(model.trainable_weights) == len(model.trainable_variables) == sum(on.values())
    assert [x.name for x in model.layers if not x.trainable] == ["body-0"]
    before = bl.params_of(model)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(0.1, weight_decay=0.5), loss)
    model.fit(X.astype("float32"), Y, epochs=2, verbose=0)
    after = bl.params_of(model)
    still = {path for path, trains in on.items() if not trains} - {"body/1/mean", "body/1/var"}
    assert set(same(before, after)) == still
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    assert bl.diff_params(after, bl.params_of(again, node=origin(model).node))


def test_keras_keeps_frozen_layers_in_a_file(tmp_path):
    """With the state of the optimiser of a model that its owner compiled and trained."""
    need("keras")
    import keras

    freeze = {"0/*": False, "3/*": False}
    net = bl.Sequential(bl.Dense(4), bl.BatchNorm(), bl.Tanh(), bl.LSTM(3))
    model = bl.lower(net, "keras", input_shape=(6, 5), trainable=freeze)
    model.compile(keras.optimizers.Adam(), "mse")
    model.fit(np.ones((7, 6, 5)), np.ones((7, 3)), verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert bl.trainable_of(again, node=origin(model).node) == bl.trainable_of(model)
    assert len(again.trainable_variables) == 2


def test_keras_layers_that_are_frozen_as_a_whole():
    need("keras")
    model = lowered("keras", {})
    layer = next(layer for layer in model.layers if "BatchNorm" in type(layer).__name__)
    model.trainable = False
    assert not any(bl.trainable_of(model).values())
    bl.set_trainable(model, {"head/bias": True})
    assert [path for path, on in bl.trainable_of(model).items() if on] == ["head/bias"]
    assert not layer.trainable  # as its owner froze it
    bl.set_trainable(model, {"body/1/scale": True})
    assert layer.trainable
    wanted = ["body/1/scale", "head/bias"]
    assert [path for path, on in bl.trainable_of(model).items() if on] == wanted
    before = bl.params_of(model)
    trained(model)
    moved = {*wanted, "body/1/mean", "body/1/var"}
    assert {path for path in before if path not in same(before, bl.params_of(model))} == moved


def test_flax_says_it_with_a_tag():
    """It is in nnx's filters, through split, merge and jit, and nnx's own optimiser."""
    need("flax")
    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx

    model = lowered("flax", dtype="float32")
    trains = nnx.All(nnx.Param, nnx.Not("frozen"))
    on = bl.trainable_of(model)
    graph, weights, frozen, rest = nnx.split(model, trains, nnx.Param, ...)
    assert len(jax.tree.leaves(frozen)) == 5
    node = origin(model).node
    assert bl.trainable_of(nnx.merge(graph, weights, frozen, rest), node=node) == on
    assert bl.trainable_of(nnx.clone(model), node=node) == on

    optimizer = nnx.Optimizer(model, optax.adamw(0.1, weight_decay=0.5), wrt=trains)

    @nnx.jit
    def step(model, optimizer, x, y):
        def loss(model):
            logits = model(x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        grads = nnx.grad(loss, argnums=nnx.DiffState(0, trains))(model)
        optimizer.update(model, grads)

    before = bl.params_of(model)
    step(model, optimizer, jnp.asarray(X, jnp.float32), jnp.asarray(Y))
    assert bl.trainable_of(model) == on
    still = {path for path, trains in on.items() if not trains} - {"body/1/mean", "body/1/var"}
    assert set(same(before, bl.params_of(model))) == still


def test_the_reference_leaves_them_out():
    model = lowered("numpy")
    plain = lowered("numpy", {})
    assert len(model.param()) == len(plain.param()) - 5


ON_ENGINE = """
import keras, numpy as np, blocks as bl
assert keras.backend.backend() == {engine!r}
net = bl.Sequential(bl.Dense(4), bl.Tanh(), bl.BatchNorm(), bl.Dense(3))
rng = np.random.default_rng(0)
x, y, w = rng.normal(size=(9, 5)), rng.integers(0, 3, 9), rng.normal(size=(9, 3))
freeze = {{"0/**": False, "2/scale": False}}
models = [bl.lower(net, name, input_shape=(5,), trainable=freeze) for name in ("keras", "numpy")]
for training in (False, True):
    pair = [bl.gradients(model, x, w, training=training) for model in models]
    assert bl.diff_params(pair[1], pair[0], tolerance=1e-4), bl.diff_params(*pair)
before = bl.params_of(models[0])
options = dict(optimizer=bl.AdamW(0.05, epsilon=1e-3), epochs=3, batch_size=4, clip_norm=0.3)
losses = [bl.fit(model, (x, y), **options).losses for model in models]
np.testing.assert_allclose(*losses, rtol=1e-4)
after = bl.params_of(models[0])
same = [path for path in before if np.array_equal(before[path], after[path])]
assert same == ["0/kernel", "0/bias", "2/scale"], same
bl.set_trainable(models[0], {{"**": True}})
bl.fit(models[0], (x, y), **options)
assert not [path for path in after if np.array_equal(bl.params_of(models[0])[path], after[path])]
print("all agree")
"""


@pytest.mark.parametrize("engine", ["jax", "torch"])
def test_frozen_under_every_engine(engine):
    need("keras")
    need({"jax": "flax"}.get(engine, engine))
    assert ran(ON_ENGINE.format(engine=engine), engine) == "all agree"


# Copying

COPIED = CASES[::5]
PAIRS = [(a, b) for a in ("numpy", *FRAMEWORKS) for b in ("numpy", *FRAMEWORKS) if a != b]


@pytest.mark.parametrize(
    ("source", "target"), [pytest.param(*pair, id="-".join(pair)) for pair in PAIRS]
)
def test_between_any_two_backends(source, target):
    """A bounded sample: a few cases for each pair, all of them over all pairs."""
    need(source), need(target)
    for case in COPIED[PAIRS.index((source, target)) % 3 :: 3]:
        node = bl.infer(case.base, case.shape, dtype="float64")
        narrow = bl.infer(case.base, case.shape)
        one, other = bl.lower(node, source, params=drawn(node)), bl.lower(narrow, target, seed=5)
        if not node.param_specs():
            continue
        assert bl.copy_params(one, other) == list(node.param_specs())
        assert bl.diff_params(one, other, tolerance=1e-7), case.name
        bl.copy_params(other, one)
        assert bl.diff_params(other, one), case.name


def heads(backend, features, seed=0, body=5):
    net = bl.Sequential(
        encoder=bl.Sequential(bl.Dense(body), bl.MultiHeadAttention(1)), head=bl.Dense(features)
    )
    return bl.lower(net, backend, input_shape=(4, 3), seed=seed)


def test_a_part_is_copied(backend):
    source, target = heads("numpy", 7, seed=1), heads(backend, 2)
    kept = bl.params_of(target)
    copied = bl.copy_params(source, target, "encoder/**")
    assert copied == [path for path in kept if path.startswith("encoder/")]
    after = bl.params_of(target)
    assert bl.diff_params(
        bl.select(bl.params_of(source), "encoder/**"), bl.select(after, "encoder/**")
    )
    assert {"head/kernel", "head/bias"} <= set(same(kept, after))
    # one of several parameters in an array, from a dict
    kernel = {"encoder/1/key_kernel": np.ones((5, 5))}
    bl.copy_params(kernel, target, "**/key_kernel")
    last = bl.params_of(target)
    assert set(after) - set(same(after, last)) == set(kernel)
    assert (last["encoder/1/key_kernel"] == 1).all()


def test_to_a_model_that_was_not_made_here():
    torch = pytest.importorskip("torch")
    node = bl.infer(bl.Sequential(bl.Dense(4), bl.ReLU()), (3,))
    target = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU())
    source = bl.lower(node, "numpy", seed=3)
    bl.copy_params(source, target, node=node)
    assert bl.diff_params(source, bl.params_of(target, node=node))
    bl.set_trainable(target, {"0/bias": False}, node=node)
    assert not target[0].bias.requires_grad
    assert bl.trainable_of(target, node=node) == {"0/kernel": True, "0/bias": False}


def test_all_that_does_not_fit_is_said_at_once():
    source, target = heads("numpy", 7, seed=1), heads("numpy", 2, body=6)
    before = bl.params_of(target)
    params = bl.params_of(source) | {"tail/bias": np.ones(2)}
    del params["encoder/0/bias"]
    with pytest.raises(bl.ParamError) as error:
        bl.copy_params(params, target)
    lines = str(error.value).splitlines()
    assert lines[0] == f"{len(lines) - 1} parameters do not fit."
    assert "  head/bias: expected (2,), got (7,)." in lines
    assert "  tail/bias: the target has none." in lines
    assert "  encoder/0/bias: the source has none." in lines
    assert bl.diff_params(before, target)
    with pytest.raises(
        bl.ParamError, match=r"'hed/\*' matches no parameter. Did you mean 'head/\*'"
    ):
        bl.copy_params(source, target, "hed/*")
    with pytest.raises(bl.BlockError, match="this int was not made by lower"):
        bl.copy_params(3, target)
    with pytest.raises(bl.BlockError, match="this dict was not made by lower"):
        bl.copy_params(source, params)


def test_loading_a_part(backend):
    """What is missing and what is unexpected is returned; wrong shapes are refused."""
    model = heads(backend, 2)
    before = bl.params_of(model)
    given = {"encoder/1/query_bias": np.full(5, 3.0), "head/kernel": np.ones((5, 2)), "x/y": 1}
    found = bl.load_params(model, given, strict=False)
    assert found.unexpected == ("x/y",)
    assert found.missing == tuple(path for path in before if path not in given)
    after = bl.params_of(model)
    assert {p for p in before if p not in same(before, after)} == {*given} - {"x/y"}
    assert (after["encoder/1/query_bias"] == 3).all()
    wrong = {"head/kernel": np.ones((2, 5)), "head/bias": np.ones(3), "encoder/0/bias": np.ones(5)}
    with pytest.raises(bl.ParamError) as error:
        bl.load_params(model, wrong, strict=False)
    assert "head/kernel: expected (5, 2), got (2, 5). Canonical" in str(error.value)
    assert "head/bias: expected (2,), got (3,)" in str(error.value)
    assert bl.diff_params(after, model)
    assert bl.load_params(model, before) == ((), ())
    assert bl.diff_params(before, model)


# Differences


def test_a_difference_is_found_where_it_is():
    a = {"0/kernel": rng.normal(size=(4, 3)), "0/bias": np.zeros(3), "1/scale": np.ones(2)}
    b = {path: array.copy() for path, array in a.items()}
    assert bl.diff_params(a, b)
    assert bl.diff_params({}, {})
    b["0/kernel"][2, 1] += 0.25
    report = bl.diff_params(a, b)
    row = report.rows[0]
    assert not report
    assert row.index == (2, 1)
    assert row.largest == pytest.approx(0.25)
    assert row.relative == pytest.approx(0.25 / np.abs(a["0/kernel"]).max())
    assert [bool(row) for row in report.rows] == [False, True, True]
    assert bl.diff_params(a, b, tolerance=row.relative)
    assert not bl.diff_params(a, b, tolerance=0.99 * row.relative)
    text = str(report)
    assert "│ 0/kernel │ (4, 3)    │ (4, 3) │" in text
    assert "[2, 1]" in text
    assert "1 of 3 parameters differ" in text


@pytest.mark.parametrize("side", [0, 1, 2])
def test_nan_is_never_equal(side):
    pair = [{"w": np.arange(4.0)}, {"w": np.arange(4.0)}]
    for params in pair if side == 2 else [pair[side]]:
        params["w"][2] = np.nan
    report = bl.diff_params(*pair, tolerance=1e9)
    assert not report
    assert np.isnan(report.rows[0].largest)
    assert report.rows[0].index == (2,)
    assert "nan" in str(report)


def test_infinities():
    a = {"w": np.array([np.inf, 1.0, 2.0])}
    assert bl.diff_params(a, {"w": np.array([np.inf, 1.0, 2.0])})
    assert not bl.diff_params(a, {"w": np.array([-np.inf, 1.0, 2.0])}, tolerance=1e9)
    assert bl.diff_params(a, {"w": np.array([np.inf, 1.5, 2.0])}).rows[0].relative == 0.25


def test_missing_and_extra_parameters_and_other_shapes():
    a = {"kernel": np.ones((2, 3)), "bias": np.ones(3), "scale": np.ones(1)}
    b = {"kernel": np.ones((3, 2)), "bias": np.ones(3), "gamma[0]": np.ones(1)}
    report = bl.diff_params(a, b, tolerance=1e9)
    verdicts = {row.path: row.verdict for row in report.rows}
    wanted = {"kernel": "shape", "bias": "equal", "scale": "missing", "gamma[0]": "extra"}
    assert verdicts == wanted
    assert not report
    assert report.rows[0].shapes == ((2, 3), (3, 2))
    assert all(text in str(report) for text in ("missing", "gamma[0]", "3 of 4 parameters differ"))


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(bl.FieldError, match="tolerance must be a number >= 0"):
        bl.diff_params({}, {}, tolerance=-1)
    with pytest.raises(bl.ParamError) as error:
        bl.diff_params({"a": "x", "b": [[1], [2, 3]], "c": 1}, {})
    assert "a: expected numbers, got dtype <U1" in str(error.value)
    assert "b: expected an array, got list" in str(error.value)
    with pytest.raises(bl.BlockError, match="was not made by lower"):
        bl.diff_params(3, {})


def test_models_are_compared_across_backends(framework):
    model, reference = lowered(framework, {}), lowered("numpy", {})
    assert bl.diff_params(reference, model)
    bl.load_params(model, {p: a + 1e-15 + abs(a) / 2 for p, a in bl.params_of(model).items()})
    assert not any(bl.diff_params(reference, model).rows)


# Other blocks in a network


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_block_is_found_where_its_node_is(case):
    """And put back in its place, where it changes nothing."""
    node = bl.infer(case.base, case.shape)
    for inner in node.walk():
        assert bl.at(node, inner.path) is inner
        assert bl.at(case.base, inner.path) == inner.block
        in_loop = any(isinstance(bl.at(node, up).form, bl.Repeat) for up in above(inner.path))
        if not in_loop:
            again = bl.infer(bl.replace(case.base, inner.path, inner.block), case.shape)
            assert again.param_specs() == node.param_specs()
            assert [n.path for n in again.walk()] == [n.path for n in node.walk()]


def above(path):
    names = path.split("/") if path else []
    return ["/".join(names[:i]) for i in range(len(names))]


DEEP = bl.Sequential(
    encoder=bl.Repeat(bl.Residual(bl.MLP(4, hidden=(8,)), merge="mean"), 3),
    fork=bl.Parallel(bl.Dense(3), wide=bl.Sequential(bl.Dense(5), bl.ReLU()), merge="tuple"),
    pick=bl.Select(0),
    head=bl.Dense(10),
)


def test_a_block_is_replaced_through_all_combinators():
    plain = DEEP.parts()
    assert bl.replace(DEEP, "head", bl.Dense(2)) == DEEP.with_blocks(plain | {"head": bl.Dense(2)})
    found = bl.replace(DEEP, "fork/wide/0", bl.Dense(7))
    assert bl.at(found, "fork") == bl.Parallel(
        bl.Dense(3), wide=bl.Sequential(bl.Dense(7), bl.ReLU()), merge="tuple"
    )
    assert bl.at(found, "encoder") is bl.at(DEEP, "encoder")
    found = bl.replace(DEEP, "encoder/*/body/1", bl.Tanh())
    body = bl.Sequential(bl.Dense(8), bl.Tanh(), bl.Dense(4))
    assert bl.at(found, "encoder") == bl.Repeat(bl.Residual(body, merge="mean"), 3)
    assert bl.at(found, "encoder/2/body/1") == bl.Tanh()
    around = bl.Residual(bl.Dense(3), bl.Dense(3))
    assert bl.replace(around, "shortcut", bl.ReLU()) == bl.Residual(bl.Dense(3), bl.ReLU())
    assert bl.replace(DEEP, "", bl.ReLU()) == bl.ReLU()
    node = bl.infer(DEEP, (4,))
    assert bl.replace(node, "head", bl.Dense(2)) == bl.replace(DEEP, "head", bl.Dense(2))


def test_a_shared_block_is_replaced_in_all_its_uses():
    inner = bl.Shared("inner", bl.Dense(4))
    outer = bl.Shared("outer", bl.Sequential(inner, bl.ReLU(), inner))
    net = bl.Sequential(outer, bl.Residual(outer), bl.MLP(4, hidden=(4,), activation=inner), inner)
    new = bl.Shared("inner", bl.Dense(4, use_bias=False))
    changed = bl.Shared("outer", bl.Sequential(new, bl.ReLU(), new))
    written = bl.Sequential(bl.Dense(4), new, bl.Dense(4))
    wanted = bl.Sequential(changed, bl.Residual(changed), written, new)
    for path in ("3", "0/0", "0/2", "1/body/2", "2/1"):
        for block in (bl.Dense(4, use_bias=False), new):
            assert bl.replace(net, path, block) == wanted
    assert next(iter(bl.infer(wanted, (4,)).param_specs())) == "0/0/kernel"
    found = bl.replace(net, "1/body/1", bl.Tanh())
    tanh = bl.Shared("outer", bl.Sequential(inner, bl.Tanh(), inner))
    assert found == bl.Sequential(tanh, bl.Residual(tanh), bl.at(net, "2"), inner)
    assert bl.replace(inner, "", bl.ReLU()) == bl.Shared("inner", bl.ReLU())
    assert bl.replace(bl.Repeat(inner, 3), "*", new) == bl.Repeat(new, 3)


def test_in_a_very_deep_network():
    net = bl.Dense(4)
    for _ in range(2000):
        net = bl.Sequential(net)
    path = "/".join(["0"] * 2000)
    assert bl.at(bl.replace(net, path, bl.ReLU()), path) == bl.ReLU()
    tied = bl.Shared("tied", net)
    net = bl.Sequential(tied, tied)
    assert bl.at(bl.replace(net, f"1/{path}", bl.ReLU()), f"0/{path}") == bl.ReLU()


NOWHERE = [
    ("hed", "Sequential at the top has no 'hed' inside; it has 'encoder', 'fork', 'pick', 'head'. "
     "Did you mean 'head'?"),
    ("fork/wid/0", "Parallel at 'fork' has no 'wid' inside; it has '0', 'wide'. Did you mean "
     "'fork/wide'?"),
    ("head/kernel", "Dense at 'head' has no blocks inside, so no 'head/kernel'."),
    ("encoder/3", "Repeat at 'encoder' has no '3' inside; it has '0', '1', '2'."),
    ("encoder/*/shortcut", "Residual at 'encoder/*' has no 'shortcut' inside; it has 'body'."),
    ("head/", "Dense at 'head' has no blocks inside, so no 'head/'."),
    (3, "a path is a text such as 'encoder/0', got 3."),
]  # fmt: skip


@pytest.mark.parametrize(("path", "message"), NOWHERE, ids=[str(path) for path, _ in NOWHERE])
def test_a_path_that_leads_nowhere(path, message):
    with pytest.raises(bl.FieldError) as error:
        bl.replace(DEEP, path, bl.ReLU())
    assert str(error.value).startswith(message)
    with pytest.raises(bl.FieldError) as error:
        bl.at(DEEP, path)
    assert str(error.value).startswith(message)
    if "*" not in str(path):
        with pytest.raises(bl.FieldError) as error:
            bl.at(bl.infer(DEEP, (4,)), path)
        assert str(error.value).startswith(message)


def test_one_repetition_alone_is_not_replaced():
    with pytest.raises(bl.FieldError) as error:
        bl.replace(DEEP, "encoder/1/body", bl.Dense(4))
    assert "so 'encoder/1' cannot be replaced alone" in str(error.value)
    assert "Write 'encoder/*' for all" in str(error.value)


def test_what_is_no_block_is_refused():
    model = bl.lower(bl.Sequential(bl.ReLU()), "numpy", input_shape=(3,))
    for wrong in (
        lambda: bl.replace(3, "0", bl.ReLU()),
        lambda: bl.at("net", "0"),
        lambda: bl.at(model, "0"),
    ):
        with pytest.raises(bl.FieldError, match="the network must be a block, got"):
            wrong()
    with pytest.raises(bl.FieldError, match="what replaces a block must be a block, got <class"):
        bl.replace(DEEP, "head", bl.ReLU6().__class__)


def test_a_head_is_replaced_and_the_body_kept():
    """The whole way: the body's numbers on another backend, frozen, and the head trained."""
    old = heads("numpy", 7, seed=1)
    net = bl.replace(origin(old).node, "head", bl.Sequential(bl.Flatten(), bl.Dense(3)))
    new = bl.lower(net, need("torch"), input_shape=(4, 3), trainable={"encoder/**": False})
    found = bl.load_params(new, bl.params_of(old), strict=False)
    assert found.missing == ("head/1/kernel", "head/1/bias")
    assert found.unexpected == ("head/kernel", "head/bias")
    before = bl.params_of(new)
    bl.fit(new, (rng.normal(size=(9, 4, 3)), rng.integers(0, 3, 9)), optimizer=bl.Adam(0.1))
    rows = bl.diff_params(before, new).rows
    assert [row.path for row in rows if not row] == list(found.missing)
    assert bl.diff_params(
        bl.select(bl.params_of(old), "encoder/**"), bl.select(bl.params_of(new), "encoder/**")
    )

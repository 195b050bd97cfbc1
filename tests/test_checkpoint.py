"""Checkpoints: training goes on where it stopped; exactly on its backend, else within rounding."""

import copy
import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_files import CUSTOM
from test_trees import networks

import blocks as bl
from blocks._arrays import read_arrays, write_arrays
from blocks._backends import find_backend
from blocks._checkpoint import (
    HEADER,
    WHAT,
    Checkpoint,
    arrays_of,
    header_of,
    restore,
    snapshot,
    text_checksum,
)
from blocks._models import origin
from blocks._parity import Inputs, doubled, random_params
from blocks._plan import History, Plan
from cases import CASES
from conftest import FRAMEWORKS, need

ALL = ["numpy", *FRAMEWORKS]
EXHAUSTIVE = pytest.mark.exhaustive
# Keras and Flax compile every model anew, which takes most of the time.
QUICK = ["numpy", "torch", *(pytest.param(name, marks=EXHAUSTIVE) for name in ("keras", "flax"))]


class Stop(Exception):
    pass


def stopped(model, data, path, at, every=None, **options):
    """Train until something breaks after a step; the checkpoint that is left."""

    def stop(step, loss):
        if step == at:
            raise Stop

    with pytest.raises(Stop):
        bl.fit(
            model,
            data,
            checkpoint=path,
            checkpoint_every=every or at,
            on_step=stop,
            **options,
        )
    return bl.load_checkpoint(path, CUSTOM)


def seeded(name):
    """torch draws from a generator that is everybody's."""
    if name == "torch":
        import torch

        torch.manual_seed(5)


def same(found, wanted):
    """Two histories, and what is in them, bit for bit."""
    assert found.losses == wanted.losses
    assert found.epochs == wanted.epochs
    assert (found.best is None) == (wanted.best is None)
    for path, array in (wanted.best or {}).items():
        assert np.array_equal(found.best[path], array), path


def near(found, wanted, tolerance):
    """Two curves, as a share of the largest loss."""
    found, wanted = np.array(found.losses), np.array(wanted.losses)
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= tolerance * np.abs(wanted).max()


# On the same backend.

NET = bl.Sequential(
    bl.Conv(4, (3, 2), padding="same"),
    bl.BatchNorm(),
    bl.Tanh(),
    bl.Dropout(0.3),
    bl.Flatten(),
    bl.Dense(3),
)
COSINE = bl.CosineDecay(0.05, steps=20, final=0.01, warmup=3)
OPTIMIZERS = [
    (bl.AdamW(COSINE, weight_decay=0.1), 0.5),
    (bl.SGD(0.05, momentum=0.9), None),
    (bl.SGD(0.05), None),
    (bl.SGD(COSINE, momentum=0.8, nesterov=True, weight_decay=0.05), 0.5),
    (bl.Adam(0.01), None),
    (bl.Adagrad(0.05), None),
]
RUNS = [
    pytest.param(*run, id=str(run[0]), marks=[EXHAUSTIVE] if i else [])
    for i, run in enumerate(OPTIMIZERS)
]


def data(dtype="float64"):
    rng = np.random.default_rng(0)
    return rng.normal(size=(23, 6, 5, 2)).astype(dtype), rng.integers(0, 3, 23)


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=EXHAUSTIVE)])
@pytest.mark.parametrize(("optimizer", "clip_norm"), RUNS)
def test_the_same_backend_goes_on_exactly(optimizer, clip_norm, dtype, backend, tmp_path):
    """In the middle of an epoch, with draws of its own, and a table with the best parameters."""
    node, held = bl.infer(NET, (6, 5, 2), dtype=dtype), data(dtype)
    options = {"optimizer": optimizer, "clip_norm": clip_norm, "epochs": 4, "batch_size": 8}
    options |= {"metrics": ["accuracy"], "keep_best": True, "seed": 3}
    seeded(backend)
    whole = bl.lower(node, backend)
    wanted = bl.fit(whole, held, validation=held, **options)
    seeded(backend)
    first = bl.lower(node, backend)
    found = stopped(first, held, tmp_path / "run", 7, validation=held, **options)
    assert found.step == 7
    seeded("torch" if backend == "torch" else "")
    model = found.lower(backend)
    same(bl.fit(model, held, validation=held, resume=found), wanted)
    for path, array in bl.params_of(whole).items():
        assert np.array_equal(bl.params_of(model)[path], array), path


@pytest.mark.parametrize("at", [1, 2, 3, 5, 6, 8, 9])
def test_any_step_is_one_to_go_on_from(at, tmp_path):
    """Before, at and after the end of an epoch; and the end itself has nothing left to do."""
    node, held = bl.infer(NET, (6, 5, 2)), data()
    options = {"optimizer": bl.Adam(0.01), "epochs": 3, "batch_size": 8}
    wanted = bl.fit(bl.lower(node, "numpy"), held, **options)
    path = tmp_path / "run"
    if at < 9:
        found = stopped(bl.lower(node, "numpy"), held, path, at, every=1, **options)
        assert found.step == (at if at % 3 else at - 1)  # a row of the table comes first
    else:
        bl.fit(bl.lower(node, "numpy"), held, checkpoint=path, **options)
        found = bl.load_checkpoint(path)
        assert found.step == 9
    same(bl.fit(found.lower("numpy"), held, resume=found), wanted)
    longer = bl.fit(found.lower("numpy"), held, resume=found, epochs=5)
    assert longer.losses[:9] == wanted.losses
    assert len(longer.losses) == 15


def test_a_run_that_stopped_early_stays_so(tmp_path):
    held = data()
    options = {"optimizer": bl.SGD(0.0), "epochs": 9, "batch_size": 8}
    options |= {"early_stop": bl.EarlyStop("validation_loss", patience=2), "validation": held}
    model = bl.lower(bl.infer(NET, (6, 5, 2)), "numpy")
    wanted = bl.fit(model, held, checkpoint=tmp_path / "run", **options)
    assert len(wanted.epochs) < 9
    found = bl.load_checkpoint(tmp_path / "run")
    same(bl.fit(found.lower("numpy"), held, resume=found, validation=held), wanted)
    more = bl.fit(found.lower("numpy"), held, resume=found, validation=held, early_stop=None)
    assert len(more.epochs) == 9


SCRIPT = """
import sys, json
if sys.argv[1] == "torch":
    import torch
    torch.set_num_threads(int(sys.argv[4]))  # sums depend on it
import numpy as np, blocks as bl
name, path, epochs, _ = sys.argv[1:]
x, y = (np.load(f"{path}.{n}.npy") for n in "xy")
found = bl.load_checkpoint(path)
print(json.dumps(bl.fit(found.lower(name), (x, y), resume=found, epochs=int(epochs)).losses))
"""


@pytest.mark.parametrize(
    "name",
    ["numpy", "torch", *(pytest.param(n, marks=EXHAUSTIVE) for n in ("keras", "flax"))],
)
def test_a_new_process_goes_on_exactly(name, tmp_path):
    node, (x, y) = bl.infer(NET, (6, 5, 2)), data("float32")
    options = {"optimizer": bl.Adam(0.01), "batch_size": 8}
    path = tmp_path / "run"
    np.save(f"{path}.x.npy", x)
    np.save(f"{path}.y.npy", y)
    seeded(need(name))
    wanted = bl.fit(bl.lower(node, name), (x, y), epochs=4, **options)
    seeded(name)
    stopped(bl.lower(node, name), (x, y), path, 5, epochs=4, **options)
    threads = sys.modules["torch"].get_num_threads() if "torch" in sys.modules else 1
    call = [sys.executable, "-c", SCRIPT, name, str(path), "4", str(threads)]
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    if name == "keras":  # TensorFlow's last digit differs between processes that did other things
        np.testing.assert_allclose(found, wanted.losses, rtol=1e-6)
    else:
        assert tuple(found) == wanted.losses


# On other backends.

SEQUENCES = bl.Sequential(
    bl.Embedding(6, 8),
    bl.Constant(0.5, merge="multiply"),
    bl.Repeat(bl.Residual(bl.Sequential(bl.Dense(8), bl.Tanh())), 3),
    bl.Shared("tied", bl.Dense(8)),
    bl.Tanh(),
    bl.Shared("tied", bl.Dense(8)),
    bl.MultiHeadAttention(2),
    bl.GRU(5, bidirectional=True, return_sequences=True),
    bl.BatchNorm(),
    bl.LSTM(4),
    bl.Dense(3),
)


def sentences():
    rng = np.random.default_rng(0)
    return rng.integers(0, 6, size=(17, 5)), rng.normal(size=(17, 3))


@pytest.mark.parametrize(
    ("optimizer", "clip_norm"),
    [
        (bl.Adam(0.01, epsilon=1e-4), None),
        pytest.param(bl.SGD(0.05, momentum=0.9), None, marks=EXHAUSTIVE),
        pytest.param(bl.AdamW(COSINE, epsilon=1e-4), 0.3, marks=EXHAUSTIVE),
        pytest.param(bl.SGD(COSINE, 0.9, nesterov=True), 0.3, marks=EXHAUSTIVE),
        pytest.param(bl.Adagrad(0.05), 0.3, marks=EXHAUSTIVE),
    ],
    ids=str,
)
def test_one_curve_over_all_backends(optimizer, clip_norm, tmp_path):
    """Packed, stacked and shared parameters; each backend makes four steps, in mid-epoch."""
    node = bl.infer(SEQUENCES, bl.Spec((5,), "int32"), dtype="float64")
    options = {"loss": "mse", "optimizer": optimizer, "clip_norm": clip_norm}
    options |= {"batch_size": 6, "epochs": 7}  # 21 steps
    wanted = bl.fit(bl.lower(node, "numpy"), sentences(), **options)
    names = [name for name in ("torch", "keras", "flax") if need(name)]
    found = stopped(bl.lower(node, "numpy"), sentences(), tmp_path / "run", 4, **options)
    for i, name in enumerate(names, 2):
        model = found.lower(name)
        found = stopped(
            model, sentences(), tmp_path / "run", 4 * i + (i > 2), every=1, resume=found
        )
    history = bl.fit(found.lower("numpy"), sentences(), resume=found)
    near(history, wanted, 1e-9)


def test_a_restart_without_the_moments_is_another_curve(tmp_path):
    """The control: what the comparison would see if the optimiser began anew."""
    node = bl.infer(SEQUENCES, bl.Spec((5,), "int32"), dtype="float64")
    options = {"loss": "mse", "batch_size": 6, "epochs": 7}
    for optimizer in (bl.Adam(0.01, epsilon=1e-4), bl.SGD(0.05, momentum=0.9)):
        wanted = bl.fit(bl.lower(node, "numpy"), sentences(), optimizer=optimizer, **options)
        first = bl.lower(node, "numpy")
        found = stopped(first, sentences(), tmp_path / "run", 4, optimizer=optimizer, **options)
        slots: dict = {name: {} for name in found.slots}
        anew = bl.fit(found.lower("numpy"), sentences(), resume=replace(found, slots=slots))
        assert np.abs(np.subtract(anew.losses, wanted.losses)).max() > 1e-4


DRAWING = bl.Sequential(
    bl.Dense(8),
    bl.Dropout(0.3),
    bl.Parallel(bl.Dense(4), bl.Dense(4), merge="tuple"),
    bl.Sample(),
    bl.Residual(bl.Dropout(0.5)),
    bl.Dense(3),
)


def vectors(size=4):
    rng = np.random.default_rng(0)
    return rng.normal(size=(17, size)), rng.normal(size=(17, 3))


@pytest.mark.parametrize(
    "pairs",
    [
        {"numpy": ["torch"], "torch": ["keras"], "keras": ["flax"], "flax": ["numpy"]},
        pytest.param(dict.fromkeys(ALL, ALL), marks=EXHAUSTIVE),
    ],
    ids=["each to the next", "all to all"],
)
def test_shared_draws_go_on_everywhere(pairs, tmp_path):
    node = bl.infer(DRAWING, (4,), dtype="float64")
    options = {"loss": "mse", "batch_size": 6, "epochs": 5}
    options["optimizer"] = bl.SGD(0.005, momentum=0.9)
    wanted = bl.fit(bl.lower(node, "numpy", draws="shared", seed=4), vectors(), **options)
    for name, others in pairs.items():
        first = bl.lower(node, need(name), draws="shared", seed=4)
        found = stopped(first, vectors(), tmp_path / "run", 4, **options)
        assert set(found.calls) == {"1/calls", "3/calls", "4/body/calls"}
        assert set(map(int, found.calls.values())) == {4}
        for other in others:
            history = bl.fit(found.lower(other), vectors(), resume=found)
            near(history, wanted, 1e-9)


@pytest.mark.parametrize("name", QUICK)
def test_draws_of_its_own_go_on(name, tmp_path):
    """Dropout and Sample; the random numbers of another backend are other ones."""
    node = bl.infer(DRAWING, (4,), dtype="float64")
    options = {"loss": "mse", "optimizer": bl.Adam(0.01), "batch_size": 6, "epochs": 5}
    seeded(name)
    wanted = bl.fit(bl.lower(node, name, seed=1), vectors(), **options)
    seeded(name)
    first = bl.lower(node, name, seed=1)
    found = stopped(first, vectors(), tmp_path / "run", 7, **options)
    same(bl.fit(found.lower(name), vectors(), resume=found), wanted)
    other = bl.fit(found.lower("numpy"), vectors(), resume=replace(found, random=None))
    assert other.losses[:7] == wanted.losses[:7]
    assert other.losses != wanted.losses


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize(
    ("dtype", "param_dtype"),
    [
        ("bfloat16", "float32"),
        pytest.param("bfloat16", "bfloat16", marks=EXHAUSTIVE),
        pytest.param("float16", "float16", marks=EXHAUSTIVE),
    ],
)
def test_numbers_of_16_bits(dtype, param_dtype, name, tmp_path):
    """The reference keeps them in 32, and running statistics are kept in 32 by some: so does the
    file, and what goes on is exact.
    """
    node = bl.infer(NET, (6, 5, 2), dtype=dtype, param_dtype=param_dtype)
    mixed = param_dtype == "float32"
    optimizer = bl.Adam(0.01) if mixed else bl.SGD(0.05, momentum=0.9)
    options = {"optimizer": optimizer, "epochs": 3, "batch_size": 8}
    seeded(name)
    wanted = bl.fit(bl.lower(node, name), data(), **options)
    seeded(name)
    found = stopped(bl.lower(node, name), data(), tmp_path / "run", 4, **options)
    same(bl.fit(found.lower(name), data(), resume=found), wanted)
    other = bl.fit(found.lower("numpy"), data(), resume=found)
    assert np.isfinite(other.losses).all()


@pytest.mark.parametrize("name", ["numpy", "torch", pytest.param("flax", marks=EXHAUSTIVE)])
def test_models_that_lower_did_not_make(name, tmp_path):
    node = bl.infer(NET, (6, 5, 2))
    options = {"optimizer": bl.SGD(0.05, momentum=0.9), "epochs": 3, "batch_size": 8}
    seeded(need(name))
    wanted = bl.fit(bl.lower(node, name), data(), **options)
    seeded(name)
    first = copy.deepcopy(bl.lower(node, name))
    found = stopped(first, data(), tmp_path / "run", 4, node=node, **options)
    second = copy.deepcopy(found.lower(name))
    same(bl.fit(second, data(), resume=found, node=found.node), wanted)


@pytest.mark.parametrize("name", ["numpy", "torch", "flax"])
def test_a_copy_with_shared_draws_is_refused(name, tmp_path):
    """Its stream could not be had again."""
    node = bl.infer(DRAWING, (4,))
    model = copy.deepcopy(bl.lower(node, need(name), draws="shared", seed=4))
    with pytest.raises(bl.UnsupportedError, match="a copy of a model with shared draws"):
        bl.fit(model, vectors(), loss="mse", node=node, checkpoint=tmp_path / "run")


def test_frozen_parameters_have_no_slots(backend, tmp_path):
    """They stay frozen on every backend; if one is trained after all, its moments begin at 0."""
    node = bl.infer(bl.Sequential(bl.Dense(4), bl.Tanh(), bl.Dense(3)), (4,), dtype="float64")
    options = {"loss": "mse", "optimizer": bl.Adam(0.01), "epochs": 5, "batch_size": 6}
    frozen = {"0/*": False}
    wanted = bl.fit(bl.lower(node, "numpy", trainable=frozen), vectors(), **options)
    model = bl.lower(node, backend, trainable=frozen)
    found = stopped(model, vectors(), tmp_path / "run", 4, **options)
    assert [set(arrays) for arrays in found.slots.values()] == [{"2/kernel", "2/bias"}] * 2
    assert found.frozen == ("0/kernel", "0/bias")
    for name in {"numpy", backend}:
        again = found.lower(name)
        near(bl.fit(again, vectors(), resume=found), wanted, 1e-9)
        assert np.array_equal(bl.params_of(again)["0/kernel"], bl.params_of(model)["0/kernel"])
    thawed = found.lower(backend)
    bl.set_trainable(thawed, {"**": True})
    with pytest.raises(
        bl.FieldError, match="the model trains 0/bias, 0/kernel, or not, other than"
    ):
        bl.fit(thawed, vectors(), resume=found)
    history = bl.fit(thawed, vectors(), resume=replace(found, frozen=()))
    assert history.losses[:5] == wanted.losses[:5] or backend != "numpy"
    assert history.losses != wanted.losses


def test_the_optimiser_stays_torchs_own(tmp_path):
    """What a checkpoint fills is what torch.optim's own state_dict holds, and steps on with."""
    torch = pytest.importorskip("torch")
    node = bl.infer(bl.Sequential(bl.Dense(4), bl.Tanh(), bl.Dense(3)), (4,), dtype="float64")
    x, y = vectors()
    options = {"loss": "mse", "optimizer": bl.AdamW(0.01), "epochs": 5, "batch_size": 17}
    wanted = bl.fit(bl.lower(node, "torch"), (x, y), seed=1, **options)
    found = stopped(
        bl.lower(node, "numpy"), (x, y), tmp_path / "run", 2, every=1, seed=1, **options
    )
    model = found.lower("torch")
    known = origin(model)
    trainer = known.backend.trainer(known.node, model, "mse", found.optimizer)
    restore(found, model, known, trainer)
    own = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.01)
    own.load_state_dict(trainer.native.state_dict())
    losses = []
    for _ in range(5 - found.step):
        own.zero_grad()
        loss = torch.nn.functional.mse_loss(model(torch.tensor(x)), torch.tensor(y))
        loss.backward()
        own.step()
        losses.append(loss.item())
    np.testing.assert_allclose(losses, wanted.losses[found.step :], rtol=1e-12)


class Worst(bl.Custom):
    """The mean of the largest errors, times a factor."""

    factor: float = 2.0

    def out_spec(self, x):
        return replace(x[0], shape=())

    def forward(self, ops, x):
        return self.factor * ops.mean(ops.max(ops.abs(x[0] - x[1]), axis=-1))


def test_a_loss_of_ones_own(tmp_path):
    node = bl.infer(bl.Dense(3), (4,))
    options = {"loss": Worst(3.0), "epochs": 3, "batch_size": 6}
    wanted = bl.fit(bl.lower(node, "numpy"), vectors(), **options)
    with pytest.raises(Stop):
        bl.fit(
            bl.lower(node, "numpy"),
            vectors(),
            checkpoint=tmp_path / "run",
            checkpoint_every=4,
            on_step=lambda step, loss: (_ for _ in ()).throw(Stop) if step == 4 else None,
            **options,
        )
    with pytest.raises(bl.FileError, match="Worst"):
        bl.load_checkpoint(tmp_path / "run")
    found = bl.load_checkpoint(tmp_path / "run", [Worst])
    same(bl.fit(found.lower("numpy"), vectors(), resume=found), wanted)


# Over all blocks: what goes in comes out, through every backend.


def random_checkpoint(node, optimizer, seed=0):
    """Training of which nothing is at its default."""
    rng = np.random.default_rng(seed)
    specs = {path: spec for path, spec in node.param_specs().items() if spec.trainable}
    slots = {
        name: {path: rng.random(spec.shape).astype(spec.dtype) for path, spec in specs.items()}
        for name in optimizer.slots
    }
    losses = tuple(rng.random(7))
    plan = Plan(loss="mse", optimizer=optimizer, epochs=3, batch_size=3)
    rows = tuple({"loss": float(row)} for row in rng.random(1))
    history = History(losses, 1.5, rows)
    drawn = random_params(node, seed)
    params = {path: drawn[path].astype(spec.dtype) for path, spec in node.param_specs().items()}
    return Checkpoint(node, plan, 13, params, slots, history, calls={}, random={})


def passed_through(found, name):
    """The checkpoint after a backend took it and gave it back."""
    model = found.lower(name)
    known = origin(model)
    trainer = known.backend.trainer(known.node, model, "mse", found.optimizer)
    restore(found, model, known, trainer)
    native = [trainer.slot(slot) for slot in found.optimizer.slots]
    for slot, arrays in zip(found.optimizer.slots, native, strict=True):
        # nothing but these numbers, each once: no transform does more than move them
        flat = [
            np.sort(np.concatenate([a.ravel() for a in all_]))
            for all_ in (arrays, list(found.slots[slot].values()))
        ]
        assert np.array_equal(*flat)
    return snapshot(model, known, trainer, found.plan, found.examples, found.history)


def check_round_trip(node, name, tmp_path, optimizer=None):
    if not any(spec.trainable for spec in node.param_specs().values()):
        return
    found = random_checkpoint(node, optimizer or bl.Adam(0.01))
    found.save(tmp_path / "case")
    read = bl.load_checkpoint(tmp_path / "case", CUSTOM)
    again = passed_through(read, name)
    assert read.plan == again.plan == found.plan
    assert read.history == found.history
    wanted = arrays_of(found)
    for path, array in arrays_of(again).items():
        if not path.startswith("random/"):
            assert array.dtype == wanted[path].dtype, path
            assert np.array_equal(array, wanted[path]), path


BASES = [
    pytest.param(case, id=case.name, marks=[] if i % 5 == 0 else [EXHAUSTIVE])
    for i, case in enumerate(c for c in CASES if bl.count(bl.infer(c.base, c.shape)))
]


@pytest.mark.parametrize("case", BASES)
def test_every_block_passes_through(case, backend, tmp_path):
    check_round_trip(bl.infer(case.base, case.shape), backend, tmp_path)


@pytest.mark.exhaustive
@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
@pytest.mark.parametrize("case", [c for c in CASES if bl.count(bl.infer(c.base, c.shape))], ids=str)
def test_every_variant_passes_through(case, layout, backend, tmp_path):
    for _, block in case.variants():
        try:
            node = bl.infer(block, case.shape, layout=layout, dtype="float64")
            find_backend(backend).program(node)
        except (bl.ShapeError, bl.UnsupportedError):
            continue
        check_round_trip(node, backend, tmp_path, bl.SGD(0.1, momentum=0.9))


@pytest.mark.exhaustive
@pytest.mark.parametrize("case", BASES)
def test_every_block_goes_on_elsewhere(case, tmp_path):
    """Two steps on each backend, and four on the reference, make the reference's curve."""
    node = doubled(bl.infer(case.base, case.shape))
    if isinstance(node.out_spec, tuple) or not bl.count(node, trainable=True):
        return
    inputs = Inputs.draw(node, 6, np.random.default_rng(0))
    held = inputs.x, inputs.target
    options = {"loss": "mse", "optimizer": bl.SGD(0.01, momentum=0.9), "epochs": 3, "batch_size": 3}
    start = random_params(node, 0)

    def first(name):
        return bl.lower(node, name, params=start, draws="shared")

    wanted = bl.fit(first("numpy"), held, **options)
    for name in FRAMEWORKS:
        backend = find_backend(need(name))
        try:
            model = first(name)
        except bl.UnsupportedError:
            continue
        floor = max((limit.error for limit in backend.rules.precision(node)), default=0.0)
        found = stopped(model, held, tmp_path / "run", 3, **options)
        near(bl.fit(found.lower("numpy"), held, resume=found), wanted, max(1e-9, 100 * floor))
        back = stopped(first("numpy"), held, tmp_path / "run", 3, **options)
        near(bl.fit(back.lower(name), held, resume=back), wanted, max(1e-9, 100 * floor))


TREES = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@settings(max_examples=3, **TREES)
@given(networks())
def test_random_trees_pass_through(tmp_path_factory, node):
    for name in ALL:
        check_round_trip(node, need(name), tmp_path_factory.mktemp("tree"))


@pytest.mark.exhaustive
@settings(max_examples=100, **TREES)
@given(networks(), st.integers(1, 5))
def test_random_trees_go_on(tmp_path_factory, node, at):
    """On the same backend exactly."""
    if isinstance(node.out_spec, tuple) or not bl.count(node, trainable=True):
        return
    inputs = Inputs.draw(node, 6, np.random.default_rng(0))
    held, path = (inputs.x, inputs.target), tmp_path_factory.mktemp("tree") / "run"
    options = {"loss": "mse", "optimizer": bl.Adam(1e-3), "epochs": 2, "batch_size": 2}
    for name in ALL:
        seeded(need(name))
        wanted = bl.fit(bl.lower(node, name), held, **options)
        seeded(name)
        found = stopped(bl.lower(node, name), held, path, at, every=1, **options)
        assert np.array_equal(
            bl.fit(found.lower(name), held, resume=found).losses, wanted.losses, equal_nan=True
        )


# A kill at any moment.

CHILD = """
import sys, numpy as np, blocks as bl
path, have = sys.argv[1:]
x, y = (np.load(f"{path}.{n}.npy") for n in "xy")
node = bl.infer(bl.MLP(3, hidden=(50, 50)), (4,))
options = {"loss": "mse", "optimizer": bl.Adam(0.01), "epochs": 4000, "batch_size": 6}
resume = bl.load_checkpoint(path) if have == "yes" else None
model = resume.lower("numpy") if resume else bl.lower(node, "numpy")
print("ready", flush=True)
bl.fit(model, (x, y), resume=resume, checkpoint=path, checkpoint_every=1, **options)
"""


def killed(path, have, delay):
    """Train in another process, and end it without a word."""
    call = [sys.executable, "-c", CHILD, str(path), have]
    with subprocess.Popen(call, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        time.sleep(delay)
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL


def check_kills(path, times, rng):
    x, y = vectors()
    np.save(f"{path}.x.npy", x)
    np.save(f"{path}.y.npy", y)
    killed(path, "no", 1.0)
    steps = [0]
    for _ in range(times):
        found = bl.load_checkpoint(path)
        assert found.step >= steps[-1]
        steps.append(found.step)
        killed(path, "yes", rng.uniform(0, 0.3))
    found = bl.load_checkpoint(path)
    assert found.step > steps[1] > 0
    node, epochs = found.node, found.step // 3 + 1
    options = {"loss": "mse", "optimizer": bl.Adam(0.01), "epochs": epochs, "batch_size": 6}
    wanted = bl.fit(bl.lower(node, "numpy"), (x, y), **options)
    assert wanted.losses[: found.step] == found.history.losses
    same(bl.fit(found.lower("numpy"), (x, y), resume=found, epochs=epochs), wanted)


@pytest.mark.parametrize("times", [4, pytest.param(100, marks=EXHAUSTIVE)])
def test_a_kill_leaves_a_whole_checkpoint(times, tmp_path):
    check_kills(tmp_path / "run", times, np.random.default_rng(0))


# What does not fit is refused.


@pytest.fixture
def written(tmp_path):
    """A checkpoint in the middle of things, and its path."""
    node = bl.infer(DRAWING, (4,))
    model = bl.lower(node, "numpy", draws="shared")
    options = {"loss": "mse", "optimizer": bl.Adam(0.01), "batch_size": 6, "epochs": 5}
    options |= {"keep_best": True, "metrics": ["mae"]}
    return stopped(model, vectors(), tmp_path / "run", 7, **options), tmp_path / "run"


CONFLICTS = [
    ({"batch_size": 8}, "batch_size=8, not 6"),
    ({"seed": 4}, "seed=4, not 0"),
    ({"loss": "mae"}, "loss='mae', not 'mse'"),
    ({"clip_norm": 1.0}, "clip_norm=1.0, not None"),
    ({"optimizer": bl.SGD(0.1)}, "optimizer=SGD(learning_rate=0.1), not Adam(learning_rate=0.01)"),
    ({"optimizer": bl.Adam(0.01, beta1=0.8)}, "optimizer=Adam(learning_rate=0.01, beta1=0.8), not"),
    ({"metrics": ()}, "a table of epochs of loss, not loss, mae"),
    ({"epochs": 2}, "epochs=2 end at step 6, but the checkpoint is at step 7"),
    ({"resume": "run"}, "resume must be a checkpoint from load_checkpoint, got 'run'"),
    ({"checkpoint": 3}, "checkpoint must be the path of a file, got 3"),
    ({"checkpoint_every": 3}, "checkpoint_every=3 needs a file: give checkpoint=PATH"),
    ({"checkpoint": "no/such/folder/run"}, "no/such/folder/run cannot be written"),
    ({"checkpoint": "run", "checkpoint_every": 0}, "checkpoint_every must be an int of at least 1"),
]


@pytest.mark.parametrize(("options", "message"), CONFLICTS, ids=[m[:30] for _, m in CONFLICTS])
def test_options_that_conflict(options, message, written):
    found, _ = written
    model = found.lower("numpy")
    before = bl.params_of(model)
    with pytest.raises(bl.BlockError) as error:
        bl.fit(model, vectors(), **{"resume": found} | options)
    assert message in str(error.value)
    for path, array in bl.params_of(model).items():
        assert np.array_equal(array, before[path])


def test_another_network_other_draws_other_data(written):
    found, _ = written
    for model, message in (
        (bl.lower(bl.Dense(3), "numpy", input_shape=(4,)), "is of another network"),
        (bl.lower(found.node, "numpy"), "draws='native'"),
        (bl.lower(found.node, "numpy", draws="shared", seed=1), "seed=1"),
    ):
        with pytest.raises(bl.FieldError, match=message):
            bl.fit(model, vectors(), resume=found)
    x, y = vectors()
    with pytest.raises(bl.FieldError, match="16 examples, not 17"):
        bl.fit(found.lower("numpy"), (x[1:], y[1:]), resume=found)


def test_another_learning_rate_may_be_given(written):
    found, _ = written
    history = bl.fit(found.lower("numpy"), vectors(), resume=found, optimizer=bl.Adam(0.0))
    still = bl.fit(found.lower("numpy"), vectors(), resume=found)
    assert history.losses[:8] == still.losses[:8]
    assert history.losses[8:] != still.losses[8:]


def rewritten(path, change_arrays=None, change_training=None, **header):
    """Write the file again, with checksums that are right."""
    arrays, texts = read_arrays(path, HEADER, WHAT)
    if change_arrays:
        change_arrays(arrays)
    if change_training:
        facts = json.loads(texts["training"])
        change_training(facts)
        texts["training"] = json.dumps(facts)
    texts |= header
    write_arrays(path, arrays, texts | {"checksum": text_checksum(texts)}, WHAT)


def put(name, value):
    return lambda arrays: arrays.__setitem__(name, value)


def drop(name):
    return lambda arrays: arrays.pop(name)


ARRAYS = [
    (drop("params/0/kernel"), "params: 1 parameter does not fit.\n  0/kernel: missing"),
    (put("params/0/kernel", np.zeros((8, 4))), "0/kernel: expected (4, 8), got (8, 4)"),
    (put("params/9/kernel", np.zeros(3)), "9/kernel: unknown"),
    (drop("best/0/kernel"), "best: 1 parameter does not fit"),
    (drop("slots/mean/0/kernel"), "slots/square are of other parameters than the first slots"),
    (put("slots/mean/0/bias", np.zeros(3)), "slots/mean/0/bias is float64 of (3,)"),
    (put("slots/mean/0/bias", np.zeros(8, int)), "slots/mean/0/bias is int64 of (8,)"),
    (put("slots/square/0/bias", np.full(8, -1.0)), "has squares below 0"),
    (put("slots/velocity/0/bias", np.zeros(8)), "unknown arrays slots/velocity/0/bias"),
    (drop("losses"), "losses are no row of numbers in float64"),
    (put("losses", np.zeros((7, 1))), "losses are no row"),
    (put("losses", np.zeros(70)), "70 losses are more than 5 epochs have"),
    (put("losses", np.zeros(4)), "epochs are no table of 1 rows and 2 columns"),
    (put("epochs", np.zeros((1, 2), np.float32)), "epochs are no table"),
    (drop("calls/1/calls"), "calls has"),
    (put("calls/1/calls", np.array(-1)), "calls/1/calls is no count"),
    (put("calls/1/calls", np.array(0.5)), "calls/1/calls is no count"),
    (put("other", np.zeros(3)), "unknown arrays other"),
]
FACTS = [
    (lambda facts: facts.pop("plan"), "Facts"),
    (put("plan", 3), "plan must be a Plan"),
    (put("examples", 0), "examples must be an int of at least 1"),
    (put("examples", 3), "7 losses are more than 5 epochs have"),
    (put("examples", 50), "epochs are no table"),
    (put("seconds", -1), "seconds must be a number >= 0"),
    (put("draws", "own"), "draws must be one of"),
    (put("draws_seed", -1), "draws_seed must be"),
    (put("columns", 3), "columns must be"),
    (put("frozen", ["1"]), "frozen has ['1'], which could not be trained"),
    (put("columns", ["loss", "mse"]), "have the columns"),
    (put("columns", ["loss", {"type": "Dense", "features": 3}]), "have the columns"),
    (put("other", 3), "has no field 'other'"),
    (put("type", "Plan"), "Plan at training"),
    (lambda facts: facts["plan"].__setitem__("optimizer", {"type": "Optimizer"}), "unknown type"),
    (lambda facts: facts["plan"].__setitem__("optimizer", {"type": "Lion"}), "unknown type 'Lion'"),
    (
        lambda facts: facts["plan"].__setitem__("optimizer", {"type": "Dense", "features": 3}),
        "optim",
    ),
    (lambda facts: facts["plan"].__setitem__("optimizer", {"type": "SGD"}), "unknown arrays slots"),
    (lambda facts: facts["plan"].__setitem__("loss", "entropy"), "loss must be one of"),
    (
        lambda facts: facts["plan"].__setitem__("loss", {"type": "Dense", "features": 3}),
        "loss must",
    ),
    (lambda facts: facts["plan"].__setitem__("batch_size", 1e9), "batch_size must be an int"),
    (lambda facts: facts["plan"].__setitem__("metrics", [["mae"]]), "metric"),
    (lambda facts: facts["plan"].__setitem__("clip_norm", "x"), "clip_norm must be a number"),
]


@pytest.mark.parametrize(("change", "message"), ARRAYS, ids=[m[:40] for _, m in ARRAYS])
def test_arrays_that_make_no_checkpoint(change, message, written):
    _, path = written
    rewritten(path, change)
    with pytest.raises(bl.FileError) as error:
        bl.load_checkpoint(path)
    assert message in str(error.value)


@pytest.mark.parametrize(("change", "message"), FACTS, ids=[m[:40] for _, m in FACTS])
def test_facts_that_make_no_checkpoint(change, message, written):
    _, path = written
    rewritten(path, change_training=change)
    with pytest.raises(bl.FileError) as error:
        bl.load_checkpoint(path)
    assert message in str(error.value)


def test_texts_that_make_no_checkpoint(written, tmp_path):
    _, path = written
    for header in ({"training": "{"}, {"training": "[]"}, {"training": "3"}, {"node": "{}"}):
        rewritten(path, **header)
        with pytest.raises(bl.FileError):
            bl.load_checkpoint(path)
        rewritten(path, **header_of(written[0]))
    arrays, texts = read_arrays(path, HEADER, WHAT)
    texts["training"] = texts["training"].replace('"batch_size": 6', '"batch_size": 5')
    write_arrays(path, arrays, texts, WHAT)
    with pytest.raises(bl.FileError, match="its texts were damaged"):
        bl.load_checkpoint(path)
    bl.save_params(written[0].params, tmp_path / "params")
    with pytest.raises(bl.FileError, match="holds no checkpoint of isoblocks"):
        bl.load_checkpoint(tmp_path / "params")
    with pytest.raises(bl.FileError, match="cannot be read"):
        bl.load_checkpoint(tmp_path / "none")


@settings(max_examples=200, **TREES | {"suppress_health_check": list(HealthCheck)})
@given(st.data())
def test_a_damaged_file_is_a_file_error(tmp_path_factory, data):
    """Any bytes in the place of some, and any length."""
    folder = tmp_path_factory.getbasetemp()
    path = folder / "whole"
    if not path.exists():
        random_checkpoint(bl.infer(bl.Dense(3), (4,)), bl.Adam(0.01)).save(path)
    whole = path.read_bytes()
    start = data.draw(st.integers(0, len(whole) - 1))
    new = data.draw(st.binary(min_size=0, max_size=8))
    cut = data.draw(st.integers(0, 8))
    broken = whole[:start] + new + whole[start + cut :]
    Path(folder / "broken").write_bytes(broken)
    try:
        found = bl.load_checkpoint(folder / "broken")
    except bl.FileError:
        return
    original = bl.load_checkpoint(path)
    assert header_of(found) == header_of(original)
    for name, array in arrays_of(found).items():
        assert np.array_equal(array, arrays_of(original)[name])


@pytest.mark.parametrize("name", QUICK)
def test_random_state_of_another_version_is_refused(name, tmp_path):
    node = bl.infer(DRAWING, (4,))
    options = {"loss": "mse", "batch_size": 6, "epochs": 5}
    found = stopped(bl.lower(node, name), vectors(), tmp_path / "run", 4, **options)
    state = {name: np.zeros(3, np.int8) for name in found.random[name]}
    changed = replace(found, random={name: state})
    with pytest.raises(bl.ParamError, match="random state"):
        bl.fit(found.lower(name), vectors(), resume=changed)
    if name in ("torch", "numpy"):  # of the right size, and yet none
        state = {n: np.full_like(a, np.iinfo(a.dtype).max) for n, a in found.random[name].items()}
        with pytest.raises(bl.ParamError, match=f"random state is none of {name}"):
            bl.fit(found.lower(name), vectors(), resume=replace(found, random={name: state}))

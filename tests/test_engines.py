"""Keras under its other engines, each in a process of its own: Keras allows one a process."""

import os
import subprocess
import sys

import pytest

from conftest import need

# As users run it: the tests' own processes compile for JAX without optimising.
ENVIRON = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}

# What Keras refuses under an engine, and why nobody can do better there.
REFUSED = {
    "jax": {("SimpleRNN", "float64"): "its tanh turns float64 into float32"},
    "torch": {},
}

CHECK = """
import keras, blocks as bl
from cases import CASES
assert keras.backend.backend() == {engine!r}
wrong = []
for case in CASES[{start}::{step}]:
    for dtype in ("float32", "float64"):
        report = bl.parity(
            case.base, case.shape, backends=["keras"], dtype=dtype, steps=2 * (dtype == "float32")
        )
        reason = {refused!r}.get((case.name, dtype))
        if not (reason in str(report) if reason else report):
            wrong.append(f"{{case.name}} {{dtype}}\\n{{report}}")
print("\\n".join(wrong) or "all agree")
"""


@pytest.mark.parametrize("engine", ["jax", "torch"])
@pytest.mark.parametrize(
    ("start", "step"),
    [
        pytest.param(0, 6, id="a sixth"),
        *(pytest.param(i, 6, id=str(i), marks=pytest.mark.exhaustive) for i in range(1, 6)),
    ],
)
def test_keras_means_the_same_on_every_engine(engine, start, step):
    need("keras")
    need({"jax": "flax"}.get(engine, engine))
    code = CHECK.format(engine=engine, refused=REFUSED[engine], start=start, step=step)
    assert ran(code, engine) == "all agree"


def ran(code, engine):
    """What code prints in a process of its own, or why it does not."""
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=os.path.dirname(__file__),
        env={**ENVIRON, "KERAS_BACKEND": engine},
    )
    return run.stdout.strip() or run.stderr


TRAINED = """
import keras, numpy as np, blocks as bl
from test_losses import VAE, own_curve
from test_optimizers import OPTIMIZERS, TOKENS, curve, far
assert keras.backend.backend() == {engine!r}
wrong = []
for i, loss in ((2, "mae"), (5, "binary_cross_entropy"), (6, "cross_entropy")):
    options = {{"optimizer": OPTIMIZERS[i], "loss": loss, "epochs": 6, "clip_norm": 0.3}}
    error = far(curve("keras", **options), curve("numpy", **options))
    if error > 1e-5:
        wrong.append(f"{{options}}: {{error}}")
rng = np.random.default_rng(0)
given = rng.integers(0, 6, size=(17, 5)), rng.normal(size=(17, 3))
options = {{"net": TOKENS, "shape": bl.Spec((5,), "int32"), "given": given, "epochs": 2}}
options |= {{"optimizer": bl.AdamW(0.01, epsilon=1e-3), "clip_norm": 0.3}}
error = far(curve("keras", **options), curve("numpy", **options))
if error > 1e-4:
    wrong.append(f"{{options}}: {{error}}")
x = rng.random((20, 6))
options = {{"epochs": 2, "draws": "shared"}}
pair = [own_curve(name, VAE, bl.VAELoss(), (x, x), **options) for name in ("keras", "numpy")]
if np.abs(pair[0] - pair[1]).max() > 1e-5 * pair[1].max():
    wrong.append(f"VAE: {{pair}}")
print("\\n".join(wrong) or "all agree")
"""


@pytest.mark.parametrize("engine", ["jax", "torch"])
def test_keras_trains_alike_on_every_engine(engine):
    """In float64, but for the means and products that Keras rounds to float32 there."""
    need("keras")
    need({"jax": "flax"}.get(engine, engine))
    assert ran(TRAINED.format(engine=engine), engine) == "all agree"


MEMORY = """
import test_params
test_params.test_a_model_shares_no_memory("keras")
print("all agree")
"""


@pytest.mark.parametrize("engine", ["jax", "torch"])
def test_keras_shares_no_memory_on_any_engine(engine):
    need("keras")
    need({"jax": "flax"}.get(engine, engine))
    assert ran(MEMORY, engine) == "all agree"


LOSSES = """
import keras, numpy as np, blocks as bl
from test_losses import Branching, Counted, own_curve
assert keras.backend.backend() == {engine!r}
rng = np.random.default_rng(0)
data = rng.normal(size=(15, 4)), rng.normal(size=(15, 3))
net = bl.Sequential(bl.Dense(5), bl.Dropout(0.3), bl.Dense(3))
for loss in (Counted, Branching):
    wanted = own_curve("numpy", net, loss(), data, draws="shared")
    loss.calls = 0
    found = own_curve("keras", net, loss(), data, draws="shared")
    print(np.abs(found / wanted - 1).max() < 1e-6, loss.calls < 8)
"""


@pytest.mark.parametrize("engine", ["jax", "torch"])
def test_a_loss_becomes_a_graph_if_it_can(engine):
    need("keras")
    need({"jax": "flax"}.get(engine, engine))
    traced = engine == "jax"
    assert ran(LOSSES.format(engine=engine), engine) == f"True {traced}\nTrue False"


GOES_ON = """
import torch, numpy as np, blocks as bl
path = {path!r}
rng = np.random.default_rng(0)
data = rng.normal(size=(23, 4)), rng.integers(0, 3, 23)
net = bl.Sequential(bl.Dense(5), bl.BatchNorm(), bl.Tanh(), bl.Dropout(0.3), bl.Dense(3))
node = bl.infer(net, (4,))
options = dict(optimizer=bl.AdamW(0.01), epochs=3, batch_size=6)

def begin(backend, draws, until=None, **more):
    class Stop(Exception):
        pass
    def stop(step, loss):
        if step == until:
            raise Stop
    torch.manual_seed(1)
    model = bl.lower(node, backend, draws=draws)
    try:
        return bl.fit(model, data, on_step=stop, **options, **more).losses
    except Stop:
        torch.manual_seed(2)
        return bl.load_checkpoint(path)

def go_on(found, backend):
    return bl.fit(found.lower(backend), data, resume=found).losses

file = dict(checkpoint=path, checkpoint_every=7, until=7)
assert go_on(begin("keras", "native", **file), "keras") == begin("keras", "native")
wanted = begin("numpy", "shared")
for one, other in (("keras", "numpy"), ("numpy", "keras")):
    found = go_on(begin(one, "shared", **file), other)
    np.testing.assert_allclose(found, wanted, rtol=2e-5)
print("goes on")
"""


@pytest.mark.parametrize("engine", ["torch", pytest.param("jax", marks=pytest.mark.exhaustive)])
def test_training_goes_on_under_every_engine(engine, tmp_path):
    """From a checkpoint: exactly with Keras, within rounding from and to the reference."""
    need("keras")
    need("torch")
    need({"jax": "flax"}.get(engine, engine))
    assert ran(GOES_ON.format(path=str(tmp_path / "run")), engine) == "goes on"

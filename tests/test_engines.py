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
        pytest.param(0, 3, id="a third"),
        pytest.param(1, 3, id="another", marks=pytest.mark.exhaustive),
        pytest.param(2, 3, id="the last", marks=pytest.mark.exhaustive),
    ],
)
def test_keras_means_the_same_on_every_engine(engine, start, step):
    need("keras")
    need({"jax": "flax"}.get(engine, engine))
    code = CHECK.format(engine=engine, refused=REFUSED[engine], start=start, step=step)
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=os.path.dirname(__file__),
        env={**ENVIRON, "KERAS_BACKEND": engine},
    )
    assert run.stdout.strip() == "all agree", run.stdout + run.stderr

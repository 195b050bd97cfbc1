"""Keras 3: a functional `keras.Model` of stock layers, channels last, under the engine that is set.

A functional model has no modules for Sequential or Residual: layers are called on values one after
the other. So rules here return steps: a layer or a function (`call`), `Pipe` of several steps, or
`Join` of branches; `Tracer` writes them as the statements that `build` runs and `source` prints.

The engine is the one that KERAS_BACKEND names, else the first installed of tensorflow, jax, torch.
"""

import importlib.util
import os

if "KERAS_BACKEND" not in os.environ:
    engines = [e for e in ("tensorflow", "jax", "torch") if importlib.util.find_spec(e)]
    if engines:
        os.environ["KERAS_BACKEND"] = engines[0]
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from backends._rules import load_rules
from backends.keras import _limits  # noqa: F401  (it adds to the rule table)
from backends.keras._adapter import backend

load_rules(__name__, __path__)

__all__ = ["backend"]

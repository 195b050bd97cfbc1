"""Flax: stock `nnx` layers and functions in `nnx.Sequential`s, channels last.

Where nnx has no layer, or one with another meaning, `flax_modules.py` has the smallest that does:
functions with the stated gradient at their kinks, LayerNorm over several axes, the combinators.
"""

from backends._rules import load_rules
from backends.flax._adapter import backend

load_rules(__name__, __path__)

__all__ = ["backend"]

"""NumPy: the reference, and the living definition of every block.

It works in the layout of the program, in float32 or float64, with layers from `numpy_modules.py`
whose backward is written out.
"""

from backends._rules import load_rules
from backends.numpy._adapter import backend

load_rules(__name__, __path__)

__all__ = ["backend"]

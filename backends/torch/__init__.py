"""PyTorch: stock `nn` modules in named `nn.Sequential`s, channels first.

Where a stock module cannot express a block, `torch_modules.py` has the smallest one that can: Conv
and AvgPool with unequal padding, BatchNorm (torch's running variance is the unbiased one),
LayerNorm with a bias alone, and the combinators that torch lacks.
"""

from backends._rules import load_rules
from backends.torch._adapter import backend

load_rules(__name__, __path__)

__all__ = ["backend"]

"""Training: one loop for every backend, over the same batches in the same order."""

from __future__ import annotations

from blocks import _fields as fields
from blocks._block import Block, block


@block
class SGD(Block):
    """Stochastic gradient descent with momentum.

        v = momentum * v + g;    w = w - learning_rate * v
        nesterov: w = w - learning_rate * (g + momentum * v)
    """

    learning_rate: float = fields.real(0.01, low=0)
    momentum: float = fields.real(0.0, low=0, high=1)
    nesterov: bool = fields.flag(False)

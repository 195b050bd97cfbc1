"""Regularisation."""

from __future__ import annotations

from blocks import _fields as fields
from blocks._block import Leaf, block
from blocks._spec import Spec


@block
class Dropout(Leaf):
    """In training, each number is set to 0 with probability `rate`; the others grow to match.

        y = x * keep / (1 - rate), keep ~ Bernoulli(1 - rate)

    In evaluation y = x. The masks come from each framework's own generator, so they differ between
    backends. (Srivastava et al. 2014.)

    Shape: any; unchanged.
    Fields:
        rate: probability of dropping, from 0 to below 1.
    Differs: torch calls the rate p.

    >>> import blocks as bl
    >>> bl.infer(bl.Dropout(0.5), (7,)).out_spec.shape
    (7,)
    """

    layout_role = "elementwise"
    stochastic = True

    rate: float = fields.real(0.5, low=0, high=1, open_high=True)

    def out_spec(self, x: Spec) -> Spec:
        return x

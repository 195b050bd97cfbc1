"""Regularisation."""

from __future__ import annotations

from blocks import _fields as fields
from blocks._block import Leaf, block
from blocks._errors import ShapeError
from blocks._spec import Spec, shapes


@block
class Dropout(Leaf):
    """In training, each number is set to 0 with probability `rate`; the others grow to match.

        y = x * keep / (1 - rate), keep ~ Bernoulli(1 - rate)

    In evaluation y = x. The masks come from each framework's own generator, so they differ between
    backends, unless `lower` is told draws="shared". (Srivastava et al. 2014; whole channels:
    Tompson et al. 2015.)

    Shape: any; unchanged. With whole_channels: (*spatial, C) in channels_last, (C, *spatial) in
        channels_first, with at most three spatial axes.
    Fields:
        rate: probability of dropping, from 0 to below 1.
        whole_channels: whether a channel of an example is dropped, or kept, over all its spatial
            axes at once.
    Differs: torch calls the rate p. Whole channels are Dropout1d, 2d and 3d in torch,
        SpatialDropout1D, 2D and 3D in Keras, broadcast_dims in Flax; torch's Dropout1d takes a
        batch of vectors for one example.

    >>> import blocks as bl
    >>> bl.infer(bl.Dropout(0.5), (7,)).out_spec.shape
    (7,)
    """

    stochastic = True

    rate: float = fields.real(0.5, low=0, high=1, open_high=True)
    whole_channels: bool = fields.flag(False)

    @property
    def layout_role(self) -> str:  # type: ignore[override]
        return "spatial" if self.whole_channels else "elementwise"

    def out_spec(self, x: Spec) -> Spec:
        if self.whole_channels and not 1 <= x.rank <= 4:
            raise ShapeError(
                f"drops whole channels of at most three spatial axes, got {shapes(x)}",
                fix="Use whole_channels=False.",
            )
        return x

"""The reference layers, by family: every block in plain NumPy, with an explicit backward."""

from backends.numpy.modules import (
    activation,
    base,
    combine,
    conv,
    linear,
    norm,
    pattern,
    pool,
    regularisation,
    shape,
    value,
)

FAMILIES = (
    base,
    linear,
    conv,
    pool,
    norm,
    activation,
    regularisation,
    shape,
    pattern,
    value,
    combine,
)

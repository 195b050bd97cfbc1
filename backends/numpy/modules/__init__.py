"""The reference layers, by family: every block in plain NumPy, with an explicit backward."""

from backends.numpy.modules import (
    activation,
    base,
    combine,
    conv,
    custom,
    linear,
    norm,
    ops,
    pattern,
    pool,
    recurrent,
    regularisation,
    shape,
    value,
)

FAMILIES = (
    *(base, linear, conv, pool, norm, activation, regularisation, shape, value, combine),
    *(ops, custom),
    base,
    linear,
    conv,
    recurrent,
    pool,
    norm,
    activation,
    regularisation,
    shape,
    pattern,
    value,
    combine,
)

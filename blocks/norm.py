"""Normalisation."""

from __future__ import annotations

import math

from blocks import _fields as fields
from blocks._block import Leaf, block
from blocks._errors import FieldError, ShapeError
from blocks._shape import check_stated, need_known
from blocks._spec import ParamSpec, Spec, shapes
from blocks.initializers import Init, initializer


@block
class BatchNorm(Leaf):
    """Each channel gets mean 0 and variance 1 over the batch and all spatial axes.

        y = (x - m) / sqrt(v + epsilon) * scale + bias

    In training, m and v are the batch's mean and biased variance (divided by n), and the running
    statistics move: running = decay * running + (1 - decay) * batch, for the variance too with the
    biased one. In evaluation m and v are the running statistics. (Ioffe and Szegedy 2015.)

    Shape: (*spatial, C) or (C, *spatial) by the layout, or (C,); unchanged. At most three spatial
        axes.
    Parameters: scale (C,) if use_scale; bias (C,) if use_bias; running mean (C,) and var (C,), not
        trainable.
    Fields:
        epsilon: added to the variance.
        decay: weight of the old running statistics in the new ones.
        use_scale, use_bias: whether the two parameters exist.
        in_features: stated only to be checked; it is inferred.
        scale_init, bias_init: initialisers.
    Differs: torch's momentum is the weight of the new statistics (0.1), Keras's and Flax's that of
        the old (0.99); epsilon is 1e-5 in torch and Flax, 1e-3 in Keras; torch's running variance
        is the unbiased one. Flax computes the variance as E[x^2] - E[x]^2 unless told otherwise.
        Here: decay 0.9, epsilon 1e-5, biased.

    >>> import blocks as bl
    >>> {k: p.shape for k, p in bl.infer(bl.BatchNorm(), (5, 6, 3)).params.items()}
    {'scale': (3,), 'bias': (3,), 'mean': (3,), 'var': (3,)}
    """

    layout_role = "spatial"

    epsilon: float = fields.real(1e-5, low=0, open_low=True)
    decay: float = fields.real(0.9, low=0, high=1)
    use_scale: bool = fields.flag(True)
    use_bias: bool = fields.flag(True)
    in_features: int | None = fields.integer(None, optional=True)
    scale_init: Init = initializer("ones")
    bias_init: Init = initializer("zeros")

    def out_spec(self, x: Spec) -> Spec:
        if not 1 <= x.rank <= 4:
            raise ShapeError(f"needs channels and at most three spatial axes, got {shapes(x)}")
        return x

    def param_specs(self, x: Spec) -> dict[str, ParamSpec]:
        channels = need_known(x, x.channels, "channels")
        check_stated(self.in_features, channels)
        return scale_and_bias(self, (channels,)) | {
            "mean": ParamSpec((channels,), "zeros", trainable=False),
            "var": ParamSpec((channels,), "ones", trainable=False),
        }


@block
class LayerNorm(Leaf):
    """Each example gets mean 0 and variance 1 over its trailing axes.

        y = (x - mean(x)) / sqrt(var(x) + epsilon) * scale + bias

    with the biased variance, computed from the centred numbers. (Ba et al. 2016.)

    Shape: any; unchanged.
    Parameters: scale and bias with the shape of the normalised axes, if use_scale and use_bias.
    Fields:
        axes: the trailing axes: -1 or (-1,) for the last, (-2, -1) for the last two, ...
        epsilon: added to the variance.
        use_scale, use_bias: whether the two parameters exist.
        scale_init, bias_init: initialisers.
    Differs: epsilon is 1e-5 in torch, 1e-3 in Keras, 1e-6 in Flax; Flax computes the variance as
        E[x^2] - E[x]^2 unless told otherwise, which loses all digits at large offsets. Here:
        epsilon 1e-5.

    >>> import blocks as bl
    >>> bl.infer(bl.LayerNorm((-2, -1)), (5, 6, 3)).params["scale"].shape
    (6, 3)
    """

    axes: tuple[int, ...] = fields.axes((-1,))
    epsilon: float = fields.real(1e-5, low=0, open_low=True)
    use_scale: bool = fields.flag(True)
    use_bias: bool = fields.flag(True)
    scale_init: Init = initializer("ones")
    bias_init: Init = initializer("zeros")

    def check(self) -> None:
        check_trailing(self)

    def out_spec(self, x: Spec) -> Spec:
        return need_axes(self, x)

    def param_specs(self, x: Spec) -> dict[str, ParamSpec]:
        sizes = x.shape[-len(self.axes) :]
        return scale_and_bias(self, tuple(need_known(x, n, "features") for n in sizes))


@block
class GroupNorm(Leaf):
    """Each group of channels gets mean 0 and variance 1 over itself and all spatial axes.

        y = (x - mean(x)) / sqrt(var(x) + epsilon) * scale + bias, group by group

    with the biased variance of one example; scale and bias are for each channel. With as many
    groups as channels it is an instance norm. (Wu and He 2018.)

    Shape: (*spatial, C) or (C, *spatial) by the layout, with one to three spatial axes; unchanged.
    Parameters: scale (C,) if use_scale; bias (C,) if use_bias.
    Fields:
        groups: must divide the channels.
        epsilon: added to the variance.
        use_scale, use_bias: whether the two parameters exist.
        scale_init, bias_init: initialisers.
    Differs: epsilon is 1e-5 in torch, 1e-3 in Keras, 1e-6 in Flax; Keras and Flax take 32 groups by
        default. Here: groups must be stated, epsilon 1e-5.

    >>> import blocks as bl
    >>> bl.infer(bl.GroupNorm(2), (5, 6, 4)).params["scale"].shape
    (4,)
    """

    layout_role = "spatial"

    groups: int = fields.integer()
    epsilon: float = fields.real(1e-5, low=0, open_low=True)
    use_scale: bool = fields.flag(True)
    use_bias: bool = fields.flag(True)
    scale_init: Init = initializer("ones")
    bias_init: Init = initializer("zeros")

    def out_spec(self, x: Spec) -> Spec:
        if not 2 <= x.rank <= 4:
            raise ShapeError(
                f"needs one to three spatial axes and channels, got {shapes(x)}",
                fix="Use LayerNorm for vectors." if x.rank == 1 else "",
            )
        return x

    def param_specs(self, x: Spec) -> dict[str, ParamSpec]:
        channels = need_known(x, x.channels, "channels")
        if channels % self.groups:
            raise ShapeError(
                f"has groups={self.groups}, which does not divide its {channels} channels",
                fix=f"Use groups={math.gcd(channels, self.groups)}, or change the channels.",
            )
        return scale_and_bias(self, (channels,))


@block
class RMSNorm(Leaf):
    """Each example is divided by its root mean square over its trailing axes.

        y = x / sqrt(mean(x**2) + epsilon) * scale

    (Zhang and Sennrich 2019.)

    Shape: any; unchanged.
    Parameters: scale with the shape of the normalised axes, if use_scale.
    Fields:
        axes: the trailing axes: -1 or (-1,) for the last, (-2, -1) for the last two, ...
        epsilon: added to the mean square.
        use_scale: whether the parameter exists.
        scale_init: initialiser.
    Differs: epsilon is the smallest step of the dtype in torch, 1e-6 in Keras and Flax. Here: 1e-6.

    >>> import blocks as bl
    >>> bl.infer(bl.RMSNorm(), (5, 6)).params["scale"].shape
    (6,)
    """

    axes: tuple[int, ...] = fields.axes((-1,))
    epsilon: float = fields.real(1e-6, low=0, open_low=True)
    use_scale: bool = fields.flag(True)
    scale_init: Init = initializer("ones")

    def check(self) -> None:
        check_trailing(self)

    def out_spec(self, x: Spec) -> Spec:
        return need_axes(self, x)

    def param_specs(self, x: Spec) -> dict[str, ParamSpec]:
        shape = tuple(need_known(x, n, "features") for n in x.shape[-len(self.axes) :])
        return {"scale": ParamSpec(shape, self.scale_init)} if self.use_scale else {}


def check_trailing(norm: LayerNorm | RMSNorm) -> None:
    """Refuse axes that are not the last ones."""
    if not norm.axes or norm.axes != tuple(range(-len(norm.axes), 0)):
        raise FieldError(
            f"{type(norm).__name__}.axes must be trailing axes such as (-1,) or (-2, -1), "
            f"got {norm.axes}."
        )


def need_axes(norm: LayerNorm | RMSNorm, x: Spec) -> Spec:
    """The input, if it has the axes to be normalised."""
    if x.rank < len(norm.axes):
        raise ShapeError(
            f"normalises axes {norm.axes}, but its input is {shapes(x)}",
            fix=f"Use axes={tuple(range(-x.rank, 0))}." if x.rank else "",
        )
    return x


def scale_and_bias(
    norm: BatchNorm | LayerNorm | GroupNorm, shape: tuple[int, ...]
) -> dict[str, ParamSpec]:
    """The learned part of a norm, as far as its fields want it."""
    specs = {}
    if norm.use_scale:
        specs["scale"] = ParamSpec(shape, norm.scale_init)
    if norm.use_bias:
        specs["bias"] = ParamSpec(shape, norm.bias_init)
    return specs

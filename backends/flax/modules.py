"""What flax needs beside its own layers. A printed listing holds those that it uses."""

from __future__ import annotations

import math
from functools import reduce

import einops
import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax


def flatten(x):
    """All axes but the batch in one."""
    return x.reshape(x.shape[0], -1)


def identity(*x):
    """The input; nnx.Sequential hands a tuple over as several arguments."""
    return x if len(x) > 1 else x[0]


def select(*x, index):
    """One member of a tuple."""
    return x[index]


def largest(x, axes):
    """The largest number along some axes; the first of equals receives the gradient.

    That of jnp.max goes to the cells that equal the result: under jit a cell may be computed twice,
    with another rounding, and then there is none.
    """
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    rows = x.transpose(*kept, *axes).reshape(*(x.shape[axis] for axis in kept), -1)
    return jnp.take_along_axis(rows, rows.argmax(-1)[..., None], -1)[..., 0]


def smallest(x, axes):
    """The smallest number along some axes, as `largest`."""
    return -largest(-x, axes)


def leaky_relu(x, slope):
    """nnx.leaky_relu with the slope, not 1, as its gradient at 0."""
    return jnp.where(x > 0, x, slope * x)


def hard_tanh(x):
    """nnx.hard_tanh with gradient 0, not 1, at both ends."""
    return jnp.where(x >= 1, 1, jnp.where(x <= -1, -1, x))


def tanh_shrink(x):
    return x - jnp.tanh(x)


def soft_shrink(x, threshold):
    return jnp.where(jnp.abs(x) > threshold, x - jnp.sign(x) * threshold, 0)


def hard_shrink(x, threshold):
    return jnp.where(jnp.abs(x) > threshold, x, 0)


def reshape(x, shape):
    """The same numbers in another shape, after the batch."""
    return x.reshape(x.shape[0], *shape)


def crop(x, crops):
    """Fewer cells at both ends of the axes after the batch."""
    for axis, (low, high) in enumerate(crops, 1):
        x = lax.slice_in_dim(x, low, x.shape[axis] - high, axis=axis)
    return x


def adaptive_avg_pool(x, output_size):
    """Means of as many windows as are asked for; they overlap where sizes do not divide."""
    for axis, m in enumerate(output_size, 1):
        n = x.shape[axis]
        bounds = [(i * n // m, -(-(i + 1) * n // m)) for i in range(m)]
        windows = [lax.slice_in_dim(x, low, high, axis=axis) for low, high in bounds]
        x = jnp.stack([window.mean(axis) for window in windows], axis)
    return x


def new_sizes(x, scale, size):
    return size or [n * times for n, times in zip(x.shape[1:-1], scale, strict=True)]


def nearest_upsample(x, scale=None, size=None):
    """The old cell at the centre of each new one, in integers, as floats miss it for some sizes."""
    for axis, m in enumerate(new_sizes(x, scale, size), 1):
        x = jnp.take(x, (2 * jnp.arange(m) + 1) * x.shape[axis] // (2 * m), axis)
    return x


def linear_upsample(x, scale=None, size=None):
    """Linear interpolation between the centres of the old cells, along each axis."""
    shape = (x.shape[0], *new_sizes(x, scale, size), x.shape[-1])
    return jax.image.resize(x, shape, "linear", antialias=False)


class SeveralAxes(nnx.Module):
    """A norm over several trailing axes: nnx creates its parameters for one axis only."""

    def __init__(self, shape, **kwargs):
        super().__init__(math.prod(shape), **kwargs)
        self.rank = len(shape)

    def __call__(self, x):
        rows = x.reshape(*x.shape[: x.ndim - self.rank], -1)
        return super().__call__(rows).reshape(x.shape)


class LayerNorm(SeveralAxes, nnx.LayerNorm):
    """nnx's layer on differences to the first number, which change nothing but the rounding.

    It computes the variance as E[x^2] - E[x]^2, which loses all digits where the mean is large; its
    other way, use_fast_variance=False, takes a fifth longer to train a Transformer.
    """

    def __call__(self, x):
        first = (..., *[slice(1)] * self.rank)
        return super().__call__(x - lax.stop_gradient(x[first]))


class RMSNorm(SeveralAxes, nnx.RMSNorm):
    pass


class Parameter(nnx.Module):
    """A learned or fixed array that meets every example."""

    def __init__(self, shape, merge, kind=nnx.Param, dtype=jnp.float32):
        self.value = kind(jnp.zeros(shape, dtype))
        self.merge = merge

    def __call__(self, x):
        value = self.value[...]
        if self.merge == "add":
            return x + value
        if self.merge == "multiply":
            return x * value
        rows = jnp.broadcast_to(value, (len(x), *value.shape))
        return jnp.concatenate([rows, x], axis=1)


class Sample(nnx.Module):
    """A normal draw in training, given mean and log variance; the mean in evaluation."""

    def __init__(self, *, rngs):
        self.rngs = rngs["sample"].fork()
        self.deterministic = False

    def set_view(self, deterministic=None):
        if deterministic is not None:
            self.deterministic = deterministic

    def noise(self, mean):
        return jax.random.normal(self.rngs(), mean.shape, mean.dtype)

    def __call__(self, mean, log_variance):
        if self.deterministic:
            return mean
        return mean + jnp.exp(log_variance / 2) * self.noise(mean)


ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def threefry(key, places, calls):
    """Two words of 32 random bits for each place: Threefry-2x32, 20 rounds (Salmon et al. 2011)."""
    keys = [jnp.uint32(word) for word in (*key, key[0] ^ key[1] ^ 0x1BD11BDA)]
    a, b = places + keys[0], jnp.broadcast_to(calls, places.shape) + keys[1]
    for i in range(5):
        for turn in ROTATIONS[i % 2]:
            a = a + b
            b = (b << turn | b >> (32 - turn)) ^ a
        a, b = a + keys[(i + 1) % 3], b + keys[(i + 2) % 3] + jnp.uint32(i + 1)
    return a, b


class Calls(nnx.RngState):
    """How often a stream was asked."""


class Stream(nnx.Module):
    """Random bits for each element, the same on every backend."""

    def __init__(self, key):
        self.key = key
        self.calls = Calls(jnp.uint32(0), tag="calls")
        self.deterministic = False

    def set_view(self, deterministic=None):
        if deterministic is not None:
            self.deterministic = deterministic

    def bits(self, shape):
        places = jnp.arange(math.prod(shape), dtype=jnp.uint32).reshape(shape)
        words = threefry(self.key, places, self.calls[...])
        self.calls[...] += jnp.uint32(1)
        return words


class SharedDropout(Stream):
    """Dropout whose draws are the same on every backend."""

    def __init__(self, rate, key, axes=()):
        super().__init__(key)
        self.rate = rate
        self.axes = axes  # along them one number is drawn

    def __call__(self, x):
        if self.deterministic:
            return x
        drawn = [1 if axis in self.axes else n for axis, n in enumerate(x.shape)]
        keep = self.bits(drawn)[0] >> 8 >= round(self.rate * 2**24)
        return jnp.where(keep, x, 0) / (1 - self.rate)


class SharedSample(Stream):
    """A sample whose draws are the same on every backend."""

    def __call__(self, mean, log_variance):
        if self.deterministic:
            return mean
        a, b = self.bits(mean.shape)
        wide = jnp.promote_types(mean.dtype, jnp.float32)
        u, v = ((a >> 9).astype(wide) + 0.5) / 2**23, (b >> 9).astype(wide) / 2**23
        noise = jnp.sqrt(-2 * jnp.log(u)) * jnp.cos(2 * math.pi * v)
        return mean + jnp.exp(log_variance / 2) * noise.astype(mean.dtype)


def bare(side):
    """The axes of one side of a pattern, without brackets and axes of size 1."""
    axes = side.replace("(", " ").replace(")", " ").split()
    return [axis for axis in axes if axis != "1"]


class EinMix(nnx.Module):
    """The layer that einops has for torch, Keras and linen."""

    def __init__(
        self,
        pattern,
        weight_shape,
        bias_shape=None,
        *,
        dtype=None,
        param_dtype=jnp.float32,
        rngs,
        **axes_lengths,
    ):
        left, right = pattern.split("->")
        inputs, outputs, weights = bare(left), bare(right), weight_shape.split()
        x, y = " ".join(inputs), " ".join(outputs)
        self.split = f"{left} -> {x}"
        lengths = axes_lengths.items()
        self.lengths = tuple((axis, n) for axis, n in lengths if axis in inputs)
        self.mix = f"{x}, {weight_shape} -> {y}"
        self.merge = f"{y} -> {right}"
        self.dtype = dtype

        shape = [axes_lengths[axis] for axis in weights]
        fan_in = math.prod(axes_lengths[a] for a in weights if a not in outputs)
        bound = math.sqrt(3 / fan_in)
        kernel = jax.random.uniform(rngs.params(), shape, param_dtype, -bound, bound)
        self.kernel = nnx.Param(kernel)

        self.bias = nnx.data(None)
        if bias_shape:
            biases = bias_shape.split()
            named = [axis for axis in outputs if axis != "..."]
            spread = [axis if axis in biases else "1" for axis in named]
            self.added = f"{bias_shape} -> {' '.join(spread)}"
            sizes = [axes_lengths[axis] for axis in biases]
            self.bias = nnx.Param(jnp.zeros(sizes, param_dtype))

    def __call__(self, x):
        x = jnp.asarray(x, self.dtype)
        x = einops.rearrange(x, self.split, **dict(self.lengths))
        y = einops.einsum(x, jnp.asarray(self.kernel, self.dtype), self.mix)
        if self.bias is not None:
            y = y + einops.rearrange(jnp.asarray(self.bias, self.dtype), self.added)
        return einops.rearrange(y, self.merge)


class Repeat(nnx.Module):
    """One block several times in a row, as a loop over its stacked parameters."""

    def __init__(self, make, times, *, rngs):
        self.block = nnx.split_rngs(splits=times)(nnx.vmap(make))(rngs)
        self.times = times

    def __call__(self, *x):
        axes = {"in_axes": (0, nnx.Carry), "out_axes": nnx.Carry}
        loop = nnx.scan(call_block, length=self.times, **axes)
        return loop(self.block, x if len(x) > 1 else x[0])


def call_block(block, x):
    return block(*x) if isinstance(x, tuple) else block(x)


class Residual(nnx.Module):
    """The input, or its shortcut, plus the body."""

    def __init__(self, body, shortcut=None):
        self.shortcut = shortcut
        self.body = body

    def __call__(self, x):
        around = x if self.shortcut is None else self.shortcut(x)
        return around + self.body(x)


def merged(outputs, merge, axis):
    if merge == "add":
        return reduce(jnp.add, outputs)
    if merge == "multiply":
        return reduce(jnp.multiply, outputs)
    if merge == "mean":
        return reduce(jnp.add, outputs) / len(outputs)
    if merge == "max":
        return reduce(jnp.maximum, outputs)
    if merge == "concat":
        return jnp.concatenate(outputs, axis)
    if merge == "stack":
        return jnp.stack(outputs, axis)
    return tuple(outputs)


class MergedResidual(Residual):
    """The input, or its shortcut, merged with the body in any way; x may be a tuple."""

    def __init__(self, body, shortcut=None, *, merge, axis=-1):
        super().__init__(body, shortcut)
        self.merge = merge
        self.axis = axis

    def __call__(self, *x):
        around = x[0] if self.shortcut is None else self.shortcut(*x)
        return merged([around, self.body(*x)], self.merge, self.axis)


class Parallel(nnx.Module):
    """Every branch receives the same input, and their outputs are merged."""

    def __init__(self, branches, merge, axis=-1):
        self.branches = nnx.List(branches)
        self.merge = merge
        self.axis = axis

    def __call__(self, *x):
        return merged([branch(*x) for branch in self.branches], self.merge, self.axis)


class Custom(nnx.Module):
    """Code of one's own on parameters and constants."""

    def __init__(self, params=None, constants=None, dtype=None, **fields):
        for name, value in (params or {}).items():
            setattr(self, name, nnx.Param(value))
        for name, value in (constants or {}).items():
            setattr(self, name, nnx.Variable(value))
        for name, value in fields.items():
            setattr(self, name, value)
        self.arrays = (*(params or {}), *(constants or {}))
        self.dtype = dtype

    def __call__(self, *x):
        arrays = {name: getattr(self, name)[...] for name in self.arrays}
        if self.dtype is not None:
            arrays = {name: value.astype(self.dtype) for name, value in arrays.items()}
        return self.compute(x if len(x) > 1 else x[0], **arrays)


def normal(rngs, shape, mean, std, dtype=None):
    return mean + std * jax.random.normal(rngs.params(), shape, dtype)


def uniform(rngs, shape, low, high, dtype=None):
    return jax.random.uniform(rngs.params(), shape, dtype, low, high)


def orthogonal(rngs, shape, gain, dtype=None):
    return nnx.initializers.orthogonal(gain)(rngs.params(), shape, dtype)


class RNN(nnx.Module):
    """A recurrent cell along axis 1, from zeros; the outputs, or the one that was made last.

    nnx.RNN keeps random numbers for its first state, and jax.jit or jax.vmap cannot go around it.
    """

    def __init__(self, cell, return_sequences=True, reverse=False):
        self.cell = cell
        self.return_sequences = return_sequences
        self.reverse = reverse

    def __call__(self, x):
        rngs = nnx.Rngs(0)  # taken, but ignored
        zeros = self.cell.initialize_carry(x[:, 0].shape, rngs)
        dtype = self.cell.dtype or self.cell.param_dtype
        carry = jax.tree.map(lambda a: a.astype(dtype), zeros)
        _, outputs = lax.scan(self.cell, carry, x.swapaxes(0, 1), reverse=self.reverse)
        if self.return_sequences:
            return outputs.swapaxes(0, 1)
        return outputs[0 if self.reverse else -1]


def without_bias(cell):
    """The cell without the bias that nnx's cells always have."""
    for dense in (cell.dense_i, cell.dense_h):
        dense.use_bias = False
        dense.bias = None
    return cell


def attention(query, key, value, mask=None, is_causal=False, **options):
    """softmax(query @ key.T / sqrt(size)) @ value for each head; 0 where a query sees no key.

    JAX's own has the mean of all values there, and its softmax in float32 for float64 too.
    """
    groups = query.shape[-2] // key.shape[-2]
    key, value = (jnp.repeat(x, groups, axis=-2) for x in (key, value))
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(query.shape[-1])
    scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
    seen = jnp.broadcast_to(True if mask is None else mask, scores.shape)
    weights = nnx.softmax(scores, where=jnp.tril(seen) if is_causal else seen)
    return jnp.einsum("bhqk,bkhd->bqhd", weights.astype(value.dtype), value)


class MultiHeadAttention(nnx.MultiHeadAttention):
    """nnx's layer, causal by itself, with a padding mask last, or with values of their own size."""

    def __init__(
        self,
        *args,
        in_value_features=None,
        causal=False,
        mask=False,
        rngs,
        **kwargs,
    ):
        own = {"attention_fn": attention, "decode": False}
        super().__init__(*args, **own, rngs=rngs, **kwargs)
        self.causal = causal
        self.mask = mask
        if in_value_features is not None:
            self.value = nnx.LinearGeneral(
                in_value_features,
                (self.num_kv_heads, self.head_dim),
                use_bias=self.use_bias,
                dtype=self.dtype,
                param_dtype=self.param_dtype,
                rngs=rngs,
            )

    def __call__(self, *x):
        *x, mask = x if self.mask else (*x, None)
        if mask is not None:
            mask = mask[:, None, None, :]
        return super().__call__(*x, mask=mask, is_causal=self.causal)

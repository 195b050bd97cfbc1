"""Layers that Keras needs beside its own: shared draws and users' code have no stock layer."""

from __future__ import annotations

import math

import keras
from keras import ops

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def word(number):
    """A word of 32 bits, which Keras keeps in more where an engine has no unsigned ones."""
    ones = ops.convert_to_tensor(0xFFFFFFFF, "uint32")
    return ops.bitwise_and(ops.cast(number, "uint32"), ones)


def threefry(key, places, calls):
    """Two words of 32 random bits for each place: Threefry-2x32, 20 rounds (Salmon et al. 2011)."""
    words = *key, key[0] ^ key[1] ^ 0x1BD11BDA
    keys = [word(ops.convert_to_tensor(w, "uint32")) for w in words]
    a, b = word(places + keys[0]), word(ops.zeros_like(places) + calls + keys[1])
    for i in range(5):
        for turn in ROTATIONS[i % 2]:
            a = word(a + b)
            turned = ops.left_shift(b, word(turn)), ops.right_shift(b, word(32 - turn))
            b = ops.bitwise_xor(word(ops.bitwise_or(*turned)), a)
        a, b = word(a + keys[(i + 1) % 3]), word(b + keys[(i + 2) % 3] + word(i + 1))
    return a, b


class Stream(keras.layers.Layer):
    """Random bits for each element, the same on every backend."""

    def __init__(self, key, **kwargs):
        super().__init__(**kwargs)
        self.key = tuple(key)
        self.calls = self.add_weight(
            shape=(),
            dtype="int32",
            initializer="zeros",
            trainable=False,
        )

    def bits(self, x):
        places = ops.reshape(ops.arange(ops.size(x), dtype="int32"), ops.shape(x))
        words = threefry(self.key, word(places), word(self.calls))
        self.calls.assign_add(1)
        return words

    def get_config(self):
        return {**super().get_config(), "key": self.key}


class SharedDropout(Stream):
    """Dropout whose draws are the same on every backend."""

    def __init__(self, rate, key, axes=(), **kwargs):
        super().__init__(key, **kwargs)
        self.rate = rate
        self.axes = tuple(axes)  # along them one number is drawn

    def call(self, x, training=False):
        if not training:
            return x
        one_each = ops.max(x, axis=self.axes, keepdims=True) if self.axes else x
        kept = ops.cast(ops.right_shift(self.bits(one_each)[0], word(8)), "int32")
        keep = kept >= round(self.rate * 2**24)
        return x * ops.cast(keep, x.dtype) / (1 - self.rate)

    def get_config(self):
        return {**super().get_config(), "rate": self.rate, "axes": self.axes}


class SharedSample(Stream):
    """A sample whose draws are the same on every backend."""

    def call(self, x, training=False):
        mean, log_variance = x
        if not training:
            return mean
        bits = [ops.cast(ops.right_shift(w, word(9)), "int32") for w in self.bits(mean)]
        exact = keras.backend.standardize_dtype(mean.dtype) == "float64"
        wide = "float64" if exact else "float32"
        a, b = (ops.cast(w, wide) for w in bits)
        u, v = (a + 0.5) / 2**23, b / 2**23
        noise = ops.sqrt(-2 * ops.log(u)) * ops.cos(2 * math.pi * v)
        return mean + ops.exp(log_variance / 2) * ops.cast(noise, mean.dtype)


class Custom(keras.layers.Layer):
    """Code of one's own on parameters and constants, given as shape and initializer.

    `outputs` are shape and dtype of what comes out, or a tuple of them. They are stated, so that a
    model can be built without running the code, which may branch on values.
    """

    def __init__(
        self,
        outputs,
        params=None,
        constants=None,
        name=None,
        dtype=None,
        trainable=True,
        **fields,
    ):
        super().__init__(name=name, dtype=dtype, trainable=trainable)
        given = {"outputs": outputs, "params": params, "constants": constants, **fields}
        self.given = keras.saving.serialize_keras_object(given)
        self.outputs = outputs
        self.arrays = []
        for trains, group in ((True, params or {}), (False, constants or {})):
            for name, (shape, initializer) in group.items():
                options = {"initializer": initializer, "trainable": trains}
                setattr(self, name, self.add_weight(shape, name=name, **options))
                self.arrays.append(name)
        for name, value in fields.items():
            setattr(self, name, value)

    def compute(self, x, **arrays):
        raise NotImplementedError

    def call(self, x):
        own = {name: getattr(self, name) for name in self.arrays}
        arrays = {name: ops.convert_to_tensor(value) for name, value in own.items()}
        return self.cast(self.compute(x, **arrays), self.outputs)

    def cast(self, y, outputs):
        """Some of Keras's operations turn float64 into float32."""
        if isinstance(outputs, tuple):
            return tuple(map(self.cast, y, outputs))
        return ops.cast(y, outputs["dtype"])

    def compute_output_spec(self, x):
        return self.announced(self.outputs)

    def announced(self, outputs):
        if isinstance(outputs, tuple):
            return tuple(map(self.announced, outputs))
        return keras.KerasTensor((None, *outputs["shape"]), dtype=outputs["dtype"])

    def get_config(self):
        return {**super().get_config(), "given": self.given}

    @classmethod
    def from_config(cls, config):
        given = tuples(keras.saving.deserialize_keras_object(config.pop("given")))
        return cls(**given, **config)


def tuples(value):
    """Lists as the tuples that they were: JSON knows only lists."""
    if isinstance(value, dict):
        return {key: tuples(item) for key, item in value.items()}
    return tuple(map(tuples, value)) if isinstance(value, (list, tuple)) else value

"""What Keras needs beside its own layers. A printed listing holds those that it uses."""

from __future__ import annotations

import keras
from keras import layers, ops


class Custom(layers.Layer):
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
        arrays = {name: ops.convert_to_tensor(getattr(self, name)) for name in self.arrays}
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

"""Linear blocks in NumPy."""

from __future__ import annotations

import numpy as np

from backends.numpy.modules.base import Layer, batch_sum, glorot


class Dense(Layer):
    """y = x @ kernel + bias"""

    def __init__(self, inputs, features, use_bias=True, *, rng):
        kernel = glorot(rng, (inputs, features))
        super().__init__(kernel=kernel, bias=np.zeros(features) if use_bias else None)

    def forward(self, x, training):
        self.saved.append(x)
        y = x @ self.params["kernel"]
        return y + self.params["bias"] if "bias" in self.params else y

    def backward(self, dy):
        x = self.saved.pop()
        rows, dys = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
        self.add_grad("kernel", rows.T @ dys)
        self.add_grad("bias", batch_sum(dy))
        return dy @ self.params["kernel"].T


class Embedding(Layer):
    """y = embedding[x]"""

    def __init__(self, num_embeddings, features, *, rng):
        super().__init__(embedding=rng.uniform(-0.05, 0.05, (num_embeddings, features)))

    def forward(self, x, training):
        self.saved.append(x)
        return self.params["embedding"][x]

    def backward(self, dy):
        x = self.saved.pop()
        np.add.at(self.grads["embedding"], x, dy)
        return np.zeros(x.shape)

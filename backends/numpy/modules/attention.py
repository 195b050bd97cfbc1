"""Attention in NumPy."""

from __future__ import annotations

import math

import numpy as np

from backends.numpy.modules.base import Layer
from backends.numpy.modules.linear import Dense


class MultiHeadAttention(Layer):
    """y = softmax(q @ k.T / sqrt(head_size)) @ v for each head, over the keys that q may see

    Heads are arrays (batch, groups, heads of a group, time, head_size): the heads of q in a group
    share one head of k and v.
    """

    def __init__(
        self,
        sizes,
        features,
        num_heads,
        head_size,
        num_kv_heads,
        causal=False,
        mask=False,
        use_bias=True,
        *,
        rng,
    ):
        super().__init__()
        query, key, value = sizes
        all_heads, kv_heads = num_heads * head_size, num_kv_heads * head_size
        self.children = {
            "query": Dense(query, all_heads, use_bias, rng=rng),
            "key": Dense(key, kv_heads, use_bias, rng=rng),
            "value": Dense(value, kv_heads, use_bias, rng=rng),
            "out": Dense(all_heads, features, use_bias, rng=rng),
        }
        self.groups = num_kv_heads
        self.head_size = head_size
        self.causal = causal
        self.mask = mask

    def heads(self, name, x, training):
        """The projected heads."""
        y = self.children[name].forward(x, training)
        y = y.reshape(*y.shape[:2], self.groups, -1, self.head_size)
        return np.moveaxis(y, 1, 3)

    def heads_backward(self, name, dy):
        dy = np.moveaxis(dy, 3, 1)
        return self.children[name].backward(dy.reshape(*dy.shape[:2], -1))

    def seen(self, scores, mask):
        """Which keys each position of the query may see."""
        seen = np.ones(scores.shape[-2:], bool)
        seen = np.tril(seen) if self.causal else seen
        return seen if mask is None else seen & mask[:, None, None, None]

    def forward(self, x, training):
        members = x if isinstance(x, tuple) else (x,)
        *tensors, mask = members if self.mask else (*members, None)
        query, key, value = (tensors + tensors[-1:] * 2)[:3]
        q = self.heads("query", query, training)
        k = self.heads("key", key, training)
        v = self.heads("value", value, training)
        scores = q @ k.swapaxes(-1, -2) / math.sqrt(self.head_size)
        scores = np.where(self.seen(scores, mask), scores, -np.inf)
        largest = scores.max(-1, keepdims=True, initial=np.finfo(scores.dtype).min)
        weights = np.exp(scores - largest)
        # they sum to 1 or more, or to 0 where no key is seen
        weights /= np.maximum(weights.sum(-1, keepdims=True), 1)
        self.saved.append((len(tensors), mask, q, k, v, weights))
        y = np.moveaxis(weights @ v, 3, 1)
        return self.children["out"].forward(y.reshape(*y.shape[:2], -1), training)

    def backward(self, dy):
        count, mask, q, k, v, weights = self.saved.pop()
        dy = self.children["out"].backward(dy)
        dy = np.moveaxis(dy.reshape(*dy.shape[:2], *q.shape[1:3], -1), 1, 3)
        dweights = dy @ v.swapaxes(-1, -2)
        dscores = weights * (dweights - (dweights * weights).sum(-1, keepdims=True))
        dscores /= math.sqrt(self.head_size)
        dv = (weights.swapaxes(-1, -2) @ dy).sum(2, keepdims=True)
        dk = (dscores.swapaxes(-1, -2) @ q).sum(2, keepdims=True)
        value = self.heads_backward("value", dv)
        key = self.heads_backward("key", dk)
        dx = [self.heads_backward("query", dscores @ k), key, value]
        # the last tensor served for all that follow
        dx[count - 1 :] = [sum(dx[count - 1 :])]
        if mask is not None:
            dx.append(np.zeros(mask.shape))
        return tuple(dx) if len(dx) > 1 else dx[0]

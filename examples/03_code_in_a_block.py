"""Code in a block: constants, control flow, and a mixture of everything.

Run `python examples/03_code_in_a_block.py`; `--backend torch` shows one backend alone.

A `Custom` block is written once, in NumPy's words; every backend runs and differentiates it.
"""

import numpy as np

import blocks as bl
from _backends import chosen


class FixedWeights(bl.Custom):
    """Multiplies by random weights that training never changes, and adds 1."""

    def param_specs(self, x):
        shape, init = (x.shape[-1], x.shape[-1]), bl.initializers.Uniform(0, 1)
        return {"rand_weight": bl.ParamSpec(shape, init, trainable=False)}

    def forward(self, ops, x, rand_weight):
        return ops.matmul(x, rand_weight) + 1


class HalvedSum(bl.Custom):
    """Halves an example while the sizes of its numbers add up to more than 1, then adds them."""

    def out_spec(self, x):
        return x.with_shape(())

    def forward(self, ops, x):
        axes = tuple(range(1, len(x.shape)))  # all but the batch: each example is its own loop
        large = ops.sum(ops.abs(x), axis=axes, keepdims=True) > 1
        while ops.any(large):
            x = ops.where(large, x / 2, x)
            large = ops.sum(ops.abs(x), axis=axes, keepdims=True) > 1
        return ops.sum(x, axis=axes)


# The same layer before and after the constants: two uses, one set of parameters.
dense = bl.Shared("dense", bl.Dense(20))
fixed_hidden_mlp = bl.Sequential(dense, FixedWeights(), bl.ReLU(), dense, HalvedSum())

nest_mlp = bl.Sequential(
    net=bl.Sequential(bl.Dense(64), bl.ReLU(), bl.Dense(32), bl.ReLU()),
    linear=bl.Dense(16),
)
chimera = net = bl.Sequential(nest_mlp, bl.Dense(20), fixed_hidden_mlp)

X = np.random.default_rng(0).random((2, 20), dtype=np.float32)

if __name__ == "__main__":
    backends = chosen()
    for network in (fixed_hidden_mlp, chimera):
        node = bl.infer(network, (20,))
        trained, constant = (bl.count(node, trainable=flag) for flag in (True, False))
        print(f"{trained} parameters and {constant} constants: {list(node.param_specs())}")

    # A batch of two examples gives two numbers, neither of which depends on the other example.
    # Textbooks let the loop and the sum run over all of X. That is one example of shape (2, 20).
    for backend in backends:
        each = bl.lower(chimera, backend, input_shape=(20,))
        whole = bl.lower(chimera, backend, input_shape=(2, 20))
        print(f"{backend:6} {bl.apply(each, X)}, {bl.apply(whole, X[None])[0]}")

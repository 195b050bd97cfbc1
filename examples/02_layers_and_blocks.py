"""Layers and blocks: a perceptron as a chain, with names, and inside another block.

Run `python examples/02_layers_and_blocks.py`; `--backend torch` shows one backend alone.
"""

import numpy as np

import blocks as bl
from _backends import chosen

# A chain. Nobody says that the input has 20 features: `infer` finds every size.
net = bl.Sequential(bl.Dense(256), bl.ReLU(), bl.Dense(10))

# The same chain with names, which its parameters then carry: hidden/kernel, out/bias.
mlp = bl.Sequential(hidden=bl.Dense(256), relu=bl.ReLU(), out=bl.Dense(10))

# A chain may hold chains.
nest_mlp = bl.Sequential(
    net=bl.Sequential(bl.Dense(64), bl.ReLU(), bl.Dense(32), bl.ReLU()),
    linear=bl.Dense(16),
)

X = np.random.default_rng(0).random((2, 20), dtype=np.float32)

if __name__ == "__main__":
    backends = chosen()
    for network in (net, mlp, nest_mlp):
        print(network.summary((20,)))

    # What every block can do: take a batch, return a batch, give gradients, show its parameters,
    # and make first ones. The numbers are the same on every backend.
    node = bl.infer(net, X.shape[1:])
    params = bl.init(node, seed=0)
    for backend in backends:
        model = bl.lower(node, backend, params=params)
        Y = bl.apply(model, X)
        gradients = bl.gradients(model, X, np.ones_like(Y))
        print(f"{backend:6} output {Y.shape}, gradient of the input {gradients['input'].shape}")
        print(f"       {Y[0, :5].round(4)}")
    print({path: array.shape for path, array in params.items()})

    # A chain is what it holds, in order.
    print(len(net), net[0], [type(block).__name__ for block in net])
    print(bl.Sequential(*net, bl.Softmax()))

"""One network: its sizes, its listings, and the proof that they are the same.

Run `python examples/01_one_network.py`; `--backend torch` shows one backend alone.
"""

import blocks as bl
from _backends import chosen

net = bl.Sequential(
    bl.Conv(8, (3, 3), padding="same"),
    bl.BatchNorm(),
    bl.ReLU(),
    bl.Residual(bl.Conv(8, (3, 3), padding="same")),
    bl.MaxPool((2, 2)),
    bl.Flatten(),
    bl.Dense(10),
)

if __name__ == "__main__":
    backends = chosen()
    print(net.summary((28, 28, 1)))
    for backend in backends:
        print(f"\n# ---- {backend} ----\n")
        print(bl.source(net, backend, input_shape=(28, 28, 1)))
    print(bl.parity(net, (28, 28, 1), backends=backends))

"""Files: a network and its parameters, written once, read by every backend.

Run `python examples/07_files.py`; `--backend torch` shows one backend alone.

Neither file runs code when it is read: the network is JSON, the parameters are safetensors.

A GPU needs no word here. JAX and TensorFlow use one if there is one, a PyTorch model goes there
with `model.to("cuda")`, and the parameters in a file are arrays that live nowhere.
"""

import tempfile
from pathlib import Path

import numpy as np

import blocks as bl
from _backends import chosen

net = bl.MLP(10, hidden=(256, 64))

# Another task: the first two layers as they were trained, and a new end.
other = bl.Sequential(bl.Dense(256), bl.ReLU(), bl.Dense(64), bl.ReLU(), bl.Dense(3))
KEPT = ("0/*", "2/*")

if __name__ == "__main__":
    backends = chosen()
    X = np.random.default_rng(0).random((2, 20), dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        network, weights = Path(folder) / "net.json", Path(folder) / "net.safetensors"

        trained = bl.lower(net, backends[-1], input_shape=(20,), seed=0)
        bl.save(net, network)
        bl.save_params(bl.params_of(trained), weights)
        print(f"written by {backends[-1]}:", {p.name: p.stat().st_size for p in (network, weights)})

        again, params = bl.load(network), bl.load_params_file(weights)
    for backend in backends:
        model = bl.lower(again, backend, input_shape=(20,), params=params)
        print(f"read by {backend:6} {bl.apply(model, X)[0, :5].round(4)}")

    new = bl.init(bl.infer(other, (20,)), seed=1)
    for pattern in KEPT:
        new |= bl.select(params, pattern)
    for backend in backends:
        model = bl.lower(other, backend, input_shape=(20,), params=new)
        print(f"reused by {backend:6} {bl.apply(model, X)[0].round(4)}")

"""One process of the benchmark: it builds models of one framework and times steps on demand.

    python -m benchmarks.worker torch MLP

It prints the names of its contenders, one JSON list, then for each `[name, count]` that it reads
the seconds that one of so many steps took.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Step = Callable[[], Any]
THREADS = 2
LEARNING_RATE, MOMENTUM = 1e-4, 0.9


def data(network: Any) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(network.batch, *network.shape)).astype(np.float32)
    return x, rng.integers(0, 10, network.batch)


def torch_contenders(network: Any, x: np.ndarray, y: np.ndarray) -> dict[str, Step]:
    import torch
    import torch.nn.functional as F

    import blocks as bl
    from benchmarks import hand_torch

    torch.set_num_threads(THREADS)
    labels = torch.from_numpy(y)
    own = torch.from_numpy(x)
    usual = hand_torch.batch(x, network.name)

    def forward(model: Any, x: Any) -> Step:
        def step() -> None:
            with torch.no_grad():
                model(x)

        return step

    def training(model: Any, x: Any) -> Step:
        optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE, MOMENTUM)

        def step() -> None:
            optimizer.zero_grad()
            F.cross_entropy(model(x), labels).backward()
            optimizer.step()

        return step

    def lowered(layout: str = "channels_last") -> Any:
        shape = network.shape
        if layout == "channels_first":
            shape = (shape[-1], *shape[:-1])
        return bl.lower(network.block, "torch", input_shape=shape, layout=layout)

    makers = {
        "lowered": (lowered, own),
        "by hand": (hand_torch.MODELS[network.name], usual),
    }
    if network.name == "ResNet-20":
        makers["lowered, channels first"] = (lambda: lowered("channels_first"), usual)
    steps = {}
    for name, (make, batch) in makers.items():
        steps[f"forward|eager|{name}"] = forward(make().eval(), batch)
        steps[f"training|eager|{name}"] = training(make().train(), batch)
        compiled = torch.compile(make().eval())
        steps[f"forward|compiled|{name}"] = forward(compiled, batch)
        compiled = torch.compile(make().train())
        steps[f"training|compiled|{name}"] = training(compiled, batch)

    model, plain = lowered().eval(), lowered().eval()

    def native() -> Any:
        with torch.no_grad():
            return plain(torch.from_numpy(x)).numpy()

    steps["forward|verbs|lowered"] = lambda: bl.apply(model, x)
    steps["forward|verbs|by hand"] = native
    trained = lowered().train()
    optimizer = torch.optim.SGD(trained.parameters(), LEARNING_RATE, MOMENTUM)

    def native_step(x: np.ndarray, y: np.ndarray) -> float:
        optimizer.zero_grad()
        value = F.cross_entropy(trained(torch.from_numpy(x)), torch.from_numpy(y))
        value.backward()
        optimizer.step()
        return value.item()

    return steps | fitting(lowered, x, y, native_step)


def flax_contenders(network: Any, x: np.ndarray, y: np.ndarray) -> dict[str, Step]:
    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx

    import blocks as bl
    from benchmarks import hand_flax

    batch, labels = jnp.asarray(x), jnp.asarray(y)
    run = nnx.jit(lambda model, x: model(x))

    def loss(model: Any, x: Any, y: Any) -> Any:
        return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()

    @nnx.jit
    def train(model: Any, optimizer: Any, x: Any, y: Any) -> Any:
        value, grads = nnx.value_and_grad(loss)(model, x, y)
        optimizer.update(model, grads)
        return value

    def forward(model: Any) -> Step:
        model.eval()
        return lambda: jax.block_until_ready(run(model, batch))

    def training(model: Any) -> Step:
        model.train()
        optimizer = nnx.Optimizer(model, optax.sgd(LEARNING_RATE, MOMENTUM), wrt=nnx.Param)
        return lambda: jax.block_until_ready(train(model, optimizer, batch, labels))

    def lowered() -> Any:
        return bl.lower(network.block, "flax", input_shape=network.shape)

    def by_hand() -> Any:
        return hand_flax.MODELS[network.name](nnx.Rngs(0))

    steps = {}
    for name, make in (("lowered", lowered), ("by hand", by_hand)):
        steps[f"forward|jit|{name}"] = forward(make())
        steps[f"training|jit|{name}"] = training(make())

    model, plain = lowered(), lowered()
    plain.eval()
    steps["forward|verbs|lowered"] = lambda: bl.apply(model, x)
    steps["forward|verbs|by hand"] = lambda: np.asarray(run(plain, jnp.asarray(x)))
    trained = lowered()
    trained.train()
    optimizer = nnx.Optimizer(trained, optax.sgd(LEARNING_RATE, MOMENTUM), wrt=nnx.Param)

    def native_step(x: np.ndarray, y: np.ndarray) -> float:
        return float(train(trained, optimizer, jnp.asarray(x), jnp.asarray(y)))

    return steps | fitting(lowered, x, y, native_step)


def keras_contenders(network: Any, x: np.ndarray, y: np.ndarray) -> dict[str, Step]:
    import keras

    import blocks as bl
    from benchmarks import hand_keras

    engine = keras.backend.backend()
    if engine == "torch":
        import torch

        torch.set_num_threads(THREADS)

    def compiled(model: Any) -> Any:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(LEARNING_RATE, MOMENTUM), loss)
        return model

    def lowered() -> Any:
        return bl.lower(network.block, "keras", input_shape=network.shape)

    steps = {}
    for name, make in (("lowered", lowered), ("by hand", hand_keras.MODELS[network.name])):
        model, trained = compiled(make()), compiled(make())
        steps[f"forward|{engine}|{name}"] = lambda model=model: model.predict_on_batch(x)
        steps[f"training|{engine}|{name}"] = lambda model=trained: model.train_on_batch(x, y)
    trained = compiled(lowered())
    return steps | fitting(lowered, x, y, trained.train_on_batch)


def fitting(
    make: Callable[[], Any], x: np.ndarray, y: np.ndarray, own: Callable[..., Any]
) -> dict[str, Step]:
    """What `fit` does for each batch, and the framework's own step on arrays taken alike."""
    import blocks as bl
    from blocks._models import origin
    from blocks._stack import call_deep

    model = make()
    known = origin(model)
    optimizer = bl.SGD(LEARNING_RATE, momentum=MOMENTUM)
    step = known.call("trainer", known.node, model, "cross_entropy", optimizer)
    rows = np.random.default_rng(0).permutation(len(y))
    return {
        "training|fit|lowered": lambda: call_deep(
            known.levels, step, x[rows], y[rows], LEARNING_RATE
        ),
        "training|fit|by hand": lambda: own(x[rows], y[rows]),
    }


KINDS = {"torch": torch_contenders, "flax": flax_contenders, "keras": keras_contenders}


def main(framework: str, name: str) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if framework in ("torch", "keras-torch"):
        import torch  # noqa: F401  (before anything that loads TensorFlow)
    if framework.startswith("keras-"):
        os.environ["KERAS_BACKEND"] = framework.partition("-")[2]
    from benchmarks.networks import NETWORKS

    network = NETWORKS[name]
    steps = KINDS[framework.partition("-")[0]](network, *data(network))
    for step in steps.values():
        step()  # which compiles it
    print(json.dumps(list(steps)), flush=True)
    for line in sys.stdin:
        chosen, count = json.loads(line)
        step = steps[chosen]
        step()  # caches are warm again
        start = time.perf_counter()
        for _ in range(count):
            step()
        print((time.perf_counter() - start) / count, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

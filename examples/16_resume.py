"""Training that is killed, and goes on with every backend: one curve.

Run `python examples/16_resume.py`; `--backend torch` kills and goes on with one backend alone, and
`--plot resume.png` draws the curve, a colour for each backend.

A checkpoint holds the parameters and what the optimiser keeps of each, all in canonical form. So
the moments that torch's Adam has gathered are those with which Keras's or optax's steps on.
"""

import multiprocessing
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import blocks as bl
from _backends import chosen, picture
from blocks.demo import Digits

net = bl.Sequential(
    bl.Conv(8, (3, 3), stride=2, padding="same"),
    bl.BatchNorm(),
    bl.ReLU(),
    bl.Dropout(0.2),
    bl.Flatten(),
    bl.Dense(10),
)
node = bl.infer(net, (8, 8, 1), dtype="float64")

OPTIONS = {"optimizer": bl.AdamW(0.003), "epochs": 4, "batch_size": 50}
STRETCH = 20  # steps that each backend makes
EVERY = 5  # steps between two checkpoints


class Enough(Exception):
    """It is the next backend's turn."""


def data():
    """Images and labels."""
    digits = Digits.load()
    return digits.x, digits.y


def uninterrupted(backend):
    """The curve of a run that nothing stops; draws are shared, so that Dropout is comparable."""
    return bl.fit(bl.lower(node, backend, draws="shared"), data(), **OPTIONS).losses


def begin(backend, path):
    """Train, and write a checkpoint now and then; slowly, so that there is time to be killed."""
    bl.fit(
        bl.lower(node, backend, draws="shared"),
        data(),
        checkpoint=path,
        checkpoint_every=EVERY,
        on_step=lambda step, loss: time.sleep(0.02),
        **OPTIONS,
    )


def begin_and_be_killed(backend, path):
    """Train in a process of its own, and kill it as soon as it has written something."""
    child = multiprocessing.get_context("spawn").Process(target=begin, args=(backend, path))
    child.start()
    while child.is_alive() and not path.exists():
        time.sleep(0.05)
    child.kill()
    child.join()


def go_on(backend, path, until=None):
    """Train on from the checkpoint, up to a step or to the end; the losses so far."""

    def stop(step, loss):
        if until is not None and step >= until:
            raise Enough

    found = bl.load_checkpoint(path)
    options = {"resume": found, "checkpoint": path, "checkpoint_every": EVERY}
    try:
        return bl.fit(found.lower(backend), data(), on_step=stop, **options).losses
    except Enough:
        return bl.load_checkpoint(path).history.losses


def relay(backends, path):
    """Each backend trains a stretch, the last one to the end: (backend, its first step, losses)."""
    begin_and_be_killed(backends[0], path)
    first = bl.load_checkpoint(path)
    stretches = [(backends[0], 0, first.history.losses)]
    for backend in (*backends[1:], backends[0]):
        start = len(stretches[-1][2])
        until = None if len(stretches) == len(backends) else start + STRETCH
        stretches.append((backend, start, go_on(backend, path, until)))
    return stretches


def draw(file, stretches, wanted):
    """The curve of the relay over that of a run without a break."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot(wanted, color="lightgrey", linewidth=5, label="without a break")
    for backend, start, losses in stretches:
        steps = range(max(start - 1, 0), len(losses))
        axes.plot(steps, [losses[i] for i in steps], linewidth=1, label=backend)
        axes.axvline(start, color="grey", linewidth=0.5, linestyle=":")
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    axes.legend(fontsize=8)
    figure.savefig(file, dpi=200)


if __name__ == "__main__":
    backends = sorted(chosen(), key=("torch", "keras", "flax", "numpy").index)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.checkpoint"
        stretches = relay(backends, path)
        last = bl.load_checkpoint(path)
    for backend, start, losses in stretches:
        print(f"{backend:6} steps {start:3} to {len(losses):3}, loss {losses[-1]:.4f}")

    wanted = uninterrupted(backends[0])
    losses = stretches[-1][2]
    difference = np.abs(np.subtract(losses, wanted)).max()
    print(f"\n{backends[0]} without a break differs by at most {difference:.1e}")
    kept = ", ".join(f"{name} of {len(arrays)} arrays" for name, arrays in last.slots.items())
    print(f"{last}\n  keeps {kept}")
    if file := picture():
        draw(file, stretches, wanted)
        print(f"{file} shows the curve.")
    sys.exit(bool(difference > 1e-6))

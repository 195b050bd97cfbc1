"""A small framework from the inside: three hidden layers learn which points lie in a disk.

Run `python examples/14_mini_framework.py`; `--backend torch` shows one backend alone, and
`--plot disk.png` draws what was learned.

The NumPy reference has an explicit forward and backward in every layer, and nothing that
differentiates by itself. First it is trained by a loop that hides nothing; then every backend is
trained by its own means, from the same numbers and over the same batches.
"""

from itertools import product

import numpy as np

import blocks as bl
from _backends import chosen, picture

net = bl.Sequential(
    *(bl.Dense(25), bl.ReLU()),
    *(bl.Dense(25), bl.ReLU()),
    *(bl.Dense(25), bl.ReLU()),
    bl.Dense(2),
)

# A disk of half the unit square. (A radius of 1 / (2 pi) would leave 8 % of it: lost is a root.)
RADIUS = 1 / np.sqrt(2 * np.pi)
CENTRE = (0.5, 0.5)


def disk(points, seed, radius=RADIUS, centre=CENTRE):
    """Points of the unit square, and whether each lies in the disk."""
    x = np.random.default_rng(seed).random((points, 2))
    inside = ((x - np.asarray(centre)) ** 2).sum(1) < radius**2
    return x, inside.astype(int)


def one_hot(labels):
    return np.eye(2)[labels]


def error(model, x, labels):
    """The share of points on the wrong side."""
    return 1 - bl.accuracy(model, x, labels)


def wrong(model, train, test):
    return f"wrong: {error(model, *train):.1%} in training, {error(model, *test):.1%} in the test"


def by_hand(model, x, target, rate, epochs, batch_size):
    """Gradient descent on a model of the reference; the loss before every step."""
    losses = []
    for epoch in range(epochs):
        order = np.random.default_rng([0, epoch]).permutation(len(x))
        for start in range(0, len(x), batch_size):
            rows = order[start : start + batch_size]
            model.zero_grad()
            difference = model(x[rows], training=True) - target[rows]
            losses.append((difference**2).mean())
            model.backward(2 * difference / difference.size)
            for weight, gradient in model.param():
                weight -= rate * gradient
    return losses


def sweep(node, params, train, test):
    """The test error over sizes of data, optimisers, epochs and batch sizes."""
    choices = (
        (250, 1000),
        (bl.SGD(0.1), bl.SGD(0.05, momentum=0.9), bl.Adam(0.003)),
        (10, 50),
        (25, 100),
    )
    for points, optimizer, epochs, batch_size in product(*choices):
        model = bl.lower(node, "numpy", params=params)
        x, labels = train[0][:points], train[1][:points]
        steps = {"epochs": epochs, "batch_size": batch_size}
        bl.fit(model, (x, one_hot(labels)), loss="mse", optimizer=optimizer, **steps)
        yield points, optimizer, epochs, batch_size, error(model, *test)


def draw(file, models, curves, test):
    """What each model says of the square, and the curves."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Circle

    side = np.linspace(0, 1, 100)
    square = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    figure = Figure(figsize=(3.2 * (len(models) + 1), 3.2), layout="constrained")
    *maps, plot = figure.subplots(1, len(models) + 1)
    for axes, (name, model) in zip(maps, models.items(), strict=True):
        inside = bl.apply(model, square).argmax(-1).reshape(100, 100)
        axes.imshow(inside, extent=(0, 1, 0, 1), origin="lower", cmap="tab10", vmax=9, alpha=0.3)
        axes.scatter(*test[0][:300].T, c=test[1][:300], s=4, cmap="tab10", vmax=9)
        axes.add_patch(Circle(CENTRE, RADIUS, fill=False))
        axes.set(title=f"{name}: {error(model, *test):.1%} wrong", xticks=[0, 1], yticks=[0, 1])
    for i, (name, losses) in enumerate(curves.items()):
        width = 2 * (len(curves) - i) - 1  # curves that agree lie on each other
        plot.plot(np.convolve(losses, np.ones(20) / 20, "valid"), label=name, lw=width)
    plot.set(title="loss, mean of 20 steps", xlabel="step", yscale="log")
    plot.legend()
    figure.savefig(file, dpi=150)


if __name__ == "__main__":
    backends = chosen()
    train, test = disk(1000, seed=0), disk(1000, seed=1)
    node = bl.infer(net, (2,), dtype="float64")
    params = bl.init(node, seed=0)
    print(f"{bl.count(node):,} parameters; {train[1].mean():.1%} of the points are in the disk")

    reference = bl.lower(node, "numpy", params=params)
    losses = by_hand(reference, train[0], one_hot(train[1]), rate=0.1, epochs=100, batch_size=50)
    print(f"by hand, {wrong(reference, train, test)}")

    models, curves = {}, {}
    for name in backends:
        model = models[name] = bl.lower(node, name, params=params)
        history = bl.fit(
            model,
            (train[0], one_hot(train[1])),
            loss="mse",
            optimizer=bl.SGD(0.1),
            epochs=100,
            batch_size=50,
        )
        curves[name] = history.losses
        last, best = history.epochs[-1]["loss"], min(row["loss"] for row in history.epochs)
        apart = np.abs(np.subtract(history.losses, losses)).max()
        print(f"{name}, {wrong(model, train, test)}")
        print(f"    loss {last:.5f}, best {best:.5f}; {history.seconds:.2f} s; within {apart:.0e}")

    print("\npoints  epochs  batch  wrong  optimiser")
    for points, optimizer, epochs, batch_size, share in sweep(node, params, train, test):
        print(f"{points:6}  {epochs:6}  {batch_size:5}  {share:5.1%}  {optimizer}")

    if file := picture():
        draw(file, models, curves, test)
        print(f"\n{file} shows what was learned.")

"""Another head on a trained body.

Run `python examples/15_surgery.py`; `--backend torch` shows one backend alone.

A network learns to tell five digits apart. Then its last layer is replaced by one for the other
five, its body is kept and frozen, and only the new head is trained: the table shows what moved.
"""

import numpy as np

import blocks as bl
from _backends import chosen
from blocks.demo import Digits

net = bl.Sequential(
    body=bl.Sequential(
        bl.Conv(8, (3, 3), padding="same"),
        bl.BatchNorm(),
        bl.ReLU(),
        bl.MaxPool((2, 2)),
        bl.Flatten(),
        bl.Dense(32),
        bl.ReLU(),
    ),
    head=bl.Dense(5),
)


def five(images: np.ndarray, labels: np.ndarray, first: int) -> tuple[np.ndarray, np.ndarray]:
    """Images of five digits, and which of the five each is."""
    rows = (first <= labels) & (labels < first + 5)
    return images[rows], labels[rows] - first


if __name__ == "__main__":
    data = Digits.load()
    low, high = (five(data.x, data.y, first) for first in (0, 5))
    low_test, high_test = (five(data.test_x, data.test_y, first) for first in (0, 5))
    shape = data.x.shape[1:]
    print(f"{bl.at(net, 'body/5')} and {bl.at(net, 'head')}")
    for backend in chosen():
        # The first task.
        old = bl.lower(net, backend, input_shape=shape, seed=0)
        bl.fit(old, low, optimizer=bl.Adam(0.003), epochs=3)
        print(f"\n{backend}: accuracy on 0 to 4: {bl.accuracy(old, *low_test):.3f}")

        # Another head; the body's numbers come from the model above, and stay.
        other = bl.replace(net, "head", bl.Sequential(bl.Dense(16), bl.Tanh(), bl.Dense(5)))
        node = bl.infer(other, shape)
        new = bl.lower(node, backend, seed=1, trainable={"body/**": False})
        loaded = bl.load_params(new, bl.params_of(old), strict=False)
        print(f"new: {', '.join(loaded.missing)}; left over: {', '.join(loaded.unexpected)}")
        print(f"{bl.count(node, 'head/**')} of {bl.count(node)} parameters are trained")

        # The second task: the head alone moves, and the statistics of the BatchNorm.
        before = bl.params_of(new)
        bl.fit(new, high, optimizer=bl.Adam(0.01), epochs=3)
        print(f"accuracy on 5 to 9: {bl.accuracy(new, *high_test):.3f}")
        print(bl.diff_params(before, new))

        # To train the rest too, in small steps.
        bl.set_trainable(new, {"body/**": True})
        bl.fit(new, high, optimizer=bl.Adam(0.001), epochs=3)
        print(f"accuracy with the body trained too: {bl.accuracy(new, *high_test):.3f}")

"""Where a port went wrong, and what a network costs on each framework.

Run `python examples/18_comparison.py`; `--backend torch` shows one backend alone.

Two networks are here for the command that writes a page with all there is to compare, which takes
some minutes:

    isoblocks compare examples/18_comparison.py:net --input 32,32,3 --html resnet.html
    isoblocks compare examples/18_comparison.py:transformer --input 16,32 --html transformer.html

Run, it shows what a page cannot: a port with a mistake, and the block where the mistake is.
"""

import numpy as np

import blocks as bl
from _backends import chosen

net = bl.Sequential(
    stem=bl.ConvNormAct(16, (3, 3)),
    stage_1=bl.ResidualBlock(16),
    stage_2=bl.ResidualBlock(32, stride=2, project=True),
    stage_3=bl.ResidualBlock(64, stride=2, project=True),
    head=bl.Sequential(bl.GlobalAvgPool(), bl.Dense(10)),
)

transformer = bl.Sequential(
    encoder=bl.Repeat(bl.TransformerEncoderLayer(32, 4, 64), 2),
    norm=bl.LayerNorm(),
    head=bl.Sequential(bl.Reduce("b t c -> b c", "mean"), bl.Dense(10)),
)

if __name__ == "__main__":
    node = bl.infer(net, (8, 8, 3))
    params = bl.init(node, seed=1)
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")
    reference = bl.lower(node, "numpy", params=params)

    # A port in which one epsilon is another framework's default. Its output is a little off; which
    # of its blocks is the first that is?
    ported = bl.ResidualBlock(32, stride=2, project=True, norm=bl.BatchNorm(epsilon=1e-3))
    other = bl.replace(net, "stage_2", ported)
    for backend in chosen():
        port = bl.lower(bl.infer(other, (8, 8, 3)), backend, params=params)
        print(f"\n{backend}: stage_2 is {ported}, not {bl.at(net, 'stage_2')}")
        print(bl.diff(reference, port, x))

    # The true ones, as figures that can be measured again.
    certificate = bl.certify(node, backends=chosen(), seed=1, batch_size=2, steps=2)
    print(certificate)
    print("all agree" if certificate else "they differ")

"""An encoder is written once; the decoder that mirrors it is worked out.

A variational autoencoder (Kingma and Welling 2014) makes of an image the mean and the variance of a
code, draws a code, and makes an image of it. Its decoder runs through the shapes of its encoder in
reverse order, which is what `transpose` does.

Run `python examples/13_variational_autoencoder.py`; `--backend torch` shows one backend alone.
"""

import blocks as bl
from _backends import chosen

IMAGE, CODE = (3, 28, 28), 16
LAYOUT = "channels_first"


def stage(features):
    """One convolution and all that belongs to it."""
    return (
        bl.Conv(features, (3, 3)),
        bl.BatchNorm(),
        bl.ReLU(),
        bl.Dropout(0.25, whole_channels=True),
    )


encoder = bl.Sequential(*stage(8), *stage(16), bl.Flatten())

# Every shape of the encoder comes back; norms and activations stay between the same two layers, and
# the image has neither but the one that is asked for.
decoder = encoder.transpose(IMAGE, layout=LAYOUT, output_activation=bl.Sigmoid())

flat = bl.infer(encoder, IMAGE, layout=LAYOUT).out_spec.shape[0]

net = bl.Sequential(
    encoder=encoder,
    heads=bl.Parallel(mean=bl.Dense(CODE), log_var=bl.Dense(CODE), merge="tuple"),
    sample=bl.Sample(),
    sampler=bl.Dense(flat),
    decoder=decoder,
)

# The same decoder by hand, with a slip that is easily made: norms of the channels before theirs.
by_hand = bl.Sequential(
    bl.Reshape((16, 24, 24)),
    bl.ConvTranspose(8, (3, 3), in_features=16),
    bl.BatchNorm(in_features=16),
    bl.ReLU(),
    bl.ConvTranspose(3, (3, 3), in_features=8),
    bl.BatchNorm(in_features=8),
    bl.Sigmoid(),
)

if __name__ == "__main__":
    backends = chosen()
    node = bl.infer(net, IMAGE, layout=LAYOUT)
    print(bl.listing(node, name="autoencoder"))
    print(f"\n{bl.count(node):,} parameters, {IMAGE} -> {node.out_spec.shape}")

    print("\n# ---- all that is wrong with the decoder by hand ----\n")
    print(bl.validate(by_hand, (flat,), layout=LAYOUT))

    print("\n# ---- a mirror of the whole ----\n")
    try:
        net.transpose(IMAGE, layout=LAYOUT)
    except bl.UnsupportedError as error:
        print(error)

    print()
    print(bl.parity(net, IMAGE, layout=LAYOUT, dtype="float64", backends=backends, steps=0))

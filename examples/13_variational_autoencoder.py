"""An encoder is written once; the decoder that mirrors it is worked out, and both learn digits.

Run `python examples/13_variational_autoencoder.py`; `--backend torch` shows one backend alone, and
`--plot digits.png` draws digits, what the model makes of them, and digits that nobody wrote.

A variational autoencoder (Kingma and Welling 2014) makes of an image the mean and the variance of a
code, draws a code, and makes an image of it. Its decoder runs through the shapes of its encoder in
reverse order, which is what `transpose` does.
"""

import numpy as np

import blocks as bl
from _backends import chosen, picture
from blocks.demo import Digits

LAYOUT = "channels_first"


def stage(features):
    """One convolution and all that belongs to it."""
    return (
        bl.Conv(features, (3, 3)),
        bl.BatchNorm(),
        bl.ReLU(),
        bl.Dropout(0.1, whole_channels=True),
    )


encoder = bl.Sequential(*stage(8), *stage(16), bl.Flatten())


def autoencoder(image, code):
    """The autoencoder of images of that shape, with codes of that many numbers.

    Every shape of the encoder comes back; norms and activations stay between the same two layers,
    and the image has neither but the one that is asked for.
    """
    flat = bl.infer(encoder, image, layout=LAYOUT).out_spec.shape[0]
    decoder = encoder.transpose(image, layout=LAYOUT, output_activation=bl.Sigmoid())
    return bl.Sequential(
        encoder=encoder,
        heads=bl.Parallel(mean=bl.Dense(code), log_var=bl.Dense(code), merge="tuple"),
        sample=bl.Sample(),
        sampler=bl.Dense(flat),
        decoder=decoder,
    )


IMAGE = (3, 28, 28)
net = autoencoder(IMAGE, code=16)

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

# For digits of 8 x 8. The loss needs the image, the mean and the variance.
DIGIT = (1, 8, 8)
small = autoencoder(DIGIT, code=8)
generator = bl.Sequential(sampler=small["sampler"], decoder=small["decoder"])
trained = bl.Sequential(
    encoder=small["encoder"],
    heads=small["heads"],
    outputs=bl.Parallel(
        image=bl.Sequential(sample=bl.Sample(), generator=generator),
        mean=bl.Select(0),
        log_var=bl.Select(1),
        merge="tuple",
    ),
)


def train(node, backend, images, epochs):
    """A trained model and its history; random numbers are the same on every backend."""
    model = bl.lower(node, backend, seed=0, draws="shared")
    history = bl.fit(
        model,
        (images, images),
        loss=bl.VAELoss(beta=0.2),
        optimizer=bl.Adam(0.003),
        epochs=epochs,
        batch_size=64,
    )
    return model, history


def generated(model, count):
    """Images of codes that no image had: the last layers alone, with what they have learned."""
    path = "outputs/image/generator/"
    params = bl.select(bl.params_of(model), path + "**")
    node = bl.infer(generator, (8,), layout=LAYOUT)
    last = bl.lower(node, "numpy", params={name[len(path) :]: a for name, a in params.items()})
    return bl.apply(last, np.random.default_rng(1).normal(size=(count, 8)))


def draw(file, model, images):
    """Digits, what the model makes of them, and new ones."""
    from matplotlib.figure import Figure

    columns = len(images)
    rows = [images, bl.apply(model, images)[0], generated(model, columns)]
    figure = Figure(figsize=(columns * 0.7, 2.6), layout="constrained")
    titles = ("digits", "made of their codes", "made of new codes")
    for band, row, title in zip(figure.subfigures(3, 1), rows, titles, strict=True):
        band.suptitle(title, fontsize=8)
        for axes, image in zip(band.subplots(1, columns), row, strict=True):
            axes.imshow(image[0], cmap="gray_r", vmin=0, vmax=1)
            axes.axis("off")
    figure.savefig(file, dpi=200)


if __name__ == "__main__":
    backends = chosen()
    node = bl.infer(net, IMAGE, layout=LAYOUT)
    print(bl.listing(node, name="autoencoder"))
    print(f"\n{bl.count(node):,} parameters, {IMAGE} -> {node.out_spec.shape}")

    print("\n# ---- all that is wrong with the decoder by hand ----\n")
    print(bl.validate(by_hand, (net["sampler"].features,), layout=LAYOUT))

    print("\n# ---- a mirror of the whole ----\n")
    try:
        net.transpose(IMAGE, layout=LAYOUT)
    except bl.UnsupportedError as error:
        print(error)

    print("\n# ---- the same everywhere ----\n")
    print(bl.parity(net, IMAGE, layout=LAYOUT, dtype="float64", backends=backends, steps=0))

    print("\n# ---- learning digits ----\n")
    digits = Digits.load()
    images, unseen = (np.moveaxis(x, -1, 1) for x in (digits.x, digits.test_x[:12]))
    learning = bl.infer(trained, DIGIT, layout=LAYOUT)
    for backend in backends:
        model, history = train(learning, backend, images, epochs=20)
        first, last = history.epochs[0]["loss"], history.epochs[-1]["loss"]
        print(f"{backend:6} loss {first:.4f} -> {last:.4f}, {history.seconds:.1f} s")
    if file := picture():
        draw(file, model, unseen)
        print(f"\n{file} shows digits that {backend} has learned.")

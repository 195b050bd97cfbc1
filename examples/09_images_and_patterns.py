"""Images: patterns of axes, a perceptron of pixels, and an edge filter set by hand.

Run `python examples/09_images_and_patterns.py`; `--backend torch` shows one backend alone.

With scikit-image installed the image is its cup of coffee, else one of that size made here.
"""

import numpy as np
from einops import rearrange, repeat

import blocks as bl
from _backends import chosen

# In a network a pattern begins with the batch. Shapes are (channels, height, width) throughout.
LAYOUT = {"layout": "channels_first"}

mlp = net = bl.Sequential(bl.Rearrange("b c h w -> b (c h w)"), bl.Dense(5), bl.ReLU(), bl.Dense(1))
edges = bl.Conv(1, (3, 3), use_bias=False)

SOBEL = np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1]])

max_pool = bl.Reduce("b c (h1 h2) (w1 w2) -> b c h1 w1", "max", h2=2, w2=2)
mean_pool = bl.Reduce("b c (h1 h2) (w1 w2) -> b c h1 w1", "mean", h2=2, w2=2)


def picture() -> np.ndarray:
    """An image of (400, 600, 3) numbers from 0 to 255."""
    try:
        from skimage import data

        return data.coffee()
    except ImportError:
        print("# scikit-image is not installed: a disc on a slope stands in for the coffee\n")
    height, width = np.mgrid[:400, :600]
    disc = np.hypot(height - 180, width - 320) < 120
    layers = [height / 4, width / 6, 255 * disc]
    return np.stack(layers, axis=-1).astype(np.uint8)


if __name__ == "__main__":
    backends = chosen()
    image = picture().astype(np.float32)
    image /= image.max()
    batch = repeat(image, "h w c -> b c h w", b=10)
    mosaic = rearrange(batch, "(b1 b2) c h w -> (b1 h) (b2 w) c", b1=2)
    print(f"image {image.shape}, batch {batch.shape}, mosaic of 2 rows {mosaic.shape}")

    node = bl.infer(mlp, batch.shape[1:], **LAYOUT)
    print(f"a perceptron of pixels: {bl.count(node):,} parameters")
    for backend in backends:
        print(f"  {backend:6} {bl.apply(bl.lower(node, backend), batch).shape}")

    for size, features in (((4, 4), 1), ((4, 4), 24)):
        kernel = bl.infer(bl.Conv(features, size), batch.shape[1:], **LAYOUT).params["kernel"]
        print(f"a convolution of {features} detectors: {kernel.shape}, {kernel.size:,} numbers")

    # The kernel is (*window, in, out): one filter, repeated for each colour.
    node = bl.infer(edges, batch.shape[1:], **LAYOUT)
    params = bl.init(node)
    params["kernel"][...] = SOBEL[:, :, None, None]
    for backend in backends:
        found = bl.apply(bl.lower(node, backend, params=params), batch)
        print(f"  {backend:6} edges {found.shape}, from {found.min():.3f} to {found.max():.3f}")

    pools = {"max": (max_pool, bl.MaxPool((2, 2))), "mean": (mean_pool, bl.AvgPool((2, 2)))}
    for name, pair in pools.items():
        for backend in backends:
            pattern, pool = (
                bl.apply(bl.lower(b, backend, input_shape=batch.shape[1:], **LAYOUT), batch[:2])
                for b in pair
            )
            print(f"  {backend:6} {name}: {pool.shape}, differs by {abs(pattern - pool).max():.0e}")

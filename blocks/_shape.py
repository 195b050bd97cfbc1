"""Sizes of windows that slide: the arithmetic of convolution and pooling, in one place."""

from __future__ import annotations

from typing import Any, TypeAlias

from blocks._errors import ShapeError, UnknownSizeError
from blocks._spec import Shape, Size, Spec, shapes

Pair: TypeAlias = tuple[int, int]
Pairs: TypeAlias = tuple[Pair, ...]


def span(kernel: int, dilation: int) -> int:
    """How many cells a dilated kernel covers."""
    return (kernel - 1) * dilation + 1


def same_pair(size: Size, kernel: int, stride: int, dilation: int) -> Pair:
    """Padding that makes ceil(size / stride) windows; the odd cell goes to the end.

    That is the rule of TensorFlow, Keras and Flax. With stride 1 it does not depend on the size.
    """
    covered = span(kernel, dilation)
    if size is None:
        if stride > 1:
            raise UnknownSizeError(
                f"needs a known size for padding='same' with stride {stride}, got any length",
                fix="Give the size, or write the padding as pairs.",
            )
        total = covered - 1
    else:
        windows = -(-size // stride)
        total = max((windows - 1) * stride + covered - size, 0)
    return total // 2, total - total // 2


def resolve_padding(
    x: Spec,
    padding: str | Pairs,
    kernel_size: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
) -> Pairs:
    """Padding as a (before, after) pair for each spatial axis of `x`."""
    if padding == "valid":
        return ((0, 0),) * len(kernel_size)
    if padding == "same":
        windows = zip(x.spatial, kernel_size, stride, dilation, strict=True)
        return tuple(same_pair(*window) for window in windows)
    return padding  # type: ignore[return-value]


def windows(
    x: Spec,
    padding: str | Pairs,
    kernel_size: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
) -> dict[str, Any]:
    """What rules need to know of a window: its padding as pairs, and whether that is "same"."""
    pairs = resolve_padding(x, padding, kernel_size, stride, dilation)
    sliding = zip(x.spatial, kernel_size, stride, dilation, strict=True)
    same = padding == "same" or all(
        (size is not None or step == 1) and same_pair(size, kernel, step, gap) == pair
        for (size, kernel, step, gap), pair in zip(sliding, pairs, strict=True)
    )
    return {"padding": pairs, "same": same}


def slide(
    x: Spec,
    padding: Pairs,
    kernel_size: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
) -> Shape:
    """Spatial sizes of a window slid over `x`: floor((size + pads - span) / stride) + 1."""
    sizes: list[Size] = []
    windows = zip(x.spatial_axes, x.spatial, padding, kernel_size, stride, dilation, strict=True)
    for axis, size, pair, kernel, step, gap in windows:
        if size is None:
            sizes.append(None)
            continue
        padded, covered = size + sum(pair), span(kernel, gap)
        if padded < covered:
            dilated = f" with dilation {gap} covers {covered} cells" if gap > 1 else ""
            raise ShapeError(
                f"has a kernel larger than its input: kernel {kernel}{dilated}, "
                f"but axis {axis} of {shapes(x)} has {size}"
                + (f" + {sum(pair)} of padding" if sum(pair) else ""),
                fix=f"Use a kernel_size of at most {(padded - 1) // gap + 1} along that axis, "
                "or padding='same'.",
            )
        sizes.append((padded - covered) // step + 1)
    return tuple(sizes)


def unreached(
    x: Spec,
    padding: Pairs,
    kernel_size: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
) -> tuple[int, ...]:
    """How many cells at the end of each axis no window reaches; 0 for an axis of any length."""
    windows = zip(x.spatial, padding, kernel_size, stride, dilation, strict=True)
    return tuple(
        0 if size is None else (size + sum(pair) - span(kernel, gap)) % step
        for size, pair, kernel, step, gap in windows
    )


def transposed(
    padding: str | Pairs,
    output_padding: tuple[int, ...],
    kernel_size: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
) -> dict[str, Any]:
    """What rules need to know of a transposed convolution; none of it depends on the sizes.

    The full result has (size - 1) * stride + span cells along each axis.

    crop: cells to cut off its two ends; where the second is negative, cells beyond it, which hold
        the bias alone.
    name: "valid" or "same" if that is what the crop comes to, else None.
    valid_crop: the same crop, counted from what "valid" gives.
    padding: around the input with stride - 1 zeros between its cells, for a convolution with the
        kernel turned around to give just this.
    """
    steps = list(zip(kernel_size, stride, dilation, strict=True))
    named = {word: tuple(named_crop(word, *step) for step in steps) for word in ("valid", "same")}
    base: Pairs = named[padding] if isinstance(padding, str) else padding
    cropped = zip(base, output_padding, strict=True)
    crop = tuple((low, high - more) for (low, high), more in cropped)
    spans = [span(kernel, gap) for kernel, _, gap in steps]
    both = zip(crop, named["valid"], strict=True)
    return {
        "crop": crop,
        "name": next((word for word, pairs in named.items() if pairs == crop), None),
        "valid_crop": tuple((low, high - least) for (low, high), (_, least) in both),
        "padding": tuple(
            (covered - 1 - low, covered - 1 - high)
            for (low, high), covered in zip(crop, spans, strict=True)
        ),
    }


def named_crop(padding: str, kernel: int, stride: int, dilation: int) -> Pair:
    """What "valid" and "same" cut off the full result, as TensorFlow, Keras and Flax do it."""
    more = span(kernel, dilation) - stride  # the full result has size * stride + more cells
    if padding == "valid":
        return 0, min(more, 0)
    low = max(more, 0) // 2
    return low, more - low


def spread(
    x: Spec,
    crop: Pairs,
    kernel_size: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
) -> Shape:
    """Spatial sizes of a transposed convolution: (size - 1) * stride + span - crop."""
    sizes: list[Size] = []
    axes = zip(x.spatial_axes, x.spatial, crop, kernel_size, stride, dilation, strict=True)
    for axis, size, pair, kernel, step, gap in axes:
        if size is None:
            sizes.append(None)
            continue
        full = (size - 1) * step + span(kernel, gap)
        if full <= sum(pair):
            raise ShapeError(
                f"cuts {sum(pair)} cells off axis {axis}, where the {size} of {shapes(x)} become "
                f"{full}",
                fix=f"Cut {sum(pair) - full + 1} fewer along that axis, or use padding='same'.",
            )
        sizes.append(full - sum(pair))
    return tuple(sizes)


def need_spatial(x: Spec, rank: int, field: str = "a kernel_size") -> None:
    """Refuse an input that has not `rank` spatial axes and channels; `field` is of that length."""
    if x.rank != rank + 1:
        axes = "axis" if rank == 1 else "axes"
        raise ShapeError(
            f"needs {rank} spatial {axes} and channels, got {shapes(x)}",
            fix=lambda made: rank_repair(x, rank, field, type(made).__name__),
        )


def rank_repair(x: Spec, rank: int, field: str, made: str) -> str:
    if made == "Flatten":
        return "Move Flatten after the last Conv."
    if x.rank == rank:
        return f"The channel axis is missing: write {(*x.shape, 1)} for one channel."
    if 2 <= x.rank <= 4:
        return f"Use {field} of length {x.rank - 1}."
    return f"Give it an input with {rank + 1} axes, the batch not counted."


def norm_axis(axis: int, rank: int, x: Spec) -> int:
    """The axis counted from 0; refuse one that a value of `rank` axes does not have."""
    if not -rank <= axis < rank:
        raise ShapeError(
            f"has axis={axis}, which {shapes(x)} does not have",
            fix=f"Use an axis from {-rank} to {rank - 1}." if rank else "",
        )
    return axis % rank


def need_known(x: Spec, size: Size, what: str) -> int:
    """The size as an int; refuse "any length" where a parameter's shape needs a number."""
    if size is None:
        raise UnknownSizeError(
            f"needs a known number of {what}, got any length in {shapes(x)}",
            fix="Give that size to infer.",
        )
    return size


def check_stated(stated: int | None, actual: int) -> None:
    """Refuse an input whose number of features is not the one that the user stated."""
    if stated is not None and stated != actual:
        raise ShapeError(
            f"states in_features={stated}, but its input has {actual}",
            fix=f"Write in_features={actual}, or leave it out: it is inferred.",
        )

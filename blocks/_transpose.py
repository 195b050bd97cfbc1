"""`transpose`: the decoder that mirrors an encoder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import singledispatch
from itertools import chain, groupby
from typing import Any

from blocks import _shape
from blocks._block import Block
from blocks._errors import UnsupportedError, place
from blocks._fold import links
from blocks._infer import as_node
from blocks._spec import Node, Shape, Spec, shapes
from blocks._stack import call_deep
from blocks.activation import Activation, Softmax
from blocks.combine import Residual, Sequential, Shared, a_block
from blocks.conv import Conv, Convolution, ConvTranspose
from blocks.initializers import Array
from blocks.linear import Dense
from blocks.norm import BatchNorm, GroupNorm, LayerNorm, RMSNorm
from blocks.pattern import Rearrange
from blocks.pool import AdaptiveAvgPool, AvgPool, GlobalPool, WindowPool
from blocks.regularisation import Dropout
from blocks.shape import Crop, Flatten, Pad, Permute, Reshape, Upsample
from blocks.value import Identity

LAYERS = (Dense, Conv, ConvTranspose, Residual)
# What stands between two layers and works on values of any size, so that it needs no mirror.
STAYS = (BatchNorm, GroupNorm, LayerNorm, RMSNorm, Activation, Softmax)
# It gives the same before the cells are repeated as after, with less to compute.
EARLY = (BatchNorm, GroupNorm, Activation)
RESIZES = (Upsample, AvgPool, AdaptiveAvgPool)
LEFT_OUT = (Dropout, Identity)


def transpose(
    network: Node | Block,
    input_shape: Any = None,
    *,
    output_activation: Block | None = None,
    **options: Any,
) -> Sequential:
    """The decoder of an encoder: from the shape of its output back to that of its input.

    The layers come in reverse order, each turned around, so that every value between two of them
    has the shape that it has in the encoder:

        Dense, Conv, ConvTranspose    Dense, ConvTranspose, Conv, with output_padding where needed
        MaxPool, AvgPool, and such    Upsample, by a scale where that is an int, else to the size
        GlobalAvgPool, GlobalMaxPool  Reshape, then Upsample to the size
        Upsample                      AvgPool where its scale is an int, else AdaptiveAvgPool
        Flatten, Reshape              Reshape
        Permute, Rearrange            the other way round
        Pad, Crop                     Crop, Pad with zeros
        Residual                      Residual of the mirrored body, and of the mirrored shortcut

    Norms and activations stay with the value that they belong to: those between two layers of the
    encoder stand between the mirrored two, norm before activation where it was so. Those after its
    last layer and before its first are left out, so that the decoder's last layer has none but
    `output_activation`; in the body of a Residual that keeps its shape they stay at its ends, norms
    only where they fit. Dropout and Identity are left out. Sequential, Repeat and composites come
    out as one chain; a Shared layer is shared in the decoder under another name. Layers keep
    `use_bias` and their initialisers, except for arrays. The decoder has parameters of its own: it
    is no inverse.

    Args:
        network: the encoder, as a block or a node.
        input_shape: of the encoder, as in `infer`; not for a node.
        output_activation: the block after the last one.
        options: those of `infer`: layout and dtype.

    Raises:
        UnsupportedError: for a block that has no mirror, such as Sample, Parallel or Embedding, or
            a Shared Residual whose uses would need different ones.

    >>> import blocks as bl
    >>> encoder = bl.Sequential(bl.Conv(8, (3,), stride=2), bl.ReLU(), bl.Flatten(), bl.Dense(2))
    >>> decoder = bl.transpose(encoder, (28, 1))
    >>> [type(block).__name__ for block in decoder]
    ['Dense', 'Reshape', 'Activation', 'ConvTranspose']
    >>> bl.infer(decoder, (2,)).out_spec.shape
    (28, 1)
    """
    node = as_node(network, input_shape, options)
    blocks = call_deep(node.levels(), mirrored, node)
    call_deep(node.levels(), check_shared, node)
    if output_activation is not None:
        blocks.append(a_block(None, "output_activation", output_activation))
    return Sequential(*blocks)


def autoencoder(
    encoder: Block,
    input_shape: Any,
    *,
    output_activation: Block | None = None,
    **options: Any,
) -> Sequential:
    """An encoder and the decoder that mirrors it; arguments and errors as in `transpose`.

    >>> import blocks as bl
    >>> net = bl.autoencoder(bl.Sequential(bl.Dense(8), bl.ReLU(), bl.Dense(2)), (20,))
    >>> bl.infer(net, (20,)).out_spec.shape
    (20,)
    """
    decoder = transpose(encoder, input_shape, output_activation=output_activation, **options)
    return Sequential(encoder=encoder, decoder=decoder)


def mirrored(node: Node, *, keep_ends: bool = False) -> list[Block]:
    """The mirror of all that runs one after the other in a node."""
    steps = [step for step in links(node, ("chain", "loop")) if not isinstance(step.form, LEFT_OUT)]
    layers = [i for i, step in enumerate(steps) if isinstance(step.form, LAYERS)]
    first, last = (layers[0], layers[-1] + 1) if layers else (0, 0)
    before, between, after = steps[:first], steps[first:last], steps[last:]
    blocks = [
        *(b for step in reversed(after) for b in resized(step)),
        *chain.from_iterable(turned(run) for run in reversed(runs(between))),
        *(b for step in reversed(before) for b in resized(step)),
    ]
    if keep_ends:
        shape = node.in_spec.shape
        ends = [[s for s in end if fits(s, shape)] for end in (before, after)]
        blocks = [*standing(ends[0]), *blocks, *standing(ends[1])]
    return early(blocks)


def runs(steps: Iterable[Node]) -> list[list[Node]]:
    """Norms and activations in a row together, all others alone."""
    found: list[list[Node]] = []
    for stays, group in groupby(steps, lambda step: isinstance(step.form, STAYS)):
        row = list(group)
        found += [row] if stays else [[step] for step in row]
    return found


def turned(run: Sequence[Node]) -> list[Block]:
    return standing(run) or resized(run[0])


def standing(steps: Sequence[Node]) -> list[Block]:
    """Those norms and activations among the steps, in the order of the encoder."""
    return [as_shared(step, step.form) for step in steps if isinstance(step.form, STAYS)]


def fits(step: Node, shape: Shape) -> bool:
    """Whether a norm or an activation can as well stand where the value has another shape."""
    return isinstance(step.form, Activation) or step.in_spec.shape == shape


def resized(step: Node) -> list[Block]:
    """The mirror of one step; nothing for norms and activations."""
    if isinstance(step.form, STAYS):
        return []
    blocks = mirror(step.form, step)
    return [as_shared(step, b) if isinstance(b, LAYERS) else b for b in blocks]


def as_shared(step: Node, block: Block) -> Block:
    """The block under a name of the decoder's own if the encoder shares it."""
    tied = step.shared and step.param_specs()
    return Shared(f"{step.shared}_mirrored", block) if tied else block


def check_shared(root: Node) -> None:
    """Refuse a Residual that is shared by uses whose mirrors differ, as their sizes do."""
    first: dict[str, tuple[Node, list[Block]]] = {}
    for node in root.walk():
        if node.shared and isinstance(node.form, Residual):
            blocks = mirror(node.form, node)
            before, made = first.setdefault(node.shared, (node, blocks))
            if made != blocks:
                uses = " and ".join(
                    f"{shapes(use.in_spec)} -> {shapes(use.out_spec)} {place(use.path)}"
                    for use in (before, node)
                )
                raise refusal(node, f"its uses {uses} need different ones; share the layers in it")


def early(blocks: Iterable[Block]) -> list[Block]:
    """Norms and activations directly after their layer where only a change of size is between."""
    found: list[Block] = []
    for block in blocks:
        at = len(found)
        while at and isinstance(block, EARLY) and isinstance(found[at - 1], RESIZES):
            at -= 1
        found.insert(at, block)
    return found


def refusal(node: Node, reason: str) -> UnsupportedError:
    return UnsupportedError(
        f"{type(node.block).__name__} {place(node.path)} has no mirror: {reason}."
    )


def known(node: Node) -> None:
    """Refuse an axis of any length where the size must come back."""
    if None in node.in_spec.shape:
        raise refusal(node, "it needs to know the size of every axis; give it to infer")


@singledispatch
def mirror(form: Any, node: Node) -> list[Block]:
    """The blocks that bring the shape of a node's output back to that of its input."""
    if node.shared and node.children:
        raise refusal(node, "it is shared as a whole; share the layers in it")
    raise refusal(
        node,
        "only Dense, convolutions, pools, norms, activations, Residual and blocks that move or "
        "repeat numbers have one; mirror the part before it, and write this one's by hand",
    )


def layer(form: Any, features: int, **others: Any) -> dict[str, Any]:
    """The fields that a mirrored layer has from the layer."""
    kept = {
        name: init
        for name in ("kernel_init", "bias_init")
        if not isinstance(init := getattr(form, name), Array)
    }
    return {"features": features, "use_bias": form.use_bias} | others | kept


def window(form: Convolution) -> dict[str, Any]:
    names = ("kernel_size", "stride", "dilation")
    return {name: getattr(form, name) for name in names}


def spatial_crop(x: Spec, pairs: _shape.Pairs) -> Crop:
    """A Crop of the spatial axes alone."""
    return Crop((*pairs, (0, 0)) if x.layout == "channels_last" else ((0, 0), *pairs))


@mirror.register
def _(form: Dense, node: Node) -> list[Block]:
    return [Dense(**layer(form, node.in_spec.shape[-1]))]


@mirror.register
def _(form: Conv, node: Node) -> list[Block]:
    x, pads, steps = node.in_spec, node.resolved["padding"], window(form)
    if any(n is None and step > 1 for n, step in zip(x.spatial, form.stride, strict=True)):
        raise refusal(node, "its stride loses the size of an axis of any length; give it to infer")
    more = _shape.unreached(x, pads, **steps)
    cut: list[Crop] = []
    if node.shared and max(form.stride) > 1:  # one layer, whatever the size at each of its uses
        most = tuple(step - 1 for step in form.stride)
        cells = zip(pads, most, more, strict=True)
        cut = [spatial_crop(x, tuple((low, high + m - n) for (low, high), m, n in cells))]
        pads, more = ((0, 0),) * len(pads), most
    name = _shape.transposed(pads, more, **steps)["name"]
    ends = {"padding": name} if name else {"padding": pads, "output_padding": more}
    return [ConvTranspose(**layer(form, x.channels, groups=form.groups, **steps, **ends)), *cut]


@mirror.register
def _(form: ConvTranspose, node: Node) -> list[Block]:
    crop, steps, y = node.resolved["crop"], window(form), node.out_spec
    pads = tuple((low, max(high, 0)) for low, high in crop)
    excess = tuple(max(-high, 0) for _, high in crop)  # cells of bias alone
    cut: list[Crop] = []
    if any(cells >= step for cells, step in zip(excess, form.stride, strict=True)):
        cut = [spatial_crop(y, tuple((0, cells) for cells in excess))]
        y = cut[0].out_spec(y)
    same = _shape.windows(y, pads, **steps)["same"] and not node.shared  # it depends on the size
    padding = "valid" if not any(map(any, pads)) else "same" if same else pads
    fields = layer(form, node.in_spec.channels, groups=form.groups, **steps, padding=padding)
    return [*cut, Conv(**fields)]


@mirror.register
def _(form: Residual, node: Node) -> list[Block]:
    if form.merge == "concat":
        raise refusal(node, "merge='concat' keeps its input beside what the body makes of it")
    *shortcut, body = node.children
    same = node.in_spec.shape == node.out_spec.shape
    if not (shortcut or same):
        raise refusal(node, "its product repeats the input along an axis")
    around = one(met(shortcut[0], node) + mirrored(shortcut[0])) if shortcut else None
    return [Residual(one(met(body, node) + mirrored(body, keep_ends=same)), around, form.merge)]


def met(part: Node, node: Node) -> list[Block]:
    """From the output of a Residual to that of a part of it, which a product may have repeated."""
    there = part.out_spec.spatial
    return [] if there == node.out_spec.spatial else [AdaptiveAvgPool(there)]


def one(blocks: list[Block]) -> Block:
    return blocks[0] if len(blocks) == 1 else Sequential(*blocks)


@mirror.register(WindowPool)
@mirror.register(AdaptiveAvgPool)
def _(form: Block, node: Node) -> list[Block]:
    known(node)
    x, y = node.in_spec, node.out_spec
    if x.spatial == y.spatial:
        return []
    scale = ratio(x, y)
    return [Upsample(scale) if scale else Upsample(size=x.spatial)]


def ratio(large: Spec, small: Spec) -> tuple[int, ...] | None:
    """How many cells of one are a cell of the other, if that is an int along each axis."""
    sizes: Any = list(zip(large.spatial, small.spatial, strict=True))
    return tuple(m // n for m, n in sizes) if all(m % n == 0 for m, n in sizes) else None


@mirror.register
def _(form: GlobalPool, node: Node) -> list[Block]:
    known(node)
    x = node.in_spec
    ones = x.with_channels(x.channels, (1,) * len(x.spatial))
    return [Reshape(ones.shape), Upsample(size=x.spatial)]


@mirror.register
def _(form: Upsample, node: Node) -> list[Block]:
    known(node)
    if node.in_spec.spatial == node.out_spec.spatial:
        return []
    scale = ratio(node.out_spec, node.in_spec)
    return [AvgPool(scale) if scale else AdaptiveAvgPool(node.in_spec.spatial)]


@mirror.register(Flatten)
@mirror.register(Reshape)
def _(form: Block, node: Node) -> list[Block]:
    known(node)
    same = node.in_spec.shape == node.out_spec.shape
    return [] if same else [Reshape(node.in_spec.shape)]


@mirror.register
def _(form: Permute, node: Node) -> list[Block]:
    return [Permute(tuple(form.axes.index(i) for i in range(len(form.axes))))]


@mirror.register
def _(form: Rearrange, node: Node) -> list[Block]:
    return [form.reversed(node.in_spec)]


@mirror.register
def _(form: Pad, node: Node) -> list[Block]:
    return [Crop(form.pads)]


@mirror.register
def _(form: Crop, node: Node) -> list[Block]:
    return [Pad(form.crops)]

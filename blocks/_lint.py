"""Lint: what runs, but is probably not meant.

Every rule is one function, entered in `RULES` by the decorator `rule`. It looks at one place of a
network: a node and its neighbours, whatever is nested in what. A rule marks only what is surely of
no use, or against what the literature says; docs/lint.md lists all, each with an example.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import dropwhile, islice, takewhile
from typing import Any, TypeAlias, TypeGuard

from blocks._block import Block, Combinator
from blocks._infer import as_node
from blocks._params import count
from blocks._shape import span
from blocks._spec import Node, Shape, join, shapes
from blocks.activation import Activation, LogSoftmax, Softmax
from blocks.attention import MultiHeadAttention
from blocks.combine import Parallel, Residual, Sequential
from blocks.conv import Conv, ConvTranspose
from blocks.initializers import NAMED, settled
from blocks.linear import Dense
from blocks.norm import BatchNorm, GroupNorm, LayerNorm, RMSNorm
from blocks.pool import (
    AdaptiveAvgPool,
    AvgPool,
    GlobalAvgPool,
    GlobalMaxPool,
    MaxPool,
    WindowPool,
)
from blocks.recurrent import Recurrent
from blocks.regularisation import Dropout
from blocks.shape import Crop, Flatten, Pad, Permute, Reshape, Upsample
from blocks.value import Identity


@dataclass(frozen=True)
class Lint:
    """One remark: the rule, the path and the block that it is about, the reason, the repair."""

    rule: str
    path: str
    block: Block
    reason: str
    repair: str


class Lints(tuple[Lint, ...]):
    """The remarks on a network, in the order of its blocks: empty if there are none; prints as a
    table.
    """

    __slots__ = ()

    def __rich_console__(self, console: Any, options: Any) -> Any:
        from rich.markup import escape
        from rich.table import Table

        if not self:
            yield "Nothing to remark."
            return
        table = Table(title=f"{len(self)} remark{'s' * (len(self) > 1)}", show_lines=True)
        for column in ("path", "block", "reason", "repair"):
            table.add_column(column)
        for lint in self:
            name = getattr(lint.block, "kind", type(lint.block).__name__)
            table.add_row(*map(escape, (lint.path or "/", name, lint.reason, lint.repair)))
        yield table

    def __repr__(self) -> str:
        from blocks._console import as_text

        return as_text(self)


def lint(network: Node | Block, input_shape: Any = None, **options: Any) -> Lints:
    """What in a network runs, but is probably not meant.

    Args:
        network, input_shape, options: as in `lower`; options are those of `infer`.

    Returns:
        A tuple of remarks, each with `rule`, `path`, `block`, `reason` and `repair`; it prints as a
        table. What every repetition of a `Repeat` has is remarked once.

    Raises:
        ShapeError: if blocks do not fit together.

    >>> import blocks as bl
    >>> remarks = bl.lint(bl.Sequential(bl.Dense(1), bl.Softmax()), (8,))
    >>> [(remark.rule, remark.path) for remark in remarks]
    [('softmax_of_one', '1')]
    >>> print(remarks[0].reason)
    The softmax of one number is always 1, and its gradient 0.
    """
    root = as_node(network, input_shape, options)
    found: dict[tuple[str, str], Lint] = {}
    for place, first in places(root):
        for name, made in RULES.items():
            if isinstance(place.node.form, made.about) and (remark := made.look(place)):
                new = Lint(name, place.node.path, place.node.block, *remark)
                found.setdefault((name, first), new)
    return Lints(found.values())


@dataclass(frozen=True)
class Place:
    """A node among its neighbours: the run of blocks, one after the other, that it stands in."""

    node: Node
    root: Node
    uses: Counter[str]  # of each Shared name in the network
    run: list[Node]
    index: int

    @property
    def before(self) -> Iterator[Node]:
        """The nodes before it, the nearest first."""
        return (self.run[i] for i in range(self.index - 1, -1, -1))

    @property
    def after(self) -> Iterator[Node]:
        return (self.run[i] for i in range(self.index + 1, len(self.run)))

    @property
    def in_main_run(self) -> bool:
        """Whether the end of the run is the output of the network."""
        return len(self.run) > 1 and self.run[-1].out_spec is self.root.out_spec


def places(root: Node) -> Iterator[tuple[Place, str]]:
    """Every node at its place, and the path that it has in the first of all repetitions."""
    at: dict[int, tuple[list[Node], int]] = {}
    uses = Counter(node.shared for node in root.walk())
    stack = [(root, "", True)]
    while stack:
        node, first, starts_run = stack.pop()
        if starts_run:
            run = unnested(node)
            at |= {id(step): (run, i) for i, step in enumerate(run)}
        yield Place(node, root, uses, *at.get(id(node), ([node], 0))), first
        flow = getattr(node.form, "flow", "")
        for child in reversed(node.children):
            name = node.children[0].name if flow == "loop" else child.name
            stack.append((child, join(first, name), flow == "fork"))


def unnested(node: Node) -> list[Node]:
    """The blocks that a value passes through one after the other: leaves and forks."""
    found, stack = [], [node]
    while stack:
        here = stack.pop()
        if isinstance(here.form, Combinator) and here.form.flow != "fork" and here.children:
            stack.extend(reversed(here.children))
        else:
            found.append(here)
    return found


Remark: TypeAlias = tuple[str, str] | None  # reason and repair


@dataclass(frozen=True)
class Rule:
    """Which blocks a rule is about, and the function that looks at one of them."""

    about: tuple[type, ...]
    look: Callable[[Place], Remark]


RULES: dict[str, Rule] = {}


def rule(*about: type) -> Callable[..., Any]:
    """Enter a rule about such blocks; its docstring is what docs/lint.md says of it."""

    def enter(look: Callable[[Place], Remark]) -> Callable[[Place], Remark]:
        RULES[look.__name__] = Rule(about, look)
        return look

    return enter


# What rules ask of neighbours


def beyond(nodes: Iterable[Node], *through: type) -> Node | None:
    """The next node that is none of these."""
    return next(dropwhile(lambda node: isinstance(node.form, through), nodes), None)


def is_a(node: Node | None, *types: type) -> TypeGuard[Node]:
    return node is not None and isinstance(node.form, types)


def kind(node: Node | None) -> str:
    """The kind of an activation; "softmax" for either of them; "" for anything else."""
    if is_a(node, Softmax):
        return "softmax"
    return getattr(node.form, "kind", "") if is_a(node, Activation) else ""


def numbers(shape: Shape) -> int:
    """How many numbers there are, an axis of any length counted as one."""
    return math.prod(size or 1 for size in shape)


def shown(node: Node) -> str:
    """Block and path, in a sentence."""
    return f"{type(node.form).__name__} at {node.path!r}"


# Numbers that cannot vary


@rule(Softmax)
def softmax_of_one(place: Place) -> Remark:
    """The softmax over an axis of size 1 is 1 whatever comes in, and nothing can be learned."""
    if place.node.in_spec.shape[place.node.resolved["axis"]] != 1:
        return None
    always = "1, its logarithm 0" if is_a(place.node, LogSoftmax) else "1"
    return (
        f"The softmax of one number is always {always}, and its gradient 0.",
        "Use Sigmoid() for two classes by one number, or give the axis of the classes.",
    )


@rule(LayerNorm, RMSNorm, GroupNorm)
def norm_of_one(place: Place) -> Remark:
    """A norm over one number leaves nothing of it: 0, or for RMSNorm its sign."""
    x, form = place.node.in_spec, place.node.form
    if isinstance(form, GroupNorm):
        size = x.channels // form.groups * numbers(x.spatial) if None not in x.spatial else 0
        repair = "Use fewer groups."
    else:
        size = math.prod(x.shape[-len(form.axes) :])
        repair = "Normalise more axes, or leave it out."
    if size != 1:
        return None
    left = "their signs" if isinstance(form, RMSNorm) else "zeros"
    return f"It normalises each number of {shapes(x)} alone: only {left} are left.", repair


@rule(Recurrent)
def recurrence_of_one_step(place: Place) -> Remark:
    """A recurrent block that sees one step has nothing to remember."""
    if place.node.in_spec.shape[0] != 1:
        return None
    return (
        f"Its input {place.node.in_spec.shape} has one step: its state is never used again.",
        "Bring time to the first axis, or use Dense.",
    )


@rule(MultiHeadAttention)
def attention_to_one(place: Place) -> Remark:
    """Attention to a single position gives it the weight 1: queries and keys play no part."""
    key = place.node.form.members(place.node.in_spec)[1]
    if key.shape[0] != 1:
        return None
    return (
        f"Its key {key.shape} has one position, which always gets the weight 1.",
        "Bring time to the first axis, or use Dense.",
    )


@rule(MultiHeadAttention)
def heads_of_one_number(place: Place) -> Remark:
    """A head of size 1 compares two positions by a single product of numbers."""
    if place.node.resolved["head_size"] != 1:
        return None
    return (
        f"Its {place.node.form.num_heads} heads have one feature each.",
        "Use fewer heads, or state head_size.",
    )


# Activations


@rule(Dense, Conv, ConvTranspose)
def no_activation_between(place: Place) -> Remark:
    """Two linear maps in a row are one, whatever BatchNorm, dropout or mean is between them.

    A max pool between is little better. Not marked: factors of fewer numbers than what comes in and
    goes out, and grouped convolutions, which are meant to be factors.
    """
    through = (
        *(BatchNorm, Dropout, WindowPool, GlobalAvgPool, GlobalMaxPool, AdaptiveAvgPool),
        *(Flatten, Reshape, Pad, Crop, Upsample, Identity),
    )
    node, then = place.node, beyond(place.after, *through)
    if not is_a(then, Dense, Conv, ConvTranspose):
        return None
    ends = numbers(node.in_spec.shape), numbers(then.out_spec.shape)
    low_rank = numbers(node.out_spec.shape) < min(ends)
    if low_rank or any(getattr(n.form, "groups", 1) > 1 for n in (node, then)):
        return None
    between = takewhile(lambda n: n is not then, place.after)
    more = "little" if any(is_a(n, MaxPool, GlobalMaxPool) for n in between) else "no"
    return (
        f"No activation follows it before {shown(then)}: two linear maps do {more} more than one.",
        "Put an activation such as ReLU() after it.",
    )


@rule(Activation, Softmax)
def activation_twice(place: Place) -> Remark:
    """An activation right after another one only takes away from what the first one gives."""
    one, other = kind(next(place.before, None)), kind(place.node)
    if not one or (one, other) == ("leaky_relu", "softmax"):  # as graph attention has it
        return None
    return (
        f"It follows {one} at once" + ("." if one != other else ", which it is itself."),
        "Leave one of the two out.",
    )


@rule(Activation)
def relu_at_the_end_of_a_decoder(place: Place) -> Remark:
    """An image that a transposed convolution makes and ReLU ends has no gradient where it is 0."""
    made = beyond(place.before, BatchNorm)
    x = place.node.out_spec
    if kind(place.node) not in ("relu", "relu6") or not place.in_main_run:
        return None
    if beyond(place.after, Dropout) or not is_a(made, ConvTranspose) or (x.channels or 5) > 4:
        return None
    return (
        f"It ends the output {x.shape}: what is below 0 is lost, and learns nothing.",
        "Leave it out, or use Sigmoid() for numbers between 0 and 1.",
    )


SATURATING = 6


@rule(Activation)
def many_sigmoids(place: Place) -> Remark:
    """Each sigmoid makes gradients at least four times smaller: after six little is left.

    Not marked: sigmoids with norms or residuals between. (Glorot and Bengio 2010.)
    """
    if kind(place.node) != "sigmoid":
        return None
    norms = BatchNorm, GroupNorm, LayerNorm, RMSNorm
    steps = takewhile(lambda node: not is_a(node, *norms, Combinator), place.before)
    earlier = islice((node for node in steps if kind(node) == "sigmoid"), SATURATING)
    if len(list(earlier)) + 1 != SATURATING:
        return None
    return (
        f"It is the sixth sigmoid without a norm between: gradients shrink to 1/{4**SATURATING} "
        "or less.",
        "Use ReLU() or GELU(), or put BatchNorm() before each.",
    )


@rule(Dense, Conv, ConvTranspose)
def zeros_into_relu(place: Place) -> Remark:
    """A layer of zeros right before a ReLU never learns: its gradient at 0 is 0."""
    first = {settled(spec.init, spec.shape) for spec in place.node.params.values()}
    if first != {NAMED["zeros"]} or kind(next(place.after, None)) not in ("relu", "relu6"):
        return None
    return (
        "It starts with zeros, where the ReLU after it has the gradient 0: it stays as it is.",
        "Leave out kernel_init, or write kernel_init='he_normal'.",
    )


# Dropout and norms


@rule(Dropout)
def dropout_after_softmax(place: Place) -> Remark:
    """Probabilities of which some are dropped do not sum to 1."""
    if kind(next(place.before, None)) != "softmax":
        return None
    return (
        "In training it drops probabilities: what is left does not sum to 1.",
        "Leave it out, or put it before the last Dense.",
    )


@rule(Dropout)
def dropout_at_the_end(place: Place) -> Remark:
    """Dropout as the last block sets outputs to 0: no block after it can make up for that."""
    last = place.in_main_run and next(place.after, None) is None
    if not last or kind(next(place.before, None)) == "softmax" or not place.node.form.rate:
        return None
    return (
        "It ends the network: in training a part of the output is 0.",
        "Leave it out, or put it before the last layer.",
    )


@rule(Dropout)
def dropout_before_batchnorm(place: Place) -> Remark:
    """Dropout makes the variance in training larger than in evaluation, where BatchNorm uses it.

    (Li et al. 2019.)
    """
    if not is_a(next(place.after, None), BatchNorm) or not place.node.form.rate:
        return None
    return (
        "The BatchNorm after it sees a larger variance in training than in evaluation.",
        "Put it after the BatchNorm and its activation.",
    )


@rule(BatchNorm)
def decay_like_a_momentum(place: Place) -> Remark:
    """Running statistics that forget most of the past in a step, or never move.

    torch's momentum is the weight of the new statistics, `decay` is that of the old ones.
    """
    decay = place.node.form.decay
    if 0.5 <= decay < 1:
        return None
    move = "never move" if decay == 1 else f"keep {decay:g} of the past in each step"
    return (
        f"With decay={decay:g} its running statistics {move}; torch's momentum is 1 - decay.",
        f"Write decay={round(1 - decay, 9) if 0 < decay < 1 else 0.9:g}.",
    )


# Windows


@rule(MaxPool, AvgPool)
def pool_of_stride_1(place: Place) -> Remark:
    """A pool with stride 1 makes maps one or two cells smaller, not half as large.

    Not marked: one whose padding keeps the size, as in Inception.
    """
    node, form = place.node, place.node.form
    shrinks = node.in_spec.spatial != node.out_spec.spatial
    if set(form.stride) != {1} or not shrinks:
        return None
    return (
        f"With stride 1 it makes {shapes(node.in_spec)} only {shapes(node.out_spec)}.",
        f"Leave out stride, which then is {form.kernel_size}, or write padding='same'.",
    )


@rule(MaxPool, AvgPool)
def pool_that_drops_cells(place: Place) -> Remark:
    """A tenth or more of the cells along an axis is in no window of the pool."""
    node, form = place.node, place.node.form
    windows = zip(form.kernel_size, form.stride, node.resolved["padding"], strict=True)
    sizes = zip(node.in_spec.spatial, node.out_spec.spatial, windows, strict=True)
    for size, found, (kernel, stride, (before, _)) in sizes:
        if size is None:
            continue
        reached = (found - 1) * stride + kernel - before
        if size - reached >= size / 10:
            return (
                f"Its windows end at {reached} of {size} along an axis: the rest is in none.",
                "Write padding='same', or choose a kernel_size and stride that fit.",
            )
    return None


@rule(Conv, MaxPool, AvgPool)
def stride_over_kernel(place: Place) -> Remark:
    """A stride larger than the kernel leaves cells between the windows unseen.

    Not marked: kernels of size 1, which are meant to take every second cell.
    """
    form = place.node.form
    for kernel, stride in zip(form.kernel_size, form.stride, strict=True):
        if 1 < kernel < stride:
            return (
                f"It moves by {stride} and sees {kernel}: {stride - kernel} of {stride} cells are "
                "in no window.",
                f"Use a stride of at most {kernel}, or a larger kernel_size.",
            )
    return None


@rule(Conv)
def window_of_padding(place: Place) -> Remark:
    """Padding as wide as the kernel makes outputs that see no input.

    A 1x1 kernel with padding 1 turns 1x1 into 3x3; it is a Dense of the channels without it.
    """
    form = place.node.form
    pads = place.node.resolved["padding"]
    for kernel, gap, pair in zip(form.kernel_size, form.dilation, pads, strict=True):
        if max(pair) >= span(kernel, gap):
            return (
                f"Windows at the edge see padding alone: kernel {kernel}, padding {pair}, "
                f"{shapes(place.node.in_spec)} becomes {shapes(place.node.out_spec)}.",
                "Write padding='valid'." if span(kernel, gap) == 1 else "Write padding='same'.",
            )
    return None


@rule(Conv, ConvTranspose)
def kernel_larger_than_map(place: Place) -> Remark:
    """Cells of a kernel that only ever meet padding, or are always cut off, never learn."""
    node, form = place.node, place.node.form
    x, y = node.in_spec, node.out_spec
    if isinstance(form, Conv):
        area, moves, pads, fate = x, y, node.resolved["padding"], "meet padding alone"
    else:
        area, moves, pads, fate = y, x, node.resolved["crop"], "are always cut off"
    steps = zip(form.kernel_size, form.stride, form.dilation, pads, strict=True)
    axes = zip(area.spatial, moves.spatial, steps, strict=True)
    for size, positions, (kernel, stride, gap, (before, _)) in axes:
        if size is None:
            continue
        used = sum(
            any(0 <= p * stride + k * gap - before < size for p in range(positions))
            for k in range(kernel)
        )
        if used < kernel:
            return (
                f"From {shapes(x)} to {shapes(y)}, {kernel - used} of {kernel} "
                f"cells of its kernel along an axis {fate}, and never learn.",
                "Use a smaller kernel_size or a larger map.",
            )
    return None


@rule(ConvTranspose)
def checkerboard(place: Place) -> Remark:
    """A transposed convolution whose kernel the stride does not divide draws a checkerboard.

    Some cells get more kernels than their neighbours. (Odena et al. 2016.)
    """
    form = place.node.form
    for kernel, stride, gap in zip(form.kernel_size, form.stride, form.dilation, strict=True):
        if gap == 1 and kernel % stride:
            return (
                f"Its stride {stride} does not divide its kernel {kernel}: neighbouring cells get "
                "unequal numbers of kernels.",
                f"Use a kernel_size of {kernel + stride - kernel % stride}, or Upsample and Conv.",
            )
    return None


# Structure


@rule(Dense)
def dense_along_width(place: Place) -> Remark:
    """With channels first, a Dense on a map mixes its columns, not its channels."""
    x = place.node.in_spec
    made = beyond(place.before, Activation, Dropout)
    if x.layout != "channels_first" or x.rank < 3 or made is None:
        return None
    if getattr(made.form, "layout_role", "") != "spatial":
        return None
    return (
        f"It works on the last axis, which is the width of {shapes(x)} from {shown(made)}.",
        f"Put Flatten() before it, or write Conv({place.node.form.features}, "
        f"{(1,) * (x.rank - 1)}).",
    )


LARGE = 10_000_000


@rule(Dense)
def dense_that_holds_all(place: Place) -> Remark:
    """Nearly all parameters of a large network are in the Dense behind the Flatten of a map."""
    node = place.node
    flatten = beyond(place.before, Dropout)
    size = node.params["kernel"].size
    if size < LARGE or not is_a(flatten, Flatten):
        return None
    if flatten.in_spec.rank < 3 or size < 0.9 * count(place.root):
        return None
    return (
        f"It has {size:,} weights, {size / count(place.root):.0%} of all parameters, as it sees "
        f"all of {shapes(flatten.in_spec)}.",
        f"Use GlobalAvgPool() in the place of Flatten() at {flatten.path!r}.",
    )


def all_ones(node: Node) -> bool:
    return set(node.form.kernel_size) | set(node.form.stride) == {1}


def same_shape(node: Node) -> bool:
    return bool(node.in_spec.shape == node.out_spec.shape)


def all_zeros(pairs: Any) -> bool:
    return not any(map(any, pairs))


# What a block must be like to hand on its input as it is.
NOTHING: dict[type, Callable[[Node], bool]] = {
    Identity: lambda node: True,
    Sequential: lambda node: not node.children,
    Dropout: lambda node: node.form.rate == 0,
    MaxPool: all_ones,
    AvgPool: all_ones,
    Upsample: same_shape,
    Pad: lambda node: all_zeros(node.form.pads),
    Crop: lambda node: all_zeros(node.form.crops),
    Flatten: same_shape,
    Reshape: same_shape,
    Permute: lambda node: list(node.form.axes) == sorted(node.form.axes),
}


@rule(*NOTHING)
def does_nothing(place: Place) -> Remark:
    """A block that hands on its input as it is: a pool of one cell, a Dropout with rate 0, ...

    Not marked: a branch that is nothing else.
    """
    does = [look for made, look in NOTHING.items() if is_a(place.node, made)]
    if len(place.run) == 1 or not any(nothing(place.node) for nothing in does):
        return None
    return "It hands on its input as it is.", "Leave it out."


@rule(Parallel)
def parallel_of_one(place: Place) -> Remark:
    """Parallel with a single branch is that branch."""
    if len(place.node.children) > 1 or place.node.form.merge == "stack":
        return None
    return "It has one branch: there is nothing to merge.", "Write the branch alone, or add others."


@rule(Residual)
def residual_that_only_adds(place: Place) -> Remark:
    """A body that ends in ReLU can make no number smaller: sums grow from one to the next.

    (He et al. 2016b.)
    """
    *_, end = unnested(place.node.children[-1])
    never_below_0 = ("relu", "relu6", "sigmoid", "hard_sigmoid", "softplus")
    if place.node.form.merge != "add" or kind(end) not in never_below_0:
        return None
    return (
        f"Its body ends in {kind(end)} at {end.path!r}, so it can make no number smaller.",
        "Put that after the Residual.",
    )


@rule(Block)
def shared_once(place: Place) -> Remark:
    """A Shared block that is used once shares nothing: its name may be mistyped."""
    name = place.node.shared
    if not name or place.uses[name] > 1:
        return None
    return f"Shared({name!r}) is used once.", "Use the same name elsewhere, or leave out Shared."

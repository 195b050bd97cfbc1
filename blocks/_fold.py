"""`fold_batchnorm`: for inference, a BatchNorm is part of the layer before it."""

from __future__ import annotations

from collections.abc import Container, Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from blocks._block import Block, Combinator
from blocks._infer import again
from blocks._params import Params, check_params
from blocks._spec import Node, array_dtype, join
from blocks._stack import run
from blocks.combine import Shared
from blocks.conv import Conv, ConvTranspose
from blocks.linear import Dense
from blocks.norm import BatchNorm


def fold_batchnorm(node: Node, params: Mapping[str, np.ndarray]) -> tuple[Node, Params]:
    """The network without the BatchNorms that directly follow a Dense, Conv or ConvTranspose.

    In evaluation it computes the same, in training it does not. With s = scale / sqrt(var +
    epsilon) for each channel, the layer's new parameters are

        kernel * s,    (bias - mean) * s + bias of the BatchNorm

    Children named by position are counted anew, so `3/kernel` may become `2/kernel`. A BatchNorm
    stays where another path leads to it, or where only one of the two blocks is `Shared`.

    Raises:
        ParamError: if the parameters do not fit the node.

    >>> import blocks as bl
    >>> net = bl.Sequential(bl.Dense(4, use_bias=False), bl.BatchNorm(), bl.ReLU())
    >>> node = bl.infer(net, (3,))
    >>> folded, params = fold_batchnorm(node, bl.init(node))
    >>> folded.block
    Sequential(Dense(features=4), Activation(kind='relu'))
    """
    arrays = check_params(node, params)
    pairs = Pairs.of(node)
    if not pairs.norm_after:
        return node, {path: array.copy() for path, array in arrays.items()}
    folded = again(replace(node, block=run(pairs.rebuilt(node))), node.in_spec)
    result: Params = {}
    kept = [old for old in leaves_of(node) if id(old) not in pairs.dropped]
    for old, new in zip(kept, leaves_of(folded), strict=True):
        own = {name: arrays[join(old.home, name)] for name in old.params}
        if norm := pairs.norm_after.get(id(old)):
            own = merged(old, own, norm, {n: arrays[join(norm.home, n)] for n in norm.params})
        for name, spec in new.params.items():
            result[join(new.home, name)] = own[name].astype(array_dtype(spec.dtype))
    return folded, result


def leaves_of(node: Node) -> Iterator[Node]:
    return (n for n in node.walk() if not isinstance(n.form, Combinator))


@dataclass(frozen=True)
class Pairs:
    """Which BatchNorm is part of which layer, by the identity of nodes.

    `changed` are those layers and all that they are in.
    """

    norm_after: dict[int, Node]
    dropped: set[int]
    changed: set[int]

    @classmethod
    def of(cls, root: Node) -> Pairs:
        found = cls({}, set(), set())
        nodes = list(root.walk())
        for node in nodes:
            if is_chain(node):
                for one, other in zip(steps := links(node), steps[1:], strict=False):
                    if joins(one, other):
                        found.norm_after[id(one)] = other
                        found.dropped.add(id(other))
        found.changed.update(found.norm_after)
        for node in reversed(nodes):  # children before parents
            if any(id(child) in found.changed for child in node.children):
                found.changed.add(id(node))
        return found

    def rebuilt(self, node: Node) -> Generator[Any, Any, Block]:
        """The block of a node, without what was dropped; as it was written if nothing was."""
        if id(node) not in self.changed:
            return node.block
        if id(node) in self.norm_after:
            form = replace(node.form, use_bias=True)
        else:
            blocks = {}
            for child in node.children:
                if id(child) not in self.dropped:
                    blocks[child.name] = yield self.rebuilt(child)
            form = node.form.with_blocks(blocks)
        return Shared(node.shared, form) if node.shared else form


def is_chain(node: Node, flows: Container[str] = ("chain",)) -> bool:
    return isinstance(node.form, Combinator) and node.form.flow in flows


def links(node: Node, flows: Container[str] = ("chain",)) -> list[Node]:
    """What runs one after the other in a chain, and in the chains inside it that are not shared."""
    found, stack = [], [node]
    while stack:
        here = stack.pop()
        if is_chain(here, flows) and (here is node or not here.shared):
            stack.extend(reversed(here.children))
        else:
            found.append(here)
    return found


def joins(layer: Node, norm: Node) -> bool:
    """Whether a BatchNorm scales exactly the features that the layer before it makes."""
    if layer.shared or norm.shared or type(norm.form) is not BatchNorm:
        return False
    if type(layer.form) is Dense:
        return bool(layer.out_spec.channel_axis == layer.out_spec.rank - 1)
    return type(layer.form) in (Conv, ConvTranspose)


def merged(layer: Node, own: Params, norm: Node, stats: Params) -> Params:
    """Kernel and bias of a layer that does what layer and BatchNorm do, in float64."""
    wide = {name: array.astype(np.float64) for name, array in stats.items()}
    factor = wide.get("scale", 1.0) / np.sqrt(wide["var"] + norm.form.epsilon)
    bias = own.get("bias", np.zeros(factor.shape)).astype(np.float64)
    across = factor
    if type(layer.form) is ConvTranspose:  # its kernel has the outputs of one group only
        groups = layer.form.groups
        inputs = own["kernel"].shape[-2] // groups
        across = np.repeat(factor.reshape(groups, -1), inputs, axis=0)
    return {
        "kernel": own["kernel"] * across,
        "bias": (bias - wide["mean"]) * factor + wide.get("bias", 0.0),
    }

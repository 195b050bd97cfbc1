"""Blocks by path: finding one, and putting another one in its place."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Any

from blocks._block import Block, Combinator
from blocks._errors import FieldError, did_you_mean, place
from blocks._spec import Node, join
from blocks._stack import run
from blocks.combine import Shared, a_block


def at(network: Node | Block, path: str) -> Any:
    """The part of a network at a path: a node of a node, a block of a block, as it was written.

    Paths are those of nodes and errors: `encoder/0/body/1`; "" is the network itself. Inside an
    abbreviation such as `MLP` they lead into what it expands to.

    Raises:
        FieldError: if there is nothing at that path.

    >>> import blocks as bl
    >>> net = bl.Sequential(encoder=bl.MLP(8, hidden=(16,)), head=bl.Dense(10))
    >>> bl.at(net, "head"), bl.at(net, "encoder/0")
    (Dense(features=10), Dense(features=16))
    >>> bl.at(bl.infer(net, (5,)), "encoder").out_spec.shape
    (8,)
    """
    return node_at(network, path) if isinstance(network, Node) else trail(network, path)[1]


def replace(network: Block | Node, path: str, block: Block) -> Block:
    """The network with another block at a path.

    The blocks beside it keep their paths, so their parameters fit the new network:
    `copy_params(old, new, "encoder/**")`, or `load_params(new, params, strict=False)`.

    - Inside an abbreviation such as `MLP`, what it expands to is written out.
    - `Repeat` has one block for all its repetitions, which is `encoder/*`, not `encoder/0`.
    - A `Shared` block, or a block in it, is replaced in all uses of the name.

    Args:
        network: a block; of a node, its block.
        path: where, as in `at`.
        block: what will be there. Whether it fits, `infer` says.

    Raises:
        FieldError: if there is nothing at that path.

    >>> import blocks as bl
    >>> net = bl.Sequential(encoder=bl.MLP(8, hidden=(16,)), head=bl.Dense(10))
    >>> bl.replace(net, "head", bl.Dense(2))
    Sequential(encoder=MLP(features=8, hidden=(16,)), head=Dense(features=2))
    >>> bl.at(bl.replace(net, "encoder/1", bl.Tanh()), "encoder")
    Sequential(Dense(features=16), Activation(kind='tanh'), Dense(features=8))
    """
    whole = network.block if isinstance(network, Node) else network
    new = a_block(None, "what replaces a block", block)
    steps, old = trail(whole, path, alike=True)
    if isinstance(tied := opened(old), Shared):
        return retied(whole, tied.key, new if isinstance(new, Shared) else Shared(tied.key, new))
    for form, name in reversed(steps):
        if isinstance(form, Shared):
            return retied(whole, form.key, Shared(form.key, new))
        blocks = form.parts()
        names = blocks if form.flow == "loop" else [name]
        new = form.with_blocks(blocks | dict.fromkeys(names, new))
    return new


def node_at(node: Node, path: str) -> Node:
    for name in names_of(path):
        children = {child.name: child for child in node.children}
        if name not in children:
            raise no_such(node.form, node.path, name, children)
        node = children[name]
    return node


def names_of(path: Any) -> list[str]:
    """The names of a path; none for the root's."""
    if not isinstance(path, str):
        raise FieldError(f"a path is a text such as 'encoder/0', got {path!r}.")
    return path.split("/") if path else []


def trail(block: Any, path: str, alike: bool = False) -> tuple[list[tuple[Any, str]], Block]:
    """The combinators on the way to a path, each with the name of the next step, and the block
    there. `Shared` blocks on the way are steps without a name; if `alike`, the repetitions of a
    loop have but one.
    """
    here, reached = a_block(None, "the network", block), ""
    steps: list[tuple[Any, str]] = []
    for name in names_of(path):
        while isinstance(here := opened(here), Shared):
            steps.append((here, ""))
            here = here.block
        blocks = here.parts() if isinstance(here, Combinator) else {}
        loop = isinstance(here, Combinator) and here.flow == "loop"
        if isinstance(here, Combinator) and loop:  # one part stands for all repetitions
            (part,) = blocks.values()
            listed = map(str, range(min(here.copies, SHOWN + 1)))
            blocks = dict.fromkeys([*listed, *repetition(name, here.copies)], part)
        if loop and alike and name in blocks:
            raise FieldError(
                f"{type(here).__name__} {place(reached)} has one block for all repetitions, so "
                f"{join(reached, name)!r} cannot be replaced alone.\n"
                f"  Write {join(reached, '*')!r} for all, or a Sequential in place of the loop."
            )
        known = blocks | ({"*": next(iter(blocks.values()))} if loop else {})
        if name not in known:
            raise no_such(here, reached, name, blocks)
        steps.append((here, name))
        here, reached = known[name], join(reached, name)
    return steps, here


def repetition(name: str, times: int) -> list[str]:
    """The name itself, if it is that of a repetition."""
    short = name.isdecimal() and len(name) <= len(str(times))
    return [name] if short and str(int(name)) == name and int(name) < times else []


def opened(block: Block) -> Block:
    """What a block expands to: a leaf, a combinator, or a `Shared` block."""
    while not isinstance(block, Shared) and (inner := block.expand()) is not None:
        block = inner
    return block


def retied(network: Block, key: str, new: Block) -> Block:
    """The network with another block in every use of a shared name."""

    def rebuilt(here: Block) -> Generator[Any, Any, Block]:
        if isinstance(here, Shared) and here.key == key:
            return new
        if (inner := here.expand()) is not None:
            found: Block = yield rebuilt(inner)
            if found is inner:
                return here
            return Shared(here.key, found) if isinstance(here, Shared) else found
        if not isinstance(here, Combinator):
            return here
        blocks = here.parts()
        changed: dict[str, Block] = {}
        for name, block in blocks.items():
            changed[name] = yield rebuilt(block)
        kept = all(changed[name] is block for name, block in blocks.items())
        return here if kept else here.with_blocks(changed)

    return run(rebuilt(network))


SHOWN = 8  # names in an error


def no_such(form: Block, path: str, name: str, known: Iterable[str]) -> FieldError:
    """The error that nothing of that name is inside the block at a path."""
    names, kind, wanted = list(known), type(form).__name__, join(path, name)
    if not names:
        return FieldError(f"{kind} {place(path)} has no blocks inside, so no {wanted!r}.")
    listed = ", ".join(map(repr, names[:SHOWN])) + (", ..." if len(names) > SHOWN else "")
    near = did_you_mean(wanted, [join(path, name) for name in names])
    return FieldError(f"{kind} {place(path)} has no {name!r} inside; it has {listed}.{near}")

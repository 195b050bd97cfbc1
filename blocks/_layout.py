"""The layout pass: where a backend's memory layout is not the program's, place `Permute` nodes.

Spatial blocks must run in the backend's native layout, plain blocks in the program's, elementwise
blocks in either. The pass finds the placement with the fewest permutes: bottom up it prices every
node for each layout in which its input may arrive and its output may leave, top down it builds the
cheapest. Vectors have one layout only, so they cost nothing.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from blocks._block import Combinator
from blocks._spec import Node, ValueSpec, join, leaves
from blocks._stack import run
from blocks.combine import Residual, Sequential
from blocks.shape import Permute

# The layouts in which a value enters and leaves a node, and what each pair costs in permutes.
Ports: TypeAlias = tuple[str, str]
Prices: TypeAlias = dict[Ports, float]


def layout_pass(node: Node, native: str | None) -> Node:
    """The same program with spatial blocks in the native layout, and permutes where needed.

    Specs in the result are physical: their shapes are those of the arrays that the backend sees.
    Without a native layout, or if it is the program's, that is the node itself.
    """
    program: str = leaves(node.in_spec)[0].layout
    if native is None or native == program:
        return node
    layout = Layout(node, program, native)
    return run(layout.fitted(node, (program, program), node.name, ""))


@dataclass(frozen=True)
class Route:
    """One way through the first children of a chain: its price, and the way before it."""

    total: float
    before: float
    previous: Route | None
    last: Ports | None

    def beats(self, other: Route) -> bool:
        return (self.total, self.before) < (other.total, other.before)

    def ports(self) -> list[Ports]:
        taken, route = [], self.previous
        while route is not None and route.last is not None:
            taken.append(route.last)
            route = route.previous
        return taken[::-1]


class Layout:
    """Prices of one network for one native layout."""

    def __init__(self, root: Node, program: str, native: str):
        self.program, self.native = program, native
        self.layouts = (native, program)  # native first: it wins among equals
        self.prices: dict[int, Prices] = {}
        for node in reversed(list(root.walk())):  # children before parents
            self.prices[id(node)] = self.price(node)

    # Prices, bottom up

    def convert(self, value: ValueSpec, start: str, end: str) -> float:
        """What it costs to bring a value from one layout to another; tuples stay as they are."""
        if start == end:
            return 0
        if isinstance(value, tuple):
            return math.inf
        return 1 if value.rank > 1 else 0

    def price(self, node: Node) -> Prices:
        if not isinstance(node.form, Combinator):
            # shared draws count places in the order of the program
            role = "plain" if "key" in node.resolved else node.form.layout_role
            if role == "elementwise" and not isinstance(node.in_spec, tuple):
                return {(layout, layout): 0 for layout in self.layouts}
            only = self.native if role == "spatial" else self.program
            return {(only, only): 0}
        fixed = isinstance(node.out_spec, tuple) or getattr(node.form, "merge", "") == "stack"
        ends = [self.program] if fixed else list(self.layouts)
        starts = [self.program] if isinstance(node.in_spec, tuple) else list(self.layouts)
        if node.form.flow == "loop":  # every repetition must be built alike
            return {(a, a): self.fork_price(node, a, a) for a in starts if a in ends}
        price = self.fork_price if node.form.flow == "fork" else self.chain_price
        prices = {(a, b): price(node, a, b) for a in starts for b in ends}
        if node.shared:  # every use of a shared block must be built alike
            cheapest = min(prices, key=prices.__getitem__)
            return {cheapest: prices[cheapest]}
        return prices

    def chain_price(self, node: Node, start: str, end: str) -> float:
        return self.route(node, start, end)[0]

    def fork_price(self, node: Node, start: str, end: str) -> float:
        around = self.convert(node.in_spec, start, end) if self.bare(node) else 0
        return around + sum(self.fit(child, start, end)[0] for child in node.children)

    @staticmethod
    def bare(node: Node) -> bool:
        """Whether the input goes around the body as it is."""
        return isinstance(node.form, Residual) and node.form.shortcut is None

    def fit(self, node: Node, start: str, end: str) -> tuple[float, Ports]:
        """The cheapest ports of a node between two given layouts, and the price with permutes."""
        prices = [
            (
                self.convert(node.in_spec, start, a) + price + self.convert(node.out_spec, b, end),
                (a, b),
            )
            for (a, b), price in self.prices[id(node)].items()
        ]
        return min(prices, key=lambda priced: priced[0])

    def route(self, node: Node, start: str, end: str) -> tuple[float, list[Ports]]:
        """The cheapest ports of each child of a chain; among equals, permutes come late."""
        best: dict[str, Route] = {start: Route(0, 0, None, None)}
        for child in node.children:
            reached: dict[str, Route] = {}
            for here, route in best.items():
                for ports, price in self.prices[id(child)].items():
                    total = route.total + self.convert(child.in_spec, here, ports[0]) + price
                    taken = Route(total, route.total, route, ports)
                    if ports[1] not in reached or taken.beats(reached[ports[1]]):
                        reached[ports[1]] = taken
            best = reached
        ends = [
            Route(route.total + self.convert(node.out_spec, here, end), route.total, route, None)
            for here, route in best.items()
        ]
        chosen = min(ends, key=lambda route: (route.total, route.before))
        return chosen.total, chosen.ports()

    # Building, top down

    def fitted(self, node: Node, ports: Ports, name: str, home: str) -> Generator[Any, Any, Node]:
        """The node between two layouts: alone if it needs no permutes, else in a chain.

        `home` is that of the place where it stands: permutes around a shared block are not shared.
        """
        start, end = ports
        chain = isinstance(node.form, Combinator) and node.form.flow == "chain"
        if chain and ports in self.prices[id(node)]:  # it places them inside
            return replace((yield self.built(node, ports)), name=name)
        _, inner = self.fit(node, start, end)
        place = replace(node, home=home, children=())
        before = self.permutes(place, 0, node.in_spec, start, inner[0])
        after = self.permutes(place, 1, node.out_spec, inner[1], end)
        built = yield self.built(node, inner)
        if not before and not after:
            return replace(built, name=name)
        children = [*before, replace(built, name="block"), *after]
        around = replace(built, name=name, block=Sequential(), form=Sequential())
        around = replace(around, params={}, resolved={}, shared="")
        return self.physical(around, node, ports, children)

    def built(self, node: Node, ports: Ports) -> Generator[Any, Any, Node]:
        children: list[Node] = []
        if isinstance(node.form, Combinator):
            make = self.chain if node.form.flow == "chain" else self.fork
            children = yield make(node, *ports)
        return self.physical(node, node, ports, children)

    def chain(self, node: Node, start: str, end: str) -> Generator[Any, Any, list[Node]]:
        children, here = [], start
        for i, (child, ports) in enumerate(
            zip(node.children, self.route(node, start, end)[1], strict=True)
        ):
            children += self.permutes(node, i, child.in_spec, here, ports[0])
            children.append((yield self.built(child, ports)))
            here = ports[1]
        return children + self.permutes(node, len(node.children), node.out_spec, here, end)

    def fork(self, node: Node, start: str, end: str) -> Generator[Any, Any, list[Node]]:
        children = []
        if self.bare(node):
            around = self.permutes(node, 0, node.in_spec, start, end)
            children += [replace(permute, name="shortcut") for permute in around]
        for child in node.children:
            home = join(node.home, child.name)
            children.append((yield self.fitted(child, (start, end), child.name, home)))
        return children

    def permutes(self, node: Node, index: int, x: ValueSpec, start: str, end: str) -> list[Node]:
        """No node, or the one that brings the value before child `index` to another layout."""
        if start == end or x.rank < 2:
            return []
        last = (*range(1, x.rank), 0)
        first = (x.rank - 1, *range(x.rank - 1))
        block = Permute(last if end == "channels_last" else first)
        name = f"permute_{index}"
        while name in (child.name for child in node.children):
            name += "_"
        names = name, join(node.path, name), join(node.home, name)
        specs = x.in_layout(start), x.in_layout(end)
        dtypes = {"dtype": node.dtype, "param_dtype": node.param_dtype}
        return [Node(*names, block, block, *specs, **dtypes)]  # type: ignore[arg-type]

    def physical(self, node: Node, source: Node, ports: Ports, children: list[Node]) -> Node:
        """The node with specs, and the axis of a merge, as the backend's arrays have them."""
        resolved, out = dict(node.resolved), source.out_spec
        end = ports[1]
        if self.native in ports:
            resolved["moved"] = True  # the memory is not in the order of the axes
        if "axis" in resolved and end != self.program:
            order = [out.channel_axis, *out.spatial_axes]
            if end == "channels_last":
                order = [*out.spatial_axes, out.channel_axis]
            resolved["axis"] = order.index(resolved["axis"])
        return replace(
            node,
            in_spec=in_layout(source.in_spec, ports[0]),
            out_spec=in_layout(out, end),
            resolved=resolved,
            children=tuple(children),
        )


def in_layout(value: ValueSpec, layout: str) -> ValueSpec:
    return value if isinstance(value, tuple) else value.in_layout(layout)

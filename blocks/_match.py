"""Which layer of a foreign model is which leaf of a network: a search over orders.

The leaves of a network stand in an order that is fixed along a chain; the branches of a fork may
have been defined in any order. Foreign layers ("units") stand in containers, may be numbered, and
may come in the order of their definition. The search walks the leaves in the orders that the
network allows, and gives each a unit of the same names and shapes, under constraints that are
relaxed step by step. A step that finds one solution ends the search; one that finds two refuses it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from itertools import pairwise, permutations
from typing import Any

from blocks._block import Combinator
from blocks._spec import Node, join
from blocks._stack import run

STEPS = 200_000  # of one search; more possibilities than that are not looked at
NUMBER = re.compile(r"^(.*?)_?(\d+)$")


@dataclass(frozen=True)
class Unit:
    """A foreign layer: its name in parts, and its arrays by the names inside it."""

    prefix: tuple[str, ...]
    names: dict[str, str]
    shapes: dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Leaf:
    """A leaf with parameters; `again` says that it is a later use of a shared block."""

    path: str
    home: str
    depth: int
    again: bool


@dataclass(frozen=True)
class Chain:
    """Items one after the other."""

    items: tuple[Any, ...]


@dataclass(frozen=True)
class Fork:
    """Items side by side, whose order is not fixed."""

    items: tuple[Any, ...]


@dataclass
class Result:
    """Pairs of home, unit and form; what is wrong, and what should be known."""

    pairs: list[tuple[str, Unit, Any]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Rules:
    """What a solution must respect.

    Attributes:
        strict: units come in the order of their definition.
        whole: a container is left only when all of it is taken, and is then a part of the network
            that is whole too.
        numbered: of names that differ in a number alone, the lower one comes first.
        named: branches of a fork are not exchanged where names say which is which.
        deep: branches are passed step by step, as Keras sorts the layers of a functional model.
    """

    strict: bool = False
    whole: bool = False
    numbered: bool = True
    named: bool = True
    deep: bool = False


# From the most evidence to the least, by what the order of a file is: that of the definitions,
# none, or none but in the numbers of Keras, which sorts layers. The rules of one line must agree.
LINES: dict[str, tuple[tuple[Rules, ...], ...]] = {
    "defined": (
        (Rules(strict=True, whole=True),),
        (Rules(strict=True),),
        (Rules(whole=True),),
        (Rules(),),
        (Rules(strict=True, numbered=False, named=False),),
        (Rules(numbered=False, named=False),),
    ),
    "free": ((Rules(whole=True),), (Rules(),), (Rules(numbered=False, named=False),)),
    "sorted": (
        (Rules(whole=True), Rules(whole=True, deep=True)),
        (Rules(), Rules(deep=True)),
        (Rules(numbered=False, named=False),),
    ),
}


# The order of the definitions, whatever the numbers say.
DEFINED = Rules(strict=True, numbered=False)


def match(
    node: Node,
    forms: Mapping[str, list[Any]],
    units: list[Unit],
    weights: Any,
    pinned: Mapping[str, str],
) -> Result:
    """Give every leaf a unit, or say why not.

    Args:
        node: the network.
        forms: home of a leaf to the forms in which the framework keeps its parameters.
        units: the foreign layers.
        weights: where they are from.
        pinned: foreign container or layer to the path of a node, as the user stated it.
    """
    tree = structure(node, forms)
    leaves = list(leaves_of(tree))
    once = [leaf for leaf in leaves if not leaf.again]
    sep = weights.separator
    pins = {tuple(name.split(sep)) if name else (): path for name, path in pinned.items()}
    again = len(once) < len(leaves) and len(units) > len(once)
    tried = leaves if again else once
    if not again:
        tree = without_again(tree)
    search = Search(node, tree, tried, forms, units, pins)
    if search.possible():
        kind = "sorted" if weights.framework == "keras" else "free"
        lines = LINES["defined" if weights.ordered else kind]
        for line in lines:
            found = search.all(line)
            if found is not None and len(found) == 1 and weights.ordered and not line[0].strict:
                found = search.all((*line, DEFINED))  # numbers alone do not outweigh the order
            if found is None:
                return Result(wrong=["there are too many possibilities; state some with rename="])
            if len(found) == 1:
                return Result([search.pair(i, u) for i, u in enumerate(found[0])])
            if len(found) > 1:
                return Result(search.agreed(found), [search.ambiguous(found, sep)])
    return search.partial()


def structure(node: Node, forms: Mapping[str, list[Any]]) -> Chain:
    """The leaves with parameters as chains and forks."""
    steps = depths(node)
    seen: set[str] = set()

    def built(node: Node) -> Generator[Any, Any, Any]:
        if not isinstance(node.form, Combinator):
            if not node.params or node.home not in forms:
                return Chain(())
            again = node.home in seen
            seen.add(node.home)
            return Leaf(node.path, node.home, steps[node.path], again)
        items = []
        for child in node.children:
            items.append((yield built(child)))
        items = [item for item in items if item != Chain(())]
        return Fork(tuple(items)) if node.form.flow == "fork" else Chain(tuple(items))

    found = run(built(node))
    return found if isinstance(found, Chain) else Chain((found,))


def depths(node: Node) -> dict[str, int]:
    """How many layers are behind each leaf."""
    found: dict[str, int] = {}

    def walked(node: Node, depth: int) -> Generator[Any, Any, int]:
        if not isinstance(node.form, Combinator):
            found[node.path] = depth
            return depth + 1
        if node.form.flow == "fork":
            deepest = depth + 1
            for child in node.children:
                deepest = max(deepest, (yield walked(child, depth + 1)))
            return deepest
        for child in reversed(node.children):
            depth = yield walked(child, depth)
        return depth

    run(walked(node, 0))
    return found


def leaves_of(item: Any) -> Iterator[Leaf]:
    stack = [item]
    while stack:
        here = stack.pop()
        if isinstance(here, Leaf):
            yield here
        else:
            stack.extend(reversed(here.items))


def without_again(item: Any) -> Any:
    """The structure without later uses of shared blocks."""

    def kept(item: Any) -> Generator[Any, Any, Any]:
        if isinstance(item, Leaf):
            return Chain(()) if item.again else item
        items = []
        for inner in item.items:
            items.append((yield kept(inner)))
        return replace(item, items=tuple(i for i in items if i != Chain(())))

    return run(kept(item))


class Search:
    """One network and one set of units."""

    def __init__(
        self,
        node: Node,
        tree: Chain,
        leaves: list[Leaf],
        forms: Mapping[str, list[Any]],
        units: list[Unit],
        pins: Mapping[tuple[str, ...], str],
    ):
        self.node, self.tree, self.leaves, self.forms, self.units = node, tree, leaves, forms, units
        self.index = {leaf.path: i for i, leaf in enumerate(leaves)}
        self.forks = {n.path for n in node.walk() if getattr(n.form, "flow", "") == "fork"}
        self.pins = pins
        self.fits = [
            [
                u
                for u, unit in enumerate(units)
                if self.form(leaf, unit) and self.allowed(leaf, unit)
            ]
            for leaf in leaves
        ]
        self.containers = containers(units)
        self.before = lower_numbers(units)
        self.parts = self.own_parts()

    def form(self, leaf: Leaf, unit: Unit) -> Any:
        """The form of a leaf that a unit has."""
        return next((f for f in self.forms[leaf.home] if f.shapes == unit.shapes), None)

    def allowed(self, leaf: Leaf, unit: Unit) -> bool:
        """Whether what the user stated lets a unit be a leaf."""
        for prefix, path in self.pins.items():
            inside = unit.prefix[: len(prefix)] == prefix
            below = not path or leaf.path == path or leaf.path.startswith(f"{path}/")
            if inside != below and not self.closer(prefix, path, unit, leaf):
                return False
        return True

    def closer(self, prefix: tuple[str, ...], path: str, unit: Unit, leaf: Leaf) -> bool:
        """Whether something deeper than this pin speaks about the unit or the leaf."""
        return any(
            (len(other) > len(prefix) and unit.prefix[: len(other)] == other)
            and leaf.path.split("/")[: len(where.split("/"))] == where.split("/")
            for other, where in self.pins.items()
            if other != prefix
        )

    def possible(self) -> bool:
        """Whether each leaf has a unit and each unit a leaf, as far as counting tells."""
        if len(self.leaves) != len(self.units) or not all(self.fits):
            return False
        classes = Counter(map(tuple, self.fits))
        return all(len(fits) >= count for fits, count in classes.items())

    def own_parts(self) -> dict[str, list[int]]:
        """Path of each node that holds several leaves to the bit sets of its children's leaves."""
        parts: dict[str, dict[str, int]] = {}
        for i, leaf in enumerate(self.leaves):
            names = leaf.path.split("/")
            for depth in range(len(names)):
                children = parts.setdefault("/".join(names[:depth]), {})
                children[names[depth]] = children.get(names[depth], 0) | 1 << i
        return {path: list(children.values()) for path, children in parts.items()}

    def all(self, line: tuple[Rules, ...]) -> list[tuple[int, ...]] | None:
        """The solutions under some rules, two at most; None if the search was given up."""
        found: list[tuple[int, ...]] = []
        for rules in line:
            some = self.solutions(rules)
            if some is None:
                return None
            found += [solution for solution in some if solution not in found]
        return found

    def solutions(self, rules: Rules) -> list[tuple[int, ...]] | None:
        """Two different ones at most: for each leaf the index of its unit."""
        full = (1 << len(self.units)) - 1
        found: list[tuple[int, ...]] = []
        # what is to be placed, the units that are taken, the pairs so far as linked lists
        stack: list[tuple[Any, int, Any]] = [((self.tree, None), 0, None)]
        steps = 0
        while stack:
            steps += 1
            if steps > STEPS:
                return None
            pending, taken, pairs = stack.pop()
            if pending is None:
                solution = tuple(u for _, u in sorted(linked(pairs)))
                if taken == full and solution not in found:
                    found.append(solution)
                    if len(found) == 2:
                        return found
                continue
            head, rest = pending
            if isinstance(head, Leaf):
                i = self.index[head.path]
                for u in reversed(self.fits[i]):
                    if not taken >> u & 1 and self.respects(rules, i, u, taken, pairs):
                        stack.append((rest, taken | 1 << u, ((i, u), pairs)))
            else:
                stack += [
                    (pushed(order, rest), taken, pairs) for order in reversed(orders(head, rules))
                ]
        return found

    def respects(self, rules: Rules, i: int, u: int, taken: int, pairs: Any) -> bool:
        if rules.strict and u != taken.bit_count():
            return False
        if rules.numbered and self.before[u] & ~taken:
            return False
        if rules.whole and not self.keeps_whole(i, u, taken, pairs):
            return False
        return not rules.named or self.keeps_names(i, u, pairs)

    def keeps_whole(self, i: int, u: int, taken: int, pairs: Any) -> bool:
        """Whether containers are left only when they are done, and are whole parts then."""
        if pairs is not None:
            last = pairs[0][1]
            open_ = next((c for c in self.containers[last] if c & ~taken), 0)
            if open_ and not open_ >> u & 1:
                return False
        now = taken | 1 << u
        for container in self.containers[u]:
            if not container & ~now:
                own = 1 << i
                for leaf, unit in linked(pairs):
                    if container >> unit & 1:
                        own |= 1 << leaf
                if not self.is_whole(own):
                    return False
        return True

    def is_whole(self, own: int) -> bool:
        """Whether a set of leaves is all of some children of one node."""
        first = self.leaves[(own & -own).bit_length() - 1].path
        names = first.split("/")
        for depth in reversed(range(len(names))):
            children = self.parts["/".join(names[:depth])]
            if own & ~sum(children) == 0:
                return all(child & own in (0, child) for child in children)
        return False

    def keeps_names(self, i: int, u: int, pairs: Any) -> bool:
        """Whether no two branches are exchanged against their names."""
        path = self.leaves[i].path.split("/")
        if not any("/".join(path[:k]) in self.forks for k in range(len(path))):
            return True
        prefix = self.units[u].prefix
        for j, v in linked(pairs):
            here, there, parent = parting(path, self.leaves[j].path.split("/"))
            if "/".join(parent) in self.forks:
                mine, other, _ = parting(list(prefix), list(self.units[v].prefix))
                if here != there and (mine, other) == (there, here):
                    return False
        return True

    # What is said about it

    def pair(self, leaf: int, unit: int) -> tuple[str, Unit, Any]:
        found = self.leaves[leaf]
        return found.home, self.units[unit], self.form(found, self.units[unit])

    def ambiguous(self, found: list[tuple[int, ...]], sep: str) -> str:
        """What could be read in two ways, and how to state it."""
        first, second = found[:2]
        changed = [i for i, (a, b) in enumerate(zip(first, second, strict=True)) if a != b]
        lines = []
        for i in changed[:8]:
            names = [sep.join(self.units[s[i]].prefix) for s in (first, second)]
            lines.append(f"    {self.leaves[i].path or '(the network)'}: {names[0]} or {names[1]}")
        more = [f"    and {len(changed) - 8} more"] if len(changed) > 8 else []
        one = changed[0]
        name = sep.join(self.units[first[one]].prefix)
        lines += [*more, f"    State it: rename={{{name!r}: {self.leaves[one].path!r}}}."]
        return "names, order and shapes allow more than one mapping:\n" + "\n".join(lines)

    def agreed(self, found: list[tuple[int, ...]]) -> list[tuple[str, Unit, Any]]:
        """The pairs that are in all solutions."""
        return [
            self.pair(i, us[0]) for i, us in enumerate(zip(*found, strict=True)) if us[1:] == us[:1]
        ]

    def partial(self) -> Result:
        """What fits nevertheless, and what stands at its place with another shape."""
        own = [self.signature_of(self.forms[leaf.home]) for leaf in self.leaves]
        have = [self.signature_of([unit]) for unit in self.units]
        turned = [self.index[leaf.path] for leaf in leaves_of(turned_around(self.tree))]
        ways = [list(range(len(self.leaves))), turned]
        order, anchors = max(
            ((way, anchored([own[i] for i in way], have)) for way in ways),
            key=lambda found: len(found[1]),
        )
        result = Result(pairs=[self.pair(order[a], b) for a, b in anchors])
        free_own = set(order) - {order[a] for a, _ in anchors}
        free = set(range(len(self.units))) - {b for _, b in anchors}
        for i in sorted(free_own):  # what is out of order, but can be nothing else
            mine = [u for u in self.fits[i] if u in free]
            rivals = [j for j in free_own if j != i and set(mine) & set(self.fits[j])]
            if len(mine) == 1 and not rivals:
                free_own.discard(i)
                free.discard(mine[0])
                result.pairs.append(self.pair(i, mine[0]))
        ends = [(-1, -1), *anchors, (len(order), len(self.units))]
        for (a, b), (a_next, b_next) in pairwise(ends):
            mine = [i for i in order[a + 1 : a_next] if i in free_own]
            theirs = [u for u in range(b + 1, b_next) if u in free]
            kinds = [own[i][0] for i in mine], [have[u][0] for u in theirs]
            for k, m in anchored(*kinds):
                result.wrong += self.misshapen(self.leaves[mine[k]], self.units[theirs[m]])
        if not free_own and not free and not result.wrong:
            result.wrong.append(
                "the layers fit one by one, but in no order that the network, the containers and "
                "the numbers of the weights allow.\n    State some with rename=."
            )
        return result

    def misshapen(self, leaf: Leaf, unit: Unit) -> list[str]:
        """Where a unit has other shapes than a leaf."""
        forms = self.forms[leaf.home]
        form = next((f for f in forms if f.shapes.keys() == unit.shapes.keys()), None)
        if form is None:
            return []
        wrong = {}
        for param, (inner, _) in form.sources.items():
            for name in inner:
                if form.shapes[name] != unit.shapes[name]:
                    wrong[name] = (
                        f"{unit.names[name]} has shape {unit.shapes[name]}, but "
                        f"{join(leaf.home, param)} needs {form.shapes[name]} there."
                    )
        return list(wrong.values())

    @staticmethod
    def signature_of(held: list[Any]) -> tuple[Any, Any]:
        """Names and shapes: of a unit, or of the first form of a leaf."""
        if not held:
            return (), ()
        names = sorted(held[0].shapes)
        return tuple(names), tuple(held[0].shapes[name] for name in names)


def anchored(one: list[Any], other: list[Any]) -> list[tuple[int, int]]:
    """Pairs of places with equal members, in the order of both."""
    blocks = SequenceMatcher(None, one, other, autojunk=False).get_matching_blocks()
    return [(a + k, b + k) for a, b, size in blocks for k in range(size)]


def turned_around(item: Any) -> Any:
    """The structure with all forks in the opposite order."""

    def turned(item: Any) -> Generator[Any, Any, Any]:
        if isinstance(item, Leaf):
            return item
        items = []
        for inner in item.items:
            items.append((yield turned(inner)))
        return replace(item, items=tuple(items[::-1] if isinstance(item, Fork) else items))

    return run(turned(item))


def linked(pairs: Any) -> Iterator[tuple[int, int]]:
    """The members of a linked list, the last one first."""
    while pairs is not None:
        first, pairs = pairs
        yield first


def pushed(items: tuple[Any, ...], rest: Any) -> Any:
    for item in reversed(items):
        rest = item, rest
    return rest


def orders(item: Chain | Fork, rules: Rules) -> list[tuple[Any, ...]]:
    """The ways in which the members of a chain or a fork may come."""
    if isinstance(item, Chain) or len(item.items) < 2:
        return [item.items]
    if not rules.deep:  # one branch after the other: choose the next
        found = []
        for i, branch in enumerate(item.items):
            found.append((branch, Fork(item.items[:i] + item.items[i + 1 :])))
        return found
    every = permutations(item.items) if len(item.items) <= 5 else [item.items, item.items[::-1]]
    return [
        tuple(sorted((leaf for b in order for leaf in leaves_of(b)), key=lambda leaf: -leaf.depth))
        for order in every
    ]


def parting(one: list[str], other: list[str]) -> tuple[str, str, list[str]]:
    """The first names in which two paths differ, and what they have in common."""
    for k, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return a, b, one[:k]
    return "", "", one


def containers(units: list[Unit]) -> list[list[int]]:
    """For each unit the containers that hold it, the innermost first, as sets of bits."""
    held: dict[tuple[str, ...], int] = {}
    for u, unit in enumerate(units):
        for k in range(1, len(unit.prefix)):
            held[unit.prefix[:k]] = held.get(unit.prefix[:k], 0) | 1 << u
    return [[held[unit.prefix[:k]] for k in reversed(range(1, len(unit.prefix)))] for unit in units]


def lower_numbers(units: list[Unit]) -> list[int]:
    """For each unit those that must come before it: its name has a higher number than theirs."""
    families: dict[Any, dict[int, int]] = {}
    places: list[list[tuple[Any, int]]] = []
    for u, unit in enumerate(units):
        mine = []
        for k, part in enumerate(unit.prefix):
            stem, number = numbered(part)
            family = (*unit.prefix[:k], stem), k
            members = families.setdefault(family, {})
            members[number] = members.get(number, 0) | 1 << u
            mine.append((family, number))
        places.append(mine)
    return [
        sum_bits(bits for family, n in mine for m, bits in families[family].items() if m < n)
        for mine in places
    ]


def sum_bits(sets: Iterator[int]) -> int:
    total = 0
    for bits in sets:
        total |= bits
    return total


def numbered(name: str) -> tuple[str, int]:
    """A name without the number at its end, and the number; -1 for none: dense, dense_1."""
    found = NUMBER.match(name)
    return (found[1], int(found[2])) if found else (name, -1)

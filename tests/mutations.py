"""Break every rule in every way that is easily overlooked, and see that the tables notice.

    python tests/mutations.py torch keras flax numpy
    python tests/mutations.py flax.LSTM flax.GRU

For each rule it drops each parameter transform (or its part), and each argument of each call that a
listing shows, one at a time, and runs parity over the rows of the table that use the rule until one
is red. What survives is printed. Arguments that no row shows equal the framework's default; that is
pinned by `test_what_a_listing_leaves_out_is_the_framework_default`.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import torch
from rich.console import Console
from rich.progress import Progress

import blocks as bl
from backends._expression import Call
from backends._rules import Bind, Rule
from backends._transforms import same
from blocks._backends import find_backend
from blocks._infer import again
from blocks._layout import layout_pass
from cases import CASES

RUNS = count(1)
LAYOUTS = ("channels_last", "channels_first")


def rebuilt(found: Any, change: Callable[[Call], Call], leave: Any = ()) -> Any:
    """The same expression, or steps of Keras, with each call changed; what is in `leave` stays."""
    if any(found is one for one in leave):
        return found
    if isinstance(found, (list, tuple)):
        return type(found)(rebuilt(item, change, leave) for item in found)
    if isinstance(found, dict):
        return {key: rebuilt(item, change, leave) for key, item in found.items()}
    if dataclasses.is_dataclass(found) and not isinstance(found, type):
        inner = {
            field.name: rebuilt(getattr(found, field.name), change, leave)
            for field in dataclasses.fields(found)
        }
        found = dataclasses.replace(found, **inner)
    return change(found) if isinstance(found, Call) else found


def calls(found: Any, leave: Any = ()) -> list[Call]:
    seen: list[Call] = []

    def note(call: Call) -> Call:
        seen.append(call)
        return call

    rebuilt(found, note, leave)
    return seen


def without(function: str, name: str | int) -> Callable[[Call], Call]:
    """A change that drops one argument of one function, by name or by position."""

    def change(call: Call) -> Call:
        if call.function != function:
            return call
        if isinstance(name, int):
            return dataclasses.replace(call, args=call.args[:name] + call.args[name + 1 :])
        kwargs = tuple(pair for pair in call.kwargs if pair[0] != name)
        return dataclasses.replace(call, kwargs=kwargs)

    return change


def nodes_by_block(adapter: Any) -> dict[type, list[bl.Node]]:
    """For each block with a rule, the networks of the table that use it, small ones first."""
    found: dict[type, list[bl.Node]] = {}
    for case in CASES:
        for _, block in case.variants():
            for layout in LAYOUTS[: 1 + case.spatial]:
                shape = case.shape
                if layout == "channels_first":
                    shape = (shape[-1], *shape[:-1])
                try:
                    node = bl.infer(block, shape, layout=layout, dtype="float64")
                except bl.ShapeError:  # a variant with a Dense, which takes the last axis
                    continue
                node = lowerable(adapter, node)
                physical = layout_pass(node, adapter.layout)
                for kind in {rule_of(adapter, n) for n in physical.walk()}:
                    found.setdefault(kind, []).append(node)
    return {kind: sorted(nodes, key=lambda n: len(list(n.walk()))) for kind, nodes in found.items()}


def lowerable(adapter: Any, node: bl.Node) -> bl.Node:
    """The network in a dtype that the backend does not refuse, which would look like a red test."""
    try:
        adapter.program(node)
    except bl.UnsupportedError:
        node = again(node, node.in_spec, dtype="float32", param_dtype="float32")
        adapter.program(node)
    return node


def rule_of(adapter: Any, node: bl.Node) -> type:
    """The block under which the node's rule is registered."""
    rule = adapter.rules.find(node)
    return next(kind for kind, known in adapter.rules.table.items() if known is rule)


def mutants(
    rule: Rule, transformed: set[str], arguments: set[tuple[str, Any]]
) -> Iterator[tuple[str, Rule]]:
    """Each way of breaking a rule, with its name."""
    for name in sorted(transformed):
        binds = rule.binds | {name: partial(untransformed, rule, name)}
        yield f"transform of {name}", dataclasses.replace(rule, binds=binds)
    for function, name in sorted(arguments, key=str):
        changed = partial(broken, rule.function, without(function, name))
        yield f"{function}({name})", dataclasses.replace(rule, function=changed)


def transformed_by(adapter: Any, kind: type, nodes: list[bl.Node]) -> set[str]:
    """The parameters that the rule transforms for some network of the table."""
    rule = adapter.rules.table[kind]
    return {
        name
        for root in nodes
        for node in layout_pass(root, adapter.layout).walk()
        if rule_of(adapter, node) is kind
        for name in node.params.keys() & rule.binds.keys()
        if rule.bind(name, node).transform is not same
    }


def untransformed(rule: Rule, name: str, node: bl.Node) -> Bind:
    return dataclasses.replace(rule.bind(name, node), transform=same)


def broken(function: Any, change: Callable[[Call], Call], *args: Any) -> Any:
    """What a rule returns, with its own calls changed and those of its children as they are."""
    return rebuilt(function(*args), change, children_of(args))


def children_of(args: Any) -> list[Any]:
    return list(args[1].values()) if len(args) > 1 else []


def shown_arguments(adapter: Any, kind: type, nodes: list[bl.Node]) -> set[tuple[str, Any]]:
    """Function and argument of all calls that the rule makes anywhere in the table."""
    seen: set[tuple[str, Any]] = set()
    rule = adapter.rules.table[kind]

    def spy(*args: Any) -> Any:
        expression = rule.function(*args)
        for call in calls(expression, children_of(args)):
            seen.update((call.function, name) for name, _ in call.kwargs)
            seen.update((call.function, i) for i in range(len(call.args)))
        return expression

    adapter.rules.table[kind] = dataclasses.replace(rule, function=spy)
    for node in nodes:
        adapter.program(node)
    adapter.rules.table[kind] = rule
    return {(f, n) for f, n in seen if (f, n) != ("partial", 0)}


def is_red(name: str, node: bl.Node) -> bool:
    """Whether parity, or building the model, notices anything."""
    if next(RUNS) % 100 == 0 and "jax" in sys.modules:  # else its memory maps run out
        sys.modules["jax"].clear_caches()
    judges = ["torch", "numpy"] if name == "numpy" else [name]
    try:
        report = bl.parity(node, backends=judges, steps=0)
        # a change of shape in the reference itself is a difference too
        listing = bl.source(node, name)
        compile(listing, "listing", "exec")
    except Exception:
        return True
    return not all(report.backends)


def main(names: list[str]) -> int:
    """Run all mutants of these backends, or of these blocks; returns how many survive."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    console, alive, total = Console(), 0, 0
    for name in dict.fromkeys(name.partition(".")[0] for name in names):
        adapter = find_backend(name)
        table = nodes_by_block(adapter)
        if name not in names:
            table = {
                kind: rows for kind, rows in table.items() if f"{name}.{kind.__name__}" in names
            }
        survivors = []
        with Progress(console=console) as progress:
            task = progress.add_task(name, total=len(table))
            for kind, nodes in table.items():
                rule = adapter.rules.table[kind]
                for label, mutant in mutants(
                    rule,
                    transformed_by(adapter, kind, nodes),
                    shown_arguments(adapter, kind, nodes),
                ):
                    total += 1
                    adapter.rules.table[kind] = mutant
                    if not any(is_red(name, node) for node in nodes):
                        survivors.append(f"{name} {kind.__name__}: {label}")
                        console.print("alive:", survivors[-1], markup=False)
                    adapter.rules.table[kind] = rule
                progress.advance(task)
                console.print(f"{name} {kind.__name__} done, {total} so far", markup=False)
        alive += len(survivors)
    console.print(f"{total - alive} of {total} mutants were noticed.")
    return alive


if __name__ == "__main__":
    sys.exit(min(1, main(sys.argv[1:] or ["torch", "keras", "flax", "numpy"])))

"""The summary: what a network is made of and what it costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from blocks._block import Leaf
from blocks._params import count
from blocks._spec import Node, join, shapes


@dataclass(frozen=True)
class Row:
    """One node; parameters and multiply-adds are those of leaves, counted at their first use."""

    path: str
    block: str
    out: str
    params: int | None
    multiply_adds: int | None


class Summary:
    """Path, block, output shape, parameters and multiply-adds of every node; prints as a table."""

    def __init__(self, node: Node):
        self.node = node
        seen: set[str] = set()
        self.rows = [self.row(n, seen) for n in node.walk()]

    @staticmethod
    def row(node: Node, seen: set[str]) -> Row:
        block, form = node.block, node.form
        label = getattr(form, "kind", type(block).__name__)
        if node.shared:
            label = f"{type(form).__name__} (shared {node.shared!r})"
        if not isinstance(form, Leaf):
            return Row(node.path, label, shapes(node.out_spec), None, None)
        new = {join(node.home, name): spec.size for name, spec in node.params.items()}
        params = sum(size for path, size in new.items() if path not in seen)
        seen.update(new)
        adds = form.multiply_adds(node.in_spec, node.out_spec)
        return Row(node.path, label, shapes(node.out_spec), params, adds)

    @property
    def params(self) -> int:
        """Number of parameters, running state included."""
        return count(self.node)

    @property
    def multiply_adds(self) -> int | None:
        """Multiply-adds for one example; None if a size is unknown."""
        leaves = [n for n in self.node.walk() if isinstance(n.form, Leaf)]
        each = [n.form.multiply_adds(n.in_spec, n.out_spec) for n in leaves]
        return None if None in each else sum(each)

    def __rich_console__(self, console: Any, options: Any) -> Any:
        from rich.table import Table

        table = Table(title=f"Input {shapes(self.node.in_spec)}")
        for column in ("path", "block", "output"):
            table.add_column(column)
        for column in ("parameters", "multiply-adds"):
            table.add_column(column, justify="right")
        for row in self.rows:
            style = "dim" if row.params is None else ""
            table.add_row(
                row.path or "/",
                row.block,
                row.out,
                number(row.params),
                "?"
                if row.params is not None and row.multiply_adds is None
                else number(row.multiply_adds),
                style=style,
            )
        yield table
        state = count(self.node, trainable=False)
        kept = f", {state:,} of them running state" if state else ""
        adds = "unknown" if self.multiply_adds is None else f"{self.multiply_adds:,}"
        yield f"{self.params:,} parameters{kept}; {adds} multiply-adds for one example"

    def __repr__(self) -> str:
        from blocks._console import as_text

        return as_text(self)


def number(value: int | None) -> str:
    """A count for people; nothing for none or zero."""
    return f"{value:,}" if value else ""

"""Values."""

from __future__ import annotations

from typing import Any

from backends.keras._common import (
    Item,
    Pipe,
    rule,
)
from blocks._spec import Node
from blocks.value import Identity, Select


@rule(Identity)
def identity(node: Node) -> Any:
    return Pipe()


@rule(Select)
def select(node: Node) -> Any:
    return Item(node.resolved["index"])

"""Values."""

from __future__ import annotations

from typing import Any

from backends._expression import call
from backends.numpy._common import rule
from blocks._spec import Node
from blocks.value import Identity, Select


@rule(Identity)
def identity(node: Node) -> Any:
    return call("Identity")


@rule(Select)
def select(node: Node) -> Any:
    return call("Select", node.resolved["index"])

"""Values."""

from __future__ import annotations

from typing import Any

from backends._expression import Name
from backends.flax._common import partial, rule
from blocks._spec import Node
from blocks.value import Identity, Select


@rule(Identity)
def identity(node: Node) -> Any:
    return Name("identity")


@rule(Select)
def select(node: Node) -> Any:
    return partial("select", index=node.resolved["index"])

"""Values."""

from __future__ import annotations

from typing import Any

from backends.keras._common import (
    Pipe,
    rule,
)
from blocks._spec import Node
from blocks.value import Identity


@rule(Identity)
def identity(node: Node) -> Any:
    return Pipe()

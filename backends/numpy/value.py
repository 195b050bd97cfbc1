"""Values."""

from __future__ import annotations

from typing import Any

from backends._expression import call
from backends.numpy._common import RNG, rule
from blocks._spec import Node
from blocks.value import Constant, Identity, Parameter, Sample, Select


@rule(Identity)
def identity(node: Node) -> Any:
    return call("Identity")


@rule(Select)
def select(node: Node) -> Any:
    return call("Select", node.resolved["index"])


@rule(Parameter, value="value")
def parameter(node: Node) -> Any:
    return call("Parameter", node.resolved["shape"], node.form.merge)


@rule(Constant, value="value")
def constant(node: Node) -> Any:
    return call("Parameter", node.resolved["shape"], node.form.merge, trainable=False)


@rule(Sample)
def sample(node: Node) -> Any:
    if "key" in node.resolved:
        return call("SharedSample", key=node.resolved["key"])
    return call("Sample", rng=RNG)

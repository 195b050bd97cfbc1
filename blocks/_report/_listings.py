"""The listings of a network, each made in a process of its own, as contenders are measured: the
frameworks do not meet in that of the page, and one that fails costs its own listing alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from blocks._compare import PATIENCE, custom_names
from blocks._errors import BlockError
from blocks._files import document, node_to_json
from blocks._spec import Node
from blocks._worker import Worker, WorkerError


@dataclass(frozen=True)
class Listing:
    """The code of a network in one framework, and the numbers of the lines of each block; or why
    there is none.
    """

    text: str = ""
    lines: dict[str, list[int]] = field(default_factory=dict)
    missing: str = ""


def listings(node: Node, backends: Iterable[str]) -> dict[str, Listing]:
    return {backend: listing(node, backend) for backend in backends}


def listing(node: Node, backend: str) -> Listing:
    try:
        asked = {"network": node_to_json(node), "custom": custom_names(document(node)["network"])}
        worker = Worker("blocks._sourcemap", backend, {})
    except BlockError as error:
        return Listing(missing=str(error))
    try:
        return Listing(*worker.ask("lines", PATIENCE, **asked))
    except WorkerError as error:
        return Listing(missing=str(error))
    finally:
        worker.close()

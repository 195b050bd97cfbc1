"""A network as files that need no isoblocks: a listing for each framework, and its parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from blocks._arrays import replacing
from blocks._backends import installed
from blocks._block import Block
from blocks._errors import FieldError, FileError
from blocks._infer import as_node
from blocks._models import source
from blocks._param_files import save_params
from blocks._params import check_params, init
from blocks._spec import Node

PARAMS = "params.safetensors"


def export_source(
    network: Node | Block,
    folder: str | Path,
    *,
    backends: Iterable[str] | None = None,
    params: Mapping[str, np.ndarray] | None = None,
    seed: int = 0,
    draws: str = "native",
    input_shape: Any = None,
    **options: Any,
) -> list[Path]:
    """Write a network as code of several frameworks, with its parameters.

    Each `<backend>_model.py` runs with its framework, NumPy and safetensors alone: it defines
    `model` and `load_params(path)`, and run as a script it takes `params.safetensors`, which holds
    the canonical parameters for all of them. Nothing is written if a backend has no such network.

    Args:
        network: a node, or a block together with `input_shape` and the options of `infer`.
        folder: where to write; made if it is not there.
        backends: names; all that are installed if left out.
        params: canonical parameters; drawn from `seed` if left out.
        seed: of the parameters, and of shared draws.
        draws: as in `lower`.

    Returns:
        The files that were written, the parameters last, if there are any.

    Raises:
        FileError: if they cannot be written there.

    >>> import blocks as bl
    >>> from tempfile import mkdtemp
    >>> paths = bl.export_source(bl.Dense(3), mkdtemp(), backends=["numpy"], input_shape=(2,))
    >>> [path.name for path in paths]
    ['numpy_model.py', 'params.safetensors']
    """
    node = as_node(network, input_shape, options)
    arrays = init(node, seed) if params is None else check_params(node, params)
    names = installed() if backends is None else checked_names(backends)
    texts = {
        f"{name}_model.py": source(node, name, draws=draws, seed=seed, loading=True)
        for name in names
    }
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{folder} cannot be made: {error.strerror}.") from None
    for name, text in texts.items():
        write_text(folder / name, text)
    if arrays:
        save_params(arrays, folder / PARAMS)
    return [folder / name for name in (*texts, *([PARAMS] if arrays else []))]


def checked_names(backends: Any) -> list[str]:
    """The names of backends, each once."""
    if isinstance(backends, str) or not isinstance(backends, Iterable):
        raise FieldError(f"backends takes a list of names, got {backends!r}.")
    return list(dict.fromkeys(backends))


def write_text(path: str | Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")

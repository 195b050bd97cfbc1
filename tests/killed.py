"""A process that is killed while it saves leaves what was there before, or what it was writing.

    python tests/killed.py 100

forks a child that saves one of two contents after the other, kills it after a random time, and
reads what it left; so many times for each kind of file. It needs NumPy alone.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import count, cycle
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

import blocks as bl

NETWORKS = [bl.Sequential(*[bl.Dense(n)] * 200) for n in (3, 4)]
PARAMS = [{f"{i}/kernel": np.full((40, 30), n) for i in range(n)} for n in (5, 8)]


def same(found: Any, params: Any) -> bool:
    return found.keys() == params.keys() and all(
        np.array_equal(found[name], params[name]) for name in params
    )


def sharded(params: Any, path: Path) -> None:
    bl.save_params(params, path, max_shard_bytes=20_000)


# name: how the two contents are saved, how they are read, how they are compared
KINDS: dict[str, tuple[list[Any], list[Callable[..., None]], Callable[..., Any], Any]] = {
    "network": (NETWORKS, [bl.save], bl.load, lambda a, b: a == b),
    "parameters": (PARAMS, [bl.save_params], bl.load_params_file, same),
    "shards": (PARAMS, [sharded], bl.load_params_file, same),
    "both": (PARAMS, [sharded, bl.save_params], bl.load_params_file, same),
}


def saving(contents: list[Any], first: int, saves: list[Callable[..., None]], path: Path) -> None:
    """Save one content after the other, for ever, and each in every way."""
    ways = cycle([*saves, *saves[:-1]])
    for number in count(first):
        next(ways)(contents[number % len(contents)], path)


def killed(kind: str, times: int, random: Random) -> None:
    """Kill a child that saves so many times, at random moments."""
    contents, saves, load, equal = KINDS[kind]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.safetensors"
        saves[0](contents[0], path)
        here, changes = 0, 0
        for _ in range(times):
            child = os.fork()
            if child == 0:
                saving(contents, here + 1, saves, path)  # what is not there is written first
            time.sleep(random.uniform(0, 0.1))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            found = load(path)
            left = [i for i, content in enumerate(contents) if equal(found, content)]
            if not left:
                raise SystemExit(f"{kind}: what was left is neither of the contents")
            changes += left != [here]
            here = left[0]
        print(f"{kind}: {times} times, and {changes} times the content was another")


if __name__ == "__main__":
    for name in KINDS:
        killed(name, int(sys.argv[1]), Random(name))

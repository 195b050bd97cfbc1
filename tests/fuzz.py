"""Damaged and hostile files: each is refused by an error of isoblocks, or is what it was.

    python tests/fuzz.py --files 100000 --seed 0

prints how many files of each kind were refused, by which error and at which step, how many were
accepted, the slowest of each kind and the peak of memory. Whatever is not so is a failure: an error
that is none of isoblocks, parameters that are accepted but are not those that were written, a file
that takes longer than `PATIENCE`. The process may use so much address space, and no more.

A kind of file is one entry in `KINDS`: a function that returns samples.
"""

from __future__ import annotations

import argparse
import ast
import json
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

import blocks as bl
import custom_blocks
from blocks._checkpoint import arrays_of, header_of, text_checksum
from blocks._summary import Summary
from cases import CASES

PATIENCE = 20  # seconds of computing for one file
MEMORY = 4 * 2**30  # bytes of address space
SMALL = 10_000  # parameters that are drawn
SHORT = 3_000  # blocks that are listed

CUSTOM = [
    kind
    for kind in vars(custom_blocks).values()
    if isinstance(kind, type) and issubclass(kind, bl.Custom) and kind is not bl.Custom
]

TOGETHER = [
    (bl.Sequential(bl.Conv(4, (3, 2)), bl.MaxPool((2, 2)), bl.Flatten(), bl.Dense(3)), (8, 7, 2)),
    (bl.Repeat(bl.Residual(bl.Sequential(bl.Dense(5), bl.Tanh())), 3), (5,)),
    (bl.Sequential(bl.Embedding(9, 8), bl.TransformerEncoderLayer(8, 2, 6), bl.LSTM(3)), (None,)),
    (bl.Sequential(bl.ResidualBlock(4), bl.DenseBlock(3, 2), head=bl.GlobalAvgPool()), (6, 5, 4)),
    (bl.Parallel(bl.Shared("tied", bl.Dense(3)), b=bl.Shared("tied", bl.Dense(3))), (4,)),
    (bl.Sequential(bl.Rearrange("b (h k) w c -> b h w (k c)", k=2), bl.GELU()), (4, 3, 2)),
    (bl.Sequential(bl.Parallel(bl.Dense(2), bl.Dense(2), merge="tuple"), bl.Sample()), (4,)),
]


@dataclass(frozen=True)
class Sample:
    """Files as they were written, by name, and how they are read.

    `read` is given their folder and returns a word for what was accepted. `change`, if there is
    one, changes the first file in the place of the mutations that all kinds have.
    """

    files: dict[str, bytes]
    read: Callable[[Path], str]
    change: Callable[[Random, bytes, bytes], bytes] | None = None


class Failure(Exception):
    """A file that was accepted, and should not have been."""


# Kinds


def networks() -> list[Sample]:
    """Every block of the table, and some together, without and with its input."""
    blocks = [(block, case.shape) for case in CASES for _, block in case.variants()]
    samples = []
    for block, shape in [*blocks, *TOGETHER * 5]:
        for network in (block, bl.infer(block, shape)):
            samples.append(Sample({"net.json": bl.to_json(network).encode()}, reader(shape)))
    return samples


def reader(shape: Any) -> Callable[[Path], str]:
    def read(folder: Path) -> str:
        try:
            with during("load"):
                found = bl.load(folder / "net.json", CUSTOM)
        except bl.FileError as error:
            if error.__cause__ is not None:
                raise Failure("a class raised something else") from error.__cause__
            raise
        if bl.from_json(bl.to_json(found), CUSTOM) != found and isinstance(found, bl.Block):
            raise Failure("it does not come back")
        with during("infer"):
            node = found if isinstance(found, bl.Node) else bl.infer(found, shape)
        with during("summary"):
            summary = Summary(node)
            f"{summary.params:,} {summary.multiply_adds}"
        with during("source"):
            if len(summary.rows) <= SHORT:
                ast.parse(bl.source(node, "numpy"))
        with during("init"):
            params = bl.init(node) if summary.params < SMALL else None
        return "accepted" if params is None else "accepted, drawn"

    return read


@contextmanager
def during(step: str) -> Iterator[None]:
    """Note at which step a file was refused."""
    try:
        yield
    except bl.BlockError as error:
        error.add_note(step)
        raise


def parameters() -> list[Sample]:
    """One file."""
    return [saved(params, network) for params in param_sets() for network in (None, bl.Dense(3))]


def shards() -> list[Sample]:
    """An index and its shards."""
    return [saved(params, None, most) for params in param_sets() for most in (1, 60, 10_000)]


def param_sets() -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    net = bl.Sequential(bl.Conv(3, (2, 1)), bl.BatchNorm(), encoder=bl.Dense(2))
    kinds = [bl.init(bl.infer(net, (3, 4, 2), dtype=dtype)) for dtype in ("float32", "bfloat16")]
    mixed = {name: rng.normal(size=3).astype(name) for name in ("float64", "float16", "int8")}
    return [
        *kinds,
        mixed | {"none": np.zeros((0, 2)), "one": np.float32(3), "is": np.ones(2, bool)},
    ]


def saved(params: Any, network: Any, most: int | None = None) -> Sample:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.safetensors"
        bl.save_params(params, path, network=network, max_shard_bytes=most)
        files = {file.name: file.read_bytes() for file in Path(folder).iterdir()}

    def read(folder: Path) -> str:
        found = bl.load_params_file(folder / "net.safetensors")
        same = found.keys() == params.keys() and all(
            found[name].dtype == np.asarray(params[name]).dtype
            and np.array_equal(found[name], params[name])
            for name in params
        )
        if not same:
            raise Failure("the parameters are others")
        return "accepted, unchanged"

    return Sample(files, read)


def checkpoints() -> list[Sample]:
    """Training that stopped in the middle of an epoch: an optimiser each, with all options."""
    rng = np.random.default_rng(0)
    data = rng.normal(size=(10, 4)), rng.normal(size=(10, 2))
    net = bl.Sequential(bl.Dense(3), bl.BatchNorm(), bl.Dropout(0.5), bl.Dense(2))
    options: list[dict[str, Any]] = [
        {"optimizer": bl.SGD(0.1)},
        {"optimizer": bl.SGD(bl.StepDecay(0.1, 3, 0.5), momentum=0.9), "validation": data},
        {"optimizer": bl.Adam(), "clip_norm": 1.0, "keep_best": True},
        {"optimizer": bl.AdamW(), "early_stop": bl.EarlyStop("loss")},
    ]
    return [kept(net, data, draws, how) for how in options for draws in ("native", "shared")]


def forgeries() -> list[Sample]:
    """Checkpoints whose texts somebody changed, and made their checksum anew."""
    return [replace(sample, read=going_on, change=forged) for sample in checkpoints()]


def forged(random: Random, data: bytes, other: bytes) -> bytes:
    header, rest = split(data)
    tree, its = json.loads(header), json.loads(split(other)[0])
    texts = tree["__metadata__"]
    for name in random.choice((("training",), ("training",), ("node",), ("training", "node"))):
        its_text = its["__metadata__"][name].encode()
        texts[name] = json_changed(random, texts[name].encode(), [its_text]).decode()
    texts["checksum"] = text_checksum(texts)
    return sealed(json.dumps(tree).encode(), rest)


def going_on(folder: Path) -> str:
    """Train on, where that ends soon."""
    with during("load"):
        found = bl.load_checkpoint(folder / "run.safetensors", CUSTOM)
    steps = found.plan.epochs * found.plan.steps(found.examples)
    if steps - found.step > 20 or found.examples > 100:
        return "accepted"
    with during("go on"):
        rng = np.random.default_rng(0)
        x, y = (
            rng.normal(size=(found.examples, *spec.shape))
            for spec in (found.node.in_spec, found.node.out_spec)
        )
        bl.fit(found.lower("numpy"), (x, y), validation=(x, y), resume=found)
    return "accepted, went on"


def kept(net: bl.Block, data: Any, draws: str, how: dict[str, Any]) -> Sample:
    model = bl.lower(net, "numpy", input_shape=(4,), draws=draws, trainable={"0/bias": False})
    how = {"loss": "mse", "batch_size": 4, "epochs": 2, "checkpoint_every": 4} | how
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.safetensors"
        bl.fit(model, data, checkpoint=path, **how)
        content, original = path.read_bytes(), bl.load_checkpoint(path)

    def read(folder: Path) -> str:
        found = bl.load_checkpoint(folder / "run.safetensors")
        ours, theirs = arrays_of(original), arrays_of(found)
        same = ours.keys() == theirs.keys() and header_of(original) == header_of(found)
        if not same or not all(np.array_equal(ours[name], theirs[name]) for name in ours):
            raise Failure("the checkpoint is another")
        return "accepted, unchanged"

    return Sample({"run.safetensors": content}, read)


KINDS: dict[str, Callable[[], list[Sample]]] = {
    "network": networks,
    "parameters": parameters,
    "shards": shards,
    "checkpoint": checkpoints,
    "forged checkpoint": forgeries,
}


# Mutations of bytes


def flipped(random: Random, data: bytes, other: bytes) -> bytes:
    made = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 8))):
        if made:
            made[random.randrange(len(made))] ^= 1 << random.randrange(8)
    return bytes(made)


def cut(random: Random, data: bytes, other: bytes) -> bytes:
    return data[: random.randrange(len(data) + 1)]


def spliced(random: Random, data: bytes, other: bytes) -> bytes:
    a, b = sorted(random.randrange(len(data) + 1) for _ in range(2))
    c, d = sorted(random.randrange(len(other) + 1) for _ in range(2))
    return data[:a] + other[c:d] + data[b:]


def swapped(random: Random, data: bytes, other: bytes) -> bytes:
    """Two pieces of the same length change places."""
    size = random.choice((1, 2, 4, 8))
    if len(data) < 2 * size:
        return data
    a, b = sorted(random.sample(range(0, len(data) - size + 1, size), 2))
    return (
        data[:a] + data[b : b + size] + data[a + size : b] + data[a : a + size] + data[b + size :]
    )


def longer(random: Random, data: bytes, other: bytes) -> bytes:
    return data + random.choice((b"\0", b" ", b"}", bytes(random.randrange(200)), other))


def header_length(random: Random, data: bytes, other: bytes) -> bytes:
    """What safetensors has in front: the length of its header."""
    size = random.choice((0, 1, len(data), 2**31, 2**40, 2**63, 2**64 - 1, random.randrange(500)))
    return size.to_bytes(8, "little") + data[8:]


# Mutations of JSON

DEEP = 100_000
TANH = {"type": "Activation", "kind": "tanh"}
RAW = {  # what the standard module would not write
    "NaN": "NaN",
    "infinity": "-Infinity",
    "too large": "1e999",
    "digits": "9" * 5000,
    "digits, many": "7" * 200_000,
    "deep list": "[" * DEEP + "]" * DEEP,
    "deep dict": '{"a":' * DEEP + "1" + "}" * DEEP,
    "open": "[" * DEEP,
    "half a pair": '"\\ud800"',
    "NUL": '"a\\u0000b"',
    "twice": '{"type": "Dense", "features": 3, "features": 4}',
    "twice the type": '{"type": "Dense", "type": "ReLU", "features": 3}',
    "numbers": "[" + "1," * 20_000 + "1]",
    "lists": "[" + "[]," * 5_000 + "[]]",
    "levels": '{"type":"Sequential","blocks":[' * 10_000 + "]}" * 10_000,
    "bodies": '{"type":"Residual","body":' * 10_000 + json.dumps(TANH) + "}" * 10_000,
}
VALUES = [
    *(None, True, False, 0, 1, -1, 2, 3, 7, 255, 2**15, 2**31 - 1, 2**31, 2**32, 10**9, 10**12),
    *(10**15, 2**53, 2**62, 2**63 - 1, 2**63, -(2**63), 10**30, 0.0, -0.0, 0.5, 1e-320, 1e308),
    *(
        "",
        " ",
        "0",
        "1",
        "²",
        "a",
        "a b",
        "model",
        "x",
        "None",
        "__debug__",
        "__class__",
        "import os",
    ),
    *(
        '"); import os  # ',
        "'''",
        "\\",
        "\n",
        "{seed}",
        "\u202e",
        "b -> b",
        "b c -> b",
        "b ... -> b",
    ),
    *("same", "valid", "add", "tuple", "stack", "concat", "float64", "int32", "channels_first"),
    *([], [0], [1], [3, 3], [10**12] * 2, [[1, 1]], [[0, 10**12]], ["a"], [None], [1.5], [[]], {}),
    *([1] * 40, [1] * 2000, list(range(50)), [[[[1]]]], ["0", "0"], {"type": "os:system"}),
    *({"type": "Dense", "features": 10**15}, {"type": "initializers.Array", "values": [1]}),
    {"type": "Dense"},
    {
        "type": "Shared",
        "key": "a",
        "block": {"type": "Shared", "key": "a", "block": {"type": "ReLU"}},
    },
    {"type": "Repeat", "times": 10**12, "block": {"type": "Dense", "features": 3}},
    {"type": "Embedding", "num_embeddings": 5, "features": 4},
    {"type": "Rearrange", "pattern": "b c -> b (c)", "axes_lengths": [["c", 3]]},
    {"type": "initializers.Constant", "value": 1e30},
    {"shape": [None], "dtype": "int32", "below": 1},
]


def places(data: Any) -> list[tuple[Any, Any]]:
    """Every member of lists and dicts inside: its container and its key."""
    found, stack = [], [data]
    while stack:
        here = stack.pop()
        keys = list(here) if isinstance(here, dict) else range(len(here))
        for key in keys:
            found.append((here, key))
            if isinstance(here[key], dict | list):
                stack.append(here[key])
    return found


def around(random: Random, value: Any) -> Any:
    """The value inside blocks, many times."""
    count = random.choice((1, 3, 40))
    for _ in range(count):
        value = random.choice(
            (
                {"type": "Sequential", "blocks": [value, value] if count == 1 else [value]},
                {"type": "Residual", "body": value},
                {"type": "Repeat", "block": value, "times": random.choice((2, 50, 10**6))},
                {"type": "Shared", "key": "tied", "block": value},
                {"type": "Parallel", "blocks": [value, value], "merge": "tuple"}
                if count < 40
                else {"type": "MLP", "features": 2, "hidden": [3, 4], "activation": value},
            )
        )
    return value


INTS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 100, 4096, 10**6, 10**9, 10**12, 10**15)


def alike(random: Random, value: Any, other: Any) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return random.choice(INTS)
    if isinstance(value, float):
        return random.choice((0.0, 0.25, 1.0, -1.0, 3.5, 1e-30, 1e30))
    found = [here[key] for here, key in places(other) if isinstance(here[key], type(value))]
    return random.choice(found or [value])


def changed(random: Random, data: Any, others: list[Any]) -> None:
    """Change one thing in plain data; "raw:" texts stand for what `RAW` has."""
    where = places(data)
    if not where:
        return
    here, key = random.choice(where)
    if random.random() < 0.5:
        here[key] = alike(random, here[key], random.choice(others))
        return
    match random.randrange(9):
        case 0 | 1:
            here[key] = deepcopy(random.choice(VALUES))
        case 2:
            here[key] = f"raw:{random.choice(list(RAW))}"
        case 3:
            del here[key]
        case 4 if isinstance(here, dict):
            here[random.choice((key + "x", key[:-1], "", "type", "names", "axes"))] = here.pop(key)
        case 5:
            other, its = random.choice(places(random.choice(others)) or [({0: 1}, 0)])
            here[key] = other[its]
        case 6:
            here[key] = around(random, here[key])
        case 7 if isinstance(here, list):
            here[key:key] = [here[key]] * random.choice((1, 5, 3000))
        case _ if isinstance(here[key], int | float):
            here[key] = here[key] * random.choice((-1, 2, 10, 1000, 10**6)) + random.choice((0, 1))
        case _:
            here[key] = random.choice((str(here[key])[:100], [here[key]], {"type": here[key]}))


def json_changed(random: Random, data: bytes, others: list[bytes]) -> bytes:
    tree = json.loads(data)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        part, trees = tree, [json.loads(other) for other in others]
        if isinstance(tree, dict) and isinstance(tree.get("network"), dict):
            part = random.choice((tree, *[tree["network"]] * 5))  # most of what is outside is fixed
        if isinstance(tree, dict | list):
            changed(random, part, trees)
    text = json.dumps(tree)
    if '"raw:' in text:
        for name, raw in RAW.items():
            text = text.replace(json.dumps(f"raw:{name}"), raw)
    return text.encode()


def header_changed(random: Random, data: bytes, others: list[bytes]) -> bytes:
    """The header of a safetensors file, with the length that it has then."""
    header, rest = split(data)
    return sealed(json_changed(random, header, [split(other)[0] for other in others]), rest)


def sealed(header: bytes, rest: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header + rest


def split(data: bytes) -> tuple[bytes, bytes]:
    end = 8 + int.from_bytes(data[:8], "little")
    return data[8:end], data[end:]


BYTES = (flipped, cut, spliced, swapped, longer)


def mutated(random: Random, sample: Sample, samples: list[Sample]) -> tuple[str, bytes]:
    """One of the files, changed."""
    name = random.choice(sorted(sample.files))
    binary = name.endswith(".safetensors")
    other = random.choice(samples).files
    like = [text for file, text in other.items() if file.endswith(".safetensors") == binary]
    data = sample.files[name]
    like = like or [data]
    if sample.change is not None:
        return name, sample.change(random, data, random.choice(like))
    if random.random() < 0.8:
        return name, (header_changed if binary else json_changed)(random, data, like)
    mutation = random.choice((*BYTES, header_length) if binary else BYTES)
    return name, mutation(random, data, random.choice(like))


# The run


@dataclass
class Figures:
    """What became of the files of one kind."""

    files: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    failures: int = 0


def attempt(sample: Sample, name: str, data: bytes, folder: Path, figures: Figures) -> None:
    """Read a sample in whose folder one file is another."""
    for file in folder.iterdir():
        file.unlink()
    for file, content in (sample.files | {name: data}).items():
        (folder / file).write_bytes(content)
    start = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, PATIENCE)
    try:
        outcome = sample.read(folder)
    except bl.BlockError as error:
        outcome = ": ".join((*getattr(error, "__notes__", ()), type(error).__name__))
    except Exception:
        outcome = "FAILURE"
        figures.failures += 1
        print(f"{name}: {data[:2000]!r}\n{traceback.format_exc()}", file=sys.stderr, flush=True)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    figures.files += 1
    figures.outcomes[outcome] += 1
    figures.slowest = max(figures.slowest, time.process_time() - start)


def too_slow(*args: Any) -> None:
    raise TimeoutError(f"more than {PATIENCE} seconds")


def fuzz(files: int, seed: int, kinds: list[str], step: Callable[[], Any]) -> dict[str, Figures]:
    """Change and read so many files, as many of each kind."""
    signal.signal(signal.SIGPROF, too_slow)
    samples = {kind: KINDS[kind]() for kind in kinds}
    figures = {kind: Figures() for kind in kinds}
    with tempfile.TemporaryDirectory() as folder:
        for index in range(files):
            kind = kinds[index % len(kinds)]
            random = Random(f"{seed} {index}")  # so that a file can be made again alone
            sample = random.choice(samples[kind])
            changes = mutated(random, sample, samples[kind])
            attempt(sample, *changes, Path(folder), figures[kind])
            step()
    return figures


def main() -> int:
    from rich.console import Console
    from rich.progress import track
    from rich.table import Table

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    console = Console()
    bar = iter(track(range(options.files), "reading", console=console))
    found = fuzz(options.files, options.seed, options.kinds, lambda: next(bar))
    next(bar, None)
    table = Table(title=f"{options.files:,} files, seed {options.seed}")
    for column in ("kind", "files", "outcome", "count", "slowest"):
        table.add_column(column, justify="left" if column in ("kind", "outcome") else "right")
    for kind, figures in found.items():
        for i, (outcome, count) in enumerate(sorted(figures.outcomes.items())):
            first = (kind, f"{figures.files:,}", f"{figures.slowest:.2f} s") if not i else ("",) * 3
            table.add_row(*first[:2], outcome, f"{count:,}", first[2])
    console.print(table)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 2**10
    console.print(f"peak of memory {peak / 2**20:,.0f} MiB of {MEMORY / 2**20:,.0f} MiB allowed")
    return 1 if any(figures.failures for figures in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())

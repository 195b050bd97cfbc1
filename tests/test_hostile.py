"""Files that anybody may have written: each is refused in a moment, by an error that says where."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import fuzz
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import blocks as bl
import custom_blocks
from blocks import _limits
from blocks._limits import MAX_LEVELS, MAX_NODES
from blocks._stack import call_deep

DENSE = {"type": "Dense", "features": 3}
TANH = {"type": "Activation", "kind": "tanh"}


def file_of(network, **parts):
    return json.dumps({"format": "isoblocks network", "version": 1, "network": network, **parts})


def raw(text):
    """A file in which a text stands that the standard module does not write."""
    return file_of("HERE").replace('"HERE"', text)


NODE = {
    "input": {"shape": [4], "dtype": "float32"},
    "layout": "channels_last",
    "dtype": "float32",
    "param_dtype": "float32",
}

REFUSED = {
    "twice": (
        raw('{"type": "Dense", "features": 3, "features": 4}'),
        "has the key 'features' twice",
    ),
    "NaN": (raw('{"type": "Dropout", "rate": NaN}'), "network.rate is NaN, which is no finite"),
    "infinite": (raw('{"type": "Dropout", "rate": -Infinity}'), "network.rate is -Infinity"),
    "beyond": (raw('{"type": "Dropout", "rate": 1e999}'), "network.rate is inf, which is no"),
    "64 bits": (
        raw(
            '{"type": "Sequential", "blocks": [{"type": "Dense", "features": 9223372036854775808}]}'
        ),
        r"network.blocks[0].features is an integer of more than 64 bits",
    ),
    "digits": (raw(f'{{"type": "Dense", "features": {"9" * 9999}}}'), "an integer of 9999 digits"),
    "surrogate": (
        raw('{"type": "\\ud800"}'),
        "file.network.type holds NUL, or half of a surrogate",
    ),
    "NUL": (raw('{"type": "a\\u0000"}'), "file.network.type holds NUL"),
    "key": (raw('{"\\ud800": 1}'), "file.network has a key that holds NUL, or half"),
    "deep": (raw("[" * 10**6 + "]" * 10**6), "has more than 500,000 lists and objects"),
    "nested": (raw("[" * 20_000 + "]" * 20_000), "is nested deeper than 12,000 brackets"),
    "open": (raw("[" * 10_000), "this is no JSON"),
    "lists": (raw(f'{{"type": "Dense", "features": {"[" * 99}{"]" * 99}}}'), "a list inside 32"),
    "many": (raw(f"[{'[],' * 500_000}[]]"), "has more than 500,000 lists and objects"),
    "names": (
        file_of({"type": "Sequential", "blocks": [TANH], "names": ["²"]}),
        "has a child named '²'",
    ),
    "numbers for names": (
        file_of({"type": "Sequential", "blocks": [TANH], "names": [0]}),
        "cannot have the names",
    ),
    "no list": (file_of({"type": "Sequential", "blocks": 3}), "Sequential.blocks must be a tuple"),
    "merge": (
        file_of({"type": "Parallel", "blocks": [TANH], "names": ["merge"], "merge": "add"}),
        "cannot have the names",
    ),
    "lengths": (
        file_of({"type": "Rearrange", "pattern": "b c -> b c", "axes_lengths": ["abc"]}),
        "axes_lengths must be pairs",
    ),
    "pattern": (
        file_of({"type": "Rearrange", "pattern": f"b {'c ' * 10**6}-> b"}),
        "at most 1,000 letters",
    ),
    "code": (
        file_of({"type": "Shared", "key": "a; import os", "block": TANH}),
        "Shared.key must be a Python name in ASCII",
    ),
    "import": (
        file_of({"type": "os:system"}),
        "write custom=['os:system']; if the class is elsewhere now, custom={'os:system': system}",
    ),
    "main": (file_of({"type": "__main__:Swish"}), "Write custom={'__main__:Swish': Swish}, with"),
    "attribute": (file_of({"type": "Dense.__init__"}), "has the unknown type 'Dense.__init__'"),
    "version": (file_of(DENSE).replace("1,", "true,"), "has version True, but version 1"),
    "part": (file_of(DENSE, inputs=[3]), "file has no part 'inputs'. Did you mean 'input'?"),
    "half a node": (file_of(DENSE, layout="channels_last"), "lacks its input, dtype, param_dtype"),
    "shape": (
        file_of(DENSE, **NODE | {"input": {"shape": [True], "dtype": "x"}}),
        "a shape that is",
    ),
    "bound": (
        file_of(DENSE, **NODE | {"input": {"shape": [4], "dtype": "int32", "below": 0}}),
        "input has a bound that is none: 0",
    ),
    "words": (file_of(DENSE, **NODE | {"layout": [[]]}), "layout must be one of"),
    "misfit": (
        file_of({"type": "Embedding", "num_embeddings": 9, "features": 2}, **NODE),
        "but states {'shape': [4], 'dtype': 'float32'}",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_named(name):
    text, words = REFUSED[name]
    with pytest.raises(bl.FileError) as error:
        bl.from_json(text)
    assert words in str(error.value)
    assert error.value.__cause__ is None
    assert len(str(error.value)) < 2000


def test_files_that_are_no_text(tmp_path):
    path = tmp_path / "net.json"
    path.write_bytes(b"\xff\xfe{")
    with pytest.raises(bl.FileError, match="no text in UTF-8"):
        bl.load(path)
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(bl.FileError, match=r"larger than 32.0 MiB"):
        bl.load(path)
    for read in (bl.load, bl.load_params_file):
        with pytest.raises(bl.FileError):
            read("a\0b")
        with pytest.raises(bl.FileError):
            read(3)


BIG = 10**12
EXPLODING = {
    "Repeat": (bl.Repeat(bl.Dense(4), BIG), "Repeat at the top comes to 1,000,000,000,001 blocks"),
    "nested": (
        bl.Sequential(bl.Repeat(bl.Repeat(bl.Repeat(bl.Tanh(), 1000), 1000), 1000)),
        "Repeat at '0/0' comes to 1,001,001 blocks",
    ),
    "DenseBlock": (bl.DenseBlock(2, BIG), "DenseBlock at the top comes to"),
    "MLP": (bl.MLP(2, (3,) * 60_000), "MLP at the top comes to 120,002 blocks"),
    "activations": (
        bl.Residual(bl.MLP(2, (3,) * 500, bl.Sequential(*[bl.Tanh()] * 500))),
        "MLP at 'body' comes to",
    ),
    "Dense": (bl.Dense(10**15), "Dense at the top makes a value of 20,000,000,000,000,000 numbers"),
    "hidden": (bl.MLP(2, (10**10, 10**10)), "Dense at '2' needs a parameter kernel of"),
    "Upsample": (bl.Sequential(bl.Upsample((BIG, BIG))), "Upsample at '0' makes a value of"),
    "AdaptiveAvgPool": (bl.AdaptiveAvgPool((BIG, BIG)), "AdaptiveAvgPool at the top makes a value"),
    "Pad": (bl.Pad(((0, BIG), (BIG, 0), (0, 0))), "Pad at the top makes a value of"),
    "Conv": (bl.Conv(2, (1, 1), padding=((BIG, 0), (0, BIG))), "Conv at the top makes a value of"),
    "kernel": (bl.Conv(2, (BIG, BIG), padding="same"), "Conv at the top needs a parameter kernel"),
    "stack": (
        nested := bl.Sequential(*[bl.Parallel(bl.Identity(), merge="stack")] * 40),
        "33 axes",
    ),
    "tuples": (
        bl.Sequential(*[bl.Parallel(bl.Identity(), bl.Identity(), merge="tuple")] * 20),
        "makes a tuple of more than 1,000 tensors",
    ),
    "concat": (
        bl.Sequential(*[bl.Parallel(bl.Identity(), bl.Identity())] * 60),
        "makes a value of 2,061,584,302,080 numbers; 1,099,511,627,776 is the most",
    ),
}


@pytest.mark.parametrize("name", EXPLODING)
def test_networks_that_explode(name):
    """They are refused before they are expanded, in a file too."""
    block, words = EXPLODING[name]
    again = bl.from_json(bl.to_json(block))
    with pytest.raises(bl.ShapeError) as error:
        bl.infer(again, (4, 5, 3))
    assert words in str(error.value)
    assert error.value.block is not None


CUSTOM_FIELDS = {
    "kernel_init": [("AdaptiveAvgPool", "cannot draw its kernel"), (((2, 7),), "has an array of")],
    "features": [(-6, "makes a value of shape (-6,), which is none"), ("a", "of shape ('a',)")],
}


@pytest.mark.parametrize("field", CUSTOM_FIELDS)
def test_fields_of_custom_blocks_that_mean_nothing(field):
    for value, words in CUSTOM_FIELDS[field]:
        with pytest.raises(bl.ShapeError) as error:
            bl.infer(custom_blocks.Gated(**{"features": 3, field: value}), (4,))
        assert words in str(error.value)


def test_code_that_cannot_take_its_input():
    with pytest.raises(
        bl.ShapeError, match=r"Gated at '0' cannot take its input: .* AttributeErr"
    ) as e:
        bl.infer(bl.Sequential(custom_blocks.Gated(3)), ((4,), (4,)))
    assert isinstance(e.value.__cause__, AttributeError)
    node = bl.infer(custom_blocks.Gated(3), (4,))
    text = bl.to_json(node).replace('{"shape": [4], "dtype": "float32"}', "[{0}, {0}]")
    text = text.replace("{0}", '{"shape": [4], "dtype": "float32"}')
    with pytest.raises(bl.FileError, match=r"cannot have this input: Gated at the top"):
        bl.from_json(text, [custom_blocks.Gated])


def test_tuples_inside_tuples():
    block = bl.Identity()
    for _ in range(40):
        block = bl.Parallel(block, bl.Identity(), merge="tuple")
    with pytest.raises(bl.ShapeError, match="makes a tuple inside 32 others"):
        bl.infer(block, (4,))


def test_levels():
    block = bl.Dense(3)
    for _ in range(MAX_LEVELS):
        block = bl.Residual(block)
    with pytest.raises(bl.ShapeError, match=r"comes to 5,001 blocks in each other; 5,000 is"):
        bl.infer(block, (3,))
    assert bl.infer(block.body, (3,)).levels() == MAX_LEVELS
    assert bl.from_json(bl.to_json(block)) == block


def test_as_many_blocks_as_there_may_be():
    assert len(list(bl.infer(bl.Repeat(bl.Tanh(), 20_000), (3,)).walk())) == 20_001
    with pytest.raises(bl.ShapeError, match="100,000 is the most"):
        bl.infer(bl.Repeat(bl.Tanh(), MAX_NODES), (3,))


def test_shared_inside_itself():
    inner = {"type": "Shared", "key": "a", "block": {"type": "Residual", "body": DENSE}}
    text = file_of({"type": "Shared", "key": "a", "block": {"type": "Residual", "body": inner}})
    with pytest.raises(bl.FieldError, match=r"Shared\('a'\) holds"):
        bl.infer(bl.from_json(text), (3,))


def test_memory(monkeypatch):
    """What the machine cannot hold is refused with both numbers, before it is asked for."""
    node = bl.infer(bl.Dense(2**20), (2**20,))
    for verb in (bl.init, lambda node: bl.lower(node, "numpy")):
        with pytest.raises(bl.ParamError, match=r"need 4.0 TiB, but the machine has [\d.]+ GiB"):
            verb(node)
    node = bl.infer(bl.Upsample((10**6, 10**5)), (3, 3, 1))
    with pytest.raises(bl.ShapeError, match=r"at the top makes .* needs 3.3 TiB, but the machine"):
        bl.lower(node, "numpy")
    monkeypatch.setattr(_limits, "os", None)
    assert _limits.machine_memory() is None


def test_integers_of_fields_have_64_bits():
    with pytest.raises(bl.FieldError, match=r"Dense.features must be .* below 2\*\*63, got 1"):
        bl.Dense(2**64)
    with pytest.raises(bl.FieldError, match="got a int too large to print"):
        bl.Dense(10**5000)
    with pytest.raises(bl.FieldError, match=r"Dropout.rate must be"):
        bl.Dropout(10**400)
    with pytest.raises(bl.FieldError, match="must be an array of numbers"):
        bl.Dense(3, bias_init=[10**400])


def test_what_no_file_holds_is_not_written():
    for block, words in (
        (bl.Dense(1, bias_init=[np.inf]), "file.network.bias_init.values[0] is inf, which is no"),
        (custom_blocks.Bounded("a\0"), "holds NUL"),
        (custom_blocks.Bounded("\ud800"), "half of a surrogate pair"),
        (custom_blocks.Bounded(2**70), "is an integer of more than 64 bits"),
    ):
        with pytest.raises(bl.FileError) as error:
            bl.to_json(block)
        assert words in str(error.value)


def test_numbers_that_a_dtype_cannot_hold():
    for init in (bl.initializers.Constant(1e30), bl.initializers.Orthogonal(1e30)):
        node = bl.infer(bl.Dense(2, kernel_init=init), (3,), dtype="float16")
        with pytest.raises(bl.ParamError, match=r"=1e\+30\) is too large for float16"):
            bl.init(node)
    with pytest.raises(bl.FieldError, match="is too far for a float"):
        bl.initializers.Uniform(-1e308, 1e308)


# Listings


class Worded(bl.Custom):
    """A text in every place that a Custom block has for one."""

    word: str = "x"
    words: tuple = ()

    def forward(self, ops, x):
        return x * float(len(self.word)) + float(len(self.words))


def texts(code):
    return {n.value for n in ast.walk(ast.parse(code)) if isinstance(n, ast.Constant)}


def skeleton(code):
    """The structure of code, without its constants."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant):
            node.value = None
    return ast.dump(tree)


ADVERSARIAL = [
    '"); import os  # ',
    "'''",
    '"""',
    "\\",
    "\\'",
    "\n\nimport os",
    "{seed}",
    "%s",
    "\u202e",
]


@given(st.one_of(st.sampled_from(ADVERSARIAL), st.text(max_size=30)))
@settings(deadline=None, max_examples=60)
def test_texts_are_literals_in_listings(text):
    """Whatever a text holds, the code around it is the same."""
    plain = bl.source(Worded("word", ("word",)), "numpy", input_shape=(3,))
    code = bl.source(Worded(text, (text,)), "numpy", input_shape=(3,))
    assert skeleton(code) == skeleton(plain)
    assert text in texts(code)


FIELDS = {
    "child": lambda text: {"type": "Sequential", "blocks": [TANH], "names": [text]},
    "branch": lambda text: {"type": "Parallel", "blocks": [TANH], "names": [text]},
    "key": lambda text: {"type": "Shared", "key": text, "block": TANH},
    "pattern": lambda text: {"type": "Rearrange", "pattern": f"b {text} -> b {text}"},
    "rest": lambda text: {"type": "Rearrange", "pattern": text, "axes_lengths": []},
    "length": lambda text: {
        "type": "Rearrange",
        "pattern": f"b ({text} c) -> b {text} c",
        "axes_lengths": [[text, 1]],
    },
    "reduction": lambda text: {"type": "Reduce", "pattern": "b c -> b", "reduction": text},
    "weights": lambda text: {
        "type": "EinMix",
        "pattern": f"b c -> b {text}",
        "weight_shape": f"c {text}",
        "axes_lengths": [[text, 2]],
    },
    "kind": lambda text: {"type": "Activation", "kind": text},
    "type": lambda text: {"type": text},
    "init": lambda text: {"type": "Dense", "features": 3, "kernel_init": text},
    "padding": lambda text: {"type": "MaxPool", "kernel_size": [1], "padding": text},
}
NAMES = ["model", "inputs", "nn", "print", "__debug__", "_", "match", "x", "self", "os", "Layer"]


@pytest.mark.parametrize("field", FIELDS)
def test_texts_of_files_are_names_or_refused(field, backend):
    """A listing has the structure that it has with a plain word, or there is none."""
    inputs = {"padding": (4, 2), "length": (4,)}.get(field, (4,))
    plain = FIELDS[field]("word")
    for text in [*ADVERSARIAL, *NAMES, "a b", "a)", "(a", "...", "1", "a,b", "a=1"]:
        try:
            block = bl.from_json(file_of(FIELDS[field](text)))
            code = bl.source(block, backend, input_shape=inputs)
        except bl.BlockError:
            continue
        assert "import os" not in code
        names = {n.id for n in ast.walk(ast.parse(code)) if isinstance(n, ast.Name)}
        assert all(name.isidentifier() for name in names)
        if (
            field in ("child", "branch", "key", "pattern", "length", "weights")
            and text.isidentifier()
        ):
            word = bl.source(bl.from_json(file_of(plain)), backend, input_shape=inputs)
            assert len(ast.dump(ast.parse(code)).split("(")) == len(
                ast.dump(ast.parse(word)).split("(")
            )


# Fuzzing


@pytest.fixture(scope="module")
def samples():
    return {name: make() for name, make in fuzz.KINDS.items()}


@pytest.mark.parametrize("kind", fuzz.KINDS)
def test_changed_files(kind, samples, tmp_path):
    """Each is refused by an error of isoblocks, or is what it was."""

    @given(st.randoms(use_true_random=False), st.integers(0, 10**6))
    @settings(deadline=None, max_examples=60)
    def check(random, index):
        sample = samples[kind][index % len(samples[kind])]
        name, data = fuzz.mutated(random, sample, samples[kind])
        for file in tmp_path.iterdir():
            file.unlink()
        for file, content in (sample.files | {name: data}).items():
            (tmp_path / file).write_bytes(content)
        try:
            sample.read(tmp_path)
        except bl.BlockError:
            return

    check()


def test_a_failure_is_seen(samples, tmp_path):
    """The control: files that are read without their checks."""
    sample = fuzz.Sample({"net.json": b"{}"}, lambda folder: {}["missing"])
    figures = fuzz.Figures()
    fuzz.attempt(sample, "net.json", b"[]", tmp_path, figures)
    assert figures.failures == 1
    good = samples["parameters"][0]
    other = fuzz.Sample(samples["parameters"][2].files, good.read)
    fuzz.attempt(other, *next(iter(other.files.items())), tmp_path, figures)
    assert figures.failures == 2


def run_script(name, *arguments):
    root = Path(__file__).parent.parent
    paths = os.pathsep.join([str(root), str(root / "tests")])
    command = [sys.executable, str(root / "tests" / name), *map(str, arguments)]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=7200,
        check=False,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
    )


def test_a_sample_in_bounded_memory():
    """The fuzzer's own process may use no more than its limit of address space."""
    done = run_script("fuzz.py", "--files", 600, "--seed", 7)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "accepted" in done.stdout


@pytest.mark.exhaustive
def test_a_hundred_thousand_files():
    done = run_script("fuzz.py", "--files", 100_000, "--seed", 0)
    assert done.returncode == 0, done.stderr[-3000:]


def test_killed_while_saving():
    done = run_script("killed.py", 10)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("10 times") == 4


@pytest.mark.exhaustive
def test_killed_a_hundred_times():
    done = run_script("killed.py", 100)
    assert done.returncode == 0, done.stderr


def test_a_deep_call_is_bounded():
    with pytest.raises(bl.BlockError, match="100,000 levels"):
        call_deep(100_000, len, [])

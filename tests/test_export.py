"""Listings with parameters: they run alone, and compute what the reference computes."""

import ast
import dis
import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path
from types import CodeType

import numpy as np
import pytest
from test_parity import ROUNDED, UNSUPPORTED

import blocks as bl
from backends import _transforms as transforms
from backends._custom import unparse
from backends._expression import Name, Subscript, render
from backends._loading import NUMPY, TORCH
from blocks import cli
from blocks._backends import installed
from blocks._parity import TOLERANCES, Inputs, random_params, relative
from blocks._spec import leaves, map_value
from cases import CASES
from conftest import FRAMEWORKS, need

# Runs every listing below a folder on its parameters and inputs, where there is no isoblocks.
ALONE = """
import importlib.abc, json, runpy, sys
from pathlib import Path
import numpy as np

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("blocks", "backends"):
            raise ImportError(f"a listing imports {name}")

sys.meta_path.insert(0, Blocked())
framework, folder = sys.argv[1], Path(sys.argv[2])

def flat(y):
    return [part for member in y for part in flat(member)] if isinstance(y, tuple) else [y]

def nested(members, like):
    if isinstance(like, list):
        return tuple(nested(members, part) for part in like)
    return tensor(next(members), like)

def tensor(a, dtype):
    if framework == "torch":
        import torch
        return torch.tensor(a).to(getattr(torch, dtype))
    if framework == "keras":
        import keras
        return keras.ops.convert_to_tensor(a, dtype)
    if framework == "flax":
        import jax
        return jax.numpy.asarray(a, dtype)
    return a if dtype == "bfloat16" else a.astype(dtype)

def run(spaces, x):
    model = spaces["model"]
    if framework == "torch":
        import torch
        with torch.no_grad():
            return [a.double().numpy() for a in flat(model.eval()(x))]
    if framework == "keras":
        import keras
        y = flat(model(x))
        keras.config.set_dtype_policy("float32")
        return [keras.ops.convert_to_numpy(keras.ops.cast(a, "float64")) for a in y]
    if framework == "flax":
        import jax
        model.eval()
        y = flat(model(*x) if isinstance(x, tuple) else model(x))
        jax.config.update("jax_enable_x64", False)
        return [np.asarray(a).astype(np.float64) for a in y]
    return flat(model(x))

for path in sorted(folder.iterdir()):
    listing = path / f"{framework}_model.py"
    if not listing.exists():
        continue
    spaces = runpy.run_path(str(listing), run_name="listing")
    if (path / "params.safetensors").exists():
        spaces["load_params"](str(path / "params.safetensors"))
    with np.load(path / "x.npz") as arrays:
        members = iter([arrays[name] for name in sorted(arrays)])
    x = nested(members, json.loads((path / "dtypes.json").read_text()))
    np.savez(path / f"{framework}.npz", *run(spaces, x))
assert not {"blocks", "backends"} & sys.modules.keys()
"""

BY_NAME = {case.name: case for case in CASES}
ROWS = [
    "Embedding beside Dense",
    "Conv1d",
    "ConvTranspose2d",
    "BatchNorm",
    "LayerNorm",
    "EinMix",
    "MultiHeadAttention",
    "MultiHeadAttention to another with padding",
    "Parameter",
    "Constant",
    "Repeat",
    "Shared Conv",
    "Custom",
    "TransformerDecoderLayer",
]
RECURRENT = bl.Sequential(
    bl.LSTM(4, bidirectional=True, return_sequences=True, bias_init="normal"),
    bl.GRU(3, bidirectional=True, return_sequences=True, bias_init="normal"),
    bl.GRU(5, use_bias=False, return_sequences=True),
    bl.SimpleRNN(2, bias_init="normal"),
)
TWICE = bl.Repeat(bl.Sequential(bl.Dense(4), bl.Repeat(bl.Residual(bl.Dense(4)), 3)), 2)
IMAGE = bl.Sequential(
    bl.Conv(4, (3, 2), stride=2, padding="same", groups=2),
    bl.BatchNorm(),
    bl.ConvTranspose(6, (3, 2), groups=2, stride=(2, 1)),
    bl.LayerNorm(),
    bl.Flatten(),
    bl.Dense(5),
)
PLAIN = bl.Sequential(
    bl.Conv(4, (3, 2)), bl.BatchNorm(), bl.Tanh(), bl.Flatten(), bl.Dense(5), bl.Softmax()
)
SHARED = bl.Shared("tied", bl.Sequential(bl.Dense(4), bl.BatchNorm(), bl.Tanh()))
SHARED_LOOP = bl.Shared("loop", bl.Repeat(bl.Dense(4), 3))
INNER = bl.Shared("inner", bl.Dense(4))
OUTER = bl.Shared("outer", bl.Sequential(INNER, bl.ReLU(), bl.Dense(4)))
NETS = {
    "recurrent": (RECURRENT, (5, 3), {}),
    "grouped attention": (bl.MultiHeadAttention(4, num_kv_heads=2, bias_init="normal"), (5, 8), {}),
    "loops inside loops": (TWICE, (4,), {}),
    "shared inside loops": (bl.Repeat(bl.Sequential(SHARED, bl.Dense(4)), 3), (4,), {}),
    "loops inside shared": (bl.Sequential(SHARED_LOOP, bl.ReLU(), SHARED_LOOP), (4,), {}),
    "shared inside shared": (bl.Sequential(OUTER, INNER, bl.Tanh(), OUTER), (4,), {}),
    "once": (bl.Repeat(bl.Dense(4), 1), (4,), {}),
    "channels_last": (IMAGE, (6, 5, 4), {}),
    "channels_first": (IMAGE, (4, 6, 5), {"layout": "channels_first"}),
    "no parameters": (bl.Sequential(bl.ReLU(), bl.Flatten()), (3, 4), {}),
    "any length": (bl.LSTM(3, return_sequences=True), (None, 4), {}),
    "two of one size": (bl.Parallel(bl.Dense(3), bl.Dense(3), merge="tuple"), (4,), {}),
    "float64": (PLAIN, (5, 6, 2), {"dtype": "float64"}),
    "bfloat16": (PLAIN, (5, 6, 2), {"dtype": "bfloat16", "param_dtype": "bfloat16"}),
}
SAMPLE = {name: (BY_NAME[name].base, BY_NAME[name].shape, {}) for name in ROWS} | NETS
FIRST = {"layout": "channels_first"}
EVERYTHING = {
    f"{case.name}, {variant}": (block, case.shape, {})
    for case in CASES
    for variant, block in case.variants()
}
OTHERWISE = {
    f"{case.name}, channels_first": (case.base, (case.shape[-1], *case.shape[:-1]), FIRST)
    for case in CASES
    if case.spatial
} | {
    f"{case.name}, float64": (case.base, case.shape, {"dtype": "float64", "param_dtype": "float64"})
    for case in CASES
}


def written(nets, framework: str, folder: Path):
    """A folder for each network, with listing, parameters and inputs; what the reference makes."""
    wanted = {}
    for i, (name, (block, shape, options)) in enumerate(nets.items()):
        node = bl.infer(block, shape, **options)
        params = random_params(node, i)
        x = Inputs.draw(node, 3, np.random.default_rng(i)).x
        place = folder / f"{i:04}"
        try:
            bl.export_source(node, place, backends=[framework], params=params)
        except bl.UnsupportedError:
            assert (framework, name.partition(",")[0]) in UNSUPPORTED, name
            continue
        arrays = {
            f"{j:02}": a.astype(np.float32) if a.dtype.name == "bfloat16" else a
            for j, a in enumerate(leaves(x))
        }
        np.savez(place / "x.npz", **arrays)
        dtypes = map_value(lambda spec: spec.dtype, node.in_spec)
        (place / "dtypes.json").write_text(json.dumps(dtypes))
        wide = bl.infer(block, shape, **(options | {"dtype": "float64", "param_dtype": "float64"}))
        wide_params = {path: a.astype(np.float64) for path, a in params.items()}
        y = bl.apply(bl.lower(wide, "numpy", params=wide_params), x)
        wanted[place.name] = name, y, allowed(node, framework)
    return wanted


def allowed(node: bl.Node, framework: str) -> float:
    """How far a listing may be from the reference."""
    if node.dtype != "float64":
        return TOLERANCES[node.dtype]["outputs"]
    kinds = {
        word for n in node.walk() for word in (type(n.form).__name__, getattr(n.form, "kind", ""))
    }
    limits = [limit for name, kind, limit in ROUNDED if name == framework and kind in kinds]
    return max([1e-10, *limits])


def run_alone(framework: str, folder: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    run = subprocess.run(
        [sys.executable, "-I", "-c", ALONE, framework, str(folder)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=folder,
    )
    assert run.returncode == 0, run.stderr[-3000:]


def check_alone(nets, framework: str, folder: Path) -> None:
    wanted = written(nets, framework, folder)
    run_alone(framework, folder)
    wrong = {}
    for place, (name, y, limit) in wanted.items():
        with np.load(folder / place / f"{framework}.npz") as arrays:
            got = tuple(arrays[key] for key in arrays)
        error = relative(got, tuple(leaves(y)))[0]
        if not error < limit:
            wrong[name] = error
    assert not wrong, wrong


def test_listings_compute_the_same_without_isoblocks(backend, tmp_path):
    check_alone(SAMPLE, backend, tmp_path)


@pytest.mark.exhaustive
@pytest.mark.parametrize("nets", [EVERYTHING, OTHERWISE], ids=["variants", "otherwise"])
def test_every_listing_computes_the_same_without_isoblocks(nets, backend, tmp_path):
    check_alone(nets, backend, tmp_path)


TRANSFORMS = [
    *product(
        [transforms.same, transforms.out_in, transforms.in_first, transforms.out_first],
        [(2, 3), (2, 3, 4), (2, 3, 4, 5), (2, 3, 4, 5, 6)],
    ),
    *product([transforms.flat, transforms.one_row], [(3,), (2, 3)]),
    *product([transforms.turned_around(groups) for groups in (1, 2, 3)], [(3, 2, 6, 4), (2, 6, 1)]),
    (transforms.parted(0, 2), (6, 5)),
    (transforms.parted(1, 5), (6, 5)),
    (transforms.rearranged("a b", "b 1 a 1"), (3, 4)),
    (transforms.rearranged("a b", "a b"), (3, 4)),
]


@pytest.mark.parametrize(("transform", "shape"), TRANSFORMS)
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_what_is_printed_of_a_transform_is_what_it_does(transform, shape, library):
    array = np.random.default_rng(0).normal(size=shape)
    native = transform.to_native(array)
    np.testing.assert_array_equal(transform.to_canonical(native, shape), array)
    words, given, module = NUMPY, array, np
    if library == "torch":
        import torch as module

        need("torch")
        words, given = TORCH, module.tensor(array)
    text = render(transform.code(Subscript("params", "0/kernel"), shape, words))
    names = {"np": np, "torch": module, "params": {"0/kernel": given}}
    np.testing.assert_array_equal(np.asarray(eval(text, names)), native)


def test_a_plain_transpose_is_printed_as_people_write_it():
    kernel = Subscript("params", "0/kernel")
    assert render(transforms.out_first.code(kernel, (2, 3), TORCH)) == 'params["0/kernel"].T'
    wide = transforms.out_first.code(kernel, (2, 3, 4, 5), TORCH)
    assert render(wide) == 'torch.permute(params["0/kernel"], (3, 2, 0, 1))'
    assert transforms.out_first.code(Name("a"), (1, 2), NUMPY).function == "np.transpose"


def test_the_listing_of_torch():
    """What a reader sees, to the letter."""
    need("torch")
    net = bl.Sequential(bl.Dense(4), bl.ReLU(), bl.MultiHeadAttention(2))
    text = bl.source(net, "torch", input_shape=(3, 5), loading=True)
    assert text.startswith('"""A torch model from float32 (batch, 3, 5) to float32 (batch, 3, 4).')
    assert text.endswith('''\
def load_params(path):
    """Set all parameters of the model to those in a file."""
    params = load_file(path)
    if len(params) > 10:
        raise ValueError(f"{path} has {len(params)} arrays, the model 10")
    state = {
        "0.weight": params["0/kernel"].T,
        "0.bias": params["0/bias"],
        "2.in_proj_weight": torch.cat(
            [
                params["2/query_kernel"].T,
                params["2/key_kernel"].T,
                params["2/value_kernel"].T,
            ]
        ),
        "2.in_proj_bias": torch.cat(
            [params["2/query_bias"], params["2/key_bias"], params["2/value_bias"]]
        ),
        "2.out_proj.weight": params["2/out_kernel"].T,
        "2.out_proj.bias": params["2/out_bias"],
    }
    model.load_state_dict(model.state_dict() | state)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        load_params(sys.argv[1])
    x = torch.zeros((2, 3, 5))
    with torch.no_grad():
        y = model.eval()(x)
    print(y.shape)
''')


def test_repetitions_are_one_line_in_flax():
    need("flax")
    text = bl.source(bl.Repeat(bl.Dense(4), 12), "flax", input_shape=(4,), loading=True)
    assert 'np.stack([params[f"{i}/kernel"] for i in range(12)])' in text


@pytest.mark.parametrize("framework", ["numpy", *FRAMEWORKS])
def test_parameters_of_another_network_are_refused(framework, tmp_path):
    """By shape, by name, and for what is left over."""
    need(framework)
    folder = bl.export_source(bl.Dense(3), tmp_path, backends=[framework], input_shape=(1,))[
        0
    ].parent
    names: dict = {"__name__": "listing"}
    exec((folder / f"{framework}_model.py").read_text(), names)
    wrong = [
        ({"kernel": (1, 1), "bias": (3,)}, r"1, 1"),
        ({"kernel": (1, 2), "bias": (3,)}, r"1, 2|2, 1"),  # torch's is transposed
        ({"other": (1, 3), "bias": (3,)}, "'kernel'"),
        ({"kernel": (1, 3)}, "'bias'"),
        ({"kernel": (1, 3), "bias": (3,), "more": (1,)}, "has 3 arrays, the model 2"),
    ]
    for shapes, message in wrong:
        arrays = {path: np.ones(shape, "float32") for path, shape in shapes.items()}
        bl.save_params(arrays, tmp_path / "wrong.safetensors")
        with pytest.raises((ValueError, KeyError, RuntimeError), match=message):
            names["load_params"](tmp_path / "wrong.safetensors")


# Formatters


def formatted(folder: Path) -> None:
    """Raise unless ruff, as it comes, would change nothing and sort no import."""
    for command in (["format", "--check"], ["check", "--select", "I,F,UP"]):
        run = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--isolated", str(folder)],
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stdout[-3000:]


def long_names() -> bl.Block:
    """Names that do not fit into a line with what stands around them."""
    name = "a_name_that_is_quite_long_for_a_layer"
    inner = bl.Sequential(**{name: bl.MultiHeadAttention(2), f"{name}_2": bl.GRU(4)})
    return bl.Sequential(
        **{name: bl.Repeat(bl.Dense(4), 3), f"{name}_2": inner, "last": bl.Dense(2)}
    )


def test_listings_are_laid_out_as_formatters_do(backend, tmp_path):
    pytest.importorskip("ruff")
    nets = SAMPLE | {"long names": (long_names(), (5, 4), {})}
    for name in ("Custom of a tuple", "Custom that makes a tuple", "VAELoss"):
        nets[name] = BY_NAME[name].base, BY_NAME[name].shape, {}
    for i, (block, shape, options) in enumerate(nets.values()):
        text = bl.source(bl.infer(block, shape, **options), backend, loading=True)
        (tmp_path / f"listing_{i}.py").write_text(text)
    formatted(tmp_path)


@pytest.mark.exhaustive
def test_every_listing_is_laid_out_as_formatters_do(backend, tmp_path):
    """But for long lines in the code of Custom blocks, which stay."""
    for i, case in enumerate(CASES):
        if case.name.startswith("Custom with "):
            continue
        for loading in (False, True):
            try:
                text = bl.source(case.base, backend, input_shape=case.shape, loading=loading)
            except bl.UnsupportedError:
                continue
            (tmp_path / f"listing_{i}_{loading}.py").write_text(text)
    formatted(tmp_path)


def loaded_names(code: CodeType) -> set[str]:
    """The names that are read where they are no variables of a function."""
    found = {
        i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_NAME", "LOAD_GLOBAL")
    }
    return found.union(*(loaded_names(c) for c in code.co_consts if isinstance(c, CodeType)))


def test_a_listing_defines_nothing_that_it_does_not_use(backend):
    for name, (block, shape, options) in SAMPLE.items():
        text = bl.source(bl.infer(block, shape, **options), backend)
        defined = {
            s.name for s in ast.parse(text).body if isinstance(s, (ast.ClassDef, ast.FunctionDef))
        }
        assert defined <= loaded_names(compile(text, name, "exec")), name


AS_PYTHON_WRITES_IT = r"""
class A:
    'it\'s a'
    b = ('c', 'd"', 'e\n', f'{x}')
    @property
    def f(self):
        def g():
            pass
        @g
        def h():
            return ''
        return h
"""


def test_a_method_of_a_custom_block_is_spaced_and_quoted_as_formatters_do():
    tree = ast.parse(AS_PYTHON_WRITES_IT)
    text = unparse(tree)
    assert ast.dump(ast.parse(text)) == ast.dump(tree)
    assert (
        text
        == '''\
class A:
    """it's a"""

    b = ("c", 'd"', 'e\\n', f'{x}')

    @property
    def f(self):

        def g():
            pass

        @g
        def h():
            return ""

        return h'''
    )


# Files and the command line

NETWORK = "import blocks as bl\nnet = bl.Sequential(bl.Dense(3), bl.ReLU())\n"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "network.py"
    path.write_text(NETWORK)
    return f"{path}:net"


def test_all_listings_and_the_parameters(file, tmp_path, capsys):
    folder = tmp_path / "new" / "folder"
    command = ["source", file, "--input", "4", "--all", "-o", str(folder), "--seed", "3"]
    assert cli.main(command) == 0
    names = [f"{name}_model.py" for name in installed()] + ["params.safetensors"]
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    assert all(
        str(folder / name) in capsys_text
        for capsys_text in [capsys.readouterr().out]
        for name in names
    )
    node = bl.infer(bl.Sequential(bl.Dense(3), bl.ReLU()), (4,))
    kept = bl.load_params_file(folder / "params.safetensors")
    np.testing.assert_array_equal(kept["0/kernel"], bl.init(node, 3)["0/kernel"])


def test_a_missing_framework_is_left_out_and_named(file, tmp_path, capsys, monkeypatch):
    import blocks._backends as found

    monkeypatch.setattr(found, "why_missing", lambda n: "" if n == "numpy" else f"{n} needs it")
    assert cli.main(["source", file, "--input", "4", "--all", "-o", str(tmp_path / "out")]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "numpy_model.py",
        "params.safetensors",
    ]
    assert "left out: torch needs it" in capsys.readouterr().err


def test_one_file(file, tmp_path, capsys):
    path = tmp_path / "mine.py"
    command = ["source", file, "--input", "4", "--backend", "numpy", "-o", str(path)]
    assert cli.main(command) == 0
    assert "def load_params(path):" in path.read_text()
    assert capsys.readouterr().out == ""


def test_given_parameters(file, tmp_path):
    node = bl.infer(bl.Sequential(bl.Dense(3), bl.ReLU()), (4,))
    params = bl.init(node, seed=9)
    bl.save_params(params, tmp_path / "mine.safetensors")
    command = ["source", file, "--input", "4", "--backend", "numpy", "-o", str(tmp_path / "out")]
    assert cli.main([*command, "--params", str(tmp_path / "mine.safetensors")]) == 0
    kept = bl.load_params_file(tmp_path / "out" / "params.safetensors")
    np.testing.assert_array_equal(kept["0/kernel"], params["0/kernel"])


MISTAKES = [
    (["--all"], "FieldError: --all writes several files: add -o DIR."),
    (["--all", "-o", "one.py"], "FieldError: --all writes several files: add -o DIR."),
    (["--backend", "numpy", "--params", "a.safetensors"], "FieldError: --params are written"),
    (["--backend", "numpy", "-o", "{file}/x"], "FileError: "),
    (["--backend", "numpy", "-o", "{file}/x.py"], "FileError: "),
    (["--backend", "nunpy", "-o", "{out}"], "Did you mean 'numpy'?"),
    (["--backend", "numpy", "-o", "{out}", "--params", "none.safetensors"], "FileError: "),
    (["--backend", "numpy", "-o", "{out}", "--seed", "-1"], "FieldError: "),
]


@pytest.mark.parametrize(("options", "message"), MISTAKES, ids=lambda v: str(v)[:40])
def test_mistakes_are_one_message_and_write_nothing(options, message, file, tmp_path, capsys):
    places = {"file": file.rpartition(":")[0], "out": str(tmp_path / "out")}
    command = [option.format(**places) for option in options]
    assert cli.main(["source", file, "--input", "4", *command]) == 2
    assert message in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "__pycache__") == ["network.py"]


def test_backends_are_a_list():
    with pytest.raises(bl.FieldError, match="backends takes a list of names, got 'numpy'"):
        bl.export_source(bl.Dense(3), "nowhere", backends="numpy", input_shape=(4,))


def test_parameters_of_another_network_are_not_written(tmp_path):
    with pytest.raises(bl.ParamError):
        bl.export_source(
            bl.Dense(3), tmp_path / "out", backends=["numpy"], params={}, input_shape=(4,)
        )
    assert not (tmp_path / "out").exists()

"""The command line, and the demo."""

import os
import subprocess
import sys

import numpy as np
import pytest

import blocks as bl
from blocks import cli, demo
from blocks._backends import installed
from conftest import FRAMEWORKS, need

NETWORK = """\
import blocks as bl
net = bl.Sequential(bl.Conv(4, (3, 2)), bl.ReLU(), bl.Flatten(), bl.Dense(3))
def made():
    return net
number = 3
pair = bl.Sample()
node = bl.infer(net, (6, 5, 2))
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "network.py"
    path.write_text(NETWORK)
    return path


def test_summary(file, capsys):
    assert cli.main(["summary", f"{file}:net", "--input", "5,6,2"]) == 0
    out = capsys.readouterr().out
    assert "Conv" in out
    assert "parameters" in out


def test_several_inputs_and_a_node(file, capsys):
    assert cli.main(["summary", f"{file}:pair", "--input", "4,3;4,3"]) == 0
    assert "((4, 3), (4, 3))" in capsys.readouterr().out
    assert cli.main(["summary", f"{file}:node"]) == 0
    assert "Input (6, 5, 2)" in capsys.readouterr().out


def test_a_json_file(tmp_path, capsys):
    bl.save(bl.Sequential(bl.Dense(7), bl.ReLU()), tmp_path / "net.json")
    assert cli.main(["summary", str(tmp_path / "net.json"), "--input", "5"]) == 0
    assert "Dense" in capsys.readouterr().out


def test_source_of_a_function(file, capsys, backend):
    assert cli.main(["source", f"{file}:made", "--input", "5,6,2", "--backend", backend]) == 0
    text = capsys.readouterr().out
    compile(text, "listing.py", "exec")
    assert "model = " in text


def test_parity(file, capsys):
    command = ["parity", f"{file}:net", "--input", "2,5,6", "--layout", "channels_first"]
    assert cli.main([*command, "--dtype", "float64", "--backends", "numpy"]) == 0
    assert "Parity in float64" in capsys.readouterr().out


MISTAKES = [
    (["summary", "{file}", "--input", "5"], "FILE must be net.json or module.py:name, got"),
    (["summary", "nothing.json", "--input", "5"], "FieldError: there is no file 'nothing.json'."),
    (["summary", "nothing.py:net", "--input", "5"], "FieldError: there is no file 'nothing.py'."),
    (["summary", "{file}:nett", "--input", "5"], "has no 'nett'. Did you mean 'net'?"),
    (["summary", "{file}:number", "--input", "5"], "is no block, but 3."),
    (["summary", "{file}:pair", "--input", "4;3,x"], "must be sizes such as 8,8,1, got '3,x'"),
    (["summary", "{file}:net", "--input", "5,x"], "--input must be sizes such as 8,8,1, got '5,x'"),
    (["summary", "{file}:net", "--input", "5"], "ShapeError: Conv at '0' needs 2 spatial axes"),
    (["source", "{file}:net", "--input", "5,6,2", "--backend", "touch"], "Did you mean 'torch'?"),
    (["demo", "--epochs", "0"], "FieldError: --epochs must be a positive int, got 0."),
]


@pytest.mark.parametrize(("command", "message"), MISTAKES, ids=[m[:40] for _, m in MISTAKES])
def test_mistakes_are_one_message(command, message, file, capsys):
    assert cli.main([part.replace("{file}", str(file)) for part in command]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err


def test_the_digits_are_those_of_scikit_learn():
    datasets = pytest.importorskip("sklearn.datasets")
    bunch = datasets.load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.images))
    data = demo.Digits.load()
    assert np.array_equal(data.x[..., 0] * 16, bunch.images[order[360:]])
    assert np.array_equal(data.test_x[..., 0] * 16, bunch.images[order[:360]])
    assert np.array_equal(data.test_y, bunch.target[order[:360]])


def test_the_demo_trains_every_backend_to_the_same_curve(tmp_path, capsys):
    for name in FRAMEWORKS:
        need(name)
    pytest.importorskip("matplotlib")
    plot = tmp_path / "curves.png"
    runs = demo.demo(plot=str(plot))
    assert [run.backend for run in runs] == installed()
    curves = np.array([run.history.losses for run in runs])
    assert (curves.max(0) - curves.min(0))[:50].max() < 5e-6
    assert all(run.accuracy > 0.95 for run in runs)
    assert plot.read_bytes().startswith(b"\x89PNG")
    out = capsys.readouterr().out
    for part in ("parameters", "Parity in float32", "test accuracy", "over the first 50 steps"):
        assert part in out


def test_the_demo_runs_on_numpy_alone():
    """With every framework missing it uses the reference, and says what to install."""
    code = (
        "import sys\n"
        "for name in ('torch', 'tensorflow', 'keras', 'jax', 'flax', 'optax', 'sklearn'):\n"
        "    sys.modules[name] = None\n"
        "from blocks import cli\n"
        "sys.exit(cli.main(['demo', '--epochs', '1']))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ
    )
    assert run.returncode == 0, run.stderr
    text = " ".join(run.stdout.split())
    assert "numpy" in text
    for name in ("torch", "keras", "flax"):
        assert f"pip install 'isoblocks[{name}]'" in text


def test_a_file_does_not_speak_to_the_terminal(tmp_path, capsys):
    bl.save(bl.Dense(2), tmp_path / "net.json")
    command = ["import", str(tmp_path / "net.json"), "\x1b[31mnet.pth", "--input", "3"]
    assert cli.main(command) == 2
    said = capsys.readouterr().err
    assert r"\x1b[31mnet.pth" in said
    assert "\x1b" not in said


@pytest.mark.parametrize("command", [["parity"], ["source", "--backend", "keras"]], ids=" ".join)
def test_frameworks_are_imported_quietly(tmp_path, command):
    """What TensorFlow says when it is imported does not stand between what was asked for."""
    need("keras")
    bl.save(bl.Dense(2), tmp_path / "net.json")
    command = [command[0], str(tmp_path / "net.json"), "--input", "3", *command[1:]]
    code = f"import sys; from blocks import cli; sys.exit(cli.main({command!r}))"
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert (run.returncode, run.stderr) == (0, "")

"""What the documents say is true."""

import ast
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import blocks as bl
from conftest import example, need

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
CODE = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_readmes_listings_are_what_source_prints():
    namespace: dict = {}
    exec(CODE[0], namespace)
    calls = re.findall(r"`(bl\.source\(.*?\))`", README)
    assert len(calls) == 3
    for call, listing in zip(calls, CODE[1:4], strict=True):
        need(call.split('"')[1])
        assert eval(call, namespace).endswith(listing)


def test_the_readmes_tour_runs():
    need("torch")
    rng = np.random.default_rng(0)
    namespace: dict = {
        "x": rng.normal(size=(2, 28, 28, 1)),
        "cotangent": rng.normal(size=(2, 10)),
        "images": rng.normal(size=(4, 28, 28, 1)),
        "labels": rng.integers(0, 10, 4),
    }
    exec(CODE[0], namespace)
    exec(CODE[4], namespace)
    assert namespace["report"]
    assert namespace["node"].out_spec.shape == (10,)


def test_ci_runs_the_readmes_second_command():
    commands = re.findall(r"```sh\n(.*?)\n```", README, re.DOTALL)
    assert len(commands) == 2
    assert commands[1] in (ROOT / ".ci" / "run").read_text()


def test_every_dependency_is_pinned():
    pins = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    text = (ROOT / "pyproject.toml").read_text()
    names = set(re.findall(r'"([A-Za-z0-9-]+)>=', text)) - {"setuptools", "tensorflow"}
    assert names <= pins


def test_the_version_is_in_the_changelog():
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.M)[1]
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_contributing_is_short():
    assert len((ROOT / "CONTRIBUTING.md").read_text().splitlines()) < 60


def test_every_module_is_in_its_readme():
    for package in ("blocks", "backends"):
        text = (ROOT / package / "README.md").read_text()
        for path in (ROOT / package).glob("*.py"):
            if path.stem != "__init__" and not path.stem.endswith("_modules"):
                assert re.search(rf"\b{path.stem}\b", text), path


EXAMPLES = sorted((ROOT / "examples").glob("[0-9]*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_examples_run(path):
    """With one command each; imported, they do nothing."""
    assert "net" in runpy.run_path(str(path), run_name="imported")
    command = [sys.executable, str(path), "--backend", "numpy"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout
    assert f"python examples/{path.name}" in (ast.get_docstring(ast.parse(path.read_text())) or "")


def test_examples_draw(tmp_path):
    """Before any training: the pictures themselves are looked at by people."""
    pytest.importorskip("matplotlib")
    disk, digits = example("14_mini_framework"), example("13_variational_autoencoder")
    net = bl.lower(disk.net, "numpy", input_shape=(2,))
    disk.draw(tmp_path / "disk.png", {"numpy": net}, {"numpy": [0.2] * 30}, disk.disk(50, seed=0))
    net = bl.lower(digits.trained, "numpy", input_shape=digits.DIGIT, layout=digits.LAYOUT)
    digits.draw(tmp_path / "digits.png", net, np.zeros((3, *digits.DIGIT)))
    for path in (tmp_path / "disk.png", tmp_path / "digits.png"):
        assert path.read_bytes().startswith(b"\x89PNG")


def test_examples_are_numbered_in_order():
    numbers = [int(path.name[:2]) for path in EXAMPLES]
    assert numbers == list(range(1, len(numbers) + 1))


def test_an_example_leaves_out_what_is_not_installed(monkeypatch, capsys):
    from _backends import chosen

    def without_flax(network, backend, **options):
        if backend == "flax":
            raise bl.BackendError("backend 'flax' needs flax")

    monkeypatch.setattr(bl, "source", without_flax)
    monkeypatch.setattr(sys, "argv", ["example"])
    assert chosen() == ["numpy", "torch", "keras"]
    assert capsys.readouterr().out == "# left out: backend 'flax' needs flax\n\n"
    monkeypatch.setattr(sys, "argv", ["example", "--backend", "keras"])
    assert chosen() == ["keras"]


def test_backends_are_listed_reference_first():
    assert bl.backends()[0] == "numpy"

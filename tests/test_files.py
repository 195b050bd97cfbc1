"""Networks and parameters as files: what was written comes back equal, and nothing else."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

import blocks as bl
import custom_blocks
from blocks._files import node_from_json, node_to_json
from cases import CASES

CUSTOM = [
    kind
    for kind in vars(custom_blocks).values()
    if isinstance(kind, type) and issubclass(kind, bl.Custom) and kind is not bl.Custom
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_every_network_of_the_table_comes_back(case):
    for _, block in case.variants():
        assert bl.from_json(bl.to_json(block), CUSTOM) == block


def test_a_file_reads_as_expected(tmp_path):
    net = bl.Sequential(
        bl.Dense(3, kernel_init=bl.initializers.Normal(0.5)), head=bl.Shared("tied", bl.ReLU())
    )
    bl.save(net, tmp_path / "net.json")
    assert bl.load(tmp_path / "net.json") == net
    assert json.loads((tmp_path / "net.json").read_text()) == {
        "format": "isoblocks network",
        "version": 1,
        "network": {
            "type": "Sequential",
            "blocks": [
                {
                    "type": "Dense",
                    "features": 3,
                    "kernel_init": {"type": "initializers.Normal", "std": 0.5},
                },
                {
                    "type": "Shared",
                    "key": "tied",
                    "block": {"type": "Activation", "kind": "relu"},
                },
            ],
            "names": ["0", "head"],
        },
    }


def file_of(**network):
    return json.dumps({"format": "isoblocks network", "version": 1, "network": network})


DENSE = {"type": "Dense", "features": 3}
WRONG = {
    "{": "this is no JSON",
    "[1]": "this is no network: it does not say 'format': 'isoblocks network'",
    '{"format": "isoblocks network", "version": 2}': "has version 2, but version 1 is what",
    file_of(): "network has the unknown type None",
    file_of(type="Dens", features=3): "network has the unknown type 'Dens'. Did you mean 'Dense'?",
    file_of(type="Leaf"): "network has the unknown type 'Leaf'",
    file_of(type="Positions"): "Is it a Custom class",
    file_of(type="Dense", feature=3): "has no field 'feature'. Did you mean 'features'?",
    file_of(type="Dense", features=0): "Dense at network cannot be built: Dense.features must be",
    file_of(type="Dense"): "Dense at network cannot be built",
    file_of(type="initializers.Normal"): "the network of this file is no block",
    file_of(type="Sequential", blocks=[DENSE, {"type": "x"}]): "network.blocks[1] has the unknown",
    file_of(type="Sequential", blocks=[DENSE], names=[]): "cannot have the names []",
    file_of(type="Sequential", blocks=[DENSE] * 2, names=["a", "0"]): "has a child named '0'",
    file_of(type="Sequential", blocks=[DENSE] * 2, names=["a", "a"]): "cannot have the names",
    file_of(type="Sequential", blocks=[DENSE], names=["a b"]): "has a child named 'a b'",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_named(text):
    with pytest.raises(bl.FileError) as error:
        bl.from_json(text)
    assert WRONG[text] in str(error.value)


def test_only_blocks_are_written():
    with pytest.raises(bl.FileError, match="holds a block, or a node from infer, got 3"):
        bl.to_json(3)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_parameters_come_back(dtype, tmp_path):
    """Each in its own dtype, whatever its memory was."""
    node = bl.infer(bl.Sequential(bl.Conv(3, (2, 2)), bl.BatchNorm()), (4, 4, 2), dtype=dtype)
    params = bl.init(node, seed=2, initial={"**": bl.initializers.Normal()})
    params["0/kernel"] = np.asfortranarray(params["0/kernel"])
    bl.save_params(params, tmp_path / "net.safetensors")
    found = bl.load_params_file(str(tmp_path / "net.safetensors"))
    assert found.keys() == params.keys()
    assert all(np.array_equal(found[path], params[path]) for path in params)
    assert {str(array.dtype) for array in found.values()} == {dtype}


def test_a_file_of_one_backend_is_read_by_the_others(backend, tmp_path):
    net = bl.Sequential(bl.Conv(3, (2, 1)), bl.ReLU(), bl.Flatten(), bl.Dense(2))
    node = bl.infer(net, (4, 5, 2), dtype="float64")
    x = np.random.default_rng(0).normal(size=(3, 4, 5, 2))
    model = bl.lower(node, backend, seed=5)
    bl.save_params(bl.params_of(model), tmp_path / "net.safetensors")
    other = bl.lower(node, "numpy", params=bl.load_params_file(tmp_path / "net.safetensors"))
    np.testing.assert_allclose(bl.apply(other, x), bl.apply(model, x), rtol=0, atol=1e-12)


def test_files_without_parameters_are_refused(tmp_path):
    path = tmp_path / "net.safetensors"
    path.write_bytes(b"hello")
    with pytest.raises(bl.FileError, match="is no safetensors file"):
        bl.load_params_file(path)
    save_file({"0.weight": np.ones(2)}, path)
    with pytest.raises(bl.FileError, match="holds no parameters of isoblocks"):
        bl.load_params_file(path)
    save_file({"kernel": np.ones(2)}, path, {"format": "isoblocks parameters", "version": "2"})
    with pytest.raises(bl.FileError, match="has version '2', but version 1 is what"):
        bl.load_params_file(path)


NO_PARAMS = [3, {0: np.ones(2)}, {"a": "text"}, {"a": np.array([None])}, {"a": [[1], [2, 3]]}]


@pytest.mark.parametrize("params", NO_PARAMS)
def test_only_parameters_are_written(params, tmp_path):
    with pytest.raises(bl.FileError, match="a file of parameters holds"):
        bl.save_params(params, tmp_path / "net.safetensors")
    assert not list(tmp_path.iterdir())


def test_parameters_for_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(bl.FileError, match=r"missing.* cannot be written: No such file"):
        bl.save_params({"kernel": np.eye(2, 3)}, tmp_path / "missing" / "net.safetensors")


def test_damage_is_seen(tmp_path):
    """In the numbers, and where numbers change places."""
    path = tmp_path / "net.safetensors"
    bl.save_params({"a": np.ones(3), "b": np.zeros(3)}, path)
    written = path.read_bytes()
    path.write_bytes(written[:-1] + b"\1")
    with pytest.raises(bl.FileError, match="was damaged: the checksum of b is another"):
        bl.load_params_file(path)
    path.write_bytes(written.replace(b'"a":{', b'"c":{'))
    with pytest.raises(bl.FileError, match="it has not one checksum for each array"):
        bl.load_params_file(path)


def test_what_cannot_be_read_is_said(tmp_path):
    for read in (bl.load, bl.load_params_file):
        with pytest.raises(bl.FileError, match=r"nothing.json cannot be read: No such file"):
            read(tmp_path / "nothing.json")
        with pytest.raises(bl.FileError, match=r"cannot be read"):
            read(tmp_path)


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "net.json"
    bl.save(bl.Dense(3), path)

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(bl.FileError, match="cannot be written: No space left"):
        bl.save(bl.Dense(4), path)
    assert bl.load(path) == bl.Dense(3)
    assert list(tmp_path.iterdir()) == [path]


NODES = {
    "tokens": (bl.Embedding(9, 4), (None,), {"dtype": "float16", "param_dtype": "float32"}),
    "picture": (bl.Conv(2, (3, 2)), (2, 6, 5), {"layout": "channels_first", "dtype": "float64"}),
    "spec": (bl.Identity(), bl.Spec((3,), "int32", below=7), {}),
    "tuple": (bl.Select(1), ((3,), (bl.Spec((2,), "bool"), (None, 4))), {}),
    "number": (bl.Identity(), (), {}),
}


@pytest.mark.parametrize("name", NODES)
def test_nodes_come_back(name):
    block, shape, options = NODES[name]
    node = bl.infer(block, shape, **options)
    again = node_from_json(node_to_json(node))
    for fact in ("block", "in_spec", "out_spec", "dtype", "param_dtype"):
        assert getattr(again, fact) == getattr(node, fact)
    assert again.param_specs() == node.param_specs()


def test_a_network_without_its_input_is_no_node():
    with pytest.raises(bl.FileError, match="a network without its input: no node"):
        node_from_json(bl.to_json(bl.Dense(3)))


class Outer:
    class Swish(bl.Custom):
        slope: float = 1.0

        def forward(self, ops, x):
            return x * ops.exp(-x)


def test_classes_of_ones_own_by_import_name():
    """As a class, by name, by a name of the caller's for one that has moved."""
    swish = Outer.Swish(0.5)
    text, name = bl.to_json(bl.Sequential(swish)), f"{__name__}:Outer.Swish"
    assert f'"type": "{name}"' in text
    for custom in ([Outer.Swish], (Outer.Swish,), [name], {name: Outer.Swish}, {name: name}):
        assert bl.from_json(text, custom=custom)[0] == swish
    moved = text.replace(name, "gone.away:Swish")
    assert bl.from_json(moved, custom={"gone.away:Swish": Outer.Swish})[0] == swish
    with pytest.raises(bl.FileError, match=r"write custom=\['gone.away:Swish'\]; if the class is"):
        bl.from_json(moved, custom=[Outer.Swish])


def test_a_local_class_is_given_as_a_class():
    class Local(bl.Custom):
        def forward(self, ops, x):
            return x

    text = bl.to_json(Local())
    assert bl.from_json(text, custom=[Local]) == Local()
    with pytest.raises(bl.FileError, match=r"Write custom={'.*<locals>.Local': Local}, with the"):
        bl.from_json(text)


def test_a_file_imports_nothing(tmp_path, monkeypatch):
    (tmp_path / "tempting.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    text = file_of(type="tempting:Block")
    for custom in ((), [Outer.Swish], [f"{__name__}:Outer.Swish"]):
        with pytest.raises(bl.FileError, match="which is not allowed here"):
            bl.from_json(text, custom=custom)
    assert "tempting" not in sys.modules


NO_CLASSES = {
    "custom is a list of classes": [Outer.Swish, "a:B", 3],
    "names such as 'package.module:Class'": [["Swish"], [":Swish"], ["a:"]],
    "cannot be imported": [["no.such.module:Swish"], ["..:x"]],
    "there is no 'Outr'. Did you mean 'Outer'?": [[f"{__name__}:Outr.Swish"]],
    "custom takes classes of blocks": [[int], [f"{__name__}:Outer"], [None], {"a:b": 3}],
}


@pytest.mark.parametrize("words", NO_CLASSES)
def test_what_custom_takes(words):
    for custom in NO_CLASSES[words]:
        with pytest.raises(bl.FileError) as error:
            bl.from_json(file_of(**DENSE), custom=custom)
        assert words in str(error.value)


def test_a_node_is_saved_with_its_input(tmp_path):
    node = bl.infer(bl.Conv(2, (3, 2)), (2, 6, 5), layout="channels_first")
    bl.save(node, tmp_path / "net.json")
    found = bl.load(tmp_path / "net.json")
    assert isinstance(found, bl.Node)
    assert found.in_spec == node.in_spec
    assert bl.lower(found, "numpy")


@pytest.mark.parametrize("code", ["1 / 0", "def", "raise RuntimeError('no')"])
def test_a_module_that_fails_in_its_import(code, tmp_path, monkeypatch):
    (tmp_path / "failing_module.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(bl.FileError, match=r"'failing_module:X', which raises .* in its import"):
        bl.from_json(bl.to_json(bl.Tanh()), ["failing_module:X"])

"""Networks as JSON: what was written comes back equal, and nothing else comes in."""

from __future__ import annotations

import json

import pytest

import blocks as bl
import custom_blocks
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
    file_of(type="Sequential", blocks=[DENSE] * 2, names=["a", "0"]): "cannot have the names",
    file_of(type="Sequential", blocks=[DENSE] * 2, names=["a", "a"]): "cannot have the names",
    file_of(type="Sequential", blocks=[DENSE], names=["a b"]): "has a child named 'a b'",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_named(text):
    with pytest.raises(bl.FileError) as error:
        bl.from_json(text)
    assert WRONG[text] in str(error.value)


def test_only_blocks_are_written():
    with pytest.raises(bl.FileError, match="holds a block, got int"):
        bl.to_json(3)

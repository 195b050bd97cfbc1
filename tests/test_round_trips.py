"""What is saved comes back: networks with their inputs, and parameters, of all blocks and trees."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_trees import networks

import blocks as bl
import custom_blocks
from blocks._parity import random_params
from cases import CASES

CUSTOM = [
    kind
    for kind in vars(custom_blocks).values()
    if isinstance(kind, type) and issubclass(kind, bl.Custom) and kind is not bl.Custom
]


def check(node, folder, most=None):
    """Through files, and back as a model that computes the very same parameters."""
    folder.mkdir(exist_ok=True)
    bl.save(node, folder / "net.json")
    again = bl.load(folder / "net.json", CUSTOM)
    assert again.block == node.block
    assert (again.in_spec, again.out_spec) == (node.in_spec, node.out_spec)
    assert again.param_specs() == node.param_specs()
    assert bl.fingerprint(again) == bl.fingerprint(node)
    params = random_params(node, 1)
    path = folder / f"{most}.safetensors"
    bl.save_params(params, path, network=node, max_shard_bytes=most)
    found = bl.load_params_file(path, network=again)
    assert list(found) == list(params)
    for name, array in params.items():
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name], array)
    model = bl.lower(again, "numpy", params=found)
    assert not params or bl.diff_params(bl.params_of(model), params)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_every_block(case, tmp_path):
    for dtype in ("float64", "float32", "bfloat16"):
        check(bl.infer(case.base, case.shape, dtype=dtype), tmp_path / dtype)


@settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
@given(networks(), st.sampled_from([None, 1, 100, 5000]))
def test_random_trees(tmp_path_factory, node, most):
    check(node, tmp_path_factory.mktemp("tree"), most)


@pytest.mark.exhaustive
@settings(deadline=None, max_examples=1000, suppress_health_check=list(HealthCheck))
@given(networks(), st.sampled_from([None, 1, 100, 5000]))
def test_many_random_trees(tmp_path_factory, node, most):
    check(node, tmp_path_factory.mktemp("tree"), most)

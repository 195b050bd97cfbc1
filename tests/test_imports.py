"""What an import brings with it: `blocks` no framework, a backend only its own."""

import os
import subprocess
import sys

import pytest

from conftest import need

FRAMEWORKS = {"torch", "tensorflow", "keras", "jax", "flax", "optax", "autograd"}
ALLOWED = {
    "blocks": set(),
    "blocks.cli": set(),
    "blocks.demo": set(),
    "backends": set(),
    "backends.numpy": {"autograd"},
    "backends.torch": {"torch"},
    "backends.flax": {"jax", "flax", "optax"},
}


@pytest.mark.parametrize("module", ALLOWED)
def test_an_import_loads_no_other_framework(module):
    if module.count(".") and module.split(".")[1] in ("torch", "flax"):
        need(module.split(".")[1])
    code = f"import sys, {module}; print(*{{m.partition('.')[0] for m in sys.modules}})"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert set(run.stdout.split()) & FRAMEWORKS == ALLOWED[module]


def test_everything_public_is_listed_and_documented():
    import blocks

    public = {name for name in vars(blocks) if not name.startswith("_")}
    modules = {name for name in public if type(vars(blocks)[name]).__name__ == "module"}
    assert set(blocks.__all__) == (public - modules) | {"initializers"}
    for name in blocks.__all__:
        assert (vars(blocks)[name].__doc__ or "").strip(), name


def test_every_block_has_the_frame_of_a_docstring():
    """One sentence, then Shape; a doctest; Fields where there are fields."""
    import dataclasses

    import blocks as bl

    bases = (bl.Block, bl.Leaf, bl.Combinator, bl.Composite)
    for block in vars(bl).values():
        if not (isinstance(block, type) and issubclass(block, bl.Block)) or block in bases:
            continue
        doc = block.__doc__ or ""
        assert doc.splitlines()[0].endswith((".", "):")), block
        assert "Shape:" in doc, block
        assert ">>> " in doc, block
        stated = {f.name for f in dataclasses.fields(block)} - {"blocks", "names"}
        for name in stated:
            assert name in doc, (block, name)

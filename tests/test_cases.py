"""The table is complete: every block has a row, every field a variant, and every variant counts."""

import dataclasses

import numpy as np
import pytest

import blocks as bl
import custom_blocks
from blocks._parity import Inputs, doubled, measure, random_params
from cases import CASES, Case

PUBLIC = [b for b in vars(bl).values() if isinstance(b, type) and issubclass(b, bl.Block)]
BASES = (bl.Block, bl.Leaf, bl.Combinator, bl.Composite, bl.Custom)
CUSTOM = [
    b for b in vars(custom_blocks).values() if isinstance(b, type) and b.__base__ is bl.Custom
]
BLOCKS = [b for b in (*PUBLIC, *CUSTOM) if b not in BASES]


def blocks_in(case: Case) -> set[type]:
    node = bl.infer(case.base, case.shape)
    return {type(n.block) for n in node.walk()} | {type(n.form) for n in node.walk()}


@pytest.mark.parametrize("block", BLOCKS, ids=lambda b: b.__name__)
def test_every_block_has_a_row(block):
    assert any(block in blocks_in(case) for case in CASES)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda b: b.__name__)
def test_every_field_is_varied(block):
    fields = {f.name for f in dataclasses.fields(block)}
    rows = [c for c in CASES if type(c.base) is block or c.name.startswith(block.__name__)]
    varied = {name for c in rows for name in (*c.vary, *c.stated)}
    if block is bl.Activation:  # its rows are named after the helpers
        varied |= {name for c in CASES if type(c.base) is block for name in c.vary}
    assert fields <= varied, f"not varied: {fields - varied}"


VARIANTS = [(c, name, b) for c in CASES for name, b in c.variants()[1:]]


@pytest.mark.parametrize(
    ("case", "name", "variant"), VARIANTS, ids=[f"{c.name}-{n}" for c, n, _ in VARIANTS]
)
def test_every_variant_changes_the_reference(case, name, variant):
    """Outputs, training, running state or first parameters: something must differ."""
    assert signature(case.base, case.shape) != signature(variant, case.shape)


def signature(block: bl.Block, shape) -> list:
    node = doubled(bl.infer(block, shape))
    rng = np.random.default_rng(0)
    inputs = Inputs.draw(node, 3, rng)
    found = measure("numpy", node, random_params(node, 0), inputs, steps=0)
    model = bl.lower(node, "numpy", params=random_params(node, 0))
    trained = bl.apply(model, inputs.x, training=True)
    arrays = [bl.init(node), found.values, trained]
    return [flat(a) for a in arrays]


def flat(value):
    if isinstance(value, dict):
        return [(k, flat(v)) for k, v in value.items()]
    if isinstance(value, tuple):
        return [flat(v) for v in value]
    return value.shape, value.tobytes()


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_sizes_are_distinct(case):
    shapes = case.shape if isinstance(case.shape[0], tuple) else (case.shape,)
    for shape in shapes:
        assert len(set(shape)) == len(shape)
        assert all(n > 1 for n in shape)


STATED = [(c, f, *pair) for c in CASES for f, pair in c.stated.items()]


@pytest.mark.parametrize(("case", "name", "right", "wrong"), STATED, ids=lambda v: str(v)[:30])
def test_stated_fields_are_checked(case, name, right, wrong):
    stated = dataclasses.replace(case.base, **{name: right})
    assert signature(stated, case.shape) == signature(case.base, case.shape)
    with pytest.raises(bl.ShapeError, match=f"{name}={wrong}"):
        bl.infer(dataclasses.replace(case.base, **{name: wrong}), case.shape)


ALL = [(c, name, b) for c in CASES for name, b in c.variants()]


@pytest.mark.parametrize(("case", "name", "block"), ALL, ids=[f"{c.name}-{n}" for c, n, _ in ALL])
def test_repr_can_be_pasted_back(case, name, block):
    again = eval(repr(block), vars(custom_blocks) | vars(bl))
    assert again == block
    assert hash(again) == hash(block)

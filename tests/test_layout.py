"""The layout pass: permutes only where the memory layout must change, and no more than needed."""

import numpy as np
import pytest

import blocks as bl
from blocks._backends import find_backend
from blocks._layout import layout_pass
from conftest import FRAMEWORKS, need

CONV = bl.Conv(4, (3, 2), padding="same")
SHAPE = (5, 6, 4)


def placed(block, shape=SHAPE, native="channels_first", layout="channels_last"):
    return layout_pass(bl.infer(block, shape, layout=layout), native)


def permutes(node) -> list[str]:
    return [n.path for n in node.walk() if isinstance(n.form, bl.Permute)]


def test_program_and_backend_agree_nothing_changes():
    for layout in ("channels_last", "channels_first"):
        node = bl.infer(CONV, SHAPE, layout=layout)
        assert layout_pass(node, layout) is node
    node = bl.infer(CONV, SHAPE)
    assert layout_pass(node, None) is node


@pytest.mark.parametrize(
    ("block", "paths"),
    [
        (bl.Sequential(CONV, bl.ReLU(), CONV, bl.BatchNorm()), ["permute_0", "permute_4"]),
        (bl.Sequential(CONV, bl.ReLU(), bl.GlobalAvgPool(), bl.Dense(3)), ["permute_0"]),
        (bl.Sequential(CONV, bl.ReLU(), bl.Flatten(), bl.Dense(3)), ["permute_0", "permute_2"]),
        (bl.Sequential(bl.Dense(3), bl.ReLU()), []),
        (bl.Sequential(bl.Dense(3), bl.ReLU(), CONV), ["permute_2", "permute_3"]),
        (bl.Residual(CONV), ["permute_0", "permute_1"]),
        (bl.Sequential(bl.Residual(CONV), bl.Dense(3)), ["permute_0", "permute_1"]),
        (bl.Sequential(bl.Residual(CONV), bl.Residual(CONV)), ["permute_0", "permute_2"]),
        (bl.Sequential(CONV, bl.Sequential(bl.ReLU(), CONV)), ["permute_0", "permute_2"]),
        (CONV, ["permute_0", "permute_1"]),
        (bl.ReLU(), []),
    ],
    ids=str,
)
def test_where_permutes_are_placed(block, paths):
    node = placed(block)
    assert permutes(node) == paths


def test_a_branch_that_needs_the_other_layout_is_converted_alone():
    node = placed(bl.Sequential(CONV, bl.Parallel(bl.Dense(3), CONV), CONV))
    assert permutes(node) == ["permute_0", "1/0/permute_0", "1/0/permute_1", "permute_3"]


def test_the_axis_of_a_concat_follows_the_layout():
    for merge, axis, wanted in (("concat", None, 0), ("concat", 0, 1), ("concat", -2, 2)):
        fork = bl.Parallel(CONV, CONV, merge=merge, axis=axis)
        node = placed(bl.Sequential(CONV, fork, CONV))
        (found,) = [n.resolved["axis"] for n in node.walk() if isinstance(n.form, bl.Parallel)]
        assert found == wanted


def test_specs_are_those_of_the_arrays():
    node = placed(bl.Sequential(bl.Conv(7, (3, 2)), bl.Flatten()))
    shapes = [(n.in_spec.shape, n.out_spec.shape) for n in node.children]
    assert shapes == [
        ((5, 6, 4), (4, 5, 6)),
        ((4, 5, 6), (7, 3, 5)),
        ((7, 3, 5), (3, 5, 7)),
        ((3, 5, 7), (105,)),
    ]


def test_every_use_of_a_shared_block_is_built_alike():
    tied = bl.Shared("tied", bl.Sequential(CONV, bl.ReLU()))
    node = placed(bl.Sequential(tied, bl.Dense(4), tied, CONV, tied))
    inner = [[type(c.form).__name__ for c in n.children] for n in node.walk() if n.shared == "tied"]
    assert len(inner) == 3
    assert inner[0] == inner[1] == inner[2]


def test_a_long_chain_is_no_work_and_deep_nesting_no_recursion():
    deep = CONV
    for _ in range(300):
        deep = bl.Sequential(deep)
    assert len(permutes(placed(deep))) == 2
    long = bl.Sequential(*[CONV, bl.ReLU()] * 500)
    assert len(permutes(placed(long))) == 2


def test_names_are_kept_where_no_permute_is_needed():
    """Vectors have no layout: torch's names are the paths, in both layouts."""
    need("torch")
    tied = bl.Shared("tied", bl.MLP(4, hidden=(3,)))
    for net in (bl.Residual(bl.Dense(4)), bl.Parallel(bl.Dense(4), tied), tied, bl.Dense(2)):
        for layout in ("channels_last", "channels_first"):
            node = bl.infer(net, (4,), layout=layout)
            paths = [path.replace("/", ".") for path in node.param_specs()]
            found = bl.lower(node, "torch").state_dict()
            names = {"weight": "kernel"}
            dotted = [".".join(names.get(part, part) for part in key.split(".")) for key in found]
            assert dotted == paths


SHARED = bl.Shared("tied", bl.Conv(4, (3, 2), padding="same"))


@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
@pytest.mark.parametrize(
    "net",
    [
        SHARED,
        bl.Parallel(SHARED, bl.Identity(), merge="stack"),
        bl.Parallel(SHARED, SHARED, merge="tuple"),
        bl.Parallel(SHARED, bl.LayerNorm()),
        bl.Shared("all", bl.Sequential(SHARED, bl.ReLU(), SHARED)),
    ],
    ids=str,
)
def test_shared_blocks_among_permutes(net, layout, framework):
    shape = (5, 6, 4) if layout == "channels_last" else (4, 5, 6)
    assert bl.parity(net, shape, layout=layout, backends=[framework], steps=0)


def test_a_child_may_be_named_like_a_permute(framework):
    net = bl.Sequential(permute_0=bl.Conv(4, (3, 2)), permute_1=bl.Conv(4, (2, 2)))
    for layout, shape in (("channels_last", (5, 6, 4)), ("channels_first", (4, 5, 6))):
        assert bl.parity(net, shape, layout=layout, backends=[framework], steps=0)


def test_the_users_layout_is_what_goes_in_and_out(framework):
    """Whatever a backend does inside, shapes are those of the program."""
    for layout, shape in (("channels_last", (5, 6, 4)), ("channels_first", (4, 5, 6))):
        node = bl.infer(bl.Conv(7, (3, 2)), shape, layout=layout)
        y = bl.apply(bl.lower(node, framework), np.zeros((2, *shape)))
        assert y.shape == (2, *node.out_spec.shape)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_native_layouts_are_declared(framework):
    layout = "channels_first" if framework == "torch" else "channels_last"
    assert find_backend(need(framework)).layout == layout

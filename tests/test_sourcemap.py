"""Lines of listings know their block, and knowing it changes nothing."""

import pytest
from mutations import calls

import blocks as bl
from backends._expression import Mark, Name
from blocks._backends import find_backend
from blocks._infer import as_node
from blocks._sourcemap import lines
from blocks._spec import LAYOUTS
from cases import CASES

NET = bl.Sequential(
    stem=bl.Dense(8),
    body=bl.Repeat(bl.Residual(bl.Sequential(bl.Dense(8), bl.LayerNorm())), 3),
    first=bl.Shared("tied", bl.Dense(8)),
    again=bl.Shared("tied", bl.Dense(8)),
    head=bl.Sequential(bl.Dense(16), bl.ReLU(), bl.Dropout(0.25), bl.LayerNorm(), bl.Dense(10)),
)


def rows():
    for case in CASES:
        for layout in LAYOUTS if case.spatial else LAYOUTS[:1]:
            shape = in_layout(case.shape, layout)
            yield pytest.param(case.base, shape, layout, id=f"{case.name}-{layout}")


def in_layout(shape, layout):
    """The table's shapes are channels_last."""
    if isinstance(shape[0], tuple):
        return tuple(in_layout(s, layout) for s in shape)
    return shape if layout == "channels_last" else (shape[-1], *shape[:-1])


def marks(found):
    """All marks in an expression or in steps of Keras."""
    todo, seen = [found], []
    while todo:
        here = todo.pop()
        if isinstance(here, Mark):
            seen.append(here)
        if isinstance(here, dict):
            todo += here.values()
        elif isinstance(here, (list, tuple)):
            todo += here
        elif hasattr(here, "__dataclass_fields__") and not hasattr(here, "made"):
            todo += vars(here).values()
    return seen


def code_of(text, found, path):
    """All lines of a block."""
    code = text.splitlines()
    return "\n".join(code[number - 1] for number in found[path])


@pytest.mark.parametrize(("block", "shape", "layout"), [*rows()])
def test_each_leaf_stands_where_its_constructor_is(block, shape, layout, backend):
    node = as_node(block, shape, {"layout": layout})
    text, found = lines(node, backend)
    assert text == bl.source(node, backend)
    assert found.keys() >= {n.path for n in node.walk()}
    expressions = {}
    for mark in marks(find_backend(backend).program(node).expression):
        expressions.setdefault(mark.home, mark.value)
    for leaf in (n for n in node.walk() if not n.children):
        value = expressions.get(leaf.home, ())
        if written := [str(call.function) for call in calls(value)]:
            here = code_of(text, found, leaf.path)
            assert all(name in here for name in written), (leaf.path, written, here)
        if isinstance(value, Name):
            assert value.text in code_of(text, found, leaf.path)


def test_every_line_is_that_of_its_block(backend):
    """Sizes tell the blocks apart: 8, 16 and 10."""
    node = bl.infer(NET, (8,))
    text, found = lines(node, backend)
    assert "16" in code_of(text, found, "head/0")
    assert "16" not in code_of(text, found, "head/1")
    assert "10" in code_of(text, found, "head/4")
    assert set(found["head"]) >= {n for i in range(5) for n in found[f"head/{i}"]}
    assert set(found[""]) >= {n for path in found for n in found[path]}


def test_repetitions_have_the_lines_of_the_one_that_is_written():
    need = {"torch": True, "keras": False, "flax": True, "numpy": True}
    for backend in bl.backends():
        _, found = lines(NET, backend, (8,))
        alike = found["body/0/body/0"] == found["body/2/body/0"]
        assert alike == need[backend], backend
        assert found["body/1/body/1"]


def test_a_shared_block_has_its_definition_and_all_uses(backend):
    text, found = lines(NET, backend, (8,))
    code = text.splitlines()
    definition, *uses = found["first"]
    assert found["again"] == [definition, *uses]
    assert len(uses) == 2
    assert code[definition - 1].startswith("tied = ")
    assert all("tied" in code[use - 1] for use in uses)


def test_deep_networks_that_are_written_in_parts(backend):
    """Brackets nested too deeply have names; their lines are still known."""
    net = bl.Dense(5)
    for _ in range(60):
        net = bl.Residual(net)
    _, found = lines(net, backend, (5,))
    assert all(found.values())
    assert len(found) == 61

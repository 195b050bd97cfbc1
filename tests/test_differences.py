"""Every entry of the registry is executed, known to `blocks`, and caught by a case.

Three things turn these red: a framework that changes a default, a meaning that changes, and a page
that was not generated again.
"""

import ast
import inspect
import re
from pathlib import Path

import pytest
import semantics
from differences import DIFFERENCES, EXPECTED, exists, rounded

import blocks as bl
from cases import CASES
from conftest import need

COLUMNS = ("torch", "keras", "flax", "here")
ROUNDING = 2e-6  # of float32, as a share of the largest number


@pytest.fixture(scope="module")
def measures():
    """The stock frameworks; Keras under TensorFlow."""
    for name in ("torch", "keras", "flax"):
        need(name)
    import measures

    if measures.keras.backend.backend() != "tensorflow":
        pytest.skip("the registry is about Keras under TensorFlow")
    return measures


def calls(text):
    """The calls in backquotes."""
    for span in re.findall(r"`([\w.]+\(.*?\))`", text):
        yield ast.parse(span, mode="eval").body


STATED = [
    pytest.param(column, call, id=f"{d.block}-{d.topic}-{column}: {ast.unparse(call)}")
    for d in DIFFERENCES
    for column in COLUMNS
    if not (d.pending and column == "here")
    for call in calls(getattr(d, column))
]


def parameters(function):
    """The parameters of a function; of a class those that its bases take too."""
    owners = [c.__init__ for c in function.__mro__] if inspect.isclass(function) else [function]
    found = {}
    for owner in reversed(owners):
        found |= inspect.signature(owner).parameters
    return found


def lookup(home, name):
    for part in name.split("."):
        home = getattr(home, part, None)
    return home


def check_defaults(homes, call):
    """What a text says of a signature is true: `Name(must_be_given, argument=default)`."""
    name = ast.unparse(call.func)
    found = parameters(next(f for home in homes if (f := lookup(home, name))))
    for argument in call.args:
        assert found[argument.id].default is inspect.Parameter.empty, argument.id
    for keyword in call.keywords:
        default, stated = found[keyword.arg].default, ast.literal_eval(keyword.value)
        assert default == stated, keyword.arg
        assert type(default) is type(stated), keyword.arg


def homes(measures, column):
    """Where the names of a column live."""
    m = measures
    keras = m.keras
    return {
        "torch": (m.nn, m.torch.optim),
        "keras": (m.layers, keras.activations, keras.losses, keras.optimizers, m.ops, m.ops.image),
        "flax": (m.nnx, m.jax.image, m.jnp, m.optax),
        "here": (bl,),
    }[column] + (m,)


@pytest.mark.parametrize(("column", "call"), STATED)
def test_a_default_is_as_stated(column, call, measures):
    check_defaults(homes(measures, column), call)


def agree(found, stated):
    """Floats in their first digit, all else exactly."""
    if type(found) is not type(stated):
        return False
    if stated == 0.0 and isinstance(stated, float):
        return abs(found) <= ROUNDING
    return rounded(found) == rounded(stated)


@pytest.mark.parametrize(
    "difference",
    [d for d in DIFFERENCES if d.measured],
    ids=lambda d: f"{d.block}-{d.topic}",
)
def test_a_difference_is_as_large_as_stated(difference, measures):
    found = measures.MEASURES[difference.block, difference.topic]()
    pairs = list(zip(found, difference.measured, strict=True))
    assert len(pairs) == 3
    assert all(agree(*pair) for pair in pairs), f"measured {found}"


def test_every_entry_is_executed(measures):
    """By a measure or by its defaults; and no measure is left over."""
    assert set(measures.MEASURES) == {(d.block, d.topic) for d in DIFFERENCES if d.measured}
    for d in DIFFERENCES:
        assert d.measured or any(list(calls(getattr(d, c))) for c in COLUMNS[:3]), d
        assert bool(d.measured) == bool(d.of), d


def test_an_entry_is_there_once():
    keys = [(d.block, d.topic) for d in DIFFERENCES]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda d: f"{d.block}-{d.topic}")
def test_a_block_is_known(difference):
    assert exists(difference.block, difference.field) or difference.pending


def test_expected_names_are_about_entries():
    fields = {f"{d.block}-{d.field}" for d in DIFFERENCES if d.field}
    assert {d.block for d in DIFFERENCES} | fields >= EXPECTED


ROWS = {
    f"{name}-{variant}"
    for case in CASES
    for name in (case.name, type(case.base).__name__)
    for variant, _ in case.variants()
}


@pytest.mark.parametrize(
    "difference",
    [d for d in DIFFERENCES if not d.pending],
    ids=lambda d: f"{d.block}-{d.topic}",
)
def test_an_adapter_that_got_it_wrong_is_caught(difference):
    """The case that is named is there."""
    file, _, name = difference.caught.partition("::")
    if name:
        text = (Path(__file__).parent / file).read_text()
        assert f"\ndef {name}(" in text
    else:
        assert any(row == file or row.startswith(f"{file}-") for row in ROWS), file


@pytest.mark.parametrize(
    "text",
    [
        "BatchNorm2d(eps=1e-3)",
        "BatchNorm2d(affine=1)",
        "BatchNorm2d(eps)",
        "Dropout(p=None)",
        "GroupNorm(num_groups=32)",
    ],
)
def test_a_wrong_default_is_seen(text, measures):
    with pytest.raises(AssertionError):
        check_defaults(homes(measures, "torch"), ast.parse(text, mode="eval").body)


@pytest.mark.parametrize(
    ("found", "stated"),
    [
        *((0.36, 0.3), (0.03, 0.3), (1e-5, 0.0), (float("nan"), 0.0), (float("nan"), 0.3)),
        *((219, 220), (220.0, 220), (None, 0.0), (0.0, None), ("NaN", "mean"), (0, 0.0)),
    ],
)
def test_another_size_is_seen(found, stated):
    assert not agree(found, stated)
    assert agree(stated, stated)


# The page.


def test_the_page_is_generated_anew():
    assert semantics.PAGE.read_text() == semantics.page(), f"run {semantics.COMMAND}"


def test_every_family_has_a_title():
    for name in bl.__all__:
        block = getattr(bl, name)
        if isinstance(block, type) and issubclass(block, bl.Block):
            module = block.__module__.rpartition(".")[2]
            assert module == "_block" or module in semantics.FAMILIES, name


def test_every_entry_is_on_the_page():
    text = semantics.page()
    for d in DIFFERENCES:
        assert d.pending or f"\n| {semantics.cell(d.topic)} |" in text, d


def test_every_block_says_how_it_differs():
    for title, items in semantics.families():
        for item in items:
            assert semantics.parts(item)[1] or title == semantics.LAST, item


def test_every_link_leads_somewhere():
    text = semantics.page()
    headings = re.findall(r"^##+ (.+)$", text, re.M)
    anchors = [semantics.anchor(h) for h in headings]
    assert len(set(anchors)) == len(anchors)
    assert set(re.findall(r"\]\(#(.*?)\)", text)) == set(anchors)

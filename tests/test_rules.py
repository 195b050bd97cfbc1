"""The rule tables are complete, and state the frameworks' own defaults truly."""

import inspect

import pytest

import blocks as bl
from backends._expression import Call, Name, lookup
from backends._rules import Rules
from blocks._backends import find_backend, known
from blocks._block import Combinator, Leaf
from cases import CASES
from conftest import FRAMEWORKS, need

PUBLIC = [b for b in vars(bl).values() if isinstance(b, type) and issubclass(b, bl.Block)]
ABSTRACT = (Leaf, Combinator)
OWN = [b for b in PUBLIC if issubclass(b, bl.Custom) and b is not bl.Custom]  # ruled as Custom
FORMS = [b for b in PUBLIC if issubclass(b, ABSTRACT) and b not in (*ABSTRACT, *OWN)]


def test_the_four_backends_are_registered():
    assert set(known()) >= {"numpy", "torch", "keras", "flax"}


@pytest.mark.parametrize("block", FORMS, ids=lambda b: b.__name__)
def test_every_leaf_and_combinator_has_a_rule(block, backend):
    assert block in find_backend(backend).rules.table


def test_a_duplicate_rule_is_refused():
    rule = Rules("toy")
    rule(bl.Dense)(lambda node: None)
    with pytest.raises(TypeError, match=r"toy already has a rule for Dense\."):
        rule(bl.Dense)(lambda node: None)


def test_a_missing_rule_names_block_path_and_repair():
    node = bl.infer(bl.Sequential(decoder=bl.Sequential(bl.Dense(3))), (2,))
    rule = Rules("toy")
    rule(bl.Sequential)(lambda node, children: None)
    with pytest.raises(bl.MissingRuleError) as error:
        rule.program(node)
    assert str(error.value) == (
        "toy has no rule for Dense, needed at 'decoder/0'.\n"
        "  Add @rule(Dense) in backends/toy.py, or give Dense an expand()."
    )


def test_a_subclass_does_not_inherit_a_rule(backend):
    class Wider(bl.Dense):
        pass

    with pytest.raises(bl.MissingRuleError, match="no rule for Wider"):
        find_backend(backend).rules.program(bl.infer(Wider(3), (2,)))


def test_an_unsupported_block_is_refused_with_its_reason():
    rule = Rules("toy")
    rule.unsupported(bl.Dense, "toys have no weights.")
    with pytest.raises(
        bl.UnsupportedError, match=r"toy cannot lower Dense .*toys have no weights\."
    ):
        rule.program(bl.infer(bl.Dense(3), (2,)))


NODES = [
    (f"{case.name}-{name}", bl.infer(block, case.shape))
    for case in CASES
    for name, block in case.variants()
]


def test_binds_cover_exactly_the_parameters(backend):
    """No parameter without a place, no place without a parameter."""
    table = find_backend(backend).rules.table
    names: dict[type, set[str]] = {}
    for _, node in NODES:
        for n in node.walk():
            names.setdefault(n.form.ruled_as(), set()).update(n.params)
    for form, found in names.items():
        binds = found if table[form].attribute else set(table[form].binds)
        assert binds == found, form.__name__


# Defaults that are written as None in a signature, and what they come to.
MEANT = {
    ("layers.", "data_format"): "channels_last",
    ("layers.", "strides"): "pool_size",
    ("ops.image.", "data_format"): "channels_last",
    ("nnx.ConvTranspose", "strides"): 1,
    ("nnx.ConvTranspose", "kernel_dilation"): 1,
}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_what_a_listing_leaves_out_is_the_framework_default(framework):
    """An argument is only left out of a listing if the framework would have taken just that."""
    adapter = find_backend(need(framework))
    namespace = adapter.namespace(0)
    checked = 0
    for label, node in NODES:
        for found in adapter.expressions(adapter.program(node)):
            for call in [c for c in calls_in(found) if c.implied]:
                function = lookup(call.function, namespace)
                owner = function.__init__ if inspect.isclass(function) else function
                target = owner
                if call.function == "partial":
                    target = lookup(call.args[0].text, namespace)
                parameters = parameters_of(target, function)
                for name, value in call.implied:
                    assert name in parameters, (label, call.function, name)
                    default = parameters[name].default
                    assert equal(default, value, call, name, namespace), (
                        label,
                        call,
                        name,
                        default,
                    )
                    checked += 1
    assert checked > 50


def calls_in(found):
    """The call that an expression is, or a step of a Keras model."""
    if isinstance(found, Call):
        return [found]
    return calls_in(found.call) if hasattr(found, "call") else []


def parameters_of(target, function):
    """The parameters of a function; those of the base classes where a class passes them on."""
    found = dict(inspect.signature(target).parameters)
    if inspect.isclass(function):
        for base in function.__mro__[1:]:
            for name, parameter in inspect.signature(base.__init__).parameters.items():
                found.setdefault(name, parameter)
    return found


def equal(default, value, call, name, namespace):
    if isinstance(value, Name):
        value = lookup(value.text, namespace)
    for (prefix, argument), meant in MEANT.items():
        if default is None and str(call.function).startswith(prefix) and name == argument:
            return value == (call.args[0] if meant == "pool_size" else meant)
    if isinstance(default, tuple) and not isinstance(value, tuple):
        return set(default) == {value}
    return default == value and type(default) is type(value)

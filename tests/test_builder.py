"""Builders make what is written by hand, and say all that is wrong before anything is built."""

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import blocks as bl

PERCEPTRON = {
    "in_features_list": [8, 16, 16, 1],
    "activation": bl.ReLU(),
    "drop_out": 0,
    "output_activation": bl.Softmax(),
}
DIGITS = {
    "input_size": (28, 28),
    "in_channels_list": [8, 16, 16, 32],
    "kernel_size": (3, 3),
    "stride": (1, 1),
    "padding": (1, 1),
    "is_batch_norm": True,
    "max_pool_kernel": 2,
    "max_pool_stride": 1,
    "activation": bl.ReLU(),
    "bias": False,
    "drop_out": 0.2,
    "in_features_list": ["auto", 64, 10],
    "output_activation": bl.Softmax(),
}


def kinds(net):
    return [getattr(block, "kind", type(block).__name__) for block in net]


def infer(builder, layout="channels_last"):
    return bl.infer(builder.build(), builder.input_shape(layout), layout=layout)


def sizes(node):
    return [child.out_spec.shape for child in node.children]


def counts(node):
    return [bl.count(n, trainable=True) for n in node.walk() if n.params]


def messages(builder):
    found = builder.validate()
    assert not found
    with pytest.raises(bl.FieldError) as info:
        builder.build()
    assert all(str(error) in str(info.value) for error in found)
    return [str(error) for error in found]


# ---- a perceptron -----------------------------------------------------------------------------


def test_a_perceptron_is_what_is_written_by_hand():
    by_hand = bl.Sequential(
        bl.Dense(16, use_bias=False),
        bl.ReLU(),
        bl.Dense(16, use_bias=False),
        bl.ReLU(),
        bl.Dense(1, use_bias=False),
        bl.Softmax(),
    )
    builder = bl.MLPBuilder(PERCEPTRON)
    assert builder.build() == by_hand
    node = infer(builder)
    assert (node.in_spec.shape, node.out_spec.shape) == ((8,), (1,))
    assert counts(node) == [128, 256, 16]


def test_softmax_of_one_feature_is_one_without_gradient():
    node = bl.infer(bl.MLPBuilder(PERCEPTRON).build(), (8,), dtype="float64")
    model = bl.lower(node, "numpy")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 8))
    assert np.array_equal(bl.apply(model, x), np.ones((5, 1)))
    assert not any(g.any() for g in bl.gradients(model, x, rng.normal(size=(5, 1))).values())


def test_what_is_left_out_has_its_default():
    assert bl.MLPBuilder({"in_features_list": [3, 5, 2]}).build() == bl.Sequential(
        bl.Dense(5, use_bias=False), bl.ReLU(), bl.Dense(2, use_bias=False)
    )


def test_optional_parts_leave_no_placeholder():
    builder = bl.MLPBuilder({"in_features_list": [8, 16, 1], "activation": None})
    assert kinds(builder.build()) == ["Dense", "Dense"]
    builder.set("is_batch_norm", True).set("activation", bl.Tanh()).set("drop_out", [0.1, 0])
    builder.set("output_activation", bl.Sigmoid())
    assert kinds(builder.build()) == [
        "Dense",
        "BatchNorm",
        "tanh",
        "Dropout",
        "Dense",
        "sigmoid",
    ]


def test_set_chains_and_knows_its_keys():
    builder = bl.MLPBuilder().set("in_features_list", [3, 2]).set("bias", True)
    assert builder.build() == bl.Sequential(bl.Dense(2))
    with pytest.raises(bl.FieldError) as info:
        builder.set("drop_ou", 0.1)
    assert str(info.value) == (
        "MLPBuilder has no attribute 'drop_ou'. Did you mean 'drop_out'? It has in_features_list, "
        "activation, output_activation, is_batch_norm, bias, drop_out."
    )
    with pytest.raises(bl.FieldError, match="no attribute 'x'"):
        bl.ConvBuilder().set("x", 1)


def test_create_blocks_can_be_overridden():
    class Alternating(bl.MLPBuilder):
        def create_blocks(self):
            activations = [bl.Tanh(), bl.GELU(), bl.Sigmoid()]
            layers = [bl.Dense(n) for n in self["in_features_list"][1:]]
            return [block for pair in zip(layers, activations, strict=True) for block in pair]

    net = Alternating({"in_features_list": [8, 16, 16, 1]}).build()
    assert kinds(net) == ["Dense", "tanh", "Dense", "gelu", "Dense", "sigmoid"]


def test_blocks_of_an_overridden_builder_are_validated():
    class Wrong(bl.MLPBuilder):
        def create_blocks(self):
            return [bl.Dense(16, in_features=8), bl.Dense(16, in_features=15), bl.Dense(0)]

    class AlmostRight(Wrong):
        def create_blocks(self):
            return [bl.Dense(16, in_features=8), bl.Dense(16, in_features=15)]

    (error,) = messages(Wrong({"in_features_list": [8, 16, 16]}))
    assert error == "Dense.features must be a positive int, got 0."
    (error,) = messages(AlmostRight({"in_features_list": [8, 16, 16]}))
    assert error.startswith("Dense at '1' states in_features=15, but its input has 16.")


def test_its_transpose():
    decoder = bl.MLPBuilder(PERCEPTRON).build().transpose((8,))
    assert kinds(decoder) == ["Dense", "relu", "Dense", "relu", "Dense"]
    assert bl.count(bl.infer(decoder, (1,))) == 400


# ---- convolutions -----------------------------------------------------------------------------


def test_a_network_of_digits():
    builder = bl.ConvBuilder(DIGITS)
    stage = ["Conv", "BatchNorm", "relu", "MaxPool", "Dropout"]
    head = ["Flatten", "Dense", "relu", "Dropout", "Dense", "Softmax", "Dropout"]
    net = builder.build()
    assert kinds(net) == stage * 3 + head
    assert len(net) == 22
    node = infer(builder, "channels_first")
    widths = [shape[1] for shape in sizes(node)[:15]]
    assert widths == [28] * 3 + [27] * 2 + [27] * 3 + [26] * 2 + [26] * 3 + [25] * 2
    assert sizes(node)[15] == (20000,)
    assert counts(node) == [1152, 32, 2304, 32, 4608, 64, 1_280_000, 640]
    assert bl.count(node, trainable=True) == 1_288_832


def test_it_is_what_is_written_by_hand():
    def stage(features):
        return [
            bl.Conv(features, (3, 3), padding=((1, 1), (1, 1)), use_bias=False),
            bl.BatchNorm(),
            bl.ReLU(),
            bl.MaxPool((2, 2), 1),
            bl.Dropout(0.2, whole_channels=True),
        ]

    by_hand = bl.Sequential(
        *stage(16),
        *stage(16),
        *stage(32),
        bl.Flatten(),
        bl.Dense(64, use_bias=False),
        bl.ReLU(),
        bl.Dropout(0.2),
        bl.Dense(10, use_bias=False),
        bl.Softmax(),
        bl.Dropout(0.2),
    )
    assert bl.ConvBuilder(DIGITS).build() == by_hand


def test_a_stated_flattened_size_is_checked():
    builder = bl.ConvBuilder(DIGITS).set("in_features_list", [625, 64, 10])
    (error,) = messages(builder)
    assert error.startswith("Dense at '16' states in_features=625, but its input has 20000.")
    assert "from (25, 25, 32)" in error
    builder.set("in_channels_list", [8, 16, 16, 1])
    assert bl.count(infer(builder), trainable=True) == 44_306
    builder.set("in_channels_list", [8, 16, 16, 32]).set("in_features_list", [20000, 64, 10])
    assert bl.count(infer(builder), trainable=True) == 1_288_832


def test_its_transpose_comes_back_to_the_image():
    """Pools are mirrored too; without them it would be 8 x 25 x 25."""
    builder = bl.ConvBuilder(DIGITS)
    node = infer(builder, "channels_first")
    decoder = bl.infer(bl.transpose(node), (10,), layout="channels_first")
    assert decoder.out_spec.shape == (8, 28, 28)
    naive = [block for block in decoder.block if not isinstance(block, bl.Upsample)]
    shape = bl.infer(bl.Sequential(*naive), (10,), layout="channels_first").out_spec.shape
    assert shape == (8, 25, 25)


def test_the_step_of_a_pool_is_stated():
    """28 becomes 14 by kernel 4, stride 2, padding 1; then 13 or 7."""
    attributes = {
        "input_size": (28, 28),
        "in_channels_list": [1, 4],
        "kernel_size": 4,
        "stride": 2,
        "padding": 1,
        "max_pool_kernel": 2,
    }
    (error,) = messages(bl.ConvBuilder(attributes))
    assert error.startswith("ConvBuilder.max_pool_stride is missing: state it, (2, 2) for")
    for step, size in ((1, 13), (2, 7)):
        node = infer(bl.ConvBuilder(attributes).set("max_pool_stride", step))
        assert node.out_spec.shape == (size, size, 4)
    (error,) = messages(
        bl.ConvBuilder(attributes | {"max_pool_kernel": None, "max_pool_stride": 2})
    )
    assert "has no meaning without max_pool_kernel" in error


@pytest.mark.parametrize(
    ("size", "wanted"), [((28,), (28,)), ((8, 28, 28), (8, 28, 28)), ((30, 17), (30, 17))]
)
def test_one_two_and_three_axes(size, wanted):
    attributes = {"in_channels_list": [3, 5, 6], "kernel_size": 3, "padding": 1, "bias": True}
    builder = bl.ConvBuilder(attributes | {"input_size": size})
    assert infer(builder).out_spec.shape == (*wanted, 6)
    builder.set("max_pool_kernel", 2).set("max_pool_stride", 1)
    assert infer(builder).out_spec.shape == (*(n - 2 for n in wanted), 6)


def test_every_form_of_padding():
    attributes = {"input_size": (9, 8), "in_channels_list": [3, 5], "kernel_size": (3, 4)}
    paddings = ["same", "valid", 1, (1, 2), ((1, 0), (2, 1))]
    found = [bl.ConvBuilder(attributes).set("padding", p).build()[0].padding for p in paddings]
    assert found == ["same", "valid", ((1, 1), (1, 1)), ((1, 1), (2, 2)), ((1, 0), (2, 1))]


def test_without_dense_the_last_convolution_has_the_output_activation():
    attributes = {"input_size": (9,), "in_channels_list": [3, 5, 6], "kernel_size": 2}
    builder = bl.ConvBuilder(attributes)
    assert kinds(builder.build()) == ["Conv", "relu", "Conv", "relu"]
    assert kinds(builder.set("output_activation", bl.Tanh()).build()) == [
        "Conv",
        "relu",
        "Conv",
        "tanh",
    ]


def test_a_rate_for_each_layer():
    builder = bl.ConvBuilder(DIGITS).set("drop_out", [0.1, 0, 0.3, 0.4, 0])
    rates = [block.rate for block in builder.build() if isinstance(block, bl.Dropout)]
    assert rates == [0.1, 0.3, 0.4]
    assert isinstance(builder.build()[-1], bl.Softmax)


# ---- what is wrong ----------------------------------------------------------------------------


def test_all_that_is_wrong_is_said_at_once():
    builder = bl.ConvBuilder(
        {
            "in_size": (28, 28),
            "in_channels_list": [8],
            "kernel_size": (3, 3),
            "stride": 0.5,
            "padding": -1,
            "is_batch_norm": "yes",
            "activation": bl.ReLU,
            "drop_out": 1.5,
            "in_features_list": [64, "auto"],
        }
    )
    starts = [
        "ConvBuilder has no attribute 'in_size'. Did you mean 'input_size'? It has input_size, ",
        "ConvBuilder.input_size is missing.",
        "ConvBuilder.in_channels_list must be a list of two or more positive ints, got [8].",
        "ConvBuilder.stride must be an int of at least 1, or one for each axis, got 0.5.",
        "ConvBuilder.padding must be 'same', 'valid', or an int or a pair for each axis, got -1.",
        "ConvBuilder.in_features_list must be a list of two or more positive ints ('auto' may be ",
        f"ConvBuilder.activation must be a block, got {bl.ReLU!r}. Write ReLU(...).",
        "ConvBuilder.is_batch_norm must be True or False, got 'yes'.",
        "ConvBuilder.drop_out must be a number >= 0 and < 1, got 1.5.",
    ]
    found = messages(builder)
    assert len(found) == len(starts)
    assert all(error.startswith(start) for error, start in zip(found, starts, strict=True))


def test_wrong_attributes_and_wrong_sizes_are_said_together():
    wrong = {"drop_out": -1, "kernel_size": 5, "max_pool_kernel": 30, "max_pool_stride": 1}
    found = messages(bl.ConvBuilder(DIGITS | wrong))
    assert len(found) == 2
    assert "ConvBuilder.drop_out" in found[0]
    assert "MaxPool at '3' has a kernel larger than its input" in found[1]


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("kernel_size", (3,), "an int of at least 1, or 2 of them as input_size=(28, 28) has"),
        ("kernel_size", (3, 3, 3), "or 2 of them"),
        ("stride", (1, 0), "an int of at least 1"),
        ("stride", "1", "an int of at least 1"),
        ("padding", "sam", "'same', 'valid', or an int or a pair for each axis"),
        ("padding", -1, "'same', 'valid'"),
        ("padding", np.array([1, 2, 3]), "'same', 'valid'"),
        ("max_pool_kernel", 0, "an int of at least 1"),
        ("input_size", 28, "a tuple of one to three positive ints"),
        ("in_channels_list", [8, 16, True], "a list of two or more positive ints"),
        ("in_features_list", ["aut", 10], "('auto' may be the first)"),
        ("drop_out", [0.1, 0.2], "a number, or one for each of 5 layers"),
        ("bias", 0, "True or False"),
        ("output_activation", "softmax", "a block"),
    ],
)
def test_each_wrong_value_is_named(key, value, rule):
    found = messages(bl.ConvBuilder(DIGITS).set(key, value))
    assert len(found) == 1
    assert found[0].startswith(f"ConvBuilder.{key} must be ")
    assert rule in found[0]


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        ({"kernel_size": 29}, "kernel_size"),
        ({"max_pool_kernel": 27}, "max_pool_kernel"),
        ({"in_features_list": [625, 10]}, "in_features_list"),
    ],
)
def test_what_does_not_fit_names_its_attribute(wrong, key):
    (error,) = messages(bl.ConvBuilder(DIGITS | wrong))
    assert error.endswith(f"\n  It is made by ConvBuilder.{key}.")


def test_rates_are_not_counted_where_no_list_says_how_many():
    for attributes in ({"in_features_list": [4, 0]}, {}):
        (error,) = messages(bl.MLPBuilder(attributes | {"drop_out": [0.1, 0.2]}))
        assert "in_features_list" in error
    found = messages(bl.MLPBuilder({"drop_out": [0.1, 2]}))
    assert found[1].startswith("MLPBuilder.drop_out[1] must be a number >= 0 and < 1")


@pytest.mark.parametrize(
    "wrong",
    [{"in_channels_list": [8]}, {"in_features_list": ["auto", 0]}, {"in_features_list": 64}],
    ids=str,
)
@pytest.mark.parametrize("drop_out", [[0.1] * 5, [0.1], 0.1])
def test_a_wrong_list_is_one_mistake(wrong, drop_out):
    """It may have had the layers that the rates are for."""
    found = messages(bl.ConvBuilder(DIGITS | wrong | {"drop_out": drop_out}))
    assert len(found) == 1
    assert f"ConvBuilder.{next(iter(wrong))} must be" in found[0]


def test_a_wrong_list_hides_no_wrong_convolution():
    wrong = {"in_features_list": 64, "drop_out": [0.1], "kernel_size": 14}
    found = messages(bl.ConvBuilder(DIGITS | wrong))
    assert len(found) == 2
    assert "Conv at '9' has a kernel larger than its input" in found[1]


class Unfinished(bl.Builder):
    def create_blocks(self):
        return [bl.Dense(3)]


@pytest.mark.parametrize(
    ("builder", "method"), [(bl.Builder({}), "create_blocks"), (Unfinished(), "input_shape")]
)
def test_a_builder_that_makes_nothing(builder, method):
    name = type(builder).__name__
    (error,) = builder.validate()
    assert str(error).startswith(f"{name} does not say what it makes: it has no {method}.")
    with pytest.raises(bl.FieldError, match="Use MLPBuilder or ConvBuilder, or write one with"):
        builder.build()


def test_a_key_of_any_type_is_unknown():
    for key in (3, None, ["bias"]):
        with pytest.raises(bl.FieldError, match="MLPBuilder has no attribute"):
            bl.MLPBuilder().set(key, True)
        with pytest.raises(bl.FieldError, match="MLPBuilder has no attribute"):
            bl.MLPBuilder()[key]


def test_attributes_are_checked_once_for_all_layers():
    class Counting(bl.ConvBuilder):
        checks = 0

        def checked(self):
            type(self).checks += 1
            return super().checked()

    builder = Counting(DIGITS | {"in_channels_list": [4] * 20, "padding": "same"})
    assert len(builder.build()) > 80
    assert Counting.checks == 2  # to validate, and to build
    assert builder.set("bias", True).build()[0].use_bias


def test_a_filter_that_does_not_fit():
    builder = bl.ConvBuilder({"input_size": (2, 2), "in_channels_list": [1, 1], "kernel_size": 4})
    (error,) = messages(builder.set("stride", 3))
    assert "has a kernel larger than its input: kernel 4, but axis 0 of (2, 2, 1) has 2" in error


@pytest.mark.parametrize("attributes", [[1, 2], "abc", 3])
def test_attributes_are_a_dictionary(attributes):
    with pytest.raises(bl.FieldError, match="a dictionary"):
        bl.MLPBuilder(attributes)


def test_one_value_is_asked_for_by_its_key():
    builder = bl.MLPBuilder({"in_features_list": [3]})
    assert builder["bias"] is False
    with pytest.raises(bl.FieldError, match="two or more"):
        builder["in_features_list"]
    with pytest.raises(bl.FieldError, match="Did you mean 'bias'"):
        builder["biass"]


def test_a_built_block_cannot_be_changed_behind_its_parameters():
    layer = bl.MLPBuilder(PERCEPTRON).build()[0]
    with pytest.raises(FrozenInstanceError):
        layer.features = 3


# ---- sizes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "kernel", "padding", "stride", "wanted"),
    [
        ((28, 28), 3, 1, 1, (28, 28)),
        ((28, 28), 4, 1, 2, (14, 14)),
        ((28, 28), 3, 0, 1, (26, 26)),
        ((32, 64), (3, 4), (1, 1), (1, 2), (32, 32)),
        ((28, 28), 2, 0, 1, (27, 27)),
        ((28,), 3, 1, 2, (14,)),
        ((8, 28, 27), 3, 1, 1, (8, 28, 27)),
    ],
)
def test_output_sizes(size, kernel, padding, stride, wanted):
    assert bl.output_size(size, kernel, padding, stride) == wanted


def test_a_window_that_does_not_fit_has_no_output():
    with pytest.raises(bl.ShapeError, match="kernel 4, but axis 0"):
        bl.output_size((2,), 4, 0, 3)
    with pytest.raises(bl.FieldError, match=r"output_size\.kernel_size must be"):
        bl.output_size((28, 28), (3,))
    with pytest.raises(bl.FieldError, match=r"transposed_size\.input_size must be"):
        bl.transposed_size(28, 3)


def test_stride_two_comes_back_with_one_cell_more():
    assert bl.transposed_size((14,), 3, 1, 2) == (27,)
    assert bl.transposed_size((14,), 3, 1, 2, output_padding=1) == (28,)
    assert bl.transposed_size((16, 7), 4, 1, 2) == (32, 14)


@given(*[st.integers(1, n) for n in (60, 5, 4, 3)], st.integers(0, 3))
def test_sizes_are_counted_windows_and_come_back(size, kernel, stride, dilation, padding):
    reach = dilation * (kernel - 1)
    windows = [p for p in range(0, size + 2 * padding, stride) if p + reach < size + 2 * padding]
    steps = {"padding": padding, "stride": stride, "dilation": dilation}
    if not windows:
        with pytest.raises(bl.ShapeError):
            bl.output_size((size,), kernel, **steps)
        return
    made = bl.output_size((size,), kernel, **steps)
    assert made == (len(windows),)
    more = (size + 2 * padding - reach - 1) % stride
    assert bl.transposed_size(made, kernel, **steps, output_padding=more) == (size,)

"""All errors at once: each once, and none that only follows from another."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_trees import trees

import blocks as bl

LAYOUTS = ["channels_last", "channels_first"]

# A classifier of images, with the sizes that someone wrote down for it.
CLASSIFIER = bl.Sequential(
    bl.Conv(16, (3, 3), padding=((1, 1), (1, 1)), use_bias=False, in_features=8),
    bl.BatchNorm(in_features=16),
    bl.ReLU(),
    bl.MaxPool((2, 2), 1),
    bl.Dropout(0.2, whole_channels=True),
    bl.Conv(16, (3, 3), padding=((1, 1), (1, 1)), use_bias=False, in_features=16),
    bl.BatchNorm(in_features=16),
    bl.MaxPool((2, 2), 1),
    bl.Dropout(0.2, whole_channels=True),
    bl.Conv(32, (3, 3), padding=((1, 1), (1, 1)), use_bias=False, in_features=16),
    bl.BatchNorm(in_features=32),
    bl.MaxPool((2, 2), 1),
    bl.Dropout(0.2, whole_channels=True),
    bl.Flatten(),
    bl.Dense(64, use_bias=False, in_features=625),
    bl.Dropout(0.2),
    bl.Dense(10, use_bias=False, in_features=64),
    bl.Softmax(),
    bl.Dropout(0.2),
)

# The decoder of a variational autoencoder, whose norms state the channels before their layer.
DECODER = bl.Sequential(
    bl.ConvTranspose(8, (3, 3), use_bias=False, in_features=16),
    bl.BatchNorm(in_features=16),
    bl.ReLU(),
    bl.Dropout(0.25, whole_channels=True),
    bl.ConvTranspose(3, (3, 3), use_bias=False, in_features=8),
    bl.BatchNorm(in_features=8),
    bl.ReLU(),
    bl.Dropout(0.25),
)


def places(found):
    return [(error.path, type(error.block).__name__) for error in found]


def test_a_flattened_size_that_does_not_follow():
    found = bl.validate(CLASSIFIER, (8, 28, 28), layout="channels_first")
    assert not found
    assert places(found) == [("14", "Dense")]
    assert str(found) == (
        "1 error\n"
        "Dense at '14' states in_features=625, but its input has 20000.\n"
        "  (20000,) is the output of Flatten at '13', from (32, 25, 25).\n"
        "  Write in_features=20000, or leave it out: it is inferred."
    )
    assert bl.count(found.node, trainable=True) == 48_832  # as it is written


def test_no_image_makes_those_sizes_fit():
    """625 is no multiple of 32."""
    for size in range(4, 40):
        assert len(bl.validate(CLASSIFIER, (8, size, size), layout="channels_first")) == 1


def test_norms_that_state_other_channels():
    found = bl.validate(DECODER, (16, 24, 24), layout="channels_first")
    assert places(found) == [("1", "BatchNorm"), ("5", "BatchNorm")]
    first, second = map(str, found)
    assert "states in_features=16, but its input has 8." in first
    assert "states in_features=8, but its input has 3." in second
    assert bl.count(found.node, trainable=True) == 1152 + 32 + 216 + 16
    assert found.node.out_spec.shape == (3, 28, 28)


def test_features_of_one_layer_and_the_next():
    net = bl.Sequential(bl.Dense(16, in_features=8), bl.Dense(3, in_features=15))
    (error,) = bl.validate(net, (8,))
    assert str(error).startswith("Dense at '1' states in_features=15, but its input has 16.")
    assert "the output of Dense at '0'" in str(error)


def test_a_network_that_fits():
    found = bl.validate(bl.Sequential(bl.Dense(3)), (8,))
    assert found
    assert list(found) == []
    assert str(found) == "(8,) -> (3,): no errors"
    assert found.node.out_spec.shape == (3,)


def test_all_kinds_of_errors_at_once():
    net = bl.Sequential(
        bl.Conv(8, (3, 3), in_features=4),
        bl.MaxPool((9, 9)),
        bl.BatchNorm(in_features=7),
        bl.Conv(6, (2, 2), padding="same", stride=2),  # its sizes are unknown: no error of its own
        bl.Flatten(),
        bl.Dense(5),
        bl.Residual(bl.Dense(4)),
        bl.Dense(3, in_features=9),
        bl.Reshape((2, 2)),
        bl.Dense(2),
        bl.LSTM(3),
        bl.Conv(2, (2, 2)),
        tail=bl.Parallel(bl.Dense(2), bl.Dense(3), merge="add"),
    )
    found = bl.validate(net, (8, 9, 3))
    assert places(found) == [
        ("0", "Conv"),
        ("1", "MaxPool"),
        ("2", "BatchNorm"),
        ("6", "Residual"),
        ("7", "Dense"),
        ("8", "Reshape"),
        ("11", "Conv"),
        ("tail", "Parallel"),
    ]


def test_a_declared_size_is_what_the_listing_says():
    """Behind an image that is too small, a stated size still has its parameters."""
    net = bl.Sequential(bl.Conv(4, (5,)), bl.Flatten(), bl.Dense(3, in_features=8), bl.Dense(2))
    found = bl.validate(net, (3, 2))
    assert places(found) == [("0", "Conv")]
    assert found.node.children[2].params["kernel"].shape == (8, 3)
    assert found.node.out_spec.shape == (2,)


def test_integers_where_floats_are_wanted_are_one_error():
    net = bl.Sequential(bl.Dense(3), bl.Tanh(), bl.Dense(2))
    assert places(bl.validate(net, bl.Spec((4,), "int32"))) == [("0", "Dense")]
    assert bl.validate(bl.Sequential(bl.Embedding(9, 2), bl.Dense(2)), (4,))


def test_tuples_where_tensors_are_wanted():
    net = bl.Sequential(bl.Parallel(bl.Dense(2), bl.Dense(2), merge="tuple"), bl.Dense(3))
    assert places(bl.validate(net, (4,))) == [("1", "Dense")]
    net = bl.Sequential(bl.Dense(2), bl.Sample(), bl.Dense(3))
    assert places(bl.validate(net, (4,))) == [("1", "Sample")]


def test_behind_a_merge_the_first_branch_goes_on():
    merged = bl.Parallel(bl.Dense(2), bl.Dense(3), merge="add")
    net = bl.Sequential(merged, bl.Dense(4, in_features=2))
    assert places(bl.validate(net, (5,))) == [("0", "Parallel")]


def test_one_name_for_two_shared_blocks():
    net = bl.Sequential(
        bl.Shared("tied", bl.Dense(3)), bl.Shared("tied", bl.Dense(4)), bl.Dense(2, in_features=5)
    )
    first, second = bl.validate(net, (3,))
    assert "Give one of them another name." in str(first)
    assert second.path == "2"


@pytest.mark.parametrize(
    ("repeated", "shape", "path"),
    [
        (bl.Dense(3, in_features=4), (7,), "0"),
        (bl.Dense(3, in_features=7), (7,), "1"),  # the first one fits
        (
            bl.Sequential(bl.Dense(7), bl.MLP(3, hidden=(5,)), bl.BatchNorm(in_features=4)),
            (7,),
            "0/2",
        ),
        (bl.Repeat(bl.Dense(3, in_features=4), 2), (7,), "0/0"),
        (bl.Residual(bl.Conv(2, (3,))), (40, 2), "0"),  # smaller each time
    ],
    ids=str,
)
def test_a_mistake_in_a_repeat_is_one_error(repeated, shape, path):
    net = bl.Sequential(bl.Identity(), bl.Repeat(repeated, 4))
    assert [error.path for error in bl.validate(net, shape)] == [f"1/{path}"]


def test_two_mistakes_in_a_repeat_are_two():
    wrong = bl.Sequential(bl.Dense(3, in_features=4), bl.Dense(7, in_features=4))
    net = bl.Sequential(bl.Repeat(wrong, 3), bl.Repeat(wrong, 2), wrong)
    paths = [error.path for error in bl.validate(net, (7,))]
    assert paths == ["0/0/0", "0/0/1", "1/0/0", "1/0/1", "2/0", "2/1"]


def test_a_name_that_clashes_in_a_repeat_is_one_error():
    twice = bl.Sequential(bl.Shared("tied", bl.Dense(3)), bl.Shared("tied", bl.Dense(4)))
    (error,) = bl.validate(bl.Repeat(twice, 5), (4,))
    assert "Give one of them another name." in str(error)


def test_an_unknown_size_of_the_input_is_an_error():
    assert places(bl.validate(bl.Sequential(bl.Flatten(), bl.Dense(3)), (None, 4))) == [
        ("1", "Dense")
    ]


class Doubled(bl.Custom):
    """Twice as many steps, in code that takes for granted that their number is known."""

    def out_spec(self, x):
        return x.with_shape((x.shape[0] * 2, *x.shape[1:]))

    def forward(self, ops, x):
        return ops.concat([x, x], 1)


class NoSpecs(bl.Custom):
    def param_specs(self, x):
        return {"kernel": 3}

    def out_spec(self, x):
        return x.shape

    def forward(self, ops, x, kernel):
        return x


def test_code_of_users_that_meets_what_an_error_left_unknown():
    ends = Doubled(), bl.Dense(2, in_features=7)
    net = bl.Sequential(bl.Conv(5, (9,)), *ends)
    assert places(bl.validate(net, (4, 3))) == [("0", "Conv"), ("2", "Dense")]
    own = bl.validate(bl.Sequential(*ends), (None, 3))  # its own mistake is shown as in infer
    assert places(own) == [("0", "Doubled"), ("1", "Dense")]
    with pytest.raises(bl.ShapeError, match="its code raised TypeError") as info:
        bl.infer(bl.Sequential(*ends), (None, 3))
    assert isinstance(info.value.__cause__, TypeError)
    assert str(info.value) == str(own.errors[0])


def test_specs_that_are_none():
    net = bl.Sequential(NoSpecs(), bl.Dense(2, in_features=7))
    found = bl.validate(net, (4, 3))
    assert places(found) == [("0", "NoSpecs"), ("1", "Dense")]
    with pytest.raises(bl.ShapeError) as info:
        bl.infer(net, (4, 3))
    assert str(info.value) == str(found.errors[0])


def test_arguments_are_checked_as_in_infer():
    with pytest.raises(bl.FieldError, match="needs a block"):
        bl.validate("net", (3,))
    with pytest.raises(bl.FieldError, match="input_shape"):
        bl.validate(bl.Dense(3), 3)


@settings(deadline=None, max_examples=300, suppress_health_check=list(HealthCheck))
@given(st.lists(trees, min_size=1, max_size=5), st.sampled_from(LAYOUTS))
def test_it_agrees_with_infer(blocks, layout):
    """It never raises; without errors it makes the same node, else its first error is infer's."""
    net = bl.Sequential(*blocks)
    found = bl.validate(net, (7, 6, 4), layout=layout)
    if not found:
        with pytest.raises(bl.BlockError) as info:
            bl.infer(net, (7, 6, 4), layout=layout)
        assert str(info.value) == str(found.errors[0])
        return
    node = bl.infer(net, (7, 6, 4), layout=layout)
    assert [repr(n) for n in found.node.walk()] == [repr(n) for n in node.walk()]
    assert found.node.param_specs() == node.param_specs()

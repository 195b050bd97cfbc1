"""What networks take beside floats: integers, booleans, tuples; and what they refuse."""

import numpy as np
import pytest

import blocks as bl

TOWERS = bl.Parallel(
    bl.Sequential(bl.Select(0), bl.Embedding(7, 3)), bl.Sequential(bl.Select(1), bl.Dense(3))
)


def test_an_input_that_goes_into_an_embedding_holds_integers():
    node = bl.infer(bl.Sequential(bl.Identity(), bl.Embedding(7, 3), bl.Dense(2)), (5,))
    assert node.in_spec == bl.Spec((5,), "int32", below=7)
    assert node.out_spec == bl.Spec((5, 2))
    wide = bl.infer(TOWERS, ((5,), (5, 4)), dtype="float64")
    assert [spec.dtype for spec in wide.in_spec] == ["int32", "float64"]
    assert wide.out_spec.dtype == "float64"


def test_the_smallest_of_several_tables_bounds_the_integers():
    net = bl.Parallel(bl.Embedding(9, 3), bl.Embedding(7, 3), bl.Embedding(8, 3))
    assert bl.infer(net, (5,)).in_spec.below == 7


def test_an_input_may_be_stated_as_integers():
    net = bl.Sequential(bl.Flatten(), bl.Embedding(7, 3))
    with pytest.raises(bl.ShapeError) as error:
        bl.infer(net, (5, 2))
    assert str(error.value) == (
        "Embedding at '1' takes integers, got float32 of (10,).\n"
        "  (10,) is the output of Flatten at '0', from (5, 2).\n"
        "  Write Spec((10,), 'int32') for the network's input."
    )
    node = bl.infer(net, bl.Spec((5, 2), "int32", below=7))
    assert node.out_spec.shape == (10, 3)
    assert bl.parity(node, backends=["numpy"])


def test_integers_do_not_go_into_blocks_of_floats():
    with pytest.raises(bl.ShapeError) as error:
        bl.infer(bl.Parallel(bl.Embedding(7, 3), bl.Dense(3)), (5,))
    assert str(error.value) == (
        "Dense at '1' takes floats, got int32 of (5,).\n  (5,) is the input of the network."
    )


def test_an_unknown_dtype_of_an_input():
    with pytest.raises(bl.FieldError, match=r"dtype of an input must be one of .*, got 'int33'"):
        bl.infer(bl.Identity(), bl.Spec((5,), "int33"))


def embedding(backend):
    return bl.lower(bl.Embedding(7, 3), backend, input_shape=(2,), dtype="float64")


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.array([[0.0, 1.0]]), "the network takes integers, got dtype float64."),
        (np.array([[0, 7]]), "the network takes integers from 0 to 6, got 0 to 7."),
        (np.array([[-1, 3]]), "the network takes integers from 0 to 6, got -1 to 3."),
    ],
    ids=["floats", "too large", "negative"],
)
def test_numbers_that_are_no_rows(x, message, backend):
    model = embedding(backend)
    for verb in (bl.apply, lambda m, x: bl.gradients(m, x, np.ones((1, 2, 3)))):
        with pytest.raises(bl.FieldError) as error:
            verb(model, x)
        assert str(error.value) == message


def test_rows_that_occur_twice_gather_both_gradients(backend):
    grads = bl.gradients(embedding(backend), np.array([[4, 4]]), np.ones((1, 2, 3)))
    wanted = np.zeros((7, 3))
    wanted[4] = 2
    np.testing.assert_allclose(grads["embedding"], wanted)
    assert not grads["input"].any()
    assert grads["input"].shape == (1, 2)


SHAPES = [
    (
        bl.Select(2),
        ((3,), (4,)),
        "Select at the top selects member 2, but its input has 2.\n"
        "  ((3,), (4,)) is the input of the network.\n"
        "  Write an index from 0 to 1.",
    ),
    (
        bl.Select(0),
        (3,),
        "Select at the top selects from a tuple, got one tensor.\n"
        "  (3,) is the input of the network.\n"
        "  Leave it out.",
    ),
    (
        bl.Sample(),
        (3,),
        "Sample at the top takes a tuple of mean and log variance, got one tensor.\n"
        "  (3,) is the input of the network.\n"
        "  Put Parallel(mean, log_variance, merge='tuple') before it.",
    ),
    (
        bl.Sequential(bl.Parallel(bl.Dense(2), bl.Dense(3), merge="tuple"), bl.Sample()),
        (5,),
        "Sample at '1' needs a mean and a log variance of one shape.\n"
        "  mean (2,) from Dense(features=2) at '0/0', "
        "log variance (3,) from Dense(features=3) at '0/1'.",
    ),
    (
        bl.Parameter((4,)),
        (5, 3),
        "Parameter at the top adds an array of shape (4,), but its input is (5, 3).\n"
        "  (5, 3) is the input of the network.\n"
        "  Give it the shape (5, 3), or sizes of 1 where it repeats.",
    ),
    (
        bl.Constant([1.0, 2.0], merge="multiply"),
        (5, 3),
        "Constant at the top multiplies by an array of shape (2,), but its input is (5, 3).\n"
        "  (5, 3) is the input of the network.\n"
        "  Give it the shape (5, 3), or sizes of 1 where it repeats.",
    ),
    (
        bl.Parameter((2, 4), "prepend"),
        (5, 3),
        "Parameter at the top prepends an array of shape (2, 4), but its input is (5, 3).\n"
        "  (5, 3) is the input of the network.\n"
        "  Give it the shape (1, 3), with any first size.",
    ),
    (
        bl.Parameter(),
        (None, 3),
        "Parameter at the top needs a known number of elements, got any length in (None, 3).\n"
        "  (None, 3) is the input of the network.\n"
        "  Give that size to infer.",
    ),
    (
        bl.Residual(bl.Select(0)),
        ((3,), (4,)),
        "Residual at the top cannot merge tuples by 'add'.\n"
        "  input ((3,), (4,)), body (3,) from Select(index=0) at 'body'.\n"
        "  Let each branch give one tensor: Select(0) takes the first of a tuple.",
    ),
]


@pytest.mark.parametrize(("block", "shape", "message"), SHAPES, ids=[m[:40] for *_, m in SHAPES])
def test_shape_errors(block, shape, message):
    with pytest.raises(bl.ShapeError) as error:
        bl.infer(block, shape)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: bl.Constant("nothing"),
            "Constant.value must be an Initializer, an array or one of",
        ),
        (lambda: bl.Parameter((0,)), "Parameter.shape must be a tuple of positive ints, got (0,)."),
        (lambda: bl.Parameter(merge="plus"), "Parameter.merge must be one of 'add', 'multiply',"),
        (lambda: bl.Embedding(0, 3), "Embedding.num_embeddings must be a positive int, got 0."),
        (lambda: bl.infer(bl.Dense(3), (2,), dtype="float8"), "dtype must be one of 'float32',"),
        (
            lambda: bl.infer(bl.Dense(3), (2,), dtype="float64", param_dtype="float32"),
            "param_dtype must be one of 'float64', got 'float32'.",
        ),
        (
            lambda: bl.infer(bl.Dense(3), (2,), dtype="bfloat16", param_dtype="float16"),
            "param_dtype must be one of 'bfloat16', 'float32', got 'float16'.",
        ),
    ],
)
def test_field_errors(build, message):
    with pytest.raises(bl.FieldError) as error:
        build()
    assert str(error.value).startswith(message)


def test_a_constant_is_no_parameter_but_is_kept(backend):
    net = bl.Sequential(bl.Dense(2), bl.Constant([3.0, -1.0], merge="multiply"))
    model = bl.lower(net, backend, input_shape=(4,))
    before = bl.params_of(model)
    np.testing.assert_array_equal(before["1/value"], [3.0, -1.0])
    x, y = np.ones((6, 4)), np.ones((6, 2))
    assert "1/value" not in bl.gradients(model, x, y)
    bl.fit(model, (x, y), loss="mse", optimizer=bl.SGD(0.05), epochs=2)
    after = bl.params_of(model)
    np.testing.assert_array_equal(after["1/value"], before["1/value"])
    assert not np.allclose(after["0/kernel"], before["0/kernel"])

"""Parameters and inference, without any framework."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import blocks as bl
from blocks._params import matches
from blocks._spec import array_dtype
from blocks.initializers import NAMED, Array, Orthogonal, Uniform, fans


def drawn(block, shape, seed=0):
    return bl.init(bl.infer(block, shape), seed)


def test_inserting_a_block_does_not_reshuffle_its_neighbours():
    plain = drawn(bl.Sequential(first=bl.Dense(4), last=bl.Dense(4)), (4,))
    longer = drawn(bl.Sequential(first=bl.Dense(4), new=bl.Dense(4), last=bl.Dense(4)), (4,))
    assert np.array_equal(plain["last/kernel"], longer["last/kernel"])
    assert not np.array_equal(longer["new/kernel"], longer["last/kernel"])


def test_a_seed_gives_the_same_numbers_and_another_others():
    block = bl.Conv(4, (3, 2))
    one, same, other = (drawn(block, (5, 6, 3), seed)["kernel"] for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_every_backend_starts_from_the_same_numbers(backend):
    net = bl.Sequential(bl.Conv(4, (3, 2)), bl.BatchNorm(), bl.Flatten(), bl.Dense(3))
    node = bl.infer(net, (5, 6, 2))
    found = bl.params_of(bl.lower(node, backend, seed=7))
    wanted = bl.init(node, 7)
    assert found.keys() == wanted.keys()
    assert all(np.array_equal(found[p], wanted[p]) for p in wanted)


def test_a_model_shares_no_memory(backend):
    """Neither with arrays that it was given, wherever they lie in memory, nor with other models."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 4)), rng.normal(size=(6, 4))
    kernels = rng.normal(size=(6, 4, 4)).astype(np.float32)
    net = bl.Sequential(*(bl.Dense(4, kernel_init=k.tolist()) for k in kernels), bl.BatchNorm())
    node = bl.infer(net, (4,))
    given, first = bl.init(node), bl.init(node)
    models = [bl.lower(node, backend), bl.lower(node, backend, params=given)]
    models += [bl.lower(node, backend, seed=1), bl.lower(node, backend)]
    bl.load_params(models[2], given)
    bl.fit(models[0], (x, y), loss="mse", epochs=2)
    for array in given.values():
        array[...] = 7
    assert all(same(bl.params_of(model), first) for model in models[1:])
    assert not same(bl.params_of(models[0]), first)
    assert same(bl.init(node), first)


def same(a, b):
    return all(np.array_equal(a[path], b[path]) for path in b)


def test_native_first_parameters_are_the_framework_own(backend):
    node = bl.infer(bl.Dense(40), (50,))
    native = bl.params_of(bl.lower(node, backend, init="native"))
    assert native["kernel"].shape == (50, 40)
    assert not np.array_equal(native["kernel"], bl.init(node)["kernel"])
    assert np.std(native["kernel"]) > 0.01
    assert native["kernel"].dtype == np.float32
    again = bl.params_of(bl.lower(node, backend, init="native"))
    assert np.array_equal(native["kernel"], again["kernel"])


@pytest.mark.parametrize(
    ("name", "std"),
    [
        ("glorot_uniform", np.sqrt(2 / (6 * 30 + 6 * 40))),
        ("glorot_normal", np.sqrt(2 / (6 * 30 + 6 * 40))),
        ("he_uniform", np.sqrt(2 / (6 * 30))),
        ("he_normal", np.sqrt(2 / (6 * 30))),
        ("lecun_uniform", np.sqrt(1 / (6 * 30))),
        ("lecun_normal", np.sqrt(1 / (6 * 30))),
        ("normal", 0.05),
        ("uniform", 0.05 / np.sqrt(3)),
        ("zeros", 0.0),
    ],
)
def test_the_spread_of_named_initialisers(name, std):
    kernel = drawn(bl.Conv(40, (3, 2), kernel_init=name), (5, 6, 30))["kernel"]
    assert np.std(kernel) == pytest.approx(std, rel=0.03)
    assert np.mean(kernel) == pytest.approx(0, abs=0.01)


def test_fans_count_the_window():
    assert fans((3, 2, 5, 7)) == (30, 42)
    assert fans((5, 7)) == (5, 7)
    assert fans((4,)) == (4, 4)


def test_orthogonal_kernels():
    q = Orthogonal(2.0).draw(np.random.default_rng(0), (3, 2, 4))
    np.testing.assert_allclose(q.reshape(6, 4).T @ q.reshape(6, 4), 4 * np.eye(4), atol=1e-12)
    wide = Orthogonal().draw(np.random.default_rng(0), (3, 5))
    np.testing.assert_allclose(wide @ wide.T, np.eye(3), atol=1e-12)


def test_array_initialisers_are_exact_and_fit():
    sobel = Array([[1.0], [2.0]])
    assert np.array_equal(drawn(bl.Dense(1, kernel_init=sobel), (2,))["kernel"], [[1], [2]])
    assert bl.Dense(1, kernel_init=[[1.0], [2.0]]) == bl.Dense(1, kernel_init=sobel)
    with pytest.raises(bl.ShapeError, match=r"array of shape \(2, 1\) for its kernel of shape \(3"):
        drawn(bl.Dense(1, kernel_init=sobel), (3,))


def test_initialisers_are_values():
    assert Uniform(0, 1) == Uniform(0.0, 1.0)
    assert Array([[1, 2]]) == Array(np.array([[1.0, 2.0]]))
    assert hash(bl.Dense(2, kernel_init=Array([[1, 2]])))
    assert eval(repr(Array([[1, 2]])), {"initializers": bl.initializers}) == Array([[1, 2]])
    assert all(eval(repr(i), {"initializers": bl.initializers}) == i for i in NAMED.values())


def test_blocks_are_values():
    assert bl.Conv(4, [3, 2], stride=2) == bl.Conv(4, (3, 2), stride=(2, 2))
    assert bl.MaxPool((2, 3)) == bl.MaxPool((2, 3), stride=(2, 3))
    assert bl.Dense(np.int64(4)) == bl.Dense(4)
    assert len({bl.Dense(4), bl.Dense(4), bl.Dense(5)}) == 2
    with pytest.raises(AttributeError):
        bl.Dense(4).features = 5


def test_counts_leave_out_repeated_uses():
    tied = bl.Shared("tied", bl.Dense(8))
    node = bl.infer(bl.Sequential(bl.Dense(8), tied, bl.ReLU(), tied, bl.Dense(1)), (4,))
    assert bl.count(node) == 40 + 72 + 9
    with_state = bl.infer(bl.BatchNorm(), (5,))
    assert bl.count(with_state) == 20
    assert bl.count(with_state, trainable=True) == 10
    assert bl.count(with_state, trainable=False) == 10


def test_shared_gradients_are_summed(backend):
    """Both uses add to one gradient, and a step moves one set of parameters."""
    tied = bl.Shared("tied", bl.Dense(3, bias_init="normal"))
    node = bl.infer(bl.Sequential(tied, bl.Tanh(), tied), (3,), dtype="float64")
    model = bl.lower(node, backend, seed=1)
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    found = bl.gradients(model, x, w)["0/kernel"]
    params, step = bl.init(node, 1), 1e-6

    def loss(kernel):
        changed = bl.lower(node, "numpy", params=params | {"0/kernel": kernel})
        return float((bl.apply(changed, x) * w).sum())

    for at in np.ndindex(3, 3):
        delta = np.zeros((3, 3))
        delta[at] = step
        kernel = params["0/kernel"]
        slope = (loss(kernel + delta) - loss(kernel - delta)) / (2 * step)
        assert found[at] == pytest.approx(slope, rel=1e-6, abs=1e-7)
    bl.fit(model, (x, w), loss="mse", optimizer=bl.SGD(0.1))
    assert bl.params_of(model).keys() == params.keys()


def test_any_length(backend):
    """A sequence axis of any length, where no parameter needs it."""
    net = bl.Sequential(bl.Conv(4, (3,), padding="same"), bl.BatchNorm(), bl.ReLU(), bl.Dense(3))
    node = bl.infer(net, (None, 2), dtype="float64")
    assert node.out_spec.shape == (None, 3)
    model = bl.lower(node, backend)
    reference = bl.lower(node, "numpy")
    for length in (5, 8):
        x = np.random.default_rng(length).normal(size=(2, length, 2))
        np.testing.assert_allclose(bl.apply(model, x), bl.apply(reference, x), atol=1e-12)


def test_any_length_with_a_stride_needs_pairs():
    with pytest.raises(bl.ShapeError, match="needs a known size for padding='same' with stride 2"):
        bl.infer(bl.Conv(4, (3,), stride=2, padding="same"), (None, 2))


def test_the_summary_adds_up():
    net = bl.Sequential(
        bl.Conv(8, (3, 3), padding="same", groups=2), bl.ReLU(), bl.Flatten(), bl.Dense(5)
    )
    summary = net.summary((6, 7, 4))
    text = str(summary)
    assert summary.params == 3 * 3 * 2 * 8 + 8 + 336 * 5 + 5
    assert summary.multiply_adds == 6 * 7 * 8 * 3 * 3 * 2 + 336 * 5
    assert f"{summary.params:,} parameters" in text
    assert "│ 0    │ Conv       │ (6, 7, 8) │" in text


@pytest.mark.parametrize("size", range(1, 12))
@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_sizes_of_same_padding(size, kernel, stride):
    """ceil(size / stride) windows, whatever the kernel."""
    conv = bl.Conv(2, (kernel,), stride=stride, padding="same")
    assert bl.infer(conv, (size, 1)).out_spec.shape == (-(-size // stride), 2)


NESTED = bl.Sequential(
    encoder=bl.Sequential(bl.Dense(5), bl.Sequential(bl.Dense(4), bl.Tanh())), head=bl.Dense(2)
)
PATTERNS = {
    "head/kernel": ["head/kernel"],
    "*/kernel": ["head/kernel"],
    "**/kernel": ["encoder/0/kernel", "encoder/1/0/kernel", "head/kernel"],
    "encoder/*/kernel": ["encoder/0/kernel"],
    "encoder/**/bias": ["encoder/0/bias", "encoder/1/0/bias"],
    "encoder/[!0]/**": ["encoder/1/0/kernel", "encoder/1/0/bias"],
    "h??d/b*": ["head/bias"],
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_parameters_are_selected_by_pattern(pattern):
    params = drawn(NESTED, (3,))
    found = bl.select(params, pattern)
    assert list(found) == PATTERNS[pattern]
    assert all(found[path] is params[path] for path in found)


def test_all_is_selected():
    params = drawn(NESTED, (3,))
    assert bl.select(params, "**") == params
    assert list(bl.select(drawn(bl.Dense(2), (3,)), "**/bias")) == ["bias"]


def by_definition(names, words):
    if not words:
        return not names
    if words[0] == "**":
        return any(by_definition(names[n:], words[1:]) for n in range(len(names) + 1))
    same = bool(names) and words[0] in ("*", names[0])
    return same and by_definition(names[1:], words[1:])


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.sampled_from("ab"), min_size=1, max_size=5),
    st.lists(st.sampled_from(["a", "b", "*", "**"]), min_size=1, max_size=5),
)
def test_patterns_mean_what_they_say(names, words):
    assert matches(names, words) == by_definition(names, words)


def test_a_pattern_without_a_match_is_refused():
    params = drawn(NESTED, (3,))
    with pytest.raises(
        bl.ParamError, match=r"'head/kernl' matches no parameter\. Did you mean 'hea"
    ):
        bl.select(params, "head/kernl")
    with pytest.raises(bl.FieldError, match="a pattern of paths is a text"):
        bl.select(params, 3)
    with pytest.raises(bl.ParamError) as error:
        bl.init(bl.infer(NESTED, (3,)), initial={"*/kernl": 0, "**/bias": 1, "decoder/**": 2})
    assert "'*/kernl' matches no parameter" in str(error.value)
    assert "'decoder/**' matches no parameter" in str(error.value)
    assert "bias" not in str(error.value)


def test_first_parameters_by_pattern():
    """The last pattern wins; what no pattern names is drawn as ever."""
    node = bl.infer(NESTED, (3,))
    table = np.arange(8.0).reshape(4, 2)
    params = bl.init(
        node,
        seed=3,
        initial={
            "**/bias": 1,
            "encoder/**": bl.initializers.Normal(100.0),
            "encoder/1/0/bias": "ones",
            "head/kernel": table,
        },
    )
    usual = bl.init(node, seed=3)
    assert params.keys() == usual.keys()
    assert np.array_equal(params["head/kernel"], table)
    assert np.array_equal(params["head/bias"], [1, 1])
    assert np.array_equal(params["encoder/1/0/bias"], [1, 1, 1, 1])
    assert np.abs(params["encoder/0/bias"]).max() > 1
    assert np.abs(params["encoder/0/kernel"]).max() > 20
    assert {array.dtype for array in params.values()} == {np.dtype("float32")}
    same = bl.init(node, seed=3, initial={"head/bias": 5})
    assert all(np.array_equal(same[p], usual[p]) for p in usual if p != "head/bias")


def test_first_parameters_by_a_function():
    def draw(rng, shape):
        return rng.integers(10, 20, shape)

    node = bl.infer(NESTED, (3,), dtype="float64")
    one, same, other = (bl.init(node, s, initial={"**/kernel": draw}) for s in (1, 1, 2))
    assert all(np.array_equal(one[path], same[path]) for path in one)
    assert not np.array_equal(one["head/kernel"], other["head/kernel"])
    assert all(array.min() >= 10 for array in bl.select(one, "**/kernel").values())
    assert {array.dtype for array in one.values()} == {np.dtype("float64")}


WRONG_INITIAL = {
    "kernel: expected (3, 2), got (2,)": {"kernel": lambda rng, shape: rng.normal(size=2)},
    "kernel: expected (3, 2), got (2, 3). Canonical": {"kernel": np.ones((2, 3))},
    "bias: expected (2,), got (3,)": {"bias": [1, 2, 3]},
    "kernel: expected an array, got list": {"kernel": lambda rng, shape: [[1], [2, 3]]},
    "bias: expected numbers, got dtype <U1": {"bias": lambda rng, shape: ["a", "b"]},
    "initial['bias'] must be an Initializer": {"bias": "zero"},
    "initial['kernel'] must be an Initializer, an array": {"kernel": bl.initializers.Normal},
    "a pattern of paths is a text": {0: 1},
    "initial is a dict from path to initialiser, got 3": 3,
    "kernel: expected an array, got NoneType": {"kernel": lambda rng, shape: None},
    "kernel: the function in initial raises TypeError": {"kernel": lambda: 3},
    "It is called with a NumPy generator and (3, 2)": {"kernel": lambda rng, shape: rng + shape},
    "bias: the function in initial raises ZeroDivisionError": {"bias": lambda rng, shape: 1 / 0},
}


@pytest.mark.parametrize("message", WRONG_INITIAL)
def test_first_parameters_that_do_not_fit_are_refused(message):
    with pytest.raises(bl.BlockError) as error:
        bl.init(bl.infer(bl.Dense(2), (3,)), initial=WRONG_INITIAL[message])
    assert message in str(error.value)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("dtype", "given", "number"),
    [
        ("float16", "float32", 7e4),
        ("float16", "bfloat16", -1e30),
        ("bfloat16", "float64", 1e39),
        ("float32", "float64", -1e39),
        ("float16", "int64", 70_000),
    ],
)
def test_a_number_that_a_dtype_cannot_hold_is_refused(dtype, given, number):
    """It would become infinite; one that is infinite already stays so."""
    model = bl.lower(bl.Dense(2), "numpy", input_shape=(3,), dtype=dtype)
    before = bl.params_of(model)
    kernel = np.ones((3, 2), array_dtype(given))
    kernel[1, 0] = number
    with pytest.raises(bl.ParamError, match=f"is more than {dtype} holds"):
        bl.load_params(model, before | {"kernel": kernel})
    np.testing.assert_equal(bl.params_of(model), before)
    bl.load_params(model, before | {"kernel": np.full((3, 2), np.inf)})


@pytest.mark.parametrize("params", [None, 3, ["kernel"], "kernel"])
def test_only_parameters_are_selected_from(params):
    with pytest.raises(bl.ParamError, match="parameters are a dict from path to array, got"):
        bl.select(params, "kernel")


@pytest.mark.parametrize("error", [TypeError, ValueError, RuntimeError])
def test_what_cannot_become_an_array_is_refused(error):
    """A tensor of torch that has a gradient raises a RuntimeError."""

    class Tensor:
        def __array__(self, *args, **options):
            raise error("no")

    model = bl.lower(bl.Dense(2), "numpy", input_shape=(3,))
    with pytest.raises(bl.ParamError, match="bias: expected an array, got Tensor"):
        bl.load_params(model, bl.params_of(model) | {"bias": Tensor()})
    with pytest.raises(bl.FieldError, match="the network takes an array of numbers, got Tensor"):
        bl.apply(model, Tensor())


def test_paths_are_texts():
    model = bl.lower(bl.Dense(2), "numpy", input_shape=(3,))
    params = bl.params_of(model) | {7: np.ones(2)}
    for verb in (
        lambda: bl.select(params, "kernal"),
        lambda: bl.load_params(model, params, strict=False),
        lambda: bl.copy_params(params, model),
        lambda: bl.diff_params(params, model),
    ):
        with pytest.raises(bl.ParamError, match="a dict from path to array, but have 7"):
            verb()


def test_a_path_of_a_block_is_no_pattern():
    model = bl.lower(bl.Sequential(head=bl.Dense(2)), "numpy", input_shape=(3,))
    with pytest.raises(bl.ParamError) as error:
        bl.set_trainable(model, {"head": False})
    assert "'head' matches no parameter." in str(error.value)
    assert "For all that is in that block write 'head/**'." in str(error.value)


def test_the_base_of_initialisers_draws_nothing():
    with pytest.raises(bl.FieldError, match=r"write initializers\.Normal\(0\.02\)\."):
        bl.initializers.Initializer()


def test_first_numbers_from_an_array_are_a_copy():
    kernel = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    given = kernel.copy()
    bl.init(bl.infer(bl.Dense(3), (4,)), initial={"kernel": given})["kernel"][...] = 7
    assert np.array_equal(given, kernel)

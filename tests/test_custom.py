"""Blocks that users write: control flow natively, listings, and what is refused."""

import subprocess
import sys

import numpy as np
import pytest

import blocks as bl
from blocks._parity import Inputs, random_params, relative
from blocks._spec import leaves, map_value
from cases import CASES
from conftest import need
from custom_blocks import Bilinear, Either, FixedHidden, Gated, Halved, Moments, Positions

# Those without a branch in Python, which the frameworks can compile.
TRACED = [Gated(), Either(), Halved(), Bilinear(), Moments(), Positions()]


def setting(block, backend, dtype="float32"):
    """A node, a model, an input and what comes out."""
    shape = ((5,), (3,)) if isinstance(block, Bilinear) else (5, 3)
    node = bl.infer(block, shape, dtype=dtype)
    model = bl.lower(node, backend, params=random_params(node, 0))
    x = Inputs.draw(node, 4, np.random.default_rng(0)).x
    return node, model, x, bl.apply(model, x)


def close(got, wanted, tolerance=1e-6):
    got = map_value(np.asarray, tuple(got) if isinstance(got, list) else got)
    error, where = relative(got, wanted)
    assert error < tolerance, where


@pytest.mark.parametrize("block", TRACED, ids=lambda b: type(b).__name__)
class TestTraced:
    def test_torch_compiles_without_graph_breaks(self, block):
        need("torch")
        import torch

        torch._dynamo.reset()
        _, model, x, wanted = setting(block, "torch")
        x = map_value(torch.from_numpy, x)
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        y = compiled(x)
        close(map_value(lambda a: a.detach().numpy(), y), wanted)
        if list(model.parameters()):
            sum(a.sum() for a in leaves(y)).backward()
            assert all(p.grad is not None for p in model.parameters())

    def test_torch_exports(self, block):
        need("torch")
        import torch

        _, model, x, wanted = setting(block, "torch")
        program = torch.export.export(model.eval(), (map_value(torch.from_numpy, x),))
        y = program.module()(map_value(torch.from_numpy, x))
        close(map_value(lambda a: a.detach().numpy(), y), wanted)

    def test_keras_makes_a_graph_and_reloads(self, block, tmp_path):
        need("keras")
        import keras

        node, model, x, wanted = setting(block, "keras")
        close(model.predict(x, verbose=0), wanted)
        model.save(tmp_path / "model.keras")
        namespace: dict = {}
        exec(bl.source(node, "keras"), namespace)
        mine = {type(block).__name__: namespace[type(block).__name__]}
        again = keras.saving.load_model(tmp_path / "model.keras", custom_objects=mine)
        close(again(x), wanted)
        assert isinstance(again.layers[-1], namespace["Custom"])
        if node.params and not isinstance(wanted, tuple):
            again.compile("sgd", "mse")
            again.fit(x, wanted + 1, epochs=2, verbose=0)
            assert relative(bl.apply(again, x, node=node), wanted)[0] > 1e-6

    def test_flax_jits_differentiates_and_merges(self, block):
        need("flax")
        import jax
        from flax import nnx

        node, model, x, wanted = setting(block, "flax")
        parts = x if isinstance(x, tuple) else (x,)
        close(nnx.jit(lambda m, *x: m(*x))(model, *parts), wanted)
        graph, state = nnx.split(model)
        close(nnx.merge(graph, state)(*parts), wanted)

        @nnx.jit
        def slopes(model):
            return nnx.grad(lambda m: sum(a.sum() for a in leaves(m(*parts))))(model)

        found = jax.tree.leaves(slopes(model))
        assert len(found) == len(node.params)
        assert all(np.abs(slope).max() > 0 for slope in found)


def test_loops_and_branches_on_values_train(backend):
    """The verbs run what cannot be compiled; a constant stays as it is."""
    _, model, x, _ = setting(FixedHidden(4), backend)
    before = bl.params_of(model)
    target = np.tanh(np.random.default_rng(1).normal(size=(4, 5, 4)))
    history = bl.fit(model, (x, target), loss="mse", optimizer=bl.SGD(0.1), epochs=5)
    after = bl.params_of(model)
    assert history.losses[-1] < history.losses[0]
    assert np.array_equal(before["fixed"], after["fixed"])
    assert not np.array_equal(before["kernel"], after["kernel"])


def test_the_fixed_hidden_block_by_hand(backend):
    """Each example is halved on its own until it is small enough."""
    node, model, x, _ = setting(FixedHidden(bound=0.2), backend, dtype="float64")
    p = {path: 3 * array.astype(float) for path, array in random_params(node, 0).items()}
    bl.load_params(model, p)
    got = bl.apply(model, x)
    y = np.tanh(x.astype(float) @ p["fixed"] + 1)
    for _ in range(2):
        y = np.maximum(y @ p["kernel"] + p["bias"], 0)
    halvings = np.ceil(np.log2(np.maximum(np.abs(y).sum(-1, keepdims=True) / 0.2, 1)))
    assert len(np.unique(halvings)) > 2
    close(got, y / 2**halvings, 1e-12)
    grads = bl.gradients(model, x, np.ones_like(got))
    assert grads.keys() == {"input", "kernel", "bias"}


@pytest.mark.parametrize("block", [Positions(), Moments()], ids=lambda b: type(b).__name__)
def test_any_length(block, backend):
    assert bl.parity(block, (None, 3), backends=[backend])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("param_dtype", [None, "float32"])
def test_sixteen_bits(dtype, param_dtype, framework):
    net = bl.Sequential(Gated(), bl.Dense(3))
    report = bl.parity(net, (5, 3), backends=[framework], dtype=dtype, param_dtype=param_dtype)
    assert report, f"\n{report}"


def test_a_user_says_how_integers_are_taken(backend):
    class Rows(bl.Custom):
        numbers = "any"

        def param_specs(self, x):
            return {"table": bl.ParamSpec((5, 3), "normal")}

        def out_spec(self, x):
            return bl.Spec((*x.shape, 3))

        def forward(self, ops, x, table):
            return ops.take(table, x, axis=0)

    node = bl.infer(Rows(), bl.Spec((4,), "int32", below=5))
    assert bl.parity(node, backends=[backend])


def test_listings_read_like_hand_written_code():
    need("torch")
    text = bl.source(Positions(), "torch", input_shape=(5, 3))
    assert text.endswith("model = Positions(base=100.0, offsets=(0.0, 0.5))\n")
    assert (
        '''\
PAIR = (1.0, -2.0)


class Positions(Custom):
    """Adds sines of the position to a sequence of any length (Vaswani et al. 2017)."""

    scale = 1.5

    def compute(self, x):
        waves = [self.waves(x, offset) for offset in self.offsets]
        slope = float(np.sqrt(2.0)) * PAIR[0]
        return x + slope * self.scale * reduce(lambda a, b: a + b, waves)

    def waves(self, x, offset):
        where = _arange(x.shape[1], like=x) + offset
        rates = [self.base ** (-i / x.shape[2]) for i in range(x.shape[2])]
        return torch.stack([torch.sin(where * rate + math.pi / 4) for rate in rates], axis=-1)
'''
        in text
    ), text


def test_a_listing_runs_without_isoblocks(backend, tmp_path):
    net = bl.Sequential(Gated(), FixedHidden(6))
    guard = "import sys; sys.modules['blocks'] = sys.modules['backends'] = None\n"
    listing = tmp_path / "listing.py"
    listing.write_text(guard + bl.source(net, backend, input_shape=(5, 3)))
    subprocess.run([sys.executable, listing], check=True, env={**__import__("os").environ})


INITS = bl.initializers
FIRST = {
    "zeros": (0, 0),
    "constant": (0.7, 0),
    "array": (2.0, 1.0),
    "normal": (0.5, 2.0),
    "uniform": (2.0, 2 / 3**0.5),
    "glorot_normal": (0, (2 / 90) ** 0.5),
    "he_uniform": (0, (2 / 40) ** 0.5),
    "orthogonal": (0, 3 * (1 / 50) ** 0.5),
}
SPECIAL = {
    "constant": INITS.Constant(0.7),
    "array": INITS.Array(np.tile([1.0, 3.0], (40, 25))),
    "normal": INITS.Normal(2.0, mean=0.5),
    "uniform": INITS.Uniform(0.0, 4.0),
    "orthogonal": INITS.Orthogonal(3.0),
}


class Many(bl.Custom):
    """A parameter, or a constant, for each initialiser."""

    learned: bool = True

    def param_specs(self, x):
        learned = self.learned
        return {n: bl.ParamSpec((40, 50), SPECIAL.get(n, n), trainable=learned) for n in FIRST}

    def forward(self, ops, x, **params):
        return x


@pytest.mark.parametrize("learned", [True, False])
def test_a_listing_draws_first_values_of_the_right_size(learned, backend):
    node = bl.infer(Many(learned), (3,))
    namespace: dict = {}
    exec(bl.source(node, backend), namespace)
    for found in (namespace["model"], bl.lower(node, backend, init="native")):
        arrays = bl.params_of(found, node=node)
        for name, (mean, std) in FIRST.items():
            assert abs(arrays[name].mean() - mean) <= 0.15 * std + 1e-6, name
            assert abs(arrays[name].std() - std) <= 0.1 * std + 1e-6, name
        product = arrays["orthogonal"] @ arrays["orthogonal"].T
        np.testing.assert_allclose(product, 9 * np.eye(40), atol=1e-4)
        assert np.array_equal(arrays["array"], np.tile([1.0, 3.0], (40, 25)))


WITHOUT_SOURCE = """
class Hidden(bl.Custom):
    def forward(self, ops, x):
        return ops.tanh(x)
"""


def test_without_its_source_a_block_runs_but_has_no_listing(backend):
    namespace = {"bl": bl}
    exec(WITHOUT_SOURCE, namespace)
    block = namespace["Hidden"]()
    assert bl.parity(block, (3,), backends=[backend])
    with pytest.raises(bl.UnsupportedError, match="Python has no source of 'forward'"):
        bl.source(block, backend, input_shape=(3,))


# What a listing refuses. Each is fine as a model.


class Custom2(bl.Custom):
    def forward(self, ops, x):
        return x


class UsesSelf(bl.Custom):
    def forward(self, ops, x):
        return x * len(repr(self))


class UsesOps(bl.Custom):
    def forward(self, ops, x):
        other = ops
        return other.tanh(x)


class ReadsOps(bl.Custom):
    def forward(self, ops, x):
        return getattr(ops, "ta" + "nh")(x)


def another(o, x):
    return o.tanh(x)


class HandsOps(bl.Custom):
    def forward(self, ops, x):
        return another(ops, x)


class UsesSuper(Gated):
    def forward(self, ops, x, kernel, bias):
        return super().forward(ops, x, kernel, bias)


class UsesBlocks(bl.Custom):
    def forward(self, ops, x):
        return x * len(bl.Dense(3).__class__.__name__)


class UsesTaken(bl.Custom):
    def forward(self, ops, x):
        anp = torch = jnp = ops_ = 2.0
        return ops.tanh(x) * (anp * torch * jnp * ops_)


class UsesInit(bl.Custom):
    kernel_init: object = bl.initializers.Normal(2.0)

    def forward(self, ops, x):
        return x * self.kernel_init.std


class Overrides(bl.Custom):
    def train(self, ops, x):
        return ops.tanh(x)

    def forward(self, ops, x):
        return self.train(ops, x)


class Layer(bl.Custom):
    def forward(self, ops, x):
        return ops.tanh(x)


REFUSED = [
    (UsesSelf(), "'self' is used as a value, not as self.name"),
    (UsesOps(), "'ops' is used as a value, not as ops.name(...)"),
    (ReadsOps(), "'ops' is used as a value, not as ops.name(...)"),
    (HandsOps(), "'ops' is used as a value, not as ops.name(...)"),
    (UsesSuper(), "it calls super()"),
    (UsesBlocks(), "it uses 'bl', which is <module 'blocks'"),
    (UsesInit(), "forward reads self.kernel_init, which cannot stand in a listing"),
]


@pytest.mark.parametrize(("block", "why"), REFUSED, ids=lambda v: type(v).__name__)
def test_what_a_listing_refuses(block, why, backend):
    model = bl.lower(block, backend, input_shape=(3,))
    assert bl.apply(model, np.ones((2, 3))).shape[0] == 2
    with pytest.raises(bl.UnsupportedError) as error:
        bl.source(block, backend, input_shape=(3,))
    assert f"cannot print {type(block).__name__}: {why}" in str(error.value)


def test_a_listing_refuses_variables_that_it_needs_itself():
    for backend in ("numpy", "torch", "flax"):
        with pytest.raises(bl.UnsupportedError, match=r"the listing needs '(anp|torch|jnp)'"):
            bl.source(UsesTaken(), need(backend), input_shape=(3,))


def test_a_listing_refuses_names_of_native_attributes():
    with pytest.raises(bl.UnsupportedError, match="native layers have a 'train' of their own"):
        bl.source(Overrides(), need("torch"), input_shape=(3,))
    with pytest.raises(bl.UnsupportedError, match="has something else of that name"):
        bl.source(Layer(), "numpy", input_shape=(3,))


def test_a_listing_refuses_two_blocks_of_one_name(backend):
    other = type("Gated", (Gated,), {"__module__": __name__})
    net = bl.Sequential(Gated(3), other(4))
    assert bl.parity(net, (5,), backends=[backend], steps=0)
    with pytest.raises(bl.UnsupportedError, match="cannot print two blocks called Gated"):
        bl.source(net, backend, input_shape=(5,))


def test_names_are_data(backend):
    """A class whose name is code has no listing."""
    evil = type("A(object): pass\nimport os\nclass B", (Custom2,), {})
    assert bl.parity(evil(), (3,), backends=[backend], steps=0)
    with pytest.raises(bl.UnsupportedError, match="a class needs a name"):
        bl.source(evil(), backend, input_shape=(3,))


# What is wrong with a block


def test_an_unknown_operation(backend):
    class Wrong(bl.Custom):
        def forward(self, ops, x):
            return ops.tahn(x)

    model = bl.lower(Wrong(), backend, input_shape=(3,))
    with pytest.raises(bl.FieldError) as error:
        bl.apply(model, np.ones((2, 3)))
    text = "ops has no 'tahn'. Did you mean 'tan'? See blocks/_ops.py for what it has."
    assert text in str(error.value)
    with pytest.raises(bl.FieldError, match="ops has no 'tahn'"):
        bl.source(Wrong(), backend, input_shape=(3,))


def test_another_shape_than_announced(backend):
    class Wrong(bl.Custom):
        def forward(self, ops, x):
            return x[:, 1:]

    model = bl.lower(bl.Sequential(bl.Dense(3), Wrong()), backend, input_shape=(4,))
    with pytest.raises(bl.ShapeError) as error:
        bl.apply(model, np.ones((2, 4)))
    text = (
        "Wrong at '1' returns (2,) from forward, but its out_spec says (3,).\n"
        "  Both are without the batch axis. Change one of them."
    )
    assert text in str(error.value)  # Keras adds what the layer was called with


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (lambda ops, x: 3.0, "returns a float from"),
        (lambda ops, x: (x, x), "returns ((3,), (3,)) from"),
        (lambda ops, x: ops.sum(x), "returns a single number from"),
    ],
)
def test_what_else_may_be_returned(result, text):
    class Wrong(bl.Custom):
        def forward(self, ops, x):
            return result(ops, x)

    with pytest.raises(bl.ShapeError) as error:
        bl.apply(bl.lower(Wrong(), "numpy", input_shape=(3,)), np.ones((2, 3)))
    assert text in str(error.value)


def custom(**members):
    """A class made on the spot."""
    return type("Mine", (bl.Custom,), {"__annotations__": {}, **members})


def plus(self, ops, x, kernel, bias=None):
    return x


KERNEL = {"kernel": bl.ParamSpec((3,), "ones")}

WRONG = [
    (custom(), "Mine has no forward(self, ops, x, ...)."),
    (
        custom(forward=plus),
        "Mine.forward takes 'kernel', which param_specs does not have.",
    ),
    (
        custom(forward=plus, param_specs=lambda self, x: {"kernle": KERNEL["kernel"]}),
        "Mine.forward takes 'kernel', which param_specs does not have. Did you mean 'kernle'?",
    ),
    (
        custom(forward=plus, param_specs=lambda self, x: KERNEL | {"bais": KERNEL["kernel"]}),
        "Mine.param_specs has 'bais', which forward(self, ops, x, kernel, bias=None) does not "
        "take. Did you mean 'bias'?",
    ),
    (
        custom(forward=plus, param_specs=lambda self, x: KERNEL, kernel=3),
        "Mine has a parameter 'kernel', but also a field or method of that name. Rename one of "
        "them.",
    ),
    (
        custom(forward=plus, param_specs=lambda self, x: {"a b": KERNEL["kernel"]}),
        "Mine.param_specs has 'a b', which is no name in Python.",
    ),
]


@pytest.mark.parametrize(("kind", "text"), WRONG, ids=[t for _, t in WRONG])
def test_what_infer_refuses(kind, text):
    with pytest.raises(bl.FieldError) as error:
        bl.infer(kind(), (3,))
    assert str(error.value) == text


def test_specs_of_another_kind():
    specs = {"param_specs": lambda self, x: {"kernel": (3, 4)}}
    with pytest.raises(bl.ShapeError) as error:
        bl.infer(bl.Sequential(custom(forward=plus, **specs)()), (3,))
    assert str(error.value) == (
        "Mine at '0' has (3, 4) for its kernel, not a ParamSpec.\n"
        "  (3,) is the input of the network.\n"
        '  Write ParamSpec(shape, "zeros").'
    )
    with pytest.raises(bl.ShapeError) as error:
        bl.infer(custom(forward=plus, out_spec=lambda self, x: 3)(), (3,))
    assert str(error.value) == (
        "Mine at the top has an out_spec that returns 3, not a Spec.\n"
        "  (3,) is the input of the network.\n"
        "  Return x itself, x.with_shape(...), or a tuple of these."
    )


def test_fields_are_plain_data():
    class Mine(bl.Custom):
        sizes: object

    assert Mine([3, (4, np.int64(5))]) == Mine((3, (4, 5)))
    assert repr(Mine(np.array([1.5, 2.0]))) == "Mine(sizes=(1.5, 2.0))"
    for bad in (len, float("nan"), {"a": 1}):
        with pytest.raises(bl.FieldError) as error:
            Mine(bad)
        assert str(error.value) == (
            "Mine.sizes must be a finite number, a text, None, a tuple of these or an "
            f"initialiser, got {bad!r}."
        )


def test_a_field_with_the_name_of_a_native_attribute():
    class Mine(bl.Custom):
        name: str = "a"

        def forward(self, ops, x):
            return x

    assert bl.parity(Mine(), (3,), backends=["numpy", need("torch")], steps=0)
    with pytest.raises(bl.UnsupportedError) as error:
        bl.lower(Mine(), need("keras"), input_shape=(3,))
    assert str(error.value) == (
        "Mine at the top has a field 'name', but native layers have an attribute of that name.\n"
        "  Rename it."
    )


def test_a_subclass_may_have_a_rule_of_its_own():
    from backends._rules import Rules

    rule = Rules("toy")
    rule(bl.Custom)(lambda node: "any")
    node = bl.infer(Gated(), (5, 3))
    assert rule.find(node).function(node) == "any"
    rule(Gated)(lambda node: "its own")
    assert rule.find(node).function(node) == "its own"


def test_the_rows_hold_every_kind():
    names = {case.name for case in CASES if case.name.startswith("Custom")}
    assert len(names) == 9

"""Every operation of `ops`, on every backend: value and gradient, in float64."""

import importlib

import numpy as np
import pytest

import blocks as bl
from blocks._ops import OPS
from blocks._parity import relative
from conftest import need

# A use of each on x (batch, 4, 3), and what NumPy gives for it. `i` is x where integers are needed.
USES = {
    **{
        name: [lambda ops, x, name=name: getattr(ops, name)(x)]
        for name in ("abs", "square", "exp", "expm1", "sin", "cos", "tan", "arctan", "sinh")
    },
    **{
        name: [lambda ops, x, name=name: getattr(ops, name)(x)]
        for name in ("cosh", "tanh", "arcsinh", "sigmoid", "zeros_like", "ones_like")
    },
    **{
        name: [lambda ops, x, name=name: getattr(ops, name)(ops.abs(x) + 0.1)]
        for name in ("sqrt", "log", "log1p")
    },
    **{
        name: [lambda ops, x, name=name: getattr(ops, name)(ops.tanh(x) * 0.9)]
        for name in ("arcsin", "arccos", "arctanh")
    },
    **{
        name: [lambda ops, x, name=name: getattr(ops, name)(2 * x) + x]
        for name in ("sign", "floor", "ceil", "round", "stop_gradient")
    },
    "arccosh": [lambda ops, x: ops.arccosh(ops.abs(x) + 1.1)],
    "isfinite": [lambda ops, x: ops.where(ops.isfinite(ops.where(x > 0, np.inf, 1.0)), x, -2.0)],
    "isnan": [lambda ops, x: ops.where(ops.isnan(ops.stop_gradient(x) * np.nan), x, -2.0)],
    "logical_not": [lambda ops, x: ops.where(ops.logical_not(x > 0), x, -2.0)],
    "logical_and": [lambda ops, x: ops.where(ops.logical_and(x > 0, x < 1), x, -2.0)],
    "logical_or": [lambda ops, x: ops.where(ops.logical_or(x > 1, x < 0), x, -2.0)],
    **{
        name: [
            lambda ops, x, name=name: getattr(ops, name)(x),
            lambda ops, x, name=name: getattr(ops, name)(x, axis=1),
            lambda ops, x, name=name: getattr(ops, name)(x, -1, keepdims=True),
            lambda ops, x, name=name: getattr(ops, name)(x, axis=(1, 2)),
            lambda ops, x, name=name: getattr(ops, name)(x, axis=(1, -1), keepdims=True),
        ]
        for name in ("sum", "mean", "prod", "max", "min", "var", "std")
    },
    **{
        name: [
            lambda ops, x, name=name: ops.where(getattr(ops, name)(x > 0), x, -x),
            lambda ops, x, name=name: ops.where(
                getattr(ops, name)(x > 0, axis=1), x[:, 0], x[:, 1]
            ),
            lambda ops, x, name=name: ops.where(getattr(ops, name)(x > 0, 2, keepdims=True), x, -x),
        ]
        for name in ("any", "all")
    },
    "logaddexp": [lambda ops, x: ops.logaddexp(x, x * x)],
    "arctan2": [lambda ops, x: ops.arctan2(x, x * x + 0.1)],
    "maximum": [
        lambda ops, x: ops.maximum(x, x * x - 0.5),
        lambda ops, x: ops.maximum(x, 0.1),
        lambda ops, x: ops.maximum(0, x),
    ],
    "minimum": [
        lambda ops, x: ops.minimum(x, x[:, :1]),
        lambda ops, x: ops.minimum(x, 0.1),
        lambda ops, x: ops.minimum(0.1, x),
    ],
    "power": [
        lambda ops, x: ops.power(x, 3),
        lambda ops, x: ops.power(ops.abs(x), 0.7),
        lambda ops, x: ops.power(ops.abs(x), x),
        lambda ops, x: ops.power(0.7, x),
    ],
    "where": [
        lambda ops, x: ops.where(x > 0, x, 0.1 * x),
        lambda ops, x: ops.where(x > 0, x, 0.1),
        lambda ops, x: ops.where(x[:, :1] > 0, 0.1, x),
    ],
    "clip": [lambda ops, x: ops.clip(x, -0.3, 0.7)],
    "argmax": [lambda ops, x: x[:, 0] * ops.astype(ops.argmax(x, axis=1), x.dtype)],
    "argmin": [lambda ops, x: x[:, 0] * ops.astype(ops.argmin(x, 1), x.dtype)],
    "cumsum": [lambda ops, x: ops.cumsum(x, axis=1), lambda ops, x: ops.cumsum(x, -1)],
    "softmax": [lambda ops, x: ops.softmax(5 * x), lambda ops, x: ops.softmax(x, axis=1)],
    "matmul": [
        lambda ops, x: ops.matmul(x, ops.transpose(x, (0, 2, 1))),
        lambda ops, x: ops.matmul(x, x[0, :3]),
        lambda ops, x: ops.matmul(x, x[0, 0]),
    ],
    "einsum": [
        lambda ops, x: ops.einsum("bij,bkj->bik", x, x),
        lambda ops, x: ops.einsum("bij->bji", x),
        lambda ops, x: ops.einsum("...j,...j->...", x, x),
    ],
    "tensordot": [
        lambda ops, x: ops.tensordot(x, x[0, :3], 1),
        lambda ops, x: ops.tensordot(x, x[0], ([1, 2], [0, 1])),
    ],
    "shape": [lambda ops, x: x * ops.shape(x)[1]],
    "reshape": [lambda ops, x: ops.reshape(x, (-1, 2, 6))],
    "transpose": [lambda ops, x: ops.transpose(x, (0, 2, 1))],
    "swapaxes": [lambda ops, x: ops.swapaxes(x, 1, -1)],
    "moveaxis": [lambda ops, x: ops.moveaxis(x[:, :, :, None], 1, -1)],
    "expand_dims": [
        lambda ops, x: ops.expand_dims(x, axis=1),
        lambda ops, x: ops.expand_dims(x, -1),
    ],
    "squeeze": [
        lambda ops, x: ops.squeeze(x[:, :1], axis=1),
        lambda ops, x: ops.squeeze(x[..., :1], -1),
    ],
    "broadcast_to": [lambda ops, x: ops.broadcast_to(x[:, :1], (7, 5, 3))],
    "concatenate": [
        lambda ops, x: ops.concatenate([x, 2 * x], axis=1),
        lambda ops, x: ops.concatenate((x[:3], x[3:] * 2)),
    ],
    "stack": [
        lambda ops, x: ops.stack([x, 2 * x], axis=-1),
        lambda ops, x: ops.stack((x, 2 * x), axis=1),
    ],
    "split": [
        lambda ops, x: ops.split(x, 2, axis=1)[1],
        lambda ops, x: ops.split(x, 3, axis=-1)[0] * ops.split(x, 3, -1)[2],
    ],
    "flip": [lambda ops, x: ops.flip(x, axis=1), lambda ops, x: ops.flip(x, -1)],
    "roll": [lambda ops, x: ops.roll(x, 2, axis=1), lambda ops, x: ops.roll(x, -1, -1)],
    "take": [
        lambda ops, x: ops.take(x, [2, 0, 2], axis=1),
        lambda ops, x: ops.take(x, ops.argmax(x[0], axis=1), axis=-1),
        lambda ops, x: ops.take(x, [[0, 1], [3, 3]], 1),
    ],
    "repeat": [lambda ops, x: ops.repeat(x, 2, axis=1), lambda ops, x: ops.repeat(x, 3, -1)],
    "tile": [lambda ops, x: ops.tile(x, (1, 2, 3))],
    "pad": [lambda ops, x: ops.pad(x, ((0, 0), (1, 0), (2, 1)))],
    "tril": [lambda ops, x: ops.tril(x, 0), lambda ops, x: ops.tril(x, 1)],
    "triu": [lambda ops, x: ops.triu(x, 0), lambda ops, x: ops.triu(x, -1)],
    "zeros": [lambda ops, x: ops.concatenate([x, ops.zeros((7, 1, 3), like=x)], axis=1)],
    "ones": [lambda ops, x: ops.concatenate([x, ops.ones((7, 1, 3), like=x)], axis=1)],
    "full": [lambda ops, x: x / ops.full((4, 1), 3.0, like=x)],
    "full_like": [lambda ops, x: x / ops.full_like(x, 3.0)],
    "eye": [lambda ops, x: ops.matmul(x, ops.eye(3, 5, like=x))],
    "arange": [lambda ops, x: x / (ops.arange(3, like=x) + 1)],
    "astype": [
        lambda ops, x: x * ops.astype(x > 0, x.dtype),
        lambda ops, x: x / ops.astype(ops.astype(3 * ops.abs(x) + 1, "int32"), x.dtype),
        lambda ops, x: ops.where(ops.astype(ops.round(x), "bool"), x, -2.0),
    ],
    "cond": [
        lambda ops, x: ops.cond(ops.sum(x) > 0, lambda a: ops.exp(a), lambda a: a * a, x),
        lambda ops, x: ops.cond(ops.sum(x) < 0, lambda a, b: a, lambda a, b: a * b, x, x + 1),
        lambda ops, x: sum(ops.cond(ops.any(x > 0), lambda: (x, x * x), lambda: (x, x))),
    ],
    "while_loop": [
        lambda ops, x: ops.while_loop(lambda v: ops.max(v) > 0.5, lambda v: v * 0.9, x, 50),
        lambda ops, x: ops.while_loop(lambda v: ops.max(v) > 0.5, lambda v: v * 0.9, x, 3),
        lambda ops, x: ops.while_loop(
            lambda v: ops.max(v[0]) > 0.5, lambda v: (v[0] * 0.9, v[1] * v[0]), (x, x), 4
        )[1],
    ],
}


def test_every_operation_is_used():
    assert USES.keys() == OPS.keys()


def test_every_backend_has_just_these(backend):
    custom = importlib.import_module(f"backends.{backend}.custom")
    assert vars(custom.OPS).keys() == OPS.keys()


class One(bl.Custom):
    """One use of one operation."""

    op: str
    number: int

    def use(self, ops, x):
        return USES[self.op][self.number](ops, x)

    def out_spec(self, x):
        from backends.numpy.custom import OPS as REFERENCE

        y = self.use(REFERENCE, np.random.default_rng(0).normal(size=(7, *x.shape)))
        return x.with_shape(np.broadcast_to(y, (7, *y.shape[1:])).shape[1:])

    def forward(self, ops, x):
        y = self.use(ops, x)
        return y if len(y.shape) else y + 0 * x[:, 0, 0]


ALL = [(name, i) for name, uses in USES.items() for i in range(len(uses))]


def setting(name, number):
    node = bl.infer(One(name, number), (4, 3), dtype="float64")
    rng = np.random.default_rng(1)
    x = rng.normal(size=(7, 4, 3))
    return node, x, rng.normal(size=(7, *node.out_spec.shape))


@pytest.mark.parametrize(("name", "number"), ALL)
def test_value_and_gradient(name, number, framework):
    node, x, cotangent = setting(name, number)
    models = [bl.lower(node, backend) for backend in ("numpy", need(framework))]
    wanted, got = (bl.apply(model, x) for model in models)
    assert got.dtype == np.float64
    assert relative(got, wanted)[0] < 1e-12
    wanted, got = (bl.gradients(model, x, cotangent)["input"] for model in models)
    assert got.dtype == np.float64
    assert relative(got, wanted)[0] < 1e-11


@pytest.mark.parametrize(("name", "number"), ALL)
def test_the_reference_by_finite_differences(name, number):
    node, x, cotangent = setting(name, number)
    model = bl.lower(node, "numpy")
    direction, h = np.random.default_rng(2).normal(size=x.shape), 1e-6
    ahead, behind = (bl.apply(model, x + s * h * direction) for s in (1, -1))
    moved = np.sum(cotangent * (ahead - behind)) / (2 * h)
    if name == "stop_gradient":
        moved -= np.sum(cotangent * 2 * direction)
    slope = np.sum(bl.gradients(model, x, cotangent)["input"] * direction)
    assert abs(slope - moved) <= 1e-6 * max(1, abs(moved))


class Plain:
    """NumPy itself, and the few names that are not its own, written out."""

    def __getattr__(self, name):
        return getattr(np, name)

    sigmoid = staticmethod(lambda x: 1 / (1 + np.exp(-x)))
    softmax = staticmethod(lambda x, axis=-1: np.exp(x) / np.exp(x).sum(axis, keepdims=True))
    stop_gradient = staticmethod(lambda x: x)
    pad = staticmethod(lambda x, pairs: np.pad(x, pairs))
    astype = staticmethod(lambda x, dtype: x.astype(dtype))
    cond = staticmethod(lambda decides, yes, no, *operands: (yes if decides else no)(*operands))

    @staticmethod
    def while_loop(goes_on, body, value, limit):
        while limit and goes_on(value):
            value, limit = body(value), limit - 1
        return value


@pytest.mark.parametrize(("name", "number"), ALL)
def test_the_reference_is_numpy(name, number):
    node, x, _ = setting(name, number)
    wanted = np.asarray(USES[name][number](Plain(), x))
    got = bl.apply(bl.lower(node, "numpy"), x)
    np.testing.assert_allclose(got, np.broadcast_to(wanted, got.shape), rtol=1e-12, atol=1e-15)

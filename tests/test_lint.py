"""Lint: every rule marks its examples, at the right path, and nothing in good networks."""

import runpy
import sys
from collections import Counter
from pathlib import Path

import lints
import pytest
from lints import EXAMPLES
from test_composite import NETWORKS, dense

import blocks as bl
from benchmarks.networks import NETWORKS as TIMED
from blocks import cli, demo
from blocks._lint import RULES, Lints
from cases import CASES

ROOT = Path(__file__).parent.parent
FLAT = [(name, example) for name, examples in EXAMPLES.items() for example in examples]
IDS = [f"{name}-{i}" for name, examples in EXAMPLES.items() for i in range(len(examples))]


WIDE = bl.Conv(4, (3,), padding="same")


def found(net, shape, **options) -> list[tuple[str, str]]:
    return [(lint.rule, lint.path) for lint in bl.lint(net, shape, **options)]


def test_every_rule_has_examples():
    assert list(EXAMPLES) == list(RULES)


@pytest.mark.parametrize(("name", "example"), FLAT, ids=IDS)
def test_a_rule_marks_its_example_and_nothing_else_does(name, example):
    wanted = [(name, path) for path in example.paths]
    assert found(example.net, example.shape, layout=example.layout) == wanted


@pytest.mark.parametrize(("name", "example"), FLAT, ids=IDS)
def test_what_is_better_is_not_marked(name, example):
    assert found(example.better, example.better_shape or example.shape, layout=example.layout) == []


@pytest.mark.parametrize(("name", "example"), FLAT, ids=IDS)
def test_a_remark_says_what_is_wrong_and_what_to_do(name, example):
    nodes = {node.path: node for node in bl.infer(example.net, example.shape).walk()}
    for lint in bl.lint(example.net, example.shape, layout=example.layout):
        assert lint.block == nodes[lint.path].block
        assert lint.reason.endswith(".")
        assert lint.repair.endswith(".")


@pytest.mark.parametrize(
    ("net", "shape", "words"),
    [
        (bl.LogSoftmax(), (1,), "always 1, its logarithm 0, and"),
        (bl.Sequential(bl.Dense(3), bl.BatchNorm(), bl.Dense(3)), (3,), "do no more than one"),
        (bl.Sequential(WIDE, bl.MaxPool((2,)), WIDE), (8, 2), "do little more than one"),
        (bl.RMSNorm(), (1,), "only their signs are left"),
        (bl.Repeat(bl.ReLU(), 2), (3,), "It follows relu at once, which it is itself."),
        (bl.BatchNorm(decay=1.0), (3,), "never move; torch's"),
        (bl.BatchNorm(decay=1.0), (3,), "Write decay=0.9."),
        (bl.BatchNorm(decay=0.0), (3,), "Write decay=0.9."),
        (bl.BatchNorm(decay=0.01), (3,), "Write decay=0.99."),
        (bl.Conv(2, (2, 3), (3, 3)), (8, 9, 1), "1 of 3 cells are in no window"),
        (bl.Conv(2, (2,), padding=((2, 2),)), (8, 1), "Write padding='same'."),
        (bl.ConvTranspose(2, (5, 5), 3), (8, 9, 1), "Use a kernel_size of 6, or"),
        (bl.ConvTranspose(2, (4,), 2, ((1, 1),)), (1, 1), "2 of 4 cells of its kernel"),
        (bl.ConvTranspose(2, (4,), 2, ((1, 1),)), (1, 1), "are always cut off"),
    ],
    ids=str,
)
def test_remarks_have_their_numbers(net, shape, words):
    (lint,) = bl.lint(net, shape)
    assert words in f"{lint.reason} {lint.repair}"


def test_a_dense_of_channels_is_meant_where_they_come_last():
    net = bl.Sequential(bl.Conv(4, (3, 3)), bl.ReLU(), bl.Dense(3))
    assert found(net, (6, 7, 2)) == []
    assert found(net, (2, 6, 7), layout="channels_first") == [("dense_along_width", "2")]
    assert found(bl.Sequential(bl.Dense(3)), (2, 6, 7), layout="channels_first") == []


@pytest.mark.parametrize(("name", "example"), FLAT, ids=IDS)
def test_nesting_hides_nothing(name, example):
    wanted = [(name, f"0/inner/{path}".rstrip("/")) for path in example.paths]
    for outer in (bl.Sequential, lambda net: bl.Repeat(net, 1)):
        net = outer(bl.Sequential(inner=example.net))
        assert found(net, example.shape, layout=example.layout) == wanted


def conv(features, size=3, stride=1, **options):
    return bl.ConvNormAct(features, (size, size), stride, **options)


def inverted(features, hidden, inputs, stride=1):
    """Sandler et al. 2018: few channels at the ends, without an activation."""
    body = bl.Sequential(
        conv(hidden, 1),
        conv(hidden, stride=stride, groups=hidden),
        conv(features, 1, activation=None),
    )
    return bl.Residual(body) if features == inputs and stride == 1 else body


def unet(*features):
    """Ronneberger et al. 2015: each level around the next."""
    net = conv(features[-1])
    for n in reversed(features[:-1]):
        inner = bl.Sequential(bl.MaxPool((2, 2)), net, bl.ConvTranspose(n, (2, 2), 2))
        net = bl.Sequential(conv(n), bl.Residual(inner, merge="concat"), conv(n))
    return bl.Sequential(net, bl.Conv(2, (1, 1)))


def up(features):
    turned = bl.ConvTranspose(features, (4, 4), 2, "same", use_bias=False)
    return turned, bl.BatchNorm(), bl.ReLU()


CONVNEXT = bl.Residual(
    bl.Sequential(
        bl.Conv(8, (7, 7), padding="same", groups=8),
        bl.LayerNorm(),
        *(bl.Dense(32), bl.GELU(), bl.Dense(8), bl.Parameter((8,), "multiply")),
    )
)

GOOD = {
    "MobileNetV2": (
        bl.Sequential(
            *(conv(32, stride=2), inverted(16, 32, 32), inverted(24, 96, 16, stride=2)),
            *(inverted(24, 144, 24), inverted(32, 144, 24, stride=2), conv(1280, 1)),
            *(bl.GlobalAvgPool(), bl.Dropout(0.2), bl.Dense(1000)),
        ),
        (64, 64, 3),
    ),
    "U-Net": (unet(8, 16, 32), (32, 24, 1)),
    "DCGAN": (
        bl.Sequential(
            *(bl.Dense(4 * 4 * 64, use_bias=False), bl.BatchNorm(), bl.ReLU()),
            *(bl.Reshape((4, 4, 64)), *up(32), *up(16)),
            *(bl.ConvTranspose(3, (4, 4), 2, "same"), bl.Tanh()),
        ),
        (100,),
    ),
    "autoencoder": (
        bl.Sequential(bl.Flatten(), *dense(128, 16), *dense(128, 784), bl.Reshape((28, 28, 1))),
        (28, 28, 1),
    ),
    "vision transformer": (
        bl.Sequential(
            bl.Conv(32, (4, 4), 4),
            bl.Rearrange("b h w c -> b (h w) c"),
            *(bl.Parameter(merge="prepend"), bl.Parameter(), bl.Dropout(0.1)),
            bl.Repeat(bl.TransformerEncoderLayer(32, 4, 64, norm_first=True, rate=0.1), 3),
            *(bl.LayerNorm(), bl.Reduce("b t d -> b d", "mean"), bl.Dense(10)),
        ),
        (16, 16, 3),
    ),
    "ConvNeXt": (bl.Sequential(bl.Conv(8, (4, 4), 4), bl.LayerNorm(), CONVNEXT), (32, 32, 3)),
    "language model": (
        bl.Sequential(
            *(bl.Embedding(100, 16), bl.Dropout(0.1), bl.LSTM(32, return_sequences=True)),
            *(bl.LSTM(32, return_sequences=True), bl.Dropout(0.1), bl.Dense(100)),
        ),
        (None,),
    ),
    "variational autoencoder": (
        bl.Sequential(
            *(bl.Dense(32), bl.ReLU(), bl.Parallel(bl.Dense(2), bl.Dense(2), merge="tuple")),
            *(bl.Sample(), bl.Dense(32), bl.ReLU(), bl.Dense(20), bl.Sigmoid()),
        ),
        (20,),
    ),
    "WaveNet's convolutions": (
        bl.Sequential(
            *(
                bl.Residual(
                    bl.Sequential(
                        bl.Conv(8, (2,), padding=((d, 0),), dilation=d), bl.Tanh(), bl.Conv(8, (1,))
                    )
                )
                for d in (1, 2, 4, 8)
            )
        ),
        (32, 8),
    ),
    "the demo": (demo.network(), demo.INPUT),
    "the first example": (
        runpy.run_path(str(ROOT / "examples" / "01_one_network.py"))["net"],
        (28, 28, 1),
    ),
    **{name: (net, shape) for name, (net, shape, _) in NETWORKS.items()},
    **{f"benchmark {n.name}": (n.block, n.shape) for n in TIMED.values()},
    **{
        f"composite {case.name}": (case.base, case.shape)
        for case in CASES
        if isinstance(case.base, bl.Composite)
    },
}


@pytest.mark.parametrize("name", GOOD)
def test_good_networks_are_not_marked(name):
    assert found(*GOOD[name]) == []


def test_a_classifier_that_misses_activations():
    """Convolutions for 28x28 images: only the first has its ReLU, pools have stride 1."""

    def stage(features, *activation):
        conv = bl.Conv(features, (3, 3), padding="same", use_bias=False)
        pool = bl.MaxPool((2, 2), 1), bl.Dropout(0.2, whole_channels=True)
        return conv, bl.BatchNorm(), *activation, *pool

    net = bl.Sequential(
        *(*stage(16, bl.ReLU()), *stage(16), *stage(32), bl.Flatten()),
        *(bl.Dense(64, use_bias=False), bl.Dropout(0.2), bl.Dense(10, use_bias=False)),
        *(bl.Softmax(), bl.Dropout(0.2)),
    )
    node = bl.infer(net, (28, 28, 8))
    assert bl.count(node, trainable=True) == 1_288_832
    assert found(net, (28, 28, 8)) == found(net, (8, 28, 28), layout="channels_first")
    assert found(net, (28, 28, 8)) == [
        ("pool_of_stride_1", "3"),
        ("no_activation_between", "5"),
        ("pool_of_stride_1", "7"),
        ("no_activation_between", "9"),
        ("pool_of_stride_1", "11"),
        ("no_activation_between", "14"),
        ("dropout_after_softmax", "18"),
    ]


def test_a_variational_autoencoder_with_idle_pools():
    """Pools of one cell do nothing; ReLU and dropout end the image."""

    def finish(*between):
        return bl.BatchNorm(), bl.ReLU(), *between, bl.Dropout(0.25, whole_channels=True)

    net = bl.Sequential(
        *(bl.Conv(8, (3, 3)), *finish(bl.MaxPool((1, 1)))),
        *(bl.Conv(16, (3, 3)), *finish(bl.MaxPool((1, 1)))),
        bl.Sequential(bl.Flatten(), bl.Parallel(bl.Dense(16), bl.Dense(16), merge="tuple")),
        bl.Sample(),
        bl.Sequential(bl.Dense(9216), bl.Reshape((24, 24, 16))),
        *(bl.ConvTranspose(8, (3, 3), use_bias=False), *finish()),
        *(bl.ConvTranspose(3, (3, 3), use_bias=False), *finish()),
    )
    node = bl.infer(net, (28, 28, 3))
    assert node.out_spec.shape == (28, 28, 3)
    assert bl.count(node, trainable=True) == 454_446
    assert found(net, (28, 28, 3)) == [
        ("does_nothing", "3"),
        ("does_nothing", "8"),
        ("no_activation_between", "12/0"),
        ("relu_at_the_end_of_a_decoder", "19"),
        ("dropout_at_the_end", "20"),
    ]


def test_a_probability_of_one_class():
    net = bl.Sequential(*dense(16, 16, 1), bl.Softmax())
    assert found(net, (8,)) == [("softmax_of_one", "5")]


def test_layers_without_anything_between():
    sizes = (32, 64, 128, 256, 1024)
    net = bl.Sequential(*(bl.Conv(n, (4, 4), 2, ((1, 1), (1, 1))) for n in sizes))
    *between, last = bl.lint(net, (32, 32, 3))
    assert {lint.rule for lint in between} == {"no_activation_between"}
    assert [lint.path for lint in between] == ["0", "1", "2", "3"]
    assert "before Conv at '1'" in between[0].reason
    assert (last.rule, last.path) == ("kernel_larger_than_map", "4")
    assert "2 of 4 cells" in last.reason


def test_what_does_not_fit_is_an_error():
    with pytest.raises(bl.ShapeError, match="needs 2 spatial axes"):
        bl.lint(bl.Conv(3, (3, 3)), (5,))
    with pytest.raises(bl.FieldError, match="give its input_shape="):
        bl.lint(bl.Dense(3))


def test_any_length_and_any_value_can_be_looked_at():
    """Rules that need sizes are silent where there are none."""
    for case in CASES:
        for _, block in case.variants():
            assert isinstance(bl.lint(block, case.shape), Lints)
    for net, shape in (
        (bl.Sequential(bl.Conv(3, (3,), padding="same"), bl.MaxPool((2,)), bl.LSTM(4)), (None, 2)),
        (bl.Sequential(bl.GroupNorm(2), bl.MultiHeadAttention(2)), (None, 4)),
    ):
        assert found(net, shape) == []


def test_deep_nesting_is_no_recursion_and_a_long_chain_no_work():
    deep = bl.Dense(4)
    for _ in range(3000):
        deep = bl.Sequential(deep)
    assert found(deep, (4,)) == []
    long = bl.Sequential(*[bl.Dense(4), bl.Dropout(0.1)] * 2000)
    assert len(bl.lint(long, (4,))) == 2000


def test_remarks_print_as_a_table():
    net = bl.Sequential(bl.Dense(1), bl.Softmax())
    lints = bl.lint(net, (8,))
    assert lints
    assert len(lints) == 1
    for part in ("1 remark", "softmax", "always 1", "Use Sigmoid()"):
        assert part in str(lints)
    none = bl.lint(net[0], (8,))
    assert not none
    assert str(none) == "Nothing to remark."


@pytest.mark.parametrize(
    ("block", "remarks"),
    [(bl.ReLU(), 0), (bl.Sigmoid(), 1), (bl.Shared("bent", bl.Tanh()), 0)],
    ids=["relu", "sigmoid", "shared"],
)
def test_the_time_grows_with_the_length_not_its_square(block, remarks):
    def steps(times):
        """Calls of Python functions, which are the same on every machine."""
        node = bl.infer(
            bl.Sequential(*[b for _ in range(times) for b in (bl.Dense(4), block)]), (4,)
        )
        calls = Counter()
        sys.setprofile(lambda frame, event, _: calls.update([event]))
        try:
            found = bl.lint(node)
        finally:
            sys.setprofile(None)
        assert len(found) == remarks
        return calls.total()

    assert steps(400) < 2.5 * steps(200)


def test_a_node_is_looked_at_as_it_is():
    node = bl.infer(bl.Softmax(), (1,))
    assert bl.lint(node) == bl.lint(bl.Softmax(), (1,))
    with pytest.raises(bl.FieldError, match="leave them out"):
        bl.lint(node, (1,))


def test_the_command_line(tmp_path, capsys):
    path = tmp_path / "net.json"
    bl.save(bl.Sequential(bl.Dense(1), bl.Softmax()), path)
    assert cli.main(["summary", str(path), "--input", "8"]) == 0
    assert "remark" not in capsys.readouterr().out
    assert cli.main(["summary", str(path), "--input", "8", "--lint"]) == 0
    assert "1 remark" in capsys.readouterr().out


def test_the_page_is_what_the_rules_say():
    assert lints.PAGE.read_text() == lints.page(), f"run {lints.COMMAND}"

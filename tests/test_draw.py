"""Drawings: everything in its place, nothing over anything else, whatever is drawn."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_depth import DEEP, LEVELS
from test_docs import CODE, ROOT
from test_trees import groups, trees

import blocks as bl
from blocks import cli, demo
from blocks._drawing.layout import BAND
from blocks._drawing.svg import style
from blocks._drawing.words import LONGEST, family, width
from blocks._foreign import Weights
from blocks._repeat import keeps_sizes
from cases import CASES

SVG = "{http://www.w3.org/2000/svg}"
LINE = re.compile(r"M(-?\d+),(-?\d+)V(-?\d+)(?:q0,8 -8,8H(-?\d+))?$")
TIP = re.compile(r"M(-?\d+),(-?\d+)")


@dataclass(frozen=True)
class Rect:
    """A rectangle, a text in its rectangle, or a straight line."""

    kind: str
    path: str | None  # of its block; None if it stands for none
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Rect) -> bool:
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom

    def holds(self, other: Rect) -> bool:
        across = self.left <= other.left and other.right <= self.right
        return across and self.top <= other.top and other.bottom <= self.bottom

    def should_hold(self, other: Rect) -> bool:
        """Whether the other is the sign of this frame, or of a block inside it."""
        if self.kind not in ("frame", "chain") or self.path is None or other.path is None:
            return False
        below = other.path.startswith(f"{self.path}/" if self.path else "")
        return (below and self.path != other.path) or (
            other.kind == "sign" and other.path == self.path
        )


class Read:
    """What stands in an SVG file."""

    def __init__(self, svg: str):
        self.root = ElementTree.fromstring(svg)
        groups = self.root.findall(SVG + "g")
        self.paths = [g.get("data-path") for g in groups if g.get("data-path") is not None]
        self.rects = [rect(r, g.get("data-path")) for g in groups for r in g.iter(SVG + "rect")]
        self.texts = [
            (rect(g.find(SVG + "rect"), None), text(t))
            for g in groups
            for t in g.iter(SVG + "text")
        ]
        self.labels = [text(t) for t in self.root.findall(SVG + "text")]
        self.lines = [line for line, _ in self.ways()]

    def ways(self):
        """The corners of each line, and the shape beside it."""
        found = []
        for element in self.root:
            kind, d = element.get("class"), element.get("d")
            if kind in ("edge", "edge several"):
                x, y, down, left = (part and int(part) for part in LINE.match(d).groups())
                corners = (
                    [(x, y), (x, down)]
                    if left is None
                    else [(x, y), (x, down + 8), (left, down + 8)]
                )
                found.append((corners, None))
            elif kind == "head":
                found[-1][0][-1] = tuple(map(int, TIP.match(d).groups()))
            elif kind == "size":
                found[-1] = found[-1][0], element.text
        return found


def rect(element, path):
    x, y, across, down = (float(element.get(key)) for key in ("x", "y", "width", "height"))
    return Rect(element.get("class"), path, x, y, x + across, y + down)


def text(element):
    x, y, length = (float(element.get(key)) for key in ("x", "y", "textLength"))
    left = x if element.get("class") in ("heading", "size") else x - length / 2
    return Rect("text", None, left, y - 9, left + length, y + 3)


def check(drawing: bl.Drawing) -> Read:
    """Nothing lies on anything else, and every line leads from a border to a border."""
    read = Read(drawing.svg)
    assert len(set(read.paths)) == len(read.paths)
    identities = [element.get("id") for element in read.root.iter() if element.get("id")]
    assert len(set(identities)) == len(identities) == len(read.paths)
    for one, other in combinations(read.rects, 2):  # a frame comes before what it holds
        if one.should_hold(other):
            assert one.holds(other), (one, other)
        elif "chain" not in (one.kind, other.kind) and one.meets(other):
            assert one.kind == "frame", (one, other)
            assert other.path is None, (one, other)  # that something was left out
            assert one.holds(other), (one, other)
    check_texts(read)
    check_lines(read)
    return read


def check_texts(read: Read) -> None:
    visible = [rect for rect in read.rects if rect.kind != "chain"]
    for box, inside in read.texts:
        assert box.holds(inside)
    for label in read.labels:
        for rect in visible:
            assert not rect.meets(label) or (rect.kind == "frame" and rect.holds(label))
    assert not any(one.meets(other) for one, other in combinations(read.labels, 2))


def check_lines(read: Read) -> None:
    visible = [rect for rect in read.rects if rect.kind != "chain"]
    for corners in read.lines:
        for (x, y), (to_x, to_y) in pairwise(corners):
            way = Rect("line", None, min(x, to_x), min(y, to_y), max(x, to_x), max(y, to_y))
            for rect in visible:
                assert not rect.meets(way) or (rect.kind == "frame" and rect.holds(way))
            assert not any(label.meets(way) for label in read.labels)
        assert any(leaves(corners[0], rect) for rect in visible), corners
        assert any(reaches(corners[-1], rect) for rect in visible), corners


def leaves(point, rect):
    """Whether data leaves a rectangle at its lower border, or the band with its title."""
    x, y = point
    borders = [rect.bottom, rect.top + BAND] if rect.kind == "frame" else [rect.bottom]
    return rect.left < x < rect.right and y in borders


def reaches(point, rect):
    """Whether data enters a rectangle from above, a sign from the right, or ends a frame."""
    x, y = point
    if rect.kind == "sign" and x == rect.right:
        return y == (rect.top + rect.bottom) / 2
    borders = [rect.top, rect.bottom] if rect.kind == "frame" else [rect.top]
    return rect.left < x < rect.right and y in borders


def paths_drawn(node: bl.Node) -> list[str]:
    """The paths of all nodes; of repetitions that are alike, those of the first."""
    found, stack = [], [node]
    while stack:
        node = stack.pop()
        found.append(node.path)
        alike = isinstance(node.form, bl.Repeat) and keeps_sizes(node)
        stack += node.children[:1] if alike else node.children
    return found


def titles(drawing: bl.Drawing) -> list[str]:
    return [t.text for t in ElementTree.fromstring(drawing.svg).iter(SVG + "text")]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_row_of_the_table(case):
    for _, block in case.variants():
        node = bl.infer(block, case.shape)
        read = check(bl.draw(node))
        unlike = any(isinstance(n.form, bl.Repeat) and not keeps_sizes(n) for n in node.walk())
        if not unlike:
            assert sorted(read.paths) == sorted(paths_drawn(node))
            assert check(bl.draw(block)).paths == read.paths


def more_groups(inner):
    several = st.lists(inner, min_size=2, max_size=4)
    return st.one_of(
        groups(inner),
        st.builds(bl.Repeat, inner, st.integers(1, 4)),
        several.map(lambda blocks: bl.Parallel(*blocks[1:], last=blocks[0], merge="tuple")),
        several.map(
            lambda blocks: bl.Sequential(
                blocks[0], **{f"part_{i}": b for i, b in enumerate(blocks)}
            )
        ),
    )


@settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))
@given(st.lists(st.recursive(trees, more_groups, max_leaves=12), min_size=1, max_size=5))
def test_random_trees(blocks):
    """Without sizes all of them; with sizes those that fit together."""
    with suppress(bl.FieldError):  # two blocks that share a name
        check(bl.draw(bl.Sequential(*blocks)))
    fitting: list[bl.Block] = []
    for block in blocks:
        try:
            node = bl.infer(bl.Sequential(*fitting, block), (7, 6, 4))
        except bl.BlockError:
            continue
        fitting.append(block)
        check(bl.draw(node))


class Flip(bl.Custom):
    """A narrow box with a wide shape below it."""

    def out_spec(self, x):
        return x.with_shape(x.shape[::-1])

    def forward(self, ops, x):
        return ops.transpose(x, (0, *range(len(x.shape) - 1, 0, -1)))


WIDE = [
    bl.Sequential(Flip(), Flip()),
    bl.Residual(bl.Sequential(Flip(), bl.Sequential(Flip()), Flip()), Flip()),
    bl.Residual(Flip(), Flip(), merge="concat"),
    bl.Residual(bl.Sequential(Flip(), Flip(), bl.Residual(bl.Sequential(Flip(), Flip())))),
    bl.Parallel(Flip(), bl.Sequential(bl.ReLU(), Flip()), Flip(), merge="stack"),
    bl.Parallel(bl.Parallel(Flip(), bl.ReLU(), merge="tuple"), Flip(), merge="tuple"),
    bl.Residual(bl.Parallel(Flip(), merge="stack"), bl.Parallel(Flip(), merge="stack")),
    bl.Repeat(bl.Sequential(Flip(), Flip()), 3),
]


@pytest.mark.parametrize("net", [*WIDE, bl.Sequential(*WIDE[:4], WIDE[-1], WIDE[4])], ids=str)
def test_wide_shapes(net):
    """They stay off boxes and lines, in columns and beside the way around."""
    read = check(bl.draw(net, (11111, 22222, 111, 4)))
    assert any(label.right - label.left > 100 for label in read.labels)


def test_what_is_written():
    """Kinds with their main fields, other fields that are not at their defaults, names, shapes."""
    net = bl.Sequential(
        bl.Conv(6, (3, 2), stride=(2, 1), padding="same", use_bias=False),
        bl.LeakyReLU(0.2),
        bl.Dropout(),
        bl.Rearrange("b (h h2) w c -> b (h w) (h2 c)", h2=2),
        scores=bl.Sequential(bl.MultiHeadAttention(2, causal=True), bl.Activation("gelu_tanh")),
        means=bl.Reduce("b t c -> b c", "mean"),
        head=bl.MLP(3, hidden=(5,)),
    )
    drawing = bl.draw(net, (8, 5, 4))
    assert titles(drawing) == [
        *("input (8, 5, 4)", "Conv 6, (3, 2)", "stride (2, 1), padding same", "no bias"),
        *("144 parameters", "LeakyReLU", "slope 0.2", "Dropout 0.5"),
        *("Rearrange b (h h2) w c -> b (h w) (h2 c)", "h2 2", "scores", "MultiHeadAttention 2"),
        *("causal", "624 parameters", "gelu_tanh", "means: Reduce b t c -> b c, mean"),
        *("head: MLP 3", "Dense 5", "65 parameters", "ReLU", "Dense 3", "18 parameters"),
        *("output (3,)", "(4, 5, 6)", "(10, 12)", "(12,)", "(3,)", "(5,)"),
    ]
    assert not [t for t in titles(bl.draw(net)) if t.startswith("(") or t.endswith("parameters")]


def test_a_shape_stands_where_it_changes():
    """And nowhere else: a line without a shape carries what went into the block above."""
    fork = bl.Parallel(bl.Dense(4), bl.Sequential(bl.ReLU(), bl.Dense(4)), merge="tuple")
    net = bl.Sequential(bl.Dense(4), bl.ReLU(), fork, bl.Select(0), bl.Residual(bl.Dense(4)))
    found = [label for _, label in Read(bl.draw(net, (3,)).svg).ways()]
    assert sorted(filter(None, found)) == ["((4,), (4,))", "(4,)", "(4,)"]
    assert len(found) == 16


class Shorter(bl.Custom):
    """One row less of the last tensor."""

    rows: int = 1

    def out_spec(self, x):
        return (*x[:-1], x[-1].with_shape((x[-1].shape[0] - self.rows, *x[-1].shape[1:])))

    def forward(self, ops, x):
        return (*x[:-1], x[-1][:, self.rows :])


def test_a_shape_that_changes_where_it_is_cut_short_is_seen():
    shapes = tuple((11111 + i, 22222) for i in range(7))
    for rows in (0, 1):
        drawing = bl.draw(bl.Sequential(Shorter(rows), Shorter(0)), shapes)
        labels = filter(None, [label for _, label in check(drawing).ways()])
        assert ["…" in label for label in labels] == [True] * rows


def test_several_tensors_are_a_thick_line():
    net = bl.Sequential(bl.Parallel(bl.Dense(2), bl.Dense(2), merge="tuple"), bl.Sample())
    kinds = [e.get("class") for e in ElementTree.fromstring(bl.draw(net, (3,)).svg)]
    assert kinds.count("edge several") == 2  # to the end of the frame, and on
    assert "several" not in kinds


def test_repetitions_that_are_alike_are_drawn_once():
    net = bl.Repeat(bl.Sequential(bl.Dense(4), bl.Tanh()), 1200)
    for drawing in (bl.draw(net, (4,)), bl.draw(net)):
        read = check(drawing)
        assert read.paths == ["", "0", "0/0", "0/1"]
        assert "Repeat \N{MULTIPLICATION SIGN} 1,200" in titles(drawing)


def test_repetitions_that_differ_are_drawn_first_and_last():
    drawing = bl.draw(bl.DenseBlock(4, 5), (8, 8, 3))
    assert [p for p in check(drawing).paths if p.isdigit()] == ["0", "4"]
    assert "… 3 more" in titles(drawing)
    assert "DenseBlock 4, 5" in titles(drawing)
    pair = bl.Repeat(bl.Sequential(bl.Flatten(), bl.Dense(4)), 2)  # unlike, so each has a frame
    frames = [rect.path for rect in check(bl.draw(pair, (2, 3))).rects if rect.kind == "frame"]
    assert frames == ["", "0", "1"]
    assert "Repeat, 3 in a row" in titles(bl.draw(bl.Repeat(bl.Flatten(), 3), (2, 4)))


def test_a_shared_block_says_where_it_was_first():
    tied = bl.Shared("tied", bl.Dense(4))
    net = bl.Sequential(
        first=tied, again=bl.Sequential(tied, bl.ReLU()), mlp=bl.Shared("m", bl.MLP(4))
    )
    for drawing in (bl.draw(net, (4,)), bl.draw(net)):
        found = titles(drawing)
        assert found.index("shared tied") < found.index("shared tied, as at first")
        assert "mlp: MLP 4, shared m" in found
        groups = ElementTree.fromstring(drawing.svg).findall(SVG + "g")
        dashed = [g.get("data-path") for g in groups if "again" in g.get("class").split()]
        assert dashed == ["again/0"]
    assert titles(bl.draw(net, (4,))).count("20 parameters") == 1


def test_long_rows_and_many_branches_are_cut():
    row = bl.draw(bl.Sequential(*[bl.Dense(4), bl.ReLU()] * 1000), (4,))
    assert "… 1,960 more" in titles(row)
    assert len(check(row).paths) == 1 + 40
    fork = bl.draw(bl.Parallel(*[bl.Dense(4)] * 2000), (4,))
    assert "… 1,988 more" in titles(fork)
    assert len(check(fork).paths) == 1 + 12


@pytest.mark.parametrize("name", DEEP)
def test_deep_networks_are_opened_from_outside(name):
    for drawing in (bl.draw(DEEP[name], (4,)), bl.draw(DEEP[name])):
        assert len(check(drawing).paths) == 21
        assert f"{LEVELS - 20:,} blocks inside" in titles(drawing)
        assert len(drawing.svg) < 50_000


def test_a_level_is_opened_as_a_whole_if_it_fits():
    net = bl.Sequential(*[bl.Bottleneck(8, project=True)] * 30)
    assert len(check(bl.draw(net, (5, 5, 4), limit=91)).paths) == 91  # the 60 in Bottlenecks
    assert len(check(bl.draw(net, (5, 5, 4), limit=90)).paths) == 31
    assert len(check(bl.draw(net, (5, 5, 4), depth=1)).paths) == 31
    assert len(check(bl.draw(net, (5, 5, 4), depth=0)).paths) == 1
    assert "Bottleneck 8" in titles(bl.draw(net[0], (5, 5, 4), limit=1))


def test_many_boxes_take_little_time():
    """A binary tree, rows of rows and 10,000 blocks in a row: seconds on a slow machine."""
    tree = bl.Dense(2)
    for _ in range(10):
        tree = bl.Parallel(tree, tree)
    rows = bl.Sequential(*[bl.Sequential(*[bl.MLP(4)] * 100)] * 100)
    start = time.perf_counter()
    for net in (
        tree,
        rows,
        bl.Sequential(*[bl.ReLU()] * 10_000),
        bl.Repeat(bl.Repeat(bl.Repeat(bl.Dense(2), 10**6), 10**6), 10**6),
    ):
        assert len(check(bl.draw(net)).paths) <= 400
        assert len(net._repr_html_()) < 500_000
    assert time.perf_counter() - start < 20


def test_hostile_names_are_only_text():
    name = "<script>\"&' \x00\x1b\ud800\ufffe" + "x" * 1000
    hostile = type("<script>\"&' \ufffe", (bl.Custom,), {"forward": lambda self, ops, x: x})()
    node = bl.infer(bl.Sequential(hostile, bl.Sequential(hostile)), (3,))
    first = replace(node.children[0], name=name, path=name, home=name)
    drawing = bl.draw(replace(node, children=(first, *node.children[1:])))
    assert "<script" not in drawing.svg
    read = check(drawing)
    assert len(read.paths) == 4
    assert max(map(len, titles(drawing))) <= LONGEST
    assert titles(drawing)[1].startswith("<script>\"&' \N{REPLACEMENT CHARACTER}")
    drawing.svg.encode()


def test_texts_keep_their_width_in_every_font():
    assert width("Wii", 1000) == 944 + 222 + 222
    assert width("漢", 10) > 10
    for element in ElementTree.fromstring(bl.draw(bl.MLP(3), (4,)).svg).iter(SVG + "text"):
        assert element.get("lengthAdjust") == "spacingAndGlyphs"


def test_it_is_one_file_for_all_readers():
    """Nothing from elsewhere; words for those who do not see it; dark on screens alone."""
    drawing = bl.draw(demo.network(), demo.INPUT)
    root = ElementTree.fromstring(drawing.svg)
    assert root.get("role") == "img"
    heading, description, style = root[:3]
    assert heading.text == "Sequential, (8, 8, 1) to (10,)"
    assert "Conv 16, (3, 3); BatchNorm; SiLU; " in description.text
    assert style.text.count("@media screen and (prefers-color-scheme:dark){") == 1
    assert all(
        rule.startswith((".isoblocks ", "@", "}"))
        for rule in re.findall(r"[^\s{}][^{}]*(?={)", style.text)
    )
    rest = drawing.svg.replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"http|href|url\(|@import|<script|<image", rest)


def test_every_family_has_its_colour():
    for case in CASES:
        for node in bl.infer(case.base, case.shape).walk():
            if not node.children and not isinstance(node.form, bl.Combinator):
                assert f".isoblocks .{family(node.form)} .box{{" in style()


class Broken(bl.Composite):
    def expand(self):
        raise RuntimeError("not today")


def test_notebooks():
    net = bl.Sequential(bl.Dense(3), bl.ReLU())
    node = bl.infer(net, (4,))
    assert bl.draw(net).svg in net._repr_html_()
    assert bl.draw(node).svg in node._repr_html_()
    assert "(4,)" in node._repr_html_()
    assert bl.draw(node)._repr_svg_() == bl.draw(node).svg
    assert repr(bl.draw(node)) == "<Drawing of 3 blocks>"
    assert bl.Sequential(Broken())._repr_html_() is None


def test_results_are_readable_as_the_last_line_of_a_cell():
    """Tables and single lines, not all numbers that are in them."""
    net = bl.Sequential(bl.Dense(3), bl.ReLU())
    node = bl.infer(net, (4,))
    model, other = (bl.lower(node, "numpy", seed=seed) for seed in (0, 1))
    x = np.random.default_rng(0).normal(size=(60, 4))
    weights = Weights("torch", {"weight": np.ones((50, 50)), "bias": np.ones(50)})
    certificate = bl.certify(node, backends=["numpy"])
    results = {
        "Parity in float32": bl.parity(node, backends=["numpy"]),
        "Certificate of": certificate,
        "The certificate holds.": bl.verify(certificate),
        "Dense": bl.diff(model, other, x),
        "0/kernel": bl.diff_params(bl.params_of(model), bl.params_of(other)),
        "multiply-adds": net.summary((4,)),
        "<History of 270 steps in ": bl.fit(
            model, (x, x[:, :3]), loss="mse", epochs=30, batch_size=7
        ),
        "<Weights of torch: 2 arrays>": weights,
    }
    for words, result in results.items():
        assert words in repr(result)
        assert str(result) == repr(result)
        assert len(repr(result)) < 3000
        assert max(map(len, repr(result).splitlines())) <= 100


def test_mistakes(tmp_path):
    net = bl.Dense(3)
    with pytest.raises(bl.FieldError, match=r"draw.depth must be an int of at least 0, got -1"):
        bl.draw(net, (4,), depth=-1)
    with pytest.raises(bl.FieldError, match=r"draw.limit must be an int of at least 1, got True"):
        bl.draw(net, (4,), limit=True)
    with pytest.raises(bl.FieldError, match="needs a block or a node, got 3"):
        bl.draw(3)
    with pytest.raises(bl.FieldError, match="give its input_shape="):
        bl.draw(net, layout="channels_first")
    with pytest.raises(bl.FieldError, match="leave them out"):
        bl.draw(bl.infer(net, (4,)), (4,))
    with pytest.raises(bl.FileError, match="cannot be written"):
        bl.draw(net).save(tmp_path / "nowhere" / "net.svg")


def test_the_command_line(tmp_path, capsys):
    bl.save(demo.network(), tmp_path / "net.json")
    command = ["summary", str(tmp_path / "net.json"), "--input", "8,8,1"]
    assert cli.main([*command, "--svg", str(tmp_path / "net.svg")]) == 0
    assert "multiply-adds" in capsys.readouterr().out
    assert (tmp_path / "net.svg").read_text() == bl.draw(demo.network(), (8, 8, 1)).svg
    for wrong in (str(tmp_path / "no" / "net.svg"), ""):
        assert cli.main([*command, "--svg", wrong]) == 2
        assert "FileError" in capsys.readouterr().err
    assert cli.main([*command, "--svg"]) == 0
    assert capsys.readouterr().out == (tmp_path / "net.svg").read_text() + "\n"


def test_the_readmes_picture_is_what_draw_makes():
    """If it is not: bl.draw(net, (28, 28, 1)).save("docs/network.svg")."""
    namespace: dict = {}
    exec(CODE[0], namespace)
    readme = (ROOT / "README.md").read_text()
    assert "bl.draw(net, (28, 28, 1))" in readme
    assert "](docs/network.svg)" in readme
    picture = (ROOT / "docs" / "network.svg").read_text()
    assert picture == bl.draw(namespace["net"], (28, 28, 1)).svg


def test_an_import_of_blocks_draws_nothing():
    code = "import sys, blocks; print(*(m for m in sys.modules if m.startswith('blocks._drawing')))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""

"""The page of a comparison: one file, correct, escaped, honest in its sentences."""

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from itertools import combinations, pairwise

import numpy as np
import pytest
from comparisons import NET, fabricated
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import blocks as bl
from blocks._comparison import memory
from blocks._plan import Plan
from blocks._report import embedded, page, returned
from blocks._report._findings import fastest, findings, first_beyond
from blocks._report._listings import Listing, listings
from blocks._report._numbers import Times, duration, measures, sized
from blocks._report._paper import NAME, SCALE, TALL, columns, named
from blocks._report._plots import BEFORE, HUES, TICKS, decades, fitting, linear, looks, mark
from blocks._sourcemap import lines
from custom_blocks import Gated

NODE = bl.infer(NET, (16, 12, 3))
SMALL = bl.infer(bl.Sequential(bl.Dense(4), bl.Residual(bl.Tanh()), bl.Dense(2)), (3,))
VOID = {"meta", "br", "wbr", "link", "img", "input", "hr"}


def made(comparison):
    """Its page, with the one listing that takes no framework."""
    return page(comparison, {"numpy": Listing(*lines(comparison.node, "numpy"))})


class Reader(HTMLParser):
    """Elements in their order, with attributes; what is closed was open."""

    def __init__(self):
        super().__init__()
        self.open, self.elements, self.texts = [], [], []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("script", "style"):
            self.texts.append(data)

    def with_attribute(self, name):
        return [(tag, attrs[name]) for tag, attrs in self.elements if name in attrs]


def read(text):
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert not reader.open
    return reader


def test_it_is_whole_and_refers_to_nothing():
    text = made(fabricated(NODE))
    reader = read(text)
    assert text.startswith("<!DOCTYPE html>")
    assert not {"link", "img", "iframe", "object", "base"} & {tag for tag, _ in reader.elements}
    assert not reader.with_attribute("src")
    assert all(link.startswith("#") for _, link in reader.with_attribute("href"))
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", text)
    ids = [value for _, value in reader.with_attribute("id")]
    assert len(ids) == len(set(ids))
    named = [n for a in ("aria-controls", "aria-labelledby") for _, n in reader.with_attribute(a)]
    assert named
    assert set(named) <= set(ids)


def test_without_scripts_everything_shows():
    reader = read(made(fabricated(NODE)))
    assert all("open" in attrs for tag, attrs in reader.elements if tag == "details")
    hidden = [attrs for _, attrs in reader.elements if "hidden" in attrs]
    assert [attrs["class"] for attrs in hidden] == ["tabs"]


def test_every_block_is_marked_in_code_picture_and_parity():
    reader = read(made(fabricated(NODE)))
    known = json.loads(re.search(r'id="known">(.*?)</script>', made(fabricated(NODE)))[1])
    paths = {n.path for n in NODE.walk()}
    assert set(known["paths"]) == paths
    assert {value for _, value in reader.with_attribute("data-block")} == paths
    lines = " ".join(value.replace("|", " ") for _, value in reader.with_attribute("data-b"))
    assert {*map(int, lines.split())} == set(range(len(paths)))
    drawn = {value for _, value in reader.with_attribute("data-path")}
    stands = dict(zip(known["paths"], known["drawn"], strict=True))
    assert all(known["paths"][i] in drawn for i in stands.values())
    assert stands["body/2/0/body/3"] == known["paths"].index("body/0/0/body/3")
    assert stands["head"] == known["paths"].index("head")


def test_what_is_left_out_of_the_picture_has_one_that_stands_for_it():
    deep = bl.Sequential(bl.Tanh(), bl.Sequential(*[bl.Residual(bl.Dense(3)) for _ in range(100)]))
    node = bl.infer(deep, (3,))
    text = made(fabricated(node))
    known = json.loads(re.search(r'id="known">(.*?)</script>', text)[1])
    stands = dict(zip(known["paths"], known["drawn"], strict=True))
    first, count = re.search(r'data-more="(.*?)" data-count="(.*?)"', text).groups()
    start = int(first.rpartition("/")[2])
    for i in range(100):
        twin = first if start <= i < start + int(count) else f"1/{i}"
        body = twin if twin == first else f"1/{i}/body"
        assert known["paths"][stands[f"1/{i}"]] == twin
        assert known["paths"][stands[f"1/{i}/body"]] == body


def test_listings_are_those_of_source():
    text = made(fabricated(NODE))
    rows = re.findall(r'<span class="no" data-no="(\d+)"></span>(.*?)</span>\n', text)
    assert [int(number) for number, _ in rows] == [*range(1, len(rows) + 1)]
    panel = Reader()
    panel.feed("\n".join(words for _, words in rows))
    assert "".join(panel.texts) + "\n" == bl.source(NODE, "numpy")


def test_listings_are_made_in_processes_of_their_own(monkeypatch):
    monkeypatch.setattr("blocks._sourcemap.find_backend", None)  # of this process
    found = listings(NODE, ["numpy", "none"])
    monkeypatch.undo()
    assert found["numpy"] == Listing(*lines(NODE, "numpy"))
    assert found["none"].missing.startswith("unknown backend 'none'.")
    own = bl.infer(Gated(4), (3,))
    assert listings(own, ["numpy"])["numpy"] == Listing(*lines(own, "numpy"))


def test_a_listing_that_is_missing_says_why():
    class Local(bl.Custom):
        def forward(self, ops, x):
            return x

    reason = listings(bl.infer(Local(), (2,)), ["numpy"])["numpy"].missing
    assert "cannot import" in reason
    text = page(fabricated(SMALL), {"numpy": Listing(missing="it needs <nothing>.\n  Install it.")})
    assert "No listing: it needs &lt;nothing&gt;.\n" in text


PIECES = [*"<>&\"'/|\\{};=-# \n\0\u2028\ud800é", "</script>", "<!--", "]]>", "onload=", "</style>"]
HOSTILE = st.lists(st.sampled_from(PIECES), max_size=8).map("".join)


@settings(max_examples=25, deadline=None, suppress_health_check=[*HealthCheck])
@given(HOSTILE, HOSTILE)
def test_hostile_texts_are_only_text(name, words):
    comparison = fabricated(SMALL, names=("numpy", name))
    row = comparison.data["contenders"][1]
    row |= {"error": words, "notes": [words], "facts": [name], "versions": {name: words}}
    for figure in row["figures"]:
        figure |= {"where": words}
    row["figures"].append(dict(row["figures"][-1], name=words))
    comparison.data["machine"]["processor"] = name
    first = replace(SMALL.children[0], name=name, path=name, home=name)
    comparison.node = replace(SMALL, children=(first, *SMALL.children[1:]))
    plain = read(made(fabricated(SMALL, names=("numpy", "x"))))
    hostile = read(made(comparison))
    tags = {tag for tag, _ in plain.elements}
    assert {tag for tag, _ in hostile.elements} <= tags
    assert not any(key.startswith("on") for _, attrs in hostile.elements for key in attrs)
    count = [tag for tag, _ in hostile.elements].count
    assert (count("script"), count("style")) == (2, 2)


@given(HOSTILE)
def test_data_in_a_script_stays_there(words):
    assert "<" not in embedded([words])
    assert json.loads(embedded([words])) == [words]


def test_large_networks_stay_small():
    net = bl.Sequential(*[b for i in range(100) for b in (bl.Dense(8 + i % 3), bl.ReLU())])
    assert len(made(fabricated(bl.infer(net, (8,))))) < 2e6


def test_what_failed_was_not_measured_or_is_infinite_can_be_shown():
    comparison = fabricated(SMALL)
    none = {"forward": {"1": [], "32": []}, "training": [], "figures": [], "agrees": False}
    none |= dict.fromkeys(("import_seconds", "build_seconds", "memory_after_import", "peak_memory"))
    none |= {"compile_seconds": {"forward": None, "training": None}, "error": "out of luck"}
    comparison.data["contenders"][2] |= none
    comparison.data["contenders"][0]["figures"][1] |= {"relative": None, "absolute": None}
    comparison.data["contenders"][1]["figures"][1] |= {"relative": 0.0, "absolute": 0.0}
    text = made(comparison)
    read(text)
    assert "did not run to the end: out of luck" in text
    assert "∞" in text
    comparison.data["contenders"] = []
    read(made(comparison))


# Sentences


def order_of(node):
    return {path: i for i, path in enumerate(returned(node))}


def test_blocks_return_after_what_is_in_them():
    assert [*returned(SMALL)] == ["0", "1/body", "1", "2", ""]


def test_who_differs_first_is_found():
    comparison = fabricated(SMALL, wrong="1/body")
    wrong = comparison.data["contenders"][1]
    wrong["figures"].reverse()  # whatever order they come in
    assert first_beyond(wrong, order_of(SMALL))["name"] == "1/body"
    (only,) = [f for f in findings(comparison.data, order_of(SMALL)) if f.kind == "bad"]
    assert "torch eager does not agree" in only.text
    assert "first block that differs is 1/body, by" in only.text
    assert only.block == "1/body"
    assert f'{only.text} <a href="#block=1/body">' in made(comparison)
    row = re.search(r'<tr data-block="1/body".*?</tr>', made(comparison))[0]
    assert "first<span> of torch eager</span>" in row


def test_agreement_names_what_is_closest_to_its_limit():
    comparison = fabricated(SMALL)
    figures = comparison.data["contenders"][3]["figures"]
    figures[-1] |= {"relative": 1.9e-5, "tolerance": 2e-5}
    kind, text, block = findings(comparison.data, order_of(SMALL))[0]
    assert block is None
    assert kind == "good"
    assert text.startswith("All 6 that ran agree")
    assert "keras tensorflow eager in the gradient of 2/bias, 1.9e-5 of 2.0e-5" in text


def test_there_is_no_winner_where_spreads_overlap():
    a = Times("a", (1.0, 1.1, 1.2, 1.3))
    b = Times("b", (1.15, 1.2, 1.25, 1.4))
    far = Times("c", (3.0, 3.0, 3.3))
    assert fastest([b, a, far]) == (
        "no winner between a and b, whose times overlap (medians from 1.15 s to 1.23 s); next is "
        "c, 2.6 times as long."
    )
    assert fastest([far, a]).startswith("a is fastest, 1.15 s (middle half 1.08 s to 1.22 s)")
    assert fastest([a]) == "a takes 1.15 s."
    near = Times("d", (1.031, 1.03, 1.032))
    assert fastest([near, Times("e", (1.0, 1.0, 1.0))]).endswith("next is d, 1.03 times as long.")


def test_measures_leave_out_who_has_none():
    data = fabricated(SMALL).data
    data["contenders"][0]["training"] = []
    found = measures(data)
    assert [*found] == ["Outputs of 1 example", "Outputs of 32 examples", *[*found][2:]]
    assert [len(times) for times in found.values()] == [6, 6, 5]


def test_numbers_in_words():
    assert [duration(s) for s in (12.345, 0.00123, 2.5e-7, 1234.5)] == [
        "12.3 s",
        "1.23 ms",
        "0.25 µs",
        "1,234 s",
    ]
    assert [sized(x) for x in (0, 2e-6, 1.26e-12, math.inf)] == ["0", "2.0e-6", "1.3e-12", "∞"]
    assert [memory(b) for b in (123, 70_100, 1_230_000, 45_600_000)] == [
        *("123 bytes", "70.1 kB", "1.23 MB", "46 MB")
    ]


# Plots


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=8))
def test_scales_hold_all_their_numbers(values):
    for scale in (fitting(values), decades(values), linear(max(values))):
        places = [scale.at(value) for value in sorted(values)]
        assert places == sorted(places)
        assert all(BEFORE <= place <= 95 for place in places)
        assert all(5 <= scale.at(tick) <= 95 for tick in scale.ticks)
        assert scale.at(math.inf) == 99


def contender(backend, engine, mode):
    return {"backend": backend, "engine": engine, "mode": mode}


def test_contenders_differ_without_their_colours_and_frameworks_in_colour():
    rows = [
        *(contender("numpy", None, "eager"), contender("flax", None, "compiled")),
        *(contender("torch", None, mode) for mode in ("eager", "compiled", "exported")),
        *(contender("keras", e, m) for e in ("jax", "tf", "torch") for m in ("eager", "compiled")),
        *(contender(f"other {i}", None, "eager") for i in range(2)),
    ]
    found = looks(rows)
    assert len({(look.shape, look.hollow) for look in found}) == len(rows) == 13
    assert len({mark(look) for look in found}) == 13
    known = [*zip(rows, found, strict=True)][:11]
    assert len({look.hue for _, look in known}) == 4
    for row, look in known:
        assert look.hollow == (row["mode"] == "compiled")
        assert {other.hue for one, other in known if one["backend"] == row["backend"]} == {look.hue}
    assert len({look.class_ for row, look in known if row["backend"] == "keras"}) == 3


COLOUR = re.compile(r"--([\w-]+): (#[0-9a-f]{6})")
# What the cones of people see who lack one kind (Machado, Oliveira and Fernandes, 2009).
SIGHTS = {
    "all": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "without red": [
        *([0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216]),
        [-0.003882, -0.048116, 1.051998],
    ],
    "without green": [
        *([0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413]),
        [-0.011820, 0.042940, 0.968881],
    ],
    "without blue": [
        *([1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602]),
        [0.004733, 0.691367, 0.303900],
    ],
}


def schemes():
    css = (files("blocks") / "_report" / "page.css").read_text(encoding="utf-8")
    light, dark = (dict(COLOUR.findall(part)) for part in css.split("@media", 2)[:2])
    assert light.keys() == dark.keys()
    return {"light": light, "dark": dark}


def linear_light(colour):
    parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def contrast(*colours):
    low, high = sorted(linear_light(c) @ [0.2126, 0.7152, 0.0722] for c in colours)
    return (high + 0.05) / (low + 0.05)


def seen(colour, sight):
    """In Oklab, where distances are about as large as they look."""
    light = np.clip(np.array(SIGHTS[sight]) @ linear_light(colour), 0, None)
    cones = [
        *([0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566]),
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
    mixed = [
        *([0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099]),
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
    return np.array(mixed) @ np.cbrt(np.array(cones) @ light)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_can_be_read_and_told_apart(scheme):
    of = schemes()[scheme]
    words = ["ink", "soft", "accent", "good", "bad", "keyword", "string", "number"]
    assert all(contrast(of[w], of[p]) >= 4.5 for w in words for p in ("paper", "panel", "on"))
    marks = [name for name in of if re.fullmatch(r"h\d", name)]
    parts = [name for name in of if re.fullmatch(r"s\d", name)]
    assert (len(marks), len(parts)) == (HUES, 4)
    assert all(contrast(of[m], of[p]) >= 3 for m in marks for p in ("paper", "on"))
    assert all(contrast(of[p], of["paper"]) >= 3 for p in parts)
    assert all(contrast(of[a], of[b]) >= 2 for a, b in (*pairwise(parts), ("s0", "s3")))
    for sight in SIGHTS:
        frameworks = [seen(of[name], sight) for name in marks[:4]]
        assert min(np.linalg.norm(a - b) for a, b in combinations(frameworks, 2)) > 0.06, sight


def test_logarithmic_scales_are_as_narrow_as_round_numbers_allow():
    scale = decades([5.7e-3, 0.108])
    assert (scale.low, scale.high) == (5e-3, 0.2)
    assert scale.ticks == (5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2)
    assert decades([3e-9, 4e-2]).ticks == tuple(float(f"1e{n}") for n in range(-8, -1))
    assert len(decades([1e-30, 1.0]).ticks) <= TICKS


def boxes_of(svg):
    """Top and bottom of each box, from the top of the drawing."""
    top = float(re.search(r'viewBox="\S+ (\S+)', svg)[1])
    found = re.findall(r'<rect class="box" x="\S+" y="(\S+)" width="\S+" height="(\S+)"', svg)
    return [(float(y) - top, float(y) - top + float(tall)) for y, tall in found]


@pytest.mark.parametrize("times", [1, 9, 60])
def test_on_paper_the_diagram_is_cut_between_its_boxes(times):
    svg = bl.draw(bl.Sequential(*[b for _ in range(times) for b in (bl.Dense(3), bl.Tanh())]), (3,))
    made = columns(svg.svg)
    parts = [tuple(map(float, part)) for part in re.findall(r'viewBox="0 (\S+) \S+ (\S+)"', made)]
    ends = [start + tall for start, tall in parts]
    assert [0.0, *ends[:-1]] == pytest.approx([start for start, _ in parts])
    assert ends[-1] == float(re.search(r' height="(\S+)"', svg.svg)[1])
    assert all(tall * SCALE <= TALL for _, tall in parts)
    assert all(not top < end < bottom for end in ends for top, bottom in boxes_of(svg.svg))
    assert len(parts) > 1 or times == 1
    assert made.count(f'<use href="#{NAME}"/>') == len(parts)
    assert f'<svg id="{NAME}" ' in named(svg.svg)


def test_what_was_not_measured_is_no_zero():
    comparison = fabricated(SMALL)
    for row in comparison.data["contenders"]:
        row["compile_seconds"] = {"forward": 2.5, "training": None}
        row |= {"memory_after_import": None, "peak_memory": 5e8, "import_seconds": 1.0}
    text = made(comparison)
    numbers = text[text.index("The numbers</summary>") :]
    assert numbers.count("<td>2.50 s</td><td>-</td>") == 6
    assert text.count("<td>500 MB<small></small></td>") == 6
    assert "0.00" not in text


def test_one_of_each_is_no_plural():
    comparison = fabricated(SMALL, names=("numpy",))
    comparison.data |= {"rounds": 1, "training_batch": 1}
    comparison.data["machine"]["cores"] = comparison.data["threads"] = 1
    text = made(comparison)
    for words in ("One network, 1 way to", "1 core, ", "in 1 round:", "step on 1 example"):
        assert words in text


def test_the_files_of_the_page_are_in_the_package():
    """What pyproject.toml takes along covers them."""
    import tomllib
    from fnmatch import fnmatch
    from pathlib import Path

    root = Path(bl.__file__).parent
    patterns = tomllib.loads((root.parent / "pyproject.toml").read_text())
    patterns = patterns["tool"]["setuptools"]["package-data"]["blocks"]
    for file in (root / "_report").iterdir():
        name = file.relative_to(root).as_posix()
        assert file.suffix in ("", ".py") or any(fnmatch(name, p) for p in patterns)


def test_what_was_measured_when_and_where():
    comparison = fabricated(SMALL)
    comparison.plan = Plan(loss="mae", optimizer=bl.AdamW(), batch_size=9)
    text = made(comparison)
    assert "Measured on 2026-02-03 on A CPU, 2 cores, Python 3.12.1." in text
    assert "a training step is one of fit on 9 examples with mae and AdamW." in text
    comparison.data["threads"] = 1
    assert "A CPU, 1 of 2 cores" in made(comparison)

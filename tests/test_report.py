"""The page of a comparison: one file, correct, escaped, honest in its sentences."""

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from comparisons import NET, fabricated
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import blocks as bl
import blocks._report._sources as sources
from blocks._errors import BackendError
from blocks._report import embedded, page, returned
from blocks._report._findings import fastest, findings, first_beyond
from blocks._report._numbers import Times, duration, measures, memory, sized
from blocks._report._plots import BEFORE, KINDS, SHAPES, decades, fitting, linear, mark

NODE = bl.infer(NET, (16, 12, 3))
SMALL = bl.infer(bl.Sequential(bl.Dense(4), bl.Residual(bl.Tanh()), bl.Dense(2)), (3,))
VOID = {"meta", "br", "wbr", "link", "img", "input", "hr"}


@pytest.fixture(autouse=True)
def reference_alone(monkeypatch):
    """Only the listing that takes no framework."""
    monkeypatch.setattr(sources, "ordered", lambda: ["numpy"])


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
    text = page(fabricated(NODE))
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
    reader = read(page(fabricated(NODE)))
    assert all("open" in attrs for tag, attrs in reader.elements if tag == "details")
    hidden = [attrs for _, attrs in reader.elements if "hidden" in attrs]
    assert [attrs["role"] for attrs in hidden] == ["tablist"]


def test_every_block_is_marked_in_code_picture_and_parity():
    reader = read(page(fabricated(NODE)))
    known = json.loads(re.search(r'id="known">(.*?)</script>', page(fabricated(NODE)))[1])
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


def test_listings_are_those_of_source():
    text = page(fabricated(NODE))
    rows = re.findall(r'<span class="no" data-no="(\d+)"></span>(.*?)</span>\n', text)
    assert [int(number) for number, _ in rows] == [*range(1, len(rows) + 1)]
    panel = Reader()
    panel.feed("\n".join(words for _, words in rows))
    assert "".join(panel.texts) + "\n" == bl.source(NODE, "numpy")


def test_a_backend_that_is_missing_says_so(monkeypatch):
    def refuse(node, backend):
        raise BackendError("backend 'numpy' needs <nothing>.\n  Install it.")

    monkeypatch.setattr(sources, "lines", refuse)
    assert "No listing: backend &#x27;numpy&#x27; needs &lt;nothing&gt;.\n" in page(
        fabricated(SMALL)
    )


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
    plain = read(page(fabricated(SMALL, names=("numpy", "x"))))
    hostile = read(page(comparison))
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
    assert len(page(fabricated(bl.infer(net, (8,))))) < 2e6


def test_what_failed_was_not_measured_or_is_infinite_can_be_shown():
    comparison = fabricated(SMALL)
    none = {"forward": {"1": [], "32": []}, "training": [], "figures": [], "agrees": False}
    none |= dict.fromkeys(("import_seconds", "build_seconds", "memory_after_import", "peak_memory"))
    none |= {"compile_seconds": {"forward": None, "training": None}, "error": "out of luck"}
    comparison.data["contenders"][2] |= none
    comparison.data["contenders"][0]["figures"][1] |= {"relative": None, "absolute": None}
    comparison.data["contenders"][1]["figures"][1] |= {"relative": 0.0, "absolute": 0.0}
    text = page(comparison)
    read(text)
    assert "did not run to the end: out of luck" in text
    assert "∞" in text
    comparison.data["contenders"] = []
    read(page(comparison))


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
    found = [text for kind, text in findings(comparison.data, order_of(SMALL)) if kind == "bad"]
    assert len(found) == 1
    assert "torch eager does not agree" in found[0]
    assert "first block that differs is 1/body, by" in found[0]
    row = re.search(r'<tr data-block="1/body".*?</tr>', page(comparison))[0]
    assert "first<span> of torch eager</span>" in row


def test_agreement_names_what_is_closest_to_its_limit():
    comparison = fabricated(SMALL)
    figures = comparison.data["contenders"][3]["figures"]
    figures[-1] |= {"relative": 1.9e-5, "tolerance": 2e-5}
    kind, text = findings(comparison.data, order_of(SMALL))[0]
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
    assert [memory(b) for b in (123, 45_600_000)] == ["0.00 MB", "46 MB"]


# Plots


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=8))
def test_scales_hold_all_their_numbers(values):
    for scale in (fitting(values), decades(values), linear(max(values))):
        places = [scale.at(value) for value in sorted(values)]
        assert places == sorted(places)
        assert all(BEFORE <= place <= 95 for place in places)
        assert all(5 <= scale.at(tick) <= 95 for tick in scale.ticks)
        assert scale.at(math.inf) == 99


def test_contenders_differ_in_shape_where_colours_come_again():
    assert len({mark(i) for i in range(16)}) == 16
    assert len(SHAPES) == KINDS


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

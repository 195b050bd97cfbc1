"""The page of a comparison in a real browser, where there is one."""

import io
from pathlib import Path

import browser
import pytest
from comparisons import NET, fabricated

import blocks as bl
import blocks._report._sources as sources
from blocks._report import page

pytestmark = pytest.mark.skipif(browser.found() is None, reason="there is no Chromium here")
MARKED = "[...document.querySelectorAll('.on')]"
BLOCK = "body/1/0/body/3"


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A page with two listings, both of the reference."""
    patch = pytest.MonkeyPatch()
    patch.setattr(sources, "ordered", lambda: ["numpy", "numpy"])
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(page(fabricated(bl.infer(NET, (16, 12, 3)), wrong=BLOCK)), encoding="utf-8")
    patch.undo()
    return path


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    with browser.browser(tmp_path_factory.mktemp("browser")) as one:
        yield one


@pytest.fixture
def at(opened, file):
    """The page, opened afresh in a window of a usual size."""

    def open_(block=None):
        opened.screen(1280, 900)
        opened.open(file, block)
        return opened

    yield open_
    assert opened.troubles == []
    assert {Path(url.partition("#")[0]).name for url in opened.asked} <= {
        "page.html",
        "about:blank",
    }


def texts(one):
    return one.run(f"{MARKED}.filter(e => e.matches('.line')).map(e => e.innerText.trim())")


def test_a_link_to_a_block_marks_its_lines_picture_and_row(at):
    one = at(BLOCK)
    assert one.run(f"{MARKED}.filter(e => e.dataset.block !== undefined).length") == 1
    assert one.run(f"{MARKED}.map(e => e.dataset.path).filter(Boolean)") == ["body/0/0/body/3"]
    marked = texts(one)
    assert marked[0] == "Conv("
    assert marked.count(marked[0]) == 2  # once in each listing
    shown = "document.querySelector('.panel:not([hidden]) .line.on').getBoundingClientRect()"
    box = "document.querySelector('.panel:not([hidden]) .code').getBoundingClientRect()"
    assert one.run(f"{shown}.top >= {box}.top && {shown}.bottom <= {box}.bottom")


@pytest.mark.parametrize(
    "selector", ["[data-path='head'] rect", "tr[data-block='head'] th", ".line[data-b^='41|']"]
)
def test_what_is_pointed_at_is_marked_everywhere(at, selector):
    one = at()
    assert one.run("JSON.parse(document.getElementById('known').textContent).paths[41]") == "head"
    one.hover(selector)
    kinds = one.run(f"{MARKED}.map(e => e.dataset.path || e.dataset.block || e.className)")
    assert sorted({*kinds}) == ["head", "line on"]
    assert kinds.count("head") == 2
    assert "Dense(8, 10" in texts(one)[0]


def test_a_click_keeps_a_block_marked_and_is_a_link(at):
    one = at()
    one.run("document.querySelector(\"[data-block='head'] a\").click()")
    assert one.run("location.hash") == "#block=head"
    one.hover("h1")
    assert one.run(f"{MARKED}.length") >= 3
    one.run("document.querySelector(\"[data-block='head'] a\").click()")
    assert one.run("location.hash") == ""


def test_blocks_can_be_marked_without_a_mouse(at):
    one = at()
    one.run("document.querySelector(\"[data-path='head']\").focus()")
    assert one.run(f"{MARKED}.length") >= 3
    one.key("Enter")
    assert one.run("location.hash") == "#block=head"
    one.key("Escape")
    assert one.run(f"{MARKED}.length") == 0


def test_tabs_follow_the_arrow_keys(at):
    one = at()
    selected = "[...document.querySelectorAll('[role=tab]')].map(t => t.ariaSelected)"
    panels = "[...document.querySelectorAll('[role=tabpanel]')].map(p => p.checkVisibility())"
    assert (one.run(selected), one.run(panels)) == (["true", "false"], [True, False])
    one.run("document.querySelector('[role=tab]').focus()")
    for key, want in (("ArrowRight", 1), ("ArrowRight", 0), ("End", 1), ("Home", 0)):
        one.key(key)
        assert one.run(selected)[want] == "true"
        assert one.run(panels)[want] is True
        assert one.run("document.activeElement.id") == f"tab-{want}"


@pytest.mark.parametrize("width", [360, 390, 768, 1280, 1900])
def test_no_width_makes_the_page_scroll_sideways(at, opened, width):
    one = at()
    one.screen(width, 800)
    assert one.run("document.documentElement.scrollWidth") == width
    one.run("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert one.run("document.documentElement.scrollWidth") == width


def test_both_colour_schemes(at):
    one = at()
    light = one.picture()
    one.screen(1280, 900, dark=True)
    dark = one.picture()
    assert light != dark
    colours = [one.run("getComputedStyle(document.body).backgroundColor")]
    one.screen(1280, 900)
    colours.append(one.run("getComputedStyle(document.body).backgroundColor"))
    assert colours == ["rgb(13, 17, 23)", "rgb(255, 255, 255)"]


def test_on_paper_all_is_unfolded(at):
    one = at()
    pdf = one.printed()
    assert pdf.startswith(b"%PDF")
    panels = "[...document.querySelectorAll('.panel')].every(p => p.checkVisibility())"
    assert one.run(panels)
    assert one.run("document.querySelector('[role=tablist]').checkVisibility()") is False
    assert io.BytesIO(pdf).getbuffer().nbytes > 50_000


def test_it_reads_without_scripts(opened, file):
    opened.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        opened.screen(1280, 900)
        opened.open(file)
        panels = "[...document.querySelectorAll('.panel')].every(p => p.checkVisibility())"
        assert opened.run(panels)
        assert opened.run("document.querySelectorAll('details:not([open])').length") == 0
        assert opened.run("document.documentElement.className") == ""
    finally:
        opened.call("Emulation.setScriptExecutionDisabled", value=False)

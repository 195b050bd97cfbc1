"""The page of a comparison in a real browser, where there is one."""

import io
from pathlib import Path

import browser
import pytest
from comparisons import NET, fabricated

import blocks as bl
from blocks._report import page
from blocks._report._listings import Listing
from blocks._sourcemap import lines

pytestmark = pytest.mark.skipif(browser.found() is None, reason="there is no Chromium here")
MARKED = "[...document.querySelectorAll('.on')]"
BLOCK = "body/1/0/body/3"


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A page with two listings, both of the reference."""
    node = bl.infer(NET, (16, 12, 3))
    code = Listing(*lines(node, "numpy"))
    path = tmp_path_factory.mktemp("page") / "page.html"
    text = page(fabricated(node, wrong=BLOCK), {"numpy": code, "again": code})
    path.write_text(text, encoding="utf-8")
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


POINT = """(selector => [...document.querySelectorAll(selector)].map(one => {
  one.dispatchEvent(new PointerEvent("pointerover", {bubbles: true, pointerType: "mouse"}));
  const on = [...document.querySelectorAll(".on")];
  return [
    one.dataset.block ?? one.dataset.path ?? one.dataset.more ?? +one.firstChild.dataset.no,
    on.filter(e => e.matches("#source-0 .line")).map(e => +e.firstChild.dataset.no),
    on.filter(e => e.matches("#source-1 .line")).map(e => +e.firstChild.dataset.no),
    on.filter(e => e.matches("tr")).map(e => e.dataset.block),
    on.filter(e => e.matches("g")).map(e => e.dataset.path ?? e.dataset.more),
  ];
}))"""


def test_every_block_marks_its_lines_picture_and_row_from_wherever_it_is_pointed_at(at):
    one, node = at(), bl.infer(NET, (16, 12, 3))
    _, found = lines(node, "numpy")
    paths = {n.path for n in node.walk()}
    pictures = {}
    for path, first, second, marked, picture in one.run(f"{POINT}('tr[data-block]')"):
        assert first == second == found[path]
        assert marked == [path]
        pictures[path] = picture
    assert pictures.keys() == paths
    assert all(len(picture) == 1 for path, picture in pictures.items() if path)
    for path, first, _, marked, picture in one.run(f"{POINT}('.diagram [data-path]')"):
        assert picture == [path]
        assert {*marked} == {p for p in paths if pictures[p] == [path]}
        assert first == found[path]
    for number, first, second, marked, picture in one.run(f"{POINT}('#source-0 [data-b]')"):
        assert number in first
        assert first == second
        fewest = min(len(numbers) for numbers in found.values() if number in numbers)
        assert {*marked} == {
            p for p in paths if number in found[p] and len(found[p]) == fewest
        }  # the innermost ones
        assert {*picture} == {p for path in marked for p in pictures[path]}


def test_what_is_left_out_of_the_picture_is_marked_as_a_whole(opened, tmp_path):
    node = bl.infer(bl.Sequential(*[bl.Dense(3) for _ in range(100)]), (3,))
    file = tmp_path / "page.html"
    text = page(fabricated(node), {"numpy": Listing(*lines(node, "numpy"))})
    file.write_text(text, encoding="utf-8")
    opened.screen(1280, 900)
    opened.open(file)
    ((first, _, _, marked, picture),) = opened.run(f"{POINT}('.diagram [data-more]')")
    assert picture == [first]
    assert len(marked) > 50
    rows = {path: seen for path, _, _, _, seen in opened.run(f"{POINT}('tr[data-block]')")}
    assert {path for path, seen in rows.items() if seen == [first]} == {*marked}
    assert opened.troubles == []


def test_a_click_keeps_a_block_marked_until_the_next(at):
    one = at()
    one.run("document.querySelector(\"[data-block='head'] td\").click()")
    assert one.run("location.hash") == "#block=head"
    assert one.run("scrollY") == 0
    one.hover("h1")
    assert one.run(f"{MARKED}.length") >= 3
    one.run("document.querySelector(\"[data-block='head'] td\").click()")
    assert one.run("location.hash") == ""
    assert one.run(f"{MARKED}.length") == 0


def test_the_name_of_a_block_leads_to_it(at):
    one = at()
    top = "Math.round(document.getElementById('section-network').getBoundingClientRect().top)"
    for _ in range(2):  # also when it is marked already
        one.run("document.querySelector(\"[data-block='head'] a\").scrollIntoView()")
        one.run("document.querySelector(\"[data-block='head'] a\").click()")
        one.wait(f"{top} === 0")
        assert one.run("location.hash") == "#block=head"
        assert one.run(f"{MARKED}.length") >= 3
    one.run("history.back()")
    one.wait("location.hash === ''")
    one.wait(f"{MARKED}.length === 0")


def test_blocks_can_be_marked_without_a_mouse(at):
    one = at()
    one.run("document.querySelector(\"[data-path='head']\").focus()")
    assert one.run(f"{MARKED}.length") >= 3
    one.key("Enter")
    assert one.run("location.hash") == "#block=head"
    one.key("Escape")
    assert one.run(f"{MARKED}.length") == 0


@pytest.mark.parametrize("selector", ["[data-path='head'] rect", "tr[data-block='head'] td"])
def test_a_tap_keeps_a_block_marked(at, selector):
    one = at()
    one.screen(390, 800)
    for want in (True, False):
        one.tap(selector)
        one.wait(f"(location.hash === '#block=head') === {str(want).lower()}")
        assert one.run("document.querySelector('.panel .line.on') !== null") is want


def test_one_picture_can_be_tabbed_to_and_arrows_lead_to_the_others(at):
    one = at()
    stops = "[...document.querySelectorAll('.diagram [data-path]')].filter(g => g.tabIndex === 0)"
    focused = "document.activeElement.dataset.path"
    paths = one.run(
        "[...document.querySelectorAll('.diagram [data-path]')].map(g => g.dataset.path)"
    )
    one.run(f"{stops}[0].focus()")
    for key, want in (("ArrowDown", 1), ("ArrowDown", 2), ("ArrowUp", 1), ("End", -1), ("Home", 0)):
        one.key(key)
        assert one.run(focused) == paths[want]
        assert one.run(f"{stops}.map(g => g.dataset.path)") == [paths[want]]
        assert paths[want] in one.run(f"{MARKED}.map(e => e.dataset.path)")
    assert one.run("document.querySelector('.diagram svg').getAttribute('role')") == "group"


def test_only_tabs_are_in_the_list_of_tabs(at):
    one = at()
    one.screen(1900, 900)
    assert one.run("[...document.querySelector('[role=tablist]').children].every(e => e.role)")
    one.run("document.querySelector('.beside').click()")
    assert one.run("[...document.querySelectorAll('.panel')].every(p => p.checkVisibility())")


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


@pytest.mark.parametrize("width", [320, 390, 768, 1280, 1900])
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
    assert one.run("document.querySelector('.tabs').checkVisibility()") is False
    assert one.run("document.querySelector('.diagram').checkVisibility()") is False
    columns = one.run(
        "[...document.querySelectorAll('.columns svg')].map(s => s.checkVisibility())"
    )
    assert columns == [True, True]
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

"""The table of what the sources ask: every row is there, and so is all that shows it."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROWS = re.findall(
    r"^\| ([A-F]\d+[a-d]?) \| (.+) \| (.+) \|$", (ROOT / "docs" / "sources.md").read_text(), re.M
)
LAST = {"A": 29, "B": 24, "C": 28, "D": 18, "E": 19, "F": 8}
PARTS = {"A24": ["A24a", "A24b", "A24c", "A24d"]}


@cache
def defined(file: str) -> set[str]:
    """The tests of a file, as pytest names them."""
    found = set()
    for node in ast.parse((ROOT / "tests" / file).read_text()).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{n.name}" for n in node.body if isinstance(n, ast.FunctionDef)}
    return found


def exists(name: str) -> bool:
    """Whether there is an example, or a test, of that name."""
    file, _, test = name.partition("::")
    if test:
        return (ROOT / "tests" / file).is_file() and test in defined(file)
    return file.startswith("examples/") and (ROOT / file).is_file()


def test_no_row_is_missing_or_twice():
    ids = [f"{group}{i}" for group, last in LAST.items() for i in range(1, last + 1)]
    wanted = [name for i in ids for name in (i, *PARTS.get(i, []))]
    assert [name for name, *_ in ROWS] == wanted


@pytest.mark.parametrize("shown", [row[2] for row in ROWS], ids=[row[0] for row in ROWS])
def test_what_shows_a_row_is_there(shown):
    """Tests and examples, and nothing beside them; or why there are none."""
    if shown.startswith("*Not done*: "):
        return
    names = [name.strip("`") for name in shown.split("<br>")]
    assert all(f"`{name}`" in shown for name in names)
    assert [name for name in names if not exists(name)] == []


@pytest.mark.parametrize(
    "name",
    [
        "test_sources.py::test_of_another_name",
        "test_source_s.py::test_no_row_is_missing_or_twice",
        "test_native.py::test_exports",
        "test_sources.py",
        "examples/99_none.py",
    ],
)
def test_a_wrong_name_is_seen(name):
    assert not exists(name)

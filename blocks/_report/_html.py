"""Elements of HTML and of the SVG inside it; all text is escaped."""

from __future__ import annotations

from html import escape
from typing import Any
from urllib.parse import quote

from blocks._drawing.svg import printable

VOID = {"meta", "br", "wbr"}


class Markup(str):
    """A text that is HTML already."""

    __slots__ = ()


def text(words: Any) -> Markup:
    """Words as content: escaped, unless they are markup."""
    if isinstance(words, Markup):
        return words
    return Markup("\n".join(escape(printable(row)) for row in str(words).split("\n")))


def joined(*parts: Any) -> Markup:
    return Markup("".join(map(text, parts)))


def element(tag: str, *content: Any, **attributes: Any) -> Markup:
    """An element. An attribute that is None or False is left out, one that is True has no value;
    "class_" is class, "data_path" is data-path.
    """
    words = "".join(
        f" {key}" if value is True else f' {key}="{escape(printable(str(value)))}"'
        for name, value in attributes.items()
        if value is not None and value is not False
        for key in [name.rstrip("_").replace("_", "-")]
    )
    inner = "" if tag in VOID else f"{joined(*content)}</{tag}>"
    return Markup(f"<{tag}{words}>{inner}")


def link(path: str) -> str:
    """The address of a block in the page."""
    return f"#block={quote(path, errors='replace')}"

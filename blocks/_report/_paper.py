"""The diagram for paper: a tall one as columns beside each other, cut between boxes."""

from __future__ import annotations

import re
from collections.abc import Iterator

from blocks._report._html import Markup, element

NAME = "diagram"  # the id of the drawing
SCALE = 0.75  # of the drawing on paper, at most
WIDE, TALL = 660, 800  # the most that a column may take of a sheet, in pixels
SIZE = re.compile(r'width="([\d.]+)" height="([\d.]+)" viewBox="(\S+) (\S+)')
SOLID = re.compile(r'<rect class="(?:box|sign)" x="\S+" y="(\S+)" width="\S+" height="(\S+)"')
LABEL = re.compile(r'<text x="\S+" y="(\S+)"[^>]*class="size"')
BAND = re.compile(r'class="band" d="M[^,]+,([\d.-]+)')


def named(svg: str) -> Markup:
    """The drawing, which `columns` refer to."""
    return Markup(svg.replace("<svg ", f'<svg id="{NAME}" ', 1))


def columns(svg: str) -> Markup:
    """Pictures of parts of the drawing, from the top to the bottom."""
    size = SIZE.search(svg)
    if size is None:
        return Markup()
    width, height, _, top = map(float, size.groups())
    scale = min(SCALE, WIDE / width)
    ends = [*cuts(solids(svg, top), height, TALL / scale)]
    parts = (
        element(
            "svg",
            Markup(f'<use href="#{NAME}"/>'),
            viewBox=f"0 {start:g} {width:g} {end - start:g}",
            width=round(scale * width, 1),
            height=round(scale * (end - start), 1),
        )
        for start, end in zip([0.0, *ends], ends, strict=False)
    )
    return element("div", *parts, class_="columns", aria_hidden="true")


def solids(svg: str, top: float) -> list[tuple[float, float]]:
    """What should stay whole, from where to where below the top of the drawing."""
    boxes = [(float(y), float(y) + float(tall)) for y, tall in SOLID.findall(svg)]
    bands = [(float(y) - 24, float(y)) for y in BAND.findall(svg)]
    labels = [(float(y) - 12, float(y) + 5) for y in LABEL.findall(svg)]
    return [(start - top, end - top) for start, end in (*boxes, *bands, *labels)]


def cuts(solid: list[tuple[float, float]], height: float, most: float) -> Iterator[float]:
    """Where columns end that are at most so tall: between boxes, if there is a place in the lower
    half.
    """
    at = 0.0
    while height - at > most:
        end = at + most
        while through := [start for start, stop in solid if start < end < stop]:
            end = min(through) - 4
        at = end if end > at + most / 2 else at + most
        yield at
    yield height

"""What a comparison found, a sentence for each finding."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from blocks._comparison import memory
from blocks._report._numbers import (
    Times,
    badness,
    beyond,
    duration,
    measures,
    share,
    sized,
)


class Finding(NamedTuple):
    """A sentence, its kind, and the path of the block to look at, if there is one."""

    kind: Literal["good", "bad", "plain"]
    text: str
    block: str | None = None


def findings(data: dict[str, Any], order: dict[str, int]) -> list[Finding]:
    """What there is to say. `order` is when each block returns."""
    rows = data["contenders"]
    return [
        *failures(rows),
        *agreement(rows, order),
        *(Finding("plain", f"{what}: {fastest(times)}") for what, times in measures(data).items()),
        *(Finding("plain", sentence) for sentence in costs(rows)),
    ]


def failures(rows: list[dict[str, Any]]) -> Iterator[Finding]:
    for row in rows:
        if row["error"] is not None:
            yield Finding("bad", f"{row['name']} did not run to the end: {row['error']}")


def agreement(rows: list[dict[str, Any]], order: dict[str, int]) -> Iterator[Finding]:
    """Who computes the same, and where those begin to differ who do not."""
    ran = [row for row in rows if row["error"] is None]
    agreeing = [row for row in ran if row["agrees"]]
    if ran and len(agreeing) == len(ran):
        figures = [(row, f) for row in ran for f in row["figures"]]
        text = f"{everyone(ran)} the reference in everything that was compared"
        if figures:
            row, worst = max(figures, key=lambda pair: badness(pair[1]))
            text += (
                f"; closest to its limit is {row['name']} in {where(worst)}, "
                f"{sized(share(worst))} of {sized(worst['tolerance'])} allowed"
            )
        yield Finding("good", text + ".")
    for row in ran:
        if not row["agrees"]:
            first = first_beyond(row, order)
            yield Finding("bad", disagreement(row, first), first["name"] if first else None)


def everyone(rows: list[dict[str, Any]]) -> str:
    if len(rows) == 1:
        return f"{rows[0]['name']} agrees with"
    return f"All {len(rows)} that ran agree with"


def disagreement(row: dict[str, Any], first: dict[str, Any] | None) -> str:
    """Where a contender first leaves the reference, and where it is farthest."""
    wrong = [f for f in row["figures"] if beyond(f)]
    if not wrong:
        return f"{row['name']} does not agree with the reference: {'; '.join(row['facts'])}."
    worst = max(wrong, key=badness)
    text = f"{row['name']} does not agree with the reference"
    if first:
        text += (
            f": the first block that differs is {place(first['name'])}, by {sized(share(first))} "
            f"where {sized(first['tolerance'])} is allowed"
        )
        if worst is first:
            return text + "."
    return text + f"; farthest off is {where(worst)}, by {sized(share(worst))}."


def first_beyond(row: dict[str, Any], order: dict[str, int]) -> dict[str, Any] | None:
    """The first block whose value differs by more than is allowed."""
    wrong = [f for f in row["figures"] if f["level"] == "blocks" and beyond(f)]
    return min(wrong, key=lambda f: order.get(f["name"], len(order)), default=None)


def where(figure: dict[str, Any]) -> str:
    """A figure in words."""
    name, level = figure["name"], figure["level"]
    words = {
        "blocks": f"the value of {place(name)}",
        "gradients": f"the gradient of {name}",
        "state": f"the running state {name}",
        "curve": "the loss curve",
        "training": "the outputs in training mode",
        "outputs": "the outputs",
    }
    return words.get(level, f"{level} {name}")


def place(path: str) -> str:
    return path or "the whole network"


def fastest(times: list[Times]) -> str:
    """Who is fastest, if the spread lets anyone say so."""
    best, *others = sorted(times, key=lambda t: t.median)
    if not others:
        return f"{best.name} takes {duration(best.median)}."
    close = [other for other in others if best.overlaps(other)]
    far = [other for other in others if other not in close]
    if close:
        text = (
            f"no winner between {listed([best.name, *(t.name for t in close)])}, whose times "
            f"overlap (medians from {duration(best.median)} to {duration(close[-1].median)})"
        )
    else:
        low, high = map(duration, best.middle)
        text = f"{best.name} is fastest, {duration(best.median)} (middle half {low} to {high})"
    if far:
        text += f"; next is {far[0].name}, {factor(far[0].median, best.median)} as long"
    return text + "."


def costs(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Who is ready first, and who needs the least memory."""
    ready = {row["name"]: start for row in rows if (start := starting(row)) is not None}
    if len(ready) > 1:
        yield f"Ready first, import, build and compilation together: {extremes(ready, duration)}"
    held = {r["name"]: r["peak_memory"] for r in rows if r["peak_memory"] is not None}
    if len(held) > 1:
        yield f"Least memory at its peak: {extremes(held, memory)}"


def starting(row: dict[str, Any]) -> float | None:
    """Seconds until all steps are compiled; None if it never came so far."""
    parts = [row["import_seconds"], row["build_seconds"]]
    if row["error"] is not None or None in parts:
        return None
    return sum(parts) + sum(s for s in row["compile_seconds"].values() if s is not None)


def extremes(amounts: dict[str, float], written: Any) -> str:
    low, high = min(amounts, key=amounts.__getitem__), max(amounts, key=amounts.__getitem__)
    return f"{low}, {written(amounts[low])}; most: {high}, {written(amounts[high])}."


def factor(long: float, short: float) -> str:
    times = long / short if short else float("inf")
    digits = 2 if times < 1.1 else 1 if times < 10 else 0
    return f"{times:,.{digits}f} times"


def listed(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"

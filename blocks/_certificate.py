"""Parity as a file: what was measured, of which network, where, and with which versions.

A certificate holds all that it takes to measure again: the network with its input, and the seeds of
parameters, inputs and training. Verifying it does so, and holds the figures side by side.
"""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from blocks._arrays import replacing
from blocks._backends import find_backend, why_missing
from blocks._block import Block
from blocks._errors import BlockError, FieldError, FileError, shown
from blocks._evaluate import check_loss
from blocks._files import Allowed, config_in, encoded, node_in, with_fingerprint
from blocks._infer import as_node, check_ints
from blocks._json import as_text, parsed, read_document, read_text
from blocks._limits import MAX_INT, MAX_MEASURED
from blocks._parity import BackendReport, Report, parity
from blocks._spec import Node
from blocks._stack import run

FORMAT, VERSION = "isoblocks certificate", 1
# Each with its least and what it must be below.
NUMBERS = {
    "seed": (0, MAX_INT),
    "batch_size": (1, MAX_MEASURED + 1),
    "steps": (0, MAX_MEASURED + 1),
}
KEYS = {"format", "version", "network", "fingerprint", *NUMBERS, "loss", "machine"} | {
    *("agrees", "control", "backends")
}
FIGURES = {"level", "name", "absolute", "relative", "where", "tolerance"}
GROWTH = 10  # how much larger a figure may be on another machine, where it is not far below its
FAR = 0.1  # tolerance


@dataclass(frozen=True, repr=False)
class Certificate:
    """What parity measured: true if all backends agreed; prints as a table.

    Attributes:
        node: the network at its input.
        data: all that the file holds.
        loss: of the loss curve.
    """

    node: Node
    data: dict[str, Any]
    loss: Any

    def __bool__(self) -> bool:
        return bool(self.data["agrees"])

    @property
    def backends(self) -> dict[str, Any]:
        """Each backend to what was measured of it."""
        found: dict[str, Any] = self.data["backends"]
        return found

    def figures(self, backend: str, level: str) -> list[dict[str, Any]]:
        """The figures of a backend at a level: "outputs", "blocks", "gradients", "training",
        "state" or "curve". The largest difference, as it is and as a share of the largest number of
        the reference, where it is, and up to which share backends agree.
        """
        return [f for f in self.backends[backend]["figures"] if f["level"] == level]

    def save(self, path: str | Path) -> None:
        """Write it as JSON: all of it, or nothing."""
        text = as_text(self.data, "certificate", indent=1) + "\n"
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def __rich_console__(self, console: Any, options: Any) -> Any:
        from rich.markup import escape
        from rich.table import Table

        title = f"Certificate of {self.data['fingerprint']}"
        table = Table(title=title, collapse_padding=True)
        for name in ("backend", "agrees", *LEVELS):
            table.add_column(name, justify="right" if name in LEVELS else "left")
        for name, found in self.backends.items():
            cells = [figure(largest(self.figures(name, level))) for level in LEVELS]
            table.add_row(escape(name), "yes" if found["agrees"] else "[red]no[/]", *cells)
        yield table
        for name, found in self.backends.items():
            yield from remarks(name, found)
        if blind(self):
            yield "[red]The comparison is blind: it does not see a parameter change.[/]"

    def __repr__(self) -> str:
        from blocks._console import as_text

        return as_text(self)


LEVELS = ("outputs", "blocks", "gradients", "training", "state", "curve")


def certify(
    network: Node | Block,
    input_shape: Any = None,
    *,
    backends: Iterable[str] | None = None,
    seed: int = 0,
    batch_size: int = 7,
    steps: int = 5,
    loss: Any = "mse",
    **options: Any,
) -> Certificate:
    """Measure the parity of a network, block by block, as a certificate that can be verified later.

    Args:
        network, input_shape, backends, seed, batch_size, steps, loss, options: as in `parity`.

    >>> import blocks as bl
    >>> certificate = bl.certify(bl.MLP(2, hidden=(5,)), (3,), backends=["numpy"], dtype="float64")
    >>> bool(certificate), [f["name"] for f in certificate.figures("numpy", "blocks")]
    (True, ['0', '1', '2'])
    """
    node = as_node(network, input_shape, options)
    how: Any = {"seed": seed, "batch_size": batch_size, "steps": steps}
    for name, (least, beyond) in NUMBERS.items():
        check_ints(**{name: (how[name], least)})
        if how[name] >= beyond:
            raise FieldError(f"{name} of a certificate must be below {beyond:,}, got {how[name]}.")
    report = parity(node, backends=backends, blocks=True, loss=loss, **how)
    return Certificate(node, described(node, report, how | {"loss": run(encoded(loss))}), loss)


def described(node: Node, report: Report, how: dict[str, Any]) -> dict[str, Any]:
    """All that a certificate says."""
    return {
        "format": FORMAT,
        "version": VERSION,
        **with_fingerprint(node),
        **how,
        "machine": machine(),
        "agrees": bool(report),
        "control": finite(report.control),
        "backends": {found.backend: measured(found) for found in report.backends},
    }


def machine() -> dict[str, Any]:
    """Where it was measured, and by what."""
    return {
        "isoblocks": version("isoblocks"),
        "system": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }


def processor() -> str:
    """The name of the processor, which Python does not know on Linux."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def measured(found: BackendReport) -> dict[str, Any]:
    """What a certificate says of a backend."""
    return {
        "agrees": bool(found),
        "versions": find_backend(found.backend).versions(),
        "facts": list(found.facts),
        "notes": list(found.notes),
        "figures": [
            {
                "level": d.level,
                "name": d.kind,
                "absolute": finite(d.absolute),
                "relative": finite(d.error),
                "where": d.where,
                "tolerance": d.tolerance,
            }
            for d in found.differences
        ],
    }


def finite(number: float) -> float | None:
    """JSON has no infinity."""
    return float(number) if math.isfinite(number) else None


def number(value: float | None) -> float:
    return math.inf if value is None else value


def largest(figures: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """The figure that comes nearest to its tolerance, or passes it."""
    return max(figures, key=lambda f: number(f["relative"]) / f["tolerance"], default=None)


def figure(found: dict[str, Any] | None) -> str:
    return "-" if found is None else f"{number(found['relative']):.1e}"


def remarks(name: str, found: dict[str, Any]) -> Iterable[str]:
    """What was found beside the largest figures: facts, notes, and what differs, as markup."""
    from rich.markup import escape

    for text in (*found["facts"], *found["notes"]):
        yield escape(f"{name}: {text}")
    wrong = [f for f in found["figures"] if number(f["relative"]) > f["tolerance"]]
    for level in dict.fromkeys(f["level"] for f in wrong):
        yield f"[red]{escape(name)}: {escape(disagreement(level, wrong))}[/]"


def disagreement(level: str, wrong: list[dict[str, Any]]) -> str:
    """The worst of the figures of a level that are beyond their tolerances, and how many there are;
    of blocks the first, from which others follow.

    All of them are in the file: a deep network has hundreds.
    """
    found = [f for f in wrong if f["level"] == level]
    worst = max(found, key=lambda f: number(f["relative"]) / f["tolerance"])
    f = found[0] if level == "blocks" else worst
    where = f" at {f['where']}" if f["where"] else ""
    more = f", and {len(found) - 1:,} more of its {level}" if len(found) > 1 else ""
    text = f"{level} {f['name']} differs by {figure(f)}{where}; allowed {f['tolerance']:.0e}"
    return text + more


def blind(certificate: Certificate) -> bool:
    """Whether all backends agree, but the control was not seen."""
    return not certificate and all(found["agrees"] for found in certificate.backends.values())


def load_certificate(path: str | Path, custom: Allowed = ()) -> Certificate:
    """Read what `Certificate.save` wrote.

    Args:
        path: of the file.
        custom: the `Custom` classes that its network and its loss may name, as in `load`.

    Raises:
        FileError: if it is no certificate, or its parts contradict each other.
    """
    data = read_document(path, FORMAT, VERSION, "certificate")
    wrong = [
        name
        for name, (least, beyond) in NUMBERS.items()
        if not is_number(data.get(name), int, least) or data[name] >= beyond
    ] + [name for name in ("machine", "backends") if not is_filled(data.get(name))]
    if data.get("control", -1) is not None and not is_number(data.get("control"), float | int, 0):
        wrong.append("control")
    if unknown := sorted(data.keys() - KEYS):
        raise FileError(f"{path} is a certificate with an unknown part {shown(unknown[0])}.")
    if wrong:
        raise FileError(f"{path} is a certificate without a proper {wrong[0]!r}.")
    for backend, found in data["backends"].items():
        check_backend(f"{path}: {backend}", found)
    node = node_in(path, data, custom)
    together = all(found["agrees"] for found in data["backends"].values())
    if not isinstance(data.get("agrees"), bool) or (data["agrees"] and not together):
        raise FileError(f"{path} contradicts itself: 'agrees' does not follow from its backends.")
    return Certificate(node, data, loss_in(path, data, custom))


def loss_in(path: str | Path, data: dict[str, Any], custom: Allowed) -> Any:
    """The loss that a file says."""
    try:
        return check_loss(config_in(data, "loss", custom))
    except FieldError as error:
        raise FileError(f"{path} is a certificate of no loss: {error}") from None


def check_backend(label: str, found: Any) -> None:
    """Refuse what is no measurement of a backend, or says other than its own figures."""
    check_parts(label, found)
    if found["agrees"] is not agreeing(found):
        raise FileError(f"{label} contradicts itself: 'agrees' does not follow from its figures.")


def agreeing(found: dict[str, Any]) -> bool:
    """What follows from facts and figures."""
    within = all(number(f["relative"]) <= f["tolerance"] for f in found["figures"])
    return not found["facts"] and within


def check_parts(label: str, found: Any) -> None:
    """Refuse what is no measurement of a backend."""
    parts = {"agrees": bool, "versions": dict, "facts": list, "notes": list, "figures": list}
    if not isinstance(found, dict) or any(
        not isinstance(found.get(name), kind) for name, kind in parts.items()
    ):
        raise FileError(f"{label} is no measurement of a backend.")
    texts = (*found["versions"].values(), *found["facts"], *found["notes"])
    if wrong := [text for text in texts if not isinstance(text, str)]:
        raise FileError(f"{label} has {shown(wrong[0])} where a text belongs.")
    for f in found["figures"]:
        if (
            not isinstance(f, dict)
            or f.keys() != FIGURES
            or not all(isinstance(f[name], str) for name in ("level", "name", "where"))
            or not is_number(f["tolerance"], float | int, 0)
            or not f["tolerance"]
            or not all(
                f[name] is None or is_number(f[name], float | int, 0)
                for name in ("absolute", "relative")
            )
        ):
            raise FileError(f"{label} has a figure that is none: {shown(f)}.")


def is_filled(value: Any) -> bool:
    return isinstance(value, dict) and bool(value)


def is_number(value: Any, kind: Any, least: int) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool) and value >= least


@dataclass(frozen=True, repr=False)
class Verification:
    """A certificate and the same measured again: true if it holds; prints as a table.

    It holds if every backend agrees, or does not, as was certified, at the same tolerances, and no
    figure has become ten times larger, unless it is below a tenth of its tolerance.

    Attributes:
        certified, now: the certificate, and what was measured again.
        broken: what does not hold, in words.
        missing: backends that cannot be measured here, and why.
    """

    certified: Certificate
    now: Certificate
    broken: tuple[str, ...]
    missing: dict[str, str]

    def __bool__(self) -> bool:
        return not self.broken and bool(self.now.backends)

    def __rich_console__(self, console: Any, options: Any) -> Any:
        from rich.markup import escape
        from rich.table import Table

        table = Table(title=f"Certificate of {self.certified.data['fingerprint']}, measured again")
        for name in ("backend", "level", "certified", "now", "tolerance", "versions"):
            table.add_column(name, justify="right" if name in ("certified", "now") else "left")
        for backend, found in self.now.backends.items():
            changed = changes(self.certified.backends[backend]["versions"], found["versions"])
            for level in LEVELS:
                pair = [largest(c.figures(backend, level)) for c in (self.certified, self.now)]
                if pair[1] is not None:
                    limit = f"{pair[1]['tolerance']:.0e}"
                    cells = (backend, level, *map(figure, pair), limit, changed or "the same")
                    table.add_row(*map(escape, cells))
        yield table
        here, there = self.now.data["machine"], self.certified.data["machine"]
        if changed := changes(there, here):
            yield escape(f"Since then: {changed}.")
        for backend, found in self.now.backends.items():
            yield from remarks(backend, found)
        for backend, why in self.missing.items():
            yield escape(f"{backend} was certified, but is not here: {why}")
        for text in self.broken:
            yield f"[red]{escape(text)}[/]"
        rest = " of what is here" if self.missing else ""
        yield f"The certificate holds{rest}." if self else "[red]The certificate does not hold.[/]"

    def __repr__(self) -> str:
        from blocks._console import as_text

        return as_text(self)


def changes(before: dict[str, Any], now: dict[str, Any]) -> str:
    """What is not as it was, in words."""
    pairs = {name: (before.get(name, "none"), now.get(name, "none")) for name in before | now}
    return ", ".join(f"{name} {old} -> {new}" for name, (old, new) in pairs.items() if old != new)


def verify(certificate: Any, custom: Allowed = ()) -> Verification:
    """Measure again what a certificate says, or what a comparison says of parity.

    Args:
        certificate: one, or a `Comparison`, or the path of either's file.
        custom: as in `load_certificate`.

    Raises:
        FileError: as in `load_certificate`.

    >>> import blocks as bl
    >>> bool(bl.verify(bl.certify(bl.Dense(2), (3,), backends=["numpy"])))
    True
    """
    from blocks._comparison import Comparison

    if isinstance(certificate, str | Path):
        certificate = load_either(certificate, custom)
    if isinstance(certificate, Comparison):
        from blocks._compare import verify_comparison

        return verify_comparison(certificate)
    if not isinstance(certificate, Certificate):
        raise FieldError(
            "verify takes a certificate, a comparison, or the path of the file of one, got "
            f"{shown(certificate)}."
        )
    data, names = certificate.data, list(certificate.backends)
    gone = {name: why for name in names if (why := why_missing(name))}
    here = [name for name in names if name not in gone]
    check_some(here, names)
    how = {name: data[name] for name in NUMBERS}
    now = certify(certificate.node, backends=here, loss=certificate.loss, **how)
    return verified(certificate, now, gone)


def load_either(path: str | Path, custom: Allowed) -> Any:
    """The certificate in a file, or the comparison."""
    from blocks import _comparison

    data = parsed(read_text(path), "certificate")
    is_one = isinstance(data, dict) and data.get("format") == _comparison.FORMAT
    return (_comparison.load_comparison if is_one else load_certificate)(path, custom)


def check_some(here: Iterable[str], names: Iterable[str]) -> None:
    if not here:
        raise BlockError(f"none of the backends that were certified is here: {', '.join(names)}.")


def verified(certified: Certificate, now: Certificate, gone: dict[str, str]) -> Verification:
    """A certificate beside what was measured again."""
    broken = [text for name in now.backends for text in worse(name, certified, now)]
    if not broken and blind(certified) is not blind(now):
        broken = ["the control, a parameter that is changed, is seen in one of the two only."]
    return Verification(certified, now, tuple(broken), gone)


def worse(backend: str, certified: Certificate, now: Certificate) -> Iterable[str]:
    """What a certificate says of a backend that does not hold."""
    then, found = certified.backends[backend], now.backends[backend]
    if then["agrees"] is not found["agrees"]:
        words = {True: "agrees", False: "differs"}
        yield (
            f"{backend} was certified as one that {words[then['agrees']]}, but it "
            f"{words[found['agrees']]}."
        )
    before = {(f["level"], f["name"]): f for f in then["figures"]}
    after = {(f["level"], f["name"]): f for f in found["figures"]}
    for key in sorted(before.keys() ^ after.keys()):
        when = "no longer" if key in before else "not before"
        yield f"{backend}: {key[0]} of {key[1]} was measured in one of the two only, {when}."
    for key in sorted(before.keys() & after.keys()):
        old, new = before[key], after[key]
        bound = max(GROWTH * number(old["relative"]), FAR * new["tolerance"])
        if old["tolerance"] != new["tolerance"]:
            yield (
                f"{backend}: {key[0]} of {key[1]} was certified at the tolerance "
                f"{old['tolerance']:.0e}, which is {new['tolerance']:.0e}."
            )
        elif number(new["relative"]) > bound:
            yield (
                f"{backend}: {key[0]} of {key[1]} was certified with {figure(old)}, but is "
                f"{figure(new)} at {new['where']}."
            )

"""Time lowered models beside hand-written ones and Keras 3: `python -m benchmarks`.

Every framework has a process of its own. The rounds are interleaved: in each, every contender of
every process makes some steps in turn while all others wait, so that a slow minute of the machine
meets all alike. What counts is the ratio: the median over rounds of one time by the other.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.networks import NETWORKS

FRAMEWORKS = ["torch", "flax", "keras-tensorflow", "keras-jax", "keras-torch"]
REPORT = Path(__file__).parent.parent / "docs" / "performance.md"
START, END = "<!-- measured: begin -->\n", "<!-- measured: end -->\n"
ROUND = 0.1  # seconds of steps for each contender in a round


class Worker:
    """A process that times steps when it is asked to."""

    def __init__(self, framework: str, network: str):
        self.framework = framework
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.worker", framework, network]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}  # those that wait do not spin
        self.process: Any = subprocess.Popen(command, text=True, env=environment, **pipes)
        started = self.process.stdout.readline()
        if not started:
            raise SystemExit(f"{' '.join(command)} ended; run it to see why.")
        self.steps: list[str] = json.loads(started)
        self.counts = {step: max(1, int(ROUND / self.time(step, 1))) for step in self.steps}

    def time(self, step: str, count: int) -> float:
        print(json.dumps([step, count]), file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())

    def round(self) -> dict[str, float]:
        """Seconds a step of each contender; those that are compared run one after the other."""
        return {step: self.time(step, self.counts[step]) for step in sorted(self.steps)}


def measured(network: str, frameworks: list[str], rounds: int) -> dict[str, list[float]]:
    """Seconds a step, round by round, for each `framework|what|how|who`."""
    times: dict[str, list[float]] = {}
    workers = []
    with Progress(transient=True) as progress:
        task = progress.add_task(f"{network}: starting", total=len(frameworks) + rounds)
        for framework in frameworks:
            workers.append(Worker(framework, network))
            progress.advance(task)
        for i in range(rounds):
            progress.update(task, description=f"{network}: round {i + 1}", advance=1)
            for worker in workers:
                for step, seconds in worker.round().items():
                    times.setdefault(f"{worker.framework}|{step}", []).append(seconds)
    for worker in workers:
        worker.process.terminate()
        worker.process.wait()
    return times


def ratio(times: dict[str, list[float]], one: str, other: str) -> float:
    """The median over the rounds of one time by the other."""
    return median(a / b for a, b in zip(times[one], times[other], strict=True))


def rows(network: str, times: dict[str, list[float]]) -> list[list[str]]:
    """Every contender beside the hand-written one and beside Keras 3 under the same engine."""
    found = []
    for name in sorted(times):
        framework, what, how, who = name.split("|")
        if who == "by hand":
            continue
        other = f"{framework}|{what}|{how}|by hand"
        keras = f"keras-{framework.replace('flax', 'jax')}"
        rival = f"{keras}|{what}|{keras.partition('-')[2]}|by hand"
        against = how in ("eager", "compiled", "jit") and rival in times
        found.append(
            [
                network,
                framework,
                f"{what}, {how}{who.removeprefix('lowered')}",
                f"{1e3 * median(times[name]):.2f}",
                f"{1e3 * median(times[other]):.2f}",
                f"{ratio(times, name, other):.2f}",
                f"{ratio(times, rival, name):.2f}" if against else "",
            ]
        )
    return found


COLUMNS = ["network", "framework", "step", "lowered ms", "by hand ms", "ratio", "Keras 3 / lowered"]


def markdown(found: list[list[str]], rounds: int) -> str:
    names = ("torch", "keras", "tensorflow", "jax", "flax")
    held = ", ".join(f"{name} {installed(name)}" for name in names)
    lines = [f"{platform.machine()}, {os.cpu_count()} cores; {held}; {rounds} rounds.", ""]
    lines += ["| " + " | ".join(COLUMNS) + " |", "|---|---|---|--:|--:|--:|--:|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in found), ""])


def installed(name: str) -> str:
    try:
        return version(name)
    except ModuleNotFoundError:
        return version(f"{name}-cpu")


def write(text: str) -> None:
    """Put the table where the report has the last one."""
    report = REPORT.read_text()
    before, after = report.partition(START)[0], report.partition(END)[2]
    REPORT.write_text(before + START + text + END + after)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--frameworks", nargs="+", choices=FRAMEWORKS, default=FRAMEWORKS)
    parser.add_argument("--write", action="store_true", help=f"put the table into {REPORT.name}")
    options = parser.parse_args()
    found = []
    for network in options.networks:
        found += rows(network, measured(network, options.frameworks, options.rounds))
    table = Table(*COLUMNS[:3], title="Milliseconds a step")
    for column in COLUMNS[3:]:
        table.add_column(column, justify="right")
    for row in found:
        table.add_row(*row)
    Console().print(table)
    if options.write:
        write(markdown(found, options.rounds))


if __name__ == "__main__":
    main()

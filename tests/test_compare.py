"""Comparisons: every contender in a process of its own, and what is said of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import types
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar

import pytest

import blocks as bl
from blocks import _compare
from blocks._certificate import measured
from blocks._console import as_text
from blocks._plan import Plan
from blocks._worker import Worker, WorkerError
from blocks.cli import main
from conftest import need
from custom_blocks import Gated

NET = bl.MLP(2, hidden=(5,))


@pytest.fixture(scope="module")
def found():
    """A small network in NumPy and torch."""
    need("torch")
    return bl.compare(NET, (3,), contenders=["numpy", "torch eager"], rounds=2, seed=4, steps=2)


def test_it_says_what_was_measured(found):
    assert found
    data = found.data
    assert data["parameters"] == {"count": 32, "trainable": 32, "bytes": 128}
    assert [row["name"] for row in found.contenders] == ["numpy", "torch eager"]
    for row in found.contenders:
        assert row["error"] is None
        assert row["agrees"]
        assert list(row["forward"]) == ["1", "32"]
        for times in (*row["forward"].values(), row["training"]):
            assert len(times) == 2
            assert all(1e-7 < seconds < 10 for seconds in times)
        for seconds in (row["import_seconds"], row["build_seconds"]):
            assert 0 < seconds < 100
        assert 0 <= row["compile_seconds"]["forward"] < 100
        assert 10e6 < row["memory_after_import"] <= row["peak_memory"] < 4e9
    plain, torch = found.contenders
    assert "torch" in torch["versions"]
    assert "torch" not in plain["versions"]
    assert plain["peak_memory"] < 120e6, "that of the process that started it does not count"
    assert torch["memory_after_import"] > plain["memory_after_import"]


def test_its_figures_are_those_of_parity(found):
    names = [row["name"] for row in found.contenders]
    report = bl.parity(found.node, backends=names, seed=4, steps=2, blocks=True)
    assert [r.backend for r in report.backends] == names
    for row, here in zip(found.contenders, map(measured, report.backends), strict=True):
        assert len(row["figures"]) == len(here["figures"])
        for f, g in zip(row["figures"], here["figures"], strict=True):
            assert f["level"], f["name"] == (g["level"], g["name"])
            assert f["tolerance"] == g["tolerance"]
            assert f["relative"] == pytest.approx(g["relative"], rel=0.5, abs=1e-7)
    assert found.contenders[0]["figures"] == measured(report.backends[0])["figures"]


def test_it_is_a_file(found, tmp_path):
    path = tmp_path / "comparison.json"
    found.save(path)
    again = bl.load_comparison(path)
    assert again.data == found.data == json.loads(path.read_text())
    assert again.node.block == found.node.block
    assert str(again) == str(found)
    assert again


def test_it_is_a_table(found):
    text = str(found)
    words = "numpy", "torch eager", "forward", "training", "compile", "peak", "gradients", "cores"
    assert all(word in text for word in words)
    assert "32 parameters" in text
    assert "All agree." in text
    assert "±" in text
    assert found.data["contenders"][1]["versions"]["torch"] in text


def test_one_round_has_no_spread():
    text = str(bl.compare(NET, (3,), backends=["numpy"], rounds=1, steps=0))
    assert "±" not in text
    assert "One round." in text


def test_a_narrow_terminal_gets_three_tables(found):
    wide, narrow = (as_text(found, width=width) for width in (200, 80))
    assert wide.count("numpy") < narrow.count("numpy")
    assert "…" not in narrow
    assert max(map(len, narrow.splitlines())) <= 80


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_number_is_cut_off(found, width, tmp_path):
    """However many columns there are, and however long the names."""
    sizes = [1, 2, 4, 16, 256, 4096]

    def long(data):
        data.update(batch_sizes=sizes)
        for row in data["contenders"]:
            row.update(forward={str(size): [123e-6, 23e-6] for size in sizes})
            row.update(name=f"{row['name']} tensorflow", peak_memory=98_765_432_100)

    path = tmp_path / "comparison.json"
    path.write_text(json.dumps(changed(found, long)))
    text = as_text(bl.load_comparison(path), width=width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    assert text.count("0.073 ±0.025") == 2 * len(sizes)
    assert all(f" {size}, ms" in text for size in sizes)
    assert text.count("torch eager tensorflow") >= 3
    assert text.count("98765 (") == 2


def changed(found, change):
    data = json.loads(json.dumps(found.data))
    change(data)
    return data


def first(data):
    return data["contenders"][0]


WRONG = {
    "is no comparison": lambda data: data.update(format="isoblocks network"),
    "has version 2": lambda data: data.update(version=2),
    "without a proper 'rounds'": lambda data: data.update(rounds=0),
    "without a proper 'machine'": lambda data: data.update(machine={}),
    "without a proper 'batch_sizes'": lambda data: data.update(batch_sizes=["1"]),
    "without a proper 'contenders'": lambda data: data.pop("contenders"),
    "with the fingerprint": lambda data: data.update(fingerprint="0" * 32),
    "counts the parameters": lambda data: data["parameters"].update(count=33),
    "is no contender with": lambda data: first(data).update(speed=3),
    "without a proper 'date'": lambda data: data.update(date="today"),
    "of no training: loss must be": lambda data: data.update(loss=None),
    "of no training: optimizer must be": lambda data: data.pop("optimizer"),
    "without a proper 'threads'": lambda data: data.update(threads=0),
    "'peak_memory' that is none": lambda data: first(data).update(peak_memory=0.5),
    "'import_seconds' that is none": lambda data: first(data).update(import_seconds=-1),
    "'engine' that is none": lambda data: first(data).update(engine=3),
    "'forward' that is none": lambda data: first(data)["forward"].pop("1"),
    "'training' that is none": lambda data: first(data)["training"].append(0.1),
    "'compile_seconds' that is none": lambda data: first(data)["compile_seconds"].clear(),
    "a figure that is none": lambda data: first(data)["figures"][0].pop("where"),
    "does not follow": lambda data: first(data)["figures"][0].update(relative=1.0),
    "contradicts itself": lambda data: first(data).update(error="it crashed"),
}


@pytest.mark.parametrize("words", WRONG)
def test_a_file_that_contradicts_itself_is_refused(found, words, tmp_path):
    path = tmp_path / "comparison.json"
    path.write_text(json.dumps(changed(found, WRONG[words])))
    with pytest.raises(bl.FileError, match=words):
        bl.load_comparison(path)


def test_what_differs_is_said(found, tmp_path):
    """A difference beyond its tolerance, and one that is infinite."""

    def differ(data):
        first(data)["figures"][0].update(relative=None, absolute=None)
        first(data)["agrees"] = False

    path = tmp_path / "comparison.json"
    path.write_text(json.dumps(changed(found, differ)))
    wrong = bl.load_comparison(path)
    assert not wrong
    assert "numpy: outputs output differs by inf" in " ".join(str(wrong).split())
    assert "Not all ran and agree." in str(wrong)


def test_the_worst_of_many_differences_is_said(found, tmp_path):
    def differ(data):
        gradients = [f for f in first(data)["figures"] if f["level"] == "gradients"]
        for i, figure in enumerate(gradients):
            figure.update(relative=0.25 / (1 + abs(i - 2)), absolute=0.1)
        first(data)["agrees"] = False
        differ.names = [f["name"] for f in gradients]

    path = tmp_path / "comparison.json"
    path.write_text(json.dumps(changed(found, differ)))
    text = " ".join(str(bl.load_comparison(path)).split())
    more = f"allowed 2e-05, and {len(differ.names) - 1} more of its gradients"
    assert f"numpy: gradients {differ.names[2]} differs by 2.5e-01" in text
    assert more in text
    assert text.count("differs by") == 1


# The order, with processes that only write down what they are asked


MODES = {"numpy": ["eager"], "torch": ["eager", "compiled"], "keras": ["eager", "compiled"]}


class Scripted:
    """A process that is none: it says what it was asked, and fails where it should."""

    asked: ClassVar[list] = []
    failing: ClassVar[dict] = {}
    alive: ClassVar[list] = []

    def __init__(self, module, backend, environ):
        self.backend, self.engine = backend, environ.get("KERAS_BACKEND", "tensorflow")
        self.name = backend
        self.alive.append(self)

    def ask(self, call, patience, **arguments):
        if call == "build":
            own = (self.engine,) if self.backend == "keras" else ()
            self.name = " ".join([self.backend, *own, arguments["mode"]])
        self.asked.append((call, self.name))
        if call == self.failing.get(self.name):
            raise WorkerError("its process ended by SIGSEGV")
        if call == "load":
            return self.loaded()
        return {
            "build": {"build_seconds": 0.5, "notes": []},
            "first": {"1": 1.0, "2": 2.0, "training": 3.0},
            "round": {"1": 0.25, "2": 0.5, "training": 1.0},
            "memory": 10**8,
            "figures": {"agrees": True, "versions": {}, "facts": [], "notes": [], "figures": []},
        }[call]

    def loaded(self):
        modes, engines = MODES[self.backend], {}
        if self.backend == "keras":
            others = [e for e in ("tensorflow", "torch") if e != self.engine]
            engines = {e: {"KERAS_BACKEND": e} for e in (self.engine, *others)}
            modes = modes[:1] if self.engine == "torch" else modes
        loaded = {"import_seconds": 1.0, "memory_after_import": 10**7, "versions": {}}
        return loaded | {"modes": list(modes), "engines": engines}

    def close(self):
        if self in self.alive:
            self.asked.append(("close", self.name))
            self.alive.remove(self)


@pytest.fixture
def scripted(monkeypatch):
    monkeypatch.setattr(_compare, "Worker", Scripted)
    monkeypatch.setattr(Scripted, "asked", [])
    monkeypatch.setattr(Scripted, "failing", {})
    monkeypatch.setattr(Scripted, "alive", [])
    return Scripted


ALL = [
    *("numpy", "torch eager", "torch compiled", "keras tensorflow eager"),
    *("keras tensorflow compiled", "keras torch eager"),
]
BACKENDS = ["numpy", "torch", "keras"]


def test_rounds_are_interleaved(scripted):
    found = bl.compare(NET, (3,), backends=BACKENDS, batch_sizes=(1, 2), rounds=4)
    assert [row["name"] for row in found.contenders] == ALL
    real = ["numpy eager", *ALL[1:]]
    stages = [call for call, _ in scripted.asked]
    size = len(ALL)
    scouted = ["load", "close"]  # a process of its own, so that every contender is a later one
    assert stages == [
        *[*scouted, "load"],  # numpy
        *[*scouted, "load", "load"] * 2,  # torch, and keras on tensorflow
        *[*scouted, "load"],  # keras on torch
        *["build"] * size,
        *["first"] * size,
        *["round"] * 4 * size,
        *["memory", "figures", "close"] * size,
    ]
    rounds = [name for call, name in scripted.asked if call == "round"]
    for i in range(4):
        turn = rounds[i * size : (i + 1) * size]
        assert sorted(turn) == sorted(real), "each once"
        assert turn[0] == real[i], "another one begins"
    assert not scripted.alive
    row = found.contenders[2]
    assert row["forward"] == {"1": [0.25] * 4, "2": [0.5] * 4}
    assert row["compile_seconds"] == {"forward": 0.75, "training": 2.0}
    assert (row["backend"], row["engine"], row["mode"]) == ("torch", None, "compiled")
    row = found.contenders[5]
    assert (row["backend"], row["engine"], row["mode"]) == ("keras", "torch", "eager")


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (["torch compiled"], ["torch compiled"]),
        (["keras"], ALL[3:]),
        (["keras torch", "numpy"], ["numpy", "keras torch eager"]),
        ("keras tensorflow", ALL[3:5]),
        (["torch eager", "keras tensorflow compiled"], ["torch eager", ALL[4]]),
    ],
)
def test_some_are_chosen(scripted, wanted, names):
    found = bl.compare(NET, (3,), backends=BACKENDS, contenders=wanted, batch_sizes=[1], rounds=1)
    assert [row["name"] for row in found.contenders] == names


@pytest.mark.parametrize("call", ["load", "build", "first", "round", "memory", "figures"])
def test_where_one_fails_the_others_go_on(scripted, call):
    scripted.failing = {"torch compiled": call, "torch": "load" if call == "load" else ""}
    found = bl.compare(NET, (3,), backends=["numpy", "torch"], batch_sizes=(1, 2), rounds=2)
    assert not found
    good, *_, bad = found.contenders
    assert good["error"] is None
    assert good["agrees"]
    assert len(good["training"]) == 2
    assert bad["error"] == "its process ended by SIGSEGV"
    assert not bad["agrees"]
    assert len(bad["training"]) == (2 if call in ("memory", "figures") else 0)
    assert f"{bad['name']}: its process ended by SIGSEGV" in str(found)
    asked = [call for call, name in scripted.asked if name == "torch compiled"]
    assert call == "load" or asked[-2:] == [call, "close"], "nothing more is asked of it"


def test_a_backend_that_is_not_installed(scripted, monkeypatch):
    """Left out where all are meant; in its row where it was named."""

    def missing(self):
        if self.backend == "torch":
            raise WorkerError("backend 'torch' needs torch", "BackendError")
        return real(self)

    real = scripted.loaded
    monkeypatch.setattr(scripted, "loaded", missing)
    monkeypatch.setattr(_compare, "ordered", lambda: BACKENDS)
    found = bl.compare(NET, (3,), batch_sizes=(1, 2), rounds=1)
    assert found
    assert [row["name"] for row in found.contenders] == [ALL[0], *ALL[3:]]
    found = bl.compare(NET, (3,), backends=["numpy", "torch"], batch_sizes=(1, 2), rounds=1)
    assert not found
    assert found.contenders[1]["error"] == "backend 'torch' needs torch"


def test_an_engine_that_fails(scripted, monkeypatch):
    def broken(self):
        if self.engine == "torch":
            raise WorkerError("its process ended by SIGSEGV")
        return real(self)

    real = scripted.loaded
    monkeypatch.setattr(scripted, "loaded", broken)
    found = bl.compare(NET, (3,), backends=["keras"], batch_sizes=(1, 2), rounds=1)
    assert [row["name"] for row in found.contenders] == [*ALL[3:5], "keras torch"]
    assert found.contenders[2]["error"] == "its process ended by SIGSEGV"
    only = {"backends": ["keras"], "contenders": ["keras torch eager"], "batch_sizes": (1, 2)}
    assert [row["name"] for row in bl.compare(NET, (3,), **only).contenders] == ["keras torch"]


def test_only_so_many_at_once(scripted, monkeypatch):
    monkeypatch.setattr(_compare, "MOST", 5)
    with pytest.raises(bl.FieldError, match="5 contenders at most"):
        bl.compare(NET, (3,), backends=BACKENDS)


REFUSED = {
    "there is no contender 'torch eagre'.*Did you mean 'torch eager'": {
        "contenders": "torch eagre"
    },
    "there is no contender 'keras torhc'.*Did you mean 'keras torch'": {
        "contenders": ["keras torhc", "keras tensorflow"]
    },
    r"without a mode, got 'torch eager'.\n  .*contenders=\['torch eager'\]": {
        "backends": ["torch eager"]
    },
    "backends must be named once each": {"backends": ["numpy", "numpy"]},
    "loss must be one of .*'mse'.*got 'l2'": {"loss": "l2"},
    "optimizer must be an optimiser": {"optimizer": "Adam"},
    "training_batch must be an int of at least 1": {"training_batch": 0},
    "contenders must be one or more names": {"contenders": []},
    "VAELoss takes output, mean, logvar and target": {"loss": bl.VAELoss()},
    "unknown backend 'tourch'": {"contenders": ["tourch eager"]},
    "unknown backend 'tensorflow'": {"backends": ["tensorflow"]},
    "has nothing to compare": {"contenders": ["keras"], "backends": ["torch"]},
    "contenders must be names": {"contenders": [3]},
    "batch_sizes must be one or more": {"batch_sizes": [1, 1]},
    r"batch_sizes\[1\] must be an int of at least 1": {"batch_sizes": [1, 0]},
    "rounds must be an int of at least 1": {"rounds": 0},
    "seed must be": {"seed": -1},
}


@pytest.mark.parametrize("words", REFUSED)
def test_mistakes_are_refused(scripted, words):
    with pytest.raises(bl.BlockError, match=words):
        bl.compare(NET, (3,), **({"backends": BACKENDS} | REFUSED[words]))
    assert not scripted.alive


# Processes


@pytest.fixture
def worker():
    worker = Worker("answering", "an argument", {"GREETING": "hello"})
    yield worker
    worker.close()


def test_a_process_answers_whatever_is_printed(worker):
    for value in (3, {"a": [1.5, None, "ä"]}):
        assert worker.ask("echo", 60, value=value) == value
    with pytest.raises(WorkerError, match=r"^rate must be below 1\.$") as error:
        worker.ask("fail", 60, kind="ours")
    assert error.value.kind == "FieldError"
    with pytest.raises(WorkerError, match=r"^ZeroDivisionError: by 0$"):
        worker.ask("fail", 60, kind="other")
    with pytest.raises(WorkerError, match=r"^MemoryError$"):
        worker.ask("fail", 60, kind="without words")
    with pytest.raises(WorkerError, match=r"^rate must be below 1\. Write rate=0\.5\.$"):
        worker.ask("fail", 60, kind="ours and how to mend it")
    folder, argument, greeting, path = worker.ask("folders", 60)
    assert Path(folder).is_dir()
    assert (argument, greeting) == ("an argument", "hello")
    assert {str(Path(entry).resolve()) for entry in sys.path} <= {*path, str(Path.cwd())}
    worker.close()
    assert not Path(folder).exists()


def test_the_last_words_of_a_process(worker):
    with pytest.raises(WorkerError, match=r"ended by SIGABRT: out of luck$"):
        worker.ask("die", 60, words="no memory\nout of luck")
    with pytest.raises(WorkerError, match="SIGABRT"):
        worker.ask("echo", 60, value=1)


def test_a_process_that_ends_within_its_answer(worker):
    with pytest.raises(WorkerError, match=r"ended with status 3$"):
        worker.ask("break_off", 60)


def test_a_process_that_does_not_answer_is_ended(worker):
    worker.ask("echo", 60, value=1)
    with pytest.raises(WorkerError, match=r"did not answer within 0\.1 s"):
        worker.ask("sleep", 0.1, seconds=60)
    assert worker.process.poll() is not None


def test_a_process_that_is_killed(monkeypatch):
    """In the middle of a round; what was measured before is kept."""
    real = Worker.ask

    def ask(self, call, patience, **arguments):
        if call == "memory":
            os.kill(self.process.pid, signal.SIGKILL)
        return real(self, call, patience, **arguments)

    monkeypatch.setattr(Worker, "ask", ask)
    found = bl.compare(NET, (3,), backends=["numpy"], rounds=2)
    (row,) = found.contenders
    assert not found
    assert row["error"] == "its process ended by SIGKILL, as where memory runs out"
    assert len(row["forward"]["32"]) == 2
    assert row["peak_memory"] is None


def test_custom_blocks_are_imported_where_they_are():
    assert bl.compare(Gated(4), (3,), backends=["numpy"], rounds=1, steps=0)

    class Local(Gated):
        pass

    with pytest.raises(bl.FieldError, match="Put the class Local into a module"):
        bl.compare(Local(4), (3,), backends=["numpy"])


def test_what_is_not_trained_is_not_timed():
    net = bl.Parallel(bl.Dense(2), bl.Tanh(), merge="tuple")
    (row,) = bl.compare(net, (3,), backends=["numpy"], rounds=1).contenders
    assert row["agrees"]
    assert row["training"] == []
    assert row["compile_seconds"]["training"] is None
    assert row["notes"] == ["training is not timed: several outputs need a loss of your own"]


LOSSES = ["mse", "mae", "cross_entropy", "binary_cross_entropy", bl.VAELoss()]
THREE = bl.Parallel(bl.Dense(4), bl.Dense(2), bl.Dense(2), merge="tuple")


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_steps_are_those_that_were_chosen(loss, monkeypatch):
    """With every loss and optimiser; from the same numbers in every process."""
    from backends.numpy import backend
    from blocks import _contender

    asked, taken = [], []
    real = type(backend).trainer

    def trainer(self, node, model, *how):
        asked.append(how)
        step = real(self, node, model, *how)
        return lambda x, y, rate: taken.append((x, y, rate)) or step(x, y, rate)

    monkeypatch.setattr(type(backend), "trainer", trainer)
    node = bl.infer(THREE if isinstance(loss, bl.VAELoss) else bl.Dense(4), (3,))
    plan = _compare.Plan(loss=loss, optimizer=bl.Adam(0.1), batch_size=5)
    for _ in range(2):
        contender = _contender.Contender("numpy")
        contender.load()
        network, data = bl.to_json(node), _compare.as_data(plan)
        contender.build(network, data, [], "eager", seed=3, batch_sizes=[1])
        contender.first()
    assert asked == [(loss, bl.Adam(_contender.RATE), None)] * 2
    (x, y, rate), *_, (x_again, y_again, _) = taken
    assert x.shape == (5, 3)
    assert len(y) == 5
    assert rate == _contender.RATE
    assert (x == x_again).all()
    assert (y == y_again).all()
    curves = [f for f in contender.figures(2)["figures"] if f["level"] == "curve"]
    assert curves
    assert asked[-1][0] == loss, "the curve has it too"


def test_the_loss_of_several_outputs():
    how = {"loss": bl.VAELoss(), "optimizer": bl.Adam(), "training_batch": 3}
    found = bl.compare(THREE, (5,), backends=["numpy"], rounds=2, **how)
    (row,) = found.contenders
    assert found, str(found)
    assert len(row["training"]) == 2
    assert found.plan == Plan(loss=how["loss"], optimizer=how["optimizer"], batch_size=3)
    assert "on 3 examples with VAELoss(" in " ".join(str(found).split())


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores cannot be told apart here")
def test_all_have_the_same_cores(monkeypatch):
    from blocks._contender import cores

    usable = len(os.sched_getaffinity(0))
    for said, expected in {"1": 1, "1,2": 1, "1000": usable, "0": usable, "some": usable}.items():
        monkeypatch.setenv("OMP_NUM_THREADS", said)
        assert cores() == expected
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert cores() == usable
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with ExitStack() as stack:
        row = _compare.Row("numpy", None, {}, stack)
        row.load()
        assert len(os.sched_getaffinity(row.worker.process.pid)) == 1
    found = bl.compare(NET, (3,), backends=["numpy"], rounds=1, steps=0)
    assert found.data["threads"] == 1
    assert f"1 of {os.cpu_count()} cores" in str(found)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_command_is_interrupted(number, status, tmp_path):
    """Nothing of it is left: no process, no folder, no traceback."""
    bl.save(bl.infer(NET, (3,)), tmp_path / "net.json")
    code = (
        "import signal, sys\n"
        "from blocks.cli import main\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a test may run without one\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "compare", str(tmp_path / "net.json")]
    options = ["--backends", "numpy", "--rounds", "100000"]
    places = tmp_path / "places"
    places.mkdir()
    process = subprocess.Popen(
        [*command, *options],
        env={**os.environ, "TMPDIR": str(places)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until(lambda: list(places.iterdir()), process)
    process.send_signal(number)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == status
    assert (out, errors) == ("", "interrupted\n" if number == signal.SIGINT else "")
    assert not list(places.iterdir())


def test_progress_is_shown_while_the_output_goes_into_a_file(tmp_path):
    pty = pytest.importorskip("pty")
    bl.save(bl.infer(NET, (3,)), tmp_path / "net.json")
    code = "import sys; from blocks.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "compare", str(tmp_path / "net.json")]
    screen, terminal = pty.openpty()
    with (tmp_path / "out").open("wb") as out:
        options = ["--backends", "numpy", "--rounds", "2"]
        environ = {**os.environ, "TERM": "xterm"}
        subprocess.run([*command, *options], stdout=out, stderr=terminal, env=environ, check=True)
    text = (tmp_path / "out").read_text(encoding="utf-8")
    os.close(terminal)  # so that reading does not wait for what nobody wrote
    shown = os.read(screen, 100_000).decode()
    os.close(screen)
    assert text.startswith("32 parameters")
    assert "\x1b" not in text
    assert "numpy: importing" in shown


def until(condition, process):
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def test_a_place_that_cannot_be_written_is_refused_first(scripted, tmp_path, capsys):
    bl.save(bl.infer(NET, (3,)), tmp_path / "net.json")
    command = ["compare", str(tmp_path / "net.json"), "--backends", "numpy"]
    for option in ("-o", "--html"):
        for path in (tmp_path, tmp_path / "missing" / "file"):
            assert main([*command, option, str(path)]) == 2
            assert f"{path} cannot be written" in capsys.readouterr().err
    assert not scripted.asked


def test_the_command(tmp_path, capsys, monkeypatch):
    bl.save(bl.infer(NET, (3,)), tmp_path / "net.json")
    target = tmp_path / "comparison.json"
    command = ["compare", str(tmp_path / "net.json"), "--backends", "numpy", "--rounds", "1"]
    options = ["--loss", "cross_entropy", "--optimizer", "AdamW", "--training-batch", "7"]
    assert main([*command, "--batch-sizes", "2,3", *options, "-o", str(target)]) == 0
    said = capsys.readouterr()
    assert "All agree." in said.out
    assert said.out.startswith("32 parameters"), "of the progress nothing is left in a pipe"
    assert not said.err
    comparison = bl.load_comparison(target)
    assert comparison.data["batch_sizes"] == [2, 3]
    assert comparison.plan == Plan(loss="cross_entropy", optimizer=bl.AdamW(), batch_size=7)
    code = "import blocks as bl\nloss = bl.VAELoss()"
    (tmp_path / "own_loss.py").write_text(code)
    assert main([*command, "--loss", f"{tmp_path / 'own_loss.py'}:loss"]) == 2
    assert "VAELoss takes output, mean" in capsys.readouterr().err
    page = types.ModuleType("blocks._report")
    page.page = lambda comparison: f"<p>{comparison.data['batch_sizes']}"
    monkeypatch.setitem(sys.modules, "blocks._report", page)
    assert main([*command, "--contenders", "numpy", "--html", str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").read_text() == "<p>[1, 32]"
    beside = tmp_path / "page.certificate.json"
    assert bl.load_comparison(beside).data["batch_sizes"] == [1, 32]
    assert main(["parity", "--verify", str(beside)]) == 0
    assert main([*command, "--batch-sizes", "two"]) == 2
    assert "--batch-sizes must be numbers such as 1,32, got 'two'" in capsys.readouterr().err


# Modes


CNN = bl.Sequential(
    bl.Conv(4, (3, 2), padding="same"),
    bl.BatchNorm(),
    bl.Residual(bl.Sequential(bl.Conv(4, (3, 3), padding="same"), bl.ReLU())),
    bl.Dropout(0.3),
    bl.Flatten(),
    bl.Dense(3),
)


@pytest.mark.parametrize("name", ["keras eager", "keras compiled"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_mode_means_the_same(name, dtype):
    need(name.partition(" ")[0])
    report = bl.parity(CNN, (5, 4, 2), backends=[name], dtype=dtype)
    assert report, str(report)


@pytest.mark.exhaustive
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")  # torch's own
def test_compiled_torch_means_the_same():
    need("torch")
    from torch._dynamo.utils import counters

    counters.clear()
    report = bl.parity(CNN, (5, 4, 2), backends=["torch compiled"])
    assert report, str(report)
    assert counters["stats"]["unique_graphs"] >= 6
    assert not counters["graph_break"]


class Traced(bl.Custom):
    """It counts how often its code runs."""

    calls = 0

    def forward(self, ops, x):
        type(self).calls += 1
        return ops.tanh(x)


def runs(name, act):
    """How often the code of a block runs in several steps of a mode."""
    model = bl.lower(bl.Sequential(bl.Dense(2), Traced()), name, input_shape=(3,))
    act(model)
    Traced.calls = 0
    for _ in range(3):
        act(model)
    return Traced.calls


@pytest.mark.parametrize("name", ["keras eager", "keras compiled"])
def test_a_mode_is_what_it_is_called(name):
    """Compiled code of a block does not run again."""
    need("keras")
    import numpy as np

    x, y = np.ones((2, 3)), np.ones((2, 2))
    expected = 3 if name.endswith("eager") else 0
    assert runs(name, lambda model: bl.apply(model, x)) == expected
    model = bl.lower(bl.Sequential(bl.Dense(2), Traced()), name, input_shape=(3,))
    Traced.calls = 0
    bl.fit(model, (x, y), loss="mse", epochs=6, batch_size=2)
    assert (Traced.calls >= 6) is name.endswith("eager")


def test_gradients_of_compiled_keras_come_from_a_graph(monkeypatch):
    """So do outputs in training."""
    need("keras")
    import keras
    import numpy as np

    from backends.keras._engine import GRAPHS

    engine, made = GRAPHS[keras.backend.backend()], []
    real = type(engine).graph

    def graph(self, function):
        made.append(function.__name__)
        return real(self, function)

    monkeypatch.setattr(type(engine), "graph", graph)
    model = bl.lower(bl.Dense(2), "keras compiled", input_shape=(3,))
    bl.gradients(model, np.ones((2, 3)), np.ones((2, 2)))
    assert made == ["backward"]
    bl.apply(model, np.ones((2, 3)), training=True)
    assert len(made) == 2


def test_gradients_of_compiled_torch_come_from_compiled_code(monkeypatch):
    """So do all others: no step runs as it is written."""
    need("torch")
    import numpy as np
    import torch

    ran = []

    def backend(graph, inputs):
        def run(*args):
            ran.append(torch.is_grad_enabled())
            return graph(*args)

        return run

    real = torch.compile
    patched = lambda *args, **options: real(*args, **options, backend=backend)  # noqa: E731
    monkeypatch.setattr(torch, "compile", patched)
    net = bl.Sequential(bl.Dense(4), bl.BatchNorm(), bl.Dense(2))
    model = bl.lower(net, "torch compiled", input_shape=(3,))
    x, y = np.ones((5, 3)), np.ones((5, 2))
    for training in (False, True):
        bl.apply(model, x, training=training)
        bl.gradients(model, x, y, training=training)
    bl.fit(model, (x, y), loss="mse", batch_size=5)
    assert ran == [False, True, False, True, True]


def test_an_unknown_mode_is_refused():
    with pytest.raises(bl.BackendError, match=r"has no mode 'fast'\. It has: eager"):
        bl.lower(bl.Dense(2), "numpy fast", input_shape=(3,))


@pytest.mark.exhaustive
def test_all_contenders_of_this_machine():
    found = bl.compare(CNN, (5, 4, 2), rounds=2)
    assert found, str(found)
    assert len(found.contenders) >= len(bl.backends())
    for row in found.contenders:
        assert {"outputs", "gradients", "curve"} <= {f["level"] for f in row["figures"]}
        assert ("blocks" in {f["level"] for f in row["figures"]}) or row["mode"] == "compiled"


def test_all_processes_end():
    with ExitStack() as stack:
        row = _compare.Row("numpy", None, {}, stack)
        row.load()
        process = row.worker.process
        assert process.poll() is None
    assert process.poll() is not None

"""Certificates: what was measured, as a file that can be verified."""

from __future__ import annotations

import json

import numpy as np
import pytest
from comparisons import Quartic

import blocks as bl
from blocks.cli import main
from custom_blocks import Gated

NET = bl.Sequential(bl.Conv(4, (3, 2)), bl.BatchNorm(), bl.SiLU(), bl.Flatten(), bl.Dense(3))


@pytest.fixture
def path(tmp_path):
    """A certificate of the reference."""
    certificate = bl.certify(NET, (5, 4, 2), backends=["numpy"], dtype="float64", steps=2)
    certificate.save(tmp_path / "net.json")
    return tmp_path / "net.json"


def test_it_says_what_was_measured_and_is_verified(tmp_path, framework, capsys):
    path = tmp_path / "net.json"
    bl.certify(NET, (5, 4, 2), backends=["numpy", framework], dtype="float64").save(path)
    found = bl.load_certificate(path)
    assert found
    assert [f["name"] for f in found.figures(framework, "blocks")] == ["0", "1", "2", "3", "4"]
    names = {f["name"] for f in found.figures(framework, "gradients")}
    specs = found.node.param_specs()
    assert names == {"input"} | {path for path, spec in specs.items() if spec.trainable}
    for level in ("outputs", "blocks", "gradients", "training", "state", "curve"):
        for f in found.figures(framework, level):
            assert 0 <= f["relative"] <= f["tolerance"]
            assert f["absolute"] >= 0
    assert any(f["relative"] for f in found.figures(framework, "blocks"))
    assert "numpy" in found.backends["numpy"]["versions"]
    assert found.data["machine"]["processor"]
    assert main(["parity", "--verify", str(path)]) == 0
    assert "The certificate holds." in capsys.readouterr().out
    found = bl.verify(path)
    assert found
    assert not found.missing
    assert found.now.backends.keys() == {"numpy", framework}


def changed(path, change):
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    return path


def figure(data, backend, level):
    return next(f for f in data["backends"][backend]["figures"] if f["level"] == level)


FORGERIES = {
    "its tolerance": lambda data: figure(data, "numpy", "blocks").update(tolerance=1e-9),
    "a figure left out": lambda data: data["backends"]["numpy"]["figures"].pop(),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_what_does_not_hold_is_named(path, forgery):
    found = bl.verify(changed(path, FORGERIES[forgery]))
    assert not found
    assert found.broken[0].startswith("numpy: ")
    assert "The certificate does not hold." in str(found)


def test_a_backend_that_has_become_worse(path, monkeypatch):
    """What was within rounding is a hundred times more, though still within the tolerance."""
    from blocks import _parity

    real = _parity.largest_difference

    def worse(got, wanted, floor=0.0):
        share, where, absolute = real(got, wanted, floor)
        return share + 5e-13, where, absolute

    monkeypatch.setattr(_parity, "largest_difference", worse)
    found = bl.verify(path)
    assert not found
    assert any("was certified with" in text and "but is 5" in text for text in found.broken)


WRONG = {
    "no certificate": lambda data: data.update(format="isoblocks network"),
    "has version 2": lambda data: data.update(version=2),
    "without a proper 'seed'": lambda data: data.update(seed=-1),
    "is a certificate of no loss: loss must be": lambda data: data.update(loss="mean"),
    "is a certificate of no loss: loss": lambda data: data.update(loss=3),
    "without a proper 'batch_size'": lambda data: data.update(batch_size=True),
    "a proper 'batch_size'": lambda data: data.update(batch_size=2**40),
    "without a proper 'steps'": lambda data: data.update(steps=10_001),
    "without a proper 'backends'": lambda data: data.update(backends=[]),
    "is no measurement of a backend": lambda data: data["backends"].update(numpy={}),
    "a figure that is none": lambda data: figure(data, "numpy", "blocks").pop("where"),
    "'agrees' does not follow from its figures": lambda data: figure(
        data, "numpy", "outputs"
    ).update(relative=1.0),
    "'agrees' does not follow from its backends": lambda data: data.update(agrees=3),
    "without a proper 'control'": lambda data: data.update(control="1"),
    "without a proper 'machine'": lambda data: data.pop("machine"),
    "proper 'backends'": lambda data: data.update(backends={}),
    "has version True": lambda data: data.update(version=True),
    "an unknown part 'more'": lambda data: data.update(more=1),
    "has 3 where a text belongs": lambda data: data["backends"]["numpy"]["notes"].append(3),
    "is about a network with the fingerprint": lambda data: data.update(fingerprint="0" * 32),
    "but holds one with": lambda data: data["network"]["network"]["blocks"].pop(),
}


@pytest.mark.parametrize("words", WRONG)
def test_a_file_that_contradicts_itself_is_refused(words, tmp_path):
    certificate = bl.certify(NET, (5, 4, 2), backends=["numpy"], steps=0)
    certificate.save(tmp_path / "net.json")
    with pytest.raises(bl.FileError, match=words):
        bl.load_certificate(changed(tmp_path / "net.json", WRONG[words]))


@pytest.mark.parametrize("name", ["[red]", "[/x]"])
def test_names_of_backends_are_shown_as_they_are(name, path):
    def more(data):
        data["backends"][name] = data["backends"]["numpy"]

    assert f"│ {name}" in str(bl.load_certificate(changed(path, more)))


def test_custom_blocks_are_only_loaded_if_they_are_allowed(tmp_path, capsys):
    path = str(tmp_path / "net.json")
    bl.certify(Gated(4), (3,), backends=["numpy"]).save(path)
    with pytest.raises(bl.FileError, match="custom_blocks:Gated"):
        bl.verify(path)
    assert bl.verify(path, custom=[Gated])
    assert main(["parity", "--verify", path, "--custom", "custom_blocks:Gated"]) == 0


def test_a_network_that_disagrees_is_certified_as_such(monkeypatch, tmp_path):
    from blocks import _parity

    monkeypatch.setitem(
        _parity.TOLERANCES, "float32", dict.fromkeys(_parity.TOLERANCES["float32"], 1e-12)
    )
    certificate = bl.certify(NET, (5, 4, 2), backends=["numpy"])
    assert not certificate
    assert "numpy: blocks 0 differs by" in str(certificate)
    assert " at [" in str(certificate)
    certificate.save(tmp_path / "net.json")
    assert not bl.load_certificate(tmp_path / "net.json")
    assert bl.verify(tmp_path / "net.json"), "it says truly that they differ"
    monkeypatch.undo()
    found = bl.verify(tmp_path / "net.json")
    assert "was certified as one that differs, but it agrees" in found.broken[0]


def test_the_command_writes_one(tmp_path, capsys):
    bl.save(bl.infer(NET, (5, 4, 2)), tmp_path / "net.json")
    target = tmp_path / "certificate.json"
    command = ["parity", str(tmp_path / "net.json"), "--backends", "numpy", "--seed", "3"]
    assert main([*command, "--certificate", str(target)]) == 0
    assert bl.load_certificate(target).data["seed"] == 3
    assert main([*command, "--loss", "mae", "--certificate", str(target)]) == 0
    assert bl.load_certificate(target).loss == "mae"
    assert main(["parity"]) == 2
    assert "needs a network, or --verify" in capsys.readouterr().err
    assert main([*command[:2], "--verify", str(target)]) == 0
    bl.save(bl.infer(NET, (5, 4, 3)), tmp_path / "net.json")
    capsys.readouterr()
    assert main([*command[:2], "--verify", str(target)]) == 1
    assert "about another network than" in capsys.readouterr().out
    assert main([*command, "--verify", str(target)]) == 2
    assert "leave out --backends" in capsys.readouterr().err
    assert main([*command[:2], "--backends", " numpy, numpy"]) == 0


@pytest.mark.parametrize("loss", ["cross_entropy", Quartic()])
def test_the_curve_is_measured_again_with_its_loss(loss, tmp_path):
    """A certificate says it, and so does a comparison."""
    how = {"backends": ["numpy"], "loss": loss, "steps": 2}
    bl.certify(NET, (5, 4, 2), **how).save(tmp_path / "certificate.json")
    bl.compare(NET, (5, 4, 2), **how, rounds=1).save(tmp_path / "comparison.json")
    custom = [Quartic] if isinstance(loss, bl.Custom) else []
    for name in ("certificate", "comparison"):
        found = bl.verify(tmp_path / f"{name}.json", custom)
        assert found
        assert found.now.loss == found.certified.loss == loss
        (then,), (now,) = ((c.figures("numpy", "curve")) for c in (found.certified, found.now))
        assert then == now
        if custom:
            with pytest.raises(bl.FileError, match="Quartic"):
                bl.verify(tmp_path / f"{name}.json")


def test_the_same_is_written_twice(tmp_path):
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    for file in files:
        bl.certify(NET, (5, 4, 2), backends=["numpy"], steps=2).save(file)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_certificate_from_elsewhere(path):
    """Another machine, older versions, and a backend that is not here."""

    def elsewhere(data):
        found = data["backends"]
        data["machine"]["cores"] = 1_000
        found["numpy"]["versions"]["numpy"] = "1.0"
        found["other"] = found["numpy"]

    found = bl.verify(changed(path, elsewhere))
    assert found
    assert list(found.missing) == ["other"]
    text = " ".join(str(found).split())
    assert "Since then: cores 1000 ->" in text
    assert "numpy 1.0 ->" in text
    assert "The certificate holds of what is here." in text


def test_a_fact_is_told(path, monkeypatch):
    """What is wrong whatever the numbers are, now or when it was certified."""
    from blocks import _parity

    monkeypatch.setattr(_parity, "wrong_facts", lambda *args: ["[x] is not here"])
    found = bl.verify(path)
    assert not found
    assert "numpy: [x] is not here" in str(found)
    assert "numpy: [x] is not here" in str(found.now)


def test_a_comparison_that_was_blind(path):
    found = bl.verify(changed(path, lambda data: data.update(agrees=False)))
    assert not found
    assert "the control" in found.broken[0]
    assert "blind" in str(found.certified)


def test_a_comparison_is_verified_too(tmp_path, capsys, monkeypatch):
    path = tmp_path / "net.json"
    bl.compare(NET, (5, 4, 2), backends=["numpy"], batch_sizes=[1], rounds=1, steps=2).save(path)
    with monkeypatch.context() as patch:
        patch.setattr("blocks._backends.find_backend", None)  # nothing is imported here
        assert main(["parity", "--verify", str(path)]) == 0
    assert "The certificate holds." in capsys.readouterr().out

    def older(data):
        (row,) = data["contenders"]
        for f in row["figures"]:
            f.update(relative=0.0, tolerance=f["tolerance"] / 1e3)

    found = bl.verify(changed(path, older))
    assert not found
    assert all(text.startswith("numpy: ") for text in found.broken)
    gone = changed(path, lambda data: data["contenders"].append(data["contenders"][0] | other()))
    assert list(bl.verify(gone).missing) == ["other compiled"]
    alone = changed(path, lambda data: data["contenders"].pop(0))
    with pytest.raises(bl.BlockError, match="none of the backends that were certified is here"):
        bl.verify(alone)
    with pytest.raises(bl.FieldError, match="verify takes a certificate, a comparison, or"):
        bl.verify(5)


def other():
    return {"name": "other compiled", "backend": "other", "mode": "compiled"}


def test_the_network_to_measure_may_hold_custom_blocks(tmp_path):
    path = str(tmp_path / "net.json")
    bl.save(bl.infer(Gated(4), (3,)), path)
    command = ["parity", path, "--backends", "numpy"]
    assert main(command) == 2
    assert main([*command, "--custom", "custom_blocks:Gated"]) == 0


def test_infinite_differences_are_kept(monkeypatch):
    from blocks import _certificate

    assert _certificate.finite(np.inf) is None
    assert _certificate.number(None) == np.inf


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": -1}, "steps must be an int of at least 0, got -1"),
        ({"steps": 1.5}, "steps must be an int"),
        ({"batch_size": 10_001}, "batch_size of a certificate must be below 10,001, got 10001"),
    ],
)
def test_what_cannot_be_certified(options, message):
    with pytest.raises(bl.FieldError, match=message):
        bl.certify(NET, (5, 4, 2), backends=["numpy"], **options)

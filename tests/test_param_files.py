"""Parameter files: fingerprints, parts of files, shards, and what is wrong with them."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import blocks as bl

NET = bl.Sequential(encoder=bl.Sequential(bl.Dense(3), bl.Tanh(), bl.Dense(4)), head=bl.Dense(2))
NODE = bl.infer(NET, (5,))
PARAMS = bl.init(NODE, seed=3, initial={"**": bl.initializers.Normal()})
SHARDS = re.compile(r"net-[0-9a-f]{16}-\d{5}-of-\d{5}\.safetensors")


def same(found, params=PARAMS):
    return list(found) == list(params) and all(np.array_equal(found[p], params[p]) for p in params)


def names(folder):
    return sorted(file.name for file in folder.iterdir())


@pytest.mark.parametrize("most", [1, 50, 64, 10**9])
def test_shards(most, tmp_path):
    """Whole arrays in their order, files of at most so many bytes, or of one larger array."""
    path = tmp_path / "net.safetensors"
    bl.save_params(PARAMS, str(path), max_shard_bytes=most)
    index = json.loads((tmp_path / "net.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(a.nbytes for a in PARAMS.values())
    assert set(index["weight_map"]) == set(PARAMS)
    assert all(map(SHARDS.fullmatch, index["weight_map"].values()))
    files = sorted(set(index["weight_map"].values()))
    assert names(tmp_path) == sorted([*files, "net.safetensors.index.json"])
    for name in files:
        part = load_file(tmp_path / name)
        assert sum(a.nbytes for a in part.values()) <= most or len(part) == 1
    assert same(bl.load_params_file(path))
    assert same(bl.load_params_file(tmp_path / "net.safetensors.index.json"))
    assert len(files) == {1: 6, 50: 5, 64: 3, 10**9: 1}[most]


def test_a_file_takes_the_place_of_shards_and_the_other_way_round(tmp_path):
    path, other = tmp_path / "net.safetensors", {"a": np.ones(3)}
    strangers = [
        "net-00001-of-00002.safetensors",
        "net2-0123456789abcdef-00001-of-00001.safetensors",
    ]
    for name in strangers:
        (tmp_path / name).write_text("of somebody else")
    bl.save_params(PARAMS, path, max_shard_bytes=100)
    bl.save_params(other, path)
    assert same(bl.load_params_file(path), other)
    assert names(tmp_path) == sorted([*strangers, "net.safetensors"])
    bl.save_params(PARAMS, path, max_shard_bytes=100)
    assert same(bl.load_params_file(path))
    assert not path.exists()
    bl.save_params(other, path, max_shard_bytes=100)
    assert same(bl.load_params_file(path), other)
    assert len(names(tmp_path)) == 2 + len(strangers)


def test_no_parameters_at_all(tmp_path):
    bl.save_params({}, tmp_path / "net.safetensors", max_shard_bytes=100)
    assert bl.load_params_file(tmp_path / "net.safetensors") == {}


@pytest.mark.parametrize("most", [None, 1])
def test_a_part_is_read(most, tmp_path):
    """Only what is wanted: what is damaged elsewhere, or missing, does not matter."""
    path = tmp_path / "net.safetensors"
    bl.save_params(PARAMS, path, max_shard_bytes=most)
    found = bl.load_params_file(path, pattern="encoder/**")
    assert same(found, {p: PARAMS[p] for p in PARAMS if p.startswith("encoder/")})
    with pytest.raises(bl.ParamError, match=r"'encode/\*' matches no parameter"):
        bl.load_params_file(path, pattern="encode/*")
    with pytest.raises(bl.FieldError, match="a pattern of paths is a text"):
        bl.load_params_file(path, pattern=3)
    if most is None:
        data = path.read_bytes()
        kernel = PARAMS["head/kernel"].tobytes()
        assert kernel in data
        path.write_bytes(data.replace(kernel, kernel[:-1] + b"\x7f"))
    else:
        where = json.loads((tmp_path / f"{path.name}.index.json").read_text())["weight_map"]
        (tmp_path / where["head/kernel"]).unlink()
    assert same(bl.load_params_file(path, pattern="encoder/**"), found)
    with pytest.raises(bl.FileError, match=r"head/kernel|no such file"):
        bl.load_params_file(path)


@pytest.mark.parametrize("most", [None, 60])
def test_fingerprints(most, tmp_path):
    path = tmp_path / "net.safetensors"
    bl.save_params(PARAMS, path, network=NET, max_shard_bytes=most)
    assert same(bl.load_params_file(path, network=NET))
    assert same(bl.load_params_file(path, network=NODE))
    other = bl.Sequential(NET, bl.Tanh())
    with pytest.raises(bl.FileError, match="was written for another network") as error:
        bl.load_params_file(path, network=other)
    assert bl.fingerprint(NET) in str(error.value)
    assert bl.fingerprint(other) in str(error.value)

    bl.save_params(PARAMS, path, network=NODE, max_shard_bytes=most)
    assert same(bl.load_params_file(path, network=NET))
    assert same(bl.load_params_file(path, network=NODE))
    for change in ({"dtype": "float64"}, {"layout": "channels_first"}):
        with pytest.raises(bl.FileError, match="another input, layout or dtype"):
            bl.load_params_file(path, network=bl.infer(NET, (5,), **change))
    bl.save_params(PARAMS, path, max_shard_bytes=most)
    with pytest.raises(bl.FileError, match="does not say which network it belongs to"):
        bl.load_params_file(path, network=NET)


def test_what_a_fingerprint_covers():
    dense = bl.Dense(3)
    same = [dense, bl.Dense(3, use_bias=True), bl.Dense(features=3, kernel_init="glorot_uniform")]
    assert len({bl.fingerprint(block) for block in same}) == 1
    other = [
        bl.Dense(4),
        bl.Dense(3, kernel_init="zeros"),
        bl.Sequential(dense),
        bl.Sequential(a=dense),
        bl.Shared("a", dense),
        bl.infer(dense, (2,)),
        bl.infer(dense, (3,)),
        bl.infer(dense, (2,), dtype="float16"),
        bl.infer(dense, (2,), dtype="float16", param_dtype="float32"),
        bl.infer(dense, (2,), layout="channels_first"),
    ]
    assert len({bl.fingerprint(network) for network in [dense, *other]}) == len(other) + 1
    assert bl.fingerprint(bl.Dropout(0.0)) == bl.fingerprint(bl.Dropout(-0.0))


def test_equal_parameters_make_equal_files(tmp_path):
    for name in ("a", "b"):
        bl.save_params(PARAMS, tmp_path / name, network=NODE)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


# What is wrong with an index


def sharded(folder):
    path = folder / "net.safetensors"
    bl.save_params(PARAMS, path, max_shard_bytes=60)
    return path, folder / "net.safetensors.index.json"


def rewritten(index, change):
    """Change an index, with the checksum that it has then."""
    from blocks._param_files import digest

    data = json.loads(index.read_text())
    change(data)
    data["metadata"].pop("checksum")
    data["metadata"]["checksum"] = digest(data)
    index.write_text(json.dumps(data))


@pytest.mark.parametrize(
    "name",
    [
        *("../net.safetensors", "/etc/net.safetensors", "a/b.safetensors", "net.json", "..", "", 3),
        *("C:net.safetensors", "a\\b.safetensors", "..safetensors", "a\nb.safetensors", None),
    ],
)
def test_names_in_an_index_are_names_of_files_beside_it(name, tmp_path):
    path, index = sharded(tmp_path)
    rewritten(index, lambda data: data["weight_map"].update({"head/bias": name}))
    with pytest.raises(bl.FileError, match="which is no name of a file beside it"):
        bl.load_params_file(path)


def test_a_shard_is_no_link(tmp_path):
    path, index = sharded(tmp_path)
    shard = tmp_path / json.loads(index.read_text())["weight_map"]["head/kernel"]
    elsewhere = tmp_path / "elsewhere"
    shard.rename(elsewhere)
    shard.symlink_to(elsewhere)
    with pytest.raises(bl.FileError, match="no such file beside the index"):
        bl.load_params_file(path)


def test_all_that_is_wrong_is_said_at_once(tmp_path):
    path, index = sharded(tmp_path)
    places = json.loads(index.read_text())["weight_map"]
    gone = places["head/kernel"]
    (tmp_path / gone).unlink()
    other = places["encoder/0/kernel"]
    save = {"encoder/0/bias": np.ones(3), "new": np.ones(2)}
    bl.save_params(save, tmp_path / other)
    with pytest.raises(bl.FileError) as error:
        bl.load_params_file(path)
    text = str(error.value)
    assert f"{gone}: no such file beside the index" in text
    assert f"{other}: it holds other arrays than its name says" in text
    assert f"{other}: missing encoder/0/kernel." in text
    assert f"{other}: not in the index: encoder/0/bias, new." in text
    assert "in more than one shard: encoder/0/bias" in text


def test_an_index_that_was_changed(tmp_path):
    path, index = sharded(tmp_path)
    text = index.read_text()
    for new, words in {
        "{": "this is no JSON",
        "[]": "is no index",
        '{"metadata": {}}': "is no index",
        '{"metadata": {}, "weight_map": {}}': "holds no parameters of isoblocks",
        '{"metadata": {}, "weight_map": {}, "weight": 3}': "has no part 'weight'",
        text.replace('"1"', '"2"'): "has version '2'",
        text.replace("head/bias", "head/base"): "was damaged: its checksum is another",
        text.replace('"head/bias"', '"head/kernel"'): "has the key 'head/kernel' twice",
    }.items():
        index.write_text(new)
        with pytest.raises(bl.FileError) as error:
            bl.load_params_file(path)
        assert words in str(error.value)


def test_what_cannot_be_asked_for(tmp_path):
    for most in (0, -1, 1.5, "1"):
        with pytest.raises(bl.FieldError, match="max_shard_bytes must be an int of at least 1"):
            bl.save_params(PARAMS, tmp_path / "net.safetensors", max_shard_bytes=most)
    with pytest.raises(bl.FileError, match="holds a block, or a node"):
        bl.save_params(PARAMS, tmp_path / "net.safetensors", network=3)
    assert not names(tmp_path)


def test_more_than_the_machine_has(tmp_path, monkeypatch):
    path = tmp_path / "net.safetensors"
    bl.save_params({"a": np.ones(300), "b": np.ones(3)}, path)
    monkeypatch.setattr("blocks._arrays.machine_memory", lambda: 2000)
    with pytest.raises(bl.FileError, match=r"holds 2.4 KiB, but the machine has 2.0 KiB"):
        bl.load_params_file(path)
    assert len(bl.load_params_file(path, pattern="b")) == 1


def test_a_header_that_claims_what_is_not_there(tmp_path):
    path = tmp_path / "net.safetensors"
    header = {"format": "isoblocks parameters", "version": "1", "checksums": '{"a": ""}'}
    tensor = {"dtype": "F64", "shape": [2**40], "data_offsets": [0, 2**43]}
    for name, value in {"shape": [2**62, 2**62], "data_offsets": [0, 2**63], "dtype": "F4"}.items():
        data = {"__metadata__": header, "a": tensor | {name: value}}
        text = json.dumps(data).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text)
        with pytest.raises(bl.FileError):
            bl.load_params_file(path)
    save_file({"a": np.ones(2, np.complex64)}, path, header)
    with pytest.raises(bl.FileError, match="holds a in C64, which is not read"):
        bl.load_params_file(path)


# How files are written


def test_a_link_is_written_through(tmp_path):
    """As `open` does: the link stays, the file that it leads to is replaced."""
    (tmp_path / "runs").mkdir()
    for save, load, value in (
        (bl.save, bl.load, bl.Dense(3)),
        (bl.save_params, bl.load_params_file, PARAMS),
    ):
        link, target = tmp_path / "latest", tmp_path / "runs" / "one"
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        for _ in range(2):  # the first finds no file behind it
            save(value, link)
        assert link.is_symlink()
        assert target.is_file()
        assert not target.is_symlink()
        found = load(link)
        assert found == value if save is bl.save else same(found)
        assert names(tmp_path / "runs") == ["one"]
    bl.save_params(PARAMS, tmp_path / "latest", max_shard_bytes=60)
    assert same(bl.load_params_file(tmp_path / "latest"))
    assert "one.index.json" in names(tmp_path / "runs")


def test_permissions_stay(tmp_path):
    mask = os.umask(0o027)
    try:
        for save, value in ((bl.save, NET), (bl.save_params, PARAMS)):
            path = tmp_path / save.__name__
            save(value, path)
            assert path.stat().st_mode & 0o777 == 0o640
            path.chmod(0o604)
            save(value, path)
            assert path.stat().st_mode & 0o777 == 0o604
    finally:
        os.umask(mask)


def test_what_is_no_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        for save, value in ((bl.save, NET), (bl.save_params, PARAMS)):
            with pytest.raises(bl.FileError, match="is no regular file"):
                save(value, tmp_path / name)
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize("name", ["\ud800", "a\0", "__metadata__"])
def test_names_that_no_file_holds(name, tmp_path):
    with pytest.raises(bl.FileError, match="holds a dict from path to array"):
        bl.save_params({name: np.ones(2)}, tmp_path / "net.safetensors")


class Stop(BaseException):
    """The end of a process."""


WAYS = {"one file": {}, "shards": {"max_shard_bytes": 60}}


@pytest.mark.parametrize("before", WAYS)
@pytest.mark.parametrize("after", WAYS)
def test_a_save_may_end_at_any_step(before, after, tmp_path, monkeypatch):
    """What is read is the old content or the new one, and at the end the new one."""
    new = {path: array + 1 for path, array in PARAMS.items()}
    for last in range(100):
        folder = tmp_path / str(last)
        folder.mkdir()
        path = folder / "net.safetensors"
        bl.save_params(PARAMS, path, **WAYS[before])
        steps = 0

        def stopping(step, last=last):
            def stepped(*args, **options):
                nonlocal steps
                steps += 1
                if steps > last:  # nothing happens any more
                    raise Stop
                return step(*args, **options)

            return stepped

        with monkeypatch.context() as patch:
            for owner, name in ((os, "fsync"), (os, "replace"), (Path, "unlink")):
                patch.setattr(owner, name, stopping(getattr(owner, name)))
            try:
                bl.save_params(new, path, **WAYS[after])
            except Stop:
                done = False
            else:
                done = True
        found = bl.load_params_file(path)
        assert same(found, new) or (same(found) and not done), last
        if done:
            return


@pytest.mark.parametrize("most", [None, 1])
@pytest.mark.parametrize("dtype", [">f4", ">f8", ">i2"])
def test_numbers_in_another_order_of_bytes(dtype, most, tmp_path):
    given = {"a": np.arange(3, dtype=dtype), "b": np.array(7, dtype)}
    bl.save_params(given, tmp_path / "net", max_shard_bytes=most)
    found = bl.load_params_file(tmp_path / "net")
    assert same(found, given)
    assert all(array.dtype.isnative for array in found.values())


@pytest.mark.parametrize(
    ("first", "second"), [("net", "net.safetensors"), ("net.safetensors", "net")]
)
def test_two_sets_of_shards_of_one_name(first, second, tmp_path):
    """Their shards have names of the same form."""
    others = {name: array + 1 for name, array in PARAMS.items()}
    bl.save_params(PARAMS, tmp_path / first, max_shard_bytes=50)
    bl.save_params(others, tmp_path / second, max_shard_bytes=64)
    assert same(bl.load_params_file(tmp_path / first))
    assert same(bl.load_params_file(tmp_path / second), others)
    bl.save_params(others, tmp_path / second)
    assert same(bl.load_params_file(tmp_path / first))


@pytest.mark.parametrize("most", [None, 50])
def test_a_folder_is_not_replaced_and_nothing_is_written_beside_it(most, tmp_path):
    (tmp_path / "net").mkdir()
    with pytest.raises(bl.FileError, match="no regular file"):
        bl.save_params(PARAMS, tmp_path / "net", max_shard_bytes=most)
    assert names(tmp_path) == ["net"]
    assert names(tmp_path / "net") == []


@pytest.mark.parametrize(
    "verb",
    [
        lambda path: bl.save(NET, path),
        lambda path: bl.save_params(PARAMS, path),
        lambda path: bl.save_params(PARAMS, path, max_shard_bytes=50),
        lambda path: bl.load_params_file(path),
        lambda path: bl.read_weights(path),
    ],
)
def test_a_name_that_is_too_long(verb, tmp_path):
    with pytest.raises(bl.FileError):
        verb(tmp_path / ("a" * 300))
    assert names(tmp_path) == []

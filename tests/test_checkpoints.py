"""Checkpoints of every kind that people have; what is damaged or wants to run code is refused with its repair."""

import argparse
import json
import os
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

import closerlook as cl
from closerlook.checkpoints import ENTRIES, read_checkpoint
from closerlook.errors import CheckpointError
from conftest import digit_batches, small_net

STATE = small_net(1).state_dict()


def same(found: dict[str, Tensor], expected: dict[str, Tensor] = STATE) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


# What is read ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.pt", "a.pth", "a.bin", "a.ckpt", "a.tar", "a"])
@pytest.mark.parametrize("legacy", [False, True])
def test_files_of_torch_save(tmp_path: Path, name: str, legacy: bool) -> None:
    torch.save(STATE, tmp_path / name, _use_new_zipfile_serialization=not legacy)
    found = read_checkpoint(tmp_path / name)
    assert same(found.tensors)
    assert found.origin.startswith(f"{tmp_path / name} sha256:")


def test_files_of_safetensors(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "a.safetensors", {"format": "pt"})
    assert same(read_checkpoint(str(tmp_path / "a.safetensors")).tensors)


def test_parameters_and_extra_states_are_saved_too(tmp_path: Path) -> None:
    model = small_net(1)
    parameters = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    torch.save({**parameters, "head._extra_state": {"scale": 3}}, tmp_path / "a.pt")
    assert read_checkpoint(tmp_path / "a.pt").tensors.keys() == parameters.keys()


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_state_dict_is_found_in_what_people_save(tmp_path: Path, entry: str) -> None:
    torch.save({"epoch": 3, entry: STATE, "optimizer": {"state": {}, "param_groups": []}}, tmp_path / "a.pt")
    found = read_checkpoint(tmp_path / "a.pt")
    assert same(found.tensors)
    assert f"a.pt entry {entry} sha256:" in found.origin


@pytest.mark.parametrize(
    ("stored", "taken"),
    [
        ({"ema": small_net(2).state_dict(), "model": STATE}, "entry model (also there: ema)"),
        ({"state_dict_ema": small_net(2).state_dict(), "state_dict": STATE}, "entry state_dict (also there: state_di"),
        ({"model": {"state_dict": STATE, "args": {}}, "epoch": 1}, "entry model entry state_dict"),
        ({"params_ema": STATE, "params": {}}, "entry params_ema"),
        ({"model": "resnet18", "net": STATE}, "entry net"),
    ],
)
def test_of_several_the_plain_weights_are_taken_and_the_origin_says_so(
    tmp_path: Path, stored: dict[str, Any], taken: str
) -> None:
    torch.save(stored, tmp_path / "a.pt")
    point = cl.WeightSpace(small_net()).point(tmp_path / "a.pt")
    assert torch.equal(point.vector, cl.WeightSpace(small_net()).point(STATE).vector)
    assert taken in point.origin


def test_a_layer_with_the_name_of_an_entry_is_a_layer(tmp_path: Path) -> None:
    network = nn.ModuleDict({"model": nn.Linear(2, 2), "ema": nn.Linear(2, 2)})
    torch.save(network.state_dict(), tmp_path / "a.pt")
    assert same(read_checkpoint(tmp_path / "a.pt").tensors, network.state_dict())


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_wrappers_leave_no_trace(tmp_path: Path, prefix: str) -> None:
    torch.save({"state_dict": {prefix + name: value for name, value in STATE.items()}}, tmp_path / "a.pt")
    point = cl.WeightSpace(small_net()).point(tmp_path / "a.pt")
    assert torch.equal(point.vector, cl.WeightSpace(small_net()).point(STATE).vector)
    assert point.buffers.keys() == dict(small_net().named_buffers()).keys()


# Shards ---------------------------------------------------------------------------------------------------------------


def shards(folder: Path, ending: str = "safetensors") -> Path:
    """A checkpoint in two shards with its index, as Hugging Face writes it."""
    stem = "model" if ending == "safetensors" else "pytorch_model"
    places = {name: f"{stem}-0000{1 + number % 2}-of-00002.{ending}" for number, name in enumerate(STATE)}
    for shard in set(places.values()):
        part = {name: STATE[name] for name, place in places.items() if place == shard}
        (save_file if ending == "safetensors" else torch.save)(part, folder / shard)
    index = folder / f"{stem}.{ending}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 4}, "weight_map": places}))
    return index


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_shards_are_put_together_from_the_index_or_its_folder(tmp_path: Path, ending: str) -> None:
    index = shards(tmp_path, ending)
    found = read_checkpoint(index)
    assert same(found.tensors)
    assert list(found.tensors) == list(STATE)
    assert read_checkpoint(tmp_path).origin == found.origin
    # The hash covers the shards, not only the index.
    shard = next(tmp_path.glob(f"*-of-*.{ending}"))
    part = {name: value + 1 for name, value in read_checkpoint(shard).tensors.items()}
    (save_file if ending == "safetensors" else torch.save)(part, shard)
    assert read_checkpoint(index).origin != found.origin


def test_shards_may_be_links_and_hold_more(tmp_path: Path) -> None:
    index = shards(tmp_path)
    (tmp_path / "blobs").mkdir()
    shard = next(tmp_path.glob("*-of-*.safetensors"))
    save_file({**read_checkpoint(shard).tensors, "old": torch.zeros(1)}, tmp_path / "blobs" / "abc")
    shard.unlink()
    shard.symlink_to(tmp_path / "blobs" / "abc")
    assert same(read_checkpoint(index).tensors)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "adapter_model.safetensors"])
def test_a_folder_is_read_by_the_usual_names(tmp_path: Path, name: str) -> None:
    (save_file if name.endswith("safetensors") else torch.save)(STATE, tmp_path / name)
    torch.save({"lr": argparse.Namespace()}, tmp_path / "training_args.bin")
    assert same(read_checkpoint(tmp_path).tensors)


def test_safetensors_come_before_pickles(tmp_path: Path) -> None:
    shards(tmp_path, "bin")
    save_file(STATE, tmp_path / "model.safetensors")
    assert "model.safetensors" in read_checkpoint(tmp_path).origin


def test_a_folder_without_a_checkpoint_says_what_is_in_it(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is no file, and holds no model\.safetensors\.index\.json or"):
        read_checkpoint(tmp_path)
    (tmp_path / "weights.pt").write_text("")
    with pytest.raises(CheckpointError, match=r"give the path of one file \(there is weights\.pt\)"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "shard",
    [
        "../outside.safetensors", "sub/../../outside.safetensors", "sub/inside.safetensors", "..", "", ".",
        "..\\outside.safetensors", "model.safetensors.index.json", "config.json",
    ],
)  # fmt: skip
def test_no_shard_outside_the_folder_is_read(tmp_path: Path, shard: str) -> None:
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    for path in (tmp_path / "outside.safetensors", folder / "sub" / "inside.safetensors"):
        save_file(STATE, path)
    index = folder / "model.safetensors.index.json"
    for place in (shard, str(tmp_path / "outside.safetensors")):
        index.write_text(json.dumps({"weight_map": {"head.weight": place}}))
        with pytest.raises(CheckpointError, match="which is no file beside it; do not use this index"):
            read_checkpoint(index)


def drop_shard(index: Path) -> None:
    next(index.parent.glob("*-of-*")).unlink()


def drop_tensor(index: Path) -> None:
    shard = next(index.parent.glob("*-of-*"))
    save_file(dict(list(read_checkpoint(shard).tensors.items())[1:]), shard)


def rewrite(text: str) -> Callable[[Path], Any]:
    return lambda index: index.write_text(text)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop_shard, r"names the shard .*, which is not there; get the missing file"),
        (drop_tensor, r"looks for \S+ in model-0000.-of-00002\.safetensors, which has it not; get the files again"),
        (rewrite(""), "is no readable index"),
        (rewrite("[" * 100_000), "is no readable index"),
        (rewrite("{"), "is no readable index"),
        (rewrite("[]"), "has no weight_map"),
        (rewrite('{"weight_map": {}}'), "has no weight_map"),
        (rewrite('{"weight_map": {"a": 3}}'), "has no weight_map"),
        (lambda index: index.write_bytes(b"\xff\xfe"), "is no readable index"),
        (lambda index: next(index.parent.glob("*-of-*")).write_text("x"), "cannot be read as safetensors"),
    ],
)
def test_damaged_shards_are_named(tmp_path: Path, damage: Callable[[Path], Any], message: str) -> None:
    index = shards(tmp_path)
    damage(index)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(index)


# What is refused ------------------------------------------------------------------------------------------------------


class Evil:
    """Its unpickling would make a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


class Net(nn.Linear):
    """A class that only the saver's code has."""


NEEDS_CODE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "mkdir": (lambda folder: {"weight": Evil(folder / "ran")}, r"posix\.mkdir"),
    "a whole module": (lambda folder: Net(2, 2), r"test_checkpoints\.Net"),
    "arguments": (lambda folder: {"args": argparse.Namespace(lr=1), "model": STATE}, r"argparse\.Namespace"),
    "numbers of numpy": (lambda folder: {"best": np.float64(1), "model": STATE}, r"numpy\S*\.scalar"),
}


@pytest.mark.parametrize("kind", NEEDS_CODE)
@pytest.mark.parametrize("name", ["a.pt", "folder/pytorch_model.bin"])
def test_no_code_of_a_checkpoint_runs(tmp_path: Path, kind: str, name: str) -> None:
    make, needed = NEEDS_CODE[kind]
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    torch.save(make(tmp_path), path)
    for asked in {path, path.parent if "folder" in name else path}:
        with pytest.raises(CheckpointError, match=rf"cannot be loaded: it needs code \({needed}\).*load it where you"):
            read_checkpoint(asked)
    for protocol in (0, 2, 4):
        path.write_bytes(pickle.dumps(Evil(tmp_path / "ran"), protocol))
        with pytest.raises(CheckpointError):
            read_checkpoint(path)
    path.write_bytes(b"cos\nmkdir\n(S'" + str(tmp_path / "ran").encode() + b"'\ntR.")
    with pytest.raises(CheckpointError):
        read_checkpoint(path)
    assert not (tmp_path / "ran").exists()


def test_an_archive_of_torchscript_is_refused(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="a TorchScript archive, which holds code"):
        read_checkpoint(tmp_path / "a.pt")


HOLDS_NONE: list[tuple[Any, str]] = [
    ({"epoch": 3}, "holds no state dict, but a dict with epoch; load it where you trust it and save"),
    ({"state": {}, "param_groups": []}, "but a dict with state, param_groups"),
    ({"weight": torch.zeros(1), "epoch": 3}, "but a dict with weight, epoch"),
    ({"state_dict": {"epoch": 3}}, "but a dict with epoch"),
    ({}, "but an empty dict"),
    ([torch.zeros(1)], "but a list"),
    (torch.zeros(1), "but a Tensor"),
    ({f"key{number}": 1 for number in range(9)}, r"key0, key1, key2, key3, key4, key5 \.\.\."),
    ({"weight": torch.zeros(1, device="meta")}, "holds no numbers for weight"),
]


@pytest.mark.parametrize(("stored", "message"), HOLDS_NONE)
def test_a_file_without_a_state_dict_is_refused(tmp_path: Path, stored: Any, message: str) -> None:
    torch.save(stored, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(tmp_path / "a.pt")


JUNK: dict[str, bytes] = {
    "empty": b"",
    "text": b"hello world",
    "code": b"import os\nos.mkdir('ran')\n",
    "JSON": b'{"weight": [1, 2]}',
    "zeros": bytes(1000),
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
    "an empty archive": b"PK\x05\x06" + bytes(18),
    "the address of a file kept elsewhere": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n",
}


@pytest.mark.parametrize("kind", JUNK)
@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, kind: str, name: str) -> None:
    (tmp_path / name).write_bytes(JUNK[kind])
    with pytest.raises(CheckpointError, match=rf"{name} (cannot be|is empty).*"):
        read_checkpoint(tmp_path / name)


def safetensors_header(length: int, header: bytes, data: bytes = b"") -> bytes:
    return length.to_bytes(8, "little") + header + data


OUTSIDE = json.dumps({"w": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode()
OVERFLOW = json.dumps({"w": {"dtype": "F32", "shape": [1 << 62, 1 << 62], "data_offsets": [0, 4]}}).encode()
HEADERS = {
    "huge": safetensors_header(1 << 62, b"{}"),
    "longer than the file": safetensors_header(1000, b"{}"),
    "no JSON": safetensors_header(4, b"nope"),
    "data outside the file": safetensors_header(len(OUTSIDE), OUTSIDE),
    "a size that overflows": safetensors_header(len(OVERFLOW), OVERFLOW, bytes(4)),
    "deep": safetensors_header(100_000, b"[" * 100_000),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_headers_that_lie_are_refused(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.safetensors").write_bytes(HEADERS[kind])
    with pytest.raises(CheckpointError, match=r"a\.safetensors cannot be read as safetensors"):
        read_checkpoint(tmp_path / "a.safetensors")


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
@pytest.mark.parametrize("left", [0.02, 0.3, 0.6, 0.95, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, name: str, left: float) -> None:
    path = tmp_path / name
    (save_file if name.endswith("safetensors") else torch.save)(STATE, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(left * len(whole))])
    with pytest.raises(CheckpointError, match=f"{name} cannot be"):
        read_checkpoint(path)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["zip", "legacy", "safetensors"]),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4),
    kept=st.floats(0, 1),
)
def test_changed_bytes_give_a_checkpoint_or_a_typed_error(
    tmp_path: Path, kind: str, changes: list[tuple[float, int]], kept: float
) -> None:
    path = tmp_path / ("a.safetensors" if kind == "safetensors" else "a.pt")
    if kind == "safetensors":
        save_file({"weight": torch.ones(3)}, path)
    else:
        torch.save({"weight": torch.ones(3)}, path, _use_new_zipfile_serialization=kind == "zip")
    data = bytearray(path.read_bytes())
    for place, value in changes:
        data[int(place * len(data))] = value
    path.write_bytes(data[: max(1, int(kept * len(data)))] if kept < 0.5 else data)
    try:
        assert all(isinstance(value, Tensor) for value in read_checkpoint(path).tensors.values())
    except CheckpointError as error:
        assert path.name in str(error)  # noqa: PT017


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.pt", "a\0b", tmp_path / "no" / "folder.safetensors"):
        with pytest.raises(CheckpointError, match="no checkpoint at"):
            read_checkpoint(path)
    os.mkfifo(tmp_path / "pipe.pt")  # reading it would wait for ever
    with pytest.raises(CheckpointError, match="is no file"):
        read_checkpoint(tmp_path / "pipe.pt")


def test_every_instrument_takes_them_all(tmp_path: Path) -> None:
    shards(tmp_path)
    torch.save(
        {"model": {f"module.{name}": value for name, value in small_net(2).state_dict().items()}}, tmp_path / "b.pt"
    )
    expected = cl.barrier(small_net(), small_net(1), small_net(2), digit_batches(), points=3)
    assert cl.barrier(small_net(), tmp_path, tmp_path / "b.pt", digit_batches(), points=3) == expected

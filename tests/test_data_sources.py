"""Data sets by name, the order of places, files that are not what they should be. Nothing leaves the machine."""

import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from closerlook.data import SOURCES, describe, fetch, load
from closerlook.data import fashion as room
from closerlook.data.checked import inflate
from closerlook.data.download import Published
from closerlook.data.idx import parse
from closerlook.data.lookup import places
from closerlook.errors import DataMissingError, UsageError

IMAGES = np.random.RandomState(0).randint(0, 256, (12, 28, 28), dtype=np.uint8)
LABELS = np.arange(12, dtype=np.uint8) % 10


def idx(array: np.ndarray) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


CONTENT = {
    "train-images-idx3-ubyte.gz": idx(IMAGES),
    "train-labels-idx1-ubyte.gz": idx(LABELS),
    "t10k-images-idx3-ubyte.gz": idx(IMAGES[:4]),
    "t10k-labels-idx1-ubyte.gz": idx(LABELS[:4]),
}


def write(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in CONTENT.items():
        (folder / name).write_bytes(gzip.compress(content))
    return folder


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files with their own checksums, an empty home, no system folders, and no way out."""
    checksums = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()}
    monkeypatch.setattr(room, "FASHION", Published("fashion-mnist", checksums, "a-package", ("http://mirror",), 1))
    monkeypatch.setattr(room, "fetch_files", lambda *_: pytest.fail("went to the network"))
    monkeypatch.setattr("sys.prefix", str(tmp_path / "prefix"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CLOSERLOOK_DATA", raising=False)
    monkeypatch.delenv("XDG_DATA_DIRS", raising=False)


def test_resolutions_follow_the_definition(tmp_path: Path) -> None:
    folder = write(tmp_path / "own")
    native, padded, halved = (load("fashion", size, folder) for size in (28, 32, 16))
    expected = (torch.from_numpy(IMAGES).float()[:, None] / 255 - 0.2860) / 0.3530
    torch.testing.assert_close(native.prepare(native.train_inputs), expected)
    frame = padded.prepare(padded.train_inputs)
    torch.testing.assert_close(frame[:, :, 2:-2, 2:-2], expected)
    assert not frame[:, :, :2].any()
    assert not frame[:, :, :, 30:].any()
    blocks = frame.reshape(12, 1, 16, 2, 16, 2).mean((3, 5))
    torch.testing.assert_close(halved.prepare(halved.train_inputs), blocks)
    assert halved.input_shape() == (1, 16, 16)
    assert load("fashion", data_dir=folder).input_shape() == (1, 32, 32)
    assert native.train_targets.tolist() == LABELS.tolist()
    assert native.test_inputs.shape == (4, 1, 28, 28)


def test_the_order_of_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_DIRS", "/opt/one:/usr/share")
    monkeypatch.setenv("CLOSERLOOK_DATA", "/data")
    shares = [tmp_path / "prefix/share", Path("/usr/share"), Path("/usr/local/share"), Path("/opt/one")]
    expected = [Path("/data"), Path("/data/set"), tmp_path / "cache/closerlook/set"]
    assert [place.folder for place in places("set")] == expected + [share / "datasets/set" for share in shares]
    assert [place.folder for place in places("set", "/here")] == [Path("/here"), Path("/here/set")]
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert Path.home() / ".cache/closerlook/set" in [place.folder for place in places("set")]


@pytest.mark.parametrize("where", ["env", "env/fashion-mnist", "cache/closerlook/fashion-mnist"])
def test_files_are_found_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    write(tmp_path / "prefix/share/datasets/fashion-mnist")
    monkeypatch.setenv("CLOSERLOOK_DATA", str(tmp_path / "env"))
    assert fetch("fashion") == tmp_path / "prefix/share/datasets/fashion-mnist"
    write(tmp_path / where)
    assert fetch("fashion") == tmp_path / where
    assert load("fashion").name == "fashion"


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "truncated":
        path.write_bytes(data[:-9])
    elif how == "damaged":
        path.write_bytes(data[:60] + bytes([data[60] ^ 255]) + data[61:])
    else:
        path.write_bytes(gzip.compress(idx(255 - IMAGES)))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("truncated", "is truncated: .*SHA-256 of the file [0-9a-f]{64}; its content should have [0-9a-f]{64}"),
        ("damaged", "is (damaged|truncated): .*SHA-256 of the file"),
        ("another", "is not the published file: its SHA-256 is [0-9a-f]{64}, not [0-9a-f]{64}"),
    ],
)
def test_faulty_files_in_a_named_folder_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, message: str
) -> None:
    write(tmp_path / "cache/closerlook/fashion-mnist")
    folder = write(tmp_path / "own")
    damage(folder / "train-images-idx3-ubyte.gz", how)
    with pytest.raises(UsageError, match=rf"own/train-images-idx3-ubyte\.gz {message}"):
        load("fashion", data_dir=folder)
    monkeypatch.setenv("CLOSERLOOK_DATA", str(folder))
    with pytest.raises(UsageError, match=message):
        load("fashion")


def test_faulty_files_elsewhere_are_passed_by_aloud(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage(write(tmp_path / "cache/closerlook/fashion-mnist") / "train-labels-idx1-ubyte.gz", "truncated")
    system = write(tmp_path / "prefix/share/datasets/fashion-mnist")
    assert fetch("fashion") == system
    assert "train-labels-idx1-ubyte.gz is truncated" in capsys.readouterr().err


def test_a_named_folder_without_the_files_is_not_replaced_by_another(tmp_path: Path) -> None:
    write(tmp_path / "cache/closerlook/fashion-mnist")
    with pytest.raises(DataMissingError, match="apt-get install a-package") as caught:
        load("fashion", data_dir=tmp_path / "empty")
    for line in (f"{tmp_path}/empty", "--data-dir FOLDER", "CLOSERLOOK_DATA=FOLDER", "--data digits"):
        assert line in str(caught.value)


def test_digits_are_normalised_and_disjoint() -> None:
    source = load("digits")
    images = torch.cat([source.train_inputs, source.test_inputs])
    assert images.shape == (1797, 1, 8, 8)
    assert source.test_targets.bincount(minlength=10).min() > 20
    assert float(images.mean()) == pytest.approx(0, abs=1e-4)
    assert float(images.std()) == pytest.approx(1, abs=1e-4)
    assert torch.equal(load("digits").test_inputs, source.test_inputs)


def test_synthetic_classes_lie_apart() -> None:
    source = load("synthetic", 8)
    means = torch.stack([source.train_inputs[source.train_targets == label].mean(0) for label in range(10)]).flatten(1)
    nearest = torch.cdist(source.test_inputs.flatten(1), means).argmin(1)
    assert (nearest == source.test_targets).float().mean() > 0.85
    assert load("synthetic").input_shape() == (1, 16, 16)
    assert torch.equal(load("synthetic", 8).train_inputs, source.train_inputs)


def test_sources_leave_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    load("synthetic", 4)
    load("digits")
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fashoin",), "no built-in data 'fashoin'; did you mean fashion"),
        (("imagenet",), "did you mean fashion, cifar10, cifar100, mnist5k, digits, synthetic"),
        (("fashion", 64), "resolutions 32, 28, 16, not 64"),
        (("digits", 16), "digits are 8x8"),
        (("digits", None, "/data"), "come with scikit-learn"),
        (("synthetic", 2), "at least 4x4"),
        (("cifar10", 28), "cifar10 has resolutions 32, 16, not 28"),
        (("cifar100", 28), "cifar100 has resolutions 32, 16, not 28"),
        (("mnist5k", 64), "mnist5k has resolutions 32, 28, 16, not 64"),
        (("a.b:c", 28), "drop resolution, data_dir"),
    ],
)
def test_wrong_use_names_the_repair(arguments: tuple, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(*arguments)


def test_describe_lists_every_source() -> None:
    assert [row["name"] for row in describe()] == list(SOURCES)
    assert fetch("digits") is None
    assert fetch("my.data:parts") is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not an IDX file"),
        (b"\0\0\x0d\1\0\0\0\0", "not an IDX file"),
        (b"\0\0\x08\2\0\0\0\1", "not an IDX file"),
        (idx(LABELS)[:-1], "holds 11 values where its header says 12"),
        (idx(LABELS) + b"\0", "holds 13 values"),
    ],
)
def test_idx_says_what_is_wrong(data: bytes, message: str) -> None:
    with pytest.raises(UsageError, match=f"some file {message}|some file is {message}"):
        parse(data, "some file")


def test_idx_needs_gzip() -> None:
    with pytest.raises(UsageError, match="some file is damaged"):
        inflate(b"plain bytes", "some file")
    assert np.array_equal(parse(idx(IMAGES), "some file"), IMAGES)

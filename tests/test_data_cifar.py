"""CIFAR's pickles, read without running what is in them. The files are made here, byte by byte as Python 2 did."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from closerlook.data import load
from closerlook.data.cifar import CIFAR10, CIFAR100, Cifar
from closerlook.errors import DataMissingError, UsageError

N = 6


def text(value: bytes) -> bytes:
    return b"U" + bytes([len(value)]) + value


def python2_array(array: np.ndarray) -> bytes:
    """A uint8 array as protocol 2 of Python 2 with NumPy 1 writes it."""
    dtype = b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R(K\x03" + text(b"|") + b"NNN" + b"J\xff\xff\xff\xff" * 2
    state = (
        b"(K\x01" + b"".join(b"M" + size.to_bytes(2, "little") for size in array.shape) + b"\x86" + dtype + b"K\x00tb"
    )
    data = b"\x89T" + array.nbytes.to_bytes(4, "little") + array.tobytes()
    return (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85" + text(b"b") + b"tR" + state + data + b"tb"
    )


def python2_batch(images: np.ndarray, labels: list[int], key: bytes = b"labels") -> bytes:
    def listed(name: bytes, numbers: list[int]) -> bytes:
        return text(name) + b"](" + b"".join(b"K" + bytes([number]) for number in numbers) + b"e"

    # CIFAR-100 has other labels in the same file, none of which may be taken for the fine ones.
    coarse = listed(b"coarse_labels", [19] * len(labels)) if key == b"fine_labels" else b""
    items = text(b"data") + python2_array(images) + coarse + listed(key, labels)
    return b"\x80\x02}(" + items + text(b"batch_label") + text(b"batch 1") + b"u."


def images_of(number: int) -> np.ndarray:
    return np.random.RandomState(number).randint(0, 256, (N, 3072), dtype=np.uint8)


def write(kind: Cifar, place: Path) -> Path:
    """The files of a data set, file i with images drawn from i and label i (CIFAR-100: 50 + i)."""
    inside = place / kind.archive.folder
    inside.mkdir(parents=True)
    for number, file in enumerate(kind.archive.members):
        label = number if kind is CIFAR10 else 50 + number
        (inside / file).write_bytes(python2_batch(images_of(number), [label] * N, kind.labels))
    return place


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(CIFAR10, tmp_path)


@pytest.mark.parametrize(("kind", "labels"), [(CIFAR10, [0, 1, 2, 3, 4, 5]), (CIFAR100, [50, 51])])
def test_images_and_labels_come_in_order(kind: Cifar, labels: list[int], tmp_path: Path) -> None:
    folder = write(kind, tmp_path)
    source = load(kind.name, data_dir=folder)
    assert source.train_targets.tolist() == [label for label in labels[:-1] for _ in range(N)]
    assert source.test_targets.tolist() == [labels[-1]] * N
    assert (source.name, source.classes) == (kind.name, kind.classes)
    assert np.array_equal(source.train_inputs[:N].reshape(N, -1), images_of(0))
    assert source.input_shape() == (3, 32, 32)
    pixels = source.test_inputs.float() / 255
    expected = (pixels - torch.tensor(kind.mean).reshape(3, 1, 1)) / torch.tensor(kind.std).reshape(3, 1, 1)
    torch.testing.assert_close(source.prepare(source.test_inputs), expected)
    halved = load(kind.name, 16, folder)
    blocks = expected.reshape(N, 3, 16, 2, 16, 2).mean((3, 5))
    torch.testing.assert_close(halved.prepare(halved.test_inputs), blocks)


def test_the_two_are_told_apart(tmp_path: Path) -> None:
    write(CIFAR10, tmp_path)
    with pytest.raises(DataMissingError, match="no cifar-100-python files"):
        load("cifar100", data_dir=tmp_path)
    inside = write(CIFAR100, tmp_path) / "cifar-100-python"
    (inside / "test").write_bytes(python2_batch(images_of(0), [1] * N))
    with pytest.raises(UsageError, match=r"test is not a file of cifar100: b'fine_labels'"):
        load("cifar100", data_dir=tmp_path)


class Bomb:
    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_code_in_a_file_is_not_run(folder: Path, tmp_path: Path) -> None:
    mark = tmp_path / "it ran"
    path = folder / "cifar-10-batches-py/data_batch_3"
    path.write_bytes(pickle.dumps({b"data": Bomb(mark), b"labels": []}, protocol=2))
    with pytest.raises(
        UsageError, match=r"data_batch_3 is not a file of cifar10: it asks for .*, which no array needs"
    ):
        load("cifar10", data_dir=folder)
    assert not mark.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x02}(U",
        python2_batch(images_of(0), [1] * N)[:-700],
        python2_batch(images_of(0), [1] * (N - 1)),
        python2_batch(images_of(0), [10] * N),
        pickle.dumps([1, 2], protocol=2),
        pickle.dumps({b"labels": [1]}, protocol=2),
    ],
)
def test_what_is_no_batch_is_named_with_its_checksum(folder: Path, data: bytes) -> None:
    (folder / "cifar-10-batches-py/test_batch").write_bytes(data)
    with pytest.raises(UsageError, match=r"test_batch is not a file of cifar10: .*\(SHA-256 [0-9a-f]{64}\)"):
        load("cifar10", data_dir=folder)


@pytest.mark.parametrize("kind", [CIFAR10, CIFAR100])
def test_missing_files_say_where_to_get_them(kind: Cifar, tmp_path: Path) -> None:
    with pytest.raises(DataMissingError) as caught:
        load(kind.name, data_dir=tmp_path)
    for part in (str(tmp_path), kind.archive.file, "https://www.cs.toronto.edu/~kriz/", "--data-dir", "--data fashion"):
        assert part in str(caught.value)

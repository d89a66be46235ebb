"""CIFAR-10's pickles: read without running what is in them. The files are made here, byte by byte as Python 2 did."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from closerlook.data import load
from closerlook.data.cifar import FILES, MEAN, STD
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


def python2_batch(images: np.ndarray, labels: list[int]) -> bytes:
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    items = text(b"data") + python2_array(images) + text(b"labels") + numbers + text(b"batch_label") + text(b"batch 1")
    return b"\x80\x02}(" + items + b"u."


def images_of(number: int) -> np.ndarray:
    return np.random.RandomState(number).randint(0, 256, (N, 3072), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inside = tmp_path / "cifar-10-batches-py"
    inside.mkdir()
    for number, file in enumerate(FILES):
        (inside / file).write_bytes(python2_batch(images_of(number), [number] * N))
    return tmp_path


def test_images_and_labels_come_in_order(folder: Path) -> None:
    source = load("cifar10", data_dir=folder)
    assert source.train_targets.tolist() == [number for number in range(5) for _ in range(N)]
    assert source.test_targets.tolist() == [5] * N
    assert np.array_equal(source.train_inputs[:N].reshape(N, -1), images_of(0))
    assert source.input_shape() == (3, 32, 32)
    pixels = source.test_inputs.float() / 255
    expected = (pixels - torch.tensor(MEAN).reshape(3, 1, 1)) / torch.tensor(STD).reshape(3, 1, 1)
    torch.testing.assert_close(source.prepare(source.test_inputs), expected)
    halved = load("cifar10", 16, folder)
    blocks = expected.reshape(N, 3, 16, 2, 16, 2).mean((3, 5))
    torch.testing.assert_close(halved.prepare(halved.test_inputs), blocks)


class Bomb:
    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_code_in_a_file_is_not_run(folder: Path, tmp_path: Path) -> None:
    mark = tmp_path / "it ran"
    path = folder / "cifar-10-batches-py/data_batch_3"
    path.write_bytes(pickle.dumps({b"data": Bomb(mark), b"labels": []}, protocol=2))
    with pytest.raises(UsageError, match=r"data_batch_3 is not a CIFAR-10 batch: it asks for .*, which no array needs"):
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
    with pytest.raises(UsageError, match=r"test_batch is not a CIFAR-10 batch: .*\(SHA-256 [0-9a-f]{64}\)"):
        load("cifar10", data_dir=folder)


def test_missing_files_say_where_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(DataMissingError, match=r"cifar-10-python\.tar\.gz"):
        load("cifar10", data_dir=tmp_path)
